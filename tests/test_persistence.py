"""Models of every release load and predict as they did; another version's warns; a file that lies is an error."""

import copy
import pickle
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest
import skops.io
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import InconsistentVersionWarning
from skops.io.exceptions import UntrustedTypesFoundException

import skdl
from skdl import SoftmaxRegressionClassifier

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

# What skops must be told to trust, and nothing else: docs/reliability.md.
TRUSTED = ["skdl._classifier.SoftmaxRegressionClassifier"]
KEPT = sorted((Path(__file__).parent / "pickles").glob("*.npz"))
LOADERS = {
    "pickle": lambda path: pickle.loads(path.read_bytes()),
    "joblib": joblib.load,
    "skops": lambda path: skops.io.load(path, trusted=TRUSTED),
}
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(30, 4)), np.arange(30) % 3


def fitted(**params):
    return SoftmaxRegressionClassifier(max_iter=2, random_state=0, **params).fit(X, Y)


@pytest.mark.parametrize("way", LOADERS)
@pytest.mark.parametrize("kept", KEPT, ids=lambda path: path.stem)
def test_kept_models(kept, way):
    if way == "pickle" and np.lib.NumpyVersion(np.__version__) < "2.0.0":
        pytest.skip("NumPy 1 cannot read the arrays that NumPy 2 pickled")
    version, kind = kept.stem.split("-")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clf = LOADERS[way](kept.with_suffix(f".{way}"))
    assert bool(caught) == (version != skdl.__version__)
    expected = np.load(kept)
    assert_array_equal(clf.classes_, expected["classes"])
    assert_array_equal(clf.coef_, expected["coef"])
    assert_array_equal(clf.predict(expected["X"]), expected["predict"])
    assert_allclose(clf.predict_proba(expected["X"]), expected["predict_proba"], rtol=1e-6)
    if version == "0.1.0":  # which had the penalty on coef_ itself, and no units
        assert clf.standardize is False and not hasattr(clf, "scale_")
    if kind == "stream":
        clf.partial_fit(expected["X"], expected["predict"])
        assert clf.n_iter_ == 3
    clone(clf).fit(expected["X"], expected["predict"])


def test_every_release_kept_models():
    kinds = {kept.stem.split("-")[1] for kept in KEPT}
    assert {(kept.stem.split("-")[1]) for kept in KEPT if kept.stem.startswith(skdl.__version__)} == kinds
    assert kinds == {"multiclass", "binary", "stream"}


@pytest.mark.parametrize("written", ["0.0.1", None])
def test_another_version_warns(written):
    clf = fitted()
    function, arguments, state = clf.__reduce_ex__(4)[:3]
    state.pop("_skdl_version")
    if written:
        state["_skdl_version"] = written
    other = function(*arguments)
    with pytest.warns(InconsistentVersionWarning, match=f"{written or 'unknown'} of skdl.*{skdl.__version__} of skdl"):
        other.__setstate__(state)
    assert "_skdl_version" not in vars(other)
    assert_array_equal(other.predict_proba(X), clf.predict_proba(X))


def by_skops(clf):
    return skops.io.loads(skops.io.dumps(clf), trusted=TRUSTED)


@pytest.mark.filterwarnings("error::sklearn.exceptions.InconsistentVersionWarning")
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("labels", [Y, Y % 2 == 0, np.array(["a", "b", "c"])[Y]], ids=["numbers", "bool", "names"])
@pytest.mark.parametrize(
    "copied", [lambda clf: pickle.loads(pickle.dumps(clf)), copy.deepcopy, copy.copy, by_skops],
    ids=["pickle", "deepcopy", "copy", "skops"],
)  # fmt: skip
def test_this_version_does_not_warn(copied, labels, container):
    new = SoftmaxRegressionClassifier(max_iter=2, random_state=0)
    for clf in (clone(new).fit(container(X), labels), new.partial_fit(container(X), labels, classes=np.unique(labels))):
        other = copied(clf)
        assert_array_equal(other.predict_proba(X), clf.predict_proba(X))
        assert vars(other).keys() == vars(clf).keys()
        assert_array_equal(other.partial_fit(X, labels).coef_, clf.partial_fit(X, labels).coef_)


