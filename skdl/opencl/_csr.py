"""CSR on its way to the device: the host gathers and sorts the stored values of some minibatches at a time."""

import numpy as np
from scipy import sparse

from skdl._backends import ceil_div


def with_ones(X):
    """CSR rows with a last column of ones, for the intercept: (values, columns, ends of the rows)."""
    ends = X.indptr.astype(np.int64) + np.arange(X.shape[0] + 1)
    stored = np.ones(ends[-1], dtype=bool)
    stored[ends[1:] - 1] = False
    values, columns = np.ones(ends[-1], X.dtype), np.full(ends[-1], X.shape[1], np.int32)
    values[stored], columns[stored] = X.data[: X.indptr[-1]], X.indices[: X.indptr[-1]]
    return values, columns, ends.astype(np.int32)


def by_feature(rows, batch_size):
    """The stored values of `with_ones`, sorted by minibatch, feature and row, as the kernel `sparse_step` wants them; and
    the number of features that occur in each minibatch.
    """
    values, columns, ends = rows
    n_rows = len(ends) - 1
    n_batches = ceil_div(n_rows, batch_size)
    shape = n_rows, int(columns.max()) + 1
    sorted_by_column = sparse.csr_array((np.arange(len(values)), columns, ends), shape=shape).tocsc()
    row = sorted_by_column.indices
    batch = (row // batch_size).astype(np.uint16 if n_batches < 2**16 else np.int64)  # 16 bits: a radix sort
    by_batch = np.argsort(batch, kind="stable")
    row, batch = row[by_batch], batch[by_batch].astype(np.int64)
    column = np.repeat(np.arange(shape[1], dtype=np.int32), np.diff(sorted_by_column.indptr))[by_batch]
    begins = np.flatnonzero(np.append(True, (np.diff(batch) != 0) | (np.diff(column) != 0)))
    batch_begin = np.searchsorted(batch[begins], np.arange(n_batches + 1)).astype(np.int32)
    return (
        values[sorted_by_column.data[by_batch]],
        (row - batch * batch_size).astype(np.int32),
        batch_begin,
        column[begins],
        np.append(begins, len(values)).astype(np.int32),
        np.diff(batch_begin),
    )
