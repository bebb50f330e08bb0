"""Blocks on their way into memory: read ahead by a thread, checked, one buffer filled while the other is trained on."""

from contextlib import closing, suppress
from functools import cached_property
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import NamedTuple

import numpy as np
from scipy import sparse

from skdl import _validation
from skdl._data import Block

# Bytes of each of the two buffers that blocks are read into.
BUFFER_BYTES = 2**28
# Blocks that the system is told of before they are read.
AHEAD = 4
# A buffer with fewer blocks than these mixes sorted data too little (benchmarks/scale.py).
ENOUGH_BLOCKS = 100
_END = object()
NO_LABELS = "it has no labels: expected (X, y) or (X, y, sample_weight)."
NO_ROWS = "None of the blocks has a row."


class Form(NamedTuple):
    """What all blocks have in common."""

    n_features: int
    dtype: np.dtype
    is_sparse: bool

    def zeros(self, n_rows):
        """Rows of this form without a value."""
        kind = sparse.csr_array if self.is_sparse else np.zeros
        return kind((n_rows, self.n_features), dtype=self.dtype)

    def __str__(self):
        return f"{self.n_features} columns of {self.dtype}{' (CSR)' * self.is_sparse}"


class Checked(NamedTuple):
    """A block of rows as the kernels may trust it. y are labels, or None where nobody asks for them."""

    X: object
    y: np.ndarray | None
    weight: np.ndarray | None

    @property
    def n_bytes(self):
        X = self.X
        return X.data.nbytes + X.indices.nbytes if sparse.issparse(X) else X.nbytes

    @property
    def n_stored(self):
        """Number of values."""
        return self.X.nnz if sparse.issparse(self.X) else self.X.size


def asked_for(i, ask, *args):
    """What ask(i, ...) returns; RuntimeError, naming block i, where it raises."""
    try:
        return ask(i, *args)
    except Exception as error:
        raise RuntimeError(f"Block {i} could not be read: {type(error).__name__}: {error}") from error


def height(X):
    """Number of rows."""
    return X.shape[0] if hasattr(X, "shape") else len(X)  # CSR has no length


class Reader:
    """Reads the blocks that an estimator is fitted with, one by one."""

    def __init__(self, estimator, blocks):
        self.estimator, self.blocks, self.form, self.has_seen_all = estimator, blocks, None, False

    def __len__(self):
        return len(self.blocks)

    @cached_property
    def first(self):
        """Block 0, kept for those who look at it before the first pass. Delete it when that begins: it may be large."""
        return self.read(0)

    def read(self, i, into=None, *, then=()):
        """Block i, `Checked`; the first one that is read says what the others must look like.

        A block without rows, as filters make them, has no form to compare. into: memory that X may be read into. then: numbers
        of blocks to come.
        """
        X, y, weight = asked_for(i, self.blocks.read, into)
        for coming in then:
            asked_for(coming, self.blocks.announce)
        try:
            if y is None:
                raise ValueError(NO_LABELS)
            if height(X) == len(y) == 0:
                form = self.form or Form(0, np.dtype(np.float64), False)
                return Checked(form.zeros(0), np.empty(0, np.intp), None)
            if not self._is_ready(X):
                X, y = _validation.validate_training(self.estimator, X, y, reset=self.form is None)
            elif sparse.issparse(X):
                X = _validation.sound_csr(X)
            if not self._are_ready(y):
                y = _validation.labels(y)
            if len(y) != X.shape[0]:
                raise ValueError(f"X has {X.shape[0]} rows, but y has {len(y)}.")
            form = Form(X.shape[1], X.dtype, sparse.issparse(X))
            self.form = self.form or form
            if form != self.form:
                raise ValueError(f"it has {form}, but the blocks before have {self.form}.")
            return Checked(X, y, _validation.check_weight(weight, len(y), allow_zeros=True))
        except (TypeError, ValueError) as error:
            raise type(error)(f"Block {i}: {error}") from error

    def _are_ready(self, y):
        """The same of labels."""
        return self.has_seen_all and type(y) in (np.ndarray, np.memmap) and y.ndim == 1 and y.dtype.kind in "iub"

    def read_labels(self, i):
        """(y, sample_weight) of block i, or None of no rows; X is not looked at, so that one in a file is not read."""
        _, y, weight = asked_for(i, self.blocks.parts)
        try:
            if y is None:
                raise ValueError(NO_LABELS)
            if len(y) == 0:
                return None
            y = _validation.labels(y)
            return y, _validation.check_weight(weight, len(y), allow_zeros=True)
        except (TypeError, ValueError) as error:
            raise type(error)(f"Block {i}: {error}") from error

    def _is_ready(self, X):
        """Whether X needs no conversion, like most blocks of arrays: to find that out in general takes as long as reading."""
        values = X.data if sparse.issparse(X) and X.format == "csr" else X
        return (
            self.has_seen_all
            and type(values) is np.ndarray
            and X.shape[1:] == (self.form.n_features,)
            and X.shape[0] > 0
            and values.dtype == self.form.dtype
            and values.flags.c_contiguous
            and values.flags.aligned
            and not hasattr(self.estimator, "feature_names_in_")
        )


