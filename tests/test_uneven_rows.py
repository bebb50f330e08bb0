"""lr="auto" where a few rows weigh more than all others, are longer, or set the scale of a column.

Models are judged at a numeric alpha, against scikit-learn's LogisticRegression with its default C.
"""

import warnings
from functools import partial

import numpy as np
import pytest
from _helpers import DIGITS, LABELS, make, same_model
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdl import SoftmaxRegressionClassifier, _plan, _sampling
from skdl._backends import get_backend
from skdl._data import InMemory
from skdl._parameters import check

pytestmark = pytest.mark.usefixtures("backend")
fitted = partial(SoftmaxRegressionClassifier, alpha=1e-5, random_state=0)
LONG = "of .* rows are up to .* times as long as the median row.*count with less weight"


def test_loss(model, X, y):
    return log_loss(y, model.predict_proba(X), labels=model.classes_)


test_loss.__test__ = False


def objective(model, X, y, weight):
    """F, weights as in the fit."""
    penalty = model.alpha_ / 2 * ((model.coef_ * model.scale_) ** 2).sum()
    return log_loss(y, model.predict_proba(X), sample_weight=weight, labels=model.classes_) + penalty


def optimum(model, X, y, weight):
    """F of the model of the same alpha and units that LogisticRegression finds."""
    U = (X - X.mean(axis=0)) / model.scale_
    weight = weight / weight.mean()
    peer = LogisticRegression(C=1 / (model.alpha_ * len(y)), tol=1e-8, solver="newton-cholesky").fit(U, y, weight)
    loss = log_loss(y, peer.predict_proba(U), sample_weight=weight, labels=peer.classes_)
    return loss + model.alpha_ / 2 * (peer.coef_**2).sum()


def normal_rows(n_rows, n_classes, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, 10))
    return rng, X, (X @ rng.normal(size=(10, n_classes)) + rng.gumbel(size=(n_rows, n_classes))).argmax(axis=1)


def rare_class(rng):
    y = (rng.random(10_000) < 1e-3).astype(int)
    X = rng.normal(size=(10_000, 10)) + 0.8 * y[:, np.newaxis]
    return X, y, np.bincount(y)[::-1][y] / len(y)


def three_classes(weight_of, rng):
    _, X, y = normal_rows(3000, 3)
    return X, y, weight_of(rng)


def one_heavy_row(rng):
    weight = np.ones(3000)
    weight[7] = 1e5
    return weight


WEIGHTED = {
    "a class of .1 %": rare_class,
    "lognormal": partial(three_classes, lambda rng: np.exp(2.5 * rng.normal(size=3000))),
    "one row of 1e5": partial(three_classes, one_heavy_row),
}


@pytest.mark.parametrize("name", WEIGHTED)
def test_uneven_weights_reach_the_optimum(name):
    X, y, weight = WEIGHTED[name](np.random.default_rng(0))
    model = fitted().fit(X, y, weight)
    assert objective(model, X, y, weight) < 1.01 * optimum(model, X, y, weight) + 1e-3
    assert model.loss_curve_[-1] == pytest.approx(
        log_loss(y, model.predict_proba(X), sample_weight=weight), rel=0.1, abs=2e-3
    )


def test_balanced_weights_of_a_rare_class():
    rng = np.random.default_rng(0)
    y = (rng.random(20_000) < 1e-3).astype(int)
    X = rng.normal(size=(20_000, 10)) + 0.8 * y[:, np.newaxis]
    model = fitted(class_weight="balanced").fit(X[::2], y[::2])
    peer = LogisticRegression(class_weight="balanced").fit(X[::2], y[::2])
    assert test_loss(model, X[1::2], y[1::2]) < 1.05 * test_loss(peer, X[1::2], y[1::2])


def counts(spread, draws_of_a_row=None):
    """Word counts of rows of uneven length, 3,000 to train and 1,000 to test; one may have as many as is said."""
    topics = np.random.default_rng(0).dirichlet(np.full(1000, 0.3), 4)
    y = np.random.default_rng(1).integers(0, 4, 4000)
    rng = np.random.default_rng(1)
    n_words = (40 * np.exp(spread * rng.normal(size=4000))).astype(int) + 1
    n_words[5] = draws_of_a_row or n_words[5]
    X = np.array([rng.multinomial(n, topics[k]) for n, k in zip(n_words, y, strict=True)], float)
    return X[:3000], y[:3000], X[3000:], y[3000:]


