"""Products of a few rows with a few vectors and with each other, and eigenvalues: what the automatic choices ask of the data.

By our own kernels, on one thread: the bits of BLAS would depend on its number of threads, which would spin on for a while on
the cores that the first epoch needs (OpenBLAS issue 3187), and a limit on them is a state of the whole process, which fits in
several threads would take from each other.
"""

import numpy as np
from scipy import sparse

from skdl import _kernels
from skdl._backends import instruction_set, padded

# Rows whose products with each other and with those after them are made together.
BLOCK_ROWS = 32


def products(U, shape=None):
    """Functions of v (n_features, n) and p (n_rows, n) that return U v and U^T p, for CSR or dense U (n_rows, n_features).

    U may be (n_batches, n_rows, n_features), dense, with v and p likewise. shape: (n_rows, n_features) of a U with zeros behind
    them; None: it has none.
    """
    if sparse.issparse(U):
        return lambda v: U @ v, lambda p: U.T @ p
    shape = shape or U.shape[-2:]
    if U.ndim == 2:
        multiply, multiply_transposed = _dense_products(U[np.newaxis], *shape)
        return lambda v: multiply(v[np.newaxis])[0], lambda p: multiply_transposed(p[np.newaxis])[0]
    return _dense_products(U, *shape)


def _dense_products(U, n_rows, n_features):
    U, (number, _) = _with_zeros(U, 2), instruction_set()

    def product(vectors, length, *, transposed):
        vectors = _with_zeros(vectors.swapaxes(1, 2).astype(U.dtype, copy=False), 1)
        out = np.zeros((*vectors.shape[:2], U.shape[2 if transposed else 1]))
        _kernels.row_products(U, vectors, out, transposed, number)
        return out[..., :length].swapaxes(1, 2).astype(U.dtype)

    return lambda v: product(v, n_rows, transposed=False), lambda p: product(p, n_features, transposed=True)


def row_products(U):
    """The upper triangle of U U^T, float64 and with zeros behind it, for CSR or for dense U that has them, too."""
    if sparse.issparse(U):
        K, U = padded_zeros(2 * U.shape[:1], np.float64), U.tocsc()
        _kernels.sparse_row_products(U.data, U.indices, U.indptr, K)
        return K
    n, (number, _) = len(U), instruction_set()
    K = np.zeros((n, n))
    for first in range(0, n, BLOCK_ROWS):
        block = U[np.newaxis, first : first + BLOCK_ROWS]
        of_block = np.zeros((1, block.shape[1], n - first))
        _kernels.row_products(U[np.newaxis, first:], block, of_block, False, number)
        K[first : first + BLOCK_ROWS, first:] = of_block
    return K


def padded_zeros(shape, dtype):
    """Zeros, whose lengths are the next multiples of PAD."""
    return np.zeros(tuple(map(padded, shape)), dtype)


def _with_zeros(a, n_axes):
    """a, C-contiguous, with zeros that make the last axes multiples of PAD."""
    lengths = tuple(map(padded, a.shape[-n_axes:]))
    if lengths == a.shape[-n_axes:]:
        return np.ascontiguousarray(a)
    out = np.zeros((*a.shape[:-n_axes], *lengths), a.dtype)
    out[tuple(map(slice, a.shape))] = a
    return out


def lanczos(S, v, n_steps):
    """Eigenvalues of a symmetric matrix and how many there are of each, such that the sums of functions of them are right.

    S multiplies vectors (n_features, n_probes); v are random ones with a mean square of 1, from each of which n_steps are made.
    Functions must be 0 at 0, where these have no part in the eigenvectors. The largest eigenvalue is found first, from below.
    Stochastic Lanczos quadrature (Ubaru, Chen and Saad 2017).
    """
    v = np.ascontiguousarray(v.T)  # probe after probe: NumPy's loops are over features then
    dtype, n_probes, length = v.dtype, len(v), np.sqrt(np.square(v).sum(axis=1))
    v *= np.divide(1, length, out=np.zeros_like(length), where=length > 0)[:, np.newaxis]
    diagonal, off_diagonal = np.zeros((2, n_steps, n_probes))
    previous = np.zeros_like(v)
    for i in range(n_steps):
        w = np.array(S(v.T).T, order="C")
        diagonal[i] = (v * w).sum(axis=1)
        w -= diagonal[i].astype(dtype)[:, np.newaxis] * v
        if i:
            w -= off_diagonal[i - 1].astype(dtype)[:, np.newaxis] * previous
        norm = np.sqrt(np.square(w).sum(axis=1))
        off_diagonal[i] = np.where(norm > np.sqrt(np.finfo(dtype).eps) * diagonal[0], norm, 0.0)
        w *= np.divide(1, norm, out=np.zeros_like(norm), where=off_diagonal[i] > 0)[:, np.newaxis]
        previous, v = v, w
    T = np.zeros((n_probes, n_steps, n_steps))
    steps = np.arange(n_steps)
    T[:, steps, steps] = diagonal.T
    T[:, steps[1:], steps[:-1]] = T[:, steps[:-1], steps[1:]] = off_diagonal[:-1].T
    eigenvalues, vectors = np.linalg.eigh(T)
    counts = vectors[:, 0] ** 2 * (length.astype(np.float64) ** 2 / n_probes)[:, np.newaxis]
    return np.maximum(eigenvalues, 0.0).ravel(), counts.ravel()
