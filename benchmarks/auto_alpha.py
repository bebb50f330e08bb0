"""How strong should the penalty be? Test log-loss of the default fit over the constant of alpha="auto".

    python benchmarks/auto_alpha.py [small] [images] [sparse] [--shares 5e-6 1.6e-5 5e-5 1.6e-4 5e-4] [--splits 5]

The constant is the share of the loss' curvature that the penalty adds (`skdl._auto.auto_alpha`). If one constant suits pixels
in 0..255 and in [0, 1], standardised columns, word counts and tf-idf, nobody needs to search for alpha. Each row shows the
alpha of the smallest share, then test log-loss and test error in per cent for each share; last, those of alpha=1e-4, the
default of SGDClassifier and MLPClassifier.
"""

import argparse
import warnings
from unittest.mock import patch

import numpy as np
from _data import SMALL, TITLES, error, images, installed_images, log_loss, logits, small
from _machine import header
from sklearn.exceptions import ConvergenceWarning
from sparse_text import ALPHAS, make

from skdl import SoftmaxRegressionClassifier, _auto


def small_sets(args):
    for name in SMALL:
        for scaling in ("raw", "standardised"):
            yield (
                f"{name} {scaling}",
                lambda name=name, scaling=scaling: [small(name, scaling, seed) for seed in range(args.splits)],
            )


def image_sets(args):
    for name in installed_images():
        for scaling in ("raw", "[0, 1]", "standardised"):
            yield f"{TITLES[name]} {scaling}", lambda name=name, scaling=scaling: [images(name, scaling)]


def sparse_sets(args):
    for name in ALPHAS:
        yield name, lambda name=name: [make(name, args)]


def mean_of_splits(splits, **parameters):
    """alpha, test log-loss and test error in per cent."""
    rows = []
    for X, X_test, y, y_test in splits:
        model = SoftmaxRegressionClassifier(random_state=0, **parameters).fit(X, y)
        H = logits(X_test, model.coef_, model.intercept_)
        rows.append([model.alpha_, log_loss(H, y_test), error(H, y_test)])
    return np.mean(rows, axis=0)


SETS = {"small": small_sets, "images": image_sets, "sparse": sparse_sets}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="set", help=f"{', '.join(SETS)} (all)")
    parser.add_argument("--shares", type=float, nargs="+", default=[5e-6, 1.6e-5, 5e-5, 1.6e-4, 5e-4])
    parser.add_argument("--splits", type=int, default=5, help="of the small data")
    parser.add_argument("--rows", type=int, default=50_000, help="of the sparse data; so the next two")
    parser.add_argument("--features", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=50)
    args = parser.parse_args()
    if not set(args.sets) <= set(SETS):
        parser.error(f"sets are {', '.join(SETS)}")
    warnings.simplefilter("ignore", ConvergenceWarning)
    print(header())
    print(f"{'':28}{'alpha':>8}" + "".join(f"{f'{share:g}':>16}" for share in args.shares) + f"{'alpha=1e-4':>16}")
    for kind in args.sets or SETS:
        for title, load in SETS[kind](args):
            splits, cells = load(), []
            for share in args.shares:
                with patch.object(_auto, "AUTO_ALPHA", share), patch.object(_auto, "AUTO_ALPHA_SPARSE", share):
                    cells.append(mean_of_splits(splits))
            first = cells[0][0]
            cells.append(mean_of_splits(splits, alpha=1e-4))
            print(f"{title:28}{first:8.1e}" + "".join(f"{loss:10.4f}{e:6.2f}" for _, loss, e in cells), flush=True)
