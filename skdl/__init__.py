"""Softmax regression for scikit-learn, trained by minibatch SGD on Cython/OpenMP kernels.

__init__ -> _classifier -> _sgd
                       `-> _backends -> openmp -> _kernels
"""

from skdl._classifier import SoftmaxRegressionClassifier
from skdl._show_versions import show_versions
from skdl._version import __version__

__all__ = ["SoftmaxRegressionClassifier", "__version__", "show_versions"]