def peer_of(container):
    peer = LogisticRegression(max_iter=1000)
    return make_pipeline(StandardScaler(), peer) if container is np.asarray else peer


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize(("spread", "draws"), [(1.5, None), (0.5, 10_000), (0.5, 100_000)])
def test_documents_of_uneven_length(spread, draws, container):
    X, y, X_test, y_test = counts(spread, draws)
    with pytest.warns(UserWarning, match=LONG):
        model = fitted(alpha=2e-6).fit(container(X), y)
    peer = peer_of(container).fit(container(X), y)
    assert test_loss(model, X_test, y_test) < 1.05 * test_loss(peer, X_test, y_test)


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("factor", [1e3, 1e6])
@pytest.mark.parametrize("label", ["its own", "wrong"])
def test_a_corrupt_row_is_named_and_does_no_harm(factor, label, container):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 10))
    y = (X @ rng.normal(size=10) + rng.logistic(size=2000) > 0).astype(int)
    rows = np.arange(1000)
    clean = fitted().fit(container(X[rows]), y[rows])
    X[7] *= factor
    y[7] ^= label == "wrong"
    with pytest.warns(UserWarning, match=rf"1 {LONG}") as caught:
        model = fitted().fit(container(X[rows]), y[rows])
    assert [w.filename for w in caught] == [__file__]
    assert test_loss(model, X[1000:], y[1000:]) < 1.02 * test_loss(clean, X[1000:], y[1000:])
    np.testing.assert_allclose(model.scale_, clean.scale_, rtol=0.05)


