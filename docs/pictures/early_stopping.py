"""The losses of a fit without a penalty, watched on a validation set."""

import warnings

from _pixels import mnist
from sklearn.exceptions import ConvergenceWarning

from skdl import LossCurveDisplay, SoftmaxRegressionClassifier

warnings.simplefilter("ignore", ConvergenceWarning)
X, y = mnist("train")
some, others = slice(2000), slice(50000, 55000)
lr = 1e-6 * 255**2  # what 1e-6 is to bytes
model = SoftmaxRegressionClassifier(lr=lr, alpha=0, lr_schedule="constant", max_iter=100, random_state=0)
model.fit(X[some], y[some], X_val=X[others], y_val=y[others])
LossCurveDisplay.from_estimator(model)
