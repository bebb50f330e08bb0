"""What alpha="auto" stands for: a strength of the penalty to begin with, and what the data say of it while a model learns.

In the coordinates u = (x - mean) * scale of `Scaling` the penalty is alpha times the sum over the features of
(1 - l1_ratio) / 2 ||q_j W'_j||^2 + l1_ratio ||q_j W'_j||_1 with q_j = r_j scale_j; see `Scaling.units`.
n is the sum of the sample weights, which count rows.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.optimize import brentq
from scipy.special import expit

from skdl import _softmax
from skdl._products import lanczos, products
from skdl._sampling import FEWEST_ROWS, squared_lengths
from skdl._scaling import with_scaled_columns

# The strength to begin with, as a share of the curvature of the loss: a constant, and a part that many rows make small.
SHARE, SHARE_OF_A_ROW = 5e-5, 0.1
# Updates come early, while the step is long: at so many times this share of the epochs, where the step holds until the optimum
# is near, where it holds until a validation loss is flat, which is judged from the last update on, and where it falls.
UPDATES, HOLDING, STOPPING, FALLING = np.arange(1, 7), 0.015, 0.03, 0.1
# Steps that a model has made before it is asked, two thirds of those of a default fit of few rows.
FEWEST_STEPS = 30
# Rows that the updates look at: as many as have so many values, or probabilities.
SAMPLE_VALUES, SAMPLE_PROBABILITIES = 2**19, 2**17
# Up to SMALL features all eigenvalues of mean u u^T are found, beyond by PROBES random vectors and STEPS with each.
SMALL, PROBES, STEPS = 64, 4, 10
# How much faster the loss may fall with the size of a model than the penalty grows, if the model counts as trained, with L2
# alone and with L1, from whose zeros no model returns.
UNTRAINED, UNTRAINED_L1 = 10, 2
# On separable data the norm of W' grows about as alpha to the power -1/5; how far an update may go.
SEPARABLE_POWER, LARGEST_FACTOR = 5, 100.0


def initial_alpha(scaling, q, n_rows, n_classes):
    """The strength of the penalty to begin with.

    At zero parameters the curvature of the loss along a coefficient for u_j is p (1 - p) mean u_j^2 with p = 1 / n_classes;
    there the penalty has the curvature alpha q_j^2. With an average in place of q_j the latter is made a share of the
    former's sum over the features. In the average features weigh by the square of mean u_j^2, which keeps rare ones from
    deciding.
    """
    square, p = scaling.mean_square, 1 / n_classes
    if not square.any():
        return 0.0
    weight = (square / square.max()) ** 2
    share = SHARE + SHARE_OF_A_ROW / max(n_rows, 1)
    with np.errstate(over="ignore", divide="ignore"):  # features beyond the square root of float64's range
        alpha = share * p * (1 - p) * square.sum() / np.average(q, weights=weight) ** 2
    return min(float(alpha), np.finfo(float).max)


class Spectrum(NamedTuple):
    """Eigenvalues of S = mean weight u u^T over a sample of the rows, and how many there are of each."""

    eigenvalues: np.ndarray
    counts: np.ndarray
    n_sampled: int
    n_rows: int

    @classmethod
    def of(cls, U, products_of_U, weight, n_rows, scaling):
        """That of a sample (n_sampled, n_features) of n_rows rows, dense or CSR, with weights of mean 1."""
        n_sampled, n_features = U.shape
        weight = (weight / n_sampled)[:, np.newaxis].astype(U.dtype)
        multiply, multiply_transposed = products_of_U
        if n_features <= SMALL:
            dense = weight * (U.toarray() if sparse.issparse(U) else U)
            eigenvalues = np.linalg.eigvalsh(multiply_transposed(dense).astype(np.float64))
            return cls(np.maximum(eigenvalues, 0.0), np.ones(n_features), n_sampled, n_rows)
        rng = np.random.default_rng(0)
        v = scaling.random_directions(lambda n_features: rng.choice([-1.0, 1.0], (n_features, PROBES)))
        found = lanczos(lambda v: multiply_transposed(weight * multiply(v)), v.astype(U.dtype), STEPS)
        return cls(*found, n_sampled, n_rows)

    def trace(self, curvature, alpha):
        """Of S (curvature S + alpha)^-1, for each curvature (n_outputs,) of the loss along the logits.

        A sample of m of n rows makes large eigenvalues too large and small ones too small. As much is determined in it with
        the strength alpha (1 - g / m) / (1 - g / n) as in all rows with alpha, where g is the trace of
        curvature S (curvature S + alpha)^-1 (the Silverstein equation; Dobriban and Wager 2018).
        """
        strength = np.full(len(curvature), float(alpha))
        for _ in range(1 if self.n_sampled == self.n_rows else 5):
            at = np.multiply.outer(curvature, self.eigenvalues) + strength[:, np.newaxis]
            trace = (np.divide(self.eigenvalues, at, out=np.zeros_like(at), where=at > 0) * self.counts).sum(axis=1)
            g = np.minimum(curvature * trace, 0.9 * self.n_sampled)
            strength = alpha * (1 - g / self.n_sampled) / (1 - g / self.n_rows)
        return trace

    def shares(self, squared_norm, curvature, alpha, n_rows):
        """What a row's residual adds to the row's own logits (n_rows, n_outputs): u_i^T H^-1 u_i / n, H without the row.

        With all rows in H it is q_i = |u_i|^2 tr S (curvature S + alpha)^-1 / (n tr S) for a row of ordinary direction, and
        without this one q_i / (1 - curvature q_i), at most |u_i|^2 / (n alpha) (Jaakkola and Haussler 1999). The intercept,
        a feature that is always 1 and has no penalty, adds 1 / (n curvature).
        """
        leverage = self.trace(curvature, alpha) / (self.eigenvalues * self.counts).sum()
        q = np.multiply.outer(squared_norm / n_rows, leverage)
        left = 1 - curvature * q
        q = np.divide(q, left, out=np.full_like(q, np.inf), where=left > 0)
        return np.minimum(q, squared_norm[:, np.newaxis] / (n_rows * alpha)) + 1 / np.maximum(n_rows * curvature, 1)


def size(coef, q, l1_ratio):
    """(1 - l1_ratio) ||q W'||^2 + l1_ratio ||q W'||_1 of W' (n_outputs, n_features)."""
    square = (np.einsum("kd,kd->d", coef, coef) * q**2).sum() if l1_ratio < 1 else 0.0
    magnitude = (abs(coef).sum(axis=0) * q).sum() if l1_ratio > 0 else 0.0
    return float((1 - l1_ratio) * square + l1_ratio * magnitude)


