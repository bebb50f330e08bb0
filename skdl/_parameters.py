"""What the estimator's parameters may be, in one table, and the checked values as plain Python numbers."""

import math
import reprlib
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np

from skdl._backends import BACKENDS


def _is_flag(x):
    return isinstance(x, bool | np.bool_)


def _is_number(x):
    try:
        return isinstance(x, Real) and not _is_flag(x) and math.isfinite(x)
    except OverflowError:  # an integer beyond float's range
        return False


def _is_count(x):
    return isinstance(x, Integral) and not _is_flag(x) and abs(int(x)) < 2**63


def _is_auto(x):
    return isinstance(x, str) and x == "auto"


# For each parameter: what is valid, and how to say it.
VALID = {
    "lr": (lambda x: _is_auto(x) or (_is_number(x) and x > 0), "'auto' or a number > 0"),
    "batch_size": (lambda x: _is_count(x) and x >= 1, "an integer >= 1 and < 2**63"),
    "max_iter": (lambda x: _is_auto(x) or (_is_count(x) and x >= 1), "'auto' or an integer >= 1 and < 2**63"),
    "lr_schedule": (
        lambda x: isinstance(x, str) and x in ("constant", "linear", "cosine"),
        "'constant', 'linear' or 'cosine'",
    ),
    "momentum": (lambda x: _is_number(x) and 0 <= x < 1, "a number >= 0 and < 1"),
    "alpha": (lambda x: _is_auto(x) or (_is_number(x) and x >= 0), "'auto' or a number >= 0"),
    "l1_ratio": (lambda x: _is_number(x) and 0 <= x <= 1, "a number from 0 to 1"),
    "standardize": (_is_flag, "True or False"),
    "fit_intercept": (_is_flag, "True or False"),
    "shuffle": (_is_flag, "True or False"),
    "tol": (lambda x: _is_number(x) and x >= 0, "a number >= 0"),
    "n_iter_no_change": (lambda x: _is_count(x) and x >= 1, "an integer >= 1 and < 2**63"),
    "early_stopping": (_is_flag, "True or False"),
    "validation_fraction": (lambda x: _is_number(x) and 0 < x < 1, "a number > 0 and < 1"),
    "class_weight": (
        lambda x: x is None or isinstance(x, dict) or (isinstance(x, str) and x == "balanced"),
        "None, 'balanced' or a dict of class label and weight",
    ),
    "warm_start": (_is_flag, "True or False"),
    "half_life": (lambda x: x is None or (_is_number(x) and x > 0), "None or a number > 0"),
    "backend": (lambda x: isinstance(x, str) and x in BACKENDS, " or ".join(map(repr, BACKENDS))),
    "device": (lambda x: x is None or isinstance(x, str), "None or a string"),
    "n_jobs": (lambda x: x is None or (_is_count(x) and x != 0), "None or an integer other than 0"),
    "random_state": (
        lambda x: x is None or isinstance(x, np.random.RandomState) or (_is_count(x) and 0 <= x < 2**32),
        "None, an integer from 0 to 2**32 - 1, or a numpy.random.RandomState",
    ),
    "verbose": (lambda x: _is_flag(x) or (_is_count(x) and x >= 0), "an integer >= 0"),
}


@dataclass(frozen=True)
class Options:
    """The estimator's parameters, checked; numbers are Python's, since NumPy's small integers overflow and float16 rounds."""

    lr: float | str
    batch_size: int
    max_iter: int | str
    lr_schedule: str
    momentum: float
    alpha: float | str
    l1_ratio: float
    standardize: bool
    fit_intercept: bool
    shuffle: bool
    tol: float
    n_iter_no_change: int
    early_stopping: bool
    validation_fraction: float
    class_weight: dict | str | None
    warm_start: bool
    half_life: float | None
    backend: str
    device: str | None
    n_jobs: int | None
    random_state: int | np.random.RandomState | None
    verbose: int
    may_hold: bool = False  # whether the step may hold before it falls: max_iter is "auto"


def _plain(value):
    if type(value) in (str, float, int, bool, type(None)):
        return value
    if _is_flag(value):
        return bool(value)
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def check(estimator):
    """The estimator's `Options`; ValueError at the first parameter that is not valid."""
    for name, (is_valid, expected) in VALID.items():
        value = getattr(estimator, name)
        if not is_valid(value):
            raise ValueError(f"{name}={reprlib.repr(value)} is not valid: expected {expected}.")
    return Options(**{name: _plain(getattr(estimator, name)) for name in VALID})
