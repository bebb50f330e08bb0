"""skdl.dask: the same models wherever the rows lie and whatever becomes of the workers."""

import contextlib
import os
import pickle
import signal
import time
import warnings

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from _data import error, log_loss, logits
from _helpers import same_model
from distributed import Client, KilledWorker, LocalCluster, WorkerPlugin
from scipy import sparse
from sklearn.base import clone
from sklearn.utils import check_random_state

import skdl
from skdl import _rounds, _shards
from skdl._data import InMemory
from skdl._parameters import check
from skdl._sgd import solve
from skdl.dask import SoftmaxRegressionClassifier

N, D = 20_000, 6
# Enough for two shards, with small minibatches.
SHORT = {"max_iter": 5, "rounds_per_epoch": 2, "random_state": 0}


def made(n=N, d=D, n_classes=3, seed=0):
    """X, y of well separated but overlapping classes, sorted by class."""
    rng = np.random.default_rng(seed)
    y = np.sort(rng.integers(0, n_classes, n))
    return (rng.normal(size=(n, d)) + rng.normal(size=(n_classes, d))[y]).astype(np.float32), y


X, Y = made()
DX, DY = da.from_array(X, chunks=(3000, D)), da.from_array(Y, chunks=3000)


@contextlib.contextmanager
def cluster(**how):
    how = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0", "processes": False, **how}
    with LocalCluster(**how) as workers, Client(workers) as client:
        yield client


@pytest.fixture(scope="module")
def client():
    with cluster() as client:
        yield client


def fitted(X=DX, y=DY, *args, fit=(), **params):
    """A model of two shards."""
    return SoftmaxRegressionClassifier(**{**SHORT, **params}).fit(X, y, *args, **dict(fit))


@pytest.fixture(scope="module")
def model(client):
    return fitted()


def quietly(*args, **params):
    """A model of few rows, which are work for one shard."""
    with warnings.catch_warnings(action="ignore"):
        return fitted(*args, **params)


# ---- the same bits


def test_one_shard_in_one_round_is_the_local_fit(client):
    """shuffle=False: the very fit of the public estimator."""
    textbook = {"lr": 0.01, "alpha": 1e-3, "standardize": False, "batch_size": 100, "max_iter": 3, "shuffle": False}
    with warnings.catch_warnings(action="ignore"):
        local = skdl.SoftmaxRegressionClassifier(**textbook).fit(X[::10], Y[::10])
        remote = SoftmaxRegressionClassifier(**textbook).fit(DX[::10], DY[::10])
    same_model(local, remote)


class InOrderOfShards(InMemory):
    """Rows in memory in the order that one shard would visit them in."""

    seed = None

    def epochs(self, rng, n_epochs):
        if self.seed is None:
            self.seed, self.epoch = int(rng.integers(2**63)), 0
        rows = []
        for _ in range(n_epochs):
            epoch = _shards.Epoch((self.seed, self.epoch), np.empty((1, 1)), 1)
            rows.append(epoch.rows(self.n_rows, 0, 0))
            self.epoch += 1
        yield self.block, np.stack(rows)


def test_one_shard_in_one_round_is_the_local_fit_of_that_order(client):
    textbook = {"lr": 0.01, "alpha": 0, "batch_size": 100, "max_iter": 3, "random_state": 5}
    options = check(skdl.SoftmaxRegressionClassifier(**textbook))
    parts = [(X[rows], Y[rows], None) for rows in np.split(np.arange(0, N, 10), np.arange(300, 2000, 300))]
    seed = check_random_state(5).randint(2**31 - 1)
    problem, _ = _rounds.pose(options, _rounds.InProcess(1), parts, seed=seed)
    [shard] = problem.source.shards
    expected = solve(InOrderOfShards(shard.X, shard.y), options, problem.backend())
    with warnings.catch_warnings(action="ignore"):
        remote = SoftmaxRegressionClassifier(**textbook).fit(DX[::10], DY[::10])
    np.testing.assert_array_equal(remote.coef_, expected.coef)
    np.testing.assert_array_equal(remote.intercept_, expected.intercept)


