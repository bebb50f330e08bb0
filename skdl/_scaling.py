"""The coordinates in which SGD runs, and the statistics of the features that they follow from."""

from typing import NamedTuple

import numpy as np
from scipy import sparse

# A column whose values differ by less than this many units of rounding is constant.
CONSTANT_COLUMN_ULPS = 32
# Rows have one length where their squares differ by less than this share: rounding, that of float16 included.
SAME_SQUARE = 0.01


class Statistics(NamedTuple):
    """Of each column, (n_features,) float64, over rows of this weight in all: of as many rows, if they have no weights."""

    total_weight: float
    mean: np.ndarray
    variance: np.ndarray
    low: np.ndarray
    high: np.ndarray
    # The smallest and the largest sum of squares of a row that is not 0; only known of CSR.
    row_squares: tuple = (0.0, np.inf)

    @property
    def of_each(self):
        """What there is of each column, (n_features,) arrays."""
        return self[1:5]

    def merged(self, other):
        """Those of the rows of both (Chan, Golub and LeVeque 1979)."""
        total_weight = self.total_weight + other.total_weight
        share, delta = other.total_weight / total_weight, other.mean - self.mean
        variance = (1 - share) * self.variance + share * other.variance + share * (1 - share) * delta**2
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        row_squares = both_extremes(self.row_squares, other.row_squares)
        return Statistics(total_weight, self.mean + share * delta, variance, low, high, row_squares)

    def of_columns(self, columns):
        """Those of some of the columns."""
        return Statistics(self.total_weight, *(a[columns] for a in self.of_each), self.row_squares)

    def with_columns(self, other, of_other):
        """These, but for columns (n_features,) bool that are those of `other`, as its rows are the ones that count."""
        pairs = zip(self.of_each, other.of_each, strict=True)
        return Statistics(self.total_weight, *(np.where(of_other, b, a) for a, b in pairs), other.row_squares)

    @property
    def row_length(self):
        """The length of all rows that are not 0, or None where they have several, or it is not known."""
        shortest, longest = self.row_squares
        return np.sqrt(longest) if 0 < longest - SAME_SQUARE * longest <= shortest < np.inf else None


def both_extremes(a, b):
    """(lowest, highest) of two such pairs."""
    return min(a[0], b[0]), max(a[1], b[1])


