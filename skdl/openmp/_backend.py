"""The CPU backend: what the Cython kernels are given to train, to predict and to describe columns."""

from functools import cached_property

import numpy as np
from scipy import sparse

from skdl import _kernels
from skdl._backends import compute_dtype, csr_statistics, instruction_set, moments
from skdl.openmp import _memory, _threads
from skdl.openmp._layouts import CSRLayout, DenseLayout, column_blocks, feature_blocks, model_lanes
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

    @property
    def n_lanes(self):
        return model_lanes(self.n_outputs) if self.is_sparse else 1

    def for_source(self, source):
        return Backend(source, self.n_outputs, n_jobs=self.n_jobs, device=self.device)

    @cached_property
    def isa(self):
        return instruction_set()[0]

    @property
    def processor(self):
        return instruction_set()[1]

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

    def start(self, parameters, velocity, **how):
        if self.device is not None:  # a model that was trained on it may be predicted here
            raise ValueError(
                f"device={self.device!r} needs backend='opencl'; backend='openmp' runs on the CPU (device=None)."
            )
        return Training(self, parameters, velocity, **how)

    def predictor(self, X, rows=None, y=None):
        return Predictor(X, rows, y, self.n_jobs, self.isa)


class Training:
    """Models that are trained side by side on the CPU; of CSR as many as share vectors.

    Such groups follow each other through all epochs of a run: if they took turns in each minibatch, they would push each
    other's parameters out of the caches.
    """

    def __init__(self, backend, parameters, velocity, *, mean, scale, l1, l2, momentum, fit_intercept, batch_size):
        self._backend, self._batch_size = backend, batch_size
        n_models = len(momentum)
        size = backend.n_lanes if backend.is_sparse else n_models
        self._groups = [slice(first, min(first + size, n_models)) for first in range(0, n_models, size)]
        layout_class = CSRLayout if backend.is_sparse else DenseLayout
        self._layouts = [
            layout_class(
                backend,
                *(pair and tuple(a[group] for a in pair) for pair in (parameters, velocity)),
                mean,
                scale,
                *(None if penalty is None else penalty[group] for penalty in (l1, l2)),
                momentum=np.ascontiguousarray(momentum[group]),
                fit_intercept=fit_intercept,
                batch_size=batch_size,
            )
            for group in self._groups
        ]
        self.n_threads = self._layouts[0].n_threads

    def _parts(self, models):
        """The layouts that hold some models, and which of their models these are."""
        first, last, _ = models.indices(self._groups[-1].stop)
        for layout, group in zip(self._layouts, self._groups, strict=True):
            if group.start < last and first < group.stop:
                yield layout, slice(max(first - group.start, 0), min(last, group.stop) - group.start)

    def penalise(self, model, l1, l2):
        [(layout, within)] = self._parts(slice(model, model + 1))
        layout.penalise(within, l1, l2)

    def run(self, block, order, step_sizes):
        data = self._backend._place(block).data
        losses = []
        for layout, group in zip(self._layouts, self._groups, strict=True):
            layout.prepare(step_sizes[group])
            losses.append(
                _kernels.run_epochs(
                    data,
                    layout.model,
                    layout.scratch,
                    layout.lags,
                    order,
                    np.ascontiguousarray(step_sizes[group].transpose(1, 2, 0)),
                    self._batch_size,
                    self.n_threads,
                    self._backend.isa,
                )
            )
        return np.concatenate(losses, axis=1).T

    def parameters(self, models=slice(None)):
        return self._pair(models, "coefficients", 0)

    def velocity(self, models=slice(None)):
        return self._pair(models, "coefficients_velocity", 1)

    def _pair(self, models, coefficients, i):
        parts = [
            (getattr(layout, coefficients)(within), layout.intercept[i, within].copy())
            for layout, within in self._parts(models)
        ]
        return parts[0] if len(parts) == 1 else tuple(np.concatenate(a) for a in zip(*parts, strict=True))
