"""A day in the life: random fits and predictions in one process; what it holds must return to its level.

    python tools/soak.py [--fits 1000] [--seed 0] [--backend openmp ...]

Prints memory, files and threads as it goes, and ends with status 1 where the last tenth holds more than the first did:
more than 10 MB of memory, a file, or a thread.
"""

import argparse
import copy
import gc
import os
import pickle
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import sparse

from skdl import SoftmaxRegressionClassifier


def held():
    """Megabytes resident, open files, threads of the process."""
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return resident, len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


class Interrupts:
    """A callback that ends a fit with an exception."""

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context, **_):
        raise KeyboardInterrupt


def one_fit(rng, backend):
    """One model's life: random data, parameters and calls, some of which fail."""
    n, d, n_classes = int(rng.integers(20, 3000)), int(rng.integers(1, 900)), int(rng.integers(2, 40))
    X = rng.integers(0, 200, (n, d)).astype(rng.choice(["f8", "f4", "f2", "u1", "i1", "?"]))
    if rng.random() < 0.3:
        X = sparse.random_array((n, d), density=0.05, format="csr", rng=rng, dtype=rng.choice(["f4", "f8"]))
    y = rng.integers(0, n_classes, n)
    y[:2] = 0, 1
    weight = rng.random(n) + 0.1 if rng.random() < 0.3 else None
    clf = SoftmaxRegressionClassifier(
        lr=rng.choice(["auto", "0.001"]), batch_size=int(rng.integers(1, 500)), max_iter=int(rng.integers(1, 4)),
        momentum=float(rng.choice([0, 0.9])), l1_ratio=float(rng.choice([0, 0.5])), random_state=0, backend=backend,
        early_stopping=bool(rng.random() < 0.2), n_jobs=int(rng.integers(1, 5)), warm_start=bool(rng.random() < 0.2),
    )  # fmt: skip
    if clf.lr != "auto":
        clf.lr = float(clf.lr)
    try:
        clf.fit(X, y, sample_weight=weight)
        clf.predict_proba(X)
        clf.partial_fit(X[: n // 2], y[: n // 2])
        clf = copy.deepcopy(pickle.loads(pickle.dumps(clf)))
        clf.predict(X[:1])
        way = rng.random()
        if way < 0.1:
            clf.set_callbacks(Interrupts()).fit(X, y)
        elif way < 0.2:
            clf.fit(X, y, sample_weight=np.zeros(n))
        elif way < 0.3:
            clf.predict(np.zeros((1, d + 1)))
        elif way < 0.4:
            threading.Thread(target=clf.predict, args=(X,)).start()
    except (ValueError, KeyboardInterrupt):  # divergence, or what was asked for
        pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--fits", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", nargs="+", default=["openmp"])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    rng = np.random.default_rng(options.seed)
    levels = []
    for i in range(options.fits):
        backend = options.backend[i % len(options.backend)]
        if i % 20 == 19:
            with ThreadPoolExecutor(4) as pool:
                for future in [pool.submit(one_fit, each, backend) for each in rng.spawn(4)]:
                    future.result()
        else:
            one_fit(rng, backend)
        if (i + 1) % max(1, options.fits // 20) == 0:
            gc.collect()
            levels.append(held())
            print(
                f"{i + 1:6d} fits: {levels[-1][0]:7.1f} MB, {levels[-1][1]} files, {levels[-1][2]} threads", flush=True
            )
    # The first tenth loads libraries, starts threads and fragments the heap.
    early, late = levels[2:10], levels[-8:]
    grown = [min(now) - max(then) for now, then in zip(zip(*late), zip(*early))]  # noqa: B905
    print(f"grown by {grown[0]:.1f} MB, {grown[1]} files, {grown[2]} threads")
    return grown[0] > 10 or grown[1] > 0 or grown[2] > 0


if __name__ == "__main__":
    sys.exit(main())
