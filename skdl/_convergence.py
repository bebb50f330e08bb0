"""How far a model is from the optimum, and what to tell the user about it."""

from contextlib import closing
from enum import Enum, auto
from functools import partial
from typing import NamedTuple

import numpy as np

from skdl import _softmax
from skdl._auto import auto_epochs
from skdl._backends import ceil_div
from skdl._evidence import initial_alpha
from skdl._plan import coordinates

# What users are told of: an objective this much above its optimum, relative or absolute, whichever is more.
FAR, FAR_ABSOLUTE = 0.05, 0.005
# An objective that is less than this share of it above its optimum is near: what a falling step still brings is enough.
NEAR = 0.005
# Steps of conjugate gradients, on the way and at the end. Each is a pass over the rows, and so is the gradient. A pass is paid
# for by EPOCHS_OF_PASS epochs, or it is cheap anyway: a millisecond or so for this many numbers of X times outputs, of dense
# X and of CSR.
STEPS_ON_THE_WAY, STEPS_AT_THE_END, EPOCHS_OF_PASS = 2, 5, 20
CHEAP, CHEAP_SPARSE = 2**25, 2**22
EPOCHS_PER_MEASUREMENT = EPOCHS_OF_PASS * (1 + STEPS_ON_THE_WAY)
# Otherwise: with fewer updates than these a fit is short of the optimum. From benchmarks/honesty.py, like the next two.
ENOUGH_UPDATES = 600
# Rows whose probabilities give the curvature, and the mean change of their logits over which a gradient is differenced.
CURVATURE_ROWS, DIFFERENCE = 2048, 0.03
# Where a class is given probabilities of 0 and 1, the curvature there says little of that on the way to the optimum, and a
# share of the decrement by the diagonal alone is the better estimate.
DIAGONAL_SHARE = 1 / 3
# An alpha this much below the one that alpha="auto" begins with makes for an optimum that is far away.
SMALL_ALPHA = 0.1
# The updates of alpha="auto" take it down to .04 of what it began with at the least, on sets of benchmarks/_suite.py with
# lr="auto" and with the same step as a number. A step that is far too large makes coefficients grow, and alpha fall, without
# end.
OVERSHOT_ALPHA = 0.01
# A fit that has made as many epochs as max_iter="auto" stands for is advised to make so many times as many.
MORE_EPOCHS = 4


class View(Enum):
    """What a look at the optimum shows."""

    UNKNOWN = auto()
    FAR = auto()
    NOT_NEAR = auto()
    NEAR = auto()
    AT_OPTIMUM = auto()


class Gap(NamedTuple):
    """The mean loss and the objective F of a model, and an estimate of F - F*, F* being the optimum."""

    loss: float
    objective: float
    excess: float

    @property
    def is_far(self):
        return self.excess > max(FAR * (self.objective - self.excess), FAR_ABSOLUTE)


def no_model_loss(source, n_classes, fit_intercept):
    """The smallest loss that needs no feature: the entropy of the classes; without an intercept, that of even odds."""
    if not fit_intercept:
        return float(np.log(n_classes))
    frequency = source.class_shares(n_classes)
    return float(-(frequency * np.log(frequency, where=frequency > 0, out=np.zeros(len(frequency)))).sum())


