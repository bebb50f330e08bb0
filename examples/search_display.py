"""
The scores of a search
======================

A search over the strength of the penalty: nine values around the one that the data ask for, five folds, all
trained side by side in one pass. The band is the spread over the folds, the ring the candidate that was chosen.
``refit=one_standard_error`` takes the strongest penalty whose score can hardly be told from the best.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits

from skdl import SearchDisplay, SoftmaxRegressionClassifierCV, one_standard_error

X, y = load_digits(return_X_y=True)

figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True)
for ax, refit, title in zip(axes, (True, one_standard_error), ("The best", "Within one standard error"), strict=True):
    search = SoftmaxRegressionClassifierCV(scoring="neg_log_loss", refit=refit, random_state=0).fit(X, y)
    SearchDisplay.from_estimator(search, ax=ax)
    ax.set_title(f"{title}: alpha = {search.best_params_['alpha']:.2g}")
plt.show()
