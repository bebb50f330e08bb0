"""Do two builds of skdl give the same bits? Fits some 40 settings with the skdl that Python imports.

    PYTHONPATH=before python tools/same_bits.py before.json
    PYTHONPATH=after python tools/same_bits.py after.json before.json

The first argument is written: a digest of each model. With a second, the two are compared; exit status 1 if they differ.
"""

import hashlib
import json
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from scipy import sparse
from sklearn.datasets import load_breast_cancer, load_digits, load_iris

import skdl
from skdl import SoftmaxRegressionClassifier

DIGITS, Y = load_digits(return_X_y=True)
TABLE, BINARY = load_breast_cancer(return_X_y=True)
IRIS, SPECIES = load_iris(return_X_y=True)
RNG = np.random.default_rng(0)
WIDE = RNG.normal(size=(300, 3000)).astype("f4")
MANY = np.arange(len(DIGITS)) % 250
WEIGHT = RNG.uniform(0, 3, len(DIGITS)) * (RNG.random(len(DIGITS)) < 0.9)
NAMES = np.array(list("abcdefghij"))[Y]


def fit(X, y, weight=None, X_val=None, y_val=None, **params):
    return SoftmaxRegressionClassifier(**{"random_state": 0, "max_iter": 4, **params}).fit(
        X, y, weight, X_val=X_val, y_val=y_val
    )


def stream(X, y, chunk=100, weight=None, **params):
    model = SoftmaxRegressionClassifier(random_state=0, **params)
    for i in range(0, X.shape[0], chunk):
        rows = slice(i, i + chunk)
        model.partial_fit(X[rows], y[rows], np.unique(y), None if weight is None else weight[rows])
    return model


def after_fit(X, y, **params):
    return fit(X, y, **params).partial_fit(X, y).partial_fit(X[:50], y[:50])


def warm(X, y, **params):
    return fit(X, y, warm_start=True, **params).fit(X, y)


def settings(backend):
    as_type, csr = DIGITS.astype, sparse.csr_array
    both = partial(dict, backend=backend)
    for dtype in ("f8", "f4", "f2", "u1", "i1", "?"):
        yield f"dense {dtype}", partial(fit, as_type(dtype), Y, **both())
    for dtype in ("f8", "f4"):
        yield f"csr {dtype}", partial(fit, csr(as_type(dtype)), Y, **both())
        yield f"csr {dtype} stream", partial(stream, csr(as_type(dtype)), Y, **both(l1_ratio=0.3))
        yield f"csr {dtype} numeric lr, weights", partial(fit, csr(as_type(dtype)), Y, WEIGHT, **both(lr=1e-3))
    yield "two classes", partial(fit, TABLE, BINARY, **both(max_iter="auto"))
    yield "two classes csr", partial(fit, csr(TABLE), BINARY, **both(max_iter=50, class_weight="balanced"))
    yield "iris at the defaults", partial(fit, IRIS, SPECIES, **both(max_iter="auto"))
    yield "wide", partial(fit, WIDE, Y[:300], **both())
    yield "wide csr", partial(fit, csr(WIDE), Y[:300], **both())
    yield "many classes", partial(fit, as_type("f4"), MANY, **both())
    yield "many classes csr", partial(fit, csr(as_type("f4")), MANY, **both())
    yield "one batch, weights", partial(fit, DIGITS, Y, WEIGHT, **both(batch_size=5000))
    yield "weights", partial(fit, as_type("f4"), Y, WEIGHT, **both(l1_ratio=0.5, alpha=1e-3))
    yield "balanced names", partial(fit, DIGITS, NAMES, WEIGHT, **both(class_weight="balanced"))
    yield "listed class weights", partial(fit, as_type("u1"), NAMES, **both(class_weight={"a": 0, "b": 3.5}))
    yield "textbook", partial(fit, DIGITS, Y, **both(lr=1e-3, momentum=0, alpha=0, lr_schedule="constant"))
    yield "no intercept", partial(fit, DIGITS, Y, **both(fit_intercept=False, lr_schedule="linear"))
    yield "no shuffle", partial(fit, as_type("f4"), Y, **both(shuffle=False, l1_ratio=1, alpha=1e-3))
    yield "early stopping", partial(fit, DIGITS, Y, WEIGHT, **both(early_stopping=True, max_iter=40))
    yield "early stopping csr", partial(fit, csr(DIGITS), Y, **both(early_stopping=True, max_iter=40))
    yield "own validation set", partial(fit, DIGITS[:900], Y[:900], X_val=DIGITS[900:], y_val=Y[900:], **both())
    yield "stream", partial(stream, DIGITS, Y, weight=WEIGHT + 1e-3, **both(class_weight="balanced"))
    yield "stream of bytes", partial(stream, as_type("u1"), Y, chunk=333, **both(alpha=1e-3))
    yield "stream, numeric lr and alpha", partial(stream, DIGITS, Y, **both(lr=1e-3, alpha=1e-4))
    yield "stream after fit", partial(after_fit, as_type("f4"), Y, **both())
    yield "warm start", partial(warm, DIGITS, Y, **both())
    if backend == "openmp":
        for n_jobs in (1, 2):
            yield f"large minibatches, {n_jobs} threads", partial(fit, WIDE, Y[:300], **both(n_jobs=n_jobs))


def digest(model, X):
    parts = [model.coef_, model.intercept_, model.loss_curve_, model.lr_, model.alpha_, model.n_iter_]
    parts += [getattr(model, "validation_loss_curve_", []), getattr(model, "validation_scores_", [])]
    parts += [model.predict_proba(X), model.predict_log_proba(X), model.decision_function(X), model.predict(X) == "a"]
    return [hashlib.sha256(np.ascontiguousarray(part).tobytes()).hexdigest()[:16] for part in parts]


def main(written, other=None):
    warnings.simplefilter("ignore")
    print(f"{Path(skdl.__file__).parent}: ", end="", flush=True)
    digests = {}
    for backend in ("openmp", "opencl"):
        for name, run in settings(backend):
            digests[f"{backend}: {name}"] = digest(run(), run.args[0])
    Path(written).write_text(json.dumps(digests, indent=1))
    print(f"{len(digests)} settings")
    if other is not None:
        expected = json.loads(Path(other).read_text())
        different = [name for name in digests if digests[name] != expected.get(name)]
        print("\n".join(f"differs: {name}" for name in different) or "all bits are equal")
        sys.exit(bool(different))


if __name__ == "__main__":
    main(*sys.argv[1:])
