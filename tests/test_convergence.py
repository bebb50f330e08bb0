"""Whether the optimum is near: what is measured, what users are told, and when a fit ends."""

import re
import warnings

import numpy as np
import pytest
import reference
from _helpers import DIGITS, LABELS, Problem, make, objective, quiet_fit, same_model
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from skdl import SoftmaxRegressionClassifier, _convergence, _schedule
from skdl._backends import get_backend
from skdl._convergence import Gap, Gauge, no_model_loss
from skdl._data import InMemory
from skdl._parameters import check
from skdl._plan import Survey, make_plan
from skdl._schedule import Schedule, is_flat

X, Y = DIGITS.astype(np.float64), LABELS
DATASETS = {"iris": load_iris, "wine": load_wine, "breast cancer": load_breast_cancer, "digits": load_digits}
RNG = np.random.default_rng(0)


def words(clf, X, y, **kwargs):
    """What a fit says, one warning at most."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clf.fit(X, y, **kwargs)
    assert len(caught) <= 1
    return str(caught[0].message) if caught else None


# ---- the measurement


def gauge_of(X, y, weight=None, rows=None, backend="openmp", **params):
    source = InMemory(X, y, weight, rows)
    options = check(make(**{"lr": 1e-3, "alpha": 1e-2, "standardize": False, "batch_size": 32, **params}))
    backend = get_backend(backend)(source, 1 if y.max() == 1 else int(y.max()) + 1)
    return Gauge(make_plan(Survey(source, backend), options))


@pytest.mark.parametrize("csr", [False, True])
def test_the_gradient_of_all_rows(backend, csr):
    """Of minibatches of which the last is smaller, weighted, at any parameters; and the loss."""
    problem = Problem(90, 7, 3, csr=csr)
    gauge = gauge_of(problem.X, problem.y, problem.weight, rows=np.arange(5, 90), backend=backend)
    U = gauge.scaling.apply(problem.X)
    U = U.toarray() if csr else U
    weight = problem.weight / problem.weight[5:].mean()
    loss, W, b = reference.loss_and_gradient(problem.W, problem.b, U[5:], problem.y[5:], weight[5:])
    got_loss, got = gauge._loss_and_gradient(np.column_stack((problem.W, problem.b)))
    assert got_loss == pytest.approx(loss / 85)
    assert_allclose(got, np.column_stack((W, b)) / 85, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("n_classes", [2, 10])
@pytest.mark.parametrize("csr", [False, True])
def test_the_gap_is_that_to_the_optimum(csr, n_classes):
    """Within a factor of two, at models that are near and at those that are farther away."""
    y, data = LABELS % n_classes, sparse.csr_array(X) if csr else X
    gauge = gauge_of(data, y)
    peer = LogisticRegression(C=1 / (1e-2 * len(y)), tol=1e-8, max_iter=10_000).fit(X, y)

    def objective(model):
        return log_loss(y, model.predict_proba(X)) + 1e-2 / 2 * (model.coef_**2).sum()

    for epochs in (10, 30):
        model = quiet_fit(make(alpha=1e-2, standardize=False, max_iter=epochs), data, y)
        gap = gauge.measure(1e-2, model.coef_, model.intercept_, 5)
        assert gap.objective == pytest.approx(objective(model), rel=1e-6)
        assert 0.5 < gap.excess / (objective(model) - objective(peer)) < 2


def test_far_is_five_per_cent_or_a_little():
    assert Gap(1.0, 1.0, 0.05).is_far and not Gap(1.0, 1.0, 0.047).is_far
    assert Gap(0.01, 0.01, 0.006).is_far and not Gap(0.01, 0.01, 0.0049).is_far


def test_no_model_knows_the_frequencies():
    y, weight = np.array([0, 0, 0, 1]), np.array([1.0, 1, 1, 3])
    assert no_model_loss(InMemory(np.ones((4, 1)), y), 2, True) == pytest.approx(0.5623, abs=1e-4)
    assert no_model_loss(InMemory(np.ones((4, 1)), y, weight), 2, True) == pytest.approx(np.log(2))
    assert no_model_loss(InMemory(np.ones((4, 1)), y), 2, False) == pytest.approx(np.log(2))


# ---- what users are told


@pytest.mark.parametrize("name", DATASETS)
def test_the_defaults_converge_and_stop(name):
    X, y = DATASETS[name](return_X_y=True)
    clf = SoftmaxRegressionClassifier(random_state=0)
    assert words(clf, X, y) is None
    assert clf.n_iter_ == len(clf.loss_curve_) < 3000 / np.ceil(len(y) / 128)


@pytest.mark.parametrize("name", DATASETS)
def test_the_step_holds_while_the_penalty_falls(name):
    """Where it has overshot the loss is flat, and small: most of the objective is penalty, and far from its optimum."""
    X, y = DATASETS[name](return_X_y=True)
    X, y = X[::4] if name == "digits" else X, y[::4] if name == "digits" else y
    clf = SoftmaxRegressionClassifier(alpha=1e-4, random_state=0)
    assert words(clf, X, y) is None
    longest = quiet_fit(clone(clf).set_params(max_iter=20_000, tol=1e-7), X, y)
    least = objective(longest, X, y, 1e-4)
    assert objective(clf, X, y, 1e-4) < least + max(0.05 * least, 0.005)


def test_few_epochs_need_more():
    X, y = load_digits(return_X_y=True)
    assert re.fullmatch(
        r"Training ended after 3 epochs with a loss of [\d.]+; the objective is about [\d.]+ above its optimum\. "
        r"Raise max_iter to 200\.",
        words(make(max_iter=3), X, y),
    )
    assert words(make(max_iter=200), X, y) is None


def test_a_small_numeric_step_needs_more_or_auto():
    assert words(make(lr=1e-6, max_iter=30), X, Y).endswith("Raise max_iter to 750, or use lr='auto'.")


def test_a_loss_above_even_odds_means_that_the_step_is_too_large():
    """Whatever the number of epochs; it used to be told to make more of them."""
    data = np.random.default_rng(0).normal(size=(2000, 50))
    clf = make(lr=100.0, momentum=0, lr_schedule="constant", alpha=0)
    assert words(clf, np.c_[data, data * 50], np.arange(2000) % 3).endswith(
        "That is more than the 1.099 of even odds: lr=100 is too large. Choose a smaller lr, or lr='auto'."
    )


@pytest.mark.parametrize("max_iter", [100, "auto"])
@pytest.mark.parametrize("lr", [1.0, 10.0, 1000.0])
def test_an_alpha_that_a_large_step_takes_down(lr, max_iter):
    """Where the classes are separable loss and penalty are 0 then, and nothing was said; or to make more epochs."""
    assert re.fullmatch(
        r"alpha='auto' has fallen to [\d.e-]+ from 0\.00065: lr=[\d.e+]+ is too large, and so are the coefficients\. "
        r"Choose a smaller lr, or lr='auto'\.",
        words(make(lr=lr, max_iter=max_iter), X, Y),
    )


def test_a_small_alpha_has_a_far_optimum():
    data, y = load_digits(return_X_y=True)
    far = make(alpha=1e-9, max_iter=200, momentum=0)
    assert re.search(
        r"With alpha=1e-09 the optimum is far away\. Raise alpha \(alpha='auto' begins with [\d.e-]+\), or max_iter to \d+\.$",
        words(far, data, y),
    )


def test_large_data_are_judged_by_updates_and_loss():
    data = np.tile(np.random.default_rng(0).normal(size=(5000, 250)), 2)
    y = (data[:, :20] @ np.random.default_rng(1).normal(size=(20, 15))).argmax(axis=1)
    assert re.fullmatch(
        r"Training ended after 1 epoch with a loss of [\d.]+, short of the optimum\. Raise max_iter to 75\.",
        words(make(max_iter=1), data, y),
    )
    assert words(make(max_iter=19), data, y) is None


def test_none_is_told_who_lets_others_decide():
    assert words(make(max_iter=2, early_stopping=True), X, Y) is None
    with warnings.catch_warnings(action="error"):
        make().partial_fit(X, Y, classes=range(10))


@pytest.mark.parametrize("lr_schedule", ["linear", "cosine"])
def test_a_step_of_any_schedule_warns(lr_schedule):
    with pytest.warns(ConvergenceWarning):
        make(max_iter=2, lr_schedule=lr_schedule).fit(X, Y)


# ---- when a fit ends


def options_of(**params):
    return check(SoftmaxRegressionClassifier(**{"lr": 1.0, **params}))


def test_a_step_holds_and_falls():
    schedule = Schedule(options_of(early_stopping=True, max_iter=10, lr_schedule="linear"), 2)
    assert_array_equal([schedule.holds(epoch) for epoch in range(10)], [True] * 5 + [False] * 5)
    assert_allclose(
        np.concatenate([schedule.sizes(epoch)[0] for epoch in range(10)]), [1] * 10 + list(np.arange(10, 0, -1) / 10)
    )
    schedule.fall_after(1)
    assert schedule.n_epochs == 4 and schedule.holds(1) and not schedule.holds(2)
    assert_allclose(np.concatenate([schedule.sizes(epoch)[0] for epoch in range(4)]), [1, 1, 1, 1, 1, 0.75, 0.5, 0.25])
    assert [schedule.has_fallen(epoch) for epoch in range(4)] == [False, False, False, True]


def test_a_step_that_was_asked_to_fall_falls():
    schedule = Schedule(options_of(max_iter=1000), 1)
    assert not schedule.holds(0)


def test_a_flat_loss_is_one_that_no_longer_falls_on_average():
    assert not is_flat([3, 2, 1], 2, 0.1)  # too early to tell
    assert not is_flat([4, 3, 2, 3], 2, 0.1)
    assert is_flat([2, 3, 3, 1.9], 2, 0.1)


def test_tol_zero_makes_all_epochs():
    assert make(max_iter=300, tol=0).fit(X, Y).n_iter_ == 300
    assert make(max_iter="auto", tol=0).fit(X, Y).n_iter_ == 750
    assert make(max_iter=300, tol=1e-2, alpha=0.1).fit(X, Y).n_iter_ < 300


@pytest.mark.parametrize("data", [X, sparse.csr_array(X)], ids=["dense", "csr"])
@pytest.mark.parametrize("batch_size, early_stopping", [(32, False), (32, True), (400, False)])
def test_a_look_changes_nothing_until_the_end(monkeypatch, data, batch_size, early_stopping):
    """Training goes on with the parameters and the velocity that it had, whether the step falls or holds."""
    monkeypatch.setattr(_convergence, "NEAR", -1)
    monkeypatch.setattr(_schedule, "NEAR", -1)
    clf = make(max_iter=140, tol=1e-12, batch_size=batch_size, early_stopping=early_stopping, alpha=0.1)
    looked = quiet_fit(clone(clf), data, Y)
    monkeypatch.setattr(_convergence, "EPOCHS_PER_MEASUREMENT", 1000)
    same_model(looked, quiet_fit(clf, data, Y))


@pytest.mark.parametrize("data", [X, sparse.csr_array(X)], ids=["dense", "csr"])
def test_threads_do_not_change_when_a_fit_ends(data):
    one, two = (SoftmaxRegressionClassifier(random_state=0, n_jobs=n, batch_size=64).fit(data, Y) for n in (1, 2))
    same_model(one, two)
    assert one.n_iter_ < 400


# ---- early stopping


@pytest.mark.parametrize("data", ["digits", "noise"])
def test_early_stopping_does_not_harm(backend, data):
    """Five bad epochs of a large step used to end the fit at its worst."""
    if data == "digits":
        X, y = load_digits(return_X_y=True)
        X, X_test, y, y_test = X[:1000], X[1000:], y[:1000], y[1000:]
    else:
        r = np.random.default_rng(0)
        X = r.normal(size=(20_000, 20))
        y = (X @ r.normal(size=(20, 4)) * 0.5 + r.gumbel(size=(20_000, 4))).argmax(axis=1)
        X, X_test, y, y_test = train_test_split(X, y, test_size=0.5, random_state=0)
    X, X_val, y, y_val = train_test_split(X, y, test_size=0.1, stratify=y, random_state=0)
    with_it, without = (
        quiet_fit(SoftmaxRegressionClassifier(random_state=0, backend=backend, early_stopping=early_stopping), X, y,
                  X_val=X_val, y_val=y_val)
        for early_stopping in (True, False)
    )  # fmt: skip
    losses = [log_loss(y_test, clf.predict_proba(X_test)) for clf in (with_it, without)]
    assert losses[0] < 1.02 * losses[1]


def test_early_stopping_saves_epochs_where_the_optimum_overfits():
    X, X_val, y, y_val = train_test_split(*load_digits(return_X_y=True), test_size=0.4, random_state=0)
    clf = SoftmaxRegressionClassifier(random_state=0, alpha=1e-9, tol=1e-5)
    without = quiet_fit(clf, X, y, X_val=X_val, y_val=y_val)
    losses = [log_loss(y_val, without.predict_proba(X_val))]
    epochs = without.n_iter_
    clf.set_params(early_stopping=True).fit(X, y, X_val=X_val, y_val=y_val)
    losses.append(log_loss(y_val, clf.predict_proba(X_val)))
    assert clf.n_iter_ < 0.7 * epochs and losses[1] < losses[0]


def test_zeros_of_l1_are_at_the_optimum():
    rng = np.random.default_rng(1)
    W, X = rng.normal(size=(8, 3)), rng.normal(size=(1000, 8))
    y = (X @ W + rng.gumbel(size=(1000, 3))).argmax(axis=1)
    assert words(make(l1_ratio=1, max_iter="auto"), X, y) is None