def test_bits_follow_from_the_number_of_threads_alone(client, model):
    same_model(model, fitted())
    with cluster(n_workers=1, threads_per_worker=2) as other:
        same_model(model, fitted(client=other))
    assert not np.array_equal(model.coef_, fitted(random_state=1).coef_)


def test_losses_are_of_all_rounds_and_shards(client):
    """A model that hardly moves has the loss of no model."""
    assert fitted(lr=1e-9, alpha=0, max_iter=6, batch_size=64).loss_curve_[0] == pytest.approx(np.log(3), rel=1e-4)


def test_without_distributed(model):
    """One shard in this process, by Dask's own scheduler."""
    parts = [(x, y, None) for x, y in zip(np.array_split(X, 7), np.array_split(Y, 7), strict=True)]
    problem, _ = _rounds.pose(check(skdl.SoftmaxRegressionClassifier(max_iter=5)), _rounds.InProcess(1), parts, seed=0)
    assert problem.source.sizes == _rounds.Sizes(1, 128, 1, 1.0)
    from skdl.dask import _classifier

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_classifier, "current_client", lambda: None)
        with dask.config.set(scheduler="synchronous"):
            alone = SoftmaxRegressionClassifier(random_state=0, max_iter=5).fit(DX, DY)
            assert alone.score(DX, DY) == pytest.approx(alone.score(X, Y))
    close(alone, model)


class Killer(WorkerPlugin):
    """Kills a worker when it begins its n-th task of a function, once in all processes."""

    def __init__(self, function, n, flag):
        self.function, self.n, self.flag = function, n, flag
        self.name = f"killer-{function}"

    def setup(self, worker):
        self.seen = 0

    def transition(self, key, start, finish, **_):
        if finish == "executing" and str(key).startswith(self.function):
            self.seen += 1
            if self.seen == self.n:
                with contextlib.suppress(FileExistsError):
                    os.close(os.open(self.flag, os.O_CREAT | os.O_EXCL))
                    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_changes_no_bit(model, tmp_path):
    with cluster(processes=True) as mortal:
        for function, n in (("cut", 2), ("round_of", 4)):
            flag = str(tmp_path / function)
            mortal.register_plugin(Killer(function, n, flag))
            same_model(model, fitted(client=mortal))
            assert os.path.exists(flag)
            mortal.wait_for_workers(2)


# ---- the same models


def test_eight_workers_on_mnist(mnist):
    """Sorted by class, within a tenth of a point and 1 % of one machine."""
    X, y, X_test, y_test = mnist
    rows = np.argsort(y, kind="stable")
    options = skdl.SoftmaxRegressionClassifier(max_iter=10, random_state=0)
    one = clone(options).fit(X, y)
    parts = [(X[part], y[part], None) for part in np.array_split(rows, 20)]
    problem, _ = _rounds.pose(check(options), _rounds.InProcess(8), parts, seed=0)
    assert problem.source.sizes[:3] == (8, 50, 20)
    many = solve(problem.source, problem.options, _rounds.Backend.of(problem))
    found, expected = (logits(X_test, *pair) for pair in ((many.coef, many.intercept), (one.coef_, one.intercept_)))
    assert error(found, y_test) <= error(expected, y_test) + 0.1
    assert log_loss(found, y_test) <= 1.01 * log_loss(expected, y_test)


def close(a, b, X=X, y=Y, weight=None):
    """Models of the same rows have the same loss on these, or nearly."""
    numbers = np.searchsorted(b.classes_, y)
    losses = [-np.average(m.predict_log_proba(X)[np.arange(len(y)), numbers], weights=weight) for m in (a, b)]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)


