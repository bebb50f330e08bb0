"""What the calls of a stream leave to each other, and how a call with lr="auto" steps and averages."""

from dataclasses import dataclass, replace

import numpy as np

from skdl._auto import SAMPLE_ROWS
from skdl._backends import ceil_div
from skdl._reduction import OccurringColumns
from skdl._scaling import Statistics

# From the study in benchmarks/streams.py. The step falls as 1 / sqrt(1 + visits / (FALL_ROWS n_features)), where a row counts
# as one visit, and one of a fit, whose model has no noise of steps left, as FIT_VISITS. A minibatch of the beginning has one
# in FIRST_UPDATES of the visits, but FIRST_BATCH rows at least.
FALL_ROWS, FIT_VISITS, FIRST_UPDATES, FIRST_BATCH = 4, 10, 64, 8
# How many visits a row of a later call that is far from all must outweigh; see `Stream.trust`.
TRUSTED_VISITS = 256
# Rows that are far from all others are errors as long as they are fewer than one in so many visits.
VISITS_PER_ERROR = 64
# The eta of polynomial-decay averaging, and how many minibatches lie between two positions that it takes in.
DECAY, AVERAGE_BATCHES = 3, 8
# A share of a step below this one changes no bit of a model.
SMALLEST_SHARE = np.finfo(np.float64).eps


