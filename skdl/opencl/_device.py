"""Which OpenCL device to use, and what belongs to it: its context and its programs, once a process."""

import os
import threading
import warnings
from contextlib import contextmanager
from functools import cache
from importlib.resources import files

import numpy as np

from skdl._backends import ForkGuard

try:
    import pyopencl as cl
except ImportError as error:
    raise ImportError("backend='opencl' needs PyOpenCL: pip install 'skdl[opencl]'.") from error

_PROBE = "__kernel void probe(__global float *x) { x[get_global_id(0)] += get_global_id(0); }"

_lock = threading.RLock()
_guard = ForkGuard(used=False)


def check_fork():
    """Drivers have threads that do not survive a fork: a child that used them would deadlock."""
    if _guard.forked:
        raise RuntimeError(
            "This process was forked from one that had used OpenCL, whose drivers do not survive a fork. Use OpenCL in "
            "the parent or in the child alone, or start processes by 'spawn', 'forkserver' or joblib's 'loky'."
        )
    _guard.used = True


@contextmanager
def readable_errors(device):
    """PyOpenCL's errors as MemoryError or RuntimeError with a text that names the device."""
    try:
        yield
    except cl.MemoryError as error:
        raise MemoryError(f"OpenCL device {device.name.strip()!r} is out of memory: {error}") from error
    except cl.Error as error:
        raise RuntimeError(f"OpenCL device {device.name.strip()!r} failed: {error}") from error


def all_devices():
    """Each device of this machine with its indices: [("platform:device", device)]."""
    check_fork()
    with _lock:
        try:
            platforms = cl.get_platforms()
        except cl.Error:  # the loader's way to say that there are none
            return []
        found = []
        for p, platform in enumerate(platforms):
            try:
                found += [(f"{p}:{d}", device) for d, device in enumerate(platform.get_devices())]
            except cl.Error:  # a platform without a device
                continue
        return found


@cache
def defect(device):
    """Why a device cannot be used, or None: it builds a small program and gets the right answer."""
    with _lock:
        try:
            context = cl.Context([device])
            queue = cl.CommandQueue(context)
            x = np.ones(64, dtype=np.float32)
            buffer = cl.Buffer(context, cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR, hostbuf=x)
            with warnings.catch_warnings(action="ignore", category=cl.CompilerWarning):
                cl.Program(context, _PROBE).build().probe(queue, x.shape, None, buffer)
            cl.enqueue_copy(queue, x, buffer)
        except Exception as error:  # whatever a broken driver makes of it
            return " ".join(str(error).split())
        return None if (x == 1 + np.arange(64)).all() else "a small program gave a wrong answer"


def _matches(part, index, name):
    return part == index or (part != "" and not part.isdigit() and part.lower() in name.lower())


def _is_meant(spec, indices, device):
    """Whether "p:d", "p" (indices or parts of names) or a part of a device's name means this device."""
    p, d = indices.split(":")
    platform_part, colon, device_part = spec.partition(":")
    if colon:
        return _matches(platform_part, p, device.platform.name) and _matches(device_part, d, device.name)
    return _matches(spec, p, device.platform.name) or _matches(spec, None, device.name)


def choose(device=None):
    """The device that `device` means (None: PYOPENCL_CTX), or without both the first that works, GPUs first."""
    check_fork()
    if device is None and os.environ.get("PYOPENCL_CTX"):
        return _choose("PYOPENCL_CTX", os.environ["PYOPENCL_CTX"])
    return _choose("device", device)


@cache
def _choose(name, spec):
    devices = all_devices()
    if not devices:
        raise RuntimeError(
            "backend='opencl' found no OpenCL device: install a driver (GPUs: the vendor's; CPUs, on Debian or Ubuntu: "
            "apt install pocl-opencl-icd)."
        )
    listing = ", ".join(f"{indices} {device.name.strip()!r}" for indices, device in devices)
    if spec is not None:
        meant = [device for indices, device in devices if _is_meant(spec, indices, device)]
        if not meant:
            raise ValueError(
                f"{name}={spec!r} is not an OpenCL device: expected indices 'platform:device' or a part of a name, and "
                f"there are {listing}."
            )
        if why := defect(meant[0]):
            raise RuntimeError(f"{name}={spec!r}: OpenCL device {meant[0].name.strip()!r} does not work: {why}")
        return meant[0]
    kinds = [cl.device_type.GPU, cl.device_type.ACCELERATOR, cl.device_type.CPU]
    for device in sorted(
        (d for _, d in devices), key=lambda d: next((i for i, k in enumerate(kinds) if d.type & k), 3)
    ):
        if not defect(device):
            return device
    raise RuntimeError(
        f"backend='opencl' found no OpenCL device that works: there are {listing}; python -m skdl.opencl says why each fails."
    )


@cache
def _context(device):
    return cl.Context([device])


def context_of(device):
    """The process's one context for a device."""
    check_fork()
    with _lock:
        return _context(device)


@cache
def _program(device, options):
    source = (files("skdl.opencl") / "softmax.cl").read_text()
    with warnings.catch_warnings(action="ignore", category=cl.CompilerWarning):  # compilers that report their success
        return cl.Program(context_of(device), source).build(options=list(options))


def program_of(device, options):
    """softmax.cl built with a tuple of options: once a process; PyOpenCL and the driver keep it on disk as well."""
    with _lock:
        return _program(device, options)


def is_cpu(device):
    """Whether the device is a CPU, which wants other tiles than a GPU and reads the host's memory."""
    return bool(device.type & cl.device_type.CPU)


def has_double(device):
    return "cl_khr_fp64" in device.extensions


def storage_dtype(device, dtype):
    """The type that values of this type have on the device: float32 for float64 where it has no double precision."""
    return np.dtype(np.float32 if dtype == np.float64 and not has_double(device) else dtype)