def test_csr(client, model):
    rows = sparse.csr_array(X * (abs(X) > 0.5))
    chunks = da.from_array(X * (abs(X) > 0.5), chunks=(3000, D)).map_blocks(sparse.csr_array)
    there = fitted(chunks, DY)
    here = skdl.SoftmaxRegressionClassifier(max_iter=5, random_state=0).fit(rows, Y)
    close(there, here, rows)
    np.testing.assert_allclose(there.scale_, here.scale_, rtol=1e-6)
    np.testing.assert_array_equal(there.predict(chunks).compute(), there.predict(rows))


def test_csr_with_a_column_that_is_always_stored(client):
    """It is centred, in the shards, too."""
    values = np.column_stack([X * (abs(X) > 0.5), 2000 + X[:, 0]])
    there = fitted(da.from_array(values, chunks=(3000, D + 1)).map_blocks(sparse.csr_array), DY)
    here = skdl.SoftmaxRegressionClassifier(max_iter=5, random_state=0).fit(sparse.csr_array(values), Y)
    close(there, here, values)


def frames(npartitions=5):
    names = list("abcdef")
    frame = pd.DataFrame(X, columns=names).assign(y=np.array(["low", "middle", "high"])[Y], w=1.0 + (Y == 1))
    frame = dd.from_pandas(frame, npartitions=npartitions, sort=False)
    return frame[names], frame["y"], frame["w"]


def test_data_frames(client, model):
    features, labels, _ = frames()
    there = fitted(features, labels)
    named = features.compute()
    assert there.score(named, labels.compute()) == pytest.approx(model.score(X, Y), abs=0.005)
    assert there.feature_names_in_.tolist() == list("abcdef") and there.classes_.tolist() == ["high", "low", "middle"]
    predicted = there.predict(features)
    assert isinstance(predicted, da.Array)
    local = there.to_local()
    np.testing.assert_array_equal(predicted.compute(), local.predict(named))
    np.testing.assert_array_equal(there.predict_proba(features).compute(), local.predict_proba(named))
    assert there.score(features, labels) == pytest.approx(np.mean(predicted.compute() == labels.compute()))


def test_chunks_of_unknown_size_and_without_rows(client, model):
    unknown = DX[da.ones(N, chunks=3000, dtype=bool)], DY[da.ones(N, chunks=3000, dtype=bool)]
    assert np.isnan(unknown[0].chunks[0]).all()
    same_model(fitted(*unknown), model)
    some = DX[(DY != 2).compute_chunk_sizes()], DY[DY != 2]
    with warnings.catch_warnings(action="ignore"):
        there = fitted(*some)
    assert there.classes_.tolist() == [0, 1]
    assert there.predict(some[0]).compute().shape == (np.count_nonzero(Y != 2),)


def test_columns_in_chunks_and_labels_in_others(client, model):
    same_model(fitted(DX.rechunk((3000, 2)), Y), model)
    same_model(fitted(DX, da.from_array(Y, chunks=7000)), model)


def test_weights(client, model):
    """A row of weight 0 is none, wherever it is; two in one are two."""
    weight = np.where(np.arange(N) % 4 == 0, 0.0, 2.0)
    there = fitted(DX, DY, da.from_array(weight, chunks=3000), max_iter=7)
    here = skdl.SoftmaxRegressionClassifier(max_iter=7, random_state=0).fit(X, Y, weight)
    close(there, here, X, Y, weight)
    assert there._stream["n_rows"] == here._stream["n_rows"]
    assert there._stream["total_weight"] == pytest.approx(here._stream["total_weight"])


@pytest.mark.parametrize("class_weight", ["balanced", {0: 1, 1: 3, 2: 0}])
def test_class_weight(client, class_weight):
    rows = np.flatnonzero((Y != 1) | (np.arange(N) % 3 == 0))
    values, labels = X[rows], Y[rows]
    there = quietly(
        da.from_array(values, chunks=(3000, D)), da.from_array(labels, chunks=3000), class_weight=class_weight
    )
    here = skdl.SoftmaxRegressionClassifier(max_iter=5, random_state=0, class_weight=class_weight).fit(values, labels)
    of_class = {0: 1, 1: 3, 2: 0} if isinstance(class_weight, dict) else dict(enumerate(1 / np.bincount(labels)))
    close(there, here, values, labels, np.array([of_class[label] for label in labels.tolist()]))
    np.testing.assert_allclose(there.scale_, here.scale_, rtol=1e-5)


