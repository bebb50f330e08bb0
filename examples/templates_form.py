"""
How templates form
==================

After one minibatch the weights of a digit are the mean image of those that were in it, minus the mean of the
others. Thousands of updates later they have learned where the digits differ. A stream shows every stage:
`partial_fit` makes one pass over the rows that it is given.
"""

import matplotlib.pyplot as plt
import numpy as np
from _images import load_mnist

from skdl import SoftmaxRegressionClassifier

X, y = load_mnist("train")
X_test, y_test = load_mnist("t10k")
spread = X.std(axis=0)  # a pixel that is hardly ever inked may have a large weight and no say

SEEN = (128, 512, 2048, 8192, 60_000)
model = SoftmaxRegressionClassifier(random_state=0)
stages = []
for start, stop in zip((0, *SEEN), SEEN, strict=False):
    model.partial_fit(X[start:stop], y[start:stop], classes=np.arange(10))
    stages.append((model.coef_ * spread, 1 - model.score(X_test, y_test)))

# %%
# Red pixels speak for a digit where they are inked, blue ones against it.

figure, axes = plt.subplots(len(SEEN), 10, figsize=(9, 5.2), gridspec_kw=dict(wspace=0.05, hspace=0.05))
for row, seen, (votes, error) in zip(axes, SEEN, stages, strict=True):
    strength = np.quantile(abs(votes), 0.995)
    for digit, (ax, image) in enumerate(zip(row, votes.reshape(-1, 28, 28), strict=True)):
        ax.imshow(image, vmin=-strength, vmax=strength, interpolation="bicubic")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        if seen == SEEN[0]:
            ax.set_title(digit, loc="center")
    label = f"{seen:,} rows\n{error:.1%} wrong"
    row[0].set_ylabel(label, rotation=0, ha="right", va="center", labelpad=8)
figure.suptitle("One pass over MNIST", x=0.01, ha="left", fontweight="bold")
plt.show()
