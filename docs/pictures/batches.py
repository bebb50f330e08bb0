"""The test loss after five epochs on 6,000 digits, against the step size, for several batch sizes."""

import warnings

import matplotlib.pyplot as plt
import numpy as np
from _pixels import mnist
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss

from skdl import SoftmaxRegressionClassifier

warnings.simplefilter("ignore", ConvergenceWarning)  # steps that are too small or too large are what we look for
X, y = mnist("train")
X, y = X[:6000], y[:6000]
X_test, y_test = mnist("t10k")

figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.6), sharey=True)
for ax, schedule in zip(axes, ("constant", "cosine"), strict=True):
    for batch_size, largest in (1, -2), (10, 0), (100, 2), (1000, 2), (6000, 2):
        lr = 2.0 ** np.arange(-9, largest + 1)
        losses = []
        for step in lr:
            model = SoftmaxRegressionClassifier(
                lr=step, batch_size=batch_size, max_iter=5, lr_schedule=schedule, momentum=0, alpha=0, random_state=0
            )
            losses.append(log_loss(y_test, model.fit(X, y).predict_proba(X_test)))
        ax.plot(lr, losses, "o-", label=f"B = {batch_size:,}")
    ax.set(xscale="log", yscale="log", ylim=(0.29, 2.5), xlabel="step size", title=f"{schedule} step")
axes[0].set_ylabel("test cross-entropy after 5 epochs")
axes[0].set_yticks([0.3, 0.5, 1, 2], ["0.3", "0.5", "1", "2"])
axes[0].minorticks_off()
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
