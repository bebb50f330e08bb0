"""Larger than a machine: what skdl.dask reaches on a small cluster of this machine, and what 64 simulated workers do.

    python benchmarks/scale_dask.py                     # two minutes; 3 GB of memory
    python benchmarks/scale_dask.py --only speed        # 6,000,000 rows: 12 GB; let nothing else run
    python benchmarks/scale_dask.py --only simulated

The rows are MNIST's, each several times, with noise of its own: a whole number from -16 to 16, drawn anew for each pixel that
is not 0, is added to it, and the sum is cut to 0..255. They are sorted by class, so that a chunk has one class or two, and are
made by the tasks that load them. Rows that repeat each other are no new evidence of the digits, which alpha="auto" cannot know;
so there are fits with the alpha that it learns from the 60,000 rows themselves, too.
"""

import argparse
import time
import warnings
from functools import cache

import dask
import dask.array as da
import numpy as np
from _data import error, images, log_loss, logits
from _machine import header
from _timing import Clock, markdown
from distributed import Client, LocalCluster
from sklearn.base import clone

import skdl
from skdl import _rounds
from skdl._parameters import check
from skdl._sgd import solve
from skdl.dask import SoftmaxRegressionClassifier

NOISE, CHUNK_ROWS, N_EPOCHS = 16, 10_000, 5
ALPHA = 6e-4  # of alpha="auto" on MNIST's 60,000 rows


@cache
def sorted_mnist():
    X, _, y, _ = images("mnist", "raw")
    order = np.argsort(y, kind="stable")
    return X[order], y[order]


def chunk(i, times):
    """X and y of a chunk of MNIST's rows, so many times each, with noise."""
    X, y = sorted_mnist()
    rows = np.arange(i * CHUNK_ROWS, (i + 1) * CHUNK_ROWS) // times
    rng, X = np.random.default_rng(i), X[rows]
    noise = rng.integers(-NOISE, NOISE + 1, X.shape, dtype=np.int8)
    noise[X == 0] = 0
    return np.clip(X.astype(np.int16) + noise, 0, 255).astype(np.uint8), y[rows]


def n_chunks(times):
    return 60_000 * times // CHUNK_ROWS


def collections(times):
    """X and y as dask arrays."""
    pairs = [dask.delayed(chunk)(i, times) for i in range(n_chunks(times))]
    X = [da.from_delayed(pair[0], (CHUNK_ROWS, 784), np.uint8) for pair in pairs]
    y = [da.from_delayed(pair[1], (CHUNK_ROWS,), int) for pair in pairs]
    return da.concatenate(X), da.concatenate(y)


def in_memory(times):
    X, y = np.empty((60_000 * times, 784), np.uint8), np.empty(60_000 * times, int)
    for i in range(n_chunks(times)):
        rows = slice(i * CHUNK_ROWS, (i + 1) * CHUNK_ROWS)
        X[rows], y[rows] = chunk(i, times)
    return X, y


def cluster():
    return LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")


def row(what, model, seconds, alpha):
    """A line of a table: error and log-loss on MNIST's test set."""
    _, X, _, y = images("mnist", "raw")
    found = logits(X, *model)
    return {
        "fit": what, "alpha": f"{alpha:.2g}", "error %": f"{error(found, y):.2f}",
        "log-loss": f"{log_loss(found, y):.4f}", "s": f"{seconds:.1f}",
    }  # fmt: skip


def one_machine(times, **params):
    """A line of the fit of arrays, on one thread."""
    X, y = in_memory(times)
    start = time.perf_counter()
    model = skdl.SoftmaxRegressionClassifier(max_iter=N_EPOCHS, random_state=0, n_jobs=1, **params).fit(X, y)
    return row("one thread", (model.coef_, model.intercept_), time.perf_counter() - start, model.alpha_)


def accuracy(times=10):
    """600,000 rows sorted by class, 5 epochs: LocalCluster(2 workers, 1 thread each)"""
    X, y = collections(times)
    for params in ({"alpha": ALPHA}, {}):
        yield one_machine(times, **params)
        with cluster() as workers, Client(workers):
            for what in ("two workers", "two workers, once more"):
                start = time.perf_counter()
                model = SoftmaxRegressionClassifier(max_iter=N_EPOCHS, random_state=0, **params).fit(X, y)
                seconds = time.perf_counter() - start
                yield row(what, (model.coef_, model.intercept_), seconds, model.alpha_)


def epoch_seconds(estimator, X, y):
    """Seconds of the fastest epoch after the first, and of the fit: others on the machine make epochs slower, never faster."""
    clock = Clock()
    start = time.perf_counter()
    estimator.set_params(max_iter=N_EPOCHS, alpha=ALPHA).set_callbacks(clock).fit(X, y)
    return np.diff(clock.ended).min(), time.perf_counter() - start


def speed(times=100):
    """6,000,000 rows: an epoch's rounds on two workers over the epoch of one process with one thread"""
    # which visits arrays of more than 4 GiB block by block, so that its rows lie together, too
    X, y = in_memory(times)
    one, one_in_all = epoch_seconds(skdl.SoftmaxRegressionClassifier(random_state=0, n_jobs=1), X, y)
    del X, y
    yield {
        "fit": "one thread",
        "s an epoch": f"{one:.2f}",
        "ratio": "1.00",
        "s of 5 epochs in all": f"{one_in_all:.1f}",
    }
    with cluster() as workers, Client(workers):
        two, two_in_all = epoch_seconds(SoftmaxRegressionClassifier(random_state=0), *collections(times))
    yield {
        "fit": "two workers", "s an epoch": f"{two:.2f}", "ratio": f"{two / one:.2f}",
        "s of 5 epochs in all": f"{two_in_all:.1f}",
    }  # fmt: skip


def simulated(times=11):
    """660,000 rows sorted by class, 5 epochs: simulated workers, whose functions run in turn"""
    yield one_machine(times, alpha=ALPHA)
    parts = [(*chunk(i, times), None) for i in range(n_chunks(times))]
    estimator = skdl.SoftmaxRegressionClassifier(max_iter=N_EPOCHS, random_state=0, alpha=ALPHA)
    for n_workers in (2, 16, 64):
        start = time.perf_counter()
        problem, _ = _rounds.pose(check(clone(estimator)), _rounds.InProcess(n_workers), parts, seed=0)
        solution = solve(problem.source, problem.options, _rounds.Backend.of(problem))
        shared = problem.source.sizes
        what = f"{shared.n_shards} workers, batch {shared.batch_size}, {shared.n_rounds} rounds"
        yield row(what, (solution.coef, solution.intercept), time.perf_counter() - start, solution.alpha)


TABLES = {table.__name__: table for table in (accuracy, speed, simulated)}


def show(names):
    for name in names:
        print(f"\n{TABLES[name].__doc__}", flush=True)
        markdown(list(TABLES[name]()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=TABLES, default=["accuracy", "simulated"])
    warnings.simplefilter("ignore")
    print(header())
    show(parser.parse_args().only)
