"""What "auto" stands for: the step size and the number of epochs, from the data. For alpha="auto" see `_evidence`."""

import numpy as np
from scipy import sparse

from skdl._backends import ceil_div
from skdl._products import lanczos, products
from skdl._softmax import curvature_bound

# ---- max_iter

# A fit makes about AUTO_UPDATES updates, or AUTO_EPOCHS epochs if that is more. From the study in benchmarks/auto_lr.py. Rows
# that are not in memory are many: as many updates as such epochs of the smallest data that need no more will do.
AUTO_UPDATES, AUTO_EPOCHS = 3000, 5


def auto_epochs(n_rows, batch_size, *, in_memory=True):
    """Number of epochs that max_iter="auto" stands for: an epoch is few updates on small data and many on large."""
    n_batches = ceil_div(n_rows, batch_size)
    if not in_memory:
        fewest = min(AUTO_EPOCHS, ceil_div(AUTO_EPOCHS * AUTO_UPDATES, n_batches))
        return max(fewest, round(AUTO_UPDATES / n_batches))
    return max(AUTO_EPOCHS, round(AUTO_UPDATES / n_batches))


# ---- lr, and the batch size that goes with it

# Share of the noise bound that a step may take: benchmarks/auto_lr.py. On CSR 10 brings generated counts of 50 classes 2 to 3 %
# further in 13 epochs, but real text 1 % less far, and with one-hot columns coefficients grow with the noise, and alpha falls.
NOISE = 3.8
# Minibatches whose curvature is looked at; beyond SAMPLE_ROWS a minibatch's curvature is that of all data, and long rows
# are sampled more sparingly, for SAMPLE_VALUES in all.
SAMPLED_BATCHES, SAMPLE_ROWS, SAMPLE_VALUES = 8, 1024, 2**22
LANCZOS_STEPS = 4


def even_batch_size(n_rows, batch_size):
    """The size that shares the rows evenly among as many minibatches: a small last one is a noisy one."""
    return ceil_div(n_rows, ceil_div(n_rows, batch_size))


def auto_lr(source, scaling, sampled=None, *, n_outputs, batch_size, momentum, mean_squared_norm=None, full_batch=None):
    """The step size that lr="auto" starts with: the largest that is safe, by two bounds.

    1. Stability: heavy-ball descent on a quadratic of curvature L stands steps up to 2 (1 + momentum) / L (Polyak 1964),
       and the cross-entropy's curvature is at most `curvature_bound` times the largest eigenvalue of the mean of u u^T on a
       minibatch. The intercept is a feature that is always 1.
    2. Noise: where an epoch has several minibatches, the gradient of one is off by about sqrt(mean |u|^2 / batch_size),
       which momentum adds up. Sparse rows share few features and so disturb each other less. `mean_squared_norm` is that of
       weight u over the rows as they are drawn; None: of u, from the statistics. Where models are averaged, their noise is,
       too, and a source says how many times as much of it a step may have.

    In a stream, where minibatches of fewer rows than `full_batch` may follow each other, the noise counts always, and one
    minibatch may not move the intercept by more than its share of a full one.

    sampled: `SampledRows` of the source, or None where an epoch does not visit all rows alike.
    """
    n_batches, bound = source.n_batches(batch_size), curvature_bound(n_outputs)
    of_intercept = 1.0 if full_batch is None else full_batch / batch_size
    lr = 2 * (1 + momentum) / (bound * max(of_intercept, sampled_curvature(source, scaling, sampled, batch_size)))
    if mean_squared_norm is None:
        mean_squared_norm = scaling.mean_square.sum()
    if (n_batches > 1 or full_batch is not None) and mean_squared_norm > 0:
        noise = source.averaged * NOISE
        lr = min(lr, noise * (1 - momentum) * batch_size / (2 * bound * mean_squared_norm))
    return float(lr)


def sampled_curvature(source, scaling, sampled, batch_size):
    """The largest curvature of a few minibatches."""
    row_values = 1 + int(source.row_values) if source.is_sparse else source.n_features
    size = max(1, min(batch_size, SAMPLE_ROWS, SAMPLE_VALUES // row_values))
    n_rows = min(SAMPLED_BATCHES * size, source.n_rows)
    if sampled is not None and n_rows <= len(sampled.rows):
        _, U, weight = sampled
    else:
        X, weight = source.draw(n_rows, np.random.default_rng(0))
        U = scaling.apply(X)
    n_sampled = n_rows // size
    U, weight = U[: n_sampled * size], weight[: n_sampled * size]
    if sparse.issparse(U):
        # Of all minibatches together: one heavy row, whose features are mostly its own, makes that of its minibatch large
        # and does no harm.
        return largest_curvature(U, weight, scaling)
    return largest_curvature(U.reshape(n_sampled, size, -1), weight.reshape(n_sampled, size), scaling)


def largest_curvature(U, weight, scaling):
    """Largest eigenvalue of the mean of weight u u^T over the rows of U, by Lanczos' method: a lower bound, soon close.

    U (n_rows, n_features) CSR, or (n_batches, n_rows, n_features) dense, of which the largest is returned; weight likewise.
    """
    rng, n_batches = np.random.default_rng(0), len(U) if U.ndim == 3 else 1
    v = scaling.random_directions(lambda n_features: rng.normal(size=(n_batches, n_features)).T).astype(U.dtype)
    weight = (weight / weight.shape[-1])[..., np.newaxis].astype(U.dtype)
    multiply, multiply_transposed = products(U)

    def S(v):
        if U.ndim == 3:  # a direction for each minibatch
            return multiply_transposed(weight * multiply(v.T[..., np.newaxis]))[..., 0].T
        return multiply_transposed(weight * multiply(v))

    # From S v, which has no part outside the space of the rows: in that space alone the bound is the same.
    eigenvalues, _ = lanczos(S, S(v), LANCZOS_STEPS)
    return float(eigenvalues.max())
