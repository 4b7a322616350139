"""Running a policy with other values in its variables."""

import contextvars
import functools
import zlib

import keras
import tensorflow as tf


class TargetNetwork:
    """A copy of variables that follows them slowly.

    The policy itself is run with the copied values, inside `scope`; there is no second
    model.

    Args:
        variables: List of variables to follow, of a `kerasrl.models.Policy`.
        before: `None`, or a target network whose copies of them are taken.

    Example:

    ```python
    target = TargetNetwork(policy.trainable_variables)
    with target.scope():
        next_q_values = policy(next_inputs)["q_values"]
    target.follow(tau=0.005)
    ```
    """

    def __init__(self, variables, before=None):
        self.sources = list(variables)
        self.variables = [
            keras.Variable(variable, trainable=False, name=f"target_{variable.name}")
            for variable in self.sources
        ]
        if before is not None:
            copies = dict(zip(map(id, before.sources), before.variables, strict=True))
            for source, variable in zip(self.sources, self.variables, strict=True):
                variable.assign(copies.get(id(source), variable))

    def scope(self):
        """Within it, the variables followed have the values of the copies."""
        pairs = zip(self.sources, self.variables, strict=True)
        return replaced([(s, v.value) for s, v in pairs])

    def copy(self):
        """Makes the copies equal to the variables."""
        for source, variable in zip(self.sources, self.variables, strict=True):
            variable.assign(source)

    def covers(self, variables):
        """Whether variables are all among those that are followed."""
        return {id(variable) for variable in variables} <= set(map(id, self.sources))

    def fingerprint(self):
        """Returns a number that changes with the values of the variables followed."""
        arrays = [keras.ops.convert_to_numpy(source) for source in self.sources]
        return functools.reduce(lambda crc, x: zlib.crc32(x.tobytes(), crc), arrays, 0)

    def follow(self, tau):
        """Moves the copies towards the variables by a share `tau`, 1 to equal them."""
        for source, variable in zip(self.sources, self.variables, strict=True):
            variable.assign((1.0 - tau) * variable.value + tau * source.value)


def frozen(policy):
    """Returns a scope in which no gradient reaches the critics of a policy.

    Args:
        policy: A `kerasrl.models.ActionValuePolicy`.

    Example:

    ```python
    with frozen(policy):
        policy_loss = -keras.ops.mean(policy.q_values(observations, actions))
    ```
    """
    variables = policy.critic_variables()
    return replaced([(v, tf.stop_gradient(v.value)) for v in variables])


def replaced(values, **kwargs):
    """Returns a scope in which variables have other values.

    Whatever else is assigned inside is assigned for good. Random generators in
    particular move on, wherever they are kept: else the next draw would repeat these.
    Within another such scope, what that replaced stays replaced.

    Args:
        values: List of pairs of a `keras.Variable` and a tensor.
        **kwargs: As for `keras.StatelessScope`.
    """
    return _ReplacedValues(values, **kwargs)


#: The scopes that are open, the innermost last. To Keras there is only that one.
_OPEN = contextvars.ContextVar("open", default=())


class _ReplacedValues(keras.StatelessScope):
    """A stateless scope that only holds the state it was given."""

    def __enter__(self):
        around = _OPEN.get()
        if around:
            self.state_mapping = {**around[-1].state_mapping, **self.state_mapping}
        _OPEN.set((*around, self))
        return super().__enter__()

    def __exit__(self, *args, **kwargs):
        _OPEN.set(_OPEN.get()[:-1])
        return super().__exit__(*args, **kwargs)

    def add_update(self, update):
        variable, value = update
        if self.get_current_value(variable) is not None:
            super().add_update(update)
            return
        # At once and not at the end: inside a loop in the graph, that is too late.
        self.__exit__()
        try:
            variable.assign(value)
        finally:
            self.__enter__()