class Scaling:
    """SGD sees u = (x - mean) * scale: a diagonal preconditioner, applied by the kernels to the values that they load.

    The model stays one on x: with W, b for x and W', b' for u, W = W' * scale and b = b' - W mean give the same logits.
    Parameters have any leading axes: coef (..., n_outputs, n_features), intercept (..., n_outputs).
    """

    def __init__(self, mean, scale, mean_square=None, row_length=None):
        self.mean, self.scale = mean, scale
        self.mean_square = mean_square  # of each column of u that varies, else 0; None where u is x
        self.row_length = row_length  # of x, where all rows have one
        self._centres = bool(mean.any())

    def random_directions(self, draw):
        """Directions of u, (n_features, n), where draw(n_features) makes them at random."""
        return draw(len(self.mean))

    @property
    def is_identity(self):
        return self.mean_square is None

    @classmethod
    def identity(cls, n_features):
        """u is x."""
        return cls(np.zeros(n_features), np.ones(n_features))

    @classmethod
    def from_statistics(cls, statistics, *, centre, is_sparse, dtype):
        """1 / scale is the geometric mean of max |x - mean| and the standard deviation.

        The first alone is slow where a column has outliers, the second alone overrates rare features. A sparse column that
        is not centred is divided by the largest |x| of its statistics. Constant columns are left as they are. A column times
        a power of two gives the same bits of u, which is why the root is taken of a product: a product of roots is rounded
        otherwise. centre: for all columns, or (n_features,) bool.
        """
        column_mean, variance, low, high = statistics.of_each
        mean, scale = np.zeros(len(low)), np.ones(len(low))
        varies = np.ones(len(low), dtype=bool)
        if np.any(centre):
            differs = high - low > CONSTANT_COLUMN_ULPS * np.finfo(dtype).eps * np.maximum(abs(low), abs(high))
            varies = differs | ~np.asarray(centre)
            mean = np.where(centre, np.where(varies, column_mean, low), 0.0)
            mean = mean.astype(dtype).astype(np.float64)  # as the kernels round it
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            max_deviation = np.maximum(high - mean, mean - low)
            std = np.sqrt(variance + (column_mean - mean) ** 2)
            squares_fit = np.isfinite(std) & (max_deviation**2 >= np.finfo(dtype).tiny)  # into the range of the type
            std = np.where(squares_fit, std, max_deviation)
            both = _geometric_mean(max_deviation, std)
            wanted = (1 / (np.where(centre, both, max_deviation) if is_sparse else both)).astype(dtype)
            varies &= np.isfinite(wanted) & (wanted > 0)
        scale[varies] = wanted[varies]
        return cls(mean, scale, np.where(varies, std * scale, 0.0) ** 2, statistics.row_length)

    def within(self, columns):
        """The same, but that u is 0 outside of columns (n_features,) bool."""
        return Scaling(self.mean, self.scale * columns, self.mean_square * columns, self.row_length)

    def units(self, *, standardize):
        """(r, q), each (n_features,): the unit of each feature of x in which the penalty measures, and q = r scale.

        That rows have one length is to say that a column is as long as another: they were divided by lengths that are sums
        over columns, as those of tf-idf are. So they keep their proportions.
        """
        ones = np.ones(len(self.scale))
        if not standardize:
            return ones, self.scale
        if self.row_length is None:
            return 1 / self.scale, ones
        return self.row_length * ones, self.row_length * self.scale

    def in_one_unit(self):
        """The `Scaling` of columns that vary to the unit that they share where rows have one length."""
        scale = (self.mean_square > 0) / self.row_length
        square = self.mean_square * (scale / self.scale) ** 2
        # Rows have a length of 1. What exceeds it is of columns in which only long rows differ.
        return Scaling(self.mean, scale, square / max(1.0, square.sum()))

    def apply(self, X, allocate=np.empty):
        """u of some rows, as a new array; rows of CSR are those of a source that is centred already.

        Dense u are at the front of what allocate(shape, dtype) returns.
        """
        if sparse.issparse(X):
            return with_scaled_columns(X, self.scale)
        dtype = np.float64 if X.dtype == np.float64 else np.float32
        U = allocate(X.shape, dtype)
        u = U[: X.shape[0], : X.shape[1]]
        np.subtract(X, self.mean.astype(dtype), out=u)
        u *= self.scale.astype(dtype)
        return U

    def scale_parameters(self, coef, intercept):
        """Parameters for x to those for u."""
        return coef / self.scale, intercept + self._at_mean(coef) if self._centres else intercept

    def unscale_parameters(self, coef, intercept):
        """Parameters for u to those for x."""
        coef = coef * self.scale
        return coef, intercept - self._at_mean(coef) if self._centres else intercept

    def scale_gradient(self, coef, intercept):
        """A gradient, or a velocity, for x to one for u."""
        return (coef - self._shift(intercept)) * self.scale, intercept

    def unscale_gradient(self, coef, intercept):
        """A gradient, or a velocity, for u to one for x."""
        return coef / self.scale + self._shift(intercept), intercept

    def _at_mean(self, coef):
        return np.einsum("...d,d->...", coef, self.mean)  # BLAS would take threads, and the bits depend on their number

    def _shift(self, intercept):
        return intercept[..., np.newaxis] * self.mean if self._centres else 0


def with_scaled_columns(X, scale):
    """CSR with the columns times a scale."""
    data = X.data * scale.astype(X.dtype).take(X.indices)
    return type(X)((data, X.indices, X.indptr), shape=X.shape)


def _geometric_mean(a, b):
    """sqrt(a b), by way of a product that neither overflows nor loses digits where a and b are close."""
    fraction, exponent = np.frexp(a)
    return np.ldexp(np.sqrt(fraction * np.ldexp(b, -exponent)), exponent)
