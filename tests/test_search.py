"""A search in one pass finds what GridSearchCV finds, to the bit."""

import pickle
import tracemalloc
import warnings
from threading import current_thread

import numpy as np
import pandas as pd
import pytest
import sklearn
from _helpers import DIGITS, LABELS, Callback, fitted_state, needs_callbacks, same_model
from joblib import parallel_config
from numpy.testing import assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning, NotFittedError
from sklearn.metrics import balanced_accuracy_score, log_loss, make_scorer
from sklearn.model_selection import GridSearchCV, GroupKFold, PredefinedSplit, ShuffleSplit, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from skdl import SoftmaxRegressionClassifier, SoftmaxRegressionClassifierCV, _search, _sgd, one_standard_error

X, Y = DIGITS[:240], LABELS[:240]
TWO = (Y > 4).astype(int)
SPARSE = sparse.csr_array(X.astype("f4") * (np.arange(64) % 3 == 0))
TEXT = sparse.random_array((240, 3000), density=0.01, rng=0, format="csr", dtype=np.float64)
TABLE = X.astype("f8") * np.logspace(-3, 3, 64)
HEAVY = TABLE * np.where(np.arange(240) % 40 == 0, 30.0, 1.0)[:, np.newaxis]
WIDE = np.random.default_rng(0).normal(size=(60, 500)).astype("f4")
UNEVEN = (
    np.random.default_rng(0).choice([-1.0, 1.0], (240, 60)) * np.where(np.arange(240) % 7 == 0, 4.5, 1.0)[:, np.newaxis]
)
FULL_AT_THE_END = sparse.csr_array(
    WIDE * ((np.random.default_rng(1).random((60, 500)) < 0.2) | (np.arange(60) >= 40)[:, None])
)
RARE = np.where(np.arange(240) < 5, "rare", np.where(Y > 4, "high", "low"))
WEIGHT = np.random.default_rng(1).integers(0, 4, 240).astype(float)
GROUPS = np.arange(240) // 12
PATH = {"alpha": [1e-4, 1e-2, 1.0]}
SAME_TRAIN = [
    (np.arange(160), np.arange(160, 200)),
    (np.arange(160), np.arange(200, 240)),
    (np.arange(160), np.arange(160)),
]
FROM_THE_END = [(np.arange(-240, -60), np.arange(-60, 0)), (np.arange(240) % 4 > 0, np.arange(240) % 4 == 0)]
BOOTSTRAP = [(np.random.default_rng(i).integers(0, 200, 200), np.arange(200, 240)) for i in range(3)]
NUMBERS = {"lr": [1e-4, 1e-3], "batch_size": [32, 60], "momentum": [0.0, 0.9]}

