"""The shipped kernels against finite differences and the NumPy twin: OpenMP's on every instruction set of this processor,
OpenCL's with the tiles of CPUs and of GPUs.
"""

import os
from copy import copy
from importlib.util import find_spec

import numpy as np
import pytest
import reference
from _helpers import Problem, logits, predicted, started_side_by_side
from scipy import sparse
from scipy.special import log_softmax, softmax

from skdl import _kernels, _softmax
from skdl._backends import get_backend, instruction_set
from skdl._data import InMemory
from skdl._products import row_products
from skdl._sgd import with_model_axis
from skdl.openmp import _backend as _openmp
from skdl.openmp import _layouts, _threads

_Scratch = _kernels.Scratch
NARROW = ["float32", "float16", "uint8", "int8", "bool"]

OPENMP_PATHS = [("openmp", name) for name in _kernels.instruction_sets()]
KERNEL_PATHS = [*OPENMP_PATHS, ("opencl", "cpu"), ("opencl", "gpu")]


@pytest.fixture(params=KERNEL_PATHS, ids="-".join)
def kernel_path(request, monkeypatch):
    """The name of the backend, whose kernels take one of their paths."""
    backend, path = request.param
    if backend == "openmp":
        monkeypatch.setenv("SKDL_INSTRUCTION_SET", path)
    else:
        monkeypatch.setattr("skdl.opencl._device.is_cpu", lambda device: path == "cpu")
    return backend


@pytest.fixture
def many_parts(monkeypatch):
    """Small problems take the way of large ones: several blocks, several chunks a batch, more threads than blocks."""
    monkeypatch.setattr(_layouts, "BLOCK_VECTORS", 1)
    monkeypatch.setattr(_layouts, "MAX_CHUNK_BYTES", 1)
    monkeypatch.setattr(_threads, "FLOP_PER_THREAD", 1)
    if find_spec("pyopencl") is not None:
        monkeypatch.setattr("skdl.opencl._layout.FUSED_LOGITS", 0)
        monkeypatch.setattr("skdl.opencl._layout.CHUNK_BYTES", {"cpu": 1 << 12, "gpu": 1 << 12})


def relative_error(a, b):
    return np.linalg.norm(np.asarray(a, float) - b) / np.linalg.norm(b)


def central_differences(f, x, h=1e-5):
    gradient = np.empty_like(x)
    for i in np.ndindex(x.shape):
        e = np.zeros_like(x)
        e[i] = h
        gradient[i] = (f(x + e) - f(x - e)) / (2 * h)
    return gradient


@pytest.mark.parametrize("n_logits", [1, 3, 5])
def test_twin_gradient(n_logits):
    p = Problem(12, 4, n_logits)
    X = p.dense
    _, G, g = reference.loss_and_gradient(p.W, p.b, X, p.y, p.weight)
    numeric_G = central_differences(lambda W: reference.loss_and_gradient(W, p.b, X, p.y, p.weight)[0], p.W)
    numeric_g = central_differences(lambda b: reference.loss_and_gradient(p.W, b, X, p.y, p.weight)[0], p.b)
    assert relative_error(G, numeric_G) < 1e-8
    assert relative_error(g, numeric_g) < 1e-8


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("csr", [False, True])
@pytest.mark.parametrize(("n", "d", "n_logits"), [(1, 1, 1), (5, 3, 3), (21, 7, 1), (19, 17, 10), (34, 5, 17)])
def test_gradient(kernel_path, n, d, n_logits, csr, weighted):
    """One full-batch step of size 1 moves by the gradient; a step of size 0 measures the loss."""
    p = Problem(n, d, n_logits, backend=kernel_path, csr=csr, weighted=weighted)
    _, W, b, _ = p.run([1.0], n)
    numeric_G = central_differences(lambda W: p.run([0.0], n, W=W)[0], p.W)
    numeric_g = central_differences(lambda b: p.run([0.0], n, b=b)[0], p.b)
    assert relative_error(p.W - W, numeric_G) < 1e-6
    assert relative_error(p.b - b, numeric_g) < 1e-6


