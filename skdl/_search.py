"""A whole search in one pass: the candidates of a fold train side by side on the one X, and are scored on it in place."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, cached_property
from inspect import signature
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import numpy as np
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import check_scoring
from sklearn.model_selection import GridSearchCV, ParameterGrid, check_cv
from sklearn.utils import check_random_state

from skdl import _validation
from skdl._callbacks import CallbackSupportMixin, Task, callback_managed
from skdl._classifier import SoftmaxRegressionClassifier
from skdl._model import SoftmaxModel
from skdl._parameters import check
from skdl._problem import pose
from skdl._sgd import solve, solve_all
from skdl._warnings import warn

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike
    from sklearn.linear_model import LogisticRegression

    from skdl._model import MatrixLike

# What a search may vary.
SEARCHED = (
    "lr", "batch_size", "max_iter", "lr_schedule", "momentum", "alpha", "l1_ratio", "standardize", "fit_intercept", "shuffle",
    "tol", "n_iter_no_change", "early_stopping", "validation_fraction", "class_weight",
)  # fmt: skip
# And what is the same for all candidates.
SHARED = ("backend", "device", "n_jobs", "random_state", "verbose")
# The path of the default search: multiples of one alpha.
ALPHAS = np.logspace(-2, 2, 9)


class SoftmaxRegressionClassifierCV(CallbackSupportMixin, SoftmaxModel):
    """Softmax regression with its parameters chosen by cross-validation, all candidates in one pass.

    What :class:`~sklearn.model_selection.GridSearchCV` over :class:`SoftmaxRegressionClassifier` finds, to the bit, in a
    fraction of its time and without its copies: a fold is an order of rows of the one X, and candidates that see the same
    minibatches train side by side.

    Parameters
    ----------
    param_grid : dict or list of dicts, default=None
        Names of parameters and the values to try, as for GridSearchCV: of `lr`, `batch_size`, `max_iter`, `lr_schedule`,
        `momentum`, `alpha`, `l1_ratio`, `standardize`, `fit_intercept`, `shuffle`, `tol`, `n_iter_no_change`,
        `early_stopping`, `validation_fraction` and `class_weight`. None: nine values of `alpha`, from 0.01 to 100 times the
        one that a fit on all rows has.
    cv : int, cross-validation generator or iterable, default=None
        The folds, as for GridSearchCV: None stands for five, stratified.
    scoring : str, callable, list, tuple, set or dict, default=None
        What to score held-out rows by, as for GridSearchCV; None: the accuracy. Scores are weighted by `sample_weight` where
        the scorer takes it. A callable is given the rows of the X that was passed to `fit`.
    refit : bool, str or callable, default=True
        Whether to train the best candidate on all rows; of several scores, the name of the one that decides; or a function
        of `cv_results_` that returns the index of the candidate to take, such as :func:`one_standard_error`.
    return_train_score : bool, default=False
        Whether to score the rows that a candidate was trained on, too.
    error_score : "raise" or number, default=np.nan
        The score of a candidate whose training fails, for example because it diverges; a FitFailedWarning says why. "raise":
        the error is raised.
    lr, batch_size, max_iter, lr_schedule, momentum, alpha, l1_ratio, standardize, fit_intercept, shuffle, tol, \
n_iter_no_change, early_stopping, validation_fraction, class_weight, backend, device, n_jobs
        As for :class:`SoftmaxRegressionClassifier`, with the same defaults: what `param_grid` does not vary.
    random_state : int, RandomState or None, default=None
        Seed of the orders of the rows, the same for each fit. Scores are those of GridSearchCV where it is an int.
    verbose : int, default=0
        Print a line for each fold if this is not 0.

    Attributes
    ----------
    cv_results_ : dict of ndarrays
        As that of GridSearchCV. A fold's time is shared evenly among its candidates.
    best_index_ : int
        The candidate that was chosen, where `refit` or a single score chooses one; likewise `best_params_` and, unless `refit`
        is a function, `best_score_`, the mean of its scores.
    best_estimator_ : SoftmaxRegressionClassifier
        The chosen candidate, trained on all rows; only with `refit`, like all that follow. It is the model alone, to be kept or
        sent to a server without the search, or to go on with a stream.
    coef_, intercept_, classes_, n_features_in_, feature_names_in_, n_iter_, loss_curve_, validation_loss_curve_, \
