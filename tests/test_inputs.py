"""What X, y and the weights may be, and that the form they come in does not matter."""

from functools import partial

import _helpers
import numpy as np
import pytest
from _helpers import DIGITS, LABELS, TEXTBOOK, same_model
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from skdl import SoftmaxRegressionClassifier

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

N, D = DIGITS.shape
make = partial(_helpers.make, batch_size=32)


def frozen(a):
    a.flags.writeable = False
    return a


# ---- dense


def strided(X, _):
    wide = np.full((2 * N, 3 * D), 99.0)
    wide[::2, 1::3] = X
    return wide[::2, 1::3]


def reversed_view(X, _):
    return np.ascontiguousarray(X[::-1, ::-1], dtype=np.float64)[::-1, ::-1]


def memmap(dtype, offset=0):
    def write(X, path):
        with open(path / "X", "wb") as file:
            file.write(b"\0" * offset + X.astype(dtype).tobytes())
        return np.memmap(path / "X", dtype=dtype, mode="r", offset=offset, shape=X.shape)

    return write


def unaligned(dtype):
    def shift(X, _):
        X = np.frombuffer(b"\0" + X.astype(dtype).tobytes(), dtype=dtype, offset=1).reshape(X.shape)
        assert not X.flags.aligned
        return X

    return shift


def pandas_frame(dtype):
    return lambda X, _: pytest.importorskip("pandas").DataFrame(X.astype(dtype))


def polars_frame(dtype):
    return lambda X, _: pytest.importorskip("polars").DataFrame(
        {f"pixel{j}": x for j, x in enumerate(X.T.astype(dtype))}
    )


def as_type(dtype, **layout):
    return lambda X, _: X.astype(dtype, **layout)


# How to make X, and the type in which the fit computes: float32 for what is narrower, float64 for all the rest.
DENSE = {
    "float64": (as_type("f8"), "f8"),
    "float32": (as_type("f4"), "f4"),
    "float16": (as_type("f2"), "f4"),
    "uint8": (as_type("u1"), "f4"),
    "int8": (as_type("i1"), "f4"),
    "int64": (as_type("i8"), "f8"),
    "object": (as_type(object), "f8"),
    "list": (lambda X, _: X.tolist(), "f8"),
    "big-endian float64": (as_type(">f8"), "f8"),
    "big-endian float32": (as_type(">f4"), None),  # either type will do, the wrong bytes will not
    "big-endian float16": (as_type(">f2"), None),
    "F-order float64": (as_type("f8", order="F"), "f8"),
    "F-order float32": (as_type("f4", order="F"), "f4"),
    "F-order uint8": (as_type("u1", order="F"), "f4"),
    "strided": (strided, "f8"),
    "strided uint8": (lambda X, _: np.repeat(X, 2, axis=1)[:, ::2], "f4"),
    "reversed": (reversed_view, "f8"),
    "read-only float64": (lambda X, _: frozen(X.astype("f8")), "f8"),
    "read-only uint8": (lambda X, _: frozen(X.copy()), "f4"),
    "memmap float64": (memmap("f8"), "f8"),
    "memmap uint8": (memmap("u1"), "f4"),
    "unaligned memmap float32": (memmap("f4", offset=3), "f4"),
    "unaligned float64": (unaligned("f8"), "f8"),
    "unaligned float32": (unaligned("f4"), "f4"),
    "unaligned float16": (unaligned("f2"), "f4"),
    "pandas float64": (pandas_frame("f8"), "f8"),
    "pandas float32": (pandas_frame("f4"), "f4"),
    "pandas uint8": (pandas_frame("u1"), None),
    "polars float64": (polars_frame("f8"), "f8"),
    "polars int32": (polars_frame("i4"), "f8"),
}


