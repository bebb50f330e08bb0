"""Pictures of a fit and of a search, in scikit-learn's Display convention. matplotlib is imported when something is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import is_classifier
from sklearn.utils.validation import check_is_fitted

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# Up to so many epochs have a mark each.
MARKED_EPOCHS = 30
# Values whose largest and smallest differ by more than this factor are drawn on a logarithmic axis.
DECADE = 10
# Where they differ by less than this factor, up to so many values have a tick each: matplotlib's would be crowded.
FEW_DECADES, LABELLED_VALUES = 1000, 8


class LossCurveDisplay:
    """Loss after each epoch of a fit: in training, on the validation set if there is one, and the best epoch.

    Use :meth:`from_estimator` to make one. All parameters are stored as attributes.

    Parameters
    ----------
    loss_curve : array-like of shape (n_epochs,)
        Mean cross-entropy of each epoch in training.
    validation_loss_curve : array-like of shape (n_validated_epochs,), default=None
        Cross-entropy on the validation set after each epoch.
    best_epoch : int, default=None
        The epoch to be marked, counted from 1.
    name : str, default=None
        What the legend calls the fit, where several are drawn on the same axes.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    lines_ : list of matplotlib Line2D
        Of training, and of validation if there is one.
    best_ : matplotlib Line2D or None
        The mark of the best epoch.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdl import LossCurveDisplay, SoftmaxRegressionClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> model = SoftmaxRegressionClassifier(early_stopping=True, random_state=0).fit(X, y)
    >>> LossCurveDisplay.from_estimator(model)
    <...>
    """

    ax_: Axes
    figure_: Figure
    lines_: list[Line2D]
    best_: Line2D | None

    def __init__(
        self,
        *,
        loss_curve: ArrayLike,
        validation_loss_curve: ArrayLike | None = None,
        best_epoch: int | None = None,
        name: str | None = None,
    ) -> None:
        self.loss_curve = loss_curve
        self.validation_loss_curve = validation_loss_curve
        self.best_epoch = best_epoch
        self.name = name

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Axes | None = None, name: str | None = None) -> Self:
        """Draw the losses of a fitted estimator.

        Parameters
        ----------
        estimator : SoftmaxRegressionClassifier, or another with `loss_curve_`
            After `fit`. With `early_stopping` the best epoch is the one whose coefficients were kept; with a validation set
            alone it is that of the smallest validation loss.
        ax : matplotlib Axes, default=None
            Where to draw. None: on a new figure.
        name : str, default=None
            What the legend calls the fit, where several are drawn on the same axes.

        Returns
        -------
        display : LossCurveDisplay
        """
        _check_has(estimator, "loss_curve_")
        validation = getattr(estimator, "validation_loss_curve_", None)
        best = getattr(estimator, "best_epoch_", None)
        if best is None and validation is not None:
            best = int(np.argmin(validation)) + 1
        display = cls(loss_curve=estimator.loss_curve_, validation_loss_curve=validation, best_epoch=best, name=name)
        return display.plot(ax)

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None: on a new figure.

        Returns
        -------
        self : LossCurveDisplay
        """
        ax = _axes(ax, self)
        prefix = "" if self.name is None else f"{self.name}, "
        validates = self.validation_loss_curve is not None
        training = _curve(ax, self.loss_curve, f"{prefix}training", linestyle="--" if validates else "-")
        self.lines_, self.best_ = [training], None
        if validates:
            of_validation = _curve(ax, self.validation_loss_curve, f"{prefix}validation", color=training.get_color())
            self.lines_.append(of_validation)
        if self.best_epoch is not None:
            point = self.lines_[-1].get_xydata()[self.best_epoch - 1]
            self.best_ = _ring(ax, self.lines_[-1], point, f"{prefix}best epoch: {self.best_epoch}")
        ax.set(xlabel="Epoch", ylabel="Mean cross-entropy")
        if ax.get_xscale() == "linear":
            ax.locator_params(axis="x", integer=True)
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self


