"""Shapes beside MNIST's: where others were faster once. And busy machines.

    python benchmarks/shapes.py [--only NAME ...] [--rounds 5]

small       iris, wine, breast cancer, digits: a default fit, and LogisticRegression behind a StandardScaler
wide        few rows and many features, dense, generated like gene expression: a default fit and LogisticRegression
hashed      few texts in 2^20 or 10^7 columns, CSR: a default fit, SGDClassifier(log_loss), LogisticRegression; test log-loss
full        CSR whose rows are full: a default fit and LogisticRegression
proba       predict_proba of 100,000 x 784 float32, 1000 classes, and the memory that it takes beyond its result
busy        beside two endless loops: fits on all threads and on one
workers     cross_val_score and GridSearchCV on MNIST bytes, with two processes and with one

Every contender has a process of its own, and those of a group take turns; medians. "ratio" is that to the first of the group.
Writes shapes.csv, where a table replaces what was there of it.
"""

import argparse
import resource
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from _contenders import run
from _data import images, text_counts
from _timing import seconds
from joblib.externals.loky import get_reusable_executor
from scipy import sparse
from sklearn import datasets
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from skdl import SoftmaxRegressionClassifier


def fit_clock(make, X, y, X_test=None, y_test=None, repeats=1):
    """A clock of fits, and a note of the test log-loss."""
    model = make()

    def clock():
        return seconds(lambda: [model.fit(X, y) for _ in range(repeats)]) / repeats

    def note():
        passes = f"{int(np.max(getattr(model, 'n_iter_', 0)))} epochs"
        if X_test is None:
            return passes
        probabilities = model.predict_proba(X_test).astype(float)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        return f"log-loss {log_loss(y_test, probabilities):.4f}, {passes}"

    return clock, note


def skdl(**params):
    return SoftmaxRegressionClassifier(random_state=0, **params)


def small(args):
    """Fits of small tables"""

    def contender(make, name):
        X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        return fit_clock(make, X, y, repeats=10)

    peer = {
        "LogisticRegression": lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        "skdl": skdl,
    }
    return {
        f"{name}: {label}": lambda make=make, name=name: contender(make, name)
        for name in ("iris", "wine", "breast_cancer", "digits")
        for label, make in peer.items()
    }


def expressions(n_rows, n_features, n_classes, seed=0):
    """Dense float32 rows of correlated features, of which a few differ between the classes; half of them to test on."""
    rng = np.random.default_rng(seed)
    y = np.arange(2 * n_rows) % n_classes
    X = rng.standard_normal((2 * n_rows, 10)) @ rng.standard_normal((10, n_features)) * 0.5
    X += rng.standard_normal((2 * n_rows, n_features))
    n_informative = n_features // 100
    X[:, :n_informative] += rng.standard_normal((n_classes, n_informative))[y] * 0.4
    X = X.astype(np.float32)
    return X[:n_rows], X[n_rows:], y[:n_rows], y[n_rows:]


def wide(args):
    """Fits of few rows and many features"""

    def contender(make, shape):
        X, X_test, y, y_test = expressions(*shape)
        return fit_clock(make, X, y, X_test, y_test)

    peers = {"LogisticRegression": lambda: LogisticRegression(max_iter=1000), "skdl": skdl}
    shapes = (60, 20_000, 2), (54, 7_129, 2), (150, 50_000, 3)
    return {
        "{:,} x {:,}, {} classes: {}".format(*shape, label): lambda make=make, shape=shape: contender(make, shape)
        for shape in shapes
        for label, make in peers.items()
    }


def hashed_texts(n_rows, n_features, n_classes, n_test=2000, n_words=50_000):
    """CSR rows of norm 1: word counts, each word in a column of its own, drawn at random."""
    X, y = text_counts(n_rows + n_test, n_words, n_classes)
    column = np.random.default_rng(1).choice(n_features, n_words, replace=False).astype(np.int32)
    X = normalize(sparse.csr_array((X.data, column[X.indices], X.indptr), shape=(X.shape[0], n_features)))
    X.sort_indices()
    return X[:n_rows], X[n_rows:], y[:n_rows], y[n_rows:]


