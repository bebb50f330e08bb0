"""The OpenCL backend: training, launch by launch, with the kernels of `softmax.cl`."""

import warnings
from collections import deque

import numpy as np

from skdl._backends import compute_dtype, csr_statistics, lag_tables, moments, pair_or_zeros
from skdl.opencl import _csr, _device, _memory
from skdl.opencl._device import cl
from skdl.opencl._layout import Layout, row_length
from skdl.opencl._memory import Memory
from skdl.opencl._predictor import Predictor
from skdl.opencl._program import WINDOW_FLOP, Program


class Backend:
    """Trains and predicts on an OpenCL device; see `skdl._backends.Backend` for what the methods promise."""

    def __init__(self, source, n_outputs, *, n_jobs=None, device=None):
        self.n_features, self.n_outputs, self.is_sparse = source.n_features, n_outputs, source.is_sparse
        self.source_dtype, self.asked_device = source.dtype, device
        self.device = _device.choose(device)
        self.storage = _device.storage_dtype(self.device, source.dtype)
        self.dtype = compute_dtype(self.storage)
        self.memory = Memory(self.device)
        self.memory.check(coefficients=row_length(self.n_features) * n_outputs * self.dtype.itemsize)
        self.block = None

    def for_source(self, source):
        return Backend(source, self.n_outputs, device=self.asked_device)

    def _place(self, block):
        """Put a block on the device, where it stays until the next one comes."""
        if block is self.block:
            return
        if self.block is None or block.X is not self.block.X:
            self.block = self.X = None
            self.X = self.memory.place(block.X)
        self.host_weight = np.ones(len(block.y)) if block.weight is None else block.weight
        self.host_weight = self.host_weight.astype(self.dtype)
        self.y, self.weight = self.memory.upload(block.y), self.memory.upload(self.host_weight)
        self.block = block

    # ---- statistics

    def statistics(self, block, rows):
        with self.memory.errors():
            self._place(block)
            if self.is_sparse:  # comes to the device minibatch by minibatch
                return csr_statistics(self.X, self.host_weight, rows)
            first = block.X[rows[0]].astype(self.dtype)
            total = self._column_sums(rows, first).astype(np.float64)
        sums = np.array([[total[:, :2].sum(axis=(0, 1)), total[:, 2:4].sum(axis=(0, 1))]])
        extremes = total[:, 4].min(axis=0), total[:, 5].max(axis=0)
        return moments(self.host_weight[rows].sum(dtype=np.float64), first, sums, extremes)

    def _column_sums(self, rows, first):
        """What each group of the kernel `statistics` finds: (n_groups, 6, n_features)."""
        d, staging = self.n_features, _memory.STAGING_BYTES
        n_rows = max(1, min(len(rows), WINDOW_FLOP // (24 * d), staging // (d * self.storage.itemsize)))  # of a launch
        program = Program(self.memory.queue, self.dtype, self.storage, self.n_outputs, fused=True, flop=6 * n_rows * d)
        n_groups = max(1, min(4 * self.device.max_compute_units, len(rows) // 64, staging // (48 * d)))
        sums = np.zeros((n_groups, 6, d), self.dtype)
        upload, total = self.memory.upload, self.memory.upload(sums)
        arguments = np.int32(d), upload(rows), self.weight, upload(first), total
        bounds = np.append(np.arange(0, len(rows), n_rows), len(rows))
        for start, end, X, base in self.X.stream(rows, bounds):
            for begin, stop in zip(bounds[start:end], bounds[start + 1 : end + 1], strict=True):
                kernel = program.kernel("statistics", X, np.int64(base), begin, stop - begin, *arguments)
                program.launch(kernel, n_groups * program.tiles["GROUP"])
        cl.enqueue_copy(self.memory.queue, sums, total)
        return sums

    # ---- parameters

    def start(self, parameters, velocity, *, mean, scale, l1, l2, momentum, fit_intercept, batch_size):
        if self.storage != self.source_dtype:
            warnings.warn(
                f"OpenCL device {self.device.name.strip()!r} has no double precision: computing in float32.",
                stacklevel=2,
            )
        with self.memory.errors():
            self.layout = layout = Layout(
                self.memory, self.dtype, self.storage, self.n_features, self.n_outputs, batch_size,
                is_sparse=self.is_sparse, trains=True,
            )  # fmt: skip
            self.coef = layout.upload_parameters(*pair_or_zeros(parameters))
            self.coef_velocity = layout.upload(*pair_or_zeros(velocity))
            self.coordinates = layout.coordinates(mean, scale)
            self.penalise(l1, l2)
            [self.momentum] = momentum
            self.n_stepped = self.n_features + bool(fit_intercept)
            if self.is_sparse:
                self.last_step = self.memory.upload(np.zeros(layout.ld * layout.n_vectors, np.int32))
            elif not layout.fused:
                shape = layout.n_panels, layout.ld, layout.tiles["PANEL"]
                fitting = _memory.STAGING_BYTES // (int(np.prod(shape)) * self.dtype.itemsize)
                busy = layout.program.n_items // layout.n_tiles(layout.ld)
                self.n_shares = max(1, min(busy, fitting, layout.chunk // 64))
                (self.gradient,) = self.memory.scratch(self.dtype, gradient=(self.n_shares, *shape))

    def penalise(self, l1, l2):
        with self.memory.errors():
            self.penalty = self.layout.per_feature(l1, 0), self.layout.per_feature(l2, 0)

    def _pair(self, buffer):
        with self.memory.errors():
            both = self.layout.download(buffer, self.layout.ld)[np.newaxis]
        return both[..., : self.n_features].copy(), both[..., self.n_features].copy()

    def parameters(self):
        return self._pair(self.coef)

    def velocity(self):
        return self._pair(self.coef_velocity)

    # ---- training

    def run(self, block, order, step_sizes):
        [step_sizes] = step_sizes
        return np.array([[self._run_epoch(block, *epoch) for epoch in zip(order, step_sizes, strict=True)]])

    def _run_epoch(self, block, order, step_sizes):
        """The sum of the losses of one epoch."""
        with self.memory.errors():
            self._place(block)
            losses = np.empty(len(order), self.dtype)
            loss = self.memory.refresh("loss", losses)
            labels = self.memory.refresh("order", order), self.y, self.weight
            step_buffer = self.memory.refresh("step_sizes", step_sizes, self.dtype)
            momentum, n_stepped = self.dtype.type(self.momentum), np.int32(self.n_stepped)
            step = self.coef, self.coef_velocity, *self.penalty, step_buffer, momentum, n_stepped
            if self.is_sparse:
                self._run_sparse(order, step_sizes, labels, step, loss)
            elif self.layout.fused:
                self._run_fused(order, len(step_sizes), labels, step, loss)
            else:
                self._run_chunks(order, labels, step, loss)
            cl.enqueue_copy(self.memory.queue, losses, loss)
        return losses.sum(dtype=np.float64)

    def _run_fused(self, order, n_batches, labels, step, loss):
        layout, program = self.layout, self.layout.program
        scratch = layout.packed, layout.logits, layout.residuals
        arguments = *layout.shape(len(order)), *labels, *step, *self.coordinates, *scratch, loss
        minibatch = program.kernel("minibatch", None, np.int64(-1), *arguments)  # X is set as it comes
        n_items = layout.n_slices * layout.tiles["GROUP"]
        bounds = np.append(np.arange(n_batches) * layout.batch_size, len(order))
        for first, end, X, base in self.X.stream(order, bounds):
            minibatch.set_arg(0, X)
            minibatch.set_arg(1, np.int64(base))
            for batch in range(first, end):
                program.launch(minibatch, n_items, batch)
        program.launch(minibatch, n_items, n_batches)

    def _run_chunks(self, order, labels, step, loss):
        layout, program, shape = self.layout, self.layout.program, self.layout.shape(len(order))
        softmax = program.kernel("softmax", *shape, *labels, layout.logits, layout.residuals, loss)
        shares = np.int32(self.n_shares), self.gradient
        backward = program.kernel("backward", *shape, layout.packed, layout.residuals, *shares)
        update = program.kernel("update", *shape, *step, *shares)
        for batch, part, stop in layout.forward(self.X, order, labels[0], self.coef, self.coordinates):
            program.launch(softmax, layout.chunk * layout.tiles["ITEMS_PER_SOFTMAX_ROW"], batch, part)
            program.launch(backward, layout.n_tiles(layout.ld) * self.n_shares, batch, part)
            if stop == min((batch + 1) * layout.batch_size, len(order)):
                program.launch(update, layout.ld * layout.n_vectors, batch)

    def _run_sparse(self, order, step_sizes, labels, step, loss):
        layout, program, upload = self.layout, self.layout.program, self.memory.upload
        n_batches, batch_size = len(step_sizes), layout.batch_size
        shape, scale = layout.shape(len(order)), self.coordinates[1]
        tables = lag_tables(step_sizes, self.momentum)
        lag = *(self.memory.refresh(name, a, self.dtype) for name, a in tables.items()), self.last_step
        softmax = program.kernel("softmax", *shape, *labels, layout.logits, layout.residuals, loss)
        value_bytes = 2 * (self.X.dtype.itemsize + 4) * (1 + self.X.nnz / self.X.shape[0])
        fitting = min(_memory.STAGING_BYTES, self.memory.largest_buffer) // (value_bytes * batch_size)
        n_staged = max(1, int(fitting))  # minibatches whose values are on the device together
        done = deque()
        for first in range(0, n_batches, n_staged):
            end = min(first + n_staged, n_batches)
            rows = _csr.with_ones(self.X[order[first * batch_size : end * batch_size]])
            values, *where, n_touched = _csr.by_feature(rows, batch_size)
            arguments = *shape, *step, *lag, scale
            forward = layout.sparse_forward(rows, first * batch_size, *arguments)
            sorted_values = upload(values), np.int32(first), *map(upload, where)
            backward = program.kernel("sparse_step", *sorted_values, *arguments, layout.residuals)
            for batch in range(first, end):
                program.launch(forward, batch_size * layout.n_vectors, batch)
                program.launch(softmax, batch_size * layout.tiles["ITEMS_PER_SOFTMAX_ROW"], batch)
                program.launch(backward, n_touched[batch - first] * layout.n_vectors, batch)
            done.append(cl.enqueue_marker(self.memory.queue))
            if len(done) > 1:  # the buffers of two stages are enough
                done.popleft().wait()
        finish = program.kernel("finish_lagged", *shape, *step, *lag)
        program.launch(finish, layout.ld * layout.n_vectors, n_batches)

    # ---- prediction

    def predictor(self, X, rows=None, y=None):
        return Predictor(self.memory, self.n_outputs, X, rows, y)
