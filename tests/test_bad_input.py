"""One table of what goes wrong: how it is called, the error, and the words that its message must have."""

import copy
import re
import reprlib
from functools import cache, partial
from typing import ClassVar

import numpy as np
import pandas as pd
import polars as pl
import pytest
from _helpers import fitted_state
from scipy import sparse
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError

from skdl import SoftmaxRegressionClassifier

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    # NumPy's own, from arithmetic on the values that are to be refused
    pytest.mark.filterwarnings("ignore:(invalid value|overflow|divide by zero) encountered"),
]

N, D = 30, 4
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, D)).round(3)
X[X < -0.5] = 0  # some entries for CSR to leave out
Y = np.arange(N) % 3
FITS = ("fit", "partial_fit")
ALL = ("fit", "partial_fit", "predict")

TABLE = []


def row(
    name, *words, error=ValueError, methods=("fit",), before=("nothing", "fit", "partial_fit"), params=(), **arguments
):
    """A line of the table for each method and each state of the estimator before.

    `words` are regular expressions that the message must have, in any order. An argument that is a function is called
    in the test, so that no malformed matrix is made when tests are collected.
    """
    for method in methods:
        for state in before:
            if method != "predict" or state != "nothing":
                case = (method, state, dict(params), arguments, error, words)
                TABLE.append(pytest.param(*case, id=f"{method}-after {state}-{name}"))


# ---- every parameter

NUMBERS = ["one", None, [1], 1j, float("nan"), float("inf"), 10**400]
COUNTS = ["one", None, 2.5, True, 0, -1, 10**400]
FLAGS = ["yes", None, 1, 0.0]
BAD_PARAMETERS = {
    "lr": (["fast", None, [0.1], True, 0, -0.5, float("nan"), float("inf"), 10**400], "auto", "> 0|positive"),
    "batch_size": ([*COUNTS, "auto"], "integer", ">= 1|positive"),
    "max_iter": (COUNTS, "integer", ">= 1|positive"),
    "lr_schedule": (["exponential", None, 1, ["linear"]], "constant", "linear", "cosine"),
    "momentum": ([*NUMBERS, True, -0.1, 1.0], "number", "0", "1"),
    "alpha": ([*NUMBERS, True, -1e-4], "number", ">= 0|negative"),
    "l1_ratio": ([*NUMBERS, True, -0.1, 1.1], "number", "0", "1"),
    "standardize": (FLAGS, "True", "False"),
    "fit_intercept": (FLAGS, "True", "False"),
    "shuffle": (FLAGS, "True", "False"),
    "tol": ([*NUMBERS, True, -1e-4], "number", ">= 0|negative"),
    "n_iter_no_change": (COUNTS, "integer", ">= 1|positive"),
    "early_stopping": (FLAGS, "True", "False"),
    "validation_fraction": ([*NUMBERS, True, 0, 0.0, 1.0, -0.1, 2], "number", "0", "1"),
    "class_weight": (["unbalanced", 2, [1, 2, 3], np.ones(3)], "balanced", "dict"),
    "warm_start": (FLAGS, "True", "False"),
    "half_life": (["long", True, 0, -1.0, float("nan"), float("inf"), [10], 10**400], "None", "number", "> 0|positive"),
    "backend": (["cuda", None, 1], "openmp", "opencl"),
    "device": ([0, ["0:0"]], "None", "string"),
    "n_jobs": (["two", 1.5, True, 0], "integer", "0"),
    "random_state": (["zero", 0.5, [0.5]], "integer|int|RandomState"),
    "verbose": (["loud", None, -1, 0.5], "integer|True", ">= 0|negative|False"),
}

for parameter, (values, *expected) in BAD_PARAMETERS.items():
    for value in values:
        came = re.escape(reprlib.repr(value))
        row(
            f"{parameter}={reprlib.repr(value)}",
            rf"\b{parameter}\b",
            came,
            *expected,
            methods=FITS,
            params={parameter: value},
        )

