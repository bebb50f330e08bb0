"""Minibatch SGD for softmax regression: the loop, step sizes, stopping. Names no device.

Shapes and names, here and in every backend
-------------------------------------------
X            (n_samples, n_features)           as the user gave it, dense or CSR; never copied, never rescaled
y            (n_samples,) int32                class numbers 0 .. n_classes - 1
weight       (n_samples,)                      sample weights divided by their mean over the rows in use; None: all 1
rows, order  (n_rows,) int64                   the rows in use; the same in the order of an epoch's visit
coef         (n_models, n_outputs, n_features) W; n_outputs is the number of logits: of classes, and 1 for two classes
intercept    (n_models, n_outputs)             b
velocity     (coef's, intercept's)             the heavy ball's V, a pair of arrays like coef and intercept
step_sizes   (n_models, n_batches)             lr of each minibatch of an epoch

Models lie side by side along the first axis, which has length 1 today; what `solve` is given and returns is of one model
and lacks it.

The objective, for logits h = W x + b and cross-entropy l, is

    F(W, b) = mean_i weight_i l(h(x_i), y_i) + alpha sum_j ((1 - l1_ratio) / 2 ||W_j r_j||^2 + l1_ratio ||W_j r_j||_1)

with r_j, the unit of feature j, 1 / scale of `Scaling`, or 1 where standardize=False. A step on a minibatch with gradient G
of its first term is V := momentum V + G; W := prox(W - lr V), where prox is the proximal operator of lr / (1 - momentum)
times the penalty (a gradient moves W by lr / (1 - momentum) in all, so the penalty must, or the fixed point is not F's):
with t = lr alpha / (1 - momentum) and r_j = 1, division by 1 + t (1 - l1_ratio), then soft thresholding at t l1_ratio. The
intercept has no penalty. The step may be taken in other coordinates of x; see `Scaling`.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from sklearn.utils import check_random_state

from skdl import _softmax
from skdl._auto import ENOUGH_UPDATES, auto_lr, even_batch_size
from skdl._backends import ceil_div
from skdl._evidence import Evidence, initial_alpha
from skdl._sampling import evenly_drawn, lengths, long_rows, may_hold_long_rows, with_bounded_leverage
from skdl._scaling import Scaling, Statistics
from skdl._validation import check_model

# A mean loss above this is divergence: its logits differ by more than float64 can resolve. The penalty may keep such a
# model finite.
DIVERGED = 1 / np.finfo(np.float64).eps
# Epochs for each of the last proximal steps on all rows that a penalty with L1 gets, from benchmarks/l1_zeros.py.
EPOCHS_PER_SETTLING = 20


@dataclass
class History:
    """What was seen on the way."""

    loss_curve: list = field(default_factory=list)
    validation_loss_curve: list = field(default_factory=list)
    validation_scores: list = field(default_factory=list)
    converged: bool = False

    def add(self, loss, validation):
        self.loss_curve.append(float(loss))
        if validation is not None:
            self.validation_loss_curve.append(validation[0])
            self.validation_scores.append(validation[1])

    def last_line(self):
        line = f"Epoch {len(self.loss_curve):3d}: loss {self.loss_curve[-1]:.6f}"
        if self.validation_loss_curve:
            line += f", validation loss {self.validation_loss_curve[-1]:.6f}, score {self.validation_scores[-1]:.4f}"
        return line

    def is_short(self, n_batches, tol):
        """Whether the epochs ended too early.

        With a falling step the loss falls to the end, so a plateau says nothing: what counts is whether there were enough
        updates, and whether the second half of the epochs still brought much.
        """
        curve = self.loss_curve
        still_falling = curve[(len(curve) - 1) // 2] - curve[-1] > tol
        return len(curve) * n_batches < ENOUGH_UPDATES and still_falling


@dataclass
class Solution:
    """A trained model, the numbers that "auto" stood for, and what the next part of a stream needs, if there is one."""

    coef: np.ndarray
    intercept: np.ndarray
    unit: np.ndarray  # r
    lr: float
    alpha: float
    history: History
    stream: dict | None = None


class EpochHooks:
    """What the caller does around each epoch; `current` makes (coef, intercept) for x when called."""

    def begin(self, current):
        pass

    def end(self, current):
        """Return whether to stop."""
        return False


def solve(source, options, backend, *, epoch=0, start=None, stream=None, validate=None, hooks=None):
    """Choose what is "auto", train, and return the `Solution`.

    Parameters
    ----------
    source : skdl._data.InMemory
    options : skdl._parameters.Options, with a number for max_iter
    backend : skdl._backends.Backend, made for this source
    epoch : number of epochs that came before, in a stream; their orders are not drawn again
    start : (coef, intercept) to begin with; None: zeros
    stream : dict that the last part of a stream left, {} for the first part; None: there is no stream
    validate : function of (coef, intercept) that returns a validation loss and score, called after each epoch
    hooks : EpochHooks

    Raises ValueError, naming epoch and lr, where training diverges.
    """
    source, options, scaling, unit, statistics, evidence = resolve(source, options, backend, stream)
    velocity = (stream["coef_velocity"], stream["intercept_velocity"]) if stream else None
    for parameters in (start, velocity):
        if parameters is not None:
            check_model(*parameters, backend.n_outputs, source.n_features)
    if start is not None and not options.fit_intercept:
        start = start[0], np.zeros_like(start[1])
    rng = order_generator(options, epoch)
    solution = train(
        source, options, backend, scaling, unit, evidence, rng, start, velocity, validate, hooks or EpochHooks()
    )
    if stream is None and options.l1_ratio > 0 and solution.alpha > 0 and not scaling.is_identity:
        solution.coef, solution.intercept = settled(solution, source, options, backend, scaling)
    if stream is not None:
        [coef], [intercept] = scaling.unscale_gradient(*backend.velocity())
        solution.stream = {"coef_velocity": coef, "intercept_velocity": intercept}
        if statistics is not None:
            solution.stream |= statistics._asdict()
    return solution


def resolve(source, options, backend, stream):
    """The source as it is drawn from, options with numbers in place of "auto", the coordinates of SGD, the features' units, the
    `Statistics` of all rows so far, or None where nothing asks for them, and the `Evidence` by which alpha is updated, or None.
    """
    given, centred, length = source, source, None
    statistics, evidence, scaling = None, None, Scaling.identity(source.n_features)
    if stream and "mean" in stream:
        statistics = Statistics(*(stream[name] for name in Statistics._fields))
    if "auto" in (options.lr, options.alpha) or (options.standardize and options.alpha > 0):
        centred, statistics, scaling, length = coordinates(source, options, backend, statistics)
    else:
        source.check_finite()
    ones, stated = np.ones(source.n_features), scaling
    unit, q = (1 / scaling.scale, ones) if options.standardize else (ones, scaling.scale)
    alpha, lr, batch_size = options.alpha, options.lr, min(options.batch_size, source.n_rows)
    if lr == "auto":
        batch_size = even_batch_size(source.n_rows, batch_size)
        source, noise = centred, None
        if length is not None:
            source = with_bounded_leverage(source, length)
        if source.n_batches(batch_size) > 1:
            source, noise = evenly_drawn(source, scaling, length, shuffle=options.shuffle)
        lr = auto_lr(
            source,
            scaling,
            n_outputs=backend.n_outputs,
            batch_size=batch_size,
            momentum=options.momentum,
            mean_squared_norm=noise,
        )
    else:
        scaling = Scaling.identity(source.n_features)
    if alpha == "auto":
        alpha = initial_alpha(stated, q, statistics.total_weight, _softmax.n_classes(backend.n_outputs))
        if alpha > 0 and options.max_iter > 1:
            seen = source if options.lr == "auto" else centred
            evidence = Evidence(seen, given.block.X, stated, q, backend, options)
    options = replace(options, lr=float(lr), alpha=float(alpha), batch_size=batch_size)
    return source, options, scaling, unit, statistics, evidence


def coordinates(source, options, backend, before):
    """The source, centred where it is CSR with columns stored in all rows; `Statistics` of its rows and of those `before`; the
    `Scaling` that follows; and |u| of each row, or None where no row can be long.

    Long rows have no say in the statistics, but for those of columns in which only they differ: rare categories, for example,
    which then do not make a row long.
    """

    def together(here):
        statistics = here if before is None else before.merged(here)
        scaling = Scaling.from_statistics(statistics, centre=centre, is_sparse=source.is_sparse, dtype=backend.dtype)
        return statistics, scaling

    def centred(scaling):
        return source.centred(scaling.mean) if source.is_sparse and scaling.mean.any() else source

    here, length = source.statistics(backend), None
    # A column of CSR has no mean unless it is stored in all rows.
    centre = options.fit_intercept and (not source.is_sparse or here.mean != 0)
    statistics, scaling = together(here)
    if may_hold_long_rows(source, scaling, statistics):
        length = lengths(centred(scaling), scaling)
        is_long = long_rows(length)
        if is_long.any():
            others = source.statistics(backend, source.rows[~is_long])
            differ = together(others)[1].mean_square > 0
            statistics, scaling = together(here.with_columns(others, differ))
            length = lengths(centred(scaling), scaling.within(differ))
    return centred(scaling), statistics, scaling, length


def order_generator(options, epoch):
    """The generator that shuffles the rows from an epoch on, or None.

    It draws from `random_state`, so it is made when nothing is left to be refused: a call that fails must draw nothing.
    """
    if not options.shuffle:
        return None
    return np.random.default_rng([check_random_state(options.random_state).randint(2**31 - 1), epoch])


def penalties(options, unit, scale, dtype):
    """(l1, l2), each (n_models, n_features) or None: strengths of the penalty on the coefficients W' of u.

    In u the penalty alpha/2 (W r)^2 reads alpha/2 (r scale)^2 W'^2, and alpha |W r| reads alpha r scale |W'|. Where that
    overflows dtype, it holds W' at 0 all the same; where alpha overflows and the rest underflows, there is none.
    """
    strength, l1_ratio, largest = options.alpha / (1 - options.momentum), options.l1_ratio, np.finfo(dtype).max

    def held(penalty):
        penalty[np.isnan(penalty)] = 0.0
        return np.minimum(penalty, largest)[np.newaxis]

    with np.errstate(over="ignore", invalid="ignore"):
        return (
            held(strength * l1_ratio * (unit * scale)) if options.alpha > 0 and l1_ratio > 0 else None,
            held(strength * (1 - l1_ratio) * (unit * scale) ** 2) if options.alpha > 0 and l1_ratio < 1 else None,
        )


def step_sizes(schedule, lr, n_batches, epoch, n_epochs):
    """The step size of each minibatch of an epoch (counted from 0): from lr down to 0 after `n_epochs`."""
    done = (epoch * n_batches + np.arange(n_batches)) / (n_epochs * n_batches)
    if schedule == "linear":
        return lr * (1 - done)
    if schedule == "cosine":
        return lr * 0.5 * (1 + np.cos(np.pi * done))
    return np.full(n_batches, lr)


def run_epoch(source, backend, rng, step_sizes, batch_size):
    """One pass over the source; returns each model's mean loss on the way, (n_models,)."""
    total, done = 0.0, 0
    for block, order in source.epoch(rng):
        n_batches = ceil_div(len(order), batch_size)
        total = total + backend.run(block, order, step_sizes[:, done : done + n_batches])
        done += n_batches
    return total / source.n_rows