class Hostile:
    def __reduce__(self):
        return print, ("this must not run",)


def test_skops_refuses_what_is_not_trusted(capsys):
    clf = fitted()
    clf.class_weight = Hostile()
    data = skops.io.dumps(clf)
    with pytest.raises(UntrustedTypesFoundException, match="Hostile"):
        skops.io.loads(data, trusted=TRUSTED)
    assert capsys.readouterr().out == ""
    assert skops.io.get_untrusted_types(data=skops.io.dumps(fitted())) == TRUSTED


LIES = {
    "more features": {"coef_": np.ones((3, 10_000))},
    "fewer features": {"coef_": np.ones((3, 3))},
    "fewer classes": {"coef_": np.ones((1, 4))},
    "more classes": {"coef_": np.ones((5000, 4)), "intercept_": np.ones(5000)},
    "no intercept": {"intercept_": np.ones(0)},
    "one intercept": {"intercept_": np.ones(1)},
    "two classes of three": {"classes_": np.arange(2)},
    "1-D": {"coef_": np.ones(4)},
    "a number": {"coef_": 1.0},
    "features that are not there": {"coef_": np.ones((3, 10_000)), "n_features_in_": 10_000},
}


@pytest.mark.parametrize("stored", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("name", LIES)
def test_a_model_that_does_not_fit_together_is_an_error(name, stored):
    """coef_ may come from a file, or from its user: a kernel must not follow it out of bounds."""
    clf = fitted().partial_fit(X, Y)
    vars(clf).update(LIES[name])
    data = stored(X)
    for method in ("predict", "predict_proba", "decision_function"):
        with pytest.raises(ValueError, match=r"needs|features|classes"):
            getattr(clf, method)(data)
    with pytest.raises(ValueError, match=r"needs|features|classes"):
        clf.set_params(warm_start=True).fit(data, Y) if "features that" not in name else clf.predict(data)
    if name != "two classes of three":
        with pytest.raises(ValueError, match=r"needs|features|classes|broadcast"):
            clf.partial_fit(data, Y)


@pytest.mark.parametrize("backend", ["openmp", "opencl"])
@pytest.mark.parametrize("dtype", [object, "c16", "g", "i8", list])
@pytest.mark.parametrize("name", ["coef_", "intercept_"])
def test_a_model_of_another_type_is_an_error(name, dtype, backend):
    """OpenCL read objects as numbers and crashed; a list has no dtype at all."""
    clf = fitted(backend=backend)
    value = getattr(clf, name)
    setattr(clf, name, value.tolist() if dtype is list else value.astype(dtype))
    for method in ("predict", "predict_proba", "decision_function"):
        with pytest.raises(ValueError, match=rf"{name} is a.*needs an array of float64 or float32"):
            getattr(clf, method)(X)
    with pytest.raises(ValueError, match=rf"{name} is a.*needs"):
        clf.set_params(warm_start=True).fit(X, Y)


@pytest.mark.parametrize("name", ["coef_", "intercept_"])
def test_a_model_with_nan_is_an_error(name):
    clf = fitted()
    setattr(clf, name, np.full_like(getattr(clf, name), np.nan))
    with pytest.raises(ValueError, match="coef_ or intercept_ contains NaN or infinity"):
        clf.predict(X)


def test_a_stream_that_does_not_fit_is_an_error():
    clf = fitted().partial_fit(X, Y)
    stream = clf._stream
    for name in ("coef_velocity", "intercept_velocity"):
        clf._stream = {**stream, name: stream[name][:1]}
        with pytest.raises(ValueError, match="needs"):
            clf.partial_fit(X, Y)
