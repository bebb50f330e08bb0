"""How many threads there may be, and how many are worth it."""

import os
import time
from functools import lru_cache

import joblib

from skdl import _kernels
from skdl._backends import ForkGuard

# Minibatches with fewer floating point operations than this per thread (about 20 us) are faster on fewer threads: barriers
# cost more.
FLOP_PER_THREAD = 1_600_000

_fork = ForkGuard(used=True)


def available_cores():
    """Number of cores that affinity, cgroup quota and joblib's limits leave to the process."""
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    return _cpu_count(frozenset(affinity), os.environ.get("LOKY_MAX_CPU_COUNT"), int(time.monotonic()))


@lru_cache(maxsize=1)
def _cpu_count(affinity, limit, second):
    """What joblib says, which reads several files, once a second: a fit asks a dozen times."""
    return joblib.cpu_count()


def max_threads(n_jobs):
    """Number of threads that `n_jobs` stands for.

    None means as many as the process may use: OMP_NUM_THREADS and the limits of threadpoolctl hold. A negative number
    counts back from it, as in joblib. There are never more than cores: they would wait for each other at every minibatch.
    A forked child works on one thread, since OpenMP's threads do not survive a fork; results do not change with it.
    """
    if _fork.forked or not _kernels.OPENMP or n_jobs == 1:
        return 1
    if n_jobs is not None and n_jobs > 0:
        return min(int(n_jobs), available_cores())
    available = min(_kernels.max_threads(), available_cores())
    return max(1, available + 1 + (-1 if n_jobs is None else int(n_jobs)))


def threads(n_jobs, useful):
    """Number of threads to start where `useful` have enough work. To ask how many there are takes longer than a small job."""
    return min(useful, max_threads(n_jobs)) if useful > 1 else 1


def useful_threads(flop):
    """Number of threads that have enough work in so many floating point operations between two barriers."""
    return 1 + int(flop // FLOP_PER_THREAD)
