"""Training on an OpenCL device, launch by launch, with the kernels of `softmax.cl`."""

from collections import deque

import numpy as np

from skdl._backends import lag_tables, pair_or_zeros
from skdl.opencl import _csr, _memory
from skdl.opencl._device import cl
from skdl.opencl._layout import Layout


class Training:
    """Models side by side on one device; see `skdl._backends.Training` for what the methods promise."""

    def __init__(self, backend, parameters, velocity, *, mean, scale, l1, l2, momentum, fit_intercept, batch_size):
        self.backend, self.memory = backend, backend.memory
        memory, n_models = self.memory, len(momentum)
        with memory.errors():
            self.layout = layout = Layout(
                memory, backend.dtype, backend.storage, backend.n_features, backend.n_outputs, batch_size,
                is_sparse=backend.is_sparse, trains=True, n_models=n_models,
            )  # fmt: skip
            self.coef = layout.upload_parameters(*pair_or_zeros(parameters))
            self.coef_velocity = layout.upload(*pair_or_zeros(velocity))
            self.coordinates = layout.coordinates(mean, scale)
            self._strengths = np.zeros((2, n_models, layout.ld))
            self.penalise(slice(None), l1, l2)
            self.given_momentum = momentum
            self.momentum = memory.upload(layout.of_models(momentum[:, np.newaxis]))
            self.n_stepped = backend.n_features + bool(fit_intercept)
            if backend.is_sparse:
                self.last_step = memory.upload(np.zeros(layout.ld * layout.n_vectors, np.int32))
            elif not layout.fused:
                panel = layout.ld, layout.tiles["PANEL"]
                bundle_bytes = layout.bundle_panels * int(np.prod(panel)) * backend.dtype.itemsize
                fitting = _memory.STAGING_BYTES // bundle_bytes
                busy = layout.program.n_items // layout.bundle_tiles(layout.ld)
                self.n_shares = max(1, min(busy, fitting, layout.chunk // 64))
                shape = self.n_shares, layout.n_panels, *panel
                (self.gradient,) = memory.scratch(layout, backend.dtype, gradient=shape)

    def penalise(self, model, l1, l2):
        for of_models, strength in zip(self._strengths, (l1, l2), strict=True):
            if strength is not None:
                of_models[model, : self.backend.n_features] = strength
        with self.memory.errors():
            self.penalties = [self.memory.upload(self.layout.of_models(a)) for a in self._strengths]

    def parameters(self, models=slice(None)):
        return self._pair(self.coef, models)

    def velocity(self, models=slice(None)):
        return self._pair(self.coef_velocity, models)

    def _pair(self, buffer, models):
        with self.memory.errors():
            both = self.layout.download(buffer, self.layout.ld, models)
        n_features = self.backend.n_features
        return both[..., :n_features].copy(), both[..., n_features].copy()

    def run(self, block, order, step_sizes):
        return np.transpose(
            [self._run_epoch(block, *epoch) for epoch in zip(order, step_sizes.swapaxes(0, 1), strict=True)]
        )

    def _run_epoch(self, block, order, step_sizes):
        """The sum of the losses of one epoch, (n_models,); step_sizes (n_models, n_batches)."""
        backend, layout = self.backend, self.layout
        with self.memory.errors():
            backend.place(block)
            losses = np.empty((layout.n_bundles, len(order), layout.bundle), backend.dtype)
            loss = self.memory.refresh("loss", losses)
            labels = self.memory.refresh("order", order), backend.y, backend.weight
            step_buffer = self.memory.refresh("step_sizes", layout.of_models(step_sizes))
            step = self.coef, self.coef_velocity, *self.penalties, step_buffer, self.momentum, np.int32(self.n_stepped)
            if backend.is_sparse:
                self._run_sparse(order, step_sizes, labels, step, loss)
            elif layout.fused:
                self._run_fused(order, step_sizes.shape[1], labels, step, loss)
            else:
                self._run_chunks(order, labels, step, loss)
            cl.enqueue_copy(self.memory.queue, losses, loss)
        # A sum's order follows the order in memory: that of one model.
        of_models = np.ascontiguousarray(losses.swapaxes(1, 2)).reshape(-1, len(order))[: layout.n_models]
        return [of_model.sum(dtype=np.float64) for of_model in of_models]

    def _run_fused(self, order, n_batches, labels, step, loss):
        layout, program = self.layout, self.layout.program
        scratch = layout.packed, layout.logits, layout.residuals
        arguments = *layout.shape(len(order)), *labels, *step, *self.coordinates, *scratch, loss
        minibatch = program.kernel("minibatch", None, np.int64(-1), *arguments)  # X is set as it comes
        n_items = layout.n_slices * layout.n_model_shares * layout.tiles["GROUP"]
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
            program.launch(softmax, layout.softmax_items, batch, part)
            program.launch(backward, layout.n_tiles(layout.ld) * self.n_shares, batch, part)
            if stop == min((batch + 1) * layout.batch_size, len(order)):
                program.launch(update, layout.ld * layout.n_vectors, batch)

    def _run_sparse(self, order, step_sizes, labels, step, loss):
        layout, program, upload = self.layout, self.layout.program, self.memory.upload
        n_batches, batch_size = step_sizes.shape[1], layout.batch_size
        shape, scale = layout.shape(len(order)), self.coordinates[1]
        tables = [lag_tables(*of_model) for of_model in zip(step_sizes, self.given_momentum, strict=True)]
        of_models = {name: layout.of_models(np.stack([table[name] for table in tables])) for name in tables[0]}
        lag = *(self.memory.refresh(name, a) for name, a in of_models.items()), self.last_step
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
                program.launch(softmax, layout.softmax_items, batch)
                program.launch(backward, n_touched[batch - first] * layout.n_vectors, batch)
            done.append(cl.enqueue_marker(self.memory.queue))
            if len(done) > 1:  # the buffers of two stages are enough
                done.popleft().wait()
        finish = program.kernel("finish_lagged", *shape, *step, *lag)
        program.launch(finish, layout.ld * layout.n_vectors, n_batches)
