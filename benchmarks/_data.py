"""What the benchmarks share: data (MNIST with the tests, too), the objective and its optimum."""

import gzip
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import expit
from sklearn import datasets
from sklearn.model_selection import train_test_split

HERE = Path(__file__).parent
CACHE = HERE / ".cache"
ALPHA = 1e-4
SMALL = ("iris", "wine", "breast_cancer", "digits")
IMAGES = {"mnist": HERE / "data" / "mnist", "fashion": Path("/usr/share/datasets/fashion-mnist")}
TITLES = {"mnist": "MNIST", "fashion": "Fashion-MNIST", "digits": "digits"}


# ---- data


def installed_images():
    """Names of the image sets that are there; says which are not (Debian: apt install dataset-fashion-mnist)."""
    for name, folder in IMAGES.items():
        if not folder.exists():
            print(f"{TITLES[name]} is left out: there is no {folder}")
    return [name for name, folder in IMAGES.items() if folder.exists()]


def _idx(path):
    data = gzip.decompress(path.read_bytes())
    n_dimensions = data[3]
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(n_dimensions)]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * n_dimensions).reshape(shape)


def images(name, scaling):
    """X, X_test, y, y_test; X is uint8 (n, 784) for "raw", else float32. scaling: "raw", "[0, 1]", "standardised"."""
    X, X_test, y, y_test = (
        _idx(IMAGES[name] / f"{part}-{what}-ubyte.gz")
        for what in ("images-idx3", "labels-idx1")
        for part in ("train", "t10k")
    )
    X, X_test = X.reshape(len(y), -1), X_test.reshape(len(y_test), -1)
    if scaling != "raw":
        X, X_test = X.astype(np.float32) / 255, X_test.astype(np.float32) / 255
    if scaling == "standardised":
        X, X_test = _standardise(X, X_test)
    return X, X_test, y.astype(int), y_test.astype(int)


def small(name, scaling, seed):
    """X, X_test, y, y_test of a stratified split of one of scikit-learn's data sets, float64."""
    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.25, stratify=y, random_state=seed)
    if scaling == "standardised":
        X, X_test = _standardise(X, X_test)
    return X, X_test, y, y_test


def _standardise(X, X_test):
    mean, std = X.mean(0, dtype=float), X.std(0, dtype=float)
    std[std == 0] = 1
    return ((X - mean) / std).astype(X.dtype), ((X_test - mean) / std).astype(X.dtype)


# ---- the objective and its optimum


def losses_and_residual(logits, y):
    """Cross-entropy of each row and its gradient with respect to the logits (n, 1 for two classes)."""
    if logits.shape[1] == 1:
        h = logits[:, 0]
        return np.logaddexp(0, h) - h * y, expit(logits) - y[:, None]
    H = logits - logits.max(1, keepdims=True)
    E = np.exp(H)
    S = E.sum(1, keepdims=True)
    rows = np.arange(len(y))
    losses = np.log(S[:, 0]) - H[rows, y]
    E /= S
    E[rows, y] -= 1
    return losses, E


def log_loss(logits, y):
    return float(np.mean(losses_and_residual(np.asarray(logits, float), y)[0]))


def error(logits, y):
    """In per cent."""
    return 100 * np.mean((logits[:, 0] > 0 if logits.shape[1] == 1 else logits.argmax(1)) != y)


def logits(X, coef, intercept):
    """X coef^T + intercept, (n, n_logits); the products in float32 unless X is float64, what is added to them in float64."""
    if X.dtype == np.uint8:
        X = X.astype(np.float32)
    return np.asarray(X @ coef.T.astype(X.dtype), float) + intercept


def objective(X, y, coef, intercept, alpha=ALPHA):
    """F of skdl's documentation with l1_ratio=0: LogisticRegression's with C = 1 / (alpha n), divided by C n."""
    return log_loss(logits(X, coef, intercept), y) + alpha / 2 * np.sum(np.square(coef, dtype=float))


def excess(value, best):
    """F - optimum in units of the tolerance: 2 % of the optimum, or 0.005 where that is below 0.1."""
    return (value - best) / (0.02 * best if best >= 0.1 else 0.005)


