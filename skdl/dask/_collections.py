"""Collections of Dask in parts: X, y and weights that belong together, and predictions part by part."""

import dask
import dask.array as da
import numpy as np
from dask.base import is_dask_collection

from skdl import _validation
from skdl._backends import compute_dtype


def is_frame(collection):
    """Whether it is a data frame or a series."""
    return is_dask_collection(collection) and hasattr(collection, "npartitions") and hasattr(collection, "divisions")


def is_array(collection):
    return isinstance(collection, da.Array)


def check_collection(X, name):
    """TypeError where X is not of Dask."""
    if not (is_array(X) or is_frame(X)):
        raise TypeError(
            f"{name} is a {type(X).__module__.partition('.')[0]}.{type(X).__name__}: expected a dask array or data frame. "
            "What is in memory is fitted by skdl.SoftmaxRegressionClassifier."
        )
    if X.ndim != 2:
        raise ValueError(f"{name} has {X.ndim} dimension{'s' * (X.ndim > 1)}: expected (n_samples, n_features).")


def with_whole_rows(X):
    """A dask array whose chunks hold whole rows."""
    return X.rechunk({1: -1}) if is_array(X) and X.numblocks[1] > 1 else X


def parts_of(X, y, weight, name="X"):
    """Tuples of handles of X, y and weight (None: there is none), one for each chunk of rows."""
    check_collection(X, name)
    X = with_whole_rows(X)
    of_X = X.to_delayed().ravel().tolist() if is_array(X) else X.to_delayed()
    others = []
    for what, values in (("y", y), ("sample_weight", weight)):
        others.append([None] * len(of_X) if values is None else _column(values, X, len(of_X), what))
    return list(zip(of_X, *others, strict=True))


def _column(values, X, n_parts, name):
    """Handles of the parts of labels or weights, which are parted as X is."""
    if is_frame(values) and values.ndim == 2 and len(values.columns) == 1:
        values = values[values.columns[0]]
    if is_array(values) and values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    known = X.chunks[0] if is_array(X) and not np.isnan(X.chunks[0]).any() else None
    if not is_dask_collection(values):
        if known is None:
            raise TypeError(
                f"{name} is not of Dask, and how it belongs to X is not known: pass a dask array or series."
            )
        values = np.asarray(_validation.plain_labels(values, name))
        if len(values) != sum(known):
            raise ValueError(f"{name} has {len(values)} entries, but X has {sum(known)} rows.")
        values = da.from_array(values, chunks=(known,))
    if values.ndim != 1:
        raise ValueError(f"{name} has {values.ndim} dimensions: expected one value for each row.")
    if is_array(values) and known is not None and not np.isnan(values.chunks[0]).any():
        if values.shape[0] != sum(known):
            raise ValueError(f"{name} has {values.shape[0]} entries, but X has {sum(known)} rows.")
        values = values.rechunk((known,))
    handles = values.to_delayed()
    handles = handles.ravel().tolist() if is_array(values) else handles
    if len(handles) != n_parts:
        raise ValueError(
            f"X has {n_parts} chunks of rows, but {name} has {len(handles)}, and their sizes are not known: part them alike, "
            "or call compute_chunk_sizes()."
        )
    return handles


# ---- predictions


def predicted(model, X, method, result_dtype, n_columns):
    """The lazy result of a method of a fitted model: (n_samples,) or, unless n_columns is None, (n_samples, n_columns).

    An array has chunks as X has; of a data frame they have unknown sizes.
    """
    X, model = with_whole_rows(X), dask.delayed(model)
    if is_array(X):
        shape = {"drop_axis": 1} if n_columns is None else {"chunks": (X.chunks[0], (n_columns,))}
        meta = np.empty((0,) * (1 if n_columns is None else 2), result_dtype)
        return X.map_blocks(_predict, model, method, result_dtype, n_columns, dtype=result_dtype, meta=meta, **shape)
    shape = (np.nan,) if n_columns is None else (np.nan, n_columns)
    predict = dask.delayed(_predict, pure=True)
    return da.concatenate(
        [
            da.from_delayed(predict(part, model, method, result_dtype, n_columns), shape, result_dtype)
            for part in X.to_delayed()
        ],
        allow_unknown_chunksizes=True,
    )


def _predict(X, model, method, dtype, n_columns):
    if X.shape[0] == 0:
        return np.empty((0,) if n_columns is None else (0, n_columns), dtype)
    return getattr(model, method)(X).astype(dtype, copy=False)


def real_dtype(X, coef):
    """The type of logits and probabilities of a collection."""
    dtypes = list(X.dtypes) if is_frame(X) else [X.dtype]
    numpys = [dtype for dtype in dtypes if isinstance(dtype, np.dtype)]
    dtype = np.result_type(*numpys) if len(numpys) == len(dtypes) else np.dtype(np.float64)
    return np.result_type(compute_dtype(dtype if dtype in _validation.DENSE_TYPES else np.dtype(np.float64)), coef)


def right(X, y, weight, model):
    """The weight of the rows of a part whose class the model predicts, and that of all."""
    if X.shape[0] == 0:
        return np.zeros(2)
    weight = _validation.check_weight(weight, X.shape[0], allow_zeros=True)
    weight = np.ones(X.shape[0]) if weight is None else weight
    return np.array([weight @ (model.predict(X) == _validation.labels(y)), weight.sum()])
