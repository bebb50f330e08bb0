"""The test error of gradient descent and of minibatches of 100, against epochs."""

import matplotlib.pyplot as plt
import numpy as np
from _pixels import mnist

X, y = mnist("train")
X_test, y_test = mnist("t10k")
I = np.eye(10, dtype=np.float32)  # noqa: E741


def errors(lr, batch_size, n_epochs, per_epoch):
    """The test error in per cent, that many times an epoch."""
    W = np.zeros((10, 784), dtype=np.float32)
    starts = range(0, len(X), batch_size)
    looks = set(np.linspace(0, len(starts), per_epoch + 1, dtype=int)[1:])
    curve = [90.2]
    for _ in range(n_epochs):
        for number, start in enumerate(starts, 1):
            x = X[start : start + batch_size]
            Z = np.exp(x @ W.T)
            Z /= Z.sum(axis=1, keepdims=True)
            W -= np.float32(lr / len(x)) * (Z - I[y[start : start + batch_size]]).T @ x
            if number in looks:
                curve.append(100 * np.mean((X_test @ W.T).argmax(axis=1) != y_test))
    return np.arange(len(curve)) / per_epoch, curve


plt.figure(figsize=(7.2, 3.4))
plt.plot(*errors(0.5, len(X), 10, 1), "o-", color="C1", label="gradient descent: 10 steps on 60,000 examples")
plt.plot(*errors(0.2, 100, 10, 10), color="C0", label="minibatches: 6,000 steps on 100 examples")
plt.xlabel("epochs")
plt.ylabel("test digits wrong, %")
plt.yscale("log")
plt.yticks([8, 10, 20, 40, 80], ["8", "10", "20", "40", "80"])
plt.minorticks_off()
plt.legend()
