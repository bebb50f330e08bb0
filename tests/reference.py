"""The NumPy twin: softmax regression by minibatch SGD, short enough to be checked by eye. It judges every backend.

Shapes and names are those of `skdl._sgd`; everything is float64. The coordinates are those the caller gives: a twin of a
fit with mean and scale is a fit on (X - mean) * scale.
"""

import numpy as np


def loss_and_gradient(W, b, X, y, weight):
    """Sum over the rows of weight times cross-entropy, and its gradient with respect to W and b."""
    H = X @ W.T + b
    if len(b) == 1:  # two classes: one logit, that of the second class against 0
        H = np.hstack([np.zeros((len(X), 1)), H])
    H = H - H.max(axis=1, keepdims=True)
    log_Z = H - np.log(np.exp(H).sum(axis=1, keepdims=True))
    residuals = np.exp(log_Z)
    residuals[np.arange(len(y)), y] -= 1
    residuals = weight[:, None] * residuals[:, -len(b) :]
    return -(weight * log_Z[np.arange(len(y)), y]).sum(), residuals.T @ X, residuals.sum(axis=0)


def proximal(W, lr, l1, l2):
    """The proximal operator of lr (l2 / 2 W^2 + l1 |W|), l1 and l2 per feature."""
    W = W / (1 + lr * l2)
    return np.sign(W) * np.maximum(np.abs(W) - lr * l1, 0)


def run_epoch(W, b, V, v, X, y, weight, order, batch_size, step_sizes, *, momentum, l1, l2, fit_intercept, lazy=False):
    """One epoch, in place; returns the mean loss. With `lazy`, as for CSR: a feature's penalty waits until it next occurs."""
    owed = np.zeros(X.shape[1])  # sum of the step sizes since each feature's last proximal step
    total = 0.0
    for s, lr in enumerate(step_sizes):
        rows = order[s * batch_size : (s + 1) * batch_size]
        x = X[rows]
        present = (x != 0).any(axis=0) if lazy else np.ones(X.shape[1], dtype=bool)
        W[:, present] = proximal(W, owed, l1, l2)[:, present]
        owed[present] = 0
        loss, G, g = loss_and_gradient(W, b, x, y[rows], weight[rows])
        total += loss
        V *= momentum
        V += G / len(rows)
        W -= lr * V
        owed += lr
        if fit_intercept:
            v *= momentum
            v += g / len(rows)
            b -= lr * v
    W[:] = proximal(W, owed, l1, l2)
    return total / len(order)