def loss_and_gradient(W, source, backend, scaling, options):
    """Mean loss and its gradient at W (n_outputs, n_features + 1), the last column the intercept, in scaled coordinates.

    Steps of size 0 with a momentum of 1 add up the gradients of minibatches.
    """
    n_rows, batch_size = source.n_rows, options.batch_size
    training = backend.start(
        (W[np.newaxis, :, :-1], W[np.newaxis, :, -1]),
        None,
        mean=scaling.mean,
        scale=scaling.scale,
        l1=None,
        l2=None,
        momentum=np.ones(1),
        fit_intercept=options.fit_intercept,
        batch_size=batch_size,
    )
    total, gradient, before = 0.0, 0.0, 0.0
    with closing(source.blocks()) as blocks:
        for block, order in blocks:
            n_even = len(order) - len(order) % batch_size
            for rows in (order[:n_even], order[n_even:]):  # a gradient is the mean of its minibatch
                if len(rows):
                    size = min(batch_size, len(rows))
                    [[loss]] = training.run(block, rows[np.newaxis], np.zeros((1, 1, ceil_div(len(rows), size))))
                    [coef], [intercept] = training.velocity()
                    velocity = np.column_stack((coef, intercept)).astype(np.float64)
                    total, gradient, before = total + loss, gradient + size * (velocity - before), velocity
    return total / n_rows, gradient / n_rows


class Gauge:
    """Measures the `Gap` of models on the rows of a source, by passes of the backend.

    F - F* is about half of g^T H^-1 g, the Newton decrement, with g the gradient of F and H its second derivative. A few
    steps of the conjugate gradient method, with differences of gradients for products with H and the diagonal of H as a
    preconditioner, give most of it. All this happens in the coordinates of lr="auto", which are closer to round.
    """

    def __init__(self, plan):
        self.source, self.backend, self.options, self.scaling = plan.seen, plan.backend, plan.options, plan.standard
        if self.scaling is None:
            self.source, _, self.scaling, _ = coordinates(plan.seen, plan.options, plan.backend, None)
        source, options, q = self.source, self.options, plan.unit * self.scaling.scale
        self.n_classes = _softmax.n_classes(plan.backend.n_outputs)
        self.usual_alpha = initial_alpha(self.scaling, q, source.total_weight, self.n_classes)
        self.no_model_loss = no_model_loss(source, self.n_classes, options.fit_intercept)
        # of each coordinate of a row: mean square, and the penalty alpha (W r)^2 / 2, which the intercept has not
        self.square = np.append(self.scaling.mean_square, float(options.fit_intercept))
        self.reach = np.append(q, 0.0)

    def measure(self, alpha, coef, intercept, n_steps):
        """The `Gap` of a model on x, by so many steps of conjugate gradients; without any, the diagonal of H stands for it."""
        l1_ratio = self.options.l1_ratio
        l1, l2 = alpha * l1_ratio * self.reach, alpha * (1 - l1_ratio) * self.reach**2
        W = np.column_stack(self.scaling.scale_parameters(coef.astype(np.float64), intercept.astype(np.float64)))
        loss, loss_gradient = self._loss_and_gradient(W)
        objective = loss + (l1 * abs(W)).sum() + (l2 * W**2).sum() / 2
        g = loss_gradient + l2 * W + l1 * np.sign(W)
        at_zero = W == 0  # where the subgradient of |W| that makes g smallest counts
        g[at_zero] = (np.sign(g) * np.maximum(abs(g) - l1, 0))[at_zero]
        moves = (g != 0) & (self.square > 0)
        diagonal = self._curvature(coef, intercept)[:, np.newaxis] * self.square + l2
        g, diagonal = np.where(moves, g, 0.0), np.where(moves & (diagonal > 0), diagonal, 1.0)

        def product(p):
            largest = abs(p).max()
            length = DIFFERENCE / largest / np.sqrt(((p / largest) ** 2 * self.square).sum(axis=1).max())
            _, there = self._loss_and_gradient(W + length * p)
            return np.where(moves, (there - loss_gradient) / length + l2 * p, 0.0)

        excess = (g**2 / diagonal).sum() / 2
        if n_steps > 0:
            excess = max(DIAGONAL_SHARE * excess, _newton_decrement(product, g, diagonal, n_steps))
        excess = max(excess, loss - self.no_model_loss)
        return Gap(loss, objective, float(min(excess, objective)))  # F* is not below 0

    def _loss_and_gradient(self, W):
        return loss_and_gradient(W, self.source, self.backend, self.scaling, self.options)

    def _curvature(self, coef, intercept):
        """The mean of z (1 - z) of each output over some of the rows."""
        rows = self.source.rows
        if len(rows) > CURVATURE_ROWS:
            rows = rows[np.linspace(0, len(rows) - 1, CURVATURE_ROWS).astype(int)]
        _, _, weight = self.source.block
        [logits], _ = self.backend.predictor(self.source.X, rows)((coef[np.newaxis], intercept[np.newaxis]))
        z = _softmax.output_probabilities(logits.astype(np.float64))
        return _softmax.mean_curvature(z, None if weight is None else weight[rows])


