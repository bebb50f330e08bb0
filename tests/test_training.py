"""What training must reach: the course's homework, LogisticRegression's optimum, the same bits, little memory."""

import warnings
from functools import cache

import numpy as np
import pytest
from _helpers import TEXTBOOK, objective, quiet_fit, run
from scipy import sparse
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.feature_selection import SelectFromModel
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from skdl import SoftmaxRegressionClassifier

HOMEWORK = {
    **TEXTBOOK,
    "lr": 0.2,
    "batch_size": 100,
    "momentum": 0,
    "fit_intercept": False,
    "shuffle": False,
    "tol": 0,
}


@pytest.mark.usefixtures("backend")
def test_textbook(mnist):
    """Homework 0 of CMU's Deep Learning Systems course: its test errors, and its weights step by step."""
    X, y, X_test, y_test = mnist
    X, X_test = X.astype(np.float32) / np.float32(255), X_test.astype(np.float32) / np.float32(255)
    W = np.zeros((784, 10), dtype=np.float32)
    one_hot = np.eye(10, dtype=np.float32)[y]
    model = SoftmaxRegressionClassifier(**HOMEWORK, warm_start=True, max_iter=1)
    errors = []
    for _ in range(10):
        for start in range(0, 60000, 100):
            x = X[start : start + 100]
            Z = np.exp(x @ W)
            Z /= Z.sum(axis=1, keepdims=True)
            W -= np.float32(0.2 / 100) * (x.T @ (Z - one_hot[start : start + 100]))
        quiet_fit(model, X, y)
        errors.append(100 * np.mean(model.predict(X_test) != y_test))
        # 600 steps an epoch, each rounded to 6e-8 of weights of order 1
        np.testing.assert_allclose(model.coef_, W.T, atol=1e-4)
    assert errors[0] == pytest.approx(9.40, abs=0.011)
    assert errors[9] == pytest.approx(7.97, abs=0.011)
    assert (model.intercept_ == 0).all()


DATASETS = {"iris": load_iris, "wine": load_wine, "breast cancer": load_breast_cancer, "digits": load_digits}


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", DATASETS)
def test_reaches_the_optimum(name, weighted, standardize):
    """LogisticRegression's on the same features, or on features divided by their units."""
    X, y = DATASETS[name](return_X_y=True)
    if not standardize:
        X = StandardScaler().fit_transform(X)
    alpha = 1e-2
    weight = np.random.default_rng(0).uniform(0.2, 3, len(y)) if weighted else None
    total = len(y) if weight is None else weight.sum()
    model = SoftmaxRegressionClassifier(alpha=alpha, standardize=standardize, max_iter=400, tol=0, random_state=0)
    quiet_fit(model, X, y, sample_weight=weight)
    U = (X - X.mean(axis=0)) / model.scale_ if standardize else X
    peer = LogisticRegression(C=1 / (alpha * total), tol=1e-6, max_iter=20000)
    optimum = objective(quiet_fit(peer, U, y, sample_weight=weight), U, y, alpha, weight=weight)
    assert objective(model, X, y, alpha, weight=weight) == pytest.approx(optimum, rel=1e-3)


def saga(l1_ratio, **params):
    """LogisticRegression with the penalty of l1_ratio, which alone did not ask for it before scikit-learn 1.8."""
    penalty = {"penalty": "elasticnet"} if LogisticRegression().penalty == "l2" else {}
    return LogisticRegression(solver="saga", l1_ratio=l1_ratio, **penalty, **params)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("l1_ratio", [0.0, 0.5])
def test_a_numeric_step_reaches_the_optimum(container, l1_ratio):
    """The penalty has its units where SGD has none; they do not depend on how the step is chosen."""
    X, y = load_wine(return_X_y=True)
    X = StandardScaler().fit_transform(X) * 2.0 ** (np.arange(X.shape[1]) % 3 - 1)
    alpha = 1e-2
    settings = {"alpha": alpha, "l1_ratio": l1_ratio, "tol": 0, "random_state": 0}
    numeric, automatic = (
        quiet_fit(SoftmaxRegressionClassifier(lr=lr, max_iter=max_iter, **settings), container(X), y)
        for lr, max_iter in ((0.1, 500), ("auto", 1))
    )
    np.testing.assert_array_equal(numeric.scale_, automatic.scale_)
    U = X / numeric.scale_
    peer = saga(l1_ratio, C=1 / (alpha * len(y)), tol=1e-7, max_iter=3000)
    optimum = objective(quiet_fit(peer, U, y), U, y, alpha, l1_ratio)
    assert objective(numeric, X, y, alpha, l1_ratio) == pytest.approx(optimum, rel=1e-3)


