"""What asv follows from commit to commit: a few fits and predictions, by the public interface, which older commits had."""

import warnings

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from skdl import SoftmaxRegressionClassifier

TEXTBOOK = dict(lr=1e-4, momentum=0, alpha=0, lr_schedule="constant", batch_size=100, max_iter=5, random_state=0)


def data(n, d, k, dtype):
    """Rows like MNIST's: four of five values are zero, the others lie between 0 and 255."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (n, d)) * (rng.random((n, d)) < 0.2)
    return X.astype(dtype), rng.integers(0, k, n)


class Fit:
    """Dense fits of five epochs."""

    params = (["float32", "uint8", "float64"], [10, 100])
    param_names = ("type", "classes")

    def setup(self, dtype, k):
        warnings.simplefilter("ignore", ConvergenceWarning)
        self.X, self.y = data(20_000, 784, k, dtype)

    def time_textbook(self, dtype, k):
        SoftmaxRegressionClassifier(**TEXTBOOK).fit(self.X, self.y)

    def time_default(self, dtype, k):
        SoftmaxRegressionClassifier(max_iter=5, random_state=0).fit(self.X, self.y)


class SparseFit:
    def setup(self):
        warnings.simplefilter("ignore", ConvergenceWarning)
        self.X = sparse.random_array((20_000, 20_000), density=7e-4, format="csr", dtype=np.float32, rng=0)
        self.y = np.random.default_rng(0).integers(0, 50, 20_000)

    def time_default(self):
        SoftmaxRegressionClassifier(max_iter=3, random_state=0).fit(self.X, self.y)


class Predict:
    params = ([1, 20_000], ["float32", "uint8"])
    param_names = ("rows", "type")

    def setup(self, n, dtype):
        warnings.simplefilter("ignore", ConvergenceWarning)
        X, y = data(20_000, 784, 10, dtype)
        self.model = SoftmaxRegressionClassifier(max_iter=1, random_state=0).fit(X, y)
        self.X = X[:n]

    def time_predict(self, n, dtype):
        self.model.predict(self.X)
