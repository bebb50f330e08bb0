"""Minibatch SGD for softmax regression: coordinates, step sizes, stopping. Names no device.

Shapes and names, here and in every backend
-------------------------------------------
X            (n_samples, n_features)  as the user gave it, dense or CSR; never copied, never rescaled
y            (n_samples,) int32       class numbers 0 .. n_classes - 1
weight       (n_samples,)             sample weights divided by their mean over the rows in use; None: all 1
rows, order  (n_rows,) int64          the rows in use; the same in the order of an epoch's visit
coef         (n_logits, n_features)   W; n_logits is the number of classes, and 1 where there are two classes
intercept    (n_logits,)              b
velocity     (coef's, intercept's)    the heavy ball's V, a pair of arrays like coef and intercept

The objective, for logits h = W x + b and cross-entropy l, is

    F(W, b) = mean_i weight_i l(h(x_i), y_i) + alpha ((1 - l1_ratio) / 2 ||W||^2 + l1_ratio ||W||_1)

and a step on a minibatch with gradient G of its first term is V := momentum V + G; W := prox(W - lr V), where prox is
the proximal operator of lr / (1 - momentum) times the penalty (a gradient moves W by lr / (1 - momentum) in all, so the
penalty must, or the fixed point is not F's): with t = lr alpha / (1 - momentum), division by 1 + t (1 - l1_ratio), then
soft thresholding at t l1_ratio. The intercept has no penalty. The step may be taken in other coordinates of x; see
`Coordinates`.
"""

from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import log_expit, log_softmax
from threadpoolctl import ThreadpoolController


class Statistics(NamedTuple):
    """Of each column, (n_features,) float64; `weight` is the number of rows they were taken over."""

    weight: float
    mean: np.ndarray
    variance: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def merged(self, other):
        """Those of the rows of both (Chan, Golub and LeVeque 1979)."""
        weight = self.weight + other.weight
        share, apart = other.weight / weight, other.mean - self.mean
        variance = (1 - share) * self.variance + share * other.variance + share * (1 - share) * apart**2
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return Statistics(weight, self.mean + share * apart, variance, low, high)


# A column whose values differ by less than this many units of rounding is constant.
CONSTANT = 32


class Coordinates:
    """SGD sees u = (x - mean) * scale: a diagonal preconditioner, applied by the kernels to the values that they load.

    The model stays one on x: with W, b for x and W', b' for u, W = W' * scale and b = b' - W mean give the same logits,
    and the penalty on W is one on W' whose strength differs from feature to feature. So the optimum does not move.

    1 / scale is the geometric mean of max |x - mean| and the standard deviation: the first alone is slow where a column
    has outliers, the second alone overrates rare features. A sparse column is not centred and is divided by max |x|.
    Without statistics, u is x. Constant columns are left as they are; `mean_square` of each column of u does not count them.
    """

    def __init__(self, statistics, n_features, *, centre, is_sparse, dtype):
        self.mean, self.scale = np.zeros(n_features), np.ones(n_features)
        self.identity, self.is_sparse = statistics is None, is_sparse
        if self.identity:
            return
        _, mean, variance, low, high = statistics
        usable = np.ones(n_features, dtype=bool)
        if centre:
            usable = high - low > CONSTANT * np.finfo(dtype).eps * np.maximum(abs(low), abs(high))
            self.mean = np.where(usable, mean, low).astype(dtype).astype(np.float64)  # as the kernels round it
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            reach = np.maximum(high - self.mean, self.mean - low)
            spread = np.sqrt(variance + (mean - self.mean) ** 2)
            squares_fit = np.isfinite(spread) & (reach**2 >= np.finfo(dtype).tiny)  # into the range of the type
            spread = np.where(squares_fit, spread, reach)
            scale = (1 / (reach if is_sparse else np.sqrt(reach) * np.sqrt(spread))).astype(dtype)
            usable &= np.isfinite(scale) & (scale > 0)
        self.scale[usable] = scale[usable]
        self.mean_square = np.where(usable, spread * self.scale, 0.0) ** 2
        self.mean_squared_norm = self.mean_square.sum()

    def apply(self, X):
        """u of some rows, as a new array."""
        if sparse.issparse(X):
            return X @ sparse.diags_array(self.scale.astype(X.dtype)).tocsr()
        dtype = np.float64 if X.dtype == np.float64 else np.float32
        U = X - self.mean.astype(dtype)
        U *= self.scale.astype(dtype)
        return U

    def enter(self, coef, intercept):
        """Parameters for x to those for u."""
        return coef / self.scale, intercept + coef @ self.mean if self.mean.any() else intercept

    def leave(self, coef, intercept):
        """Parameters for u to those for x."""
        coef = coef * self.scale
        return coef, intercept - coef @ self.mean if self.mean.any() else intercept

    def enter_velocity(self, coef, intercept):
        """A velocity for x to one for u. It transforms as a gradient."""
        return (coef - self._shift(intercept)) * self.scale, intercept

    def leave_velocity(self, coef, intercept):
        """A velocity for u to one for x."""
        return coef / self.scale + self._shift(intercept), intercept

    def _shift(self, intercept):
        return np.outer(intercept, self.mean) if self.mean.any() else 0