# name: (X, y, grid, parameters, what the search alone is given, what fit is given)
SETTINGS = {
    "float64": (TABLE, Y, PATH, {}, {}, {}),
    "float32": (X.astype("f4"), Y, PATH, {}, {}, {}),
    "float16": (X.astype("f2"), Y, PATH, {}, {}, {}),
    "uint8": (X, Y, PATH, {}, {}, {}),
    "int8": (X.astype("i1"), Y, PATH, {}, {}, {}),
    "bool": (X > 8, Y, PATH, {}, {}, {}),
    "two classes": (X, TWO, PATH, {}, {}, {}),
    "two classes, float64": (TABLE, TWO, PATH, {}, {}, {}),
    "many classes": (TABLE, np.arange(240) % 40, PATH, {}, {"cv": 3}, {}),
    "strings": (X, RARE, PATH, {}, {}, {}),
    "CSR": (SPARSE, Y, PATH, {}, {}, {}),
    "CSR, two classes": (SPARSE, TWO, PATH, {}, {}, {}),
    "CSR, few columns occur": (TEXT, Y, PATH, {}, {}, {}),
    "CSR, full": (sparse.csr_array(X.astype("f4") + 1), Y, PATH, {}, {}, {}),
    "wide": (WIDE, TWO[:60], PATH, {"max_iter": "auto"}, {}, {}),
    "long rows": (HEAVY, Y, PATH, {}, {}, {}),
    "numbers": (X, Y, NUMBERS, {}, {}, {}),
    "numbers, CSR": (SPARSE, Y, NUMBERS, {}, {}, {}),
    "auto and numbers": (X, Y, {"lr": ["auto", 1e-3], "alpha": ["auto", 0, 0.1]}, {}, {}, {}),
    "auto and numbers, minibatches of one size": (X, Y, {"lr": ["auto", 1e-3]}, {"batch_size": 80}, {}, {}),
    "long rows, coordinates": (HEAVY, Y, {"fit_intercept": [True, False]}, {"batch_size": 32}, {}, {}),
    "uneven rows, coordinates": (UNEVEN + 3, TWO, {"fit_intercept": [True, False]}, {"batch_size": 32},
                                 {"scoring": "neg_log_loss"}, {}),
    "CSR, wide, few values in the rows to train on": (FULL_AT_THE_END, TWO[:60], PATH, {},
                                                      {"cv": [(np.arange(40), np.arange(40, 60))],
                                                       "scoring": "neg_log_loss"}, {}),
    "early stopping, constant step": (X, Y, PATH, {"early_stopping": True, "lr": 0.02, "lr_schedule": "constant",
                                      "max_iter": 15}, {}, {}),
    "L1": (TABLE, Y, {"alpha": [1e-4, 1e-2], "l1_ratio": [0, 0.5, 1]}, {}, {}, {}),
    "schedules": (X, Y, {"lr_schedule": ["constant", "linear", "cosine"], "max_iter": [1, 3, 6]}, {"lr": 1e-3}, {}, {}),
    "coordinates": (TABLE, Y, {"standardize": [True, False], "fit_intercept": [True, False]}, {}, {}, {}),
    "class weights": (X, RARE, {"class_weight": [None, "balanced", {"rare": 5.0}]}, {}, {}, {}),
    "no shuffling": (X, Y, PATH, {"shuffle": False}, {}, {}),
    "to the optimum": (TABLE[:, :5], TWO, {"alpha": [1e-3, 1e-1]}, {"max_iter": "auto"}, {}, {}),
    "early stopping": (X, Y, PATH, {"early_stopping": True, "max_iter": 30}, {}, {}),
    "early stopping, split at random": (X, Y, PATH, {"early_stopping": True}, {"cv": ShuffleSplit(3, random_state=0)}, {}),
    "weights": (X, Y, PATH, {}, {}, {"sample_weight": WEIGHT}),
    "weights, CSR": (SPARSE, Y, PATH, {}, {}, {"sample_weight": WEIGHT}),
    "weights, balanced": (X, RARE, PATH, {"class_weight": "balanced"}, {}, {"sample_weight": WEIGHT + 0.1}),
    "groups": (X, Y, PATH, {}, {"cv": GroupKFold(4)}, {"groups": GROUPS}),
    "several scores": (X, Y, PATH, {}, {"scoring": ["accuracy", "neg_log_loss"], "refit": "neg_log_loss"}, {}),
    "training scores": (X, TWO, PATH, {}, {"scoring": "roc_auc", "return_train_score": True}, {}),
    "one thread": (X, Y, PATH, {"n_jobs": 1}, {}, {}),
    "two threads": (TABLE, Y, PATH, {"n_jobs": 2}, {}, {}),
    "dicts of different keys": (X, Y, [{"alpha": [1e-3], "l1_ratio": [0.5]}, {"alpha": [0.1]}, {"momentum": [0.0, 0.5]}], {},
                                {}, {}),
    "the same rows to train on": (X, Y, PATH, {}, {"cv": SAME_TRAIN, "return_train_score": True}, {}),
    "rows from the end, and masks": (X, Y, PATH, {}, {"cv": FROM_THE_END}, {}),
    "rows from the end, CSR": (SPARSE, Y, PATH, {}, {"cv": FROM_THE_END}, {}),
    "rows repeated": (TABLE, Y, PATH, {}, {"cv": BOOTSTRAP}, {}),
    "rows repeated, CSR": (TEXT, TWO, PATH, {}, {"cv": BOOTSTRAP}, {}),
    "a class is missing in a fold": (X[:200], Y[:200], PATH, {}, {"cv": PredefinedSplit(Y[:200] // 4)}, {}),
}  # fmt: skip


def searched(search, X, y, **given):
    with warnings.catch_warnings(action="ignore"):
        return search.fit(X, y, **given)


def by_grid_search(X, y, grid, params, how, given):
    """GridSearchCV with weights routed to training and scoring."""
    estimator = SoftmaxRegressionClassifier(**params)
    with sklearn.config_context(enable_metadata_routing=True):
        if "sample_weight" in given:
            estimator.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        return searched(GridSearchCV(estimator, grid, **how), X, y, **given)


def same_results(search, expected):
    assert search.cv_results_.keys() == expected.cv_results_.keys()
    for name, values in expected.cv_results_.items():
        if name == "params":
            assert search.cv_results_[name] == values
        elif not name.endswith("_time"):
            assert_array_equal(search.cv_results_[name], values, err_msg=name)
    assert search.best_params_ == expected.best_params_
    assert (search.best_index_, search.best_score_) == (expected.best_index_, expected.best_score_)
    same_model(search, expected.best_estimator_)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_same_as_grid_search(name, backend):
    X, y, grid, params, how, given = SETTINGS[name]
    params = {"max_iter": 4, "random_state": 0, "backend": backend, **params}
    if backend == "opencl" and params["max_iter"] == "auto":
        params["max_iter"] = 10  # launches take longer than these rows
    how = {"cv": 3, **how}
    if "max_iter" in grid:
        del params["max_iter"]
    search = searched(SoftmaxRegressionClassifierCV(param_grid=grid, **how, **params), X, y, **given)
    same_results(search, by_grid_search(X, y, grid, params, how, given))


def test_models_side_by_side_in_parts(monkeypatch):
    """Where the caches hold two models, a path of three takes two passes."""
    expected = searched(SoftmaxRegressionClassifierCV(param_grid=PATH, cv=3, max_iter=4, random_state=0), X, Y)
    monkeypatch.setattr(_sgd, "CACHED_BYTES", 2 * 2 * 10 * 64 * 4)
    seen = []
    train = _sgd.train

    def counted(courses, *args, **kwargs):
        seen.append(len(courses))
        return train(courses, *args, **kwargs)

    monkeypatch.setattr(_sgd, "train", counted)
    search = searched(SoftmaxRegressionClassifierCV(param_grid=PATH, cv=3, max_iter=4, random_state=0), X, Y)
    assert seen[:4] == [2, 1, 2, 1]
    same_results(search, expected)


def test_candidates_share_their_passes():
    """Each fold is one pass over its rows for all of a path, and the best is one more."""
    seen = []
    run = _sgd.run_epochs

    def counted(source, training, rng, step_sizes, *args, **kwargs):
        seen.extend([step_sizes.shape[0]] * step_sizes.shape[1])
        return run(source, training, rng, step_sizes, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_sgd, "run_epochs", counted)
        searched(SoftmaxRegressionClassifierCV(param_grid=PATH, cv=3, max_iter=20, random_state=0, lr=1e-3), X, Y)
    assert seen == [3] * (3 * 20) + [1] * 20  # models of each epoch: three folds of a path, and the best


def test_a_model_leaves_when_its_own_fit_would_have_ended():
    grid = {"max_iter": [2, 5, 9], "alpha": [1e-3]}
    params = {"lr": 1e-3, "random_state": 0}
    search = searched(SoftmaxRegressionClassifierCV(param_grid=grid, cv=3, **params), X, Y)
    same_results(search, by_grid_search(X, Y, grid, params, {"cv": 3}, {}))


def test_the_default_is_a_path_of_alphas():
    search = searched(SoftmaxRegressionClassifierCV(max_iter=20, random_state=0), X, Y)
    alone = searched(SoftmaxRegressionClassifier(max_iter=20, random_state=0), X, Y)
    alphas = search.cv_results_["param_alpha"].astype(float)
    assert len(alphas) == 9
    np.testing.assert_allclose(alphas, alone.alpha_ * np.logspace(-2, 2, 9))
    assert all(type(params["alpha"]) is float for params in search.cv_results_["params"])
    assert search.n_splits_ == 5
    about = searched(SoftmaxRegressionClassifierCV(alpha=0.5, max_iter=2, random_state=0), X, Y)
    assert 0.5 in about.cv_results_["param_alpha"].tolist()


@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_validation_set_in_place_of_folds(early_stopping):
    params = {"max_iter": 8, "random_state": 0, "early_stopping": early_stopping}
    search = SoftmaxRegressionClassifierCV(param_grid=PATH, scoring="neg_log_loss", **params)
    weight_val = np.arange(1.0, 41)
    searched(search, X[:200], Y[:200], X_val=X[200:], y_val=Y[200:], sample_weight_val=weight_val)
    assert search.n_splits_ == 1
    for alpha, score in zip(PATH["alpha"], search.cv_results_["mean_test_score"], strict=True):
        model = SoftmaxRegressionClassifier(alpha=alpha, **params)
        val = {"X_val": X[200:], "y_val": Y[200:], "sample_weight_val": weight_val} if early_stopping else {}
        searched(model, X[:200], Y[:200], **val)
        assert score == -log_loss(Y[200:], model.predict_proba(X[200:]), sample_weight=weight_val)
    model = SoftmaxRegressionClassifier(**search.best_params_, **params)
    same_model(search, searched(model, X[:200], Y[:200], **val))


def test_scorers_are_given_what_they_expect():
    """A callable gets rows of the X of the user, and weights where it takes them."""
    frame = pd.DataFrame(X.astype("f4"), columns=[f"pixel {j}" for j in range(64)])
    seen = []

    def scorer(model, X, y, sample_weight=None):
        seen.append((type(X), len(X), sample_weight.sum()))
        return model.score(X, y, sample_weight)

    search = SoftmaxRegressionClassifierCV(param_grid=PATH, cv=3, scoring=scorer, max_iter=3, random_state=0)
    searched(search, frame, Y, sample_weight=WEIGHT)
    assert {each[0] for each in seen} == {pd.DataFrame}
    assert sum(each[2] for each in seen[:: len(PATH["alpha"])]) == WEIGHT.sum()
    weighted = SoftmaxRegressionClassifierCV(param_grid=PATH, cv=3, max_iter=3, random_state=0)
    searched(weighted, frame, Y, sample_weight=WEIGHT)
    assert_array_equal(search.cv_results_["mean_test_score"], weighted.cv_results_["mean_test_score"])
    assert list(search.feature_names_in_) == list(frame)


def test_a_scorer_whose_metric_knows_no_weights():
    def share_of_threes(y, predicted):
        return float((predicted == 3).mean())

    search = SoftmaxRegressionClassifierCV(param_grid=PATH, cv=3, scoring=make_scorer(share_of_threes), max_iter=3)
    searched(search, X, Y, sample_weight=WEIGHT)
    assert 0 < search.best_score_ < 1


def test_a_scorer_that_fails():
    def scorer(model, X, y):
        raise RuntimeError("no score today")

    def fit(**params):
        search = SoftmaxRegressionClassifierCV(param_grid=PATH, cv=3, max_iter=1, refit=False, **params)
        return search.fit(X, Y)

    with pytest.warns(UserWarning, match="no score today"):
        search = fit(scoring=scorer)
    assert np.isnan(search.cv_results_["mean_test_score"]).all()
    with pytest.warns(UserWarning, match="no score today"):
        search = fit(scoring={"it": scorer, "accuracy": "accuracy"}, error_score=-1.0)
    assert (search.cv_results_["mean_test_it"] == -1).all()
    assert (search.cv_results_["mean_test_accuracy"] > 0).all()
    for scoring in (scorer, {"it": scorer}):
        with pytest.raises(RuntimeError, match="no score today"):
            fit(scoring=scoring, error_score="raise")


def test_a_function_chooses():
    def fewest(results):
        assert results["mean_fit_time"].min() > 0
        return 1

    search = SoftmaxRegressionClassifierCV(param_grid=PATH, cv=3, max_iter=3, random_state=0, refit=fewest)
    searched(search, X, Y)
    assert search.best_params_ == {"alpha": 1e-2}
    assert search.alpha_ == 1e-2
    assert not hasattr(search, "best_score_")


def test_one_standard_error():
    results = {
        "param_alpha": np.ma.array([0.1, 1.0, 10.0, 100.0], dtype=object),
        "mean_test_score": np.array([0.9, 0.95, 0.94, 0.8]),
        "std_test_score": np.array([0.0, 0.03, 0.5, 0.5]),
        **{f"split{i}_test_score": np.zeros(4) for i in range(4)},
    }
    assert one_standard_error(results) == 2  # 0.03 / sqrt(4) below 0.95
    results["std_test_score"] = np.full(4, 0.01)
    assert one_standard_error(results) == 1
    results["mean_test_score"][3] = np.nan
    assert one_standard_error(results) == 1
    results["param_alpha"] = np.ma.array([0.1, "auto", 10.0, 100.0], dtype=object)
    with pytest.raises(ValueError, match="needs a number for alpha in each candidate"):
        one_standard_error(results)
    with pytest.raises(ValueError, match="needs a search over alpha with one score"):
        one_standard_error({"mean_test_score": np.zeros(2)})


def test_candidates_that_fail():
    """They get the error score, and the others go on as if they were alone."""
    grid = {"lr": [1e-3, 1e30, -1.0]}
    params = {"max_iter": 3, "random_state": 0}
    search = SoftmaxRegressionClassifierCV(param_grid=grid, cv=3, error_score=0.0, **params)
    with pytest.warns(FitFailedWarning, match=r"(?s)6 fits failed.*Training diverged.*expected 'auto' or a number > 0"):
        search.fit(X, Y)
    assert_array_equal(search.cv_results_["mean_test_score"][1:], 0)
    alone = searched(SoftmaxRegressionClassifierCV(param_grid={"lr": [1e-3]}, cv=3, **params), X, Y)
    assert search.cv_results_["mean_test_score"][0] == alone.cv_results_["mean_test_score"][0]
    with pytest.raises(ValueError, match="Training diverged"):
        searched(
            SoftmaxRegressionClassifierCV(param_grid={"lr": [1e30, 1e-3]}, cv=3, error_score="raise", **params), X, Y
        )
    before = fitted_state(search)
    search.set_params(param_grid={"lr": [1e30]})
    with pytest.raises(ValueError, match="All the 3 fits failed"):
        searched(search, X, Y)
    assert fitted_state(search) == before


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (
            {"param_grid": {"depth": [1]}},
            ValueError,
            "param_grid has 'depth', which a search cannot vary: expected lr, batch",
        ),
        ({"param_grid": {"n_jobs": [1]}}, ValueError, "param_grid has 'n_jobs'"),
        ({"param_grid": {}}, ValueError, r"param_grid=\{\} is empty"),
        ({"param_grid": []}, ValueError, r"param_grid=\[\] is empty"),
        ({"param_grid": {"alpha": []}}, ValueError, "alpha.* need at least one value|non-empty"),
        ({"param_grid": {"alpha": 1.0}}, TypeError, "alpha"),
        ({"param_grid": [1]}, TypeError, "expected a dict of names and lists of values"),
        ({"param_grid": "alpha"}, TypeError, "expected a dict of names and lists of values"),
        ({"lr": -1}, ValueError, "lr=-1 is not valid: expected 'auto' or a number > 0"),
        ({"scoring": "beauty"}, ValueError, "beauty"),
        (
            {"scoring": ["accuracy", "neg_log_loss"]},
            ValueError,
            "refit=True does not say which of several scores decides",
        ),
        ({"cv": 1}, ValueError, "k-fold cross-validation requires at least one train/test split"),
        ({"cv": 500}, ValueError, "n_splits=500"),
        ({"error_score": "nan"}, ValueError, "error_score='nan' is not valid: expected 'raise' or a number"),
        ({"return_train_score": "yes"}, ValueError, "return_train_score='yes' is not valid: expected True or False"),
        ({"refit": "loss"}, ValueError, "refit='loss' names one of several scores, but scoring=None is one"),
        ({"refit": 3}, ValueError, "refit=3 is not valid: expected True, False, the name of a score or a function"),
    ],
)
def test_bad_parameters(params, error, message):
    search = SoftmaxRegressionClassifierCV(**{"cv": 3, "max_iter": 1, **params})
    with pytest.raises(error, match=message):
        search.fit(X, Y)
    assert not any(name.endswith("_") for name in vars(search))


def test_bad_data():
    search = SoftmaxRegressionClassifierCV(param_grid=PATH, cv=3, max_iter=1)
    broken = X.astype("f4")
    broken[7, 7] = np.nan
    with pytest.raises(ValueError, match="X contains NaN"):
        search.fit(broken, Y)
    with pytest.raises(ValueError, match="contains only one class"):
        search.fit(X, np.zeros(240))
    with pytest.raises(ValueError, match="sample_weight has shape"):
        search.fit(X, Y, sample_weight=[1.0, 2.0])
    with pytest.raises(ValueError, match="X_val is given, but y_val is not"):
        search.fit(X, Y, X_val=X)
    with pytest.raises(ValueError, match="cv or groups and X_val are given"):
        search.fit(X, Y, X_val=X, y_val=Y)
    split = PredefinedSplit(np.repeat([0, 1], 120))
    sorted_rows = np.repeat([0, 1], 120)
    with pytest.raises(ValueError, match=r"(?s)All the 6 fits failed.*training rows of a fold hold one class only, 1"):
        searched(SoftmaxRegressionClassifierCV(param_grid=PATH | {"max_iter": [1]}, cv=split), X, sorted_rows)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (np.arange(300), np.arange(10), "cv gives rows from 0 to 299, but X has 240"),
        (np.arange(10), [-241], "cv gives rows from -241 to -241, but X has 240"),
        (
            np.arange(100.0),
            np.arange(10),
            r"cv gives rows as an array of float64 of shape \(100,\): expected numbers of rows",
        ),
        (
            np.ones(100, bool),
            np.arange(10),
            r"array of bool of shape \(100,\): expected numbers of rows, or a mask of shape \(240,",
        ),
        ([[1, 2]], [3], r"array of int64 of shape \(1, 2\)"),
    ],
)
def test_splits_that_are_none(train, test, message):
    with pytest.raises(ValueError, match=message):
        SoftmaxRegressionClassifierCV(param_grid=PATH, cv=[(train, test)], max_iter=1).fit(X, Y)


