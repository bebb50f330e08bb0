"""Parts of the loop that no result on real data pins down: each of these tests kills a mutant (tools/mutants.py)."""

import warnings
from functools import partial

import _helpers
import numpy as np
import pytest
import reference
from _helpers import DIGITS, LABELS, Problem
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.metrics import log_loss

from skdl._auto import auto_lr, largest_curvature
from skdl._backends import get_backend
from skdl._data import Block, InMemory
from skdl._parameters import check
from skdl._scaling import Scaling
from skdl._sgd import run_epochs, solve, solve_all
from skdl._validation import hold_out

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, Y = DIGITS.astype(np.float64), LABELS
make = partial(_helpers.make, max_iter=20)


def statistics(X):
    source = InMemory(X, np.zeros(len(X)))
    return source.statistics(get_backend("openmp")(source, 2))


def scaling_of(X):
    return Scaling.from_statistics(statistics(X), centre=True, is_sparse=False, dtype=np.float64)


def test_statistics_of_batches_are_those_of_all_rows():
    X = np.random.default_rng(0).normal(size=(90, 5)) + 10 * (np.arange(90) > 60)[:, np.newaxis]
    for merged, whole in zip(statistics(X[:61]).merged(statistics(X[61:])), statistics(X), strict=True):
        assert_allclose(merged, whole, rtol=1e-12)


def test_scaling_there_and_back():
    """Parameters give the same logits there; a velocity is there what a gradient is; and all come back."""
    rng = np.random.default_rng(0)
    X, y, weight = rng.normal(size=(50, 4)) * [1, 5, 0.1, 1] + [0, 3, 9, -2], rng.integers(0, 3, 50), np.ones(50)
    W, b = rng.normal(size=(3, 4)), rng.normal(size=3)
    scaling = scaling_of(X)
    U = scaling.apply(X)
    velocity = reference.loss_and_gradient(W, b, X, y, weight)[1:]
    there = scaling.scale_parameters(W, b)
    assert_allclose(U @ there[0].T + there[1], X @ W.T + b)
    velocity_there = scaling.scale_gradient(*velocity)
    for got, expected in zip(velocity_there, reference.loss_and_gradient(*there, U, y, weight)[1:], strict=True):
        assert_allclose(got, expected, atol=1e-12)
    back = *scaling.unscale_parameters(*there), *scaling.unscale_gradient(*velocity_there)
    for got, expected in zip(back, (W, b, *velocity), strict=True):
        assert_allclose(got, expected, atol=1e-12)


def test_a_source_of_all_rows_has_weights_of_mean_one():
    source = InMemory(X[:4], LABELS[:4], np.array([1.0, 2, 3, 6]))
    assert_array_equal(source.rows, np.arange(4))
    assert_array_equal(source.block.weight, [1 / 3, 2 / 3, 1, 2])


@pytest.mark.parametrize("shape", [(1, 50, 4), (3, 50, 4), (2, 97, 300), (1, 1, 129)])
def test_curvature_is_the_largest_eigenvalue(shape):
    """The largest of several minibatches, which are cut into pieces on the way."""
    rng = np.random.default_rng(0)
    U, weight = rng.normal(size=shape), rng.uniform(0, 5, shape[:2])
    U[..., 0] *= np.linspace(3, 6, shape[0])[:, np.newaxis]
    U[-1, :, -1] *= 20
    expected = max(
        np.linalg.eigvalsh((u * w[:, np.newaxis]).T @ u / len(w))[-1] for u, w in zip(U, weight, strict=True)
    )
    scaling = Scaling.identity(U.shape[-1])
    assert largest_curvature(U, weight, scaling) == pytest.approx(expected, rel=1e-3)
    assert largest_curvature(sparse.csr_array(U[-1]), weight[-1], scaling) == pytest.approx(expected, rel=1e-3)


def test_one_logit_takes_twice_the_step():
    scaling = scaling_of(X)
    one, many = (auto_lr(InMemory(X), scaling, n_outputs=n, batch_size=100, momentum=0.9) for n in (1, 3))
    assert one == 2 * many


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_the_bounds_of_the_step(container):
    """By the curvature of the weighted rows where one batch holds them all, by the noise where batches are small."""
    rng = np.random.default_rng(0)
    X, weight = rng.choice([-1.0, 1.0], (200, 40)), rng.uniform(0, 5, 200)
    X[:, :5] = X[:, :1] * np.sign(weight - 1)[:, np.newaxis] ** np.arange(5)
    source = InMemory(container(X), weight=weight, rows=np.arange(200))
    scaling = Scaling(np.zeros(40), np.ones(40), mean_square=np.ones(40))
    curvature = np.linalg.eigvalsh((X * weight[:, np.newaxis]).T @ X / weight.sum())[-1]
    whole, small = (auto_lr(source, scaling, n_outputs=3, batch_size=n, momentum=0.9) for n in (200, 20))
    assert whole == pytest.approx(2 * 1.9 / (0.5 * curvature), rel=1e-2)
    assert small == pytest.approx(3.8 * 0.1 * 20 / 40)


