"""skdl beside what people use now, each contender at the settings its users would choose.

    python benchmarks/peers.py [--only NAME ...] [--rounds 5] [--quick]

epoch     an epoch of MNIST, batch 100, shuffling included: plain SGD, float32 and bytes, beside the same by others
fit       MNIST end to end until the test error is first <= 7.6 %: default fits on raw bytes; the others get float32 in
          [0, 1], converted off the clock. How many epochs a contender needs is searched first; what is timed is a whole
          fit with so many. Beside them, what people type without thinking: lbfgs, SGDClassifier
course    the code of a university course, 10 epochs in the order of the file, and skdl until the error is < 8 %
overhead  where the time of skdl's default fit on MNIST goes
probe     a linear probe's epoch, 50,000 x 768, 1000 classes, batch 1024, beside its two matrix products in NumPy
sparse    CSR, 60,000 x 80,000, 14 values a row, 58 and 10 classes: an epoch beside SGDClassifier's; sparse_fit: the log-loss
          of fits
predict   classes of 60,000 digits; predict_one: of one

Every contender has a process of its own (threads of several libraries in one get in each other's way), and those of a table
take turns; medians. Slow ones take fewer turns (20 s each, at least one). Peers that are not
installed are left out: PyTorch, scikit-learn-intelex (sklearnex), cyanure. Writes peers.csv, where a table replaces what
was there of it, and peers.png.
"""

import argparse
from pathlib import Path

import numpy as np
from _contenders import draw, run
from _data import images, one_hot
from _machine import Roofline
from _timing import PlainEpochs, seconds
from auto_lr import Stopwatch
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.metrics import log_loss
from sklearn.neural_network import MLPClassifier

from skdl import SoftmaxRegressionClassifier
from skdl.openmp._threads import max_threads

MLP_SGD = dict(solver="sgd", batch_size=100, learning_rate_init=0.2, momentum=0)


class NumPyLoop:
    """The course's algorithm as its students write it: batch 100, step 0.2."""

    def __init__(self, max_iter, shuffle=True):
        self.max_iter, self.shuffle = max_iter, shuffle

    def fit(self, X, y):
        rng, self.W = np.random.default_rng(0), np.zeros((X.shape[1], 10), dtype=np.float32)
        one_hot = np.eye(10, dtype=np.float32)
        for _ in range(self.max_iter):
            if self.shuffle:
                order = rng.permutation(len(X))
            for start in range(0, len(X), 100):
                rows = slice(start, start + 100)
                if self.shuffle:
                    rows = order[rows]
                x = X[rows]
                Z = np.exp(x @ self.W)
                Z /= Z.sum(axis=1, keepdims=True)
                self.W -= np.float32(0.2 / len(x)) * (x.T @ (Z - one_hot[y[rows]]))
        return self

    def predict(self, X):
        return (X @ self.W).argmax(axis=1)


class TorchLinear:
    """nn.Linear and CrossEntropyLoss; rows are picked from whole tensors, which is faster than a DataLoader."""

    def __init__(self, max_iter, adam=False, batch_size=100):
        self.max_iter, self.adam, self.batch_size = max_iter, adam, batch_size

    def fit(self, X, y):
        import torch

        torch.manual_seed(0)
        X, y = torch.from_numpy(X), torch.from_numpy(y)
        self.model, loss = torch.nn.Linear(X.shape[1], int(y.max()) + 1), torch.nn.CrossEntropyLoss()
        parameters = self.model.parameters()
        optimizer = torch.optim.Adam(parameters) if self.adam else torch.optim.SGD(parameters, lr=0.2)
        for _ in range(self.max_iter):
            for rows in torch.randperm(len(X)).split(self.batch_size):
                optimizer.zero_grad()
                loss(self.model(X[rows].float()), y[rows]).backward()
                optimizer.step()
        return self

    def predict(self, X):
        import torch

        with torch.no_grad():
            return self.model(torch.from_numpy(X)).argmax(dim=1).numpy()


def mlp(max_iter, **settings):
    return MLPClassifier((), max_iter=max_iter, tol=0, n_iter_no_change=max_iter + 1, random_state=0, **settings)


