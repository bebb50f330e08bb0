"""What several test modules share."""

import os
import pickle
import subprocess
import sys
import textwrap
import warnings
from copy import copy

import numpy as np
import pytest
import reference
from numpy.testing import assert_array_equal
from scipy import sparse
from sklearn.datasets import load_digits

from skdl import SoftmaxRegressionClassifier
from skdl._backends import get_backend
from skdl._data import Block, InMemory
from skdl._sgd import with_model_axis

DIGITS, LABELS = load_digits(return_X_y=True)
DIGITS, LABELS = DIGITS[:400].astype(np.uint8), LABELS[:400]  # whole numbers 0..16: exact in every type

# A constant step without penalty, in the features as they are.
TEXTBOOK = {"lr": 1e-3, "alpha": 0, "lr_schedule": "constant"}


def make(**params):
    """An estimator whose fits are short and come out the same each time."""
    return SoftmaxRegressionClassifier(**{"max_iter": 3, "random_state": 0, **params})


def quiet_fit(model, *args, **kwargs):
    with warnings.catch_warnings(action="ignore"):
        return model.fit(*args, **kwargs)


def objective(model, X, y, alpha, l1_ratio=0.0, weight=None):
    """The documented objective at a model; a peer's, which has no units, with the penalty on its coefficients."""
    losses = -model.predict_log_proba(X)[np.arange(len(y)), np.searchsorted(model.classes_, y)]
    W = model.coef_ * getattr(model, "scale_", 1.0)
    return np.average(losses, weights=weight) + alpha * ((1 - l1_ratio) / 2 * (W**2).sum() + l1_ratio * abs(W).sum())


def same_model(a, b, *, but=None):
    """The same bits, reached by the same losses. `but` names an attribute that may differ."""
    assert a.coef_.dtype == b.coef_.dtype
    for name in {"coef_", "intercept_", "classes_", "loss_curve_"} - {but}:
        assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def fitted_state(clf):
    """Bytes of every fitted attribute, so that a change in place shows."""
    return {name: pickle.dumps(value) for name, value in vars(clf).items() if name.endswith("_")}


def run(*parts, check=True, timeout=100, **environment):
    """A program, whose parts are indented as they like, in a process of its own without warnings."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n".join(textwrap.dedent(part) for part in parts)],
        capture_output=True, text=True, timeout=timeout, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0 or not check, done.stderr[-3000:]
    return done


def predicted(backend, output, X, coef, intercept, *, rows=None, y=None, n_jobs=None):
    """One of `skdl._softmax.OUTPUTS` of one model, by a backend of this name."""
    predict = get_backend(backend)(InMemory(X), len(coef), n_jobs=n_jobs).predictor(X, rows, y)
    [result], _ = predict(with_model_axis((coef, intercept)), output)
    return result


def logits(backend, X, coef, intercept, *, rows=None, n_jobs=None):
    """Logits (n_rows, n_outputs) of one model, by a backend of this name."""
    return predicted(backend, "logits", X, coef, intercept, rows=rows, n_jobs=n_jobs)


needs_callbacks = pytest.mark.skipif(
    not hasattr(SoftmaxRegressionClassifier, "set_callbacks"), reason="scikit-learn has callbacks since 1.9"
)


class Callback:
    """One of scikit-learn's callbacks, which only looks on."""

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        pass


