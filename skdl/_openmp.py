"""The CPU backend: layouts, scratch and threads around the Cython kernels."""

import math
import os
from itertools import pairwise

import joblib
import numpy as np
from scipy import sparse

from skdl import _kernels

# Bytes of converted rows and logits that a chunk of a minibatch may take: half of a second cache of 1 MiB, or twice as much as
# the coefficients where that is more, since each chunk passes over those.
CHUNK_BYTES = 1 << 19
MAX_CHUNK_BYTES = 1 << 22
# Rows whose sums are made in the type of the data before they are added up in double.
STATISTICS_ROWS = 64
# Parts of the rows whose sums are made apart, whatever the number of threads; and values of X that feed a further thread.
STATISTICS_PARTS = 8
STATISTICS_VALUES = 200_000
# A block of columns is the smallest share of a dense row for a thread: wide enough that the sums over its lanes,
# made once a block, cost little beside the products.
BLOCK_VECTORS = 24
# Rows that the forward kernel works on at once.
ROW_TILE = 4
# Floating point operations of a minibatch, some 20 microseconds of them, below which a further thread costs more, at the
# barriers, than it brings; as how many classes the conversion of a value counts; and as how many operations a product of
# CSR, whose parameters lie anywhere in memory.
FLOP_PER_THREAD = 1_600_000
CONVERSION = 7
SPARSE_PRODUCT = 40

_forked = False


def _after_fork():
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def available_cores():
    """Number of cores that affinity, cgroup quota and joblib's limits leave to the process."""
    return joblib.cpu_count()


def max_threads(n_jobs):
    """Number of threads that `n_jobs` stands for.

    None means as many as the process may use: OMP_NUM_THREADS and the limits of threadpoolctl hold. A negative number
    counts from there, as in joblib. There are never more than cores: they would wait for each other at every minibatch.
    A forked child works on one thread, since OpenMP's threads do not survive a fork; results do not change with it.
    """
    if _forked or not _kernels.OPENMP or n_jobs == 1:
        return 1
    if n_jobs is not None and n_jobs > 0:
        return min(n_jobs, available_cores())
    available = min(_kernels.max_threads(), available_cores())
    return max(1, available + 1 + (-1 if n_jobs is None else n_jobs))


def threads(n_jobs, useful):
    """Number of threads to start where `useful` could be fed. To ask how many there are takes longer than small work does."""
    return min(useful, max_threads(n_jobs)) if useful > 1 else 1