def with_model_axis(pair):
    """(coef, intercept) of one model as those of models side by side."""
    return None if pair is None else tuple(np.asarray(a)[np.newaxis] for a in pair)


def train(source, options, backend, scaling, unit, evidence, rng, start, velocity, validate, hooks):
    """Train for up to `options.max_iter` epochs; see `solve`."""
    dtype, n_batches = backend.dtype, source.n_batches(options.batch_size)
    start, velocity = with_model_axis(start), with_model_axis(velocity)
    l1, l2 = penalties(options, unit, scaling.scale, dtype)
    backend.start(
        None if start is None else scaling.scale_parameters(*start),
        None if velocity is None else scaling.scale_gradient(*velocity),
        mean=None if scaling.is_identity else scaling.mean,
        scale=None if scaling.is_identity else scaling.scale,
        l1=l1,
        l2=l2,
        momentum=np.array([options.momentum]),
        fit_intercept=options.fit_intercept,
        batch_size=options.batch_size,
    )

    def unscaled():
        [coef], [intercept] = scaling.unscale_parameters(*backend.parameters())
        return coef, intercept

    def current():
        coef, intercept = unscaled()
        return coef.astype(dtype), intercept.astype(dtype)

    history = History()
    best_loss, best_parameters, epochs_without_change, stop = np.inf, None, 0, False
    for epoch in range(options.max_iter):
        hooks.begin(current)
        sizes = step_sizes(options.lr_schedule, options.lr, n_batches, epoch, options.max_iter)
        [loss] = run_epoch(source, backend, rng, sizes[np.newaxis], options.batch_size)
        if not loss < DIVERGED:  # NaN included
            raise diverged(epoch, options.lr, scaling)
        if evidence is not None and evidence.is_due(epoch + 1):
            options = replace(options, alpha=evidence.updated(options.alpha, *current()))
            backend.penalise(*penalties(options, unit, scaling.scale, dtype))
        history.add(loss, None if validate is None else validate(*current()))
        if options.verbose:
            print(history.last_line())
        watched = history.validation_loss_curve[-1] if options.early_stopping else loss
        if options.early_stopping and watched < best_loss:
            best_parameters = current()
        if options.early_stopping or options.lr_schedule == "constant":
            epochs_without_change = epochs_without_change + 1 if watched > best_loss - options.tol else 0
            best_loss = min(best_loss, watched)
            stop = epochs_without_change >= options.n_iter_no_change
        stop |= hooks.end(current)  # a callback that stops the fit needs no ConvergenceWarning
        if stop:
            break
    history.converged = stop or not history.is_short(n_batches, options.tol)
    coef, intercept = unscaled()
    if not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
        raise diverged(epoch, options.lr, scaling)
    coef, intercept = best_parameters or (coef.astype(dtype), intercept.astype(dtype))
    return Solution(coef, intercept, unit, options.lr, options.alpha, history)


