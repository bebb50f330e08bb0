"""The kernels of `softmax.cl`, built with tiles that suit a device, and their launches."""

from collections import deque

import numpy as np

from skdl._backends import ceil_div
from skdl.opencl import _device
from skdl.opencl._device import cl

# Work items of a group, where groups are of use.
LARGEST_GROUP = 256
# Models of two classes that share a vector, at most: with 16 on PoCL, one model alone takes a sixth longer than with 8.
LARGEST_BUNDLE = 8
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


def round_up(n, unit):
    """n rounded up to a multiple of unit."""
    return ceil_div(n, unit) * unit


def _tiles(device, dtype, n_outputs, *, fused, trains):
    """Options of the build, as `softmax.cl` explains them: wide vectors and no groups on a CPU, groups elsewhere."""
    if _device.is_cpu(device):
        native = device.native_vector_width_double if dtype == np.float64 else device.native_vector_width_float
        widest, columns, rows, group = min(max(native, 4), 16), 1, 8, 1
    else:
        widest, columns, rows = (4, 1, 2) if fused else (4, 2, 8)
        group = min(LARGEST_GROUP, device.max_work_group_size)
    vector = min(widest, 1 << (n_outputs - 1).bit_length())
    if trains and n_outputs == 1:
        vector = min(widest, LARGEST_BUNDLE)
    if n_outputs <= vector:
        columns = 1
    across = min(8, ceil_div(n_outputs, vector * columns)) if group > 1 else 1
    return {
        "VECTOR": vector,
        "COLUMNS": columns,
        "ROWS": rows,
        "PANEL": vector * columns * across,
        "GROUP": group,
        "ITEMS_PER_PACKED_ROW": min(group, 32),
        "ITEMS_PER_SOFTMAX_ROW": 32 if group >= 32 and n_outputs > 64 else 1,
    }


class Program:
    """The kernels for one type of X and one number of outputs; a launch does about `flop` operations.

    Only what trains works on several models at once.
    """

    def __init__(self, queue, dtype, storage, n_outputs, *, is_sparse=False, trains=False, fused, flop):
        self.queue, self.tiles = queue, _tiles(queue.device, dtype, n_outputs, fused=fused, trains=trains)
        # As many work items as keep the device busy.
        group = self.tiles["GROUP"]
        self.n_items = queue.device.max_compute_units * group * (1 if group == 1 else 2)
        options = [f"-D{name}={value}" for name, value in {**self.tiles, "STORAGE": _STORAGE[storage.name]}.items()]
        options += ["-DHALF"] if storage == np.float16 else []
        options += ["-DDOUBLE"] if dtype == np.float64 else []
        options += ["-DSPARSE"] if is_sparse else []
        options += ["-DTWO_CLASSES"] if n_outputs == 1 else []
        self.program, self.kernels = _device.program_of(queue.device, tuple(options)), {}
        self.window = int(max(1, min(WINDOW_LAUNCHES, WINDOW_FLOP // max(flop, 1))))
        self.n_launched, self.enqueued = 0, deque()

    def kernel(self, name, *arguments):
        """The kernel object of this name with its arguments: one's own, since they are not thread-safe, and made once."""
        kernel, known = self.kernels.get(name) or (cl.Kernel(self.program, name), None)
        if arguments != known:
            kernel.set_args(*arguments)
            self.kernels[name] = kernel, arguments  # which OpenCL does not keep alive
        return kernel

    def launch(self, kernel, n_items, batch=0, part=0):
        """Enqueue; now and then wait for what was enqueued a window ago."""
        group = self.tiles["GROUP"]
        event = cl.enqueue_nd_range_kernel(
            self.queue, kernel, (round_up(n_items, group), 1, 1), (group, 1, 1), (0, batch, part)
        )
        self.n_launched += 1
        if self.n_launched % self.window == 0:
            self.queue.flush()
            self.enqueued.append(event)
            if len(self.enqueued) > 1:
                self.enqueued.popleft().wait()