def test_a_corrupt_row_among_few():
    """Where one minibatch holds all rows, too."""
    _, X, y = normal_rows(100, 2)
    X[3] *= 1e6
    with pytest.warns(UserWarning, match=LONG):
        model = fitted().fit(X, y)
    X, y = np.delete(X, 3, axis=0), np.delete(y, 3)
    assert test_loss(model, X, y) < 1.05 * test_loss(fitted().fit(X, y), X, y)


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_corrupt_value_is_named_and_does_no_harm(sign, container):
    """It would set the scale of its column alone, and its row would be no longer than others."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 10))
    y = (X @ rng.normal(size=10) + rng.logistic(size=2000) > 0).astype(int)
    rows = np.arange(1000)
    clean = fitted(alpha="auto").fit(container(X[rows]), y[rows])
    X[7, 3] = sign * 1e6
    with pytest.warns(UserWarning, match=rf"1 {LONG}"):
        model = fitted(alpha="auto").fit(container(X[rows]), y[rows])
    assert test_loss(model, X[1000:], y[1000:]) < 1.02 * test_loss(clean, X[1000:], y[1000:])
    np.testing.assert_allclose(model.scale_, clean.scale_, rtol=0.05)


def test_a_column_with_one_large_value_may_be_sound():
    """It is a rare category, a count, or has a heavy tail; or the rows are too few to say."""
    rng, X, y = normal_rows(2000, 2)
    columns = [
        np.arange(2000) == 5,
        np.where(np.arange(2000) == 6, 250, rng.poisson(0.01, 2000) > 0),
        np.exp(2 * X[:, 0]),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted().fit(np.column_stack([X, *columns]), y)
        fitted().fit(np.c_[[1.0, 1.01, 1.0, 1.01, 9.0], [0, 1, 0, 1, 0]], [0, 1, 0, 1, 1])


def test_a_rare_category_is_no_corrupt_row():
    _, X, y = normal_rows(2000, 2)
    X = np.column_stack([X[:, :2], np.arange(2000) == 5])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = fitted().fit(X, y)
        fitted().fit(sparse.csr_array(X), y)
    assert model.scale_[2] == pytest.approx(fitted().fit(X[:, 2:], y).scale_[0])


def test_row_norms_with_heavy_tails():
    rng = np.random.default_rng(0)
    X, W = rng.normal(size=(10_000, 20)) * np.exp(2 * rng.normal(size=(10_000, 1))), rng.normal(size=(20, 5)) / 2
    y = (X @ W + rng.gumbel(size=(10_000, 5))).argmax(axis=1)
    X, y, X_test, y_test = X[::2], y[::2], X[1::2], y[1::2]
    with pytest.warns(UserWarning, match=LONG):
        model = fitted().fit(X, y)
    peer = peer_of(np.asarray).fit(X, y)
    assert test_loss(model, X_test, y_test) < test_loss(peer, X_test, y_test)
    assert objective(model, X, y, np.ones(len(y))) < 1.05 * optimum(model, X, y, np.ones(len(y)))


def test_differences_of_correlated_columns():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(4000, 5))
    X = np.hstack([z, 0.999 * z + np.sqrt(1 - 0.999**2) * rng.normal(size=z.shape)])
    logit = (X[:, :5] - X[:, 5:]) / np.sqrt(0.002) @ rng.normal(size=5)
    y = (logit + rng.logistic(size=4000) > 0).astype(int)
    model = fitted().fit(X[::2], y[::2])
    peer = peer_of(np.asarray).fit(X[::2], y[::2])
    assert test_loss(model, X[1::2], y[1::2]) < 1.1 * test_loss(peer, X[1::2], y[1::2])


# ---- CSR


def categories_and_year(n_rows=3000):
    rng = np.random.default_rng(0)
    category, year = rng.integers(0, 100, n_rows), rng.integers(2005, 2026, n_rows)
    y = (rng.normal(size=100)[category] + 0.3 * (year - 2015) + rng.logistic(size=n_rows) > 0).astype(int)
    return np.column_stack([np.eye(100)[category], year]), y


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_column_that_is_stored_in_all_rows(dtype):
    X, y = categories_and_year()
    X = X.astype(dtype)
    csr = sparse.csr_array(X[::2])
    before = csr.copy()
    models = [fitted().fit(data, y[::2]) for data in (X[::2], csr)]
    losses = [test_loss(model, X[1::2], y[1::2]) for model in models]
    assert losses[1] < 1.05 * losses[0]
    assert models[0].scale_[-1] == pytest.approx(models[1].scale_[-1], rel=1e-6)
    np.testing.assert_array_equal(csr.data, before.data)


def test_csr_that_stores_everything_is_as_its_dense_copy():
    X = DIGITS.astype(float) + 5.0  # one column is constant
    weight = np.linspace(0, 2, len(X))
    csr = sparse.csr_array(X)
    models = [make(max_iter=50, alpha=0, batch_size=1000).fit(data, LABELS, weight) for data in (X, csr)]
    np.testing.assert_allclose(models[1].scale_, models[0].scale_, rtol=1e-6)
    np.testing.assert_allclose(models[1].predict_proba(X), models[0].predict_proba(X), atol=1e-6)
    alone = make(max_iter=50, fit_intercept=False).fit(csr, LABELS)
    np.testing.assert_array_equal(alone.intercept_, 0)


def test_a_numeric_step_is_taken_on_the_stored_values():
    X, y = categories_and_year(300)
    X[:, -1] -= 2009.5  # never 0
    params = {"lr": 1e-3, "alpha": 1e-3, "batch_size": 1000, "standardize": False, "momentum": 0}
    dense, csr = (make(**params).fit(data, y) for data in (X, sparse.csr_array(X)))
    np.testing.assert_allclose(csr.coef_[0, -1], dense.coef_[0, -1], rtol=1e-6)
    np.testing.assert_allclose(csr.intercept_, dense.intercept_, rtol=1e-6)
    in_units = make(**{**params, "standardize": True}).fit(sparse.csr_array(X), y)
    np.testing.assert_allclose(in_units.loss_curve_[0], dense.loss_curve_[0])
    np.testing.assert_allclose(in_units.intercept_, dense.intercept_, rtol=1e-3)


def test_a_column_that_only_long_rows_lack():
    """It is not stored in all rows, and so not centred, though it is in all from which the statistics are."""
    X, y = categories_and_year(1000)
    X[5] = 1e5
    X[5, -1] = 0
    with pytest.warns(UserWarning, match=LONG):
        model = fitted().fit(sparse.csr_array(X), y)
    source = InMemory(sparse.csr_array(X), y)
    source, _, scaling, _ = _plan.coordinates(source, check(model), get_backend("openmp")(source, 1), None)
    assert not scaling.mean.any()
    assert source.block.X[1, -1] == X[1, -1]


def test_the_scale_of_a_column_of_csr():
    """One row of 2,500 times the others' values hardly changes it, where it would be divided by 2,500 else."""
    rng = np.random.default_rng(0)
    X = (rng.random((3000, 20)) < 0.5) * rng.integers(1, 4, (3000, 20)).astype(float)
    y = (X[:, 0] > X[:, 1]).astype(int)
    clean = fitted(max_iter=2).fit(sparse.csr_array(X), y).scale_
    X[9] = 2500
    with warnings.catch_warnings(action="ignore"):
        model = fitted(max_iter=2).fit(sparse.csr_array(X), y)
    np.testing.assert_allclose(model.scale_, clean, rtol=0.01)


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_powers_of_two_change_no_bit(container):
    """The scale is capped in some columns, one is centred, and rows are drawn by length."""
    X, y = categories_and_year(1000)
    rng = np.random.default_rng(1)
    X[:, :10] *= np.exp(3 * rng.normal(size=(1000, 1)))
    factor = 2.0 ** rng.integers(-20, 20, X.shape[1])
    weight = np.exp(2 * rng.normal(size=1000))
    with warnings.catch_warnings(action="ignore"):
        one, other = (make().fit(container(data), y, weight) for data in (X, X * factor))
    np.testing.assert_array_equal(one.coef_, other.coef_ * factor)
    np.testing.assert_array_equal(one.intercept_, other.intercept_)