def by_evidence(alpha, size_of_coef, share, curvature, spectrum, n_rows, l1_ratio):
    """The alpha under which the data are most probable, all models considered (MacKay 1992).

    share: of the coefficients that are not 0; curvature (n_outputs,) along the logits. The number of coefficients that the data
    determine, the trace of H (H + alpha)^-1 with H the curvature of the loss, is n alpha ||q W'||^2 then. scikit-learn's
    BayesianRidge does it for regression. With L1, all coefficients but the zeros are determined (Zou, Hastie and Tibshirani
    2007).
    """
    determined = (curvature * spectrum.trace(curvature, alpha * (1 - l1_ratio))).sum() * share
    return determined / (n_rows * size_of_coef) if size_of_coef > 0 else alpha


def residuals(z, y):
    """z - e_y of each row, (n_rows, n_outputs), from the probabilities of the classes that have a logit."""
    if z.shape[1] == 1:
        return z - (y == 1)[:, np.newaxis]
    residual = z.copy()
    residual[np.arange(len(y)), y] -= 1
    return residual


def margins(logits, y):
    """The log odds of the class that a row has."""
    if logits.shape[1] == 1:
        return np.where(y == 1, logits[:, 0], -logits[:, 0])
    rows = np.arange(len(y))
    others = logits.copy()
    others[rows, y] = -np.inf
    highest = others.max(axis=1, keepdims=True)
    return logits[rows, y] - highest[:, 0] - np.log(np.exp(others - highest).sum(axis=1))


def slope(logits, residual, weight):
    """The derivative by t of the mean loss of t times the logits, where these have such residuals."""
    return np.einsum("nk,nk,n->", residual, logits, weight) / weight.sum()


def margin_factor(logits, y, weight, shares, untrained, n_rows):
    """What to multiply alpha by, 1 or less, to do justice to separable data, of which Gaussian evidence asks too much.

    Without row i its logits would be about `logits` + (z_i - y_i) share_i; see `Spectrum.shares`. If the loss of these were
    smallest for logits t times as large, t > 1, the penalty holds W' down by that factor. `untrained` is the part of the
    slope by t for which a lack of training is the reason. That all rows are right does not mean that the next one will be: as
    in Laplace's rule of succession one more row is counted, with the margin at which the lowest of n normal ones is expected,
    sqrt(2 log n) standard deviations below their mean (Boucheron, Lugosi and Massart 2013, section 2.5).
    """
    left_out = logits + shares * residuals(_softmax.output_probabilities(logits), y)
    lowest = lowest_margin(margins(left_out, y), weight, n_rows)

    @cache
    def slope_at(t):
        residual = residuals(_softmax.output_probabilities(t * left_out), y)
        return slope(left_out, residual, weight) - lowest * expit(-t * lowest) / n_rows + untrained

    largest = LARGEST_FACTOR ** (1 / SEPARABLE_POWER)
    if not slope_at(1.0) < 0:  # NaN included
        return 1.0
    if slope_at(largest) <= 0:
        return 1 / LARGEST_FACTOR
    return brentq(slope_at, 1.0, largest, xtol=1e-3) ** -SEPARABLE_POWER


