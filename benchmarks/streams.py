"""Streams at the defaults: what `partial_fit` reaches against `fit`, after a fit, and where the labels drift.

    python benchmarks/streams.py             # a few minutes
    python benchmarks/streams.py --step      # other constants of the step and of the average, one pass
    apt install dataset-fashion-mnist        # without it, MNIST

Figures are test log-losses, and those over that of `fit`. The constants of skdl/_stream.py are from here.
"""

import argparse
import time

import numpy as np
from _data import TITLES, error, images, installed_images, log_loss, logits
from sklearn.datasets import load_digits

from skdl import SoftmaxRegressionClassifier, _stream

SINGLE_ROWS = 5000
FALLS, DECAYS = (1, 2, 4, 8, 25, np.inf), (1, 3, 8)


def stream(model, X, y, size):
    for first in range(0, len(y), size):
        model.partial_fit(X[first : first + size], y[first : first + size], classes=range(10))
    return model


def loss(model, X, y):
    return log_loss(logits(X, model.coef_, model.intercept_), y)


def make(**params):
    return SoftmaxRegressionClassifier(n_jobs=1, random_state=0, **params)


def passes(name, n_passes=10):
    X, X_test, y, y_test = images(name, "raw")
    order = np.random.default_rng(0).permutation(len(y))
    X, y = X[order], y[order]
    rows = {size: len(y) for size in (1000, 100)} | {1: SINGLE_ROWS}
    for size, n_rows in rows.items():
        start = time.perf_counter()
        fit = make().fit(X[:n_rows], y[:n_rows])
        seconds, best = time.perf_counter() - start, loss(fit, X_test, y_test)
        print(f"{TITLES[name]}, {n_rows} rows: fit {best:.4f} in {seconds:.1f} s; in calls of {size}:", flush=True)
        model = make()
        for done in range(1, n_passes + 1):
            start = time.perf_counter()
            stream(model, X[:n_rows], y[:n_rows], size)
            seconds = time.perf_counter() - start
            if done in (1, 2, 5, 10):
                wrong, here = error(logits(X_test, model.coef_, model.intercept_), y_test), loss(model, X_test, y_test)
                print(
                    f"   pass {done:2d}: {here:.4f} ({here / best:.4f}), {wrong:.2f} % wrong, {seconds:.1f} s",
                    flush=True,
                )
            if size == 1:
                break


def steps(name):
    X, X_test, y, y_test = images(name, "raw")
    best = loss(make().fit(X, y), X_test, y_test)
    for _stream.FALL_ROWS in FALLS:
        for _stream.DECAY in DECAYS:
            model = stream(make(), X, y, 1000)
            print(
                f"fall {_stream.FALL_ROWS:4}, decay {_stream.DECAY}: {loss(model, X_test, y_test) / best:.4f}",
                flush=True,
            )


def after_a_fit():
    X, y = load_digits(return_X_y=True)
    model = make().fit(X[:1000], y[:1000])
    print(f"digits: fit on 1000 rows {loss(model, X[1000:], y[1000:]):.4f}", end="")
    stream(model, X[1000:1400], y[1000:1400], 1)
    print(f", and 400 single rows {loss(model, X[1000:], y[1000:]):.4f}", flush=True)


def drift():
    X, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    order, names = rng.permutation(len(y)), rng.permutation(10)
    X, y = X[order], y[order]
    for half_life in (None, 2000, 500, 200, 50):
        for size in (1, 50):
            model = make(half_life=half_life)
            for _ in range(2):
                stream(model, X[:1200], y[:1200], size)
            before = loss(model, X[1200:], y[1200:])
            stream(model, X[:1200], names[y[:1200]], size)
            after = loss(model, X[1200:], names[y[1200:]])
            print(
                f"digits, labels permuted, calls of {size}, half_life={half_life}: {before:.3f}, then {after:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", action="store_true", help="the study of the constants")
    args = parser.parse_args()
    name = installed_images()[-1]
    if args.step:
        steps(name)
    else:
        after_a_fit()
        drift()
        passes(name)
