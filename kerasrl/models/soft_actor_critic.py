"""The built-in policy of SAC."""

import keras
from keras import ops

from kerasrl.models import held_noise, torso
from kerasrl.models.off_policy_actor_critic import OffPolicyActorCritic


@keras.saving.register_keras_serializable("kerasrl")
class SoftActorCritic(OffPolicyActorCritic):
    """Stochastic policy, and critics that value actions.

    The networks of soft actor-critic (Haarnoja et al. 2018,
    https://arxiv.org/abs/1812.05905). For bounded `Box` action spaces the policy emits
    means and log standard deviations of a `TanhGaussian`, both depending on the
    observation; for discrete ones (Christodoulou 2019,
    https://arxiv.org/abs/1910.07207) the logits of a `Categorical`, and the critics
    value all actions at once.

    Policy and critics share nothing but the statistics of observations. The critics
    are computed as one, and share their convolutions, or their copy of `trunk`.

    Kernels begin uniform in plus or minus one over the square root of their inputs,
    biases at zero: first actions then spread over the whole range.

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
        num_critics: Integer.
        cell: `None`, `"lstm"` or `"gru"`: memory behind each trunk, one for the policy
            and one for all critics, of observations (and with `previous_inputs` of what
            came before them). Agents then learn from sequences.
        cell_units: Integer, size of the state of each cell, 64 by default.
        previous_inputs: Whether the previous action and reward are fed to the cells.
        normalize_observations: Whether floating-point observations are shifted and
            scaled by running statistics, as for `ActorCritic`.
        initial_log_std: Float, added to the log standard deviations. Used with `Box`
            actions only.
        noise_steps: `None`, or an integer: generalised state-dependent exploration with
            `Box` actions, as for `ActorCritic`. How far actions spread then follows
            from the features before the last layer alone, which learn by it too.
        kernel_initializer: `"fan_in_uniform"`, `"orthogonal"`, `"normc"` or a Keras
            initializer.
        seed: Integer or `None`, seed of the initializers. Agents fill it in if they
            have a seed.

    Raises:
        ValueError: Arguments contradict each other.

    Example:

    ```python
    policy = kerasrl.models.SoftActorCritic(hidden_units=(400, 300))
    agent = kerasrl.SAC(policy=policy)
    ```
    """

    def __init__(
        self,
        trunk=None,
        hidden_units=(256, 256),
        critic_hidden_units=None,
        activation="relu",
        filters=None,
        num_critics=2,
        cell=None,
        cell_units=torso.CELL_UNITS,
        previous_inputs=False,
        normalize_observations=False,
        initial_log_std=0.0,
        noise_steps=None,
        kernel_initializer="fan_in_uniform",
        seed=None,
        **kwargs,
    ):
        super().__init__(
            trunk=trunk,
            hidden_units=hidden_units,
            critic_hidden_units=critic_hidden_units,
            activation=activation,
            filters=filters,
            num_critics=num_critics,
            cell=cell,
            cell_units=cell_units,
            previous_inputs=previous_inputs,
            normalize_observations=normalize_observations,
            kernel_initializer=kernel_initializer,
            seed=seed,
            **kwargs,
        )
        self.initial_log_std = initial_log_std
        self.noise_steps = held_noise.check_noise(noise_steps)
        if cell is not None and self.noise_steps is not None:
            raise ValueError(
                f"Received cell={cell!r} and noise_steps={noise_steps}. Replay keeps "
                "the memory of a policy and not the noise it held: use one of them."
            )

    def setup(self, observation_space, action_space):
        held_noise.check_action_space(self.noise_steps, action_space)
        super().setup(observation_space, action_space)
        if self.is_discrete and self.initial_log_std:
            raise ValueError(
                f"Received initial_log_std={self.initial_log_std} for the action space "
                f"{action_space}, which has no standard deviation. Leave it out."
            )

        if self.noise_steps is not None:
            self.held_noise = held_noise.HeldNoise(
                self.action_size, self.initial_log_std
            )

    def head_units(self):
        return self.num_parameters if self.noise_steps is None else self.action_size

    def head_outputs(self, features):
        outputs = super().head_outputs(features)
        if self.is_discrete:
            return outputs
        if self.held_noise is not None:
            seen = ops.cast(features, "float32")
            parameters = [outputs["distribution"], self.held_noise(seen)]
            return {
                "distribution": ops.concatenate(parameters, axis=-1),
                "noise_features": seen,
            }
        mean, log_std = ops.split(outputs["distribution"], 2, axis=-1)
        parameters = ops.concatenate([mean, log_std + self.initial_log_std], axis=-1)
        return {"distribution": parameters}