class SearchDisplay:
    """Scores of a search over one of its parameters: their mean, the spread over the folds, and the point that was chosen.

    Use :meth:`from_estimator` to make one. All parameters are stored as attributes.

    Parameters
    ----------
    param_name : str
        The parameter along the axis.
    param_values : sequence of length n_candidates
        Its value in each candidate: on a logarithmic axis where numbers span more than a decade, and side by side where they
        are not all numbers.
    mean_scores, std_scores : array-like of shape (n_candidates,)
        Mean and standard deviation over the folds.
    line_names : sequence of str of length n_candidates, default=None
        Candidates of the same name lie on one line; the names are in the legend. None: on one line without a name.
    best_index : int, default=None
        The candidate to be marked as the chosen one.
    score_name : str, default="Score"

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    lines_ : list of matplotlib Line2D
        The means, a line for each of `line_names`.
    spreads_ : list of matplotlib artists
        One standard deviation about each line: a band, or bars where values are not numbers.
    best_ : matplotlib Line2D or None
        The mark of the chosen candidate.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skdl import SearchDisplay, SoftmaxRegressionClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> model = SoftmaxRegressionClassifier(max_iter=20, random_state=0)
    >>> search = GridSearchCV(model, {"alpha": [1e-5, 1e-3, 1e-1]}, cv=3).fit(X, y)
    >>> SearchDisplay.from_estimator(search)
    <...>
    """

    ax_: Axes
    figure_: Figure
    lines_: list[Line2D]
    spreads_: list[Artist]
    best_: Line2D | None

    def __init__(
        self,
        *,
        param_name: str,
        param_values: Sequence[Any],
        mean_scores: ArrayLike,
        std_scores: ArrayLike,
        line_names: Sequence[str] | None = None,
        best_index: int | None = None,
        score_name: str = "Score",
    ) -> None:
        self.param_name = param_name
        self.param_values = param_values
        self.mean_scores = mean_scores
        self.std_scores = std_scores
        self.line_names = line_names
        self.best_index = best_index
        self.score_name = score_name

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, param_name: str | None = None, metric: str | None = None, ax: Axes | None = None
    ) -> Self:
        """Draw the scores of a fitted search.

        Parameters
        ----------
        estimator : GridSearchCV, or another search with `cv_results_`
            After `fit`.
        param_name : str, default=None
            The parameter along the axis, as `cv_results_` has it, for example ``"clf__alpha"``. The others of the grid have
            a line for each combination of their values. None: the one with the most different numbers.
        metric : str, default=None
            Which score, where the search has several. None: the one for which it refits.
        ax : matplotlib Axes, default=None
            Where to draw. None: on a new figure.

        Returns
        -------
        display : SearchDisplay
        """
        _check_has(estimator, "cv_results_")
        results, metric = estimator.cv_results_, _metric(estimator, metric)
        columns = {name.removeprefix("param_"): results[name] for name in results if name.startswith("param_")}
        if param_name is None:
            param_name = max(columns, key=lambda name: len(set(filter(_is_number, np.ma.compressed(columns[name])))))
        if param_name not in columns:
            raise ValueError(
                f"param_name={param_name!r} is not a parameter of this search: it has {', '.join(columns)}."
            )
        values = columns.pop(param_name)
        used = np.flatnonzero(~np.ma.getmaskarray(values))  # a list of grids may have candidates without it
        best = np.flatnonzero(used == getattr(estimator, "best_index_", None))
        others = {name: column for name, column in columns.items() if len(set(map(repr, column[used]))) > 1}
        short = _short_names([param_name, *others])
        return cls(
            param_name=short[param_name],
            param_values=[values[i] for i in used],
            mean_scores=results[f"mean_test_{metric}"][used],
            std_scores=results[f"std_test_{metric}"][used],
            line_names=[
                ", ".join(
                    _setting(short[name], column[i]) for name, column in others.items() if column[i] is not np.ma.masked
                )
                for i in used
            ],
            best_index=int(best[0]) if len(best) else None,
            score_name=_score_name(estimator, metric),
        ).plot(ax)

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None: on a new figure.

        Returns
        -------
        self : SearchDisplay
        """
        ax = _axes(ax, self)
        are_numbers = all(map(_is_number, self.param_values))
        mean, std = np.asarray(self.mean_scores), np.asarray(self.std_scores)
        names = np.array([""] * len(mean) if self.line_names is None else self.line_names)
        lines = list(dict.fromkeys(names.tolist()))
        x = (
            _numbers(ax, self.param_values)
            if are_numbers
            else _places(ax, self.param_values, list(map(lines.index, names)))
        )
        self.lines_, self.spreads_, self.best_ = [], [], None
        for name in lines:
            on_line = np.flatnonzero(names == name)
            on_line = on_line[np.argsort(x[on_line], kind="stable")]
            at, middle, spread = x[on_line], mean[on_line], std[on_line]
            [line] = ax.plot(at, middle, "o-" if are_numbers else "o", markersize=MARK, label=name or None)
            self.lines_.append(line)
            if not spread.any():  # one validation set: there is none
                continue
            if are_numbers and len(at) > 1:
                self.spreads_.append(
                    ax.fill_between(
                        at, middle - spread, middle + spread, color=line.get_color(), alpha=0.15, linewidth=0
                    )
                )
            else:
                self.spreads_.append(
                    ax.errorbar(at, middle, spread, color=line.get_color(), fmt="none", capsize=MARK / 2)
                )
        if self.best_index is not None:
            i = self.best_index
            chosen = ", ".join(filter(None, [_setting(self.param_name, self.param_values[i]), names[i]]))
            self.best_ = _ring(ax, self.lines_[lines.index(names[i])], (x[i], mean[i]), f"chosen: {chosen}")
            ax.legend()
        elif lines != [""]:
            ax.legend()
        ax.set(xlabel=self.param_name, ylabel=self.score_name)
        self.ax_, self.figure_ = ax, ax.figure
        return self


# ---- drawing

# Size of a mark, in points.
MARK = 4


def _check_has(estimator, attribute):
    """Raise an error unless the estimator is fitted and has what is to be drawn."""
    check_is_fitted(estimator)
    if not hasattr(estimator, attribute):
        of_pipeline = " Of a pipeline, pass its last step." if hasattr(estimator, "steps") else ""
        raise TypeError(f"{type(estimator).__name__} has no {attribute}.{of_pipeline}")


def _axes(ax, display):
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(f"{type(display).__name__} needs matplotlib: pip install matplotlib.") from error
    return plt.subplots(layout="constrained")[1] if ax is None else ax


def _curve(ax, losses, label, **style):
    epochs = np.arange(1, len(losses) + 1)
    marker = "o" if len(losses) <= MARKED_EPOCHS else None
    return ax.plot(epochs, losses, marker=marker, markersize=MARK, label=label, **style)[0]


def _ring(ax, line, point, label):
    """A ring around a point of a line."""
    x, y = point
    style = dict(marker="o", markersize=3 * MARK, markerfacecolor="none", markeredgewidth=1.5, linestyle="none")
    return ax.plot(x, y, color=line.get_color(), label=label, **style)[0]


def _numbers(ax, values):
    """Places of numbers on an axis that fits them."""
    x = np.array(values, dtype=float)
    positive = x[x > 0]
    if len(positive) and positive.max() > DECADE * positive.min():
        if x.min() < 0 or len(positive) < len(x):
            ax.set_xscale("symlog", linthresh=positive.min())
        else:
            ax.set_xscale("log")
            ticks = np.unique(x)
            if len(ticks) <= LABELLED_VALUES and ticks[-1] < FEW_DECADES * ticks[0]:  # few of its own would be labelled
                ax.set_xticks(ticks, map(_text, ticks))
                ax.set_xticks([], minor=True)
    return x


def _places(ax, values, lines):
    """Places side by side of what is no number; those of several lines stand beside each other."""
    labels = list(map(_text, values))
    in_order = sorted(values, key=lambda value: (_is_number(value), value if _is_number(value) else 0))
    ticks = list(dict.fromkeys(map(_text, in_order)))
    ax.set(xticks=range(len(ticks)), xticklabels=ticks, xlim=(-0.5, len(ticks) - 0.5))
    n_lines = 1 + max(lines)
    beside = (np.array(lines) - (n_lines - 1) / 2) / (2 * n_lines)
    return np.array([ticks.index(label) for label in labels]) + beside


# ---- words


def _is_number(value):
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def _text(value):
    return f"{value:g}" if _is_number(value) and not isinstance(value, Integral) else str(value)


def _setting(name, value):
    return f"{name}={_text(value)}"


def _short_names(names):
    """Parameters' names without the steps of the pipeline they belong to, where that leaves them different."""
    short = [name.rpartition("__")[2] for name in names]
    return dict(zip(names, short if len(set(short)) == len(short) else names, strict=True))


def _metric(search, metric):
    """The metric to be drawn, by its name in `cv_results_`."""
    there = [name.removeprefix("mean_test_") for name in search.cv_results_ if name.startswith("mean_test_")]
    if metric is None:
        refit = getattr(search, "refit", None)
        metric = there[0] if len(there) == 1 else refit if isinstance(refit, str) else None
    if metric not in there:
        raise ValueError(f"metric={metric!r} is not a metric of this search: it has {', '.join(there)}.")
    return metric


def _score_name(search, metric):
    """What the axis calls a metric, in scikit-learn's way."""
    if metric == "score":
        scoring = getattr(search, "scoring", None)
        if scoring is None:
            return "Accuracy" if is_classifier(search) else "Score"
        metric = scoring if isinstance(scoring, str) else getattr(scoring, "__name__", "score")
    return metric.replace("neg_", "negative_").replace("_", " ").capitalize()