# ---- how rows are drawn


def test_even_rows_are_drawn_as_ever(monkeypatch):
    """Each once, with its own weight, and no pass over X finds that out."""
    monkeypatch.setattr(InMemory, "drawn_by", None)
    monkeypatch.setattr(InMemory, "reweighted", None)
    X = DIGITS.astype(float)
    with monkeypatch.context() as patch:
        patch.setattr(_sampling, "lengths", None)
        make().fit(X, LABELS)
    make().fit(sparse.csr_array(X), LABELS)
    make().fit(X, LABELS, sample_weight=np.linspace(1, 2, len(X)))


def test_only_where_it_is_asked_for(monkeypatch):
    """Not with a step or an order of the user's, and not where one minibatch holds all rows."""
    monkeypatch.setattr(InMemory, "drawn_by", None)
    weight = np.linspace(0.01, 1, len(DIGITS)) ** 8
    for params in ({"lr": 1e-3}, {"shuffle": False}, {"batch_size": 1000}):
        with warnings.catch_warnings(action="ignore"):
            make(**params).fit(DIGITS, LABELS, weight)


def test_without_shuffling_the_step_knows_the_weights():
    """With a weight w the noise of a row is w^2 times what it was."""
    X, weight = np.tile(DIGITS, (3, 1)), np.ones(3 * len(DIGITS))
    y = np.tile(LABELS, 3)
    params = {"shuffle": False, "batch_size": 16}
    with warnings.catch_warnings(action="ignore"):
        even = make(**params).fit(X, y)
        weight[::50] = 100
        uneven = make(**params).fit(X, y, weight)
    mean_square = np.mean((weight / weight.mean()) ** 2)
    assert uneven.lr_ == pytest.approx(even.lr_ / mean_square, rel=0.5)


def test_draws_are_as_many_as_they_should_be():
    rng = np.random.default_rng(0)
    share = rng.exponential(size=500) ** 3
    share /= share.sum()
    n_draws = np.zeros(500)
    for _ in range(400):
        rows = _sampling.systematic_draws(share, rng)
        assert len(rows) == 500
        n = np.bincount(rows, minlength=500)
        assert (abs(n - 500 * share) < 1 + 1e-9).all()
        n_draws += n
    np.testing.assert_allclose(n_draws / 400, 500 * share, atol=0.1)


def test_what_is_left_of_the_weights():
    """It makes up for the share; each row has one, and a row without weight is never drawn."""
    weight = np.exp(3 * np.random.default_rng(0).normal(size=len(DIGITS)))
    weight[::7] = 0
    rows = np.flatnonzero(weight)
    source = InMemory(DIGITS, LABELS, weight, rows)
    share = _sampling.shares(source.weight)
    drawn = source.drawn_by(share)
    assert share.sum() == pytest.approx(1)
    assert share.min() * len(rows) >= _sampling.UNIFORM
    [(block, [order])] = drawn.epochs(np.random.default_rng(0), 1)
    assert set(order) <= set(rows)
    np.testing.assert_allclose(block.weight[rows] * share * len(rows), source.weight)
    np.testing.assert_array_equal(drawn.sample(rows)[1], source.sample(rows)[1])


def test_threads_and_seeds():
    weight = np.exp(2 * np.random.default_rng(0).normal(size=len(DIGITS)))
    models = [make(n_jobs=n, random_state=s).fit(DIGITS, LABELS, weight) for n, s in ((1, 0), (2, 0), (1, 1))]
    same_model(*models[:2])
    assert (models[0].coef_ != models[2].coef_).any()
