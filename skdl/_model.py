"""A fitted model: what it predicts, and how it is kept."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from skdl import _softmax, _validation
from skdl._backends import compute_dtype, get_backend
from skdl._blocks import Blocks, no_labels_beside
from skdl._data import InMemory
from skdl._reader import in_blocks, parts_to_score
from skdl._sgd import with_model_axis
from skdl._version import __version__

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from scipy.sparse import sparray, spmatrix
    from sklearn.linear_model import LogisticRegression

    MatrixLike: TypeAlias = ArrayLike | sparray | spmatrix

# The address of a class's documentation, with {estimator_name} in it, and empty until there is one: then scikit-learn's HTML
# links to it and shows what the docstring says of each parameter.
DOCUMENTATION = ""


class SoftmaxModel(ClassifierMixin, BaseEstimator):
    """What estimators have in common whose fitted attributes are `coef_`, `intercept_`, `classes_` and so on."""

    _doc_link_module, _doc_link_template = "skdl", DOCUMENTATION
    # Where results go is nothing that a meta-estimator could route.
    __metadata_request__predict = {"out": UNUSED}  # noqa: RUF012
    __metadata_request__predict_proba = {"out": UNUSED}  # noqa: RUF012
    __metadata_request__predict_log_proba = {"out": UNUSED}  # noqa: RUF012
    __metadata_request__decision_function = {"out": UNUSED}  # noqa: RUF012

    coef_: NDArray[np.floating]
    intercept_: NDArray[np.floating]
    classes_: NDArray[Any]
    n_features_in_: int
    feature_names_in_: NDArray[np.object_]
    n_iter_: int
    loss_curve_: list[float]
    validation_loss_curve_: list[float]
    validation_scores_: list[float]
    best_epoch_: int
    lr_: float
    alpha_: float
    scale_: NDArray[np.float64]

    def _check_fitted(self):
        """NotFittedError where there is no model."""
        check_is_fitted(self)

    def _features(self):
        """What validation has set."""
        return {name: vars(self)[name] for name in ("n_features_in_", "feature_names_in_") if name in vars(self)}

    def _fitted_attributes(self):
        return {name: value for name, value in vars(self).items() if name.endswith("_") or name == "_stream"}

    @contextmanager
    def _unchanged_on_error(self):
        """Put the fitted attributes back if anything goes wrong, a KeyboardInterrupt included."""
        fitted = self._fitted_attributes()
        try:
            yield
        except BaseException:
            for name in self._fitted_attributes():
                delattr(self, name)
            vars(self).update(fitted)
            raise

    # ---- prediction

    def _predictions(self, X, output, out, finish=None):
        """One of `_softmax.OUTPUTS` for the rows of an array or of Blocks, of these in `out` if there is one.

        finish: a function that makes of it what users get.
        """

        def predict(X):
            result = self._predicted(X, output)
            return result if finish is None else finish(result)

        if isinstance(X, Blocks):
            self._check_fitted()
            return in_blocks(X, predict, out)
        if out is not None:
            raise ValueError("out is for Blocks: predictions of an array are new arrays.")
        return predict(X)

    def _predicted(self, X, output):
        """One of `_softmax.OUTPUTS` for the rows of an array."""
        self._check_fitted()
        X = _validation.validate_prediction(self, X)
        n_outputs = _softmax.n_outputs(len(self.classes_))
        _validation.check_model(self.coef_, self.intercept_, n_outputs, X.shape[1])
        try:
            backend_class = get_backend(self.backend)
        except ImportError:  # PyOpenCL's; a fitted model is NumPy arrays, which need it no more
            backend_class = get_backend("openmp")
        backend = backend_class(InMemory(X), n_outputs, n_jobs=self.n_jobs, device=self.device)
        return self._output_of(backend.predictor(X), output, X.dtype)

    def _output_of(self, predictor, output, dtype):
        """What a backend's predictor for data of this type finds."""
        [result], finite = predictor(with_model_axis((self.coef_, self.intercept_)), output)
        if not finite:
            if not (np.isfinite(self.coef_).all() and np.isfinite(self.intercept_).all()):
                raise ValueError("coef_ or intercept_ contains NaN or infinity: this model needs finite numbers.")
            dtype = np.result_type(compute_dtype(dtype), self.coef_)
            raise ValueError(f"X is too large for this model: a logit overflows {dtype}.")
        return result

    def decision_function(self, X: MatrixLike | Blocks, out: NDArray[Any] | None = None) -> NDArray[np.floating]:
        """Logits W x + b.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features), or Blocks
        out : array of the shape of the result, default=None
            Of Blocks: where the result is written, part by part, a memory map for example. It is returned.

        Returns
        -------
        logits : ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            With two classes, > 0 means the second one. float64 where X or the coefficients are, else float32.
        """
        return self._predictions(X, "logits", out, _softmax.decision_values)

    def predict(self, X: MatrixLike | Blocks, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """The most probable class of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features), or Blocks
        out : array of shape (n_samples,), default=None
            See `decision_function`.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Labels, of the type of `classes_`.
        """
        return self._predictions(X, "classes", out, lambda numbers: self.classes_[numbers])

    def predict_proba(self, X: MatrixLike | Blocks, out: NDArray[Any] | None = None) -> NDArray[np.floating]:
        """Probabilities of the classes: the softmax of the logits, computed in float64.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features), or Blocks
        out : array of shape (n_samples, n_classes), default=None
            See `decision_function`.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            In the order of `classes_`, of the type of `decision_function`.
        """
        return self._predictions(X, "probabilities", out)

    def predict_log_proba(self, X: MatrixLike | Blocks, out: NDArray[Any] | None = None) -> NDArray[np.floating]:
        """Logarithms of the probabilities, precise where a probability itself would be 0.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features), or Blocks
        out : array of shape (n_samples, n_classes), default=None
            See `decision_function`.

        Returns
        -------
        log_probabilities : ndarray of shape (n_samples, n_classes)
        """
        return self._predictions(X, "log_probabilities", out)

    def score(
        self, X: MatrixLike | Blocks, y: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> float:
        """Accuracy: the share of the rows, or of their weight, whose class is the most probable one.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features), or Blocks
        y : array-like of shape (n_samples,)
            The true labels. None where X is Blocks, which have labels and weights of their own.
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        accuracy : float
        """
        if not isinstance(X, Blocks):
            return super().score(X, y, sample_weight)
        self._check_fitted()
        no_labels_beside(X, y, sample_weight)
        correct = total = 0.0
        for part, labels, weight in parts_to_score(X):
            correct += (weight * (self.predict(part) == labels)).sum()
            total += weight.sum()
        return float(correct / total)

    # ---- exits

    def to_sklearn(self) -> LogisticRegression:
        """This model as one of scikit-learn's, for all that knows LogisticRegression: converters, servers, explainers.

        Returns
        -------
        model : sklearn.linear_model.LogisticRegression
            Fitted, with the same classes and probabilities, and with coefficients of its own. Its parameters are
            scikit-learn's defaults, but for `fit_intercept`: they do not describe how this model was trained.
        """
        from sklearn.linear_model import LogisticRegression

        self._check_fitted()
        model = LogisticRegression(fit_intercept=self.fit_intercept)
        model.coef_, model.intercept_, model.classes_ = self.coef_.copy(), self.intercept_.copy(), self.classes_.copy()
        model.n_iter_ = np.array([self.n_iter_], dtype=np.int32)
        vars(model).update(self._features())
        return model

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
