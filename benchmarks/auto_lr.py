"""Does lr="auto" hold what it promises? The shipped estimator at its defaults against the optimum of the same objective.

    python benchmarks/auto_lr.py [small] [images] [cost] [--seeds 10] [--image-seeds 3] [--repeats 9]

small   iris, wine, breast cancer, digits, raw and standardised: F, test error, and the gap F - optimum in units of the
        tolerance (2 % of the optimum, or 0.005 where that is below 0.1), over splits
images  MNIST and Fashion-MNIST as bytes, in [0, 1] and standardised: the defaults, max_iter=2, and what a linearly falling
        step makes of as many epochs and of one more, over seeds
cost    what the statistics of the features, the estimate of the step and the updates of alpha take, against one epoch

The objective is LogisticRegression's on the features as they are, that of standardize=False, with the alpha that
alpha="auto" finds there; all else is default. Optima are computed once, by L-BFGS, and kept in benchmarks/.cache: some
minutes for each kind of images.
"""

import argparse
import os
import time
import warnings
from statistics import median
from unittest.mock import patch

os.environ.setdefault("OPENBLAS_NUM_THREADS", "2")

import numpy as np
from _data import (
    SMALL,
    TITLES,
    cache_name,
    error,
    excess,
    images,
    installed_images,
    log_loss,
    logits,
    objective,
    optimum,
    small,
    text_counts,
)
from _machine import header
from sklearn.exceptions import ConvergenceWarning

from skdl import SoftmaxRegressionClassifier, _plan, _sgd
from skdl._data import InMemory
from skdl._evidence import Evidence


def raw_model(**settings):
    return SoftmaxRegressionClassifier(standardize=False, **settings)


def table_small(args):
    print(f"\nSmall data, mean of {args.seeds} splits. gap: F - optimum in units of the tolerance")
    print(f"{'data':27}{'optimum':>9}{'F':>9}{'gap':>7}{'worst':>7}{'error':>8}{'optimum':>9}{'difference':>12}")
    for name in SMALL:
        for scaling in ("raw", "standardised"):
            rows = []
            for seed in range(args.seeds):
                X, X_test, y, y_test = small(name, scaling, seed)
                alpha = raw_model(random_state=seed).fit(X, y).alpha_
                model = raw_model(alpha=alpha, random_state=seed).fit(X, y)
                best = optimum(X, y, model.alpha_, name=cache_name(name, scaling, seed))
                found = model.coef_, model.intercept_
                f, f_best = (objective(X, y, *parameters, model.alpha_) for parameters in (found, best))
                errors = [error(logits(X_test, *parameters), y_test) for parameters in (found, best)]
                rows.append([f_best, f, excess(f, f_best), *errors])
            f_best, f, gap, e, e_best = np.mean(rows, axis=0)
            worst = np.max(rows, axis=0)[2]
            print(
                f"{name + ' ' + scaling:27}{f_best:9.4f}{f:9.4f}{gap:7.2f}{worst:7.2f}"
                f"{e:8.2f}{e_best:9.2f}{e - e_best:+12.2f}",
                flush=True,
            )


def table_images(args):
    print(f"\nImages, mean of {args.image_seeds} seeds (in brackets: the worst)")
    print(f"{'data':36}{'epochs':>10}{'F':>9}{'over opt.':>11}{'test log-loss':>15}{'test error %':>22}")
    for name in installed_images():
        for scaling in ("raw", "[0, 1]", "standardised"):
            X, X_test, y, y_test = images(name, scaling)
            alpha = raw_model(random_state=0).fit(X, y).alpha_
            best = optimum(X, y, alpha, name=cache_name(name, scaling))
            f_best, H = objective(X, y, *best, alpha), logits(X_test, *best)
            title = f"{TITLES[name]} {scaling} {X.dtype}"
            print(
                f"{title:36}{'optimum':>10}{f_best:9.4f}{'':11}{log_loss(H, y_test):15.4f}{error(H, y_test):12.2f}",
                flush=True,
            )
            linear = dict(lr_schedule="linear")
            for settings in (dict(max_iter=2), {}, dict(max_iter=6, **linear), dict(max_iter=7, **linear)):
                rows = []
                for seed in range(args.image_seeds):
                    model = raw_model(alpha=alpha, random_state=seed, **settings).fit(X, y)
                    H = logits(X_test, model.coef_, model.intercept_)
                    f = objective(X, y, model.coef_, model.intercept_, alpha)
                    rows.append([f, log_loss(H, y_test), error(H, y_test)])
                f, loss, e = np.mean(rows, axis=0)
                epochs = f"{settings.get('lr_schedule', '')} {model.n_iter_}"
                print(
                    f"{'':36}{epochs:>10}{f:9.4f}{100 * (f / f_best - 1):+10.1f}%{loss:15.4f}{e:12.2f}"
                    f"  ({np.max(rows, axis=0)[2]:.2f})",
                    flush=True,
                )


