"""What one pass over rows that are not in memory at once finds: classes, weights, statistics, a sample."""

from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import numpy as np
from scipy import sparse

from skdl import _validation
from skdl._auto import SAMPLE_ROWS as BATCH_ROWS
from skdl._auto import SAMPLE_VALUES as BATCH_VALUES
from skdl._auto import SAMPLED_BATCHES
from skdl._backends import ColumnTotals, get_backend
from skdl._data import Block, Described, InMemory, stacked
from skdl._sampling import FEWEST_ROWS, MOST_ROWS


class Labels(NamedTuple):
    """Sorted labels, and of each the total sample weight and the number of rows of positive weight."""

    classes: np.ndarray
    totals: np.ndarray
    n_rows: np.ndarray
    n_changes: int  # how often the label changes from one of these rows to the next
    ends: np.ndarray  # the labels of the first and the last one, if there are any

    @classmethod
    def of(cls, y, weight):
        classes, numbers = _validation.numbered(y)
        totals = _validation.class_totals(weight, numbers, classes).astype(np.float64)
        used = numbers if weight is None else numbers[weight > 0]
        n_changes = int(np.count_nonzero(np.diff(used)))
        return cls(
            classes,
            totals,
            np.bincount(used, minlength=len(classes)),
            n_changes,
            classes[used[[0, -1]]] if len(used) else classes[:0],
        )

    def merged(self, other):
        """Those of both, whose rows follow each other."""
        ends = [part.ends for part in (self, other) if len(part.ends)]
        n_changes = self.n_changes + other.n_changes + (len(ends) == 2 and bool(ends[0][1] != ends[1][0]))
        ends = np.array([ends[0][0], ends[-1][1]], ends[0].dtype if len(ends) == 1 else None) if ends else self.ends
        if np.array_equal(self.classes, other.classes) and self.classes.dtype == other.classes.dtype:
            return Labels(self.classes, self.totals + other.totals, self.n_rows + other.n_rows, n_changes, ends)
        _validation.check_one_kind(self.classes, other.classes)
        classes = np.union1d(self.classes, other.classes)
        sums = np.zeros((2, len(classes)))
        for part in (self, other):
            sums[:, np.searchsorted(classes, part.classes)] += part.totals, part.n_rows
        return Labels(classes, sums[0], sums[1].astype(np.int64), n_changes, ends)

    def without_rows(self):
        """Of rows that are held out: the classes alone."""
        totals, n_rows = np.zeros(len(self.classes)), np.zeros(len(self.classes), np.int64)
        return Labels(self.classes, totals, n_rows, 0, self.classes[:0])


class Weighing(NamedTuple):
    """From sample weights to those of the rows in training, whose mean is 1."""

    classes: np.ndarray
    of_class: np.ndarray | None  # what class_weight makes of a weight of 1
    mean: float

    @classmethod
    def of(cls, class_weight, labels):
        of_class = None
        if class_weight is not None:
            numbers = np.arange(len(labels.classes))
            of_class = _validation.combined_weight(class_weight, None, numbers, labels.classes, labels.totals)
        weighing = cls(labels.classes, of_class, np.nan)
        totals, counts = weighing.weighed(labels)
        if not totals.any():
            raise ValueError("sample_weight and class_weight give every row weight zero: at least one must be > 0.")
        if (counts > 0).sum() == 1:
            raise ValueError(
                "sample_weight, class_weight and validation leave rows of one class only to train on: "
                "SoftmaxRegressionClassifier needs at least 2."
            )
        return weighing._replace(mean=totals.sum() / counts.sum())

    def weighed(self, labels):
        """Of each class the total weight and the number of its rows in training."""
        if self.of_class is None:
            return labels.totals, labels.n_rows
        return labels.totals * self.of_class, labels.n_rows * (self.of_class > 0)

    def weigh(self, weight, y):
        """Weights (n,) of rows with class numbers y."""
        weight = np.ones(len(y)) if weight is None else weight
        return (weight if self.of_class is None else weight * self.of_class[y]) / self.mean


