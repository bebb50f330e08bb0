"""Minibatch SGD for softmax regression: the loop, step sizes, stopping. Names no device.

Shapes and names, here and in every backend
-------------------------------------------
X            (n_samples, n_features)           as the user gave it, dense or CSR; never copied, never rescaled
y            (n_samples,) int32                class numbers 0 .. n_classes - 1
weight       (n_samples,)                      sample weights divided by their mean over the rows in use; None: all 1
rows         (n_rows,) int64                   the rows in use
order        (n_epochs, n_rows) int64          the same in the order in which each epoch visits them
coef         (n_models, n_outputs, n_features) W; n_outputs is the number of logits: of classes, and 1 for two classes
intercept    (n_models, n_outputs)             b
velocity     (coef's, intercept's)             the heavy ball's V, a pair of arrays like coef and intercept
step_sizes   (n_models, n_epochs, n_batches)   lr of each minibatch

Models lie side by side along the first axis; what `solve` is given and returns is of one model and lacks it.

The objective, for logits h = W x + b and cross-entropy l, is

    F(W, b) = mean_i weight_i l(h(x_i), y_i) + alpha sum_j ((1 - l1_ratio) / 2 ||W_j r_j||^2 + l1_ratio ||W_j r_j||_1)

with r_j, the unit of feature j, 1 / scale of `Scaling`, or 1 where standardize=False. A step on a minibatch with gradient G
of its first term is V := momentum V + G; W := prox(W - lr V), where prox is the proximal operator of lr / (1 - momentum)
times the penalty (a gradient moves W by lr / (1 - momentum) in all, so the penalty must, or the fixed point is not F's):
with t = lr alpha / (1 - momentum) and r_j = 1, division by 1 + t (1 - l1_ratio), then soft thresholding at t l1_ratio. The
intercept has no penalty. The step may be taken in other coordinates of x; see `Scaling`.
"""

from contextlib import closing
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from sklearn.utils import check_random_state

from skdl._backends import ceil_div
from skdl._convergence import Monitor, View, loss_and_gradient
from skdl._evidence import FALLING, HOLDING, STOPPING, Evidence, Sample
from skdl._plan import Survey, make_plan, standard_scaling
from skdl._reduction import OccurringColumns, is_full
from skdl._sampling import FEWEST_ROWS, SampledRows
from skdl._schedule import HeldEpochs, Patience, Schedule
from skdl._stream import FIT_VISITS, Average, Stream, carried_over, carried_velocity
from skdl._validation import check_model

# A mean loss above this is divergence: its logits differ by more than float64 can resolve. The penalty may keep such a
# model finite.
DIVERGED = 1 / np.finfo(np.float64).eps
# Products of values and outputs in the epochs that run together, about a millisecond; and how many epochs these are at most.
TOGETHER_VALUES, EPOCHS_TOGETHER = 2**20, 32
# Updates between the terms of a mean over epochs. A velocity of momentum=0.9 remembers ten: closer terms say little more.
UPDATES_BETWEEN_TERMS = 16
# Bytes of coefficients and velocity of models that train side by side: from 1 to 4 MiB, the L2 caches, an epoch takes the least
# time a model (768 features and 100 classes, 784 and 10 or 2).
CACHED_BYTES = 2**21
# Epochs for each of the last proximal steps on all rows that a penalty with L1 gets, from benchmarks/l1_zeros.py.
EPOCHS_PER_SETTLING = 10


@dataclass
class History:
    """What was seen on the way."""

    loss_curve: list = field(default_factory=list)
    validation_loss_curve: list = field(default_factory=list)
    validation_scores: list = field(default_factory=list)
    best_epoch: int | None = None  # counted from 1: whose parameters early stopping has kept

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


@dataclass
class Solution:
    """A trained model, the numbers that "auto" stood for, and what is left to a stream that goes on from here."""

    coef: np.ndarray
    intercept: np.ndarray
    unit: np.ndarray  # r
    lr: float
    alpha: float
    history: History
    statistics: object  # of the columns, if anything asked for them
    alpha_is_learnt: bool  # from the data
    advice: str | None = None  # where training ended far from the optimum
    stream: Stream | None = None


