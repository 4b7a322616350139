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
        self.policy = policy

    def scope(self):
        """Within it, the variables followed have the values of the copies."""
        pairs = zip(self.sources, self.variables, strict=True)
        return replaced(self.policy, [(s, v.value) for s, v in pairs])

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
    return replaced(policy, [(v, tf.stop_gradient(v.value)) for v in variables])


@contextlib.contextmanager
def replaced(policy, values):
    """Within it, variables of a policy have other values.

    Args:
        policy: A `kerasrl.models.Policy` with weights.
        values: List of pairs of a variable and a tensor.
    """
    with keras.StatelessScope(values) as scope:
        yield
    # Random generators move on, else the next draw would repeat these. Keras keeps
    # their state as integers, of a type that depends on the backend.
    for variable in policy.variables:
        if variable.dtype in ("int64", "uint32"):
            moved = scope.get_current_value(variable)
            if moved is not None:
                variable.assign(moved)