row(
    "device of the CPU",
    "device",
    "0:0",
    "openmp",
    "opencl",
    methods=FITS,
    params={"backend": "openmp", "device": "0:0"},
)
for name, weights, *words in [
    ("unknown class", {99: 1.0}, "99", r"0\D+1\D+2"),
    ("class of another type", {"0": 1.0}, "'0'", r"0\D+1\D+2"),
    ("negative", {0: -2.0}, "-2", ">= 0"),
    ("nan", {1: np.nan}, "nan", ">= 0"),
    ("inf", {1: np.inf}, "inf", ">= 0"),
    ("string", {1: "heavy"}, "heavy", ">= 0"),
    ("nothing left", {0: 0, 1: 0, 2: 0}, "zero"),
]:
    row(f"class_weight of {name}", "class_weight", *words, methods=FITS, params={"class_weight": weights})

# ---- values of X

NOT_FINITE = {"nan": "NaN", "inf": "infinity", "-inf": "infinity"}


def spoilt(dtype, value, place, container=np.asarray):
    def make():
        bad = X.astype(dtype)
        bad[place] = float(value)
        return container(bad)

    return make


for value, word in NOT_FINITE.items():
    for dtype in ("float16", "float32", "float64", "int64 list"):
        container, dtype = (np.ndarray.tolist, "float64") if "list" in dtype else (np.asarray, dtype)
        for place in ((0, 0), (N - 1, D - 1)):
            make = spoilt(dtype, value, place, container)
            name = f"{value} in {dtype} {container.__name__} X at {place}"
            for lr in ("auto", 0.01):
                row(f"{name} lr={lr}", r"\bX\b", word, methods=FITS, params={"lr": lr}, X=make)
            row(name, r"\bX\b", word, methods=["predict", "predict_proba"], before=["fit"], X=make)
    for dtype in ("float32", "float64"):
        for place in ((0, 0), (N - 1, D - 1)):
            make = spoilt(dtype, value, place, sparse.csr_array)
            name = f"{value} in {dtype} CSR at {place}"
            for lr in ("auto", 0.01):
                row(f"{name} lr={lr}", r"\bX\b", word, methods=FITS, params={"lr": lr}, X=make)
            row(name, r"\bX\b", word, methods=["predict", "predict_proba"], before=["fit"], X=make)
    row(
        f"{value} in a row of weight zero", r"\bX\b", word, methods=FITS, X=spoilt("f8", value, (3, 1)),
        sample_weight=np.where(np.arange(N) == 3, 0, 1),
    )  # fmt: skip
    row(f"{value} in X_val", r"\bX_val\b", word, X_val=spoilt("f4", value, (3, 1)), y_val=Y)
    row(
        f"{value} in a row held out",
        r"\bX\b",
        word,
        params={"early_stopping": True},
        X=spoilt("f8", value, slice(None)),
    )

# ---- form of X and y

row("no rows", "0 sample", methods=ALL, X=np.empty((0, D)), y=[])
row("no rows of CSR", "0 sample", methods=ALL, X=sparse.csr_array((0, D)), y=[])
row("no columns", "0 feature", methods=ALL, X=np.empty((N, 0)))
row("no columns of CSR", "0 feature", methods=ALL, X=sparse.csr_array((N, 0)))
row("1-D", "2D", "1D", methods=ALL, X=X[:, 0])
row("3-D", "dim 3|3", methods=ALL, X=X[:, :, np.newaxis])
row("complex", "[Cc]omplex", methods=ALL, X=X * 1j)
row("sparse 1-D", "2D", rf"\({N},\)", methods=ALL, X=sparse.coo_array(X[:, 0]))
row("sparse 3-D", "2D", rf"\({N}, 2, 2\)", methods=ALL, X=sparse.coo_array(X.reshape(N, 2, 2)))
DATES = (1e9 * X).astype("datetime64[s]")
FRAME = pd.DataFrame(X)
for name, bad, *words in [
    ("text", np.full((N, D), "a"), "<U1"),
    ("numbers as text", X.astype(str), "<U"),
    ("numbers as bytes", X.astype("S"), r"\|S"),
    ("text in objects", X.astype(str).astype(object), "'.*a str"),
    ("a list of text", X.astype(str).tolist(), "<U"),
    ("dates", DATES, "datetime64"),
    ("durations", DATES - DATES[0, 0], "timedelta64"),
    ("a column of dates", FRAME.assign(date=DATES[:, 0]).drop(columns=0), "datetime64"),
    ("a column of durations", FRAME.assign(date=DATES[:, 0] - DATES[0, 0]).drop(columns=0), "timedelta64"),
    ("a column of text", FRAME.assign(text="1.5").drop(columns=0), "str|'1.5'"),
    ("a column of objects", FRAME.assign(text=np.array(["1.5"] * N, dtype=object)).drop(columns=0), "str|'1.5'"),
    ("a column of categories", FRAME.assign(text=pd.Categorical(["1.5"] * N)).drop(columns=0), "'1.5'"),
    (
        "an Arrow column of bytes",
        FRAME.assign(text=pd.Series([b"1"] * N, dtype="binary[pyarrow]")).drop(columns=0),
        "b'1'",
    ),
    ("a polars column of categories", pl.DataFrame(FRAME[[1, 2, 3]].assign(a=pd.Categorical(["1.5"] * N))), "'1.5'"),
    ("a polars column of text", pl.DataFrame({"a": ["1.5"] * N, "b": X[:, 0], "c": X[:, 0], "d": X[:, 0]}), "String"),
]:
    row(name, "X holds", "expected numbers", *words, error=TypeError, methods=ALL, X=bad)
    row(f"{name} in X_val", "X_val: X holds", *words, error=TypeError, X_val=bad, y_val=Y)