validation_scores_, best_epoch_, lr_, alpha_, scale_
        Those of `best_estimator_`.
    refit_time_ : float
        Seconds of that fit.
    n_splits_ : int
        Number of folds.
    scorer_ : callable or dict of callables
        What scored.
    multimetric_ : bool
        Whether there were several scores.

    See Also
    --------
    SoftmaxRegressionClassifier : One fit.
    SearchDisplay.from_estimator : A picture of the scores.
    sklearn.model_selection.GridSearchCV : The same for any estimator, one fit after the other.

    Notes
    -----
    A path of `alpha`, and numbers for `lr`, `l1_ratio`, `momentum`, `max_iter` or `tol`, cost least: these candidates train
    side by side. Each further `batch_size`, `class_weight`, `fit_intercept`, `shuffle`, early stopping, and ``lr="auto"``
    beside numbers, takes a pass of its own. A candidate leaves the pass when its own fit would have ended. Beside X there are
    the models and their velocities, as many at a time as the caches hold, and the rows' numbers; only a fold that repeats rows,
    as the bootstrap does, is copied.

    `score` is the accuracy, whatever `scoring` is.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdl import SoftmaxRegressionClassifierCV
    >>> X, y = load_digits(return_X_y=True)
    >>> search = SoftmaxRegressionClassifierCV(random_state=0).fit(X[:1000], y[:1000])
    >>> len(search.cv_results_["params"])
    9
    >>> search.score(X[1000:], y[1000:]) > 0.9
    True
    """

    cv_results_: dict[str, Any]
    best_index_: int
    best_params_: dict[str, Any]
    best_score_: float
    best_estimator_: SoftmaxRegressionClassifier
    refit_time_: float
    n_splits_: int
    scorer_: Any
    multimetric_: bool

    def __init__(
        self,
        *,
        param_grid: dict[str, Any] | list[dict[str, Any]] | None = None,
        cv: Any = None,
        scoring: Any = None,
        refit: bool | str | Callable[[dict[str, Any]], int] = True,
        return_train_score: bool = False,
        error_score: float | Literal["raise"] = np.nan,
        lr: float | Literal["auto"] = "auto",
        batch_size: int = 128,
        max_iter: int | Literal["auto"] = "auto",
        lr_schedule: Literal["constant", "linear", "cosine"] = "cosine",
        momentum: float = 0.9,
        alpha: float | Literal["auto"] = "auto",
        l1_ratio: float = 0.0,
        standardize: bool = True,
        fit_intercept: bool = True,
        shuffle: bool = True,
        tol: float = 1e-4,
        n_iter_no_change: int = 5,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        class_weight: dict[Any, float] | dict[Any, int] | Literal["balanced"] | None = None,
        backend: Literal["openmp", "opencl"] = "openmp",
        device: str | None = None,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.param_grid = param_grid
        self.cv = cv
        self.scoring = scoring
        self.refit = refit
        self.return_train_score = return_train_score
        self.error_score = error_score
        self.lr = lr
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.lr_schedule = lr_schedule
        self.momentum = momentum
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.standardize = standardize
        self.fit_intercept = fit_intercept
        self.shuffle = shuffle
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.class_weight = class_weight
        self.backend = backend
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @callback_managed
    def fit(
        self,
        X: MatrixLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        *,
        X_val: MatrixLike | None = None,
        y_val: ArrayLike | None = None,
        sample_weight_val: ArrayLike | None = None,
    ) -> Self:
        """Train and score all candidates, and train the best on all rows.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            As for :meth:`SoftmaxRegressionClassifier.fit`. It is converted once, if at all.
        y : array-like of shape (n_samples,)
            Class labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights >= 0, in training and, where the scorer takes weights, in scores.
        groups : array-like of shape (n_samples,), default=None
            Groups for `cv`, for example :class:`~sklearn.model_selection.GroupKFold`.
        X_val, y_val, sample_weight_val : like X, y, sample_weight, default=None
            A validation set of your own, in place of folds: candidates are trained on all rows and scored on it. With
            `early_stopping` it also decides when to stop.

        Returns
        -------
        self : SoftmaxRegressionClassifierCV

        Raises
        ------
        ValueError
            If a parameter or the data are not valid, if all candidates fail, or, with ``error_score="raise"``, if one does.
            The estimator stays as it was.

        Warns
        -----
        FitFailedWarning
            If some candidates fail.
        ConvergenceWarning
            If the fit of the best on all rows ends far from its optimum; see :meth:`SoftmaxRegressionClassifier.fit`. Those
            of the candidates are not looked at.
        """
        base = {name: getattr(self, name) for name in (*SEARCHED, *SHARED)}
        check(SoftmaxRegressionClassifier(**base))
        self._check_own_parameters()
        with self._unchanged_on_error():
            for name in self._fitted_attributes():
                delattr(self, name)
            data = Data(self, X, y, sample_weight, groups, (X_val, y_val, sample_weight_val))
            scorers = Scorers(self.scoring, self.refit, self.error_score, Candidate(**base))
            if not isinstance(self.random_state, Integral):  # the same orders for all fits
                base["random_state"] = check_random_state(self.random_state).randint(2**31 - 1)
            shared = {**base, "verbose": 0}
            grid = _path(shared, data) if self.param_grid is None else self.param_grid
            candidates = [Candidate(**{**shared, **params}) for params in ParameterGrid(grid)]
            metadata = {"sample_weight": sample_weight}
            task = Task.of_fit(self, len(data.folds) + bool(self.refit), X=data.X, y=data.y, metadata=metadata)
            search = Pass(data, candidates, scorers, self.return_train_score, self.error_score, self.verbose)
            outcomes = [search.run_fold(fold, task) for fold in data.folds]
            self._store_results(grid, shared, candidates, scorers, outcomes)
            if self.refit:
                self._train_best({**base, **self.best_params_}, data, task)
            task.close()
        return self

    def _check_own_parameters(self):
        """Raise an error where a parameter of the search is not valid; `cv` and `scoring` are left to those who read them."""
        score, refit = self.error_score, self.refit
        is_number = isinstance(score, Real) and not isinstance(score, bool)
        for name, is_valid, expected in (
            (
                "refit",
                isinstance(refit, bool | np.bool_ | str) or callable(refit),
                "True, False, the name of a score or a function",
            ),
            ("return_train_score", isinstance(self.return_train_score, bool | np.bool_), "True or False"),
            ("error_score", is_number or (isinstance(score, str) and score == "raise"), "'raise' or a number"),
        ):
            if not is_valid:
                raise ValueError(f"{name}={getattr(self, name)!r} is not valid: expected {expected}.")
        if self.param_grid is not None:
            _check_grid(self.param_grid)

    def _store_results(self, grid, shared, candidates, scorers, outcomes):
        """Let GridSearchCV, whose estimator has trained already, make the tables and choose."""
        refit = self.refit

        def choose(results):
            _set_times(results, outcomes)
            return refit(results)

        stand_in = StandIn(**shared)
        stand_in.known = {
            (fold, _key(candidate)): outcome
            for fold, of_fold in enumerate(outcomes)
            for candidate, outcome in zip(candidates, of_fold, strict=True)
        }
        rows = np.arange(2 * len(outcomes)).reshape(-1, 2)  # of each fold one to train on and one to score
        tables = GridSearchCV(
            stand_in,
            grid,
            scoring=StandIn.score_of,
            refit=choose if callable(refit) else bool(refit) if isinstance(refit, np.bool_) else refit,
            cv=list(zip(rows[:, :1], rows[:, 1:], strict=True)),
            error_score=self.error_score,
            return_train_score=self.return_train_score,
            n_jobs=1,
        ).fit(rows.reshape(-1, 1), rows.ravel() % 2)
        _set_times(tables.cv_results_, outcomes)
        names = "cv_results_", "best_index_", "best_score_", "best_params_", "n_splits_", "multimetric_"
        vars(self).update({name: getattr(tables, name) for name in names if hasattr(tables, name)})
        self.scorer_ = scorers.scorer_

    def _train_best(self, params, data, task):
        """Train the chosen candidate on all rows."""
        self.best_estimator_ = model = SoftmaxRegressionClassifier(**params)
        given_val = dict(zip(("X_val", "y_val", "sample_weight_val"), data.given_val, strict=True))
        if self.verbose:
            print(f"The best on all rows: {self.best_params_}")
        begin = time.perf_counter()
        with task.fit_of(model):
            model.fit(data.given_X, data.given_y, data.given_weight, **(given_val if model.early_stopping else {}))
        self.refit_time_ = time.perf_counter() - begin
        vars(self).update({name: value for name, value in vars(model).items() if name.endswith("_")})

    def __sklearn_is_fitted__(self):
        return hasattr(self, "cv_results_") or hasattr(self, "coef_")

    def _check_fitted(self):
        super()._check_fitted()
        if not hasattr(self, "coef_"):
            raise NotFittedError(
                "This SoftmaxRegressionClassifierCV was fitted with refit=False: it has scores, but no model to predict with. "
                "Set refit=True, or the name of a score."
            )

    def to_sklearn(self) -> LogisticRegression:
        """`best_estimator_` as one of scikit-learn's; see :meth:`SoftmaxRegressionClassifier.to_sklearn`.

        Returns
        -------
        model : sklearn.linear_model.LogisticRegression
        """
        self._check_fitted()
        return self.best_estimator_.to_sklearn()


def _check_grid(grid):
    """Raise an error where a search cannot vary what param_grid says."""
    parts = [grid] if isinstance(grid, dict) else grid
    if not isinstance(parts, list | tuple) or not all(isinstance(part, dict) for part in parts):
        raise TypeError(
            f"param_grid is {grid!r}: expected a dict of names and lists of values, or a list of such dicts."
        )
    if not any(parts):
        raise ValueError(f"param_grid={grid!r} is empty: expected at least one parameter and its values, or None.")
    unknown = sorted({name for part in parts for name in part} - set(SEARCHED), key=str)
    if unknown:
        raise ValueError(
            f"param_grid has {', '.join(map(repr, unknown))}, which a search cannot vary: expected {', '.join(SEARCHED)}."
        )
    ParameterGrid(parts)  # has errors of its own


def _path(base, data):
    """The default grid: multiples of the alpha of a fit on all rows."""
    alpha = base["alpha"]
    if alpha == "auto":
        problem = data.problem(check(Candidate(**base)), data.classes, data.numbers)
        backend = problem.backend()
        alpha = solve(problem.source, problem.options, backend, validate=problem.validator(backend)).alpha
    return {"alpha": sorted({float(alpha * factor) for factor in ALPHAS})}


# ---- data and scores


class Fold(NamedTuple):
    """Numbers of rows; `test` counts on from those of X in the rows of a validation set."""

    number: int
    train: np.ndarray
    test: np.ndarray


class Data:
    """What a search is given, checked and numbered once."""

    def __init__(self, estimator, X, y, sample_weight, groups, given_val):
        self.given_X, self.given_y, self.given_weight, self.given_val = X, y, sample_weight, given_val
        self.X, self.y = _validation.validate_training(estimator, X, y, reset=True)
        _validation.check_finite(self.X)
        self.features = estimator._features()
        self.classes, self.numbers = _validation.number_labels(self.y)
        self.n_rows = len(self.numbers)
        self.weight = _validation.check_weight(sample_weight, self.n_rows)
        self.held_out = _validation.validate_held_out(estimator, *given_val, self.classes)
        if self.held_out is None:
            splitter = check_cv(estimator.cv, self.y, classifier=True)
            splits = [
                [_row_numbers(rows, self.n_rows) for rows in split] for split in splitter.split(self.X, self.y, groups)
            ]
        elif estimator.cv is not None or groups is not None:
            raise ValueError("cv or groups and X_val are given: candidates are scored either on folds or on X_val.")
        else:
            rows = np.arange(self.n_rows)
            splits = [(rows, self.n_rows + np.arange(self.held_out[0].shape[0]))]
        self.folds = [Fold(number, *split) for number, split in enumerate(splits)]

    def problem(self, options, classes, numbers, rows=None):
        """A fit of some rows (None: all), whose classes may be fewer than those of all."""
        X, weight = self.X, self.weight
        if rows is not None and len(np.unique(rows)) < len(rows):
            # Copies of a row may differ in the last bit of what is found of them, so they have to be copies.
            X, numbers, weight, rows = X[rows], numbers[rows], None if weight is None else weight[rows], None
        return pose(options, X, numbers, classes, weight, rows=rows, held_out=self.held_out, is_finite=True)

    def renumbered(self, rows):
        """The classes of some rows, and class numbers (n_samples,) among these."""
        if len(rows) == 0:
            raise ValueError("a fold has no rows to train on.")
        present = np.flatnonzero(np.bincount(self.numbers[rows], minlength=len(self.classes)))
        if len(present) == len(self.classes):
            return self.classes, self.numbers
        if len(present) < 2:
            raise ValueError(
                f"the training rows of a fold hold one class only, {self.classes[present].tolist()[0]!r}: expected two at "
                "least. Use fewer folds, or cv=StratifiedKFold(...)."
            )
        place = np.zeros(len(self.classes), dtype=np.intp)
        place[present] = np.arange(len(present))
        return self.classes[present], place[self.numbers]

    def rows_to_score(self, backend, rows):
        """The `Rows` of these numbers."""
        if self.held_out is not None and len(rows) and rows[0] >= self.n_rows:
            X, numbers, weight, _ = self.held_out
            return Rows(backend, X, None, self.classes[numbers], weight, self.given_val[:2])
        weight = None if self.weight is None else self.weight[rows]
        return Rows(backend, self.X, rows, self.y[rows], weight, (self.given_X, self.given_y))


def _row_numbers(rows, n_rows):
    """Those of a split, which may count back from the end or be a mask; an error where there is no such row."""
    rows = np.asarray(rows)
    is_mask = rows.dtype == bool and rows.shape == (n_rows,)
    if not is_mask and (rows.ndim != 1 or (rows.dtype.kind not in "iu" and len(rows) > 0)):
        raise ValueError(
            f"cv gives rows as an array of {rows.dtype} of shape {rows.shape}: expected numbers of rows, or a mask of shape "
            f"({n_rows},)."
        )
    if not is_mask and len(rows) and not (-n_rows <= int(rows.min()) and int(rows.max()) < n_rows):
        raise ValueError(f"cv gives rows from {rows.min()} to {rows.max()}, but X has {n_rows}.")
    return np.arange(n_rows)[rows if len(rows) else []]


def _taken(given, rows):
    """Some rows of what a user gave, in that form."""
    if hasattr(given, "iloc"):
        return given.iloc[rows]
    if isinstance(given, list | tuple):
        return [given[i] for i in rows]
    return (given.tocsr() if sparse.issparse(given) else given)[rows]


class Rows:
    """Some rows to be scored, in place: scorers of scikit-learn pass them on to the model, which knows what they are.

    rows: their numbers in X, or None: all.
    """

    def __init__(self, backend, X, rows, y, weight, given):
        self.y, self.weight, self.dtype = y, weight, X.dtype
        self._rows, self._given, self._predictor = rows, given, cache(lambda: backend.predictor(X, rows))

    def __len__(self):
        return len(self.y)

    def predicted(self, parameters, output):
        """As a backend's predictor returns it."""
        return self._predictor()(parameters, output)

    @cached_property
    def given(self):
        """X and y, copied, in the form in which they were given."""
        return self._given if self._rows is None else tuple(_taken(each, self._rows) for each in self._given)


