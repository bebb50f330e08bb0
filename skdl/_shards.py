"""Rows in shards, on whatever machines, and rounds of SGD on each: pure functions of arrays, which name no runtime.

Rows come in parts, numbered and as their reader left them. Each part is `cut` at random into a piece for each shard, and pieces
are `joined` to shards. In a round every shard goes on from the same `State`, and the `average` is the next (local SGD: Stich
2019; with momentum: Yu, Jin and Yang 2019). The same arguments give the same bits, so whoever loses a result may make it again.
`skdl._rounds` puts these together.
"""

from functools import reduce
from typing import NamedTuple

import numpy as np
from scipy import sparse

from skdl import _validation
from skdl._backends import ceil_div, get_backend
from skdl._classifier import SoftmaxRegressionClassifier
from skdl._data import Block, InMemory, less_mean, stacked
from skdl._first_pass import Found, Labels, backend_for_statistics, sample_size
from skdl._reader import Form
from skdl._sgd import with_model_axis

# Rows of a shard that are shuffled among themselves in an epoch: they fit into the larger caches.
WINDOW_ROWS = 2**15

# ---- parts


class Part(NamedTuple):
    """A part's rows as they come. Weights are None where there are none."""

    number: int
    X: object
    y: object
    weight: object


class Exchange(NamedTuple):
    """Which shard a row goes to, and whether it is held out for validation: a function of the seed and its part."""

    seed: int
    held_out: float  # the share of the rows
    n_shards: int = 1
    shard_of_part: np.ndarray | None = None  # where parts stay as they are

    def is_held_out(self, number, n_rows):
        """(n_rows,) bool of the rows of a part."""
        if self.held_out == 0:
            return np.zeros(n_rows, dtype=bool)
        return np.random.default_rng([self.seed, number, 1]).random(n_rows) < self.held_out

    def shards(self, number, n_rows):
        """The shard (n_rows,) of each row of a part; each shard gets as many, but for one."""
        if self.shard_of_part is not None:
            return np.full(n_rows, self.shard_of_part[number])
        rng = np.random.default_rng([self.seed, number])
        return rng.permutation((np.arange(n_rows) + rng.integers(self.n_shards)) % self.n_shards)


def labels_of_part(part, exchange):
    """(`Labels`, number of rows) of a part without its X; (None, 0) of no rows."""
    with _named(part.number):
        if len(part.y) == 0:
            return None, 0
        y = _validation.labels(part.y)
        weight = _validation.check_weight(part.weight, len(y), allow_zeros=True)
        held = exchange.is_held_out(part.number, len(y))
        labels = None
        for rows, used in ((~held, True), (held, False)):
            if rows.any():
                here = Labels.of(y[rows], None if weight is None else weight[rows])
                here = here if used else here.without_rows()
                labels = here if labels is None else labels.merged(here)
        return labels, len(y)


def merged_labels(of_parts):
    """`Labels` of several parts, or None, and the number of rows of each."""
    known = [labels for labels, _ in of_parts if labels is not None]
    return reduce(Labels.merged, known) if known else None, np.array([n_rows for _, n_rows in of_parts])


class _named:
    """Errors of what happens here name the part."""

    def __init__(self, number):
        self.number = number

    def __enter__(self):
        return self

    def __exit__(self, _, error, __):
        if isinstance(error, TypeError | ValueError):
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"Chunk {self.number}: {error}") from error


class Look(NamedTuple):
    """What is `Found` in the rows of some parts, and what all parts have in common."""

    number: int  # of one of the parts
    form: Form
    features: dict  # n_features_in_ and, if they have names, feature_names_in_
    found: Found | None  # None: all rows are held out, or have no weight

    def merged(self, other):
        names = [list(look.features.get("feature_names_in_", ())) for look in (self, other)]
        if self.form != other.form or names[0] != names[1]:
            what = [f"{look.form}{f' named {of}' if of else ''}" for look, of in zip((self, other), names, strict=True)]
            raise ValueError(f"Chunk {self.number} has {what[0]}, but chunk {other.number} has {what[1]}.")
        found = [look.found for look in (self, other) if look.found is not None]
        return self._replace(found=reduce(Found.merged, found) if found else None)


