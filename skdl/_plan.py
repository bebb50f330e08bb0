"""Before the first epoch: numbers for what is "auto", the coordinates of SGD, and the rows as it sees them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from skdl import _softmax
from skdl._auto import auto_lr, even_batch_size
from skdl._evidence import Evidence, Sample, initial_alpha
from skdl._reduction import RowSpace, spans_little
from skdl._sampling import (
    SampledRows,
    evenly_drawn,
    far_rows,
    lengths,
    long_rows,
    may_hold_long_rows,
    rows_with_odd_values,
    warn_of_long_rows,
    with_bounded_leverage,
)
from skdl._scaling import Scaling, Statistics
from skdl._stream import full_batch


@dataclass
class Plan:
    """What a fit goes by. Where no statistics are asked for, `standard` is None and `statistics`, too."""

    options: object  # with numbers for lr and alpha, and the size of minibatches
    source: object  # the rows as an epoch draws them
    scaling: Scaling  # the coordinates of SGD
    unit: np.ndarray  # r of each of its features, in which its penalty is measured
    statistics: Statistics | None  # of these rows
    standard: Scaling | None  # the coordinates that follow from those of all rows so far, whatever those of SGD are
    seen: object  # the rows in those coordinates, each once: CSR is centred where it can be
    backend: object  # for these rows
    unit_of_x: np.ndarray  # r of each feature of x, and
    lift: Callable  # (coef, intercept) for x, from those of the rows that SGD sees
    evidence: Evidence | None = None  # by which alpha is updated


class Survey:
    """What is found out of the rows before the first epoch, each part once however many plans are made for them.

    A `Stream` that the calls before left to these rows is `stream`, or None.
    """

    def __init__(self, source, backend, stream=None):
        self.source, self.backend, self.stream, self._known = source, backend, stream, {}

    def _once(self, key, find, *args, **kwargs):
        """What find(*args, **kwargs) returns; for a key that has come before, without a call."""
        if key not in self._known:
            self._known[key] = find(*args, **kwargs)
        return self._known[key]

    def check_finite(self):
        self._once("finite", self.source.check_finite)

    def coordinates(self, options):
        """See `coordinates`."""
        key = "coordinates", options.fit_intercept
        return self._once(key, coordinates, self.source, options, self.backend, self.stream)

    def identity(self):
        """The coordinates of x as it is."""
        return self._once("identity", Scaling.identity, self.source.n_features)

    def row_space(self, options, q):
        """The `RowSpace`, in which penalties are those of coordinates with q = 1 each; None where a fit gains nothing by it."""
        seen, _, standard, length = self.coordinates(options)
        is_own = (q == 1).all()
        # The unit that columns share suits SGD less, but not where minibatches are all rows.
        may_share = options.standardize and seen.n_rows <= options.batch_size
        if not (is_own or may_share) or not spans_little(seen, options, self.backend.n_outputs):
            return None
        key = "row space", options.fit_intercept, options.standardize
        return self._once(key, RowSpace.of, seen, standard if is_own else standard.in_one_unit(), length)

    def backend_for(self, source):
        """The backend for rows that were made of those that are surveyed."""
        return self._once(("backend", id(source)), self.backend.for_source, source)

    def bounded(self, seen, standard, length):
        """See `with_bounded_leverage`."""
        return self._once(
            ("bounded", id(seen), id(standard)), with_bounded_leverage, seen, length, standard, self.stream
        )

    def drawn(self, seen, standard, length, options):
        """See `evenly_drawn`."""
        key, shuffle = ("drawn", id(seen), id(standard), options.shuffle), options.shuffle and seen.draws
        return self._once(key, evenly_drawn, seen, standard, length, self.sampled(seen, standard), shuffle=shuffle)

    def sampled(self, seen, standard):
        """The `SampledRows` by which all are judged."""
        return self._once(("sampled", id(seen), id(standard)), SampledRows.of, seen, standard)

    def sample(self, seen, standard, options):
        """The `Sample` that updates of alpha look at."""
        key = "sample", id(seen), id(standard), options.standardize
        sampled = self.sampled(seen, standard)
        return self._once(key, Sample, sampled, seen, standard, self.backend.n_outputs, standardize=options.standardize)

    def auto_lr(self, seen, drawn, standard, *, batch_size, momentum, **how):
        """See `auto_lr`."""
        key = "lr", id(drawn), id(standard), batch_size, momentum
        sampled = self.sampled(seen, standard) if drawn is seen else None
        return self._once(key, auto_lr, drawn, standard, sampled, batch_size=batch_size, momentum=momentum, **how)


def make_plan(survey, options, *, turns=False):
    """The `Plan` of a fit of surveyed rows. turns: whether it may turn to the space of the rows."""
    source, backend, stream = survey.source, survey.backend, survey.stream
    seen, standard, statistics, length, lift = source, None, None, None, unchanged
    if "auto" in (options.lr, options.alpha) or (options.standardize and options.alpha > 0):
        seen, statistics, standard, length = survey.coordinates(options)
    else:
        survey.check_finite()
    unit_of_x, q = (standard or survey.identity()).units(standardize=options.standardize)
    unit, scaling = unit_of_x, survey.identity()
    turned = None
    if turns and options.lr == "auto":
        turned = survey.row_space(options, q)
    if turned is not None:
        source = seen = turned.source
        standard, lift, backend = turned, turned.lift, survey.backend_for(seen)
        unit = q = np.ones(seen.n_features)
    drawn, alpha, lr, batch_size = source, options.alpha, options.lr, min(options.batch_size, source.n_rows)
    if lr == "auto":
        if stream is not None:
            batch_size = stream.batch_size(source, batch_size)
        batch_size = even_batch_size(source.n_rows, batch_size)
        scaling, noise = standard, None
        if length is not None:
            seen = survey.bounded(seen, standard, length)
        drawn = seen
        if source.n_batches(batch_size) > 1:
            drawn, noise = survey.drawn(seen, standard, length, options)
        lr = survey.auto_lr(
            seen,
            drawn,
            standard,
            batch_size=batch_size,
            n_outputs=backend.n_outputs,
            momentum=options.momentum,
            mean_squared_norm=noise,
            full_batch=None if stream is None else full_batch(options.batch_size),
        )
    if stream is not None:
        lr *= stream.weight_share(source, options)
    if alpha == "auto":
        total_weight = source.total_weight + (0 if stream is None else stream.total_weight)
        alpha = initial_alpha(standard, q, total_weight, _softmax.n_classes(backend.n_outputs))
        if stream is not None and stream.alpha is not None:
            # The precision n alpha of the coefficients stays.
            alpha = stream.alpha_by(standard, options) * (stream.alpha_weight / total_weight)
    has_evidence = options.alpha == "auto" and alpha > 0 and stream is None
    options = replace(options, lr=float(lr), alpha=float(alpha), batch_size=batch_size)
    plan = Plan(options, drawn, scaling, unit, statistics, standard, seen, backend, unit_of_x, lift)
    if has_evidence:
        sample = survey.sample(plan.seen, standard, options)
        plan.evidence = Evidence(sample, options.l1_ratio, source.total_weight)
    return plan


def unchanged(coef, intercept):
    """The parameters as they are."""
    return coef, intercept


def standard_scaling(statistics, here, source, options, backend):
    """The `Scaling` that follows from the `Statistics` of all rows so far; `here` are those of the source alone.

    A column of CSR has a mean, and is centred, only where it is stored in all rows of the source.
    """
    centre = options.fit_intercept and (not source.is_sparse or here.mean != 0)
    return Scaling.from_statistics(statistics, centre=centre, is_sparse=source.is_sparse, dtype=backend.dtype)


def coordinates(source, options, backend, stream):
    """The source, centred where it is CSR with columns stored in all rows; `Statistics` of its rows; the `Scaling` that follows
    from them and those of the stream so far, if there is one; and |u| of each row, or None where no row can be long.

    Long rows, and those with an odd value, have no say in the statistics, but for those of columns in which only they differ:
    rare categories, for example, which then do not make a row long.
    """

    def standard(here):
        """The `Statistics` of all rows so far, given those of the source, and the `Scaling`."""
        known = here if stream is None else stream.with_statistics(here).statistics
        return known, standard_scaling(known, of_all, source, options, backend)

    def centred(scaling):
        return source.centred(scaling.mean) if source.is_sparse and scaling.mean.any() else source

    here = of_all = source.statistics(backend)
    if stream is not None and stream.statistics is not None and stream.judges(source.n_rows):
        before = standard_scaling(stream.statistics, of_all, source, options, backend)
        varied = before.mean_square > 0
        is_far = far_rows(lengths(centred(before), before.within(varied)), before, stream)
        if varied.any() and is_far.any():
            others = stream.statistics if is_far.all() else source.statistics(backend, source.rows[~is_far])
            share = source.weight[~is_far].sum() / source.n_rows
            here = here.with_columns(others, varied)._replace(total_weight=share * source.total_weight)
            scaling = standard(here)[1]
            return centred(scaling), here, scaling, lengths(centred(scaling), scaling.within(varied))
    length, (known, scaling) = None, standard(here)
    if not source.draws:
        warn_of_long_rows(source, scaling, known)
    else:
        is_long = rows_with_odd_values(source, here)
        if may_hold_long_rows(source, scaling, known):
            length = lengths(centred(scaling), scaling)
            is_long = long_rows(length) if is_long is None else is_long | long_rows(length)
        if is_long is not None and is_long.any():
            others = source.statistics(backend, source.rows[~is_long])
            differ = standard(others)[1].mean_square > 0
            here = here.with_columns(others, differ)
            scaling = standard(here)[1]
            length = lengths(centred(scaling), scaling.within(differ))
    return centred(scaling), here, scaling, length