@pytest.fixture(scope="module")
def reference():
    """For a backend and a number of parameter sets, the model of the C-ordered array of a type; made once."""
    made = {}

    def get(dtype, **params):
        clf = make(**params)
        key = (clf.backend, np.dtype(dtype), *sorted(params.items()))
        if key not in made:
            made[key] = clf.fit(np.ascontiguousarray(DIGITS, dtype=dtype), LABELS)
        return made[key]

    return get


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("params", [{}, TEXTBOOK], ids=["auto", "textbook"])
@pytest.mark.parametrize("name", DENSE)
def test_dense(name, params, reference, tmp_path):
    represent, dtype = DENSE[name]
    X = represent(DIGITS, tmp_path)
    clf = make(**params).fit(X, LABELS)
    assert clf.coef_.dtype == (dtype or clf.coef_.dtype)
    expected = reference(clf.coef_.dtype, **params)
    same_model(clf, expected)
    plain = DIGITS.astype(clf.coef_.dtype)
    assert_array_equal(clf.predict(X), expected.predict(plain))
    assert_array_equal(clf.decision_function(X), expected.decision_function(plain))
    assert clf.score(X, LABELS) > 0.8  # it is a model at all


@pytest.mark.parametrize("params", [{}, TEXTBOOK], ids=["auto", "textbook"])
@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "float16"])
def test_narrow_types_give_the_bits_of_float32(dtype, params):
    X = {"bool": DIGITS > 7, "int8": DIGITS.astype("i1") - 8, "uint8": DIGITS * 15, "float16": DIGITS / 16}[dtype]
    X = X.astype(dtype)
    narrow, wide = make(**params).fit(X, LABELS), make(**params).fit(X.astype("f4"), LABELS)
    assert narrow.coef_.dtype == np.float32
    same_model(narrow, wide)
    assert_array_equal(wide.decision_function(X), wide.decision_function(X.astype("f4")))


def test_float32_and_float64_agree():
    one, two = make(**TEXTBOOK).fit(DIGITS.astype("f4"), LABELS), make(**TEXTBOOK).fit(DIGITS.astype("f8"), LABELS)
    assert_allclose(one.coef_, two.coef_, rtol=1e-3, atol=1e-6)


# ---- sparse


def csr(container=sparse.csr_array, index="i4", dtype="f8"):
    def convert(X):
        X = container(X.astype(dtype))
        X.indices, X.indptr = X.indices.astype(index), X.indptr.astype(index)
        return X

    return convert


def unsorted(X):
    """Each row's entries in reversed order."""
    X = sparse.csr_array(X.astype("f8"))
    for i in range(N):
        row = slice(X.indptr[i], X.indptr[i + 1])
        X.indices[row], X.data[row] = X.indices[row][::-1].copy(), X.data[row][::-1].copy()
    X.has_sorted_indices = False
    return X


def duplicates(X):
    """Each value as the sum of two entries of the same place."""
    X = sparse.csr_array(X.astype("f8"))
    return sparse.csr_array((np.repeat(X.data / 2, 2), np.repeat(X.indices, 2), 2 * X.indptr), shape=X.shape)


def stored_zeros(X):
    X = X.astype("f8")
    return sparse.csr_array((X.ravel(), np.tile(np.arange(D), N), np.arange(0, N * D + 1, D)), shape=X.shape)


def mixed_index_types(X):
    X = sparse.csr_array(X.astype("f8"))
    X.indptr = X.indptr.astype("i8")
    return X


def read_only(X):
    X = sparse.csr_array(X.astype("f8"))
    for part in (X.data, X.indices, X.indptr):
        part.flags.writeable = False
    return X


def strided_parts(X):
    X = sparse.csr_array(X.astype("f8"))
    parts = (np.repeat(part, 2)[::2] for part in (X.data, X.indices, X.indptr))
    return sparse.csr_array(tuple(parts), shape=X.shape)


def unaligned_parts(X):
    X = sparse.csr_array(X.astype("f8"))
    for name in ("data", "indices", "indptr"):
        setattr(X, name, unaligned(getattr(X, name).dtype)(getattr(X, name), None))
    return X


SPARSE = {
    "array int32": csr(),
    "array int64": csr(index="i8"),
    "matrix int32": csr(sparse.csr_matrix),
    "matrix int64": csr(sparse.csr_matrix, "i8"),
    "float32": csr(dtype="f4"),
    "float32 int64": csr(index="i8", dtype="f4"),
    "uint8": csr(dtype="u1"),
    "bool": lambda X: csr(dtype="?")(X > 7),
    "csc": csr(sparse.csc_array),
    "coo": lambda X: sparse.coo_array(X.astype("f8")),
    "coo with duplicates": lambda X: duplicates(X).tocoo(),
    "bsr": lambda X: sparse.bsr_array(X.astype("f8"), blocksize=(8, 4)),
    "dia": lambda X: sparse.coo_array(X.astype("f8")).asformat("dia"),
    "dok": lambda X: sparse.dok_array(X.astype("f8")),
    "lil": lambda X: sparse.lil_array(X.astype("f8")),
    "unsorted": unsorted,
    "duplicates": duplicates,
    "stored zeros": stored_zeros,
    "mixed index types": mixed_index_types,
    "read-only": read_only,
    "strided": strided_parts,
    "unaligned": unaligned_parts,
}


