"""The scores of a search over alpha."""

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skdl import SearchDisplay, SoftmaxRegressionClassifierCV, one_standard_error

X, _, y, _ = train_test_split(*load_digits(return_X_y=True), test_size=0.3, random_state=0)
path = SoftmaxRegressionClassifierCV(scoring="neg_log_loss", refit=one_standard_error, random_state=0).fit(X, y)
SearchDisplay.from_estimator(path)