@cache
def optimum_of_l1(name, l1_ratio, alpha):
    """Standardised X, y, and a peer that has converged: a smaller tol gives it the same zeros."""
    X, y = DATASETS[name](return_X_y=True)
    X, y = StandardScaler().fit_transform(X[:600]), y[:600]
    peer = saga(l1_ratio, C=1 / (alpha * len(y)), tol=1e-5, max_iter=3000)
    return X, y, quiet_fit(peer, X, y)


@pytest.mark.parametrize("l1_ratio", [0.5, 1.0])
@pytest.mark.parametrize(
    ("backend", "name"), [*(("openmp", name) for name in DATASETS), ("opencl", "wine")], indirect=["backend"]
)
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_reaches_the_optimum_of_l1(backend, name, l1_ratio, container):
    alpha = 1e-2
    X, y, peer = optimum_of_l1(name, l1_ratio, alpha)
    model = SoftmaxRegressionClassifier(
        alpha=alpha, l1_ratio=l1_ratio, standardize=False, max_iter=400, tol=0, random_state=0
    )
    quiet_fit(model, container(X), y)
    reached, optimum = (objective(m, X, y, alpha, l1_ratio) for m in (model, peer))
    assert reached == pytest.approx(optimum, rel=1e-3)
    # exact zeros, about as many as the peer has
    assert (model.coef_ == 0).mean() == pytest.approx((abs(peer.coef_) < 1e-6).mean(), abs=0.1)
    assert (model.coef_ == 0).any() == (peer.coef_ == 0).any()


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("name, alpha, beyond", [("wine", 1e-2, 0), ("breast cancer", 1e-2, 0), ("digits", 1e-2, 6)])
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_zeros_of_l1_are_those_of_the_optimum(container, name, alpha, beyond):
    """As many as saga has at convergence; a few of digits' 640 coefficients need longer."""
    X, y, peer = optimum_of_l1(name, 1.0, alpha)
    model = SoftmaxRegressionClassifier(alpha=alpha, l1_ratio=1.0, standardize=False, random_state=0)
    model.fit(container(X), y)
    assert abs((model.coef_ != 0).sum() - (peer.coef_ != 0).sum()) <= beyond
    selected = SelectFromModel(model, threshold=1e-5, prefit=True).get_support()
    np.testing.assert_array_equal(selected, (abs(model.coef_).sum(axis=0) > 1e-5))
    assert abs(selected.sum() - (peer.coef_ != 0).any(axis=0).sum()) <= beyond