@pytest.mark.parametrize("momentum", [0, 0.9])
@pytest.mark.parametrize("name", SPARSE)
@pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")
def test_sparse(name, momentum):
    """The textbook step knows no centring, so CSR and dense are one computation."""
    X = SPARSE[name](DIGITS)
    dense = X.toarray().astype("f4" if X.dtype == np.float32 else "f8")
    params = dict(TEXTBOOK, momentum=momentum)
    clf, expected = make(**params).fit(X, LABELS), make(**params).fit(dense, LABELS)
    assert clf.coef_.dtype == expected.coef_.dtype == dense.dtype
    rtol, atol = (1e-10, 1e-13) if dense.dtype == np.float64 else (1e-3, 1e-6)
    assert_allclose(clf.coef_, expected.coef_, rtol=rtol, atol=atol)
    assert_allclose(clf.intercept_, expected.intercept_, rtol=rtol, atol=atol)
    assert_allclose(clf.loss_curve_, expected.loss_curve_, rtol=rtol)
    assert_array_equal(clf.predict(X), expected.predict(dense))
    assert_allclose(clf.decision_function(X), clf.decision_function(dense), rtol=rtol, atol=1e4 * atol)


@pytest.mark.parametrize(
    "represent",
    [
        *(SPARSE[name] for name in ("array int64", "matrix int32", "matrix int64", "mixed index types", "read-only")),
        strided_parts,
        unaligned_parts,
        csr(index="u8"),
        csr(index=">i4"),
    ],
)
def test_forms_of_csr_give_the_same_bits(represent):
    same_model(make().fit(represent(DIGITS), LABELS), make().fit(sparse.csr_array(DIGITS.astype("f8")), LABELS))


def test_csr_with_empty_rows_and_columns():
    X = DIGITS.astype("f8")
    X[::7] = 0
    X[:, 20:30] = 0
    sparse_fit, dense_fit = make(**TEXTBOOK).fit(sparse.csr_array(X), LABELS), make(**TEXTBOOK).fit(X, LABELS)
    assert_allclose(sparse_fit.coef_, dense_fit.coef_, rtol=1e-10, atol=1e-13)
    assert (sparse_fit.coef_[:, 20:30] == 0).all()


# ---- y, and nothing is written to


@pytest.mark.parametrize(
    "represent",
    [
        list,
        lambda y: y.astype(">i8"),
        lambda y: y.astype("u1"),
        lambda y: np.repeat(y, 3)[::3],
        lambda y: y[:, np.newaxis],
    ],
    ids=["list", "big-endian", "uint8", "strided", "column"],
)
@pytest.mark.filterwarnings("ignore:A column-vector y")
def test_y(represent):
    X = DIGITS.astype("f8")
    same_model(make().fit(X, represent(LABELS)), make().fit(X, LABELS))


@pytest.mark.parametrize("container", [np.array, sparse.csr_array])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("lr", ["auto", 1e-3])
def test_no_argument_is_written_to(container, dtype, lr):
    """With the flags off a write raises; with them on, a copy made for a flag's sake cannot hide one."""
    weight = np.linspace(0, 2, N)
    X, y = container(DIGITS.astype(dtype)), LABELS.copy()
    parts = [*([X] if container is np.array else [X.data, X.indices, X.indptr]), y, weight]
    before = [part.copy() for part in parts]
    for writeable in (True, False):
        for part in parts:
            part.flags.writeable = writeable
        clf = make(lr=lr, class_weight="balanced", early_stopping=True).fit(X, y, sample_weight=weight)
        clf.predict_proba(X)
        clf = make(lr=lr).fit(X, y, X_val=X, y_val=y, sample_weight_val=weight)
        clf.set_params(warm_start=True).fit(X, y, weight)
        clf.partial_fit(X, y, sample_weight=weight)
        for part, old in zip(parts, before, strict=True):
            assert_array_equal(part, old)


