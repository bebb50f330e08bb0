"""The bridge to scikit-learn's callbacks. Nothing else in skdl knows of sklearn.callback, which is experimental."""

from sklearn.callback import CallbackSupportMixin, with_callbacks

from skdl._sgd import EpochHooks

__all__ = ["CallbackHooks", "CallbackSupportMixin", "with_callbacks"]


class CallbackHooks(EpochHooks):
    """One task an epoch. `fitted` are attributes that a model of this moment has beside coef_ and intercept_."""

    def __init__(self, estimator, n_epochs, fitted, **data):
        self.estimator, self.fitted, self.data = estimator, fitted, data
        # Without callbacks nobody is called: the attribute is scikit-learn's own, whatever its name.
        self.watches = any(value for name, value in vars(estimator).items() if "callbacks" in name)
        self.fit_context = estimator._init_callback_context(max_subtasks=n_epochs)
        self.fit_context.call_on_fit_task_begin(estimator=estimator, **data)

    def _attributes(self, current):
        """A function that makes the fitted attributes of this moment, if a callback asks for them."""

        def attributes():
            coef, intercept = current()
            return {**self.fitted, "coef_": coef, "intercept_": intercept}

        return attributes

    def begin(self, current):
        if not self.watches:
            return
        self.context = self.fit_context.subcontext(task_name="epoch")
        self.context.call_on_fit_task_begin(
            estimator=self.estimator, reconstruction_attributes=self._attributes(current), **self.data
        )

    def end(self, current):
        return self.watches and self.context.call_on_fit_task_end(
            estimator=self.estimator, reconstruction_attributes=self._attributes(current), **self.data
        )

    def close(self):
        self.fit_context.call_on_fit_task_end(estimator=self.estimator, reconstruction_attributes={}, **self.data)