class EpochHooks:
    """What the caller does around each epoch; `current` makes (coef, intercept) for x when called.

    Where nobody watches, epochs may run together.
    """

    watches = False

    def begin(self, current, n_blocks=1):
        pass

    def block_done(self):
        """Another of the epoch's blocks is done, where there are several."""

    def end(self, current):
        """Return whether to stop."""
        return False


def solve(
    source, options, backend, *, epoch=0, start=None, stream=None, validate=None, hooks=None, checkpoint=None
):  # fmt: skip
    """Choose what is "auto", train, and return the `Solution`.

    Parameters
    ----------
    source : skdl._data.InMemory or Described
    options : skdl._parameters.Options, with a number for max_iter
    backend : skdl._backends.Backend, made for this source
    epoch : number of epochs that came before, in a stream; their orders are not drawn again
    start : (coef, intercept) to begin with; None: zeros
    stream : Stream that the calls before left to this part of it; None: this is a fit of its own
    validate : function of (coef, intercept) that returns a validation loss and score, called after each epoch
    hooks : EpochHooks
    checkpoint : Checkpoint, from which training goes on and to which it is written; None: it is not

    Raises ValueError, naming epoch and lr, where training diverges.
    """
    for parameters in (start,) if stream is None else (start, stream.last, stream.velocity):
        if parameters is not None:
            check_model(*parameters, backend.n_outputs, source.n_features)
    start = _without_intercept(start, options)
    if stream is not None:
        plan = make_plan(Survey(source, backend, stream), options)
        return train_part(plan, source, options, order_generator(options, epoch), start, stream)
    [solution] = solve_all(
        source, [options], backend, [hooks], start=start, validate=validate, advises=True, checkpoint=checkpoint
    )
    if isinstance(solution, ValueError):
        raise solution
    return solution


def solve_all(source, candidates, backend, hooks, *, start=None, validate=None, advises=False, checkpoint=None):
    """A model of the same rows for each of the candidates, which are `Options` with `EpochHooks` or None; see `solve`.

    Returns for each its `Solution`, or the ValueError that it ended with. Each is what `solve` gives for it alone, to the bit,
    but for the advice, which is looked for only where `advises`. Candidates that see the same minibatches train side by side.
    """
    columns, smaller = None, source
    if not source.draws:
        pass  # what is not in memory is taken as it comes
    elif is_full(source):
        smaller = source.with_values(source.block.X.toarray())
    elif source.is_sparse:
        columns = OccurringColumns.of(source, start)
    if columns is not None:
        smaller, start = columns.select(source), start and (start[0][:, columns.columns], start[1])
    survey = Survey(smaller, backend if smaller is source else backend.for_source(smaller))
    results, groups = [None] * len(candidates), {}
    for i, (options, own_hooks) in enumerate(zip(candidates, hooks, strict=True)):
        try:
            may_turn = source.draws and start is None and (options.l1_ratio == 0 or options.alpha == 0)
            plan = make_plan(survey, options, turns=may_turn)
        except ValueError as error:
            results[i] = error
            continue
        if columns is not None:
            plan.lift = columns.lifting(plan.lift)
        groups.setdefault(what_minibatches_follow_from(plan), []).append(
            (i, Course(plan, validate, own_hooks, advises=advises))
        )
    for group in groups.values():
        n_together = models_together(group[0][1].plan.backend, len(group))
        for first in range(0, len(group), n_together):
            places, courses = zip(*group[first : first + n_together], strict=True)
            train(courses, order_generator(courses[0].plan.options, 0), start, checkpoint=checkpoint)
            for i, course in zip(places, courses, strict=True):
                results[i] = course.result
    return [result if isinstance(result, ValueError) else _completed(result, source, columns) for result in results]


def _completed(solution, source, columns):
    """The solution for all columns, with what is left to a stream."""
    unit = solution.unit if columns is None else columns.lift(solution.unit, other=1.0)
    left = Stream(columns=columns).with_statistics(solution.statistics).joined(source, visits=FIT_VISITS)
    return replace(solution, unit=unit, stream=left.with_alpha(solution.alpha) if solution.alpha_is_learnt else left)


