"""What a fit is asked to do: rows to train on, rows held out, and options with every number of epochs known."""

from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np

from skdl import _softmax, _validation
from skdl._auto import auto_epochs
from skdl._backends import get_backend
from skdl._data import InMemory
from skdl._parameters import Options
from skdl._sgd import with_model_axis


class Problem(NamedTuple):
    """A fit before it begins."""

    source: InMemory
    options: Options  # with a number for max_iter
    classes: np.ndarray  # those of the rows to train on
    class_totals: np.ndarray  # of their sample weights
    # To validate with: (X, class numbers, weight or None, rows or None: all), or whatever gives such rows in parts.
    held_out: tuple | object | None

    def backend(self):
        """The backend for it."""
        options, n_outputs = self.options, _softmax.n_outputs(len(self.classes))
        return get_backend(options.backend)(self.source, n_outputs, n_jobs=options.n_jobs, device=options.device)

    def validator(self, backend):
        """A function of (coef, intercept): loss and accuracy on the rows held out, if there are any, which are placed once.

        They are placed when they are first needed, so that the rows to train on have the first claim to a device's memory.
        """
        if self.held_out is None:
            return None
        if not isinstance(self.held_out, tuple):
            return self._validator_of_parts(backend)
        X, y, weight, rows = self.held_out
        predictor = cache(lambda: backend.predictor(X, rows, y.astype(np.int32)))

        def validate(coef, intercept):
            [(losses, correct)], _ = predictor()(with_model_axis((coef, intercept)), "losses")
            return np.average(losses, weights=weight), np.average(correct, weights=weight)

        return validate

    def _validator_of_parts(self, backend):
        """The same where the rows come in parts, (X, class numbers, weights) each."""

        def validate(coef, intercept):
            sums, parameters = np.zeros(3), with_model_axis((coef, intercept))
            for X, y, weight in self.held_out:
                [(losses, correct)], _ = backend.predictor(X, None, y.astype(np.int32))(parameters, "losses")
                sums += (weight * losses).sum(), (weight * correct).sum(), weight.sum()
            if sums[2] == 0:
                raise ValueError("Every row held out to validate with has weight zero: at least one must be > 0.")
            return sums[0] / sums[2], sums[1] / sums[2]

        return validate

    def with_options(self, options):
        """The fit with other options, on which its rows do not depend."""
        return self._replace(options=with_epochs(options, self.source.n_rows))


def with_epochs(options, n_rows, *, in_memory=True):
    """The options with a number for max_iter."""
    if options.max_iter != "auto":
        return options
    return replace(options, max_iter=auto_epochs(n_rows, options.batch_size, in_memory=in_memory), may_hold=True)


def pose(options, X, y, classes, weight, *, rows=None, held_out=None, is_finite=False):
    """The `Problem` of a fit on some rows (None: all) of data that are checked.

    y (n_samples,) are class numbers, weight (n_samples,) sample weights or None. Without a validation set of the user's own,
    early stopping holds out some of the rows. is_finite: whether X is known to be.
    """
    y_rows, weight_rows = y, weight
    if rows is not None:
        y_rows, weight_rows = y[rows], None if weight is None else weight[rows]
    totals = _validation.class_totals(weight_rows, y_rows, classes)
    weight_rows = _validation.combined_weight(options.class_weight, weight_rows, y_rows, classes)
    used = _validation.used_rows(weight_rows, len(y_rows))
    _validation.check_classes_left(y_rows[used], len(classes), "sample_weight and class_weight leave")
    if options.early_stopping and held_out is None:
        used, kept = _validation.hold_out(used, y_rows, options.validation_fraction, options.random_state)
        reason = f"validation_fraction={options.validation_fraction:g} leaves"
        _validation.check_classes_left(y_rows[used], len(classes), reason)
        weight_kept = None if weight_rows is None else weight_rows[kept]
        held_out = X, y_rows[kept], weight_kept, kept if rows is None else rows[kept]
    if not options.shuffle:
        visited = y_rows[used]
        _validation.warn_of_sorted_rows(np.count_nonzero(np.diff(visited)), np.bincount(visited), options.batch_size)
    if rows is not None:
        used = rows[used]
        if weight_rows is not None:
            weight = np.zeros(len(y))
            weight[rows] = weight_rows
    else:
        weight = weight_rows
    source = InMemory(X, y, weight, used, is_finite=is_finite)
    return Problem(source, with_epochs(options, source.n_rows), classes, totals, held_out)
