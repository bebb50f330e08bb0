"""What threads cost where they are more than the cores: time of an epoch against as many threads as there are cores.

    python tools/oversubscription.py

For n_jobs from 1 to 8, on a single core and on all, and for two processes with two threads each. Medians of 9 fits; the
ratio to as many threads as cores is what counts, and should stay below 2. skdl starts no more threads than there are cores;
"with as many threads" takes that limit away, and shows what the barrier costs where others hold the cores.
"""

import multiprocessing
import os
import statistics
import subprocess
import sys
import time
import warnings

import numpy as np
from scipy import sparse

from skdl import SoftmaxRegressionClassifier
from skdl._backends import instruction_set
from skdl.openmp import _threads

warnings.simplefilter("ignore")
RNG = np.random.default_rng(0)
DATA = {
    "dense, 20,000 x 784, 10 classes": (RNG.integers(0, 256, (20_000, 784), dtype=np.uint8), 10, 128),
    "dense, 20,000 x 784, 10 classes, batch 4096": (RNG.integers(0, 256, (20_000, 784), dtype=np.uint8), 10, 4096),
    "CSR, 20,000 x 20,000, 14 a row, 58 classes": (
        sparse.random_array((20_000, 20_000), density=14 / 20_000, format="csr", dtype=np.float32, rng=0), 58, 128),
}  # fmt: skip


def epoch_time(name, n_jobs, repeats=9):
    X, n_classes, batch_size = DATA[name]
    y = np.arange(X.shape[0]) % n_classes
    clf = SoftmaxRegressionClassifier(lr=1e-6, max_iter=3, batch_size=batch_size, n_jobs=n_jobs, random_state=0)
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        clf.fit(X, y)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:]) / 3


def in_process(arguments):
    return epoch_time(*arguments)


def measure(n_cores):
    print(f"{n_cores} cores, {instruction_set()[1]}, load {os.getloadavg()[0]:.1f}")
    for name in DATA:
        print(name)
        alone = epoch_time(name, n_cores)
        for n_jobs in (1, 2, 3, 4, 8):
            took = epoch_time(name, n_jobs)
            line = f"  n_jobs={n_jobs}: {1e3 * took:7.2f} ms, {took / alone:5.2f} x of n_jobs={n_cores}"
            if n_jobs > n_cores:
                limit, _threads.available_cores = _threads.available_cores, lambda: 64
                took = epoch_time(name, n_jobs)
                _threads.available_cores = limit
                line += f"; with as many threads {1e3 * took:7.2f} ms, {took / alone:5.2f} x"
            print(line, flush=True)
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            took = statistics.median(pool.map(in_process, [(name, 2)] * 2, chunksize=1)) / 2
        print(f"  2 processes of 2 threads: {1e3 * took:7.2f} ms a fit, {took / alone:5.2f} x of {n_cores}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:  # with this many cores only
        measure(int(sys.argv[1]))
    else:
        cores = sorted(os.sched_getaffinity(0))
        for n_cores in sorted({1, len(cores)}):
            # as under taskset: set before the process begins, for OpenMP looks once
            os.sched_setaffinity(0, cores[:n_cores])
            subprocess.run([sys.executable, __file__, str(n_cores)], check=True)
