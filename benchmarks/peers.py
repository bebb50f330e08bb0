"""MNIST side by side: the default fit and what people use now, each as its users would run it.

    python benchmarks/peers.py [--repeats 3]

Every contender is fitted once a round, in turn, and the median over the rounds is printed, with the ratio to skdl's default
fit. skdl gets the raw bytes; the others get float32 in [0, 1], converted before the clock starts. The floor of an epoch is
measured in the same run: the floating point operations at the processor's peak or the bytes at the memory's bandwidth,
whichever takes longer; both as NumPy reaches them (matrix product, sum), so the true floor is somewhat lower.
"""

import argparse
import platform
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import sklearn
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neural_network import MLPClassifier

import skdl
from skdl import _openmp

sys.path.insert(0, str(Path(__file__).parent.parent))
from examples.mnist import load_mnist

warnings.simplefilter("ignore")


def seconds(f):
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


class NumPyLoop:
    """The course's algorithm as its students write it: batch 100, step 0.2, shuffled."""

    def __init__(self, epochs=10, batch_size=100):
        self.epochs, self.batch_size = epochs, batch_size

    def fit(self, X, y):
        rng, W = np.random.default_rng(0), np.zeros((X.shape[1], 10), dtype=np.float32)
        one_hot = np.eye(10, dtype=np.float32)
        for _ in range(self.epochs):
            order = rng.permutation(len(X))
            for start in range(0, len(X), self.batch_size):
                rows = order[start : start + self.batch_size]
                x = X[rows]
                Z = np.exp(x @ W)
                Z /= Z.sum(axis=1, keepdims=True)
                W -= np.float32(0.2 / len(rows)) * (x.T @ (Z - one_hot[y[rows]]))
        self.W = W
        return self

    def predict(self, X):
        return (X @ self.W).argmax(axis=1)


class TorchLinear:
    """nn.Linear, CrossEntropyLoss and SGD, with a shuffled index for each epoch."""

    def __init__(self, epochs=10, batch_size=100):
        self.epochs, self.batch_size = epochs, batch_size

    def fit(self, X, y):
        import torch

        X, y = torch.from_numpy(X), torch.from_numpy(y.astype(np.int64))
        torch.manual_seed(0)
        model, loss = torch.nn.Linear(X.shape[1], 10), torch.nn.CrossEntropyLoss()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
        for _ in range(self.epochs):
            for rows in torch.randperm(len(X)).split(self.batch_size):
                optimizer.zero_grad()
                loss(model(X[rows]), y[rows]).backward()
                optimizer.step()
        self.model = model
        return self

    def predict(self, X):
        import torch

        with torch.no_grad():
            return self.model(torch.from_numpy(X)).argmax(dim=1).numpy()


def contenders():
    """Name, factory, and whether it is given the raw bytes."""
    Softmax = skdl.SoftmaxRegressionClassifier
    yield "skdl, defaults, raw bytes", lambda: Softmax(random_state=0), True
    yield "skdl, max_iter=2, raw bytes", lambda: Softmax(max_iter=2, random_state=0), True
    yield "NumPy loop, 10 epochs", NumPyLoop, False
    sgd = dict(hidden_layer_sizes=(), solver="sgd", batch_size=100, learning_rate_init=0.2, momentum=0, max_iter=10)
    yield "MLPClassifier(()), sgd, 10 epochs", lambda: MLPClassifier(**sgd), False
    yield "MLPClassifier(()), adam, 10 epochs", lambda: MLPClassifier(hidden_layer_sizes=(), max_iter=10), False
    try:
        import torch  # noqa: F401

        yield "PyTorch nn.Linear, SGD, 10 epochs", TorchLinear, False
    except ImportError:
        print("(PyTorch is not installed)")
    yield "LogisticRegression, lbfgs, max_iter=100", LogisticRegression, False
    yield "LogisticRegression, saga, max_iter=10", lambda: LogisticRegression(solver="saga", max_iter=10), False
    yield "SGDClassifier(log_loss), defaults", lambda: SGDClassifier(loss="log_loss", n_jobs=2), False


def epoch_seconds(X, y, batch_size, n_epochs=20, **settings):
    """Median time of an epoch inside a fit, by the differences of a callback's clock."""
    backend = _openmp.OpenMPBackend(X, y.astype(np.int32), None, 10)
    zeros = np.zeros((10, X.shape[1])), np.zeros(10)
    backend.start(*zeros, zeros, mean=None, scale=None, l1=None, l2=None, momentum=0, fit_intercept=True,
                  batch_size=batch_size)  # fmt: skip
    order, rng, times = np.arange(len(X)), np.random.default_rng(0), []
    steps = np.full(-(-len(X) // batch_size), 1e-6)
    for _ in range(n_epochs):
        rng.shuffle(order)
        times.append(seconds(lambda: backend.run_epoch(order, steps)))
    return np.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    raw, y = load_mnist("train")
    raw_test, y_test = load_mnist("t10k")
    X, X_test = raw.astype(np.float32) / np.float32(255), raw_test.astype(np.float32) / np.float32(255)

    versions = f"Python {platform.python_version()}, NumPy {np.__version__}, scikit-learn {sklearn.__version__}"
    print(f"{platform.machine()}, {_openmp.max_threads(None)} threads, {_openmp.instruction_set()[1]}; {versions}")

    A = np.ones((2048, 2048), dtype=np.float32)
    flops = 2 * 2048**3 / min(seconds(lambda: A @ A) for _ in range(5))
    bandwidth = X.nbytes / min(seconds(X.sum) for _ in range(5))
    flop = 4 * X.size * 10
    print(f"matrix product {flops / 1e9:.0f} GFLOP/s, sum {bandwidth / 1e9:.0f} GB/s on one thread; "
          f"{flop / 1e9:.2f} GFLOP an epoch: {1e3 * flop / flops:.1f} ms")  # fmt: skip
    for name, data in (("float32", X), ("uint8", raw)):
        for batch_size in (32, 100, 1000):
            print(f"epoch of {name}, batch {batch_size:4d}: {1e3 * epoch_seconds(data, y, batch_size):6.2f} ms")

    times, errors = {}, {}
    for _ in range(args.repeats):
        for name, make, takes_bytes in contenders():
            model, train, test = make(), raw if takes_bytes else X, raw_test if takes_bytes else X_test
            times.setdefault(name, []).append(seconds(lambda: model.fit(train, y)))  # noqa: B023
            errors[name] = 100 * np.mean(model.predict(test) != y_test)
    ours = np.median(times["skdl, defaults, raw bytes"])
    print(f"\n| {'fit on 60,000 x 784':40} | seconds | against skdl | test error |\n|---|---|---|---|")
    for name, values in times.items():
        t = np.median(values)
        print(f"| {name:40} | {t:7.3f} | {t / ours:10.1f} x | {errors[name]:8.2f} % |")


if __name__ == "__main__":
    main()
