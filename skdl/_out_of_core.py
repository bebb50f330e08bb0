"""A fit on blocks that do not fit into memory: one pass to know the rows, then epochs that read them in random order."""

from contextlib import closing, contextmanager
from copy import copy
from itertools import count
from typing import NamedTuple

import numpy as np
from sklearn.utils import check_random_state

from skdl import _validation
from skdl._backends import ceil_div
from skdl._checkpoint import found_from_dict, found_to_dict
from skdl._data import Described, less_mean, stacked
from skdl._first_pass import Found, Labels, Weighing, backend_for_statistics
from skdl._problem import Problem, with_epochs
from skdl._reader import AHEAD, BUFFER_BYTES, ENOUGH_BLOCKS, NO_ROWS, Buffer, Checked, ahead
from skdl._warnings import warn

# Bytes of blocks that the first pass looks at together.
PIECE_BYTES = 2**25


def read_whole(reader):
    """Arrays X, y, sample_weight (or None) of all blocks if they fit into a buffer, else None.

    Where the first block promises far more, no others are read.
    """
    blocks, n_bytes = [], 0
    for i in range(len(reader)):
        block = reader.first if i == 0 else reader.read(i)
        if len(block.y) == 0:
            continue
        n_bytes += block.n_bytes
        if n_bytes > BUFFER_BYTES or (not blocks and n_bytes * (len(reader) - i) > 4 * BUFFER_BYTES):
            return None
        blocks.append(block)
    if not blocks:
        raise ValueError(NO_ROWS)
    return joined(blocks)


@contextmanager
def naming_blocks(reader):
    """Name the block that is not finite where blocks that are fitted as one array are refused."""
    try:
        yield
    except ValueError as error:
        for i in range(len(reader)):
            try:
                _validation.check_finite(reader.read(i).X)
            except ValueError:
                raise ValueError(f"Block {i}: {error}") from error
        raise


def joined(blocks):
    """One block of several."""
    if len(blocks) == 1:
        return blocks[0]
    _validation.check_one_kind(*(block.y for block in blocks))
    weight = None
    if any(block.weight is not None for block in blocks):
        weight = np.concatenate([np.ones(len(b.y)) if b.weight is None else b.weight for b in blocks])
    X, y = stacked([block.X for block in blocks]), np.concatenate([block.y for block in blocks])
    return Checked(X, y, weight)


class Extents(NamedTuple):
    """Of each block the number of its rows and of its values."""

    n_rows: np.ndarray
    n_stored: np.ndarray


def hold_out_blocks(options, n_blocks):
    """The blocks that early stopping validates with where the user has no set for it."""
    n_held_out = int(np.ceil(options.validation_fraction * n_blocks))
    if n_held_out >= n_blocks:
        raise ValueError(
            f"validation_fraction={options.validation_fraction:g} of {n_blocks} blocks leaves none to train on: pass X_val and "
            "y_val, or more and smaller blocks."
        )
    return np.sort(check_random_state(options.random_state).permutation(n_blocks)[:n_held_out])


def first_pass(reader, options, held_out):
    """What is `Found` in all blocks, those held out apart, their `Weighing` and their `Extents`."""
    weighing = None
    if options.class_weight is not None:
        weighing = Weighing.of(options.class_weight, labels_of(reader, held_out))
    rng, numbers, found, labels = np.random.default_rng(0), iter(range(len(reader))), None, None
    extents, backend = Extents(*np.zeros((2, len(reader)), np.int64)), None

    def take(_, stopping):
        piece, n_bytes = [], 0
        for i in numbers:
            piece.append((i, reader.read(i, then=range(i + AHEAD, min(i + AHEAD + 1, len(reader))))))
            n_bytes += piece[-1][1].n_bytes
            if n_bytes >= PIECE_BYTES or stopping.is_set():
                break
        return piece

    with closing(ahead(take, count())) as pieces:
        for piece in pieces:
            if not piece:
                break
            for i, block in piece:
                extents.n_rows[i], extents.n_stored[i] = len(block.y), block.n_stored
            piece = [each for each in piece if len(each[1].y)]
            for _, block in (each for each in piece if each[0] in held_out):
                apart = Labels.of(block.y, None).without_rows()
                labels = apart if labels is None else labels.merged(apart)
            used = [(i, block) for i, block in piece if i not in held_out]
            if used:
                X, y, weight = joined([block for _, block in used])
                backend = backend or backend_for_statistics(options, X)
                try:
                    here = Found.of(
                        X, y, weight, backend, rng, weighing, np.inf if found is None else found.sample.largest
                    )
                except ValueError as error:
                    raise ValueError(f"{_which(used)}: {error}") from error
                found = here if found is None else found.merged(here)
    if found is None:
        raise ValueError(f"{NO_ROWS[:-1]}, but for those held out to validate with.")
    if labels is not None:
        found.labels = found.labels.merged(labels)
    reader.has_seen_all = True
    _validation.check_several(found.labels.classes)
    return found, weighing or Weighing.of(None, found.labels), extents