for name, y in [
    ("None in y", [None, *Y[1:].tolist()]),
    ("NA in y", pd.array([pd.NA, *Y[1:]], dtype="Int64")),
    ("NA in texts", pd.Series([pd.NA, *Y[1:].astype(str)], dtype="string")),
    ("no date", np.where(Y == 1, np.datetime64("NaT"), DATES[:, 0])),
    ("NaN beside texts", np.array([np.nan, *Y[1:].astype(str)], dtype=object)),
]:
    row(name, r"\by\b", "missing values", methods=FITS, y=y)
    row(f"{name}_val", "y_val", "missing values", X_val=X, y_val=y)
row("numbers and texts in y", r"\by\b", "int64, str", methods=FITS, y=np.array(["1", *Y[1:]], dtype=object))
row("fewer labels than rows", "inconsistent", str(N), str(N - 1), methods=FITS, y=Y[:-1])
row("y is None", r"\by\b", "None", y=None)
row("regression target", "[Cc]ontinuous", methods=FITS, y=np.linspace(0, 1, N))
row("two targets", r"\by\b|target", methods=FITS, y=np.column_stack([Y, Y]))
row("nan in y", r"\by\b", "NaN", methods=FITS, y=np.where(Y == 1, np.nan, Y))
row("one class", "class", methods=["fit"], y=np.zeros(N))
row("one class of strings", "class", "'only'", y=np.full(N, "only"))

# ---- weights


def weight(value, at=5):
    weight = np.ones(N)
    weight[at] = value
    return weight


for value, word in NOT_FINITE.items():
    row(f"{value} weight", "sample_weight", word, methods=FITS, sample_weight=weight(float(value)))
    words = ("sample_weight_val", word)
    row(f"{value} validation weight", *words, X_val=X, y_val=Y, sample_weight_val=weight(float(value)))
row("negative weight", "sample_weight", "negative|>= 0", "-0.5", methods=FITS, sample_weight=weight(-0.5))
row("weights all zero", "weight", "zero", methods=FITS, sample_weight=np.zeros(N))
row("one weight missing", "sample_weight", str(N), str(N - 1), methods=FITS, sample_weight=np.ones(N - 1))
row("2-D weights", "sample_weight", r"\(30, 1\)|1D", methods=FITS, sample_weight=np.ones((N, 1)))
for name, values in ("text", ["heavy"] * N), ("numbers as text", ["1"] * N), ("durations", np.ones(N, "m8[s]")):
    row(f"weights: {name}", "sample_weight holds values of type", error=TypeError, methods=FITS, sample_weight=values)
row(
    "weights and class weights leave nothing", "weight", "zero", methods=FITS,
    params={"class_weight": {0: 0.0}}, sample_weight=(Y == 0).astype(float),
)  # fmt: skip

# ---- validation data

