"""
Three classes as three colours
==============================

What does softmax regression think of a point between the classes? Here each point of the plane has the mixture
of the classes' colours by their probabilities: pure where the model is sure, mixed where it hesitates.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb
from sklearn.datasets import load_iris

from skdl import SoftmaxRegressionClassifier

iris = load_iris()
X, y = iris.data[:, 2:], iris.target  # length and width of the petals, in cm
model = SoftmaxRegressionClassifier(random_state=0).fit(X, y)
print(f"{model.score(X, y):.1%} of the flowers are named correctly")

# %%
# The logits are linear in x. So two classes are equally probable on a straight line, and the probabilities
# change fastest across it: the black lines are where they tie.

COLOURS = np.array([to_rgb(colour) for colour in ("#c8553d", "#2f6690", "#e0a030")])
lengths, widths = np.meshgrid(np.linspace(0.5, 7.4, 400), np.linspace(-0.2, 2.8, 300))
grid = np.column_stack([lengths.ravel(), widths.ravel()])
probabilities = model.predict_proba(grid)
extent = (0.5, 7.4, -0.2, 2.8)

figure, axes = plt.subplots(figsize=(7.2, 4.6))
mixture = 1 - 0.75 * (1 - probabilities @ COLOURS)  # paler, so that the flowers stand out
axes.imshow(mixture.reshape(*lengths.shape, 3), extent=extent, origin="lower", aspect="auto")
for k in range(3):
    others = np.delete(probabilities, k, axis=1).max(axis=1)
    axes.contour(
        lengths, widths, (probabilities[:, k] - others).reshape(lengths.shape), [0], colors="#22303c", linewidths=1
    )
    points = X[y == k]
    axes.scatter(*points.T, color=COLOURS[k], edgecolor="white", s=34, label=iris.target_names[k])
axes.set(xlabel="petal length (cm)", ylabel="petal width (cm)", title="The iris, by its petals")
axes.legend(loc="upper left", frameon=True)
axes.grid(False)
plt.show()
