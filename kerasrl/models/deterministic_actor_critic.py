"""The built-in policy of DDPG and TD3."""

import keras
from gymnasium import spaces as gym_spaces
from keras import ops

from kerasrl.models.off_policy_actor_critic import OffPolicyActorCritic


@keras.saving.register_keras_serializable("kerasrl")
class DeterministicActorCritic(OffPolicyActorCritic):
    """Policy of one action for each observation, and critics that value actions.

    The networks of DDPG (Lillicrap et al. 2016, https://arxiv.org/abs/1509.02971) and,
    with two critics, TD3 (Fujimoto et al. 2018, https://arxiv.org/abs/1802.09477). The
    policy ends in tanh: `mode(outputs)` are the actions, normalized to `[-1, 1]`, and
    `"distribution"` holds, for the agent to add noise to or to penalize, what goes into
    tanh. For bounded `Box` action spaces.

    Policy and critics share nothing but the statistics of observations. The critics
    are computed as one, and share their convolutions, or their copy of `trunk`.

    Hidden layers begin uniform in plus or minus one over the square root of their
    inputs, the last layer of the policy in plus or minus 0.003, as in DDPG's paper: the
    first actions are near the middle, where tanh has a slope.

    Args:
        trunk: `None`, or a Keras layer or model from observations to features
            `[N, F]`, before the hidden layers of the policy. The critics get a copy of
            it (made by `get_config`) with weights of its own. Default: convolutions
            for images, nothing for all else.
        hidden_units: Widths of the dense layers of the policy.
        critic_hidden_units: Widths of the dense layers of each critic, which take the
            features and the action. Default: as `hidden_units`.
        activation: Activation of all hidden layers.
        filters: Sequence of `(channels, kernel, stride)` for images.
        num_critics: Integer, 1 for DDPG, 2 for TD3.
        cell: `None`, `"lstm"` or `"gru"`: memory behind each trunk, one for the policy
            and one for all critics, of observations (and with `previous_inputs` of what
            came before them). Agents then learn from sequences.
        cell_units: Integer, size of the state of each cell, 64 by default.
        previous_inputs: Whether the previous action and reward are fed to the cells.
        normalize_observations: Whether floating-point observations are shifted and
            scaled by running statistics, as for `ActorCritic`.
        kernel_initializer: `"fan_in_uniform"`, `"orthogonal"`, `"normc"` or a Keras
            initializer, of all layers but the last of the policy.
        seed: Integer or `None`, seed of the initializers. Agents fill it in if they
            have a seed.

    Raises:
        ValueError: Arguments contradict each other.

    Example:

    ```python
    policy = kerasrl.models.DeterministicActorCritic(hidden_units=(400, 300))
    agent = kerasrl.TD3(policy=policy)
    ```
    """

    def setup(self, observation_space, action_space):
        if not isinstance(action_space, gym_spaces.Box):
            raise TypeError(
                f"{type(self).__name__} follows the slope of a value along an action, "
                f"so it needs a Box action space. Received: {action_space}. Use "
                "kerasrl.DQN or kerasrl.SAC for discrete actions."
            )
        super().setup(observation_space, action_space)

    def parameters_size(self):
        """One number for each entry of an action, before tanh."""
        return self.action_size

    def mode(self, outputs):
        actions = ops.tanh(outputs["distribution"])
        batch = ops.shape(actions)[:-1]
        return ops.reshape(actions, (*batch, *self.action_space.shape))

    def distribution(self, outputs):
        """Raises: there is one action for each observation."""
        raise TypeError(
            f"{type(self).__name__} has no action distribution. Take the actions with "
            "mode(outputs), or use kerasrl.models.SoftActorCritic."
        )

    def head_initializer(self, seed):
        return keras.initializers.RandomUniform(-3e-3, 3e-3, seed=seed)
