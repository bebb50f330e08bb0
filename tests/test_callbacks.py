"""scikit-learn's callbacks: who is told of what, and when."""

import warnings
from functools import partial

import _helpers
import numpy as np
import pytest
from _helpers import fitted_state, same_model
from numpy.testing import assert_array_equal
from sklearn import config_context
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV, train_test_split

sklearn_callback = pytest.importorskip("sklearn.callback", reason="scikit-learn has callbacks since 1.9")

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_digits(return_X_y=True)
X, X_VAL, Y, Y_VAL = train_test_split(X, Y, train_size=600, test_size=200, random_state=0)
WEIGHT = np.linspace(0, 3, len(Y))
make = partial(_helpers.make, max_iter=5)


class Callback:
    """Writes down what it is told of; stops after an epoch, or raises."""

    def __init__(self, stop_after=None, raise_at=None):
        self.stop_after, self.raise_at = stop_after, raise_at

    def setup(self, estimator, context):
        self.events, self.models = ["setup"], []

    def teardown(self, estimator, context):
        self.events.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.event("begin", context)

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        self.event("end", context)
        if context.parent is not None:
            self.models.append(fitted_estimator)
            return len(self.models) == self.stop_after

    def event(self, what, context):
        event = f"{what} {'fit' if context.parent is None else context.task_id}"
        self.events.append(event)
        if event == self.raise_at:
            raise KeyError(event)


def test_a_callback_is_told_of_each_epoch():
    callback = Callback()
    clf = make(max_iter=3).set_callbacks(callback).fit(X, Y)
    epochs = [f"{what} {i}" for i in range(3) for what in ("begin", "end")]
    assert callback.events == ["setup", "begin fit", *epochs, "end fit", "teardown"]
    assert len({model.score(X, Y) for model in callback.models}) > 1  # a model of each epoch, not one of them all
    same_model(callback.models[-1], clf, but="loss_curve_")  # which only the end of a fit gives
    assert_array_equal(callback.models[-1].predict_proba(X_VAL), clf.predict_proba(X_VAL))
    same_model(clf, make(max_iter=3).fit(X, Y))


def test_a_callback_stops_the_fit():
    clf = make(max_iter=10).set_callbacks(Callback(stop_after=3))
    with warnings.catch_warnings(action="error"):  # who asked to stop wants no ConvergenceWarning
        clf.fit(X, Y)
    assert clf.n_iter_ == len(clf.loss_curve_) == 3
    assert clf.loss_curve_ == make(max_iter=10).fit(X, Y).loss_curve_[:3]
    assert clf.score(X_VAL, Y_VAL) > 0.8


@pytest.mark.parametrize("epochs", [1, 3])
def test_the_epoch_at_which_a_callback_stops_counts_among_the_best(epochs):
    callback = Callback(stop_after=epochs)
    clf = make(early_stopping=True, lr=1e-3, lr_schedule="constant").set_callbacks(callback)
    clf.fit(X, Y, X_val=X_VAL, y_val=Y_VAL)
    assert clf.n_iter_ == len(clf.validation_loss_curve_) == epochs
    assert np.argmin(clf.validation_loss_curve_) == epochs - 1, (
        "the last epoch is not the best: this data tests nothing"
    )
    same_model(clf, callback.models[-1], but="loss_curve_")


@pytest.mark.parametrize("raise_at", ["begin fit", "begin 0", "end 0", "begin 2", "end 2", "end fit"])
@pytest.mark.parametrize("before", ["nothing", "fit", "partial_fit"])
def test_a_callback_that_raises_leaves_no_trace(raise_at, before):
    clf, undisturbed = make(max_iter=3), make(max_iter=3)
    for each in (clf, undisturbed):
        if before == "fit":
            each.fit(X_VAL, Y_VAL, X_val=X, y_val=Y)
        if before == "partial_fit":
            each.partial_fit(X_VAL, Y_VAL, classes=range(10))
    callback = Callback(raise_at=raise_at)
    with pytest.raises(KeyError, match=raise_at):
        clf.set_callbacks(callback).fit(X, Y)
    assert callback.events[-1] == "teardown"
    assert fitted_state(clf) == fitted_state(undisturbed)
    clf.set_callbacks()
    if before == "partial_fit":  # the stream goes on, with all that it remembers
        same_model(clf.partial_fit(X, Y), undisturbed.partial_fit(X, Y))
    same_model(clf.fit(X, Y), make(max_iter=3).fit(X, Y))


def test_progress_bar(capsys):
    clf = make(max_iter=3).set_callbacks(sklearn_callback.ProgressBar()).fit(X, Y)
    shown = capsys.readouterr().out
    assert "SoftmaxRegressionClassifier" in shown and "100%" in shown
    same_model(clf, make(max_iter=3).fit(X, Y))


def test_progress_bar_of_a_search(capsys):
    """Set on the search, it passes on to each of its fits."""
    search = GridSearchCV(make(max_iter=2), {"alpha": [0, 1]}, cv=2)
    with warnings.catch_warnings(action="error", category=UserWarning):  # "does not support callbacks"
        warnings.simplefilter("ignore", ConvergenceWarning)
        search.set_callbacks(sklearn_callback.ProgressBar()).fit(X, Y)
    shown = capsys.readouterr().out
    assert "GridSearchCV" in shown and "SoftmaxRegressionClassifier" in shown


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
@pytest.mark.parametrize("routing", [False, True])
def test_scoring_monitor(weight, routing):
    with config_context(enable_metadata_routing=routing):
        scorers = {name: get_scorer(name) for name in ("accuracy", "neg_log_loss")}
        if routing and weight is not None:
            scorers = {name: scorer.set_score_request(sample_weight=True) for name, scorer in scorers.items()}
        monitor = sklearn_callback.ScoringMonitor(scoring=scorers)
        clf = make(max_iter=4).set_callbacks(monitor).fit(X, Y, sample_weight=weight)
    log = [row for row in monitor.get_logs().data if len(row["task_id_path"]) == 2]  # path (0, epoch)
    assert [row["task_id_path"][-1] for row in log] == [0, 1, 2, 3]
    assert log[-1]["accuracy"] == pytest.approx(clf.score(X, Y, sample_weight=weight))
    for name in scorers:
        assert log[0][name] < log[-1][name]


def test_callbacks_may_change_between_fits():
    clf = make(max_iter=2).set_callbacks(Callback(stop_after=1)).fit(X, Y)
    assert clf.n_iter_ == 1
    assert clf.set_callbacks().fit(X, Y).n_iter_ == 2
