"""Streams: partial_fit with lr="auto", weights across calls, forgetting, and what a fit leaves to a stream."""

import copy
import pickle
from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss

from skdl import SoftmaxRegressionClassifier
from skdl._data import InMemory
from skdl._scaling import Statistics
from skdl._stream import Stream

make = partial(SoftmaxRegressionClassifier, random_state=0)
X, Y = load_digits(return_X_y=True)
SHUFFLED = np.random.default_rng(0).permutation(len(Y))
TRAIN, TEST = SHUFFLED[:1200], SHUFFLED[1200:]
AS_LOADED = np.arange(len(Y))


def loss(model, rows=TEST, y=Y):
    return log_loss(y[rows], model.predict_proba(X[rows]), labels=model.classes_)


def streamed(model, rows, size, y=Y, container=np.asarray):
    for first in range(0, len(rows), size):
        chunk = rows[first : first + size]
        model.partial_fit(container(X[chunk]), y[chunk], classes=range(10))
    return model


def streamed_at_first(model, size):
    """On the training rows: 200 in calls of this size, and the others in calls of 50, which take less time."""
    return streamed(streamed(model, TRAIN[:200], size), TRAIN[200:], 50)


def test_single_rows_after_a_fit_do_no_harm():
    """Fault 5: .49 became 4.58."""
    model = make().fit(X[:1000], Y[:1000])
    before = loss(model, AS_LOADED[1000:])
    assert loss(streamed(model, AS_LOADED[1000:1400], 1), AS_LOADED[1000:]) < before


@pytest.mark.parametrize("size", [1, 20, 200])
def test_a_stream_after_a_fit_does_no_harm_where_labels_are_noisy(size):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 20))
    y = (x @ rng.normal(size=(20, 4)) * 0.5 + rng.gumbel(size=(4000, 4))).argmax(axis=1)
    model = make().fit(x[:1400], y[:1400])
    before = log_loss(y[2800:], model.predict_proba(x[2800:]))
    for first in range(1400, 2800, size):
        model.partial_fit(x[first : first + size], y[first : first + size])
    assert log_loss(y[2800:], model.predict_proba(x[2800:])) < 1.005 * before  # the noise of 1200 rows is larger


def test_mnist_after_a_fit(mnist):
    x, y, x_test, y_test = mnist
    model = make().fit(x[:3000], y[:3000])
    before = log_loss(y_test, model.predict_proba(x_test))
    for i in range(3000, 3200):
        model.partial_fit(x[i : i + 1], y[i : i + 1])
    assert log_loss(y_test, model.predict_proba(x_test)) < before


@pytest.mark.parametrize("w", [1e-6, 1, 1e6])
def test_weights_count_across_calls(w):
    """Fault 6: a step with the weights' mean over all rows so far, these included."""
    params = {"lr": 0.1, "alpha": 0, "momentum": 0, "shuffle": False}
    x = X / 16
    model = make(**params).partial_fit(x[:100], Y[:100], classes=range(10))
    expected = make(**params | {"lr": 0.1 * 2 * w / (1 + w)}).partial_fit(x[:100], Y[:100], classes=range(10))
    expected.coef_, expected.intercept_ = model.coef_, model.intercept_
    expected.partial_fit(x[100:200], Y[100:200])
    model.partial_fit(x[100:200], Y[100:200], sample_weight=np.full(100, w))
    assert_allclose(model.coef_, expected.coef_, rtol=1e-9, atol=1e-15)
    assert model.lr_ == pytest.approx(expected.lr_)


def test_weights_count_across_calls_where_the_step_is_chosen():
    models = [make(momentum=0).partial_fit(X[:100], Y[:100], classes=range(10)) for _ in range(3)]
    first = models[0].coef_
    for model, w in zip(models, (1e-6, 1, 1e6), strict=True):
        model.partial_fit(X[100:200], Y[100:200], sample_weight=np.full(100, w))
    moves = [abs(model.coef_ - first).max() for model in models]
    assert moves[0] < 1e-4 * moves[1] < moves[1] < moves[2]


