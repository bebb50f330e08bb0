"""A file from which a fit on blocks goes on after it was killed, with the same bits."""

import hashlib
import json
import os
import time
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path

import numpy as np
from scipy import sparse

from skdl._backends import ColumnTotals
from skdl._first_pass import Found, Labels, RandomRows, backend_for_statistics
from skdl._parameters import Options
from skdl._scaling import Statistics
from skdl._version import __version__

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None

# Seconds between two versions of the file, at the least.
INTERVAL = 5.0
# Blocks by which the data are known again.
KNOWN_BLOCKS = 16
# Parameters on which no bit of a model depends.
WITHOUT_EFFECT = ("n_jobs", "verbose")


class Checkpoint:
    """What a fit leaves in a file while it goes on, and finds there if it was killed: `saved`, or None.

    The file is written under another name and then renamed, so that it is always whole.
    """

    def __init__(self, path):
        self.path, self._identity, self.saved = Path(path), None, None
        self._arrays, self._last = {}, time.monotonic()
        folder = self.path.absolute().parent
        if self.path.is_dir() or not folder.is_dir():
            reason = "is a folder" if self.path.is_dir() else f"lies in {folder}, which does not exist"
            raise ValueError(f"checkpoint={str(path)!r} {reason}: expected the path of a file.")
        self._unfinished = self._beside("unfinished")

    def _beside(self, kind):
        return self.path.with_name(f".{self.path.name}.{kind}")

    def open(self, identity):
        """Read what a fit of this identity has left, if one has."""
        self._identity = identity
        if self.path.exists():
            self.saved = self._read()

    def _read(self):
        try:
            with np.load(self.path, allow_pickle=False) as file:
                arrays = dict(file)
            saved = json.loads(str(arrays.pop("saved")))
            identity = saved.pop("identity")
        except Exception as error:  # whatever NumPy finds in a file that it has not written
            raise ValueError(
                f"{self.path} is not a checkpoint of skdl ({error}): delete it, or choose another path."
            ) from error
        for name, value in self._identity.items():
            if identity.get(name) != value:
                raise ValueError(
                    f"{self.path} is the checkpoint of another fit, of {name} {identity.get(name)}, and this one has {value}: "
                    "delete it, or choose another path."
                )
        return _filled(saved, arrays)

    def remember(self, **first_pass):
        """Keep what the first pass has found."""
        self._arrays = {"first_pass": first_pass}

    def save(self, course, source, training, n_done, total):
        """Write the file, if it is time."""
        if time.monotonic() - self._last < INTERVAL:
            return
        state = {
            **self._arrays,
            "course": course.state(),
            "parameters": training.parameters(),
            "velocity": training.velocity(),
            "place": [source.seed, source.epoch, source.n_groups_done, n_done],
            "total": np.asarray(total),
        }
        arrays = {}
        text = json.dumps({"identity": self._identity, **_emptied(state, arrays)})
        try:
            with open(self._unfinished, "wb") as file:
                np.savez(file, saved=np.array(text), **arrays)
                file.flush()
                os.fsync(file.fileno())
            os.replace(self._unfinished, self.path)
        except OSError as error:
            self._unfinished.unlink(missing_ok=True)
            raise self._unwritable(error) from error
        self._last = time.monotonic()

    def restore(self, course, source):
        """Put a course and its source where they were; returns parameters, velocity, and what `run_epochs` wants to know."""
        saved = self.saved
        course.restore(saved["course"])
        source.seed, source.epoch, source.n_groups_done, n_done = saved["place"]
        return tuple(saved["parameters"]), tuple(saved["velocity"]), (n_done, saved["total"])

    def remove(self):
        """The fit has ended."""
        for path in (self.path, self._unfinished):  # the latter is of one that was killed while it wrote
            path.unlink(missing_ok=True)

    def _unwritable(self, error):
        return OSError(f"The checkpoint could not be written to {self.path}: {error}.")

    @contextmanager
    def held(self):
        """Have the path for one fit alone: ValueError where another has it, and OSError where nothing can be written.

        The lock is the system's, on a file beside the path: it ends with the process, however that ends.
        """
        path = self._beside("lock")
        try:
            file = open(path, "wb")  # noqa: SIM115
        except OSError as error:
            raise self._unwritable(error) from error
        with file:
            if not _is_locked(file, path):
                raise ValueError(
                    f"{self.path} is the checkpoint of another fit that is still running: wait for it, or choose another path."
                )
            try:
                yield self
            finally:
                with suppress(OSError):  # Windows deletes no open file
                    path.unlink()