def test_fitted_arrays_stay_when_the_fit_goes_on():
    """coef_ of one fit is no buffer of the next."""
    X = DIGITS.astype("f8")
    clf = make(warm_start=True).fit(X, LABELS)
    coef, copy = clf.coef_, clf.coef_.copy()
    clf.fit(X, LABELS)
    clf.partial_fit(X, LABELS)
    assert_array_equal(coef, copy)
    assert not np.array_equal(clf.coef_, copy)


# ---- weights


@pytest.mark.parametrize("container", [np.array, sparse.csr_array])
@pytest.mark.parametrize("lr", ["auto", 1e-3])
@pytest.mark.parametrize("l1_ratio", [0.0, 0.5])
def test_whole_weights_are_repetition(container, lr, l1_ratio):
    X, y = DIGITS[:80].astype("f8"), LABELS[:80]
    weight = np.arange(80) % 4
    params = {"lr": lr, "l1_ratio": l1_ratio, "batch_size": 1000, "max_iter": 20}  # one batch: the order cannot matter
    weighted = make(**params).fit(container(X), y, sample_weight=weight)
    repeated = make(**params).fit(container(np.repeat(X, weight, axis=0)), np.repeat(y, weight))
    assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-7, atol=1e-12)
    assert_allclose(weighted.intercept_, repeated.intercept_, rtol=1e-7, atol=1e-12)
    assert_allclose(weighted.loss_curve_, repeated.loss_curve_, rtol=1e-7)
    assert not np.allclose(weighted.coef_, make(**params).fit(container(X), y).coef_, rtol=1e-3)


@pytest.mark.parametrize("container", [np.array, sparse.csr_array])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("params", [{}, TEXTBOOK, {"early_stopping": True}], ids=["auto", "textbook", "early stopping"])
@pytest.mark.parametrize("uneven", [False, True])
def test_rows_of_weight_zero_are_left_out(container, dtype, params, uneven):
    X, y = DIGITS.astype(dtype), LABELS
    weight = np.linspace(1, 3, N) if uneven else np.ones(N)
    weight[::3] = 0
    keep = weight > 0
    zero = make(**params).fit(container(X), y, sample_weight=weight)
    out = make(**params).fit(container(X[keep]), y[keep], sample_weight=weight[keep] if uneven else None)
    same_model(zero, out)


@pytest.mark.parametrize("params", [{}, TEXTBOOK, {"early_stopping": True}], ids=["auto", "textbook", "early stopping"])
def test_scale_of_weights_does_not_matter(params):
    X, weight = DIGITS.astype("f8"), np.linspace(0.5, 2, N)
    one, seven = (make(**params).fit(X, LABELS, sample_weight=s * weight) for s in (1, 7))
    assert_allclose(seven.coef_, one.coef_, rtol=1e-8, atol=1e-12)
    assert_allclose(seven.loss_curve_, one.loss_curve_, rtol=1e-10)
    constant = make(**params).fit(X, LABELS, sample_weight=np.full(N, 7.0))
    assert_allclose(constant.coef_, make(**params).fit(X, LABELS).coef_, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    "represent",
    [list, lambda w: w.astype("f4"), lambda w: np.repeat(w, 2)[::2], lambda w: w.astype(">f8")],
    ids=["list", "float32", "strided", "big-endian"],
)
def test_forms_of_weights(represent):
    X, weight = DIGITS.astype("f8"), (np.arange(N) % 5 + 1) / 4  # exact in float32
    same_model(make().fit(X, LABELS, sample_weight=represent(weight)), make().fit(X, LABELS, sample_weight=weight))


def test_class_weight_dict_is_a_sample_weight():
    X, weight = DIGITS.astype("f8"), np.linspace(1, 2, N)
    of_class = {0: 3.0, 4: 0.5, 9: 0.0}
    each = np.array([of_class.get(label, 1.0) for label in LABELS.tolist()])
    clf = make(class_weight=of_class)
    same_model(clf.fit(X, LABELS), make().fit(X, LABELS, sample_weight=each))
    same_model(clf.fit(X, LABELS, sample_weight=weight), make().fit(X, LABELS, sample_weight=each * weight))
    first = make(class_weight=of_class).partial_fit(X, LABELS, classes=range(10))
    same_model(first, make().partial_fit(X, LABELS, classes=range(10), sample_weight=each))