def test_minibatches_are_even():
    """Of 400 rows, three of 134, 134 and 132 where two of 150 would leave one of 100; a numeric step leaves them alone."""
    for lr, same in ("auto", True), (1e-3, False):
        one, other = (make(lr=lr, batch_size=n).fit(X, Y).coef_ for n in (150, 134))
        assert np.array_equal(one, other) == same


@pytest.mark.parametrize("schedule, expected", [("constant", 4), ("linear", 20), ("cosine", 20)])
def test_patience(schedule, expected):
    """No epoch improves the loss by 10: three without that end a fit, but not one whose step falls."""
    assert make(lr_schedule=schedule, tol=10, n_iter_no_change=3).fit(X, Y).n_iter_ == expected


def test_few_epochs_warn_only_of_a_loss_that_fell():
    with warnings.catch_warnings(action="error"):
        make(max_iter=2).fit(np.ones((40, 2)), np.arange(40) % 2)


def test_rows_held_out_keep_their_weights():
    weight = np.linspace(0.1, 5, 400)
    clf = make(early_stopping=True).fit(X, Y, sample_weight=weight)
    _, held_out = hold_out(np.arange(400), Y, clf.validation_fraction, clf.random_state)
    loss = log_loss(Y[held_out], clf.predict_proba(X[held_out]), sample_weight=weight[held_out], labels=clf.classes_)
    assert loss == pytest.approx(clf.validation_loss_curve_[clf.best_epoch_ - 1], rel=1e-9)


def test_rows_held_out_have_their_share_of_each_class():
    y = np.repeat([0, 1], [380, 20])
    for seed in range(5):
        _, held_out = hold_out(np.arange(400), y, 0.1, seed)
        assert_array_equal(np.bincount(y[held_out]), [38, 2])


def test_each_pass_of_a_stream_has_an_order_of_its_own():
    clf = make(lr=1e-3, batch_size=10).partial_fit(X, Y, classes=range(10))
    first = clf.coef_
    clf.coef_, clf.intercept_ = np.zeros_like(clf.coef_), np.zeros_like(clf.intercept_)
    del clf._stream
    assert not np.array_equal(clf.partial_fit(X, Y).coef_, first)


def test_two_passes_of_a_stream_are_two_epochs(monkeypatch):
    """The velocity goes on in the features' own coordinates, the step runs in the scaled ones; before it is averaged."""
    monkeypatch.setattr("skdl._stream.FALL_ROWS", np.inf)
    monkeypatch.setattr("skdl._stream.FIRST_BATCH", 100)
    params = {"shuffle": False, "batch_size": 100, "alpha": 0}
    stream = make(**params).partial_fit(X + 5, Y, classes=range(10)).partial_fit(X + 5, Y)
    fit = make(max_iter=2, lr_schedule="constant", **params).fit(X + 5, Y)
    assert_allclose(stream._stream["coef"], fit.coef_, rtol=1e-9, atol=1e-12)
    assert_allclose(stream._stream["intercept"], fit.intercept_, rtol=1e-9, atol=1e-12)


def test_a_fit_ends_a_stream():
    """Its velocity and statistics belong to other coefficients."""
    clf = make().partial_fit(X[::-1] * 2, Y[::-1], classes=range(10)).fit(X, Y)
    assert_array_equal(clf.partial_fit(X, Y).coef_, make().fit(X, Y).partial_fit(X, Y).coef_)


def test_even_odds_are_the_first_class():
    """As argmax of the probabilities has it."""
    clf = make(max_iter=1).fit(X, Y % 2)
    clf.coef_, clf.intercept_ = np.zeros_like(clf.coef_), np.zeros_like(clf.intercept_)
    assert (clf.predict(X) == clf.classes_[clf.predict_proba(X).argmax(axis=1)]).all()


def test_divergence_names_its_epoch():
    """A loss that is NaN is noticed in the epoch in which it is, not at the end."""
    with pytest.raises(ValueError, match=r"epoch 1 with lr=1e\+38"):
        make(lr=1e38, alpha=0, max_iter=5).fit(X.astype(np.float32), Y)


def test_validation_of_two_classes():
    X_val, y_val = X[200:], Y[200:] > 4
    clf = make().fit(X[:200], Y[:200] > 4, X_val=X_val, y_val=y_val)
    assert clf.validation_scores_[-1] == pytest.approx(clf.score(X_val, y_val))
    assert clf.validation_loss_curve_[-1] == pytest.approx(log_loss(y_val, clf.predict_proba(X_val)))