@pytest.mark.parametrize("csr", [False, True])
def test_gradient_of_a_thousand_classes(kernel_path, csr):
    """Along random directions, since each difference costs a pass."""
    p = Problem(50, 30, 1000, backend=kernel_path, csr=csr)
    _, W, b, _ = p.run([1.0], 50)
    rng = np.random.default_rng(1)
    for _ in range(5):
        D, e = rng.normal(size=p.W.shape), rng.normal(size=p.b.shape)
        slope = central_differences(lambda t: p.run([0.0], 50, W=p.W + t[0] * D, b=p.b + t[0] * e)[0], np.zeros(1))[0]  # noqa: B023
        assert ((p.W - W) * D).sum() + ((p.b - b) * e).sum() == pytest.approx(slope, rel=1e-6)


PENALTIES = {"none": (0.0, 0.0), "l2": (0.0, 0.1), "l1": (0.05, 0.0), "both": (0.05, 0.1)}


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("csr", [False, True])
@pytest.mark.parametrize(
    ("n", "d", "n_logits", "batch_size"), [(7, 5, 3, 1), (50, 33, 10, 16), (30, 130, 5, 16), (101, 250, 1, 40)]
)
def test_epochs_equal_the_twin(kernel_path, n, d, n_logits, batch_size, csr, penalty, momentum):
    p = Problem(n, d, n_logits, backend=kernel_path, csr=csr)
    step_sizes = np.linspace(0.5, 0.1, -(-n // batch_size))
    l1, l2 = (np.linspace(0.5, 1.5, d) * strength for strength in PENALTIES[penalty])
    settings = {"momentum": momentum, "l1": l1, "l2": l2, "coordinates": True, "n_epochs": 2}
    loss, W, b, (V, v) = p.run_twin(step_sizes, batch_size, **settings)
    got_loss, got_W, got_b, (got_V, got_v) = p.run(step_sizes, batch_size, **settings)
    assert got_loss == pytest.approx(loss, rel=1e-11)
    np.testing.assert_allclose(got_W, W, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(got_b, b, rtol=1e-9, atol=1e-12)
    if momentum:
        np.testing.assert_allclose(got_V, V, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(got_v, v, rtol=1e-9, atol=1e-12)
    if penalty in ("l1", "both"):
        assert ((got_W == 0) == (W == 0)).all()
        assert (W == 0).any() or n == 7  # 15 coefficients need not have a zero


@pytest.mark.parametrize("csr", [False, True])
@pytest.mark.parametrize(("n", "d", "n_logits", "batch_size"), [(90, 100, 10, 64), (64, 40, 17, 64), (40, 20, 1, 33)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("kernel_path", OPENMP_PATHS, ids="-".join, indirect=True)
def test_blocks_chunks_and_threads(many_parts, kernel_path, n, d, n_logits, batch_size, momentum, dtype, csr):
    """The ways of large problems give the twin's result, and the same bits for any number of threads."""
    p = Problem(n, d, n_logits, csr=csr, storage=dtype)
    step_sizes = np.full(-(-n // batch_size), 0.3)
    settings = {
        "momentum": momentum,
        "l1": np.full(d, 0.01),
        "l2": np.full(d, 0.01),
        "coordinates": True,
        "n_epochs": 2,
    }
    _, W, b, _ = p.run_twin(step_sizes, batch_size, **settings)
    results = [p.run(step_sizes, batch_size, n_jobs=n_jobs, **settings) for n_jobs in (1, 2, 3, 8)]
    tolerance = 1e-9 if dtype == "float64" else 1e-4
    np.testing.assert_allclose(results[0][1], W, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(results[0][2], b, rtol=tolerance, atol=tolerance)
    for loss, W, b, (V, v) in results[1:]:
        assert loss == results[0][0]
        for a, first in ((W, results[0][1]), (b, results[0][2]), (V, results[0][3][0]), (v, results[0][3][1])):
            np.testing.assert_array_equal(a, first)


def settings_of_models(n_models, d):
    """Momentum and penalties, no two the same; some are 0."""
    return [
        {"momentum": 0.9 * m / n_models, "l1": np.full(d, 0.02 * (m % 3)), "l2": np.full(d, 0.1 * (m % 4))}
        for m in range(n_models)
    ]


def trained(problem, training, step_sizes, n_epochs=2):
    """Losses, parameters and velocities of each model after epochs in one call."""
    orders = np.stack([np.roll(problem.order, epoch) for epoch in range(n_epochs)])
    step_sizes = np.repeat(np.asarray(step_sizes)[:, np.newaxis], n_epochs, axis=1)
    losses = training.run(problem.block, orders, step_sizes)
    return list(zip(losses, *training.parameters(), *training.velocity(), strict=True))


def same_course(got, expected, settings):
    """The same bits. A velocity that no momentum uses need not be kept."""
    for a, b in zip(got, expected[: 5 if settings["momentum"] else 3], strict=False):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("parts", ["one part", "many parts"])
@pytest.mark.parametrize("csr", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("n_models", "n", "d", "n_logits", "batch_size"),
    [(5, 21, 7, 1, 6), (18, 101, 250, 1, 40), (5, 50, 33, 3, 16), (4, 60, 130, 10, 32), (3, 33, 20, 70, 16)],
)
def test_models_side_by_side(kernel_path, request, n_models, n, d, n_logits, batch_size, dtype, csr, parts):
    """Each takes the steps that it takes alone, to the bit, and these are the twin's."""
    if parts == "many parts":
        request.getfixturevalue("many_parts")
    p = Problem(n, d, n_logits, backend=kernel_path, storage=dtype, csr=csr)
    models, settings = p.others(n_models), settings_of_models(n_models, d)
    step_sizes = np.linspace(0.05, 0.3, n_models)[:, np.newaxis] * np.linspace(1, 0.5, -(-n // batch_size))

    def started(these):
        return started_side_by_side(models[these], settings[these], batch_size, coordinates=True, n_jobs=3)

    for m, together in enumerate(trained(p, started(slice(None)), step_sizes)):
        these = slice(m, m + 1)
        [alone] = trained(p, started(these), step_sizes[these])
        same_course(together, alone, settings[m])
    tolerance = 1e-9 if dtype == "float64" else 1e-4
    for m, (losses, *got) in enumerate(trained(p, started(slice(None)), step_sizes, n_epochs=1)):
        loss, W, b, velocity = models[m].run_twin(step_sizes[m], batch_size, coordinates=True, **settings[m])
        assert losses[0] / n == pytest.approx(loss, rel=tolerance)
        for a, right in zip(got, (W, b, *velocity) if settings[m]["momentum"] else (W, b), strict=False):
            np.testing.assert_allclose(a, right, rtol=tolerance, atol=tolerance)


def test_parts_follow_from_one_model(kernel_path, monkeypatch):
    """Where a minibatch of one model just fits in one part, so does that of many."""
    monkeypatch.setattr(_layouts, "MAX_CHUNK_BYTES", 1 << 15)
    if kernel_path == "opencl":
        monkeypatch.setattr("skdl.opencl._layout.FUSED_LOGITS", 40 * 3)
    n_models, d = 20, 130
    p = Problem(101, d, 3, backend=kernel_path, storage="float32")
    models, settings, step_sizes = p.others(n_models), settings_of_models(n_models, d), np.full((n_models, 3), 0.1)
    together = trained(p, started_side_by_side(models, settings, 40), step_sizes)
    alone = trained(p, started_side_by_side(models[-1:], settings[-1:], 40), step_sizes[-1:])
    same_course(together[-1], alone[0], settings[-1])


@pytest.mark.parametrize("csr", [False, True])
@pytest.mark.parametrize("n_logits", [1, 3, 70])
def test_a_model_changes_and_another_leaves(kernel_path, n_logits, csr):
    """New penalties are of one model alone, and those that stay go on as they were."""
    n_models, d, changed, stay = 4, 20, 1, [0, 1, 3]
    p = Problem(40, d, n_logits, backend=kernel_path, storage="float32", csr=csr)
    models, settings, step_sizes = p.others(n_models), settings_of_models(n_models, d), np.full((n_models, 3), 0.1)
    new = {"l1": np.linspace(0, 0.1, d), "l2": np.linspace(0.2, 0.1, d)}

    def first_part(these):
        """Training of some models, after an epoch with the old penalties and one with the new."""
        training = started_side_by_side([models[m] for m in these], [settings[m] for m in these], 16)
        trained(p, training, step_sizes[these], n_epochs=1)
        if changed in these:
            training.penalise(these.index(changed), **new)
        trained(p, training, step_sizes[these], n_epochs=1)
        return training

    alone = [first_part([m]) for m in stay]
    together = first_part(list(range(n_models)))
    settings[changed].update(new)
    for get in (together.parameters, together.velocity):
        for of_all, of_one in zip(get(), get(slice(2, 3)), strict=True):
            np.testing.assert_array_equal(of_all[2:3], of_one)
    left = copy(models)
    for m in stay:
        left[m] = copy(models[m])
        (left[m].W, left[m].b), (left[m].V, left[m].v) = (
            (a[m] for a in pair) for pair in (together.parameters(), together.velocity())
        )
    restarted = started_side_by_side([left[m] for m in stay], [settings[m] for m in stay], 16)
    for m, got, training in zip(stay, trained(p, restarted, step_sizes[stay]), alone, strict=True):
        [expected] = trained(p, training, step_sizes[[m]])
        same_course(got, expected, settings[m])


@pytest.mark.parametrize("csr", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("n_logits", [1, 3, 17])
def test_logits_of_all_sizes(kernel_path, n_logits, dtype, csr):
    """Differences of thousands between the logits of a row, with the largest in any place: neither overflow nor garbage."""
    p = Problem(60, 20, n_logits, backend=kernel_path, storage=dtype, csr=csr)
    p.W *= np.logspace(-1, 4, 20)
    p.b[:] = p.b[::-1] * 1000
    loss, W, b, _ = p.run_twin([0.5], 60)
    got_loss, got_W, got_b, _ = p.run([0.5], 60)
    rtol = 1e-10 if dtype == "float64" else 1e-5
    assert got_loss == pytest.approx(loss, rel=rtol)
    np.testing.assert_allclose(got_W, W, rtol=rtol, atol=1e-12 if dtype == "float64" else 1e-4)
    np.testing.assert_allclose(got_b, b, rtol=rtol)


@pytest.mark.parametrize("storage", NARROW)
def test_storage_types(kernel_path, storage):
    """Narrow types give the bits of their float32 copy, and the twin's result to float32's rounding."""
    p, q = (Problem(60, 37, 10, backend=kernel_path, storage=storage) for _ in range(2))
    q.X = q.X.astype(np.float32)
    settings = {"momentum": 0.9, "coordinates": True}
    step_sizes = np.full(4, 0.2)
    loss, W, b, _ = p.run(step_sizes, 16, **settings)
    expected_loss, expected_W, expected_b, _ = q.run(step_sizes, 16, **settings)
    assert loss == expected_loss
    np.testing.assert_array_equal(W, expected_W)
    np.testing.assert_array_equal(b, expected_b)
    _, W, b, _ = p.run_twin(step_sizes, 16, **settings)
    # 60 float32 additions of numbers of order 1 in each sum
    np.testing.assert_allclose(expected_W, W, rtol=1e-4, atol=60 * np.finfo(np.float32).eps)
    np.testing.assert_allclose(expected_b, b, rtol=1e-4, atol=60 * np.finfo(np.float32).eps)


def test_every_half_precision_number(kernel_path):
    """All finite float16 values, subnormal ones included, are converted exactly."""
    X = np.arange(2**16, dtype=np.uint16).view(np.float16)
    X = X[np.isfinite(X)].reshape(-1, 1)
    got = logits(kernel_path, X, np.ones((1, 1), np.float32), np.zeros(1, np.float32))
    np.testing.assert_array_equal(got, X.astype(np.float32))


@pytest.mark.parametrize("fit_intercept", [False, True])
def test_intercept_stays_where_it_is_not_fitted(kernel_path, fit_intercept):
    p = Problem(30, 5, 3, backend=kernel_path)
    _, _, b, _ = p.run([0.1, 0.1], 15, fit_intercept=fit_intercept)
    assert (b == p.b).all() != fit_intercept


@pytest.mark.parametrize("storage", ["float64", *NARROW])
@pytest.mark.parametrize("n_logits", [1, 3, 17, 70])
def test_decision_function(kernel_path, storage, n_logits):
    p = Problem(301, 37, n_logits, storage=storage)
    expected = p.dense.astype(float) @ p.W.T + p.b
    got = logits(kernel_path, p.X, p.W, p.b, n_jobs=2)
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)
    rows = p.order[:50]
    np.testing.assert_array_equal(logits(kernel_path, p.X, p.W, p.b, rows=rows), got[rows])
    np.testing.assert_array_equal(logits(kernel_path, p.X[7:8], p.W, p.b), got[7:8])


@pytest.mark.parametrize("csr", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("d", "n_logits"), [(5, 1), (5, 3), (37, 10), (300, 33), (20, 100)])
def test_predictions(kernel_path, d, n_logits, dtype, csr):
    """Each output is what NumPy makes of the logits, for all rows, for some of them, and for one alone."""
    p = Problem(200, d, n_logits, storage=dtype, csr=csr)
    W, b, ulp = 2 * p.W.astype(dtype), p.b.astype(dtype), np.finfo(dtype).eps
    h = logits(kernel_path, p.X, W, b)
    np.testing.assert_allclose(h, p.dense @ W.astype(float).T + b, rtol=100 * ulp, atol=1000 * ulp)
    h = h.astype(float)
    h = np.hstack([np.zeros((200, 1)), h]) if n_logits == 1 else h
    expected = {
        "probabilities": softmax(h, axis=1),
        "log_probabilities": log_softmax(h, axis=1),
        "classes": h.argmax(axis=1),
        "losses": np.stack([-log_softmax(h, axis=1)[np.arange(200), p.y], h.argmax(axis=1) == p.y]),
    }
    rows = p.order[:37]
    for output in _softmax.OUTPUTS:
        got = predicted(kernel_path, output, p.X, W, b, y=p.y)
        if output in expected:
            rtol = 1e-13 if dtype == "float64" or output == "losses" else 2 * ulp
            np.testing.assert_allclose(got, expected[output], rtol=rtol, atol=1e-14)
        some = predicted(kernel_path, output, p.X, W, b, rows=rows, y=p.y[rows])
        np.testing.assert_array_equal(some, got[..., rows] if output == "losses" else got[rows])
        one = predicted(kernel_path, output, p.X[7:8], W, b, y=p.y[7:8])
        np.testing.assert_array_equal(one, got[:, 7:8] if output == "losses" else got[7:8])


@pytest.mark.parametrize("output", _softmax.OUTPUTS)
@pytest.mark.parametrize("csr", [False, True])
@pytest.mark.parametrize("kernel_path", OPENMP_PATHS, ids="-".join, indirect=True)
def test_predictions_by_threads(many_parts, monkeypatch, kernel_path, csr, output):
    monkeypatch.setattr(_threads, "max_threads", lambda n_jobs: n_jobs)
    for n_logits in (1, 10, 40):
        p = Problem(1000, 30, n_logits, storage="float32", csr=csr)
        alone, *together = (
            predicted(kernel_path, output, p.X, p.W, p.b, y=p.y, n_jobs=n_jobs) for n_jobs in (1, 2, 3, 8)
        )
        for result in together:
            np.testing.assert_array_equal(result, alone)


@pytest.mark.parametrize("output", _softmax.OUTPUTS)
@pytest.mark.parametrize("n_logits", [1, 3, 40])
@pytest.mark.parametrize("csr", [False, True])
def test_one_logit_that_is_not_finite(kernel_path, csr, n_logits, output):
    """It is noticed wherever it is; and what lies in the memory behind the last row is not."""
    p = Problem(150, 20, n_logits, csr=csr)
    for row in (None, 0, 70, 149):
        X = p.dense.copy()
        if row is not None:
            X[row, 3], p.W[n_logits // 2, 3] = 1e308, 1e10
        predict = get_backend(kernel_path)(InMemory(p.X), n_logits).predictor(
            sparse.csr_array(X) if csr else X, None, p.y
        )
        with np.errstate(invalid="ignore"):
            _, finite = predict(with_model_axis((p.W, p.b)), output)
        assert finite == (row is None)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("index_type", [np.int32, np.int64])
@pytest.mark.parametrize("n_logits", [1, 3, 40])
def test_few_rows_of_many_features(kernel_path, n_logits, index_type, dtype):
    """The coefficients of features that do not occur are not looked at."""
    d = 5000
    X = sparse.random_array((40, d), density=0.002, format="csr", dtype=np.float64, rng=0).astype(dtype)
    X.indices, X.indptr = X.indices.astype(index_type), X.indptr.astype(index_type)
    rng, rows = np.random.default_rng(1), np.array([3, 3, 17])
    W, b = rng.normal(size=(n_logits, d)).astype(dtype), rng.normal(size=n_logits).astype(dtype)
    expected = X @ W.astype(float).T + b
    W[:, (X.toarray() == 0).all(axis=0)] = np.nan
    got = logits(kernel_path, X, W, b)
    np.testing.assert_allclose(got, expected, rtol=100 * np.finfo(dtype).eps, atol=100 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(logits(kernel_path, X, W, b, rows=rows), got[rows])


@pytest.mark.parametrize(
    ("storage", "csr"), [("float64", True), ("float32", True), *((s, False) for s in ["float64", *NARROW])]
)
def test_column_statistics(kernel_path, storage, csr):
    p = Problem(150, 37, 3, backend=kernel_path, storage=storage, csr=csr)
    X, w = p.dense.astype(float), p.weight
    rows = np.sort(p.order[:100])
    statistics = p.backend().statistics(p.block, rows)
    total_weight, (mean, variance, low, high) = statistics.total_weight, statistics.of_each
    X, w = X[rows], w[rows]
    np.testing.assert_allclose(total_weight, w.sum(), rtol=1e-6)  # float32 weights are rounded
    tolerance = 1e-12 if storage == "float64" or csr else 1e-5
    expected_mean = np.average(X, axis=0, weights=w)
    if csr:
        expected_mean = np.zeros(37)
        weight = w @ (X != 0)
        np.testing.assert_allclose(high, w @ abs(X) / weight * (weight / w.sum()) ** 0.15, rtol=1e-6)
        np.testing.assert_array_equal(low, -high)
    else:
        np.testing.assert_array_equal(low, X.min(axis=0))
        np.testing.assert_array_equal(high, X.max(axis=0))
    np.testing.assert_allclose(mean, expected_mean, rtol=tolerance, atol=tolerance)
    expected_variance = np.average((X - expected_mean) ** 2, axis=0, weights=w)
    # float32 weights are rounded: relative 6e-8
    np.testing.assert_allclose(variance, expected_variance, rtol=max(tolerance, 1e-6), atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("isa", range(len(OPENMP_PATHS)))
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("n", [0, 1, 4, 13])
def test_row_products(n, transposed, isa, dtype):
    """Panels of columns and of rows, whole and broken ones; of several batches."""
    rng = np.random.default_rng(0)
    U = rng.integers(-3, 4, (2, 144, 1168)).astype(dtype)  # whole numbers: no sum is rounded
    vectors = rng.integers(-3, 4, (2, n, 144 if transposed else 1168)).astype(dtype)
    out = np.zeros((2, n, 1168 if transposed else 144))
    _kernels.row_products(U, vectors, out, transposed, isa)
    np.testing.assert_array_equal(out, vectors @ (U if transposed else U.swapaxes(1, 2)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("make", [np.asarray, sparse.csr_array], ids=["dense", "csr"])
def test_products_of_all_rows(make, dtype):
    """Of a block of rows and more, of which the last is a broken one."""
    U = np.random.default_rng(0).integers(-3, 4, (80, 1168)).astype(dtype)
    np.testing.assert_array_equal(np.triu(row_products(make(U))), np.triu(U @ U.T))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("isa", range(len(OPENMP_PATHS)))
def test_cholesky(isa, dtype):
    """Rows 7, 20 and 90 depend on rows before them, and have no column."""
    rng, n = np.random.default_rng(0), 96
    U = rng.standard_normal((n, 2 * n))
    U[20], U[90], U[7] = U[3] + U[11], -U[89], 0
    L, L_transposed = np.zeros((n, n), dtype), np.triu(U @ U.T)
    error = n * np.finfo(dtype).eps * np.diag(L_transposed)  # Higham 2002, theorem 10.3
    _kernels.cholesky(L_transposed, error, L, np.empty(_kernels.PAD * n), isa)
    np.testing.assert_array_equal(L, L_transposed.T.astype(dtype))
    np.testing.assert_array_equal(np.flatnonzero(~L.any(axis=0)), [7, 20, 90])
    np.testing.assert_allclose(L.astype(float) @ L.T.astype(float), U @ U.T, rtol=0, atol=error.max())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("lower", [False, True])
def test_solve_triangular(lower, dtype):
    """A row and a column of zeros have no part in it."""
    rng = np.random.default_rng(0)
    M = (np.tril(rng.standard_normal((20, 20))) + 9 * np.eye(20)).astype(dtype)
    M[5] = M[:, 5] = 0
    M = np.ascontiguousarray(M if lower else M.T)
    expected = rng.standard_normal((3, 20))
    expected[:, 5] = 0
    x = expected @ M.astype(float)
    x[:, 5] = 1
    _kernels.solve_triangular(M, x, lower)
    np.testing.assert_allclose(x, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n_features", [5, 37, 400])
def test_statistics_of_bytes_are_exact(n_features, kernel_path):
    X = np.random.default_rng(0).integers(0, 256, (900, n_features), dtype=np.uint8)
    X[0] = 255  # the row from which values are counted
    X[:, 0] = 255
    source = InMemory(X, np.zeros(900, int))
    mean, variance, low, high = source.statistics(get_backend(kernel_path)(source, 1)).of_each
    exact = X.astype(np.int64)
    np.testing.assert_array_equal((low, high), (X.min(axis=0), X.max(axis=0)))
    rtol = 1e-12 if os.environ.get("SKDL_INSTRUCTION_SET") in ("avx2", "avx512") else 1e-5
    np.testing.assert_allclose(mean, exact.mean(axis=0), rtol=rtol)
    np.testing.assert_allclose(variance, exact.var(axis=0), rtol=rtol, atol=1e-9)


@pytest.mark.parametrize("d", [37, 200])  # threads share the rows, or the columns
def test_column_statistics_by_threads(d, monkeypatch, many_parts):
    monkeypatch.setattr(_openmp, "STATISTICS_VALUES", 1)
    monkeypatch.setattr(_threads, "max_threads", lambda n_jobs: n_jobs)
    p = Problem(750, d, 3, storage="float32")
    X, rows = p.dense.astype(float), p.order[:700]
    expected = X[rows].mean(axis=0), X[rows].var(axis=0), X[rows].min(axis=0), X[rows].max(axis=0)
    p.weight = None
    alone = p.backend(n_jobs=1).statistics(p.block, rows)
    for got, right in zip(alone.of_each, expected, strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-5, atol=1e-6)
    for n_jobs in (2, 3, 8, 13):
        together = p.backend(n_jobs=n_jobs).statistics(p.block, rows)
        np.testing.assert_array_equal(together.of_each, alone.of_each)


@pytest.mark.parametrize("n_logits", [70, 150])
def test_fewer_threads_than_csr_has_parts(n_logits, monkeypatch, many_parts):
    """OpenMP may start fewer threads than it is asked for."""
    monkeypatch.setattr(_threads, "max_threads", lambda n_jobs: n_jobs)
    p = Problem(60, 30, n_logits, storage="float32", csr=True)
    expected = p.run([0.1] * 3, 20, momentum=0.9, n_epochs=2, n_jobs=1)
    for n_threads in (1, 2, 3):
        training = p.started(20, momentum=0.9, n_jobs=3)
        assert training.n_threads == 3
        training.n_threads = n_threads
        loss, *parameters, velocity = p.epochs(training, [0.1] * 3, 2)
        assert loss == expected[0]
        for got, right in zip((*parameters, *velocity), (*expected[1:3], *expected[3]), strict=True):
            np.testing.assert_array_equal(got, right)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("n_models", "n_logits"), [(2, 1), (17, 1), (4, 2), (5, 3), (10, 5), (3, 8), (3, 10), (2, 70)])
@pytest.mark.parametrize("kernel_path", OPENMP_PATHS, ids="-".join, indirect=True)
def test_models_of_csr_have_the_bits_of_each_alone(kernel_path, n_models, n_logits, dtype, penalty):
    """Whichever lanes they share: step sizes, momentum and penalties are their own, also where these change."""
    n, d, batch_size, rng = 90, 40, 20, np.random.default_rng(0)
    X = sparse.random_array((n, d), density=0.2, format="csr", dtype=np.dtype(dtype), rng=rng)
    source = InMemory(X, rng.integers(0, max(n_logits, 2), n).astype(np.int32))
    backend = get_backend(kernel_path)(source, n_logits)
    W, V, b, v = (rng.normal(size=(n_models, n_logits, *more)).astype(dtype) for more in ((d,), (d,), (), ()))
    l1, l2 = (
        strength * rng.uniform(size=(n_models, d)).astype(dtype) if strength else None
        for strength in PENALTIES[penalty]
    )
    step_sizes, momentum = rng.uniform(0, 0.5, (n_models, 1, -(-n // batch_size))), rng.uniform(0, 0.95, n_models)
    scale = rng.uniform(0.5, 2, d).astype(dtype)

    def trained(models):
        part = [None if a is None else a[models] for a in (W, b, V, v, l1, l2)]
        training = backend.start(part[:2], part[2:4], mean=None, scale=scale, l1=part[4], l2=part[5],
                                 momentum=momentum[models], fit_intercept=True, batch_size=batch_size)  # fmt: skip
        losses = [training.run(source.block, source.rows[np.newaxis], step_sizes[models])]
        if models.stop == n_models:
            training.penalise(len(part[0]) - 1, *(None if a is None else 2 * a[-1] for a in (l1, l2)))
        losses.append(training.run(source.block, source.rows[np.newaxis], step_sizes[models]))
        return training, (np.concatenate(losses, axis=1), *training.parameters(), *training.velocity())

    training, together = trained(slice(0, n_models))
    for model in range(n_models):
        models = slice(model, model + 1)
        _, alone = trained(models)
        for got, expected in zip(together, alone, strict=True):
            np.testing.assert_array_equal(got[models], expected)
        for got, expected in zip((*training.parameters(models), *training.velocity(models)), alone[1:], strict=True):
            np.testing.assert_array_equal(got, expected)


def test_step_sizes_for_all_minibatches():
    p = Problem(30, 5, 3)
    with pytest.raises(ValueError, match="1 x 2 x 1 step sizes: expected one for each minibatch of 10 of 1 x 30 rows"):
        p.run([0.1, 0.1], 10)


def test_scratch_that_is_too_small(monkeypatch):
    """A wrong size is an error in Python before it is one of the memory."""
    p = Problem(30, 5, 3)
    monkeypatch.setattr(_kernels, "Scratch", lambda chunk, *arrays: _Scratch(2 * chunk, *arrays))
    for use in (
        lambda: p.run([0.1], 30),
        lambda: p.backend().statistics(p.block, p.order),
        lambda: logits("openmp", p.X, p.W, p.b),
    ):
        with pytest.raises(ValueError, match=r"scratch of .* numbers: expected"):
            use()


def test_unknown_instruction_set(monkeypatch):
    monkeypatch.setenv("SKDL_INSTRUCTION_SET", "mmx")
    with pytest.raises(ValueError, match=r"SKDL_INSTRUCTION_SET='mmx'.*baseline"):
        instruction_set()


@pytest.mark.parametrize(
    ("indices", "indptr", "defect"),
    [
        ([0, 1], [0, 1, 2], None),
        ([0, 1], [1, 1, 2], "indptr must begin with 0"),
        ([0, 1], [0, 2, 1], "indptr decreases after position 1"),
        ([0, 1], [0, 1, 3], "indptr at position 2 is larger than the number of stored values"),
        ([0, 3], [0, 1, 2], "the index at position 1 is not in 0..2"),
        ([0, -1], [0, 1, 2], "the index at position 1 is not in 0..2"),
    ],
)
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_csr_defects(indices, indptr, defect, dtype):
    assert _kernels.find_csr_defect(np.array(indices, dtype), np.array(indptr, dtype), 2, 3) == defect
