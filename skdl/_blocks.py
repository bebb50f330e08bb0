"""Data in blocks of rows, which may be larger than memory: the sequence that users make, and the files that it may lie in."""

from __future__ import annotations

import mmap
import operator
import os
import shutil
import tempfile
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from skdl._backends import ceil_div

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

# Bytes of a block of an array: what a disk delivers at a random place nearly as fast as in sequence. Of an array that hardly
# exceeds a buffer they are fewer, so that a buffer holds enough blocks: a FEWEST_BLOCKS-th of all, but SMALLEST_BLOCK at least.
BLOCK_BYTES, FEWEST_BLOCKS, SMALLEST_BLOCK = 2**21, 512, 2**18
# Arrays of more bytes than these are fitted block by block. What is done follows from sizes alone, never from the kind of array
# or from free memory: joblib makes memmaps of arrays, and a seed must give the same bits everywhere.
LARGE_BYTES = 2**32


class Blocks:
    """Rows in blocks, for :class:`~skdl.SoftmaxRegressionClassifier` to fit and predict without all of them in memory.

    Parameters
    ----------
    sequence : sequence
        Anything with a length whose item i is ``(X_i, y_i)``, ``(X_i, y_i, sample_weight_i)`` or, if it is only predicted,
        ``X_i``: what `fit` takes, a part of the rows each. An item is asked for once in each epoch, from a thread of its
        own, and must be the same each time. All have the same columns and the same type, but those without rows, which are
        passed over.

    See Also
    --------
    Blocks.from_arrays : Of arrays in memory or in files.
    Blocks.from_parquet : Of the row groups of Parquet files.
    Blocks.cache : Write the rows where reading them again is fast.

    Notes
    -----
    An epoch visits the blocks in random order. Some 256 MiB of them at a time are read into a buffer, whose rows are shuffled
    and trained on, while the next blocks are read into another [1]_. If the file is in random order, that is as good as a
    shuffle of all rows; if it is sorted, by class or by date, what counts is that a buffer holds at least 100 blocks. A
    warning says where it does not.

    Blocks of at most 256 MiB in all are read into memory, once, and fitted as arrays are.

    References
    ----------
    .. [1] L. Xu et al., "In-database machine learning with CorgiPile: stochastic gradient descent without full data shuffle",
       SIGMOD 2022.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdl import Blocks, SoftmaxRegressionClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> blocks = Blocks([(X[i : i + 500], y[i : i + 500]) for i in range(0, 1500, 500)])
    >>> model = SoftmaxRegressionClassifier(random_state=0).fit(blocks)
    >>> model.score(X[1500:], y[1500:]) > 0.85
    True
    """

    def __init__(self, sequence: Sequence[Any]) -> None:
        if not (hasattr(sequence, "__len__") and hasattr(sequence, "__getitem__")) or isinstance(sequence, str | dict):
            raise TypeError(
                f"Blocks needs a sequence, with a length and an item (X_i, y_i) for each i, but it was given a "
                f"{type(sequence).__name__}. For arrays use Blocks.from_arrays(X, y)."
            )
        if len(sequence) == 0:
            raise ValueError("Blocks was given an empty sequence: expected one block at least.")
        self._sequence = sequence

    def __len__(self) -> int:
        return len(self._sequence)

    def __getitem__(self, i: int) -> Any:
        return self._sequence[range(len(self))[operator.index(i)]]  # a loop ends where this raises IndexError

    def __repr__(self) -> str:
        return f"<{len(self)} blocks of {type(self._sequence).__name__.lstrip('_')}>"

    def read(self, i, into=None):
        """(X, y, sample_weight) of a block, of arrays in files by reading these; None where it has none.

        into: memory for X, which is taken where X comes from a file in this form.
        """
        sequence = self._sequence
        return self._as_parts(sequence.read(i, into) if isinstance(sequence, _OfArrays) else sequence[i])

    def announce(self, i):
        """Block i will soon be read."""
        if isinstance(self._sequence, _OfArrays):
            self._sequence.announce(i)

    def parts(self, i):
        """The same, of arrays in files without reading them."""
        return self._as_parts(self._sequence[i])

    @staticmethod
    def _as_parts(item):
        if not isinstance(item, tuple):
            return item, None, None
        if not 1 <= len(item) <= 3:
            raise ValueError(f"an item has {len(item)} parts: expected (X, y) or (X, y, sample_weight).")
        return (*item, None, None)[:3]

    @classmethod
    def from_arrays(
        cls, X: Any, y: ArrayLike | None = None, sample_weight: ArrayLike | None = None, rows: int | None = None
    ) -> Blocks:
        """Blocks of the rows of arrays: in memory, memory-mapped, of h5py or zarr, or whatever gives its rows by a slice.

        Parameters
        ----------
        X : array-like or CSR of shape (n_samples, n_features)
            Memory maps, also those that CSR is made of, are read from their files, not by page faults.
        y : array-like of shape (n_samples,), default=None
            Class labels; only predictions need none.
        sample_weight : array-like of shape (n_samples,) or float, default=None
            Weights >= 0; a number is that of each row.
        rows : int, default=None
            Rows of a block. None: as many as take 2 MiB, or less of small arrays; whole chunks where X is stored in chunks.

        Returns
        -------
        blocks : Blocks

        Raises
        ------
        TypeError
            If X is a path, has no shape, or does not give rows by a slice.
        ValueError
            If y or sample_weight has another length than X.
        """
        if isinstance(X, str | os.PathLike):
            raise TypeError(f"X is a {type(X).__name__}: expected an array, np.load(path, mmap_mode='r') for example.")
        shape = getattr(X, "shape", None)
        if shape is None:
            X = np.asarray(X)
            shape = X.shape
        if len(shape) != 2:
            raise ValueError(f"X has the shape {tuple(shape)}: expected (n_samples, n_features).")
        if sparse.issparse(X) and X.format != "csr":
            raise ValueError(f"X is sparse in the format {X.format!r}, which has no rows to take: pass X.tocsr().")
        if isinstance(sample_weight, Real):
            sample_weight = np.broadcast_to(float(sample_weight), (shape[0],))
        for name, other in (("y", y), ("sample_weight", sample_weight)):
            length = None if other is None else other.shape[0] if hasattr(other, "shape") else len(other)
            if length is not None and length != shape[0]:
                raise ValueError(f"{name} has {length} entries, but X has {shape[0]} rows.")
        if rows is not None and not (isinstance(rows, int | np.integer) and rows >= 1):
            raise ValueError(f"rows={rows!r} is not valid: expected None or an integer >= 1.")
        return cls(_OfArrays(X, y, sample_weight, rows))

    @classmethod
    def from_parquet(
        cls, path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], features: Sequence[str] | str, label: str,
        sample_weight: str | None = None,
    ) -> Blocks:  # fmt: skip
        """Blocks of the row groups of Parquet files, which pyarrow reads.

        Decoding Parquet takes ten times as long as training: for several epochs write a `cache` first.

        Parameters
        ----------
        path : str, path or list of these
            A file, or a folder whose files ``*.parquet`` are taken in the order of their names, or a list of files.
        features : list of str or str
            The columns that are features; or one column whose cells are lists of one length, as of embeddings.
        label : str
            The column of class labels.
        sample_weight : str, default=None
            The column of weights.

        Returns
        -------
        blocks : Blocks
        """
        return cls(_OfParquet(path, features, label, sample_weight))

    def cache(self, path: str | os.PathLike[str]) -> Blocks:
        """Write the rows to files of NumPy's, once, and return blocks of them, which are read as fast as the disk can.

        Parameters
        ----------
        path : str or path
            A folder that is made: X.npy, or data.npy, indices.npy and indptr.npy of CSR; y.npy, numbers of classes.npy; and
            sample_weight.npy. If it exists, nothing is written, and the blocks are those that it holds: delete it when the
            data change. The names of a data frame's columns are not kept.

        Returns
        -------
        blocks : Blocks

        Raises
        ------
        OSError
            If the files cannot be written, for example because the disk is full. Nothing is left of them then.
        ValueError
            If blocks have different columns or types.
        """
        path = Path(path)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
            try:
                # Unlike `unfinished` itself it is for others to read, where the umask lets them.
                folder = unfinished / path.name
                folder.mkdir()
                _write(self, folder)
                os.replace(folder, path)
            except OSError as error:
                raise OSError(f"The blocks could not be written to {path}: {error}.") from error
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        return _cached(path)