def cut(parts, exchange, weighing, options, *, n_rows, weighted):
    """Pieces of some parts: a list with one for each shard, one to validate with, and the `Look` at the rest.

    Pieces are `Block`, or None of no rows. Rows of weight 0 are left out. n_rows: about as many have all parts. ValueError,
    naming the part, for what is not valid.
    """
    pieces, looks = [[] for _ in range(exchange.n_shards + 1)], []
    for part in parts:
        if part.X.shape[0] == 0 and len(part.y) == 0:
            continue
        with _named(part.number):
            holder = SoftmaxRegressionClassifier()  # of what validation finds
            X, y = _validation.validate_training(holder, part.X, part.y, reset=True)
            y = _validation.labels(y)
            weight = _validation.check_weight(part.weight, len(y), allow_zeros=True)
            numbers = _validation.encode_labels(y, weighing.classes, "y").astype(np.int32)
            of_rows = weighing.weigh(weight, numbers) if weighted else None
            held = exchange.is_held_out(part.number, len(y))
            shards = np.where(held, exchange.n_shards, exchange.shards(part.number, len(y)))
            used = _validation.used_rows(of_rows, len(y))
            for shard, piece in enumerate(pieces):
                rows = used[shards[used] == shard]
                if len(rows):
                    piece.append(_rows(Block(X, numbers, of_rows), rows))
            found, kept = None, slice(None) if not held.any() else np.flatnonzero(~held)
            backend = backend_for_statistics(options, X)
            if held.any():
                _validation.check_finite(X)
            if not held.all():
                rng = np.random.default_rng([0, part.number])
                # Of random numbers below this there are as many in all parts as a sample has, if no chance of one in a million
                # comes true: parts need not send more.
                size = sample_size(X)
                below = (size + 5 * np.sqrt(size)) / n_rows
                weight = weight if weight is None else weight[kept]
                found = Found.of(X[kept], y[kept], weight, backend, rng, weighing, below)
            form = Form(X.shape[1], X.dtype, sparse.issparse(X))
            looks.append(Look(part.number, form, holder._features(), found))
    return [*map(joined, pieces), merged(looks)]


def merged(looks):
    """One `Look` at all that others have looked at; None of no rows."""
    looks = [look for look in looks if look is not None]
    return reduce(Look.merged, looks) if looks else None


def joined(blocks):
    """One `Block` of several; None of no rows."""
    blocks = [block for block in blocks if block is not None]
    if len(blocks) < 2:
        return blocks[0] if blocks else None
    X, y, weight = zip(*blocks, strict=True)
    return Block(stacked(X), np.concatenate(y), None if weight[0] is None else np.concatenate(weight))


def shuffled(blocks, seed):
    """One `Block` of several, its rows in random order in memory, too; None of no rows."""
    blocks = [block for block in blocks if block is not None]
    if not blocks:
        return None
    place, first = np.random.default_rng(seed).permutation(sum(map(n_rows_of, blocks))), 0
    if sparse.issparse(blocks[0].X):
        order = np.argsort(place)
        return _rows(joined(blocks), order)
    whole = Block(*(None if a is None else np.empty((len(place), *a.shape[1:]), a.dtype) for a in blocks[0]))
    for block in blocks:
        here = place[first : first + n_rows_of(block)]
        for a, values in zip(whole, block, strict=True):
            if a is not None:
                a[here] = values
        first += len(here)
    return whole


def _rows(block, rows):
    X, y, weight = block
    return Block(X[rows], y[rows], None if weight is None else weight[rows])


def centred(shard, mean):
    """The shard of CSR less the mean, where a value is stored."""
    X = shard.X
    X = type(X)((X.data.copy(), X.indices, X.indptr), shape=X.shape)
    less_mean(X, mean)
    return shard._replace(X=X)


def n_rows_of(shard):
    return len(shard.y)


def _aligned(block):
    """The block as the kernels may trust it, whatever way it has come."""
    X, y, weight = block

    def aligned(a):
        return np.require(a, requirements="CA")

    if sparse.issparse(X):
        X = type(X)(tuple(map(aligned, (X.data, X.indices, X.indptr))), shape=X.shape)
    return Block(X if sparse.issparse(X) else aligned(X), aligned(y), None if weight is None else aligned(weight))


# ---- rounds


class State(NamedTuple):
    """Models side by side in the coordinates of SGD, after so many rows with this sum of weighted losses (n_models,)."""

    n_rows: int
    loss: np.ndarray
    parameters: tuple | None  # (coef, intercept); None: zeros
    velocity: tuple | None


class Settings(NamedTuple):
    """What does not change from round to round."""

    backend: str
    device: str | None
    n_jobs: int
    n_outputs: int
    how: dict  # what `Backend.start` is told


