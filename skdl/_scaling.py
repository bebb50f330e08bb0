"""The coordinates in which SGD runs, and the statistics of the features that they follow from."""

from typing import NamedTuple

import numpy as np
from scipy import sparse

# A column whose values differ by less than this many units of rounding is constant.
CONSTANT_COLUMN_ULPS = 32


class Statistics(NamedTuple):
    """Of each column, (n_features,) float64, over `n_rows` rows."""

    n_rows: float
    mean: np.ndarray
    variance: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def merged(self, other):
        """Those of the rows of both (Chan, Golub and LeVeque 1979)."""
        n_rows = self.n_rows + other.n_rows
        share, delta = other.n_rows / n_rows, other.mean - self.mean
        variance = (1 - share) * self.variance + share * other.variance + share * (1 - share) * delta**2
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return Statistics(n_rows, self.mean + share * delta, variance, low, high)
