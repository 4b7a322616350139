"""Running a policy with other values in its variables."""

import contextlib

import keras
import tensorflow as tf


class TargetNetwork:
    """A copy of variables that follows them slowly.

    The policy itself is run with the copied values, inside `scope`; there is no second
    model.

    Args:
        policy: A `kerasrl.models.Policy` with weights.
        variables: List of variables to follow, of the policy.

    Example:

    ```python
    target = TargetNetwork(policy, policy.trainable_variables)
    with target.scope():
        next_q_values = policy(next_inputs)["q_values"]
    target.follow(tau=0.005)
    ```
    """

    def __init__(self, policy, variables):
        self.sources = list(variables)
        self.variables = [
            keras.Variable(variable, trainable=False, name=f"target_{variable.name}")
            for variable in self.sources
        ]
        # Keras keeps the state of random generators as integers among the variables, of
        # a type that depends on the backend.
        self._seeds = [v for v in policy.variables if v.dtype in ("int64", "uint32")]

    @contextlib.contextmanager
    def scope(self):
        """Within it, the variables followed have the values of the copies."""
        values = [
            (s, v.value) for s, v in zip(self.sources, self.variables, strict=True)
        ]
        with keras.StatelessScope(values) as scope:
            yield
        # Random generators move on, else the next draw would repeat these.
        for seed in self._seeds:
            moved = scope.get_current_value(seed)
            if moved is not None:
                seed.assign(moved)

    def follow(self, tau):
        """Moves the copies towards the variables by a share `tau`, 1 to equal them."""
        for source, variable in zip(self.sources, self.variables, strict=True):
            variable.assign((1.0 - tau) * variable.value + tau * source.value)


def frozen(variables):
    """Returns a scope in which no gradient reaches some variables.

    Args:
        variables: List of variables.

    Example:

    ```python
    with frozen(policy.critic_variables()):
        policy_loss = -keras.ops.mean(policy.q_values(observations, actions))
    ```
    """
    return keras.StatelessScope([(v, tf.stop_gradient(v.value)) for v in variables])
