"""Numbers at the ends of their range: finite probabilities that sum to 1, or a clear error; and no warning."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import sparse
from sklearn.metrics import log_loss

from skdl import SoftmaxRegressionClassifier

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]
RNG = np.random.default_rng(0)
N = 300
FEATURES = RNG.normal(size=(N, 4))
SIGNAL = FEATURES @ [1.0, -2.0, 0.5, 0.0]
LABELS = {2: (SIGNAL > 0).astype(int), 3: np.digitize(SIGNAL, [-1, 1])}


def model_of(coef, intercept, backend):
    """A fitted model with these coefficients."""
    n_classes = max(2, len(coef))
    clf = SoftmaxRegressionClassifier(lr=0.1, max_iter=1, backend=backend)
    clf.fit(np.zeros((3 * n_classes, coef.shape[1]), coef.dtype), np.tile(np.arange(n_classes), 3))
    clf.coef_, clf.intercept_ = coef, intercept
    return clf


def check_probabilities(clf, X):
    probabilities, logarithms = clf.predict_proba(X), clf.predict_log_proba(X)
    ulp = np.finfo(probabilities.dtype).eps
    assert probabilities.dtype == logarithms.dtype == np.result_type(X, clf.coef_)
    assert (probabilities >= 0).all() and (probabilities <= 1).all()
    assert max(abs(math.fsum(row) - 1) for row in probabilities.tolist()) <= 4 * ulp
    assert np.isfinite(logarithms).all() and (logarithms <= 0).all()
    # the two tell the same, as far as a probability can: subnormal ones have fewer digits
    large = probabilities > np.finfo(probabilities.dtype).tiny
    assert_allclose(np.exp(logarithms[large]), probabilities[large], rtol=200 * ulp)
    labels = np.arange(X.shape[0]) % len(clf.classes_)
    assert np.isfinite(log_loss(labels, probabilities, labels=clf.classes_))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("n_classes", [2, 3, 10, 1000])
@pytest.mark.parametrize("scale", [0, 1e-2, 1, 10, 1e3, 1e30])
def test_probabilities(dtype, n_classes, scale, backend):
    rng = np.random.default_rng(0)
    coef = scale * rng.normal(size=(1 if n_classes == 2 else n_classes, 20))
    clf = model_of(coef.astype(dtype), np.zeros(len(coef), dtype), backend)
    check_probabilities(clf, rng.normal(size=(100, 20)).astype(dtype))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(
    "logits", [[1e30], [-1e30], [800.0], [-800.0], [1e30, -1e30, 0], [1e-40, 0, -1e-40], ["max", "min", 0], [100, 0, 0]]
)
def test_probabilities_of_extreme_logits(logits, dtype, backend):
    ends = {"max": np.finfo(dtype).max, "min": np.finfo(dtype).min}
    logits = np.array([ends.get(x, x) for x in logits], dtype=dtype)
    clf = model_of(np.zeros((len(logits), 1), dtype), logits, backend)
    check_probabilities(clf, np.zeros((3, 1), dtype))
    expected = int(logits[0] > 0) if len(logits) == 1 else logits.argmax()
    assert (clf.predict(np.zeros((3, 1), dtype)) == expected).all()


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_logits_beyond_the_type_are_an_error(container, backend):
    """1e38 * 100 is beyond float32: inf - inf would be a NaN among the probabilities."""
    clf = model_of(np.full((3, 2), 100, np.float32), np.zeros(3, np.float32), backend)
    X = np.full((1, 2), 1e38, np.float32)
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        with pytest.raises(ValueError, match=r"X is too large.*float32"), np.errstate(over="ignore"):
            getattr(clf, method)(container(X))
    assert clf.predict(container(X.astype(np.float64))).shape == (1,)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("size", ["subnormal", "tiny", "huge"])
def test_sizes_of_features(size, container, dtype, n_classes, backend):
    """With no penalty, which would hold the large coefficients of tiny features down."""
    factor = {
        "subnormal": np.finfo(dtype).tiny / 100,
        "tiny": np.finfo(dtype).tiny * 1e3,
        "huge": np.sqrt(np.finfo(dtype).max),
    }[size]
    X, y = container((FEATURES * factor).astype(dtype)), LABELS[n_classes]
    clf = SoftmaxRegressionClassifier(alpha=0, max_iter=60, random_state=0, backend=backend).fit(X, y)
    check_probabilities(clf, X)
    if size != "subnormal":  # 1 / scale is beyond the type: nothing can be learned from these, and nothing is spoilt
        assert clf.score(X, y) > 0.95
    clf = SoftmaxRegressionClassifier(max_iter=60, random_state=0, backend=backend).fit(X, y)
    check_probabilities(clf, X)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_features_too_large_for_their_sums(dtype, backend):
    X = (FEATURES / abs(FEATURES).max() * np.finfo(dtype).max).astype(dtype)
    with pytest.raises(ValueError, match=r"X is too large for lr='auto'.*Divide X"):
        SoftmaxRegressionClassifier(backend=backend).fit(X, LABELS[2])


@pytest.mark.parametrize("factor", [1e-300, 1e300])
def test_features_at_the_ends_of_their_range(factor, backend):
    """No penalty overflows, so they are learned from."""
    clf = SoftmaxRegressionClassifier(random_state=0, backend=backend, max_iter=100).fit(FEATURES * factor, LABELS[2])
    assert clf.score(FEATURES * factor, LABELS[2]) > 0.95


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_a_million_to_one(container, dtype, n_classes, backend):
    """The rows that weigh count: rows with labels of their own get them right."""
    heavy = np.random.default_rng(1).random(N) < 0.05
    weight, y = np.where(heavy, 1e6, 1.0), LABELS[n_classes].copy()
    y[~heavy] = np.random.default_rng(2).integers(0, n_classes, (~heavy).sum())
    X = container(FEATURES.astype(dtype))
    clf = SoftmaxRegressionClassifier(random_state=0, backend=backend).fit(X, y, sample_weight=weight)
    check_probabilities(clf, X)
    assert clf.score(X[heavy], y[heavy]) == 1


@pytest.mark.parametrize("weight", [1e-320, 1e-300, 1e300])
def test_weights_of_any_size(weight, backend):
    """A common factor changes nothing but alpha="auto", for which weights count rows: of less than one it takes one."""
    X, y, even = FEATURES, LABELS[3], np.linspace(1, 2, N)
    plain, clf = (
        SoftmaxRegressionClassifier(alpha=1e-3, random_state=0, backend=backend).fit(X, y, sample_weight=even * factor)
        for factor in (1, weight)
    )
    assert_allclose(clf.predict_proba(X), plain.predict_proba(X), atol=0.02)  # 1e-320 has three digits
    clf = SoftmaxRegressionClassifier(random_state=0, backend=backend).fit(X, y, sample_weight=even * weight)
    check_probabilities(clf, X)
    assert 0 < clf.alpha_ < 1e4  # that of one row, or of as many as make the penalty vanish


@pytest.mark.parametrize("alpha", [1e30, 1e300])
@pytest.mark.parametrize("l1_ratio", [0.0, 1.0])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_a_penalty_beyond_all_bounds(container, dtype, l1_ratio, alpha, backend):
    X, y = container(FEATURES.astype(dtype)), LABELS[3]
    clf = SoftmaxRegressionClassifier(alpha=alpha, l1_ratio=l1_ratio, max_iter=100, backend=backend).fit(X, y)
    assert abs(clf.coef_).max() < 1e-25
    assert_allclose(clf.predict_proba(X), np.tile(np.bincount(y) / N, (N, 1)), atol=0.02)
