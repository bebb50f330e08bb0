"""Where the parameters of dense and of CSR data lie, and how rows and threads are divided. One is chosen for each fit."""

from itertools import pairwise

import numpy as np

from skdl import _kernels
from skdl._backends import ceil_div, lag_tables, pair_or_zeros
from skdl.openmp import _memory, _threads
from skdl.openmp._memory import padded

# Bytes of converted rows and logits that a chunk of a minibatch may take: half of an L2 of 1 MiB, or twice as much as the
# coefficients where that is more, since each chunk passes over those.
CHUNK_BYTES = 1 << 19
MAX_CHUNK_BYTES = 1 << 22
# A block of columns is the smallest share of a dense row for a thread: wide enough that the sums over its lanes, computed once
# a block, cost little beside the products.
BLOCK_VECTORS = 24
# Converting a value of X costs as much as this many outputs.
CONVERSION = 7
# Operations that a stored value of CSR costs, since it jumps through memory, and those for each of its outputs: 11 and 0.6 ns
# (60,000 x 80,000, 14 values a row, 2 to 58 classes, one thread) where FLOP_PER_THREAD takes 20 us.
SPARSE_VALUE = 900
SPARSE_OUTPUT = 50
# A block of features has at least so many values of a mean row of CSR, so that its partial logits cost little beside them; and
# there are at most so many blocks. Their bounds are those that halve the values of some rows.
SPARSE_BLOCK_VALUES = 6
SPARSE_BLOCKS = 4
SAMPLED_ROWS = 1000
# The most outputs of a piece, for which the micro-kernels of CSR are made.
PIECE_OUTPUTS = 64


