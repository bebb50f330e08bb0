"""
Probe the layers of a network
=============================

A linear probe asks what can be read from an embedding by a linear model. Here the embeddings are the layers of
a small network that learned to tell even digits from odd ones, and was never told more. Which of the ten digits
it saw can still be read from its first layer, and hardly from its last. For each layer a search tries nine
strengths of the probe's penalty in one pass, on a validation set.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np
from _images import load_mnist
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from skdl import SoftmaxRegressionClassifierCV

X, y = load_mnist("train")
X = X / np.float32(255)
network = MLPClassifier((128, 32, 8), max_iter=5, random_state=0)
with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # five epochs are enough here
    network.fit(X[:10_000], y[:10_000] % 2)


def layers(X):
    """The images, and what each hidden layer makes of them, as float16: half the memory, and read in place."""
    yield X.astype(np.float16)
    for weights, bias in zip(network.coefs_[:-1], network.intercepts_[:-1], strict=True):
        X = np.maximum(X @ weights + bias, 0)
        yield X.astype(np.float16)


rows = layers(X[20_000:26_000])
rows_val = layers(X[30_000:34_000])
names = ["pixels", "layer 1", "layer 2", "layer 3"]
probes = {}
for name, E, E_val in zip(names, rows, rows_val, strict=True):
    probe = SoftmaxRegressionClassifierCV(max_iter=30, refit=False, random_state=0)
    probes[f"{name} ({E.shape[1]})"] = probe.fit(E, y[20_000:26_000], X_val=E_val, y_val=y[30_000:34_000])

# %%
# The curves are the searches: the penalty that each layer needs differs, and the search centres its nine values
# where the data ask for it.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.9), width_ratios=[1, 1.3])
colours = plt.rcParams["axes.prop_cycle"].by_key()["color"]
for name, probe, colour in zip(probes, probes.values(), colours, strict=False):
    errors = 100 * (1 - probe.cv_results_["mean_test_score"])
    left.barh(name, errors.min(), color=colour, height=0.6)
    left.annotate(f"{errors.min():.1f} %", (errors.min(), name), xytext=(4, 0), textcoords="offset points", va="center")
    right.plot(probe.cv_results_["param_alpha"].astype(float), errors, "o-", color=colour, label=name)
left.set(title="Digits misread by the best probe", xticks=[])
left.invert_yaxis()
left.tick_params(left=False)
left.spines[:].set_visible(False)
left.grid(False)
left.margins(x=0.2)
right.set(xscale="log", yscale="log", xlabel="alpha of the probe", title="The searches: validation error in per cent")
right.set_yticks([5, 10, 20, 40], ["5", "10", "20", "40"])
right.minorticks_off()
plt.show()