class Candidate(SoftmaxRegressionClassifier):
    """One of the estimators that a search compares; it predicts `Rows` where they are."""

    def _predicted(self, X, output):
        return self._output_of(X.predicted, output, X.dtype) if isinstance(X, Rows) else super()._predicted(X, output)


class Scorers:
    """What `scoring` stands for: one scorer, or several by name."""

    def __init__(self, scoring, refit, error_score, estimator):
        self._error_score, self._is_several = error_score, isinstance(scoring, list | tuple | set | dict)
        check_scoring(estimator, scoring)  # raises an error where it is none
        if self._is_several:
            of_name = scoring if isinstance(scoring, dict) else {name: name for name in scoring}
            if refit and not callable(refit) and refit not in of_name:
                raise ValueError(
                    f"refit={refit!r} does not say which of several scores decides: expected one of {sorted(of_name)}, a "
                    "function of cv_results_, or False."
                )
        else:
            if isinstance(refit, str) and not callable(scoring):  # a function may return several scores
                raise ValueError(
                    f"refit={refit!r} names one of several scores, but scoring={scoring!r} is one: use refit=True."
                )
            of_name = {"score": scoring}
        self._scorers = {name: check_scoring(estimator, each) for name, each in of_name.items()}
        self._in_place = {name for name, each in of_name.items() if each is None or isinstance(each, str)}
        self._weighted = {name for name, each in of_name.items() if each is None or _takes_weights(self._scorers[name])}

    @property
    def scorer_(self):
        return self._scorers if self._is_several else self._scorers["score"]

    def __call__(self, model, rows):
        """The score of some `Rows`, or several by name; or the exception of a single scorer that fails."""
        scores = {}
        for name in self._scorers:
            try:
                scores[name] = self._score(name, model, rows)
            except Exception as error:
                if self._error_score == "raise":
                    raise
                if not self._is_several:
                    return error
                scores[name] = self._error_score
                warn(f"Scoring failed: {name!r} will be {self._error_score}. {type(error).__name__}: {error}")
        return scores if self._is_several else scores["score"]

    def _score(self, name, model, rows):
        if len(rows) == 0:
            raise ValueError("a fold has no rows to score.")
        scorer, (X, y) = self._scorers[name], (rows, rows.y) if name in self._in_place else rows.given
        if rows.weight is None or name not in self._weighted:
            score = scorer(model, X, y)
        else:
            try:
                score = scorer(model, X, y, sample_weight=rows.weight)
            except TypeError:
                if not hasattr(scorer, "set_score_request"):
                    raise
                score = scorer(model, X, y)  # one of scikit-learn's, whose metric knows no weights
        if not isinstance(score, Real | dict):
            raise ValueError(f"scoring must return a number, or a dict of numbers, but {scorer} returned {score!r}.")
        return score


