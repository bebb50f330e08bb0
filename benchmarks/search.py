"""Searches: all candidates and folds in one pass, and the same by others.

    python benchmarks/search.py [--only NAME ...] [--rounds 3]

path        MNIST bytes, 16 alphas x 5 folds, ten classes: SoftmaxRegressionClassifierCV and GridSearchCV
two         the same with two classes, digit > 4
lrcv        10,000 rows of MNIST, 10 strengths x 5 folds: LogisticRegressionCV; and the test error of what they choose
grid        MNIST bytes, lr (4) x batch_size (3) x 5 folds: SoftmaxRegressionClassifierCV and GridSearchCV
probe       50,000 x 768 float16, 100 classes, 16 step sizes on a validation set: PyTorch, 16 heads in one loop
text        CSR text, 50 classes, 10 alphas x 3 folds: SoftmaxRegressionClassifierCV and GridSearchCV

Every contender has a process of its own, and those of a table take turns; medians. Writes search.csv, where a table replaces
what was there of it, and search.png.
"""

import argparse
from pathlib import Path

import numpy as np
from _contenders import draw, run
from _data import images, text_counts
from _timing import seconds
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import GridSearchCV

from skdl import SoftmaxRegressionClassifier, SoftmaxRegressionClassifierCV

ALPHAS = np.logspace(-6, -2, 16).tolist()


def ours(grid, **params):
    return SoftmaxRegressionClassifierCV(param_grid=grid, random_state=0, **params)


def resident(name):
    """Linux's "VmRSS" or its peak, "VmHWM", in MB."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(name)) / 2**10


def searches(data, grid, cv):
    """GridSearchCV and one pass."""

    def contender(search):
        X, y = data()
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak is from now on

        def note():
            return f"best score {search.best_score_:.4f}, {resident('VmHWM') - before:.0f} MB more at the peak"

        return lambda: seconds(lambda: search.fit(X, y)), note

    plain = GridSearchCV(SoftmaxRegressionClassifier(random_state=0), grid, cv=cv, refit=False)
    return {"GridSearchCV": lambda: contender(plain), "one pass": lambda: contender(ours(grid, cv=cv, refit=False))}


def mnist():
    X, _, y, _ = images("mnist", "raw")
    return np.ascontiguousarray(X), y


def path(args):
    """MNIST bytes, 60,000 x 784, ten classes, 16 alphas x 5 folds"""
    return searches(mnist, {"alpha": ALPHAS}, 5)


def two(args):
    """MNIST bytes, digit > 4, 16 alphas x 5 folds"""

    def data():
        X, y = mnist()
        return X, (y > 4).astype(int)

    return searches(data, {"alpha": ALPHAS}, 5)


def grid(args):
    """MNIST bytes, lr (4) x batch_size (3) x 5 folds"""
    return searches(mnist, {"lr": [1e-7, 3e-7, 1e-6, 3e-6], "batch_size": [64, 128, 256]}, 5)


def text(args):
    """Text, tf-idf CSR, 20,000 x 50,000, 50 classes, 10 alphas x 3 folds"""

    def data():
        X, y = text_counts(20_000, 50_000, 50)
        return TfidfTransformer().fit_transform(X).tocsr().astype(np.float32), y

    return searches(data, {"alpha": np.logspace(-8, -3, 10).tolist()}, 3)


def lrcv(args):
    """MNIST, 10,000 rows, 10 strengths x 5 folds"""

    def contender(make):
        X, X_test, y, y_test = images("mnist", "[0, 1]")
        rows = np.random.default_rng(0).choice(len(y), 10_000, replace=False)
        X, y = X[rows], y[rows]
        search = make()
        return lambda: seconds(lambda: search.fit(X, y)), lambda: f"test error {1 - search.score(X_test, y_test):.4f}"

    return {
        "LogisticRegressionCV": lambda: contender(
            lambda: LogisticRegressionCV(Cs=10, cv=5, use_legacy_attributes=False)
        ),
        "one pass": lambda: contender(lambda: ours({"alpha": np.logspace(-6, -1, 10).tolist()}, cv=5)),
    }


def embeddings(n_rows, n_classes, seed=0):
    """Float16 rows around the means of their classes, like those that a network makes of images."""
    rng = np.random.default_rng(seed)
    means = rng.standard_normal((n_classes, 768), dtype=np.float32) * 0.1
    y = rng.integers(0, n_classes, n_rows)
    X = rng.standard_normal((n_rows, 768), dtype=np.float32)
    X += means[y]
    return X.astype(np.float16), y


EPOCHS = 8


def probe(args):
    """A linear probe, 50,000 x 768 float16, 100 classes, 16 candidates scored on 10,000 rows"""
    lrs = np.logspace(-3, 0, 16)

    def data():
        X, y = embeddings(60_000, 100)
        return X[:50_000], y[:50_000], X[50_000:], y[50_000:]

    def one_pass():
        X, y, X_val, y_val = data()
        # The heavy ball moves by lr / (1 - momentum) in all.
        search = ours({"lr": (lrs / 10).tolist()}, max_iter=EPOCHS, alpha=0, refit=False)
        clock = lambda: seconds(lambda: search.fit(X, y, X_val=X_val, y_val=y_val))  # noqa: E731
        return clock, lambda: f"best accuracy {search.best_score_:.4f}"

    def torch_heads():
        import torch

        torch.manual_seed(0)
        X, y, X_val, y_val = map(torch.from_numpy, data())
        best = []

        def train():
            """All heads in one product, each with a step size of its own: the cross-entropy's gradient by hand."""
            W, V = torch.zeros(2, 768, 16, 100)
            b, v = torch.zeros(2, 16, 100)
            lr = torch.tensor(lrs / 10, dtype=torch.float32)[:, None]
            n_batches = -(-len(X) // 128)
            for epoch in range(EPOCHS):
                order = torch.randperm(len(X))
                for i in range(n_batches):
                    rows = order[i * 128 : (i + 1) * 128]
                    x, n = X[rows].float(), len(rows)
                    fall = 0.5 * (1 + np.cos(np.pi * (epoch + i / n_batches) / EPOCHS))
                    logits = (x @ W.view(768, 1600)).view(n, 16, 100) + b
                    Z = torch.softmax(logits, dim=2)
                    Z[torch.arange(n), :, y[rows]] -= 1
                    Z /= n
                    V.mul_(0.9).view(768, 1600).addmm_(x.T, Z.view(n, 1600))
                    v.mul_(0.9).add_(Z.sum(dim=0))
                    W.sub_(V * (lr * fall))
                    b.sub_(v * (lr * fall))
            logits = (X_val.float() @ W.view(768, 1600)).view(-1, 16, 100) + b
            best[:] = [(logits.argmax(dim=2) == y_val[:, None]).float().mean(dim=0).max().item()]

        return lambda: seconds(torch.no_grad()(train)), lambda: f"best accuracy {best[0]:.4f}"

    return {"PyTorch, 16 heads": torch_heads, "one pass": one_pass}


TABLES = {f.__name__: f for f in (path, two, lrcv, grid, probe, text)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES, metavar="NAME", help=", ".join(TABLES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the table")
    args = parser.parse_args()
    rows = run(TABLES, "search.csv", args)
    draw(TABLES, rows, args.out / "search.png", lambda r: r["contender"] == "one pass")


if __name__ == "__main__":
    main()