class Monitor:
    """Sees while a fit goes on whether the optimum is near, and at its end whether it is far.

    It measures now and then, where the epochs since the last time make the passes cheap.
    """

    def __init__(self, plan):
        self.source, self.backend, self.options, self.scaling = plan.seen, plan.backend, plan.options, plan.scaling
        self.alpha_is_auto = plan.evidence is not None
        self.n_epochs, self.next_look = 0, EPOCHS_PER_MEASUREMENT
        self.n_added, self.total, self.optimum = 0, None, None
        self.gauge, self.make_gauge = None, partial(Gauge, plan)

    def state(self):
        """What it keeps between epochs."""
        return {"n_epochs": self.n_epochs, "next_look": self.next_look, "n_added": self.n_added, "total": self.total}

    def restore(self, state):
        vars(self).update(state)

    @property
    def epochs_to_look(self):
        """Number of epochs until the next measurement."""
        return np.inf if self.is_blind else self.next_look - self.n_epochs

    def measure(self, alpha, coef, intercept, n_steps):
        with np.errstate(all="ignore"):  # where numbers overflow the excess is not finite, and nothing is said
            self.gauge = self.gauge or self.make_gauge()
            return self.gauge.measure(alpha, coef, intercept, n_steps)

    @property
    def is_blind(self):
        """Whether nothing will be seen of the optimum on the way."""
        options = self.options
        if options.lr_schedule == "constant" or options.tol == 0 or options.max_iter <= EPOCHS_PER_MEASUREMENT:
            return True
        return options.l1_ratio > 0  # the zeros of the optimum come long after its objective

    def look(self, alpha, n_epochs, parameters, *, noisy):
        """What is seen of the optimum after another n_epochs; parameters() are those of SGD, in its coordinates.

        Where noise keeps them from it, their mean over the epochs since the last measurement is looked at (Polyak and Juditsky
        1992), and where that is at the optimum, it is the model: `optimum`.
        """
        if self.is_blind:
            return View.UNKNOWN
        if noisy:
            total = self.total or (0.0, 0.0)
            self.n_added, self.total = self.n_added + 1, [t + p for t, p in zip(total, parameters(), strict=True)]
        self.n_epochs += n_epochs
        if self.n_epochs < self.next_look:
            return View.UNKNOWN
        self.next_look += max(EPOCHS_PER_MEASUREMENT, self.next_look // 2)
        self.optimum = [t / self.n_added for t in self.total] if noisy else parameters()
        self.n_added, self.total = 0, None
        [coef], [intercept] = self.scaling.unscale_parameters(*self.optimum)
        gap = self.measure(alpha, coef, intercept, STEPS_ON_THE_WAY)
        if gap.excess < self.options.tol:
            return View.AT_OPTIMUM
        if gap.excess < NEAR * gap.objective:
            return View.NEAR
        return View.FAR if gap.is_far else View.NOT_NEAR

    def advice(self, alpha, coef, intercept, loss_curve, *, at_optimum):
        """What to tell the user of a fit that ended here, far from its optimum; None where it is near.

        at_optimum: whether it was seen there, that of this alpha at least.
        """
        n_epochs, loss = len(loss_curve), loss_curve[-1]
        if self.alpha_is_auto and self.scaling.is_identity and alpha < OVERSHOT_ALPHA * self._usual_alpha():
            return (
                f"alpha='auto' has fallen to {alpha:.2g} from {self._usual_alpha():.2g}: lr={self.options.lr:.3g} is too "
                "large, and so are the coefficients. Choose a smaller lr, or lr='auto'."
            )
        if at_optimum:
            return None
        ended = f"Training ended after {n_epochs} epoch{'s' * (n_epochs > 1)} with a loss of "
        n_numbers = self.source.n_rows * (1 + self.source.row_values) * self.backend.n_outputs
        n_passes = 1 + STEPS_AT_THE_END
        if n_numbers > (CHEAP_SPARSE if self.source.is_sparse else CHEAP):
            n_passes = min(n_passes, n_epochs // EPOCHS_OF_PASS)
        if n_passes > 0:
            gap = self.measure(alpha, coef, intercept, n_passes - 1)
            if not gap.is_far:
                return None
            ended += f"{gap.loss:.4g}; the objective is about {gap.excess:.2g} above its optimum"
            return f"{ended}. {self._remedy(gap.loss, n_epochs, alpha)}"
        n_updates = n_epochs * self.source.n_batches(self.options.batch_size)
        still_falling = n_epochs == 1 or loss_curve[(n_epochs - 1) // 2] - loss > self.options.tol
        n_classes = _softmax.n_classes(self.backend.n_outputs)
        useless = loss > no_model_loss(self.source, n_classes, self.options.fit_intercept)
        if useless or (n_updates < ENOUGH_UPDATES and still_falling):
            return f"{ended}{loss:.4g}, short of the optimum. {self._remedy(loss, n_epochs, alpha)}"
        return None

    def _usual_alpha(self):
        """The alpha that alpha="auto" begins with."""
        self.gauge = self.gauge or self.make_gauge()
        return self.gauge.usual_alpha

    def _remedy(self, loss, n_epochs, alpha):
        options, n_classes = self.options, _softmax.n_classes(self.backend.n_outputs)
        enough = auto_epochs(self.source.n_rows, options.batch_size, in_memory=self.source.draws)
        more = enough if n_epochs < enough else MORE_EPOCHS * n_epochs
        if loss > np.log(n_classes):
            too_large = f"That is more than the {np.log(n_classes):.4g} of even odds: lr={options.lr:.3g} is too large."
            if self.scaling.is_identity:
                return f"{too_large} Choose a smaller lr, or lr='auto'."
            return f"{too_large} Raise batch_size, or max_iter to {more}."
        usual_alpha = 0.0 if self.gauge is None else self.gauge.usual_alpha
        if n_epochs >= enough and alpha < SMALL_ALPHA * usual_alpha and not self.alpha_is_auto:
            return (
                f"With alpha={alpha:.3g} the optimum is far away. Raise alpha (alpha='auto' begins with {usual_alpha:.2g}), or "
                f"max_iter to {more}."
            )
        if options.lr_schedule == "constant" and n_epochs < options.max_iter:
            return "The step is constant and the loss has ceased to fall: use lr_schedule='cosine'."
        if self.scaling.is_identity:
            return f"Raise max_iter to {more}, or use lr='auto'."
        return f"Raise max_iter to {more}."


def _newton_decrement(product, g, diagonal, n_steps):
    """About g^T H^-1 g / 2, from below, by conjugate gradients for H x = g."""
    decrement, residual = 0.0, g
    z = residual / diagonal
    p, rz = z, (residual * z).sum()
    for step in range(n_steps):
        if not rz > 0:
            break
        Hp = product(p)
        curvature = (p * Hp).sum()
        if not curvature > 0:  # rounding, or an H that vanishes: what there was is all that is known
            break
        length = rz / curvature
        decrement += length * rz / 2
        if step < n_steps - 1:
            residual = residual - length * Hp
            z = residual / diagonal
            rz, before = (residual * z).sum(), rz
            p = z + rz / before * p
    return decrement
