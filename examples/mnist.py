"""
Recognise handwritten digits
============================

The default estimator on the raw bytes of MNIST: 60,000 images of 28 x 28 pixels, from 0 to 255. Nothing is
scaled, and nothing is tuned. ``make demo`` runs this program.
"""

from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from _images import ROOT, load_mnist
from sklearn.callback import ProgressBar
from sklearn.metrics import confusion_matrix, log_loss

import skdl

X_train, y_train = load_mnist("train")
X_test, y_test = load_mnist("t10k")

model = skdl.SoftmaxRegressionClassifier(random_state=0)
model.set_callbacks(ProgressBar())
start = perf_counter()
model.fit(X_train, y_train)
seconds = perf_counter() - start
probabilities = model.predict_proba(X_test)

print(f"data            MNIST, {X_train.shape[0]:,} x {X_train.shape[1]} {X_train.dtype}, as it comes")
skdl.show_versions()
print(f"epochs          {model.n_iter_}")
print(f"fit             {seconds:.2f} s, progress bar included")
print(f"test error      {100 * np.mean(model.predict(X_test) != y_test):.2f} % (10,000 digits)")
print(f"test log-loss   {log_loss(y_test, probabilities):.4f}")

# %%
# What was learned: a template for each digit, the losses, which digits are taken for which, and where the model
# was surest of what is wrong.


def draw(model, spread, X, y, probabilities):
    """Three rows: the weights of each digit, times the pixels' `spread`; the loss and the confusions; the surest mistakes."""
    ink, paper, accent = "#22303c", "#fbfaf7", "#c8553d"
    plt.rcdefaults()  # a look of its own
    plt.rcParams.update(
        {"text.color": ink, "axes.labelcolor": ink, "xtick.color": ink, "ytick.color": ink, "font.size": 9}
    )
    figure = plt.figure(figsize=(10, 8), facecolor=paper)
    predicted = probabilities.argmax(axis=1)
    mistakes = np.flatnonzero(predicted != y)
    grid = figure.add_gridspec(
        3, 1, height_ratios=[1.1, 3.6, 1.1], hspace=0.42, left=0.06, right=0.97, top=0.87, bottom=0.02
    )
    figure.suptitle(
        f"Softmax regression on MNIST: {100 * len(mistakes) / len(y):.2f} % test error after {model.n_iter_} epochs",
        x=0.06, y=0.97, ha="left", fontsize=14, fontweight="bold",
    )  # fmt: skip

    templates = grid[0].subgridspec(1, 10, wspace=0.12)
    votes = model.coef_ * spread  # a pixel that is hardly ever inked may have a large weight and no say
    strength = np.quantile(abs(votes), 0.995)
    for digit in range(10):
        axes = figure.add_subplot(templates[digit])
        axes.imshow(votes[digit].reshape(28, 28), cmap="RdBu_r", vmin=-strength, vmax=strength, interpolation="bicubic")
        axes.set_title(digit, fontsize=9, fontweight="bold", pad=3)
        axes.axis("off")
        if digit == 0:
            axes.text(
                0, 1.32, "What speaks for a digit (red) and against it (blue)", transform=axes.transAxes, fontsize=10
            )

    middle = grid[1].subgridspec(1, 2, width_ratios=[1, 1], wspace=0.15)
    axes = figure.add_subplot(middle[0], facecolor=paper)
    epochs = np.arange(1, model.n_iter_ + 1)
    axes.plot(epochs, model.loss_curve_, color=accent, marker="o", markersize=4)
    axes.set(xlabel="epoch", xticks=epochs[:: max(1, len(epochs) // 10)])
    axes.set_title("Mean training loss of each epoch", loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)

    axes = figure.add_subplot(middle[1])
    confusion = confusion_matrix(y, predicted)
    np.fill_diagonal(confusion, 0)
    axes.imshow(confusion, cmap="OrRd")
    for true, taken_for in zip(*np.nonzero(confusion), strict=True):
        count = confusion[true, taken_for]
        axes.text(taken_for, true, count, ha="center", va="center", fontsize=7,
                  color=paper if count > confusion.max() / 2 else ink)  # fmt: skip
    axes.set(xlabel="taken for", ylabel="digit", xticks=range(10), yticks=range(10))
    axes.set_title("Mistakes among the 10,000 test digits", loc="left", fontsize=10)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)

    surest = mistakes[np.argsort(-probabilities[mistakes].max(axis=1))][:10]
    bottom = grid[2].subgridspec(1, 10, wspace=0.12)
    for column, i in enumerate(surest):
        axes = figure.add_subplot(bottom[column])
        axes.imshow(X[i].reshape(28, 28), cmap="Greys")
        axes.set_title(f"{y[i]} taken for {predicted[i]}", fontsize=8, pad=3, color=accent)
        axes.axis("off")
        if column == 0:
            axes.text(0, 1.32, "The surest mistakes", transform=axes.transAxes, fontsize=10)
    return figure


figure = draw(model, X_train.std(axis=0), X_test, y_test, probabilities)
figure.savefig(ROOT / "mnist.png", dpi=130, facecolor=figure.get_facecolor())
print("picture         mnist.png")
