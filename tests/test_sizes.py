"""The smallest and the largest: the twin's result, or a clear error."""

import tracemalloc

import numpy as np
import pytest
import reference
from _helpers import TEXTBOOK
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from skdl import SoftmaxRegressionClassifier

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
ONE_PASS = {**TEXTBOOK, "lr": 0.1, "momentum": 0, "shuffle": False}
RNG = np.random.default_rng(0)


def one_epoch(X, y, n_classes, backend, batch_size=128):
    """partial_fit on X, and the twin's coefficients."""
    clf = SoftmaxRegressionClassifier(**ONE_PASS, batch_size=batch_size, backend=backend)
    clf.partial_fit(X, y, classes=np.arange(n_classes))
    dense = np.asarray(X.todense() if sparse.issparse(X) else X, dtype=float)
    n_logits = 1 if n_classes == 2 else n_classes
    W, b, V, v = (np.zeros(shape) for shape in ((n_logits, dense.shape[1]), n_logits) * 2)
    n_batches = -(-len(y) // batch_size)
    reference.run_epoch(
        W, b, V, v, dense, y, np.ones(len(y)), np.arange(len(y)), batch_size, [0.1] * n_batches,
        momentum=0, l1=0, l2=0, fit_intercept=True,
    )  # fmt: skip
    return clf, W, b


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(
    ("n", "d", "batch_size"),
    [(1, 1, 128), (1, 5, 1), (2, 1, 1), (3, 2, 10**9), (129, 1, 128), (257, 3, 128), (7, 17, 7)],
)
def test_small(n, d, batch_size, n_classes, container, backend):
    X, y = container(RNG.normal(size=(n, d))), RNG.integers(0, n_classes, n)
    clf, W, b = one_epoch(X, y, n_classes, backend, batch_size)
    assert_allclose(clf.coef_, W, rtol=1e-9, atol=1e-12)
    assert_allclose(clf.intercept_, b, rtol=1e-9, atol=1e-12)
    assert clf.predict(X).shape == (n,)


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("n", [2, 3])
def test_the_smallest_fit(n, container, backend):
    """Two rows and one feature at the defaults."""
    X = np.arange(n)[:, np.newaxis].astype(float)
    clf = SoftmaxRegressionClassifier(backend=backend).fit(container(X), np.arange(n) > 0)
    assert clf.score(container(X), np.arange(n) > 0) == 1
    clf.partial_fit(container(X[:1]), [False])  # a single row of a single class is a batch
    with pytest.raises(ValueError, match="0 sample"):
        clf.partial_fit(container(X[:0]), [])
    assert clf.n_iter_ > 2


@pytest.mark.parametrize("lr", ["auto", 0.1])
def test_csr_without_a_value(lr, backend):
    X, y = sparse.csr_array((20, 3), dtype=np.float32), np.arange(20) % 4 == 0
    clf = SoftmaxRegressionClassifier(lr=lr, max_iter=300, backend=backend).fit(X, y)
    assert (clf.coef_ == 0).all()
    assert_allclose(clf.predict_proba(X)[:, 1], 0.25, atol=0.02)


def test_a_hundred_thousand_classes(backend):
    X, y = RNG.normal(size=(40, 3)), RNG.integers(0, 100_000, 40)
    clf, W, b = one_epoch(X, y, 100_000, backend)
    assert_allclose(clf.coef_, W, rtol=1e-9, atol=1e-15)
    assert_allclose(clf.intercept_, b, rtol=1e-9, atol=1e-15)
    probabilities = clf.predict_proba(X.astype("f4"))
    assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert_array_equal(clf.predict(X), clf.classes_[(X @ W.T + b).argmax(axis=1)])


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_a_million_features(container, backend):
    d = 1_000_000
    X = np.zeros((12, d), dtype=np.float32)
    X[np.arange(12), RNG.integers(0, d, 12)] = X[:, -1] = 1
    y = np.arange(12) % 3
    clf, W, b = one_epoch(container(X), y, 3, backend, batch_size=5)
    assert_allclose(clf.coef_, W, rtol=1e-5, atol=1e-7)
    assert_allclose(clf.intercept_, b, rtol=1e-5, atol=1e-7)
    clf = SoftmaxRegressionClassifier(max_iter=3, backend=backend).fit(container(X[:, -100_000:]), y)
    assert np.isfinite(clf.coef_).all()


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba", "decision_function"])
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_memory_of_a_prediction(container, method):
    """On the CPU, none that grows with the rows beside the result."""
    X = container(RNG.integers(0, 2, (20_000, 16)).astype("f4"))
    clf = SoftmaxRegressionClassifier(**ONE_PASS).partial_fit(X, np.arange(20_000) % 100, classes=np.arange(100))
    tracemalloc.start()
    result = getattr(clf, method)(X)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    numbers = result.nbytes if method == "predict" else 0  # of the classes, before their labels
    assert peak < result.nbytes + numbers + 1_000_000


def test_more_than_2_to_the_31_elements(tmp_path, backend):
    """A file of 2.4 GB, of holes but for some rows at its ends. The others weigh nothing, so none of them is read."""
    n, d = 3_000_000, 784
    assert n * d > 2**31
    X = np.memmap(tmp_path / "X", dtype=np.uint8, mode="w+", shape=(n, d))
    rows = np.r_[0:100, n - 300 : n]
    X[rows] = RNG.integers(0, 256, (400, d))
    y, weight = np.zeros(n, dtype=np.uint8), np.zeros(n)
    y[rows], weight[rows] = np.arange(400) % 3, 1
    settings = {
        "max_iter": 3,
        "random_state": 0,
        "early_stopping": True,
        "backend": backend,
    }  # which predicts rows, too
    clf = SoftmaxRegressionClassifier(**settings).fit(X, y, sample_weight=weight)
    expected = SoftmaxRegressionClassifier(**settings).fit(X[rows], y[rows])
    assert_array_equal(clf.coef_, expected.coef_)
    assert clf.validation_loss_curve_ == expected.validation_loss_curve_


@pytest.mark.large
def test_csr_of_more_than_2_to_the_31_values(tmp_path, backend):
    """26 GB of files of holes: the first row has 2^31 + 10 zeros in column 0 and weighs nothing."""
    n_holes = 2**31 + 10
    small = sparse.random_array((300, 50), density=0.2, format="csr", dtype=np.float32, rng=0)
    parts = []
    for name, dtype, values in (("data", np.float32, small.data), ("indices", np.int64, small.indices)):
        part = np.memmap(tmp_path / name, dtype=dtype, mode="w+", shape=n_holes + small.nnz)
        part[n_holes:] = values
        parts.append(part)
    X = sparse.csr_array((small[:1].data[:0], small[:1].indices[:0], [0] * 302), shape=(301, 50))
    X.data, X.indices = parts
    X.indptr = np.r_[0, n_holes + small.indptr.astype(np.int64)]
    y, weight = np.arange(301) % 3, np.ones(301)
    weight[0] = 0
    clf = SoftmaxRegressionClassifier(max_iter=3, lr=0.1, random_state=0, backend=backend)
    clf.fit(X, y, sample_weight=weight)
    expected = SoftmaxRegressionClassifier(max_iter=3, lr=0.1, random_state=0, backend=backend).fit(small, y[1:])
    assert_array_equal(clf.coef_, expected.coef_)
    X.indices[-1] = 50
    with pytest.raises(ValueError, match=r"index at position \d{10} is not in"):
        clf.fit(X, y, sample_weight=weight)