@pytest.mark.usefixtures("backend")
def test_zeros_of_l1_beside_correlated_features():
    """As many as saga has where its objective is as close to the optimum: 18 to 20 were left without steps on all rows."""
    X, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    alpha = 3e-3
    peer = saga(1.0, C=1 / (alpha * len(y)), tol=1e-12, max_iter=6000, random_state=0)
    quiet_fit(peer, X, y)
    model = SoftmaxRegressionClassifier(alpha=alpha, l1_ratio=1.0, standardize=False, random_state=0).fit(X, y)
    assert objective(model, X, y, alpha, 1.0) <= objective(peer, X, y, alpha, 1.0)
    assert (model.coef_ != 0).sum() <= (peer.coef_ != 0).sum()


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_same_seed_same_bits_for_any_number_of_threads(mnist, container, dtype):
    X = container(mnist[0][:3000].astype(dtype))
    y = mnist[1][:3000]
    models = [
        quiet_fit(SoftmaxRegressionClassifier(max_iter=2, n_jobs=n_jobs, random_state=7), X, y)
        for n_jobs in (1, 2, 3, 8)
    ]
    for model in models[1:]:
        np.testing.assert_array_equal(model.coef_, models[0].coef_)
        np.testing.assert_array_equal(model.intercept_, models[0].intercept_)
        assert model.loss_curve_ == models[0].loss_curve_
    other = quiet_fit(SoftmaxRegressionClassifier(max_iter=2, random_state=8), X, y)
    assert (other.coef_ != models[0].coef_).any()


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.bool_, np.float16])
def test_narrow_types_give_the_bits_of_float32(mnist, dtype):
    X, y = (mnist[0][:2000] // 2).astype(dtype), mnist[1][:2000]
    narrow, wide = (
        quiet_fit(SoftmaxRegressionClassifier(max_iter=3, random_state=0), data, y)
        for data in (X, X.astype(np.float32))
    )
    assert narrow.coef_.dtype == np.float32
    np.testing.assert_array_equal(narrow.coef_, wide.coef_)
    np.testing.assert_array_equal(narrow.intercept_, wide.intercept_)
    np.testing.assert_array_equal(narrow.predict_proba(X), wide.predict_proba(X.astype(np.float32)))


@pytest.mark.usefixtures("backend")
def test_float32_is_close_to_float64(mnist):
    X, y = mnist[0][:5000].astype(np.float64), mnist[1][:5000]
    single, double = (
        quiet_fit(SoftmaxRegressionClassifier(max_iter=3, random_state=0), X.astype(dtype), y)
        for dtype in (np.float32, np.float64)
    )
    np.testing.assert_allclose(single.predict_proba(X), double.predict_proba(X), atol=1e-3)
    assert single.loss_curve_ == pytest.approx(double.loss_curve_, rel=1e-4)


@pytest.mark.usefixtures("backend")
def test_numeric_lr_diverges_with_an_error_and_leaves_the_model_alone(mnist):
    X, y = mnist[0][:1000].astype(np.float32), mnist[1][:1000]
    model = quiet_fit(SoftmaxRegressionClassifier(max_iter=1, random_state=0), X, y)
    before = model.coef_.copy()
    model.set_params(lr=1e38)
    with pytest.raises(ValueError, match=r"diverged.*epoch 1 with lr=1e\+38"):
        model.fit(X, y)
    np.testing.assert_array_equal(model.coef_, before)


@pytest.mark.parametrize("n_sorted, told", [(10, True), (2, True), (0, False)])
def test_rows_in_the_order_of_their_classes_are_told(mnist, n_sorted, told):
    """With shuffle=False the last class would be what the model knows."""
    X, y = mnist[0][:1000], mnist[1][:1000] % (n_sorted or 10)
    order = np.argsort(y, kind="stable") if n_sorted else np.arange(1000)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        SoftmaxRegressionClassifier(shuffle=False).fit(X[order], y[order])
        SoftmaxRegressionClassifier().fit(X[order], y[order])
        SoftmaxRegressionClassifier(shuffle=False, batch_size=1000).fit(X[order], y[order])
    assert ["shuffle=False visits the rows" in str(w.message) for w in caught] == [True] * told


@pytest.mark.parametrize("backend", ["openmp", "opencl"])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_memory(dtype, backend):
    """Training on MNIST's shape takes less than 20 MB beside X, 120 in one minibatch. A peak needs a process of its own."""
    program = f"""
        from pathlib import Path
        import numpy as np
        from skdl import SoftmaxRegressionClassifier

        def resident(name):
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024

        rng = np.random.default_rng(0)
        X = rng.integers(0, 256, size=(60000, 784), dtype=np.uint8)
        if "{dtype}" == "float32":
            # block by block, so that the conversion leaves no peak behind
            raw, X = X, np.empty(X.shape, dtype=np.float32)
            for i in range(0, 60000, 1000):
                X[i:i + 1000] = raw[i:i + 1000]
        y = rng.integers(0, 10, size=60000)
        SoftmaxRegressionClassifier(max_iter=1, backend="{backend}", n_jobs=2).fit(X[:500], y[:500])  # threads and libraries
        before = resident("VmRSS")
        for batch_size in (128, 60_000):
            Path("/proc/self/clear_refs").write_text("5")  # else the peak is that of the parent, if it was larger
            SoftmaxRegressionClassifier(max_iter=2, backend="{backend}", batch_size=batch_size, n_jobs=2).fit(X, y)
            print(resident("VmHWM") - before)
    """
    small, whole = map(float, run(program, timeout=300).stdout.split())
    assert small < 20 and whole < 120


def test_fit_in_a_forked_child():
    """OpenMP's threads do not survive a fork, and waiting for them hangs (scikit-learn #7650); the child works alone."""
    program = """
        import os
        import numpy as np
        from skdl import SoftmaxRegressionClassifier
        X = np.random.default_rng(0).integers(0, 255, (2000, 784), dtype=np.uint8)
        y = np.arange(2000) % 10
        model = SoftmaxRegressionClassifier(n_jobs=2, random_state=0, max_iter=2)
        coef = model.fit(X, y).coef_
        child = os.fork()
        if child == 0:
            os._exit(0 if (model.fit(X, y).coef_ == coef).all() else 1)
        raise SystemExit(os.waitpid(child, 0)[1])
    """
    run(program, timeout=60)
