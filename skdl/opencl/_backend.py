"""The OpenCL backend: data on the device, and statistics of its columns."""

import numpy as np

from skdl._backends import compute_dtype, csr_statistics, moments
from skdl._warnings import warn
from skdl.opencl import _device, _memory
from skdl.opencl._device import cl
from skdl.opencl._layout import row_length
from skdl.opencl._memory import Memory
from skdl.opencl._predictor import Predictor
from skdl.opencl._program import WINDOW_FLOP, Program
from skdl.opencl._training import Training


class Backend:
    """Trains and predicts on an OpenCL device; see `skdl._backends.Backend` for what the methods promise."""

    n_lanes = 1

    def __init__(self, source, n_outputs, *, n_jobs=None, device=None):
        self.n_features, self.n_outputs, self.is_sparse = source.n_features, n_outputs, source.is_sparse
        self.source_dtype, self.asked_device = source.dtype, device
        self.device = _device.choose(device)
        self.storage = _device.storage_dtype(self.device, source.dtype)
        self.dtype = compute_dtype(self.storage)
        self.memory = Memory(self.device)
        self.memory.check(coefficients=row_length(self.n_features) * n_outputs * self.dtype.itemsize)
        self.block = None

    @property
    def processor(self):
        return f"{self.device.name.strip()} {self.device.driver_version}"

    def for_source(self, source):
        return Backend(source, self.n_outputs, device=self.asked_device)

    def place(self, block):
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
            self.place(block)
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

    # ---- training

    def start(self, parameters, velocity, **how):
        if self.storage != self.source_dtype:
            warn(f"OpenCL device {self.device.name.strip()!r} has no double precision: computing in float32.")
        return Training(self, parameters, velocity, **how)

    # ---- prediction

    def predictor(self, X, rows=None, y=None):
        return Predictor(self.memory, self.n_outputs, X, rows, y)
