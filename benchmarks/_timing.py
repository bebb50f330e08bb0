"""How the benchmarks take times, print tables and keep results."""

import csv
import time

import numpy as np

from skdl._backends import ceil_div, get_backend
from skdl._data import InMemory
from skdl._softmax import n_outputs


def seconds(function):
    """Seconds that one call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def alternated(contenders, n_rounds, budget=20.0, rest=0.1):
    """Seconds of each contender over the rounds, in which they take turns.

    A contender is a function that returns seconds. Its first call pays for threads and caches and does not count,
    unless it took more than a second, where that makes no difference; after `budget` seconds it sits out.
    """
    times, spent = {name: [] for name in contenders}, dict.fromkeys(contenders, 0.0)
    for i in range(n_rounds + 1):
        for name, contender in contenders.items():
            if (spent[name] > budget and times[name]) or len(times[name]) == n_rounds:
                continue
            time.sleep(rest)  # the threads of whoever came before spin on for a while
            start = time.perf_counter()
            taken = contender()
            spent[name] += time.perf_counter() - start
            if i > 0 or taken > 1:
                times[name].append(taken)
    return times


class PlainEpochs:
    """Epochs of the textbook's step (no momentum, no penalty, constant step), straight on the backend."""

    def __init__(self, X, y, n_classes, batch_size, n_threads=None):
        source = InMemory(X, y)
        backend = get_backend("openmp")(source, n_outputs(n_classes), n_jobs=n_threads)
        self.training = backend.start(None, None, mean=None, scale=None, l1=None, l2=None, momentum=np.zeros(1),
                                      fit_intercept=True, batch_size=batch_size)  # fmt: skip
        self.block, self.order, self.rng = source.block, source.rows, np.random.default_rng(0)
        self.steps = np.full((1, 1, ceil_div(source.n_rows, batch_size)), 1e-6)

    def shuffle(self):
        self.rng.shuffle(self.order)

    def run(self):
        self.training.run(self.block, self.order[np.newaxis], self.steps)


def markdown(rows):
    """Print dictionaries of texts as an aligned table."""
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    width = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines = [[cell.rjust(n) if i else cell.ljust(n) for i, (cell, n) in enumerate(zip(line, width, strict=True))]
             for line in lines]  # fmt: skip
    lines.insert(1, ["-" * n if i == 0 else "-" * (n - 1) + ":" for i, n in enumerate(width)])
    for line in lines:
        print(f"| {' | '.join(line)} |")
    print(flush=True)


def write_csv(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


class Clock:
    """A callback that notes when epochs begin and end."""

    def __init__(self):
        self.begun, self.ended = [], []

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        if context.task_name == "epoch":
            self.begun.append(time.perf_counter())

    def on_fit_task_end(self, estimator, context):
        if context.task_name == "epoch":
            self.ended.append(time.perf_counter())

    @property
    def epoch(self):
        """Seconds of the median epoch."""
        return float(np.median(np.subtract(self.ended, self.begun)))