row("X_val alone", "X_val", "y_val", X_val=X)
row("y_val alone", "X_val", "y_val", y_val=Y)
row("sample_weight_val alone", "sample_weight_val", "X_val", "y_val", sample_weight_val=np.ones(N))
row("other classes in y_val", "y_val", "7", X_val=X, y_val=np.where(Y == 2, 7, Y))
row("strings in y_val", "y_val", X_val=X, y_val=Y.astype(str))
row("too few labels in y_val", "X_val", "y_val", str(N), str(N - 1), X_val=X, y_val=Y[:-1])
row("other features in X_val", "X_val", str(D), str(D - 1), X_val=X[:, 1:], y_val=Y)


class Undecodable:
    """Its ValueError is one that cannot be made from a text alone."""

    def __array__(self, dtype=None, copy=None):
        return b"\xff".decode()


row("X_val that cannot be read", "X_val: ", "decode", X_val=Undecodable(), y_val=Y)
row("X_val empty", "X_val", "0 sample", X_val=np.empty((0, D)), y_val=np.empty(0, int))
row("negative validation weight", "sample_weight_val", "-1", X_val=X, y_val=Y, sample_weight_val=weight(-1))
row(
    "one validation weight missing", "sample_weight_val", str(N - 1), X_val=X, y_val=Y, sample_weight_val=np.ones(N - 1)
)

# ---- what does not go with what came before

row("predict before fit", "not fitted", error=NotFittedError, methods=["predict_proba"], before=["nothing"])
FITTED = ("fit", "partial_fit")
row("fewer features", str(D - 1), str(D), "features", methods=["partial_fit", "predict"], before=FITTED, X=X[:, 1:])
row(
    "more features",
    str(D + 1),
    str(D),
    "features",
    methods=["partial_fit", "predict"],
    before=FITTED,
    X=np.c_[X, X[:, 0]],
)
row("fewer CSR features", str(D - 1), "features", methods=["predict"], before=FITTED, X=sparse.csr_array(X[:, 1:]))
row("classes not given", "classes", "first", methods=["partial_fit"], before=["nothing"], classes=None)
row("one class given", "class", methods=["partial_fit"], before=["nothing"], classes=[1])
row("class not among classes", r"\b7\b", "class", methods=["partial_fit"], y=np.where(Y == 2, 7, Y))
row(
    "class not known", r"\b7\b", "class", methods=["partial_fit"], before=FITTED, y=np.where(Y == 2, 7, Y), classes=None
)
row("labels of another type", "class", methods=["partial_fit"], before=FITTED, y=Y.astype(str), classes=None)
row("classes changed", "classes", r"0\D+1\D+3", r"0\D+1\D+2", methods=["partial_fit"], before=FITTED, classes=[0, 1, 3])
WARM = {"warm_start": True}
row("warm start, other classes", "warm_start", "class", before=FITTED, params=WARM, y=np.where(Y == 2, 7, Y))
row("warm start, fewer classes", "warm_start", "class", before=FITTED, params=WARM, y=np.where(Y == 2, 1, Y))
row("warm start, fewer features", "warm_start", "features", str(D - 1), before=FITTED, params=WARM, X=X[:, 1:])

# ---- malformed CSR: what scipy does not check, and a kernel would follow out of bounds


def broken(**parts):
    """CSR of X with parts replaced by what functions of the old part give."""

    def make(**options):
        bad = sparse.csr_array(X)
        for part, change in parts.items():
            setattr(bad, part, change(getattr(bad, part)))
        return bad

    return make


def put(*at_value):
    def change(part):
        part = part.copy()
        for at, value in at_value:
            part[at] = value
        return part

    return change


def wide(change):
    return lambda part: change(part.astype(np.int64))


