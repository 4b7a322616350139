"""TD3 with behaviour cloning."""

from functools import partial

import keras
import tensorflow as tf

from kerasrl import checks, losses
from kerasrl.agents import exploration
from kerasrl.agents.off_policy import OffPolicyAgent
from kerasrl.models import ActionValuePolicy, DeterministicActorCritic
from kerasrl.optimizers import Adam
from kerasrl.spaces import has_floats
from kerasrl.training import critics, gradients
from kerasrl.training.hyperparameters import Hyperparameter


@keras.saving.register_keras_serializable("kerasrl")
class TD3BC(OffPolicyAgent):
    """TD3 whose policy is pulled towards the actions it learns from.

    For datasets of bounded `Box` actions: `fit(dataset, steps=...)`. The policy follows
    the critic, whose values are divided by their mean size, and the squared difference
    from the actions of the data. All else is as in `kerasrl.TD3`. Observations are
    normalized by the statistics of the dataset, which are part of the policy.

    `fit` on an environment goes on from there, towards what is in replay: call
    `dataset.to_replay(agent)` before, for it to begin with the data, and set a larger
    `alpha` to leave them behind.

    Paper: Fujimoto and Gu (2021), https://arxiv.org/abs/2106.06860.

    Args:
        policy: As for `kerasrl.TD3`, but with `normalize_observations=True` in the
            default.
        alpha: Float, weight of the values, after they were divided by their mean size,
            beside the mean squared difference of actions in [-1, 1]. 0 imitates only.
        noise, noise_scale: As for `kerasrl.DDPG`, in environments.
        target_noise, target_noise_clip, policy_delay: As for `kerasrl.TD3`.
        batch_size, **kwargs: As for `kerasrl.OffPolicyAgent`.

    Raises:
        ValueError: The action space is not bounded.

    Example:

    ```python
    agent = kerasrl.TD3BC(gamma=0.98)
    agent.fit(kerasrl.offline.load("runs/pendulum"), steps=20_000)
    ```
    """

    policy_base: type = ActionValuePolicy
    default_policy: type = DeterministicActorCritic

    kinds = {
        **exploration.NOISE_KINDS,
        "alpha": Hyperparameter(partial(checks.positive, zero=True)),
        "target_noise": Hyperparameter(partial(checks.positive, zero=True)),
        "target_noise_clip": Hyperparameter(partial(checks.positive, optional=False)),
        "policy_delay": Hyperparameter(checks.positive_integer),
    }

    def __init__(
        self,
        policy=None,
        alpha=2.5,
        noise="gaussian",
        noise_scale=0.1,
        target_noise=0.2,
        target_noise_clip=0.5,
        policy_delay=2,
        batch_size=256,
        **kwargs,
    ):
        super().__init__(policy, batch_size=batch_size, **kwargs)
        self.alpha = alpha
        self.noise = noise
        self.noise_scale = noise_scale
        self.target_noise = target_noise
        self.target_noise_clip = target_noise_clip
        self.policy_delay = policy_delay
        self.seed_generator = keras.random.SeedGenerator(self.seed)

    due = critics.due_after_delay

    acting_state = exploration.noise_state
    exploration_inputs = exploration.noise_inputs
    act = exploration.act_with_noise

    def make_policy(self, policy):
        self._normalizes = False
        if policy is None or isinstance(policy, dict):
            self._normalizes = "normalize_observations" not in (policy or {})
            policy = {"normalize_observations": True, **(policy or {})}
        return super().make_policy(policy)

    def build(self, observation_space, action_space):
        if self._normalizes and self.policy.observation_space is None:
            # What is asked for by default is not asked for where it cannot be.
            self.policy.normalize_observations = has_floats(observation_space)
        super().build(observation_space, action_space)

    def default_optimizer(self):
        return Adam(3e-4, epsilon=1e-8)

    def parts(self):
        return critics.parts(self.policy)

    @property
    def own_variables(self):
        return [*super().own_variables, self.seed_generator.state]

    def update(self, batch, settings):
        def both():
            metrics = gradients.gradient_step(self, batch, settings)
            # What is logged is the mean over all steps, in some of which it is 0.
            for name in ("policy_loss", "imitation_error", "q_scale"):
                metrics[name] *= self.policy_delay
            return metrics

        def critics_only():
            metrics = gradients.gradient_step(
                self, batch, settings, self.critic_loss, ["critics"]
            )
            none = dict.fromkeys(("policy_loss", "imitation_error", "q_scale"), 0.0)
            return {**metrics, **{k: tf.constant(v) for k, v in none.items()}}

        if self.policy_delay == 1:
            return both()
        return tf.cond(settings["update_policy"], both, critics_only)

    def critic_loss(self, batch, outputs, settings):
        """Computes the loss of the critics alone; see `loss`."""
        smooth = partial(
            critics.smoothed,
            scale=self.target_noise,
            limit=self.target_noise_clip,
            seed=self.seed_generator,
        )
        return critics.critic_loss(self, batch, outputs, smooth)

    def loss(self, batch, outputs, settings):
        critic_loss, metrics = self.critic_loss(batch, outputs, settings)
        samples = critics.Samples(self, batch, outputs)
        actions = self.policy.mode(outputs)
        policy_loss, policy_metrics = losses.regularized_policy_loss(
            samples.judged(actions, first=True),
            actions,
            self.policy.normalize_actions(batch["actions"]),
            self.alpha,
        )
        return critic_loss + policy_loss, {
            **metrics,
            "policy_loss": policy_loss,
            **policy_metrics,
        }