def test_empty_parts_of_folds():
    cv = [(np.arange(200), []), ([], np.arange(200, 240)), (np.arange(200), np.arange(200, 240))]
    search = SoftmaxRegressionClassifierCV(param_grid=PATH, cv=cv, max_iter=2, random_state=0, refit=False)
    with pytest.warns(FitFailedWarning, match="a fold has no rows to train on"), pytest.warns(match="no rows to score"):
        search.fit(X, Y)
    assert np.isnan([search.cv_results_[f"split{i}_test_score"] for i in (0, 1)]).all()
    assert search.cv_results_["split2_test_score"].min() > 0.5


def test_callables_are_given_y_as_it_is():
    labels = pd.Series(Y, index=np.arange(1000, 1240))
    seen = []

    def scorer(model, X, y):
        seen.append((type(X), type(y), y.index[0]))
        return model.score(X, y)

    search = SoftmaxRegressionClassifierCV(param_grid={"alpha": [0.1]}, cv=3, scoring=scorer, max_iter=1)
    searched(search, sparse.bsr_array(SPARSE), labels)
    assert {each[:2] for each in seen} == {(sparse.csr_array, pd.Series)}
    assert seen[0][2] == 1000


def test_a_scorer_may_be_spared_the_weights():
    def best(scorer):
        search = SoftmaxRegressionClassifierCV(
            param_grid={"alpha": [0.1]}, cv=3, scoring=scorer, max_iter=2, random_state=0
        )
        return searched(search, X, Y, sample_weight=WEIGHT).best_score_

    with sklearn.config_context(enable_metadata_routing=True):
        spared = sklearn.metrics.get_scorer("accuracy").set_score_request(sample_weight=False)
        assert best(spared) != best("accuracy")