def largest_curvature(U, weight, n_iter=10):
    """Largest eigenvalue of the mean of weight u u^T over the rows of U, by power iteration: a lower bound, soon close.

    U (..., n_rows, n_features) and weight (..., n_rows) may be stacks of minibatches: the largest of all is returned.
    """
    v = np.random.default_rng(0).normal(size=(*weight.shape[:-1], U.shape[-1], 1)).astype(U.dtype)
    weight = (weight / weight.sum(axis=-1, keepdims=True))[..., np.newaxis].astype(U.dtype)
    value = 0.0
    for _ in range(n_iter):
        norm = np.sqrt((v**2).sum(axis=-2, keepdims=True))
        p = U @ (v / np.where(norm > 0, norm, 1))
        value = float((weight * p**2).sum(axis=-2).max())
        v = (U.T if U.ndim == 2 else U.swapaxes(-1, -2)) @ (weight * p)
    return value


@cache
def _threadpools():
    """The libraries with thread pools that are loaded; finding them takes milliseconds, so it is done once."""
    return ThreadpoolController()


def auto_lr(X, rows, weight, coordinates, *, n_logits, batch_size, momentum, n_sampled=8):
    """The step size that lr="auto" starts with: the largest that is safe, by two bounds.

    1. Stability: heavy-ball descent on a quadratic of curvature L stands steps up to 2 (1 + momentum) / L (Polyak 1964),
       and the cross-entropy's curvature is at most half the largest eigenvalue of the mean of u u^T on a minibatch
       (Boehning 1992), a quarter for two classes with their one logit. The intercept is a feature that is always 1.
    2. Noise: where an epoch has several minibatches, the gradient of one is off by about sqrt(mean |u|^2 / batch_size),
       which momentum adds up. Sparse rows share few features and so disturb each other less. The constants are from
       measurement: benchmarks/auto_lr.py, benchmarks/sparse_text.py.
    """
    n_batches = -(-len(rows) // batch_size)
    # Beyond a thousand rows a minibatch's curvature is that of all data; long rows are sampled more sparingly.
    row_values = 1 + X.nnz // X.shape[0] if sparse.issparse(X) else X.shape[1]
    size = max(1, min(batch_size, 1024, 2**22 // row_values))
    sampled = rows
    if n_batches > 1:
        sampled = np.random.default_rng(0).choice(rows, min(n_sampled * size, len(rows)), replace=False)
    n_sampled = len(sampled) // size
    sampled = sampled[: n_sampled * size]
    U = coordinates.apply(X[sampled])
    weight = np.ones(len(sampled)) if weight is None else weight[sampled]
    if sparse.issparse(U):
        # Of all minibatches together: one heavy row, whose features are mostly its own, makes that of its minibatch large
        # and does no harm.
        curvature = largest_curvature(U, weight)
    else:
        # BLAS's idle threads go on spinning for a while, on the cores that the first epoch needs (OpenBLAS issue 3187).
        # A small product has no threads, and to ask for that takes longer than the product.
        with _threadpools().limit(limits=1, user_api="blas") if size * row_values > 9000 else nullcontext():
            curvature = largest_curvature(U.reshape(n_sampled, size, -1), weight.reshape(n_sampled, size))
    curvature = max(1.0, curvature)
    lr = 4 * (1 + momentum) / curvature
    if n_batches > 1 and coordinates.mean_squared_norm > 0:
        noise = 10.0 if sparse.issparse(X) else 3.8
        lr = min(lr, noise * (1 - momentum) * batch_size / coordinates.mean_squared_norm)
    return 2 * lr if n_logits == 1 else lr


# For dense and for sparse X; from the study in benchmarks/auto_alpha.py.
AUTO_ALPHA, AUTO_ALPHA_SPARSE = 5e-5, 7e-5


def auto_alpha(coordinates, n_classes):
    """The strength of the penalty that alpha="auto" stands for: the same model whatever unit X is in.

    At zero parameters the curvature of the loss along a coefficient for u_j is p (1 - p) mean u_j^2 with p = 1 / n_classes;
    there the penalty, alpha W_j^2 / 2, has the curvature alpha scale_j^2. With the average scale in place of scale_j, the
    latter is made a fixed share of the former's sum over the features. In the average features weigh by the square of
    mean u_j^2, which keeps rare ones from deciding.
    """
    square, p = coordinates.mean_square, 1 / n_classes
    if not square.any():
        return 0.0
    weight = (square / square.max()) ** 2
    share = AUTO_ALPHA_SPARSE if coordinates.is_sparse else AUTO_ALPHA
    with np.errstate(over="ignore", divide="ignore"):  # features beyond the square root of float64's range
        mean_scale = np.average(coordinates.scale, weights=weight)
        alpha = share * p * (1 - p) * coordinates.mean_squared_norm / mean_scale**2
    return min(float(alpha), np.finfo(float).max)


def step_sizes(schedule, lr, n_batches, epoch, n_epochs):
    """The step size of each minibatch of an epoch (counted from 0): from lr down to 0 after `n_epochs`."""
    done = (epoch * n_batches + np.arange(n_batches)) / (n_epochs * n_batches)
    if schedule == "linear":
        return lr * (1 - done)
    if schedule == "cosine":
        return lr * 0.5 * (1 + np.cos(np.pi * done))
    return np.full(n_batches, lr)


def log_loss_and_accuracy(logits, y, weight):
    """Weighted mean cross-entropy and accuracy of logits (n_samples, n_logits), computed in float64."""
    logits = logits.astype(np.float64, copy=False)
    if logits.shape[1] == 1:
        losses = -log_expit(np.where(y == 1, logits[:, 0], -logits[:, 0]))
        correct = (logits[:, 0] > 0) == y
    else:
        losses = -log_softmax(logits, axis=1)[np.arange(len(y)), y]
        correct = logits.argmax(axis=1) == y
    return np.average(losses, weights=weight), np.average(correct, weights=weight)


# Updates that a fit with max_iter="auto" makes, about, or so many epochs where those are more; with fewer than
# ENOUGH_UPDATES a fit may stop short of the optimum. From the study in benchmarks/auto_lr.py.
AUTO_UPDATES, AUTO_EPOCHS, ENOUGH_UPDATES = 3000, 5, 1000


def auto_epochs(n_rows, batch_size):
    """Number of epochs that max_iter="auto" stands for: an epoch is few updates on small data and many on large."""
    return max(AUTO_EPOCHS, round(AUTO_UPDATES / -(-n_rows // batch_size)))


# A mean loss beyond this is no longer on the way back: its logits differ by more than float64 can resolve. The penalty may
# keep such a model finite.
DIVERGED = 1 / np.finfo(np.float64).eps


@dataclass
class History:
    """What a training run leaves beside its parameters."""

    loss_curve: list = field(default_factory=list)
    validation_loss_curve: list = field(default_factory=list)
    validation_scores: list = field(default_factory=list)
    converged: bool = False


class EpochHooks:
    """What the caller does around each epoch; `current` makes (coef, intercept) for x when called."""

    def begin(self, epoch, current):
        pass

    def end(self, epoch, current):
        """Return whether to stop."""
        return False


def train(
    backend,
    rows,
    parameters,
    velocity,
    coordinates,
    *,
    lr,
    batch_size,
    n_epochs,
    lr_schedule,
    momentum,
    alpha,
    l1_ratio,
    fit_intercept,
    rng,
    tol,
    n_iter_no_change,
    early_stopping=False,
    validate=None,
    hooks=None,
    verbose=0,
):
    """Train for up to `n_epochs` epochs; return (coef, intercept, History).

    `parameters` and `velocity` are pairs (of coef's and intercept's shape) to begin with, or None for zeros.
    `rng` shuffles the rows before each epoch (None: they stay as they are). `validate(coef, intercept)` gives a
    validation loss and score. Raises ValueError, naming epoch and lr, where the loss ceases to be finite.
    """
    hooks = hooks or EpochHooks()
    history = History()
    dtype = backend.dtype
    # In u the penalty alpha/2 W^2 reads alpha/2 scale^2 W'^2, and alpha |W| reads alpha scale |W'|.
    # Where that is beyond the range of dtype, it holds W' at 0 all the same; where alpha is 0, neither is used.
    with np.errstate(over="ignore", invalid="ignore"):
        l2 = np.minimum(alpha / (1 - momentum) * (1 - l1_ratio) * coordinates.scale**2, np.finfo(dtype).max)
        l1 = np.minimum(alpha / (1 - momentum) * l1_ratio * coordinates.scale, np.finfo(dtype).max)
    backend.start(
        None if parameters is None else coordinates.enter(*parameters),
        None if velocity is None else coordinates.enter_velocity(*velocity),
        mean=None if coordinates.identity else coordinates.mean,
        scale=None if coordinates.identity else coordinates.scale,
        l1=l1 if alpha > 0 and l1_ratio > 0 else None,
        l2=l2 if alpha > 0 and l1_ratio < 1 else None,
        momentum=momentum,
        fit_intercept=fit_intercept,
        batch_size=batch_size,
    )

    def current():
        coef, intercept = coordinates.leave(*backend.get_parameters())
        return coef.astype(dtype), intercept.astype(dtype)

    n_batches = -(-len(rows) // batch_size)
    order = rows.copy()
    best_loss, best_parameters, epochs_without_change = np.inf, None, 0
    for epoch in range(n_epochs):
        hooks.begin(epoch, current)
        if rng is not None:
            rng.shuffle(order)
        loss = backend.run_epoch(order, step_sizes(lr_schedule, lr, n_batches, epoch, n_epochs))
        if not loss < DIVERGED:  # NaN included
            raise _diverged(epoch, lr)
        history.loss_curve.append(loss)
        watched = loss
        if validate is not None:
            validation_loss, score = validate(*current())
            history.validation_loss_curve.append(validation_loss)
            history.validation_scores.append(score)
            watched = validation_loss if early_stopping else loss
        if verbose:
            validation = f", validation loss {validation_loss:.6f}, score {score:.4f}" if validate is not None else ""
            print(f"Epoch {epoch + 1:3d}: loss {loss:.6f}{validation}")
        if early_stopping and watched < best_loss:
            best_parameters = current()
        if early_stopping or lr_schedule == "constant":
            epochs_without_change = epochs_without_change + 1 if watched > best_loss - tol else 0
            best_loss = min(best_loss, watched)
            history.converged = epochs_without_change >= n_iter_no_change
        stop_asked = hooks.end(epoch, current)  # whoever asks to stop needs no warning
        history.converged |= stop_asked
        if history.converged:
            break
    # With a falling step the loss falls to the end, so the plateau says nothing: what counts is whether there were
    # enough updates, and whether the second half of the epochs still brought much.
    curve = history.loss_curve
    still_falling = curve[(len(curve) - 1) // 2] - curve[-1] > tol
    history.converged |= len(curve) * n_batches >= ENOUGH_UPDATES or not still_falling
    coef, intercept = coordinates.leave(*backend.get_parameters())
    if not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
        raise _diverged(epoch, lr)
    if best_parameters is not None:
        coef, intercept = best_parameters
    return coef.astype(dtype), intercept.astype(dtype), history


def _diverged(epoch, lr):
    return ValueError(
        f"Training diverged: the loss or a coefficient grew beyond all bounds in epoch {epoch + 1} with lr={lr:.6g}. "
        "Choose a smaller lr, scale the features, or use lr='auto'."
    )
