"""Vanilla policy gradient."""

from functools import partial

import keras
from keras import ops

from kerasrl import checks
from kerasrl.agents.on_policy import OnPolicyAgent
from kerasrl.losses import (
    discounted_returns,
    entropy_bonus,
    policy_gradient,
    standardize,
    value_loss,
)
from kerasrl.optimizers import Adam
from kerasrl.training import passes, schedules
from kerasrl.training.hyperparameters import Hyperparameter


@keras.saving.register_keras_serializable("kerasrl")
class PG(OnPolicyAgent):
    """Vanilla policy gradient, REINFORCE with or without a baseline.

    Follows the gradient of `log pi(a|s)` times the discounted return from there on.
    With the baseline, a value function is learnt, subtracted from the return, and
    stands in for what follows where the rollout or a time limit cuts an episode.
    Without it, a return ends at the cut: use a `rollout_length` of several episodes.

    Papers: Williams (1992), https://doi.org/10.1007/BF00992696; Sutton et al. (2000).

    Args:
        policy: As for `kerasrl.OnPolicyAgent`.
        rollout_length: Integer, steps collected in each environment per iteration.
        gamma: Float, discount factor.
        baseline: Whether to learn and use a value function.
        value_coef: Float, weight of the value loss (mean squared error).
        entropy_coef: Float or schedule (see `PPO`), weight of the entropy bonus.
        max_grad_norm: Float or `None`, bound of the global norm of the gradient.
        normalize_advantages: Whether the weights of the gradient are standardized.
        normalize_rewards: As for `kerasrl.OnPolicyAgent`.
        seed: Integer or `None`.

    Example:

    ```python
    kerasrl.PG().fit("CartPole-v1", steps=200_000)
    ```
    """

    scheduled = ("entropy_coef",)
    distribution_needs = ("sample", "mode", "log_prob", "entropy")

    kinds = {
        "baseline": Hyperparameter(checks.flag),
        "value_coef": Hyperparameter(partial(checks.positive, zero=True)),
        "entropy_coef": Hyperparameter(schedules.schedulable, "now"),
        "normalize_advantages": Hyperparameter(checks.flag),
    }

    def __init__(
        self,
        policy=None,
        rollout_length=64,
        gamma=0.99,
        baseline=True,
        value_coef=0.5,
        entropy_coef=0.0,
        max_grad_norm=0.5,
        normalize_advantages=True,
        normalize_rewards=False,
        seed=None,
    ):
        super().__init__(
            policy, rollout_length, gamma, max_grad_norm, normalize_rewards, seed
        )
        self.baseline = baseline
        self.value_coef = value_coef
        self.entropy_coef = entropy_coef
        self.normalize_advantages = normalize_advantages

    def default_optimizer(self):
        return Adam(3e-3, epsilon=1e-5)

    @property
    def uses_values(self):
        return self.baseline

    def targets(self, rollout):
        if self.baseline:
            outputs, next_values = passes.rollout_outputs(self.policy, rollout)
            values = outputs["values"]
        else:
            values = next_values = ops.zeros_like(rollout["rewards"])
        returns = discounted_returns(
            rollout["rewards"],
            next_values,
            rollout["terminated"],
            rollout["truncated"],
            self.gamma,
            rollout["valid"],
        )
        return {"returns": returns, "values": values, "advantages": returns - values}

    def loss(self, batch, outputs, settings):
        mask, advantages = batch["mask"], batch["advantages"]
        if self.normalize_advantages:
            advantages = standardize(advantages, mask)
        distribution = self.policy.distribution(outputs)
        policy_loss, _ = policy_gradient(
            distribution.log_prob(batch["actions"]), advantages, mask
        )
        entropy_loss, metrics = entropy_bonus(distribution.entropy(), mask)
        loss = policy_loss + settings["entropy_coef"] * entropy_loss
        metrics = {"policy_loss": policy_loss, **metrics}
        if self.baseline:
            critic_loss, _ = value_loss(outputs["values"], batch["returns"], mask=mask)
            loss = loss + self.value_coef * critic_loss
            metrics["value_loss"] = critic_loss
        return loss, metrics