def labels_of(reader, held_out):
    """The `Labels` of all blocks."""
    labels = None
    for i in range(len(reader)):
        with_weight = reader.read_labels(i)
        if with_weight is None:
            continue
        here = Labels.of(*with_weight)
        here = here.without_rows() if i in held_out else here
        labels = here if labels is None else labels.merged(here)
    if labels is None:
        raise ValueError(NO_ROWS)
    _validation.check_several(labels.classes)
    return labels


def _which(blocks):
    """The block that is not finite, in words."""
    for i, block in blocks:
        try:
            _validation.check_finite(block.X)
        except ValueError:
            return f"Block {i}"
    return f"Block {blocks[0][0]}" if len(blocks) == 1 else f"Blocks {blocks[0][0]} to {blocks[-1][0]}"


class BlockSource(Described):
    """Rows that are read block by block in each epoch."""

    is_read_anew = True

    def __init__(self, *sample, reader, numbers, extents, weighing, **what):
        super().__init__(*sample, **what)
        self.reader, self.numbers, self.extents, self.weighing = reader, numbers, extents, weighing
        value_bytes = self.dtype.itemsize + (4 if self.is_sparse else 0)
        n_bytes = extents.n_stored[numbers].sum() * value_bytes
        self.n_groups = min(len(numbers), ceil_div(int(n_bytes), BUFFER_BYTES))
        n_together = ceil_div(len(numbers), self.n_groups)
        if self.n_groups > 1 and n_together < ENOUGH_BLOCKS:
            warn(
                f"A buffer of {BUFFER_BYTES >> 20} MiB holds {n_together} of the {len(numbers)} blocks. If the rows are "
                f"sorted, by class for example, the model will be the worse for it: that takes {ENOUGH_BLOCKS} or more. "
                "Make smaller blocks, or write them once with Blocks.cache(path)."
            )
        largest = [int(np.sort(a[numbers])[-n_together:].sum()) for a in extents]
        self._buffers, self._extent_of_buffer = [], largest
        self.seed, self.epoch, self.n_groups_done = None, 0, 0

    def restarted(self):
        source = copy(self)
        source.seed, source.epoch, source.n_groups_done = None, 0, 0
        return source

    def blocks(self):
        with closing(ahead(self._filler(self._groups(None), None), range(self.n_groups))) as filled:
            yield from filled

    def epochs(self, rng, n_epochs):
        """One epoch; its order follows from a seed, drawn before the first, and its number."""
        if self.seed is None and rng is not None:
            self.seed = int(rng.integers(2**63))
        of_epoch = None if self.seed is None else [self.seed, self.epoch]
        fill = self._filler(self._groups(of_epoch), of_epoch)
        with closing(ahead(fill, range(self.n_groups_done, self.n_groups))) as filled:
            for block, rows in filled:
                self.n_groups_done += 1
                yield block, rows[np.newaxis]
        self.epoch, self.n_groups_done = self.epoch + 1, 0

    def _groups(self, seed):
        """The blocks of each buffer."""
        numbers = self.numbers if seed is None else np.random.default_rng(seed).permutation(self.numbers)
        return np.array_split(numbers, self.n_groups)

    def _filler(self, groups, seed):
        """A function that fills a buffer with a group of blocks and returns its `Block` and the order of its rows."""
        if not self._buffers:
            form, weighted = self.reader.form, self.block.weight is not None
            self._buffers += [
                Buffer(form, *self._extent_of_buffer, weighted=weighted) for _ in range(min(2, self.n_groups))
            ]

        numbers, firsts = np.concatenate(groups).tolist(), np.cumsum([0, *map(len, groups)])

        def fill(g, stopping):
            buffer = self._buffers[g % len(self._buffers)]
            buffer.clear()
            for at in range(firsts[g], firsts[g + 1]):
                if stopping.is_set():
                    return None
                n_rows = self.extents.n_rows[numbers[at]]
                buffer.add(*self._read(numbers[at], buffer.room(n_rows), numbers[at + AHEAD : at + AHEAD + 1]))
            block = buffer.block()
            if self.mean.any():
                less_mean(block.X, self.mean)
            rows = _validation.used_rows(block.weight, len(block.y))
            if seed is not None:
                np.random.default_rng([*seed, g + 1]).shuffle(rows)
            return block, rows

        return fill

    def _read(self, i, room, then):
        """X, class numbers and weights of a block, which is as it was in the first pass."""
        block, before = self.reader.read(i, room, then=then), Extents(*(a[i] for a in self.extents))
        if (len(block.y), block.n_stored) != before:
            raise ValueError(
                f"Block {i} has changed: it has {len(block.y)} rows with {block.n_stored} values, and had {before.n_rows} with "
                f"{before.n_stored} when it was first read."
            )
        y = encoded(block, self.weighing.classes, i)
        if self.block.weight is not None:
            return block.X, y, self.weighing.weigh(block.weight, y)
        if block.weight is not None and (block.weight != block.weight[0]).any():
            raise ValueError(
                f"Block {i} has changed: it has uneven sample weights, and no block had when it was first read."
            )
        return block.X, y, None


