"""Prediction on the CPU: the logits of a few rows at a time, and what is made of them while they are in the caches."""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from skdl import _kernels, _softmax
from skdl._backends import ceil_div, compute_dtype, padded
from skdl.openmp import _memory, _threads
from skdl.openmp._layouts import CONVERSION, SPARSE_OUTPUT, SPARSE_VALUE, chunk_rows, csr_outputs

# Rows that are predicted at once: at most so many, and whole panels of `wide_forward` where that is more than one.
CHUNK_ROWS, PANEL_ROWS = 128, 64
# Operations that a probability costs.
EXPONENTIAL = 40


class Product(NamedTuple):
    """X W^T as the kernels make it."""

    data: _kernels.Data
    coef: np.ndarray
    row_bytes: int  # of scratch
    row_flop: float
    packed_columns: int = 0
    place: np.ndarray = None


class Predictor:
    """What `skdl._backends.Backend.predictor` returns. X is read where it lies."""

    def __init__(self, X, rows, y, n_jobs, isa):
        self.X, self.rows, self.y, self.n_jobs, self.isa = X, rows, y, n_jobs, isa
        self.n_rows = X.shape[0] if rows is None else len(rows)

    def __call__(self, parameters, output="logits"):
        [coef], [intercept] = parameters
        dtype = np.result_type(compute_dtype(self.X.dtype), coef.dtype)
        result = _softmax.new_result(output, self.n_rows, len(coef), dtype)
        coef, intercept = (np.ascontiguousarray(a, dtype) for a in (coef, intercept))
        product = self._sparse_product if sparse.issparse(self.X) else self._dense_product
        finite = self._predict(product(coef), intercept, output, result)
        return result[np.newaxis], finite

    def _dense_product(self, coef):
        n_outputs, n_features = coef.shape
        ld = padded(n_features)
        return Product(
            data=_kernels.Data(self.X, n_features, self.y),
            coef=coef if n_features == ld else _memory.pad_columns(coef, ld, coef.dtype),
            row_bytes=(ld + n_outputs) * coef.itemsize,
            row_flop=2 * n_features * (n_outputs + CONVERSION),
            packed_columns=ld,
        )

    def _sparse_product(self, coef):
        X, n_features = self.X, coef.shape[1]
        row_values = X.nnz / X.shape[0]
        transposed, place = (coef.T, None) if len(coef) == 1 else self._transposed(coef, self.n_rows * row_values)
        return Product(
            data=_kernels.Data(X.data, n_features, self.y, indices=X.indices, indptr=X.indptr),
            coef=transposed,
            row_bytes=len(coef) * coef.itemsize + int(8 * row_values),
            row_flop=row_values * (SPARSE_VALUE + SPARSE_OUTPUT * transposed.shape[1]),
            place=place,
        )

    def _transposed(self, coef, n_values):
        """Transposed coefficients of the features that occur, and where; or of all, where these are fewer than values."""
        X, (n_outputs, n_features) = self.X, coef.shape
        place, features, n_places = None, None, n_features
        if n_values < n_features:
            occurs = np.zeros(n_features, np.uint8)
            _kernels.mark_features(X.indices, X.indptr, self.rows, occurs)
            features = np.flatnonzero(occurs)
            n_places = len(features)
            place = np.zeros(n_features, np.int32)
            place[features] = np.arange(n_places)
        transposed = _memory.zeros((n_places, csr_outputs(n_outputs)), coef.dtype)
        n_threads = self._n_threads(n_places, SPARSE_OUTPUT * n_places * n_outputs)
        _kernels.gather_coefficients(coef, features, transposed, n_threads)
        return transposed, place

    def _predict(self, product, intercept, output, result):
        n_outputs, dtype = len(intercept), intercept.dtype
        chunk = min(chunk_rows(self.n_rows, product.row_bytes), CHUNK_ROWS)
        if chunk > PANEL_ROWS:
            chunk -= chunk % PANEL_ROWS
        flop = self.n_rows * (product.row_flop + EXPONENTIAL * n_outputs)
        n_threads = self._n_threads(ceil_div(self.n_rows, chunk), flop)
        scratch = _kernels.Scratch(
            chunk,
            np.array([0, product.packed_columns]),
            _memory.zeros((n_threads * chunk * product.packed_columns,), dtype),
            _memory.zeros((n_threads * n_outputs * (chunk + _kernels.PAD),), dtype),
        )
        return _kernels.predict(
            product.data,
            _kernels.Model(product.coef, intercept[np.newaxis, np.newaxis], trains=False),
            scratch,
            self.rows,
            product.place,
            output,
            self.n_rows,
            result,
            n_threads,
            self.isa,
        )

    def _n_threads(self, n_parts, flop):
        return _threads.threads(self.n_jobs, min(n_parts, _threads.useful_threads(flop)))
