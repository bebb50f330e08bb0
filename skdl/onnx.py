"""ONNX: after ``import skdl.onnx``, skl2onnx converts skdl's classifiers, alone and in pipelines.

>>> import numpy as np
>>> from skl2onnx import to_onnx
>>> import skdl.onnx
>>> model = skdl.SoftmaxRegressionClassifier().fit(np.eye(3, dtype=np.float32), ["a", "b", "c"])
>>> graph = to_onnx(model, np.eye(3, dtype=np.float32), options={"zipmap": False})
>>> [output.name for output in graph.graph.output]
['label', 'probabilities']

The graph computes in the type that its input is declared to have: float64 for `DoubleTensorType`, else float32, into which
`UInt8TensorType`, `Int8TensorType`, `Int64TensorType` and `BooleanTensorType` are cast. Labels are strings or int64, into which
booleans and whole floats are converted. The options are those of skl2onnx's linear classifiers: `zipmap`, `nocl`,
`output_class_labels` and `raw_scores`, which gives the logits; with two classes, as there, -z and z. ONNX's ZipMap, the default
of `zipmap`, knows float32 only: with `DoubleTensorType` choose another.
"""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skdl import SoftmaxRegressionClassifier, SoftmaxRegressionClassifierCV, _softmax
from skdl._validation import check_model

try:
    from onnx import TensorProto, numpy_helper
    from skl2onnx import update_registered_converter
    from skl2onnx.common.data_types import DoubleTensorType, Int64TensorType, StringTensorType, guess_proto_type
except ImportError as error:
    raise ImportError("skdl.onnx needs skl2onnx: pip install 'skdl[onnx]'.") from error

CLASSIFIERS = [SoftmaxRegressionClassifier, SoftmaxRegressionClassifierCV]
OPTIONS = {
    "zipmap": [True, False, "columns"],
    "nocl": [True, False],
    "output_class_labels": [False, True],
    "raw_scores": [True, False],
}


def _labels(model, options):
    """The labels of the classes, as int64 or as a list of strings."""
    classes = np.arange(len(model.classes_)) if options["nocl"] else model.classes_
    if all(isinstance(label, str) for label in classes):
        return classes.tolist()
    labels = classes.astype(np.int64)
    if not np.array_equal(labels, classes):
        raise ValueError(f"ONNX has no labels such as {classes[0]!r}: expected strings, integers or booleans.")
    return labels


def _set_shapes(operator):
    """The types and shapes of the two outputs, labels and probabilities, of which skl2onnx knows the probabilities' type."""
    model = operator.raw_operator
    check_is_fitted(model)
    n_rows = operator.inputs[0].get_first_dimension()
    labels = _labels(model, operator.scope_inst.get_options(model, {"nocl": False}))
    label_type = StringTensorType if isinstance(labels, list) else Int64TensorType
    label, probabilities = operator.outputs
    label.set_type(label_type([n_rows]))
    probabilities.type.shape = [n_rows, len(labels)]


def _convert(scope, operator, container):
    """X -> logits of all classes -> their softmax, and the label of the largest.

    Two classes have one logit, the second's; the first's is 0.
    """
    model = operator.raw_operator
    coef, intercept = model.coef_, model.intercept_
    check_model(coef, intercept, _softmax.n_outputs(len(model.classes_)), model.n_features_in_)
    options = container.get_options(model, {"nocl": False, "raw_scores": False})
    if len(model.classes_) == 2:
        of_first = -1 if options["raw_scores"] else 0
        coef, intercept = np.concatenate([of_first * coef, coef]), np.concatenate([of_first * intercept, intercept])
    is_double = isinstance(operator.inputs[0].type, DoubleTensorType)
    dtype, real = (np.float64, TensorProto.DOUBLE) if is_double else (np.float32, TensorProto.FLOAT)

    def constant(name, values):
        name = scope.get_unique_variable_name(name)
        if isinstance(values, list):
            container.add_initializer(name, TensorProto.STRING, [len(values)], [label.encode() for label in values])
        else:
            container.add_initializer(name, None, values.shape, numpy_helper.from_array(values))
        return name

    def node(operation, inputs, output=None, **attributes):
        output = scope.get_unique_variable_name(operation.lower()) if output is None else output.full_name
        container.add_node(operation, inputs, output, name=scope.get_unique_operator_name(operation), **attributes)
        return output

    label, probabilities = operator.outputs
    weights = [constant("coef", coef.astype(dtype)), constant("intercept", intercept.astype(dtype))]
    X = operator.inputs[0].full_name
    if guess_proto_type(operator.inputs[0].type) != real:
        X = node("Cast", [X], to=real)
    logits = node("Gemm", [X, *weights], probabilities if options["raw_scores"] else None, transB=1)
    if not options["raw_scores"]:
        node("Softmax", [logits], probabilities, axis=1)
    number = node("ArgMax", [logits], axis=1, keepdims=0)
    node("Gather", [constant("classes", _labels(model, options)), number], label)


for _classifier in CLASSIFIERS:
    update_registered_converter(_classifier, f"Skdl{_classifier.__name__}", _set_shapes, _convert, options=OPTIONS)