def no_labels_beside(blocks, y, weight):
    """Raise ValueError where labels or weights are given beside blocks."""
    for name, given in (("y", y), ("sample_weight", weight)):
        if given is not None:
            raise ValueError(
                f"{name} is given, but X is Blocks, which have labels and weights of their own: pass None."
            )


def as_blocks(X, y, weight):
    """X if it is `Blocks`; Blocks of it if it is large; None where it is to be fitted as an array."""
    if isinstance(X, Blocks):
        no_labels_beside(X, y, weight)
        return X
    if sparse.issparse(X):
        arrays = (X.data, X.indices, X.indptr) if X.format == "csr" else ()
        # What is malformed may be lists, which have no nbytes. It is refused later.
        is_large = sum(getattr(array, "nbytes", 0) for array in arrays) > LARGE_BYTES
        return Blocks.from_arrays(X, y, weight) if is_large and y is not None else None
    n_bytes = getattr(X, "nbytes", 0)
    if not isinstance(n_bytes, int) or n_bytes <= LARGE_BYTES or len(getattr(X, "shape", ())) != 2:
        return None
    if isinstance(X, np.ndarray):
        return Blocks.from_arrays(X, y, weight) if y is not None else None
    kind = f"{type(X).__module__.partition('.')[0]}.{type(X).__name__}"
    if kind.startswith("dask."):
        way = "use skdl.dask.SoftmaxRegressionClassifier, which leaves it where it is"
    elif hasattr(X, "chunks"):  # of h5py and zarr
        way = "pass Blocks.from_arrays(X, y), which reads it part by part"
    else:
        return None
    raise ValueError(f"X is a {kind} of {n_bytes / 2**30:.1f} GiB, which would be read into memory as a whole: {way}.")


