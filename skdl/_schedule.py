"""The step size of each minibatch, and when an epoch is the last."""

import numpy as np

from skdl._backends import ceil_div
from skdl._convergence import EPOCHS_PER_MEASUREMENT, NEAR


def step_sizes(schedule, lr, n_batches, epoch, n_falling, n_epochs=1):
    """The step size of each minibatch of n_epochs from `epoch` on: from lr down to 0 after `n_falling` epochs in all."""
    done = (np.arange(epoch, epoch + n_epochs)[:, np.newaxis] + np.arange(n_batches) / n_batches) / n_falling
    if schedule == "linear":
        return lr * (1 - done)
    if schedule == "cosine":
        return lr * 0.5 * (1 + np.cos(np.pi * done))
    return np.full((n_epochs, n_batches), lr)


# The mean validation loss over so many updates says whether it falls.
FLAT_UPDATES = 300
# The share of its first size to which a step must have fallen.
FALLEN = 0.1


class Schedule:
    """Steps that hold before they fall, where nobody has asked for a fall from the first epoch on.

    "Warm-up, stable, decay" without the warm-up (Hu et al. 2024, MiniCPM): while the step holds, an epoch is like the next, so
    that a loss that no longer falls means that the optimum is near, and the fall may begin. At the latest it begins after half
    of the epochs. Before the epoch `settled_from` the objective may still change, and no loss says anything.
    """

    def __init__(self, options, n_batches, settled_from=0):
        self.options, self.n_batches, self.settled_from = options, n_batches, settled_from
        self.n_epochs, self.fall_from = options.max_iter, 0
        half = options.max_iter // 2
        if options.lr_schedule != "constant" and (
            options.early_stopping
            or (options.may_hold and options.tol > 0 and options.l1_ratio == 0 and half >= EPOCHS_PER_MEASUREMENT)
        ):
            self.fall_from = half

    def holds(self, epoch):
        return self.options.lr_schedule != "constant" and epoch < self.fall_from

    def sizes(self, epoch, n_epochs=1):
        """The step size of each minibatch of some epochs, (n_epochs, n_batches), in which the schedule does not change."""
        options, since = self.options, epoch - self.fall_from
        if since < 0:
            return np.full((n_epochs, self.n_batches), options.lr)
        n_falling = self.n_epochs - self.fall_from
        return step_sizes(options.lr_schedule, options.lr, self.n_batches, since, n_falling, n_epochs)

    def next_change(self, epoch):
        """The next epoch, not before `epoch`, at which the schedule changes or training ends."""
        return self.fall_from if self.holds(epoch) else self.n_epochs

    def has_fallen(self, epoch):
        """Whether the weights after this epoch may be kept by early stopping.

        Those of a large step are noisy, and the best of many on the validation set is so by chance.
        """
        [sizes] = self.sizes(epoch)
        return (
            self.options.lr_schedule == "constant" or sizes[-1] < FALLEN * self.options.lr or epoch + 1 == self.n_epochs
        )

    def is_over(self, history, *, measured):
        """Whether a step that holds has done what it can: the loss, or with early stopping that of validation, is flat."""
        options, curve = self.options, history.loss_curve[self.settled_from :]
        if measured and is_flat(curve, len(curve) // 3, NEAR * curve[-1]):
            return True
        n_epochs = max(options.n_iter_no_change, ceil_div(FLAT_UPDATES, self.n_batches))
        return options.early_stopping and is_flat(
            history.validation_loss_curve[self.settled_from :], n_epochs, options.tol
        )

    def fall_after(self, epoch):
        """Let the step fall from the next epoch on, for as many epochs as it has held."""
        self.fall_from = epoch + 1
        self.n_epochs = min(self.n_epochs, 2 * self.fall_from)


def is_flat(curve, n_epochs, tol):
    """Whether the last epochs' mean loss is not at least tol below that of as many epochs before: single ones are noisy."""
    if len(curve) < 2 * n_epochs:
        return False
    return np.mean(curve[-n_epochs:]) > np.mean(curve[-2 * n_epochs : -n_epochs]) - tol


class HeldEpochs:
    """What early stopping keeps of the epochs whose step holds, and whether the optimum has been passed in them.

    Judged are stretches of 1, 2, 4 ... epochs by their mean losses: a single epoch of many may be the best by chance.
    """

    def __init__(self, tol):
        self.tol, self.length, self.before = tol, 1, None  # mean (loss, validation loss) of the stretch before
        self.losses, self.lowest = [], None  # (validation loss, epoch, coef, intercept) of this stretch
        self.best_loss, self.best = (
            np.inf,
            None,
        )  # the lowest mean validation loss, and (epoch, coef, intercept) of that stretch

    def add(self, epoch, losses, parameters):
        """Add (loss, validation loss) and parameters after an epoch. Returns whether the optimum has been passed: from one
        stretch to the next the validation loss rose and that of training, which noise would raise as well, fell.
        """
        self.losses.append(losses)
        if self.lowest is None or losses[1] < self.lowest[0]:
            self.lowest = losses[1], epoch, *parameters
        if len(self.losses) < self.length:
            return False
        mean, before = np.mean(self.losses, axis=0).tolist(), self.before
        if mean[1] < self.best_loss:
            self.best_loss, self.best = mean[1], self.lowest[1:]
        self.length, self.before, self.losses, self.lowest = 2 * self.length, mean, [], None
        return before is not None and mean[0] < before[0] and mean[1] > before[1] + self.tol

    def state(self):
        """As `Course.state` has it."""
        return vars(self).copy()

    def restore(self, state):
        vars(self).update(state)


class Patience:
    """Whether a loss has ceased to fall: no decrease of at least tol for n_iter_no_change epochs."""

    def __init__(self, options):
        self.tol, self.n_iter_no_change = options.tol, options.n_iter_no_change
        self.best, self.epochs_without_change = np.inf, 0

    def is_out(self, loss):
        self.epochs_without_change = self.epochs_without_change + 1 if loss > self.best - self.tol else 0
        self.best = min(self.best, loss)
        return self.epochs_without_change >= self.n_iter_no_change
