"""The study that lr="auto" and max_iter="auto" came from, in NumPy: one rule for the step, for 100 rows and for 60,000.

SGD runs in the coordinates (x - mu) / r with r = sqrt(max |x - mu| * std) (sparse X: x / max |x|), on the objective of the
raw features. The step is min(4 (1 + momentum) / max(1, lam), 3.8 (1 - momentum) batch / M), twice that for two classes.
lam is the largest eigenvalue of x' x / batch over eight random batches: the first term is the largest step that heavy-ball
descent is proven to stand, since a softmax has at most half that curvature. The second bounds the gradient noise
(M = mean |x|^2; none where one batch holds everything).

    python benchmarks/auto_lr_study.py [table ...] [--cache DIR] [--seeds 10]

Tables: small, images, stability, steps, stopping, sparse. skdl itself is not used: what ships is judged by auto_lr.py.
"""

import argparse
import os
import warnings
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import scipy.sparse as sp
from _data import (
    ALPHA,
    CACHE,
    SMALL,
    TITLES,
    cache_name,
    error,
    excess,
    images,
    installed_images,
    log_loss,
    losses_and_residual,
    objective,
    optimum,
    small,
    text_counts,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression, SGDClassifier

DEFAULTS = dict(
    batch_size=128,
    max_iter=None,
    momentum=0.9,
    schedule="cosine",
    curvature=4.0,
    noise=3.8,
    updates=3000,
    min_epochs=5,
)
SCHEDULES = {
    "constant": np.ones_like,
    "linear": lambda t: 1 - t,
    "cosine": lambda t: (1 + np.cos(np.pi * t)) / 2,
}


# ---- the rule


def scales(X, w):
    """Mean and scale of each feature; 1 for features that are constant up to rounding."""
    if sp.issparse(X):
        r = abs(X).max(axis=0).toarray().ravel()
        return np.zeros(X.shape[1]), np.where(r > 0, r, 1.0)
    low, high = X[w > 0].min(0).astype(float), X[w > 0].max(0).astype(float)
    mu = np.average(X, axis=0, weights=w)
    std = np.sqrt(np.average((X - mu) ** 2, axis=0, weights=w))
    constant = high - low <= 32 * np.finfo(std.dtype if X.dtype.kind != "f" else X.dtype).eps * np.maximum(
        abs(low), abs(high)
    )
    mu[constant] = low[constant]
    return mu, np.where(constant, 1.0, np.sqrt(np.maximum(high - mu, mu - low) * std + constant))


def curvature(A, w, n_iter=10):
    """Largest eigenvalue of the weighted second moment of the rows of A, by power iteration."""
    v, value = np.random.RandomState(0).randn(A.shape[1]), 0.0
    for _ in range(n_iter):
        norm = np.linalg.norm(v)
        if norm == 0:
            break
        u = A @ (v / norm)
        value = np.sum(w * u * u) / np.sum(w)
        v = A.T @ (w * u)
    return value


def auto_step(A, w, n_logits, size, n_batches, momentum, curvature_constant, noise, rng):
    order = rng.permutation(len(w))[: 8 * size] if n_batches > 1 else np.arange(len(w))
    batches = [order[i : i + size] for i in range(0, len(order), size)]
    lam = max(curvature(A[i], w[i]) for i in batches if len(i) == len(batches[0]))
    squares = A.multiply(A).sum(1) if sp.issparse(A) else np.einsum("ij,ij->i", A, A)
    mean_square = np.average(np.asarray(squares, float).ravel(), weights=w)
    step = curvature_constant * (1 + momentum) / max(1.0, lam)
    if n_batches > 1 and mean_square > 0:
        step = min(step, noise * (1 - momentum) * size / mean_square)
    return step * (2 if n_logits == 1 else 1)


# ---- SGD


def fit(X, y, *, alpha=ALPHA, sample_weight=None, seed=0, shuffle=True, proximal=None, stop=None, **changes):
    """W and b for raw features, the mean loss of each epoch, and the number of updates of an epoch."""
    p = DEFAULTS | changes
    k = int(y.max()) + 1
    k = 1 if k == 2 else k
    w = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, float)
    mu, r = scales(X, w)
    A = sp.csr_array(X @ sp.diags_array(1 / r)) if sp.issparse(X) else np.asarray((X - mu) / r, dtype=X.dtype)
    n, d = A.shape
    n_batches = -(-n // p["batch_size"])
    size = -(-n // n_batches)  # even batches: no small last one
    epochs = p["max_iter"] or max(p["min_epochs"], round(p["updates"] / n_batches))
    m, rng = p["momentum"], np.random.RandomState(seed)
    start = auto_step(A, w, k, size, n_batches, m, p["curvature"], p["noise"], rng)
    steps = start * SCHEDULES[p["schedule"]](np.arange(epochs * n_batches) / (epochs * n_batches))
    stiffness = (alpha / r**2 * (1 / (1 - m) if proximal is None else proximal)).astype(A.dtype)
    W, V = np.zeros((k, d), A.dtype), np.zeros((k, d), A.dtype)
    b, Vb = np.zeros(k, A.dtype), np.zeros(k, A.dtype)
    w = (w / w[w > 0].mean()).astype(A.dtype)
    curve, best, stale = [], np.inf, 0
    for epoch in range(epochs):
        order, total = rng.permutation(n) if shuffle else np.arange(n), 0.0
        for i in range(n_batches):
            rows, lr = order[i * size : (i + 1) * size], A.dtype.type(steps[epoch * n_batches + i])
            x, weight = A[rows], w[rows]
            losses, R = losses_and_residual(x @ W.T + b, y[rows])
            total += float(losses @ weight)
            R *= (weight / len(rows))[:, None]
            V *= m
            V += (x.T @ R).T
            Vb *= m
            Vb += R.sum(0)
            W -= lr * V
            b -= lr * Vb
            W /= 1 + lr * stiffness  # the penalty's proximal step, of the size that momentum gives to the loss
        curve.append(total / n)
        stale = 0 if curve[-1] < best - 1e-4 else stale + 1
        best = min(best, curve[-1])
        if stop is not None and stale >= stop:
            break
    W = W.astype(float) / r
    return W, b.astype(float) - W @ mu, np.array(curve), n_batches


# ---- the tables


def hard_data(rng, n):
    X = rng.randn(n, rng.randint(1, 12))
    cauchy = rng.standard_cauchy((n, 4))
    cauchy[rng.randint(n), rng.randint(4)] = 1e6
    return {
        "Gaussian": X,
        "Cauchy, outlier 1e6": cauchy,
        "constant features": np.hstack([X, np.full((n, 3), 7.1)]),
        "one feature 100 times": np.tile(X[:, :1], (1, 100)),
        "the same and others": np.hstack([np.tile(X[:, :1], (1, 100)), X]),
        "one feature": X[:, :1],
        "one binary feature": (X[:, :1] > 0).astype(float),
        "one-hot": np.eye(20)[rng.randint(0, 20, n)],
        "rare, log-normal": (rng.rand(n, 50) < 2 / n) * rng.lognormal(0, 3, (n, 50)),
        "scales 1e-6 to 1e6": X * 10.0 ** rng.randint(-6, 7, X.shape[1]),
        "wide": rng.randn(n, 300),
        "low rank": rng.randn(n, 2) @ rng.randn(2, 40),
        "one direction": np.where(rng.rand(n, 1) < 0.5, 1.0, -1.0) + 1e-3 * rng.randn(n, 30),
    }


def gap(args, name, scaling, seed, **changes):
    """F - optimum of a fit in units of the tolerance, the mean loss of each epoch, and the updates of one."""
    X, _, y, _ = small(name, scaling, seed)
    best = objective(X, y, *optimum(X, y, name=cache_name(name, scaling, seed), cache=args.cache))
    W, b, curve, n_batches = fit(X, y, seed=seed, **changes)
    return excess(objective(X, y, W, b), best), curve, n_batches


def table_small(args):
    print(
        f"\nSmall data, raw and standardised, mean of {args.seeds} splits. "
        "gap: F - optimum in units of the tolerance (2 %, or 0.005 below 0.1)"
    )
    print(f"{'data':27} {'optimum':>8} {'F':>8} {'gap':>6} {'worst':>6} {'error':>6} {'optimum':>8} {'difference':>10}")
    for name in SMALL:
        for scaling in ("raw", "standardised"):
            rows = []
            for seed in range(args.seeds):
                X, Xt, y, yt = small(name, scaling, seed)
                Wo, bo = optimum(X, y, name=cache_name(name, scaling, seed), cache=args.cache)
                W, b, _, _ = fit(X, y, seed=seed)
                best, got = objective(X, y, Wo, bo), objective(X, y, W, b)
                rows.append([best, got, excess(got, best), error(Xt @ W.T + b, yt), error(Xt @ Wo.T + bo, yt)])
            t = np.array(rows)
            o, f, g, e, eo = t.mean(0)
            print(
                f"{name + ' ' + scaling:27} {o:8.4f} {f:8.4f} {g:6.2f} {t[:, 2].max():6.2f} {e:6.2f} {eo:8.2f} {e - eo:+10.2f}",
                flush=True,
            )


def float32_images(name, scaling):
    X, X_test, y, y_test = images(name, scaling)
    return X.astype(np.float32), X_test.astype(np.float32), y, y_test


def table_images(args):
    print("\nImages, float32, mean of 3 seeds; optimum: L-BFGS")
    for name in installed_images():
        for scaling in ("[0, 1]", "raw", "standardised"):
            X, Xt, y, yt = float32_images(name, scaling)
            W, b = optimum(X, y, name=cache_name(name, scaling), cache=args.cache)
            best, H = objective(X, y, W, b), Xt @ W.T + b
            print(
                f"{TITLES[name]} {scaling}: optimum F {best:.4f}, test log-loss {log_loss(H, yt):.4f}, "
                f"test error {error(H, yt):.2f} %",
                flush=True,
            )
            for epochs in (2, None):
                rows = []
                for seed in range(3):
                    W, b, curve, _ = fit(X, y, seed=seed, max_iter=epochs)
                    H = Xt @ W.T + b
                    rows.append([objective(X, y, W, b), log_loss(H, yt), error(H, yt)])
                f, ll, e = np.mean(rows, 0)
                print(
                    f"   {len(curve)} epochs: F {f:.4f} ({100 * (f / best - 1):+.1f} %), test log-loss {ll:.4f}, "
                    f"test error {e:.2f} %",
                    flush=True,
                )


def table_stability(args):
    print(
        "\nStability: worst final F over F at zero weights, and the worst relative change of the weights "
        "after a change of X by 1e-15"
    )
    print(f"{'data':24} {'F / F(0), one batch':>20} {'many':>8} {'change, one batch':>18}")
    worst = {}
    for n in (2, 5, 15, 60, 100, 200):
        rng = np.random.RandomState(n)
        for name, X in hard_data(rng, n).items():
            for k in (2, 3):
                for y in (rng.randint(0, k, n), np.argsort(np.argsort(X[:, 0])) * k // n):
                    y = np.unique(y, return_inverse=True)[1]
                    if y.max() == 0:
                        continue
                    start = log_loss(np.zeros((n, 1 if y.max() == 1 else y.max() + 1)), y)
                    row = worst.setdefault(name, [0.0, 0.0, 0.0])
                    W, b, _, _ = fit(X, y)
                    if n > 128:
                        row[1] = max(row[1], objective(X, y, W, b) / start)
                        continue
                    row[0] = max(row[0], objective(X, y, W, b) / start)
                    U, c, _, _ = fit(X * (1 + 1e-15 * rng.randn(*X.shape)), y)
                    s = scales(X, np.ones(n))[1]
                    row[2] = max(row[2], np.abs((W - U) * s).max() / max(np.abs(W * s).max(), 1e-3))
    for name, row in worst.items():
        print(f"{name:24} {row[0]:20.5f} {row[1]:8.5f} {row[2]:18.0e}")
    difference = 0.0
    for seed in range(20):
        rng = np.random.RandomState(seed)
        X, y, w = rng.rand(15, 30), rng.randint(0, 3, 15), rng.randint(0, 5, 15)
        y[np.flatnonzero(w)[:3]] = 0, 1, 2
        keep = rng.permutation(np.flatnonzero(w))
        W, b, _, _ = fit(X[keep], y[keep], sample_weight=w[keep])
        U, c, _, _ = fit(X.repeat(w, 0), y.repeat(w))
        difference = max(difference, np.abs(W / U - 1).max(), np.abs(b / c - 1).max())
    print(f"sample weights against repeated rows: weights differ by {difference:.0e} (relative, worst of 20 data sets)")


def table_steps(args):
    print(
        "\nThe parts of the rule, one changed at a time: gap as in the first table (mean of 3 splits); images: F and test error"
    )
    variants = {
        "the defaults": {},
        "half the steps": dict(curvature=2.0, noise=1.9),
        "twice the steps": dict(curvature=8.0, noise=7.6),
        "no momentum": dict(momentum=0.0),
        "constant step": dict(schedule="constant"),
        "linear": dict(schedule="linear"),
        "batch 32": dict(batch_size=32),
        "batch 32, no noise term": dict(batch_size=32, noise=1e9),
        "batch 512": dict(batch_size=512),
        "1000 updates": dict(updates=1000),
        "proximal step of lr only": dict(proximal=1.0),
        "stop at a plateau of 5": dict(stop=5),
    }
    sets = [(name, scaling) for name in SMALL for scaling in ("raw", "standardised")]
    print(f"{'':27}" + "".join(f"{name[:6] + ' ' + scaling[:3]:>11}" for name, scaling in sets) + "  MNIST F, error")
    X_mnist, Xt_mnist, y_mnist, yt_mnist = float32_images("mnist", "raw")
    for label, changes in variants.items():
        line = f"{label:27}"
        for name, scaling in sets:
            line += f"{np.mean([gap(args, name, scaling, seed, **changes)[0] for seed in range(3)]):11.2f}"
        W, b, _, _ = fit(X_mnist, y_mnist, **changes)
        line += f"  {objective(X_mnist, y_mnist, W, b):.4f} {error(Xt_mnist @ W.T + b, yt_mnist):.2f}"
        print(line, flush=True)


def table_stopping(args):
    print(
        "\nConvergence: drop = loss of the middle epoch - loss of the last; "
        "the warning: fewer than 1000 updates and drop > 1e-4 (mean gap of 3 splits)"
    )
    for name in SMALL:
        for epochs in (2, 20, 100, 300, None):
            rows = []
            for seed in range(3):
                apart, curve, n_batches = gap(args, name, "raw", seed, max_iter=epochs)
                drop = curve[(len(curve) - 1) // 2] - curve[-1]
                rows.append([apart, drop, len(curve) * n_batches < 1000 and drop > 1e-4])
            apart, drop, warned = np.mean(rows, 0)
            print(
                f"{name:14} {len(curve):5} epochs, {len(curve) * n_batches:5} updates: gap {apart:6.2f}, "
                f"drop {drop:8.5f}, warned {warned:.2f}",
                flush=True,
            )


def table_sparse(args):
    print("\nSparse text, 20,000 x 20,000, 20 classes: test log-loss (F is at the alpha of the row)")
    X, y = text_counts()
    n = 20000
    tfidf = TfidfTransformer(sublinear_tf=True).fit(X[:n])
    for label, Z in (("counts", X), ("tf-idf", sp.csr_array(tfidf.transform(X)))):
        for alpha in (1e-4, 1e-5, 1e-6):
            W, b, curve, _ = fit(Z[:n], y[:n], alpha=alpha)
            H = Z[n:] @ W.T + b
            lr = LogisticRegression(C=1 / (alpha * n), max_iter=300, tol=1e-5).fit(Z[:n], y[:n])
            Ho = lr.decision_function(Z[n:])
            best = objective(Z[:n], y[:n], lr.coef_, lr.intercept_, alpha)
            f = objective(Z[:n], y[:n], W, b, alpha)
            ovr = SGDClassifier(loss="log_loss", alpha=alpha, random_state=0).fit(Z[:n], y[:n]).predict_proba(Z[n:])
            ovr = -np.mean(np.log(np.maximum(ovr[np.arange(len(Z.indptr) - 1 - n), y[n:]], 1e-15)))
            print(
                f"{label} alpha {alpha:g}, {len(curve)} epochs: {log_loss(H, y[n:]):.4f} (F {f:.4f}, "
                f"error {error(H, y[n:]):.2f}); LogisticRegression "
                f"{log_loss(Ho, y[n:]):.4f} (F {best:.4f}, error {error(Ho, y[n:]):.2f}); SGDClassifier {ovr:.4f}",
                flush=True,
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tables = {name.removeprefix("table_"): f for name, f in globals().items() if name.startswith("table_")}
    parser.add_argument("tables", nargs="*", metavar="table", help=", ".join(tables))
    parser.add_argument("--cache", type=Path, default=CACHE, help="a folder that keeps the optima between runs")
    parser.add_argument("--seeds", type=int, default=10)
    args = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)  # of LogisticRegression, which ends at max_iter
    for name in args.tables or tables:
        tables[name](args)


if __name__ == "__main__":
    main()
