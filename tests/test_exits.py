"""Ways out of skdl: scikit-learn's LogisticRegression."""

import pickle

import numpy as np
import pytest
from _helpers import DIGITS, LABELS, make
from numpy.testing import assert_array_equal
from scipy import sparse
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

# The largest difference of a probability, by the type of the model.
CLOSE = {"float64": 1e-14, "float32": 5e-6}
NAMES = np.array([f"digit {i}" for i in range(10)])
TARGETS = {
    "many": LABELS,
    "many, strings": NAMES[LABELS],
    "many, objects": NAMES.astype(object)[LABELS],
    "two": LABELS % 2,
    "two, strings": NAMES[LABELS % 2],
    "two, bool": LABELS > 4,
    "three, floats": (LABELS % 3).astype(float),
}


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("target", TARGETS)
def test_to_sklearn(target, dtype, intercept):
    X, y = DIGITS.astype(dtype), TARGETS[target]
    model = make(fit_intercept=intercept).fit(X, y)
    other = model.to_sklearn()
    assert type(other) is LogisticRegression
    assert vars(other).keys() == vars(LogisticRegression(max_iter=2).fit(X, y)).keys()
    for each in (X, sparse.csr_array(X)):
        assert abs(other.predict_proba(each) - model.predict_proba(each)).max() <= CLOSE[dtype]
        assert_array_equal(other.predict(each), model.predict(each))
    assert other.classes_.dtype == model.classes_.dtype and other.score(X, y) == model.score(X, y)
    assert other.fit_intercept is intercept
    assert other.n_iter_.tolist() == [model.n_iter_] and other.n_features_in_ == 64
    before = pickle.dumps(model)
    other.coef_[:], other.intercept_[:], other.classes_[:] = 0, 0, other.classes_[0]
    assert pickle.dumps(model) == before, "the two share arrays"


def test_to_sklearn_keeps_the_names_of_features():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(DIGITS, columns=[f"pixel {j}" for j in range(64)])
    other = make().fit(frame, LABELS).to_sklearn()
    assert other.feature_names_in_.tolist() == list(frame.columns)
    with pytest.raises(ValueError, match="feature names"):
        other.predict(frame[frame.columns[::-1]])


def test_to_sklearn_after_a_stream_and_before_a_fit():
    streamed = make().partial_fit(DIGITS, LABELS, classes=range(10))
    assert abs(streamed.to_sklearn().predict_proba(DIGITS) - streamed.predict_proba(DIGITS)).max() <= CLOSE["float32"]
    with pytest.raises(NotFittedError):
        make().to_sklearn()
