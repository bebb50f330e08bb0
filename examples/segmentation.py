"""
Segment a photograph from a few marks
=====================================

Someone has marked a few patches of a photograph: sky, water, building and trees. A softmax regression learns
from what is around the marked pixels, and gives each of the 270,000 others its probabilities.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_sample_image

from skdl import SoftmaxRegressionClassifier

MARKS = {  # left, top, width and height
    "sky": [(30, 20, 130, 70), (430, 30, 150, 60)],
    "water": [(440, 225, 110, 60), (70, 215, 40, 20), (380, 185, 60, 15)],
    "building": [(165, 180, 185, 40), (205, 70, 95, 40), (180, 300, 150, 25), (150, 255, 200, 25), (160, 125, 180, 15)],
    "trees": [(5, 250, 60, 70), (470, 350, 120, 50), (600, 150, 38, 70)],
}
COLOURS = dict(zip(MARKS, ("#7fb2d9", "#22303c", "#c8553d", "#5b8e7d"), strict=True))

# %%
# What the model is told of a pixel: where it is, its colour, the mean colour within three distances, and how
# much the colour varies there. These features have different units and spreads, which does not matter.

photo = load_sample_image("china.jpg")
height, width, _ = photo.shape
colour = photo.astype(np.float32)
features = [colour, np.mgrid[:height, :width].transpose(1, 2, 0).astype(np.float32)]
for distance in (1, 3, 8):
    mean = gaussian_filter(colour, (distance, distance, 0))
    variance = gaussian_filter(colour**2, (distance, distance, 0)) - mean**2
    features += [mean, np.sqrt(np.maximum(variance, 0))]
X = np.concatenate(features, axis=2)

marked = np.full((height, width), "", dtype=object)
for name, patches in MARKS.items():
    for left, top, across, down in patches:
        marked[top : top + down, left : left + across] = name
is_marked = marked != ""
model = SoftmaxRegressionClassifier(random_state=0).fit(X[is_marked], marked[is_marked].astype(str))
probabilities = model.predict_proba(X.reshape(-1, X.shape[2]))

# %%
# The colours are mixed by the probabilities.

figure, (before, after) = plt.subplots(1, 2, figsize=(10, 4))
before.imshow(photo)
before.set_title("Marks")
for name, patches in MARKS.items():
    for left, top, across, down in patches:
        before.add_patch(Rectangle((left, top), across, down, facecolor=COLOURS[name], edgecolor="white", alpha=0.75))
mixture = probabilities @ np.array([to_rgb(COLOURS[name]) for name in model.classes_])
after.imshow(mixture.reshape(height, width, 3))
after.set_title(f"From {is_marked.sum():,} pixels to {height * width:,}")
for name, of_name in COLOURS.items():
    after.plot([], [], "s", color=of_name, label=name)
figure.legend(loc="outside lower center", ncols=4)
for axes in (before, after):
    axes.axis("off")
plt.show()
