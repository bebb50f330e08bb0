"""Products of a few rows with a few vectors, for what the automatic choices ask of the data before the kernels run.

BLAS's threads would spin on for a while, on the cores that the first epoch needs (OpenBLAS issue 3187), and the bits would
depend on their number; a limit on them is a state of the whole process, which fits in several threads would take from each
other. So BLAS is given pieces that it multiplies without threads.
"""

import numpy as np
from scipy import sparse

from skdl._backends import ceil_div

# Values of a piece, its columns, and vectors that it is multiplied with at once.
SMALL_PRODUCT, PIECE_COLUMNS, SMALL_VECTORS = 8192, 128, 16


def products(U):
    """Functions of v (n_features, n) and p (n_rows, n) that return U v and U^T p, for CSR or dense U (n_rows, n_features).

    U may be (n_batches, n_rows, n_features), dense, with v and p likewise for n up to SMALL_VECTORS.
    """
    if sparse.issparse(U):
        return lambda v: U @ v, lambda p: U.T @ p
    if U.ndim == 2:
        multiply, multiply_transposed = _dense_products(U[np.newaxis])

        def few_at_once(multiply):
            def multiply_all(v):
                pieces = [v[np.newaxis, :, i : i + SMALL_VECTORS] for i in range(0, v.shape[1], SMALL_VECTORS)]
                return np.concatenate([multiply(piece)[0] for piece in pieces], axis=1)

            return multiply_all

        return few_at_once(multiply), few_at_once(multiply_transposed)
    return _dense_products(U)


def _dense_products(U):
    n_batches, n_rows, n_features = U.shape
    if n_rows * n_features <= SMALL_PRODUCT:
        transposed = U.swapaxes(1, 2)
        return lambda v: U @ v, lambda p: transposed @ p
    columns, n_across = _pieces(n_features, PIECE_COLUMNS)
    rows, n_down = _pieces(n_rows, SMALL_PRODUCT // columns)
    pieces = _padded(U, n_down * rows, n_across * columns).reshape(n_batches, n_down, rows, n_across, columns)
    pieces = np.ascontiguousarray(pieces.swapaxes(2, 3))
    transposed = pieces.swapaxes(3, 4)

    def multiply(v):
        v = _padded(v, n_across * columns, v.shape[2]).reshape(n_batches, 1, n_across, columns, v.shape[2])
        total = (pieces @ v).sum(axis=2, dtype=np.float64).astype(v.dtype)  # of many pieces, where rows are wide
        return total.reshape(n_batches, n_down * rows, -1)[:, :n_rows]

    def multiply_transposed(p):
        p = _padded(p, n_down * rows, p.shape[2]).reshape(n_batches, n_down, 1, rows, p.shape[2])
        return (transposed @ p).sum(axis=1).reshape(n_batches, n_across * columns, -1)[:, :n_features]

    return multiply, multiply_transposed


def _pieces(n, at_most):
    """Size and number of pieces that n is to be divided into, as even as can be."""
    number = ceil_div(n, at_most)
    return ceil_div(n, number), number


def _padded(a, n_rows, n_columns):
    """a with zeros to the shape (..., n_rows, n_columns)."""
    rows, columns = n_rows - a.shape[1], n_columns - a.shape[2]
    return np.pad(a, [(0, 0), (0, rows), (0, columns)]) if rows or columns else a