def test_what_scores_must_be_numbers():
    search = SoftmaxRegressionClassifierCV(param_grid=PATH, cv=3, max_iter=1, scoring=lambda model, X, y: None)
    with pytest.warns(UserWarning, match="scoring must return a number, or a dict of numbers, but .* returned None"):
        search.fit(X, Y)


def test_an_error_that_is_to_be_raised_comes_at_once():
    params = {"max_iter": 1, "random_state": 0, "error_score": "raise", "cv": 3}
    seen = []
    before = _search.Pass.run_fold

    def counted(self, fold, task):
        seen.append(fold)
        return before(self, fold, task)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_search.Pass, "run_fold", counted)
        with pytest.raises(ValueError, match="Training diverged"):
            searched(SoftmaxRegressionClassifierCV(param_grid={"lr": [1e30]}, **params), X, Y)
    assert len(seen) == 1


def test_no_workers_are_started(monkeypatch):
    """Whatever joblib has been told: what remains to be done for the tables takes no time."""
    names, score_of = set(), _search.StandIn.score_of

    def noted(*args):
        names.add(current_thread().name)
        return score_of(*args)

    monkeypatch.setattr(_search.StandIn, "score_of", noted)
    with parallel_config(backend="threading", n_jobs=2):
        searched(SoftmaxRegressionClassifierCV(param_grid=PATH, cv=3, max_iter=1, refit=False), X, Y)
    assert names == {"MainThread"}


