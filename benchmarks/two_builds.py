"""Is one build of skdl faster than another? Epochs and small fits of two checkouts, built in place, in turn.

    python benchmarks/two_builds.py BEFORE AFTER [--rounds 15] [--threads 1 2]

Each build works in a process of its own, which waits while the other one measures. Prints milliseconds, medians, and the
median of the ratios AFTER / BEFORE, round by round: below 1 is faster.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from statistics import median

CASES = [
    "float32",
    "uint8",
    "float64",
    "float16",
    "100 classes",
    "csr",
    "iris",
    "breast cancer",
    "digits",
    "predict one row",
]


def prepare(name, n_threads):
    """A function that is timed; called in a build's own process."""
    import numpy as np
    from _data import images
    from _timing import PlainEpochs
    from scipy import sparse
    from sklearn import datasets

    from skdl import SoftmaxRegressionClassifier

    def small_fit(X, y, **params):
        return SoftmaxRegressionClassifier(n_jobs=n_threads, random_state=0, **params).fit(X, y)

    if name in ("iris", "breast cancer", "digits"):
        X, y = getattr(datasets, f"load_{name.replace(' ', '_')}")(return_X_y=True)
        return lambda: small_fit(X, y, max_iter=20)
    if name == "predict one row":
        X, y = datasets.load_digits(return_X_y=True)
        model = small_fit(X, y, max_iter=5)
        return lambda: [model.predict_proba(X[:1]) for _ in range(100)]
    if name == "csr":
        rng = np.random.default_rng(0)
        X = sparse.random_array((20_000, 20_000), density=14 / 20_000, format="csr", dtype=np.float32, rng=rng)
        return PlainEpochs(X, rng.integers(0, 58, 20_000), 58, 128, n_threads).run
    X, _, y, _ = images("mnist", "raw")
    if name == "100 classes":
        return PlainEpochs(X[:20_000], np.arange(20_000) % 100, 100, 128, n_threads).run
    epochs = PlainEpochs(X.astype(name), y, 10, 100, n_threads)
    epochs.shuffle()
    return epochs.run


def worker():
    """Read a case as JSON from each line, or nothing to measure the last one again; answer with seconds."""
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        if line.strip():
            function = prepare(*json.loads(line))
            function()
        start = time.perf_counter()
        function()
        print(time.perf_counter() - start, flush=True)


class Build:
    """A checkout at work in a process of its own."""

    def __init__(self, root):
        path = f"{root}{os.pathsep}{root / 'benchmarks'}"
        command = [sys.executable, "-P", Path(__file__).resolve(), "--worker"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
        )

    def seconds(self, case=None):
        self.process.stdin.write((json.dumps(case) if case else "") + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("builds", nargs=2, type=Path, metavar="CHECKOUT")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    args = parser.parse_args()
    builds = [Build(root.resolve()) for root in args.builds]
    print(f"{'case':18}{'threads':>8}{'before, ms':>12}{'after, ms':>12}{'ratio':>8}")
    for name in args.cases:
        for n_threads in args.threads:
            for build in builds:
                build.seconds([name, n_threads])
            times = []
            for i in range(args.rounds):
                order = builds if i % 2 == 0 else builds[::-1]
                took = {build: build.seconds() for build in order}
                times.append([took[build] for build in builds])
            before, after = (1000 * median(column) for column in zip(*times, strict=True))
            ratio = median(b / a for a, b in times)
            print(f"{name:18}{n_threads:8}{before:12.2f}{after:12.2f}{ratio:8.3f}", flush=True)


if __name__ == "__main__":
    worker() if sys.argv[1:] == ["--worker"] else main()
