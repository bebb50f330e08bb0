"""What the tests share: MNIST, and the backends."""

import pytest
from _data import IMAGES, images

from skdl import SoftmaxRegressionClassifier
from skdl.openmp import _threads

pytest.register_assert_rewrite("_helpers")


@pytest.fixture(scope="session")
def mnist():
    """X_train (60000, 784) uint8, y_train, X_test (10000, 784), y_test."""
    if not IMAGES["mnist"].exists():
        pytest.skip("MNIST is in the repository, not in the sdist")
    X, X_test, y, y_test = images("mnist", "raw")
    return X, y, X_test, y_test


@pytest.fixture(autouse=True)
def more_threads_than_cores(monkeypatch):
    """Tests that ask for threads get them, on any machine."""
    monkeypatch.setattr(_threads, "available_cores", lambda: 64)


@pytest.fixture(params=["openmp", "opencl"])
def backend(request, monkeypatch):
    """Each backend in turn, as what the estimator uses by default."""
    monkeypatch.setitem(SoftmaxRegressionClassifier.__init__.__kwdefaults__, "backend", request.param)
    return request.param
