"""How many coefficients an L1 penalty leaves, by the number of last proximal steps on all rows: python benchmarks/l1_zeros.py

Prints a Markdown table; "saga" is scikit-learn's LogisticRegression on the same scaled features, run to convergence. A mean
over three seeds. From here comes EPOCHS_PER_SETTLING of skdl/_sgd.py.
"""

import warnings

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.linear_model import LogisticRegression

from skdl import SoftmaxRegressionClassifier, _sgd

DATASETS = {"wine": load_wine, "breast cancer": load_breast_cancer, "digits": load_digits}
EPOCHS_PER_STEP = {"none": None, "1": 10**9, "epochs / 100": 100, "/ 50": 50, "/ 20": 20, "/ 10": 10}


def nonzero(X, y, alpha, epochs_per_step):
    settled = _sgd.settled
    if epochs_per_step is None:
        _sgd.settled = lambda solution, *_: (solution.coef, solution.intercept)
    else:
        _sgd.EPOCHS_PER_SETTLING = epochs_per_step
    models = [SoftmaxRegressionClassifier(alpha=alpha, l1_ratio=1.0, random_state=s).fit(X, y) for s in range(3)]
    _sgd.settled = settled
    return models[0].scale_, np.mean([np.count_nonzero(model.coef_) for model in models])


def main():
    warnings.simplefilter("ignore")
    print("| data | alpha | saga |", " | ".join(EPOCHS_PER_STEP), "|")
    print("|---" * (3 + len(EPOCHS_PER_STEP)) + "|")
    for name, load in DATASETS.items():
        X, y = load(return_X_y=True)
        for alpha in (0.003, 0.01, 0.03):
            counts = []
            for epochs_per_step in EPOCHS_PER_STEP.values():
                scale, count = nonzero(X, y, alpha, epochs_per_step)
                counts.append(f"{count:.1f}")
            U = (X - X.mean(axis=0)) / scale
            peer = LogisticRegression(solver="saga", l1_ratio=1.0, C=1 / (alpha * len(y)), tol=1e-5, max_iter=10_000)
            print(
                f"| {name} | {alpha} | {np.count_nonzero(peer.fit(U, y).coef_)} |", " | ".join(counts), "|", flush=True
            )


if __name__ == "__main__":
    main()
