"""The estimator: parameters, validation, labels, prediction."""

import warnings
from contextlib import contextmanager
from numbers import Integral, Real

import numpy as np
from scipy import sparse
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.exceptions import ConvergenceWarning, InconsistentVersionWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import assert_all_finite, check_array, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from skdl._backends import BACKENDS, get_backend
from skdl._kernels import find_csr_defect
from skdl._sgd import (
    Coordinates,
    EpochHooks,
    Statistics,
    auto_alpha,
    auto_epochs,
    auto_lr,
    log_loss_and_accuracy,
    train,
)
from skdl._version import __version__

# Storage types that the kernels convert themselves; whatever is not among them becomes float64.
DENSE_TYPES = [np.float64, np.float32, np.float16, np.uint8, np.int8, np.bool_]
SPARSE_TYPES = [np.float64, np.float32]


def _is_number(x):
    return isinstance(x, Real) and not isinstance(x, bool | np.bool_) and np.isfinite(x)


def _is_count(x):
    return isinstance(x, Integral) and not isinstance(x, bool | np.bool_)


def _is_auto(x):
    return isinstance(x, str) and x == "auto"


def _is_flag(x):
    return isinstance(x, bool | np.bool_)


# For each parameter: what is valid, and how to say it.
_VALID = {
    "lr": (lambda x: _is_auto(x) or (_is_number(x) and x > 0), "'auto' or a number > 0"),
    "batch_size": (lambda x: _is_count(x) and x >= 1, "an integer >= 1"),
    "max_iter": (
        lambda x: _is_auto(x) or (_is_count(x) and x >= 1),
        "'auto' or an integer >= 1",
    ),
    "lr_schedule": (
        lambda x: isinstance(x, str) and x in ("constant", "linear", "cosine"),
        "'constant', 'linear' or 'cosine'",
    ),
    "momentum": (lambda x: _is_number(x) and 0 <= x < 1, "a number >= 0 and < 1"),
    "alpha": (lambda x: _is_auto(x) or (_is_number(x) and x >= 0), "'auto' or a number >= 0"),
    "l1_ratio": (lambda x: _is_number(x) and 0 <= x <= 1, "a number from 0 to 1"),
    "fit_intercept": (_is_flag, "True or False"),
    "shuffle": (_is_flag, "True or False"),
    "tol": (lambda x: _is_number(x) and x >= 0, "a number >= 0"),
    "n_iter_no_change": (lambda x: _is_count(x) and x >= 1, "an integer >= 1"),
    "early_stopping": (_is_flag, "True or False"),
    "validation_fraction": (lambda x: _is_number(x) and 0 < x < 1, "a number > 0 and < 1"),
    "class_weight": (
        lambda x: x is None or isinstance(x, dict) or (isinstance(x, str) and x == "balanced"),
        "None, 'balanced' or a dict of class label and weight",
    ),
    "warm_start": (_is_flag, "True or False"),
    "backend": (lambda x: isinstance(x, str) and x in BACKENDS, " or ".join(map(repr, BACKENDS))),
    "device": (lambda x: x is None or isinstance(x, str), "None or a string"),
    "n_jobs": (lambda x: x is None or (_is_count(x) and x != 0), "None or an integer other than 0"),
    "random_state": (
        lambda x: x is None or isinstance(x, np.random.RandomState) or (_is_count(x) and 0 <= x < 2**32),
        "None, an integer from 0 to 2**32 - 1, or a numpy.random.RandomState",
    ),
    "verbose": (lambda x: _is_flag(x) or (_is_count(x) and x >= 0), "an integer >= 0"),
}


class _CallbackHooks(EpochHooks):
    """scikit-learn's callbacks: one task an epoch. Nothing else in skdl knows of sklearn.callback, which is experimental."""

    def __init__(self, estimator, n_epochs, fitted, **data):
        self.estimator, self.fitted, self.data = estimator, fitted, data
        self.fit_context = estimator._init_callback_context(max_subtasks=n_epochs)
        self.fit_context.call_on_fit_task_begin(estimator=estimator, **data)

    def _attributes(self, current):
        """A function that makes the fitted attributes of this moment, if a callback asks for them."""

        def attributes():
            coef, intercept = current()
            return {**self.fitted, "coef_": coef, "intercept_": intercept}

        return attributes

    def begin(self, epoch, current):
        self.context = self.fit_context.subcontext(task_name="epoch")
        self.context.call_on_fit_task_begin(
            estimator=self.estimator, reconstruction_attributes=self._attributes(current), **self.data
        )

    def end(self, epoch, current):
        return self.context.call_on_fit_task_end(
            estimator=self.estimator, reconstruction_attributes=self._attributes(current), **self.data
        )

    def close(self):
        self.fit_context.call_on_fit_task_end(estimator=self.estimator, reconstruction_attributes={}, **self.data)


