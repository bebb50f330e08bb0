"""Decisions of the same model on three sets of features, where opposite quadrants are of the same class."""

import matplotlib.pyplot as plt
import numpy as np

from skdl import SoftmaxRegressionClassifier

rng = np.random.default_rng(0)
X = rng.uniform(-1, 1, size=(300, 2))
y = (X[:, 0] > 0) != (X[:, 1] > 0)
A = rng.normal(size=(100, 2))
a, b = np.meshgrid(np.linspace(-1, 1, 150), np.linspace(-1, 1, 150))
grid = np.column_stack([a.ravel(), b.ravel()])

figure, axes = plt.subplots(1, 3, figsize=(7.2, 2.7), sharey=True)
for ax, (title, features) in zip(
    axes,
    {
        "the two inputs": lambda X: X,
        "and their product": lambda X: np.column_stack([X, X[:, 0] * X[:, 1]]),
        "100 random bends": lambda X: np.maximum(0, X @ A.T),
    }.items(),
    strict=True,
):
    model = SoftmaxRegressionClassifier(random_state=0).fit(features(X), y)
    probability = model.predict_proba(features(grid))[:, 1].reshape(a.shape)
    ax.contourf(a, b, probability, levels=np.linspace(0, 1, 11), cmap="RdBu_r", alpha=0.7)
    ax.scatter(*X.T, c=np.where(y, "C0", "C1"), s=7, edgecolors="white", linewidths=0.3)
    ax.set(title=title, xticks=[-1, 0, 1], yticks=[-1, 0, 1], aspect="equal")
    ax.grid(False)
