"""Fits that are made on a smaller problem have the solution of the one that was asked for."""

import numpy as np
import pytest
from _helpers import Callback, make, needs_callbacks, quiet_fit, run, same_model
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from skdl import _sgd

RNG = np.random.default_rng(0)
# Few rows of correlated features in units of their own, some constant.
WIDE = RNG.standard_normal((40, 8)) @ RNG.standard_normal((8, 300)) + RNG.standard_normal((40, 300))
WIDE = WIDE * RNG.lognormal(0, 1, 300) + RNG.lognormal(2, 1, 300)
WIDE[:, ::50] = 3.0
_STORED = RNG.random(WIDE.shape) < 0.1
_STORED[np.arange(300) % 40, np.arange(300)] = True
THIN = sparse.csr_array(WIDE * _STORED)
Y = np.arange(40) % 4


@pytest.fixture
def in_full(monkeypatch):
    """A function that fits without any reduction."""

    def fit(model, *args, **kwargs):
        with monkeypatch.context() as patch:
            patch.setattr("skdl._plan.spans_little", lambda *args: False)
            patch.setattr(_sgd, "is_full", lambda source: False)
            patch.setattr(_sgd.OccurringColumns, "of", lambda *args: None)
            return quiet_fit(model, *args, **kwargs)

    return fit


def turned(model, *args, **kwargs):
    """A fit that must have turned to the space of the rows."""
    seen = []
    before = _sgd.make_plan

    def plan(source, *args, **kwargs):
        made = before(source, *args, **kwargs)
        seen.append(made.source.n_features)
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_sgd, "make_plan", plan)
        quiet_fit(model, *args, **kwargs)
    assert seen[0] < model.n_features_in_ / 2
    return model


