"""
Are its probabilities true?
===========================

Of all the times that a model says "80 %", it should be right in 80 %. Softmax regression is trained to say so;
other classifiers are sure of too much or of too little. Each dot is a tenth of MNIST's 10,000 test digits,
ordered by how sure the model is.
"""

import matplotlib.pyplot as plt
import numpy as np
from _images import load_mnist
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import log_loss
from sklearn.naive_bayes import BernoulliNB

from skdl import SoftmaxRegressionClassifier

X, y = load_mnist("train")
X_test, y_test = load_mnist("t10k")
X, y = X[:10_000], y[:10_000]
models = {
    "softmax regression": SoftmaxRegressionClassifier(random_state=0),
    "random forest": RandomForestClassifier(50, min_samples_leaf=3, n_jobs=-1, random_state=0),
    "naive Bayes": BernoulliNB(binarize=100),
}

figure, axes = plt.subplots(figsize=(5.6, 5.2))
axes.plot([0, 1], [0, 1], color="#22303c", linestyle=":", linewidth=1)
for marker, (name, model) in zip("osD", models.items(), strict=True):
    probabilities = model.fit(X, y).predict_proba(X_test)
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == y_test
    tenths = np.array_split(sure.argsort(), 10)
    said, true = [[values[tenth].mean() for tenth in tenths] for values in (sure, right)]
    label = f"{name}: log-loss {log_loss(y_test, probabilities):.2f}, {1 - right.mean():.1%} wrong"
    axes.plot(said, true, marker=marker, label=label)
axes.set(xlabel="how sure the model is", ylabel="how often it is right", xlim=(0.25, 1.03), ylim=(0.25, 1.03))
axes.set_title("Sure and right")
axes.annotate("too modest", (0.5, 0.75), color="#22303c", alpha=0.6, style="italic")
axes.annotate("too sure", (0.85, 0.55), color="#22303c", alpha=0.6, style="italic")
axes.legend(loc="lower right", fontsize="small")
plt.show()
