"""Random data, forms and parameters: the NumPy twin's result, or a clear error and nothing else."""

import os
import warnings

import malformed
import numpy as np
import reference
from _helpers import quiet_fit
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import sparse

from skdl import SoftmaxRegressionClassifier
from skdl._reduction import FULL

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 200))
TYPES = ["f8", "f4", "f2", "u1", "i1", "?", "i8", "u2", ">f8", ">f4", "O"]
LABELS = ["numbers", "negative", "strings", "bool", "objects", "floats"]


def test_malformed_sparse():
    """A small part of the cases that `make fuzz` tries under AddressSanitizer."""
    refused, computed = malformed.run(1000)
    assert refused > 400 and computed > 200


@st.composite
def problems(draw):
    """Values, labels as numbers, and how to write them down."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, d, n_classes = draw(st.integers(2, 70)), draw(st.integers(1, 40)), draw(st.integers(2, 20))
    y = rng.integers(0, n_classes, n)
    y[:2] = 0, 1
    y = np.unique(y, return_inverse=True)[1]  # each class occurs
    values = rng.integers(0, 5, (n, d)) * (rng.random((n, d)) < draw(st.floats(0, 1)))
    weight = draw(st.sampled_from(["none", "positive", "some zero", "integers", "equal"]))
    weight = {
        "none": None,
        "positive": rng.uniform(0.1, 10, n),
        "some zero": rng.integers(0, 3, n) + (np.arange(n) < 2),
        "integers": rng.integers(1, 9, n),
        "equal": np.full(n, 3.0),
    }[weight]
    return values, y, weight


def dense(values, dtype, layout, rng):
    X = values.astype(dtype)
    if layout == "F":
        return np.asfortranarray(X)
    if layout == "strided":
        wide = np.empty((2 * len(X), 3 * X.shape[1]), dtype=X.dtype)
        wide[...] = 1
        wide[1::2, ::3] = X
        return wide[1::2, ::3]
    if layout == "reversed":
        return X[::-1, ::-1].copy()[::-1, ::-1]
    if layout == "transposed":
        return X.T.copy().T
    if layout == "broadcast" and len(X):
        return np.lib.stride_tricks.as_strided(X, X.shape, X.strides, writeable=False)
    if layout == "unaligned" and X.dtype != object:
        raw = np.empty(X.nbytes + 1, dtype=np.uint8)[1:].view(X.dtype).reshape(X.shape)
        raw[...] = X
        return raw
    return X


def written(y, kind):
    return {
        "numbers": y,
        "negative": y - 5,
        "strings": np.array([f"class {i:02d}" for i in range(20)])[y],
        "bool": y if y.max() > 1 else y == 1,
        "objects": np.array([f"{i:02d}" for i in range(20)], dtype=object)[y],
        "floats": y * 2.0,
    }[kind]


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    problem=problems(),
    dtype=st.sampled_from(TYPES),
    layout=st.sampled_from(
        ["C", "F", "strided", "reversed", "transposed", "broadcast", "unaligned", "csr", "csc", "coo"]
    ),
    labels=st.sampled_from(LABELS),
    batch_size=st.integers(1, 80),
    n_epochs=st.integers(1, 3),
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
    alpha=st.sampled_from([0.0, 1e-3, 0.1]),
    l1_ratio=st.sampled_from([0.0, 0.3, 1.0]),
    schedule=st.sampled_from(["constant", "linear", "cosine"]),
    fit_intercept=st.booleans(),
    n_jobs=st.sampled_from([1, 2, 3]),
)
def test_equal_to_the_twin(
    problem, dtype, layout, labels, batch_size, n_epochs, momentum, alpha, l1_ratio, schedule, fit_intercept, n_jobs
):
    """Whatever X, y and the weights look like, and whatever the parameters: the twin's coefficients."""
    values, y, weight = problem
    if dtype == "?":
        values = values > 0
    if layout in ("csr", "csc", "coo"):
        dtype = dtype if dtype in ("f8", "f4", "u1", "i1", "?", "i8", "u2") else "f8"
        X = sparse.coo_array(values.astype(dtype)).asformat(layout)
    else:
        X = dense(values, dtype, layout, None)
    clf = SoftmaxRegressionClassifier(
        lr=0.05, batch_size=batch_size, max_iter=n_epochs, momentum=momentum, alpha=alpha, l1_ratio=l1_ratio,
        standardize=False, lr_schedule=schedule, fit_intercept=fit_intercept, n_jobs=n_jobs, shuffle=False, tol=0,
        n_iter_no_change=99,
    )  # fmt: skip
    quiet_fit(clf, X, written(y, labels), sample_weight=weight)

    rows = np.arange(len(y)) if weight is None else np.flatnonzero(weight)
    w = np.ones(len(y)) if weight is None else weight / weight[rows].mean()
    n_classes, d = y.max() + 1, values.shape[1]
    n_logits = 1 if n_classes == 2 else n_classes
    W, b, V, v = (np.zeros(shape) for shape in ((n_logits, d), n_logits) * 2)
    size = min(batch_size, len(rows))
    n_batches = -(-len(rows) // size)
    done = np.arange(n_epochs * n_batches) / (n_epochs * n_batches)
    factor = {"constant": 1 + 0 * done, "linear": 1 - done, "cosine": 0.5 + 0.5 * np.cos(np.pi * done)}[schedule]
    strength = alpha / (1 - momentum)
    lazy = sparse.issparse(X) and X.tocsr()[rows].nnz < FULL * values[rows].size
    for step_sizes in (0.05 * factor).reshape(n_epochs, n_batches):
        reference.run_epoch(
            W, b, V, v, values.astype(float), y, w, rows, size, step_sizes, momentum=momentum, l1=strength * l1_ratio,
            l2=strength * (1 - l1_ratio), fit_intercept=fit_intercept, lazy=lazy,
        )  # fmt: skip
    # 210 steps of 0.05, which momentum lengthens tenfold, along sums of 70 products of numbers up to 4, each rounded
    tolerance = 210 * 0.05 * 10 * 70 * 4 * np.finfo(clf.coef_.dtype).eps / 2
    assert_allclose(clf.coef_, W, rtol=tolerance, atol=tolerance)
    assert_allclose(clf.intercept_, b, rtol=tolerance, atol=tolerance)
    logits = values.astype(float) @ W.T + b
    # what coefficients within that tolerance may change, feature by feature
    bound = tolerance * (abs(values.astype(float)) @ (1 + abs(W)).T + 1 + abs(b))
    assert (abs(clf.decision_function(X).reshape(logits.shape) - logits) <= bound).all()


NUMBERS = st.one_of(
    st.sampled_from([0, 1, -1, 2, 0.5, 1e-300, 1e300, np.inf, -np.inf, np.nan, None, True, "auto", "x", 10**30, [1], 1j]),
    st.integers(-3, 50), st.floats(), st.builds(np.float32, st.floats(width=32)), st.builds(np.int8, st.integers(-3, 9)),
)  # fmt: skip


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    name=st.sampled_from(sorted(set(SoftmaxRegressionClassifier().get_params()) - {"max_iter", "verbose", "n_jobs"})),
    value=NUMBERS,
    X=st.sampled_from(["f8", "f4", "u1", "csr"]),
    weight=st.one_of(st.none(), st.lists(NUMBERS, min_size=6, max_size=6), NUMBERS),
    max_iter=st.sampled_from([1, 2]),
)
@example(name="alpha", value=1e300, X="f4", weight=None, max_iter=2)
def test_any_parameter_fits_or_is_refused(name, value, X, weight, max_iter):
    """Any value of a parameter, any weights: finite coefficients, or a ValueError or TypeError."""
    data = np.arange(24.0).reshape(6, 4) % 7
    data = sparse.csr_array(data) if X == "csr" else data.astype(X)
    clf = SoftmaxRegressionClassifier(**{"max_iter": max_iter, name: value})
    with warnings.catch_warnings(action="ignore"):
        try:
            clf.fit(data, [0, 1, 2, 0, 1, 2], sample_weight=weight)
        except (ValueError, TypeError) as error:
            assert len(str(error)) > 20
            assert not hasattr(clf, "coef_")
        else:
            assert np.isfinite(clf.coef_).all() and np.isfinite(clf.intercept_).all()
            assert np.isfinite(clf.loss_curve_).all()
            assert np.isfinite(clf.predict_log_proba(data)).all()
