"""Warnings that name the line of the user, however deep in here they arise."""

import sys
import warnings

# Packages whose code calls skdl on behalf of a user.
PASSED_OVER = ("skdl", "sklearn", "joblib")


def warn(message, category=UserWarning):
    """As `warnings.warn`, at the innermost line outside these packages."""
    level, frame = 1, sys._getframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in PASSED_OVER:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
