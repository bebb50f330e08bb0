"""Where rows come from: a source gives them out in blocks, each of which a backend runs."""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from skdl._backends import ceil_div
from skdl._validation import check_finite


class Block(NamedTuple):
    """Rows in memory. Shapes are those of `skdl._sgd`."""

    X: object
    y: np.ndarray = None
    weight: np.ndarray = None


class InMemory:
    """Data in memory: one block, of which `rows` are visited (None: all). Without y it can only be predicted.

    A weight of 2 stands for two rows, so `total_weight` is the number of rows that the data stand for.
    """

    def __init__(self, X, y=None, weight=None, rows=None):
        self.n_features, self.dtype, self.is_sparse = X.shape[1], X.dtype, sparse.issparse(X)
        # Mean number of stored values of a row.
        self.row_values = X.nnz / X.shape[0] if self.is_sparse else self.n_features
        self._n_samples, self._rows, self._order = X.shape[0], rows, None
        self.total_weight = None if y is None else float(self.n_rows)
        if weight is not None:
            of_rows = weight[self.rows]
            self.total_weight = float(of_rows.sum())
            weight = None if (of_rows == of_rows[0]).all() else weight / of_rows.mean()
        self.block = Block(X, None if y is None else y.astype(np.int32), weight)

    @property
    def rows(self):
        """The rows that an epoch visits."""
        if self._rows is None:  # which a prediction need not ask for
            self._rows = np.arange(self._n_samples)
        return self._rows

    @property
    def n_rows(self):
        """Number of rows that an epoch visits."""
        return len(self.rows)

    def n_batches(self, batch_size):
        """Number of minibatches of an epoch; the last one of a block may be smaller."""
        return ceil_div(self.n_rows, batch_size)

    def sample(self, rows):
        """Some rows of X, and their weights."""
        X, _, weight = self.block
        return X[rows], np.ones(len(rows)) if weight is None else weight[rows]

    def statistics(self, backend):
        """`Statistics` of the columns; ValueError where X is not finite."""
        statistics = backend.statistics(self.block, self.rows)
        check_finite(self.block.X, statistics, complete=self.n_rows == self._n_samples)
        return statistics._replace(total_weight=self.total_weight)

    def check_finite(self):
        """ValueError where X is not finite."""
        check_finite(self.block.X)

    def epoch(self, rng):
        """The blocks of one epoch, each with the order of its rows; `rng` shuffles it anew, None leaves it as it is."""
        if self._order is None:
            self._order = self.rows.copy()
        if rng is not None:
            rng.shuffle(self._order)
        yield self.block, self._order
