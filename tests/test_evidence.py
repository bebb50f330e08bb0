"""alpha="auto": the spectrum, the evidence, the margins, and what comes out."""

import numpy as np
import pytest
from _helpers import DIGITS, LABELS, make, quiet_fit
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from skdl import SoftmaxRegressionClassifier, _evidence
from skdl._evidence import (
    LARGEST_FACTOR,
    SMALL,
    Spectrum,
    by_evidence,
    lowest_margin,
    margin_factor,
    residuals,
    size,
    slope,
)
from skdl._products import products
from skdl._sampling import FEWEST_ROWS
from skdl._scaling import Scaling
from skdl._softmax import output_probabilities


def correlated(n, d, seed=0):
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return rng.normal(size=(n, d)) * np.geomspace(1, 0.03, d) @ rotation


def spectrum_of(U, weight, n_rows):
    return Spectrum.of(U, products(U), weight, n_rows, Scaling.identity(U.shape[1]))


def trace(U, weight, curvature, alpha):
    """Of S (curvature S + alpha)^-1, as it is defined."""
    S = (U.T * weight) @ U / len(U)
    return np.trace(S @ np.linalg.inv(curvature * S + alpha * np.eye(len(S))))


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize(("d", "probes", "steps", "rtol"), [(SMALL // 2, 1, 1, 1e-9), (3 * SMALL, 200, 30, 0.02)])
def test_the_trace(form, d, probes, steps, rtol, monkeypatch):
    # Beyond SMALL features the trace is a mean over random vectors: the more there are, the closer.
    monkeypatch.setattr(_evidence, "PROBES", probes)
    monkeypatch.setattr(_evidence, "STEPS", steps)
    U, weight = correlated(300, d), np.random.default_rng(1).uniform(0.2, 2, 300)
    weight /= weight.mean()
    spectrum = spectrum_of(form(U), weight, 300)
    for alpha in (1e-3, 1e-1, 10):
        found = spectrum.trace(np.array([0.25, 0.01]), alpha)
        assert_allclose(found, [trace(U, weight, c, alpha) for c in (0.25, 0.01)], rtol=rtol)


def test_few_rows_tell_of_all():
    # Of 200 rows the eigenvalues alone are off by more than a half.
    U = np.random.default_rng(0).normal(size=(20_000, SMALL))
    exact = trace(U, np.ones(len(U)), 1.0, 0.1)
    few = spectrum_of(U[:200], np.ones(200), 200).trace(np.ones(1), 0.1)[0]
    corrected = spectrum_of(U[:200], np.ones(200), len(U)).trace(np.ones(1), 0.1)[0]
    assert abs(corrected / exact - 1) < 0.03 < abs(few / exact - 1)


@pytest.mark.parametrize("d", [3, 2 * SMALL])
def test_the_trace_of_equal_and_of_no_features(d):
    # One eigenvalue, d, and none: the vectors of beyond SMALL features count the one as something between 0 and 2.
    [found] = 0.25 * spectrum_of(np.ones((100, d)), np.ones(100), 100).trace(np.array([0.25]), 1e-3)
    assert abs(found - 1) < (1 if d > SMALL else 0.01)
    assert spectrum_of(np.zeros((100, d)), np.ones(100), 100).trace(np.array([0.25]), 1.0) == 0


def test_evidence_finds_the_spread_of_the_coefficients():
    # Coefficients drawn with precision n alpha, and data that determine them all: evidence finds alpha.
    rng, n, d, alpha = np.random.default_rng(0), 10**6, SMALL, 1e-5
    coef = rng.normal(size=(1, d)) / np.sqrt(n * alpha)
    spectrum = Spectrum(np.ones(d), np.ones(d), n, n)

    def found(coef, l1_ratio=0.0):
        share, size_of_coef = np.mean(coef != 0), size(coef, np.ones(d), l1_ratio)
        return by_evidence(alpha, size_of_coef, share, np.array([0.2]), spectrum, n, l1_ratio)

    assert_allclose(found(coef), alpha, rtol=0.2)
    # The more zeros L1 leaves, the fewer coefficients there are to be explained.
    assert found(coef * (np.arange(d) < 8), 1.0) > 0
    assert found(np.zeros((1, d))) == alpha


def test_margins():
    rng = np.random.default_rng(0)
    y, ones = rng.integers(0, 3, 200), np.ones(200)
    logits = 2.0 * np.eye(3)[y]
    # Every row is right without itself: as weak as may be.
    assert_allclose(margin_factor(logits, y, ones, 0.1 * np.ones((200, 3)), 0.0, 1e9), 1 / LARGEST_FACTOR, rtol=0.01)
    # Leverages that overflow say nothing.
    with np.errstate(invalid="ignore"):
        assert margin_factor(logits, y, ones, np.full((200, 3), np.inf), 0.0, 1e9) == 1
    # Every row is right by its own leverage only.
    assert margin_factor(logits, y, ones, 50 * np.ones((200, 3)), 0.0, 1e9) == 1
    # The same, but all of the slope is a lack of training.
    untrained = -slope(logits, residuals(output_probabilities(logits), y), ones)
    assert margin_factor(logits, y, ones, 0.1 * np.ones((200, 3)), untrained, 1e9) == pytest.approx(1, abs=0.1)
    # Margins that spread promise less of one row more, few of them less than many.
    spread = np.linspace(0.2, 8, 200)[:, np.newaxis] * np.eye(3)[y]
    few, many = (margin_factor(spread, y, ones, np.zeros((200, 3)), 0.0, n) for n in (30, 100))
    assert 1.1 / LARGEST_FACTOR < many < few / 2
    # Two classes, one logit.
    h = rng.normal(size=(20_000, 1)) * 2
    y = (rng.random(20_000) < 1 / (1 + np.exp(-h[:, 0]))).astype(int)
    assert margin_factor(h, y, np.ones(20_000), np.zeros((20_000, 1)), 0.0, 1e9) == pytest.approx(1, abs=0.2)
    half = margin_factor(h / 2, y, np.ones(20_000), np.zeros((20_000, 1)), 0.0, 1e9)
    assert half == pytest.approx(2**-5, rel=0.3)


def test_one_row_more_lies_about_where_the_lowest_does():
    rng, weight = np.random.default_rng(0), np.arange(1000) % 3
    many = rng.normal(3.0, 2.0, (500, 1000))
    found = np.mean([lowest_margin(row, np.ones(1000), 1000) for row in many])
    assert 0.8 < (3 - many.min(axis=1).mean()) / (3 - found) < 1
    # Of a sample of the rows as of all; a weight of 2 is two rows.
    assert_allclose(lowest_margin(many[0, :200], np.ones(200), 1000), found, atol=1)
    assert_allclose(lowest_margin(many[0], weight, 999), lowest_margin(np.repeat(many[0], weight), np.ones(999), 999))


def held_out_loss(X, y, seed=0, **params):
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.4, stratify=y, random_state=seed)
    model = quiet_fit(SoftmaxRegressionClassifier(random_state=0, **params), X, y)
    return log_loss(y_test, model.predict_proba(X_test).astype(float)), model


@pytest.mark.parametrize("load", [load_iris, load_wine, load_breast_cancer])
def test_as_good_as_the_best_of_a_grid(load):
    X, y = load(return_X_y=True)
    auto = np.mean([held_out_loss(X, y, seed)[0] for seed in range(3)])
    grid = [np.mean([held_out_loss(X, y, seed, alpha=a)[0] for seed in range(3)]) for a in np.logspace(-6, -1, 6)]
    assert auto < min(grid) + 0.04 < max(grid)  # the best in hindsight


def test_noise_is_held_down_and_signal_is_not():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 300))
    noise, model = held_out_loss(X, rng.integers(0, 2, 200))
    assert noise < 0.75
    signal, other = held_out_loss(X + 2 * np.outer(np.arange(200) % 2, np.ones(300)), np.arange(200) % 2)
    assert signal < 0.02
    assert other.alpha_ < model.alpha_ / 3


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
def test_any_number_of_threads(form):
    X = form(DIGITS.astype(np.float64))
    one, two = (make(max_iter=20, n_jobs=n).fit(X, LABELS) for n in (1, 2))
    assert one.alpha_ == two.alpha_
    assert_array_equal(one.coef_, two.coef_)


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
def test_opencl_finds_the_same(form):
    X = form(DIGITS.astype(np.float64))
    openmp, opencl = (make(max_iter=20, backend=name).fit(X, LABELS) for name in ("openmp", "opencl"))
    assert_allclose(opencl.alpha_, openmp.alpha_, rtol=1e-3)


