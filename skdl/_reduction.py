"""Smaller problems with the same solution, where X has columns without values or fewer rows than columns.

Columns of CSR that hold no value get no gradient: their coefficients stay 0, and nobody needs to visit them. CSR whose rows
are full is smaller as a dense array. And where rows are few, every gradient lies in the space that they span. With L the
Cholesky factor of the rows' products with each other, U U^T = L L^T, the rows of L have the lengths and angles of those of U
in as many dimensions as there are rows. SGD with a penalty on ||W'||^2, whose steps turn with the coordinates, takes the same
path on L as on U, and W' = W_L L^-1 U.
"""

import numpy as np
from scipy import sparse

from skdl import _kernels
from skdl._products import products
from skdl._sampling import long_rows
from skdl._scaling import Scaling, Statistics

# Columns are left out where less than this share of them holds values.
FEW_COLUMNS = 0.5
# The density from which CSR is full. A dense copy takes half of its memory, since a value of CSR has an index beside it.
FULL = 0.9
# A fit is expected to end after this share of max_iter. What a value of dense and of CSR costs beside one product, converted or
# looked up; what a product of CSR rows costs. The most rows and the fewest columns for each, that make up for the turn.
EXPECTED, DENSE_VALUE, CSR_VALUE, CSR_PRODUCT = 0.25, 7, 150, 20
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
        columns = np.flatnonzero(occurs)
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
        # Memory of zeros that is not written is not taken.
        lifted = np.zeros((*of_columns.shape[:-1], self.n_features), of_columns.dtype)
        if other:
            lifted[:] = other
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

    def __init__(self, source, scaling, length, dtype, products_of_U, L):
        self._is_own = np.diag(L) > 0
        rows = L[:, self._is_own]
        values = np.zeros((source.n_samples, rows.shape[1]), dtype)
        values[source.rows] = rows
        weight = source.weight if length is None else source.weight * ~long_rows(length)
        mean_square = (weight[:, np.newaxis] * rows**2).sum(axis=0)
        # Long rows have no say in how long the others are.
        mean_square *= scaling.mean_square.sum() / mean_square.sum()
        super().__init__(np.zeros(rows.shape[1]), np.ones(rows.shape[1]), mean_square)
        self.source, self._scaling, self._L = source.with_values(values), scaling, L
        self._multiply, self._multiply_transposed = products_of_U

    @classmethod
    def of(cls, source, scaling, length):
        """That of a source, or None where U is 0 or overflows. length: |u| of each row, or None where no row is long."""
        U = scaling.apply(source.block.X[source.rows])
        products_of_U = products(U)
        with np.errstate(over="ignore", invalid="ignore"):
            K = products_of_U[0](U.T)
            K = (K.toarray() if sparse.issparse(K) else K).astype(np.float64)
        if not 0 < np.trace(K) < np.inf:
            return None
        return cls(source, scaling, length, U.dtype, products_of_U, _cholesky(K, np.finfo(U.dtype).eps))

    def random_directions(self, draw):
        """What L sees of directions of u, so that what is random does not change with the turn."""
        v = np.ascontiguousarray(self._scaling.random_directions(draw), self.source.dtype)
        return _solve(self._L, self._multiply(v).astype(np.float64))[self._is_own]

    def lift(self, coef, intercept):
        """Parameters for L to those for x."""
        of_rows = np.zeros((len(self._L), len(coef)))
        of_rows[self._is_own] = coef.T
        of_rows = _solve_transposed(self._L, of_rows)
        of_u = self._multiply_transposed(of_rows.astype(coef.dtype)).T.astype(np.float64)
        return tuple(a.astype(coef.dtype) for a in self._scaling.unscale_parameters(of_u, intercept))


def spans_little(source, options, n_outputs):
    """Whether a fit gains by a turn into the space of the rows."""
    n, d, k = source.n_rows, source.n_features, n_outputs
    if n > MOST_ROWS or d < COLUMNS_OF_A_ROW * n or n < 2:
        return False
    epochs = EXPECTED * options.max_iter
    of_turned = 4 * n * n * (k + DENSE_VALUE)
    if source.is_sparse:
        occurrences = np.bincount(source.block.X[source.rows].indices, minlength=d).astype(float)
        of_turn, of_epoch = CSR_PRODUCT * (occurrences**2).sum(), 4 * n * source.row_values * (k + CSR_VALUE)
    else:
        of_turn, of_epoch = 2 * n * n * d, 4 * n * d * (k + DENSE_VALUE)
    return of_turn + n**3 + epochs * of_turned < epochs * of_epoch


# Rows and columns that are worked on together. LAPACK starts no threads for so few, as in `_products`.
BLOCK = 32


def _cholesky(K, eps):
    """The lower Cholesky factor of K, whose rank may be less than its size.

    A row that is one of the space of those before it, to rounding, has no direction of its own: its column is 0.
    """
    A, n = K.copy(), len(K)
    smallest = n * eps * np.diag(K)
    L = np.zeros_like(A)
    for a in range(0, n, BLOCK):
        block, rest = slice(a, a + BLOCK), slice(a + BLOCK, None)
        L[block, block] = _small_cholesky(A[block, block], smallest[block])
        if a + BLOCK < n:
            # Of a column of 0 the inverse has one that tells of nothing.
            below = products(A[rest, block])[0](np.linalg.inv(_regular(L[block, block])).T)
            L[rest, block] = below * (np.diag(L[block, block]) > 0)
            A[rest, rest] -= products(L[rest, block])[0](L[rest, block].T)
    return L


def _small_cholesky(A, smallest):
    """That of a block; columns whose pivot is not larger than `smallest` are 0."""
    A, L = A.copy(), np.zeros_like(A)
    for j in np.flatnonzero(smallest > 0):
        if A[j, j] > smallest[j]:
            L[j:, j] = A[j:, j] / np.sqrt(A[j, j])
            A[j:, j:] -= np.multiply.outer(L[j:, j], L[j:, j])
    return L


def _regular(L):
    """L with ones on its diagonal where columns are 0: their unknowns are in no other equation."""
    return L + np.diag(np.diag(L) == 0)


def _solve(L, b):
    """x of L x = b (n_rows, n), 0 where the column of L is."""
    x = b.copy()
    for a in range(0, len(L), BLOCK):
        block, rest = slice(a, a + BLOCK), slice(a + BLOCK, None)
        x[block] = products(np.linalg.inv(_regular(L[block, block])))[0](x[block])
        x[block] *= (np.diag(L[block, block]) > 0)[:, np.newaxis]
        if a + BLOCK < len(L):
            x[rest] -= products(np.ascontiguousarray(L[rest, block]))[0](x[block])
    return x


def _solve_transposed(L, b):
    """x of L^T x = b (n_rows, n), 0 where the column of L is."""
    x = b.copy()
    for a in reversed(range(0, len(L), BLOCK)):
        block = slice(a, a + BLOCK)
        x[block] = products(np.linalg.inv(_regular(L[block, block])).T)[0](x[block])
        x[block] *= (np.diag(L[block, block]) > 0)[:, np.newaxis]
        if a > 0:
            x[:a] -= products(np.ascontiguousarray(L[block, :a].T))[0](x[block])
    return x