def settled(solution, source, options, backend, scaling):
    """(coef, intercept) after proximal steps on all rows, with exact zeros where the optimum has them.

    The noise of minibatches takes coefficients off the zero to which their penalty holds them, and the last steps are too
    small to bring them back. These steps have neither noise nor momentum. The penalty sets a coefficient to 0 as soon as it
    is closer to it than a step of its strength less the gradient's. The step is 1 / L, where `auto_lr`'s is at most
    2 (1 + momentum) / L: it never raises the objective (Beck and Teboulle 2009).
    """
    l1, l2 = penalties(
        replace(options, alpha=solution.alpha, momentum=0.0), solution.unit, scaling.scale, backend.dtype
    )
    backend.start(
        scaling.scale_parameters(*with_model_axis((solution.coef, solution.intercept))),
        None,
        mean=scaling.mean,
        scale=scaling.scale,
        l1=l1,
        l2=l2,
        momentum=np.zeros(1),
        fit_intercept=options.fit_intercept,
        batch_size=source.n_rows,
    )
    step = np.array([[options.lr / (2 * (1 + options.momentum))]])
    for _ in range(ceil_div(len(solution.history.loss_curve), EPOCHS_PER_SETTLING)):
        backend.run(source.block, source.rows, step)
    [coef], [intercept] = scaling.unscale_parameters(*backend.parameters())
    return coef.astype(backend.dtype), intercept.astype(backend.dtype)


def diverged(epoch, lr, scaling):
    advice = "Choose a smaller lr, scale the features, or use lr='auto'."
    if not scaling.is_identity:  # it is in use
        advice = "Scale the features, or choose a numeric lr."
    return ValueError(
        f"Training diverged: the loss or a coefficient became infinite, NaN or larger than 1/eps in epoch {epoch + 1} with "
        f"lr={lr:.6g}. {advice}"
    )
