"""What was built and what was found, for bug reports."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from skdl import _kernels
from skdl._backends import BACKENDS
from skdl._version import __version__
from skdl.openmp import _threads

PACKAGES = ["scikit-learn", "numpy", "scipy", "joblib", "threadpoolctl", "cython", "pyopencl"]


def _installed(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def show_versions() -> None:
    """Print what skdl was built with and what it found: OpenMP, threads, instruction set, backends, versions.

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
        "threads": _threads.max_threads(None),
        "instruction set": f"{_threads.isa()[1]} (of {', '.join(_kernels.instruction_sets())})",
        "backends": ", ".join(BACKENDS) + ("" if find_spec("pyopencl") else " (which needs PyOpenCL)"),
    }
    rows.update({package: _installed(package) for package in PACKAGES})
    for name, value in rows.items():
        print(f"{name:16}{value}")
