"""The zero-one loss and the cross-entropy: of one example, and along a line in the space of weights."""

import matplotlib.pyplot as plt
import numpy as np
from _pixels import mnist

figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.2))

margin = np.linspace(-3, 3, 601)
left.plot(margin, np.logaddexp(0, -margin) / np.log(2), color="C1", label="cross-entropy / log 2")
left.step(margin, margin < 0, color="C0", label="zero-one loss")
left.set(xlabel="$h_y - h_{other}$", ylabel="loss of one example")
left.legend()

X, y = mnist("train")
W = np.stack([X[y == digit].mean(axis=0) for digit in range(10)]) / 2
direction = np.random.default_rng(1).normal(scale=0.1, size=W.shape)
X, y = X[:12], y[:12]


def losses(t):
    """The error and the cross-entropy of 12 digits at the point t of the line."""
    H = X @ (W + t * direction).T
    H -= H.max(axis=1, keepdims=True)
    return np.mean(H.argmax(axis=1) != y), np.mean(np.log(np.exp(H).sum(axis=1)) - H[np.arange(len(y)), y])


place = np.linspace(-3, 3, 601)
error, entropy = np.transpose([losses(t) for t in place])
right.plot(place, entropy / np.log(2), color="C1")
right.step(place, error, color="C0")
right.set(xlabel="place on the line", ylabel="mean loss of 12 digits", ylim=(0, 3))