def test_class_weight_of_string_labels():
    X, names = DIGITS.astype("f8"), np.array([f"digit {label}" for label in LABELS])
    named, numbered = make(class_weight={"digit 3": 5}).fit(X, names), make(class_weight={3: 5}).fit(X, LABELS)
    same_model(named, numbered, but="classes_")


@pytest.mark.parametrize("weight", [None, np.linspace(1, 2, 300)], ids=["plain", "weighted"])
def test_balanced_is_a_dict(weight):
    keep = np.flatnonzero((LABELS != 3) | (np.arange(N) % 3 == 0))[:300]
    X, y = DIGITS[keep].astype("f8"), LABELS[keep]
    of_class = compute_class_weight("balanced", classes=np.arange(10), y=y, sample_weight=weight)
    balanced = make(class_weight="balanced").fit(X, y, sample_weight=weight)
    listed = make(class_weight=dict(enumerate(of_class))).fit(X, y, sample_weight=weight)
    assert_allclose(balanced.coef_, listed.coef_, rtol=1e-9, atol=1e-13)
    assert_allclose(balanced.loss_curve_, listed.loss_curve_, rtol=1e-10)
    assert not np.allclose(balanced.coef_, make().fit(X, y, sample_weight=weight).coef_, rtol=1e-3)


def test_balanced_in_a_stream_counts_all_rows_so_far():
    X, y, params = DIGITS.astype("f8"), LABELS // 4, {"lr": 1e-3, "shuffle": False}
    balanced, by_hand = make(class_weight="balanced", **params), make(**params)
    for rows in (slice(0, 100), slice(100, 400)):
        each = (1 / np.bincount(y[: rows.stop]))[y[rows]]
        balanced.partial_fit(X[rows], y[rows], classes=range(3))
        by_hand.partial_fit(X[rows], y[rows], classes=range(3), sample_weight=each)
    assert_allclose(balanced.coef_, by_hand.coef_, rtol=1e-9, atol=1e-13)
    assert not np.allclose(balanced.coef_, make(**params).partial_fit(X, y, classes=range(3)).coef_, rtol=1e-3)


# ---- partial_fit, warm start


@pytest.mark.parametrize("container", [np.array, sparse.csr_array])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("n_classes", [2, 10])
def test_partial_fit_is_one_epoch_of_a_constant_step(container, dtype, n_classes):
    X, y = container(DIGITS.astype(dtype)), LABELS % n_classes
    streamed = make(lr=1e-3).partial_fit(X, y, classes=range(n_classes))
    same_model(streamed, make(lr=1e-3, max_iter=1, lr_schedule="constant").fit(X, y))
    assert streamed.n_iter_ == 1 and streamed.lr_ == 1e-3


@pytest.mark.parametrize(
    "container, alpha",
    # on CSR the penalty of a feature that rests is taken in one go with its momentum, at the end of each call: with
    # alpha the pieces differ at the order of lr * alpha
    [(np.array, 1e-2), (sparse.csr_array, 0)],
)
def test_partial_fit_in_pieces_is_one_pass(container, alpha):
    """The velocity is carried from call to call."""
    X, params = DIGITS.astype("f8"), {"lr": 1e-3, "alpha": alpha, "shuffle": False, "batch_size": 50}
    whole = make(**params).partial_fit(container(X), LABELS, classes=range(10))
    pieces = make(**params)
    for rows in (slice(0, 100), slice(100, 250), slice(250, 400)):
        pieces.partial_fit(container(X[rows]), LABELS[rows], classes=range(10))
    assert_allclose(pieces.coef_, whole.coef_, rtol=1e-9, atol=1e-13)
    assert_allclose(pieces.intercept_, whole.intercept_, rtol=1e-9, atol=1e-13)


def test_partial_fit_knows_classes_that_did_not_come_yet():
    clf = make().partial_fit(DIGITS[LABELS < 5], LABELS[LABELS < 5], classes=range(10))
    assert clf.coef_.shape == (10, D)
    assert_array_equal(clf.classes_, np.arange(10))
    for _ in range(10):
        clf.partial_fit(DIGITS, LABELS)
    assert clf.n_iter_ == len(clf.loss_curve_) == 11
    assert clf.score(DIGITS, LABELS) > 0.9


