"""Fits that go on: partial_fit and warm_start."""

from functools import partial

import _helpers
import numpy as np
import pytest
from _helpers import DIGITS, LABELS, TEXTBOOK, same_model
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]
make = partial(_helpers.make, batch_size=32)


@pytest.mark.parametrize("container", [np.array, sparse.csr_array])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("n_classes", [2, 10])
def test_partial_fit_is_one_epoch_of_a_constant_step(container, dtype, n_classes):
    X, y = container(DIGITS.astype(dtype)), LABELS % n_classes
    streamed = make(lr=1e-3).partial_fit(X, y, classes=range(n_classes))
    same_model(streamed, make(lr=1e-3, max_iter=1, lr_schedule="constant").fit(X, y))
    assert streamed.n_iter_ == 1 and streamed.lr_ == 1e-3


@pytest.mark.parametrize(
    "container, alpha",
    # on CSR the penalty of a feature that rests is taken in one go with its momentum, at the end of each call: with
    # alpha the pieces differ at the order of lr * alpha
    [(np.array, 1e-2), (sparse.csr_array, 0)],
)
def test_partial_fit_in_pieces_is_one_pass(container, alpha):
    """The velocity is carried from call to call."""
    X, params = (
        DIGITS.astype("f8"),
        {"lr": 1e-3, "alpha": alpha, "standardize": False, "shuffle": False, "batch_size": 50},
    )
    whole = make(**params).partial_fit(container(X), LABELS, classes=range(10))
    pieces = make(**params)
    for rows in (slice(0, 100), slice(100, 250), slice(250, 400)):
        pieces.partial_fit(container(X[rows]), LABELS[rows], classes=range(10))
    assert_allclose(pieces.coef_, whole.coef_, rtol=1e-9, atol=1e-13)
    assert_allclose(pieces.intercept_, whole.intercept_, rtol=1e-9, atol=1e-13)


def test_partial_fit_knows_classes_that_did_not_come_yet():
    clf = make().partial_fit(DIGITS[LABELS < 5], LABELS[LABELS < 5], classes=range(10))
    assert clf.coef_.shape == (10, DIGITS.shape[1])
    assert_array_equal(clf.classes_, np.arange(10))
    for _ in range(10):
        clf.partial_fit(DIGITS, LABELS)
    assert clf.n_iter_ == len(clf.loss_curve_) == 11
    assert clf.score(DIGITS, LABELS) > 0.9


@pytest.mark.parametrize("container", [np.array, sparse.csr_array])
def test_warm_start_continues(container):
    X = container(DIGITS.astype("f8"))
    clf = make(warm_start=True).fit(X, LABELS)
    cold = clf.loss_curve_[0]
    assert clf.fit(X, LABELS).loss_curve_[0] < 0.5 * cold
    assert make(warm_start=False).fit(X, LABELS).fit(X, LABELS).loss_curve_[0] == cold


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_no_intercept_is_kept_where_none_is_fitted(method):
    X = DIGITS.astype("f8")
    clf = make(warm_start=True).fit(X, LABELS)
    assert clf.intercept_.any()
    clf.set_params(fit_intercept=False)
    assert not getattr(clf, method)(X, LABELS).intercept_.any()


def test_two_warm_epochs_are_two_epochs():
    X = DIGITS.astype("f8")
    params = dict(TEXTBOOK, momentum=0, shuffle=False)
    warm = make(**params, max_iter=1, warm_start=True).fit(X, LABELS).fit(X, LABELS)
    assert_allclose(warm.coef_, make(**params, max_iter=2).fit(X, LABELS).coef_, rtol=1e-12, atol=1e-15)


def test_fitted_arrays_stay_when_the_fit_goes_on():
    """coef_ of one fit is no buffer of the next."""
    X = DIGITS.astype("f8")
    clf = make(warm_start=True).fit(X, LABELS)
    coef, copy = clf.coef_, clf.coef_.copy()
    clf.fit(X, LABELS)
    clf.partial_fit(X, LABELS)
    assert_array_equal(coef, copy)
    assert not np.array_equal(clf.coef_, copy)
