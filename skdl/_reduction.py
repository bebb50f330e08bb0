"""Smaller problems with the same solution, where X has columns without values or fewer rows than columns.

Columns of CSR that hold no value get no gradient: their coefficients stay 0, and nobody needs to visit them. CSR whose rows
are full is smaller as a dense array. And where rows are few, every gradient lies in the space that they span. With L the
Cholesky factor of the rows' products with each other, U U^T = L L^T, the rows of L have the lengths and angles of those of U
in as many dimensions as there are rows. SGD with a penalty on ||W'||^2, whose steps turn with the coordinates, takes the same
path on L as on U, and W' = W_L L^-1 U.
"""

import numpy as np

from skdl import _kernels
from skdl._backends import instruction_set
from skdl._products import padded_zeros, products, row_products
from skdl._sampling import long_rows
from skdl._scaling import Scaling, Statistics

# Columns are left out where less than this share of them holds values.
FEW_COLUMNS = 0.5
# The density from which CSR is full. A dense copy takes half of its memory, since a value of CSR has an index beside it.
FULL = 0.9
# A fit is expected to end after this share of max_iter. What a value of dense and of CSR costs beside one product, converted or
# looked up; what a product of CSR rows costs. The most rows and the fewest columns for each, that make up for the turn.
EXPECTED, DENSE_VALUE, CSR_VALUE, CSR_PRODUCT = 0.25, 7, 150, 70
MOST_ROWS, COLUMNS_OF_A_ROW = 1024, 2


class OccurringColumns:
    """Columns of CSR that hold values, or that a model to start with has coefficients for."""

    def __init__(self, columns, n_features):
        self.columns, self.n_features = columns, n_features

    @classmethod
    def of(cls, source, start):
        """Those of a source, or None where they are not few."""
        X, n_features = source.block.X, source.n_features
        occurs = np.zeros(n_features, dtype=np.uint8)
        _kernels.mark_features(X.indices, X.indptr, source.rows, occurs)
        if start is not None:
            occurs |= start[0].any(axis=0)
        columns = np.flatnonzero(occurs.view(bool))  # bytes take four times as long
        return cls(columns, n_features) if 0 < len(columns) < FEW_COLUMNS * n_features else None

    def select(self, source):
        """The source with these columns alone; values and row bounds are shared with it. Rows out of use may hold others,
        which become any of these.
        """
        X = source.block.X
        position = np.zeros(self.n_features, dtype=X.indices.dtype)
        position[self.columns] = np.arange(len(self.columns))
        indices = position[X.indices[: X.indptr[-1]]]
        return source.with_values(
            type(X)((X.data[: X.indptr[-1]], indices, X.indptr), shape=(X.shape[0], len(self.columns)))
        )

    def lift(self, of_columns, other=0.0):
        """(..., n_columns) -> (..., n_features), with another value for the other columns."""
        shape, dtype = (*of_columns.shape[:-1], self.n_features), of_columns.dtype
        # Memory of zeros that is not written is not taken.
        lifted = np.full(shape, other, dtype) if other else np.zeros(shape, dtype)
        lifted[..., self.columns] = of_columns
        return lifted

    def lifting(self, lift):
        """A function of (coef, intercept) that lifts what another has lifted."""

        def lifted(coef, intercept):
            coef, intercept = lift(coef, intercept)
            return self.lift(coef), intercept

        return lifted

    def lift_statistics(self, statistics):
        return Statistics(statistics.total_weight, *map(self.lift, statistics.of_each), statistics.row_squares)


def is_full(source):
    """Whether CSR is smaller as a dense array."""
    return source.is_sparse and source.row_values >= FULL * source.n_features


class RowSpace(Scaling):
    """Coordinates of the space that the rows of a source span, as many as it has dimensions: L in place of U."""

    def __init__(self, source, scaling, length, products_of_U, L, L_transposed):
        self._is_own = np.diag(L) > 0
        rows = np.compress(self._is_own, L[: source.n_rows], axis=1)
        values = np.zeros((source.n_samples, rows.shape[1]), L.dtype)
        values[source.rows] = rows
        weight = source.weight if length is None else source.weight * ~long_rows(length)
        mean_square = np.einsum("n,nd,nd->d", weight, rows, rows)
        # Long rows have no say in how long the others are.
        mean_square *= scaling.mean_square.sum() / mean_square.sum()
        super().__init__(np.zeros(rows.shape[1]), np.ones(rows.shape[1]), mean_square)
        self.source, self._scaling, self._L, self._L_transposed = source.with_values(values), scaling, L, L_transposed
        self._multiply, self._multiply_transposed = products_of_U

    @classmethod
    def of(cls, source, scaling, length):
        """That of a source, or None where U is 0 or overflows. length: |u| of each row, or None where no row is long."""
        U = scaling.apply(source.X_of_rows, padded_zeros)
        K = row_products(U)
        if not 0 < np.trace(K) < np.inf:
            return None
        return cls(source, scaling, length, products(U, (source.n_rows, source.n_features)), *_cholesky(K, U.dtype))

    def apply(self, X, allocate=None):
        """Rows of L, as they are."""
        return X

    def random_directions(self, draw):
        """What L sees of directions of u, so that what is random does not change with the turn."""
        v = np.ascontiguousarray(self._scaling.random_directions(draw), self.source.dtype)
        of_rows = np.zeros((v.shape[1], len(self._L)))
        of_rows[:, : self.source.n_rows] = self._multiply(v).T
        _kernels.solve_triangular(self._L_transposed, of_rows, False)
        return of_rows.T[self._is_own]

    def lift(self, coef, intercept):
        """Parameters for L to those for x."""
        of_rows = np.zeros((len(coef), len(self._is_own)))
        of_rows[:, self._is_own] = coef
        _kernels.solve_triangular(self._L, of_rows, True)
        of_u = self._multiply_transposed(of_rows[:, : self.source.n_rows].T.astype(coef.dtype)).T.astype(np.float64)
        return tuple(a.astype(coef.dtype) for a in self._scaling.unscale_parameters(of_u, intercept))


def spans_little(source, options, n_outputs):
    """Whether a fit gains by a turn into the space of the rows."""
    n, d, k = source.n_rows, source.n_features, n_outputs
    if n > MOST_ROWS or d < COLUMNS_OF_A_ROW * n or n < 2:
        return False
    epochs = EXPECTED * options.max_iter
    of_turned = 4 * n * n * (k + DENSE_VALUE)
    if source.is_sparse:
        occurrences = np.bincount(source.X_of_rows.indices, minlength=d).astype(float)
        of_turn, of_epoch = CSR_PRODUCT * (occurrences**2).sum(), 4 * n * source.row_values * (k + CSR_VALUE)
    else:
        of_turn, of_epoch = 2 * n * n * d, 4 * n * d * (k + DENSE_VALUE)
    return of_turn + n**3 + epochs * of_turned < epochs * of_epoch


def _cholesky(K, dtype):
    """L and L^T of K = L L^T, of which the upper triangle is given, and overwritten. L is of this type.

    A row that is one of the space of those before it, to rounding, has no direction of its own: its column of L is 0.
    """
    n, (number, _) = len(K), instruction_set()
    L = np.zeros((n, n), dtype)
    _kernels.cholesky(K, n * np.finfo(dtype).eps * np.diag(K), L, np.empty(_kernels.PAD * n), number)
    return L, K
