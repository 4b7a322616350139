"""Advantage actor-critic."""

from functools import partial

import keras

from kerasrl import checks
from kerasrl.agents.on_policy import OnPolicyAgent
from kerasrl.losses import (
    entropy_bonus,
    explained_variance,
    gae,
    policy_gradient,
    standardize,
    value_loss,
)
from kerasrl.optimizers import RMSprop
from kerasrl.training import gradients, passes, schedules
from kerasrl.training.hyperparameters import Hyperparameter


@keras.saving.register_keras_serializable("kerasrl")
class A2C(OnPolicyAgent):
    """Synchronous advantage actor-critic.

    Collects a short rollout, estimates advantages and takes one gradient step on all
    of it.

    Paper: Mnih et al. (2016), https://arxiv.org/abs/1602.01783.

    Args:
        policy: As for `kerasrl.OnPolicyAgent`.
        rollout_length: Integer, steps collected in each environment per iteration.
        gamma: Float, discount factor.
        gae_lambda: Float in [0, 1]. 1 gives the n-step returns of the paper.
        value_coef: Float, weight of the value loss (mean squared error).
        entropy_coef: Float or schedule (see `PPO`), weight of the entropy bonus.
        max_grad_norm: Float or `None`, bound of the global norm of the gradient.
        normalize_advantages: Whether advantages are standardized.
        normalize_rewards: As for `kerasrl.OnPolicyAgent`.
        seed: Integer or `None`.

    Example:

    ```python
    kerasrl.A2C().fit("CartPole-v1", steps=200_000)
    ```
    """

    uses_values = True
    scheduled = ("entropy_coef",)
    distribution_needs = ("sample", "mode", "log_prob", "entropy")

    kinds = {
        "gae_lambda": Hyperparameter(checks.fraction),
        "value_coef": Hyperparameter(partial(checks.positive, zero=True)),
        "entropy_coef": Hyperparameter(schedules.schedulable, "now"),
        "normalize_advantages": Hyperparameter(checks.flag),
    }

    def __init__(
        self,
        policy=None,
        rollout_length=5,
        gamma=0.99,
        gae_lambda=1.0,
        value_coef=0.5,
        entropy_coef=0.0,
        max_grad_norm=0.5,
        normalize_advantages=False,
        normalize_rewards=False,
        seed=None,
    ):
        super().__init__(
            policy, rollout_length, gamma, max_grad_norm, normalize_rewards, seed
        )
        self.gae_lambda = gae_lambda
        self.value_coef = value_coef
        self.entropy_coef = entropy_coef
        self.normalize_advantages = normalize_advantages

    def default_optimizer(self):
        return RMSprop(7e-4, rho=0.99, epsilon=1e-5)

    def targets(self, rollout):
        outputs, next_values = passes.rollout_outputs(self.policy, rollout)
        advantages = gae(
            rollout["rewards"],
            outputs["values"],
            next_values,
            rollout["terminated"],
            rollout["truncated"],
            self.gamma,
            self.gae_lambda,
            rollout["valid"],
        )
        return {
            "advantages": advantages,
            "returns": advantages + outputs["values"],
            "values": outputs["values"],
        }

    def loss(self, batch, outputs, settings):
        mask, advantages = batch["mask"], batch["advantages"]
        if self.normalize_advantages:
            advantages = standardize(advantages, mask)
        distribution = self.policy.distribution(outputs)
        policy_loss, _ = policy_gradient(
            distribution.log_prob(batch["actions"]), advantages, mask
        )
        critic_loss, _ = value_loss(outputs["values"], batch["returns"], mask=mask)
        entropy_loss, metrics = entropy_bonus(distribution.entropy(), mask)
        loss = (
            policy_loss
            + self.value_coef * critic_loss
            + settings["entropy_coef"] * entropy_loss
        )
        return loss, {"policy_loss": policy_loss, "value_loss": critic_loss, **metrics}

    def update(self, batch, settings, minibatches):
        metrics = gradients.gradient_step(self, batch, settings)
        metrics["explained_variance"] = explained_variance(
            batch["values"], batch["returns"], batch["mask"]
        )
        return metrics
