"""Weights of rows and of classes."""

from functools import partial

import _helpers
import numpy as np
import pytest
from _helpers import DIGITS, LABELS, TEXTBOOK, same_model
from numpy.testing import assert_allclose
from scipy import sparse
from sklearn.utils.class_weight import compute_class_weight

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]
N = len(DIGITS)
make = partial(_helpers.make, batch_size=32)


@pytest.mark.parametrize("container", [np.array, sparse.csr_array])
@pytest.mark.parametrize("lr", ["auto", 1e-3])
@pytest.mark.parametrize("l1_ratio", [0.0, 0.5])
def test_whole_weights_are_repetition(container, lr, l1_ratio):
    X, y = DIGITS[:80].astype("f8"), LABELS[:80]
    weight = np.arange(80) % 4
    params = {"lr": lr, "l1_ratio": l1_ratio, "batch_size": 1000, "max_iter": 20}  # one batch: the order cannot matter
    weighted = make(**params).fit(container(X), y, sample_weight=weight)
    repeated = make(**params).fit(container(np.repeat(X, weight, axis=0)), np.repeat(y, weight))
    assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-7, atol=1e-12)
    assert_allclose(weighted.intercept_, repeated.intercept_, rtol=1e-7, atol=1e-12)
    assert_allclose(weighted.loss_curve_, repeated.loss_curve_, rtol=1e-7)
    assert not np.allclose(weighted.coef_, make(**params).fit(container(X), y).coef_, rtol=1e-3)


@pytest.mark.parametrize("container", [np.array, sparse.csr_array])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("params", [{}, TEXTBOOK, {"early_stopping": True}], ids=["auto", "textbook", "early stopping"])
@pytest.mark.parametrize("uneven", [False, True])
def test_rows_of_weight_zero_are_left_out(container, dtype, params, uneven):
    X, y = DIGITS.astype(dtype), LABELS
    weight = np.linspace(1, 3, N) if uneven else np.ones(N)
    weight[::3] = 0
    keep = weight > 0
    zero = make(**params).fit(container(X), y, sample_weight=weight)
    out = make(**params).fit(container(X[keep]), y[keep], sample_weight=weight[keep] if uneven else None)
    same_model(zero, out)


@pytest.mark.parametrize("params", [{}, TEXTBOOK, {"early_stopping": True}], ids=["auto", "textbook", "early stopping"])
def test_scale_of_weights_does_not_matter(params):
    """To a numeric alpha; for "auto" a weight of 7 is seven rows."""
    params = {"alpha": 1e-3, **params}
    X, weight = DIGITS.astype("f8"), np.linspace(0.5, 2, N)
    one, seven = (make(**params).fit(X, LABELS, sample_weight=s * weight) for s in (1, 7))
    assert_allclose(seven.coef_, one.coef_, rtol=1e-8, atol=1e-12)
    assert_allclose(seven.loss_curve_, one.loss_curve_, rtol=1e-10)
    constant = make(**params).fit(X, LABELS, sample_weight=np.full(N, 7.0))
    assert_allclose(constant.coef_, make(**params).fit(X, LABELS).coef_, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    "represent",
    [list, lambda w: w.astype("f4"), lambda w: np.repeat(w, 2)[::2], lambda w: w.astype(">f8")],
    ids=["list", "float32", "strided", "big-endian"],
)
def test_forms_of_weights(represent):
    X, weight = DIGITS.astype("f8"), (np.arange(N) % 5 + 1) / 4  # exact in float32
    same_model(make().fit(X, LABELS, sample_weight=represent(weight)), make().fit(X, LABELS, sample_weight=weight))


