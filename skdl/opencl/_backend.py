"""The OpenCL backend: tiles, buffers and launches around the kernels of `softmax.cl`."""

import warnings
from collections import deque
from contextlib import contextmanager

import numpy as np
from scipy import sparse

from skdl import _kernels
from skdl._openmp import compute_dtype, steps_owed
from skdl.opencl._device import choose, cl, context_of, has_double, program_of, readable_errors

# Logits of a minibatch up to which one launch does it all and each slice of features makes the residuals for itself.
FUSED_LOGITS = 1 << 14
# Bytes of packed rows that a chunk may take: on a CPU they should stay in its caches.
CHUNK_BYTES = {"cpu": 1 << 22, "gpu": 1 << 25}
# Work items of a group, where groups are of use.
LARGEST_GROUP = 256
# Features come in units of this many: a multiple of each number of rows of a tile.
UNIT = 16
# X that is larger than the device's largest buffer, or than this, goes there block by block, through two buffers.
LARGEST_X = 1 << 62
STAGING_BYTES = 1 << 26
# Work that may be enqueued before the host waits for what it enqueued earlier: KeyboardInterrupt needs the host awake.
WINDOW_LAUNCHES, WINDOW_FLOP = 64, 1 << 31

# Types of X in OpenCL C.
_STORAGE = {
    "float64": "double",
    "float32": "float",
    "float16": "half",
    "uint8": "uchar",
    "bool": "uchar",
    "int8": "char",
}