class Problem:
    """Random data, parameters and settings, and the two ways to run an epoch on them."""

    def __init__(self, n, d, n_outputs, *, backend="openmp", storage="float64", csr=False, weighted=True, seed=0):
        self.backend_name = backend
        rng = np.random.default_rng(seed)
        n_classes = max(n_outputs, 2)
        X = rng.integers(-3, 4, size=(n, d)) * (rng.random((n, d)) < 0.5)
        if storage == "bool":
            X = X > 0
        elif storage == "uint8":
            X = abs(X)
        elif storage.startswith("float"):
            X = X + (X != 0) * rng.random((n, d)).astype("float16")
        self.dense = X.astype(storage)
        self.X = sparse.csr_array(self.dense) if csr else self.dense
        self.y = rng.integers(0, n_classes, n).astype(np.int32)
        weight = rng.random(n) + 0.1
        self.weight = weight / weight.mean() if weighted else None
        self.W, self.b = 0.3 * rng.normal(size=(n_outputs, d)), 0.3 * rng.normal(size=n_outputs)
        self.V, self.v = 0.1 * rng.normal(size=(n_outputs, d)), 0.1 * rng.normal(size=n_outputs)
        self.mean, self.scale = rng.normal(size=d), rng.uniform(0.5, 2, d)
        self.order = rng.permutation(n)

    @property
    def block(self):
        return Block(self.X, self.y, self.weight)

    def backend(self, n_jobs=1):
        return get_backend(self.backend_name)(InMemory(self.X), len(self.b), n_jobs=n_jobs)

    def started(self, batch_size, *, W=None, b=None, momentum=0.0, l1=None, l2=None, fit_intercept=True,
                coordinates=False, n_jobs=1):  # fmt: skip
        """A `Training` that begins with W and b."""
        alone = copy(self)
        alone.W, alone.b = self.W if W is None else W, self.b if b is None else b
        settings = {"momentum": momentum, "l1": l1, "l2": l2}
        how = {"fit_intercept": fit_intercept, "coordinates": coordinates, "n_jobs": n_jobs}
        return started_side_by_side([alone], [settings], batch_size, **how)

    def run(self, step_sizes, batch_size, *, n_epochs=1, **settings):
        """Mean loss, coef, intercept and velocity after epochs of the backend."""
        return self.epochs(self.started(batch_size, **settings), step_sizes, n_epochs)

    def epochs(self, training, step_sizes, n_epochs):
        step_sizes = np.array([[step_sizes]], dtype=float)
        for _ in range(n_epochs):
            [[loss]] = training.run(self.block, self.order[np.newaxis], step_sizes)
        [coef], [intercept] = training.parameters()
        [coef_velocity], [intercept_velocity] = training.velocity()
        return loss / len(self.order), coef, intercept, (coef_velocity, intercept_velocity)

    def run_twin(self, step_sizes, batch_size, *, momentum=0.0, l1=0.0, l2=0.0, fit_intercept=True, coordinates=False,
                 n_epochs=1):  # fmt: skip
        W, b, V, v = (a.astype(float).copy() for a in (self.W, self.b, self.V, self.v))
        X = self.dense.astype(float)
        csr = sparse.issparse(self.X)
        if coordinates:
            X = X * self.scale if csr else (X - self.mean) * self.scale
        weight = np.ones(len(X)) if self.weight is None else self.weight
        d = X.shape[1]
        for _ in range(n_epochs):
            loss = reference.run_epoch(
                W, b, V, v, X, self.y, weight, self.order, batch_size, step_sizes, momentum=momentum,
                l1=np.broadcast_to(l1, d), l2=np.broadcast_to(l2, d), fit_intercept=fit_intercept, lazy=csr,
            )  # fmt: skip
        return loss, W, b, (V, v)

    def others(self, n_models):
        """So many problems on the same rows, each with parameters and velocities of its own."""
        problems, rng = [copy(self) for _ in range(n_models)], np.random.default_rng(n_models)
        for problem in problems:
            for name in "WbVv":
                setattr(problem, name, getattr(self, name) * rng.uniform(0.5, 1.5, getattr(self, name).shape))
        return problems


def started_side_by_side(problems, settings, batch_size, *, fit_intercept=True, coordinates=False, n_jobs=1):
    """A `Training` of problems on the same rows; the settings of each are its momentum, l1 and l2."""
    first = problems[0]

    def of_all(values):
        return None if any(value is None for value in values) else np.stack(values)

    parameters, velocity = (
        tuple(of_all([getattr(p, name) for p in problems]) for name in pair) for pair in ("Wb", "Vv")
    )
    mean, scale = (first.mean, first.scale) if coordinates else (None, None)
    return first.backend(n_jobs).start(
        parameters, velocity, mean=mean, scale=scale, fit_intercept=fit_intercept, batch_size=batch_size,
        **{name: of_all([of_model[name] for of_model in settings]) for name in ("momentum", "l1", "l2")},
    )  # fmt: skip