def test_class_weight_dict_is_a_sample_weight():
    X, weight = DIGITS.astype("f8"), np.linspace(1, 2, N)
    of_class = {0: 3.0, 4: 0.5, 9: 0.0}
    each = np.array([of_class.get(label, 1.0) for label in LABELS.tolist()])
    weighted = weight * each
    # of the same total as the rows in use, or as their sample weights
    each *= (each > 0).sum() / each.sum()
    weighted *= weight[weighted > 0].sum() / weighted.sum()
    clf = make(class_weight=of_class)
    same_model(clf.fit(X, LABELS), make().fit(X, LABELS, sample_weight=each))
    by_class, by_row = clf.fit(X, LABELS, sample_weight=weight), make().fit(X, LABELS, sample_weight=weighted)
    assert_allclose(by_class.coef_, by_row.coef_, rtol=1e-9, atol=1e-13)
    first = make(class_weight=of_class).partial_fit(X, LABELS, classes=range(10))
    same_model(first, make().partial_fit(X, LABELS, classes=range(10), sample_weight=each))


def test_class_weight_of_string_labels():
    X, names = DIGITS.astype("f8"), np.array([f"digit {label}" for label in LABELS])
    named, numbered = make(class_weight={"digit 3": 5}).fit(X, names), make(class_weight={3: 5}).fit(X, LABELS)
    same_model(named, numbered, but="classes_")


@pytest.mark.parametrize("weight", [None, np.linspace(1, 2, 300)], ids=["plain", "weighted"])
def test_balanced_is_a_dict(weight):
    keep = np.flatnonzero((LABELS != 3) | (np.arange(N) % 3 == 0))[:300]
    X, y = DIGITS[keep].astype("f8"), LABELS[keep]
    of_class = compute_class_weight("balanced", classes=np.arange(10), y=y, sample_weight=weight)
    balanced = make(class_weight="balanced").fit(X, y, sample_weight=weight)
    listed = make(class_weight=dict(enumerate(of_class))).fit(X, y, sample_weight=weight)
    assert_allclose(balanced.coef_, listed.coef_, rtol=1e-9, atol=1e-13)
    assert_allclose(balanced.loss_curve_, listed.loss_curve_, rtol=1e-10)
    assert not np.allclose(balanced.coef_, make().fit(X, y, sample_weight=weight).coef_, rtol=1e-3)


def test_balanced_in_a_stream_counts_all_rows_so_far():
    X, y, params = DIGITS.astype("f8"), LABELS // 4, {"lr": 1e-3, "shuffle": False}
    balanced, by_hand = make(class_weight="balanced", **params), make(**params)
    for rows in (slice(0, 100), slice(100, 400)):
        each = (1 / np.bincount(y[: rows.stop]))[y[rows]]
        each *= rows.stop / 3  # what all rows so far stand for does not change
        balanced.partial_fit(X[rows], y[rows], classes=range(3))
        by_hand.partial_fit(X[rows], y[rows], classes=range(3), sample_weight=each)
    assert_allclose(balanced.coef_, by_hand.coef_, rtol=1e-9, atol=1e-13)
    assert not np.allclose(balanced.coef_, make(**params).partial_fit(X, y, classes=range(3)).coef_, rtol=1e-3)


@pytest.mark.parametrize("class_weight", [{0: 1, 1: 50}, "balanced"])
@pytest.mark.parametrize("size", [1, 10, 300])
def test_class_weights_count_in_calls_of_any_size(class_weight, size):
    rng = np.random.default_rng(0)
    y = (rng.random(300) < 0.1).astype(int)
    X = rng.normal(size=(300, 5)) + 0.5 * y[:, np.newaxis]

    def mean_probability(**params):
        model = make(**params)
        for i in range(0, 300, size):
            model.partial_fit(X[i : i + size], y[i : i + size], classes=[0, 1])
        return model.predict_proba(X)[:, 1].mean()

    assert mean_probability() < 0.15 < 0.2 < mean_probability(class_weight=class_weight)


@pytest.mark.parametrize(
    ("params", "weights", "reason"),
    [
        ({"early_stopping": True}, None, "validation_fraction=0.1 leaves"),
        ({"early_stopping": True, "validation_fraction": 0.99}, None, "leaves none to train on"),
        ({}, [1, 0], "sample_weight and class_weight leave rows of one class only"),
        ({"class_weight": {1: 0}}, None, "sample_weight and class_weight leave rows of one class only"),
    ],
)
def test_one_class_that_is_left(params, weights, reason):
    with pytest.raises(ValueError, match=reason):
        make(**params).fit([[0.0], [1.0]], [0, 1], sample_weight=weights)
