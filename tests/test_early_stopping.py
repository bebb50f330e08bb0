"""Early stopping, on rows held out or on a validation set of one's own, and the curves of such a set."""

from functools import partial

import _helpers
import numpy as np
import pytest
from _helpers import DIGITS, LABELS, same_model
from scipy import sparse
from sklearn.metrics import log_loss

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]
N = len(DIGITS)
make = partial(_helpers.make, batch_size=32)


def noisy():
    """Labels of which a fifth are drawn by lot: a model that fits them all is worse on new ones."""
    rng = np.random.default_rng(0)
    X, y = DIGITS.astype("f8"), LABELS.copy()
    lot = rng.random(N) < 0.2
    y[lot] = rng.integers(0, 10, lot.sum())
    return X[:200], y[:200], X[200:], y[200:]


@pytest.mark.parametrize("container", [np.array, sparse.csr_array])
@pytest.mark.parametrize("weight", [None, np.linspace(0, 3, 200)], ids=["plain", "weighted"])
def test_early_stopping_keeps_the_best_weights(container, weight):
    X, y, X_val, y_val = noisy()
    clf = make(max_iter=200, early_stopping=True, lr_schedule="constant", alpha=0)
    clf.fit(container(X), y, X_val=container(X_val), y_val=y_val, sample_weight_val=weight)
    curve = clf.validation_loss_curve_
    assert clf.n_iter_ < 200
    assert np.argmin(curve) < len(curve) - 1, "the last weights are the best: this data tests nothing"
    loss = log_loss(y_val, clf.predict_proba(container(X_val)), sample_weight=weight)
    assert loss == pytest.approx(min(curve), rel=1e-9)
    score = clf.score(container(X_val), y_val, sample_weight=weight)
    assert score == pytest.approx(clf.validation_scores_[np.argmin(curve)])


def test_early_stopping_splits_off_the_fraction():
    """With nearly all rows held out, the labels of few are learnt."""
    X, y = DIGITS.astype("f8"), LABELS
    few = make(early_stopping=True, validation_fraction=0.9).fit(X, y)
    most = make(early_stopping=True, validation_fraction=0.1).fit(X, y)
    assert few.n_iter_ == len(few.validation_scores_) > 0
    assert most.score(X, y) > few.score(X, y)


@pytest.mark.parametrize("params", [{}, {"early_stopping": True}, {"lr": 1e-3}], ids=["plain", "early stopping", "lr"])
def test_curves_have_one_value_an_epoch(params):
    X, y, X_val, y_val = noisy()
    clf = make(max_iter=7, **params).fit(X, y, X_val=X_val, y_val=y_val)
    assert 1 <= clf.n_iter_ <= 7
    assert clf.n_iter_ == len(clf.loss_curve_) == len(clf.validation_loss_curve_) == len(clf.validation_scores_)
    if not params:  # whole run, and the last value is that of the fitted model
        assert clf.n_iter_ == 7
        assert clf.validation_loss_curve_[-1] == pytest.approx(log_loss(y_val, clf.predict_proba(X_val)), rel=1e-9)
        assert clf.validation_scores_[-1] == pytest.approx(clf.score(X_val, y_val))


def test_watching_does_not_change_the_model():
    X, y, X_val, y_val = noisy()
    watched = make().fit(X, y, X_val=X_val, y_val=y_val)
    plain = make().fit(X, y)
    same_model(watched, plain)
    assert not hasattr(plain, "validation_loss_curve_") and not hasattr(plain, "validation_scores_")
    assert not hasattr(watched.fit(X, y), "validation_loss_curve_")  # curves of another fit do not stay


def test_a_falling_step_does_not_keep_what_was_overfitted():
    """Where the optimum has long been passed when the step falls."""
    X, y, X_val, y_val = noisy()
    half = len(y_val) // 2
    losses, n_epochs = {}, {}
    for schedule in ("constant", "cosine"):
        clf = make(max_iter=200, early_stopping=True, lr_schedule=schedule, alpha=0)
        clf.fit(X, y, X_val=X_val[:half], y_val=y_val[:half])
        losses[schedule] = log_loss(y_val[half:], clf.predict_proba(X_val[half:]))
        n_epochs[schedule] = clf.n_iter_
    assert losses["cosine"] < 1.02 * losses["constant"]
    assert n_epochs["cosine"] < 50
