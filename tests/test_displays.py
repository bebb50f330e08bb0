"""LossCurveDisplay and SearchDisplay: what is drawn is what the fit and the search have found."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from _helpers import DIGITS, LABELS, make, run
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdl import LossCurveDisplay, SearchDisplay

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(autouse=True)
def no_window():
    with matplotlib.rc_context({"backend": "agg"}):
        yield
    plt.close("all")


def labels(display):
    return [text.get_text() for text in display.ax_.get_legend().get_texts()]


def search(grid, estimator=None, **params):
    return GridSearchCV(estimator or make(max_iter=2), grid, cv=3, **params).fit(DIGITS, LABELS)


# ---- losses


def test_training_alone():
    model = make(max_iter=4).fit(DIGITS, LABELS)
    display = LossCurveDisplay.from_estimator(model)
    [line] = display.lines_
    assert_array_equal(line.get_xydata(), np.column_stack([np.arange(1, 5), model.loss_curve_]))
    assert display.best_ is None and labels(display) == ["training"]
    assert display.figure_ is display.ax_.figure


def test_a_validation_set_shows_its_smallest_loss():
    model = make(max_iter=6, lr=0.01).fit(DIGITS[:300], LABELS[:300], X_val=DIGITS[300:], y_val=LABELS[300:])
    best = 1 + int(np.argmin(model.validation_loss_curve_))
    display = LossCurveDisplay.from_estimator(model, name="a fit")
    assert_array_equal(display.lines_[1].get_ydata(), model.validation_loss_curve_)
    assert_array_equal(display.best_.get_xydata(), [[best, model.validation_loss_curve_[best - 1]]])
    assert labels(display) == ["a fit, training", "a fit, validation", f"a fit, best epoch: {best}"]


@pytest.mark.parametrize(
    ("lr", "max_iter", "keeps_last"), [("auto", 50, False), (1e-3, 60, False), ("auto", "auto", True)]
)
def test_early_stopping_shows_the_epoch_that_was_kept(lr, max_iter, keeps_last):
    model = make(max_iter=max_iter, early_stopping=True, batch_size=32, lr=lr)
    model.fit(DIGITS[:300], LABELS[:300], X_val=DIGITS[300:], y_val=LABELS[300:])
    assert (model.best_epoch_ == model.n_iter_) is keeps_last, "this data does not test what it should"
    [[epoch, loss]] = LossCurveDisplay.from_estimator(model).best_.get_xydata()
    assert epoch == model.best_epoch_ > 1
    kept = -model.predict_log_proba(DIGITS[300:])[np.arange(100), LABELS[300:]].mean()
    assert_allclose(kept, loss, rtol=1e-6)
    assert not hasattr(model.set_params(early_stopping=False).fit(DIGITS, LABELS), "best_epoch_")


def test_axes_of_the_users_own():
    figure, (left, right) = plt.subplots(1, 2)
    model = make().fit(DIGITS, LABELS)
    right.set_xscale("log")
    for ax in (left, right):
        display = LossCurveDisplay.from_estimator(model, ax=ax)
        assert display.ax_ is ax and display.figure_ is figure
    assert plt.get_fignums() == [figure.number]
    display.plot(left)
    assert display.ax_ is left and len(left.lines) == 2


# ---- searches


def test_one_parameter():
    grid = search({"alpha": [1e-1, 1e-5, 1e-3]})
    display = SearchDisplay.from_estimator(grid)
    mean, std = (grid.cv_results_[name][[1, 2, 0]] for name in ("mean_test_score", "std_test_score"))
    [line], [band] = display.lines_, display.spreads_
    assert_array_equal(line.get_xydata(), np.column_stack([[1e-5, 1e-3, 1e-1], mean]))
    corners = band.get_paths()[0].vertices
    for x, low, high in zip([1e-5, 1e-3, 1e-1], mean - std, mean + std, strict=True):
        on_x = corners[np.isclose(corners[:, 0], x), 1]
        assert_allclose([on_x.min(), on_x.max()], [low, high])
    assert_array_equal(display.best_.get_xydata(), [[grid.best_params_["alpha"], grid.best_score_]])
    assert labels(display) == [f"chosen: alpha={grid.best_params_['alpha']:g}"]
    assert display.ax_.get_xscale() == "log"
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("alpha", "Accuracy")


@pytest.mark.parametrize(
    ("values", "scale"),
    [([0.0, 1e-4, 1e-2], "symlog"), ([0.1, 0.2, 0.9], "linear"), ([0, 0.5], "linear"), ([1e-4, 1e-2], "log")],
)
def test_scale_of_the_axis(values, scale):
    assert SearchDisplay.from_estimator(search({"alpha": values})).ax_.get_xscale() == scale


def test_the_other_parameters_have_a_line_each():
    pipeline = make_pipeline(StandardScaler(), make(max_iter=2))
    step = "softmaxregressionclassifier__"
    grid = search({f"{step}alpha": [1e-4, 1e-2, 1], f"{step}batch_size": [16, 256], f"{step}verbose": [0]}, pipeline)
    display = SearchDisplay.from_estimator(grid)
    results = grid.cv_results_
    for line, size in zip(display.lines_, (16, 256), strict=True):
        rows = results[f"param_{step}batch_size"] == size
        assert_array_equal(line.get_xydata()[:, 1], results["mean_test_score"][rows])
        assert line.get_label() == f"batch_size={size}"
    best = grid.best_params_
    assert labels(display)[2] == f"chosen: alpha={best[f'{step}alpha']:g}, batch_size={best[f'{step}batch_size']}"
    other = SearchDisplay.from_estimator(grid, param_name=f"{step}batch_size")
    assert [line.get_label() for line in other.lines_] == ["alpha=0.0001", "alpha=0.01", "alpha=1"]
    assert [tick.get_text() for tick in other.ax_.get_xticklabels()] == ["16", "256"]
    with pytest.raises(ValueError, match=f"param_name='alpha' is not a parameter of this search: it has {step}alpha, "):
        SearchDisplay.from_estimator(grid, param_name="alpha")


def test_what_is_no_number_stands_side_by_side():
    grid = search({"alpha": [0.1, "auto", 0.01], "standardize": [True, False]})
    display = SearchDisplay.from_estimator(grid)
    assert [tick.get_text() for tick in display.ax_.get_xticklabels()] == ["auto", "0.01", "0.1"]
    scores = grid.cv_results_["mean_test_score"]
    for line, rows in zip(display.lines_, ([2, 4, 0], [3, 5, 1]), strict=True):
        assert_array_equal(line.get_xdata().round(), [0, 1, 2])
        assert_array_equal(line.get_ydata(), scores[rows])
    assert not set(display.lines_[0].get_xdata()) & set(display.lines_[1].get_xdata())
    assert len(display.spreads_) == 2 and display.best_.get_ydata() == grid.best_score_


def test_several_metrics():
    grid = search({"alpha": [1e-4, 1e-2, 1]}, scoring=["accuracy", "neg_log_loss"], refit="neg_log_loss")
    display = SearchDisplay.from_estimator(grid)
    assert_array_equal(display.lines_[0].get_ydata(), grid.cv_results_["mean_test_neg_log_loss"])
    assert display.ax_.get_ylabel() == "Negative log loss"
    display = SearchDisplay.from_estimator(grid, metric="accuracy")
    assert_array_equal(display.best_.get_ydata(), grid.cv_results_["mean_test_accuracy"][grid.best_index_])
    assert display.ax_.get_ylabel() == "Accuracy"
    grid = search({"alpha": [1e-4, 1e-2, 1]}, scoring=["accuracy", "neg_log_loss"], refit=False)
    with pytest.raises(ValueError, match="metric=None is not a metric of this search: it has accuracy, neg_log_loss"):
        SearchDisplay.from_estimator(grid)
    assert SearchDisplay.from_estimator(grid, metric="accuracy").best_ is None  # nothing was chosen


def test_a_list_of_grids():
    grid = search([{"alpha": [1e-4, 1]}, {"l1_ratio": [0.5], "alpha": [1e-3, 1e-2]}, {"momentum": [0.5]}])
    display = SearchDisplay.from_estimator(grid)
    assert [line.get_label() for line in display.lines_] == [display.lines_[0].get_label(), "l1_ratio=0.5"]
    assert [line.get_xdata().tolist() for line in display.lines_] == [[1e-4, 1], [1e-3, 1e-2]]


def test_one_validation_set_has_no_spread():
    grid = GridSearchCV(make(), {"alpha": [1e-4, 1e-2]}, cv=[(range(300), range(300, 400))]).fit(DIGITS, LABELS)
    assert SearchDisplay.from_estimator(grid).spreads_ == []


# ---- both


@pytest.mark.parametrize("display", [LossCurveDisplay, SearchDisplay])
def test_not_fitted(display):
    with pytest.raises(NotFittedError):
        display.from_estimator(make())


@pytest.mark.parametrize(("display", "attribute"), [(LossCurveDisplay, "loss_curve_"), (SearchDisplay, "cv_results_")])
def test_fitted_but_without_what_is_drawn(display, attribute):
    pipeline = make_pipeline(StandardScaler(), GaussianNB()).fit(DIGITS, LABELS)
    with pytest.raises(TypeError, match=rf"Pipeline has no {attribute}\. Of a pipeline, pass its last step\.$"):
        display.from_estimator(pipeline)
    with pytest.raises(TypeError, match=rf"GaussianNB has no {attribute}\.$"):
        display.from_estimator(pipeline[-1])


def test_without_matplotlib():
    program = """
        import sys
        sys.modules["matplotlib"] = None
        from skdl import LossCurveDisplay
        LossCurveDisplay(loss_curve=[1.0]).plot()
    """
    assert "ImportError: LossCurveDisplay needs matplotlib: pip install matplotlib." in run(program, check=False).stderr
