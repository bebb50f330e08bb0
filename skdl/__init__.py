"""Softmax regression for scikit-learn, trained by minibatch SGD on Cython/OpenMP kernels."""

from skdl._classifier import SoftmaxRegressionClassifier

__version__ = "0.1.0"
__all__ = ["SoftmaxRegressionClassifier"]