@dataclass(frozen=True)
class Stream:
    """What the calls so far, or a fit, leave to the next call. Parameters and velocity are those for x."""

    n_rows: float = 0.0  # rows of positive weight so far, less what was forgotten of them
    total_weight: float = 0.0  # the sum of their weights
    n_effective: float = 0.0  # of even weight, whose means would be as noisy as theirs
    n_visits: float = 0.0  # how many rows' steps the model rests on
    n_far: float = 0.0  # of the rows, how many were so far away that they were taken for errors
    class_totals: np.ndarray | None = None  # of their sample weights alone, for class_weight="balanced"
    # Of rows so far, if anything asked for them: of a part that is over, and of the rows since.
    older: Statistics | None = None
    newer: Statistics | None = None
    last: tuple | None = None  # (coef, intercept) where SGD stands, if the model is an average
    velocity: tuple | None = None  # of whole steps
    # What alpha="auto" has become, if a fit or many rows have told, and the total weight by which they did.
    alpha: float | None = None
    alpha_weight: float = 0.0
    columns: OccurringColumns | None = None  # those that the statistics of a fit are of, until a call goes on from here

    @classmethod
    def from_dict(cls, kept):
        """The stream that an estimator keeps as a dict of arrays and numbers."""

        def pair(*names):
            return tuple(kept[name] for name in names) if names[0] in kept else None

        statistics = [Statistics(**kept[name]) if name in kept else None for name in ("older", "newer")]
        if "columns" in kept:
            columns = OccurringColumns(kept["columns"], kept["n_features"])
            statistics = [part and columns.lift_statistics(part) for part in statistics]
        return cls(
            kept.get("n_rows", 0.0),
            kept.get("total_weight", 0.0),
            kept.get("n_effective", kept.get("n_rows", 0.0)),
            kept.get("n_visits", 0.0),
            kept.get("n_far", 0.0),
            kept.get("class_totals"),
            *statistics,
            pair("coef", "intercept"),
            pair("coef_velocity", "intercept_velocity"),
            kept.get("alpha"),
            kept.get("alpha_weight", 0.0),
        )

    def to_dict(self):
        kept = {name: getattr(self, name) for name in ("n_rows", "total_weight", "n_effective", "n_visits", "n_far")}
        if self.class_totals is not None:
            kept["class_totals"] = self.class_totals
        if self.alpha is not None:
            kept["alpha"], kept["alpha_weight"] = self.alpha, self.alpha_weight
        for name in ("older", "newer"):
            if getattr(self, name) is not None:
                kept[name] = getattr(self, name)._asdict()
        if self.columns is not None:
            kept["columns"], kept["n_features"] = self.columns.columns, self.columns.n_features
        if self.last is not None:
            kept["coef"], kept["intercept"] = self.last
        if self.velocity is not None:
            kept["coef_velocity"], kept["intercept_velocity"] = self.velocity
        return kept

    def forgotten(self, n_rows, half_life):
        """The stream as it counts beside another n_rows.

        Means in which all that came before counts half after `half_life` rows are those over memory(half_life) rows. Until
        as many have come, nothing is forgotten.
        """
        share = 1.0 if self.n_rows == 0 else max(0.0, min(1.0, (memory(half_life) - n_rows) / self.n_rows))
        if share == 1:
            return self
        return replace(
            self,
            n_rows=share * self.n_rows,
            total_weight=share * self.total_weight,
            n_effective=share * self.n_effective,
            n_visits=share * self.n_visits,
            n_far=share * self.n_far,
            class_totals=None if self.class_totals is None else share * self.class_totals,
        )

    def with_classes(self, totals):
        """With the sample weights of a call counted, by class."""
        return replace(self, class_totals=totals if self.class_totals is None else self.class_totals + totals)

    def joined(self, source, *, visits=1, n_far=0.0):
        """With the rows of a call counted, but for their statistics.

        Weights w are worth (sum w)^2 / sum w^2 rows (Kish 1965).
        """
        total_weight = self.total_weight + source.total_weight
        noise = (source.total_weight / total_weight) ** 2 * np.mean(source.weight**2) / source.n_rows
        if self.n_rows > 0:
            noise += (self.total_weight / total_weight) ** 2 / self.n_effective
        return replace(
            self,
            n_rows=self.n_rows + source.n_rows,
            total_weight=total_weight,
            n_effective=1 / noise,
            n_visits=self.n_visits + visits * source.n_rows,
            n_far=self.n_far + n_far,
        )

    @property
    def has_doubled(self):
        """Whether twice as many rows have been seen as when alpha was updated."""
        return self.total_weight >= 2 * self.alpha_weight

    def with_alpha(self, alpha):
        """With an alpha that all rows so far have told of."""
        return replace(self, alpha=alpha, alpha_weight=self.total_weight)

    def alpha_by(self, scaling, options):
        """The alpha that rows so far have told of, in the units of all rows as their `Scaling` has them; or None.

        Where rows have come to be of one length, or no longer are, they have other units than before. The penalty stays the
        same beside the mean square of the rows.
        """
        if self.alpha is None or not options.standardize or self.statistics is None:
            return self.alpha
        before, after = self.statistics.row_length, scaling.row_length
        if (before is None) == (after is None) or not scaling.mean_square.any():
            return self.alpha
        square = scaling.mean_square.sum()
        in_one_unit = (scaling.mean_square / ((before or after) * scaling.scale) ** 2).sum()
        return self.alpha * (in_one_unit / square if before is None else square / in_one_unit)

    @property
    def statistics(self):
        """`Statistics` of the latest half of the rows at least, or None."""
        if self.older is None or self.newer is None:
            return self.newer
        return self.older.merged(self.newer)

    def with_statistics(self, here):
        """With those of a call that is not yet joined, if any were taken, of any rows.

        Rows of the beginning that lie far from all others would set mean and scale for good. So where the newer rows are half
        of all, the older ones are dropped.
        """
        if here is None or here.total_weight == 0:
            return self
        if self.newer is None:
            return replace(self, newer=here)
        if self.newer.total_weight >= self.total_weight / 2:
            return replace(self, older=self.newer, newer=here)
        return replace(self, newer=self.newer.merged(here))

    def batch_size(self, source, batch_size):
        """That of a call with lr="auto": many updates are worth more than smooth ones while there were few."""
        first = ceil_div(self.visits_by(source), FIRST_UPDATES)
        return min(batch_size, source.n_rows, max(FIRST_BATCH, int(first)))

    def visits_by(self, source):
        """In the middle of a call."""
        return self.n_visits + source.n_rows / 2

    def weight_share(self, source, options):
        """What a step of this call is of one that the rows would make if they were all there is.

        Weights count by their mean over all rows so far. With lr="auto" the step falls, too: that of an average may fall
        slowly. Uneven weights make it shorter by as much as they make gradients noisier. It never exceeds the largest that is
        safe.
        """
        after = self.joined(source)
        share = (source.total_weight / source.n_rows) * (after.n_rows / after.total_weight)
        if options.lr == "auto":
            fall = np.sqrt(1 + self.visits_by(source) / (FALL_ROWS * source.n_features))
            share = min(1.0, share / fall * after.n_effective / after.n_rows)
        return max(share, SMALLEST_SHARE)

    def step_share(self, source, options, batch_size):
        """What a step of this call is of one on a full minibatch at the beginning: the unit of the velocity between calls."""
        share = self.weight_share(source, options)
        return share * min(1.0, batch_size / full_batch(options.batch_size)) if options.lr == "auto" else share

    def judges(self, n_rows):
        """Whether rows of so short a call are errors where they are far from all before: if many are, the data have changed."""
        return self.n_visits >= VISITS_PER_ERROR * (self.n_far + n_rows)

    def trust(self, source):
        """How much further than before a column may reach in a call before that tells against the model.

        After a long stream a single row that is far away is an error, rather.
        """
        return max(2.0, (self.n_visits / (TRUSTED_VISITS * source.n_rows)) ** 2)