def test_validation_sets(client):
    """Of Dask and in memory they tell the same."""
    X_val, y_val = made(5000, seed=1)
    weight = 1.0 + (y_val == 1)
    mine = {"X_val": X_val, "y_val": y_val, "sample_weight_val": weight}
    chunks = {"X_val": (2000, D), "y_val": 2000, "sample_weight_val": 2000}
    theirs = {name: da.from_array(values, chunks=chunks[name]) for name, values in mine.items()}
    one, other = (fitted(early_stopping=True, max_iter=8, fit=given) for given in (mine, theirs))
    same_model(one, other)
    np.testing.assert_allclose(one.validation_loss_curve_, other.validation_loss_curve_, rtol=1e-12)
    np.testing.assert_allclose(one.validation_scores_, other.validation_scores_, rtol=1e-12)
    assert 1 <= one.best_epoch_ <= one.n_iter_ <= 8


def test_wide_rows(client):
    """Which a fit in memory would turn to the space that they span."""
    values, labels = made(60, 1000, n_classes=2)
    there = quietly(da.from_array(values, chunks=(20, 1000)), labels, max_iter=30)
    assert there.score(values, labels) == 1


def test_rows_held_out(client, model):
    """A tenth of each chunk, of which training sees nothing."""
    there = fitted(early_stopping=True, max_iter=8)
    assert 0.88 * N < there._stream["n_rows"] < 0.92 * N
    assert len(there.validation_scores_) == there.n_iter_
    assert abs(there.validation_scores_[-1] - model.score(DX, DY)) < 0.02


# ---- what goes wrong


def test_a_chunk_with_a_nan_is_named(client):
    def spoiled(block, block_info=None):
        block = block.copy()
        block[5, 2] = np.nan if block_info[0]["chunk-location"][0] == 2 else 0
        return block

    estimator = SoftmaxRegressionClassifier(**SHORT)
    with pytest.raises(ValueError, match=r"Chunk 2: .*NaN"):
        estimator.fit(DX.map_blocks(spoiled, dtype=np.float32, meta=X[:0]), DY)
    assert not hasattr(estimator, "n_features_in_")


def test_errors(client, model):
    with pytest.raises(ValueError, match="only one class: 0"):
        fitted(DX, DY * 0)
    with pytest.raises(ValueError, match="rows of one class only"):
        quietly(DX, DY, class_weight={0: 1, 1: 0, 2: 0})
    with pytest.raises(TypeError, match=r"X is a numpy.ndarray: expected a dask array"):
        fitted(X, Y)
    with pytest.raises(TypeError, match="Chunk 0: X holds 'a', a str"):
        quietly(da.from_array(np.array([["a"], ["b"]], dtype=object), chunks=(2, 1)), np.array([0, 1]))
    with pytest.raises(ValueError, match=r"X has 7 chunks of rows, but y has 5"):
        fitted(DX, frames()[1])
    with pytest.raises(ValueError, match="y has 19999 entries, but X has 20000 rows"):
        fitted(DX, DY[1:])
    with pytest.raises(ValueError, match="rounds_per_epoch=0 is not valid"):
        fitted(rounds_per_epoch=0)
    with pytest.raises(ValueError, match="X has 5 columns, but this model was fitted with 6"):
        model.predict(DX[:, 1:])
    with pytest.raises(ValueError, match="X_val is given, but y_val is not"):
        fitted(fit={"X_val": DX})


def test_chunks_that_differ(client):
    two = [dask.delayed(X[:3000]), dask.delayed(X[3000:6000, :4])]
    odd = da.concatenate([da.from_delayed(part, (3000, D), np.float32) for part in two])
    with pytest.raises(ValueError, match=r"Chunk 0 has 6 columns of float32, but chunk 1 has 4 columns of float32"):
        quietly(odd, np.arange(6000) % 2)


