"""Asynchronous proximal policy optimization."""

from functools import partial

import keras
import numpy as np
import tensorflow as tf

from kerasrl import checks
from kerasrl.agents.on_policy import OnPolicyAgent
from kerasrl.losses import (
    clipped_surrogate,
    entropy_bonus,
    gae,
    kl_penalty,
    ratio_metrics,
    standardize,
    surrogate_reference,
    value_loss,
    vtrace,
)
from kerasrl.optimizers import Adam
from kerasrl.training import passes, proximal, schedules
from kerasrl.training.hyperparameters import Hyperparameter
from kerasrl.training.target_network import TargetNetwork


@keras.saving.register_keras_serializable("kerasrl")
class APPO(OnPolicyAgent):
    """Proximal policy optimization on what older weights acted.

    Workers act while the learner learns. PPO's clipped surrogate holds for experience
    of any policy near the present one, so that a few updates of lag do little harm, and
    many make learning slower rather than fail. Without lag, this is PPO. Losses are
    means over steps, as PPO's are.

    With a target network, the ratio is clipped around that instead of the policy that
    acted, as in RLlib: `min(acted / target, 2) * trained / acted`. With `vtrace`,
    advantages are those of V-trace, for the target network if there is one. They lose
    what `gae_lambda` gains unless policies are far apart.

    Papers: https://arxiv.org/abs/1912.00167 and https://arxiv.org/abs/2006.11751.

    Args:
        policy: As for `kerasrl.OnPolicyAgent`.
        rollout_length: Integer, steps of a fragment in each environment of a worker.
        num_epochs, minibatch_size, gamma: As for `PPO`, of what one update has.
        gae_lambda: Float in [0, 1], of generalized advantages and of V-trace.
        clip_ratio: As for `PPO`.
        reciprocal_clip: Whether the ratio is clipped to `[1 / (1 + clip_ratio), 1 +
            clip_ratio]`, as in Sample Factory.
        value_clip, value_coef, entropy_coef, kl_coef, target_kl: As for `PPO`. The
            divergence is from the target network, if there is one.
        vtrace: Whether advantages and targets of the values are those of V-trace.
        clip_rho, clip_c, clip_pg: Floats, bounds of its ratios, as for `IMPALA`.
        target_network: Whether there is one.
        target_update_interval: Integer, iterations until it is the policy again. Who
            calls `learn_from` by hand adds to `agent.iterations`, which count them.
        max_grad_norm, normalize_advantages, normalize_rewards: As for `PPO`.
        fragments_per_update, synchronous, lag: As for `IMPALA`.
        seed: Integer or `None`.

    Example:

    ```python
    agent = kerasrl.APPO(num_epochs=2)
    agent.fit("CartPole-v1", steps=200_000, num_envs=8, num_workers=2)
    ```
    """

    uses_values = True
    keeps_distribution = True
    asynchronous = True
    scheduled = ("clip_ratio", "entropy_coef", "kl_coef")

    kinds = {
        "num_epochs": Hyperparameter(checks.positive_integer, "now"),
        "minibatch_size": Hyperparameter(checks.positive_integer, "now"),
        "gae_lambda": Hyperparameter(checks.fraction),
        "clip_ratio": Hyperparameter(partial(schedules.schedulable, zero=False), "now"),
        "reciprocal_clip": Hyperparameter(checks.flag),
        "value_clip": Hyperparameter(checks.positive),
        "value_coef": Hyperparameter(partial(checks.positive, zero=True)),
        "entropy_coef": Hyperparameter(schedules.schedulable, "now"),
        "kl_coef": Hyperparameter(schedules.schedulable, "now"),
        "target_kl": Hyperparameter(checks.positive),
        "vtrace": Hyperparameter(checks.flag),
        **dict.fromkeys(
            ("clip_rho", "clip_c", "clip_pg"),
            Hyperparameter(partial(checks.positive, zero=True)),
        ),
        "target_network": Hyperparameter(checks.flag, "never"),
        "target_update_interval": Hyperparameter(checks.positive_integer, "now"),
        "normalize_advantages": Hyperparameter(checks.flag),
        "fragments_per_update": Hyperparameter(
            partial(checks.positive_integer, optional=True), "fit"
        ),
        "synchronous": Hyperparameter(checks.flag, "fit"),
        "lag": Hyperparameter(checks.natural, "fit"),
    }

    def __init__(
        self,
        policy=None,
        rollout_length=32,
        num_epochs=4,
        minibatch_size=128,
        gamma=0.99,
        gae_lambda=0.95,
        clip_ratio=0.2,
        reciprocal_clip=False,
        value_clip=None,
        value_coef=0.5,
        entropy_coef=0.0,
        kl_coef=0.0,
        target_kl=None,
        vtrace=False,
        clip_rho=1.0,
        clip_c=1.0,
        clip_pg=1.0,
        target_network=False,
        target_update_interval=1,
        max_grad_norm=0.5,
        normalize_advantages=True,
        normalize_rewards=False,
        fragments_per_update=None,
        synchronous=False,
        lag=0,
        seed=None,
    ):
        #: The target network, `None` without.
        self.target = None
        super().__init__(
            policy, rollout_length, gamma, max_grad_norm, normalize_rewards, seed
        )
        self.num_epochs = num_epochs
        self.minibatch_size = minibatch_size
        self.gae_lambda = gae_lambda
        self.clip_ratio = clip_ratio
        self.reciprocal_clip = reciprocal_clip
        self.value_clip = value_clip
        self.value_coef = value_coef
        self.entropy_coef = entropy_coef
        self.kl_coef = kl_coef
        self.target_kl = target_kl
        self.vtrace = vtrace
        self.clip_rho = clip_rho
        self.clip_c = clip_c
        self.clip_pg = clip_pg
        self.target_network = target_network
        self.target_update_interval = target_update_interval
        self.normalize_advantages = normalize_advantages
        self.fragments_per_update = fragments_per_update
        self.synchronous = synchronous
        self.lag = lag

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
        acting, parameters = passes.acted(self.policy, rollout, outputs)
        reference, log_probs = acting, proximal.log_probs(self.policy, rollout, outputs)
        if self.target is not None:
            with self.target.scope():
                old, _ = passes.rollout_outputs(self.policy, rollout)
                log_probs = proximal.log_probs(self.policy, rollout, old)
            parameters = old["distribution"]
            reference = surrogate_reference(log_probs, acting)
        log_ratios = log_probs - acting
        ends = rollout["terminated"], rollout["truncated"]
        experience = rollout["rewards"], outputs["values"], next_values, *ends
        experience += self.gamma, self.gae_lambda
        if self.vtrace:
            clips = self.clip_rho, self.clip_c, self.clip_pg
            returns, advantages = vtrace(
                log_ratios, *experience, *clips, rollout["valid"]
            )
        else:
            advantages = gae(*experience, rollout["valid"])
            returns = advantages + outputs["values"]
        return {
            "advantages": advantages,
            "returns": returns,
            "values": outputs["values"],
            "log_probs": reference,
            "near_log_probs": acting if self.target is None else log_probs,
            "log_ratios": log_ratios,
            "distribution": parameters,
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
            self.reciprocal_clip,
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
            **ratio_metrics(batch["log_ratios"], self.clip_rho, mask),
            **metrics,
        }

    def minibatches(self, rollout):
        minibatches = proximal.draw_epochs(self, rollout)
        if self.target is not None:
            due = (self.iterations + 1) % self.target_update_interval == 0
            minibatches["update_target"] = np.array(due)
        return minibatches

    def update(self, batch, settings, minibatches):
        metrics = proximal.take_epochs(self, batch, settings, minibatches)
        if self.target is not None:
            self.target.follow(tf.where(minibatches["update_target"], 1.0, 0.0))
        return metrics

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

    # The target network ---------------------------------------------------------

    def build(self, observation_space, action_space):
        super().build(observation_space, action_space)
        if self.target is None and self.target_network:
            self.follow(self.target_sources())

    def target_sources(self):
        """Returns the variables that the target network follows."""
        return self.policy.trainable_variables

    def follow(self, variables):
        """Makes the target network of variables; those it has keep their copies."""
        self.target = TargetNetwork(variables, self.target)
        self._compiled_update = None

    def prepare_optimizer(self):
        super().prepare_optimizer()
        if self.target is not None and not self.target.covers(self.target_sources()):
            self.follow(self.target_sources())

    def weights_were_set(self):
        super().weights_were_set()
        if self.target is not None:
            self.target.copy()

    def start_learning(self, num_envs):
        super().start_learning(num_envs)
        if self.target is not None and self.iterations == 0:
            # Whatever set the weights, such as layers of a network trained elsewhere.
            self.target.copy()

    @property
    def own_variables(self):
        return [] if self.target is None else self.target.variables