def cyanure(max_iter, n_rows):
    from cyanure.estimators import Classifier

    settings = dict(lambda_1=1 / n_rows, tol=0, verbose=False, random_state=0)  # scikit-learn's C=1
    return Classifier("multiclass-logistic", "l2", max_iter=max_iter, **settings)


def intelex(max_iter):
    from sklearnex.linear_model import LogisticRegression

    return LogisticRegression(max_iter=max_iter)


def mnist(args):
    raw, raw_test, y, y_test = images("mnist", "raw")
    X, X_test = (part.astype(np.float32) / np.float32(255) for part in (raw, raw_test))
    n = 3000 if args.quick else len(y)
    return raw[:n], raw_test, X[:n], X_test, y[:n], y_test


def per_cent_wrong(model, X, y):
    return 100 * np.mean(model.predict(X) != y)


def epochs(n):
    return f"{n} epoch{'' if n == 1 else 's'}"


def fit_clock(make, X, y):
    return lambda: seconds(lambda: make().fit(X, y))


def plain_epoch(X, y, n_classes, batch_size, n=5):
    """A clock of skdl's epochs, shuffling included, the mean of n in a row as for its peers; and no note."""
    plain = PlainEpochs(X, y, n_classes, batch_size)
    return lambda: seconds(lambda: [(plain.shuffle(), plain.run()) for _ in range(n)]) / n, str


def floor(shape, n_logits, dtype):
    """The machine's limit as a contender: measured anew in each round, the best of all."""
    n_threads = max_threads(None)
    roofline = Roofline([n_threads])

    def clock():
        roofline.measure()
        return roofline.floor(shape, n_logits, dtype, n_threads)

    def note():
        peak, bandwidth = roofline.peak[np.dtype(np.float32)], roofline.bandwidth
        return f"{peak[n_threads] / 1e9:.0f} GFLOP/s, {bandwidth[n_threads] / 1e9:.0f} GB/s"

    return clock, note


# ---- the tables: dictionaries of contenders, of which the first is what the others are compared with ("a: b": the
# first of a). A contender is a
# function that prepares it, in a process of its own, and returns a clock (it returns seconds) and what to note at the end


def epoch(args):
    """An epoch of MNIST, batch 100, plain SGD, shuffling included"""

    def by_difference(make, n=5):
        """Seconds of an epoch, without what a fit does before the first."""
        _, _, X, _, y, _ = mnist(args)
        return lambda: (seconds(lambda: make(n + 1).fit(X, y)) - seconds(lambda: make(1).fit(X, y))) / n, str

    def limit(dtype):
        return floor(mnist(args)[0].shape, 10, dtype)

    return {
        "skdl, float32": lambda: plain_epoch(mnist(args)[2], mnist(args)[4], 10, 100),
        "skdl, bytes": lambda: plain_epoch(mnist(args)[0], mnist(args)[4], 10, 100),
        "the machine's limit, float32": lambda: limit(np.float32),
        "the machine's limit, bytes": lambda: limit(np.uint8),
        "NumPy loop": lambda: by_difference(NumPyLoop),
        "MLPClassifier(()), sgd": lambda: by_difference(lambda n: mlp(n, **MLP_SGD)),
        "PyTorch nn.Linear, SGD": lambda: by_difference(TorchLinear),
    }