def lowest_margin(sampled, weight, n_rows):
    """The lowest that is to be expected of the margins of n_rows rows, given those of some of them."""
    mean = np.average(sampled, weights=weight)
    return mean - np.sqrt(2 * np.log(n_rows) * np.average((sampled - mean) ** 2, weights=weight))


class Sample:
    """Some of the `SampledRows`, at which the updates of alpha look."""

    def __init__(self, sampled, source, scaling, n_outputs, *, standardize):
        _, q = scaling.units(standardize=standardize)
        n_rows = max(FEWEST_ROWS, SAMPLE_VALUES // (1 + int(source.row_values)))
        rows, U, weight = (of_rows[:n_rows] for of_rows in sampled)
        U = _in_units_of(q, U)
        products_of_U = products(U)
        self.spectrum = Spectrum.of(U, products_of_U, weight / weight.mean(), source.n_rows, scaling)
        n_looked_at = max(1, SAMPLE_PROBABILITIES // _softmax.n_classes(n_outputs))
        self.y, self.weight = source.block.y[rows[:n_looked_at]], weight[:n_looked_at]
        U = U[:n_looked_at]
        self.squared_norm, self._columns = squared_lengths(U), slice(None)
        if sparse.issparse(U):  # often a small part of the columns occurs
            self._columns = np.unique(U.indices)
            U = U[:, self._columns]
        self._multiply = products(U)[0]
        self.q = q * (scaling.mean_square > 0)  # what does not vary has no coefficient
        self._q_of_columns = self.q[self._columns]

    def logits(self, coef, intercept):
        """Those of a model on u, (n_rows, n_outputs) float64."""
        coef = coef[:, self._columns] * self._q_of_columns
        return self._multiply(coef.T).astype(np.float64) + intercept

    def share_of_nonzero(self, coef):
        """Of the coefficients."""
        return (np.count_nonzero(coef) - np.count_nonzero(coef[:, self.q == 0])) / coef.size


class Evidence:
    """Updates of alpha while a model is trained with it: by the evidence, and at last by the margins."""

    def __init__(self, sample, l1_ratio, n_rows):
        self._sample, self._l1_ratio, self._ends_with_margins = sample, l1_ratio, False
        self.due = []  # numbers of epochs after which there is an update
        self._n_rows = max(n_rows, 1.0)  # less is no row

    def be_due(self, max_iter, n_batches, *, share):
        """Have an update after each such share of the epochs; returns the epoch after the last."""
        epochs = np.unique(np.ceil(share * UPDATES * max_iter).astype(int))
        self.due = epochs[(epochs < max_iter) & (epochs * n_batches >= FEWEST_STEPS)].tolist()
        self._ends_with_margins = len(self.due) > 1 and self._l1_ratio < 1
        return max(self.due, default=0)

    @property
    def next_due(self):
        """The number of epochs after which alpha should be updated; infinity after the last update."""
        return self.due[0] if self.due else np.inf

    def updated(self, alpha, coef, intercept):
        """alpha after its next update; the parameters are those for u, (n_outputs, n_features) and (n_outputs,).

        At the optimum the loss falls with the size of the model as fast as the penalty grows. Where it falls much faster, the
        model has hardly been trained, and tells nothing yet.
        """
        sample = self._sample
        self.due = self.due[1:]
        logits, size_of_coef = sample.logits(coef, intercept), size(coef, sample.q, self._l1_ratio)
        growth = alpha * size_of_coef
        z = _softmax.output_probabilities(logits)
        fall = -slope(logits, residuals(z, sample.y), sample.weight)
        untrained = UNTRAINED if self._l1_ratio == 0 else UNTRAINED_L1
        if growth == 0 or fall > untrained * growth:
            return alpha
        curvature = _softmax.mean_curvature(z, sample.weight)
        if not self.due and self._ends_with_margins:
            # Of a row of any weight one is left out: a weight of 2 is two rows.
            # One of less than 1, as long rows have it, takes no more along than that.
            n_copies = sample.weight * (self._n_rows / sample.spectrum.n_rows)
            squared_norm = sample.squared_norm * np.minimum(1, n_copies)
            shares = sample.spectrum.shares(squared_norm, curvature, alpha * (1 - self._l1_ratio), self._n_rows)
            return alpha * margin_factor(logits, sample.y, sample.weight, shares, max(0.0, fall - growth), self._n_rows)
        share = sample.share_of_nonzero(coef)
        found = by_evidence(alpha, size_of_coef, share, curvature, sample.spectrum, self._n_rows, self._l1_ratio)
        return float(found)


def _in_units_of(q, U):
    """U in units in which q = 1."""
    if (q == 1).all():
        return U
    return with_scaled_columns(U, 1 / q) if sparse.issparse(U) else U / q.astype(U.dtype)