@pytest.mark.parametrize("params", [{}, {"l1_ratio": 0.5}, {"l1_ratio": 1.0}, {"standardize": False}, {"lr": 5e-3}])
def test_with_every_penalty_and_step(params):
    X = DIGITS.astype(np.float64)
    first = make(max_iter=1, **params).fit(X, LABELS).alpha_  # no update yet
    model = make(max_iter=100, **params).fit(X, LABELS)
    assert 0 < model.alpha_ != first
    assert model.score(X, LABELS) > 0.9


def test_weights_are_rows():
    X, y = DIGITS[:100].astype(np.float64), LABELS[:100]
    n_times = np.random.default_rng(0).integers(1, 4, 100)
    settings = {"max_iter": 30, "batch_size": 1000}
    weighted = make(**settings).fit(X, y, sample_weight=n_times)
    repeated = make(**settings).fit(np.repeat(X, n_times, axis=0), np.repeat(y, n_times))
    assert len(y) < FEWEST_ROWS  # all of them are looked at
    assert_allclose(weighted.alpha_, repeated.alpha_, rtol=1e-7)
    doubled = make(max_iter=1).fit(X, y, sample_weight=np.full(100, 2.0))
    assert doubled.alpha_ < make(max_iter=1).fit(X, y).alpha_


def test_many_classes_of_few_rows():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(100), 20)
    X = rng.normal(size=(100, 20))[y] + rng.normal(size=(2000, 20))
    loss, model = held_out_loss(X, y)
    assert loss < min(held_out_loss(X, y, alpha=alpha)[0] for alpha in (model.alpha_ / 30, model.alpha_ * 30)) - 0.1


def test_a_row_that_hardly_counts_is_hardly_left_out():
    """A corrupt row keeps little weight, and without it the others' model would be much the same."""
    X, y = load_digits(return_X_y=True)
    X[5, 21] = 1e7
    with pytest.warns(UserWarning, match="Check or clip"):
        corrupt = SoftmaxRegressionClassifier(random_state=0).fit(X, y)
    without = SoftmaxRegressionClassifier(random_state=0).fit(np.delete(X, 5, axis=0), np.delete(y, 5))
    assert without.alpha_ / 2 < corrupt.alpha_ < 2 * without.alpha_
