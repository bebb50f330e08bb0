"""Where rows come from: a source gives them out in blocks, each of which a backend runs."""

from copy import copy
from typing import NamedTuple

import numpy as np
from scipy import sparse

from skdl._backends import ceil_div
from skdl._sampling import systematic_draws
from skdl._validation import check_finite

# Values whose means are looked up together: what is looked up stays in the processor's cache.
PIECE_VALUES = 2**16


class Block(NamedTuple):
    """Rows in memory. Shapes are those of `skdl._sgd`."""

    X: object
    y: np.ndarray = None
    weight: np.ndarray = None


class InMemory:
    """Data in memory: one block, of which `rows` are visited (None: all). Without y it can only be predicted.

    A weight of 2 stands for two rows, so `total_weight` is the number of rows that the data stand for. is_finite: whether X is
    known to be.
    """

    # Whether an epoch may draw some rows more often than others; the number of its blocks; how many times as noisy as those of
    # one model the steps may be, as models that see different rows are averaged; and whether each epoch reads the rows anew.
    draws, n_groups, averaged, is_read_anew = True, 1, 1, False

    def __init__(self, X, y=None, weight=None, rows=None, *, is_finite=False):
        self.n_samples, self._rows, self._order, self._is_finite = X.shape[0], rows, None, is_finite
        self._hold(X)
        self.total_weight = None if y is None else float(self.n_rows)
        if weight is not None:
            of_rows = weight[self.rows]
            self.total_weight = float(of_rows.sum())
            weight = None if (of_rows == of_rows[0]).all() else weight / of_rows.mean()
        self.block = self._drawn_block = Block(X, None if y is None else y.astype(np.int32), weight)
        self._share = None

    def _hold(self, X):
        self.X = X  # as it is given, whatever the block holds
        self.n_features, self.dtype, self.is_sparse = X.shape[1], X.dtype, sparse.issparse(X)
        # Mean number of stored values of a row in use.
        self.row_values = self.n_features
        if self.is_sparse:
            self.row_values = X.nnz / X.shape[0] if self._rows is None else np.diff(X.indptr)[self._rows].mean()

    @property
    def rows(self):
        """The rows that an epoch visits."""
        if self._rows is None:  # which a prediction need not ask for
            self._rows = np.arange(self.n_samples)
        return self._rows

    @property
    def n_rows(self):
        """Number of rows that an epoch visits."""
        return len(self.rows)

    @property
    def X_of_rows(self):
        """X of the block for `rows`, not copied where these are all, in order."""
        X, rows = self.block.X, self.rows
        return X if np.array_equal(rows, np.arange(X.shape[0])) else X[rows]

    def n_batches(self, batch_size):
        """Number of minibatches of an epoch; the last one of a block may be smaller."""
        return ceil_div(self.n_rows, batch_size)

    def sample(self, rows):
        """Some rows of X, and their weights."""
        X, _, weight = self.block
        return X[rows], np.ones(len(rows)) if weight is None else weight[rows]

    def draw(self, n_rows, rng):
        """Some rows of X as an epoch draws them, and the weights that they have there."""
        rows = rng.choice(self.rows, n_rows, replace=self._share is not None, p=self._share)
        X, _, weight = self._drawn_block
        return X[rows], np.ones(len(rows)) if weight is None else weight[rows]

    @property
    def weight(self):
        """The weights of `rows`: their mean is 1."""
        return np.ones(len(self.rows)) if self.block.weight is None else self.block.weight[self.rows]

    def class_shares(self, n_classes):
        """Of each class its share of the weight of all rows."""
        _, y, weight = self.block
        rows = self.rows
        return np.bincount(y[rows], None if weight is None else weight[rows], minlength=n_classes) / self.n_rows

    def centred(self, mean):
        """A source of CSR less the mean, where a value is stored: for columns of mean 0 and those stored in all rows."""
        X = self.block.X
        X = type(X)((X.data.copy(), X.indices, X.indptr), shape=X.shape)
        less_mean(X, mean)
        source = copy(self)
        source.block = source._drawn_block = self.block._replace(X=X)
        return source

    def with_values(self, X):
        """A source of the same rows with other features."""
        source = copy(self)
        source._hold(X)
        source.block = source._drawn_block = self.block._replace(X=X)
        return source

    def reweighted(self, weight):
        """A source of the same rows with other weights, (n_rows,)."""
        source = copy(self)
        source.block = source._drawn_block = self.block._replace(weight=self._of_samples(weight))
        return source

    def drawn_by(self, share):
        """A source that visits a row in proportion to its share, (n_rows,), with what then is left of its weight."""
        source = copy(self)
        source._share = share
        source._drawn_block = self.block._replace(weight=self._of_samples(self.weight / (self.n_rows * share)))
        return source

    def _of_samples(self, of_rows):
        of_samples = np.zeros(self.n_samples)
        of_samples[self.rows] = of_rows
        return of_samples

    def statistics(self, backend, rows=None):
        """`Statistics` of the columns, over some of the rows (None: all); ValueError where X is not finite."""
        statistics = backend.statistics(self.block, self.rows if rows is None else rows)
        if rows is None:
            check_finite(self.block.X, statistics, complete=self._is_finite or self.n_rows == self.n_samples)
        return statistics._replace(total_weight=self.total_weight)

    def check_finite(self):
        """ValueError where X is not finite."""
        if not self._is_finite:
            check_finite(self.block.X)

    def restarted(self):
        """A source that visits the same rows, before its first epoch."""
        source = copy(self)
        source._order = None
        return source

    def blocks(self):
        """The blocks, each with its rows, which come once and in order."""
        yield self.block, self.rows

    def epochs(self, rng, n_epochs):
        """The blocks of some epochs, each with the order of its rows in these (n_epochs, n_rows).

        `rng` shuffles it anew for each, None leaves it as it is. An order may be None where whoever has the rows knows it.
        """
        orders = np.empty((n_epochs, self.n_rows), dtype=np.int64)
        for order in orders:
            if self._share is not None:
                self._order = self.rows[systematic_draws(self._share, rng)]
            elif self._order is None:
                self._order = self.rows.copy()
            if rng is not None:
                rng.shuffle(self._order)
            order[:] = self._order
        yield self._drawn_block, orders


