"""The memory of a device: what fits there, arrays on their way, and dense X, placed whole or streamed."""

from contextlib import contextmanager
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np
from scipy import sparse

from skdl.opencl import _device
from skdl.opencl._device import cl

# X is streamed through two buffers of STAGING_BYTES if it is larger than the device's largest buffer, or than LARGEST_X (which
# only tests lower), or if on a GPU it would leave less than half of the memory.
LARGEST_X = 1 << 62
STAGING_BYTES = 1 << 26


class Memory:
    """A queue of a device and the buffers that it works on, counted before they are allocated."""

    def __init__(self, device):
        self.device, self.largest_buffer = device, device.max_mem_alloc_size
        self._reserved, self._placed, self._refreshed = WeakKeyDictionary(), WeakValueDictionary(), {}
        with _device.readable_errors(device):
            self.queue = cl.CommandQueue(_device.context_of(device))

    @contextmanager
    def errors(self):
        """PyOpenCL's errors made readable; and memory that the device may still read outlives whatever goes wrong."""
        with _device.readable_errors(self.device):
            try:
                yield
            except BaseException as error:
                if not isinstance(error, cl.Error):
                    self.queue.finish()
                raise

    @property
    def allocated(self):
        """Bytes of what is reserved by those who still live."""
        return sum(self._reserved.values())

    def check(self, **n_bytes):
        """Raise MemoryError if buffers of these sizes do not fit beside those that exist."""
        need, capacity = self.allocated + sum(n_bytes.values()), self.device.global_mem_size
        name, largest = max(n_bytes.items(), key=lambda item: item[1])
        if need > capacity or largest > self.largest_buffer:
            raise MemoryError(
                f"OpenCL device {self.device.name.strip()!r} has too little memory: {need / 1e6:.1f} MB needed in all, of "
                f"{capacity / 1e6:.1f} MB; the largest buffer ({name}) needs {largest / 1e6:.1f} MB, at most "
                f"{self.largest_buffer / 1e6:.1f} MB are allowed in one buffer."
            )

    def reserve(self, owner, **n_bytes):
        """Count buffers of these sizes as allocated, if they fit, for as long as their owner lives."""
        self.check(**n_bytes)
        self._reserved[owner] = self._reserved.get(owner, 0) + sum(n_bytes.values())

    def scratch(self, owner, dtype, **shapes):
        """Buffers for arrays of these shapes, which live as long as their owner."""
        n_bytes = {name: max(1, int(np.prod(shape))) * dtype.itemsize for name, shape in shapes.items()}
        self.reserve(owner, **n_bytes)
        return [cl.Buffer(self.queue.context, cl.mem_flags.READ_WRITE, n) for n in n_bytes.values()]

    def upload(self, a):
        """A buffer with a copy of an array."""
        flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR
        return cl.Buffer(self.queue.context, flags, hostbuf=np.ascontiguousarray(a))

    def refresh(self, name, a, dtype=None):
        """The buffer of this name with the values of an array: one buffer while the size stays."""
        a = np.ascontiguousarray(a, dtype=dtype)
        buffer, before = self._refreshed.get(name, (None, None))
        if buffer is None or before.nbytes != a.nbytes:
            buffer = self.upload(a)
        else:
            cl.enqueue_copy(self.queue, buffer, a, is_blocking=False)
        self._refreshed[name] = buffer, a  # which the device reads later
        return buffer

    def place(self, X):
        """X as the device can read it: dense rows, which share one copy there as long as anyone holds them; or CSR, which stays
        on the host.
        """
        if sparse.issparse(X):
            return X.astype(_device.storage_dtype(self.device, X.dtype), copy=False)
        rows = self._placed.get(id(X))
        if rows is None:
            rows = DenseRows(self, X)
            self._placed[id(X)] = rows
        return rows


class DenseRows:
    """Dense X, on the device as a whole (`X_on_device`) or, where that is None, streamed there for each pass."""

    def __init__(self, memory, X):
        self.given = X  # kept alive, so that its id stays a key of `place`
        self.memory, self.X = memory, X.astype(_device.storage_dtype(memory.device, X.dtype), copy=False)
        self.X_on_device = self._place_whole()

    def _place_whole(self):
        memory, n_bytes = self.memory, self.X.nbytes
        if n_bytes > min(memory.largest_buffer, LARGEST_X):
            return None
        if _device.is_cpu(memory.device):  # read in place
            flags = cl.mem_flags.READ_ONLY | cl.mem_flags.USE_HOST_PTR
            return cl.Buffer(memory.queue.context, flags, hostbuf=self.X)
        if memory.allocated + n_bytes > memory.device.global_mem_size / 2:
            return None
        memory.reserve(self, X=n_bytes)
        return memory.upload(self.X)

    def stream(self, order, bounds):
        """The rows `order` on the device, several parts at a time; part i is order[bounds[i]:bounds[i + 1]].

        Yields first part, end part, buffer and `base`, as `softmax.cl` explains it. If X is not there as a whole, the host
        gathers rows while the device works on those before.
        """
        n_parts = len(bounds) - 1
        if self.X_on_device is not None:
            yield 0, n_parts, self.X_on_device, -1
            return
        queue, row_bytes = self.memory.queue, self.X.shape[1] * self.X.itemsize
        n_rows = max(np.diff(bounds).max(), min(STAGING_BYTES, self.memory.largest_buffer) // row_bytes)
        self.memory.check(rows=n_rows * row_bytes, more_rows=n_rows * row_bytes)
        staging = [np.empty((n_rows, self.X.shape[1]), self.X.dtype) for _ in range(2)]
        buffers = [cl.Buffer(queue.context, cl.mem_flags.READ_ONLY, a.nbytes) for a in staging]
        free, first, k = [None, None], 0, 0
        while first < n_parts:
            end = int(np.searchsorted(bounds, bounds[first] + n_rows, side="right")) - 1
            if free[k]:
                free[k].wait()
            rows = order[bounds[first] : bounds[end]]
            np.take(self.X, rows, axis=0, out=staging[k][: len(rows)], mode="clip")
            cl.enqueue_copy(queue, buffers[k], staging[k][: len(rows)], is_blocking=False)
            yield first, end, buffers[k], bounds[first]
            free[k] = cl.enqueue_marker(queue)
            queue.flush()
            first, k = end, 1 - k
