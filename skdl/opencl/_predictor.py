"""Prediction on an OpenCL device."""

import numpy as np
from scipy import sparse

from skdl import _softmax
from skdl._backends import compute_dtype
from skdl.opencl import _csr, _device
from skdl.opencl._layout import Layout

# Rows whose logits are made and fetched at once.
LOGIT_ROWS = 4096


class Predictor:
    """What `skdl._backends.Backend.predictor` returns: logits from the device, and what NumPy makes of them, part by part."""

    def __init__(self, memory, n_outputs, X, rows, y):
        self.memory, self.n_outputs, self.y = memory, n_outputs, y
        self.storage, self.n_features, self.is_sparse = X.dtype, X.shape[1], sparse.issparse(X)
        self.rows = np.arange(X.shape[0]) if rows is None else rows
        self.layout = None
        with memory.errors():
            self.X = memory.place(X)

    def __call__(self, parameters, output="logits"):
        [coef], [intercept] = parameters
        dtype = np.result_type(compute_dtype(self.storage), coef.dtype)
        dtype = _device.storage_dtype(self.memory.device, dtype)
        result, finite = _softmax.new_result(output, len(self.rows), self.n_outputs, dtype), True
        with self.memory.errors():
            if self.layout is None or self.layout.dtype != dtype:
                self._prepare(dtype)
            coef = self.layout.upload_parameters(coef, intercept)
            for start, stop in self._sparse_parts(coef) if self.is_sparse else self._dense_parts(coef):
                logits = self.layout.download(self.layout.logits, self.layout.ldr)[0].T[: stop - start]
                logits = np.ascontiguousarray(logits)  # a sum's order follows the order in memory
                finite &= _softmax.fill(result, output, slice(start, stop), logits, self.y)
        return result[np.newaxis], finite

    def _prepare(self, dtype):
        storage = _device.storage_dtype(self.memory.device, self.storage)
        self.layout = layout = Layout(
            self.memory, dtype, storage, self.n_features, self.n_outputs, min(len(self.rows), LOGIT_ROWS),
            is_sparse=self.is_sparse, trains=False,
        )  # fmt: skip
        self.coordinates = layout.coordinates()
        if self.is_sparse:
            self.zeros = self.memory.upload(np.zeros(layout.ld * layout.n_vectors))
        else:
            self.order = self.memory.upload(self.rows)

    def _dense_parts(self, coef):
        """Make logits part by part; yields first and end row of each."""
        for batch, _, stop in self.layout.forward(self.X, self.rows, self.order, coef, self.coordinates):
            yield batch * self.layout.chunk, stop

    def _sparse_parts(self, coef):
        layout, zeros = self.layout, self.zeros  # no feature lags behind, so most arguments are not looked at
        step = coef, coef, zeros, zeros, zeros, zeros, np.int32(0)
        lag_tables = zeros, zeros, zeros, zeros
        for start in range(0, len(self.rows), layout.chunk):
            rows = self.rows[start : start + layout.chunk]
            arguments = *layout.shape(len(rows)), *step, *lag_tables, self.coordinates[1]
            forward = layout.sparse_forward(_csr.with_ones(self.X[rows]), 0, *arguments)
            layout.program.launch(forward, len(rows) * layout.n_vectors)
            yield start, start + len(rows)