class RandomRows(NamedTuple):
    """Rows drawn at random, each with the random number by which it was: the smallest of all."""

    number: np.ndarray
    X: object
    y: np.ndarray  # labels
    weight: np.ndarray

    @classmethod
    def of(cls, X, y, weight, rows, rng, below=np.inf):
        """Of some rows those that may be among the smallest of all, whose numbers are `below` this."""
        number = rng.random(len(rows))
        if len(rows) > sample_size(X):
            below = min(below, np.partition(number, sample_size(X))[sample_size(X)])
        chosen = number < below
        rows = rows[chosen]
        return cls(number[chosen], X[rows], y[rows], np.ones(len(rows)) if weight is None else weight[rows])

    @property
    def largest(self):
        """The number that those of further rows have to be below."""
        return self.number.max() if len(self.number) >= sample_size(self.X) else np.inf

    def merged(self, other):
        """The same of the rows of both, the smaller numbers alone."""
        parts = [part for part in (self, other) if len(part.number)]
        if len(parts) < 2:
            return parts[0] if parts else self
        last = np.sort(np.concatenate([part.number for part in parts]))[: sample_size(self.X)][-1]
        parts = [part.up_to(last) for part in parts]
        return RandomRows(
            np.concatenate([part.number for part in parts]),
            stacked([part.X for part in parts]),
            np.concatenate([part.y for part in parts]),
            np.concatenate([part.weight for part in parts]),
        )

    def up_to(self, number):
        rows = np.flatnonzero(self.number <= number)
        return self if len(rows) == len(self.number) else RandomRows(*(a[rows] for a in self))


def sample_size(X):
    """Rows that are enough for whatever looks at a sample."""
    row_values = max(1, X.nnz // max(1, X.shape[0]) if sparse.issparse(X) else X.shape[1])
    return max(
        FEWEST_ROWS, min(MOST_ROWS, SAMPLED_BATCHES * max(1, BATCH_VALUES // row_values), SAMPLED_BATCHES * BATCH_ROWS)
    )


@dataclass
class Found:
    """What is known of some rows. What is known of others can be merged with it."""

    labels: Labels
    statistics: object  # `Statistics`, or `ColumnTotals` of CSR; with weights as they are
    sample: RandomRows
    n_stored: int
    has_weights: bool

    @classmethod
    def of(cls, X, y, weight, backend, rng, weighing=None, below=np.inf):
        """Of rows in memory with labels y and sample weights; ValueError where X is not finite.

        weighing: `Weighing` where class weights have a say. below: see `RandomRows`.
        """
        combined = weight
        if weighing is not None:
            combined = weighing.weigh(weight, _validation.encode_labels(y, weighing.classes, "y"))
        used = _validation.used_rows(combined, len(y))
        statistics = column_statistics(X, combined, used, backend) if len(used) else None
        if not sparse.issparse(X):
            _validation.check_finite(X, statistics, complete=len(used) == len(y))
        elif len(used) < len(y) or not np.isfinite(statistics.total).all():
            _validation.check_finite(X)
        n_stored = X.nnz if sparse.issparse(X) else X.size
        sample = RandomRows.of(X, y, weight, used, rng, below)
        return cls(Labels.of(y, weight), statistics, sample, n_stored, weight is not None)

    def merged(self, other):
        known = [found.statistics for found in (self, other) if found.statistics is not None]
        return Found(
            self.labels.merged(other.labels),
            reduce(lambda a, b: a.merged(b), known) if known else None,
            self.sample.merged(other.sample),
            self.n_stored + other.n_stored,
            self.has_weights or other.has_weights,
        )

    def described(self, weighing, /, kind=Described, **more):
        """A `Described` source of these rows."""
        labels, sample = self.labels, self.sample
        y = _validation.encode_labels(sample.y, labels.classes, "y")
        weighted = self.has_weights or weighing.of_class is not None
        totals, counts = weighing.weighed(labels)
        n_rows = int(counts.sum())
        statistics = self.statistics
        return kind(
            sample.X,
            y,
            weighing.weigh(sample.weight, y) if weighted else None,
            n_rows=n_rows,
            total_weight=float(weighing.mean * n_rows),
            class_totals=totals,
            statistics=statistics.statistics() if isinstance(statistics, ColumnTotals) else statistics,
            row_values=self.n_stored / max(1, n_rows) if sparse.issparse(sample.X) else sample.X.shape[1],
            **more,
        )


def column_statistics(X, weight, rows, backend):
    """Of some rows, with weights (n_samples,) as they are."""
    if sparse.issparse(X):
        return ColumnTotals.of(X, weight, rows)
    if weight is None:
        return backend.statistics(Block(X, np.zeros(X.shape[0], np.int32)), rows)
    mean = weight[rows].mean()  # kernels may compute in float32, whose range is smaller
    statistics = backend.statistics(Block(X, np.zeros(X.shape[0], np.int32), weight / mean), rows)
    return statistics._replace(total_weight=statistics.total_weight * mean)


def backend_for_statistics(options, X):
    """A backend that describes columns of data like X."""
    return get_backend(options.backend)(InMemory(X), 1, n_jobs=options.n_jobs, device=options.device)