def test_memory_follows_from_the_rows_alone():
    """Not from candidates times rows."""
    rows = np.zeros((100_000, 1), np.uint8)
    rows[::2] = 1
    y = np.arange(100_000) % 2

    def peak(n_candidates):
        search = SoftmaxRegressionClassifierCV(
            param_grid={"alpha": np.logspace(-6, -1, n_candidates)}, cv=5, max_iter=1, refit=False, random_state=0
        )
        tracemalloc.start()
        searched(search, rows, y)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(30) < 1.3 * peak(2)


def test_warnings_name_the_line_of_the_user():
    search = SoftmaxRegressionClassifierCV(param_grid=PATH, cv=3, max_iter=1, shuffle=False, random_state=0)
    with pytest.warns() as caught:
        search.fit(X[np.argsort(Y)], np.sort(Y))
    assert {warning.filename for warning in caught} == {__file__}


def test_a_search_leaves_as_its_best_does():
    search = SoftmaxRegressionClassifierCV(param_grid={"fit_intercept": [False]}, cv=3, max_iter=1)
    assert searched(search, X, Y).to_sklearn().fit_intercept is False
    search.set_params(refit=False)
    with pytest.raises(NotFittedError, match="fitted with refit=False"):
        searched(search, X, Y).to_sklearn()