def stream_of_0_1(statistics, velocity, class_totals):
    """The dict of what version 0.1.0 kept; its rows had a mean weight of 1."""
    n_rows = float(class_totals.sum() if statistics is None else statistics[0])
    statistics = None if statistics is None else Statistics(*statistics)
    return Stream(n_rows, n_rows, n_rows, n_rows, 0.0, class_totals, newer=statistics, velocity=velocity).to_dict()


def memory(half_life):
    """The number of rows over which a mean of rows forgets half of what came before in half_life rows."""
    return np.inf if half_life is None else half_life / np.log(2)


def full_batch(batch_size):
    """The rows of which those of a short minibatch are a part. Beyond SAMPLE_ROWS it is as good as all data."""
    return min(batch_size, SAMPLE_ROWS)


def carried_over(parameters, before, after, trust):
    """(coef, intercept) for x, or None, where columns may reach further `after` a call than the rows `before` had shown.

    A coefficient that values of 1e-9 have made would give values of 1 logits of 1e9. So where the unit of a column grows, its
    coefficient in the coordinates of SGD stays, as in normalised online learning (Ross, Mineiro and Langford 2013). What
    grows by a factor up to `trust`, or moves, leaves the model as it is.
    """
    if parameters is None:
        return None
    growth = np.where(before.mean_square > 0, before.scale / after.scale, 1.0)
    if (growth <= trust).all():
        return parameters
    coef, intercept = parameters
    kept = coef * np.where(growth > trust, trust / growth, 1.0)
    return kept, intercept + np.einsum("kd,d->k", coef - kept, before.mean)


def carried_velocity(velocity, before, after):
    """(coef, intercept) for x of the velocity, or None, without columns whose unit has changed: it says nothing of the new."""
    if velocity is None:
        return None
    coef, intercept = velocity
    growth = before.scale / after.scale
    return np.where((growth > 0.5) & (growth < 2), coef, np.outer(intercept, after.mean)), intercept


class Average:
    """The polynomial-decay average (Shamir and Zhang 2013) of where SGD went, in its coordinates and with an axis of models.

    After rows of weight n a position counts as n^DECAY, so the first ones soon count nothing.
    """

    def __init__(self, start, stream, source, options):
        self.value, self._total = start, stream.total_weight
        self._row_weight = source.total_weight / source.n_rows
        self._most = memory(options.half_life) * self._row_weight
        # Between two positions lie as many values as there are parameters of an output, so that reading them costs little.
        batch_values = max(1, int(source.row_values * options.batch_size))
        self.n_batches = max(AVERAGE_BATCHES, ceil_div(source.n_features, batch_values))

    def add(self, parameters, n_rows):
        """Take in the position after another n_rows."""
        weight = n_rows * self._row_weight
        self._total = max(weight, min(self._total + weight, self._most))
        share = (1 + DECAY) * weight / (self._total + DECAY * weight)
        if self.value is None:
            self.value = parameters
        else:
            self.value = tuple(old + share * (new - old) for old, new in zip(self.value, parameters, strict=True))
