"""Is a ConvergenceWarning there where the objective is far from its optimum, and only there? And is a fit soon there?

    python benchmarks/honesty.py            # the sets for choosing constants
    python benchmarks/honesty.py report     # the other half

Fits of the sets of _suite.py and of four hard cases with few epochs and many, with penalties around the one that
alpha="auto" begins with, and with step sizes of all kinds. The optimum F* is L-BFGS's, in float64 and in the coordinates of
lr="auto", where it converges sooner. Far is F - F* > max(5 % of F*, .005). Printed are precision and recall, what was missed,
and how far the default fit is and after how many epochs.
"""

import sys
import warnings

import numpy as np
from _suite import SUITE
from scipy import optimize, sparse
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning

from skdl import SoftmaxRegressionClassifier
from skdl._auto import auto_epochs
from skdl._backends import get_backend
from skdl._data import InMemory
from skdl._scaling import Scaling

SETS = {
    "choose": "iris breast_cancer oils glass pima attrition cells jobs spam diamonds debian-embedding-1500 mnist-1000 loans "
    "mnist-10000",
    "report": "wine digits scat crabs penguins olive leaves credit churn docstrings-embedding-1500 fashion-1000 caravan storms "
    "fashion-10000",
}
MAX_ITER = (1, 3, 10, 30, "auto", "10 x auto")
ALPHAS = (1, 0.01, 30)  # times the one that "auto" begins with
NUMERIC_LRS = (0.05, 20)  # times the step of "auto", in the typical unit of a feature
LARGE = 1e8  # numbers in X times classes: fewer fits


def hard_cases(use):
    rng = np.random.default_rng(0)
    if use == "choose":
        y = (rng.random(10_000) < 0.001) * 1  # a rare class that weighs as much as the other
        yield "rare class", rng.normal(size=(len(y), 10)) + 0.8 * y[:, np.newaxis], y, len(y) / 2 / np.bincount(y)[y]
        X = np.sqrt(0.999) * rng.normal(size=(3000, 1)) + np.sqrt(0.001) * rng.normal(size=(3000, 30))
        y = (X @ rng.normal(size=30) * 5 + rng.logistic(size=3000) > 0) * 1
        yield "differences", X[:, 1:] - X[:, :-1], y, None
    else:
        X = rng.normal(size=(6000, 20))
        yield "noise", X, (X @ rng.normal(size=(20, 4)) * 0.5 + rng.gumbel(size=(6000, 4))).argmax(1), None
        y = rng.integers(0, 3, 2000)
        yield (
            "heavy rows",
            rng.normal(size=(2000, 30)) * np.exp(2 * rng.normal(size=(2000, 1))) + 0.3 * np.eye(30)[y],
            y,
            None,
        )


class Problem:
    """The objective, in the coordinates of lr="auto"."""

    def __init__(self, X, y, weight):
        self.X, self.y, self.sample_weight = X, y, weight
        source, self.n_classes = InMemory(X, y, weight), y.max() + 1
        self.n_outputs = 1 if self.n_classes == 2 else self.n_classes
        backend = get_backend("openmp")(source, self.n_outputs)
        self.scaling = Scaling.from_statistics(
            source.statistics(backend), centre=not source.is_sparse, is_sparse=source.is_sparse, dtype=backend.dtype
        )
        self.U = self.scaling.apply(X if sparse.issparse(X) else X.astype(np.float64))
        self.weight = np.full(len(y), 1 / len(y)) if weight is None else weight / weight.sum()

    def __call__(self, v, alpha):
        W = v.reshape(self.n_outputs, -1)
        H = self.U @ W[:, :-1].T + W[:, -1]
        L = log_softmax(np.column_stack((np.zeros(len(H)), H)) if self.n_outputs == 1 else H, axis=1)
        rows, Z = np.arange(len(L)), np.exp(L)
        Z[rows, self.y] -= 1
        Z *= self.weight[:, np.newaxis]
        Z = Z[:, -self.n_outputs :]
        F = -(self.weight * L[rows, self.y]).sum() + alpha / 2 * (W[:, :-1] ** 2).sum()
        return F, np.column_stack(((self.U.T @ Z).T + alpha * W[:, :-1], Z.sum(axis=0))).ravel()

    def parameters(self, model):
        W, b = self.scaling.scale_parameters(model.coef_.astype(np.float64), model.intercept_.astype(np.float64))
        return np.column_stack((W, b)).ravel()

    def fit(self, **params):
        """The model and whether it warned."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = SoftmaxRegressionClassifier(random_state=0, **params)
            model.fit(self.X, self.y, sample_weight=self.sample_weight)
        return model, any(issubclass(w.category, ConvergenceWarning) for w in caught)

    def optimum(self, alpha, starts):
        """From the best of the fits."""
        v = min(starts, key=lambda v: self(v, alpha)[0])
        options = {"maxiter": 3000, "maxfun": 10**5, "ftol": 1e-12, "gtol": 1e-8, "maxcor": 20}
        return optimize.minimize(self, v, alpha, jac=True, method="L-BFGS-B", options=options).fun


def settings(problem, start):
    """alpha and, for each, parameters of fits that share an optimum."""
    large = problem.X.shape[0] * problem.X.shape[1] * problem.n_classes > LARGE
    auto = auto_epochs(len(problem.y), start.batch_size)
    for factor in ALPHAS:
        alpha = factor * start.alpha_
        if large and factor < 1:
            continue
        fits = [{"max_iter": {"10 x auto": 10 * auto}.get(n, n)} for n in (MAX_ITER[:-1] if large else MAX_ITER)]
        if factor == 1:
            lrs = np.array(NUMERIC_LRS) * start.lr_ * np.median(problem.scaling.scale) ** 2
            fits += [{"max_iter": n, "lr": float(lr)} for lr in lrs for n in (10, auto)]
        yield alpha, [{"alpha": alpha, **params} for params in fits]


def main(use):
    rows = []
    sets = [(name, *next(SUITE[name].splits())[::2], None) for name in SETS[use].split()]
    for name, X, y, weight in [*sets, *hard_cases(use)]:
        problem = Problem(X, y, weight)
        start, _ = problem.fit(max_iter=1)
        for alpha, fits in settings(problem, start):
            fitted = []
            for params in fits:
                try:
                    fitted.append((params, *problem.fit(**params)))
                except ValueError:  # it diverged, and said so
                    continue
            ends = [problem.parameters(model) for _, model, _ in fitted]
            best = problem.optimum(alpha, ends)
            for (params, model, warned), v in zip(fitted, ends, strict=True):
                above = (problem(v, alpha)[0] - best) / max(0.05 * best, 0.005)
                rows.append((above > 1, warned))
                default = "" if params["max_iter"] != "auto" else f"  {model.n_iter_} epochs"
                if rows[-1][0] != rows[-1][1] or default:
                    verdict = "" if rows[-1][0] == warned else "missed" if above > 1 else "false alarm"
                    ended = f"{name:26}{alpha / start.alpha_:5g} x alpha  F* {best:.4f}  {above:9.2g} of far"
                    print(f"{ended}  {verdict:12}{params}{default}", flush=True)
    far, warned = np.array(rows).T
    both = (far & warned).sum()
    print(f"{use}: {len(rows)} fits, {far.sum()} far, {warned.sum()} warned")
    print(f"precision {both / warned.sum():.3f}, recall {both / far.sum():.3f}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "choose")
