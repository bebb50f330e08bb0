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
# A CSR product costs this many operations, since it jumps through memory.
SPARSE_PRODUCT = 40


def column_blocks(n_features):
    """Bounds of the blocks of columns."""
    return _memory.even_parts(n_features, max(1, padded(n_features) // _kernels.PAD // BLOCK_VECTORS))


def chunk_rows(n_rows, row_bytes, coef_bytes=0):
    """Rows of a chunk: as even a share of `n_rows` as padding allows."""
    fitting = max(_kernels.PAD, min(max(CHUNK_BYTES, 2 * coef_bytes), MAX_CHUNK_BYTES) // row_bytes)
    return padded(ceil_div(n_rows, ceil_div(n_rows, fitting)))


def csr_outputs(n_outputs):
    """Outputs to which those of a feature of CSR are padded: whole units of PAD, or a power of two below."""
    return padded(n_outputs) if n_outputs > _kernels.PAD // 2 else 1 << (n_outputs - 1).bit_length()


class DenseLayout:
    """Coefficients and their velocity (n_outputs, ld), with features padded to whole blocks of columns, which threads share."""

    def __init__(self, backend, coef, velocity, *, batch_size, momentum):
        self.n_features, n_outputs, dtype = backend.n_features, backend.n_outputs, backend.dtype
        self.block = backend.column_block
        self.padded_features = ld = self.block[-1]
        n_blocks = len(self.block) - 1
        row_bytes = (ld + (n_blocks + 1) * n_outputs) * dtype.itemsize
        self.chunk = chunk_rows(batch_size, row_bytes, n_outputs * ld * dtype.itemsize)
        self.packed_size = self.chunk * ld
        useful = _threads.useful_threads(4 * self.chunk * self.n_features * (n_outputs + CONVERSION))
        self.n_threads = _threads.threads(backend.n_jobs, useful)
        self.coef = self._padded(coef, (n_outputs, ld), dtype)
        keeps_gradient = momentum > 0 or self.chunk < batch_size
        self.velocity = self._padded(velocity, (n_outputs, ld), dtype) if keeps_gradient else None
        self.lags = None

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
    """A piece of memory (n_features, 2, outputs) for the outputs of each thread, with the coefficients and their velocity.

    Outputs are padded to ld. Features that do not occur in a minibatch take their steps when they next occur: `lags`.
    """

    velocity = None

    def __init__(self, backend, coef, velocity, *, batch_size, momentum):
        self.n_features, self.n_outputs, dtype = backend.n_features, backend.n_outputs, backend.dtype
        self.momentum = momentum
        n_outputs, row_values = backend.n_outputs, backend.row_values
        ld = csr_outputs(n_outputs)
        self.block = np.array([0, self.n_features])
        self.padded_features, self.packed_size = self.n_features, ld
        self.chunk = chunk_rows(batch_size, 2 * n_outputs * dtype.itemsize + int(8 * row_values))
        useful = _threads.useful_threads(SPARSE_PRODUCT * self.chunk * row_values * ld)
        self.n_threads = _threads.threads(backend.n_jobs, min(useful, padded(ld) // _kernels.PAD))
        self.piece = _memory.even_parts(ld, self.n_threads).clip(max=ld)
        self.last_step = np.zeros((self.n_threads, self.n_features), dtype=np.int32)
        self.lags = _kernels.Lags(self.piece, self.last_step)
        self.coef = _memory.zeros((2 * self.n_features, ld), dtype)
        for outputs, memory in self._pieces():
            for i, given in enumerate((coef, velocity)):
                if np.ndim(given):  # else they are zeros
                    memory[:, i, : len(given[outputs])] = given[outputs].T

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
