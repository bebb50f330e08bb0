"""From logits to labels, probabilities and losses: the one place in Python that knows that two classes have one logit.

Logits (n_rows, n_outputs) are one per class; with two classes only the second has a logit, and the first's is fixed at 0.
"""

import numpy as np
from scipy.special import expit, log_expit, log_softmax


def n_outputs(n_classes):
    """Number of logits of a row."""
    return 1 if n_classes == 2 else n_classes


def n_classes(n_outputs):
    """Number of classes that so many logits stand for."""
    return max(n_outputs, 2)


def curvature_bound(n_outputs):
    """Largest eigenvalue that the cross-entropy's second derivative with respect to the logits can have (Boehning 1992)."""
    return 0.25 if n_outputs == 1 else 0.5


def mean_curvature(z, weight):
    """The mean of z (1 - z) of each output, (n_outputs,): the loss's second derivative along its logit."""
    if weight is None:
        return (z * (1 - z)).mean(axis=0)
    return np.einsum("nk,n->k", z * (1 - z), weight) / weight.sum()  # np.average takes ten times as long


def decision_values(logits):
    """Logits in scikit-learn's shape, (n_rows,) for two classes."""
    return logits[:, 0] if logits.shape[1] == 1 else logits


# ---- what a prediction may be asked for

# Of each row: its logits, the probabilities of its classes, their logarithms, the most probable class, or its loss and whether
# its class is the most probable one.
OUTPUTS = ("logits", "probabilities", "log_probabilities", "classes", "losses")


def new_result(output, n_rows, n_outputs, dtype):
    """An array for one of OUTPUTS, to be filled: probabilities in the type of the logits, losses (2, n_rows) in float64."""
    if output == "classes":
        return np.empty(n_rows, dtype=np.int64)
    if output == "losses":
        return np.empty((2, n_rows))
    return np.empty((n_rows, n_outputs if output == "logits" else n_classes(n_outputs)), dtype=dtype)


def fill(result, output, rows, logits, y):
    """Compute one of OUTPUTS for the slice `rows` from their logits; return whether these are finite.

    The kernels of the CPU do the same, a few rows at a time.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # the caller is told of what is not finite
        if output == "classes":
            result[rows] = class_numbers(logits)
        elif output == "losses":
            result[:, rows] = losses(logits, y[rows])
        elif output == "logits":
            result[rows] = logits
        else:
            result[rows] = (probabilities if output == "probabilities" else log_probabilities)(logits)
    return bool(np.isfinite(logits).all())


def class_numbers(logits):
    """The most probable class of each row."""
    return (logits[:, 0] > 0).astype(int) if logits.shape[1] == 1 else logits.argmax(axis=1)


def probabilities(logits):
    """(n_rows, n_classes) of the type of the logits, computed in float64."""
    h = logits.astype(np.float64, copy=False)
    z = np.hstack([expit(-h), expit(h)]) if h.shape[1] == 1 else output_probabilities(h)
    return z.astype(logits.dtype, copy=False)


def output_probabilities(logits):
    """(n_rows, n_outputs): those of the classes that have a logit. Of float64."""
    if logits.shape[1] == 1:
        return expit(logits)
    with np.errstate(over="ignore"):  # logits that differ by more than float64's range
        z = np.exp(logits - logits.max(axis=1, keepdims=True))
    z /= z.sum(axis=1, keepdims=True)
    return z


def log_probabilities(logits):
    """Logarithms of the probabilities, the lowest finite number where one is below that."""
    z = logits.astype(np.float64)
    with np.errstate(over="ignore"):
        z = np.hstack([log_expit(-z), log_expit(z)]) if z.shape[1] == 1 else log_softmax(z, axis=1)
    return np.maximum(z, np.finfo(logits.dtype).min).astype(logits.dtype)


def losses(logits, y):
    """(2, n_rows): the cross-entropy for class numbers y, computed in float64, and whether y is the most probable class."""
    z, correct = logits.astype(np.float64, copy=False), class_numbers(logits) == y
    if z.shape[1] == 1:
        return np.stack([-log_expit(np.where(y == 1, z[:, 0], -z[:, 0])), correct])
    return np.stack([-log_softmax(z, axis=1)[np.arange(len(y)), y], correct])
