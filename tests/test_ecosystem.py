"""The estimator inside scikit-learn, joblib, pandas and polars."""

import copy
import pickle
import re
import warnings
from functools import partial

import _helpers
import joblib
import numpy as np
import pytest
from _helpers import same_model
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits, load_wine
from sklearn.ensemble import StackingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, cross_val_score, train_test_split
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from skdl import SoftmaxRegressionClassifier

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_digits(return_X_y=True)
X, X_VAL, Y, Y_VAL = train_test_split(X, Y, train_size=600, test_size=200, random_state=0)
WEIGHT = np.linspace(0, 3, len(Y))
make = partial(_helpers.make, max_iter=5)


# ---- pipelines, searches, ensembles


def test_pipeline_needs_no_scaler():
    """Wine's features differ by a factor of 1000; the defaults do with them what they do with scaled ones."""
    wine, y = load_wine(return_X_y=True)
    raw = cross_val_score(SoftmaxRegressionClassifier(random_state=0), wine, y, cv=5).mean()
    scaled = cross_val_score(
        make_pipeline(StandardScaler(), SoftmaxRegressionClassifier(random_state=0)), wine, y, cv=5
    )
    assert raw > 0.93
    assert scaled.mean() > 0.93


def test_pipeline_is_its_steps():
    scaler, clf = StandardScaler().fit(X), make()
    pipeline = make_pipeline(StandardScaler(), make()).fit(X, Y)
    same_model(pipeline[-1], clf.fit(scaler.transform(X), Y))
    assert_array_equal(pipeline.predict_proba(X_VAL), clf.predict_proba(scaler.transform(X_VAL)))


def grid(n_jobs):
    grid = {"clf__lr": ["auto", 1e-3, 1e-5], "clf__batch_size": [32, 256]}
    return GridSearchCV(Pipeline([("clf", make(max_iter=3))]), grid, cv=3, n_jobs=n_jobs)


@pytest.fixture(scope="module")
def search():
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        return grid(1).fit(X, Y)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_grid_search_in_parallel(backend, search):
    """Two workers, each with threads of its own: the same numbers."""
    with joblib.parallel_config(backend=backend):
        parallel = grid(2).fit(X, Y)
    scores = parallel.cv_results_["mean_test_score"]
    assert_array_equal(scores, search.cv_results_["mean_test_score"])
    assert len(set(scores)) > 1 and parallel.best_score_ > 0.9
    assert parallel.best_params_ == search.best_params_
    same_model(parallel.best_estimator_[-1], search.best_estimator_[-1])


def test_cross_validation_on_raw_digits(mnist):
    images, labels = mnist[0][:6000], mnist[1][:6000]
    assert images.dtype == np.uint8
    scores = cross_val_score(make(max_iter=3), images, labels, cv=3)
    assert scores.shape == (3,) and scores.min() > 0.85


def test_halving_search_over_epochs():
    search = HalvingGridSearchCV(
        make(),
        {"lr": ["auto", 1e-6, 1e-7]},
        resource="max_iter",
        min_resources=2,
        max_resources=8,
        factor=2,
        cv=3,
        random_state=0,
    ).fit(X, Y)
    assert search.n_resources_ == [2, 4]
    assert search.best_params_ == {"lr": "auto", "max_iter": 4}
    assert search.best_estimator_.n_iter_ == 4


def test_calibration():
    calibrated = CalibratedClassifierCV(make(), cv=3).fit(X, Y)
    assert calibrated.score(X_VAL, Y_VAL) > 0.9
    assert_allclose(calibrated.predict_proba(X_VAL).sum(axis=1), 1)


def test_calibration_of_a_prefit_model():
    clf = make().fit(X, Y)
    calibrated = CalibratedClassifierCV(FrozenEstimator(clf)).fit(X_VAL, Y_VAL)
    assert calibrated.score(X_VAL, Y_VAL) > 0.9


def test_one_vs_rest():
    ovr = OneVsRestClassifier(make()).fit(X, Y)
    assert [each.coef_.shape for each in ovr.estimators_] == [(1, 64)] * 10
    assert ovr.score(X_VAL, Y_VAL) > 0.9
    same_model(ovr.estimators_[3], make().fit(X, (Y == 3).astype(int)))