def test_each_epoch_has_an_order_of_its_own():
    """That of one generator, which random_state seeds; the twin follows it."""
    clf = make(lr=1e-3, max_iter=3, batch_size=50, momentum=0, alpha=0, lr_schedule="constant").fit(X, Y)
    rng, order = np.random.default_rng([np.random.RandomState(0).randint(2**31 - 1), 0]), np.arange(400)
    W, b, V, v = np.zeros((10, 64)), np.zeros(10), np.zeros((10, 64)), np.zeros(10)
    for _ in range(3):
        rng.shuffle(order)
        reference.run_epoch(
            W, b, V, v, X, Y, np.ones(400), order, 50, [1e-3] * 8, momentum=0, l1=0, l2=0, fit_intercept=True
        )
    assert_allclose(clf.coef_, W, rtol=1e-9, atol=1e-12)


def test_an_epoch_of_blocks_is_one_of_all_their_rows():
    """Each block has its share of the step sizes, and its rows their share of the loss."""
    problem, step_sizes = Problem(60, 5, 3), np.array([[[0.3, 0.1, 0.02]]])

    class Blocks:
        draws = False

        def __init__(self, *ends):
            self.ends, self.n_rows = ends, ends[-1]

        def epochs(self, rng, n_epochs):
            for start, end in zip((0, *self.ends), self.ends, strict=False):
                rows = slice(start, end)
                yield Block(problem.X[rows], problem.y[rows], problem.weight[rows]), np.arange(end - start)[np.newaxis]

    def trained(*ends):
        training = problem.started(20, momentum=0.9)
        return run_epochs(Blocks(*ends), training, None, step_sizes, 20), *training.parameters(), *training.velocity()

    for apart, together in zip(trained(40, 60), trained(60), strict=True):
        assert_allclose(apart, together, rtol=1e-12)


def test_rows_stay_in_their_order():
    """An epoch shuffles a copy of them."""
    rows = np.arange(0, 400, 3)
    source = InMemory(X, Y, rows=rows)
    [(_, [order])] = source.epochs(np.random.default_rng(0), 1)
    assert not np.array_equal(order, rows)
    assert_array_equal(rows, np.arange(0, 400, 3))
    assert_array_equal(np.sort(order), rows)


@pytest.mark.parametrize("csr", [False, True])
def test_parameters_are_copies(csr):
    problem = Problem(30, 5, 3, csr=csr)
    training = problem.started(10, momentum=0.9)
    before = *training.parameters(), *training.velocity()
    problem.epochs(training, [0.1] * 3, 1)
    for got, expected in zip(before, (problem.W, problem.b, problem.V, problem.v), strict=True):
        assert_array_equal(got, expected[np.newaxis])


@pytest.mark.parametrize("kind", ["dense", "csr", "two classes", "validated"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_candidates_are_solved_as_alone(backend, dtype, kind):
    """Models that share minibatches train side by side; some end early, one diverges, and the others go on as they were."""
    x, y = X.astype(dtype), Y % 2 if kind == "two classes" else Y
    source = InMemory(sparse.csr_array(x) if kind == "csr" else x, y)
    candidates = [
        check(make(**{"max_iter": 6, "alpha": 1e-3, "lr": 1e-3, **params}))
        for params in (
            {},
            {"momentum": 0.5, "l1_ratio": 0.5},
            {"max_iter": 2, "lr": 3e-4},
            {"lr": 1e30, "alpha": 0.0},
            {"lr": "auto", "alpha": "auto"},
            {"lr": "auto", "max_iter": 40},
            {"alpha": 0.0, "lr_schedule": "constant", "tol": 0.1, "n_iter_no_change": 1},
            {"batch_size": 100},
        )
    ]
    kwargs = {"validate": lambda coef, intercept: (abs(coef).mean(), 0.5)} if kind == "validated" else {}
    n_outputs = 1 if kind == "two classes" else 10
    hooks = [None] * len(candidates)
    together = solve_all(source, candidates, get_backend(backend)(source, n_outputs), hooks, advises=True, **kwargs)
    for got, options in zip(together, candidates, strict=True):
        try:
            alone = solve(source, options, get_backend(backend)(source, n_outputs), **kwargs)
        except ValueError as error:
            assert str(got) == str(error)
            assert "lr=1e+30" in str(error)
            continue
        assert_array_equal(got.coef, alone.coef)
        assert_array_equal(got.intercept, alone.intercept)
        assert got.history == alone.history
        assert (got.lr, got.alpha, got.advice) == (alone.lr, alone.alpha, alone.advice)
    assert len({len(solution.history.loss_curve) for solution in together if not isinstance(solution, ValueError)}) > 2