class SoftmaxRegressionClassifier(CallbackSupportMixin, ClassifierMixin, BaseEstimator):
    r"""Softmax regression (multinomial logistic regression) trained by minibatch SGD.

    Minimises, over W = `coef_` and b = `intercept_`,

    .. math::
        F(W, b) = \frac{\sum_i s_i \, \ell(W x_i + b, y_i)}{\sum_i s_i}
        + \alpha \left( \frac{1 - \rho}{2} \lVert W \rVert_2^2 + \rho \lVert W \rVert_1 \right)

    with cross-entropy :math:`\ell(h, y) = -h_y + \log \sum_j e^{h_j}`, sample weights :math:`s_i` and
    :math:`\rho` = `l1_ratio`. It is the objective of :class:`~sklearn.linear_model.LogisticRegression` with
    ``C = 1 / (alpha_ * s.sum())``, for two classes too, where there is one logit. The intercept is not penalised.

    Parameters
    ----------
    lr : "auto" or float, default="auto"
        Step size. A number gives the plain textbook step on the features as they are; see Notes for "auto".
    batch_size : int, default=128
        Number of rows of a minibatch. With ``lr="auto"`` the rows are shared evenly by as many minibatches as that makes.
    max_iter : "auto" or int, default="auto"
        Number of epochs, that is of passes over the data. "auto" makes 3000 updates and at least 5 epochs:
        6 epochs for 60,000 rows, 3000 for 100.
    lr_schedule : {"constant", "linear", "cosine"}, default="cosine"
        How the step size falls: not at all, or to 0 at the end of `max_iter` epochs.
    momentum : float in [0, 1), default=0.9
        Heavy ball: V := momentum V + G; W := W - lr V.
    alpha : "auto" or float, default="auto"
        Strength of the penalty. "auto" follows the scale of the features and the number of classes; see Notes.
    l1_ratio : float in [0, 1], default=0.0
        Share of the L1 norm in the penalty: 0 is L2, 1 is L1, between them is the elastic net. L1 gives exact zeros.
    fit_intercept : bool, default=True
        Whether there is an intercept. Without one ``lr="auto"`` scales the features, but does not centre them.
    shuffle : bool, default=True
        Whether to visit the rows in a new random order in each epoch.
    tol : float, default=1e-4
        What counts as a change of the loss.
    n_iter_no_change : int, default=5
        With early stopping or a constant step: stop after so many epochs without an improvement by `tol`. A falling step
        improves the loss to its end, so otherwise all epochs run.
    early_stopping : bool, default=False
        Whether to watch the loss on a validation set, stop by it, and keep the weights of its best epoch.
    validation_fraction : float in (0, 1), default=0.1
        Share of the rows held out for that (stratified where there are enough), if `fit` is given no `X_val`.
    class_weight : dict, "balanced" or None, default=None
        Weight of each class label, 1 where the dict has none; "balanced" gives the classes equal total weight.
    warm_start : bool, default=False
        Whether `fit` begins with the coefficients of the last fit.
    backend : {"openmp", "opencl"}, default="openmp"
        What computes: the CPU, or an OpenCL device (needs PyOpenCL and a driver; worth it on a GPU, with large
        minibatches or many classes). It works or raises an error; nothing falls back silently.
    device : str or None, default=None
        The OpenCL device: indices "platform:device" or a part of a name, as ``python -m skdl.opencl`` lists them. None
        for what the environment variable PYOPENCL_CTX says, or else the first that works, GPUs first.
    n_jobs : int or None, default=None
        Number of threads of the backend "openmp"; None for all that the process may use (OMP_NUM_THREADS, affinity and
        quota are respected), negative numbers count from there. There are never more than cores. The result does not
        depend on it.
    random_state : int, RandomState or None, default=None
        Seed of the order of the rows and of the validation split. One seed gives the same bits on one device.
    verbose : int, default=0
        Whether to print a line after each epoch.

    Attributes
    ----------
    coef_ : ndarray of shape (n_classes, n_features), or (1, n_features) for two classes
        float64 if X was, else float32.
    intercept_ : ndarray of shape (n_classes,), or (1,) for two classes
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Where X had feature names that are all strings.
    n_iter_ : int
        Number of epochs that were run.
    loss_curve_ : list of float
        Mean cross-entropy of each epoch, taken on the way, without the penalty.
    validation_loss_curve_, validation_scores_ : list of float
        Cross-entropy and accuracy on the validation set after each epoch, where there is one.
    lr_ : float
        The step size of the first update; with ``lr="auto"`` in the scaled coordinates.
    alpha_ : float
        The strength of the penalty that was used.

    See Also
    --------
    sklearn.linear_model.LogisticRegression : The same model by L-BFGS and other solvers: precise, slower on large data.
    sklearn.linear_model.SGDClassifier : One-versus-rest logistic regression by SGD, one row at a time.

    Notes
    -----
    What ``lr="auto"`` does. One pass over X gives the mean, extremes and variance of each feature. SGD then runs in the
    coordinates (x - mean) / r with r the geometric mean of max |x - mean| and the standard deviation. This happens inside
    the kernels: X is neither copied nor changed, and the penalty stays one on the coefficients of X, so the optimum
    is the same one. The step is the largest that is stable for the curvature seen in eight minibatches, or that the
    noise of a minibatch allows if that is less, and falls to 0. CSR is not centred, which would make it dense; it is
    divided by max |x|, so with one `alpha` a fit on CSR and one on its dense copy take different ways to the same optimum,
    while with a numeric `lr` and ``alpha=0`` they give the same model. With a penalty the proximal steps that a feature misses
    while it does not occur in CSR are taken at once when it next does.

    What ``alpha="auto"`` does. A penalty that suits pixels in [0, 1] is 65,000 times too weak for the same pixels in
    0..255, and one that suits word counts is a hundred times too strong for tf-idf. So the strength follows the data: the
    curvature of the penalty in the scaled coordinates is a fixed share of that of the loss of k equally frequent classes:
    ``alpha_ = 5e-5 * (1/k) * (1 - 1/k) * q.sum() / np.average(1 / r, weights=q**2)**2``, with q the mean square of each scaled
    feature, and with 7e-5 for CSR. Where scales differ much the smallest decide, so that no feature is penalised away.
    SVMlight sets its C by the mean squared norm of the rows in the same spirit [4]_. Since CSR is scaled otherwise, its
    alpha_ differs from that of the dense copy. The statistics are those of ``lr="auto"``; a numeric `lr` pays for the pass.

    Computation is in float64 for float64 input, else in float32; an OpenCL device without float64 warns and uses float32.

    References
    ----------
    .. [1] J. Z. Kolter and T. Chen, "Deep Learning Systems", Carnegie Mellon University, lecture 2, https://dlsyscourse.org
    .. [2] B. T. Polyak, "Some methods of speeding up the convergence of iteration methods", USSR Computational
       Mathematics and Mathematical Physics 4 (5), 1964.
    .. [3] D. Boehning, "Multinomial logistic regression algorithm", Annals of the Institute of Statistical Mathematics
       44 (1), 1992.
    .. [4] T. Joachims, "Making large-scale SVM learning practical", in Advances in Kernel Methods, MIT Press, 1999.

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
        lr="auto",
        batch_size=128,
        max_iter="auto",
        lr_schedule="cosine",
        momentum=0.9,
        alpha="auto",
        l1_ratio=0.0,
        fit_intercept=True,
        shuffle=True,
        tol=1e-4,
        n_iter_no_change=5,
        early_stopping=False,
        validation_fraction=0.1,
        class_weight=None,
        warm_start=False,
        backend="openmp",
        device=None,
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.lr = lr
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.lr_schedule = lr_schedule
        self.momentum = momentum
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.shuffle = shuffle
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.class_weight = class_weight
        self.warm_start = warm_start
        self.backend = backend
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    # ---- training

    @with_callbacks
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None, sample_weight_val=None):
        """Train on X and y from the beginning (with `warm_start`, from the coefficients of the last fit).

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Dense C-ordered float64, float32, float16, uint8, int8 and bool and CSR of float64 or float32 are read
            where they lie; anything else is converted once.
        y : array-like of shape (n_samples,)
            Class labels: numbers, strings or booleans.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights >= 0. A weight of 2 counts as the same row twice; rows of weight 0 are left out.
        X_val, y_val, sample_weight_val : like X, y, sample_weight, default=None
            A validation set of your own. Its loss and score are recorded after each epoch; with `early_stopping` they
            decide, and nothing is split off X.

        Returns
        -------
        self : SoftmaxRegressionClassifier

        Raises
        ------
        ValueError
            If a parameter or the data are not valid, or if training diverges. The estimator stays as it was.
        """
        self._check_parameters()
        with self._unchanged_on_error():
            X, y_given = self._validate(X, y, reset=True)
            classes, y = _number_labels(y_given)
            if len(classes) < 2:
                raise ValueError(
                    "SoftmaxRegressionClassifier needs samples of at least 2 classes, but y contains only one class: "
                    f"{classes[0]!r}."
                )
            start = self._previous_parameters(classes, X.shape[1]) if self.warm_start else None
            weight = self._combined_weight(sample_weight, y, classes)
            rows = np.arange(len(y)) if weight is None else np.flatnonzero(weight)
            validation = self._validation_set(X_val, y_val, sample_weight_val, classes)
            if self.early_stopping and validation is None:
                rows, held_out = self._split(rows, y)
                validation = (X, y[held_out], None if weight is None else weight[held_out], held_out)
            n_epochs = (
                auto_epochs(len(rows), self._number("batch_size"))
                if self.max_iter == "auto"
                else self._number("max_iter")
            )
            hooks = _CallbackHooks(
                self, n_epochs, {"classes_": classes}, X=X, y=y_given, metadata={"sample_weight": sample_weight}
            )
            solution = self._solve(
                X, y, weight, rows, classes, start, n_epochs=n_epochs, validation=validation, hooks=hooks
            )
            history = solution["history"]
            if not history.converged:
                warnings.warn(
                    f"The loss was still falling when the {n_epochs} epochs of max_iter ended: the model may be short of the "
                    f"optimum. Try max_iter={auto_epochs(len(rows), self._number('batch_size'))}, or leave max_iter='auto'.",
                    ConvergenceWarning,
                    stacklevel=3,
                )
            self.__dict__.pop("_stream", None)
            for name in ("validation_loss_curve_", "validation_scores_"):
                self.__dict__.pop(name, None)
            self._adopt(solution, classes)
            self.n_iter_ = len(history.loss_curve)
            self.loss_curve_ = history.loss_curve
            if validation is not None:
                self.validation_loss_curve_ = history.validation_loss_curve
                self.validation_scores_ = history.validation_scores
            hooks.close()
        return self

    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Train on one batch of data for one pass, from where the last call ended.

        The step size stays at its starting value. With ``lr="auto"`` or ``alpha="auto"`` the statistics of the features are
        those of all rows seen so far; so are the class weights with ``class_weight="balanced"``.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            As for `fit`.
        y : array-like of shape (n_samples,)
            Class labels, all of them among `classes`.
        classes : array-like of shape (n_classes,), default=None
            All classes that will ever come. Needed at the first call, may be left out later.
        sample_weight : array-like of shape (n_samples,), default=None
            As for `fit`.

        Returns
        -------
        self : SoftmaxRegressionClassifier

        Raises
        ------
        ValueError
            As `fit`; if `classes` is missing at the first call or changes later; if y holds another class.
        """
        self._check_parameters()
        first = not hasattr(self, "classes_")
        if first and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        if classes is not None:
            classes = np.unique(column_or_1d(classes))
            if not first and not np.array_equal(classes, self.classes_):
                raise ValueError(f"classes={classes} differ from those of the first call: {self.classes_}.")
            if len(classes) < 2:
                raise ValueError(f"classes needs at least 2 classes, but it contains only one class: {classes}.")
        else:
            classes = self.classes_
        with self._unchanged_on_error():
            X, y = self._validate(X, y, reset=first)
            check_classification_targets(y)
            y = _encode(y, classes, "y")
            statistics, velocity, seen = getattr(self, "_stream", (None, None, np.zeros(len(classes))))
            weight = self._combined_weight(sample_weight, y, classes, seen)
            rows = np.arange(len(y)) if weight is None else np.flatnonzero(weight)
            n_iter = getattr(self, "n_iter_", 0)
            start = None if first else (self.coef_, self.intercept_)
            solution = self._solve(
                X,
                y,
                weight,
                rows,
                classes,
                start,
                statistics,
                velocity,
                n_epochs=1,
                lr_schedule="constant",
                epoch=n_iter,
            )
            self._adopt(solution, classes)
            own_weight = _check_weight(sample_weight, len(y), "sample_weight")
            self._stream = *solution["stream"](), seen + np.bincount(y, weights=own_weight, minlength=len(classes))
            self.n_iter_ = n_iter + 1
            self.loss_curve_ = [*getattr(self, "loss_curve_", []), *solution["history"].loss_curve]
        return self

    def _solve(
        self,
        X,
        y,
        weight,
        rows,
        classes,
        start,
        statistics=None,
        velocity=None,
        *,
        n_epochs,
        lr_schedule=None,
        epoch=0,
        validation=None,
        hooks=None,
    ):
        """Train; return what the caller stores, and store nothing. "stream" makes the state of a partial_fit when called."""
        n_features, n_logits = X.shape[1], _n_logits(classes)
        if weight is not None:
            weight = weight / weight[rows].mean()
        module, backend_class = get_backend(self.backend)
        backend = backend_class(
            X, y.astype(np.int32), weight, n_logits, n_jobs=self._number("n_jobs"), device=self.device
        )
        if "auto" in (self.lr, self.alpha):
            here = Statistics(float(len(rows)), *backend.column_statistics(rows))
            _check_finite(X, complete=len(rows) == len(y), evidence=here)
            statistics = here if statistics is None else Statistics(*statistics).merged(here)
        else:
            _check_finite(X)
        kind = dict(
            centre=self.fit_intercept and not sparse.issparse(X), is_sparse=sparse.issparse(X), dtype=backend.dtype
        )
        scaled = Coordinates(statistics, n_features, **kind)
        alpha = auto_alpha(scaled, len(classes)) if self.alpha == "auto" else float(self.alpha)
        batch_size = min(self._number("batch_size"), len(rows))
        coordinates = scaled if self.lr == "auto" else Coordinates(None, n_features, **kind)
        if self.lr == "auto":
            batch_size = -(-len(rows) // -(-len(rows) // batch_size))  # even batches: a small last one is a noisy one
            lr = auto_lr(
                X,
                rows,
                weight,
                coordinates,
                n_logits=n_logits,
                batch_size=batch_size,
                momentum=self._number("momentum"),
            )
        else:
            lr = float(self.lr)
        for parameters in (start, velocity):
            if parameters is not None:
                _check_shapes(*parameters, n_logits, n_features)
        rng = None
        if self.shuffle:
            rng = np.random.default_rng([check_random_state(self.random_state).randint(2**31 - 1), epoch])

        def validate(coef, intercept):
            X_val, y_val, weight_val, rows_val = validation
            logits = module.decision_function(
                X_val, coef, intercept, rows=rows_val, n_jobs=self._number("n_jobs"), device=self.device
            )
            return log_loss_and_accuracy(logits, y_val, weight_val)

        coef, intercept, history = train(
            backend,
            rows,
            start,
            velocity,
            coordinates,
            lr=lr,
            batch_size=batch_size,
            n_epochs=n_epochs,
            lr_schedule=lr_schedule or self.lr_schedule,
            momentum=self._number("momentum"),
            alpha=alpha,
            l1_ratio=self._number("l1_ratio"),
            fit_intercept=self.fit_intercept,
            rng=rng,
            tol=self._number("tol"),
            n_iter_no_change=self._number("n_iter_no_change"),
            early_stopping=self.early_stopping,
            validate=None if validation is None else validate,
            hooks=hooks,
            verbose=self.verbose,
        )
        return {
            "coef_": coef,
            "intercept_": intercept,
            "lr_": float(lr),
            "alpha_": alpha,
            "history": history,
            "stream": lambda: (
                None if statistics is None else tuple(statistics),
                coordinates.leave_velocity(*backend.get_velocity()),
            ),
        }

    def _adopt(self, solution, classes):
        self.classes_ = classes
        for name in ("coef_", "intercept_", "lr_", "alpha_"):
            setattr(self, name, solution[name])

    @contextmanager
    def _unchanged_on_error(self):
        """Put the fitted attributes back if anything goes wrong, a KeyboardInterrupt included."""

        def fitted_attributes():
            return {name: value for name, value in vars(self).items() if name.endswith("_") or name == "_stream"}

        fitted = fitted_attributes()
        try:
            yield
        except BaseException:
            for name in fitted_attributes():
                delattr(self, name)
            vars(self).update(fitted)
            raise

    # ---- validation

    def _check_parameters(self):
        for name, (is_valid, expected) in _VALID.items():
            value = getattr(self, name)
            if not is_valid(value):
                raise ValueError(f"{name}={value!r} is not valid: expected {expected}.")

    def _number(self, name):
        """A parameter as Python's int or float, or None: NumPy's small integers would overflow, and its float32 round."""
        value = getattr(self, name)
        return None if value is None else int(value) if isinstance(value, Integral) else float(value)

    def _validate(self, X, y="no_validation", *, reset):
        """X as the kernels read it: dense, C-ordered and aligned, or CSR that cannot lead them out of bounds; and y, if given.

        With y, which is for training, NaN and infinity in X are left for `_check_finite`: one pass instead of two.
        """
        trains = not (isinstance(y, str) and y == "no_validation")
        if not trains and not reset and self._is_ready(X):
            _check_finite(X)
            return X
        if sparse.issparse(X):
            X = _as_csr(X)
        data = validate_data(
            self,
            X,
            y,
            reset=reset,
            accept_sparse="csr",
            dtype=SPARSE_TYPES if sparse.issparse(X) else DENSE_TYPES,
            order="C",
            ensure_all_finite=not trains,
        )
        X, y = data if trains else (data, None)
        if not sparse.issparse(X):
            X = np.require(X, requirements="CA")
        return (X, y) if trains else X

    def _is_ready(self, X):
        """Whether X needs no conversion to be predicted: to find that out in general takes longer than to predict one row."""
        return (
            type(X) is np.ndarray
            and X.shape[1:] == (self.n_features_in_,)
            and len(X) > 0
            and X.dtype in DENSE_TYPES
            and X.flags.c_contiguous
            and X.flags.aligned
            and not hasattr(self, "feature_names_in_")
        )

    def _combined_weight(self, sample_weight, y, classes, seen=0.0):
        """Weight (n_samples,) of each row, sample_weight times class_weight, or None where all are equal.

        `seen` is the total weight of each class in earlier batches; "balanced" counts it.
        """
        weight = _check_weight(sample_weight, len(y), "sample_weight")
        if self.class_weight is not None:
            if isinstance(self.class_weight, dict):
                of_class = self._listed_class_weights(classes)
            else:
                totals = seen + np.bincount(y, weights=weight, minlength=len(classes))
                of_class = np.divide(1.0, totals, out=np.zeros(len(classes)), where=totals > 0)
            with np.errstate(over="ignore"):
                weight = of_class[y] if weight is None else weight * of_class[y]
            _check_sum(weight, "class_weight times sample_weight")
        if weight is None or (weight[0] > 0 and (weight == weight[0]).all()):
            return None
        if not weight.any():
            raise ValueError(
                "sample_weight and class_weight leave every row with weight zero: at least one must be > 0."
            )
        return weight

    def _listed_class_weights(self, classes):
        labels = classes.tolist()
        of_class = np.array([self.class_weight.get(label, 1.0) for label in labels])
        if of_class.dtype.kind not in "iuf" or not (np.isfinite(of_class).all() and (of_class >= 0).all()):
            raise ValueError(f"class_weight={self.class_weight!r} is not valid: expected finite weights >= 0.")
        # A fold of a cross-validation may lack a class; but a class without weight beside a weight without class is a slip.
        unknown = [label for label in self.class_weight if label not in labels]
        if unknown and any(label not in self.class_weight for label in labels):
            raise ValueError(f"class_weight has a weight for {unknown}, but the classes are {labels}.")
        return of_class

    def _validation_set(self, X_val, y_val, sample_weight_val, classes):
        """(X_val, class numbers, weight or None, None) or None."""
        if X_val is None and y_val is None:
            if sample_weight_val is not None:
                raise ValueError("sample_weight_val is given, but X_val and y_val are not.")
            return None
        if X_val is None or y_val is None:
            given, missing = ("y_val", "X_val") if X_val is None else ("X_val", "y_val")
            raise ValueError(f"{given} is given, but {missing} is not: a validation set needs both.")
        try:
            X_val = self._validate(X_val, reset=False)
        except ValueError as error:  # whose text speaks of X
            raise ValueError(f"X_val: {error}") from error
        y_val = column_or_1d(y_val)
        if len(y_val) != X_val.shape[0]:
            raise ValueError(f"X_val has {X_val.shape[0]} rows, but y_val has {len(y_val)}.")
        return (
            X_val,
            _encode(y_val, classes, "y_val"),
            _check_weight(sample_weight_val, len(y_val), "sample_weight_val"),
            None,
        )

    def _split(self, rows, y):
        """Rows to train on and rows held out, stratified unless there are too few rows for that."""
        n_held_out = int(np.ceil(float(self.validation_fraction) * len(rows)))
        counts = np.unique(y[rows], return_counts=True)[1]
        stratifies = counts.min() >= 2 and len(counts) <= min(n_held_out, len(rows) - n_held_out)
        rows, held_out = train_test_split(
            rows, test_size=n_held_out, random_state=self.random_state, stratify=y[rows] if stratifies else None
        )
        return np.sort(rows), np.sort(held_out)

    def _previous_parameters(self, classes, n_features):
        """What a warm start begins with, or None."""
        if not hasattr(self, "coef_"):
            return None
        if not np.array_equal(self.classes_, classes):
            raise ValueError(
                f"warm_start=True needs the classes of the previous fit, {self.classes_}, but y has {classes}."
            )
        if np.ndim(self.coef_) == 2 and self.coef_.shape[1] != n_features:
            raise ValueError(
                f"warm_start=True needs the {self.coef_.shape[1]} features of the previous fit, but X has {n_features}."
            )
        return self.coef_, self.intercept_

    # ---- prediction

    def _logits(self, X):
        """Logits (n_samples, n_logits)."""
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        _check_shapes(self.coef_, self.intercept_, _n_logits(self.classes_), X.shape[1])
        module, _ = get_backend(self.backend)
        logits = module.decision_function(
            X, self.coef_, self.intercept_, n_jobs=self._number("n_jobs"), device=self.device
        )
        if not np.isfinite(logits).all():
            raise ValueError(f"X is too large for this model: a logit is beyond the range of {logits.dtype}.")
        return logits

    def decision_function(self, X):
        """Logits W x + b.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)

        Returns
        -------
        logits : ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            With two classes, > 0 means the second one. float64 where X or the coefficients are, else float32.
        """
        logits = self._logits(X)
        return logits[:, 0] if logits.shape[1] == 1 else logits

    def predict(self, X):
        """The most probable class of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Labels, of the type of `classes_`.
        """
        logits = self._logits(X)
        return self.classes_[(logits[:, 0] > 0).astype(int) if logits.shape[1] == 1 else logits.argmax(axis=1)]

    def predict_proba(self, X):
        """Probabilities of the classes: the softmax of the logits, computed in float64.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            In the order of `classes_`, of the type of `decision_function`.
        """
        logits = self._logits(X)
        z = logits.astype(np.float64)
        with np.errstate(over="ignore"):  # logits that differ by more than float64's range
            z = np.hstack([expit(-z), expit(z)]) if z.shape[1] == 1 else softmax(z, axis=1)
        return z.astype(logits.dtype)

    def predict_log_proba(self, X):
        """Logarithms of the probabilities, precise where a probability itself would be 0.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)

        Returns
        -------
        log_probabilities : ndarray of shape (n_samples, n_classes)
        """
        logits = self._logits(X)
        z = logits.astype(np.float64)
        with np.errstate(over="ignore"):
            z = np.hstack([log_expit(-z), log_expit(z)]) if z.shape[1] == 1 else log_softmax(z, axis=1)
        return np.maximum(z, np.finfo(logits.dtype).min).astype(logits.dtype)

    # ---- persistence

    def __getstate__(self):
        return {**super().__getstate__(), "_skdl_version": __version__}

    def __setstate__(self, state):
        state = dict(state)
        version = state.pop("_skdl_version", "unknown")
        if version != __version__:
            warnings.warn(
                InconsistentVersionWarning(
                    estimator_name=type(self).__name__,
                    current_sklearn_version=f"{__version__} of skdl",
                    original_sklearn_version=f"{version} of skdl",
                ),
                stacklevel=2,
            )
        super().__setstate__(state)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _n_logits(classes):
    return 1 if len(classes) == 2 else len(classes)


def _check_shapes(coef, intercept, n_logits, n_features):
    """The kernels trust these, but a model may come from a file, or its user may have set them."""
    if np.shape(coef) != (n_logits, n_features) or np.shape(intercept) != (n_logits,):
        raise ValueError(
            f"coef_ has shape {np.shape(coef)} and intercept_ {np.shape(intercept)}: "
            f"this model needs {(n_logits, n_features)} and {(n_logits,)}."
        )


def _number_labels(y):
    """Sorted classes and class numbers of labels."""
    if y.dtype.kind in "iu" and int(y.max()) - int(y.min()) < len(y):  # counting takes a third of the time of sorting
        wide = np.uint64 if y.dtype.kind == "u" else np.int64  # int8 would overflow
        low = y.min().astype(wide)
        offset = (y.astype(wide) - low).astype(np.intp)
        occurs = np.bincount(offset) > 0
        classes = np.flatnonzero(occurs)
        # Where most labels differ, y may be no classes, which scikit-learn's check below tells the user.
        if len(classes) <= len(y) // 2:
            return (classes.astype(wide) + low).astype(y.dtype), (np.cumsum(occurs) - 1)[offset]
    check_classification_targets(y)
    classes = np.unique(y)
    return classes, np.searchsorted(classes, y)  # return_inverse takes three times as long


def _encode(y, classes, name):
    """Class numbers of labels, all of which must be among the sorted `classes`."""
    numbers = np.searchsorted(classes, y).clip(0, len(classes) - 1)
    unseen = np.unique(y[classes[numbers] != y])
    if len(unseen):
        raise ValueError(f"{name} contains classes that are not among {classes}: {unseen}.")
    return numbers


def _check_weight(weight, n_samples, name):
    """Weights as (n_samples,) float64, or None."""
    if weight is None:
        return None
    if isinstance(weight, Real):
        weight = np.full(n_samples, weight, dtype=np.float64)
    weight = check_array(weight, dtype=np.float64, ensure_2d=False, input_name=name)
    if weight.shape != (n_samples,):
        raise ValueError(f"{name} has shape {weight.shape}: expected ({n_samples},), one weight for each row.")
    if (weight < 0).any():
        raise ValueError(f"{name} contains a negative weight, {weight.min()}: expected weights >= 0.")
    if not weight.any():
        raise ValueError(f"Every weight in {name} is zero: at least one must be > 0.")
    return _check_sum(weight, name)


def _check_sum(weight, name):
    with np.errstate(over="ignore"):
        total = weight.sum()
    if not np.isfinite(total):
        raise ValueError(f"{name}: the sum of the weights is not finite. Divide them by {weight.max():g}.")
    return weight


def _check_finite(X, *, complete=False, evidence=None):
    """Raise scikit-learn's error if X holds NaN or infinity. Statistics of the complete X spare the look at it."""
    values = X.data if sparse.issparse(X) else X
    if values.dtype.kind != "f":
        return
    if complete and np.isfinite(evidence.mean).all() and np.isfinite(evidence.variance).all():
        return
    with np.errstate(invalid="ignore"):  # scikit-learn adds up X, which may overflow to both sides
        step = max(1, (1 << 26) // max(1, values[:1].nbytes))  # in parts, so that Ctrl-C need not wait for the last
        for i in range(0, len(values), step):
            assert_all_finite(values[i : i + step], estimator_name="SoftmaxRegressionClassifier", input_name="X")
    if evidence is not None and not np.isfinite(evidence.mean).all():
        raise ValueError(
            f"X is too large for lr='auto': a column's sum is beyond the range of {values.dtype}. "
            f"Divide X by {abs(values).max():g}."
        )


def _as_csr(X):
    """X as CSR that leads neither scipy nor a kernel out of bounds, or ValueError.

    scipy checks the parts of an array when it is constructed, if at all, and not all of them; its conversions then follow a
    wrong index to where it leads.
    """
    if X.ndim != 2:
        raise ValueError(f"Expected 2D array, got a sparse array of shape {X.shape} instead.")
    try:
        if X.format == "csr":
            return _checked_compressed(X, X.shape)
        if X.format == "csc":
            X = _checked_compressed(X, X.shape[::-1])
        elif X.format == "bsr":
            rows, columns = X.data.shape[1:]
            if X.shape[0] % rows or X.shape[1] % columns:
                raise ValueError(f"blocks of shape {X.data.shape[1:]} do not fill {X.shape}")
            X = _checked_compressed(X, (X.shape[0] // rows, X.shape[1] // columns))
        elif X.format == "coo":
            X = type(X)((X.data, X.coords), shape=X.shape)  # this constructor does check
        elif X.format == "dia":
            X = type(X)((X.data, X.offsets), shape=X.shape)  # and this
        elif X.format == "lil":
            lengths = [[len(row) for row in part] for part in (X.rows, X.data)]
            if lengths[0] != lengths[1] or len(lengths[0]) != X.shape[0]:
                raise ValueError(f"rows and data are not {X.shape[0]} pairs of lists of one length")
        return _checked_compressed(X.tocsr(), X.shape)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"X is not a valid {X.format.upper()} array: {error}.") from error


def _checked_compressed(X, shape):
    """X, compressed by rows of `shape`, with one type of index, once no index can lead out of bounds."""
    for name, ndim in (("data", 3 if X.format == "bsr" else 1), ("indices", 1), ("indptr", 1)):
        part = getattr(X, name)
        if not isinstance(part, np.ndarray) or part.ndim != ndim:
            raise ValueError(f"{name} must be a {ndim}-D array")
    data, indices, indptr = X.data, X.indices, X.indptr
    if len(indptr) != shape[0] + 1:
        raise ValueError(f"indptr has {len(indptr)} entries: expected {shape[0] + 1}")
    if indices.dtype.kind not in "iu" or indptr.dtype.kind not in "iu":
        raise ValueError(f"indices and indptr must be integers, but they are {indices.dtype} and {indptr.dtype}")
    index = indices.dtype if indices.dtype == indptr.dtype and indices.dtype in (np.int32, np.int64) else np.int64
    indices, indptr = (np.require(part, index, requirements="CA") for part in (indices, indptr))
    defect = find_csr_defect(indices, indptr, min(len(data), len(indices)), shape[1])
    if defect is not None:
        what, where = defect
        raise ValueError(
            {
                1: "indptr must begin with 0",
                2: f"indptr decreases after position {where}",
                3: f"indptr at position {where + 1} is larger than the number of stored values",
                4: f"the index at position {where} is not in 0..{shape[1] - 1}",
            }[what]
        )
    data = np.require(data, requirements="CA")
    if data is X.data and indices is X.indices and indptr is X.indptr:
        return X
    return type(X)((data, indices, indptr), shape=X.shape)