def optimum(X, y, alpha=ALPHA, *, name=None, cache=CACHE):
    """coef and intercept at the minimum of F, by L-BFGS in centred coordinates of curvature about one.

    `name` is that of its file in `cache`: images take minutes.
    """
    file = cache / f"{name}-{alpha:.3g}.npz" if cache and name else None
    if file and file.exists():
        z = np.load(file)
        return z["W"], z["b"]
    if len(X) > 10_000:
        print(f"   (computing the optimum of {name}: minutes, once)", flush=True)
    if X.dtype == np.uint8:
        X = X.astype(np.float32)
    k = int(y.max()) + 1
    k = 1 if k == 2 else k
    mu, std = X.mean(0, dtype=float), X.std(0, dtype=float)
    r = np.where(std > 0, np.sqrt(std**2 + 10 * alpha), 1.0)
    A = ((X - mu) / r).astype(X.dtype)
    stiffness = alpha / r**2

    def fun(t):
        t = t.reshape(k, -1)
        W, b = t[:, :-1], t[:, -1]
        losses, R = losses_and_residual(np.asarray(A @ W.T.astype(X.dtype) + b.astype(X.dtype), float), y)
        R /= len(y)
        G = np.column_stack([R.T.astype(X.dtype) @ A + stiffness * W, R.sum(0)])
        return losses.mean() + np.sum(stiffness * W * W) / 2, G.ravel()

    exact = X.dtype == np.float64
    options = dict(maxiter=20000 if exact else 3000, maxfun=50000, gtol=1e-9, ftol=1e-15 if exact else 1e-9, maxcor=40)
    t = minimize(fun, np.zeros(k * (X.shape[1] + 1)), jac=True, method="L-BFGS-B", options=options).x.reshape(k, -1)
    W = t[:, :-1] / r
    b = t[:, -1] - W @ mu
    if file:
        file.parent.mkdir(exist_ok=True)
        np.savez(file, W=W, b=b)
    return W, b


def cache_name(name, scaling, seed=0):
    return f"{name}-{scaling.strip('[]').replace(', ', '')}-{seed}"


# ---- sparse


def text_counts(n_rows=25_000, n_features=20_000, n_classes=20, seed=0):
    """Word counts (CSR, float32) of a planted multinomial model, frequencies by a power law, and the classes."""
    rng = np.random.RandomState(seed)
    frequency = 1 / (np.arange(n_features) + 10.0) ** 1.05
    of_class = frequency * np.exp(0.6 * rng.randn(n_classes, n_features) * (rng.rand(n_features) < 0.3))
    cumulated = (of_class / of_class.sum(1, keepdims=True)).cumsum(1)
    y = rng.randint(0, n_classes, n_rows)
    lengths = np.maximum(3, rng.lognormal(np.log(60), 0.6, n_rows)).astype(int)
    rows = np.repeat(np.arange(n_rows, dtype=np.int32), lengths)
    u, words = rng.rand(len(rows)), np.empty(len(rows), np.int32)
    for c in range(n_classes):
        here = y[rows] == c
        words[here] = np.minimum(np.searchsorted(cumulated[c], u[here]), n_features - 1)
    counts = sparse.coo_array((np.ones(len(rows), np.float32), (rows, words)), shape=(n_rows, n_features))
    return sparse.csr_array(counts), y


def one_hot(n_rows, n_features, n_classes, n_columns=10, seed=0):
    """Categorical columns, one-hot (CSR, float32), levels by a power law, and classes of a planted softmax model."""
    rng = np.random.RandomState(seed)
    n_levels = n_features // n_columns
    frequency = 1 / (np.arange(n_levels) + 10.0) ** 1.05
    H = np.zeros((n_rows, n_classes), np.float32)
    indices = np.empty((n_rows, n_columns), np.int32)
    for j in range(n_columns):
        levels = rng.choice(n_levels, n_rows, p=frequency / frequency.sum())
        H += rng.randn(n_levels, n_classes).astype(np.float32)[levels]
        indices[:, j] = j * n_levels + levels
    y = (H + rng.gumbel(size=H.shape)).argmax(1)
    data = np.ones(indices.size, np.float32)
    indptr = np.arange(0, indices.size + 1, n_columns, dtype=np.int32)
    return sparse.csr_array((data, indices.ravel(), indptr), shape=(n_rows, n_columns * n_levels)), y
