"""Mistakes that a type checker must find, each in a line that says so. Read by tests/test_types.py, and never run."""

import numpy as np

from skdl import LossCurveDisplay, SoftmaxRegressionClassifier

X, y = np.eye(4), np.array([0, 1, 0, 1])
model = SoftmaxRegressionClassifier()

SoftmaxRegressionClassifier(lr="fast")  # wrong
SoftmaxRegressionClassifier(learning_rate=0.1)  # wrong
SoftmaxRegressionClassifier(lr_schedule="exponential")  # wrong
model.fit(X, y, checkpoint=5)  # wrong
model.fit(X, y, X_valid=X)  # wrong
model.coef_.append(1.0)  # wrong
model.predict_proba(X).argmax(axis="classes")  # wrong
best: int = model.lr_  # wrong
LossCurveDisplay.from_estimator(model, axes=None)  # wrong
model.fit(X, y).predict(X).tolist()
