"""The estimator: public methods and their documentation. What they do is `_validation`, `_sgd` and `_softmax`."""

from __future__ import annotations

from contextlib import nullcontext
from copy import copy
from dataclasses import replace
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, Self

from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.multiclass import check_classification_targets

from skdl import _validation
from skdl._blocks import Blocks, as_blocks
from skdl._callbacks import CallbackSupportMixin, Task, callback_managed
from skdl._checkpoint import Checkpoint, identity
from skdl._data import InMemory
from skdl._model import SoftmaxModel
from skdl._out_of_core import naming_blocks, pose_blocks, read_whole
from skdl._parameters import check
from skdl._problem import Problem, pose
from skdl._reader import Reader
from skdl._sgd import solve
from skdl._stream import Stream, stream_of_0_1
from skdl._warnings import warn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

    from skdl._model import MatrixLike


class SoftmaxRegressionClassifier(CallbackSupportMixin, SoftmaxModel):
    r"""Softmax regression (multinomial logistic regression) trained by minibatch SGD.

    Minimises, over W = `coef_` and b = `intercept_`,

    .. math::
        F(W, b) = \frac{\sum_i s_i \, \ell(W x_i + b, y_i)}{\sum_i s_i}
        + \alpha \sum_j \left( \frac{1 - \rho}{2} \lVert W_j r_j \rVert_2^2 + \rho \lVert W_j r_j \rVert_1 \right)

    with cross-entropy :math:`\ell(h, y) = -h_y + \log \sum_c e^{h_c}`, sample weights :math:`s_i`,
    :math:`\rho` = `l1_ratio`, and :math:`W_j` the coefficients of feature j, whose unit is :math:`r_j` = ``scale_[j]``. On
    X / `scale_` it is the objective of :class:`~sklearn.linear_model.LogisticRegression` with
    ``C = 1 / (alpha_ * s.sum())``, for two classes too, where there is one logit; with ``standardize=False`` it is on X
    itself. The intercept is not penalised.

    Parameters
    ----------
    lr : "auto" or float, default="auto"
        Step size. A number gives the plain textbook step on the features as they are; see Notes for "auto".
    batch_size : int, default=128
        Rows per minibatch. With ``lr="auto"`` the rows are split evenly over ``ceil(n / batch_size)`` minibatches, so that
        the last is not smaller than the others.
    max_iter : "auto" or int, default="auto"
        Largest number of epochs, that is, of passes over the data. "auto" is about 3000 updates, but at least 5 epochs: 6
        epochs for 60,000 rows, 3000 for 100, of which few are made where the optimum is near; see `tol`. Of rows that are read
        block by block one epoch is enough where it has 15,000 updates.
    lr_schedule : {"constant", "linear", "cosine"}, default="cosine"
        How the step size falls: not at all, or to 0 at the end of `max_iter` epochs. With ``max_iter="auto"``, if that is 120
        epochs or more, and with `early_stopping` it holds first, until the loss is flat or half of the epochs are made, and
        then falls for at most as many epochs as it has held.
    momentum : float in [0, 1), default=0.9
        Heavy ball: V := momentum V + G; W := W - lr V.
    alpha : "auto" or float, default="auto"
        Strength of the penalty. "auto" learns it from the data while it trains; see Notes.
    l1_ratio : float in [0, 1], default=0.0
        Share of the L1 norm in the penalty: 0 is L2, 1 is L1, anything between is the elastic net. L1 gives exact zeros; with
        ``lr="auto"``, `fit` ends with a few proximal steps on all rows, so that they are those of the optimum.
        :class:`~sklearn.feature_selection.SelectFromModel` needs ``threshold=1e-5`` to select the features whose
        coefficients are not 0: it knows by their names the estimators for which this is its default.
    standardize : bool, default=True
        Whether the penalty acts on the coefficients of the features in the solver's units, ``W_j r_j`` with r = `scale_`, so
        that predictions do not depend on the unit of any column, and `alpha` is comparable between data sets. Columns of CSR
        whose rows all have one length, as TfidfVectorizer makes them, share a unit already, and keep it: r is that length.
        False: on `coef_` itself, which is the objective of LogisticRegression on the features as they are.
    fit_intercept : bool, default=True
        Whether to fit an intercept. Without one, ``lr="auto"`` scales the features but does not centre them.
    shuffle : bool, default=True
        Whether to visit the rows in a new random order in each epoch; with ``lr="auto"``, rows of much weight or length more
        often than others (see Notes).
    tol : float, default=1e-4
        A fit ends once its objective is estimated to be less than `tol` above the optimum. That is measured every 60 epochs
        or less often; with 0 all epochs are made. With a constant step, whose schedule is the textbook's, `tol` is the
        smallest decrease of the loss that counts as an improvement.
    n_iter_no_change : int, default=5
        With a constant step, stop after this many epochs without an improvement of at least `tol`, in the validation loss with
        `early_stopping`. With a falling one and `early_stopping`, the fewest epochs whose mean validation loss is compared with
        that of as many before.
    early_stopping : bool, default=False
        Whether a validation set decides when to stop. The step holds while the mean validation loss over 300 updates or more
        still falls by `tol`; then it falls as `lr_schedule` says. Kept are the coefficients of the best of the last epochs,
        whose step is below a tenth of the first: larger steps leave noise in them, and the best of many is the best by
        chance. Earlier ones are kept where they were better in the mean over several. The step also falls once the mean
        validation loss rises while that of training falls. With a constant step the best of all epochs is kept.
    validation_fraction : float in (0, 1), default=0.1
        Share of the rows held out for validation, stratified where there are enough, if `fit` is given no `X_val`.
    class_weight : dict, "balanced" or None, default=None
        Weight of each class label, 1 for those not in the dict; "balanced" gives all classes the same total weight.
    warm_start : bool, default=False
        Whether `fit` starts from the coefficients of the previous fit.
    half_life : float or None, default=None
        Number of rows after which, in `partial_fit`, what came before counts half, for streams whose distribution drifts: in
        the statistics, in the weights and, with ``lr="auto"``, in the average and in how far the step has fallen, so that the
        model follows. Short ones follow fast and are noisy. None: nothing is forgotten.
    backend : {"openmp", "opencl"}, default="openmp"
        What computes: the CPU, or an OpenCL device (needs PyOpenCL and a driver; worth it on a GPU, with large
        minibatches or many classes). If it is not available, `fit` raises an error; there is no silent fallback. Only where
        PyOpenCL is not installed does a fitted model predict on the CPU.
    device : str or None, default=None
        The OpenCL device: indices "platform:device" or part of a name, as listed by ``python -m skdl.opencl``. None: the
        device named by the environment variable PYOPENCL_CTX if that is set, otherwise the first that works, GPUs first.
    n_jobs : int or None, default=None
        Number of threads of the backend "openmp". None: all that the process may use (OMP_NUM_THREADS, affinity and quota
        are respected); negative values count back from it: -1 means all, -2 all but one. There are never more threads than
        cores. The result does not depend on it.
    random_state : int, RandomState or None, default=None
        Seed of the order of the rows and of the validation split. Results for a given seed and device are bit-identical.
    verbose : int, default=0
        Print a line after each epoch if this is not 0.

    Attributes
    ----------
    coef_ : ndarray of shape (n_classes, n_features), or (1, n_features) for two classes
        float64 if X was, else float32.
    intercept_ : ndarray of shape (n_classes,), or (1,) for two classes
        0 with ``fit_intercept=False``.
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted.
    n_features_in_ : int
        Number of features of X.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Only if X had feature names that are all strings.
    n_iter_ : int
        Number of epochs that were run.
    loss_curve_ : list of float
        Mean cross-entropy of each epoch, measured during the epoch, without the penalty.
    validation_loss_curve_ : list of float
        Cross-entropy on the validation set after each epoch, if there is one.
    validation_scores_ : list of float
        Accuracy on the validation set after each epoch, if there is one.
    best_epoch_ : int
        The epoch, counted from 1, whose coefficients `early_stopping` has kept.
    lr_ : float
        The step size of the first update; with ``lr="auto"`` in the scaled coordinates.
    alpha_ : float
        The strength of the penalty; with ``alpha="auto"`` the last one.
    scale_ : ndarray of shape (n_features,)
        float64; the unit r of each feature in the penalty: the geometric mean of ``max |x - mean|`` and the standard
        deviation; for CSR, see Notes and `standardize`. 1 for a constant column, and for all with ``standardize=False`` or
        where nothing needs the features' statistics (a numeric `lr` with ``alpha=0``).

    See Also
    --------
    sklearn.linear_model.LogisticRegression : The same model by L-BFGS and other solvers: precise, slower on large data.
    sklearn.linear_model.SGDClassifier : One-versus-rest logistic regression by SGD, one row at a time.

    Notes
    -----
    What ``lr="auto"`` does. One pass over X gives the mean, extremes and variance of each feature. SGD then runs in the
    coordinates u = (x - mean) / r with r the geometric mean of ``max |x - mean|`` and the standard deviation. This happens
    inside the kernels: X is neither copied nor changed, and the objective is the same for every `lr`. The step is the largest
    that is stable [1]_ for the curvature [2]_ seen in eight minibatches, or the largest that the noise of a minibatch allows
    if that is smaller, and it falls to 0.

    A column of CSR is divided by the mean of ``|x|`` over its values that are not 0, times the share of such values in it to
    the power 0.15, and is not centred, which would make it dense. Only features that are stored in all rows, a year for
    example, are treated as those of dense X; where there are any, the stored values are copied. So for a given `alpha` and
    ``standardize=False``, fits on CSR and on its dense copy reach the same optimum by different paths; with a numeric `lr`
    and ``alpha=0`` they give the same model. With a penalty, the proximal steps that a feature misses while it does not occur
    in CSR are taken at once when it next does.

    No few rows set the step. Where sample weight times ``sqrt(|u|^2 + 1)`` is uneven, and an epoch has several minibatches, an
    epoch with ``shuffle=True`` draws as many rows as there are, in proportion to it (four fifths; one fifth is the same for
    all rows), and divides the weight of a row by its share: the objective stays, the noise falls [3]_, [4]_. Some rows then
    come several times in an epoch, others not in each. A row that is more than five times as long as three quarters of the
    rows has no say in mean and r, and its weight is reduced where its leverage, ``|u|^2``, is more than a hundredth of that of
    all others [5]_: a warning says so. Even data are visited as ever, each row once.

    What ``alpha="auto"`` does. Pixels in 0..255 and in [0, 1], word counts and tf-idf, 100 rows and 100,000 all need penalties
    of different strength, so the data choose it. The strength to begin with is a small share of the curvature of the loss at
    W = 0: ``(5e-5 + 0.1 / n) * (1/k) * (1 - 1/k) * square.sum()`` for k classes and ``standardize=True``, with n the sum of
    the sample weights and square the mean of u^2 of each feature. It is then updated up to six times while the step is
    large, by the evidence [6]_: alpha becomes the number of coefficients that the data determine, divided by n and by the
    sum of the squares of ``W_j r_j``. That number follows from the probabilities that the model gives and from the
    eigenvalues of the mean of u u^T over a sample of the rows. A model that has hardly been trained says nothing yet, and
    alpha stays.

    The evidence asks for too strong a penalty where the classes are separable. So the last update leaves out one row at a
    time, by a formula [7]_, and weakens the penalty as far as these rows are predicted better with larger coefficients. With
    ``l1_ratio=1``, every coefficient that is not 0 counts as determined [8]_, and no rows are left out. Short fits have
    fewer updates: none with ``max_iter=1``, and with 2 only one, by the evidence. CSR is scaled in another way, so its
    `alpha_` is not that of the dense copy. With a numeric `lr` the statistics of the features cost one extra pass over X.

    In a stream, `alpha_` begins likewise. Once it has been updated, the precision ``n * alpha_`` of the coefficients stays
    while rows come, so `alpha_` falls as 1 / n. A call of 256 rows or more updates it if the total weight of the rows is at
    least twice that of the last update, and goes half way to what the evidence says, since the model is still on its way.
    After a `fit` the stream goes on from its `alpha_`.

    What ``lr="auto"`` does in a stream. The step of `partial_fit` falls as the inverse square root of the rows seen, is
    shorter where their weights are uneven, by the factor of Kish's effective sample size, and `coef_` is the polynomial-decay
    average of SGD's positions [9]_, in which early ones soon count nothing: at any moment about as good as one epoch of a
    `fit` that knows where the stream ends. `half_life` bounds the rows that count in both. A step on few rows is the share
    that they would have in a minibatch of `batch_size`; the first minibatches are smaller, since early on many updates are
    worth more than smooth ones. Mean and scale are revised with each call. A column that turns out to reach much further than
    before keeps its coefficient in the scaled coordinates, as in normalised online learning [10]_, so that a first call with
    constant, tiny or far-away values fixes nothing. A `fit` leaves its statistics and its rows, each as ten rows of a stream,
    so that a few further rows hardly move its model. A row of a short call that would have more than a hundredth of the
    leverage of all rows before is held for an error: it leaves mean and scale alone and counts with less weight, and a
    warning says so; where such rows are more than one in 64, the data are believed to have changed.

    What changes for :class:`~skdl.Blocks`, and for arrays of more than 4 GiB, which are visited in the same way: a first pass
    finds the classes, the statistics of the features and a sample of the rows; epochs visit the blocks in random order, and the
    rows in random order within a buffer of 256 MiB; all rows are visited equally often, whatever their weight or length; and
    without `X_val`, `early_stopping` holds out whole blocks. Where sample weights and lengths are uneven, the step is shorter
    for it. ``class_weight`` costs another pass, over the labels alone where X lies in a file.

    Computation is in float64 for float64 input, else in float32; an OpenCL device without float64 warns and uses float32.

    References
    ----------
    .. [1] B. T. Polyak, "Some methods of speeding up the convergence of iteration methods", USSR Computational
       Mathematics and Mathematical Physics 4 (5), 1964.
    .. [2] D. Boehning, "Multinomial logistic regression algorithm", Annals of the Institute of Statistical Mathematics
       44 (1), 1992.
    .. [3] D. Needell, N. Srebro and R. Ward, "Stochastic gradient descent, weighted sampling, and the randomized Kaczmarz
       algorithm", NeurIPS 2014.
    .. [4] P. Zhao and T. Zhang, "Stochastic optimization with importance sampling for regularized loss minimization",
       ICML 2015.
    .. [5] R. J. Carroll and S. Pederson, "On robustness in the logistic regression model", Journal of the Royal Statistical
       Society B 55 (3), 1993.
    .. [6] D. J. C. MacKay, "The evidence framework applied to classification networks", Neural Computation 4 (5), 1992.
    .. [7] T. Jaakkola and D. Haussler, "Probabilistic kernel regression models", AISTATS 1999.
    .. [8] H. Zou, T. Hastie and R. Tibshirani, "On the degrees of freedom of the lasso", Annals of Statistics 35 (5), 2007.
    .. [9] O. Shamir and T. Zhang, "Stochastic gradient descent for non-smooth optimization: convergence results and optimal
       averaging schemes", ICML 2013.
    .. [10] S. Ross, P. Mineiro and J. Langford, "Normalized online learning", UAI 2013.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdl import SoftmaxRegressionClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> model = SoftmaxRegressionClassifier(random_state=0).fit(X[:1000], y[:1000])
    >>> model.score(X[1000:], y[1000:]) > 0.9
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
    ) -> None:
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
        self.warm_start = warm_start
        self.half_life = half_life
        self.backend = backend
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    # ---- training

    @callback_managed
    def fit(
        self,
        X: MatrixLike | Blocks,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: MatrixLike | None = None,
        y_val: ArrayLike | None = None,
        sample_weight_val: ArrayLike | None = None,
        checkpoint: str | PathLike[str] | None = None,
    ) -> Self:
        """Train on X and y from scratch (with `warm_start`, from the coefficients of the previous fit).

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features), or Blocks
            Dense C-ordered float64, float32, float16, uint8, int8 and bool and CSR of float64 or float32 are read in place,
            without conversion; anything else is converted once. A copy is made of CSR whose rows are nearly full, which
            becomes dense, and of up to 1,024 rows with at least twice as many features, where ``lr="auto"``, the penalty is
            L2 in the features' units and that makes the fit faster. Arrays of more than 4 GiB and :class:`~skdl.Blocks` are
            visited block by block, so that they need not fit into memory; see Notes.
        y : array-like of shape (n_samples,)
            Class labels: numbers, strings or booleans. None where X is Blocks, which have labels of their own.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights >= 0. A weight of 2 is equivalent to repeating the row; rows of weight 0 are left out.
        X_val, y_val, sample_weight_val : like X, y, sample_weight, default=None
            A validation set of your own. Its loss and score are recorded after each epoch; with `early_stopping` its loss
            decides when to stop, and no rows of X are held out.
        checkpoint : str or path, default=None
            A file to which a fit of blocks writes how far it is, every five seconds or less often, and which is deleted when it
            has ended. If it was killed, the same call goes on from there and ends with the same bits. A checkpoint of other
            data, parameters, versions or processors is refused. The data are known by the number of blocks and the
            contents of 16 of them. Two fits at a time cannot have one path: the second is refused. Blocks of at most 256 MiB
            in all are trained too fast to need a checkpoint, and write none.

        Returns
        -------
        self : SoftmaxRegressionClassifier

        Raises
        ------
        ValueError
            If a parameter or the data are not valid, or if training diverges. The estimator stays as it was.

        Warns
        -----
        ConvergenceWarning
            If the objective is more than 5 % of the optimum and more than 0.005 above the optimum, as estimated from its
            gradient and curvature. Large data after fewer than 20 epochs are judged by the number of updates and the loss
            alone. Also if ``alpha="auto"`` has collapsed under a numeric `lr` that is far too large. There is none with
            `early_stopping`, or where a callback has stopped the fit.
        """
        options = check(self)
        if isinstance(X_val, Blocks):
            raise TypeError(
                "X_val holds Blocks: expected an array, and y_val beside it. early_stopping=True holds out blocks."
            )
        held = nullcontext() if checkpoint is None else Checkpoint(checkpoint).held()
        with self._unchanged_on_error(), held as kept:
            blocks, given_val = as_blocks(X, y, sample_weight), (X_val, y_val, sample_weight_val)
            probe = copy(self)  # validation sets attributes, which a fit in another thread would read
            reader = None if blocks is None else Reader(probe, blocks)
            whole = None if blocks is None else read_whole(reader)
            if blocks is None or whole is not None:
                X, y, sample_weight = whole or (X, y, sample_weight)
                names = None if whole is None else getattr(probe, "feature_names_in_", None)
                problem, y = probe._pose(options, X, y, sample_weight, given_val, names)
                kept = None
            else:
                if kept is not None:
                    begun_with = [getattr(self, "coef_", None), getattr(self, "intercept_", None)]
                    begun_with = begun_with if options.warm_start else [None, None]
                    kept.open(identity(options, reader, given_val, begun_with))
                has_own = any(given is not None for given in given_val)
                own = partial(_validation.validate_held_out, probe, *given_val) if has_own else None
                problem = pose_blocks(options, reader, kept, own)
            features, start = probe._features(), None
            if options.warm_start and hasattr(self, "coef_"):
                _validation.check_warm_start(self, problem.classes, problem.source.n_features)
                start = self.coef_, self.intercept_
            metadata = {"sample_weight": sample_weight}
            task = Task.of_fit(self, problem.options.max_iter, X=X, y=y, metadata=metadata)
            backend = problem.backend()
            with nullcontext() if whole is None else naming_blocks(reader):
                solution = solve(
                    problem.source,
                    problem.options,
                    backend,
                    start=start,
                    validate=problem.validator(backend),
                    hooks=task.epochs({"classes_": problem.classes, **features}),
                    checkpoint=kept,
                )
            if solution.advice:
                warn(solution.advice, ConvergenceWarning)
            self._store_fit(solution, problem, features)
            if kept is not None:
                kept.remove()
            task.close()
        return self

    def _pose(self, options, X, y, sample_weight, given_val, names=None):
        """The `Problem` of arrays, and y as scikit-learn's checks have left it.

        names: of the features, where the arrays were blocks that had some.
        """
        X, y = _validation.validate_training(self, X, y, reset=True)
        if names is not None:
            self.feature_names_in_ = names
        classes, numbers = _validation.number_labels(y)
        weight = _validation.check_weight(sample_weight, len(y))
        held_out = _validation.validate_held_out(self, *given_val, classes)
        return pose(options, X, numbers, classes, weight, held_out=held_out), y

    def partial_fit(
        self,
        X: MatrixLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Make one pass over one part of a stream of data, starting where the last call ended.

        Calls may have one row or many, and may follow a `fit`, whose rows then count among those seen so far. With
        ``lr="auto"`` the model is the average of where SGD goes; see Notes. A numeric `lr` gives plain textbook steps of
        constant size, and the model is where they end. Mean and scale of the features are those of the latest half of the rows
        at least, and ``class_weight="balanced"`` follows the class totals of all. `half_life` forgets old rows.

        Sample weights count across calls: a call's steps are weighed by the mean of its weights over the mean of those of all
        rows so far, its own included.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            As for `fit`.
        y : array-like of shape (n_samples,)
            Class labels, all of them among `classes`.
        classes : array-like of shape (n_classes,), default=None
            All classes that any call may contain. Required on the first call, optional afterwards.
        sample_weight : array-like of shape (n_samples,), default=None
            As for `fit`.

        Returns
        -------
        self : SoftmaxRegressionClassifier

        Raises
        ------
        ValueError
            As for `fit`; if `classes` is missing on the first call or changes later; if y contains another class.
        """
        options = replace(check(self), max_iter=1, lr_schedule="constant", early_stopping=False)
        first = not hasattr(self, "classes_")
        classes = _validation.classes_of_stream(classes, None if first else self.classes_)
        with self._unchanged_on_error():
            probe = copy(self)
            X, y = _validation.validate_training(probe, X, y, reset=first)
            features = probe._features()
            check_classification_targets(y)
            y = _validation.encode_labels(y, classes, "y")
            weight = _validation.check_weight(sample_weight, len(y))
            stream = Stream.from_dict(getattr(self, "_stream", {}))
            stream = stream.forgotten(len(_validation.used_rows(weight, len(y))), options.half_life)
            stream = stream.with_classes(_validation.class_totals(weight, y, classes))
            weight = _validation.combined_weight(options.class_weight, weight, y, classes, stream.class_totals)
            source = InMemory(X, y, weight, _validation.used_rows(weight, len(y)))
            n_iter = getattr(self, "n_iter_", 0)
            solution = solve(
                source,
                options,
                Problem(source, options, classes, stream.class_totals, held_out=None).backend(),
                epoch=n_iter,
                start=None if first else (self.coef_, self.intercept_),
                stream=stream,
            )
            curve = [*getattr(self, "loss_curve_", []), *solution.history.loss_curve]
            self._store(solution, classes, features, {"n_iter_": n_iter + 1, "loss_curve_": curve})
        return self

    def _store_fit(self, solution, problem, features):
        """Set what a fit leaves."""
        for name in ("validation_loss_curve_", "validation_scores_", "best_epoch_"):
            vars(self).pop(name, None)
        history = solution.history
        solution.stream = solution.stream.with_classes(problem.class_totals)
        of_epochs = {"n_iter_": len(history.loss_curve), "loss_curve_": history.loss_curve}
        if problem.held_out is not None:
            of_epochs["validation_loss_curve_"] = history.validation_loss_curve
            of_epochs["validation_scores_"] = history.validation_scores
        if problem.options.early_stopping:
            # A fit that ends at the optimum, or by a callback, may keep the last for want of a best.
            of_epochs["best_epoch_"] = history.best_epoch or of_epochs["n_iter_"]
        self._store(solution, problem.classes, features, of_epochs)

    def _store(self, solution, classes, features, of_epochs):
        """Set all fitted attributes at once: fits in several threads may end in any order, but a model is of one of them."""
        if "feature_names_in_" not in features:
            vars(self).pop("feature_names_in_", None)
        vars(self).update(
            classes_=classes,
            coef_=solution.coef,
            intercept_=solution.intercept,
            lr_=solution.lr,
            alpha_=solution.alpha,
            scale_=solution.unit,
            _stream=solution.stream.to_dict(),
            **features,
            **of_epochs,
        )

    # ---- persistence

    def __setstate__(self, state):
        state = {"standardize": False, "half_life": None, **state}  # parameters that version 0.1.0 did not have
        if isinstance(state.get("_stream"), tuple):  # as it wrote it
            state["_stream"] = stream_of_0_1(*state["_stream"])
        super().__setstate__(state)
