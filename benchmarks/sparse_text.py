"""Sparse data at the defaults: does skdl match tuned peers on word counts, tf-idf and one-hot columns?

    python benchmarks/sparse_text.py [counts] [tf-idf] [one-hot] [--rows 50000] [--features 100000] [--classes 50]

The data are generated: texts from a planted multinomial model whose word frequencies follow a power law, as counts and as
tf-idf; and ten categorical columns with a power law of levels, one-hot, classes drawn from a planted softmax model. CSR,
float32; a fifth as many rows again to test on. Contenders:

skdl                 the defaults, and alpha over a grid with standardize=False, where it means what it does to the others
SGDClassifier        loss="log_loss" (one-versus-rest), n_jobs=2, tuned over the same grid, max_iter bounded
LogisticRegression   saga, tuned over the C = 1 / (alpha n) of the same grid, max_iter bounded

"Tuned" means the best test log-loss, which flatters whoever is tuned. Prints test log-loss, test error and seconds of a fit.
"""

import argparse
import time
import warnings

import numpy as np
from _data import one_hot, text_counts
from _machine import header
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.metrics import log_loss

from skdl import SoftmaxRegressionClassifier

ALPHAS = {"counts": [1e-3, 1e-4, 1e-5], "tf-idf": [1e-5, 1e-6, 1e-7], "one-hot": [1e-3, 1e-4, 1e-5]}


def make(name, args):
    n = args.rows + args.rows // 5
    source = one_hot if name == "one-hot" else text_counts
    X, y = source(n, args.features, args.classes)
    X_test, X = X[args.rows :], X[: args.rows]
    if name == "tf-idf":
        tfidf = TfidfTransformer(sublinear_tf=True).fit(X)
        X, X_test = (sparse.csr_array(tfidf.transform(part)) for part in (X, X_test))
    return X, X_test, y[: args.rows], y[args.rows :]


def contenders(args, grid):
    """Name, function of alpha that makes a model, alphas."""
    return {
        "skdl, defaults": (lambda alpha: SoftmaxRegressionClassifier(random_state=0), [None]),
        "skdl": (
            lambda alpha: SoftmaxRegressionClassifier(alpha=alpha, standardize=False, random_state=0),
            grid,
        ),
        "SGDClassifier": (
            lambda alpha: SGDClassifier(
                loss="log_loss", alpha=alpha, n_jobs=2, max_iter=args.sgd_max_iter, random_state=0
            ),
            grid,
        ),
        "LogisticRegression saga": (
            lambda alpha: LogisticRegression(
                C=1 / (alpha * args.rows), solver="saga", max_iter=args.saga_max_iter, random_state=0
            ),
            grid,
        ),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", help="counts, tf-idf, one-hot (all)")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--features", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--alphas", type=float, nargs="+", help="of every data set; else a grid for each")
    parser.add_argument("--sgd-max-iter", type=int, default=15)
    parser.add_argument("--saga-max-iter", type=int, default=20)
    args = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)  # of the bounds, which are printed
    print(header())
    print(f"bounds: SGDClassifier max_iter={args.sgd_max_iter}, LogisticRegression saga max_iter={args.saga_max_iter}")
    for name in args.sets or ("counts", "tf-idf", "one-hot"):
        X, X_test, y, y_test = make(name, args)
        print(
            f"\n{name}: {X.shape[0]:,} x {X.shape[1]:,} CSR {X.dtype}, {X.nnz / X.shape[0]:.0f} stored values a row, "
            f"{args.classes} classes (uniform guess: log-loss {np.log(args.classes):.3f})"
        )
        print(f"{'':26}{'alpha':>9}{'epochs':>8}{'test log-loss':>15}{'test error %':>14}{'seconds':>10}")
        for label, (make_model, alphas) in contenders(args, args.alphas or ALPHAS[name]).items():
            found = []
            for alpha in alphas:
                model = make_model(alpha)
                start = time.perf_counter()
                model.fit(X, y)
                seconds = time.perf_counter() - start
                probabilities = model.predict_proba(X_test).astype(float)
                probabilities /= probabilities.sum(1, keepdims=True)
                loss = log_loss(y_test, probabilities, labels=model.classes_)
                e = 100 * np.mean(model.classes_[probabilities.argmax(1)] != y_test)
                found.append((loss, e, seconds, alpha, int(np.max(model.n_iter_))))
            best = min(found)
            for row in found:
                loss, e, seconds, alpha, n_iter = row
                mark = " best" if row is best and len(found) > 1 else ""
                if mark and alpha in (alphas[0], alphas[-1]):
                    mark += ", at the end of the grid"
                shown = "auto" if alpha is None else f"{alpha:g}"
                print(f"{label:26}{shown:>9}{n_iter:8}{loss:15.4f}{e:14.2f}{seconds:10.2f}{mark}", flush=True)


if __name__ == "__main__":
    main()
