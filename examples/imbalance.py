"""
A rare class
============

One image in a hundred is a nine that must not be missed among fours, sevens and the rest. A model that
minimises the plain loss is right to be cautious: most of what looks a little like a nine is none. Class weights
move the boundary, and so does a threshold on the probabilities, which needs no second model.
"""

import matplotlib.pyplot as plt
import numpy as np
from _images import load_mnist
from sklearn.metrics import f1_score, precision_recall_curve, precision_score, recall_score
from sklearn.model_selection import TunedThresholdClassifierCV

from skdl import SoftmaxRegressionClassifier


def with_few_nines(part):
    """All other digits, and one nine for every hundred of them."""
    X, y = load_mnist(part)
    nines = np.flatnonzero(y == 9)
    keep = np.sort(np.r_[np.flatnonzero(y != 9), nines[: (len(y) - len(nines)) // 100]])
    return X[keep], (y[keep] == 9).astype(int)


X, y = with_few_nines("train")
X_test, y_test = with_few_nines("t10k")
models = {
    "as it is": SoftmaxRegressionClassifier(random_state=0),
    'class_weight="balanced"': SoftmaxRegressionClassifier(class_weight="balanced", random_state=0),
    "threshold tuned for F1": TunedThresholdClassifierCV(
        SoftmaxRegressionClassifier(random_state=0), scoring="f1", cv=3, random_state=0
    ),
}

# %%
# Each curve is what one model can do at all thresholds; the dot is where it decides.

figure, axes = plt.subplots(figsize=(7.2, 4.6))
for name, model in models.items():
    model.fit(X, y)
    precision, recall, _ = precision_recall_curve(y_test, model.predict_proba(X_test)[:, 1])
    predicted = model.predict(X_test)
    label = f"{name}: F1 = {f1_score(y_test, predicted):.2f}"
    [line] = axes.plot(recall, precision, alpha=0.6, linewidth=1.5)
    axes.plot(recall_score(y_test, predicted), precision_score(y_test, predicted), "o", markersize=11,
              color=line.get_color(), markeredgecolor="white", label=label)  # fmt: skip
axes.set(xlabel="recall: share of the nines that are found", ylabel="precision: share of nines among those found")
axes.set(title="One nine among a hundred others", xlim=(0, 1.01), ylim=(0, 1.02))
axes.legend(loc="lower left")
plt.show()
