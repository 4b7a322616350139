"""Proximal policy optimization."""

from functools import partial

import keras

from kerasrl import checks
from kerasrl.agents.on_policy import OnPolicyAgent
from kerasrl.losses import (
    clipped_surrogate,
    entropy_bonus,
    gae,
    kl_penalty,
    standardize,
    value_loss,
)
from kerasrl.optimizers import Adam
from kerasrl.training import passes, proximal, schedules
from kerasrl.training.hyperparameters import Hyperparameter


@keras.saving.register_keras_serializable("kerasrl")
class PPO(OnPolicyAgent):
    """Proximal policy optimization with a clipped surrogate objective.

    Collects a rollout, estimates advantages by GAE, then takes several epochs of
    minibatch steps on it, all in one compiled call. For recurrent policies, minibatches
    are made of whole sequences of `rollout_length` steps.

    Papers: Schulman et al. (2017), https://arxiv.org/abs/1707.06347; GAE,
    https://arxiv.org/abs/1506.02438.

    Args:
        policy: As for `kerasrl.OnPolicyAgent`.
        rollout_length: Integer, steps collected in each environment per iteration.
        num_epochs: Integer, times that each step is used.
        minibatch_size: Integer, steps per minibatch; the whole rollout if it is
            smaller. For recurrent policies rounded down to whole sequences.
        gamma: Float, discount factor.
        gae_lambda: Float in [0, 1], 0 for one-step and 1 for full returns.
        clip_ratio: Float or schedule; the probability ratio is clipped to
            `[1 - clip_ratio, 1 + clip_ratio]`.
        value_clip: `None`, or a float: how far a value may move from that at
            collection before its loss is cut off.
        value_coef: Float, weight of the value loss (mean squared error).
        entropy_coef: Float or schedule, weight of the entropy bonus.
        kl_coef: Float, first weight of a penalty on the KL divergence from the policy
            that collected the rollout. 0 for none.
        target_kl: Float or `None`. With `kl_coef`, the weight is multiplied by 1.5
            when the divergence exceeds twice this, halved when it is below half of it.
            Without, the epochs end early when a minibatch exceeds 1.5 times this.
        max_grad_norm: Float or `None`, bound of the global norm of the gradient.
        normalize_advantages: Whether advantages of a minibatch are standardized.
        normalize_rewards: As for `kerasrl.OnPolicyAgent`.
        seed: Integer or `None`.

    Schedules are `keras.optimizers.schedules` objects of environment steps, or
    functions of the progress of `fit`, from 0 to 1. The schedule of the learning rate
    belongs to the optimizer. The default, Adam at 1e-3, suits minibatches of 256 and
    small networks; large ones, for images above all, are usually trained at 2.5e-4.

    Example:

    ```python
    agent = kerasrl.PPO(clip_ratio=lambda progress: 0.2 * (1 - progress))
    agent.compile(kerasrl.optimizers.Adam(3e-4, epsilon=1e-5))
    agent.fit("CartPole-v1", steps=100_000)
    ```
    """

    uses_values = True
    keeps_distribution = True
    scheduled = ("clip_ratio", "entropy_coef", "kl_coef")

    kinds = {
        "num_epochs": Hyperparameter(checks.positive_integer, "now"),
        "minibatch_size": Hyperparameter(checks.positive_integer, "now"),
        "gae_lambda": Hyperparameter(checks.fraction),
        "clip_ratio": Hyperparameter(partial(schedules.schedulable, zero=False), "now"),
        "value_clip": Hyperparameter(checks.positive),
        "value_coef": Hyperparameter(partial(checks.positive, zero=True)),
        "entropy_coef": Hyperparameter(schedules.schedulable, "now"),
        "kl_coef": Hyperparameter(schedules.schedulable, "now"),
        "target_kl": Hyperparameter(checks.positive),
        "normalize_advantages": Hyperparameter(checks.flag),
    }

    def __init__(
        self,
        policy=None,
        rollout_length=128,
        num_epochs=10,
        minibatch_size=256,
        gamma=0.99,
        gae_lambda=0.95,
        clip_ratio=0.2,
        value_clip=None,
        value_coef=0.5,
        entropy_coef=0.0,
        kl_coef=0.0,
        target_kl=None,
        max_grad_norm=0.5,
        normalize_advantages=True,
        normalize_rewards=False,
        seed=None,
    ):
        super().__init__(
            policy, rollout_length, gamma, max_grad_norm, normalize_rewards, seed
        )
        self.num_epochs = num_epochs
        self.minibatch_size = minibatch_size
        self.gae_lambda = gae_lambda
        self.clip_ratio = clip_ratio
        self.value_clip = value_clip
        self.value_coef = value_coef
        self.entropy_coef = entropy_coef
        self.kl_coef = kl_coef
        self.target_kl = target_kl
        self.normalize_advantages = normalize_advantages

    def check_hyperparameters(self):
        super().check_hyperparameters()
        proximal.check(self)

    def apply_change(self, name, before):
        super().apply_change(name, before)
        if name == "kl_coef" and proximal.penalizes(before) != self.uses_kl_penalty:
            self._compiled_update = None

    def default_optimizer(self):
        return Adam(1e-3, epsilon=1e-5)

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
        log_probs, acting = passes.acted(self.policy, rollout, outputs)
        return {
            "advantages": advantages,
            "returns": advantages + outputs["values"],
            "values": outputs["values"],
            "log_probs": log_probs,
            "distribution": acting,
        }

    def loss(self, batch, outputs, settings):
        mask, advantages = batch["mask"], batch["advantages"]
        if self.normalize_advantages:
            advantages = standardize(advantages, mask)
        distribution = self.policy.distribution(outputs)
        log_probs = distribution.log_prob(batch["actions"])
        policy_loss, metrics = clipped_surrogate(
            log_probs,
            batch["log_probs"],
            advantages,
            settings["clip_ratio"],
            mask,
        )
        critic_loss, _ = value_loss(
            outputs["values"], batch["returns"], batch["values"], self.value_clip, mask
        )
        entropy_loss, entropy_metrics = entropy_bonus(distribution.entropy(), mask)
        loss = (
            policy_loss
            + self.value_coef * critic_loss
            + settings["entropy_coef"] * entropy_loss
        )
        if self.uses_kl_penalty:
            divergence = proximal.divergence(
                self.policy, batch, distribution, log_probs
            )
            penalty, kl_metrics = kl_penalty(divergence, settings["kl_coef"], mask)
            loss, metrics = loss + penalty, {**metrics, **kl_metrics}
        return loss, {
            "policy_loss": policy_loss,
            "value_loss": critic_loss,
            **entropy_metrics,
            **metrics,
        }

    def minibatches(self, rollout):
        return proximal.draw_epochs(self, rollout)

    def update(self, batch, settings, minibatches):
        return proximal.take_epochs(self, batch, settings, minibatches)

    def learn(self, rollout):
        logs = super().learn(rollout)
        proximal.adapt(self, logs)
        return logs

    @property
    def distribution_needs(self):
        return proximal.needs(self)

    @property
    def uses_kl_penalty(self):
        """Whether the loss has a KL penalty."""
        return proximal.penalizes(self.kl_coef)