@pytest.mark.parametrize("method", ["predict_proba", "decision_function"])
def test_stacking(method):
    base = [("one", make()), ("other", make(lr=1e-4, l1_ratio=0.5))]
    stack = StackingClassifier(base, make(max_iter=30), stack_method=method, cv=3)
    assert stack.fit(X, Y).score(X_VAL, Y_VAL) > 0.9
    assert stack.final_estimator_.n_features_in_ == 20


TOPICS = {
    "sea": "ship harbour sail wave tide anchor deck captain island storm",
    "kitchen": "oven flour butter sugar pan recipe dough spoon salt stir",
    "music": "violin chord melody rhythm opera drum choir tempo song string",
}


def texts(n, seed):
    rng = np.random.default_rng(seed)
    topics = rng.choice(list(TOPICS), n)
    return [" ".join(rng.choice(TOPICS[topic].split(), 6)) for topic in topics], topics


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_text(dtype):
    words = TfidfVectorizer(dtype=dtype)
    chars = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), dtype=dtype)
    pipeline = make_pipeline(FeatureUnion([("words", words), ("chars", chars)]), make())
    pipeline.fit(*texts(150, seed=0))
    X = pipeline[:-1].transform(TOPICS.values())
    assert X.format == "csr" and X.dtype == dtype
    assert pipeline[-1].coef_.shape == (3, X.shape[1]) and pipeline[-1].coef_.dtype == dtype
    assert pipeline.score(*texts(60, seed=1)) == 1
    assert pipeline.predict(TOPICS.values()).tolist() == list(TOPICS)


# ---- metadata routing