@pytest.mark.parametrize("X", [WIDE, THIN, WIDE.astype("f4")], ids=["dense", "csr", "float32"])
@pytest.mark.parametrize(
    ("params", "y"),
    [
        ({}, Y),
        ({"batch_size": 10}, Y),
        ({"fit_intercept": False}, Y),
        ({"alpha": 0.0}, Y),
        ({"class_weight": "balanced"}, Y % 2),
        ({"lr_schedule": "constant"}, Y > 0),
        ({"early_stopping": True, "validation_fraction": 0.2}, Y % 2),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_fit_in_the_space_of_the_rows(X, y, params, in_full, backend):
    """SGD takes the same path in it, and at its end is the same model."""
    if sparse.issparse(X) and params.get("batch_size"):
        params = {}  # between two minibatches that it is in, a feature of CSR takes the penalty of all in one step
    params = {"max_iter": 200, "alpha": 0.05, "tol": 0, **params}
    small, full = turned(make(**params), X, y), in_full(make(**params), X, y)
    tolerance = 2e-3 if X.dtype == np.float32 else 1e-6
    assert_allclose(small.loss_curve_, full.loss_curve_, rtol=tolerance, atol=tolerance)
    assert_allclose(small.decision_function(X), full.decision_function(X), rtol=tolerance, atol=10 * tolerance)
    largest = abs(full.coef_).max()
    assert_allclose(small.coef_, full.coef_, atol=tolerance * largest)
    assert_array_equal(small.scale_, full.scale_)
    assert small.coef_.dtype == full.coef_.dtype


def test_weights_and_rows_without_weight(in_full):
    weight = RNG.integers(0, 3, 40).astype(float)
    model = make(max_iter=100, alpha=0.05)
    small = turned(model, WIDE, Y, sample_weight=weight).coef_
    assert_allclose(small, in_full(model, WIDE, Y, sample_weight=weight).coef_, atol=1e-6 * abs(small).max())


def test_rows_that_repeat(in_full):
    """The space has fewer dimensions than there are rows."""
    X, y, model = np.tile(WIDE[:10], (4, 1)), np.tile(Y[:10], 4), make(max_iter=100, alpha=0.05)
    small = turned(model, X, y).coef_
    assert_allclose(small, in_full(model, X, y).coef_, atol=1e-5 * abs(small).max())


@needs_callbacks
def test_validation_and_callbacks_see_the_model_of_x(in_full):
    params = {"max_iter": 20, "alpha": 0.05}
    small = turned(make(**params), WIDE, Y, X_val=WIDE, y_val=Y)
    full = in_full(make(**params), WIDE, Y, X_val=WIDE, y_val=Y)
    assert_allclose(small.validation_loss_curve_, full.validation_loss_curve_, rtol=1e-6)
    shapes = []

    class Watch(Callback):
        def on_fit_task_end(self, estimator, context, *, fitted_estimator):
            if context.task_name == "epoch":
                shapes.append(fitted_estimator.coef_.shape)

    watched = make(**params).set_callbacks(Watch())
    quiet_fit(watched, WIDE, Y)
    assert set(shapes) == {(4, 300)}
    assert len(shapes) >= 20
    assert_array_equal(watched.coef_, quiet_fit(make(**params), WIDE, Y).coef_)


@pytest.mark.parametrize("params", [{"l1_ratio": 0.5}, {"standardize": False}, {"lr": 1e-4}], ids=str)
def test_what_does_not_turn(params, in_full):
    """Other penalties and steps are not the same in other coordinates."""
    params = {"max_iter": 20, "alpha": 0.05, **params}
    same_model(quiet_fit(make(**params), WIDE, Y), in_full(make(**params), WIDE, Y))


def test_a_model_to_start_with_does_not_turn(in_full):
    model = make(max_iter=200, alpha=0.05, warm_start=True)
    quiet_fit(model, WIDE, Y)
    other = make(max_iter=200, alpha=0.05, warm_start=True).set_params(**model.get_params())
    vars(other).update(vars(model))
    same_model(quiet_fit(model, WIDE, Y), in_full(other, WIDE, Y))


@pytest.mark.parametrize("params", [{}, {"l1_ratio": 0.5}, {"lr": 0.1}, {"standardize": False}], ids=str)
@pytest.mark.parametrize("many", [1, 5])
def test_columns_without_values(params, many, backend):
    """They change the order of sums at most, and their coefficients are 0."""
    X, y = sparse.vstack([THIN] * many, format="csr"), np.tile(Y, many)
    columns = np.sort(np.random.default_rng(1).choice(5000, 300, replace=False))
    spread = sparse.csr_array((X.data, columns[X.indices], X.indptr), shape=(X.shape[0], 5000))
    params = {"max_iter": 20, **params}
    small, wide = quiet_fit(make(**params), X, y), quiet_fit(make(**params), spread, y)
    assert_allclose(wide.coef_[:, columns], small.coef_, rtol=1e-10, atol=1e-15)
    assert_allclose(wide.intercept_, small.intercept_, rtol=1e-10)
    others = np.delete(np.arange(5000), columns)
    assert not wide.coef_[:, others].any()
    assert_array_equal(wide.scale_[columns], small.scale_)
    assert (wide.scale_[others] == 1).all()
    assert wide.alpha_ == pytest.approx(small.alpha_, rel=1e-10)
    small.partial_fit(X, y)
    wide.partial_fit(spread, y)
    if "lr" in params:  # that of lr="auto" in a stream depends on the number of features
        assert_allclose(wide.coef_[:, columns], small.coef_, rtol=1e-10, atol=1e-15)


def test_a_model_to_start_with_has_columns_without_values(in_full):
    """Which the penalty makes smaller."""
    spread = sparse.csr_array((THIN.data, THIN.indices * 2, THIN.indptr), shape=(40, 1000))
    before = sparse.csr_array((THIN.data, 999 - THIN.indices, THIN.indptr), shape=(40, 1000))
    models = [quiet_fit(make(max_iter=5, alpha=0.05, warm_start=True), before, Y) for _ in range(2)]
    same_model(quiet_fit(models[0], spread, Y), in_full(models[1], spread, Y))


def test_csr_with_full_rows_is_as_dense():
    same_model(quiet_fit(make(), sparse.csr_array(WIDE + 1), Y), quiet_fit(make(), WIDE + 1, Y))


def test_same_bits_for_any_number_of_blas_threads():
    """Those of the Cholesky factor among them."""
    code = """
        import numpy as np
        from skdl import SoftmaxRegressionClassifier
        X = np.random.default_rng(0).standard_normal((300, 3000), dtype="f4")
        model = SoftmaxRegressionClassifier(max_iter=2, random_state=0).fit(X, np.arange(300) % 3)
        print(model.coef_.tobytes().hex()[::97], model.alpha_)
        """
    assert run(code, OPENBLAS_NUM_THREADS="1").stdout == run(code, OPENBLAS_NUM_THREADS="4").stdout


def separated(n, seed):
    """Rows of three classes in 2000 features, and the classes."""
    centre = np.random.default_rng(0).normal(size=(3, 2000)) * 0.15
    y = np.arange(n) % 3
    return np.random.default_rng(seed).normal(size=(n, 2000)) + centre[y], y


@pytest.mark.filterwarnings("ignore:.*rows are up to")
@pytest.mark.parametrize("times", [30, 1000, 10_000])
def test_a_long_row_sets_no_penalty_in_the_space_of_the_rows(times):
    (X, y), (X_test, y_test) = separated(60, 1), separated(600, 2)
    expected = turned(make(max_iter="auto"), X, y).alpha_
    X[5] *= times
    model = turned(make(max_iter="auto"), X, y)
    assert model.alpha_ < 1.5 * expected
    assert model.score(X_test, y_test) > 0.98


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_contradictory_copies_of_rows(dtype):
    """Rounding gives a copy no direction of its own, in which it could be told from its like."""
    X, y = np.tile(WIDE[:20, :].astype(dtype), (2, 1)), np.repeat([0, 1], 20)
    model = turned(make(max_iter="auto", alpha=1e-4), X, y)
    assert model.loss_curve_[-1] == pytest.approx(np.log(2), rel=1e-4)


def test_rows_without_weight_have_no_columns():
    X = sparse.random_array((200, 20_000), density=2e-3, format="csr", rng=0)
    y, weight = np.arange(200) % 3, np.ones(200)
    weight[::5] = 0
    without = quiet_fit(make(max_iter=50), X[weight > 0], y[weight > 0])
    assert quiet_fit(make(max_iter=50), X, y, sample_weight=weight).alpha_ == pytest.approx(without.alpha_, rel=1e-6)


@pytest.mark.parametrize("max_iter", [5, 10, 15])
def test_a_few_steps_tell_nothing_of_the_penalty(max_iter):
    """A model of five steps asked for a penalty ten thousand times too strong."""
    (X, y), (X_test, y_test) = separated(60, 1), separated(600, 2)
    assert quiet_fit(make(max_iter=max_iter), X, y).score(X_test, y_test) > 0.98