def _takes_weights(scorer):
    """Whether a scorer names sample_weight, and does not ask to be spared it."""
    if hasattr(scorer, "get_metadata_routing") and hasattr(scorer, "set_score_request"):
        return scorer.get_metadata_routing().score.requests.get("sample_weight") is not False
    return "sample_weight" in signature(scorer).parameters


# ---- the pass


class Outcome(NamedTuple):
    """What became of a candidate in a fold."""

    error: ValueError | None = None
    test: object = None  # a score, several by name, or the exception of the scorer
    train: object = None
    fit_seconds: float = 0.0
    score_seconds: float = 0.0


class Pass:
    """All candidates, fold after fold."""

    def __init__(self, data, candidates, scorers, return_train_score, error_score, verbose):
        self.data, self.candidates, self.scorers, self.verbose = data, candidates, scorers, verbose
        self.return_train_score, self.raises = return_train_score, error_score == "raise"

    def _failed(self, error, seconds=0.0):
        if self.raises:
            raise error
        return Outcome(error, fit_seconds=seconds)

    def run_fold(self, fold, task):
        """The `Outcome` of each candidate."""
        outcomes, groups = [Outcome()] * len(self.candidates), []
        try:
            classes, numbers = self.data.renumbered(fold.train)
        except ValueError as error:
            return [self._failed(error) for _ in outcomes]
        for i, candidate in enumerate(self.candidates):
            try:
                self._join(groups, i, check(candidate), classes, numbers, fold)
            except ValueError as error:
                outcomes[i] = self._failed(error)
        part = task.part("fold", sum(problem.options.max_iter for group in groups for _, problem in group))
        for group in groups:
            self._run_group(group, fold, part, outcomes)
        part.close()
        if self.verbose:
            print(self._line(fold, outcomes))
        return outcomes

    def _join(self, groups, i, options, classes, numbers, fold):
        """Put a candidate with those that train on the same rows of the same weight."""

        def rows_follow_from(options):
            held_out = options.early_stopping and (options.validation_fraction,)
            return options.class_weight, held_out, options.shuffle

        for group in groups:
            _, problem = group[0]
            if rows_follow_from(problem.options) == rows_follow_from(options):
                group.append((i, problem.with_options(options)))
                return
        groups.append([(i, self.data.problem(options, classes, numbers, fold.train))])

    def _run_group(self, group, fold, task, outcomes):
        problem = group[0][1]
        begin = time.perf_counter()
        backend = problem.backend()
        solutions = solve_all(
            problem.source,
            [own.options for _, own in group],
            backend,
            [task.epochs({"classes_": problem.classes}) for _ in group],
            validate=problem.validator(backend),
        )
        seconds = (time.perf_counter() - begin) / len(group)
        test = self.data.rows_to_score(backend, fold.test)
        train = self.data.rows_to_score(backend, fold.train) if self.return_train_score else None
        for (i, own), solution in zip(group, solutions, strict=True):
            if isinstance(solution, ValueError):
                outcomes[i] = self._failed(solution, seconds)
                continue
            model = clone(self.candidates[i])
            model._store_fit(solution, own, self.data.features)
            begin = time.perf_counter()
            score = self.scorers(model, test)
            score_seconds = time.perf_counter() - begin
            outcomes[i] = Outcome(None, score, train and self.scorers(model, train), seconds, score_seconds)

    def _line(self, fold, outcomes):
        seconds = sum(outcome.fit_seconds + outcome.score_seconds for outcome in outcomes)
        failed = sum(outcome.error is not None for outcome in outcomes)
        failures = f", {failed} of which failed" if failed else ""
        return (
            f"Fold {fold.number + 1} of {len(self.data.folds)}: {len(outcomes)} candidates{failures}, {seconds:.2f} s"
        )