def test_validation_set_through_a_pipeline():
    with config_context(enable_metadata_routing=True):
        clf = make().set_fit_request(X_val=True, y_val=True, sample_weight_val=True, sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = Pipeline([("scaler", scaler), ("clf", clf)], transform_input=["X_val"])
        weight_val = np.linspace(1, 2, len(Y_VAL))
        pipeline.fit(X, Y, X_val=X_VAL, y_val=Y_VAL, sample_weight=WEIGHT, sample_weight_val=weight_val)
    scaler, expected = StandardScaler().fit(X), make()
    expected.fit(
        scaler.transform(X), Y, WEIGHT, X_val=scaler.transform(X_VAL), y_val=Y_VAL, sample_weight_val=weight_val
    )
    same_model(pipeline[-1], expected)
    assert pipeline[-1].validation_loss_curve_ == expected.validation_loss_curve_
    assert len(expected.validation_loss_curve_) == expected.n_iter_


@pytest.mark.parametrize("routing", [True, False])
def test_weights_through_a_search(routing):
    with config_context(enable_metadata_routing=routing):
        clf = make()
        if routing:
            clf.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        search = GridSearchCV(clf, {"alpha": [1e-4, 1e-2]}, cv=3).fit(X, Y, sample_weight=WEIGHT)
        plain = GridSearchCV(make(), {"alpha": [1e-4, 1e-2]}, cv=3).fit(X, Y)
    same_model(search.best_estimator_, make(**search.best_params_).fit(X, Y, sample_weight=WEIGHT))
    assert not np.array_equal(search.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"])


def test_partial_fit_takes_weights_by_request():
    with config_context(enable_metadata_routing=True):
        clf = OneVsRestClassifier(make().set_partial_fit_request(sample_weight=True))
        clf.partial_fit(X, Y, classes=range(10), sample_weight=WEIGHT)
    expected = make().partial_fit(X, (Y == 3).astype(int), classes=[0, 1], sample_weight=WEIGHT)
    same_model(clf.estimators_[3], expected)


# ---- parameters and copies


def test_parameters():
    clf = make(lr=0.5, class_weight={0: 2})
    assert clf.get_params()["lr"] == 0.5
    assert clf.set_params(lr="auto", batch_size=7) is clf
    assert (clf.lr, clf.batch_size) == ("auto", 7)
    with pytest.raises(ValueError, match="learning_rate"):
        clf.set_params(learning_rate=1)
    copied = clone(clf.set_params(class_weight=None).fit(X, Y))
    assert copied.get_params() == clf.get_params()
    assert not [name for name in vars(copied) if name.endswith("_")]
    same_model(copied.fit(X, Y), clf)
    assert "batch_size=7" in repr(clf)


def test_html(monkeypatch):
    """scikit-learn's, which links to the documentation and shows what it says as soon as there is an address."""
    clf = make(early_stopping=True).fit(X, Y)
    assert "href" not in clf._repr_html_() and "batch_size" in clf._repr_html_()
    monkeypatch.setattr(SoftmaxRegressionClassifier, "_doc_link_template", "https://example.org/{estimator_name}.html")
    shown = clf._repr_html_()
    assert 'href="https://example.org/SoftmaxRegressionClassifier.html"' in shown
    told = set(re.findall(r'<span class="param-doc-description"\s*style="[^"]*">\s*(\w+): [^<]+<br><br>[^<]+', shown))
    fitted = {name for name in vars(clf) if name.endswith("_")}
    assert told == {*clf.get_params(), *fitted}


def by_joblib(clf, path):
    joblib.dump(clf, path / "clf.joblib")
    return joblib.load(path / "clf.joblib")


def by_mapped_joblib(clf, path):
    joblib.dump(clf, path / "clf.joblib")
    return joblib.load(path / "clf.joblib", mmap_mode="r")  # as loky gives it to workers: coef_ is read-only


@pytest.mark.parametrize("n_classes", [2, 10])
@pytest.mark.parametrize(
    "copied",
    [lambda clf, _: pickle.loads(pickle.dumps(clf)), lambda clf, _: copy.deepcopy(clf), by_joblib, by_mapped_joblib],
    ids=["pickle", "deepcopy", "joblib", "joblib mapped"],
)
def test_a_copy_is_the_same_and_goes_on_the_same(copied, n_classes, tmp_path):
    y = Y % n_classes
    for clf in (make().fit(X, y), make().partial_fit(X, y, classes=range(n_classes))):
        other = copied(clf, tmp_path)
        same_model(other, clf)
        assert other.get_params() == clf.get_params()
        assert_array_equal(other.predict(X_VAL), clf.predict(X_VAL))
        assert_array_equal(other.predict_proba(X_VAL), clf.predict_proba(X_VAL))
        same_model(other.partial_fit(X_VAL, Y_VAL % n_classes), clf.partial_fit(X_VAL, Y_VAL % n_classes))
        for each in (other, clf):
            each.set_params(warm_start=True).fit(X, y)
        same_model(other, clf)


def test_fitted_attributes_are_plain():
    """Arrays of NumPy and numbers, so that a model outlives the backend that made it."""
    clf = make(early_stopping=True).fit(X, Y)
    for name, value in vars(clf).items():
        if name.endswith("_"):
            assert isinstance(value, np.ndarray | int | float | list), name
            assert not isinstance(value, list) or all(isinstance(x, float) for x in value), name
    assert 0 < clf.lr_ < np.inf


# ---- frames and labels


@pytest.fixture(params=["pandas", "polars"])
def frame(request):
    library = pytest.importorskip(request.param)

    def frame(X, names):
        return library.DataFrame({name: X[:, j] for j, name in enumerate(names)})

    return frame


def test_frames(frame):
    names = [f"pixel {j}" for j in range(64)]
    clf, plain = make().fit(frame(X, names), Y), make().fit(X, Y)
    assert clf.feature_names_in_.tolist() == names and clf.n_features_in_ == 64
    assert not hasattr(plain, "feature_names_in_")
    same_model(clf, plain)
    with warnings.catch_warnings(action="error"):
        assert_array_equal(clf.predict_proba(frame(X_VAL, names)), plain.predict_proba(X_VAL))
        clf.partial_fit(frame(X, names), Y)
    for other in (names[::-1], [*names[:-1], "sound"]):
        with pytest.raises(ValueError, match="feature names"):
            clf.predict(frame(X_VAL, other))
        with pytest.raises(ValueError, match="feature names"):
            clf.partial_fit(frame(X, other), Y)
    with pytest.raises(ValueError, match="feature"):
        clf.predict(frame(X_VAL, names[:-1]))
    with pytest.warns(UserWarning, match="feature names"):
        clf.predict(X_VAL)


def test_a_column_may_be_called_device(frame):
    """Which arrays of other libraries have as an attribute."""
    same_model(make().fit(frame(X[:, 18:20], ["device", "other"]), Y), make().fit(X[:, 18:20], Y))


def test_validation_frames(frame):
    names = [f"pixel {j}" for j in range(64)]
    clf = make()
    with warnings.catch_warnings(action="error"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        clf.fit(frame(X, names), Y, X_val=frame(X_VAL, names), y_val=Y_VAL)
    assert clf.validation_loss_curve_ == make().fit(X, Y, X_val=X_VAL, y_val=Y_VAL).validation_loss_curve_
    with pytest.raises(ValueError, match="feature names"):
        clf.fit(frame(X, names), Y, X_val=frame(X_VAL, names[::-1]), y_val=Y_VAL)


LABELS = {
    "strings": np.array([f"digit {d}" for d in range(10)]),
    "strings of unlike length": np.array(["", "b", "cc", "ddd", "e" * 30, "f", "g", "h", "i", "ü"]),
    "objects": np.array([f"digit {d}" for d in range(10)], dtype=object),
    "integers with gaps": np.array([-7, -1, 0, 3, 4, 10, 11, 500, 10**6, 2**40]),
    "unsigned": np.arange(200, 210, dtype=np.uint8),
    "whole floats": np.arange(10) * 2.0,
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels(kind):
    names = LABELS[kind]
    order = np.argsort(names)  # classes_ is sorted: number d of it is names[order[d]]
    clf, plain = make().fit(X, names[order][Y], X_val=X_VAL, y_val=names[order][Y_VAL]), make().fit(X, Y)
    assert_array_equal(clf.classes_, names[order])
    assert_array_equal(clf.coef_, plain.coef_)
    assert clf.predict(X_VAL).dtype == clf.classes_.dtype == names.dtype
    assert_array_equal(clf.predict(X_VAL), names[order][plain.predict(X_VAL)])
    assert clf.score(X_VAL, names[order][Y_VAL]) == plain.score(X_VAL, Y_VAL) == clf.validation_scores_[-1]
    streamed = make().partial_fit(X, names[order][Y], classes=names)
    assert_array_equal(streamed.classes_, names[order])
    same = make().partial_fit(X, Y, classes=range(10))
    assert_array_equal(streamed.partial_fit(X, names[order][Y]).coef_, same.partial_fit(X, Y).coef_)


def test_boolean_labels():
    clf, plain = make().fit(X, Y > 4), make().fit(X, (Y > 4).astype(int))
    assert clf.classes_.dtype == bool and clf.classes_.tolist() == [False, True]
    assert clf.predict(X).dtype == bool
    assert_array_equal(clf.coef_, plain.coef_)
    assert_array_equal(clf.predict(X), plain.predict(X) == 1)
    assert clf.set_params(class_weight={True: 3.0}).fit(X, Y > 4).predict(X).sum() > plain.predict(X).sum()


@pytest.mark.parametrize("dtype", ["int64", "str", "category"])
def test_pandas_labels(dtype):
    pd = pytest.importorskip("pandas")
    y = pd.Series(Y).map(str).astype(dtype)
    clf = make().fit(X, y, sample_weight=pd.Series(WEIGHT))
    assert_array_equal(clf.coef_, make().fit(X, Y, sample_weight=WEIGHT).coef_)
    assert_array_equal(clf.classes_, np.unique(np.asarray(y)))
    assert clf.score(X, y) > 0.9
    clf.fit(X, y, X_val=X_VAL, y_val=pd.Series(Y_VAL).map(str).astype(dtype))
    assert clf.validation_scores_[-1] > 0.8
    make().partial_fit(X, y, classes=y.unique()).partial_fit(X, y)
