"""
Find wrong labels
=================

Some labels of a data set are wrong, and nobody knows which. Here one in fifty of 60,000 is made so. A model
that has not seen a row finds its wrong label improbable: five fits, each on four fifths of the rows, judge
every row in less than a second.
"""

import matplotlib.pyplot as plt
import numpy as np
from _images import load_mnist
from sklearn.model_selection import cross_val_predict

from skdl import SoftmaxRegressionClassifier

X, y = load_mnist("train")
random = np.random.RandomState(0)
is_wrong = random.rand(len(y)) < 0.02
labels = np.where(is_wrong, (y + random.randint(1, 10, len(y))) % 10, y)

probabilities = cross_val_predict(SoftmaxRegressionClassifier(random_state=0), X, labels, cv=5, method="predict_proba")
of_label = probabilities[np.arange(len(y)), labels]
suspects = of_label.argsort()  # the least probable labels first

# %%
# Whoever looks through the list from its top finds most of the wrong labels soon. Below, the labels of MNIST
# itself that the model finds least probable: digits that are hard to read, and some that few people would read
# as they are labelled.

found = is_wrong[suspects].cumsum() / is_wrong.sum()
n_to_look_at = np.searchsorted(found, 0.9) + 1
print(f"Nine in ten of {is_wrong.sum():,} wrong labels are among the first {n_to_look_at:,} of {len(y):,} rows.")

figure = plt.figure(figsize=(8.4, 5.4))
grid = figure.add_gridspec(2, 10, height_ratios=[2.6, 1])
axes = figure.add_subplot(grid[0, :])
axes.plot(np.arange(1, len(y) + 1), 100 * found)
axes.plot([1, is_wrong.sum(), len(y)], [0, 100, 100], color="#22303c", linestyle=":", linewidth=1, label="an oracle")
axes.plot(n_to_look_at, 90, "o", markersize=9, markeredgecolor="white", color="#c8553d")
axes.annotate(f"{n_to_look_at:,} rows: 90 %", (n_to_look_at, 90), xytext=(10, -14), textcoords="offset points")
axes.set(xlim=(0, 10_000), ylim=(0, 103), xlabel="rows looked at, the least probable labels first")
axes.set(ylabel="wrong labels found, in per cent", title="1,200 wrong labels among 60,000")
axes.legend(loc="lower right")

genuine = [i for i in suspects if not is_wrong[i]][:10]
for column, i in enumerate(genuine):
    axes = figure.add_subplot(grid[1, column])
    axes.imshow(X[i].reshape(28, 28), cmap="Greys")
    axes.set_title(
        f"label {labels[i]}\nmodel {probabilities[i].argmax()}", loc="center", fontsize=8, fontweight="normal"
    )
    axes.axis("off")
plt.show()
