"""Before the first epoch: numbers for what is "auto", the coordinates of SGD, and the rows as it sees them."""

from dataclasses import dataclass, replace

import numpy as np

from skdl import _softmax
from skdl._auto import auto_lr, even_batch_size
from skdl._evidence import Evidence, initial_alpha
from skdl._sampling import evenly_drawn, lengths, long_rows, may_hold_long_rows, with_bounded_leverage
from skdl._scaling import Scaling, Statistics


@dataclass
class Plan:
    """What a fit goes by. Where no statistics are asked for, `standard` is None and `statistics`, too."""

    options: object  # with numbers for lr and alpha, and the size of minibatches
    source: object  # the rows as an epoch draws them
    scaling: Scaling  # the coordinates of SGD
    unit: np.ndarray  # r of each feature, in which its penalty is measured
    statistics: Statistics | None  # of all rows so far
    standard: Scaling | None  # the coordinates that follow from the statistics, whatever those of SGD are
    seen: object  # the rows in those coordinates, each once: CSR is centred where it can be
    evidence: Evidence | None  # by which alpha is updated


def make_plan(source, options, backend, stream):
    """The `Plan` of a fit; arguments are those of `skdl._sgd.solve`."""
    seen, standard, statistics, length, evidence = source, None, None, None, None
    if stream and "mean" in stream:
        statistics = Statistics(*(stream[name] for name in Statistics._fields))
    if "auto" in (options.lr, options.alpha) or (options.standardize and options.alpha > 0):
        seen, statistics, standard, length = coordinates(source, options, backend, statistics)
    else:
        source.check_finite()
    ones = np.ones(source.n_features)
    scale = ones if standard is None else standard.scale
    unit, q = (1 / scale, ones) if options.standardize else (ones, scale)
    scaling, drawn = Scaling.identity(source.n_features), source
    alpha, lr, batch_size = options.alpha, options.lr, min(options.batch_size, source.n_rows)
    if lr == "auto":
        batch_size = even_batch_size(source.n_rows, batch_size)
        scaling, noise = standard, None
        if length is not None:
            seen = with_bounded_leverage(seen, length)
        drawn = seen
        if source.n_batches(batch_size) > 1:
            drawn, noise = evenly_drawn(seen, standard, length, shuffle=options.shuffle)
        lr = auto_lr(
            drawn,
            standard,
            n_outputs=backend.n_outputs,
            batch_size=batch_size,
            momentum=options.momentum,
            mean_squared_norm=noise,
        )
    if alpha == "auto":
        alpha = initial_alpha(standard, q, statistics.total_weight, _softmax.n_classes(backend.n_outputs))
        if alpha > 0 and options.max_iter > 1:
            evidence = Evidence(seen, standard, q, backend, options.l1_ratio)
    options = replace(options, lr=float(lr), alpha=float(alpha), batch_size=batch_size)
    return Plan(options, drawn, scaling, unit, statistics, standard, seen, evidence)


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