def what_minibatches_follow_from(plan):
    """Models for which this is the same may train side by side."""
    options = plan.options
    of_order = options.batch_size, options.shuffle, options.random_state
    return id(plan.source), id(plan.scaling), id(plan.backend), options.fit_intercept, *of_order


def models_together(backend, n_models):
    """The number of models that train side by side: an even part of all that has room in the caches beside the rows, or shares
    vectors.
    """
    n_bytes = 2 * backend.n_outputs * backend.n_features * backend.dtype.itemsize
    return ceil_div(n_models, ceil_div(n_models, max(backend.n_lanes, CACHED_BYTES // n_bytes)))


def train_part(plan, source, options, rng, start, stream):
    """A call's part of a stream, with lr="auto" averaged. `options` are as given, `start` is the model so far."""
    scaling, last, velocity, average = plan.scaling, start, stream.velocity, None
    if options.lr == "auto":
        last = _without_intercept(stream.last, options) or start
        if stream.statistics is not None:
            known = standard_scaling(stream.statistics, stream.statistics, source, options, plan.backend)
            start, last = (carried_over(p, known, scaling, stream.trust(source)) for p in (start, last))
            velocity = carried_velocity(velocity, known, scaling)
        average = Average(start and scaling.scale_parameters(*with_model_axis(start)), stream, source, plan.options)
    share = stream.step_share(source, options, plan.options.batch_size)
    if velocity is not None:
        velocity = tuple(v / share for v in velocity)
    course = Course(plan, average=average, monitors=False)
    training = train([course], rng, last, velocity, average)
    if isinstance(course.result, ValueError):
        raise course.result
    solution = course.result
    [coef], [intercept] = scaling.unscale_gradient(*training.velocity())
    n_far = 0 if plan.statistics is None else source.n_rows * (1 - plan.statistics.total_weight / source.total_weight)
    left = stream.with_statistics(plan.statistics).joined(source, n_far=n_far)
    left = replace(left, last=None, velocity=(coef * share, intercept * share))
    if plan.standard is not None:
        left = replace(left, alpha=stream.alpha_by(plan.standard, options))
    if average is not None:
        [coef], [intercept] = scaling.unscale_parameters(*training.parameters())
        left = replace(left, last=(coef, intercept))
    if options.alpha == "auto" and source.n_rows >= FEWEST_ROWS and left.has_doubled:
        sampled = SampledRows.of(plan.seen, plan.standard)
        sample = Sample(sampled, plan.seen, plan.standard, plan.backend.n_outputs, standardize=options.standardize)
        evidence = Evidence(sample, options.l1_ratio, left.total_weight)
        told = evidence.updated(solution.alpha, *plan.standard.scale_parameters(solution.coef, solution.intercept))
        left = left.with_alpha(np.sqrt(solution.alpha * told))  # half way: the model is still on its way
    return replace(solution, stream=left)


def _without_intercept(parameters, options):
    if parameters is None or options.fit_intercept:
        return parameters
    return parameters[0], np.zeros_like(parameters[1])


def order_generator(options, epoch):
    """The generator that shuffles the rows from an epoch on, or None.

    It draws from `random_state`, so it is made when nothing is left to be refused: a call that fails must draw nothing.
    """
    if not options.shuffle:
        return None
    return np.random.default_rng([check_random_state(options.random_state).randint(2**31 - 1), epoch])


def penalties(options, unit, scale, dtype):
    """(l1, l2), each (n_features,) or None: strengths of the penalty on the coefficients W' of u.

    In u the penalty alpha/2 (W r)^2 reads alpha/2 (r scale)^2 W'^2, and alpha |W r| reads alpha r scale |W'|. Where that
    overflows dtype, it holds W' at 0 all the same; where alpha overflows and the rest underflows, there is none.
    """
    strength, l1_ratio, largest = options.alpha / (1 - options.momentum), options.l1_ratio, np.finfo(dtype).max

    def held(penalty):
        penalty[np.isnan(penalty)] = 0.0
        return np.minimum(penalty, largest)

    with np.errstate(over="ignore", invalid="ignore"):
        return (
            held(strength * l1_ratio * (unit * scale)) if options.alpha > 0 and l1_ratio > 0 else None,
            held(strength * (1 - l1_ratio) * (unit * scale) ** 2) if options.alpha > 0 and l1_ratio < 1 else None,
        )


def run_epochs(source, training, rng, step_sizes, batch_size, average=None, *, begun=(0, 0.0), after_block=None):
    """Passes over the source; returns each model's mean losses on the way, (n_models, n_epochs).

    An `Average` is taken on the way. begun: rows that an epoch has visited already and the sum of their losses; after each
    block, after_block is given the same.
    """
    n_done, total = begun
    with closing(source.epochs(rng, step_sizes.shape[1])) as blocks:
        for block, order in blocks:
            if order is None:  # rows are elsewhere, and so is their order
                total = total + training.run(block, None, step_sizes)
                continue
            n_rows = order.shape[1]
            # There are no rows where all of a block have weight zero.
            piece = max(1, n_rows) if average is None else average.n_batches * batch_size
            for first in range(0, n_rows, piece):
                rows = np.ascontiguousarray(order[:, first : first + piece])
                sizes = _sizes_of(rows.shape[1], step_sizes, n_done, batch_size, of_share=not source.draws)
                total = total + training.run(block, rows, sizes)
                n_done += rows.shape[1]
                if average is not None:
                    average.add(training.parameters(), rows.shape[1])
            if after_block is not None:
                after_block(n_done, total)
    return total / source.n_rows


def _sizes_of(n_rows, step_sizes, n_done, batch_size, *, of_share):
    """The step sizes of some rows' minibatches after n_done rows of an epoch.

    of_share: a short last minibatch, of which each block has one, makes the share of a step that its rows are of a whole one.
    """
    n_batches, first = ceil_div(n_rows, batch_size), n_done // batch_size
    sizes = np.ascontiguousarray(step_sizes[:, :, first : first + n_batches])
    if of_share and n_rows % batch_size:
        sizes = sizes.copy()
        sizes[:, :, -1] *= n_rows % batch_size / batch_size
    return sizes


def epochs_together(source, backend):
    """Number of epochs, at most, that run in one call of the backend, where what Python does for each would take longer.

    On CSR one: features that lag behind catch up at the end of a call. Of rows that each epoch reads anew, too.
    """
    if source.is_sparse or source.is_read_anew:
        return 1
    values = source.n_rows * (1 + source.row_values) * backend.n_outputs
    return int(min(max(1, TOGETHER_VALUES // values), EPOCHS_TOGETHER))


def with_model_axis(pair):
    """(coef, intercept) of one model as those of models side by side."""
    return None if pair is None else tuple(np.asarray(a)[np.newaxis] for a in pair)


def train(courses, rng, start=None, velocity=None, average=None, checkpoint=None):
    """Let models take their courses side by side, all from (coef, intercept) `start` and with this velocity, both for x.

    Returns the `Training` of the last ones. An `Average`, where there is one, is the model. A `Checkpoint` is of one course.
    """
    plan, scaling = courses[0].plan, courses[0].plan.scaling
    source = plan.source.restarted()
    start, velocity = with_model_axis(start), with_model_axis(velocity)

    def started(parameters, velocity):
        l1, l2 = (_side_by_side(strengths) for strengths in zip(*(course.penalties for course in running), strict=True))
        training = plan.backend.start(
            parameters,
            velocity,
            mean=None if scaling.is_identity else scaling.mean,
            scale=None if scaling.is_identity else scaling.scale,
            l1=l1,
            l2=l2,
            momentum=np.array([course.plan.options.momentum for course in running], dtype=np.float64),
            fit_intercept=plan.options.fit_intercept,
            batch_size=plan.options.batch_size,
        )
        for model, course in enumerate(running):
            course.training, course.model = training, model
        return training

    running, begun = list(courses), (0, 0.0)
    if checkpoint is not None and checkpoint.saved is not None:
        parameters, velocity, begun = checkpoint.restore(courses[0], source)
        training = started(parameters, velocity)
    else:
        training = started(
            None if start is None else scaling.scale_parameters(*start),
            None if velocity is None else scaling.scale_gradient(*velocity),
        )

    def after_block(n_done, total):
        for course in running:
            course.hooks.block_done()
        if checkpoint is not None:
            checkpoint.save(courses[0], source, training, n_done, total)

    for course in courses:
        course.go_on()
    while True:
        left = [course for course in running if course.result is None]
        if not left:
            return training
        if len(left) < len(running):
            models, running = [course.model for course in left], left
            pairs = training.parameters(), training.velocity()
            training = started(*(tuple(a[models] for a in pair) for pair in pairs))
        n_epochs = min(len(course.wanted) for course in running)
        step_sizes = np.stack([course.wanted[:n_epochs] for course in running])
        losses = run_epochs(
            source, training, rng, step_sizes, plan.options.batch_size, average,
            begun=begun, after_block=after_block if source.n_groups > 1 else None,
        )  # fmt: skip
        begun = 0, 0.0
        for course, of_course in zip(running, losses.tolist(), strict=True):
            course.take(of_course)


def _side_by_side(strengths):
    """Penalties (n_features,) or None of each model as (n_models, n_features), or None where all are."""
    given = [strength for strength in strengths if strength is not None]
    if not given:
        return None
    return np.stack([np.zeros_like(given[0]) if strength is None else strength for strength in strengths])


class Course:
    """One model from its first epoch to its last. `train` runs the epochs; what follows from them is decided here.

    `validate` and `hooks` are given parameters for x. A `Monitor` sees whether the optimum is near; advises: whether it also
    looks at the end, which takes passes over the rows, for what to tell the user.
    """

    def __init__(self, plan, validate=None, hooks=None, average=None, *, monitors=True, advises=True):
        self.plan, self.validate, self.hooks, self.average = plan, validate, hooks or EpochHooks(), average
        self.options, self.monitor, self.advises = plan.options, Monitor(plan) if monitors else None, advises
        self.history, self.best_loss, self.best_parameters = History(), np.inf, None
        self.schedule = Schedule(plan.options, plan.source.n_batches(plan.options.batch_size))
        self.patience, self.held = Patience(plan.options), HeldEpochs(plan.options.tol)
        if plan.evidence is not None:
            share = STOPPING if plan.options.early_stopping else HOLDING
            self.schedule.settled_from = plan.evidence.be_due(
                plan.options.max_iter, self.schedule.n_batches, share=share if self.schedule.holds(0) else FALLING
            )
        self.training = self.model = None  # where the model is among those side by side
        self.wanted = None  # step sizes (n_epochs, n_batches) of the epochs to come,
        self._losses = []  # and losses of the others
        self.result = None  # a `Solution`, or a ValueError, once it has ended
        self._course = self._take_course()

    @property
    def penalties(self):
        """(l1, l2) of the model as it is."""
        plan = self.plan
        return penalties(self.options, plan.unit, plan.scaling.scale, plan.backend.dtype)

    def state(self):
        """What the course has come to at the end of an epoch, in numbers, lists and arrays."""
        return {
            "alpha": self.options.alpha,
            "history": asdict(self.history),
            "best_loss": self.best_loss,
            "best_parameters": self.best_parameters,
            "schedule": [self.schedule.n_epochs, self.schedule.fall_from],
            "patience": [self.patience.best, self.patience.epochs_without_change],
            "held": self.held.state(),
            "updates": None if self.plan.evidence is None else self.plan.evidence.due,
            "monitor": self.monitor.state(),
        }

    def restore(self, state):
        """Be where another one was that left this state."""
        self.options = replace(self.options, alpha=state["alpha"])
        self.history = History(**state["history"])
        self.best_loss, self.best_parameters = state["best_loss"], state["best_parameters"]
        self.schedule.n_epochs, self.schedule.fall_from = state["schedule"]
        self.patience.best, self.patience.epochs_without_change = state["patience"]
        self.held.restore(state["held"])
        if self.plan.evidence is not None:
            self.plan.evidence.due = state["updates"]
        self.monitor.restore(state["monitor"])

    def take(self, losses):
        """Take the losses of some of the epochs that it wants."""
        self._losses += losses
        self.wanted = self.wanted[len(losses) :]
        if len(self.wanted) == 0:
            losses, self._losses = self._losses, []
            self.go_on(losses)

    def go_on(self, losses=None):
        """Decide what follows from the losses of all epochs that it wanted."""
        try:
            self.wanted = self._course.send(losses)
        except StopIteration as end:
            self.result = end.value
        except ValueError as error:
            self.result = error

    def parameters(self):
        """Where SGD stands, in the scaled coordinates and with an axis of models."""
        return self.training.parameters(slice(self.model, self.model + 1))

    def _take_course(self):
        """Yields the step sizes of the epochs that it wants, (n_epochs, n_batches), and is sent their losses."""
        plan, hooks, monitor, options = self.plan, self.hooks, self.monitor, self.options
        source, backend, scaling, evidence = plan.source, plan.backend, plan.scaling, plan.evidence
        history, schedule, patience = self.history, self.schedule, self.patience
        dtype, n_batches = backend.dtype, schedule.n_batches
        stop, asked, view = False, False, View.UNKNOWN

        def unscaled():
            parameters = monitor.optimum if view is View.AT_OPTIMUM else None
            if parameters is None:
                parameters = self.parameters() if self.average is None else self.average.value
            [coef], [intercept] = scaling.unscale_parameters(*parameters)
            return coef, intercept

        def current():
            coef, intercept = unscaled()
            return coef.astype(dtype), intercept.astype(dtype)

        def standard():
            """The model in the coordinates of `plan.standard`."""
            if scaling is not plan.standard:
                return plan.standard.scale_parameters(*current())
            [coef], [intercept] = self.parameters()
            return coef, intercept

        def for_x():
            return plan.lift(*current())

        run_together = not options.early_stopping and self.average is None and options.lr_schedule != "constant"

        def together(epoch):
            """The epoch before which somebody has to look at the model again."""
            at_the_latest = [
                epoch + (epochs_together(source, backend) if run_together else 1),
                schedule.next_change(epoch),
            ]
            if evidence is not None:
                at_the_latest.append(evidence.next_due)
            if monitor is not None and epoch >= schedule.settled_from:
                at_the_latest.append(epoch + monitor.epochs_to_look)
                if n_batches > 1 and schedule.holds(epoch):  # it takes the mean of the parameters after each call
                    at_the_latest.append(epoch + ceil_div(UPDATES_BETWEEN_TERMS, n_batches))
            return int(min(at_the_latest))

        end, losses = len(history.loss_curve), []
        for epoch in range(len(history.loss_curve), options.max_iter):
            if epoch == end:
                begun, end = epoch, together(epoch)
            if not losses:
                hooks.begin(for_x, source.n_groups)
                watched = hooks.watches or self.validate is not None
                losses = yield schedule.sizes(epoch, 1 if watched else end - epoch)
            loss = losses.pop(0)
            if not loss < DIVERGED:  # NaN included
                raise diverged(epoch, options.lr, scaling)
            if losses:  # of epochs that ran together, after the last of which is the next look
                history.add(loss, None)
                if options.verbose:
                    print(history.last_line())
                continue
            at_end, holds = epoch + 1 == end, schedule.holds(epoch)
            if at_end and evidence is not None and evidence.next_due == end:
                options = self.options = replace(options, alpha=evidence.updated(options.alpha, *standard()))
                self.training.penalise(self.model, *self.penalties)
            if at_end and monitor is not None and begun >= schedule.settled_from:
                view = monitor.look(options.alpha, end - begun, self.parameters, noisy=n_batches > 1 and holds)
            history.add(loss, None if self.validate is None else self.validate(*for_x()))
            if options.verbose:
                print(history.last_line())
            watched = history.validation_loss_curve[-1] if options.early_stopping else loss
            if options.early_stopping and schedule.has_fallen(epoch) and watched < self.best_loss:
                self.best_loss, self.best_parameters, history.best_epoch = watched, current(), epoch + 1
            passed = False
            if options.early_stopping and holds and epoch >= schedule.settled_from:
                passed = self.held.add(epoch + 1, (loss, watched), current())
            if options.lr_schedule == "constant":
                stop = patience.is_out(watched)
            elif (
                at_end
                and holds
                and (
                    passed
                    or view is View.NEAR
                    # A loss that is flat where the optimum is far away has overshot it, and the penalty still falls.
                    or schedule.is_over(history, measured=n_batches > 1 and view is View.NOT_NEAR)
                )
            ):
                schedule.fall_after(epoch)
            asked = hooks.end(for_x)
            if stop or asked or view is View.AT_OPTIMUM or epoch + 1 == schedule.n_epochs:
                break
        if self.held.best_loss < self.best_loss < np.inf:
            history.best_epoch, *self.best_parameters = self.held.best
        coef, intercept = unscaled()
        if not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
            raise diverged(epoch, options.lr, scaling)
        coef, intercept = self.best_parameters or (coef.astype(dtype), intercept.astype(dtype))
        coef = np.ascontiguousarray(coef)
        if monitor is not None and options.l1_ratio > 0 and options.alpha > 0 and not scaling.is_identity:
            coef, intercept = settled(coef, intercept, options.alpha, plan)
        advice = None
        if self.advises and not (monitor is None or asked or options.early_stopping):
            at_optimum = view is View.AT_OPTIMUM
            advice = monitor.advice(options.alpha, coef, intercept, history.loss_curve, at_optimum=at_optimum)
        return Solution(
            *plan.lift(coef, intercept),
            plan.unit_of_x,
            options.lr,
            options.alpha,
            history,
            plan.statistics,
            evidence is not None,
            advice,
        )


def settled(coef, intercept, alpha, plan):
    """(coef, intercept) after proximal steps on all rows, with exact zeros where the optimum has them.

    The noise of minibatches takes coefficients off the zero to which their penalty holds them, and the last steps are too
    small to bring them back. These steps have neither noise nor momentum. The penalty sets a coefficient to 0 as soon as it
    is closer to it than a step of its strength less the gradient's. The step is 1 / L, where `auto_lr`'s is at most
    2 (1 + momentum) / L: it never raises the objective (Beck and Teboulle 2009).
    """
    options, scaling, source, backend = plan.options, plan.scaling, plan.seen, plan.backend
    l1, l2 = penalties(replace(options, alpha=alpha, momentum=0.0), plan.unit, scaling.scale, backend.dtype)
    n_steps, length = ceil_div(options.max_iter, EPOCHS_PER_SETTLING), options.lr / (2 * (1 + options.momentum))
    if not source.draws:
        W = np.column_stack(scaling.scale_parameters(coef.astype(np.float64), intercept.astype(np.float64)))
        for _ in range(n_steps):
            W -= length * loss_and_gradient(W, source, backend, scaling, options)[1]
            of_coef = W[:, :-1] / (1 + length * (0 if l2 is None else l2))
            W[:, :-1] = of_coef - np.clip(of_coef, -length * l1, length * l1)
        coef, intercept = scaling.unscale_parameters(W[:, :-1], W[:, -1])
        return coef.astype(backend.dtype), intercept.astype(backend.dtype)
    training = backend.start(
        scaling.scale_parameters(*with_model_axis((coef, intercept))),
        None,
        mean=scaling.mean,
        scale=scaling.scale,
        l1=_side_by_side([l1]),
        l2=_side_by_side([l2]),
        momentum=np.zeros(1),
        fit_intercept=options.fit_intercept,
        batch_size=source.n_rows,
    )
    for _ in range(n_steps):
        for block, rows in source.blocks():
            training.run(block, rows[np.newaxis], np.array([[[length]]]))
    [coef], [intercept] = scaling.unscale_parameters(*training.parameters())
    return coef.astype(backend.dtype), intercept.astype(backend.dtype)


def diverged(epoch, lr, scaling):
    advice = "Choose a smaller lr, scale the features, or use lr='auto'."
    if not scaling.is_identity:  # it is in use
        advice = "Scale the features, or choose a numeric lr."
    return ValueError(
        f"Training diverged: the loss or a coefficient became infinite, NaN or larger than 1/eps in epoch {epoch + 1} with "
        f"lr={lr:.6g}. {advice}"
    )