def column_blocks(n_features):
    """Bounds of the blocks of columns."""
    return _memory.even_parts(n_features, max(1, padded(n_features) // _kernels.PAD // BLOCK_VECTORS))


def feature_dtype(dtype):
    """What the kernels keep of each feature of CSR."""
    return np.dtype([("last_step", f"i{dtype.itemsize}"), ("scale", dtype), ("l1", dtype), ("l2", dtype)])


def feature_blocks(source):
    """Bounds of the blocks of features of CSR, with about as many stored values in each."""
    n_blocks = int(np.clip(source.row_values // SPARSE_BLOCK_VALUES, 1, SPARSE_BLOCKS))
    if n_blocks == 1:
        return np.array([0, source.n_features])
    rows = source.rows[:: ceil_div(len(source.rows), SAMPLED_ROWS)]
    indices = np.sort(source.X[rows].indices)
    if len(indices) == 0:
        return np.array([0, source.n_features])
    bounds = indices[[len(indices) * i // n_blocks for i in range(1, n_blocks)]]
    return np.array([0, *(bounds // _kernels.PAD * _kernels.PAD), source.n_features], dtype=np.int64)


def chunk_rows(n_rows, row_bytes, coef_bytes=0):
    """Rows of a chunk: as even a share of `n_rows` as padding allows."""
    fitting = max(_kernels.PAD, min(max(CHUNK_BYTES, 2 * coef_bytes), MAX_CHUNK_BYTES) // row_bytes)
    return padded(ceil_div(n_rows, ceil_div(n_rows, fitting)))


def csr_outputs(n_outputs):
    """Outputs to which those of a feature of CSR are padded: whole units of PAD, or a power of two below."""
    return padded(n_outputs) if n_outputs > _kernels.PAD // 2 else 1 << (n_outputs - 1).bit_length()


class DenseLayout:
    """Models side by side: coefficients and their velocity (n_models * n_outputs, ld).

    Features are padded to whole blocks of columns, which threads share. A chunk, and with it the order of every sum, follows
    from one model's shapes.
    """

    lags = None

    def __init__(self, backend, parameters, velocity, mean, scale, l1, l2, *, momentum, fit_intercept, batch_size):
        self.n_features, self.dtype, self.block = backend.n_features, backend.dtype, backend.column_block
        n_models, n_outputs, ld, n_blocks = len(momentum), backend.n_outputs, self.block[-1], len(self.block) - 1
        self.shape = n_models, n_outputs, ld
        row_bytes = (ld + (n_blocks + 1) * n_outputs) * self.dtype.itemsize
        chunk = chunk_rows(batch_size, row_bytes, n_outputs * ld * self.dtype.itemsize)
        useful = _threads.useful_threads(4 * chunk * self.n_features * (n_models * n_outputs + CONVERSION))
        self.n_threads = _threads.threads(backend.n_jobs, useful)
        coef, intercept = pair_or_zeros(parameters)
        coef_velocity, intercept_velocity = pair_or_zeros(velocity)
        self._coef = self._padded(coef)
        keeps_gradient = momentum.any() or chunk < batch_size
        self._velocity = self._padded(coef_velocity) if keeps_gradient else None
        self.intercept = np.zeros((2, n_models, n_outputs), self.dtype)
        self.intercept[0], self.intercept[1] = intercept, intercept_velocity
        self._penalties = self._per_feature(l1), self._per_feature(l2)
        self.model = _kernels.Model(
            self._coef,
            self.intercept,
            self._velocity,
            self._per_feature(mean),
            self._per_feature(scale),
            *self._penalties,
            momentum,
            fit_intercept,
        )
        self.scratch = _kernels.Scratch(
            chunk,
            self.block,
            _memory.zeros((chunk * ld,), self.dtype),
            _memory.zeros(((n_blocks + 1) * n_models * n_outputs * chunk,), self.dtype),
            _memory.zeros((n_models * chunk,), self.dtype),
        )

    def _padded(self, a):
        n_models, n_outputs, ld = self.shape
        if np.ndim(a) == 0:
            return _memory.zeros((n_models * n_outputs, ld), self.dtype)
        return _memory.pad_columns(a.reshape(n_models * n_outputs, self.n_features), ld, self.dtype)

    def _per_feature(self, a):
        return None if a is None else _memory.pad_columns(np.atleast_2d(a), self.block[-1], self.dtype)

    def penalise(self, models, *strengths):
        """Take penalties (n_features,) of some models, where these had any."""
        for penalty, strength in zip(self._penalties, strengths, strict=True):
            if strength is not None:
                penalty[models, : self.n_features] = strength

    def prepare(self, step_sizes):
        """What an epoch needs beside `step_sizes`: nothing."""

    def coefficients(self):
        """Those of all models (n_models, n_outputs, n_features), in place."""
        return self._coef.reshape(self.shape)[..., : self.n_features]

    def coefficients_velocity(self):
        """The same of their velocity."""
        velocity = np.zeros_like(self._coef) if self._velocity is None else self._velocity
        return velocity.reshape(self.shape)[..., : self.n_features]


class CSRLayout:
    """One model, in pieces of memory (n_features, 2, outputs) for some of the outputs each: coefficients and their velocity.

    Outputs are padded to ld. Threads share the blocks of features of each piece. Features that do not occur in a minibatch take
    their steps when they next occur: `lags`.
    """

    def __init__(self, backend, parameters, velocity, mean, scale, l1, l2, *, momentum, fit_intercept, batch_size):
        self.n_features, self.n_outputs, dtype = backend.n_features, backend.n_outputs, backend.dtype
        n_outputs, row_values = backend.n_outputs, backend.row_values
        ld, block = csr_outputs(n_outputs), backend.column_block
        n_blocks = len(block) - 1
        [self._momentum] = momentum
        chunk = chunk_rows(batch_size, (n_blocks + 1) * n_outputs * dtype.itemsize + int(8 * row_values))
        self._piece = _memory.even_parts(ld, ceil_div(ld, PIECE_OUTPUTS)).clip(max=ld)
        n_units = n_blocks * (len(self._piece) - 1)
        useful = _threads.useful_threads(chunk * row_values * (SPARSE_VALUE + SPARSE_OUTPUT * ld))
        self.n_threads = _threads.threads(backend.n_jobs, min(useful, n_units))
        self._feature = _memory.zeros((len(self._piece) - 1, self.n_features), feature_dtype(dtype))
        self._feature["scale"] = 1 if scale is None else scale
        self.lags = _kernels.Lags(self._piece, self._feature)
        self.lags.set_l1(l1 is not None)
        self.penalise(slice(None), *(None if strength is None else strength[0] for strength in (l1, l2)))
        self._coef = _memory.zeros((2 * self.n_features, ld), dtype)
        self.intercept = np.zeros((2, 1, n_outputs), dtype)
        for i, pair in enumerate((parameters, velocity)):
            if pair is not None:  # else they are zeros
                [coef], self.intercept[i] = pair
                for outputs, memory in self._pieces():
                    memory[:, i, : len(coef[outputs])] = coef[outputs].T
        self.model = _kernels.Model(self._coef, self.intercept, momentum=momentum, fit_intercept=fit_intercept)
        self.scratch = _kernels.Scratch(
            chunk,
            block,
            _memory.zeros((n_blocks * _kernels.PAD * ld,), dtype),
            _memory.zeros(((n_blocks + 1) * n_outputs * chunk,), dtype),
            _memory.zeros((chunk,), dtype),
        )

    def penalise(self, models, l1, l2):
        """Take penalties (n_features,) of the model."""
        for name, strength in (("l1", l1), ("l2", l2)):
            if strength is not None:
                self._feature[name] = strength

    def prepare(self, step_sizes):
        """The tables of an epoch with these step sizes."""
        self.lags.set_tables(**lag_tables(step_sizes.ravel(), self._momentum))

    def _pieces(self):
        """Outputs, and their piece of memory, in which padding may follow them."""
        memory = self._coef.reshape(-1)
        for c0, c1 in pairwise(self._piece):
            piece = memory[2 * self.n_features * c0 : 2 * self.n_features * c1]
            yield slice(c0, c1), piece.reshape(self.n_features, 2, c1 - c0)

    def _unpacked(self, i):
        return np.concatenate([memory[:, i].T for _, memory in self._pieces()])[np.newaxis, : self.n_outputs]

    def coefficients(self):
        """A copy (1, n_outputs, n_features)."""
        return self._unpacked(0)

    def coefficients_velocity(self):
        """The same of their velocity."""
        return self._unpacked(1)
