"""X, y, weights and models as arrays that the kernels may trust, or an error that says what is wrong."""

from numbers import Integral, Real

import numpy as np
from scipy import sparse
from sklearn.model_selection import train_test_split
from sklearn.utils import assert_all_finite, check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from skdl._blocks import Blocks
from skdl._kernels import find_csr_defect
from skdl._warnings import warn

# Storage types that the kernels convert themselves; whatever is not among them becomes float64.
DENSE_TYPES = [np.float64, np.float32, np.float16, np.uint8, np.int8, np.bool_]
SPARSE_TYPES = [np.float64, np.float32]
# How the names of types begin that NumPy, pandas and polars have for dates, times and texts.
NOT_NUMBERS = ("date", "time", "duration", "str", "utf8", "bytes", "<u", ">u", "|u", "|s")
# And those whose columns hold numbers and nothing else: objects, categories and the like may hold texts.
NUMBERS = (
    "float",
    "int",
    "uint",
    "bool",
    "double",
    "halffloat",
    *(f"sparse[{x}" for x in ("float", "int", "uint", "bool")),
)


def check_on_host(values, name):
    """Raise TypeError where an array of torch, CuPy or another library does not lie in the host's memory.

    Their own errors do not name the argument, or there are none but a silent copy.
    """
    has_device = hasattr(type(values), "device")  # a data frame may have a column of this name
    device = str(values.device) if has_device else "a GPU" if hasattr(values, "__cuda_array_interface__") else "cpu"
    if "cpu" not in device.lower():
        copy = next((f"{name}.{method}()" for method in ("cpu", "get") if hasattr(values, method)), "a copy")
        raise TypeError(
            f"{name}, of type {type(values).__name__}, is on {device}, but skdl reads the host's memory: pass {copy}. To train "
            "on a GPU, set backend='opencl', which sends arrays of the host there."
        )


# ---- X


def validate_training(estimator, X, y, *, reset):
    """X as the kernels read it: dense, C-ordered and aligned, or CSR that cannot lead them out of bounds; and y.

    NaN and infinity in X are left for `check_finite`, which need not read X again if there are statistics: one pass instead
    of two.
    """
    X, y = _converted(estimator, X, plain_labels(y, "y"), reset=reset, ensure_all_finite=False)
    return _without_duplicates(_aligned(X)) if sparse.issparse(X) else _aligned(X), y


def validate_prediction(estimator, X):
    """X as the kernels read it, all of it finite."""
    if _is_ready(estimator, X):
        check_finite(X)
        return X
    return _aligned(_converted(estimator, X, reset=False, ensure_all_finite=True))


def _converted(estimator, X, *y, **checks):
    if isinstance(X, Blocks):
        raise TypeError(
            "X is Blocks, which fit and the predictions of SoftmaxRegressionClassifier take: expected an array."
        )
    check_on_host(X, "X")
    X = as_csr(X) if sparse.issparse(X) else _as_numbers(X)
    types = SPARSE_TYPES if sparse.issparse(X) else DENSE_TYPES
    return validate_data(estimator, X, *y, accept_sparse="csr", dtype=types, order="C", **checks)


def _as_numbers(X):
    """X, which is not sparse, in a form of whose type scikit-learn takes notice, or TypeError if it holds no numbers.

    scikit-learn would read "1.5" and a date as numbers, and make float64 of a list of float32 rows or of a torch tensor.
    """
    if isinstance(X, np.ndarray) and X.dtype.kind in "fiub":
        return X
    if hasattr(X, "dtypes"):  # of a data frame, one for each column
        dtypes = list(X.dtypes)
    else:
        if not isinstance(getattr(X, "dtype", None), np.dtype) and (
            isinstance(X, list | tuple) or hasattr(X, "__array__")
        ):
            try:
                X = np.asarray(X)
            except (RuntimeError, TypeError) as error:  # torch's: bfloat16, a gradient, another device
                raise TypeError(f"X, of type {type(X).__name__}, is not readable as a NumPy array: {error}") from error
        dtypes = [X.dtype] if isinstance(X, np.ndarray) else []
    for dtype in dtypes:
        if str(dtype).lower().startswith(NOT_NUMBERS):
            raise TypeError(f"X holds values of type {dtype}: expected numbers (floats, integers or bool).")
    values = X
    if hasattr(X, "dtypes") and not all(str(dtype).lower().startswith(NUMBERS) for dtype in dtypes):
        values = np.asarray(X)
    if isinstance(values, np.ndarray) and values.dtype.kind in "OSU":
        text = next((value for value in values.flat if isinstance(value, str | bytes)), None)
        if text is not None:
            raise TypeError(f"X holds {text!r}, a {type(text).__name__}: expected numbers (floats, integers or bool).")
    return X