STRUCTURE = "CSR|indptr|indices|index"
MALFORMED = {
    "indptr decreases": broken(indptr=lambda p: np.r_[p[:5], p[4] - 2, p[6:]]),
    "indptr decreases at the end": broken(indptr=put((-1, 3))),
    "indptr negative": broken(indptr=put((5, -4))),
    "indptr begins late": broken(indptr=put((0, 2))),
    "indptr begins negative": broken(indptr=put((0, -100))),
    "indptr past the data": broken(indptr=put((-1, 10**6))),
    "indptr past the data in the middle": broken(indptr=put((10, 10**6))),
    "indptr too long": broken(indptr=lambda p: np.r_[p, p[-1], p[-1] + 50]),
    "indptr one too long": broken(indptr=lambda p: np.r_[p, p[-1]]),
    "indptr one too short": broken(indptr=lambda p: p[:-1]),
    "indptr too short": broken(indptr=lambda p: p[:-2]),
    "indptr empty": broken(indptr=lambda p: p[:0]),
    "indices too large": broken(indices=put((7, D))),
    "indices far too large": broken(indices=put((7, 2**30))),
    "indices too large at the end": broken(indices=put((-1, D))),
    "indices negative": broken(indices=put((7, -1))),
    "indices far negative": broken(indices=put((0, -(2**30)))),
    "indices short": broken(indices=lambda i: i[:-3]),
    "data short": broken(data=lambda d: d[:-3]),
    "data empty": broken(data=lambda d: d[:0]),
    "indices and data short": broken(indices=lambda i: i[:-3], data=lambda d: d[:-3]),
    "int64 indices too large": broken(indices=wide(put((7, 2**40))), indptr=wide(put())),
    "int64 indices negative": broken(indices=wide(put((7, -(2**40)))), indptr=wide(put())),
    "int64 index that int32 would wrap into range": broken(indices=wide(put((7, 2**32))), indptr=wide(put())),
    "int64 indptr past the data": broken(indices=wide(put()), indptr=wide(put((-1, 2**40)))),
    "only indptr int64, past the data": broken(indptr=wide(put((-1, 2**40)))),
    "only indices int64, too large": broken(indices=wide(put((7, 2**40)))),
    "float32, indices too large": broken(data=lambda d: d.astype("f4"), indices=put((7, D))),
    "whole numbers, indices too large": broken(data=lambda d: d.astype("u1"), indices=put((7, 2**30))),
    "whole numbers in floats": broken(indices=lambda i: i.astype("f8"), indptr=lambda p: p.astype("f8")),
}


def broken_as(format_, **parts):
    """The same in another format: scipy's conversion to CSR follows these out of bounds."""

    def make():
        bad = sparse.coo_array(X).asformat(format_)
        for part, change in parts.items():
            setattr(bad, part, change(getattr(bad, part)))
        return bad

    return make


def longer_data(rows):
    rows = rows.copy()
    rows[3] = [*rows[3], *[1.0] * 10_000]
    return rows


MALFORMED |= {
    "CSR data of two dimensions": broken(data=lambda d: d[:, np.newaxis]),
    "CSR data a list": broken(data=lambda d: d.tolist()),
    "CSC index too large": broken_as("csc", indices=put((3, 10**8))),
    "CSC index negative": broken_as("csc", indices=put((3, -(10**8)))),
    "CSC indptr past the data": broken_as("csc", indptr=put((2, 10**8))),
    "CSC data short": broken_as("csc", data=lambda d: d[:2]),
    "CSC indices int64, indptr int32": broken_as("csc", indices=wide(put((3, 2**40)))),
    "BSR indptr past the data": broken_as("bsr", indptr=put((2, 10**8))),
    "BSR indptr negative": broken_as("bsr", indptr=put((2, -(10**8)))),
    "BSR data short": broken_as("bsr", data=lambda d: d[:2]),
    "BSR blocks too large": broken_as("bsr", data=lambda d: np.zeros((len(d), 7, 3))),
    "BSR blocks empty": broken_as("bsr", data=lambda d: np.zeros((len(d), 0, 1))),
    "COO row too large": broken_as("coo", coords=lambda c: (put((3, 10**8))(c[0]), c[1])),
    "COO row negative": broken_as("coo", coords=lambda c: (put((3, -(10**8)))(c[0]), c[1])),
    "COO row not whole": broken_as("coo", coords=lambda c: (1e7 * c[0], c[1])),
    "COO column too large": broken_as("coo", coords=lambda c: (c[0], put((3, D))(c[1]))),
    "LIL data longer than rows": broken_as("lil", data=longer_data),
    "LIL rows and data short": broken_as("lil", rows=lambda r: r[:3], data=lambda d: d[:3]),
    "LIL rows of no list": broken_as("lil", rows=put((3, None))),
    "LIL column beyond int64": broken_as("lil", rows=lambda r: np.array([[2**70] * len(x) for x in r], dtype=object)),
    "DIA offsets missing": broken_as("dia", offsets=lambda o: o[:1]),
    "DIA data of one dimension": broken_as("dia", data=lambda d: d[0]),
}
STRUCTURE += "|valid (CSC|BSR|COO|LIL|DIA)"
for name, make in MALFORMED.items():
    for lr in ("auto", 0.01):
        row(f"{name} lr={lr}", STRUCTURE, methods=FITS, params={"lr": lr}, X=make)
    row(name, STRUCTURE, methods=["predict", "predict_proba"], before=FITTED, X=make)
    row(f"{name} in X_val", STRUCTURE, X_val=make, y_val=Y)