@pytest.mark.parametrize("container", [np.array, sparse.csr_array])
def test_warm_start_continues(container):
    X = container(DIGITS.astype("f8"))
    clf = make(warm_start=True).fit(X, LABELS)
    cold = clf.loss_curve_[0]
    assert clf.fit(X, LABELS).loss_curve_[0] < 0.5 * cold
    assert make(warm_start=False).fit(X, LABELS).fit(X, LABELS).loss_curve_[0] == cold


def test_two_warm_epochs_are_two_epochs():
    X = DIGITS.astype("f8")
    params = dict(TEXTBOOK, momentum=0, shuffle=False)
    warm = make(**params, max_iter=1, warm_start=True).fit(X, LABELS).fit(X, LABELS)
    assert_allclose(warm.coef_, make(**params, max_iter=2).fit(X, LABELS).coef_, rtol=1e-12, atol=1e-15)


# ---- two classes


@pytest.mark.parametrize("container", [np.array, sparse.csr_array])
def test_two_classes(container):
    X, y = container(DIGITS.astype("f8")), np.where(LABELS > 4, "high", "low")
    clf = make(max_iter=20).fit(X, y)
    logits, probabilities = clf.decision_function(X), clf.predict_proba(X)
    assert clf.coef_.shape == (1, D) and clf.intercept_.shape == (1,)
    assert logits.shape == (N,) and probabilities.shape == clf.predict_log_proba(X).shape == (N, 2)
    assert_allclose(probabilities[:, 1], 1 / (1 + np.exp(-logits)), rtol=1e-12)  # logits speak for classes_[1]
    assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)
    assert_array_equal(clf.predict(X), clf.classes_[(logits > 0).astype(int)])
    assert clf.score(X, y) > 0.85


def test_many_classes():
    clf = make().fit(DIGITS, LABELS)
    assert clf.coef_.shape == (10, D) and clf.intercept_.shape == (10,)
    logits = clf.decision_function(DIGITS)
    assert logits.shape == (N, 10)
    # float64 probabilities of float32 logits are rounded to float32, so their sums are that exact and no more
    assert_allclose(clf.predict_proba(DIGITS).sum(axis=1), 1, atol=1e-6)
    assert_array_equal(clf.predict(DIGITS), clf.classes_[logits.argmax(axis=1)])


# ---- validation


def noisy():
    """Labels of which a fifth are drawn by lot: a model that fits them all is worse on new ones."""
    rng = np.random.default_rng(0)
    X, y = DIGITS.astype("f8"), LABELS.copy()
    lot = rng.random(N) < 0.2
    y[lot] = rng.integers(0, 10, lot.sum())
    return X[:200], y[:200], X[200:], y[200:]


@pytest.mark.parametrize("container", [np.array, sparse.csr_array])
@pytest.mark.parametrize("weight", [None, np.linspace(0, 3, 200)], ids=["plain", "weighted"])
def test_early_stopping_keeps_the_best_weights(container, weight):
    X, y, X_val, y_val = noisy()
    clf = make(max_iter=200, early_stopping=True, lr_schedule="constant", alpha=0)
    clf.fit(container(X), y, X_val=container(X_val), y_val=y_val, sample_weight_val=weight)
    curve = clf.validation_loss_curve_
    assert clf.n_iter_ < 200
    assert np.argmin(curve) < len(curve) - 1, "the last weights are the best: this data tests nothing"
    loss = log_loss(y_val, clf.predict_proba(container(X_val)), sample_weight=weight)
    assert loss == pytest.approx(min(curve), rel=1e-9)
    score = clf.score(container(X_val), y_val, sample_weight=weight)
    assert score == pytest.approx(clf.validation_scores_[np.argmin(curve)])


def test_early_stopping_splits_off_the_fraction():
    """With nearly all rows held out, the labels of few are learnt."""
    X, y = DIGITS.astype("f8"), LABELS
    few = make(early_stopping=True, validation_fraction=0.9).fit(X, y)
    most = make(early_stopping=True, validation_fraction=0.1).fit(X, y)
    assert few.n_iter_ == len(few.validation_scores_) > 0
    assert most.score(X, y) > few.score(X, y)


