"""The losses of a fit without a penalty, watched on a validation set."""

import gzip
import warnings
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from skdl import LossCurveDisplay, SoftmaxRegressionClassifier

warnings.simplefilter("ignore", ConvergenceWarning)
FOLDER = Path(__file__).resolve().parents[3] / "benchmarks" / "data" / "mnist"
X = np.frombuffer(gzip.decompress((FOLDER / "train-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
y = np.frombuffer(gzip.decompress((FOLDER / "train-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
X, some, others = X.reshape(-1, 784), slice(2000), slice(50000, 55000)
model = SoftmaxRegressionClassifier(lr=1e-6, alpha=0, lr_schedule="constant", max_iter=100, random_state=0)
model.fit(X[some], y[some], X_val=X[others], y_val=y[others])
LossCurveDisplay.from_estimator(model)
