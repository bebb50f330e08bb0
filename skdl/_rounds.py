"""A fit whose rows lie in shards: the loop of `skdl._sgd`, whose epochs are rounds on all shards and their averages.

Who runs the functions of `skdl._shards`, and where, is a runtime's business; it is told by a `Runtime`.
"""

from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np

from skdl import _shards, _validation
from skdl._backends import ceil_div
from skdl._data import Described
from skdl._first_pass import Weighing
from skdl._problem import Problem, with_epochs
from skdl._warnings import warn

# What a shard's models need to come as far as one machine's, and what makes up for fewer: smaller minibatches, whose steps may
# be so many times as long, since the average takes their noise away, and more rounds. From benchmarks/scale.py.
UPDATES, SMALLEST_BATCH, MOST_AVERAGED = 1500, 32, 4
ROUNDS, ROUNDS_OF_SMALL_BATCHES = 5, 20
# Results that one task puts together: a tree whose shape follows from their number, so that sums always have one order.
TOGETHER = 8
# Pieces of parts that are exchanged, about, if parts are many: each is a task.
PIECES = 4096


class Runtime(Protocol):
    """What runs functions. A handle stands for a result, and may be an argument, alone or in a list."""

    n_threads: int  # in all

    def call(self, function, *args, **kwargs):
        """A handle of what the function will return."""

    def part(self, handle, i):
        """A handle of item i."""

    def keep(self, handles):
        """Handles of results that are computed once, for as long as the handles exist."""

    def result(self, handle):
        """What it stands for."""

    def threads_of(self, n_shards):
        """The number of threads for a round where so many run at a time."""


class InProcess:
    """The simplest `Runtime`: functions run when they are called, here, as if by so many threads. It simulates clusters."""

    def __init__(self, n_threads):
        self.n_threads = n_threads

    def call(self, function, *args, **kwargs):
        return function(*args, **kwargs)

    def part(self, handle, i):
        return handle[i]

    def keep(self, handles):
        return handles

    def result(self, handle):
        return handle

    def threads_of(self, n_shards):
        return 1


def unchanged(value):
    """The value: what several tasks need is a result that each is told by its handle."""
    return value


def in_tree(runtime, function, handles):
    """A handle of what a function of lists makes of all of them, a few at a time."""
    while len(handles) > 1:
        groups = [handles[i : i + TOGETHER] for i in range(0, len(handles), TOGETHER)]
        handles = [runtime.call(function, group) for group in groups]
    return handles[0]


# ---- sizes


class Sizes(NamedTuple):
    """How rows are shared out."""

    n_shards: int
    batch_size: int
    n_rounds: int  # of an epoch
    averaged: float  # how many times the step of a minibatch may be as noisy as on one machine


