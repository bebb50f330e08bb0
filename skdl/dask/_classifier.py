"""The estimator for data of Dask."""

from __future__ import annotations

from copy import deepcopy
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from dask.base import is_dask_collection
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

import skdl
from skdl import _rounds, _shards, _validation
from skdl._callbacks import Task, callback_managed
from skdl._parameters import check
from skdl._sgd import solve
from skdl._warnings import warn
from skdl.dask._collections import check_collection, parts_of, predicted, real_dtype, right
from skdl.dask._runtime import Runtime, current_client

if TYPE_CHECKING:
    import dask.array
    import dask.dataframe
    from distributed import Client
    from numpy.typing import ArrayLike

    Matrix = dask.array.Array | dask.dataframe.DataFrame
    Column = dask.array.Array | dask.dataframe.Series | ArrayLike


class SoftmaxRegressionClassifier(skdl.SoftmaxRegressionClassifier):
    """Softmax regression on Dask's arrays and data frames, trained by local SGD where the rows are.

    The model, its parameters and its fitted attributes are those of :class:`skdl.SoftmaxRegressionClassifier`. What `fit`,
    `score` and predictions are given may be larger than the memory of any one machine, but not than that of the cluster. NumPy
    arrays are predicted, and streamed by `partial_fit`, as there.

    Parameters
    ----------
    lr, batch_size, max_iter, lr_schedule, momentum, alpha, l1_ratio, standardize, fit_intercept
        As there; with ``lr="auto"``, minibatches may be smaller than `batch_size`; see Notes.
    shuffle : bool, default=True
        Whether the rows are exchanged at random between the workers, once, and visited in a new random order in each epoch.
        False is for rows that are in random order already: each worker keeps chunks that follow each other and visits their
        rows in order.
    tol, n_iter_no_change, early_stopping, class_weight, warm_start, half_life
        As there.
    validation_fraction : float in (0, 1), default=0.1
        Share of each chunk's rows, drawn at random, that `early_stopping` holds out where `fit` is given no `X_val`.
    backend, device
        As there, on the workers.
    n_jobs : int or None, default=None
        Number of threads of a round of one shard. None: as many as there are threads of workers for each. The result does not
        depend on it.
    random_state : int, RandomState or None, default=None
        Seed of the exchange of the rows and of their order. Results for a given seed are bit-identical on clusters that have
        the same number of threads in all when the fit begins, if the chunks are the same, whatever becomes of the workers.
    verbose : int, default=0
        As there.
    rounds_per_epoch : "auto" or int, default="auto"
        How often in an epoch the models of the shards are averaged. "auto": 5 times, or 20 times with small minibatches; once
        where there is one shard.
    client : distributed.Client or None, default=None
        Whose workers compute. None: the current client's; without any, Dask's own scheduler, on one shard in this process.
        A copy by :func:`sklearn.base.clone` has the same client, and a pickled estimator none.

    See Also
    --------
    skdl.SoftmaxRegressionClassifier : For data in memory or, as :class:`skdl.Blocks`, on the disk of one machine, where most
        data are trained faster than by a cluster.

    Notes
    -----
    `fit` computes the labels, then X, once: statistics, checks, and the exchange of the rows, each of which goes to a random
    shard. There are as many shards as workers have threads when the fit begins, if the rows are enough: a model needs 1,500
    updates, or the average is worse than what one worker finds. For more shards, with ``lr="auto"``, minibatches become
    smaller, down to 32 rows, and steps up to 4 times as long for their size as on one machine, since averages are less noisy.
    Beyond that there are fewer shards, and a warning says so. The cluster holds all rows in memory from then on, and twice
    that during the exchange.

    An epoch then is a few rounds: each shard's model takes its steps, and the mean of coefficients and velocities, weighted by
    rows, is where all go on from [1]_, [2]_. The step falls over all rounds as on one machine. All tasks are pure functions, so
    Dask can replace a worker that is lost: it makes the shards again, and the rounds since the epoch began, with the same bits.

    References
    ----------
    .. [1] S. U. Stich, "Local SGD converges fast and communicates little", ICLR 2019.
    .. [2] H. Yu, R. Jin and S. Yang, "On the linear speedup analysis of communication efficient momentum SGD for distributed
       non-convex optimization", ICML 2019.

    Examples
    --------
    >>> import dask.array as da
    >>> from sklearn.datasets import load_digits
    >>> from skdl.dask import SoftmaxRegressionClassifier
    >>> X, y = (da.from_array(a, chunks=500) for a in load_digits(return_X_y=True))
    >>> model = SoftmaxRegressionClassifier(random_state=0).fit(X, y)
    >>> model.predict(X)
    dask.array<_predict, shape=(1797,), dtype=int64, chunksize=(500,), chunktype=numpy.ndarray>
    >>> model.score(X, y) > 0.95
    True
    """

    def __init__(
        self,
        *,
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
        warm_start: bool = False,
        half_life: float | None = None,
        backend: Literal["openmp", "opencl"] = "openmp",
        device: str | None = None,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
        rounds_per_epoch: int | Literal["auto"] = "auto",
        client: Client | None = None,
    ) -> None:
        super().__init__(
            lr=lr, batch_size=batch_size, max_iter=max_iter, lr_schedule=lr_schedule, momentum=momentum, alpha=alpha,
            l1_ratio=l1_ratio, standardize=standardize, fit_intercept=fit_intercept, shuffle=shuffle, tol=tol,
            n_iter_no_change=n_iter_no_change, early_stopping=early_stopping, validation_fraction=validation_fraction,
            class_weight=class_weight, warm_start=warm_start, half_life=half_life, backend=backend, device=device,
            n_jobs=n_jobs, random_state=random_state, verbose=verbose,
        )  # fmt: skip
        self.rounds_per_epoch = rounds_per_epoch
        self.client = client

    # ---- training

    @callback_managed
    def fit(
        self,
        X: Matrix,
        y: Column,
        sample_weight: Column | None = None,
        *,
        X_val: Matrix | ArrayLike | None = None,
        y_val: Column | None = None,
        sample_weight_val: Column | None = None,
    ) -> Self:
        """Train on X and y from scratch (with `warm_start`, from the coefficients of the previous fit).

        Parameters
        ----------
        X : dask array or data frame of shape (n_samples, n_features)
            The chunks of an array may be CSR, and their sizes unknown. Chunks without rows are passed over.
        y : dask array or series of shape (n_samples,)
            Class labels, in chunks like those of X. If the sizes of these are known, y may be anything of this length.
        sample_weight : like y, default=None
            Weights >= 0. A weight of 2 is equivalent to repeating the row; rows of weight 0 are left out.
        X_val, y_val, sample_weight_val : like X, y, sample_weight, default=None
            A validation set, of Dask or in memory. Its loss and score are recorded after each epoch; with `early_stopping` its
            loss decides when to stop, and no rows of X are held out.

        Returns
        -------
        self : SoftmaxRegressionClassifier

        Raises
        ------
        TypeError
            If X is not of Dask.
        ValueError
            If a parameter or the data are not valid, or if training diverges. The estimator stays as it was.
        RuntimeError
            If Dask gives up, because a task fails or too many workers have died; its own error is the cause.

        Warns
        -----
        UserWarning
            If the rows are too few for all workers.
        ConvergenceWarning
            As of :meth:`skdl.SoftmaxRegressionClassifier.fit`.
        """
        options, rounds = check(self), self.rounds_per_epoch
        if rounds != "auto" and not (isinstance(rounds, Integral) and not isinstance(rounds, bool) and rounds >= 1):
            raise ValueError(f"rounds_per_epoch={rounds!r} is not valid: expected 'auto' or an integer >= 1.")
        with self._unchanged_on_error(), self._runtime() as runtime:
            has_own = X_val is not None or y_val is not None
            problem, features = _rounds.pose(
                options,
                runtime,
                parts_of(X, y, sample_weight),
                # as will be drawn when nothing is left to be refused
                seed=check_random_state(deepcopy(options.random_state)).randint(2**31 - 1),
                rounds_per_epoch=rounds,
                weighted=sample_weight is not None,
                validates=options.early_stopping and not has_own,
            )
            for name in self._features():
                delattr(self, name)
            vars(self).update(features)
            start = None
            if options.warm_start and hasattr(self, "coef_"):
                _validation.check_warm_start(self, problem.classes, problem.source.n_features)
                start = self.coef_, self.intercept_
            backend = _rounds.Backend.of(problem)
            if has_own or sample_weight_val is not None:
                held_out = self._validation_set(runtime, X_val, y_val, sample_weight_val, problem.classes)
                problem = problem._replace(held_out=held_out)
            if isinstance(problem.held_out, list):
                validate = _rounds.validator(runtime, problem.held_out, backend.settings)
            else:
                validate = problem.validator(backend)
            task = Task.of_fit(self, problem.options.max_iter, X=X, y=y, metadata={"sample_weight": sample_weight})
            solution = solve(
                problem.source,
                problem.options,
                backend,
                start=start,
                validate=validate,
                hooks=task.epochs({"classes_": problem.classes}),
            )
            if solution.advice:
                warn(solution.advice, ConvergenceWarning)
            self._store_fit(solution, problem, features)
            task.close()
        return self

    def _runtime(self):
        return Runtime(current_client() if self.client is None else self.client)

    def _validation_set(self, runtime, X, y, weight, classes):
        """Handles of blocks to validate with, or, of a set in memory, what `Problem.validator` expects."""
        if not is_dask_collection(X) or y is None:
            return _validation.validate_held_out(self, X, y, weight, classes)
        blocks = [
            runtime.call(_shards.block_to_validate, runtime.call(_shards.Part, i, *part), classes, self._features())
            for i, part in enumerate(parts_of(X, y, weight, "X_val"))
        ]
        return runtime.keep(blocks)

    # ---- prediction

    def _lazily(self, method, X, n_columns, dtype=None):
        """A method's result for a collection of Dask; of other data at once."""
        if not is_dask_collection(X):
            return getattr(super(), method)(X)
        self._check_fitted()
        check_collection(X, "X")
        if X.shape[1] != self.n_features_in_:
            raise ValueError(f"X has {X.shape[1]} columns, but this model was fitted with {self.n_features_in_}.")
        dtype = real_dtype(X, self.coef_) if dtype is None else dtype
        return predicted(self._on_one_thread(), X, method, dtype, n_columns)

    def _on_one_thread(self):
        """What predicts in tasks, of which there are as many as threads."""
        model = skdl.SoftmaxRegressionClassifier(backend=self.backend, device=self.device, n_jobs=1)
        vars(model).update(coef_=self.coef_, intercept_=self.intercept_, classes_=self.classes_, **self._features())
        return model

    def decision_function(self, X: Any) -> Any:
        """Logits W x + b.

        Parameters
        ----------
        X : dask array or data frame, or as for skdl.SoftmaxRegressionClassifier

        Returns
        -------
        logits : dask array, or ndarray, of shape (n_samples, n_classes), or (n_samples,) for two classes
        """
        self._check_fitted()
        return self._lazily("decision_function", X, None if len(self.classes_) == 2 else len(self.classes_))

    def predict(self, X: Any) -> Any:
        """The most probable class of each row.

        Parameters
        ----------
        X : dask array or data frame, or as for skdl.SoftmaxRegressionClassifier

        Returns
        -------
        y : dask array, or ndarray, of shape (n_samples,)
        """
        self._check_fitted()
        return self._lazily("predict", X, None, self.classes_.dtype)

    def predict_proba(self, X: Any) -> Any:
        """Probabilities of the classes.

        Parameters
        ----------
        X : dask array or data frame, or as for skdl.SoftmaxRegressionClassifier

        Returns
        -------
        probabilities : dask array, or ndarray, of shape (n_samples, n_classes)
        """
        self._check_fitted()
        return self._lazily("predict_proba", X, len(self.classes_))

    def predict_log_proba(self, X: Any) -> Any:
        """Logarithms of the probabilities.

        Parameters
        ----------
        X : dask array or data frame, or as for skdl.SoftmaxRegressionClassifier

        Returns
        -------
        log_probabilities : dask array, or ndarray, of shape (n_samples, n_classes)
        """
        self._check_fitted()
        return self._lazily("predict_log_proba", X, len(self.classes_))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The share of the rows whose class is the most probable one.

        Parameters
        ----------
        X : dask array or data frame, or as for skdl.SoftmaxRegressionClassifier
        y, sample_weight
            As for `fit`.

        Returns
        -------
        accuracy : float
        """
        if not is_dask_collection(X):
            return super().score(X, y, sample_weight)
        self._check_fitted()
        runtime = self._runtime()
        model = runtime.call(_rounds.unchanged, self._on_one_thread())
        sums = [runtime.call(right, *part, model) for part in parts_of(X, y, sample_weight)]
        of_right, of_all = runtime.result(_rounds.in_tree(runtime, _shards.added, sums))
        return float(of_right / of_all)

    # ---- exits

    def to_local(self) -> skdl.SoftmaxRegressionClassifier:
        """This model as one for data in memory, which needs no Dask: to save, to serve, to convert to ONNX.

        Returns
        -------
        model : skdl.SoftmaxRegressionClassifier
            With the same parameters and fitted attributes.
        """
        self._check_fitted()
        names = skdl.SoftmaxRegressionClassifier().get_params(deep=False)
        model = skdl.SoftmaxRegressionClassifier(**{name: getattr(self, name) for name in names})
        vars(model).update(deepcopy(self._fitted_attributes()))
        return model

    # ---- copies

    def __sklearn_clone__(self):
        # A client can be used by several, but not be copied.
        client, state = self.client, self.__dict__
        without = type(self).__new__(type(self))
        without.__dict__.update({**state, "client": None})
        copy = super(SoftmaxRegressionClassifier, without).__sklearn_clone__()
        copy.client = client
        return copy

    def __getstate__(self):
        return {**super().__getstate__(), "client": None}
