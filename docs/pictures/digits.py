"""Four digits of each class, and the mean of each class."""

import matplotlib.pyplot as plt
import numpy as np
from _pixels import mnist

X, y = mnist("train")
rows = [X[[np.flatnonzero(y == digit)[i] for digit in range(10)]] for i in range(4)]
rows.append(np.stack([X[y == digit].mean(axis=0) for digit in range(10)]))

figure, axes = plt.subplots(5, 10, figsize=(7.2, 3.8))
for line, images in zip(axes, rows, strict=True):
    for ax, image in zip(line, images, strict=True):
        ax.imshow(image.reshape(28, 28), cmap="Greys")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
axes[4, 0].set_ylabel("mean")
