"""Which rows the epochs of lr="auto" draw, and how much of its weight a row keeps, so that no few rows set the step.

The gradient of a row is about as long as weight |u|, with u the row in the coordinates of SGD and the intercept's 1. Where
that is uneven, rows are drawn in proportion to it and what a draw brings is divided by how often the row is drawn: the mean
stays, and the noise, which bounds the step, is the least that any drawing has (Needell, Srebro and Ward 2014; Zhao and
Zhang 2015). Rows beyond that, one corrupt row of a million times the length of the others for example, would still set the
curvature. They keep the weight with which their leverage, weight |u|^2, is bounded: the weights of Mallows for generalised
linear models (Carroll and Pederson 1993).
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from skdl._warnings import warn

# A row is long if it is LONG times as long as three quarters of the rows at least. Long rows together may have LEVERAGE of
# the leverage of the others, each alone LEVERAGE_OF_A_ROW.
LONG, LEVERAGE, LEVERAGE_OF_A_ROW = 5, 1.0, 0.01
# A value is odd if it is ODD times as far from all others of its column as these are from each other, and these are FEWEST at
# least. Sound images of bytes have columns of 0 and 1 with one value above 100, so that more than any byte is asked for.
ODD, FEWEST = 256, 20
# Rows are drawn by length where that takes the mean square of the gradient's noise down to 1 / UNEVEN.
UNEVEN = 1.5
# Share of the draws that is the same for all rows, so that none is seldom seen (Needell, Srebro and Ward: partial bias).
UNIFORM = 0.2
# Values of the rows by which all rows are judged, but no fewer and no more rows than these; values of a piece of rows whose
# lengths are computed together.
SAMPLE_VALUES, FEWEST_ROWS, MOST_ROWS, PIECE_VALUES = 2**20, 256, 8192, 2**18


class SampledRows(NamedTuple):
    """Some rows of a source, in random order, by which all are judged: their numbers, u and weights."""

    rows: np.ndarray
    U: object
    weight: np.ndarray

    @classmethod
    def of(cls, source, scaling):
        n_rows = max(FEWEST_ROWS, min(MOST_ROWS, SAMPLE_VALUES // (1 + int(source.row_values))))
        rows = np.random.default_rng(0).choice(source.rows, min(n_rows, len(source.rows)), replace=False)
        X, weight = source.sample(rows)
        return cls(rows, scaling.apply(X), weight)


def lengths(source, scaling):
    """|u| of the rows that a source visits, (n_rows,) float64."""
    rows, X = source.rows, source.block.X
    length = np.empty(len(rows))
    n_piece = max(1, PIECE_VALUES // (1 + int(source.row_values)))
    for start in range(0, len(rows), n_piece):
        length[start : start + n_piece] = np.sqrt(squared_lengths(scaling.apply(X[rows[start : start + n_piece]])))
    return length


def squared_lengths(U):
    """|u|^2 of each row, (n_rows,) float64."""
    with np.errstate(over="ignore"):
        if sparse.issparse(U):
            square = U.data.astype(np.float64) ** 2
            return sparse.csr_array((square, U.indices, U.indptr), shape=U.shape).sum(axis=1)
        square = np.einsum("nd,nd->n", U, U)
        if np.isfinite(square).all():
            return square.astype(np.float64)
        return np.einsum(
            "nd,nd->n", U, U, dtype=np.float64
        )  # which takes ten times as long, and has room for a corrupt row


def may_hold_long_rows(source, scaling, statistics):
    """Whether the extremes of the columns leave room for a long row whose leverage would be bounded: in most data they do not,
    and that is for nothing. The lengths of rows of CSR cost little.
    """
    if source.is_sparse:
        return True
    largest = _largest(scaling, statistics)
    # The share of the leverage of all rows that such a row has, if the others are of one length.
    leverage = max(LONG**2, LEVERAGE_OF_A_ROW * source.n_rows)
    share = leverage / (source.n_rows + leverage)
    with np.errstate(over="ignore"):
        return bool((largest**2).sum() > share * source.n_rows * scaling.mean_square.sum())


def _largest(scaling, statistics):
    """max |u| of each column, (n_features,), 0 of those that do not vary."""
    largest = np.maximum(statistics.high - scaling.mean, scaling.mean - statistics.low) * scaling.scale
    return np.where(scaling.mean_square > 0, largest, 0.0)


def warn_of_long_rows(source, scaling, statistics):
    """Warn where the extremes of the columns leave room for a long row in rows that are all visited alike."""
    if not source.is_sparse and may_hold_long_rows(source, scaling, statistics):
        largest = _largest(scaling, statistics)
        column = int(largest.argmax())
        low, high = statistics.low[column], statistics.high[column]
        times = largest[column] / np.sqrt(scaling.mean_square[column])
        warn(
            f"Some rows may be so long that they set the step size alone: the values of column {column} reach from {low:.3g} "
            f"to {high:.3g}, {times:.0f} times its standard deviation. Check or "
            "clip them."
        )


def long_rows(length):
    """Which rows are long, (n_rows,) bool, from |u|."""
    positive = length[length > 0]
    if len(positive) < 3:
        return np.zeros(len(length), dtype=bool)
    return length > LONG * np.quantile(positive, 0.75)


def rows_with_odd_values(source, statistics):
    """Which rows, (n_rows,) bool, have a value that sets the scale of its column alone, though the others vary; None: no row.

    It makes up more than half of the sum of squares about the mean: only columns whose extremes allow it are looked at, and of
    these in all rows only those that vary, and little, in some.
    """
    total_weight, (mean, variance, low, high) = statistics.total_weight, statistics.of_each
    may_hold_one = np.maximum(high - mean, mean - low) > np.sqrt(total_weight / 2) * np.sqrt(np.maximum(variance, 0))
    columns, rows = np.flatnonzero(may_hold_one & (variance > 0)), source.rows
    if len(columns) == 0 or len(rows) < FEWEST:
        return None
    some = np.random.default_rng(0).choice(rows, min(FEWEST_ROWS, len(rows)), replace=False)
    values = np.partition(_dense(source.block.X[some][:, columns]), [1, -2], axis=0)
    spread = values[-2] - values[1]  # of all but one
    columns = columns[(spread > 0) & ((high - low)[columns] > ODD * spread)]
    is_odd, n_piece = np.zeros(len(rows), dtype=bool), max(1, PIECE_VALUES // len(rows))
    for first in range(0, len(columns), n_piece):
        values = _dense(source.block.X[:, columns[first : first + n_piece]][rows])
        for signed in (values, -values):
            lowest, second, largest = np.partition(signed, [0, -2, -1], axis=0)[[0, -2, -1]]
            odd = (second > lowest) & (largest - second > ODD * (second - lowest))
            is_odd |= ((signed == largest) & odd).any(axis=1)
    return is_odd if is_odd.any() else None


def _dense(values):
    """Some values of X, float64."""
    return (values.toarray() if sparse.issparse(values) else values).astype(np.float64)


def far_rows(length, scaling, stream):
    """Which rows of a short call, (n_rows,) bool, are errors as far as a `Stream` can tell: all may be.

    They are those that would have more than a hundredth of the leverage of all rows before. length: |u| of each.
    """
    if not stream.judges(len(length)):
        return np.zeros(len(length), dtype=bool)
    return length**2 > most_leverage(scaling, stream)


def most_leverage(scaling, stream):
    """The |u|^2 that a row may have beside those of a `Stream`."""
    return scaling.mean_square.sum() * max(LONG**2, LEVERAGE_OF_A_ROW * stream.n_rows)


def with_bounded_leverage(source, length, scaling, stream):
    """The source with less weight on rows that are still long, of which a warning tells. length: |u| of each row.

    In a call of a `Stream` they may be long beside the rows before.
    """
    weight, length = source.weight, _with_intercept(length)
    is_long, held, usual, row = long_rows(length), weight, np.median(length), "the median row"
    if is_long.any():
        held = weight * held_share(weight, length, is_long)
    if stream is not None and (is_far := far_rows(length, scaling, stream)).any():
        held = np.where(is_far, np.minimum(held, weight * most_leverage(scaling, stream) / length**2), held)
        usual, row = np.sqrt(1 + scaling.mean_square.sum()), "the mean row before"
    n_reduced = (held < weight).sum()
    if n_reduced == 0:
        return source
    warn(
        f"{n_reduced} of {len(length)} rows are up to {length.max() / usual:.0f} times as long as {row}, "
        "in standardized features, and would set the step size alone: they count with less weight. Check or clip their values.",
    )
    return source.reweighted(held)


def held_share(weight, length, is_long):
    """The share of its weight that each row keeps, so that the leverage of long rows is bounded."""
    leverage = length**2
    of_others = (weight * leverage)[~is_long].sum()
    bound = max(leverage[~is_long].max(), of_others * min(LEVERAGE_OF_A_ROW, LEVERAGE / is_long.sum()))
    return np.minimum(1, bound / leverage)


def evenly_drawn(source, scaling, length, sampled, *, shuffle):
    """The source, drawn from so that gradients are of even length where they are not and it is shuffled; and the mean of
    |weight u|^2 over its rows as they are drawn, or None where that of u, from the statistics, will do.

    length: |u| of each row, or None where no row is long; then `SampledRows` tell whether all rows are worth a look.
    """
    weight = source.weight
    if length is None and not is_uneven(weight):
        of_sample = np.sqrt(squared_lengths(sampled.U))
        if not is_uneven(sampled.weight * _with_intercept(of_sample)):
            return source, None
    if length is None:
        length = lengths(source, scaling)
    gradient = weight * _with_intercept(length)
    if not is_uneven(gradient):
        return source, None
    square = (weight * length) ** 2
    if not shuffle:
        return source, square.mean()
    share = shares(gradient)
    return source.drawn_by(share), (square / (len(share) * share)).mean()


def _with_intercept(length):
    return np.sqrt(1 + length**2)


def is_uneven(gradient_length):
    """Whether drawing rows in proportion would take enough of the noise away."""
    return bool(np.mean(gradient_length**2) > UNEVEN * np.mean(gradient_length) ** 2)


def shares(gradient_length):
    """The share of the draws of an epoch that each row gets: they sum to 1."""
    return (1 - UNIFORM) * gradient_length / gradient_length.sum() + UNIFORM / len(gradient_length)


def systematic_draws(share, rng):
    """As many numbers of rows as there are rows, in ascending order: row i comes share_i n_rows times, rounded up or down.

    Systematic resampling (Carpenter, Clifford and Fearnhead 1999): each time, the mean is share_i n_rows.
    """
    ends = np.cumsum(share)
    ends *= len(share) / ends[-1]
    ends[-1] = len(share)
    return np.repeat(np.arange(len(share)), np.diff(np.floor(ends + rng.random()).astype(np.int64), prepend=0))
