"""The contract of action distributions."""

import math

import numpy as np
from keras import ops

from kerasrl.losses.shapes import check_same_shape, static_shape


class Distribution:
    """A distribution over actions, made from one tensor of parameters.

    The base class of the distributions that policies act by. A policy network emits the
    parameters, `[..., P]`; the distribution gives them meaning. All leading dimensions
    are batch dimensions: a distribution of parameters `[T, B, P]` is `T * B`
    independent distributions, and every method answers for each of them.

    Subclasses implement `parameters_size`, `sample`, `mode`, `log_prob`, `entropy` and
    `kl` with `keras.ops` and `keras.random`, so that they work on arrays, in compiled
    functions and in acting programs without TensorFlow. They compute in float32.
    `options_for` says what else their constructor is given. `PPO` needs `kl` only where
    it has a penalty on it.

    One that is registered with `keras.saving.register_keras_serializable` is given to
    policies, `ActorCritic(distribution=...)`, by its class or its registered name.

    Args:
        parameters: Float `[..., P]`.

    Example:

    ```python
    @keras.saving.register_keras_serializable("mine")
    class Logistic(kerasrl.distributions.Distribution):
        @staticmethod
        def parameters_size(action_space):
            return action_space.shape[0]

        def mode(self):
            return self.parameters
        ...

    agent = kerasrl.PPO(policy={"distribution": Logistic})
    ```
    """

    # Shape of one action where it is not flat; set by subclasses.
    shape = None

    #: Whether it takes weights besides the parameters to say what a distribution is.
    has_weights = False

    def __init__(self, parameters):
        given = static_shape(parameters)
        if given is not None and len(given) == 0:
            raise ValueError(
                f"{type(self).__name__} needs parameters of shape [..., P]. Received a "
                "scalar. Put the parameters of one action on the last axis."
            )
        self.parameters = ops.cast(parameters, "float32")

    @staticmethod
    def parameters_size(action_space):
        """Number of parameters P that a policy must emit for one action.

        Args:
            action_space: A Gymnasium space.

        Returns:
            Int.
        """
        raise NotImplementedError("Distributions must define parameters_size.")

    @staticmethod
    def options_for(action_space):
        """Arguments of the constructor, beyond the parameters, for an action space.

        Args:
            action_space: A Gymnasium space.

        Returns:
            Dict of keyword arguments. Here none.
        """
        return {}

    def sample(self, seed=None):
        """Draws one action from each distribution.

        Args:
            seed: Int, `keras.random.SeedGenerator`, or None for Keras's global one.

        Returns:
            Actions `[..., *shape]`.
        """
        raise self._missing("sample")

    def mode(self):
        """Most probable action.

        Returns:
            Actions `[..., *shape]`.
        """
        raise self._missing("mode")

    def log_prob(self, actions):
        """Logarithm of the probability (or density) of actions.

        Args:
            actions: `[..., *shape]`, one for each distribution.

        Returns:
            Float32 `[...]`, in nats.

        Raises:
            ValueError: The shape is another one; nothing is broadcast.
        """
        raise self._missing("log_prob")

    def entropy(self):
        """Entropy (differential, if the actions are continuous).

        Returns:
            Float32 `[...]`, in nats.
        """
        raise self._missing("entropy")

    def kl(self, other):
        """Kullback-Leibler divergence KL(self || other), exact.

        Args:
            other: Distribution of the same class and shape.

        Returns:
            Float32 `[...]`, in nats, not negative but for rounding.

        Raises:
            TypeError: `other` is of another class.
            ValueError: The shapes differ.
        """
        raise self._missing("kl")

    def get_config(self):
        """Nothing: policies keep the name of the class.

        Keras registers no class without this method.
        """
        return {}

    def _missing(self, method):
        return NotImplementedError(f"{type(self).__name__} must define {method}.")

    def _check_kl(self, other):
        if type(other) is not type(self):
            raise TypeError(
                f"KL divergence is defined between two {type(self).__name__}s. "
                f"Received: {type(other).__name__}."
            )
        check_same_shape(self=self.parameters, other=other.parameters)

    def _check_actions(self, actions, shape):
        """Compares actions with the batch dimensions followed by `shape`."""
        batch, received = static_shape(self.parameters), static_shape(actions)
        if batch is None or received is None:
            return
        expected = (*batch[:-1], *shape)
        if len(received) != len(expected) or any(
            r is not None and e is not None and r != e
            for r, e in zip(received, expected, strict=True)
        ):
            raise ValueError(
                f"{type(self).__name__}.log_prob needs one action for each "
                f"distribution. Received: actions of shape {received}, expected "
                f"{expected} for parameters of shape {batch}. Nothing is broadcast "
                "here."
            )

    def _unflatten(self, actions):
        """Gives actions `[..., D]` the shape of the action space."""
        if self.shape is None or len(self.shape) == 1:
            return actions
        return ops.reshape(actions, (*ops.shape(actions)[:-1], *self.shape))

    def _flatten(self, actions, size):
        """Checks actions `[..., *shape]` and makes them `[..., D]`."""
        shape = (size,) if self.shape is None else self.shape
        self._check_actions(actions, shape)
        if len(shape) == 1:
            return actions
        batch = ops.shape(self.parameters)[:-1]
        return ops.reshape(actions, (*batch, math.prod(shape)))


def spread_seed(seed, count):
    """Seeds with which several parts draw, each for itself.

    Args:
        seed: As for `Distribution.sample`.
        count: Int, how many are needed.

    Returns:
        List of seeds.

    Example:

    ```python
    spread_seed(None, 2)  # [None, None]
    ```
    """
    if not isinstance(seed, (int, np.integer)):
        return [seed] * count
    # With the same number all parts would draw alike.
    states = np.random.SeedSequence(int(seed)).generate_state(count)
    return [int(state) for state in states >> 1]


def check_last_axis(name, parameters, size, why):
    """Raises unless the last axis of the parameters has the size wanted.

    Args:
        name: Str, name of the distribution.
        parameters: `[..., P]`.
        size: Int, the P wanted.
        why: Str, where that number comes from.

    Raises:
        ValueError: P is known and another number.

    Example:

    ```python
    check_last_axis("Categorical", np.zeros((8, 3)), 2, "2 actions")  # ValueError
    ```
    """
    shape = static_shape(parameters)
    if shape and shape[-1] is not None and shape[-1] != size:
        raise ValueError(
            f"{name} needs parameters of shape [..., {size}] ({why}). Received shape "
            f"{shape}. Make the last layer of the policy {size} units wide."
        )


def space_error(name, action_space, wanted):
    """TypeError for an action space that a distribution is not made for."""
    return TypeError(
        f"{name} is a distribution for {wanted} action spaces. Received: "
        f"{action_space!r}. `distribution_for(action_space)` picks the right one."
    )
