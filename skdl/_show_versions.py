"""What was built and what was found, for bug reports."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from skdl import _kernels
from skdl._backends import instruction_set
from skdl._version import __version__
from skdl.openmp import _threads

PACKAGES = ["scikit-learn", "numpy", "scipy", "joblib", "threadpoolctl", "cython", "pyopencl", "skl2onnx"]


def _installed(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _opencl_devices():
    try:
        from skdl.opencl._device import all_devices

        devices = ", ".join(f"{indices} {device.name.strip()}" for indices, device in all_devices())
    except (ImportError, RuntimeError) as error:
        return f"no: {error}"
    return devices or "no: PyOpenCL finds no device"


def show_versions() -> None:
    """Print what skdl was built with and what it found: OpenMP, OpenCL's devices, threads, instruction set, versions.

    Examples
    --------
    >>> import skdl
    >>> skdl.show_versions()  # doctest: +ELLIPSIS
    skdl            ...
    """
    rows = {
        "skdl": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "OpenMP": "yes" if _kernels.OPENMP else "no: built without it, so fits run on one thread",
        "OpenCL": _opencl_devices(),
        "threads": _threads.max_threads(None),
        "instruction set": f"{instruction_set()[1]} (of {', '.join(_kernels.instruction_sets())})",
    }
    rows.update({package: _installed(package) for package in PACKAGES})
    for name, value in rows.items():
        print(f"{name:16}{value}")
