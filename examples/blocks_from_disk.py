"""
Rows from a file, in blocks
===========================

420,000 digits lie in a file of 329 MB, sorted by class: first all zeros, then all ones. Read from one end to the
other they would teach a model nothing but the last class it saw. :class:`~skdl.Blocks` are visited in random order
instead, and a few hundred of them at a time are shuffled in a buffer, while the next ones are being read. Memory
for two buffers is all that it takes, however long the file is.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from _images import load_mnist

from skdl import Blocks, SoftmaxRegressionClassifier

X, y = load_mnist("train")
X_test, y_test = load_mnist("t10k")
folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "digits.npy"

# The file: each image seven times, with other noise each time.
rng, copies = np.random.default_rng(0), 7
labels = np.repeat(np.sort(y), copies)
file = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(len(labels), 784))
for start, images in enumerate(np.array_split(X[np.argsort(y, kind="stable")], 100)):
    repeated = np.repeat(images, copies, axis=0)
    noise = rng.integers(0, 16, repeated.shape, dtype=np.uint8)
    rows = slice(start * len(repeated), (start + 1) * len(repeated))
    file[rows] = np.minimum(repeated, 239) + noise * (repeated > 0)
file.flush()

# %%
# A memory map gives its rows by a slice, which is all that ``Blocks`` wants. (``fit`` takes a map as it is, too, and
# makes blocks of one that has more than 4 GiB.)
blocks = Blocks.from_arrays(np.load(path, mmap_mode="r"), labels)
model = SoftmaxRegressionClassifier(random_state=0).fit(blocks)
print(f"{len(blocks)} blocks, {model.n_iter_} epochs, test error {100 * (1 - model.score(X_test, y_test)):.2f} %")

# %%
# What a minibatch sees: the classes of 3,000 rows in the order of the file, and in the order of a buffer of 100 blocks.
# Classes come in other proportions from buffer to buffer, which is the price of a sorted file; with far fewer blocks it
# would be high, and a warning says so.
buffer = np.concatenate([blocks[int(i)][1] for i in rng.permutation(len(blocks))[:100]])
orders = {
    "in the order of the file": labels[:: len(labels) // 3000][:3000],
    "in a buffer": rng.permutation(buffer)[:3000],
}
figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), width_ratios=(1, 1, 0.8))
for ax, (name, classes) in zip(axes, orders.items(), strict=False):
    ax.scatter(np.arange(len(classes)), classes + rng.uniform(-0.35, 0.35, len(classes)), s=2, c=classes, cmap="tab10")
    ax.set(title=f"Rows {name}", xlabel="row", yticks=range(10), ylabel="class")
counts = np.bincount(buffer, minlength=10) / len(buffer)
axes[2].barh(range(10), counts, color=plt.get_cmap("tab10")(np.arange(10)))
axes[2].axvline(0.1, color="0.4", linestyle=":")
axes[2].set(title="Classes in a buffer", xlabel="share of the rows", yticks=range(10))
plt.show()
folder.cleanup()
