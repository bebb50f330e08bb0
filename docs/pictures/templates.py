"""The rows of W as images."""

import matplotlib.pyplot as plt
import numpy as np
from _pixels import mnist

from skdl import SoftmaxRegressionClassifier

X, y = mnist("train")
model = SoftmaxRegressionClassifier(
    lr=0.2, batch_size=100, max_iter=10, lr_schedule="constant", momentum=0, alpha=0, fit_intercept=False, shuffle=False
)
templates = model.fit(X, y).coef_ * X.std(axis=0)
largest = np.quantile(abs(templates), 0.998)

figure, axes = plt.subplots(2, 5, figsize=(7.2, 3.1))
for digit, ax in enumerate(axes.flat):
    ax.imshow(templates[digit].reshape(28, 28), cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="bicubic")
    ax.set_title(digit)
    ax.axis("off")