def test_without_refit_there_is_no_model():
    search = searched(SoftmaxRegressionClassifierCV(param_grid=PATH, cv=3, max_iter=1, refit=False), X, Y)
    assert search.best_params_["alpha"] in PATH["alpha"]
    with pytest.raises(NotFittedError, match="fitted with refit=False: it has scores, but no model"):
        search.predict(X)
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        SoftmaxRegressionClassifierCV().predict(X)


def test_only_the_best_is_told_that_its_optimum_is_far():
    search = SoftmaxRegressionClassifierCV(param_grid=PATH, cv=3, max_iter=2, random_state=0)
    with pytest.warns(ConvergenceWarning) as caught:
        search.fit(X, Y)
    assert len(caught) == 1


def test_random_states():
    """Without a seed the orders are the same for all fits; a generator is drawn from."""
    grid = {"class_weight": [None, {}], "alpha": [0.1]}  # which do not train side by side
    search = SoftmaxRegressionClassifierCV(param_grid=grid, cv=3, max_iter=2, scoring="neg_log_loss")
    searched(search, X, Y)
    first, second = search.cv_results_["mean_test_score"]
    assert first == second
    seeded = [
        searched(clone(search).set_params(random_state=np.random.RandomState(3)), X, Y).coef_.tobytes()
        for _ in range(2)
    ]
    assert seeded[0] == seeded[1]


