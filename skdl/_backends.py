"""What a backend promises, and the only list of backends."""

from importlib import import_module
from typing import Protocol

BACKENDS = {
    "openmp": ("skdl._openmp", "OpenMPBackend"),
    "opencl": ("skdl.opencl._backend", "OpenCLBackend"),
}


class Backend(Protocol):
    """Trains one model on one data set. Shapes and names are those of `skdl._sgd`.

    A backend takes the data once, runs whole epochs, and gives NumPy arrays back. It checks nothing: data and
    parameters have been checked by the estimator. Its module also has a function
    `decision_function(X, coef, intercept, *, rows=None, n_jobs=None, device=None)`: the logits (n_rows, n_classes).
    """

    def __init__(self, X, y, weight, n_classes, *, n_jobs=None, device=None):
        """X (n_samples, n_features), a C-ordered array or CSR; y (n_samples,) int32 class numbers; weight (n_samples,)
        float64 with mean 1 over the rows that are trained on, or None; n_classes: number of logits, 1 for two classes.
        """

    def column_statistics(self, rows):
        """Mean, variance, minimum and maximum (n_features,) of the columns over `rows`, weighted; of |x| about 0 for CSR.

        A NaN or an infinity in X makes a mean or variance of its column not finite.
        """

    def start(self, parameters, velocity, *, mean, scale, l1, l2, momentum, fit_intercept, batch_size):
        """Begin with these pairs (coef, intercept) in the scaled coordinates, or with zeros where None.

        `mean`, `scale`, `l1`, `l2`: (n_features,) or None.
        """

    def run_epoch(self, order, step_sizes):
        """One pass over the rows `order` (int64) in minibatches, one step size each; return the mean loss on the way."""

    def get_parameters(self):
        """Copies of coef and intercept, in the scaled coordinates."""

    def get_velocity(self):
        """Copies of their velocity, a pair like them."""


def get_backend(name):
    """The module of a backend and its class."""
    module_name, class_name = BACKENDS[name]
    module = import_module(module_name)
    return module, getattr(module, class_name)
