"""The CPU backend: what the Cython kernels are given to train, to predict and to describe columns."""

from functools import cached_property

import numpy as np
from scipy import sparse

from skdl import _kernels
from skdl._backends import compute_dtype, csr_statistics, moments, pair_or_zeros
from skdl.openmp import _memory, _threads
from skdl.openmp._layouts import CSRLayout, DenseLayout, column_blocks, feature_blocks
from skdl.openmp._predictor import Predictor

# Rows whose sums are computed in the type of the data before they are added up in double.
STATISTICS_ROWS = 64
# Parts of the rows whose sums are computed apart, whatever the number of threads; and values of X that are enough work for a
# further thread.
STATISTICS_PARTS = 8
STATISTICS_VALUES = 200_000


class PlacedBlock:
    """A block of rows as the kernels read it, its weights in the type of the fit."""

    def __init__(self, block, dtype, column_block):
        self.block, X = block, block.X
        self.weight = None if block.weight is None else block.weight.astype(dtype)
        if sparse.issparse(X):
            indptr = X.indptr
            if len(column_block) > 2:
                indptr = np.empty((len(indptr) - 1) * (len(column_block) - 1) + 1, indptr.dtype)
                _kernels.split_rows(X.indices, X.indptr, column_block, indptr)
            self.data = _kernels.Data(X.data, X.shape[1], block.y, self.weight, X.indices, indptr)
        else:
            self.data = _kernels.Data(X, X.shape[1], block.y, self.weight)


class Backend:
    """Trains on the CPU; see `skdl._backends.Backend` for what the methods promise."""

    def __init__(self, source, n_outputs, *, n_jobs=None, device=None):
        self.dtype, self.is_sparse = compute_dtype(source.dtype), source.is_sparse
        self.n_features, self.n_outputs, self.row_values = source.n_features, n_outputs, source.row_values
        self.n_jobs, self.device, self._source = n_jobs, device, source
        self._last_placed = None

    def for_source(self, source):
        return Backend(source, self.n_outputs, n_jobs=self.n_jobs, device=self.device)

    @cached_property
    def isa(self):
        return _threads.isa()[0]

    @cached_property
    def column_block(self):
        """Bounds of the blocks of columns that threads share."""
        return feature_blocks(self._source) if self.is_sparse else column_blocks(self.n_features)

    def _place(self, block):
        """The block for the kernels, prepared once for as long as no other block comes."""
        if self._last_placed is None or self._last_placed.block is not block:
            self._last_placed = PlacedBlock(block, self.dtype, self.column_block)
        return self._last_placed

    def statistics(self, block, rows):
        placed = self._place(block)
        if self.is_sparse:
            return csr_statistics(block.X, placed.weight, rows)
        sum_weight = len(rows) if placed.weight is None else placed.weight[rows].sum(dtype=np.float64)
        # Threads share the rows, since reading memory in sequence is fastest; where rows are wide, they share the columns.
        column_block = self.column_block
        ld, n_blocks = column_block[-1], len(column_block) - 1
        n_parts = 1 if n_blocks >= STATISTICS_PARTS else STATISTICS_PARTS
        useful = min(max(n_parts, n_blocks), 1 + len(rows) * ld // STATISTICS_VALUES)
        n_threads = _threads.threads(self.n_jobs, useful)
        packed = _memory.zeros(((1 if n_parts == 1 else n_threads) * STATISTICS_ROWS * ld,), self.dtype)
        scratch = _kernels.Scratch(STATISTICS_ROWS, column_block, packed)
        first_row = _memory.pad_columns(block.X[rows[:1]], ld, self.dtype)[0]
        total, extremes = np.zeros((n_parts, 2, ld)), _memory.zeros((n_parts, 2, ld), self.dtype)
        extremes[:, 0], extremes[:, 1] = np.inf, -np.inf
        _kernels.column_statistics(placed.data, scratch, rows, first_row, extremes, total, n_threads, self.isa)
        extremes = extremes[..., : self.n_features].astype(np.float64)
        low, high = extremes[:, 0].min(axis=0), extremes[:, 1].max(axis=0)
        sums, first_row = total[..., : self.n_features], first_row[: self.n_features]
        return moments(sum_weight, first_row, sums, (low, high))

    def start(self, parameters, velocity, *, mean, scale, l1, l2, momentum, fit_intercept, batch_size):
        if self.device is not None:  # a model that was trained on it may be predicted here
            raise ValueError(
                f"device={self.device!r} needs backend='opencl'; backend='openmp' runs on the CPU (device=None)."
            )
        coef, intercept = pair_or_zeros(parameters)
        coef_velocity, intercept_velocity = pair_or_zeros(velocity)
        [momentum] = momentum
        layout_class = CSRLayout if self.is_sparse else DenseLayout
        self._layout = layout = layout_class(
            self, coef, coef_velocity, mean, scale, batch_size=batch_size, momentum=momentum
        )
        layout.penalise(l1, l2)
        self._intercept = np.zeros((2, self.n_outputs), self.dtype)
        self._intercept[0], self._intercept[1] = intercept, intercept_velocity
        self._model = _kernels.Model(
            layout.coef,
            self._intercept,
            layout.velocity,
            mean=layout.mean,
            scale=layout.scale,
            l1=layout.l1,
            l2=layout.l2,
            momentum=momentum,
            fit_intercept=fit_intercept,
        )
        n_blocks = len(layout.block) - 1
        self._scratch = _kernels.Scratch(
            layout.chunk,
            layout.block,
            _memory.zeros((layout.packed_size,), self.dtype),
            _memory.zeros(((n_blocks + 1) * self.n_outputs * layout.chunk,), self.dtype),
            _memory.zeros((layout.chunk,), self.dtype),
        )
        self.batch_size, self.n_threads = batch_size, layout.n_threads

    def penalise(self, l1, l2):
        self._layout.penalise(l1, l2)

    def run(self, block, order, step_sizes):
        data = self._place(block).data
        [step_sizes] = step_sizes
        self._layout.prepare(step_sizes.ravel())
        losses = _kernels.run_epochs(
            data,
            self._model,
            self._scratch,
            self._layout.lags,
            order,
            step_sizes,
            self.batch_size,
            self.n_threads,
            self.isa,
        )
        return losses[np.newaxis]

    def parameters(self):
        return self._layout.coefficients()[np.newaxis], self._intercept[:1].copy()

    def velocity(self):
        return self._layout.coefficients_velocity()[np.newaxis], self._intercept[1:].copy()

    def predictor(self, X, rows=None, y=None):
        return Predictor(X, rows, y, self.n_jobs, self.isa)