def useful_threads(flop):
    """Number of threads that so many floating point operations between two barriers can feed."""
    return 1 + int(flop // FLOP_PER_THREAD)


def instruction_set():
    """Number and name of the instruction set in use: the widest, or what SKDL_INSTRUCTION_SET names."""
    names = _kernels.instruction_sets()
    name = os.environ.get("SKDL_INSTRUCTION_SET", names[-1])
    if name not in names:
        raise ValueError(
            f"SKDL_INSTRUCTION_SET={name!r} is not to be had on this processor: it has {', '.join(names)}."
        )
    return names.index(name), name


def steps_owed(step_sizes, momentum):
    """Tables (n_batches + 2,) of what a feature of CSR, which takes its steps when it next occurs, owes by then.

    With s the first step not taken and t the next to come: its velocity moves it by v (drift[s] - decay[t - s] drift[t]) and
    decays by decay[t - s]; its penalty is that of a step of elapsed[t] - elapsed[s]. Step 0 is none: it stands for the decay
    of the velocity with which an epoch begins.
    """
    step = np.concatenate([[0.0], step_sizes])
    drift = np.zeros(len(step) + 1)
    for s in range(len(step) - 1, -1, -1):
        drift[s] = step[s] + momentum * drift[s + 1]
    decay = momentum ** np.arange(len(step) + 1.0)
    return {"drift": drift, "decay": decay, "cumulative_lr": np.concatenate([[0.0], np.cumsum(step)])}


def compute_dtype(X):
    """The type in which a fit on X computes: float64 for float64, float32 for everything narrower."""
    return np.dtype(np.float64 if X.dtype == np.float64 else np.float32)


def _padded(n):
    return -(-n // _kernels.PAD) * _kernels.PAD


def _zeros(shape, dtype):
    """Zeros that begin at a cache line: a vector of 64 bytes that lies across two costs twice. A vector that begins in them may
    be read to its end.
    """
    size = math.prod(shape) * dtype.itemsize
    memory = np.zeros(size + 128, dtype=np.uint8)
    begin = -memory.ctypes.data % 64
    return memory[begin : begin + size].view(dtype).reshape(shape)


def _pad_columns(a, ld, dtype):
    out = _zeros((len(a), ld), dtype)
    out[:, : a.shape[1]] = a
    return out


def _bytes(X):
    """The memory of a C-ordered array (n_rows, n_columns) as unsigned bytes, one row a row."""
    return X.view(np.uint8).reshape(len(X), -1)


def _even_parts(n, n_parts):
    """Bounds (n_parts + 1,) of parts of n columns or classes, padded to whole units of PAD, as even as can be."""
    n_units = _padded(n) // _kernels.PAD
    return np.array([_kernels.PAD * (n_units * i // n_parts) for i in range(n_parts + 1)], dtype=np.int64)


def _column_blocks(n_features):
    return _even_parts(n_features, max(1, _padded(n_features) // _kernels.PAD // BLOCK_VECTORS))


def _chunk_rows(n_rows, row_bytes, coef_bytes=0):
    """Rows of a chunk: as even a share of `n_rows` as padding allows."""
    fitting = max(_kernels.PAD, min(max(CHUNK_BYTES, 2 * coef_bytes), MAX_CHUNK_BYTES) // row_bytes)
    return _padded(-(-n_rows // -(-n_rows // fitting)))


class OpenMPBackend:
    """Trains on the CPU; see `skdl._backends.Backend` for what the methods promise."""

    def __init__(self, X, y, weight, n_classes, *, n_jobs=None, device=None):
        if device is not None:
            raise ValueError(
                f"device={device!r} needs backend='opencl'; backend='openmp' runs on the CPU (device=None)."
            )
        self.dtype = compute_dtype(X)
        self.n_features, self.n_classes = X.shape[1], n_classes
        self.is_sparse = sparse.issparse(X)
        self.n_jobs = n_jobs
        self.level = instruction_set()[0]
        self.y = y
        self.weight = None if weight is None else weight.astype(self.dtype)
        self.X = X
        values, indices = (X.data, X.indices) if self.is_sparse else (X, None)
        if self.is_sparse and X.indptr[-1] == 0:  # the kernel takes the address of the first value
            values, indices = np.zeros(1, values.dtype), np.zeros(1, indices.dtype)
        self._data = dict(
            X=_bytes(np.atleast_2d(values)),
            indices=indices.view(np.uint8) if self.is_sparse else None,
            indptr=X.indptr.view(np.uint8) if self.is_sparse else None,
            storage=_kernels.STORAGE[values.dtype.name],
            index64=self.is_sparse and indices.dtype == np.int64,
            n_features=self.n_features,
            y=y,
            weight=self.weight,
            isa=self.level,
        )
        self.block = np.array([0, self.n_features]) if self.is_sparse else _column_blocks(self.n_features)

    def column_statistics(self, rows):
        weight = self.weight
        sum_weight = len(rows) if weight is None else weight[rows].sum(dtype=np.float64)
        if self.is_sparse:
            total = np.zeros((2, self.n_features))
            _kernels.sparse_column_statistics(
                self.X.data,
                self.X.indices,
                self.X.indptr,
                rows,
                None if weight is None else weight.astype(np.float64),
                total,
            )
            square, largest = total
            return np.zeros(self.n_features), square / sum_weight, -largest, largest
        # Threads share the rows, since a thread that reads on is the fastest; where rows are wide, a part of each is enough.
        ld, n_blocks = self.block[-1], len(self.block) - 1
        n_parts = 1 if n_blocks >= STATISTICS_PARTS else STATISTICS_PARTS
        n_threads = threads(self.n_jobs, min(max(n_parts, n_blocks), 1 + len(rows) * ld // STATISTICS_VALUES))
        first = _pad_columns(self.X[rows[:1]], ld, self.dtype)[0]
        total, extremes = np.zeros((n_parts, 2, ld)), _zeros((n_parts, 2, ld), self.dtype)
        extremes[:, 0], extremes[:, 1] = np.inf, -np.inf
        _kernels.column_statistics(
            first,
            extremes,
            _zeros(((1 if n_parts == 1 else n_threads) * STATISTICS_ROWS * ld,), self.dtype),
            STATISTICS_ROWS,
            self._data["X"],
            self._data["storage"],
            self.n_features,
            rows,
            weight,
            self.block,
            total,
            n_threads,
            self.level,
        )
        low = extremes[:, 0, : self.n_features].min(axis=0).astype(np.float64)
        high = extremes[:, 1, : self.n_features].max(axis=0).astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite tells the caller so
            mean, square = total.sum(axis=0)[:, : self.n_features] / sum_weight
            return first[: self.n_features] + mean, square - mean**2, low, high

    def start(self, parameters, velocity, *, mean, scale, l1, l2, momentum, fit_intercept, batch_size):
        n_classes, n_features, dtype = self.n_classes, self.n_features, self.dtype
        coef, intercept = (None, np.zeros(n_classes)) if parameters is None else parameters
        coef_velocity, intercept_velocity = (None, np.zeros(n_classes)) if velocity is None else velocity

        if self.is_sparse:
            ld = _padded(n_classes) if n_classes > _kernels.PAD // 2 else 1 << (n_classes - 1).bit_length()
            padded_features, n_blocks, n_values = n_features, 1, self.X.nnz
            row_values = n_values / self.X.shape[0]
            chunk = _chunk_rows(batch_size, 2 * n_classes * dtype.itemsize + int(8 * row_values))
            useful = useful_threads(SPARSE_PRODUCT * chunk * row_values * ld)
            n_threads = threads(self.n_jobs, min(useful, _padded(ld) // _kernels.PAD))  # which share the classes
            scratch = ld
            self.part = _even_parts(ld, n_threads).clip(max=ld)
            self.stamp = np.zeros((n_threads, n_features), dtype=np.int32)
            self.coef, self.velocity = _zeros((2 * n_features, ld), dtype), None
            for classes, part in self._parts():
                for i, given in enumerate((coef, coef_velocity)):
                    if given is not None:
                        part[:, i, : len(given[classes])] = given[classes].T
        else:
            ld = padded_features = self.block[-1]
            n_blocks = len(self.block) - 1
            row_bytes = (ld + (n_blocks + 1) * n_classes) * dtype.itemsize
            chunk = _chunk_rows(batch_size, row_bytes, n_classes * ld * dtype.itemsize)
            keeps_gradient = momentum > 0 or chunk < batch_size

            def padded(a):
                return _zeros((n_classes, ld), dtype) if a is None else _pad_columns(a, ld, dtype)

            self.coef, self.velocity = padded(coef), padded(coef_velocity) if keeps_gradient else None
            n_threads = threads(self.n_jobs, useful_threads(4 * chunk * n_features * (n_classes + CONVERSION)))
            scratch = chunk * ld
            self.part = self.stamp = None
        self.intercept = np.ascontiguousarray([intercept, intercept_velocity], dtype=dtype)

        def per_feature(a):
            return None if a is None else _pad_columns(a[np.newaxis], padded_features, dtype)[0]

        self.momentum, self.batch_size = momentum, batch_size
        self._start = dict(
            mean=None if self.is_sparse else per_feature(mean),
            scale=per_feature(scale),
            coef=self.coef,
            velocity=self.velocity,
            intercept=self.intercept,
            fit_intercept=fit_intercept,
            l1=per_feature(l1),
            l2=per_feature(l2),
            momentum=momentum,
            block=self.block,
            packed=_zeros((scratch,), dtype),
            logits=_zeros(((n_blocks + 1) * n_classes * chunk,), dtype),
            loss=_zeros((chunk,), dtype),
            piece=self.part,
            last_step=self.stamp,
            n_threads=n_threads,
        )

    def run_epoch(self, order, step_sizes):
        owed = steps_owed(step_sizes, self.momentum) if self.is_sparse else dict(drift=None, decay=None, cumulative_lr=None)
        total = _kernels.run_epoch(
            **self._data,
            **self._start,
            order=order,
            batch_size=self.batch_size,
            step_sizes=step_sizes,
            **owed,
        )
        return total / len(order)

    def _parts(self):
        """Of CSR's parameters: classes, and their piece of memory (n_features, 2, n_classes), where padding may follow."""
        memory = self.coef.reshape(-1)
        for c0, c1 in pairwise(self.part):
            piece = memory[2 * self.n_features * c0 : 2 * self.n_features * c1]
            yield slice(c0, c1), piece.reshape(self.n_features, 2, c1 - c0)

    def _unpacked(self, i):
        """Of CSR, a copy (n_classes, n_features) of the coefficients (0) or their velocity (1)."""
        return np.concatenate([part[:, i].T for _, part in self._parts()])[: self.n_classes]

    def get_parameters(self):
        coef = self._unpacked(0) if self.is_sparse else self.coef[:, : self.n_features].copy()
        return coef, self.intercept[0].copy()

    def get_velocity(self):
        if self.is_sparse:
            velocity = self._unpacked(1)
        else:
            velocity = np.zeros_like(self.coef) if self.velocity is None else self.velocity
            velocity = velocity[:, : self.n_features].copy()
        return velocity, self.intercept[1].copy()


def decision_function(X, coef, intercept, *, rows=None, n_jobs=None, device=None):
    if sparse.issparse(X):
        X = X if rows is None else X[rows]
        if X.nnz < X.shape[1] // 4:  # the product reads all coefficients: spare those of features that do not occur
            features, indices = np.unique(X.indices[: X.nnz], return_inverse=True)
            X = sparse.csr_array((X.data[: X.nnz], indices, X.indptr), shape=(X.shape[0], len(features)))
            coef = coef[:, features]
        return np.asarray(X @ coef.T.astype(np.result_type(compute_dtype(X), coef))) + intercept
    dtype = np.result_type(compute_dtype(X), coef.dtype)
    n_rows = len(X) if rows is None else len(rows)
    n_classes, n_features = coef.shape
    out = np.empty((n_rows, n_classes), dtype=dtype)
    block = np.array([0, _padded(n_features)])
    ld = block[-1]
    chunk = min(_chunk_rows(n_rows, (ld + n_classes) * dtype.itemsize), 128, -(-n_rows // ROW_TILE) * ROW_TILE)
    n_chunks = -(-n_rows // chunk)
    n_threads = threads(n_jobs, min(n_chunks, useful_threads(2 * n_rows * n_features * (n_classes + CONVERSION))))
    _kernels.decision_function(
        _bytes(X),
        _kernels.STORAGE[X.dtype.name],
        n_features,
        rows,
        np.ascontiguousarray(coef, dtype) if n_features == ld else _pad_columns(coef, ld, dtype),
        intercept.astype(dtype),
        block,
        chunk,
        _zeros((n_threads * chunk * ld,), dtype),
        _zeros((n_threads * n_classes * chunk,), dtype),
        out,
        n_threads,
        instruction_set()[0],
    )
    return out
