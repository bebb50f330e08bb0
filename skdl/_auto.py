"""What "auto" stands for: the step size, the strength of the penalty and the number of epochs, from the data."""

import numpy as np
from scipy import sparse

from skdl._backends import ceil_div
from skdl._softmax import curvature_bound

# ---- max_iter

# A fit makes about AUTO_UPDATES updates, or AUTO_EPOCHS epochs if that is more; with fewer than ENOUGH_UPDATES it may stop
# short of the optimum. From the study in benchmarks/auto_lr.py.
AUTO_UPDATES, AUTO_EPOCHS, ENOUGH_UPDATES = 3000, 5, 1000


def auto_epochs(n_rows, batch_size):
    """Number of epochs that max_iter="auto" stands for: an epoch is few updates on small data and many on large."""
    return max(AUTO_EPOCHS, round(AUTO_UPDATES / ceil_div(n_rows, batch_size)))


# ---- alpha

# The strength to begin with, as a share of the curvature of the loss: a constant, and a part that many rows make small.
SHARE, SHARE_OF_A_ROW = 5e-5, 0.1


def auto_alpha(scaling, unit, n_rows, n_classes):
    """The strength of the penalty that alpha="auto" begins with.

    At zero parameters the curvature of the loss along a coefficient for u_j is p (1 - p) mean u_j^2 with p = 1 / n_classes;
    there the penalty, alpha (W_j r_j)^2 / 2, has the curvature alpha (r_j scale_j)^2. With an average of r_j scale_j, which
    is 1 where the penalty has no units, the latter is made a share of the former's sum over the features. In the average
    features weigh by the square of mean u_j^2, which keeps rare ones from deciding. n_rows is the sum of the weights.
    """
    square, p = scaling.mean_square, 1 / n_classes
    if not square.any():
        return 0.0
    weight = (square / square.max()) ** 2
    share = SHARE + SHARE_OF_A_ROW / n_rows
    with np.errstate(over="ignore", divide="ignore"):  # features beyond the square root of float64's range
        alpha = share * p * (1 - p) * square.sum() / np.average(unit * scaling.scale, weights=weight) ** 2
    return min(float(alpha), np.finfo(float).max)


# ---- lr, and the batch size that goes with it

# Share of the noise bound that a step may take, for dense and for sparse X: benchmarks/auto_lr.py, benchmarks/sparse_text.py.
NOISE_DENSE, NOISE_SPARSE = 3.8, 10.0
# Minibatches whose curvature is looked at; beyond SAMPLE_ROWS a minibatch's curvature is that of all data, and long rows
# are sampled more sparingly, for SAMPLE_VALUES in all.
SAMPLED_BATCHES, SAMPLE_ROWS, SAMPLE_VALUES = 8, 1024, 2**22
# Values of a matrix of which BLAS makes a product without threads. Those would spin on for a while, on the cores that the first
# epoch needs (OpenBLAS issue 3187), and the bits would depend on their number; a limit on them is a state of the whole
# process, which fits in several threads would take from each other.
SMALL_PRODUCT, PIECE_COLUMNS = 8192, 128


def even_batch_size(n_rows, batch_size):
    """The size that shares the rows evenly among as many minibatches: a small last one is a noisy one."""
    return ceil_div(n_rows, ceil_div(n_rows, batch_size))


def auto_lr(source, scaling, *, n_outputs, batch_size, momentum):
    """The step size that lr="auto" starts with: the largest that is safe, by two bounds.

    1. Stability: heavy-ball descent on a quadratic of curvature L stands steps up to 2 (1 + momentum) / L (Polyak 1964),
       and the cross-entropy's curvature is at most `curvature_bound` times the largest eigenvalue of the mean of u u^T on a
       minibatch. The intercept is a feature that is always 1.
    2. Noise: where an epoch has several minibatches, the gradient of one is off by about sqrt(mean |u|^2 / batch_size),
       which momentum adds up. Sparse rows share few features and so disturb each other less.
    """
    n_batches, bound = source.n_batches(batch_size), curvature_bound(n_outputs)
    lr = 2 * (1 + momentum) / (bound * max(1.0, sampled_curvature(source, scaling, n_batches, batch_size)))
    mean_squared_norm = scaling.mean_square.sum()
    if n_batches > 1 and mean_squared_norm > 0:
        noise = NOISE_SPARSE if source.is_sparse else NOISE_DENSE
        lr = min(lr, noise * (1 - momentum) * batch_size / (2 * bound * mean_squared_norm))
    return float(lr)