def fit(args):
    """Fit MNIST until the test error is first <= 7.6 %"""
    target = 15 if args.quick else 7.6

    def search(make, iterations, raw=False):
        """A clock of the fit with the first of `iterations` that reaches the target, or the last."""
        bytes_, bytes_test, X, X_test, y, y_test = mnist(args)
        if raw:
            X, X_test = bytes_, bytes_test
        for n in iterations[:2] if args.quick else iterations:
            model = make(n).fit(X, y)
            error = per_cent_wrong(model, X_test, y_test)
            if error <= target:
                break
        done = int(np.max(getattr(model, "n_iter_", n)))
        note = f"{error:.2f} %{'' if error <= target else ': not reached'}, {epochs(done)}"
        return fit_clock(lambda: make(n), X, y), lambda: note

    def skdl(n):
        return SoftmaxRegressionClassifier(max_iter=n, random_state=0)

    def sgd(n):
        return SGDClassifier(loss="log_loss", n_jobs=2, random_state=0)

    few, many = [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 25, 30], [10, 20, 30, 40, 50, 60, 80, 100]
    return {
        "skdl, defaults": lambda: search(skdl, ["auto"], raw=True),
        "skdl, fewest epochs": lambda: search(skdl, few, raw=True),
        "NumPy loop": lambda: search(NumPyLoop, few),
        "MLPClassifier(()), sgd": lambda: search(lambda n: mlp(n, **MLP_SGD), few),
        "MLPClassifier(()), adam": lambda: search(mlp, few),
        "PyTorch nn.Linear, SGD": lambda: search(TorchLinear, few),
        "PyTorch nn.Linear, Adam": lambda: search(lambda n: TorchLinear(n, adam=True), few),
        "LogisticRegression, saga": lambda: search(lambda n: LogisticRegression(solver="saga", max_iter=n), few),
        "LogisticRegression, lbfgs": lambda: search(lambda n: LogisticRegression(max_iter=n), many),
        "LogisticRegression, lbfgs, max_iter=100": lambda: search(lambda n: LogisticRegression(max_iter=n), [100]),
        "SGDClassifier(log_loss), defaults": lambda: search(sgd, ["auto"]),
        "scikit-learn-intelex, lbfgs": lambda: search(intelex, many),
        "cyanure": lambda: search(lambda n: cyanure(n, 60_000), many),
    }


def course(args):
    """The course's NumPy code, 10 epochs, and skdl stopped below 8 % test error"""

    def skdl():
        raw, raw_test, _, _, y, y_test = mnist(args)
        for n in range(1, 8):
            model = SoftmaxRegressionClassifier(max_iter=n, random_state=0)
            error = per_cent_wrong(model.fit(raw, y), raw_test, y_test)
            if error < 8:
                break
        return fit_clock(lambda: model, raw, y), lambda: f"{error:.2f} %, {epochs(n)}"

    def loop():
        _, _, X, X_test, y, y_test = mnist(args)
        model = NumPyLoop(10, shuffle=False)
        return fit_clock(lambda: model, X, y), lambda: f"{per_cent_wrong(model, X_test, y_test):.2f} %, 10 epochs"

    return {"skdl": skdl, "NumPy": loop}


def overhead(args):
    """Where the time of a fit on MNIST goes"""

    def part(column, choose):
        """A clock of a part of skdl's fit: `choose` of its statistics, step size, penalty, one epoch, and the rest."""
        data, y = mnist(args)[column], mnist(args)[4]
        return lambda: choose(*Stopwatch().fit(data, y)), str

    parts = {
        "an epoch": lambda statistics, step, penalty, epoch, rest: epoch,
        "statistics of the features": lambda statistics, step, penalty, epoch, rest: statistics,
        "step size": lambda statistics, step, penalty, epoch, rest: step,
        "strength of the penalty": lambda statistics, step, penalty, epoch, rest: penalty,
        "validation, labels, and the rest": lambda statistics, step, penalty, epoch, rest: rest,
        "all but the epochs": lambda statistics, step, penalty, epoch, rest: statistics + step + penalty + rest,
    }
    return {
        f"{name}: {what}": lambda column=column, choose=choose: part(column, choose)
        for name, column in (("bytes", 0), ("float32", 2))
        for what, choose in parts.items()
    }


def probe(args):
    """An epoch of a linear probe, 50,000 x 768, 1000 classes, batch 1024"""
    n, d, k, batch_size = 4096 if args.quick else 50_000, 768, 1000, 1024

    def data(dtype=np.float32):
        rng = np.random.default_rng(0)
        return rng.standard_normal((n, d), dtype=np.float32).astype(dtype), rng.integers(0, k, n)

    def products():
        X, _ = data()
        W, Z, G = np.zeros((k, d), np.float32), np.empty((batch_size, k), np.float32), np.empty((k, d), np.float32)

        def run():
            for start in range(0, n, batch_size):
                x = X[start : start + batch_size]
                np.matmul(x, W.T, out=Z[: len(x)])
                np.matmul(Z[: len(x)].T, x, out=G)

        return lambda: seconds(run), str

    def torch(dtype):
        return fit_clock(lambda: TorchLinear(1, batch_size=batch_size), *data(dtype)), str

    return {
        "skdl, float32": lambda: plain_epoch(*data(), k, batch_size),
        "skdl, float16": lambda: plain_epoch(*data(np.float16), k, batch_size),
        "the machine's limit": lambda: floor((n, d), k, np.float32),
        "its two products by NumPy": products,
        "PyTorch nn.Linear, SGD, float32": lambda: torch(np.float32),
        "PyTorch nn.Linear, SGD, float16": lambda: torch(np.float16),
    }


