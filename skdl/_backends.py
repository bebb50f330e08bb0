"""What a backend promises, the only list of backends, and what they share."""

import os
from functools import cache
from importlib import import_module
from typing import NamedTuple, Protocol

import numpy as np

from skdl import _kernels
from skdl._scaling import Statistics, both_extremes

# The module of each backend; it is imported when it is first used and has a class `Backend`.
BACKENDS = {"openmp": "skdl.openmp._backend", "opencl": "skdl.opencl._backend"}


@cache
def get_backend(name):
    """The class of a backend."""
    return import_module(BACKENDS[name]).Backend


class Backend(Protocol):
    """Trains models side by side on blocks of rows, and predicts. Shapes and names are those of `skdl._sgd`.

    Python decides, the device computes: a backend runs whole epochs of a block and gives NumPy arrays back. It checks
    nothing: the estimator has checked data and parameters. Whatever belongs to a model has a leading axis of models.
    """

    def __init__(self, source, n_outputs, *, n_jobs=None, device=None):
        """For data like those of `source` (skdl._data), of which only the form is read: `n_features`, `dtype`, `is_sparse`
        and `row_values`. `self.n_outputs` is kept; `self.dtype` is the type in which the backend computes; `self.n_lanes`
        is the number of models that train in little more than the time of one; `self.processor` names what the bits of a
        model depend on.
        """

    def for_source(self, source):
        """A backend like this one for data like those of another source."""

    def statistics(self, block, rows):
        """`Statistics` of the columns over some rows of a block, weighted; of CSR as `csr_statistics` has them.

        The total weight is that of the block's weights. A NaN or an infinity in X makes a mean or variance of its column not
        finite.
        """

    def start(self, parameters, velocity, *, mean, scale, l1, l2, momentum, fit_intercept, batch_size):
        """The `Training` that begins with these parameters and velocities in the scaled coordinates, or with zeros where None.

        mean, scale (n_features,); l1, l2 (n_models, n_features): penalties on the scaled coefficients; or None.
        momentum (n_models,).
        """

    def predictor(self, X, rows=None, y=None):
        """Place X once, for as many predictions as are wanted from its `rows` (None: all), of which there is one at least.

        Returns a function: parameters, one of `skdl._softmax.OUTPUTS` ("logits" if none is named) -> that, with an axis of
        models before it, and whether all logits were finite; of one model. Logits are of the wider of the types of X and
        coef. "losses" need y, the class numbers (n_rows,) int32 of these rows.
        """


class Training(Protocol):
    """Models side by side, which see the same minibatches; each takes the steps that it would take alone, to the bit."""

    def penalise(self, model, l1, l2):
        """Let one model go on with these penalties (n_features,), None where there was none."""

    def run(self, block, order, step_sizes):
        """Epochs over a block in minibatches: order (n_epochs, n_rows) int64, step_sizes (n_models, n_epochs, n_batches).

        Returns (n_models, n_epochs) float64: the sum over the rows of weight times loss, taken on the way.
        """

    def parameters(self, models=slice(None)):
        """Copies of coef and intercept of some models, in the scaled coordinates."""

    def velocity(self, models=slice(None)):
        """Copies of their velocities, a tuple like `parameters`."""


def instruction_set():
    """Number and name of the instruction set in use: the widest, or what SKDL_INSTRUCTION_SET names."""
    names = _kernels.instruction_sets()
    name = os.environ.get("SKDL_INSTRUCTION_SET", names[-1])
    if name not in names:
        raise ValueError(
            f"SKDL_INSTRUCTION_SET={name!r} is not supported by this processor; available: {', '.join(names)}."
        )
    return names.index(name), name


