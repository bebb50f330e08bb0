"""
Early stopping, and what the penalty does instead
=================================================

Two thousand digits, one label in six wrong, and no penalty: a model with 784 weights a class begins to learn
the wrong labels, too. Its loss in training falls while that on other digits rises. Early stopping watches a
validation set and keeps the coefficients of the best epoch. ``alpha="auto"``, the default, needs no validation
set: it learns from the same rows how much to hold the model back.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np
from _images import load_mnist
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss

from skdl import LossCurveDisplay, SoftmaxRegressionClassifier

X, y = load_mnist("train")
X_test, y_test = load_mnist("t10k")
X, y, X_val, y_val = X[:2000], y[:2000].copy(), X[2000:4000], y[2000:4000]
random = np.random.RandomState(0)
wrong = random.rand(len(y)) < 0.2
y[wrong] = random.randint(0, 10, wrong.sum())

models = {
    "no penalty": SoftmaxRegressionClassifier(alpha=0, random_state=0),
    "early stopping": SoftmaxRegressionClassifier(alpha=0, lr_schedule="constant", early_stopping=True, random_state=0),
    'alpha="auto"': SoftmaxRegressionClassifier(random_state=0),
}
figure, axes = plt.subplots(1, 3, figsize=(10, 3.8), sharey=True)
for ax, (name, model) in zip(axes, models.items(), strict=True):
    with warnings.catch_warnings(
        action="ignore", category=ConvergenceWarning
    ):  # without a penalty the optimum is far away
        model.fit(X, y, X_val=X_val, y_val=y_val)
    LossCurveDisplay.from_estimator(model, ax=ax)
    loss = log_loss(y_test, model.predict_proba(X_test))
    ax.set_title(f"{name}\ntest: log-loss {loss:.2f}, {1 - model.score(X_test, y_test):.0%} wrong")
axes[0].set_ylim(0, 1.8)
plt.show()
