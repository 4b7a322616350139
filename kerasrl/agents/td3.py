"""Twin delayed deep deterministic policy gradient."""

from functools import partial

import keras
import tensorflow as tf
from keras import ops

from kerasrl import checks, losses
from kerasrl.agents import exploration
from kerasrl.agents.off_policy import OffPolicyAgent
from kerasrl.models import ActionValuePolicy, DeterministicActorCritic
from kerasrl.optimizers import Adam
from kerasrl.training import plans, terms, updates
from kerasrl.training.hyperparameters import Hyperparameter
from kerasrl.training.targets import frozen


@keras.saving.register_keras_serializable("kerasrl")
class TD3(OffPolicyAgent):
    """Twin delayed DDPG, for bounded `Box` actions.

    As `kerasrl.DDPG`, with three remedies for overestimated values: the lesser of two
    critics makes the targets, noise smooths the action in them, and the policy and the
    target network are updated less often than the critics.

    Paper: Fujimoto et al. (2018), https://arxiv.org/abs/1802.09477.

    Args:
        policy: `None` for a `kerasrl.models.DeterministicActorCritic`, a dict of
            arguments of it, a Keras model to be its trunk, or a
            `kerasrl.models.ActionValuePolicy`.
        noise, noise_scale: As for `kerasrl.DDPG`.
        target_noise: Float, standard deviation of the noise on actions in targets,
            which are scaled to [-1, 1].
        target_noise_clip: Float, bound of that noise.
        policy_delay: Integer, gradient steps of the critics for one of the policy.
        batch_size, updates_per_call, **kwargs: As for `kerasrl.OffPolicyAgent`.

    Raises:
        ValueError: The action space is not bounded.

    Example:

    ```python
    kerasrl.TD3(gamma=0.98).fit("Pendulum-v1", steps=20_000)
    ```
    """

    policy_base: type = ActionValuePolicy
    default_policy: type = DeterministicActorCritic

    kinds = {
        "noise": Hyperparameter(
            partial(checks.choice, choices=exploration.NOISES), "act"
        ),
        "noise_scale": Hyperparameter(plans.rates, "now"),
        "target_noise": Hyperparameter(partial(checks.positive, zero=True)),
        "target_noise_clip": Hyperparameter(partial(checks.positive, optional=False)),
        "policy_delay": Hyperparameter(checks.positive_integer),
    }

    def __init__(
        self,
        policy=None,
        noise="gaussian",
        noise_scale=0.1,
        target_noise=0.2,
        target_noise_clip=0.5,
        policy_delay=2,
        batch_size=256,
        **kwargs,
    ):
        super().__init__(policy, batch_size=batch_size, **kwargs)
        self.noise = noise
        self.noise_scale = noise_scale
        self.target_noise = target_noise
        self.target_noise_clip = target_noise_clip
        self.policy_delay = policy_delay
        self.seed_generator = keras.random.SeedGenerator(self.seed)

    def default_optimizer(self):
        return Adam(1e-3, epsilon=1e-8)

    def parts(self):
        policy = self.policy
        critics, actor = policy.critic_variables(), policy.policy_variables()
        return {"critics": critics, "policy": actor}

    @property
    def own_variables(self):
        return [*super().own_variables, self.seed_generator.state]

    def acting_state(self):
        return exploration.noise_state(self)

    def exploration_inputs(self, num_envs):
        return exploration.noise_inputs(self, num_envs)

    def act(self, inputs, deterministic):
        return exploration.act_with_noise(self, inputs, deterministic)

    def due(self, numbers):
        after = numbers + 1
        update_policy = after % self.policy_delay == 0
        # What came due in between waits for the policy.
        target_due = self.target_due(after - self.policy_delay, after)
        return {
            "update_policy": update_policy,
            "update_target": target_due & update_policy,
        }

    def update(self, batch, settings):
        def both():
            metrics = updates.gradient_step(self, batch, settings)
            # What is logged is the mean over all steps, in some of which it is 0.
            metrics["policy_loss"] *= self.policy_delay
            return metrics

        def critics_only():
            metrics = updates.gradient_step(
                self, batch, settings, self.critic_loss, ["critics"]
            )
            return {**metrics, "policy_loss": tf.constant(0.0)}

        if self.policy_delay == 1:
            return both()
        return tf.cond(settings["update_policy"], both, critics_only)

    def critic_loss(self, batch, outputs, settings):
        """Computes the loss of the critics alone; see `loss`."""
        policy, next_observations = self.policy, batch["next_observations"]
        with self.target.scope():
            next_outputs = policy({"observations": next_observations})
            next_actions = self._smooth(policy.mode(next_outputs))
            next_values = policy.q_values(next_observations, next_actions)
        targets = losses.td_targets(
            batch["rewards"], batch["discounts"], ops.min(next_values, axis=0)
        )
        actions = policy.normalize_actions(batch["actions"])
        with terms.training_pass():
            values = policy.q_values(batch["observations"], actions, training=True)
        loss, metrics, errors = losses.critics_loss(values, targets, batch["weights"])
        return loss, {
            "critic_loss": loss,
            **metrics,
            "q_value": ops.mean(values),
            "td_errors": errors,
        }

    def loss(self, batch, outputs, settings):
        policy = self.policy
        critic_loss, metrics = self.critic_loss(batch, outputs, settings)
        with frozen(policy):
            values = policy.first_q_values(batch["observations"], policy.mode(outputs))
        policy_loss, _ = losses.deterministic_policy_gradient(values)
        return critic_loss + policy_loss, {**metrics, "policy_loss": policy_loss}

    def _smooth(self, actions):
        if self.target_noise == 0.0:
            return actions
        noise = self.target_noise * keras.random.normal(
            ops.shape(actions), seed=self.seed_generator
        )
        noise = ops.clip(noise, -self.target_noise_clip, self.target_noise_clip)
        return ops.clip(actions + noise, -1.0, 1.0)
