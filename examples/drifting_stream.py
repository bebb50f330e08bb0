"""
A stream that drifts
====================

Digits come in, two hundred at a time, and each call of `partial_fit` makes one pass over them. Slowly the
camera turns: from upright to upside down. A model that forgets nothing averages over all that it has seen; with
``half_life`` it follows. How long to remember is a trade: a short memory follows fast and is noisy.
"""

import matplotlib.pyplot as plt
import numpy as np
from _images import load_mnist
from scipy.ndimage import rotate

from skdl import SoftmaxRegressionClassifier

X, y = load_mnist("train")
X, y = X[:40_000].reshape(-1, 200, 28, 28), y[:40_000].reshape(-1, 200)
turned = np.clip((np.arange(len(X)) - 60) / 80, 0, 1)  # from the 60th call to the 140th
angles = 180 * turned
models = {
    half_life: SoftmaxRegressionClassifier(half_life=half_life, random_state=0) for half_life in (None, 4000, 600)
}
errors = {half_life: [] for half_life in models}
views = {}
for call, (images, labels, angle) in enumerate(zip(X, y, angles, strict=True)):
    images = rotate(images, angle, axes=(1, 2), reshape=False, order=1)
    if call % 25 == 12:
        views[call] = images[labels == 4][0]
    rows = images.reshape(200, -1)
    for half_life, model in models.items():
        if call:
            errors[half_life].append(np.mean(model.predict(rows) != labels))  # before it is told
        model.partial_fit(rows, labels, classes=np.arange(10))

# %%
# The error on each call's digits before the model learns from them, as a mean over ten calls.

figure, axes = plt.subplots(figsize=(8.4, 4.6))
smooth = np.ones(10) / 10
for half_life, of_model in errors.items():
    label = "nothing is forgotten" if half_life is None else f"half_life={half_life}"
    axes.plot(np.arange(10, 200) - 4.5, 100 * np.convolve(of_model, smooth, "valid"), label=label)
axes.axvspan(60, 140, color="#22303c", alpha=0.06, linewidth=0)
axes.text(100, 2, "the camera turns", ha="center", style="italic")
axes.set(
    xlabel="calls of partial_fit, 200 digits each", ylabel="digits misread, in per cent", xlim=(0, 200), ylim=(0, 95)
)
for call, view in views.items():
    inset = axes.inset_axes([call / 200 - 0.04, 0.86, 0.08, 0.14])
    inset.imshow(view, cmap="Greys")
    inset.axis("off")
axes.legend(loc="center left", bbox_to_anchor=(0.02, 0.55))
axes.set_title("Digits that turn upside down")
plt.show()