# ---- arrays that lie elsewhere


class OnDevice:
    """What torch's arrays on a GPU have: a device, and words of their own for NumPy."""

    device = "cuda:0"

    def __init__(self, values):
        self.shape, self.dtype, self.ndim, self.values = values.shape, values.dtype, values.ndim, values

    def __len__(self):
        return len(self.values)

    def __array__(self, dtype=None, copy=None):
        raise TypeError("can't convert cuda:0 device type tensor to numpy.")


class Numba:
    """What has no device to tell of."""

    __cuda_array_interface__: ClassVar = {}

    def __init__(self, values):
        pass


class Torch(OnDevice):
    def cpu(self):
        raise AssertionError("nobody has asked for a copy")


class CuPy(OnDevice):
    device, __cuda_array_interface__ = type("Device", (), {"__str__": lambda self: "<CUDA Device 0>"})(), {}

    def get(self):
        raise AssertionError("nobody has asked for a copy")


class Silent(OnDevice):
    """As JAX's: NumPy would be given a copy."""

    def __array__(self, dtype=None, copy=None):
        return self.values


def meta(values):
    return pytest.importorskip("torch").as_tensor(values).to("meta")


for kind, device, copy_by in [
    (Torch, "cuda:0", r"{}\.cpu\(\)"),
    (CuPy, "<CUDA Device 0>", r"{}\.get\(\)"),
    (Numba, "a GPU", "a copy"),
    (Silent, "cuda:0", "a copy"),
    (meta, "meta", r"{}\.cpu\(\)"),
]:
    for argument, values, methods in [
        ("X", X, ALL),
        ("y", Y, FITS),
        ("sample_weight", np.ones(N), FITS),
        ("classes", np.arange(3), ["partial_fit"]),
        ("X_val", X, ["fit"]),
        ("y_val", Y, ["fit"]),
        ("sample_weight_val", np.ones(N), ["fit"]),
    ]:
        others = {"X_val": X, "y_val": Y} if argument.endswith("_val") else {}
        name = "X" if argument == "X_val" else argument  # which the message has before it
        words = argument, f"is on {device}, but", f"pass {copy_by.format(name)}", "backend='opencl'"
        arguments = {**others, argument: partial(kind, values)}
        row(
            f"{kind.__name__} as {argument}",
            *words,
            error=TypeError,
            methods=methods,
            before=["nothing", "fit"],
            **arguments,
        )

# ---- divergence

DIGITS, LABELS = load_digits(return_X_y=True)
DIGITS, LABELS = DIGITS[LABELS < 3][:200].astype("u1"), LABELS[LABELS < 3][:200]
for name, lr, wild in [
    ("float32", 1e37, lambda: DIGITS.astype("f4")),
    ("CSR float32", 1e37, lambda: sparse.csr_array(DIGITS.astype("f4"))),
    ("uint8", 1e37, lambda: DIGITS),
    ("float64", 1e307, lambda: DIGITS.astype("f8")),
    ("CSR float64", 1e307, lambda: sparse.csr_array(DIGITS.astype("f8"))),
    ("float32, lr beyond its range", 1e39, lambda: DIGITS.astype("f4")),
    # no number overflows here, but a loss of 1e30 and accuracy of chance are no model either
    ("float32 without overflow", 1e30, lambda: DIGITS.astype("f4")),
]:
    words, arguments = (r"[Dd]iverged", r"epoch \d", re.escape(f"lr={lr:g}")), {"X": wild, "y": LABELS}
    params = {
        "lr": lr,
        "alpha": 0 if "without" not in name else 1e-4,
    }  # such steps times alpha would hold the weights down
    row(f"divergence in {name}", *words, params=params, **arguments)
    row(f"divergence in {name}", *words, methods=["partial_fit"], before=["nothing"], params=params, **arguments)
