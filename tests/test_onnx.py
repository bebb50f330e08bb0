"""skdl.onnx: what onnxruntime computes is what the model predicts."""

import numpy as np
import onnxruntime
import pytest
from _helpers import DIGITS, LABELS, make, run
from numpy.testing import assert_allclose, assert_array_equal
from skl2onnx import to_onnx
from skl2onnx.common.data_types import StringTensorType
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skdl.onnx  # noqa: F401
from skdl import SoftmaxRegressionClassifierCV

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

CLOSE = {np.dtype("f8"): 1e-14, np.dtype("f4"): 5e-6}  # by the type in which the graph computes
NAMES = np.array([f"digit {i}" for i in range(10)])
WORDS = np.array(
    ["ship", "harbour", "sail", "wave", "tide", "anchor", "oven", "flour", "butter", "sugar", "pan", "recipe"]
)
RNG = np.random.default_rng(0)
TOPICS = RNG.integers(0, 3, 120)
TEXTS = [" ".join(RNG.choice(WORDS[4 * topic : 4 * topic + 6], 5)) for topic in TOPICS]


def answers(graph, X):
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: X})


def convert(model, X, **options):
    return to_onnx(
        model, X[:1], options={id(getattr(model, "steps", [("", model)])[-1][1]): {"zipmap": False, **options}}
    )


def scaled():
    return make_pipeline(StandardScaler(), make())


def searched():
    return SoftmaxRegressionClassifierCV(param_grid={"alpha": [1e-3, 1e-2]}, cv=3, max_iter=3, random_state=0)


@pytest.mark.parametrize(
    ("make_model", "dtype", "y"),
    [
        pytest.param(make_model, dtype, y, id=f"{make_model.__name__}-{dtype}-{name}")
        for make_model, dtypes in ((make, ("f8", "f4", "u1", "i8", "?")), (scaled, ("f8", "f4")), (searched, ("f4",)))
        for dtype in dtypes
        for name, y in {
            "many": LABELS,
            "two": LABELS % 2,
            "strings": NAMES[LABELS],
            "two strings": NAMES.astype(object)[LABELS % 2],
            "bool": LABELS > 4,
            "large and negative": np.array([-7, 2**40])[LABELS % 2],
        }.items()
    ],
)
def test_the_same_probabilities(make_model, dtype, y):
    X = DIGITS.astype(dtype)
    model = make_model().fit(X, y)
    label, probabilities = answers(convert(model, X), X)
    assert probabilities.dtype == ("f8" if dtype == "f8" else "f4")
    assert probabilities.shape == (len(X), len(model.classes_))
    assert abs(probabilities - model.predict_proba(X)).max() <= CLOSE[probabilities.dtype]
    assert_array_equal(label, model.predict(X))


@pytest.mark.parametrize("y", [TOPICS, TOPICS > 1, NAMES[TOPICS]], ids=["many", "two", "strings"])
def test_text(y):
    model = make_pipeline(TfidfVectorizer(), make()).fit(TEXTS, y)
    options = {
        id(model[0]): {"locale": "C"},
        id(model[1]): {"zipmap": False},
    }  # the default, en_US, may not be installed
    graph = to_onnx(model, initial_types=[("texts", StringTensorType([None, 1]))], options=options)
    label, probabilities = answers(graph, np.array(TEXTS)[:, np.newaxis])
    assert abs(probabilities - model.predict_proba(TEXTS)).max() <= CLOSE[probabilities.dtype]
    assert_array_equal(label, model.predict(TEXTS))


def test_a_float64_model_in_a_float32_graph():
    X = DIGITS.astype("f8")
    model = make().fit(X, LABELS)
    _, probabilities = answers(convert(model, X.astype("f4")), X.astype("f4"))
    assert probabilities.dtype == "f4"
    assert abs(probabilities - model.predict_proba(X)).max() <= CLOSE[probabilities.dtype]


@pytest.mark.parametrize("target", ["many", "two"])
def test_options_are_those_of_linear_classifiers(target):
    """Names, types and shapes are as scikit-learn's own have them."""
    X, y = DIGITS.astype("f4"), NAMES[LABELS % (2 if target == "two" else 10)]
    model, own = make().fit(X, y), LogisticRegression(max_iter=5).fit(X, y)
    for options in (
        {"zipmap": True}, {"zipmap": "columns"}, {"nocl": True}, {"output_class_labels": True}, {"raw_scores": True},
    ):  # fmt: skip
        graph, theirs = convert(model, X, **options), convert(own, X, **options)
        assert str(graph.graph.output) == str(theirs.graph.output).replace("SklearnLinear", "Skdl"), options
        for ours, expected in zip(answers(graph, X), answers(theirs, X), strict=True):
            assert type(ours) is type(expected)
            if isinstance(ours, list):
                assert ours[0].keys() == expected[0].keys()
            else:
                assert (ours.dtype, ours.shape) == (expected.dtype, expected.shape)


def test_options():
    X = DIGITS.astype("f4")
    model = make().fit(X, NAMES[LABELS])
    expected = model.predict_proba(X)
    _, maps = answers(convert(model, X, zipmap=True), X)
    assert_allclose([[row[name] for name in NAMES] for row in maps], expected, atol=5e-6)
    _, *columns = answers(convert(model, X, zipmap="columns"), X)
    assert_allclose(np.transpose(columns), expected, atol=5e-6)
    assert_array_equal(answers(convert(model, X, nocl=True), X)[0], expected.argmax(axis=1))
    assert_array_equal(answers(convert(model, X, output_class_labels=True), X)[2], NAMES)
    _, scores = answers(convert(model, X, raw_scores=True), X)
    assert_allclose(scores, model.decision_function(X), rtol=1e-4, atol=1e-4)
    two = make().fit(X, LABELS > 4)
    label, scores = answers(convert(two, X, raw_scores=True), X)
    z = two.decision_function(X)
    assert_allclose(scores, np.column_stack([-z, z]), rtol=1e-4, atol=1e-4)
    assert_array_equal(label, two.predict(X))


@pytest.mark.parametrize("opset", [11, 13, 15, 18])
def test_older_operator_sets(opset):
    X = DIGITS.astype("f4")
    model = make().fit(X, NAMES[LABELS])
    graph = to_onnx(model, X[:1], target_opset=opset, options={"zipmap": False})
    assert abs(answers(graph, X)[1] - model.predict_proba(X)).max() <= 5e-6


def test_what_cannot_be_converted():
    X = DIGITS.astype("f4")
    with pytest.raises(NotFittedError):
        to_onnx(make(), X[:1], options={"zipmap": False})
    large = make().fit(X, np.array([2**63, 2**63 + 1], dtype=np.uint64)[LABELS % 2])
    with pytest.raises(
        ValueError, match=r"ONNX has no labels such as .*9223372036854775808.*: expected strings, integers"
    ):
        to_onnx(large, X[:1], options={"zipmap": False})


def test_without_skl2onnx():
    done = run("import sys; sys.modules['skl2onnx'] = None; import skdl.onnx", check=False)
    assert "ImportError: skdl.onnx needs skl2onnx: pip install 'skdl[onnx]'." in done.stderr
