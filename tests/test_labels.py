"""What y may be: any form and type of labels, of two classes or many."""

from functools import partial

import _helpers
import numpy as np
import pandas as pd
import pytest
from _helpers import DIGITS, LABELS, same_model
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from skdl import SoftmaxRegressionClassifier

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]
N, D = DIGITS.shape
make = partial(_helpers.make, batch_size=32)


@pytest.mark.parametrize(
    "represent",
    [
        list,
        lambda y: y.astype(">i8"),
        lambda y: y.astype("u1"),
        lambda y: np.repeat(y, 3)[::3],
        lambda y: y[:, np.newaxis],
    ],
    ids=["list", "big-endian", "uint8", "strided", "column"],
)
@pytest.mark.filterwarnings("ignore:A column-vector y")
def test_y(represent):
    X = DIGITS.astype("f8")
    same_model(make().fit(X, represent(LABELS)), make().fit(X, LABELS))


@pytest.mark.parametrize("container", [np.array, sparse.csr_array])
def test_two_classes(container):
    X, y = container(DIGITS.astype("f8")), np.where(LABELS > 4, "high", "low")
    clf = make(max_iter=20).fit(X, y)
    logits, probabilities = clf.decision_function(X), clf.predict_proba(X)
    assert clf.coef_.shape == (1, D) and clf.intercept_.shape == (1,)
    assert logits.shape == (N,) and probabilities.shape == clf.predict_log_proba(X).shape == (N, 2)
    assert_allclose(probabilities[:, 1], 1 / (1 + np.exp(-logits)), rtol=1e-12)  # logits speak for classes_[1]
    assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)
    assert_array_equal(clf.predict(X), clf.classes_[(logits > 0).astype(int)])
    assert clf.score(X, y) > 0.85


def test_many_classes():
    clf = make().fit(DIGITS, LABELS)
    assert clf.coef_.shape == (10, D) and clf.intercept_.shape == (10,)
    logits = clf.decision_function(DIGITS)
    assert logits.shape == (N, 10)
    # float64 probabilities of float32 logits are rounded to float32, so their sums are that exact and no more
    assert_allclose(clf.predict_proba(DIGITS).sum(axis=1), 1, atol=1e-6)
    assert_array_equal(clf.predict(DIGITS), clf.classes_[logits.argmax(axis=1)])


@pytest.mark.parametrize("dtype", ["Int64", "UInt8", "boolean", "int64[pyarrow]", "bool[pyarrow]", object])
@pytest.mark.parametrize("container", [pd.array, pd.Series])
def test_nullable_labels_keep_their_type(container, dtype):
    """float64, which NumPy makes of them, would merge the two largest."""
    largest = 1 if dtype in ("boolean", "bool[pyarrow]") else 200 if dtype == "UInt8" else 2**54 + 1
    labels = np.where(LABELS > 4, largest, largest - 1)
    if largest == 1:
        labels = labels.astype(bool)
    y = container(labels, dtype=dtype)
    clf = make().fit(DIGITS, y)
    assert clf.classes_.dtype == {"UInt8": np.uint8}.get(dtype, labels.dtype)
    assert_array_equal(clf.classes_, np.unique(labels))
    assert_array_equal(make().partial_fit(DIGITS, y, classes=y).classes_, clf.classes_)
    watched = make().fit(DIGITS, y, X_val=DIGITS, y_val=y)
    assert watched.validation_scores_[-1] == clf.score(DIGITS, labels)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "i8", "u8", ">i4"])
@pytest.mark.parametrize("end", ["low", "high"])
def test_integer_labels_at_the_ends_of_their_type(dtype, end):
    limits = np.iinfo(dtype)
    labels = np.array([7, 0, 200], dtype=object)  # further apart than int8 is wide
    labels = limits.min + labels if end == "low" else limits.max - labels
    y = np.tile(labels, 100).astype(dtype)
    X = (y == y.max()).astype(float)[:, np.newaxis]
    clf = SoftmaxRegressionClassifier(random_state=0).fit(X, y)
    assert_array_equal(clf.classes_, np.unique(y))
    assert clf.classes_.dtype == np.unique(y).dtype
    assert (clf.predict(X)[y == y.max()] == y.max()).all()


def test_labels_that_look_like_numbers_to_be_predicted():
    with pytest.warns(UserWarning, match="regression"):
        SoftmaxRegressionClassifier(max_iter=1).fit(np.arange(60.0)[:, np.newaxis], np.arange(60) // 1.5)
    with pytest.warns(UserWarning, match="regression"):
        SoftmaxRegressionClassifier(max_iter=1).fit(np.arange(60.0)[:, np.newaxis], np.arange(60) % 40)
