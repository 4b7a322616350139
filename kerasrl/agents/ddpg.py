"""Deep deterministic policy gradient."""

from functools import partial

import keras
from keras import ops

from kerasrl import checks, losses
from kerasrl.agents import exploration
from kerasrl.agents.off_policy import OffPolicyAgent
from kerasrl.models import ActionValuePolicy, DeterministicActorCritic
from kerasrl.optimizers import Adam
from kerasrl.training import plans, terms
from kerasrl.training.hyperparameters import Hyperparameter
from kerasrl.training.targets import frozen


@keras.saving.register_keras_serializable("kerasrl")
class DDPG(OffPolicyAgent):
    """Deep deterministic policy gradient, for bounded `Box` actions.

    Learns the value of continuous actions from replayed transitions, and a
    deterministic policy that goes up its slope. Noise on the actions explores.
    `kerasrl.TD3` has the remedies for its overestimation of values.

    Paper: Lillicrap et al. (2015), https://arxiv.org/abs/1509.02971.

    Args:
        policy: `None` for a `kerasrl.models.DeterministicActorCritic` with one critic,
            a dict of arguments of it, a Keras model to be its trunk, or a
            `kerasrl.models.ActionValuePolicy`.
        noise: `"gaussian"` (white) or `"ornstein_uhlenbeck"` (drifting).
        noise_scale: Float, schedule, or list of one float per environment: standard
            deviation of the noise on actions scaled to [-1, 1].
        batch_size, **kwargs: As for `kerasrl.OffPolicyAgent`.

    Raises:
        ValueError: The action space is not bounded.

    Example:

    ```python
    kerasrl.DDPG(gamma=0.98).fit("Pendulum-v1", steps=20_000)
    ```
    """

    policy_base: type = ActionValuePolicy
    default_policy: type = DeterministicActorCritic

    kinds = {
        "noise": Hyperparameter(
            partial(checks.choice, choices=exploration.NOISES), "act"
        ),
        "noise_scale": Hyperparameter(plans.rates, "now"),
    }

    def __init__(
        self,
        policy=None,
        noise="gaussian",
        noise_scale=0.1,
        batch_size=256,
        **kwargs,
    ):
        super().__init__(policy, batch_size=batch_size, **kwargs)
        self.noise = noise
        self.noise_scale = noise_scale

    def policy_options(self):
        return {"num_critics": 1}

    def default_optimizer(self):
        return Adam(1e-3, epsilon=1e-8)

    def parts(self):
        policy = self.policy
        critics, actor = policy.critic_variables(), policy.policy_variables()
        return {"critics": critics, "policy": actor}

    def acting_state(self):
        return exploration.noise_state(self)

    def exploration_inputs(self, num_envs):
        return exploration.noise_inputs(self, num_envs)

    def act(self, inputs, deterministic):
        return exploration.act_with_noise(self, inputs, deterministic)

    def loss(self, batch, outputs, settings):
        policy, next_observations = self.policy, batch["next_observations"]
        with self.target.scope():
            next_outputs = policy({"observations": next_observations})
            next_actions = policy.mode(next_outputs)
            next_values = policy.q_values(next_observations, next_actions)
        targets = losses.td_targets(
            batch["rewards"], batch["discounts"], ops.min(next_values, axis=0)
        )
        actions = policy.normalize_actions(batch["actions"])
        with terms.training_pass():
            values = policy.q_values(batch["observations"], actions, training=True)
        critic_loss, metrics, errors = losses.critics_loss(
            values, targets, batch["weights"]
        )
        with frozen(policy):
            own_values = policy.first_q_values(
                batch["observations"], policy.mode(outputs)
            )
        policy_loss, _ = losses.deterministic_policy_gradient(own_values)
        return critic_loss + policy_loss, {
            "critic_loss": critic_loss,
            "policy_loss": policy_loss,
            **metrics,
            "q_value": ops.mean(values),
            "td_errors": errors,
        }
