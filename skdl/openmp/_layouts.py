"""Where the parameters of dense and of CSR data lie, and how rows and threads are divided. One is chosen for each fit."""

from itertools import pairwise

import numpy as np

from skdl import _kernels
from skdl._backends import ceil_div, lag_tables, padded, pair_or_zeros
from skdl.openmp import _memory, _threads

# Bytes of converted rows and logits that a chunk of a minibatch may take: half of an L2 of 1 MiB, or twice as much as the
# coefficients where that is more, since each chunk passes over those.
CHUNK_BYTES = 1 << 19
MAX_CHUNK_BYTES = 1 << 22
# A block of columns is the smallest share of a dense row for a thread: about so wide that the sums over its lanes, computed
# once a block, cost little beside the products.
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
    """Bounds of the blocks of columns: a power of two of them, since the number of threads mostly is one."""
    n_vectors = padded(n_features) // _kernels.PAD
    return _memory.even_parts(n_features, min(n_vectors, 1 << max(0, round(np.log2(n_vectors / BLOCK_VECTORS)))))


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


def model_lanes(n_outputs):
    """The number of models of CSR that share a piece: a power of two, or one where the outputs of a model fill vectors.

    Ten alphas of text (20,000 x 50,000) take 0.4 of the time with two classes, and no less with ten.
    """
    if n_outputs > _kernels.PAD // 2:
        return 1
    return min(_kernels.PAD, 1 << (PIECE_OUTPUTS // n_outputs).bit_length() - 1)


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

    def coefficients(self, models):
        """A copy of those of some models (n_models, n_outputs, n_features)."""
        return self._coef.reshape(self.shape)[models, :, : self.n_features].copy()

    def coefficients_velocity(self, models):
        """The same of their velocity."""
        velocity = np.zeros_like(self._coef) if self._velocity is None else self._velocity
        return velocity.reshape(self.shape)[models, :, : self.n_features].copy()


class CSRLayout:
    """Models side by side, in pieces of memory (n_features, 2, lanes) for some of the lanes each: coefficients and velocity.

    The lanes of one model are its outputs. Several models share a piece: lane n_lanes * c + m is output c of model m.
    Lanes are padded to ld. Threads share the blocks of features of each piece. Features that do not occur in a minibatch take
    their steps when they next occur: `lags`. A chunk, and with it the order of every sum, follows from one model's shapes.
    """

    def __init__(self, backend, parameters, velocity, mean, scale, l1, l2, *, momentum, fit_intercept, batch_size):
        self.n_features, dtype = backend.n_features, backend.dtype
        n_models, n_outputs, row_values = len(momentum), backend.n_outputs, backend.row_values
        self._shape = n_models, n_outputs
        self._n_lanes = 1 << (n_models - 1).bit_length()
        ld = csr_outputs(n_outputs) if n_models == 1 else padded(n_outputs * self._n_lanes)
        block = backend.column_block
        n_blocks = len(block) - 1
        self._momentum = momentum
        chunk = chunk_rows(batch_size, (n_blocks + 1) * n_outputs * dtype.itemsize + int(8 * row_values))
        self._piece = _memory.even_parts(ld, ceil_div(ld, PIECE_OUTPUTS)).clip(max=ld)
        n_units = n_blocks * (len(self._piece) - 1)
        useful = _threads.useful_threads(chunk * row_values * (SPARSE_VALUE + SPARSE_OUTPUT * ld))
        self.n_threads = _threads.threads(backend.n_jobs, min(useful, n_units))
        self._feature = _memory.zeros((len(self._piece) - 1, self.n_features), feature_dtype(dtype))
        self._feature["scale"] = 1 if scale is None else scale
        of_lanes = (self.n_features, _kernels.PAD)
        self._penalties = {
            name: None if penalty is None or n_models == 1 else _memory.zeros(of_lanes, dtype)
            for name, penalty in (("l1", l1), ("l2", l2))
        }
        self.lags = _kernels.Lags(self._piece, self._feature, self._n_lanes, **self._penalties)
        self.lags.set_l1(l1 is not None)
        for m in range(n_models):
            self.penalise(slice(m, m + 1), *(None if strength is None else strength[m] for strength in (l1, l2)))
        self._coef = _memory.zeros((2 * self.n_features, ld), dtype)
        self.intercept = np.zeros((2, n_models, n_outputs), dtype)
        for i, pair in enumerate((parameters, velocity)):
            if pair is not None:  # else they are zeros
                coef, self.intercept[i] = pair
                for m, of_model in enumerate(coef):
                    for outputs, memory in self._pieces(m):
                        memory[:, i] = of_model[outputs].T
        self.model = _kernels.Model(self._coef, self.intercept, momentum=momentum, fit_intercept=fit_intercept)
        self.scratch = _kernels.Scratch(
            chunk,
            block,
            _memory.zeros((n_blocks * _kernels.PAD * ld,), dtype),
            _memory.zeros(((n_blocks + 1) * n_models * n_outputs * chunk,), dtype),
            _memory.zeros((n_models * chunk,), dtype),
        )

    def penalise(self, models, l1, l2):
        """Take penalties (n_features,) of some models."""
        for name, strength in (("l1", l1), ("l2", l2)):
            if strength is not None and self._n_lanes == 1:
                self._feature[name] = strength
            elif strength is not None:
                for m in range(*models.indices(self._n_lanes)):
                    self._penalties[name][:, m :: self._n_lanes] = strength[:, np.newaxis]

    def prepare(self, step_sizes):
        """The tables of epochs with these step sizes."""
        tables = [
            lag_tables(sizes.ravel(), momentum) for sizes, momentum in zip(step_sizes, self._momentum, strict=True)
        ]
        if self._n_lanes == 1:
            self.lags.set_tables(**tables[0])
            return
        tables += tables[:1] * (self._n_lanes - len(tables))  # padding takes any steps
        repeated = tables * (_kernels.PAD // self._n_lanes)
        self.lags.set_tables(**{name: np.column_stack([table[name] for table in repeated]) for name in tables[0]})

    def _pieces(self, model):
        """Some outputs of a model, and where they lie (n_features, 2, n)."""
        memory, (_, n_outputs), n_lanes = self._coef.reshape(-1), self._shape, self._n_lanes
        for c0, c1 in pairwise(self._piece):
            piece = memory[2 * self.n_features * c0 : 2 * self.n_features * c1].reshape(self.n_features, 2, c1 - c0)
            outputs = slice(c0 // n_lanes, min(c1 // n_lanes, n_outputs))
            yield outputs, piece[:, :, model : model + n_lanes * (outputs.stop - outputs.start) : n_lanes]

    def _unpacked(self, models, i):
        # In the order of memory, feature after feature: to copy it into another takes four times as long.
        of_each = [
            np.concatenate([memory[:, i].T for _, memory in self._pieces(m)]) for m in range(self._shape[0])[models]
        ]
        return of_each[0][np.newaxis] if len(of_each) == 1 else np.stack(of_each)

    def coefficients(self, models):
        """A copy of those of some models (n_models, n_outputs, n_features)."""
        return self._unpacked(models, 0)

    def coefficients_velocity(self, models):
        """The same of their velocity."""
        return self._unpacked(models, 1)
