"""How a model and its minibatches lie on a device, and the logits that follow."""

import numpy as np

from skdl._backends import ceil_div
from skdl.opencl import _device
from skdl.opencl._device import cl
from skdl.opencl._program import Program, round_up

# Logits of a minibatch up to which one launch does it all and each slice of features makes the residuals for itself.
FUSED_LOGITS = 1 << 14
# Bytes of packed rows that a chunk may take: on a CPU they should stay in its caches.
CHUNK_BYTES = {"cpu": 1 << 22, "gpu": 1 << 25}
# Features come in units of this many: a multiple of each number of rows of a tile.
UNIT = 16


def row_length(n_features):
    """Features and intercept, padded to an odd number of units: rows a power of two apart would share few lines of a cache."""
    return UNIT * (ceil_div(n_features + 1, UNIT) | 1)


class Layout:
    """Tiles, slices, panels and scratch, as `softmax.cl` explains them, for minibatches of `batch_size` rows.

    What the order of a sum depends on, slices and chunks, follows from one model's shapes. For prediction alone there is
    neither velocity nor residuals, and a chunk counts as a minibatch.
    """

    def __init__(self, memory, dtype, storage, n_features, n_outputs, batch_size, *, is_sparse, trains, n_models=1):
        self.memory, self.dtype, self.n_models = memory, dtype, n_models
        self.n_features, self.n_outputs, self.ld = n_features, n_outputs, row_length(n_features)
        self.is_sparse = is_sparse
        kind = "cpu" if _device.is_cpu(memory.device) else "gpu"
        fitting = max(1, CHUNK_BYTES[kind] // (self.ld * dtype.itemsize))
        self.fused = trains and not is_sparse and batch_size <= min(fitting, FUSED_LOGITS // n_outputs)
        self.chunk = batch_size if is_sparse else min(batch_size, fitting)
        self.batch_size = batch_size if trains else self.chunk
        flop = 2 * self.chunk * n_models * n_outputs * self.ld
        self.program = Program(
            memory.queue, dtype, storage, n_outputs, is_sparse=is_sparse, trains=trains, fused=self.fused, flop=flop
        )
        tiles = self.tiles = self.program.tiles
        self.bundle = tiles["VECTOR"] if n_outputs == 1 else 1
        self.n_bundles = ceil_div(n_models, self.bundle)
        self.bundle_panels = ceil_div(n_outputs, tiles["PANEL"])
        self.n_panels = self.n_bundles * self.bundle_panels
        self.n_vectors = self.n_panels * tiles["PANEL"] // tiles["VECTOR"]
        self.ldr = round_up(self.chunk, tiles["ROWS"])
        self.slice = UNIT * ceil_div(self.ld // UNIT, self._wanted_slices(trains))
        self.n_slices = ceil_div(self.ld, self.slice)
        # Groups that share the models of a fused minibatch: as many as keep the device busy.
        self.n_model_shares = 1
        if self.fused:
            self.n_model_shares = max(1, min(self.program.n_items // tiles["GROUP"] // self.n_slices, self.n_bundles))
        n_bytes = self.ld * self.n_vectors * tiles["VECTOR"] * dtype.itemsize
        memory.reserve(self, coefficients=n_bytes, velocity=trains * n_bytes)
        panels = self.n_panels, self.ldr, tiles["PANEL"]
        self.packed, self.logits, self.residuals = memory.scratch(
            self,
            dtype,
            packed=(not is_sparse and self.n_model_shares, self.ldr, self.ld),
            logits=(1 + self.fused, self.n_slices, *panels),
            residuals=(trains, self.n_slices if self.fused else 1, *panels),
        )

    def _wanted_slices(self, trains):
        """Features are cut into slices where that gives more work items something to do."""
        n_units, n_items = self.ld // UNIT, self.program.n_items
        if self.fused:
            return max(1, min(n_items // self.tiles["GROUP"], n_units // 2))
        if trains and not self.is_sparse:
            return max(1, min(n_items // self.bundle_tiles(self.ldr), n_units // 4))
        return 1

    def bundle_tiles(self, n_rows):
        """Number of tiles of a product with so many rows and the outputs of a bundle of models."""
        tiles = self.tiles
        return n_rows // tiles["ROWS"] * self.bundle_panels * tiles["PANEL"] // (tiles["VECTOR"] * tiles["COLUMNS"])

    def n_tiles(self, n_rows):
        """The same with the outputs of all models."""
        return self.n_bundles * self.bundle_tiles(n_rows)

    @property
    def softmax_items(self):
        """Work items of the kernel `softmax`."""
        return self.n_bundles * self.chunk * self.tiles["ITEMS_PER_SOFTMAX_ROW"]

    def shape(self, n_order):
        """The arguments SHAPE of `softmax.cl`."""
        shape = self.n_features, self.ld, self.n_outputs, self.n_panels, self.n_bundles, self.ldr
        return *map(np.int32, (*shape, self.slice, self.n_slices, self.chunk, self.batch_size)), np.int64(n_order)

    # ---- arrays

    def per_feature(self, a, default):
        """A buffer with a number for each feature, `default` for what is not there."""
        out = np.full(self.ld, default, self.dtype)
        if a is not None:
            out[: self.n_features] = a
        return self.memory.upload(out)

    def coordinates(self, mean=None, scale=None):
        """The arguments COORDINATES of `softmax.cl`."""
        return self.per_feature(mean, 0), self.per_feature(scale, 1)

    def of_models(self, a):
        """What belongs to models, (n_models, n), as the kernels want it: (n, n_bundles * bundle)."""
        out = np.zeros((a.shape[1], self.n_bundles * self.bundle), self.dtype)
        out[:, : self.n_models] = a.T
        return out

    @property
    def model_lanes(self):
        """Lanes of a model in its panels, those without an output included."""
        return self.bundle_panels * self.tiles["PANEL"] // self.bundle

    def upload(self, coef, intercept, no_output=0):
        """Parameters of models, or a number for all, in panels; lanes without an output get `no_output` for an intercept."""
        lanes = np.zeros((self.n_panels * self.tiles["PANEL"], self.ld), self.dtype)
        models = lanes[: self.n_models * self.model_lanes].reshape(self.n_models, self.model_lanes, self.ld)
        models[:, : self.n_outputs, : self.n_features] = coef
        models[:, : self.n_outputs, self.n_features] = intercept
        models[:, self.n_outputs :, self.n_features] = no_output
        return self.memory.upload(lanes.reshape(self.n_panels, -1, self.ld).swapaxes(1, 2))

    def upload_parameters(self, coef, intercept):
        """As `upload`; lanes without an output have the probability 0."""
        return self.upload(coef, intercept, no_output=-np.inf)

    def download(self, buffer, n_rows, models=slice(None)):
        """(n_models, n_outputs, n_rows) of some models from panels."""
        start, stop, _ = models.indices(self.n_models)
        PANEL, lanes = self.tiles["PANEL"], self.model_lanes
        first = start * lanes // PANEL
        panels = np.empty((ceil_div(stop * lanes, PANEL) - first, n_rows, PANEL), self.dtype)
        cl.enqueue_copy(self.memory.queue, panels, buffer, src_offset=first * n_rows * PANEL * self.dtype.itemsize)
        rows = panels.swapaxes(1, 2).reshape(-1, n_rows)[start * lanes - first * PANEL :][: (stop - start) * lanes]
        return rows.reshape(stop - start, lanes, n_rows)[:, : self.n_outputs]

    # ---- logits

    def forward(self, rows, order, order_buffer, coef, coordinates):
        """Make the logits of each chunk of dense rows; yields its minibatch, its number in there, and its end in `order`."""
        program, shape = self.program, self.shape(len(order))
        # X is set as it comes.
        pack = program.kernel("pack_rows", None, np.int64(-1), *shape, order_buffer, *coordinates, self.packed)
        forward = program.kernel("forward", *shape, self.packed, coef, self.logits)
        batches = np.arange(0, len(order), self.batch_size)
        starts = (batches[:, np.newaxis] + np.arange(0, self.batch_size, self.chunk)).ravel()
        n_parts = len(starts) // len(batches)
        bounds = np.append(starts[starts < len(order)], len(order))
        for first, end, X, base in rows.stream(order, bounds):
            pack.set_arg(0, X)
            pack.set_arg(1, np.int64(base))
            for i in range(first, end):
                batch, part = divmod(i, n_parts)
                program.launch(pack, self.chunk * self.tiles["ITEMS_PER_PACKED_ROW"], batch, part)
                program.launch(forward, self.n_tiles(self.ldr) * self.n_slices, batch, part)
                yield batch, part, bounds[i + 1]

    def sparse_forward(self, rows, base, *arguments):
        """The kernel that makes the logits of `rows`, from `_csr.with_ones`, the first of which is the base-th visited."""
        values, columns, ends = map(self.memory.upload, rows)
        return self.program.kernel("sparse_forward", values, np.int64(base), columns, ends, *arguments, self.logits)
