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

    For prediction alone there is neither velocity nor residuals, and a chunk counts as a minibatch.
    """

    def __init__(self, memory, dtype, storage, n_features, n_outputs, batch_size, *, is_sparse, trains):
        self.memory, self.dtype = memory, dtype
        self.n_features, self.n_outputs, self.ld = n_features, n_outputs, row_length(n_features)
        self.is_sparse = is_sparse
        kind = "cpu" if _device.is_cpu(memory.device) else "gpu"
        fitting = max(1, CHUNK_BYTES[kind] // (self.ld * dtype.itemsize))
        self.fused = trains and not is_sparse and batch_size <= min(fitting, FUSED_LOGITS // n_outputs)
        self.chunk = batch_size if is_sparse else min(batch_size, fitting)
        self.batch_size = batch_size if trains else self.chunk
        flop = 2 * self.chunk * n_outputs * self.ld
        self.program = Program(
            memory.queue, dtype, storage, n_outputs, is_sparse=is_sparse, fused=self.fused, flop=flop
        )
        tiles = self.tiles = self.program.tiles
        self.n_panels = ceil_div(n_outputs, tiles["PANEL"])
        self.n_vectors = self.n_panels * tiles["PANEL"] // tiles["VECTOR"]
        self.ldr = round_up(self.chunk, tiles["ROWS"])
        self.slice = UNIT * ceil_div(self.ld // UNIT, self._wanted_slices(trains))
        self.n_slices = ceil_div(self.ld, self.slice)
        n_bytes = self.ld * self.n_vectors * tiles["VECTOR"] * dtype.itemsize
        memory.reserve(coefficients=n_bytes, velocity=trains * n_bytes)
        panels = self.n_panels, self.ldr, tiles["PANEL"]
        self.packed, self.logits, self.residuals = memory.scratch(
            dtype,
            packed=(not is_sparse, self.ldr, self.ld),
            logits=(1 + self.fused, self.n_slices, *panels),
            residuals=(trains, self.n_slices if self.fused else 1, *panels),
        )

    def _wanted_slices(self, trains):
        """Features are cut into slices where that gives more work items something to do."""
        n_units, n_items = self.ld // UNIT, self.program.n_items
        if self.fused:
            return max(1, min(n_items // self.tiles["GROUP"], n_units // 2))
        if trains and not self.is_sparse:
            return max(1, min(n_items // self.n_tiles(self.ldr), n_units // 4))
        return 1

    def n_tiles(self, n_rows):
        """Number of tiles of a product with so many rows."""
        return n_rows // self.tiles["ROWS"] * self.n_vectors // self.tiles["COLUMNS"]

    def shape(self, n_order):
        """The arguments SHAPE of `softmax.cl`."""
        shape = self.n_features, self.ld, self.n_outputs, self.n_panels, self.ldr, self.slice, self.n_slices
        return *map(np.int32, (*shape, self.chunk, self.batch_size)), np.int64(n_order)

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

    def upload(self, coef, intercept, no_output=0):
        """Parameters, or a number for all, in panels; lanes without an output get `no_output` for an intercept."""
        panels = np.zeros((self.n_panels * self.tiles["PANEL"], self.ld), self.dtype)
        panels[: self.n_outputs, : self.n_features] = coef
        panels[: self.n_outputs, self.n_features] = intercept
        panels[self.n_outputs :, self.n_features] = no_output
        return self.memory.upload(panels.reshape(self.n_panels, -1, self.ld).swapaxes(1, 2))

    def upload_parameters(self, coef, intercept):
        """As `upload`; lanes without an output have the probability 0."""
        return self.upload(coef, intercept, no_output=-np.inf)

    def download(self, buffer, n_rows):
        """(n_outputs, n_rows) from panels."""
        panels = np.empty((self.n_panels, n_rows, self.tiles["PANEL"]), self.dtype)
        cl.enqueue_copy(self.memory.queue, panels, buffer)
        return panels.swapaxes(1, 2).reshape(-1, n_rows)[: self.n_outputs]

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
