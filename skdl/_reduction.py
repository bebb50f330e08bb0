"""Smaller problems with the same solution, where X has columns without values or fewer rows than columns.

Columns of CSR that hold no value get no gradient: their coefficients stay 0, and nobody needs to visit them. CSR whose rows
are full is smaller as a dense array. And where rows are few, every gradient lies in the space that they span. With L the
Cholesky factor of the rows' products with each other, U U^T = L L^T, the rows of L have the lengths and angles of those of U
in as many dimensions as there are rows. SGD with a penalty on ||W'||^2, whose steps turn with the coordinates, takes the same
path on L as on U, and W' = W_L L^-1 U.
"""

from contextlib import suppress

import numpy as np
from scipy import sparse

from skdl._products import products
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
        occurs = np.zeros(n_features, dtype=bool)
        occurs[X.indices[: X.indptr[-1]]] = True
        if start is not None:
            occurs |= start[0].any(axis=0)
        columns = np.flatnonzero(occurs)
        return cls(columns, n_features) if 0 < len(columns) < FEW_COLUMNS * n_features else None

    def select(self, source):
        """The source with these columns alone; values and row bounds are shared with it."""
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
        total_weight, *of_columns = statistics
        return Statistics(total_weight, *map(self.lift, of_columns))


def is_full(source):
    """Whether CSR is smaller as a dense array."""
    return source.is_sparse and source.row_values >= FULL * source.n_features


class RowSpace(Scaling):
    """Coordinates of the space that the rows of a source span, as many as there are rows: L in place of U."""

    def __init__(self, source, scaling, U, L):
        values = np.zeros((source.n_samples, len(L)), U.dtype)
        values[source.rows] = L
        weight = source.weight
        super().__init__(np.zeros(len(L)), np.ones(len(L)), (weight[:, np.newaxis] * L**2).sum(axis=0) / weight.sum())
        self.source, self._scaling, self._U, self._L = source.with_values(values), scaling, U, L

    @classmethod
    def of(cls, source, scaling):
        """That of a source, or None where U is 0 or overflows."""
        U = scaling.apply(source.block.X[source.rows])
        with np.errstate(over="ignore", invalid="ignore"):
            K = _gram(U)
        if not 0 < np.trace(K) < np.inf:
            return None
        return cls(source, scaling, U, _cholesky(K, np.finfo(U.dtype).eps))

    def random_directions(self, draw):
        """What L sees of directions of u, so that what is random does not change with the turn."""
        v = np.ascontiguousarray(self._scaling.random_directions(draw), self._U.dtype)
        return _solve(self._L, products(self._U)[0](v).astype(np.float64))

    def lift(self, coef, intercept):
        """Parameters for L to those for x."""
        of_rows = _solve_transposed(self._L, coef.astype(np.float64).T)
        _, multiply_transposed = products(self._U)
        of_u = multiply_transposed(of_rows.astype(coef.dtype)).T.astype(np.float64)
        return tuple(a.astype(coef.dtype) for a in self._scaling.unscale_parameters(of_u, intercept))


def spans_little(source, options, n_outputs):
    """Whether a fit gains by a turn into the space of the rows."""
    n, d, k = source.n_rows, source.n_features, n_outputs
    if n > MOST_ROWS or d < COLUMNS_OF_A_ROW * n or n < 2:
        return False
    epochs = EXPECTED * options.max_iter
    of_turned = 4 * n * n * (k + DENSE_VALUE)
    if source.is_sparse:
        occurrences = np.bincount(source.block.X.indices, minlength=d).astype(float)
        of_turn, of_epoch = CSR_PRODUCT * (occurrences**2).sum(), 4 * n * source.row_values * (k + CSR_VALUE)
    else:
        of_turn, of_epoch = 2 * n * n * d, 4 * n * d * (k + DENSE_VALUE)
    return of_turn + n**3 + epochs * of_turned < epochs * of_epoch


def _gram(U):
    """U U^T, (n_rows, n_rows) float64."""
    if sparse.issparse(U):
        return (U @ U.T).toarray().astype(np.float64)
    return products(U)[0](U.T).astype(np.float64)


# LAPACK is given blocks so small that it starts no threads, as in `_products`.
BLOCK = 32


def _cholesky(K, eps):
    """The lower Cholesky factor of K, whose rank may be less than its size: with as much on its diagonal as rounding takes."""
    for more in (1, 1e2, 1e4):
        with suppress(np.linalg.LinAlgError):
            return _cholesky_factor(K, more * eps * np.trace(K))
    return _cholesky_factor(K, 1e6 * eps * np.trace(K))


def _cholesky_factor(K, jitter):
    A, n = K.copy(), len(K)
    A[np.diag_indices(n)] += jitter
    L = np.zeros_like(A)
    for a in range(0, n, BLOCK):
        b = a + BLOCK
        L[a:b, a:b] = np.linalg.cholesky(A[a:b, a:b])
        if b < n:
            L[b:, a:b] = products(A[b:, a:b])[0](np.linalg.inv(L[a:b, a:b]).T)
            A[b:, b:] -= products(L[b:, a:b])[0](L[b:, a:b].T)
    return L


def _solve(L, b):
    """x of L x = b (n_rows, n)."""
    x = b.copy()
    for a in range(0, len(L), BLOCK):
        block, rest = slice(a, a + BLOCK), slice(a + BLOCK, None)
        x[block] = products(np.linalg.inv(L[block, block]))[0](x[block])
        if a + BLOCK < len(L):
            x[rest] -= products(np.ascontiguousarray(L[rest, block]))[0](x[block])
    return x


def _solve_transposed(L, b):
    """x of L^T x = b (n_rows, n)."""
    x = b.copy()
    for a in reversed(range(0, len(L), BLOCK)):
        block = slice(a, a + BLOCK)
        x[block] = products(np.linalg.inv(L[block, block]).T)[0](x[block])
        if a > 0:
            x[:a] -= products(np.ascontiguousarray(L[block, :a].T))[0](x[block])
    return x
