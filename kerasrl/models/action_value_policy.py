"""The contract of policies that learn from action-values: DDPG, TD3, SAC."""

import keras
import numpy as np
from gymnasium import spaces as gym_spaces
from keras import ops

from kerasrl import spaces
from kerasrl.distributions.distribution_for import DistributionType, distribution_for
from kerasrl.distributions.tanh_gaussian import TanhGaussian
from kerasrl.models.combinations import DISCRETE, Combinations
from kerasrl.models.policy import Policy


@keras.saving.register_keras_serializable("kerasrl")
class ActionValuePolicy(Policy):
    """Base class of policies with critics: networks that value actions.

    What `kerasrl.DDPG`, `kerasrl.TD3` and `kerasrl.SAC` act with and train. It is a
    `Policy` of which `call` computes only the policy; critics are asked with
    `q_values`. Between policy and critics, entries of `Box` actions are NORMALIZED to
    `[-1, 1]`; `scale_actions` and `normalize_actions` convert to and from the units of
    the action space. The distribution is `TanhGaussian` for `Box` actions, with a mean
    and a log standard deviation for each entry, and `Categorical` over all actions for
    discrete ones: `Discrete`, `MultiDiscrete` and `MultiBinary`, of which every
    combination of choices is an action, in the order of `self.combinations`.

    `call(inputs, state=None, training=False)` returns a dict with `"distribution"`,
    `[N, P]`, `P` being `self.num_parameters`. A subclass also defines

    | method | content |
    |---|---|
    | `q_values(observations, actions=None, training=False)` | see there |
    | `critic_variables()` | list of the trainable variables of the critics |

    Args:
        **kwargs: As for `keras.Model`.

    Example:

    ```python
    @keras.saving.register_keras_serializable()
    class MyPolicy(kerasrl.models.ActionValuePolicy):
        def setup(self, observation_space, action_space):
            super().setup(observation_space, action_space)
            self.actor = keras.layers.Dense(self.num_parameters)
            self.critic = keras.layers.Dense(1)

        def call(self, inputs, state=None, training=False):
            return {"distribution": self.actor(inputs["observations"])}

        def q_values(self, observations, actions=None, training=False):
            inputs = keras.ops.concatenate([observations, actions], axis=-1)
            return keras.ops.transpose(self.critic(inputs))  # [1, N]: one critic

        def critic_variables(self):
            return self.critic.trainable_variables
    ```
    """

    def setup(self, observation_space, action_space):
        """Makes the layers that depend on the spaces. Extend it, calling `super()`.

        Args:
            observation_space: `gymnasium.spaces.Space` of one environment.
            action_space: `Box` with finite bounds, `Discrete`, `MultiDiscrete` or
                `MultiBinary`.

        Raises:
            TypeError: The action space is of another kind.
            ValueError: The `Box` is unbounded.
        """
        self.observation_space = observation_space
        self.action_space = action_space
        self.is_discrete = isinstance(action_space, DISCRETE)
        if self.is_discrete:
            self.combinations = Combinations(action_space)
            self.distribution_type = distribution_for(
                gym_spaces.Discrete(self.combinations.count)
            )
        else:
            self._check_box(action_space)
            # Halves are taken first, so that the widest bounds do not overflow.
            low = np.asarray(action_space.low, np.float64) / 2
            high = np.asarray(action_space.high, np.float64) / 2
            self.action_center = high + low
            # An entry with one possible value is that value, whatever is emitted.
            self.action_radius = high - low
            self.action_size = self.action_radius.size
            self.distribution_type = DistributionType(
                TanhGaussian,
                TanhGaussian.parameters_size(action_space),
                action_space.shape,
                "float32",
                shape=action_space.shape,
            )
        self.num_parameters = self.parameters_size()

    def parameters_size(self):
        """Returns how many numbers `P` describe the policy at one observation.

        Extend it together with `distribution` or `mode`, for a policy that is not
        described by the default distribution.
        """
        return self.distribution_type.parameters_size

    def build(self, input_shape):
        """Makes the weights of the critics, which `call` does not use."""
        self._ask_critics()

    def q_values(self, observations, actions=None, training=False):
        """Values actions, or every action if they are discrete.

        Args:
            observations: Tree `[N, ...]` as in the observation space.
            actions: Float `[N, *shape]`, normalized to `[-1, 1]`; `None` for discrete
                action spaces.
            training: Bool, as in Keras.

        Returns:
            Float32 `[num_critics, N]`, and `[num_critics, N, A]` for discrete action
            spaces.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define q_values(observations, actions=None, "
            "training=False); see the docstring of kerasrl.models.ActionValuePolicy."
        )

    def first_q_values(self, observations, actions):
        """Values actions by the first critic alone, as the policy of DDPG and TD3 does.

        Override it where that is cheaper than all of `q_values`.

        Args:
            observations, actions: As for `q_values`.

        Returns:
            Float32 `[N]`, and `[N, A]` for discrete action spaces.
        """
        return self.q_values(observations, actions)[0]

    def remembered_q_values(self, outputs, observations, actions=None, training=False):
        """Values actions within a sequence, by critics that may have a memory.

        Override it where the critics remember: `call` then returns what they do under
        a key of its own. Here they see the observations only.

        Args:
            outputs: Dict, what `call` or `unroll` returned for the observations.
            observations, actions, training: As for `q_values`.

        Returns:
            As from `q_values`.
        """
        return self.q_values(observations, actions, training)

    def first_remembered_q_values(self, outputs, observations, actions):
        """As `first_q_values`, within a sequence.

        Args:
            outputs, observations, actions: As for `remembered_q_values`.
        """
        return self.remembered_q_values(outputs, observations, actions)[0]

    def critic_variables(self):
        """Returns the list of the trainable variables of the critics."""
        raise NotImplementedError(
            f"{type(self).__name__} must define critic_variables(); see the docstring "
            "of kerasrl.models.ActionValuePolicy."
        )

    def policy_variables(self):
        """Returns the other trainable variables: those of the policy."""
        critics = {id(variable) for variable in self.critic_variables()}
        return [v for v in self.trainable_variables if id(v) not in critics]

    def mode(self, outputs):
        """Returns the actions to take without exploring.

        Args:
            outputs: Dict with the key `"distribution"`, `[..., P]`.

        Returns:
            Float32 `[..., *shape]`, normalized to `[-1, 1]`, or, for discrete action
            spaces, int32 `[..., *shape]`.
        """
        actions = self.distribution(outputs).mode()
        return self.combinations.actions(actions) if self.is_discrete else actions

    def normalize_actions(self, actions):
        """Maps actions from the bounds of the action space to `[-1, 1]`.

        Args:
            actions: `[..., *shape]` in units of the action space. Those beyond its
                bounds go beyond `[-1, 1]`; nothing is clipped.

        Returns:
            `[..., *shape]` of the same dtype, or float32 if that is an integer. An
            entry whose bounds are equal becomes 0.
        """
        actions, center, radius = self._with_bounds(actions)
        return (actions - center) / ops.where(radius > 0, radius, 1)

    def scale_actions(self, actions):
        """Maps actions from `[-1, 1]` to the bounds of the action space.

        The inverse of `normalize_actions`, but for rounding.

        Args:
            actions: `[..., *shape]`, normalized.

        Returns:
            `[..., *shape]` of the same dtype, in units of the action space.
        """
        actions, center, radius = self._with_bounds(actions)
        return actions * radius + center

    def _with_bounds(self, actions):
        if self.is_discrete:
            raise TypeError(
                f"Actions of {self.action_space} have no bounds to normalize. Use them "
                "as they are."
            )
        actions = ops.convert_to_tensor(actions)
        dtype = keras.backend.standardize_dtype(actions.dtype)
        if "float" not in dtype:
            dtype = "float32"
            actions = ops.cast(actions, dtype)
        bounds = (self.action_center, self.action_radius)
        return actions, *(ops.convert_to_tensor(x.astype(dtype)) for x in bounds)

    def _check_box(self, action_space):
        if not isinstance(action_space, gym_spaces.Box):
            raise TypeError(
                f"{type(self).__name__} needs a Box action space, or a Discrete one if "
                f"its class says so. Received: {action_space}. Use kerasrl.PPO, which "
                "takes any, or flatten the actions with a wrapper."
            )
        if not action_space.is_bounded("both"):
            raise ValueError(
                f"{type(self).__name__} normalizes actions to [-1, 1], so the action "
                f"space must have finite bounds. Received: {action_space}. Wrap the "
                "environment in gymnasium.wrappers.ClipAction after giving it a finite "
                "action_space, or in gymnasium.wrappers.RescaleAction."
            )

    def _check_outputs(self, outputs):
        if isinstance(outputs, dict):
            super()._check_outputs(outputs)
        else:
            raise ValueError(
                f"{type(self).__name__}.call returned {type(outputs).__name__}. "
                'Expected a dict with the key "distribution"; see the docstring of '
                "kerasrl.models.ActionValuePolicy."
            )
        self._check_q_values()
        self._check_variables()

    def _ask_critics(self):
        """Values one action, and tells what shape the answer should have."""
        observations = spaces.zeros(self.observation_space, 1)
        if self.is_discrete:
            shape = ("num_critics", 1, self.combinations.count)
            return self.q_values(observations), shape
        actions = np.zeros((1, *self.action_space.shape), np.float32)
        return self.q_values(observations, actions), ("num_critics", 1)

    def _check_q_values(self):
        q_values, expected = self._ask_critics()
        shape = tuple(q_values.shape)
        dtype = keras.backend.standardize_dtype(q_values.dtype)
        fits = len(shape) == len(expected) and shape[1:] == expected[1:]
        if not fits or dtype != "float32":
            raise ValueError(
                f"{type(self).__name__}.q_values returned {dtype} of shape {shape} for "
                "a batch of 1. Expected float32 of shape "
                f"({', '.join(map(str, expected))}) for the action space "
                f"{self.action_space}."
            )

    def _check_variables(self):
        trainable = {id(variable) for variable in self.trainable_variables}
        critics = {id(variable) for variable in self.critic_variables()}
        if not critics or not critics < trainable:
            raise ValueError(
                f"{type(self).__name__}.critic_variables returned {len(critics)} "
                f"variables, {len(critics & trainable)} of them among the "
                f"{len(trainable)} trainable variables of the model. Expected some of "
                "those, but not all: the others are the policy's."
            )