def _up(n, unit):
    """n rounded up to a multiple of unit."""
    return -(-n // unit) * unit


def _kind(device):
    return "cpu" if device.type & cl.device_type.CPU else "gpu"


def _tiles(device, dtype, n_classes, *, fused):
    """Options of the build, as `softmax.cl` explains them: wide vectors and no groups on a CPU, groups elsewhere."""
    if _kind(device) == "cpu":
        native = device.native_vector_width_double if dtype == np.float64 else device.native_vector_width_float
        widest, columns, rows, group = min(max(native, 4), 16), 1, 8, 1
    else:
        widest, columns, rows, group = (
            4,
            1 if fused else 2,
            2 if fused else 8,
            min(LARGEST_GROUP, device.max_work_group_size),
        )
    vector = min(widest, 1 << (n_classes - 1).bit_length())
    if n_classes <= vector:
        columns = 1
    across = min(8, -(-n_classes // (vector * columns))) if group > 1 else 1
    return {
        "VECTOR": vector,
        "COLUMNS": columns,
        "ROWS": rows,
        "PANEL": vector * columns * across,
        "GROUP": group,
        "ITEMS_PER_PACKED_ROW": min(group, 32),
        "ITEMS_PER_SOFTMAX_ROW": 32 if group >= 32 and n_classes > 64 else 1,
    }


class OpenCLBackend:
    """Trains on an OpenCL device; see `skdl._backends.Backend` for what the methods promise.

    Without `y` it only makes logits.
    """

    def __init__(self, X, y, weight, n_classes, *, n_jobs=None, device=None, dtype=None):
        self.device = choose(device)
        self.dtype = np.dtype(dtype or compute_dtype(X))
        self.is_sparse = sparse.issparse(X)
        if not has_double(self.device):
            if self.dtype == np.float64 and y is not None:
                warnings.warn(
                    f"OpenCL device {self.device.name.strip()!r} has no double precision: computing in float32.",
                    stacklevel=2,
                )
            self.dtype = np.dtype(np.float32)
            X = X.astype(np.float32) if X.dtype == np.float64 else X
        self.X = X
        self.n_features, self.n_classes = X.shape[1], n_classes
        # Rows of an odd number of units: rows that are a power of two apart would share few lines of a cache.
        self.ld = UNIT * (-(-(self.n_features + 1) // UNIT) | 1)
        self.largest_buffer = self.device.max_mem_alloc_size
        self.allocated = 0
        with self._errors():
            self._check_capacity(coefficients=self.ld * n_classes * self.dtype.itemsize)
            self.queue = cl.CommandQueue(context_of(self.device))
            self.whole = None if self.is_sparse else self._place(X)
            if y is not None:
                self.host_weight = np.ones(len(y), self.dtype) if weight is None else weight.astype(self.dtype)
                self.y, self.weight = self._constant(y), self._constant(self.host_weight)

    @contextmanager
    def _errors(self):
        """PyOpenCL's errors made readable; and memory that the device may still read outlives whatever goes wrong."""
        with readable_errors(self.device):
            try:
                yield
            except BaseException as error:
                if not isinstance(error, cl.Error) and hasattr(self, "queue"):
                    self.queue.finish()
                raise

    # ---- memory

    def _check_capacity(self, **n_bytes):
        """Raise MemoryError if buffers of these sizes do not fit beside those that exist."""
        need, capacity = self.allocated + sum(n_bytes.values()), self.device.global_mem_size
        name, largest = max(n_bytes.items(), key=lambda item: item[1])
        if need > capacity or largest > self.largest_buffer:
            raise MemoryError(
                f"OpenCL device {self.device.name.strip()!r} is too small: {need / 1e6:.1f} MB are needed of its "
                f"{capacity / 1e6:.1f} MB, {largest / 1e6:.1f} MB of them for {name} in one buffer, of which the device allows "
                f"{self.largest_buffer / 1e6:.1f} MB."
            )

    def _scratch(self, **shapes):
        """Buffers for arrays of `dtype` of these shapes."""
        n_bytes = {name: max(1, int(np.prod(shape))) * self.dtype.itemsize for name, shape in shapes.items()}
        self._check_capacity(**n_bytes)
        self.allocated += sum(n_bytes.values())
        return [cl.Buffer(self.queue.context, cl.mem_flags.READ_WRITE, n) for n in n_bytes.values()]

    def _constant(self, a, dtype=None):
        """A buffer with a copy of an array."""
        a = np.ascontiguousarray(a, dtype=dtype)
        flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
        return cl.Buffer(self.queue.context, flags, hostbuf=a)

    def _write(self, name, a, dtype=None):
        """The buffer of this name with the values of an array: one buffer while the size stays."""
        a = np.ascontiguousarray(a, dtype=dtype)
        buffer, before = self.written.get(name, (None, None))
        if buffer is None or before.nbytes != a.nbytes:
            buffer = self._constant(a)
        else:
            cl.enqueue_copy(self.queue, buffer, a, is_blocking=False)
        self.written[name] = buffer, a
        return buffer

    def _place(self, X):
        """A buffer that holds X, or None if it is too large for one."""
        if X.nbytes > min(self.largest_buffer, LARGEST_X):
            return None
        if _kind(self.device) == "cpu":  # read where it lies
            flags = cl.mem_flags.READ_ONLY | cl.mem_flags.USE_HOST_PTR
            return cl.Buffer(self.queue.context, flags, hostbuf=X)
        if X.nbytes > self.device.global_mem_size / 2:
            return None
        self.allocated += X.nbytes
        return self._constant(X)

    def _blocks(self, order, bounds):
        """The rows `order` on the device, in blocks of whole parts; part i is order[bounds[i]:bounds[i + 1]].

        Yields first part, end part, buffer and `base`, as `softmax.cl` explains it. If X is not there as a whole, the host
        gathers a block while the device works on the one before.
        """
        n_parts = len(bounds) - 1
        if self.whole is not None:
            yield 0, n_parts, self.whole, -1
            return
        row_bytes = self.n_features * self.X.itemsize
        n_rows = max(np.diff(bounds).max(), min(STAGING_BYTES, self.largest_buffer) // row_bytes)
        self._check_capacity(rows=n_rows * row_bytes, more_rows=n_rows * row_bytes)
        staging = [np.empty((n_rows, self.n_features), self.X.dtype) for _ in range(2)]
        buffers = [cl.Buffer(self.queue.context, cl.mem_flags.READ_ONLY, a.nbytes) for a in staging]
        free, first, k = [None, None], 0, 0
        while first < n_parts:
            end = int(np.searchsorted(bounds, bounds[first] + n_rows, side="right")) - 1
            if free[k]:
                free[k].wait()
            rows = order[bounds[first] : bounds[end]]
            np.take(self.X, rows, axis=0, out=staging[k][: len(rows)], mode="clip")
            cl.enqueue_copy(self.queue, buffers[k], staging[k][: len(rows)], is_blocking=False)
            yield first, end, buffers[k], bounds[first]
            free[k] = cl.enqueue_marker(self.queue)
            self.queue.flush()
            first, k = end, 1 - k

    # ---- programs and launches

    def _build(self, tiles, flop):
        """The program for these tiles; a launch does about `flop` operations."""
        self.tiles = tiles
        # As many work items as keep the device busy.
        self.n_items = self.device.max_compute_units * tiles["GROUP"] * (1 if tiles["GROUP"] == 1 else 2)
        self.n_panels = -(-self.n_classes // tiles["PANEL"])
        self.n_vectors = self.n_panels * tiles["PANEL"] // tiles["VECTOR"]
        options = [f"-D{name}={value}" for name, value in {**tiles, "STORAGE": _STORAGE[self.X.dtype.name]}.items()]
        options += ["-DHALF"] if self.X.dtype == np.float16 else []
        options += ["-DDOUBLE"] if self.dtype == np.float64 else []
        options += ["-DSPARSE"] if self.is_sparse else []
        self.program, self.kernels, self.written = program_of(self.device, tuple(options)), {}, {}
        self.window = int(max(1, min(WINDOW_LAUNCHES, WINDOW_FLOP // max(flop, 1))))
        self.n_launched, self.enqueued = 0, deque()

    def _kernel(self, name, *arguments):
        """The kernel object of this name with its arguments: one's own, since they are not thread-safe, and made once."""
        kernel, known = self.kernels.get(name) or (cl.Kernel(self.program, name), None)
        if arguments != known:
            kernel.set_args(*arguments)
            self.kernels[name] = kernel, arguments  # which OpenCL does not keep alive
        return kernel

    def _launch(self, kernel, n_items, batch=0, part=0):
        """Enqueue; now and then wait for what was enqueued a window ago."""
        group = self.tiles["GROUP"]
        event = cl.enqueue_nd_range_kernel(
            self.queue, kernel, (_up(n_items, group), 1, 1), (group, 1, 1), (0, batch, part)
        )
        self.n_launched += 1
        if self.n_launched % self.window == 0:
            self.queue.flush()
            self.enqueued.append(event)
            if len(self.enqueued) > 1:
                self.enqueued.popleft().wait()

    # ---- statistics

    def column_statistics(self, rows):
        sum_weight = self.host_weight[rows].sum(dtype=np.float64)
        if self.is_sparse:  # CSR comes to the device minibatch by minibatch
            square, largest = total = np.zeros((2, self.n_features))
            X, weight = self.X, self.host_weight.astype(np.float64)
            _kernels.sparse_column_statistics(X.data, X.indices, X.indptr, rows, weight, total)
            return np.zeros(self.n_features), square / sum_weight, -largest, largest
        first = self.X[rows[0]].astype(self.dtype)
        with self._errors():
            total = self._statistics(rows, first).astype(np.float64)
        mean = total[:, :2].sum(axis=(0, 1)) / sum_weight
        square = total[:, 2:4].sum(axis=(0, 1)) / sum_weight
        return first + mean, square - mean**2, total[:, 4].min(axis=0), total[:, 5].max(axis=0)

    def _statistics(self, rows, first_row):
        """What each group of the kernel finds: (n_groups, 6, n_features)."""
        d = self.n_features
        n_rows = max(1, min(len(rows), WINDOW_FLOP // (24 * d), STAGING_BYTES // (d * self.X.itemsize)))  # of a launch
        self._build(_tiles(self.device, self.dtype, self.n_classes, fused=True), flop=6 * n_rows * d)
        n_groups = max(1, min(4 * self.device.max_compute_units, len(rows) // 64, STAGING_BYTES // (48 * d)))
        result = np.zeros((n_groups, 6, d), self.dtype)
        total = self._constant(result)
        arguments = np.int32(d), self._constant(rows), self.weight, self._constant(first_row), total
        bounds = np.append(np.arange(0, len(rows), n_rows), len(rows))
        for first, end, X, base in self._blocks(rows, bounds):
            for begin, stop in zip(bounds[first:end], bounds[first + 1 : end + 1], strict=True):
                kernel = self._kernel("statistics", X, np.int64(base), begin, stop - begin, *arguments)
                self._launch(kernel, n_groups * self.tiles["GROUP"])
        cl.enqueue_copy(self.queue, result, total)
        return result

    # ---- parameters

    def _panels(self, coef, intercept, no_class=0):
        """Parameters, or a number for all, in the layout of `softmax.cl`; without a class the intercept is `no_class`."""
        panels = np.zeros((self.n_panels * self.tiles["PANEL"], self.ld), self.dtype)
        panels[: self.n_classes, : self.n_features] = coef
        panels[: self.n_classes, self.n_features] = intercept
        panels[self.n_classes :, self.n_features] = no_class
        return self._constant(panels.reshape(self.n_panels, -1, self.ld).swapaxes(1, 2))

    def _from_panels(self, buffer, n_rows):
        """(n_classes, n_rows) from a buffer in that layout."""
        panels = np.empty((self.n_panels, n_rows, self.tiles["PANEL"]), self.dtype)
        cl.enqueue_copy(self.queue, panels, buffer)
        return panels.swapaxes(1, 2).reshape(-1, n_rows)[: self.n_classes]

    def _per_feature(self, a, default):
        out = np.full(self.ld, default, self.dtype)
        if a is not None:
            out[: self.n_features] = a
        return self._constant(out)

    def _prepare(self, coef, intercept, mean, scale, batch_size, *, trains):
        """Choose tiles and slices; the parameters, the coordinates and room for the logits go to the device."""
        fitting = max(1, CHUNK_BYTES[_kind(self.device)] // (self.ld * self.dtype.itemsize))
        self.fused = trains and not self.is_sparse and batch_size <= min(fitting, FUSED_LOGITS // self.n_classes)
        self.batch_size = batch_size
        self.chunk = batch_size if self.is_sparse else min(batch_size, fitting)
        tiles = _tiles(self.device, self.dtype, self.n_classes, fused=self.fused)
        self._build(tiles, flop=2 * self.chunk * self.n_classes * self.ld)
        self.ldr = _up(self.chunk, tiles["ROWS"])
        self._cut_slices(trains)
        panels = self.n_panels, self.ldr, tiles["PANEL"]
        n_bytes = self.ld * self.n_vectors * tiles["VECTOR"] * self.dtype.itemsize
        self._check_capacity(coefficients=n_bytes, velocity=trains * n_bytes)
        self.packed, self.logits, self.residuals = self._scratch(
            packed=(not self.is_sparse, self.ldr, self.ld),
            logits=(1 + self.fused, self.n_slices, *panels),
            residuals=(trains, self.n_slices if self.fused else 1, *panels),
        )
        self.coef = self._panels(coef, intercept, no_class=-np.inf)
        self.coordinates = self._per_feature(mean, 0), self._per_feature(scale, 1)

    def _n_tiles(self, n_rows):
        return n_rows // self.tiles["ROWS"] * self.n_vectors // self.tiles["COLUMNS"]

    def _cut_slices(self, trains):
        """Features are cut into slices where that gives more work items something to do."""
        n_units, n_slices = self.ld // UNIT, 1
        if self.fused:
            n_slices = min(self.n_items // self.tiles["GROUP"], n_units // 2)
        elif trains and not self.is_sparse:
            n_slices = min(self.n_items // self._n_tiles(self.ldr), n_units // 4)
        self.slice = UNIT * -(-n_units // max(1, n_slices))
        self.n_slices = -(-self.ld // self.slice)

    def _shape(self, n_order):
        """The arguments SHAPE of `softmax.cl`."""
        shape = self.n_features, self.ld, self.n_classes, self.n_panels, self.ldr, self.slice, self.n_slices
        return *map(np.int32, (*shape, self.chunk, self.batch_size)), np.int64(n_order)

    def start(self, parameters, velocity, *, mean, scale, l1, l2, momentum, fit_intercept, batch_size):
        with self._errors():
            self._prepare(*(parameters or (0, 0)), mean, scale, batch_size, trains=True)
            self.velocity = self._panels(*(velocity or (0, 0)))
            self.penalty = self._per_feature(l1, 0), self._per_feature(l2, 0)
            self.momentum, self.n_stepped = momentum, self.n_features + bool(fit_intercept)
            if self.is_sparse:
                self.stamp = self._constant(np.zeros(self.ld * self.n_vectors, np.int32))
            elif not self.fused:
                shape = self.n_panels, self.ld, self.tiles["PANEL"]
                fitting = STAGING_BYTES // (int(np.prod(shape)) * self.dtype.itemsize)
                self.n_shares = max(1, min(self.n_items // self._n_tiles(self.ld), fitting, self.chunk // 64))
                (self.gradient,) = self._scratch(gradient=(self.n_shares, *shape))

    def _pair(self, buffer):
        with self._errors():
            both = self._from_panels(buffer, self.ld)
        return both[:, : self.n_features].copy(), both[:, self.n_features].copy()

    def get_parameters(self):
        return self._pair(self.coef)

    def get_velocity(self):
        return self._pair(self.velocity)

    # ---- training

    def run_epoch(self, order, step_sizes):
        with self._errors():
            losses = np.empty(len(order), self.dtype)
            loss = self._write("losses", losses)
            labels = self._write("order", order), self.y, self.weight
            sizes = self._write("sizes", step_sizes, self.dtype)
            step = (
                self.coef,
                self.velocity,
                *self.penalty,
                sizes,
                self.dtype.type(self.momentum),
                np.int32(self.n_stepped),
            )
            shape = self._shape(len(order))
            if self.is_sparse:
                self._run_sparse(order, step_sizes, shape, labels, step, loss)
            elif self.fused:
                self._run_fused(order, len(step_sizes), shape, labels, step, loss)
            else:
                self._run_chunks(order, shape, labels, step, loss)
            cl.enqueue_copy(self.queue, losses, loss)
        return losses.sum(dtype=np.float64) / len(order)

    def _run_fused(self, order, n_batches, shape, labels, step, loss):
        arguments = *shape, *labels, *step, *self.coordinates, self.packed, self.logits, self.residuals, loss
        minibatch = self._kernel("minibatch", self.whole, np.int64(-1), *arguments)
        n_items = self.n_slices * self.tiles["GROUP"]
        for first, end, X, base in self._blocks(order, np.append(np.arange(n_batches) * self.batch_size, len(order))):
            minibatch.set_arg(0, X)
            minibatch.set_arg(1, np.int64(base))
            for batch in range(first, end):
                self._launch(minibatch, n_items, batch)
        self._launch(minibatch, n_items, n_batches)

    def _run_chunks(self, order, shape, labels, step, loss):
        softmax = self._kernel("softmax", *shape, *labels, self.logits, self.residuals, loss)
        n_shares = np.int32(self.n_shares)
        backward = self._kernel("backward", *shape, self.packed, self.residuals, n_shares, self.gradient)
        update = self._kernel("update", *shape, *step, n_shares, self.gradient)
        for batch, part, stop in self._forward(order, shape, labels[0]):
            self._launch(softmax, self.chunk * self.tiles["ITEMS_PER_SOFTMAX_ROW"], batch, part)
            self._launch(backward, self._n_tiles(self.ld) * self.n_shares, batch, part)
            if stop == min((batch + 1) * self.batch_size, len(order)):
                self._launch(update, self.ld * self.n_vectors, batch)

    def _forward(self, order, shape, order_buffer):
        """Make the logits of each chunk; yields its minibatch, its number in there, and where it ends in `order`."""
        pack = self._kernel("pack_rows", self.whole, np.int64(-1), *shape, order_buffer, *self.coordinates, self.packed)
        forward = self._kernel("forward", *shape, self.packed, self.coef, self.logits)
        batches = np.arange(0, len(order), self.batch_size)
        starts = (batches[:, np.newaxis] + np.arange(0, self.batch_size, self.chunk)).ravel()
        n_parts = len(starts) // len(batches)
        bounds = np.append(starts[starts < len(order)], len(order))
        for first, end, X, base in self._blocks(order, bounds):
            pack.set_arg(0, X)
            pack.set_arg(1, np.int64(base))
            for i in range(first, end):
                batch, part = divmod(i, n_parts)
                self._launch(pack, self.chunk * self.tiles["ITEMS_PER_PACKED_ROW"], batch, part)
                self._launch(forward, self._n_tiles(self.ldr) * self.n_slices, batch, part)
                yield batch, part, bounds[i + 1]

    def _run_sparse(self, order, step_sizes, shape, labels, step, loss):
        n_batches, B = len(step_sizes), self.batch_size
        tables = steps_owed(step_sizes, self.momentum)
        debt = *(self._write(name, a, self.dtype) for name, a in tables.items()), self.stamp
        softmax = self._kernel("softmax", *shape, *labels, self.logits, self.residuals, loss)
        value_bytes = 2 * (self.X.dtype.itemsize + 4) * (1 + self.X.nnz / self.X.shape[0])
        block = max(1, int(min(STAGING_BYTES, self.largest_buffer) // (value_bytes * B)))  # minibatches
        done = deque()
        for first in range(0, n_batches, block):
            end = min(first + block, n_batches)
            rows = self._with_ones(self.X[order[first * B : end * B]])
            values, *where, n_touched = _by_feature(rows, B)
            arguments = *shape, *step, *debt, self.coordinates[1]
            forward = self._sparse_forward(rows, first * B, *arguments)
            touched = map(self._constant, where)
            backward = self._kernel(
                "sparse_step", self._constant(values), np.int32(first), *touched, *arguments, self.residuals
            )
            for batch in range(first, end):
                self._launch(forward, B * self.n_vectors, batch)
                self._launch(softmax, B * self.tiles["ITEMS_PER_SOFTMAX_ROW"], batch)
                self._launch(backward, n_touched[batch - first] * self.n_vectors, batch)
            done.append(cl.enqueue_marker(self.queue))
            if len(done) > 1:  # the buffers of two blocks are enough
                done.popleft().wait()
        settle = self._kernel("finish_lagged", *shape, *step, *debt)
        self._launch(settle, self.ld * self.n_vectors, n_batches)

    def _with_ones(self, X):
        """CSR rows with a last column of ones, for the intercept: (values, columns, ends of the rows)."""
        ends = X.indptr.astype(np.int64) + np.arange(X.shape[0] + 1)
        stored = np.ones(ends[-1], dtype=bool)
        stored[ends[1:] - 1] = False
        values, columns = np.ones(ends[-1], X.dtype), np.full(ends[-1], self.n_features, np.int32)
        values[stored], columns[stored] = X.data[: X.indptr[-1]], X.indices[: X.indptr[-1]]
        return values, columns, ends.astype(np.int32)

    def _sparse_forward(self, rows, base, *arguments):
        values, columns, ends = map(self._constant, rows)
        return self._kernel("sparse_forward", values, np.int64(base), columns, ends, *arguments, self.logits)

    # ---- prediction

    def logits_of(self, rows, coef, intercept):
        """Logits (n_rows, n_classes) of some rows."""
        out = np.empty((len(rows), self.n_classes), self.dtype)
        with self._errors():
            self._prepare(coef, intercept, None, None, min(len(rows), 4096), trains=False)
            read = self._sparse_logits if self.is_sparse else self._dense_logits
            for start, stop in read(rows):
                out[start:stop] = self._from_panels(self.logits, self.ldr).T[: stop - start]
        return out

    def _dense_logits(self, rows):
        self.batch_size = self.chunk
        for batch, _, stop in self._forward(rows, self._shape(len(rows)), self._constant(rows)):
            yield batch * self.chunk, stop

    def _sparse_logits(self, rows):
        zeros = self._constant(
            np.zeros(self.ld * self.n_vectors)
        )  # nothing is owed, so most arguments are not looked at
        step = self.coef, self.coef, zeros, zeros, zeros, self.dtype.type(0), np.int32(0)
        debt = zeros, zeros, zeros, zeros
        for start in range(0, len(rows), self.chunk):
            block = rows[start : start + self.chunk]
            arguments = *self._shape(len(block)), *step, *debt, self.coordinates[1]
            self._launch(
                self._sparse_forward(self._with_ones(self.X[block]), 0, *arguments), len(block) * self.n_vectors
            )
            yield start, start + len(block)


def _by_feature(rows, batch_size):
    """The stored values of CSR rows sorted by minibatch, feature and row, as `sparse_step` wants them; and the number of
    features that occur in each minibatch.
    """
    values, columns, ends = rows
    n_rows = len(ends) - 1
    n_batches = -(-n_rows // batch_size)
    shape = n_rows, int(columns.max()) + 1
    sorted_by_column = sparse.csr_array((np.arange(len(values)), columns, ends), shape=shape).tocsc()
    row = sorted_by_column.indices
    batch = (row // batch_size).astype(np.uint16 if n_batches < 2**16 else np.int64)  # 16 bits: a radix sort
    by_batch = np.argsort(batch, kind="stable")
    row, batch = row[by_batch], batch[by_batch].astype(np.int64)
    column = np.repeat(np.arange(shape[1], dtype=np.int32), np.diff(sorted_by_column.indptr))[by_batch]
    begins = np.flatnonzero(np.append(True, (np.diff(batch) != 0) | (np.diff(column) != 0)))
    batch_begin = np.searchsorted(batch[begins], np.arange(n_batches + 1)).astype(np.int32)
    return (
        values[sorted_by_column.data[by_batch]],
        (row - batch * batch_size).astype(np.int32),
        batch_begin,
        column[begins],
        np.append(begins, len(values)).astype(np.int32),
        np.diff(batch_begin),
    )


def decision_function(X, coef, intercept, *, rows=None, n_jobs=None, device=None):
    rows = np.arange(X.shape[0]) if rows is None else rows
    dtype = np.result_type(compute_dtype(X), coef.dtype)
    return OpenCLBackend(X, None, None, len(coef), device=device, dtype=dtype).logits_of(rows, coef, intercept)