class Epoch(NamedTuple):
    """An epoch: its seed, None where rows come in order; step sizes (n_models, n_batches) over it; and its rounds."""

    seed: tuple | None
    step_sizes: np.ndarray
    n_rounds: int

    def rows(self, n_rows, shard, i):
        """The rows of a shard in its round i.

        They lie together, and those that lie close are visited together: the shard is in random order already, and rows that
        are taken from all over memory take twice the time.
        """
        rows = np.arange(self._first(n_rows, i), self._first(n_rows, i + 1))
        if self.seed is None:
            return rows
        rng = np.random.default_rng([*self.seed, shard, i])
        windows = np.array_split(rows, ceil_div(len(rows), WINDOW_ROWS))
        for window in windows:
            rng.shuffle(window)
        return np.concatenate([windows[j] for j in rng.permutation(len(windows))])

    def _first(self, n_rows, i):
        return n_rows * i // self.n_rounds

    def sizes(self, n_rows, batch_size, i):
        """The step sizes (n_models, n_batches) of a shard's minibatches in its round i: those of the epoch when as large a part
        of it is over. A short last minibatch makes the share of a step that its rows are of a whole one.
        """
        rounds = np.diff([self._first(n_rows, each) for each in range(self.n_rounds + 1)])
        n_batches = ceil_div(rounds, batch_size)
        done = n_batches[:i].sum() + np.arange(n_batches[i])
        sizes = self.step_sizes[:, done * self.step_sizes.shape[1] // n_batches.sum()]
        if rounds[i] % batch_size:
            sizes[:, -1] *= rounds[i] % batch_size / batch_size
        return sizes


def round_of(shard, state, settings, epoch, number, i):
    """The `State` after round i of an epoch on the shard of this number."""
    n_rows, batch_size = n_rows_of(shard), settings.how["batch_size"]
    sizes = epoch.sizes(n_rows, batch_size, i)
    return trained(shard, state, settings, epoch.rows(n_rows, number, i), sizes)


def trained(shard, state, settings, rows, step_sizes):
    """The `State` after minibatches of some rows of a shard; step_sizes (n_models, n_batches)."""
    shard = _aligned(shard)
    backend_class = get_backend(settings.backend)
    backend = backend_class(InMemory(shard.X), settings.n_outputs, n_jobs=settings.n_jobs, device=settings.device)
    training = backend.start(state.parameters, state.velocity, **settings.how)
    sizes = np.ascontiguousarray(step_sizes[:, np.newaxis])
    losses = training.run(shard, np.ascontiguousarray(rows)[np.newaxis], sizes)
    return State(len(rows), losses[:, 0], training.parameters(), training.velocity())


def average(states, before=None):
    """The mean of states, weighted by rows, in their order; losses add up, to those of the state before."""
    n_rows = sum(state.n_rows for state in states)
    loss = sum((state.loss for state in states), 0.0 if before is None else before.loss)
    if len(states) == 1:
        return states[0]._replace(loss=loss)

    def mean(pair, i):
        parts = [getattr(state, pair)[i] for state in states]
        total = sum(
            np.multiply(a, state.n_rows / n_rows, dtype=np.float64) for a, state in zip(parts, states, strict=True)
        )
        return total.astype(parts[0].dtype)

    pairs = (tuple(mean(pair, i) for i in (0, 1)) for pair in ("parameters", "velocity"))
    return State(n_rows, loss, *pairs)


# ---- validation


def block_to_validate(part, classes, features):
    """A part of a validation set of the user's own; None of no rows."""
    if part.X.shape[0] == 0:
        return None
    holder = SoftmaxRegressionClassifier()
    vars(holder).update(features)
    with _named(part.number):
        X, y, weight, _ = _validation.validate_held_out(holder, part.X, part.y, part.weight, classes)
    return Block(X, y.astype(np.int32), weight)


def validation_sums(block, parameters, settings):
    """The sums of weight times loss, of weight times whether the class is right, and of weight, of a `Block` or None."""
    if block is None:
        return np.zeros(3)
    X, y, weight = _aligned(block)
    weight = np.ones(len(y)) if weight is None else weight
    backend = get_backend(settings.backend)(
        InMemory(X), settings.n_outputs, n_jobs=settings.n_jobs, device=settings.device
    )
    [(losses, correct)], _ = backend.predictor(X, None, y)(with_model_axis(parameters), "losses")
    return np.array([weight @ losses, weight @ correct, weight.sum()])


def added(sums):
    return np.sum(sums, axis=0)
