"""
Step size and batch size
========================

The textbook's SGD has two numbers to choose, and they hang together: a larger minibatch is less noisy and
stands a larger step, until the steps are so long that they jump over the optimum. The map is one search over
both: five epochs each on 10,000 digits.
"""

import matplotlib.pyplot as plt
import numpy as np
from _images import load_mnist
from sklearn.metrics import log_loss

from skdl import SoftmaxRegressionClassifier, SoftmaxRegressionClassifierCV

X, y = load_mnist("train")
X = X / np.float32(255)
lrs = [0.003, 0.01, 0.03, 0.1, 0.3, 1, 3]
batch_sizes = [8, 32, 128, 512, 2048]
textbook = dict(max_iter=5, momentum=0, alpha=0, lr_schedule="constant", tol=0, random_state=0)
search = SoftmaxRegressionClassifierCV(
    param_grid={"batch_size": batch_sizes, "lr": lrs}, scoring="neg_log_loss", refit=False, **textbook
)
search.fit(X[:10_000], y[:10_000], X_val=X[50_000:], y_val=y[50_000:])
losses = -search.cv_results_["mean_test_score"].reshape(len(batch_sizes), len(lrs))

# %%
# The valley runs diagonally: for minibatches four times as large the best step is about twice to four times as
# long.

figure, axes = plt.subplots(figsize=(7.2, 4.4))
axes.imshow(losses, cmap="YlOrRd", norm="log", vmin=0.25, vmax=2, aspect="auto")
for (i, j), loss in np.ndenumerate(losses):
    is_best = loss == losses.min()
    axes.text(j, i, f"{loss:.2f}", ha="center", va="center", color="white" if loss > 1 else "#22303c",
              fontweight="bold" if is_best else None, fontsize=13 if is_best else 10)  # fmt: skip
axes.set(xlabel="step size", ylabel="batch size", xticks=range(len(lrs)), yticks=range(len(batch_sizes)),
         xticklabels=lrs, yticklabels=batch_sizes, title="Validation log-loss")  # fmt: skip
axes.grid(False)
axes.spines[:].set_visible(False)
axes.tick_params(length=0)
plt.show()

# %%
# With ``lr="auto"`` the step follows from the curvature and the noise of the data, has momentum, and falls to
# zero by a cosine; the digits may then stay the bytes that they are.

auto = SoftmaxRegressionClassifier(random_state=0).fit(X[:10_000], y[:10_000])
print(f"best of the map: {losses.min():.3f}")
print(f'lr="auto":       {log_loss(y[50_000:], auto.predict_proba(X[50_000:])):.3f}')
