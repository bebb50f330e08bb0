"""What X may be: the form it comes in does not matter, nor does that of a parameter, and nothing is written to."""

import re
from functools import partial

import _helpers
import numpy as np
import pandas as pd
import pytest
from _helpers import DIGITS, LABELS, TEXTBOOK, same_model
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.metrics import log_loss
from sklearn.utils import check_array

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
class Tensor:
    """What torch's offer: a type of their own, and NumPy's arrays where those can be had."""

    def __init__(self, values, dtype="torch.float32", error=None):
        self.values, self.dtype, self.shape, self.error = values, dtype, values.shape, error

    def __len__(self):
        return len(self.values)

    def __array__(self, dtype=None, copy=None):
        if self.error is not None:
            raise self.error
        return self.values if dtype is None else self.values.astype(dtype)


def tensor(dtype):
    return lambda X, _: Tensor(X.astype(dtype))


DENSE = {
    "float64": (as_type("f8"), "f8"),
    "float32": (as_type("f4"), "f4"),
    "float16": (as_type("f2"), "f4"),
    "uint8": (as_type("u1"), "f4"),
    "int8": (as_type("i1"), "f4"),
    "int64": (as_type("i8"), "f8"),
    "object": (as_type(object), "f8"),
    "list": (lambda X, _: X.tolist(), "f8"),
    "tensor of float32": (tensor("f4"), "f4"),
    "tensor of float16": (tensor("f2"), "f4"),
    "tensor of uint8": (tensor("u1"), "f4"),
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


@pytest.mark.parametrize(
    "error",
    [
        TypeError("Got unsupported ScalarType BFloat16"),
        RuntimeError("Can't call numpy() on Tensor that requires grad."),
    ],
)
def test_tensors_that_numpy_cannot_read(error):
    """Torch's own words, and whose they are."""
    bad, clf = Tensor(DIGITS, error=error), make().fit(DIGITS, LABELS)
    for call in (
        lambda: clf.fit(bad, LABELS),
        lambda: clf.partial_fit(bad, LABELS),
        lambda: clf.predict(bad),
        lambda: clf.fit(DIGITS, LABELS, X_val=bad, y_val=LABELS),
    ):
        with pytest.raises(TypeError, match=re.escape(f"X, of type Tensor, is not readable as a NumPy array: {error}")):
            call()


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


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("name", ["uint8", "float64", "list", "F-order float32", "unaligned float64", "polars float64"])
def test_validation_data_in_any_form(name, tmp_path):
    X_val = DENSE[name][0](DIGITS, tmp_path)
    clf = make(**TEXTBOOK).fit(DIGITS.astype("f8"), LABELS, X_val=X_val, y_val=LABELS.tolist())
    assert clf.validation_loss_curve_[-1] == pytest.approx(log_loss(LABELS, clf.predict_proba(DIGITS)), rel=1e-5)


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


def stored_beyond(X):
    """NaN and a wrong index behind what indptr names."""
    X = sparse.csr_array(X.astype("f8"))
    X.data, X.indices = np.r_[X.data, np.nan], np.r_[X.indices, -1].astype(X.indices.dtype)
    return X


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
        duplicates,
        unsorted,
        stored_beyond,
    ],
)
def test_forms_of_csr_give_the_same_bits(represent):
    same_model(make().fit(represent(DIGITS), LABELS), make().fit(sparse.csr_array(DIGITS.astype("f8")), LABELS))


@pytest.mark.parametrize("params", [{}, {**TEXTBOOK, "alpha": 1e-3}], ids=["auto", "numbers"])
def test_what_csr_stores_beyond_its_rows_is_no_part_of_it(params):
    """In no call: some looked for NaN there, and some did not."""
    X, longer = sparse.csr_array(DIGITS.astype("f8")), stored_beyond(DIGITS)
    clf = make(**params).fit(longer, LABELS, X_val=longer, y_val=LABELS)
    expected = make(**params).fit(X, LABELS, X_val=X, y_val=LABELS)
    same_model(clf, expected)
    assert clf.validation_loss_curve_ == expected.validation_loss_curve_
    assert_array_equal(clf.predict_proba(longer), expected.predict_proba(X))
    same_model(clf.partial_fit(longer, LABELS), expected.partial_fit(X, LABELS))


def test_sparse_columns_of_pandas():
    """As get_dummies makes them, of bool."""
    bits = (DIGITS > 7).astype("?")
    frame = pd.DataFrame(bits).astype(pd.SparseDtype(bool, False))
    frame.columns = [f"pixel{j}" for j in range(frame.shape[1])]
    container = sparse.csr_array
    if not sparse.issparse(check_array(frame, accept_sparse="csr")):  # older scikit-learn makes them dense
        container = np.asarray
    clf = make().fit(frame, LABELS)
    same_model(clf, make().fit(container(bits.astype("f8")), LABELS))
    assert_array_equal(clf.predict(frame), make().fit(container(bits), LABELS).predict(container(bits)))


@pytest.mark.parametrize("dtype", ["f2", "f4", "u1"])
def test_lists_of_rows_keep_their_type(dtype):
    rows = list(DIGITS.astype(dtype))
    same_model(make().fit(rows, LABELS), make().fit(DIGITS.astype(dtype), LABELS))


def test_csr_with_empty_rows_and_columns():
    X = DIGITS.astype("f8")
    X[::7] = 0
    X[:, 20:30] = 0
    sparse_fit, dense_fit = make(**TEXTBOOK).fit(sparse.csr_array(X), LABELS), make(**TEXTBOOK).fit(X, LABELS)
    assert_allclose(sparse_fit.coef_, dense_fit.coef_, rtol=1e-10, atol=1e-13)
    assert (sparse_fit.coef_[:, 20:30] == 0).all()


# ---- nothing is written to


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