@pytest.mark.parametrize("size", [10, 100, 1000])
@pytest.mark.parametrize("seed", [0, 1])
def test_uneven_weights_make_no_noise(seed, size):
    """In calls of 10 and 100 the loss was up to 2.5 times that of fit."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(6000, 20))
    y = (x @ rng.normal(size=(20, 4)) * 0.5 + rng.gumbel(size=(6000, 4))).argmax(axis=1)
    weight = np.exp(1.5 * rng.normal(size=6000))
    model, whole = make(), make().fit(x[:3000], y[:3000], weight[:3000])
    for first in range(0, 3000, size):
        rows = slice(first, first + size)
        model.partial_fit(x[rows], y[rows], classes=range(4), sample_weight=weight[rows])
    losses = [log_loss(y[3000:], m.predict_proba(x[3000:])) for m in (model, whole)]
    assert losses[0] < 1.1 * losses[1]


def test_what_weights_are_worth():
    def source(weight):
        return InMemory(np.zeros((len(weight), 1)), np.zeros(len(weight)), np.array(weight))

    stream = Stream().joined(source([1.0, 1.0])).joined(source([3e-200, 1e-200]))
    assert stream.n_effective == pytest.approx(2)
    assert Stream().joined(source([1.0, 1.0])).joined(source([3.0, 1.0])).n_effective == pytest.approx(36 / 12)


@pytest.mark.parametrize("lr", [1e-3, "auto"])
def test_the_unit_of_weights_does_not_matter(lr):
    weight = np.random.default_rng(0).uniform(0.5, 2, 300)
    models = make(lr=lr, alpha=1e-3), make(lr=lr, alpha=1e-3)
    for rows in (slice(0, 200), slice(200, 300)):
        for model, unit in zip(models, (1, 1e-3), strict=True):
            model.partial_fit(X[rows], Y[rows], classes=range(10), sample_weight=unit * weight[rows])
    assert_allclose(models[0].coef_, models[1].coef_, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("size", [1, 7, 50, 400, 1200])
def test_chunks_of_any_size(size):
    assert loss(streamed(make(), TRAIN, size)) < 0.19  # where fit has .074 after 300 passes


FIRST = {
    "constant": lambda x: np.full_like(x, 3),
    "tiny": lambda x: x * 1e-9,
    "large": lambda x: x * 1e3,
    "far away": lambda x: x + 1e6,
}


@pytest.mark.parametrize("size", [1, 50])
@pytest.mark.parametrize("n_first", [1, 20])
@pytest.mark.parametrize("name", FIRST)
def test_a_first_call_fixes_no_scale(name, n_first, size):
    first = TRAIN[:n_first]
    model = make().partial_fit(FIRST[name](X[first]), Y[first], classes=range(10))
    assert loss(streamed_at_first(model, size)) < 0.19


def test_a_row_that_is_a_thousand_times_too_large_does_no_harm():
    model = make().fit(X[:1000], Y[:1000])
    before = loss(model, AS_LOADED[1000:])
    model.partial_fit(1e3 * X[:1], Y[:1])
    assert loss(streamed(model, AS_LOADED[1000:1200], 20), AS_LOADED[1000:]) < before


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("factor", [1e3, 1e6])
@pytest.mark.parametrize("n_rows", [1, 3, 4])
@pytest.mark.parametrize("begun", ["fit", "stream"])
def test_a_corrupt_row_of_a_short_call_is_named_and_does_no_harm(begun, n_rows, factor, container):
    first, x = AS_LOADED[:1000], X[1000 : 1000 + n_rows].copy()
    fitted = make().fit(container(X[first]), Y[first]) if begun == "fit" else streamed(make(), first, 50, Y, container)
    before, scale = loss(fitted, AS_LOADED[1100:]), fitted.scale_
    x[0] *= factor
    with pytest.warns(UserWarning, match=f"1 of {n_rows} rows are up to .*count with less weight"):
        fitted.partial_fit(container(x), Y[1000 : 1000 + n_rows])
    assert loss(fitted, AS_LOADED[1100:]) < 1.01 * before
    if container is np.asarray:  # columns of short calls of CSR may be full, which changes their scale
        assert_allclose(fitted.scale_, scale, rtol=0.05)


@pytest.mark.parametrize("size", [1, 3])
def test_rows_that_all_are_far_are_no_errors(size):
    """After 300 rows in another unit: so few rows of a stream are errors, and these are many."""
    model = make().partial_fit(1e-9 * X[TRAIN[:300]], Y[TRAIN[:300]], classes=range(10))
    with pytest.warns(UserWarning, match="count with less weight") as caught:
        streamed(model, TRAIN[300:600], size)
    assert len(caught) < 10
    assert loss(model) < 2  # where the scales of the first rows leave 30


@pytest.mark.parametrize("size", [1, 50])
def test_a_half_life_follows_drift(size):
    drifted = np.random.default_rng(1).permutation(10)[Y]

    def after_drift(**params):
        model = streamed(make(**params), np.tile(TRAIN, 2), size)
        return loss(streamed(model, TRAIN, size, y=drifted), y=drifted)

    assert after_drift(half_life=200) < 0.2 < 0.25 < after_drift()


def test_a_fit_leaves_its_rows_to_a_stream():
    whole = make(max_iter=1).fit(X, Y)
    first = make().fit(X[:900], Y[:900])
    model = copy.deepcopy(first).partial_fit(X[900:], Y[900:])
    assert model.alpha_ == pytest.approx(first.alpha_ * 900 / len(X), rel=1e-6)
    assert_allclose(model.scale_, whole.scale_, rtol=1e-6)


def test_a_row_that_is_added_hardly_moves_a_fitted_model():
    model = make().fit(X[:1000], Y[:1000])
    before = model.predict_proba(X)
    assert abs(model.partial_fit(X[1000:1001], Y[1000:1001]).predict_proba(X) - before).max() < 1e-3


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_neither_threads_nor_a_pickle_change_a_stream(container):
    one, two = (streamed(make(n_jobs=n), TRAIN[:700], 300, container=container) for n in (1, 2))
    assert_array_equal(one.coef_, two.coef_)
    again = pickle.loads(pickle.dumps(one))
    for model in (one, again):
        streamed(model, TRAIN[700:], 300, container=container)
    assert_array_equal(one.coef_, again.coef_)
    assert len(one.loss_curve_) == one.n_iter_ == 5


def test_opencl_agrees_on_a_stream():
    on_cpu, on_device = (streamed(make(backend=name), TRAIN, 100) for name in ("openmp", "opencl"))
    assert_allclose(on_cpu.coef_, on_device.coef_, rtol=1e-7, atol=1e-9)


def test_a_failed_call_leaves_a_stream_as_it_was():
    model, undisturbed = streamed(make(), TRAIN[:300], 100), streamed(make(), TRAIN[:300], 100)
    with pytest.raises(ValueError, match="NaN"):
        model.partial_fit(np.full((3, 64), np.nan), Y[:3])
    assert_array_equal(*(streamed(m, TRAIN[300:600], 100).coef_ for m in (model, undisturbed)))


def test_a_dict_keeps_all_of_a_stream():
    one = Statistics(*(np.arange(3.0) for _ in Statistics._fields))
    stream = Stream(
        3.0, 2.0, 1.0, 30.0, 1.0, np.ones(2), one, one, (np.ones((2, 3)), np.ones(2)), (np.zeros((2, 3)), np.ones(2))
    )
    assert repr(Stream.from_dict(stream.to_dict())) == repr(stream)
    assert Stream.from_dict({}) == Stream() == Stream.from_dict(Stream().to_dict())