def sizes(n_rows, n_threads, options, rounds_per_epoch):
    """The `Sizes` for so many rows and threads; warns where there is too little to do for all threads.

    options: with a number for max_iter.
    """
    given, visits = options.batch_size, n_rows * options.max_iter
    smallest = min(SMALLEST_BATCH, given) if options.lr == "auto" else given
    n_shards = int(max(1, min(n_threads, visits // (UPDATES * smallest))))
    if n_shards < n_threads:
        warn(
            f"{n_rows} rows in {options.max_iter} epochs are work for {n_shards} of the {n_threads} threads of the cluster: "
            f"with more, each would make fewer than the {UPDATES} updates that a model needs."
        )
    batch_size, n_rounds = given, rounds_per_epoch
    if n_shards > 1:
        batch_size = int(max(smallest, min(given, visits // (UPDATES * n_shards))))
    if n_rounds == "auto":
        n_rounds = 1 if n_shards == 1 else ROUNDS if batch_size == given else ROUNDS_OF_SMALL_BATCHES
    n_rounds = max(1, min(n_rounds, n_rows // (n_shards * batch_size)))  # a round is a minibatch at least
    return Sizes(n_shards, batch_size, n_rounds, min(MOST_AVERAGED, given / batch_size))


# ---- the fit


def labels_of(runtime, parts, exchange):
    """(`Labels`, number of rows of each part) of all parts, which are tuples of handles like `Part`."""
    of_parts = [
        runtime.call(_shards.labels_of_part, runtime.call(_shards.Part, number, None, y, weight), exchange)
        for number, (_, y, weight) in enumerate(parts)
    ]
    labels, n_rows = _shards.merged_labels(runtime.result(runtime.call(list, of_parts)))
    if labels is None or not labels.n_rows.any():
        raise ValueError("X has no rows to train on.")
    _validation.check_several(labels.classes)
    return labels, n_rows


def pose(options, runtime, parts, *, seed, rounds_per_epoch="auto", weighted=False, validates=False):
    """(`Problem`, features) of a fit on parts, tuples of handles of X, y and weight; `weighted`: whether they have any.

    seed: of the exchange of rows. validates: whether early stopping needs rows that are held out here.
    """
    n_held = options.validation_fraction if validates else 0.0
    exchange = _shards.Exchange(seed, n_held)
    labels, n_rows_of_parts = labels_of(runtime, parts, exchange)
    weighing, weighted = Weighing.of(options.class_weight, labels), weighted or options.class_weight is not None
    _, counts = weighing.weighed(labels)
    n_rows = int(counts.sum())
    options = with_epochs(options, n_rows)
    n_threads = runtime.n_threads
    if not options.shuffle:
        _validation.warn_of_sorted_rows(labels.n_changes, counts, options.batch_size)
        n_threads = min(n_threads, len(parts))
    shared = sizes(n_rows, n_threads, options, rounds_per_epoch)
    exchange = exchange._replace(n_shards=shared.n_shards)
    if not options.shuffle:
        middle = np.cumsum(n_rows_of_parts) - n_rows_of_parts / 2
        exchange = exchange._replace(shard_of_part=(middle * shared.n_shards / n_rows_of_parts.sum()).astype(int))
    shards, held_out, look = exchanged(runtime, parts, exchange, weighing, options, n_rows=n_rows, weighted=weighted)
    features, source = (
        look.features,
        look.found.described(weighing, Sharded, runtime=runtime, shards=shards, sizes=shared),
    )
    options = replace(options, batch_size=shared.batch_size)
    return Problem(source, options, weighing.classes, labels.totals, held_out if validates else None), features


def exchanged(runtime, parts, exchange, weighing, options, **about):
    """Handles of the shards and of the blocks held out, and the `Look` at the rows of the shards."""
    numbered = [runtime.call(_shards.Part, number, *part) for number, part in enumerate(parts)]
    n_together = ceil_div(len(parts), max(exchange.n_shards, PIECES // exchange.n_shards))
    groups = [numbered[i : i + n_together] for i in range(0, len(numbered), n_together)]
    cuts = [runtime.call(_shards.cut, group, exchange, weighing, options, **about) for group in groups]
    shards = []
    for shard in range(exchange.n_shards):
        pieces = [runtime.part(each, shard) for each in cuts]
        shuffles = exchange.shard_of_part is None
        shards.append(
            runtime.call(_shards.shuffled, pieces, [exchange.seed, shard, 2])
            if shuffles
            else runtime.call(_shards.joined, pieces)
        )
    held_out = [runtime.part(pieces, exchange.n_shards) for pieces in cuts] if exchange.held_out > 0 else []
    look = in_tree(runtime, _shards.merged, [runtime.part(pieces, exchange.n_shards + 1) for pieces in cuts])
    *kept, look = runtime.keep([*shards, *held_out, look])
    return kept[: exchange.n_shards], kept[exchange.n_shards :], runtime.result(look)


class Sharded(Described):
    """Rows in shards, whose handles a runtime keeps."""

    def __init__(self, *sample, runtime, shards, sizes, **what):
        super().__init__(*sample, **what)
        self.runtime, self.shards, self.sizes, self.averaged = runtime, shards, sizes, sizes.averaged
        self.seed, self.epoch = None, 0

    def restarted(self):
        source = super().restarted()
        source.seed, source.epoch = None, 0
        return source

    def centred(self, mean):
        source = super().centred(mean)
        source.shards = self.runtime.keep([self.runtime.call(_shards.centred, shard, mean) for shard in self.shards])
        return source

    def blocks(self):
        """Handles of the shards, each with its rows in order."""
        for shard in self.shards:
            yield shard, np.arange(self.runtime.result(self.runtime.call(_shards.n_rows_of, shard)))

    def epochs(self, rng, n_epochs):
        """The shards, and of each epoch its seed; their order is a function of these."""
        if self.seed is None and rng is not None:
            self.seed = int(rng.integers(2**63))
        first, self.epoch = self.epoch, self.epoch + n_epochs
        epochs = range(first, self.epoch)
        yield Epochs(self.shards, [None if self.seed is None else (self.seed, epoch) for epoch in epochs]), None


class Epochs(NamedTuple):
    """What `Training.run` is given for a block, where the order of rows is known to each shard."""

    shards: list
    seeds: list


class Backend:
    """A backend whose models are trained where the shards are; what is here it does as `inner` does."""

    def __init__(self, inner, options, runtime, n_shards, n_rounds):
        self._inner, self._runtime, self.n_rounds = inner, runtime, n_rounds
        n_jobs = options.n_jobs or runtime.threads_of(n_shards)
        self.settings = _shards.Settings(options.backend, options.device, n_jobs, inner.n_outputs, {})

    def __getattr__(self, name):
        return getattr(self._inner, name)

    @classmethod
    def of(cls, problem):
        """That of a problem whose source is `Sharded`."""
        source = problem.source
        return cls(problem.backend(), problem.options, source.runtime, len(source.shards), source.sizes.n_rounds)

    def start(self, parameters, velocity, **how):
        if parameters is None or velocity is None:
            zeros = self._inner.start(parameters, velocity, **how)
            parameters, velocity = zeros.parameters(), zeros.velocity()
        return Training(self._runtime, self.settings._replace(how=how), self.n_rounds, parameters, velocity)


class Training:
    """Models that are trained in rounds. Between epochs their state is here, so that what is lost is made again from it."""

    def __init__(self, runtime, settings, n_rounds, parameters, velocity):
        self._runtime, self._settings, self._n_rounds = runtime, settings, n_rounds
        self._state = _shards.State(0, 0.0, parameters, velocity)

    def penalise(self, model, l1, l2):
        how = dict(self._settings.how)
        for name, strength in (("l1", l1), ("l2", l2)):
            if strength is not None:
                how[name] = how[name].copy()
                how[name][model] = strength
        self._settings = self._settings._replace(how=how)

    def run(self, block, order, step_sizes):
        """Epochs over all shards, or minibatches of the rows of one; see `skdl._backends.Training`."""
        if order is not None:
            state = self._runtime.call(_shards.trained, block, self._state, self._settings, order[0], step_sizes[:, 0])
            self._state = self._runtime.result(state)
            return self._state.loss[:, np.newaxis]
        losses = [self._run_epoch(block.shards, seed, step_sizes[:, i]) for i, seed in enumerate(block.seeds)]
        return np.stack(losses, axis=1)

    def _run_epoch(self, shards, seed, step_sizes):
        """The losses (n_models,) of an epoch."""
        runtime = self._runtime
        before = self._state._replace(loss=np.zeros(len(step_sizes)))
        epoch = _shards.Epoch(seed, step_sizes, self._n_rounds)
        epoch, settings, state = (runtime.call(unchanged, value) for value in (epoch, self._settings, before))
        for i in range(self._n_rounds):
            states = [
                runtime.call(_shards.round_of, shard, state, settings, epoch, number, i)
                for number, shard in enumerate(shards)
            ]
            while len(states) > TOGETHER:
                groups = [states[j : j + TOGETHER] for j in range(0, len(states), TOGETHER)]
                states = [runtime.call(_shards.average, group) for group in groups]
            state = runtime.call(_shards.average, states, state)
        self._state = runtime.result(state)
        return self._state.loss

    def parameters(self, models=slice(None)):
        return tuple(a[models].copy() for a in self._state.parameters)

    def velocity(self, models=slice(None)):
        return tuple(a[models].copy() for a in self._state.velocity)


# ---- validation


def validator(runtime, blocks, settings):
    """A function of (coef, intercept): loss and accuracy on blocks to validate with."""

    def validate(coef, intercept):
        parameters = runtime.call(unchanged, (coef, intercept))
        sums = [runtime.call(_shards.validation_sums, block, parameters, settings) for block in blocks]
        loss, correct, weight = runtime.result(in_tree(runtime, _shards.added, sums))
        return loss / weight, correct / weight

    return validate