def test_an_error_of_the_loader_comes_through(client):
    def load(block):
        raise KeyError("no such bucket")

    with pytest.raises(RuntimeError, match=r"Dask gave up on a part of the work: KeyError: .*no such bucket") as caught:
        fitted(DX.map_blocks(load, dtype=np.float32, meta=X[:0]), DY)
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_failed_fit_leaves_nothing_on_the_cluster(client):
    """Although its traceback is held."""
    before = set(client.futures)  # among them, perhaps, some of an earlier fit that are let go of meanwhile
    with pytest.raises(ValueError, match="NaN") as caught:
        fitted(DX * np.nan, DY)
    for _ in range(1000):  # the client lets go of them in its own thread
        if not set(client.futures) - before:
            break
        time.sleep(0.02)
    assert set(client.futures) - before == set()
    assert caught.tb is not None


def test_what_is_no_client(client):
    with pytest.raises(TypeError, match="client='tcp://here' is not valid"):
        fitted(DX, DY, client="tcp://here")


def test_when_dask_gives_up(tmp_path):
    """A chunk that kills each worker that loads it, for want of memory for example."""

    def load(block):
        os.kill(os.getpid(), signal.SIGKILL)

    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), cluster(n_workers=1, processes=True) as mortal:
        estimator = SoftmaxRegressionClassifier(client=mortal, **SHORT)
        with pytest.raises(RuntimeError, match="Dask gave up on a part of the work: KilledWorker: ") as caught:
            estimator.fit(DX.map_blocks(load, dtype=np.float32, meta=X[:0]), DY)
    assert isinstance(caught.value.__cause__, KilledWorker)
    assert not hasattr(estimator, "n_features_in_")


def test_too_many_workers_are_not_used(client):
    with pytest.warns(UserWarning, match="2000 rows in 5 epochs are work for 1 of the 2 threads"):
        fitted(DX[::10], DY[::10])


def test_sorted_rows_in_their_order_are_said(client):
    with pytest.warns(
        UserWarning, match="shuffle=False visits the rows in their order, in which labels change 2 times"
    ):
        fitted(shuffle=False)


def test_a_failed_fit_draws_nothing_and_leaves_the_model(client):
    seed = np.random.RandomState(3)
    estimator = fitted(random_state=seed)
    coef, state = estimator.coef_, seed.get_state()[2]
    with pytest.raises(ValueError):
        estimator.fit(DX[:, :2] * np.nan, DY)
    assert estimator.coef_ is coef and estimator.n_features_in_ == D and seed.get_state()[2] == state


# ---- predictions, copies, exits


def test_predictions_are_lazy(client, model):
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        lazy, here = getattr(model, method)(DX), getattr(model, method)(X)
        assert isinstance(lazy, da.Array) and isinstance(here, np.ndarray)
        assert lazy.shape == here.shape and lazy.dtype == here.dtype and lazy.chunks[0] == DX.chunks[0]
        np.testing.assert_array_equal(lazy.compute(), here)

    def load(block):
        raise AssertionError("computed")

    model.predict(DX.map_blocks(load, dtype=np.float32, meta=X[:0]))
    assert model.score(DX, DY) == pytest.approx(model.score(X, Y))


def test_to_local(client, model):
    local = model.to_local()
    assert type(local) is skdl.SoftmaxRegressionClassifier and local.max_iter == SHORT["max_iter"]
    assert {name for name in vars(local) if name.endswith("_")} == {name for name in vars(model) if name.endswith("_")}
    np.testing.assert_array_equal(local.predict_proba(X), model.predict_proba(X))
    local.partial_fit(X[:10], Y[:10])