@pytest.mark.parametrize("params", [{}, {"early_stopping": True}, {"lr": 1e-3}], ids=["plain", "early stopping", "lr"])
def test_curves_have_one_value_an_epoch(params):
    X, y, X_val, y_val = noisy()
    clf = make(max_iter=7, **params).fit(X, y, X_val=X_val, y_val=y_val)
    assert 1 <= clf.n_iter_ <= 7
    assert clf.n_iter_ == len(clf.loss_curve_) == len(clf.validation_loss_curve_) == len(clf.validation_scores_)
    if not params:  # whole run, and the last value is that of the fitted model
        assert clf.n_iter_ == 7
        assert clf.validation_loss_curve_[-1] == pytest.approx(log_loss(y_val, clf.predict_proba(X_val)), rel=1e-9)
        assert clf.validation_scores_[-1] == pytest.approx(clf.score(X_val, y_val))


def test_watching_does_not_change_the_model():
    X, y, X_val, y_val = noisy()
    watched = make().fit(X, y, X_val=X_val, y_val=y_val)
    plain = make().fit(X, y)
    same_model(watched, plain)
    assert not hasattr(plain, "validation_loss_curve_") and not hasattr(plain, "validation_scores_")
    assert not hasattr(watched.fit(X, y), "validation_loss_curve_")  # curves of another fit do not stay


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("name", ["uint8", "float64", "list", "F-order float32", "unaligned float64", "polars float64"])
def test_validation_data_in_any_form(name, tmp_path):
    X_val = DENSE[name][0](DIGITS, tmp_path)
    clf = make(**TEXTBOOK).fit(DIGITS.astype("f8"), LABELS, X_val=X_val, y_val=LABELS.tolist())
    assert clf.validation_loss_curve_[-1] == pytest.approx(log_loss(LABELS, clf.predict_proba(DIGITS)), rel=1e-5)


# ---- parameters


@pytest.mark.parametrize("container", [np.array, sparse.csr_array])
def test_numbers_of_numpy_are_numbers(container):
    """int8 overflows at 128, and float32 rounds: what a grid of np.arange gives must not."""
    X, params = container(DIGITS.astype("f8")), {"batch_size": 100, "max_iter": 3, "n_jobs": 2, "n_iter_no_change": 2}
    params |= {"momentum": 0.5, "alpha": 0.25, "l1_ratio": 0.5, "validation_fraction": 0.25, "early_stopping": True}
    narrow = {name: np.int8(x) if isinstance(x, int) else np.float16(x) for name, x in params.items()}
    narrow["early_stopping"] = np.bool_(True)
    plain, clf = make(**params).fit(X, LABELS), make(**narrow).fit(X, LABELS)
    same_model(clf, plain)
    assert_array_equal(clf.predict_proba(X), plain.predict_proba(X))
    assert_array_equal(clf.partial_fit(X, LABELS).coef_, plain.partial_fit(X, LABELS).coef_)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "i8", "u8", ">i4"])
@pytest.mark.parametrize("end", ["low", "high"])
def test_integer_labels_at_the_ends_of_their_type(dtype, end):
    limits = np.iinfo(dtype)
    labels = np.array([7, 0, 200], dtype=object)  # further apart than int8 is wide
    labels = limits.min + labels if end == "low" else limits.max - labels
    y = np.tile(labels, 100).astype(dtype)
    X = (y == y.max()).astype(float)[:, np.newaxis]
    clf = SoftmaxRegressionClassifier(random_state=0).fit(X, y)
    assert_array_equal(clf.classes_, np.unique(y))
    assert clf.classes_.dtype == np.unique(y).dtype
    assert (clf.predict(X)[y == y.max()] == y.max()).all()


def test_labels_that_look_like_numbers_to_be_predicted():
    with pytest.warns(UserWarning, match="regression"):
        SoftmaxRegressionClassifier(max_iter=1).fit(np.arange(60.0)[:, np.newaxis], np.arange(60) // 1.5)
    with pytest.warns(UserWarning, match="regression"):
        SoftmaxRegressionClassifier(max_iter=1).fit(np.arange(60.0)[:, np.newaxis], np.arange(60) % 40)