def _aligned(X):
    if not sparse.issparse(X):
        return np.require(X, requirements="CA")
    return X if X.dtype in SPARSE_TYPES else X.astype(np.float64)  # as sparse columns of pandas may be


def _is_ready(estimator, X):
    """Whether X needs no conversion to be predicted: to find that out in general takes longer than to predict one row."""
    return (
        type(X) is np.ndarray
        and X.shape[1:] == (estimator.n_features_in_,)
        and len(X) > 0
        and X.dtype in DENSE_TYPES
        and X.flags.c_contiguous
        and X.flags.aligned
        and not hasattr(estimator, "feature_names_in_")
    )


def check_finite(X, statistics=None, *, complete=False):
    """Raise scikit-learn's error if X holds NaN or infinity; X is not read if statistics of the complete X are finite."""
    values = X.data if sparse.issparse(X) else X
    if values.dtype.kind != "f":
        return
    sums_are_finite = statistics is not None and np.isfinite(statistics.mean).all()
    if complete and sums_are_finite and np.isfinite(statistics.variance).all():
        return
    with np.errstate(invalid="ignore"):  # scikit-learn adds up X, which may overflow to both sides
        step = max(1, (1 << 26) // max(1, values[:1].nbytes))  # in parts, so that Ctrl-C need not wait for the last
        for i in range(0, len(values), step):
            assert_all_finite(values[i : i + step], estimator_name="SoftmaxRegressionClassifier", input_name="X")
    if statistics is not None and not sums_are_finite:
        raise ValueError(
            f"X is too large for lr='auto': a column's sum overflows {values.dtype}. Divide X by {abs(values).max():g}."
        )


def sound_csr(X):
    """X as CSR that the kernels may trust: no index leads out of bounds, and no place is stored twice."""
    return _without_duplicates(as_csr(X))


def as_csr(X):
    """X as CSR that leads neither scipy nor a kernel out of bounds, or ValueError.

    scipy checks the parts of an array when it is constructed, if at all, and not all of them; its conversions then follow a
    wrong index to where it leads.
    """
    if X.ndim != 2:
        raise ValueError(f"Expected 2D array, got a sparse array of shape {X.shape} instead.")
    try:
        if X.format == "csr":
            return _checked_compressed(X, X.shape)
        if X.format == "csc":
            X = _checked_compressed(X, X.shape[::-1])
        elif X.format == "bsr":
            rows, columns = X.data.shape[1:]
            if X.shape[0] % rows or X.shape[1] % columns:
                raise ValueError(f"blocks of shape {X.data.shape[1:]} do not fill {X.shape}")
            X = _checked_compressed(X, (X.shape[0] // rows, X.shape[1] // columns))
        elif X.format == "coo":
            X = type(X)((X.data, X.coords), shape=X.shape)  # this constructor does check
        elif X.format == "dia":
            X = type(X)((X.data, X.offsets), shape=X.shape)  # and this
        elif X.format == "lil":
            lengths = [[len(row) for row in part] for part in (X.rows, X.data)]
            if lengths[0] != lengths[1] or len(lengths[0]) != X.shape[0]:
                raise ValueError(f"rows and data are not {X.shape[0]} pairs of lists of one length")
        return _checked_compressed(X.tocsr(), X.shape)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"X is not a valid {X.format.upper()} array: {error}.") from error


def _checked_compressed(X, shape):
    """X, compressed by rows of `shape`, with one type of index, once no index can lead out of bounds."""
    for name, ndim in (("data", 3 if X.format == "bsr" else 1), ("indices", 1), ("indptr", 1)):
        part = getattr(X, name)
        if not isinstance(part, np.ndarray) or part.ndim != ndim:
            raise ValueError(f"{name} must be a {ndim}-D array")
    data, indices, indptr = X.data, X.indices, X.indptr
    if len(indptr) != shape[0] + 1:
        raise ValueError(f"indptr has {len(indptr)} entries: expected {shape[0] + 1}")
    if indices.dtype.kind not in "iu" or indptr.dtype.kind not in "iu":
        raise ValueError(f"indices and indptr must be integers, but they are {indices.dtype} and {indptr.dtype}")
    index = indices.dtype if indices.dtype == indptr.dtype and indices.dtype in (np.int32, np.int64) else np.int64
    indices, indptr = (np.require(part, index, requirements="CA") for part in (indices, indptr))
    defect = find_csr_defect(indices, indptr, min(len(data), len(indices)), shape[1])
    if defect is not None:
        raise ValueError(defect)
    data, n_stored = np.require(data, requirements="CA"), indptr[-1]
    if len(data) > n_stored or len(indices) > n_stored:  # what is stored beyond is no part of the array
        data, indices = data[:n_stored], indices[:n_stored]
    if data is X.data and indices is X.indices and indptr is X.indptr:
        return X
    return type(X)((data, indices, indptr), shape=X.shape)


def _without_duplicates(X):
    """CSR in which no place is stored twice: statistics would take the parts of a value for values."""
    # An array that knows nothing of its format, and so looks.
    fresh = sparse.csr_array((X.data, X.indices, X.indptr), shape=X.shape)
    if fresh.has_canonical_format:
        return X
    X = fresh.copy()
    X.sum_duplicates()
    return X


# ---- y


def plain_labels(y, name):
    """Labels whose type NumPy would lose or not know as NumPy's: nullable integers and bool, and integers as objects."""
    check_on_host(y, name)
    dtype = getattr(y, "dtype", None)
    if isinstance(dtype, np.dtype) and dtype.kind in "mM" and np.isnat(np.asarray(y)).any():
        raise ValueError(f"{name} contains missing values: expected a label for each row.")
    if dtype is not None and not isinstance(dtype, np.dtype) and hasattr(y, "isna"):  # an extension type of pandas
        if y.isna().any():
            raise ValueError(f"{name} contains missing values: expected a label for each row.")
        y = y.to_numpy(dtype=dtype.numpy_dtype) if getattr(dtype, "kind", "O") in "iub" else np.asarray(y)
    values = np.asarray(y) if isinstance(y, list | tuple) else y
    if getattr(values, "dtype", None) == np.dtype(object) and values.ndim == 1:
        return _plain_objects(np.asarray(values), name)
    return y


def _plain_objects(values, name):
    types = {type(value) for value in values}
    if type(None) in types or "NAType" in {each.__name__ for each in types}:
        raise ValueError(f"{name} contains missing values: expected a label for each row.")
    if all(issubclass(each, Integral) for each in types):
        return np.array(values.tolist())
    if any(issubclass(each, str) for each in types) and not all(issubclass(each, str) for each in types):
        missing = [value for value in values if isinstance(value, float) and value != value]
        if missing:
            raise ValueError(f"{name} contains missing values (NaN): expected a label for each row.")
        names = ", ".join(sorted(each.__name__ for each in types))
        raise ValueError(f"{name} mixes labels of the types {names}: expected labels of one type.")
    return values


def labels(y):
    """Labels as a 1-D array."""
    return column_or_1d(plain_labels(y, "y"))


def number_labels(y):
    """Sorted classes, at least two, and class numbers of labels."""
    classes, numbers = numbered(y)
    check_several(classes)
    return classes, numbers


def check_several(classes):
    """Raise ValueError where there is one class only."""
    if len(classes) < 2:
        raise ValueError(
            "SoftmaxRegressionClassifier needs samples of at least 2 classes, but y contains only one class: "
            f"{classes.tolist()[0]!r}."
        )


def check_one_kind(*labels):
    """Raise ValueError where some arrays of labels are numbers and others text: NumPy would make text of all."""
    if len({"text" if each.dtype.kind in "OUS" else "numbers" for each in labels}) > 1:
        raise ValueError("y holds numbers in some blocks and text in others: expected labels of one type.")


def numbered(y):
    """Sorted classes and class numbers of labels."""
    if y.dtype.kind in "iu" and int(y.max()) - int(y.min()) < len(y):  # counting takes a third of the time of sorting
        wide = np.uint64 if y.dtype.kind == "u" else np.int64  # int8 would overflow
        low = y.min().astype(wide)
        offset = (y.astype(wide) - low).astype(np.intp)
        occurs = np.bincount(offset) > 0
        classes = np.flatnonzero(occurs)
        # Where most labels differ, y may be no classes, which scikit-learn's check below tells the user.
        if len(classes) <= len(y) // 2:
            return (classes.astype(wide) + low).astype(y.dtype), (np.cumsum(occurs) - 1)[offset]
    check_classification_targets(y)
    classes = np.unique(y)
    return classes, np.searchsorted(classes, y)  # return_inverse takes three times as long


def encode_labels(y, classes, name):
    """Class numbers of labels, all of which must be among the sorted `classes`."""
    numbers = np.searchsorted(classes, y).clip(0, len(classes) - 1)
    unseen = np.unique(y[classes[numbers] != y])
    if len(unseen):
        raise ValueError(f"{name} contains classes that are not among {classes}: {unseen}.")
    return numbers


def classes_of_stream(classes, known):
    """The sorted classes of a stream: those given, those `known` from an earlier call, or an error where they differ."""
    if classes is None:
        if known is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        return known
    classes = np.unique(column_or_1d(plain_labels(classes, "classes")))
    if known is not None and not np.array_equal(classes, known):
        raise ValueError(f"classes={classes} differ from those of the first call: {known}.")
    if len(classes) < 2:
        raise ValueError(f"classes needs at least 2 classes, but it contains only one class: {classes}.")
    return classes


def warn_of_sorted_rows(changes, of_classes, batch_size):
    """Warn where rows that are visited in their order come class by class: the last class then is what the model knows.

    changes: from one label to the next. of_classes: the number of rows of each class.
    """
    n_rows = of_classes.sum()
    mixed = n_rows * (1 - ((of_classes / n_rows) ** 2).sum())  # in a random order
    if n_rows > batch_size and changes < 0.1 * mixed:
        warn(
            f"shuffle=False visits the rows in their order, in which labels change {changes} times (in a random order about "
            f"{mixed:.0f} times): the last rows that are visited weigh most. Shuffle the rows once, or set shuffle=True.",
        )


# ---- weights


def check_weight(weight, n_samples, name="sample_weight", *, allow_zeros=False):
    """Weights as (n_samples,) float64, or None. allow_zeros: whether all of them may be 0."""
    if weight is None:
        return None
    check_on_host(weight, name)
    if isinstance(weight, Real):
        weight = np.full(n_samples, weight, dtype=np.float64)
    dtype = weight.dtype if hasattr(weight, "dtype") else np.asarray(weight).dtype
    if str(dtype).lower().startswith(NOT_NUMBERS):
        raise TypeError(f"{name} holds values of type {dtype}: expected numbers >= 0.")
    weight = check_array(weight, dtype=np.float64, ensure_2d=False, input_name=name)
    if weight.shape != (n_samples,):
        raise ValueError(f"{name} has shape {weight.shape}: expected ({n_samples},), one weight for each row.")
    if (weight < 0).any():
        raise ValueError(f"{name} contains a negative weight, {weight.min()}: expected weights >= 0.")
    if not (allow_zeros or weight.any()):
        raise ValueError(f"Every weight in {name} is zero: at least one must be > 0.")
    return _check_sum(weight, name)


def _check_sum(weight, name):
    with np.errstate(over="ignore"):
        total = weight.sum()
    if not np.isfinite(total):
        raise ValueError(f"{name}: the sum of the weights is not finite. Divide them by {weight.max():g}.")
    return weight


def class_totals(weight, y, classes):
    """Total sample weight of each class."""
    return np.bincount(y, weights=weight, minlength=len(classes))


def combined_weight(class_weight, weight, y, classes, totals=None):
    """Weight (n_samples,) of each row, sample weight times class weight, or None where all are 1.

    `totals` are the sample weights of each class, of a stream those so far; None: those of these rows. Class weights share
    them out anew and leave their sum as it is: a row's weight tells how many rows it stands for.
    """
    if class_weight is not None:
        totals = class_totals(weight, y, classes) if totals is None else totals
        if isinstance(class_weight, dict):
            of_class = _listed_class_weights(class_weight, classes)
        else:
            of_class = np.divide(1.0, totals, out=np.zeros(len(classes)), where=totals > 0)
        with np.errstate(over="ignore"):
            combined = of_class[y] if weight is None else weight * of_class[y]
        _check_sum(combined, "class_weight times sample_weight")
        used = (of_class > 0) & (totals > 0)
        if used.any():
            largest = of_class.max()
            combined *= totals[used].sum() / largest / (totals * (of_class / largest))[used].sum()
        weight = combined
    if weight is not None and not weight.any():
        raise ValueError("sample_weight and class_weight give every row weight zero: at least one must be > 0.")
    return weight


def _listed_class_weights(class_weight, classes):
    labels = classes.tolist()
    of_class = np.array([class_weight.get(label, 1.0) for label in labels])
    if of_class.dtype.kind not in "iuf" or not (np.isfinite(of_class).all() and (of_class >= 0).all()):
        raise ValueError(f"class_weight={class_weight!r} is not valid: expected finite weights >= 0.")
    # A fold of a cross-validation may lack a class; but a class without weight beside a weight without class is probably
    # a typo.
    unknown = [label for label in class_weight if label not in labels]
    if unknown and any(label not in class_weight for label in labels):
        raise ValueError(f"class_weight has a weight for {unknown}, but the classes are {labels}.")
    return of_class.astype(np.float64)


def check_classes_left(y, n_classes, reason):
    """Raise ValueError where the rows in use have one class only, though there were more: `reason` is what took them."""
    if n_classes > 1 and (y == y[0]).all():
        raise ValueError(f"{reason} rows of one class only to train on: SoftmaxRegressionClassifier needs at least 2.")


def used_rows(weight, n_samples):
    """The rows of positive weight."""
    return np.arange(n_samples) if weight is None else np.flatnonzero(weight)


# ---- validation sets


def validate_held_out(estimator, X_val, y_val, sample_weight_val, classes):
    """(X_val, class numbers, weight or None, None: all rows) or None, for a validation set of the user's own."""
    if X_val is None and y_val is None:
        if sample_weight_val is not None:
            raise ValueError("sample_weight_val is given, but X_val and y_val are not.")
        return None
    if X_val is None or y_val is None:
        given, missing = ("y_val", "X_val") if X_val is None else ("X_val", "y_val")
        raise ValueError(f"{given} is given, but {missing} is not: a validation set needs both.")
    try:
        X_val = validate_prediction(estimator, X_val)
    except (TypeError, ValueError) as error:  # whose text speaks of X
        raise (TypeError if isinstance(error, TypeError) else ValueError)(f"X_val: {error}") from error
    y_val = column_or_1d(plain_labels(y_val, "y_val"))
    if len(y_val) != X_val.shape[0]:
        raise ValueError(f"X_val has {X_val.shape[0]} rows, but y_val has {len(y_val)}.")
    y_val = encode_labels(y_val, classes, "y_val")
    return X_val, y_val, check_weight(sample_weight_val, len(y_val), "sample_weight_val"), None


def hold_out(rows, y, validation_fraction, random_state):
    """Rows to train on and rows held out for validation, stratified unless there are too few rows for that."""
    n_held_out = int(np.ceil(validation_fraction * len(rows)))
    if n_held_out >= len(rows):
        raise ValueError(
            f"validation_fraction={validation_fraction:g} of {len(rows)} rows leaves none to train on: choose a smaller one."
        )
    counts = np.unique(y[rows], return_counts=True)[1]
    stratifies = counts.min() >= 2 and len(counts) <= min(n_held_out, len(rows) - n_held_out)
    rows, held_out = train_test_split(
        rows, test_size=n_held_out, random_state=random_state, stratify=y[rows] if stratifies else None
    )
    return np.sort(rows), np.sort(held_out)


# ---- models


def check_model(coef, intercept, n_outputs, n_features):
    """The kernels trust these, but a model may come from a file, or its user may have set them."""
    for name, a in (("coef_", coef), ("intercept_", intercept)):
        if not isinstance(a, np.ndarray) or a.dtype.kind != "f" or a.dtype.itemsize > 8:
            given = f"an array of {a.dtype}" if isinstance(a, np.ndarray) else f"a {type(a).__name__}"
            raise ValueError(f"{name} is {given}: this model needs an array of float64 or float32.")
    if np.shape(coef) != (n_outputs, n_features) or np.shape(intercept) != (n_outputs,):
        raise ValueError(
            f"coef_ has shape {np.shape(coef)} and intercept_ {np.shape(intercept)}: "
            f"this model needs {(n_outputs, n_features)} and {(n_outputs,)}."
        )


def check_warm_start(estimator, classes, n_features):
    """Raise ValueError where a fit cannot begin with the model of the previous one."""
    if not np.array_equal(estimator.classes_, classes):
        raise ValueError(
            f"warm_start=True needs the classes of the previous fit, {estimator.classes_}, but y has {classes}."
        )
    shape = np.shape(estimator.coef_)
    if len(shape) == 2 and shape[1] != n_features:
        raise ValueError(f"warm_start=True needs the {shape[1]} features of the previous fit, but X has {n_features}.")