def ceil_div(a, b):
    """a / b rounded up to a whole number."""
    return -(-a // b)


def padded(n):
    """n rounded up to a multiple of PAD."""
    return ceil_div(n, _kernels.PAD) * _kernels.PAD


def compute_dtype(storage_dtype):
    """The type in which a fit on such values computes: float64 for float64, float32 for everything narrower."""
    return np.dtype(np.float64 if storage_dtype == np.float64 else np.float32)


def pair_or_zeros(pair):
    """(coef, intercept), or zeros of any shape."""
    return (0.0, 0.0) if pair is None else pair


def moments(sum_weight, first, sums, extremes):
    """Statistics from weighted sums (n_parts, 2, n_features) of x - first and of its square, and minimum and maximum.

    Sums about some row, `first`, keep a large offset out of the squares.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite tells the caller so
        mean, square = sums.sum(axis=0) / sum_weight
        return Statistics(float(sum_weight), first + mean, square - mean**2, *extremes)


# The unit of a column of CSR is the mean of |x| where it is not 0, which one row hardly moves, times the share of such rows to
# this power: the rarer a feature, the larger its u, as with the standard deviation of a dense one. Chosen on text.
FREQUENCY_POWER = 0.15
# Values of a piece of rows that are made dense together.
PIECE_VALUES = 2**18


def csr_statistics(X, weight, rows):
    """`Backend.statistics` of CSR."""
    return ColumnTotals.of(X, weight, rows).statistics()


class ColumnTotals(NamedTuple):
    """What the statistics of the columns of CSR follow from. Those of some rows and those of others add up."""

    sum_weight: float
    n_rows: int
    total: np.ndarray  # (n_features, 4): weighted x^2, |x| and weight where x is not 0; number of stored values
    full: Statistics | None  # of the columns `full_columns`, which are stored in all rows
    full_columns: np.ndarray
    row_squares: tuple  # the smallest and the largest sum of squares of a row that is not 0

    @classmethod
    def of(cls, X, weight, rows):
        sum_weight = len(rows) if weight is None else weight[rows].sum(dtype=np.float64)
        total = np.zeros((X.shape[1], 4))
        wide = None if weight is None else weight.astype(np.float64)
        row_squares = _kernels.sparse_column_statistics(X.data, X.indices, X.indptr, rows, wide, total)
        full = np.flatnonzero(total[:, 3] == len(rows))
        of_full = _statistics_of_full(X, wide, rows, full) if len(full) > 0 else None
        return cls(float(sum_weight), len(rows), total, of_full, full, row_squares)

    def merged(self, other):
        full, here, there = np.intersect1d(self.full_columns, other.full_columns, return_indices=True)
        of_full = None
        if len(full) > 0:
            of_full = self.full.of_columns(here).merged(other.full.of_columns(there))
        sum_weight, n_rows = self.sum_weight + other.sum_weight, self.n_rows + other.n_rows
        row_squares = both_extremes(self.row_squares, other.row_squares)
        return ColumnTotals(sum_weight, n_rows, self.total + other.total, of_full, full, row_squares)

    def statistics(self):
        """About 0, with the unit of a column and its negative for extremes.

        Those of columns that are stored in all rows are as those of a dense X.
        """
        square, magnitude, weight_of_others, _ = self.total.T
        with np.errstate(over="ignore", invalid="ignore"):
            unit = magnitude / np.where(weight_of_others > 0, weight_of_others, 1)
            unit *= (weight_of_others / self.sum_weight) ** FREQUENCY_POWER
            means = np.zeros(len(unit)), square / self.sum_weight
            statistics = Statistics(self.sum_weight, *means, -unit, unit, tuple(self.row_squares))
        if self.full is not None and self.n_rows > 1:
            for whole, part in zip(statistics.of_each, self.full.of_each, strict=True):
                whole[self.full_columns] = part
        return statistics


def _statistics_of_full(X, weight, rows, columns):
    """Statistics of columns of CSR that are stored in all rows."""
    weight = np.ones(len(rows)) if weight is None else weight[rows]
    first = X[rows[:1]][:, columns].toarray()[0].astype(np.float64)
    sums, low, high = np.zeros((1, 2, len(columns))), first, first
    n_piece = max(1, PIECE_VALUES // len(columns))
    for start in range(0, len(rows), n_piece):
        values = X[rows[start : start + n_piece]][:, columns].toarray().astype(np.float64)
        low, high = np.minimum(low, values.min(axis=0)), np.maximum(high, values.max(axis=0))
        values -= first
        w = weight[start : start + n_piece, np.newaxis]
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite tells the caller so
            sums[0] += (w * values).sum(axis=0), (w * values**2).sum(axis=0)
    return moments(weight.sum(), first, sums, (low, high))


def lag_tables(step_sizes, momentum):
    """Tables (n_batches + 2,) of what a feature of CSR, which takes its steps when it next occurs, has to make up for.

    With s the first step not taken and t the next to come: its velocity moves it by v (drift[s] - decay[t - s] drift[t]) and
    decays by decay[t - s]; its penalty is that of a step of cumulative_lr[t] - cumulative_lr[s]. Step 0 is none: it stands
    for the decay of the velocity with which an epoch begins.
    """
    step = np.concatenate([[0.0], step_sizes])
    drift = _kernels.lag_drift(step, momentum)
    decay = momentum ** np.arange(len(step) + 1.0)
    return {"drift": drift, "decay": decay, "cumulative_lr": np.concatenate([[0.0], np.cumsum(step)])}


class ForkGuard:
    """Whether this process was forked from one that had `used` what does not survive a fork."""

    def __init__(self, *, used):
        self.used, self.forked = used, False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self):
        self.forked = self.used
