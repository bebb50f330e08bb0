"""Where the parameters of dense and of CSR data lie, and how rows and threads are divided. One is chosen for each fit."""

from itertools import pairwise

import numpy as np

from skdl import _kernels
from skdl._backends import ceil_div, lag_tables
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
    """Coefficients and their velocity (n_outputs, ld), with features padded to whole blocks of columns, which threads share."""

    l1 = l2 = None

    def __init__(self, backend, coef, velocity, mean, scale, *, batch_size, momentum):
        self.n_features, n_outputs, self.dtype = backend.n_features, backend.n_outputs, backend.dtype
        self.block, dtype = backend.column_block, self.dtype
        ld = self.block[-1]
        n_blocks = len(self.block) - 1
        row_bytes = (ld + (n_blocks + 1) * n_outputs) * dtype.itemsize
        self.chunk = chunk_rows(batch_size, row_bytes, n_outputs * ld * dtype.itemsize)
        self.packed_size = self.chunk * ld
        useful = _threads.useful_threads(4 * self.chunk * self.n_features * (n_outputs + CONVERSION))
        self.n_threads = _threads.threads(backend.n_jobs, useful)
        self.coef = self._padded(coef, (n_outputs, ld), dtype)
        keeps_gradient = momentum > 0 or self.chunk < batch_size
        self.velocity = self._padded(velocity, (n_outputs, ld), dtype) if keeps_gradient else None
        self.mean, self.scale = self._per_feature(mean), self._per_feature(scale)
        self.lags = None

    def _per_feature(self, a):
        return None if a is None else _memory.pad_columns(np.atleast_2d(a), self.block[-1], self.dtype)[0]

    def penalise(self, l1, l2):
        """Take penalties as `Backend.start` gets them. A model reads them where they were first."""
        for name, strength in (("l1", l1), ("l2", l2)):
            if getattr(self, name) is None:
                setattr(self, name, self._per_feature(strength))
            elif strength is not None:
                getattr(self, name)[: self.n_features] = strength[0]

    @staticmethod
    def _padded(a, shape, dtype):
        return _memory.pad_columns(a, shape[1], dtype) if np.ndim(a) else _memory.zeros(shape, dtype)

    def prepare(self, step_sizes):
        """What an epoch needs beside `step_sizes`: nothing."""

    def coefficients(self):
        """A copy (n_outputs, n_features)."""
        return self.coef[:, : self.n_features].copy()

    def coefficients_velocity(self):
        """The same of their velocity."""
        velocity = np.zeros_like(self.coef) if self.velocity is None else self.velocity
        return velocity[:, : self.n_features].copy()


class CSRLayout:
    """Pieces of memory (n_features, 2, outputs) for some of the outputs each, with the coefficients and their velocity.

    Outputs are padded to ld. Threads share the blocks of features of each piece. Features that do not occur in a minibatch take
    their steps when they next occur: `lags`.
    """

    mean = scale = l1 = l2 = velocity = None

    def __init__(self, backend, coef, velocity, mean, scale, *, batch_size, momentum):
        self.n_features, self.n_outputs, dtype = backend.n_features, backend.n_outputs, backend.dtype
        self.momentum = momentum
        n_outputs, row_values = backend.n_outputs, backend.row_values
        ld = csr_outputs(n_outputs)
        self.block = backend.column_block
        n_blocks = len(self.block) - 1
        self.packed_size = n_blocks * _kernels.PAD * ld
        self.chunk = chunk_rows(batch_size, (n_blocks + 1) * n_outputs * dtype.itemsize + int(8 * row_values))
        self.piece = _memory.even_parts(ld, ceil_div(ld, PIECE_OUTPUTS)).clip(max=ld)
        n_units = n_blocks * (len(self.piece) - 1)
        useful = _threads.useful_threads(self.chunk * row_values * (SPARSE_VALUE + SPARSE_OUTPUT * ld))
        self.n_threads = _threads.threads(backend.n_jobs, min(useful, n_units))
        self.feature = _memory.zeros((len(self.piece) - 1, self.n_features), feature_dtype(dtype))
        self.feature["scale"] = 1 if scale is None else scale
        self.lags = _kernels.Lags(self.piece, self.feature)
        self.coef = _memory.zeros((2 * self.n_features, ld), dtype)
        for outputs, memory in self._pieces():
            for i, given in enumerate((coef, velocity)):
                if np.ndim(given):  # else they are zeros
                    memory[:, i, : len(given[outputs])] = given[outputs].T

    def penalise(self, l1, l2):
        """Take these penalties, as `Backend.start` and `Backend.penalise` get them."""
        self.lags.set_l1(l1 is not None)
        for name, strength in (("l1", l1), ("l2", l2)):
            if strength is not None:
                [self.feature[name]] = strength

    def prepare(self, step_sizes):
        """The tables of an epoch with these step sizes."""
        self.lags.set_tables(**lag_tables(step_sizes, self.momentum))

    def _pieces(self):
        """Outputs, and their piece of memory, in which padding may follow them."""
        memory = self.coef.reshape(-1)
        for c0, c1 in pairwise(self.piece):
            piece = memory[2 * self.n_features * c0 : 2 * self.n_features * c1]
            yield slice(c0, c1), piece.reshape(self.n_features, 2, c1 - c0)

    def _unpacked(self, i):
        return np.concatenate([memory[:, i].T for _, memory in self._pieces()])[: self.n_outputs]

    def coefficients(self):
        """A copy (n_outputs, n_features)."""
        return self._unpacked(0)

    def coefficients_velocity(self):
        """The same of their velocity."""
        return self._unpacked(1)
