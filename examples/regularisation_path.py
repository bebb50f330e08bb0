"""
The path of an L1 penalty
=========================

With ``l1_ratio=1`` the penalty sets coefficients to exactly zero. As it weakens, one feature after the other
comes in. The search trains the whole path in one pass, and its scores say how many features are worth having.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer

from skdl import SoftmaxRegressionClassifier, SoftmaxRegressionClassifierCV, one_standard_error

data = load_breast_cancer(as_frame=True)
X, y = data.data, data.target
alphas = np.logspace(-3, -0.7, 24)
search = SoftmaxRegressionClassifierCV(
    param_grid={"alpha": alphas}, l1_ratio=1, scoring="neg_log_loss", refit=one_standard_error, random_state=0
).fit(X, y)
print(f"{np.count_nonzero(search.coef_)} of {X.shape[1]} features within one standard error of the best")

# %%
# The features are in units from micrometres to square millimetres. Times ``scale_`` their coefficients are
# comparable; that is also where the penalty acts.

path = [SoftmaxRegressionClassifier(alpha=alpha, l1_ratio=1, random_state=0).fit(X, y) for alpha in alphas]
coefficients = np.array([model.coef_[0] * model.scale_ for model in path])

figure, (above, below) = plt.subplots(2, 1, figsize=(7.2, 6.4), sharex=True, height_ratios=[2, 1])
strongest = abs(coefficients[0]).argsort()[::-1][:6]
above.plot(alphas, np.delete(coefficients, strongest, axis=1), color="#a8b5bf", linewidth=1)
for j in strongest:
    [line] = above.plot(alphas, coefficients[:, j])
    above.annotate(X.columns[j], (alphas[0], coefficients[0, j]), xytext=(6, 0), textcoords="offset points",
                   va="center", fontsize="small", color=line.get_color())  # fmt: skip
above.set(xscale="log", ylabel="coefficient × unit", title="What speaks for a benign tumour (+) and against it (−)")
above.invert_xaxis()

mean, std = -search.cv_results_["mean_test_score"], search.cv_results_["std_test_score"]
below.plot(alphas, mean, color="#22303c")
below.fill_between(alphas, mean - std, mean + std, color="#22303c", alpha=0.12, linewidth=0)
below.set(xlabel="alpha, from strong to weak", ylabel="held-out log-loss")
for ax in (above, below):
    ax.axvline(search.best_params_["alpha"], color="#22303c", linestyle=":", linewidth=1)
below.annotate("one standard error", (search.best_params_["alpha"], mean.max()), xytext=(5, -4), textcoords="offset points",
               va="top", fontsize="small")  # fmt: skip
plt.show()
