"""Training on an OpenCL device, launch by launch, with the kernels of `softmax.cl`."""

from collections import deque

import numpy as np

from skdl._backends import lag_tables, pair_or_zeros
from skdl.opencl import _csr, _memory
from skdl.opencl._device import cl
from skdl.opencl._layout import Layout


class Training:
    """Models on one device, which train in turn; see `skdl._backends.Training` for what the methods promise."""

    def __init__(self, backend, parameters, velocity, *, l1, l2, momentum, **how):
        def of(arrays, i):
            return None if arrays is None else arrays[i]

        self._models = [
            OneModel(
                backend,
                *(pair and (pair[0][i], pair[1][i]) for pair in (parameters, velocity)),
                l1=of(l1, i),
                l2=of(l2, i),
                momentum=momentum[i],
                **how,
            )
            for i in range(len(momentum))
        ]

    def penalise(self, model, l1, l2):
        self._models[model].penalise(l1, l2)

    def run(self, block, order, step_sizes):
        return np.array([model.run(block, order, sizes) for model, sizes in zip(self._models, step_sizes, strict=True)])

    def parameters(self, models=slice(None)):
        return self._pair(models, "coef")

    def velocity(self, models=slice(None)):
        return self._pair(models, "coef_velocity")

    def _pair(self, models, name):
        pairs = [model.pair(getattr(model, name)) for model in self._models[models]]
        return tuple(np.stack(arrays) for arrays in zip(*pairs, strict=True))


class OneModel:
    """A model on the device."""

    def __init__(self, backend, parameters, velocity, *, mean, scale, l1, l2, momentum, fit_intercept, batch_size):
        self.backend, self.memory, self.momentum = backend, backend.memory, momentum
        memory = self.memory
        with memory.errors():
            self.layout = layout = Layout(
                memory, backend.dtype, backend.storage, backend.n_features, backend.n_outputs, batch_size,
                is_sparse=backend.is_sparse, trains=True,
            )  # fmt: skip
            self.coef = layout.upload_parameters(*pair_or_zeros(parameters))
            self.coef_velocity = layout.upload(*pair_or_zeros(velocity))
            self.coordinates = layout.coordinates(mean, scale)
            self.penalise(l1, l2)
            self.n_stepped = backend.n_features + bool(fit_intercept)
            if backend.is_sparse:
                self.last_step = memory.upload(np.zeros(layout.ld * layout.n_vectors, np.int32))
            elif not layout.fused:
                shape = layout.n_panels, layout.ld, layout.tiles["PANEL"]
                fitting = _memory.STAGING_BYTES // (int(np.prod(shape)) * backend.dtype.itemsize)
                busy = layout.program.n_items // layout.n_tiles(layout.ld)
                self.n_shares = max(1, min(busy, fitting, layout.chunk // 64))
                (self.gradient,) = memory.scratch(backend.dtype, gradient=(self.n_shares, *shape))

    def penalise(self, l1, l2):
        with self.memory.errors():
            self.penalty = self.layout.per_feature(l1, 0), self.layout.per_feature(l2, 0)

    def pair(self, buffer):
        """(coef, intercept) from a buffer."""
        with self.memory.errors():
            both = self.layout.download(buffer, self.layout.ld)
        n_features = self.backend.n_features
        return both[:, :n_features].copy(), both[:, n_features].copy()

    def run(self, block, order, step_sizes):
        """The sum of the losses of each epoch, (n_epochs,)."""
        return [self._run_epoch(block, *epoch) for epoch in zip(order, step_sizes, strict=True)]

    def _run_epoch(self, block, order, step_sizes):
        """The sum of the losses of one epoch."""
        backend, dtype = self.backend, self.backend.dtype
        with self.memory.errors():
            backend.place(block)
            losses = np.empty(len(order), dtype)
            loss = self.memory.refresh("loss", losses)
            labels = self.memory.refresh("order", order), backend.y, backend.weight
            step_buffer = self.memory.refresh("step_sizes", step_sizes, dtype)
            momentum, n_stepped = dtype.type(self.momentum), np.int32(self.n_stepped)
            step = self.coef, self.coef_velocity, *self.penalty, step_buffer, momentum, n_stepped
            if backend.is_sparse:
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
        for first, end, X, base in self.backend.X.stream(order, bounds):
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
        for batch, part, stop in layout.forward(self.backend.X, order, labels[0], self.coef, self.coordinates):
            program.launch(softmax, layout.chunk * layout.tiles["ITEMS_PER_SOFTMAX_ROW"], batch, part)
            program.launch(backward, layout.n_tiles(layout.ld) * self.n_shares, batch, part)
            if stop == min((batch + 1) * layout.batch_size, len(order)):
                program.launch(update, layout.ld * layout.n_vectors, batch)

    def _run_sparse(self, order, step_sizes, labels, step, loss):
        layout, program, upload = self.layout, self.layout.program, self.memory.upload
        n_batches, batch_size = len(step_sizes), layout.batch_size
        shape, scale = layout.shape(len(order)), self.coordinates[1]
        tables = lag_tables(step_sizes, self.momentum)
        lag = *(self.memory.refresh(name, a, self.backend.dtype) for name, a in tables.items()), self.last_step
        softmax = program.kernel("softmax", *shape, *labels, layout.logits, layout.residuals, loss)
        value_bytes = 2 * (self.backend.X.dtype.itemsize + 4) * (1 + self.backend.X.nnz / self.backend.X.shape[0])
        fitting = min(_memory.STAGING_BYTES, self.memory.largest_buffer) // (value_bytes * batch_size)
        n_staged = max(1, int(fitting))  # minibatches whose values are on the device together
        done = deque()
        for first in range(0, n_batches, n_staged):
            end = min(first + n_staged, n_batches)
            rows = _csr.with_ones(self.backend.X[order[first * batch_size : end * batch_size]])
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
