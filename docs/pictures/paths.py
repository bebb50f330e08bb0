"""Paths of gradient descent and of SGD over the loss of a model with two weights."""

import matplotlib.pyplot as plt
import numpy as np

rng = np.random.default_rng(3)
n = 400
y = rng.integers(0, 2, n)
X = rng.normal(size=(n, 2)) * [3, 1] + np.outer(2 * y - 1, [1.0, 1.0])
sign = 2 * y - 1


def loss(w):
    """The mean cross-entropy at points w (..., 2)."""
    return np.logaddexp(0, -sign * (w @ X.T)).mean(axis=-1)


def gradient(w, rows):
    return (-sign[rows] / (1 + np.exp(sign[rows] * (X[rows] @ w)))) @ X[rows] / len(rows)


def path(n_steps, lr, batch_size=n, falls=False):
    """The points that it visits."""
    points = [np.array([-0.75, -0.5])]
    for step in range(n_steps):
        rows = np.arange(n) if batch_size == n else rng.choice(n, batch_size)
        share = (1 + np.cos(np.pi * step / n_steps)) / 2 if falls else 1
        points.append(points[-1] - lr * share * gradient(points[-1], rows))
    return np.array(points)


figure, axes = plt.subplots(2, 2, figsize=(7.2, 5.2), sharex=True, sharey=True)
a, b = np.meshgrid(np.linspace(-1, 1, 200), np.linspace(-0.8, 3.2, 200))
heights = loss(np.stack([a, b], axis=-1))
for ax, title, points in (
    (axes[0, 0], "all examples, step 0.1", path(30, 0.1)),
    (axes[0, 1], "all examples, step 0.95", path(30, 0.95)),
    (axes[1, 0], "batches of 4, step 0.4", path(120, 0.4, 4)),
    (axes[1, 1], "batches of 4, step falls from 0.4 to 0", path(120, 0.4, 4, falls=True)),
):
    ax.contour(a, b, heights, levels=heights.min() + np.geomspace(0.005, 2, 9), colors="C6", linewidths=0.8)
    ax.plot(*points.T, "o-", color="C0", markersize=3, linewidth=1.2)
    ax.plot(*points[-1], "*", color="C5", markersize=11)
    ax.set(title=title, xlim=(-1, 1), ylim=(-0.8, 3.2))
    ax.grid(False)
figure.supxlabel("weight of the first feature", fontsize=10)
figure.supylabel("weight of the second feature", fontsize=10)
