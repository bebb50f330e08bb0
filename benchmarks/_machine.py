"""The machine that a benchmark runs on: what it is, and the two ceilings that no kernel can break."""

import ctypes
import os
import platform
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import scipy
import sklearn

import skdl
from skdl._backends import instruction_set
from skdl.openmp import _threads

MEASURED_BYTES = 1 << 28  # well beyond the caches


def header():
    """CPU, cores, memory, load, versions, instruction set and threads, in a line."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}, SciPy {scipy.__version__}, "
    versions += f"scikit-learn {sklearn.__version__}, skdl {skdl.__version__}"
    isa = instruction_set()[1]
    busy = f"load {os.getloadavg()[0]:.1f}"
    threads = _threads.max_threads(None)
    return f"{cpu}, {os.cpu_count()} cores, {memory:.0f} GB, {busy}; {versions} ({isa}, {threads} threads)"


def _build():
    """The probe as a library of functions, compiled for this very processor."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "roofline.so"
        source = Path(__file__).parent / "_roofline.c"
        native = "-mcpu=native" if platform.machine() == "aarch64" else "-march=native"
        command = ["cc", "-O2", native, "-fopenmp", "-shared", "-fPIC", source, "-o", library]
        subprocess.run(command, check=True)
        probe = ctypes.CDLL(str(library))
    for function in (probe.peak_float, probe.peak_double, probe.read_rate):
        function.restype = ctypes.c_double
    return probe


class Roofline:
    """Peak of fused multiply-adds (flop/s) and bandwidth of reads (bytes/s), the best of many short runs.

    A dictionary each, by the number of threads; `peak` has one for each type of computation.
    """

    def __init__(self, thread_counts, n_runs=25):
        self.peak = {np.dtype(type_): dict.fromkeys(thread_counts, 0.0) for type_ in (np.float32, np.float64)}
        self.bandwidth = dict.fromkeys(thread_counts, 0.0)
        self.n_runs, self._probe = n_runs, _build()
        self.measure()

    def measure(self):
        """Run the probe; better readings than those so far are kept."""
        data = np.ones(MEASURED_BYTES, dtype=np.uint8)
        address = ctypes.c_void_p(data.ctypes.data)
        functions = self._probe.peak_float, self._probe.peak_double
        for _ in range(self.n_runs):
            for t in self.bandwidth:
                for peak, function in zip(self.peak.values(), functions, strict=True):
                    peak[t] = max(peak[t], function(ctypes.c_long(100_000), t))
                rate = self._probe.read_rate(address, ctypes.c_long(data.nbytes), t)
                self.bandwidth[t] = max(self.bandwidth[t], rate)

    def floor(self, shape, n_logits, dtype, n_threads):
        """Seconds that an epoch takes at the least: X is read once, and each of its values meets each class twice."""
        size, dtype = shape[0] * shape[1], np.dtype(dtype)
        peak = self.peak[np.dtype(np.float64 if dtype == np.float64 else np.float32)][n_threads]
        return max(size * dtype.itemsize / self.bandwidth[n_threads], 4 * size * n_logits / peak)

    def __str__(self):
        def rates(values):
            return " / ".join(f"{value / 1e9:.0f}" for value in values.values())

        float32, float64 = self.peak.values()
        return (
            f"roofline with {' / '.join(map(str, self.bandwidth))} threads: float32 {rates(float32)} GFLOP/s, "
            f"float64 {rates(float64)} GFLOP/s, reads {rates(self.bandwidth)} GB/s"
        )
