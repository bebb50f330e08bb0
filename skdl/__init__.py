"""Softmax regression for scikit-learn: minibatch SGD on Cython/OpenMP and OpenCL kernels, no scaler, nothing to tune.

>>> from skdl import SoftmaxRegressionClassifier
>>> model = SoftmaxRegressionClassifier().fit([[0.0], [1.0], [4.0], [5.0]], ["low", "low", "high", "high"])
>>> model.predict([[0.5], [4.5]]).tolist()
['low', 'high']
"""

from skdl._blocks import Blocks
from skdl._classifier import SoftmaxRegressionClassifier
from skdl._displays import LossCurveDisplay, SearchDisplay
from skdl._search import SoftmaxRegressionClassifierCV, one_standard_error
from skdl._show_versions import show_versions
from skdl._version import __version__

__all__ = [
    "Blocks",
    "LossCurveDisplay",
    "SearchDisplay",
    "SoftmaxRegressionClassifier",
    "SoftmaxRegressionClassifierCV",
    "__version__",
    "one_standard_error",
    "show_versions",
]