def ahead(make, items):
    """make(item, stopping) of each, which a thread makes while whoever asked works on the one before.

    `stopping` is set when nobody wants the rest: a long `make` may look. Close this generator to have the thread gone.
    """
    # Not a ThreadPoolExecutor: its semaphore is locked in Python code, and stays so where a KeyboardInterrupt comes between the
    # lock and the `with` that holds it; both threads then wait for ever. These queues are C.
    wanted, made, stopping = SimpleQueue(), SimpleQueue(), Event()

    def work():
        for item in iter(wanted.get, _END):
            if stopping.is_set():
                continue
            try:
                made.put((make(item, stopping), None))
            except BaseException as error:
                made.put((None, error))
        made.put(_END)

    def next_made():
        result, error = made.get()
        if error is not None:
            try:
                raise error
            finally:
                del error  # whose traceback has this frame
        return result

    thread = Thread(target=work, name="skdl-reader", daemon=True)
    try:
        try:
            thread.start()
        except KeyboardInterrupt:  # while `start` waited for the thread to say that it runs, which it will
            wanted.put(_END)
            with suppress(Empty):
                made.get(timeout=5)
            raise
        n_coming = 0
        for item in items:
            wanted.put(item)
            n_coming += 1
            if n_coming == 2:
                yield next_made()
                n_coming -= 1
        for _ in range(n_coming):
            yield next_made()
    finally:
        stopping.set()
        wanted.put(_END)
        if thread.is_alive():
            thread.join()


def read_ahead(blocks):
    """(X, y, sample_weight) of each block as it comes, read by a thread that is one block ahead."""

    def read(i, stopping):
        return asked_for(i, blocks.read)

    with closing(ahead(read, range(len(blocks)))) as parts:
        yield from parts


def in_blocks(blocks, predict, out=None):
    """What predict(X) gives for each block, one after the other: in `out` if there is one."""
    results, n_done = [], 0
    if out is not None and not (hasattr(out, "shape") and hasattr(out, "dtype")):
        raise TypeError(f"out is a {type(out).__name__}: expected an array, of NumPy or memory-mapped.")
    with closing(read_ahead(blocks)) as parts:
        for i, (X, _, _) in enumerate(parts):
            if height(X) == 0:
                continue
            try:
                result = predict(X)
            except (TypeError, ValueError) as error:
                raise type(error)(f"Block {i}: {error}") from error
            if out is None:
                results.append(result)
                continue
            rows = slice(n_done, n_done + len(result))
            if rows.stop > len(out) or out.shape[1:] != result.shape[1:]:
                raise ValueError(
                    f"out has the shape {out.shape}, but there are more than {n_done} rows of shape {result.shape[1:]}."
                )
            if not _can_hold(out, result):
                raise TypeError(
                    f"out is of type {out.dtype}, which cannot hold what is predicted, of type {result.dtype}."
                )
            out[rows], n_done = result, rows.stop
    if out is None:
        if not results:
            raise ValueError(NO_ROWS)
        return np.concatenate(results)
    if n_done != len(out):
        raise ValueError(f"out has {len(out)} rows, but the blocks have {n_done}.")
    return out


def _can_hold(out, result):
    """Whether `out` can take numbers, rounded at most, or labels as they are."""
    if result.dtype.kind == "f":
        return np.can_cast(result.dtype, out.dtype, "same_kind")
    return np.can_cast(result.dtype, out.dtype) or np.array_equal(result.astype(out.dtype), result)


def parts_to_score(blocks):
    """(X, labels, weights) of each block."""
    with closing(read_ahead(blocks)) as parts:
        for i, (X, y, weight) in enumerate(parts):
            if y is None:
                raise ValueError(f"Block {i} has no labels: expected (X, y) or (X, y, sample_weight).")
            if height(X) == len(y) == 0:
                continue
            y = _validation.labels(y)
            if len(y) != height(X):
                raise ValueError(f"Block {i}: X has {height(X)} rows, but y has {len(y)}.")
            weight = _validation.check_weight(weight, len(y), allow_zeros=True)
            yield X, y, np.ones(len(y)) if weight is None else weight


class Buffer:
    """Memory for the rows of so many blocks."""

    def __init__(self, form, n_rows, n_stored, *, weighted):
        self.form = form
        if form.is_sparse:
            index = np.int32 if max(n_stored, form.n_features) < 2**31 else np.int64
            self.data, self.indices = np.empty(n_stored, form.dtype), np.empty(n_stored, index)
            self.indptr = np.zeros(n_rows + 1, index)
        else:
            self.X = np.empty((n_rows, form.n_features), form.dtype)
        self.y, self.weight = np.empty(n_rows, np.int32), np.empty(n_rows) if weighted else None
        self.clear()

    def clear(self):
        self.n_rows = self.n_stored = 0

    def room(self, n_rows):
        """Memory for so many more rows of X, if they are dense."""
        return None if self.form.is_sparse else self.X[self.n_rows : self.n_rows + n_rows]

    def add(self, X, y, weight):
        """Another block; X may lie in the buffer already."""
        rows = slice(self.n_rows, self.n_rows + len(y))
        if self.form.is_sparse:
            stored = slice(self.n_stored, self.n_stored + X.nnz)
            self.data[stored], self.indices[stored] = X.data, X.indices
            self.indptr[rows.start + 1 : rows.stop + 1] = self.n_stored + X.indptr[1:]
            self.n_stored = stored.stop
        elif X.ctypes.data != self.X[rows].ctypes.data:
            self.X[rows] = X
        self.y[rows] = y
        if self.weight is not None:
            self.weight[rows] = weight
        self.n_rows = rows.stop

    def block(self):
        """What the buffer holds, as a new `Block` in its memory."""
        n = self.n_rows
        if self.form.is_sparse:
            parts = self.data[: self.n_stored], self.indices[: self.n_stored], self.indptr[: n + 1]
            X = sparse.csr_array(parts, shape=(n, self.form.n_features))
        else:
            X = self.X[:n]
        return Block(X, self.y[:n], None if self.weight is None else self.weight[:n])
