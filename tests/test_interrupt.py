"""Ctrl-C and any other signal whose handler raises: long work stops inside, and the estimator stays as it was."""

import signal
import time

import numpy as np
import pytest
from _helpers import fitted_state, logits
from scipy import sparse

from skdl import SoftmaxRegressionClassifier
from skdl._backends import get_backend
from skdl._data import InMemory

# Rows that are visited again and again stand for data that need many seconds a pass.
FEW, WIDE, CLASSES = 64, 20_000, 50
X = np.random.default_rng(0).normal(size=(FEW, WIDE)).astype(np.float32)
CSR = sparse.csr_array(X)
Y = np.arange(FEW, dtype=np.int32) % CLASSES


class Stop(Exception):
    pass


@pytest.fixture
def stopped_in_time():
    """Have a signal handler raise after 0.3 s; `stopped_in_time(work)` asserts that the work ends within 0.5 s of it."""

    def handler(signum, frame):
        raise Stop

    def check(work):
        start = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(Stop):
            work()
        assert time.monotonic() - start < 0.8

    before = signal.signal(signal.SIGALRM, handler)
    yield check
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def training_of(name, X, n_jobs, batch_size):
    backend = get_backend(name)(InMemory(X), CLASSES, n_jobs=n_jobs)
    momentum = np.array([0.9])
    return backend.start(None, None, mean=None, scale=None, l1=None, l2=None, momentum=momentum, fit_intercept=True,
                         batch_size=batch_size)  # fmt: skip


@pytest.mark.parametrize(("name", "n_jobs"), [("openmp", 1), ("openmp", 3), ("opencl", None)])
@pytest.mark.parametrize("batch_size", [128, 200_000])
@pytest.mark.parametrize("X", [X, CSR], ids=["dense", "csr"])
def test_an_epoch(stopped_in_time, X, batch_size, name, n_jobs):
    if name == "opencl" and batch_size > len(CSR.indptr) and sparse.issparse(X):
        pytest.skip("scipy makes no minibatch of 4e9 stored values")
    order = np.arange(200_000) % FEW  # 0.8 TFLOP
    training = training_of(name, X, n_jobs, batch_size)
    block = InMemory(X, Y).block
    training.run(block, order[np.newaxis, :64], np.full((1, 1, 1), 1e-9))  # OpenCL drivers compile at the first launch
    step_sizes = np.full((1, 1, -(-len(order) // batch_size)), 1e-9)
    stopped_in_time(lambda: training.run(block, order[np.newaxis], step_sizes))


@pytest.mark.parametrize("backend", ["openmp", "opencl"])
@pytest.mark.parametrize("X", [X, CSR], ids=["dense", "csr"])
def test_statistics(stopped_in_time, X, backend):
    source = InMemory(X, Y)
    backend = get_backend(backend)(source, CLASSES)
    stopped_in_time(lambda: backend.statistics(source.block, np.arange(3_000_000) % FEW))


@pytest.mark.parametrize(("name", "n_jobs"), [("openmp", 1), ("openmp", 3), ("opencl", None)])
@pytest.mark.parametrize("X", [X, CSR], ids=["dense", "csr"])
def test_prediction(stopped_in_time, X, name, n_jobs):
    if name == "opencl" and sparse.issparse(X):
        pytest.skip("its 4096 rows of 20,000 values that are copied at once take a second")
    coef, rows = np.zeros((CLASSES, WIDE), np.float32), np.arange(500_000) % FEW
    stopped_in_time(lambda: logits(name, X, coef, np.zeros(CLASSES), rows=rows, n_jobs=n_jobs))


@pytest.mark.parametrize("X", [X, CSR], ids=["dense", "csr"])
def test_the_estimator_stays_as_it_was(stopped_in_time, X):
    y = Y % 5
    model = SoftmaxRegressionClassifier(max_iter=1, lr=0.1).fit(X[:, :50], y)
    before = fitted_state(model)
    model.set_params(max_iter=1_000_000, lr=1e-9)
    stopped_in_time(lambda: model.fit(X, y))
    assert fitted_state(model) == before
    model.set_params(max_iter=1).fit(X, y)
    assert model.coef_.shape == (5, WIDE)
