"""Malformed sparse X by the thousand: each is refused with a ValueError or TypeError, or is sound and computed right.

    python tests/malformed.py 1000000 [seed [first case]]

A crash ends the process: run it under AddressSanitizer (`make fuzz`), where reading past an array's end is one too.
"""

import copy
import itertools
import sys
import warnings

import numpy as np
from scipy import sparse

from skdl import SoftmaxRegressionClassifier

FORMATS = {
    "csr": ("data", "indices", "indptr"),
    "csc": ("data", "indices", "indptr"),
    "bsr": ("data", "indices", "indptr"),
    "coo": ("data", "coords"),
    "lil": ("data", "rows"),
    "dia": ("data", "offsets"),
    "dok": (),
}
# CSR is what kernels read, so it gets most of the cases.
WEIGHTS = [0.5, 0.14, 0.1, 0.14, 0.06, 0.04, 0.02]
NUMBERS = [-1, 0, 1, 2, 3, 5, 7, 50, -50, 10**4, 2**31 - 1, -(2**31), 2**31, 2**32, 2**40, 2**63 - 1, -(2**63)]
TYPES = ["i1", "i2", "i4", "i8", "u1", "u4", "u8", "f2", "f4", "f8", "g", "c16", "?", "O", ">i4", ">i8", ">f8", "<U3"]


def unaligned(a):
    if a.dtype.hasobject:
        return a
    out = np.empty(a.nbytes + 1, dtype=np.uint8)[1:].view(a.dtype).reshape(a.shape)
    out[...] = a
    return out


def mutated(rng, a):
    """An array made worse, or only different."""

    def put():
        value = NUMBERS[rng.integers(len(NUMBERS))]
        b = a.astype(np.int64) if a.dtype.kind in "iu" else a.copy()
        if b.size:
            b.flat[rng.integers(b.size)] = [value] if b.dtype.hasobject else value
        return b

    def narrow():  # a wrong index that has the type of a right one
        b = a.copy()
        if b.size and b.dtype.kind in "iu":
            b.flat[rng.integers(b.size)] = rng.integers(-3, 12)
        return b

    def shift():
        return a + a.dtype.type(rng.integers(-2, 3)) if a.dtype.kind in "if" else a

    ways = [put, put, narrow, narrow, narrow, shift]
    ways += [lambda: a[: rng.integers(len(a) + 1)], lambda: a[rng.integers(len(a) + 1) :], lambda: a[:-1]]
    ways += [lambda: np.concatenate([a, a[-1:]]), lambda: np.concatenate([a, a, a]), lambda: a[::-1], lambda: a[::2]]
    ways += [lambda: np.repeat(a, 2, axis=0)[::2], lambda: rng.permutation(a), lambda: np.zeros_like(a), lambda: a[:0]]
    ways += [lambda: a.astype(TYPES[rng.integers(len(TYPES))]), lambda: unaligned(a), lambda: a[:, np.newaxis]]
    ways += [lambda: a.tolist(), lambda: None, lambda: a.reshape(-1, 1).repeat(2, axis=1), lambda: np.array(3)]
    try:
        return ways[rng.integers(len(ways))]()
    except (AttributeError, TypeError, ValueError, OverflowError, IndexError):  # no way to change what it is by now
        return a


def make(rng):
    """A small sparse X, one to three of whose parts were tampered with, and its number of rows before."""
    n, d = (int(x) for x in rng.integers(2, 9, size=2))
    values = (rng.random((n, d)) * (rng.random((n, d)) < 0.5)).astype(rng.choice(["f4", "f8"]))
    format_ = rng.choice(list(FORMATS), p=WEIGHTS)
    X = sparse.coo_array(values)
    X = (sparse.coo_matrix(X) if rng.random() < 0.2 else X).asformat(format_)
    if format_ in ("csr", "csc", "bsr") and rng.random() < 0.3:
        X.indices, X.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
    for _ in range(rng.integers(0, 4)):
        parts = (*FORMATS[format_], "_shape") if rng.random() < 0.1 or not FORMATS[format_] else FORMATS[format_]
        part = parts[rng.integers(len(parts))]
        old = getattr(X, part)
        if part == "_shape":
            new = tuple(int(x) for x in rng.integers(0, 10, size=2))
        elif part == "coords":
            new = list(old)
            i = rng.integers(2)
            new[i] = mutated(rng, new[i])
            new = tuple(new)
        elif (
            format_ == "lil" and isinstance(old, np.ndarray) and old.dtype.hasobject and old.ndim and rng.random() < 0.7
        ):
            new = old.copy()
            i = rng.integers(len(new)) if len(new) else None
            if i is not None and isinstance(new[i], list):
                new[i] = [*new[i], NUMBERS[rng.integers(len(NUMBERS))]][rng.integers(0, 2) :]
        else:
            new = mutated(rng, old)
        setattr(X, part, new)
    return X, n, d