def _is_locked(file, path):
    """Lock a file that was opened at a path: whether that was free."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever had it may have deleted it after we had opened it: our lock then would keep nobody out.
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except (BlockingIOError, FileNotFoundError):
        return False
    except OSError:  # a file system without locks
        return True


def identity(options, reader, validation_set, begun_with):
    """What a fit and its checkpoint must have in common, in words and numbers."""
    parameters = {
        field.name: getattr(options, field.name) for field in fields(Options) if field.name not in WITHOUT_EFFECT
    }
    parameters["random_state"] = parameters["random_state"] if isinstance(parameters["random_state"], int) else None
    return {
        "version": __version__,
        "parameters": ", ".join(f"{name}={value!r}" for name, value in parameters.items()),
        "processor": backend_for_statistics(options, reader.form.zeros(1)).processor,
        "data": known_by(reader),
        "validation set": _hash(validation_set),
        "first coefficients": _hash(begun_with),
    }


def _hash(arrays):
    return hashlib.sha256(b"".join(map(_bytes, arrays))).hexdigest()[:16]


def known_by(reader):
    """The number of blocks, and a hash of some of them."""
    numbers = np.unique(np.linspace(0, len(reader) - 1, KNOWN_BLOCKS).astype(int))
    hash_of_all = hashlib.sha256()
    for i in numbers.tolist():
        for part in reader.first if i == 0 else reader.read(i):
            hash_of_all.update(_bytes(part))
    return f"{len(reader)} blocks {hash_of_all.hexdigest()[:16]}"


def _bytes(a):
    if a is None:
        return b"-"
    if sparse.issparse(a):
        return b"".join(map(_bytes, (a.data, a.indices, a.indptr)))
    a = np.asarray(a)
    return repr(a.tolist()).encode() if a.dtype.kind == "O" else np.ascontiguousarray(a).tobytes()


# ---- nested dicts and lists with arrays in them


def _emptied(value, arrays):
    """The same with the arrays taken out and numbered."""
    if isinstance(value, dict):
        return {key: _emptied(each, arrays) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_emptied(each, arrays) for each in value]
    if sparse.issparse(value):
        return {"csr": _emptied([value.data, value.indices, value.indptr, list(value.shape)], arrays)}
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        return {"objects": value.tolist()}
    if isinstance(value, np.ndarray):
        arrays[f"a{len(arrays)}"] = value
        return {"array": f"a{len(arrays) - 1}"}
    return value.item() if isinstance(value, np.generic) else value


def _filled(value, arrays):
    """The reverse."""
    if isinstance(value, list):
        return [_filled(each, arrays) for each in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"array"}:
        return arrays[value["array"]]
    if set(value) == {"objects"}:
        return np.array(value["objects"], dtype=object)
    if set(value) == {"csr"}:
        *parts, shape = _filled(value["csr"], arrays)
        return sparse.csr_array(tuple(parts), shape=tuple(shape))
    return {key: _filled(each, arrays) for key, each in value.items()}


def found_to_dict(found):
    """`Found` as `Checkpoint.remember` keeps it."""
    known = found.statistics
    return {
        "labels": list(found.labels),
        "is_sparse": isinstance(known, ColumnTotals),
        "statistics": [None if part is None else list(part) if isinstance(part, tuple) else part for part in known],
        "sample": list(found.sample),
        "n_stored": found.n_stored,
        "has_weights": found.has_weights,
    }


def found_from_dict(kept):
    """The reverse."""
    parts = kept["statistics"]
    if kept["is_sparse"]:
        full = None if parts[3] is None else Statistics(*parts[3])
        known = ColumnTotals(*parts[:3], full, *parts[4:])
    else:
        known = Statistics(*parts)
    return Found(Labels(*kept["labels"]), known, RandomRows(*kept["sample"]), kept["n_stored"], kept["has_weights"])