words = (r"[Dd]iverged", r"epoch \d", re.escape("lr=1e+38"))
row(
    "divergence of a fitted model",
    *words,
    methods=["partial_fit"],
    before=FITTED,
    params={"lr": 1e38, "alpha": 0},
    X=1e4 * X.astype("f4"),
)
row(
    "divergence of a warm start", *words, before=FITTED, params={"lr": 1e38, "alpha": 0, **WARM}, X=1e4 * X.astype("f4")
)


# ---- the tests


@cache
def trained(state, backend):
    clf = SoftmaxRegressionClassifier(max_iter=4, batch_size=8, random_state=0, backend=backend)
    if state != "nothing":
        clf.partial_fit(X, Y, classes=[0, 1, 2])
    if state == "fit":
        clf.fit(X, Y, X_val=X, y_val=Y)
    return clf


def estimator(state):
    """One of its own for each test."""
    return copy.deepcopy(trained(state, SoftmaxRegressionClassifier().backend))


# The checks come before the backend: over OpenCL one prior state is enough.
CASES = [pytest.param("openmp", *case.values, id=f"openmp-{case.id}") for case in TABLE]
CASES += [pytest.param("opencl", *case.values, id=f"opencl-{case.id}") for case in TABLE if case.values[1] == "fit"]


@pytest.mark.parametrize("backend, method, state, params, arguments, error, words", CASES, indirect=["backend"])
def test_bad_input(backend, method, state, params, arguments, error, words):
    clf = estimator(state)
    before = fitted_state(clf)
    clf.set_params(**params)
    arguments = {name: value() if callable(value) else value for name, value in arguments.items()}
    if method == "partial_fit":
        arguments = {"classes": [0, 1, 2], **arguments}
    arguments = {"X": X, "y": Y, **arguments} if method in FITS else {"X": arguments.get("X", X)}
    message = "(?s)" + "".join(f"(?=.*(?:{word}))" for word in words)
    with pytest.raises(error, match=message):
        getattr(clf, method)(**arguments)
    assert fitted_state(clf) == before


def test_the_table_has_every_parameter():
    assert set(BAD_PARAMETERS) == set(SoftmaxRegressionClassifier().get_params())


@pytest.mark.parametrize(
    "bad", [{"X": spoilt("f8", "nan", (3, 1))()}, {"sample_weight": np.zeros(N)}, {"X": X * 1e200}]
)
def test_a_stream_goes_on_after_an_error(bad):
    """Nothing of the batch that was refused stays, in what does not show either."""
    clf, undisturbed = estimator("partial_fit"), estimator("partial_fit")
    lr = {"lr": 1e200} if bad.get("X", X).max() > 1e100 else {}
    for method in FITS:
        with pytest.raises(ValueError):
            getattr(clf.set_params(**lr), method)(**{"X": X, "y": Y, **bad})
    for each in (clf.set_params(lr="auto"), undisturbed):
        each.partial_fit(X[::-1], Y[::-1])
    assert fitted_state(clf) == fitted_state(undisturbed)


def test_a_fit_works_after_an_error():
    clf, undisturbed = estimator("nothing"), estimator("nothing")
    with pytest.raises(ValueError):
        clf.fit(X[:, :2], Y, sample_weight=np.zeros(N))
    assert fitted_state(clf.fit(X, Y)) == fitted_state(undisturbed.fit(X, Y))


def test_names_that_differ():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X, columns=list("abcd"))
    clf = estimator("nothing").fit(frame, Y)
    before = fitted_state(clf)
    for columns in ("abce", "bacd"):
        other = frame.set_axis(list(columns), axis=1)
        for call in (clf.predict, clf.predict_proba, lambda other: clf.partial_fit(other, Y)):
            with pytest.raises(ValueError, match="feature names"):
                call(other)
    with pytest.raises(ValueError, match="NaN"):
        clf.fit(spoilt("f8", "nan", (0, 0))(), Y)  # an array has no names: those of the frame must come back
    assert fitted_state(clf) == before and "feature_names_in_" in before