@needs_callbacks
def test_callbacks_see_folds_and_epochs():
    class Tasks(Callback):
        def __init__(self):
            self.ended = []

        def on_fit_task_end(self, estimator, context):
            self.ended.append(context.task_name)

    tasks = Tasks()
    search = SoftmaxRegressionClassifierCV(param_grid=PATH, cv=3, max_iter=4, random_state=0).set_callbacks(tasks)
    searched(search, X, Y)
    assert tasks.ended.count("epoch") == 3 * 3 * 4  # and those of the best, which are not its business
    assert tasks.ended.count("fold") == 3
    same_results(search, by_grid_search(X, Y, PATH, {"max_iter": 4, "random_state": 0}, {"cv": 3}, {}))


@needs_callbacks
def test_a_scoring_monitor():
    from sklearn.callback import ScoringMonitor

    monitor = ScoringMonitor(scoring="accuracy")
    search = SoftmaxRegressionClassifierCV(param_grid=PATH, cv=3, max_iter=2, random_state=0).set_callbacks(monitor)
    searched(search, X, Y)
    assert search.best_score_ > 0.5


def test_in_a_pipeline_nested_cloned_and_pickled():
    search = SoftmaxRegressionClassifierCV(param_grid=PATH, cv=3, max_iter=3, random_state=0)
    nested = cross_validate(make_pipeline(StandardScaler(), search), X, Y, cv=3)
    assert nested["test_score"].min() > 0.7
    searched(search, X, Y)
    again = pickle.loads(pickle.dumps(search))
    assert_array_equal(again.predict_proba(X), search.predict_proba(X))
    assert clone(search).get_params() == search.get_params()
    assert_array_equal(search.best_estimator_.predict(X), search.predict(X))
    scorer = make_scorer(balanced_accuracy_score)
    assert scorer(search, X, Y) > 0.8


def test_verbose_says_where_it_is(capsys):
    searched(SoftmaxRegressionClassifierCV(param_grid=PATH, cv=3, max_iter=1, verbose=1, refit=False), X, Y)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("Fold 1 of 3: 3 candidates, ")


def test_what_may_vary_and_what_is_shared():
    """Together they are the estimator's parameters, but for those of calls that follow each other."""
    names = {*_search.SEARCHED, *_search.SHARED, "warm_start", "half_life"}
    assert names == set(SoftmaxRegressionClassifier().get_params())
    own = {"param_grid", "cv", "scoring", "refit", "return_train_score", "error_score"}
    assert set(SoftmaxRegressionClassifierCV().get_params()) == own | (names - {"warm_start", "half_life"})
    for name, value in SoftmaxRegressionClassifierCV().get_params().items():
        assert name in own or value == SoftmaxRegressionClassifier().get_params()[name]


CHECKED = [{}, {"param_grid": {"lr": ["auto", 0.1]}}, {"scoring": "neg_log_loss"}, {"class_weight": "balanced"}]


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([SoftmaxRegressionClassifierCV(cv=3, max_iter=30, **settings) for settings in CHECKED])
def test_scikit_learn_check(estimator, check):
    check(estimator)