def one_hot_data(args, n_classes=58):
    """X, X_test, y, y_test: CSR, the one-hot columns of 14 categories."""
    n, n_test = 5000 if args.quick else 60_000, 10_000
    X, y = one_hot(n + n_test, 80_000, n_classes, n_columns=14)
    return X[:n], X[n:], y[:n], y[n:]


def sgd_classifier(alpha, **settings):
    return SGDClassifier(loss="log_loss", alpha=alpha, n_jobs=2, random_state=0, **settings)


def sparse(args):
    """An epoch of CSR, 60,000 x 80,000, 14 values a row, 58 and 10 classes"""

    def skdl(n_classes):
        X, _, y, _ = one_hot_data(args, n_classes)
        return lambda: Stopwatch().fit(X, y)[3], lambda: "of a default fit"

    def sgd(n_classes):
        X, _, y, _ = one_hot_data(args, n_classes)
        one, three = (fit_clock(lambda n=n: sgd_classifier(1e-4, max_iter=n, tol=None), X, y) for n in (1, 3))
        return lambda: (three() - one()) / 2, str

    return {
        f"{n_classes} classes: {name}": lambda make=make, n_classes=n_classes: make(n_classes)
        for n_classes in (58, 10)
        for name, make in (("skdl", skdl), ("SGDClassifier(log_loss), n_jobs=2", sgd))
    }


def sparse_fit(args):
    """Fits of CSR, 60,000 x 80,000, 14 values a row, 58 classes: test log-loss over alpha"""

    def contender(make):
        X, X_test, y, y_test = one_hot_data(args)
        model = make()

        def note():
            probabilities = model.predict_proba(X_test).astype(float)
            probabilities /= probabilities.sum(axis=1, keepdims=True)
            loss, error = log_loss(y_test, probabilities), per_cent_wrong(model, X_test, y_test)
            return f"log-loss {loss:.3f}, {error:.1f} %, {epochs(model.n_iter_)}"

        return fit_clock(lambda: model, X, y), note

    def skdl(alpha):
        return SoftmaxRegressionClassifier(alpha=alpha, standardize=False, random_state=0)  # alpha is that of its peers

    return {"skdl, defaults": lambda: contender(lambda: SoftmaxRegressionClassifier(random_state=0))} | {
        f"{name}, alpha={alpha:g}": lambda make=make, alpha=alpha: contender(lambda: make(alpha))
        for name, make in (("skdl", skdl), ("SGDClassifier", sgd_classifier))
        for alpha in (1e-4, 1e-5, 1e-6)
    }


def predict(args, n_rows=60_000, n_calls=1):
    """Predict the classes of 60,000 digits"""

    def contender(model, column):
        data, y = mnist(args)[column], mnist(args)[4]
        model.fit(data, y)
        rows = data[:n_rows]
        return lambda: seconds(lambda: [model.predict(rows) for _ in range(n_calls)]) / n_calls, str

    return {
        "skdl, bytes": lambda: contender(SoftmaxRegressionClassifier(max_iter=1), 0),
        "skdl, float32": lambda: contender(SoftmaxRegressionClassifier(max_iter=1), 2),
        "LogisticRegression, float32": lambda: contender(LogisticRegression(max_iter=3), 2),
    }


def predict_one(args):
    """Predict the class of one digit"""
    return predict(args, n_rows=1, n_calls=200)


TABLES = {f.__name__: f for f in (epoch, fit, course, overhead, probe, sparse, sparse_fit, predict, predict_one)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES, metavar="NAME", help=", ".join(TABLES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="few rows, to see that the script works")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the table and the picture")
    args = parser.parse_args()
    if args.quick:
        args.rounds = 1
    rows = run(TABLES, "peers.csv", args)
    draw(TABLES, rows, args.out / "peers.png", lambda r: "skdl" in r["contender"] or r["table"] == "overhead")


if __name__ == "__main__":
    main()