def sampled_curvature(source, scaling, n_batches, batch_size):
    """The largest curvature of a few minibatches."""
    row_values = 1 + int(source.row_values) if source.is_sparse else source.n_features
    size = max(1, min(batch_size, SAMPLE_ROWS, SAMPLE_VALUES // row_values))
    sampled, n_sampled = source.rows, SAMPLED_BATCHES * size
    if n_batches > 1 or n_sampled < source.n_rows:
        sampled = np.random.default_rng(0).choice(source.rows, min(n_sampled, source.n_rows), replace=False)
    n_sampled = len(sampled) // size
    X, weight = source.sample(sampled[: n_sampled * size])
    U = scaling.apply(X)
    if sparse.issparse(U):
        # Of all minibatches together: one heavy row, whose features are mostly its own, makes that of its minibatch large
        # and does no harm.
        return largest_curvature(U, weight)
    return largest_curvature(U.reshape(n_sampled, size, -1), weight.reshape(n_sampled, size))


def largest_curvature(U, weight, n_iter=10):
    """Largest eigenvalue of the mean of weight u u^T over the rows of U, by power iteration: a lower bound, soon close.

    U (n_rows, n_features) CSR, or (n_batches, n_rows, n_features) dense, of which the largest is returned; weight likewise.
    """
    v = np.random.default_rng(0).normal(size=(*U.shape[:-2], U.shape[-1], 1)).astype(U.dtype)
    weight = (weight / weight.sum(axis=-1, keepdims=True))[..., np.newaxis].astype(U.dtype)
    multiply, multiply_transposed = _csr_products(U) if sparse.issparse(U) else _dense_products(U)

    def along(v):
        norm = np.sqrt((v**2).sum(axis=-2, keepdims=True))
        return multiply(v / np.where(norm > 0, norm, 1))

    p = along(v)
    for _ in range(n_iter - 1):
        p = along(multiply_transposed(weight * p))
    return float((weight * p**2).sum(axis=-2).max())


def _csr_products(U):
    return lambda v: U @ v, lambda p: U.T @ p


def _dense_products(U):
    """Functions of v (n_batches, n_features, 1) and p (n_batches, n_rows, 1): U v and U^T p, by products of small pieces."""
    n_batches, n_rows, n_features = U.shape
    if n_rows * n_features <= SMALL_PRODUCT:
        transposed = U.swapaxes(1, 2)
        return lambda v: U @ v, lambda p: transposed @ p
    n_across = ceil_div(n_features, PIECE_COLUMNS)
    columns = ceil_div(n_features, n_across)
    rows = next(r for r in range(min(n_rows, SMALL_PRODUCT // columns), 0, -1) if n_rows % r == 0)
    padding = [(0, 0), (0, 0), (0, n_across * columns - n_features)]
    if padding[2] != (0, 0):
        U = np.pad(U, padding)
    pieces = U.reshape(n_batches, n_rows // rows, rows, n_across, columns).swapaxes(2, 3)
    transposed = pieces.swapaxes(3, 4)

    def multiply(v):
        if padding[2] != (0, 0):
            v = np.pad(v, [padding[0], padding[2], (0, 0)])
        return (pieces @ v.reshape(n_batches, 1, n_across, columns, 1)).sum(axis=2).reshape(n_batches, n_rows, 1)

    def multiply_transposed(p):
        products = transposed @ p.reshape(n_batches, n_rows // rows, 1, rows, 1)
        return products.sum(axis=1).reshape(n_batches, -1, 1)[:, :n_features]

    return multiply, multiply_transposed