def _cached(path):
    """The blocks that `Blocks.cache` has written."""

    def load(name):
        file = path / f"{name}.npy"
        return np.load(file, mmap_mode="r") if file.exists() else None

    if load("y") is None or (load("X") is None and load("indptr") is None):
        raise ValueError(f"{path} exists, but Blocks.cache has not written it: choose another path, or delete it.")
    y = _Labels(load("classes"), load("y"))
    X = load("X")
    if X is None:
        n_features = int(np.load(path / "n_features.npy"))
        X = _CSR(load("data"), load("indices"), load("indptr"), n_features)
    return Blocks(_OfArrays(X, y, load("sample_weight"), None))


# ---- arrays


class _Labels:
    """Labels that are kept as numbers of classes."""

    def __init__(self, classes, numbers):
        self.classes, self.numbers, self.shape = np.array(classes), numbers, numbers.shape

    def __getitem__(self, rows):
        return self.classes[self.numbers[rows]]


class _Rows:
    """Rows of an array; where it lies in a file, they are read from there: page faults take six times as long."""

    def __init__(self, array):
        self.array = array
        self.path, self.offset, self._inode = _file_of(array)
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, rows):
        return self.read(rows)

    def read(self, rows, into=None):
        """Some rows; in the memory `into` if there is some, it is of their form, and they come from a file."""
        if self.path is None:
            return self.array[rows]
        start, stop = self._bytes(rows)
        shape = rows.stop - rows.start, *self.shape[1:]
        out = (
            into
            if into is not None and into.shape == shape and into.dtype == self.dtype
            else np.empty(shape, self.dtype)
        )
        buffer, done = memoryview(out).cast("B") if out.size else memoryview(b""), 0
        with open(self.path, "rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_ino != self._inode:
                raise OSError(f"{self.path} has been replaced by another file since it was opened")
            file.seek(start)
            while done < stop - start:
                n_bytes = file.readinto(buffer[done:])
                if not n_bytes:
                    raise OSError(f"{self.path} ends before row {rows.stop}: it has become shorter since it was opened")
                done += n_bytes
        return out

    def announce(self, rows):
        """Have the system begin to read rows: waiting for one block at a time would halve the rate."""
        if self.path is not None and hasattr(os, "posix_fadvise"):
            start, stop = self._bytes(rows)
            with open(self.path, "rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), start, stop - start, os.POSIX_FADV_WILLNEED)

    def _bytes(self, rows):
        """Where rows begin and end in the file."""
        row_bytes = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
        return self.offset + rows.start * row_bytes, self.offset + rows.stop * row_bytes


def _file_of(array):
    """(path, offset, inode) of the file in which an array lies row by row, or (None, 0, None)."""
    nowhere = None, 0, None
    root = array if isinstance(array, np.ndarray) and array.flags.c_contiguous and array.dtype.kind != "O" else None
    while root is not None and not isinstance(getattr(root, "base", None), mmap.mmap):
        root = getattr(root, "base", None)
    # Changes to a copy-on-write map are not in the file.
    if not isinstance(root, np.memmap) or root.filename is None or root.mode == "c":
        return nowhere
    offset = root.offset + array.ctypes.data - root.ctypes.data
    n_bytes = min(array.nbytes, mmap.PAGESIZE)
    try:
        with open(root.filename, "rb") as file:  # the map may be of a file that another one has replaced
            inode = os.fstat(file.fileno()).st_ino
            file.seek(offset)
            same = file.read(n_bytes) == array.reshape(-1).view(np.uint8)[:n_bytes].tobytes()
    except OSError:
        return nowhere
    return (root.filename, offset, inode) if same and _inode_at(root.ctypes.data) in (inode, None) else nowhere


def _inode_at(address):
    """The inode of the file that is mapped at an address; None where the system does not tell (all but Linux)."""
    try:
        with open("/proc/self/maps") as maps:
            for line in maps:
                span, _, _, _, inode, *_ = line.split(maxsplit=5)
                start, stop = (int(bound, 16) for bound in span.split("-"))
                if start <= address < stop:
                    return int(inode)
    except OSError:
        pass
    return None


class _CSR:
    """CSR whose parts may lie in files; of scipy's own they would be read and converted as a whole."""

    def __init__(self, data, indices, indptr, n_features):
        self.data, self.indices, self.indptr = _Rows(data), _Rows(indices), indptr
        self.shape, self.nbytes = (len(indptr) - 1, n_features), data.nbytes + indices.nbytes + indptr.nbytes

    def announce(self, rows):
        stored = slice(int(self.indptr[rows.start]), int(self.indptr[rows.stop]))
        self.data.announce(stored)
        self.indices.announce(stored)

    def __getitem__(self, rows):
        indptr = np.asarray(self.indptr[rows.start : rows.stop + 1])
        stored = slice(int(indptr[0]), int(indptr[-1]))
        parts = self.data[stored], self.indices[stored], indptr - indptr[0]
        return sparse.csr_array(parts, shape=(len(indptr) - 1, self.shape[1]))


class _OfArrays:
    """Blocks of the rows of arrays."""

    def __init__(self, X, y, weight, rows):
        if sparse.issparse(X):
            X = _CSR(X.data, X.indices, X.indptr, X.shape[1])
        elif isinstance(X, np.ndarray):
            X = _Rows(X)
        self.X, self.n_samples = X, X.shape[0]
        self.y, self.weight = (a if a is None or hasattr(a, "shape") else np.asarray(a) for a in (y, weight))
        self.rows = int(rows) if rows is not None else self._rows_of_block()

    def _rows_of_block(self):
        dtype = getattr(self.X, "dtype", np.dtype(np.float64))
        n_bytes = (
            self.X.nbytes if isinstance(self.X, _CSR) else self.n_samples * self.X.shape[1] * np.dtype(dtype).itemsize
        )
        block_bytes = min(BLOCK_BYTES, max(SMALLEST_BLOCK, n_bytes // FEWEST_BLOCKS))
        rows = max(1, block_bytes * self.n_samples // max(1, n_bytes))
        chunks = getattr(self.X, "chunks", None)  # of h5py and zarr: numbers; of dask: tuples
        if chunks and isinstance(chunks[0], int):
            rows = ceil_div(rows, chunks[0]) * chunks[0]
        return rows

    def __len__(self):
        return max(1, ceil_div(self.n_samples, self.rows))

    def _slice(self, i):
        start = self.rows * range(len(self))[i]
        return slice(start, min(start + self.rows, self.n_samples))

    def __getitem__(self, i):
        rows = self._slice(i)
        return self._parts((self.X.array if isinstance(self.X, _Rows) else self.X)[rows], rows)

    def read(self, i, into=None):
        """A block, from its file if there is one."""
        rows = self._slice(i)
        return self._parts(self.X.read(rows, into) if isinstance(self.X, _Rows) else self.X[rows], rows)

    def announce(self, i):
        if isinstance(self.X, _Rows | _CSR):
            self.X.announce(self._slice(i))

    def _parts(self, X, rows):
        """X with the labels and weights of these rows."""
        if self.y is None:
            return X
        take = lambda a: a.iloc[rows] if hasattr(a, "iloc") else a[rows]  # noqa: E731
        return (X, take(self.y)) if self.weight is None else (X, take(self.y), take(self.weight))


# ---- Parquet


class _OfParquet:
    """Blocks of the row groups of Parquet files."""

    def __init__(self, path, features, label, weight):
        try:
            import pyarrow.parquet
        except ImportError as error:
            raise ImportError("Blocks.from_parquet needs pyarrow: pip install pyarrow.") from error
        if len(features) == 0:
            raise ValueError("features is empty: expected the names of columns, or that of a column of lists.")
        paths = [Path(path)] if isinstance(path, str | os.PathLike) else [Path(each) for each in path]
        if len(paths) == 1 and paths[0].is_dir():
            paths = sorted(paths[0].glob("*.parquet"))
        if not paths:
            raise FileNotFoundError(f"There is no *.parquet in {path}.")
        self.features, self.label, self.weight, self._groups = features, label, weight, []
        for each in paths:
            with pyarrow.parquet.ParquetFile(each) as file:
                missing = [name for name in self._columns() if name not in file.schema_arrow.names]
                if missing:
                    raise ValueError(f"{each} has no column {missing[0]!r}: it has {file.schema_arrow.names}.")
                groups = range(file.num_row_groups)
                self._groups += [(each, group) for group in groups if file.metadata.row_group(group).num_rows]
        if not self._groups:
            raise ValueError(f"{path} has no rows.")

    def _columns(self):
        features = [self.features] if isinstance(self.features, str) else list(self.features)
        return [*features, self.label, *([] if self.weight is None else [self.weight])]

    def __len__(self):
        return len(self._groups)

    def __getitem__(self, i):
        import pyarrow.parquet

        path, group = self._groups[i]
        with pyarrow.parquet.ParquetFile(path) as file:
            table = file.read_row_group(group, columns=self._columns())
        y = (
            table[self.label].to_pandas()
            if hasattr(table[self.label].type, "value_type")
            else table[self.label].to_numpy()
        )
        X = _lists(table[self.features]) if isinstance(self.features, str) else self._features(table)
        return (X, np.asarray(y)) if self.weight is None else (X, np.asarray(y), table[self.weight].to_numpy())

    def _features(self, table):
        columns = [table[name].to_numpy() for name in self.features]
        for name, column in zip(self.features, columns, strict=True):
            if column.dtype.kind not in "fiub":
                raise TypeError(f"column {name!r} holds values of type {table[name].type}: expected numbers.")
        return np.column_stack(columns)


def _lists(column):
    """(n_rows, n_features) of a column whose cells are lists."""
    import pyarrow.compute

    if not hasattr(column.type, "value_type"):
        raise TypeError(f"the features' column holds values of type {column.type}: expected lists of numbers.")
    lengths = pyarrow.compute.list_value_length(column).to_numpy()
    if column.null_count or (lengths != lengths[0]).any():
        raise ValueError("the lists of the features' column are not all of one length.")
    values = np.concatenate([chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks])
    return values.reshape(len(column), -1)


# ---- writing


class _Growing:
    """A file of NumPy's whose number of rows is known at its end."""

    def __init__(self, path):
        self.path, self.file, self.n_rows, self.form = path, open(path, "wb"), 0, None  # noqa: SIM115

    def add(self, rows):
        rows = np.ascontiguousarray(rows)
        form = rows.shape[1:], rows.dtype
        if self.form is None:
            self.form = form
            self._write_header()
        elif form != self.form:
            raise ValueError(f"blocks differ: {self.form[1]} {self.form[0]} came first, then {form[1]} {form[0]}.")
        rows.tofile(self.file)
        self.n_rows += len(rows)

    def _write_header(self):
        shape, dtype = self.form
        header = {"descr": dtype.str, "fortran_order": False, "shape": (self.n_rows, *shape)}
        np.lib.format.write_array_header_2_0(self.file, header)  # which leaves room for a larger number of rows

    def close(self):
        if self.form is not None:
            self.file.seek(0)
            self._write_header()
        self.file.close()


def _write(blocks, folder):
    """Write what `Blocks.cache` promises."""
    files, classes, n_stored, n_features = {}, [], 0, None
    number_of = {}

    def add(name, rows):
        if name not in files:
            files[name] = _Growing(folder / f"{name}.npy")
        files[name].add(rows)

    try:
        for i in range(len(blocks)):
            X, y, weight = blocks.read(i)
            X = X if hasattr(X, "shape") else np.asarray(X)
            if y is None:
                raise ValueError(f"block {i} has no labels: a cache is for data to fit.")
            if X.shape[0] == len(y) == 0:
                continue
            for part, of_rows in (("y", y), ("sample_weight", weight)):
                if of_rows is not None and np.shape(of_rows)[:1] != X.shape[:1]:
                    raise ValueError(
                        f"block {i}: {part} has the shape {np.shape(of_rows)}, but X has {X.shape[0]} rows."
                    )
            if (weight is not None) != ("sample_weight" in files) and "y" in files:
                raise ValueError(f"block {i} {'lacks' if weight is None else 'has'} weights, unlike those before.")
            if sparse.issparse(X):
                X = sparse.csr_array(X)
                if n_features not in (None, X.shape[1]):
                    raise ValueError(f"block {i} has {X.shape[1]} columns, but those before have {n_features}.")
                add("data", X.data)
                add("indices", X.indices.astype(np.int32 if X.shape[1] < 2**31 else np.int64))
                if "indptr" not in files:
                    add("indptr", np.zeros(1, np.int64))
                add("indptr", n_stored + X.indptr[1:].astype(np.int64))
                n_stored, n_features = n_stored + X.nnz, X.shape[1]
            else:
                add("X", np.asarray(X))
            labels, numbers = np.unique(np.asarray(y), return_inverse=True)
            for label in labels.tolist():
                if label not in number_of:
                    number_of[label] = len(classes)
                    classes.append(label)
            add("y", np.array([number_of[label] for label in labels.tolist()], np.int32)[numbers])
            if weight is not None:
                add("sample_weight", np.asarray(weight, np.float64))
    finally:
        for file in files.values():
            file.close()
    if "y" not in files:
        raise ValueError("None of the blocks has a row.")
    lengths = {
        name: file.n_rows - (name == "indptr") for name, file in files.items() if name not in ("data", "indices")
    }
    if len(set(lengths.values())) > 1:
        raise ValueError(f"blocks are not all alike: their parts have {lengths} rows.")
    np.save(folder / "classes.npy", np.array(classes))
    if n_features is not None:
        np.save(folder / "n_features.npy", n_features)