def encoded(block, classes, i):
    """Class numbers of the labels of block i."""
    try:
        return _validation.encode_labels(block.y, classes, "y")
    except ValueError as error:
        raise ValueError(f"Block {i} has changed: {error}") from error


class HeldOutBlocks:
    """Blocks to validate with, which are read anew each time."""

    def __init__(self, reader, numbers, weighing):
        self.reader, self.numbers, self.weighing = reader, numbers, weighing

    def __iter__(self):
        """(X, class numbers, weights) of each."""

        def read(i, stopping):
            block = self.reader.read(i)
            _validation.check_finite(block.X)
            y = encoded(block, self.weighing.classes, i)
            return block.X, y, self.weighing.weigh(block.weight, y)

        with closing(ahead(read, self.numbers)) as blocks:
            yield from blocks


def pose_blocks(options, reader, checkpoint, validate_held_out):
    """The `Problem` of a fit on blocks. validate_held_out(classes) makes the user's own validation set, or None.

    What the first pass has found is in the checkpoint, or is remembered there.
    """
    saved = None if checkpoint is None else checkpoint.saved
    del reader.first
    if saved is not None:
        kept = saved["first_pass"]
        held_out, found, extents = kept["held_out"], found_from_dict(kept["found"]), Extents(*kept["extents"])
        weighing = Weighing.of(options.class_weight, found.labels)
        reader.has_seen_all = True
    else:
        held_out = np.empty(0, int)
        if options.early_stopping and validate_held_out is None:
            held_out = hold_out_blocks(options, len(reader))
        found, weighing, extents = first_pass(reader, options, set(held_out.tolist()))
    if checkpoint is not None:
        checkpoint.remember(held_out=held_out, found=found_to_dict(found), extents=list(extents))
    numbers = np.setdiff1d(np.flatnonzero(extents.n_rows), held_out)
    source = found.described(weighing, BlockSource, reader=reader, numbers=numbers, extents=extents, weighing=weighing)
    validation = None if validate_held_out is None else validate_held_out(weighing.classes)
    if len(held_out):
        held_out = held_out[extents.n_rows[held_out] > 0]
        if len(held_out) == 0:
            raise ValueError("The blocks held out to validate with have no rows: pass X_val and y_val.")
        validation = HeldOutBlocks(reader, held_out, weighing)
    options = with_epochs(options, source.n_rows, in_memory=False)
    if not options.shuffle:
        _, counts = weighing.weighed(found.labels)
        _validation.warn_of_sorted_rows(found.labels.n_changes, counts, options.batch_size)
    return Problem(source, options, weighing.classes, found.labels.totals, validation)