def dense(X):
    """A CSR, entry by entry, or None where it is not sound. Slow, and shares no code with skdl's check."""
    parts = (X.data, X.indices, X.indptr)
    if not all(isinstance(part, np.ndarray) and part.ndim == 1 for part in parts) or parts[0].dtype.kind == "c":
        return None
    if any(part.dtype.kind not in "iu" for part in parts[1:]) or X.shape[0] == 0:
        return None
    data, indices, ends = (part.tolist() for part in parts)
    n, d = X.shape
    if len(ends) != n + 1 or ends[0] != 0 or any(a > b for a, b in itertools.pairwise(ends)):
        return None
    if ends[-1] > min(len(data), len(indices)) or not all(0 <= j < d for j in indices[: ends[-1]]):
        return None
    out = np.zeros((n, d))
    try:
        for i in range(n):
            for e in range(ends[i], ends[i + 1]):
                out[i, indices[e]] += float(data[e])
    except (TypeError, ValueError):  # text or objects that are no numbers
        return None
    return out


def models(d):
    """Estimators fitted on d features, one for each way through the kernels."""
    rng = np.random.default_rng(d)
    X, y = rng.random((12, d)), np.arange(12) % 3
    made = []
    for lr, y_, n_jobs in (("auto", y, 1), (0.1, y, 2), (0.1, y % 2, 1)):
        made.append(SoftmaxRegressionClassifier(lr=lr, max_iter=1, batch_size=4, n_jobs=n_jobs, random_state=0))
        made[-1].fit(X, y_)
    return made


def run(count, seed=0, report=None, first=0):
    """Try the cases from `first` to `count`; return how many were refused and how many computed.

    Raises AssertionError at a case that is refused though sound, accepted though malformed, or computed wrong.
    """
    fitted = {d: models(d) for d in range(2, 9)}
    refused = computed = 0
    with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
        for case in range(first, count):
            if report and case % 10_000 == 0:
                report(case, refused, computed)
            rng = np.random.default_rng([seed, case])
            X, n, d = make(rng)
            expected = dense(X) if X.format == "csr" else None
            clf = copy.copy(fitted[d][rng.integers(3)])  # so that each case can be repeated alone
            method = ("fit", "partial_fit", "X_val", "predict", "predict", "predict_proba")[rng.integers(6)]
            y = clf.classes_[np.arange(n) % len(clf.classes_)]
            try:
                if method == "X_val":
                    clf.fit(np.eye(n, d), y, X_val=X, y_val=y)
                elif "fit" in method:
                    getattr(clf, method)(X, y)
                else:
                    result = clf.decision_function(X) if method == "predict" else clf.predict_proba(X)
            except (ValueError, TypeError):
                refused += 1
                # what scipy itself calls sound, and what does not make training diverge
                sound = expected is not None and expected.shape == (n, d) and len(X.data) == len(X.indices)
                sound = sound and abs(expected).max() < 1e6
                assert not sound, f"case {seed}, {case}: a sound X was refused"
                continue
            except Exception as error:
                raise AssertionError(f"case {seed}, {case}: {type(error).__name__}: {error}") from error
            computed += 1
            if X.format == "csr":
                assert expected is not None, f"case {seed}, {case}: a malformed X was accepted by {method}"
                if method == "predict":
                    logits = expected @ clf.coef_.T + clf.intercept_
                    np.testing.assert_allclose(
                        result, logits[:, 0] if len(clf.classes_) == 2 else logits, rtol=1e-4, atol=1e-4,
                        err_msg=f"case {seed}, {case}",
                    )  # fmt: skip
    return refused, computed


if __name__ == "__main__":

    def report(case, refused, computed):
        print(f"{case} cases: {refused} refused, {computed} computed", flush=True)

    count, seed, first = [*map(int, sys.argv[1:]), 0, 0][:3]
    report(count, *run(count, seed, report, first))