def test_clone_and_pickle(client, model):
    estimator = SoftmaxRegressionClassifier(client=client, rounds_per_epoch=3, alpha=0.1)
    copy = clone(estimator)
    assert copy.client is client and copy.rounds_per_epoch == 3 and copy.alpha == 0.1
    assert set(skdl.SoftmaxRegressionClassifier().get_params()) < set(estimator.get_params())
    back = pickle.loads(pickle.dumps(estimator))
    assert back.client is None and back.rounds_per_epoch == 3
    same_model(pickle.loads(pickle.dumps(model)), model)


# ---- sizes


def test_sizes():
    def sizes(n_rows, n_threads, max_iter=5, rounds="auto", **params):
        options = check(skdl.SoftmaxRegressionClassifier(max_iter=max_iter, **params))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            return (*_rounds.sizes(n_rows, n_threads, options, rounds), len(caught))

    assert sizes(600_000, 1) == (1, 128, 1, 1.0, 0)
    assert sizes(2_400_000, 62) == (62, 128, 5, 1.0, 0)
    assert sizes(600_000, 62) == (62, 32, 20, 4.0, 0)
    assert sizes(600_000, 64) == (62, 32, 20, 4.0, 1)
    assert sizes(600_000, 64, lr=0.1) == (15, 128, 5, 1.0, 1)  # a step of the user's keeps its minibatch
    assert sizes(100, 2, max_iter=10_000, batch_size=64)[2] == 1  # no round without a minibatch


@pytest.mark.parametrize("n_rows, n_rounds", [(100, 1), (103, 4), (7, 2)])
@pytest.mark.parametrize("seed", [None, (3, 0)])
def test_rounds_of_an_epoch_visit_each_row_once(n_rows, n_rounds, seed):
    epoch = _shards.Epoch(seed, np.linspace(1, 0, 9)[np.newaxis], n_rounds)
    rows = [epoch.rows(n_rows, 2, i) for i in range(n_rounds)]
    np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(n_rows))
    sizes = [epoch.sizes(n_rows, 10, i)[0] for i in range(n_rounds)]
    assert [len(of_round) for of_round in sizes] == [-(-len(of_round) // 10) for of_round in rows]
    whole = [size for of_round, visited in zip(sizes, rows, strict=True) for size in of_round[: len(visited) // 10]]
    assert sorted(whole, reverse=True) == whole
    first = [of_round[0] for of_round in sizes]
    assert sorted(set(first), reverse=True) == first


def test_a_short_minibatch_makes_a_part_of_a_step():
    epoch = _shards.Epoch(None, np.linspace(1, 0, 9)[np.newaxis], 2)
    np.testing.assert_allclose([epoch.sizes(27, 10, i)[0] for i in (0, 1)], [[1, 0.75 * 0.3], [0.5, 0.25 * 0.4]])


def test_an_average_weighs_shards_by_their_rows():
    def state(n_rows, value):
        pair = np.full((1, 2, 3), value, np.float32), np.full((1, 2), value, np.float32)
        return _shards.State(n_rows, np.array([value]), pair, pair)

    mean = _shards.average([state(1, 4.0), state(3, 8.0)], state(9, 16.0))
    assert mean.n_rows == 4 and mean.loss == 28
    for pair in (mean.parameters, mean.velocity):
        np.testing.assert_array_equal(np.concatenate([a.ravel() for a in pair]), 7)


def test_an_exchange_is_even_and_loses_no_row():
    x = np.arange(1000, dtype=np.float32)[:, np.newaxis]
    parts = [(x[part], np.arange(len(part)) % 2, None) for part in np.array_split(np.arange(1000), 13)]
    problem, _ = _rounds.pose(
        check(skdl.SoftmaxRegressionClassifier(max_iter=1000)), _rounds.InProcess(4), parts, seed=0, weighted=False
    )
    shards = problem.source.shards
    assert max(len(shard.y) for shard in shards) - min(len(shard.y) for shard in shards) <= 13
    np.testing.assert_array_equal(np.sort(np.concatenate([shard.X for shard in shards]), axis=0), x)
    assert all(abs(shard.X.mean() - x.mean()) < 60 for shard in shards)