# ---- the tables


class StandIn(SoftmaxRegressionClassifier):
    """Stands for an estimator before GridSearchCV, which makes the tables: training and scoring are over.

    X has two rows for each fold: `fit` is given the first, `score_of` that or the second, which stands for the held-out rows.
    """

    def __sklearn_clone__(self):
        stand_in = StandIn(**self.get_params())
        stand_in.known = self.known
        return stand_in

    def fit(self, rows, y):
        if len(rows) > 1:  # the best on all rows, which the search trains itself
            return self
        self.outcome = self.known[int(rows[0, 0]) // 2, _key(self)]
        if self.outcome.error is not None:
            raise self.outcome.error
        return self

    def score_of(self, rows, y):
        """What scored, as a callable for GridSearchCV."""
        score = self.outcome.test if rows[0, 0] % 2 else self.outcome.train
        if isinstance(score, Exception):
            raise score
        return score


def _key(estimator):
    return repr(sorted(estimator.get_params().items()))


def _set_times(results, outcomes):
    """The seconds that folds really took, (n_folds, n_candidates)."""
    for name in ("fit", "score"):
        seconds = np.array([[getattr(outcome, f"{name}_seconds") for outcome in fold] for fold in outcomes])
        results[f"mean_{name}_time"], results[f"std_{name}_time"] = seconds.mean(axis=0), seconds.std(axis=0)


def one_standard_error(results: dict[str, Any]) -> int:
    """The candidate of the largest `alpha` whose score is within one standard error of the best: for ``refit``.

    Scores of neighbours on a path of `alpha` hardly differ; of these, the model that the penalty holds most is the least likely
    to have been chosen by chance [1]_.

    Parameters
    ----------
    results : dict
        `cv_results_` of a search over `alpha` with one score.

    Returns
    -------
    index : int
        Of the candidate in `results`.

    References
    ----------
    .. [1] T. Hastie, R. Tibshirani and J. Friedman, "The Elements of Statistical Learning", 2009, section 7.10.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skdl import SoftmaxRegressionClassifierCV, one_standard_error
    >>> X, y = load_iris(return_X_y=True)
    >>> search = SoftmaxRegressionClassifierCV(refit=one_standard_error, random_state=0).fit(X, y)
    >>> bool(search.best_index_ >= search.cv_results_["rank_test_score"].argmin())
    True
    """
    if "param_alpha" not in results or "mean_test_score" not in results:
        raise ValueError(
            "one_standard_error needs a search over alpha with one score: it takes the largest alpha that is good."
        )
    alpha = np.ma.filled(np.ma.array(results["param_alpha"], dtype=object), None)
    if not all(isinstance(value, Real) for value in alpha):
        raise ValueError(f"one_standard_error needs a number for alpha in each candidate: they have {alpha.tolist()}.")
    mean = np.nan_to_num(results["mean_test_score"], nan=-np.inf)
    n_splits = sum(name.startswith("split") and name.endswith("_test_score") for name in results)
    best = mean.argmax()
    close = mean >= mean[best] - results["std_test_score"][best] / np.sqrt(n_splits)
    candidates = np.flatnonzero(close)
    return int(max(candidates, key=lambda i: (alpha[i], mean[i])))