class Stopwatch:
    """Times the parts of a fit, by wrapping what the estimator calls."""

    PARTS = (
        ("statistics", InMemory, "statistics"),
        ("step", _plan.Scaling, "from_statistics"),
        ("step", _plan, "evenly_drawn"),
        ("step", _plan, "auto_lr"),
        ("penalty", _plan, "Evidence"),
        ("penalty", Evidence, "updated"),
        ("epochs", _sgd, "run_epochs"),
    )

    def __init__(self):
        self.seconds = dict.fromkeys(("statistics", "step", "penalty", "epochs"), 0.0)

    def _timed(self, part, function):
        def call(*args, **kwargs):
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[part] += time.perf_counter() - start

        return call

    def fit(self, X, y):
        """Seconds of statistics, step, penalty, one epoch, and all that is not in those (validation, labels, copies)."""
        patches = [
            patch.object(owner, name, self._timed(part, getattr(owner, name))) for part, owner, name in self.PARTS
        ]
        for p in patches:
            p.start()
        start = time.perf_counter()
        try:
            model = SoftmaxRegressionClassifier(max_iter=4, random_state=0).fit(X, y)
        finally:
            total = time.perf_counter() - start
            for p in patches:
                p.stop()
        *parts, epochs = self.seconds.values()
        return [*parts, epochs / model.n_iter_, total - sum(parts) - epochs]


def table_cost(args):
    print(f"\nCost in milliseconds, median of {args.repeats} fits of 4 epochs, data sets alternated")
    print("share: (statistics + step + penalty) / epoch; rest: everything of the fit but those and the epochs")
    print(f"{'data':34}{'statistics':>11}{'step':>9}{'penalty':>9}{'epoch':>9}{'share':>8}{'rest':>9}")
    X, _, y, _ = images("mnist", "raw")
    digits, _, digit, _ = small("digits", "raw", 0)
    counts, topic = text_counts()
    sets = {
        "MNIST 60,000 x 784 uint8": (X, y),
        "MNIST 60,000 x 784 float32": (X.astype(np.float32), y),
        "MNIST 60,000 x 784 float64": (X.astype(np.float64), y),
        "digits 1,347 x 64 float64": (digits, digit),
        "text 25,000 x 20,000 CSR float32": (counts, topic),
    }
    times = {name: [] for name in sets}
    for _ in range(args.repeats + 1):
        for name, data in sets.items():
            times[name].append(Stopwatch().fit(*data))
    for name, rows in times.items():
        statistics, step, penalty, epoch, rest = (1000 * median(column) for column in zip(*rows[1:], strict=True))
        share = (statistics + step + penalty) / epoch
        print(f"{name:34}{statistics:11.2f}{step:9.2f}{penalty:9.2f}{epoch:9.2f}{share:8.2f}{rest:9.2f}")


TABLES = {"small": table_small, "images": table_images, "cost": table_cost}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="table", help=f"{', '.join(TABLES)} (all)")
    parser.add_argument("--seeds", type=int, default=10, help="splits of the small data")
    parser.add_argument("--image-seeds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    if not set(args.tables) <= set(TABLES):
        parser.error(f"tables are {', '.join(TABLES)}")
    warnings.simplefilter("ignore", ConvergenceWarning)  # two and four epochs are asked for on purpose
    print(header())
    for name in args.tables or TABLES:
        TABLES[name](args)
