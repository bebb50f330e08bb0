"""Arrays as the kernels want them: aligned, and padded to whole vectors."""

import math

import numpy as np

from skdl import _kernels
from skdl._backends import padded


def zeros(shape, dtype):
    """Zeros aligned to a cache line, with room for one full vector past the end.

    An unaligned 64-byte load touches two lines.
    """
    size = math.prod(shape) * dtype.itemsize
    memory = np.zeros(size + 128, dtype=np.uint8)
    begin = -memory.ctypes.data % 64
    return memory[begin : begin + size].view(dtype).reshape(shape)


def pad_columns(a, ld, dtype):
    """A copy of a 2-D array with zeros up to `ld` columns."""
    out = zeros((len(a), ld), dtype)
    out[:, : a.shape[1]] = a
    return out


def even_parts(n, n_parts):
    """Bounds (n_parts + 1,) of parts of n columns or outputs, padded to whole units of PAD, as even as possible."""
    n_units = padded(n) // _kernels.PAD
    return np.array([_kernels.PAD * (n_units * i // n_parts) for i in range(n_parts + 1)], dtype=np.int64)
