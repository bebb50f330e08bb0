"""The bridge to scikit-learn's callbacks. Nothing else in skdl knows of sklearn.callback, which is experimental."""

from contextlib import contextmanager, nullcontext
from typing import TypeVar

from skdl._sgd import EpochHooks

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # scikit-learn before 1.9: there is no set_callbacks, and nobody to call

    class _Nobody:
        def call_on_fit_task_begin(self, **task):
            pass

        call_on_fit_task_end = call_on_fit_task_begin

        def subcontext(self, **task):
            return self

        def propagate_callback_context(self, estimator):
            return nullcontext()

    class CallbackSupportMixin:
        def _init_callback_context(self, max_subtasks):
            return _Nobody()

    def with_callbacks(method):
        return method


__all__ = ["CallbackSupportMixin", "Task", "callback_managed"]

Method = TypeVar("Method")


def callback_managed(method: Method) -> Method:
    """scikit-learn's decorator of a method that calls back, with the types of the method, which that one loses."""
    return with_callbacks(method)


class Task:
    """A task of a fit, as callbacks are told of it. Its own tasks are epochs; those of a search are folds, whose are epochs."""

    def __init__(self, context, estimator, data):
        self._context, self._estimator, self._data = context, estimator, data
        # Without callbacks nobody is called: the attribute is scikit-learn's own, whatever its name.
        self.watches = any(value for name, value in vars(estimator).items() if "callbacks" in name)
        context.call_on_fit_task_begin(estimator=estimator, **data)

    @classmethod
    def of_fit(cls, estimator, n_tasks, **data):
        """The whole of an estimator's fit; `data` are what callbacks may ask for: X, y, metadata."""
        return cls(estimator._init_callback_context(max_subtasks=n_tasks), estimator, data)

    def part(self, name, n_tasks):
        """A task in this one."""
        return Task(self._context.subcontext(task_name=name, max_subtasks=n_tasks), self._estimator, self._data)

    def epochs(self, fitted):
        """Hooks that make a task of each epoch; `fitted` are attributes that a model has beside coef_ and intercept_."""
        return CallbackHooks(self._context, self._estimator, fitted, self._data) if self.watches else EpochHooks()

    @contextmanager
    def fit_of(self, estimator):
        """The fit of another estimator as a task in this one."""
        context = self._context.subcontext(task_name="refit")
        with context.propagate_callback_context(estimator):
            context.call_on_fit_task_begin(estimator=self._estimator, **self._data)
            yield
        context.call_on_fit_task_end(estimator=self._estimator, **self._data)

    def close(self):
        fitted = {} if hasattr(self._estimator, "coef_") else None  # nothing is missing, or there is no model
        self._context.call_on_fit_task_end(estimator=self._estimator, reconstruction_attributes=fitted, **self._data)


class CallbackHooks(EpochHooks):
    """One task an epoch."""

    watches = True

    def __init__(self, parent, estimator, fitted, data):
        self._parent, self._estimator, self._fitted, self._data = parent, estimator, fitted, data

    def _attributes(self, current):
        """A function that makes the fitted attributes of this moment, if a callback asks for them."""

        def attributes():
            coef, intercept = current()
            return {**self._fitted, "coef_": coef, "intercept_": intercept}

        return attributes

    def begin(self, current, n_blocks=1):
        self._context = self._parent.subcontext(task_name="epoch", max_subtasks=n_blocks if n_blocks > 1 else 0)
        self._context.call_on_fit_task_begin(
            estimator=self._estimator, reconstruction_attributes=self._attributes(current), **self._data
        )

    def block_done(self):
        context = self._context.subcontext(task_name="blocks")
        context.call_on_fit_task_begin(estimator=self._estimator, **self._data)
        context.call_on_fit_task_end(estimator=self._estimator, **self._data)

    def end(self, current):
        return self._context.call_on_fit_task_end(
            estimator=self._estimator, reconstruction_attributes=self._attributes(current), **self._data
        )
