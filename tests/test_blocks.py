"""Blocks: larger than memory, and otherwise like arrays."""

import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from itertools import islice

import dask.array
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from _helpers import TEXTBOOK, Callback, fitted_state, make, needs_callbacks, objective, same_model
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.datasets import load_digits
from sklearn.utils import check_random_state

import skdl._blocks
import skdl._checkpoint
import skdl._data
import skdl._out_of_core
import skdl._reader
from skdl import Blocks, SoftmaxRegressionClassifier, SoftmaxRegressionClassifierCV
from skdl._backends import get_backend
from skdl._data import Block, InMemory, less_mean
from skdl._parameters import check

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_digits(return_X_y=True)
X, Y = X.astype(np.float32), Y  # 1797 rows of 256 bytes
ROWS = 5  # of a block
ARRAYS = {"dense": X, "bytes": X.astype(np.uint8), "float64": X.astype(float), "csr": sparse.csr_array(X)}
WEIGHT = np.random.default_rng(0).uniform(0.5, 2, len(Y))


@pytest.fixture
def small_buffer(monkeypatch):
    """Room for a fifth of the rows of X, so that they are too many."""
    monkeypatch.setattr(skdl._out_of_core, "BUFFER_BYTES", -(-X.nbytes // 5))
    monkeypatch.setattr(skdl._out_of_core, "PIECE_BYTES", 20_000)
    monkeypatch.setattr(skdl._out_of_core, "ENOUGH_BLOCKS", 10)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("skdl")] == []


def blocks_of(X, y=Y, weight=None, rows=ROWS):
    return Blocks.from_arrays(X, y, weight, rows)


# ---- fits


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_blocks_that_fit_into_memory_are_arrays(name, weight, backend):
    model = make(backend=backend).fit(blocks_of(ARRAYS[name], Y, weight))
    same_model(model, make(backend=backend).fit(ARRAYS[name], Y, weight))


def test_any_sequence_is_blocks():
    parts = [(X[i : i + 300].tolist(), list(map(str, Y[i : i + 300]))) for i in range(0, 1797, 300)]
    same_model(make().fit(Blocks(parts)), make().fit(X.astype(float), Y.astype(str)))


@pytest.mark.filterwarnings("ignore:A buffer of")
def test_feature_names_of_data_frames(small_buffer, monkeypatch):
    names = [f"pixel {j}" for j in range(64)]
    frames = [(pd.DataFrame(X[i : i + 40], columns=names), Y[i : i + 40]) for i in range(0, 1797, 40)]
    for n_bytes in (skdl._out_of_core.BUFFER_BYTES, 2**28):  # blocks that have no room, and that have
        monkeypatch.setattr(skdl._out_of_core, "BUFFER_BYTES", n_bytes)
        model = make().fit(X[:, :9], Y).fit(Blocks(frames))
        assert_array_equal(model.feature_names_in_, names)
        assert model.score(Blocks(frames)) > 0.9
        assert not hasattr(model.fit(blocks_of(X)), "feature_names_in_")


class Made:
    """Three blocks that are made on the way, whatever the number."""

    def __len__(self):
        return 3

    def __getitem__(self, i):
        return X[i : i + 5], Y[i : i + 5]


def test_a_loop_over_blocks_ends():
    blocks = Blocks(Made())
    assert len(list(islice(blocks, 100))) == 3
    assert_array_equal(blocks[-1][0], X[2:7])
    with pytest.raises(TypeError, match="slice"):
        blocks[:2]


def orders(options_seed, n_blocks, n_groups, n_epochs):
    """What the documentation says of the order: blocks in random order, and the rows of a buffer in random order."""
    seed = int(np.random.default_rng([check_random_state(options_seed).randint(2**31 - 1), 0]).integers(2**63))
    for epoch in range(n_epochs):
        groups = np.array_split(np.random.default_rng([seed, epoch]).permutation(n_blocks), n_groups)
        for g, group in enumerate(groups):
            rows = np.concatenate([np.arange(ROWS * i, ROWS * (i + 1)) for i in group])
            order = np.arange(len(rows))
            np.random.default_rng([seed, epoch, g + 1]).shuffle(order)
            yield epoch, rows[order]


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_an_epoch_of_blocks_is_one_of_the_kernel_in_their_order(name, weight, small_buffer, backend):
    """To the bit."""
    n = 1750  # five or so buffers of whole minibatches
    A, y, w = ARRAYS[name][:n], Y[:n].astype(np.int32), None if weight is None else weight[:n]
    model = make(**{**TEXTBOOK, "batch_size": 10, "backend": backend, "tol": 0, "lr_schedule": "linear", "max_iter": 2})
    model.set_params(n_jobs=1).fit(blocks_of(A, y, w))
    value_bytes = A.dtype.itemsize + 4 * (name == "csr")
    n_bytes = (A.nnz if name == "csr" else A.size) * value_bytes
    n_groups = -(-n_bytes // skdl._out_of_core.BUFFER_BYTES)
    assert n_groups > 1
    source = InMemory(A, y)
    training = get_backend(backend)(source, 10).start(
        None, None, mean=None, scale=None, l1=None, l2=None, momentum=np.array([0.9]), fit_intercept=True, batch_size=10
    )
    weights = None if w is None else w / (w.sum() / n)
    done = 0
    for epoch, rows in orders(0, n // ROWS, n_groups, 2):
        at = done - epoch * n
        sizes = 1e-3 * (1 - (epoch + np.arange(at // 10, -(-(at + len(rows)) // 10)) / (n // 10)) / 2)
        sizes = sizes[: -(-len(rows) // 10)]
        if len(rows) % 10:
            sizes[-1] *= len(rows) % 10 / 10
        training.run(Block(A, y, weights), rows[np.newaxis], sizes[np.newaxis, np.newaxis])
        done += len(rows)
    [coef], [intercept] = training.parameters()
    assert_array_equal(model.coef_, coef)
    assert_array_equal(model.intercept_, intercept)


PARAMS = {
    "defaults": {},
    "balanced": {"class_weight": "balanced"},
    "dict": {"class_weight": {0: 3.0, 1: 0.5}},
    "raw": {"standardize": False},
    "no intercept": {"fit_intercept": False},
    "numeric": {"lr": 1e-3, "alpha": 1e-3},
}


@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS)
@pytest.mark.parametrize("name", ["dense", "csr"])
@pytest.mark.parametrize("weight", [None, WEIGHT * (np.arange(len(Y)) % 7 > 0)])
def test_the_objective_of_arrays(name, weight, params, small_buffer):
    """Blocks find what arrays do, by another path: of rows sorted by class."""
    s = np.argsort(Y, kind="stable")
    A, y, w = ARRAYS[name][s], Y[s], None if weight is None else weight[s]
    params = {"max_iter": 60, "random_state": 0, **params}
    blocks = SoftmaxRegressionClassifier(**params).fit(blocks_of(A, y, w, rows=25))
    arrays = SoftmaxRegressionClassifier(**params).fit(A, y, w)
    assert_allclose(blocks.scale_, arrays.scale_, rtol=1e-5)
    of_class = {"balanced": 1797 / np.bincount(y, w), "dict": np.r_[3.0, 0.5, np.ones(8)]}.get(
        name_of(params), np.ones(10)
    )
    weight = of_class[y] if w is None else of_class[y] * w
    of_blocks, of_arrays = (objective(model, A, y, arrays.alpha_, weight=weight) for model in (blocks, arrays))
    assert of_blocks < 1.05 * of_arrays + 0.01


def test_zeros(small_buffer):
    """Those of the optimum, as the fit of an array finds them."""
    params = {"l1_ratio": 1.0, "alpha": 1e-3, "max_iter": 100}
    blocks, arrays = make(**params).fit(blocks_of(X)), make(**params).fit(X, Y)
    assert abs((blocks.coef_ == 0).mean() - (arrays.coef_ == 0).mean()) < 0.03
    assert objective(blocks, X, Y, 1e-3, 1.0) < 1.005 * objective(arrays, X, Y, 1e-3, 1.0)


def name_of(params):
    """That of class weights among PARAMS."""
    given = params.get("class_weight")
    return given if isinstance(given, str) else "dict" if given else None


@pytest.mark.filterwarnings("ignore:A buffer of")
def test_few_rows_of_positive_weight(small_buffer):
    """So few that epochs of arrays in memory run together, and none at all in some buffers."""
    weight = (np.arange(1797) < 400) * 1.0
    for rows in (ROWS, 300):
        model = make(max_iter=4, alpha=1e-3).fit(blocks_of(X, Y % 2, weight, rows=rows))
        expected = make(max_iter=4, alpha=1e-3).fit(X[:400], Y[:400] % 2)
        assert model.n_iter_ == 4
        of_blocks, of_array = (objective(each, X[:400], Y[:400] % 2, 1e-3) for each in (model, expected))
        assert of_blocks < 1.1 * of_array


def test_a_class_without_weight(small_buffer):
    """Its rows are none."""
    model = make(class_weight={0: 0.0}).fit(blocks_of(X, Y, WEIGHT))
    expected = make(class_weight={0: 0.0}).fit(X, Y, WEIGHT)
    assert model._stream["n_rows"] == expected._stream["n_rows"] == np.count_nonzero(Y)
    assert model._stream["total_weight"] == pytest.approx(expected._stream["total_weight"])


def test_the_order_follows_from_sizes(small_buffer, monkeypatch, tmp_path):
    """A memmap is fitted as an array in memory is, and both as blocks are where they are large."""
    monkeypatch.setattr(skdl._blocks, "LARGE_BYTES", X.nbytes - 1)
    monkeypatch.setattr(skdl._blocks, "BLOCK_BYTES", 256 * ROWS)
    np.save(tmp_path / "X.npy", X)
    in_memory = make().fit(X, Y, WEIGHT)
    same_model(in_memory, make().fit(np.load(tmp_path / "X.npy", mmap_mode="r"), Y, WEIGHT))
    same_model(in_memory, make().fit(blocks_of(X, Y, WEIGHT)))
    same_model(in_memory, make(n_jobs=2).fit(X, Y, WEIGHT))
    same_model(make().fit(X, Y, np.full(len(Y), 2.0)), make().fit(X, Y, 2.0))
    assert (make().fit(X[1:], Y[1:]).coef_ != make().fit(blocks_of(X[1:], Y[1:])).coef_).any()


def test_seeds(small_buffer):
    same_model(make().fit(blocks_of(X)), make().fit(blocks_of(X)))
    assert (make().fit(blocks_of(X)).coef_ != make(random_state=1).fit(blocks_of(X)).coef_).any()
    in_order = [make(shuffle=False, random_state=seed).fit(blocks_of(X)) for seed in (0, 1)]
    same_model(*in_order)


def test_a_validation_set(small_buffer):
    own = make(early_stopping=True, max_iter=8).fit(blocks_of(X[300:], Y[300:]), X_val=X[:300], y_val=Y[:300])
    assert own.validation_scores_[-1] == pytest.approx(own.score(X[:300], Y[:300]), abs=0.02)
    held_out = make(early_stopping=True, max_iter=8).fit(blocks_of(X))
    assert len(held_out.validation_scores_) == held_out.n_iter_
    assert held_out.validation_scores_[-1] > 0.85
    # Rows held out are rows not trained on.
    n_train = 1797 - sum(min(ROWS, 1797 - ROWS * i) for i in check_random_state(0).permutation(360)[:36])
    assert held_out._stream["n_rows"] == n_train


def test_warm_start(small_buffer):
    model = make(warm_start=True).fit(blocks_of(X))
    first = model.loss_curve_[0]
    assert model.fit(blocks_of(X)).loss_curve_[0] < first / 2
    with pytest.raises(ValueError, match="warm_start"):
        model.fit(blocks_of(X[:, :60]))


def test_a_stream_goes_on_from_blocks(small_buffer):
    model = make(max_iter=20).fit(blocks_of(X))
    assert model.partial_fit(X[:100], Y[:100]).score(X, Y) > 0.9


@needs_callbacks
def test_callbacks_are_told_of_blocks(small_buffer):
    class Watch(Callback):
        tasks = []  # noqa: RUF012

        def on_fit_task_end(self, estimator, context):
            self.tasks.append(context.task_name)

    make(max_iter=2).set_callbacks(Watch()).fit(blocks_of(X))
    n = Watch.tasks.index("epoch")
    assert n == 5
    assert Watch.tasks == (["blocks"] * n + ["epoch"]) * 2 + ["fit"]


@pytest.mark.filterwarnings("ignore:A buffer of")
@pytest.mark.parametrize("piece_bytes", [256 * ROWS, 20_000])
@pytest.mark.parametrize(
    "y", [Y, Y.astype(str), np.array([f"class {c}" for c in Y], dtype=object)], ids=["int", "str", "object"]
)
def test_sorted_rows_in_their_order_are_said(y, piece_bytes, small_buffer, monkeypatch):
    """As those of arrays are."""
    monkeypatch.setattr(skdl._out_of_core, "PIECE_BYTES", piece_bytes)
    rows = np.argsort(Y, kind="stable")
    model, said = make(shuffle=False), []
    for data in ((X[rows], y[rows]), (blocks_of(X[rows], y[rows]),), (with_empty(blocks_of(X[rows], y[rows])),)):
        with pytest.warns(UserWarning, match="labels change 9 times") as caught:
            model.fit(*data)
        said.append([str(each.message) for each in caught if "shuffle" in str(each.message)])
    assert said[0] == said[1] == said[2]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="shuffle")
        model.fit(blocks_of(X, y))
        make().fit(blocks_of(X[rows], y[rows]))


def test_few_blocks_of_sorted_rows_are_said(small_buffer):
    with pytest.warns(UserWarning, match=r"holds 2 of the 8 blocks"):
        make().fit(blocks_of(X, rows=250))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="A buffer of")
        make().fit(blocks_of(X))


# ---- predictions


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba", "decision_function"])
def test_predictions(name, method):
    model = make().fit(ARRAYS[name], Y)
    expected = getattr(model, method)(ARRAYS[name])
    predict = getattr(model, method)
    assert_allclose(predict(blocks_of(ARRAYS[name], None, rows=100)), expected, rtol=1e-5, atol=1e-5)
    out = np.empty_like(expected)
    assert predict(blocks_of(ARRAYS[name], rows=100), out=out) is out
    assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
    assert model.score(blocks_of(ARRAYS[name], Y, WEIGHT)) == pytest.approx(model.score(ARRAYS[name], Y, WEIGHT))


def test_out_is_no_metadata():
    """Which scikit-learn would route to predictions."""
    assert [name for name in dir(make()) if name.startswith("set_") and name.endswith("_request")] == [
        "set_fit_request", "set_partial_fit_request", "set_score_request",
    ]  # fmt: skip


def test_wrong_predictions():
    model = make().fit(X, Y)
    for shape in ((1796,), (1798,), (1797, 2)):
        with pytest.raises(ValueError, match="out has"):
            model.predict(blocks_of(X), out=np.empty(shape, int))
    for wrong, labels in ((np.uint8, Y + 250), ("U3", np.array([f"class {c}" for c in Y]))):
        with pytest.raises(TypeError, match="out is of type"):
            make().fit(X, labels).predict(blocks_of(X), out=np.empty(len(X), wrong))
    with pytest.raises(TypeError, match="out is of type int64, which cannot hold what is predicted, of type float32"):
        model.predict_proba(blocks_of(X), out=np.empty((len(X), 10), int))
    for right in (np.uint8, float):
        assert_array_equal(model.predict(blocks_of(X), out=np.empty(len(X), right)), model.predict(X))
    with pytest.raises(ValueError, match="Block 1: X has 9 rows, but y has 1"):
        model.score(Blocks([(X[:9], Y[:9]), (X[:9], Y[:1])]))
    with pytest.raises(TypeError, match="out is a list"):
        model.predict(blocks_of(X), out=[])
    with pytest.raises(ValueError, match="out is for Blocks"):
        model.predict(X, out=np.empty(len(X), int))
    with pytest.raises(ValueError, match=r"Block 0: X has 60 features"):
        model.predict(blocks_of(X[:, :60]))
    with pytest.raises(ValueError, match="Block 0 has no labels"):
        model.score(blocks_of(X, None))


# ---- where they come from


def read(blocks):
    """All of the rows."""
    parts = [blocks.read(i) for i in range(len(blocks))]
    stack = sparse.vstack if sparse.issparse(parts[0][0]) else np.concatenate
    return stack([part[0] for part in parts]), *(
        None if parts[0][k] is None else np.concatenate([part[k] for part in parts]) for k in (1, 2)
    )


def test_memmaps_are_read_from_their_files(tmp_path, monkeypatch):
    """Not by page faults: rows of a map, of a part of it, and of one with an offset."""
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    for part, expected in ((mapped, X), (mapped[100:900], X[100:900]), (np.asarray(mapped)[7:], X[7:])):
        rows = skdl._blocks._Rows(part)
        assert str(rows.path) == str(tmp_path / "X.npy")
        assert_array_equal(rows[3:50], expected[3:50])
        assert_array_equal(read(blocks_of(part, None))[0], expected)
    assert skdl._blocks._Rows(mapped[::2]).path is None
    assert skdl._blocks._Rows(mapped[:, :5]).path is None
    changed = np.load(tmp_path / "X.npy", mmap_mode="c")
    changed[:] = 5
    assert (read(blocks_of(changed, None))[0] == 5).all()
    np.save(tmp_path / "other.npy", -X)
    (tmp_path / "other.npy").replace(tmp_path / "X.npy")  # the map is still of the old one
    assert_array_equal(read(blocks_of(mapped, None))[0], X)


def test_a_file_that_was_replaced_by_a_similar_one(tmp_path):
    """Its first page is the same."""
    other = X.copy()
    other[100:] += 1
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    before = blocks_of(mapped)
    np.save(tmp_path / "other.npy", other)
    (tmp_path / "other.npy").replace(tmp_path / "X.npy")
    assert_array_equal(read(blocks_of(mapped))[0], X)
    with pytest.raises(RuntimeError, match=r"Block 0 could not be read: OSError: .*X\.npy has been replaced"):
        make().fit(before)


def test_a_file_that_became_short(tmp_path, small_buffer):
    np.save(tmp_path / "X.npy", X)
    blocks = blocks_of(np.load(tmp_path / "X.npy", mmap_mode="r"))
    with open(tmp_path / "X.npy", "r+b") as file:
        file.truncate(100_000)
    with pytest.raises(RuntimeError, match=r"Block 78 could not be read: OSError: .*ends before row"):
        make().fit(blocks)


def test_h5py(tmp_path):
    with h5py.File(tmp_path / "X.h5", "w") as file:
        data = file.create_dataset("X", data=X, chunks=(100, 64))
        assert Blocks.from_arrays(data, Y)._sequence.rows % 100 == 0
        same_model(make().fit(Blocks.from_arrays(data, Y, rows=100)), make().fit(X, Y))


def test_large_arrays_of_others_name_the_way(tmp_path, monkeypatch):
    monkeypatch.setattr(skdl._blocks, "LARGE_BYTES", 1000)
    with (
        h5py.File(tmp_path / "X.h5", "w") as file,
        pytest.raises(ValueError, match=r"h5py.Dataset.*Blocks.from_arrays\(X, y\)"),
    ):
        make().fit(file.create_dataset("X", data=X, chunks=True), Y)
    with pytest.raises(ValueError, match=r"dask.Array.*skdl.dask"):
        make().fit(dask.array.from_array(X), Y)


@pytest.mark.parametrize("embedded", [False, True])
def test_parquet(tmp_path, embedded):
    names = [f"pixel{j}" for j in range(64)]
    if embedded:
        columns, features = {"v": pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), 64)}, "v"
    else:
        columns, features = dict(zip(names, X.T, strict=True)), names
    table = pa.table({**columns, "label": Y.astype(str), "w": WEIGHT})
    pq.write_table(table[:1000], tmp_path / "a.parquet", row_group_size=300)
    pq.write_table(table[1000:], tmp_path / "b.parquet", row_group_size=300)
    blocks = Blocks.from_parquet(tmp_path, features, "label", sample_weight="w")
    assert len(blocks) == 7
    same_model(make().fit(blocks), make().fit(X, Y.astype(str), WEIGHT))
    with pytest.raises(ValueError, match=r"no column 'class'"):
        Blocks.from_parquet(tmp_path, features, "class")
    with pytest.raises(FileNotFoundError, match="parquet"):
        Blocks.from_parquet(tmp_path / "none", features, "label")


def test_parquet_without_rows(tmp_path):
    """Some writers leave such files and row groups."""
    table = pa.table({"x": X[:, 20], "label": Y})
    with pq.ParquetWriter(tmp_path / "a.parquet", table.schema) as file:
        for part in (table[:0], table[:900], table[:0], table[900:]):
            file.write_table(part)
    pq.write_table(table[:0], tmp_path / "b.parquet")
    assert_array_equal(read(Blocks.from_parquet(tmp_path, ["x"], "label"))[1], Y)
    with pytest.raises(ValueError, match="has no rows"):
        Blocks.from_parquet(tmp_path / "b.parquet", ["x"], "label")


def test_parquet_without_features(tmp_path):
    pq.write_table(pa.table({"x": X[:, 20], "label": Y}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="features is empty"):
        Blocks.from_parquet(tmp_path / "a.parquet", [], "label")


def test_parquet_of_uneven_lists(tmp_path):
    """Also where their mean length is a whole number."""
    pq.write_table(pa.table({"x": [[1.0, 2.0], [3.0], [4.0, 5.0, 6.0]], "label": [0, 1, 0]}), tmp_path / "rows.parquet")
    with pytest.raises(RuntimeError, match="not all of one length"):
        make().fit(Blocks.from_parquet(tmp_path / "rows.parquet", "x", "label"))
    with pytest.raises(RuntimeError, match="of type int64: expected lists"):
        make().fit(Blocks.from_parquet(tmp_path / "rows.parquet", "label", "label"))


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("y", [Y, Y.astype(str), np.array([f"class {'x' * c}" for c in Y], dtype=object), Y > 4])
def test_cache(name, weight, y, tmp_path):
    A = ARRAYS[name]
    cached = blocks_of(A, y, weight).cache(tmp_path / "new" / "cache")
    X_read, y_read, weight_read = read(cached)
    assert X_read.dtype == A.dtype
    assert abs(X_read - A).max() == 0
    assert_array_equal(y_read, y)
    assert weight is None or (weight_read == weight).all()
    same_model(make().fit(cached), make().fit(A, y, weight))
    again = Blocks([(None, None)]).cache(tmp_path / "new" / "cache")  # what is there is taken
    assert_array_equal(read(again)[1], y)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["cache"]
    assert (tmp_path / "new" / "cache").stat().st_mode == (tmp_path / "new").stat().st_mode


def test_a_cache_that_cannot_be_written(tmp_path):
    """Nothing is left of it."""
    different = Blocks([(X[:5], Y[:5]), (X[:5].astype(float), Y[:5])])
    with pytest.raises(ValueError, match="blocks differ"):
        different.cache(tmp_path / "cache")
    with pytest.raises(ValueError, match="no labels"):
        Blocks([X]).cache(tmp_path / "cache")
    shifted = Blocks([(X[:5], Y[:6]), (X[5:10], Y[6:10])])
    with pytest.raises(ValueError, match=r"block 0: y has the shape \(6,\), but X has 5 rows"):
        shifted.cache(tmp_path / "cache")
    for weights in ((None, WEIGHT[:5]), (WEIGHT[:5], None)):
        with pytest.raises(ValueError, match=r"block 1 (has|lacks) weights, unlike those before"):
            Blocks([(X[:5], Y[:5], weight) for weight in weights]).cache(tmp_path / "cache")
    assert list(tmp_path.iterdir()) == []
    code = """
        import resource, signal, sys
        import numpy as np
        from skdl import Blocks
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            Blocks.from_arrays(np.zeros((1000, 1000)), np.arange(1000) % 2).cache(sys.argv[1])
        except OSError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), tmp_path / "cache"], capture_output=True, text=True
    )
    assert done.stdout.startswith(f"The blocks could not be written to {tmp_path / 'cache'}: "), done.stderr
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").mkdir()
    with pytest.raises(ValueError, match="has not written it"):
        blocks_of(X).cache(tmp_path / "file")


# ---- what can go wrong


class Faulty:
    """A sequence with something wrong in one block, from one time on that it is read."""

    def __init__(self, change, block=200, time=1, X=X):
        self.change, self.block, self.time, self.n_read = change, block, time, 0
        self.blocks = blocks_of(X)

    def __len__(self):
        return len(self.blocks)

    def __getitem__(self, i):
        item = tuple(part.copy() for part in self.blocks[i])
        self.n_read += i == self.block
        return self.change(*item) if i == self.block and self.n_read >= self.time else item


def with_nan(X, y):
    X[2, 3] = np.nan
    return X, y


def failing(X, y):
    raise ConnectionError("the network is down")


FAULTS = {
    "nan": (with_nan, r"Block 200: Input X contains NaN"),
    "columns": (lambda X, y: (X[:, 1:], y), r"Block 200: X has 63 features"),
    "type": (
        lambda X, y: (X.astype(float), y),
        r"Block 200: it has 64 columns of float64, but the blocks before have 64 .*32",
    ),
    "csr": (lambda X, y: (sparse.csr_array(X), y), r"Block 200: it has 64 columns of float32 \(CSR\)"),
    "text": (lambda X, y: (X.astype(str), y), r"Block 200: X holds"),
    "reader": (failing, r"Block 200 could not be read: ConnectionError: the network is down"),
    "labels": (lambda X, y: X, r"Block 200: it has no labels"),
    "length": (lambda X, y: (X, y[1:]), r"Block 200: .*inconsistent numbers of samples"),
    "weight": (lambda X, y: (X, y, -np.ones(5)), r"Block 200: sample_weight contains a negative weight"),
    "kind": (lambda X, y: (X, y.astype(str)), r"y holds numbers in some blocks and text in others"),
    "parts": (lambda X, y: (X, y, y, y), r"Block 200.*an item has 4 parts"),
}
LATER = {
    "short": (lambda X, y: (X[1:], y[1:]), r"Block 200 has changed: it has 4 rows"),
    "class": (lambda X, y: (X, y + 7), r"Block 200 has changed: y contains classes that are not among"),
    "columns": FAULTS["columns"],
    "reader": FAULTS["reader"],
    "weights": (lambda X, y: (X, y, np.arange(5.0)), r"Block 200 has changed: it has uneven sample weights"),
    "nan": (with_nan, r"Training diverged"),
}


@pytest.mark.parametrize(("change", "message"), FAULTS.values(), ids=FAULTS)
def test_faults_in_the_first_pass(change, message, small_buffer):
    fails_as_said(Faulty(change), message)


@pytest.mark.parametrize("arguments", [{}, TEXTBOOK], ids=["auto", "textbook"])
@pytest.mark.parametrize("form", ["dense", "csr"])
def test_nan_in_few_blocks(form, arguments):
    """They are fitted together, and the block is named all the same."""
    values = ARRAYS[form].copy()
    values[8 * ROWS + 1, 20] = np.nan
    with pytest.raises(ValueError, match="Block 8: Input X contains NaN"):
        SoftmaxRegressionClassifier(**arguments).fit(blocks_of(values))


@pytest.mark.parametrize("piece_bytes", [1000, 2**25])
def test_labels_of_two_kinds(piece_bytes, small_buffer, monkeypatch):
    """NumPy would make text of all of them, where blocks are joined."""
    monkeypatch.setattr(skdl._out_of_core, "PIECE_BYTES", piece_bytes)
    for n_bytes in (skdl._out_of_core.BUFFER_BYTES, 2**28):
        monkeypatch.setattr(skdl._out_of_core, "BUFFER_BYTES", n_bytes)
        fails_as_said(Faulty(*FAULTS["kind"][:1]), FAULTS["kind"][1])


def test_blocks_to_validate_with():
    with pytest.raises(TypeError, match="X_val holds Blocks"):
        make().fit(X, Y, X_val=blocks_of(X))


@pytest.mark.parametrize(("change", "message"), LATER.values(), ids=LATER)
def test_faults_in_an_epoch(change, message, small_buffer):
    fails_as_said(Faulty(change, time=3), message)


def with_part(name, *values):
    """CSR that begins with other values in one of its parts."""

    def change(X, y):
        getattr(X, name)[: len(values)] = values
        return X, y

    return change


def of_lists(X, y):
    X.data = X.data.tolist()
    return X, y


LATER_OF_CSR = {
    "index": (with_part("indices", 64), r"Block 200: X is not a valid CSR array: the index at position 0 is not in"),
    "negative": (with_part("indices", -1), r"Block 200: X is not a valid CSR array: the index at position 0 is not in"),
    "indptr": (with_part("indptr", 0, 9, 8), r"Block 200: X is not a valid CSR array: indptr decreases"),
    "lists": (of_lists, r"Block 200: X is not a valid CSR array: data must be"),
    "twice": (with_part("indices", 3, 3), r"Block 200 has changed: it has 5 rows with .* values, and had"),
    "columns": (lambda X, y: (X[:, 1:], y), r"Block 200: X has 63 features"),
    "type": (
        lambda X, y: (X.astype(float), y),
        r"Block 200: it has 64 columns of float64 \(CSR\), but the blocks before",
    ),
    "dense": (
        lambda X, y: (X.toarray(), y),
        r"Block 200: it has 64 columns of float32, but the blocks before have 64 .*CSR",
    ),
    "csc": (lambda X, y: (X.tocsc()[1:], y[1:]), r"Block 200 has changed: it has 4 rows"),
}


@pytest.mark.parametrize(("change", "message"), LATER_OF_CSR.values(), ids=LATER_OF_CSR)
def test_faults_of_csr_in_an_epoch(change, message, small_buffer):
    """No index leads a kernel out of bounds, however late it comes."""
    fails_as_said(Faulty(change, time=3, X=ARRAYS["csr"]), message)


def test_the_mean_is_taken_off_in_pieces(monkeypatch):
    monkeypatch.setattr(skdl._data, "PIECE_VALUES", 7)
    A, mean = ARRAYS["csr"].copy(), np.random.default_rng(0).normal(size=64)
    less_mean(A, mean)
    assert_array_equal(A.toarray(), np.where(X != 0, X - mean.astype(X.dtype), 0))


OF_LABELS = {name: FAULTS[name] for name in ("reader", "labels", "weight", "kind", "parts")}


@pytest.mark.parametrize(("change", "message"), OF_LABELS.values(), ids=OF_LABELS)
def test_faults_in_the_pass_over_labels(change, message, small_buffer):
    fails_as_said(Faulty(change), message, class_weight="balanced")


def with_empty(blocks):
    """The blocks with some without rows among them, as filters make them."""
    parts = [blocks[i] for i in range(len(blocks))]
    for i in (0, 7, len(parts)):
        parts.insert(i, (parts[3][0][:0], parts[3][1][:0], *(part[:0] for part in parts[3][2:])))
    parts.insert(5, ([], [], *([] for _ in parts[3][2:])))
    return Blocks(parts)


@pytest.mark.parametrize("name", ["dense", "csr"])
@pytest.mark.parametrize("n_bytes", [None, 2**28])
@pytest.mark.parametrize("params", [{}, {"class_weight": "balanced"}, {"early_stopping": True}], ids=str)
def test_blocks_without_rows(name, n_bytes, params, small_buffer, monkeypatch, tmp_path):
    """They are passed over, wherever they are."""
    if n_bytes is not None:
        monkeypatch.setattr(skdl._out_of_core, "BUFFER_BYTES", n_bytes)
    blocks = blocks_of(ARRAYS[name], Y.astype(str), WEIGHT)
    empty = with_empty(blocks)
    model = make(**params).fit(empty, checkpoint=tmp_path / "fit.ckpt")
    expected = make(**params).fit(blocks)
    if n_bytes is not None:
        same_model(model, expected)
    assert model.score(empty) == pytest.approx(expected.score(blocks), abs=0.02)
    assert_array_equal(model.predict(empty), model.predict(ARRAYS[name]))
    assert_array_equal(model.predict(empty, out=np.empty(len(Y), "U1")), model.predict(ARRAYS[name]))
    if not params and n_bytes:
        same_model(make().fit(empty.cache(tmp_path / "cache")), expected)


@pytest.mark.filterwarnings("ignore:A buffer of")
def test_no_block_has_a_row(small_buffer, tmp_path):
    nothing = Blocks([(X[:0], Y[:0])] * 3)
    for ask in (make().fit, make().fit(X, Y).predict, lambda blocks: blocks.cache(tmp_path / "cache")):
        with pytest.raises(ValueError, match="None of the blocks has a row"):
            ask(nothing)
    held_out = skdl._out_of_core.hold_out_blocks(check(make(early_stopping=True)), 360)
    parts = [blocks_of(X)[i] for i in range(360)]
    for empty, message in (
        (held_out, "held out to validate with have no rows"),
        (np.delete(range(360), held_out), "has a row"),
    ):
        filtered = [tuple(part[: 0 if i in empty else ROWS] for part in parts[i]) for i in range(360)]
        with pytest.MonkeyPatch.context() as patch, pytest.raises(ValueError, match=message):
            patch.setattr(skdl._out_of_core, "BUFFER_BYTES", 10_000)
            make(early_stopping=True).fit(Blocks(filtered))


@pytest.mark.filterwarnings("ignore:A buffer of")
def test_blocks_held_out_without_weight(small_buffer):
    held_out = skdl._out_of_core.hold_out_blocks(check(make(early_stopping=True)), 36)
    weight = 1.0 - np.isin(np.arange(1797) // 50, held_out)
    with pytest.raises(ValueError, match="Every row held out to validate with has weight zero"):
        make(early_stopping=True).fit(blocks_of(X, Y, weight, rows=50))


def fails_as_said(sequence, message, **params):
    """With one sentence, and the estimator as it was."""
    model = make(max_iter=5, **params).fit(X[:50], Y[:50])
    before = fitted_state(model)
    with pytest.raises((ValueError, TypeError, RuntimeError), match=message):
        model.fit(Blocks(sequence))
    assert fitted_state(model) == before
    new = make(**params)
    sequence.n_read = 0
    with pytest.raises((ValueError, TypeError, RuntimeError), match=message):
        new.fit(Blocks(sequence))
    assert fitted_state(new) == {}
    assert not hasattr(new, "n_features_in_")


def test_wrong_blocks(small_buffer):
    for wrong in (5, "text", {0: 1}, iter([])):
        with pytest.raises(TypeError, match="Blocks needs a sequence"):
            Blocks(wrong)
    with pytest.raises(ValueError, match="empty"):
        Blocks([])
    for wrong, message in (
        (dict(y=Y[:5]), "y has 5 entries, but X has 1797 rows"),
        (dict(sample_weight=Y[:5]), "sample_weight has 5"),
        (dict(rows=0), "rows=0 is not valid"),
    ):
        with pytest.raises(ValueError, match=message):
            Blocks.from_arrays(X, **{"y": Y, **wrong})
    with pytest.raises(ValueError, match="tocsr"):
        Blocks.from_arrays(sparse.csc_array(X), Y)
    with pytest.raises(TypeError, match=r"np\.load"):
        Blocks.from_arrays("X.npy", Y)
    with pytest.raises(ValueError, match="shape"):
        Blocks.from_arrays(X[0], Y)
    with pytest.raises(ValueError, match="y is given, but X is Blocks"):
        make().fit(blocks_of(X), Y)
    with pytest.raises(TypeError, match="X is Blocks"):
        make().partial_fit(blocks_of(X), Y, classes=range(10))
    with pytest.raises(TypeError, match="X is Blocks"):
        SoftmaxRegressionClassifierCV().fit(blocks_of(X), Y)
    with pytest.raises(ValueError, match="only one class"):
        make().fit(blocks_of(X, np.ones(1797)))
    with pytest.raises(ValueError, match="one class only"):
        make(class_weight=dict.fromkeys(range(1, 10), 0)).fit(blocks_of(X))
    with pytest.raises(ValueError, match="weight zero"):
        make().fit(blocks_of(X, Y, np.zeros(1797)))
    with pytest.raises(ValueError, match="leaves none to train on"):
        make(early_stopping=True, validation_fraction=0.999).fit(blocks_of(X))


def test_ctrl_c(small_buffer):
    """While the reader waits, and while the kernel works: the estimator is as it was and the thread is gone."""
    code = """
        import signal, threading, time
        import numpy as np
        import skdl._out_of_core
        from skdl import Blocks, SoftmaxRegressionClassifier
        skdl._out_of_core.BUFFER_BYTES = skdl._out_of_core.PIECE_BYTES = 100_000
        X, y = np.random.default_rng(0).random((5000, 50)), np.arange(5000) % 3

        class Slow:
            n_read = 0
            def __len__(self):
                return 500
            def __getitem__(self, i):
                Slow.n_read += 1
                if Slow.n_read > 1800:
                    time.sleep(0.3)
                return X[10 * i : 10 * i + 10], y[10 * i : 10 * i + 10]

        model = SoftmaxRegressionClassifier(max_iter=10**6, tol=0)
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        for _ in range(2):
            signal.setitimer(signal.ITIMER_REAL, 1.0)
            try:
                model.fit(Blocks(Slow()))
            except KeyboardInterrupt:
                left = [t.name for t in threading.enumerate() if t.name.startswith("skdl")]
                print(hasattr(model, "coef_"), left)
            Slow.n_read = -10**9
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "False []\n" * 2, done.stderr


def test_ctrl_c_while_the_reader_starts(monkeypatch):
    """The thread may run although `start` has raised: it is gone all the same."""

    class Late(threading.Thread):
        def _bootstrap_inner(self):  # whose first act is to tell `start` that the thread runs
            time.sleep(0.5)
            super()._bootstrap_inner()

    monkeypatch.setattr(skdl._reader, "Thread", Late)
    handler = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            next(skdl._reader.ahead(lambda item, stopping: item, range(3)))
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert [t.name for t in threading.enumerate() if t.name.startswith("skdl")] == []


# ---- checkpoints

PROGRAM = """
    import os, signal, sys, time, threading
    import numpy as np
    import skdl._checkpoint, skdl._out_of_core
    from skdl import Blocks, SoftmaxRegressionClassifier
    from sklearn.datasets import load_digits
    skdl._out_of_core.BUFFER_BYTES, skdl._out_of_core.PIECE_BYTES, skdl._checkpoint.INTERVAL = 60_000, 20_000, 0.0
    X, y = load_digits(return_X_y=True)
    X = X.astype("f4")
    kind, path, after, result = sys.argv[1:]
    params = dict(max_iter=8, early_stopping=True) if kind == "early" else dict(max_iter=8)
    if kind == "csr":
        from scipy import sparse
        X = sparse.csr_array(X)
    blocks = Blocks.from_arrays(X, y.astype(str), rows=5)
    if float(after) > 0:
        save = skdl._checkpoint.Checkpoint.save
        def counted(self, *args, count=[0]):
            save(self, *args)
            count[0] += 1
            if count[0] > float(after):  # between two of its versions; a thread kills at any moment
                threading.Timer(np.random.default_rng().random() * 0.003, os.kill, (os.getpid(), signal.SIGKILL)).start()
        skdl._checkpoint.Checkpoint.save = counted
    model = SoftmaxRegressionClassifier(random_state=None if kind == "unseeded" else 0, **params)
    model.fit(blocks, checkpoint=path)
    np.savez(result, coef=model.coef_, intercept=model.intercept_, losses=model.loss_curve_, alpha=model.alpha_)
"""


def run_program(kind, path, after, result):
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(PROGRAM), kind, str(path), str(after), str(result)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("kind", ["defaults", "early", "csr"])
def test_a_killed_fit_goes_on_with_the_same_bits(kind, tmp_path):
    done = run_program(kind, tmp_path / "whole.ckpt", 0, tmp_path / "whole.npz")
    assert done.returncode == 0, done.stderr
    n_killed = 0
    for after in np.random.default_rng().integers(1, 12, 5):
        killed = run_program(kind, tmp_path / "fit.ckpt", after, tmp_path / "fit.npz")
        n_killed += killed.returncode == -9
        assert killed.returncode in (0, -9), killed.stderr
        if killed.returncode == 0:
            break
        assert (tmp_path / "fit.ckpt").exists()
    assert n_killed > 0
    if not (tmp_path / "fit.npz").exists():
        done = run_program(kind, tmp_path / "fit.ckpt", 0, tmp_path / "fit.npz")
        assert done.returncode == 0, done.stderr
    whole, resumed = np.load(tmp_path / "whole.npz"), np.load(tmp_path / "fit.npz")
    for name in whole:
        assert_array_equal(whole[name], resumed[name], err_msg=name)
    assert {path.name for path in tmp_path.iterdir()} == {"whole.npz", "fit.npz"}


@pytest.fixture
def interrupted(small_buffer, monkeypatch, tmp_path):
    """A checkpoint of a fit."""
    monkeypatch.setattr(skdl._checkpoint, "INTERVAL", 0.0)
    return interrupt(make(), tmp_path / "fit.ckpt", monkeypatch)


def interrupt(model, path, monkeypatch):
    """The path of the checkpoint that is left of a fit."""

    class Stop(Exception):
        pass

    save, n_saved = skdl._checkpoint.Checkpoint.save, []

    def stopped(self, *args):
        save(self, *args)
        n_saved.append(1)
        if len(n_saved) == 7:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(skdl._checkpoint.Checkpoint, "save", stopped)
        with pytest.raises(Stop):
            model.fit(blocks_of(X), checkpoint=path)
    assert path.exists()
    return path


def test_a_checkpoint_is_used_up(interrupted, monkeypatch):
    """Without another first pass; threads and lines that are printed do not change a bit."""
    expected = make().fit(blocks_of(X))
    monkeypatch.setattr(skdl._out_of_core, "first_pass", None)
    same_model(make(n_jobs=2, verbose=1).fit(blocks_of(X), checkpoint=interrupted), expected)
    assert not interrupted.exists()


def test_a_checkpoint_of_another_fit_is_refused(interrupted, monkeypatch):
    other = X.copy()
    other[-1] += 1
    for what, fit in {
        "of parameters": lambda: make(alpha=0.1).fit(blocks_of(X), checkpoint=interrupted),
        "of parameters.*random_state": lambda: make(random_state=1).fit(blocks_of(X), checkpoint=interrupted),
        "of data": lambda: make().fit(blocks_of(other), checkpoint=interrupted),
        "of data 360 blocks": lambda: make().fit(blocks_of(X[:-5], Y[:-5]), checkpoint=interrupted),
        "of validation set": lambda: make().fit(blocks_of(X), X_val=X, y_val=Y, checkpoint=interrupted),
    }.items():
        with pytest.raises(ValueError, match=f"fit.ckpt is the checkpoint of another fit, {what}"):
            fit()
    monkeypatch.setenv("SKDL_INSTRUCTION_SET", "baseline")
    with pytest.raises(ValueError, match="of processor"):
        make().fit(blocks_of(X), checkpoint=interrupted)


def test_a_checkpoint_of_a_warm_start(small_buffer, monkeypatch, tmp_path):
    """It belongs to the coefficients that the fit began with."""
    monkeypatch.setattr(skdl._checkpoint, "INTERVAL", 0.0)

    def begun(n_rows=500):
        return make(warm_start=True).fit(X[:n_rows], Y[:n_rows])

    path = interrupt(begun(), tmp_path / "fit.ckpt", monkeypatch)
    for other in (make(warm_start=True), begun(n_rows=400)):
        with pytest.raises(ValueError, match="another fit, of first coefficients"):
            other.fit(blocks_of(X), checkpoint=path)
    same_model(begun().fit(blocks_of(X), checkpoint=path), begun().fit(blocks_of(X)))


def test_a_wrong_checkpoint(interrupted, tmp_path):
    for path, message in (
        (tmp_path, "is a folder"),
        (tmp_path / "none" / "x", "does not exist"),
        (tmp_path / "text", "is not a checkpoint"),
        (tmp_path / "half", "is not a checkpoint"),
    ):
        (tmp_path / "text").write_text("hello")
        (tmp_path / "half").write_bytes(interrupted.read_bytes()[:5000])
        with pytest.raises(ValueError, match=message):
            make().fit(blocks_of(X), checkpoint=path)


class Counted:
    """A sequence that counts how often its first block is read."""

    def __init__(self, blocks):
        self.blocks, self.n_read = blocks, 0

    def __len__(self):
        return len(self.blocks)

    def __getitem__(self, i):
        self.n_read += i == 0
        return self.blocks[i]


def test_two_fits_of_one_checkpoint(small_buffer, monkeypatch, tmp_path):
    """The second is refused, and disturbs nothing."""
    monkeypatch.setattr(skdl._checkpoint, "INTERVAL", 0.0)
    save, refused = skdl._checkpoint.Checkpoint.save, []

    def save_beside_another(self, *args):
        save(self, *args)
        with pytest.raises(ValueError, match=r"fit\.ckpt is the checkpoint of another fit that is still running"):
            make().fit(blocks_of(X), checkpoint=tmp_path / "fit.ckpt")
        refused.append(self)

    monkeypatch.setattr(skdl._checkpoint.Checkpoint, "save", save_beside_another)
    model = make().fit(blocks_of(X), checkpoint=tmp_path / "fit.ckpt")
    assert refused
    same_model(model, make().fit(blocks_of(X)))
    assert list(tmp_path.iterdir()) == []


def test_the_first_block_is_read_once_before_the_first_pass(small_buffer, monkeypatch, tmp_path):
    class Stop(Exception):
        pass

    def stop(*args):
        raise Stop

    monkeypatch.setattr(skdl._out_of_core, "first_pass", stop)
    parts = Counted(blocks_of(X))
    with pytest.raises(Stop):
        make().fit(Blocks(parts), checkpoint=tmp_path / "fit.ckpt")
    assert parts.n_read == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_noticed_first(small_buffer):
    parts = Counted(blocks_of(X))
    with pytest.raises(OSError, match=r"The checkpoint could not be written to /proc/fit\.ckpt"):
        make().fit(Blocks(parts), checkpoint="/proc/fit.ckpt")
    assert parts.n_read == 0


def test_a_checkpoint_that_cannot_be_written(small_buffer, monkeypatch, tmp_path):
    monkeypatch.setattr(skdl._checkpoint, "INTERVAL", 0.0)

    def full(file, **arrays):
        file.write(b"PK")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(skdl._checkpoint.np, "savez", full)
    model = make()
    with pytest.raises(OSError, match=r"The checkpoint could not be written to .*No space left"):
        model.fit(blocks_of(X), checkpoint=tmp_path / "fit.ckpt")
    assert list(tmp_path.iterdir()) == []
    assert fitted_state(model) == {}