def hashed(args):
    """Fits of few texts, hashed"""

    def contender(make, shape):
        X, X_test, y, y_test = hashed_texts(*shape)
        return fit_clock(make, X, y, X_test, y_test)

    peers = {
        "SGDClassifier": lambda: SGDClassifier(loss="log_loss", random_state=0),
        "LogisticRegression": lambda: LogisticRegression(max_iter=1000),
        "skdl": skdl,
    }
    shapes = (75, 2**20, 2), (75, 2**20, 20), (750, 2**20, 2), (750, 2**20, 20), (750, 10**7, 2)
    return {
        "{:,} x {:,}, {} classes: {}".format(*shape, label): lambda make=make, shape=shape: contender(make, shape)
        for shape in shapes
        for label, make in peers.items()
    }


def full(args):
    """Fits of CSR whose rows are full, 3,750 x 2,000, 10 classes"""

    def contender(make):
        X, X_test, y, y_test = expressions(3750, 2000, 10)
        return fit_clock(make, sparse.csr_array(X), y, sparse.csr_array(X_test), y_test)

    peer = lambda: make_pipeline(StandardScaler(with_mean=False), LogisticRegression(max_iter=1000))  # noqa: E731
    return {"LogisticRegression": lambda: contender(peer), "skdl": lambda: contender(skdl)}


def proba(args):
    """predict_proba of 100,000 x 784 float32, 1000 classes"""

    def contender(model):
        rng = np.random.default_rng(0)
        X = rng.standard_normal((100_000, 784), dtype=np.float32)
        model.fit(X[:3000], np.arange(3000) % 1000)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        def note():
            more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
            return f"{more:.2f} GB more at the peak; the result is {1e8 * 4 / 2**30:.2f}"

        return lambda: seconds(lambda: model.predict_proba(X)), note

    return {
        "LogisticRegression": lambda: contender(LogisticRegression(max_iter=3)),
        "skdl": lambda: contender(skdl(max_iter=1)),
    }


@contextmanager
def loops(n):
    """So many endless loops beside what runs."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()


def busy_data(name):
    rng = np.random.default_rng(0)
    if name == "MNIST bytes":
        X, _, y, _ = images("mnist", "raw")
        return X, y, {}
    if name == "CSR text":
        X, y = text_counts(20_000, 50_000, 20)
        return X, y, {}
    shape, k, params = {
        "20 x 5,000 x 3": ((20, 5000), 3, {}),
        "100 x 1,000 x 10": ((100, 1000), 10, {}),
        "5,000 x 100 x 10": ((5000, 100), 10, {}),
    }[name]
    return rng.standard_normal(shape, dtype=np.float32), np.arange(shape[0]) % k, params


def busy(args):
    """Fits beside two endless loops: on all threads, and on one"""

    def contender(name, n_jobs):
        X, y, params = busy_data(name)
        clock, note = fit_clock(lambda: skdl(n_jobs=n_jobs, **params), X, y)

        def beside_loops():
            with loops(2):
                time.sleep(0.2)
                return clock()

        return beside_loops, note

    cases = "20 x 5,000 x 3", "100 x 1,000 x 10", "5,000 x 100 x 10", "MNIST bytes", "CSR text"
    return {
        f"{name}: n_jobs={n_jobs}": lambda name=name, n_jobs=n_jobs: contender(name, n_jobs)
        for name in cases
        for n_jobs in (1, None)
    }


def workers(args):
    """cross_val_score and GridSearchCV on MNIST bytes: processes"""

    def contender(search, n_jobs):
        X, _, y, _ = images("mnist", "raw")

        def note():
            get_reusable_executor().shutdown()  # else this process ends when its idle workers do, after minutes
            return ""

        return lambda: seconds(lambda: search(X, y, n_jobs)), note  # the first, which starts the pool, does not count

    def validate(X, y, n_jobs):
        cross_val_score(skdl(), X, y, n_jobs=n_jobs)

    def grid(X, y, n_jobs):
        GridSearchCV(skdl(), {"alpha": [1e-5, 1e-4, 1e-3]}, cv=3, n_jobs=n_jobs).fit(X, y)

    return {
        f"{name}: n_jobs={n_jobs}": lambda search=search, n_jobs=n_jobs: contender(search, n_jobs)
        for name, search in (("cross_val_score", validate), ("GridSearchCV", grid))
        for n_jobs in (None, 2)
    }


TABLES = {f.__name__: f for f in (small, wide, hashed, full, proba, busy, workers)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES, metavar="NAME", help=", ".join(TABLES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the table")
    run(TABLES, "shapes.csv", parser.parse_args())


if __name__ == "__main__":
    main()
