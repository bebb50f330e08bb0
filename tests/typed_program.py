"""A program of a user who has types checked: no checker may find fault with it. tests/test_types.py runs mypy, and runs it."""

import numpy as np
from numpy.typing import NDArray

import skdl
from skdl import LossCurveDisplay, SoftmaxRegressionClassifier


def accuracy(model: SoftmaxRegressionClassifier, X: NDArray[np.float32], y: NDArray[np.str_]) -> float:
    return float(np.mean(model.predict(X) == y))


def trained(X: NDArray[np.float32], y: NDArray[np.str_]) -> SoftmaxRegressionClassifier:
    models = [
        SoftmaxRegressionClassifier(lr="auto", max_iter=20, random_state=0),
        SoftmaxRegressionClassifier(lr=0.1, max_iter=20, alpha=0, momentum=0, class_weight={"left": 2}, random_state=0),
        SoftmaxRegressionClassifier(
            lr_schedule="constant", max_iter=20, class_weight="balanced", random_state=np.random.RandomState(0)
        ),
    ]
    fitted = [model.fit(X, y, np.ones(len(y)), X_val=X[:10], y_val=y[:10]) for model in models]
    return max(fitted, key=lambda model: accuracy(model, X, y))


def stream(batches: list[tuple[NDArray[np.float32], NDArray[np.str_]]]) -> SoftmaxRegressionClassifier:
    model = SoftmaxRegressionClassifier(half_life=100.0, n_jobs=1)
    for X, y in batches:
        model.partial_fit(X, y, classes=["left", "right"])
    return model


def main() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3)).astype(np.float32)
    y = np.where(X[:, 0] < 0, "left", "right")
    model = trained(X, y)
    weights: NDArray[np.floating] = np.abs(model.coef_).sum(axis=0)
    probabilities: NDArray[np.floating] = model.predict_proba(X.tolist())
    epochs: int = model.n_iter_
    step: float = model.lr_ * model.alpha_
    smallest: float = min(model.loss_curve_ + model.validation_loss_curve_)
    assert weights.argmax() == 0 and probabilities.shape == (60, 2) and epochs == 20 and step >= 0 and smallest > 0
    assert accuracy(stream([(X[:30], y[:30]), (X[30:], y[30:])]), X, y) > 0.8
    assert np.allclose(model.to_sklearn().predict_proba(X), probabilities, atol=1e-5)
    display = LossCurveDisplay.from_estimator(model, name="best")
    display.ax_.set_title(f"skdl {skdl.__version__}")
    skdl.show_versions()


if __name__ == "__main__":
    main()