class Described(InMemory):
    """Rows that are not in memory, of which statistics and a sample are known: for a plan it is as good as having them.

    `rows`, `block` and `X` are those of the sample, `n_rows` and `total_weight` those of all; weights (n_sampled,) are divided
    by their mean over all rows, or None. Who knows where the rows are says what an epoch is.
    """

    draws = False

    def __init__(self, X, y, weight, *, n_rows, total_weight, class_totals, statistics, row_values):
        self._n_rows = n_rows
        super().__init__(X, y, is_finite=True)
        self.block = self._drawn_block = self.block._replace(weight=weight)
        self.total_weight, self.row_values = total_weight, row_values
        self._class_totals, self._statistics = class_totals, statistics._replace(total_weight=total_weight)
        self.mean = np.zeros(self.n_features)  # what is taken off the stored values of CSR

    @property
    def n_rows(self):
        return self._n_rows

    def class_shares(self, n_classes):
        return self._class_totals / self._class_totals.sum()

    def statistics(self, backend, rows=None):
        return self._statistics

    def centred(self, mean):
        source = super().centred(mean)
        source.mean = mean
        return source

    def blocks(self):
        raise NotImplementedError

    def epochs(self, rng, n_epochs):
        raise NotImplementedError


def stacked(parts):
    """The rows of several X of one kind, dense or CSR, in one."""
    return sparse.vstack(parts, format="csr") if sparse.issparse(parts[0]) else np.concatenate(parts)


def less_mean(X, mean):
    """Take the mean off the stored values of CSR, in place."""
    mean = mean.astype(X.dtype)
    for start in range(0, X.nnz, PIECE_VALUES):
        piece = slice(start, start + PIECE_VALUES)
        X.data[piece] -= mean.take(X.indices[piece])
