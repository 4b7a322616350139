"""Importance weighted actor-learner architecture."""

from functools import partial

import keras
import numpy as np

from kerasrl import checks
from kerasrl.agents.on_policy import OnPolicyAgent
from kerasrl.losses import (
    entropy_bonus,
    explained_variance,
    policy_gradient,
    ratio_metrics,
    value_loss,
    vtrace,
)
from kerasrl.optimizers import Adam
from kerasrl.rollouts.recent import RecentRollouts
from kerasrl.training import gradients, passes, schedules
from kerasrl.training.dummy import example_rollout
from kerasrl.training.hyperparameters import Hyperparameter


@keras.saving.register_keras_serializable("kerasrl")
class IMPALA(OnPolicyAgent):
    """Actor-critic that corrects by V-trace for having been acted by older weights.

    Workers act while the learner learns, by weights that are some updates old. Each
    fragment of theirs is one gradient step, on targets and advantages that weigh every
    step by how much likelier its action has become. Policies may be recurrent; then a
    fragment starts with the state that acting had there.

    The loss is a mean over steps. The paper, and most implementations, take the sum
    over a batch: their learning rate for Adam can be kept, a bound of 40 on the norm of
    a sum is 40 divided by the steps of a batch here, and the ratio of `entropy_coef` to
    `value_coef` is the same, but that theirs is of half the squared error.

    Paper: Espeholt et al. (2018), https://arxiv.org/abs/1802.01561.

    Args:
        policy: As for `kerasrl.OnPolicyAgent`. The policy made here has one trunk for
            actions and values, as the paper's; `{"shared_trunk": False}` for two.
        rollout_length: Integer, steps of a fragment in each environment of a worker.
        gamma: Float, discount factor.
        trace_lambda: Float in [0, 1], weight of what lies further ahead. 1 gives
            n-step returns, as in the paper.
        clip_rho: Float, bound of the ratios that weigh errors. It decides which values
            are learnt: the larger, the nearer to those of the present policy.
        clip_c: Float, bound of the ratios that carry errors back in time.
        clip_pg: Float, bound of the ratios that weigh advantages.
        vtrace: Whether there is a correction. Without, experience counts as if the
            present weights had acted: that of A2C, which does not last long once they
            have moved on.
        value_coef: Float, weight of the value loss (mean squared error).
        entropy_coef: Float or schedule (see `PPO`), weight of the entropy bonus.
        max_grad_norm: Float or `None`, bound of the global norm of the gradient.
        replay_proportion: Float, how many rollouts of a while ago are learnt from again
            for each new one, each with targets of the then present weights.
        replay_slots: Integer, the latest rollouts that they are drawn from.
        normalize_rewards: As for `kerasrl.OnPolicyAgent`.
        fragments_per_update: Integer, fragments of asynchronous workers that one update
            learns from, or `None` for half as many as there are workers.
        synchronous: Whether workers act in step with learning, by the weights of
            exactly `lag` iterations ago: runs can be repeated, and resumed exactly.
        lag: Integer, for `synchronous=True` or no workers.
        seed: Integer or `None`.

    Example:

    ```python
    agent = kerasrl.IMPALA()
    agent.fit("CartPole-v1", steps=200_000, num_envs=8, num_workers=2)
    ```
    """

    uses_values = True
    keeps_distribution = True
    asynchronous = True
    scheduled = ("entropy_coef",)
    distribution_needs = ("sample", "mode", "log_prob", "entropy")

    kinds = {
        "trace_lambda": Hyperparameter(checks.fraction),
        "clip_rho": Hyperparameter(partial(checks.positive, zero=True)),
        "clip_c": Hyperparameter(partial(checks.positive, zero=True)),
        "clip_pg": Hyperparameter(partial(checks.positive, zero=True)),
        "vtrace": Hyperparameter(checks.flag),
        "value_coef": Hyperparameter(partial(checks.positive, zero=True)),
        "entropy_coef": Hyperparameter(schedules.schedulable, "now"),
        "replay_proportion": Hyperparameter(partial(checks.positive, zero=True), "now"),
        "replay_slots": Hyperparameter(checks.positive_integer, "now"),
        "fragments_per_update": Hyperparameter(
            partial(checks.positive_integer, optional=True), "fit"
        ),
        "synchronous": Hyperparameter(checks.flag, "fit"),
        "lag": Hyperparameter(checks.natural, "fit"),
    }

    def __init__(
        self,
        policy=None,
        rollout_length=16,
        gamma=0.99,
        trace_lambda=1.0,
        clip_rho=1.0,
        clip_c=1.0,
        clip_pg=1.0,
        vtrace=True,
        value_coef=0.05,
        entropy_coef=0.01,
        max_grad_norm=None,
        replay_proportion=0.0,
        replay_slots=16,
        normalize_rewards=False,
        fragments_per_update=None,
        synchronous=False,
        lag=0,
        seed=None,
    ):
        self.recent = RecentRollouts()
        self._replays = False
        super().__init__(
            policy, rollout_length, gamma, max_grad_norm, normalize_rewards, seed
        )
        self.trace_lambda = trace_lambda
        self.clip_rho = clip_rho
        self.clip_c = clip_c
        self.clip_pg = clip_pg
        self.vtrace = vtrace
        self.value_coef = value_coef
        self.entropy_coef = entropy_coef
        self.replay_proportion = replay_proportion
        self.replay_slots = replay_slots
        self.fragments_per_update = fragments_per_update
        self.synchronous = synchronous
        self.lag = lag

    def policy_options(self):
        return {"shared_trunk": True}

    def default_optimizer(self):
        return Adam(1e-3, epsilon=1e-5)

    def targets(self, rollout):
        outputs, next_values = passes.rollout_outputs(self.policy, rollout)
        acting, _ = passes.acted(self.policy, rollout, outputs)
        distribution = self.policy.distribution(outputs)
        log_ratios = distribution.log_prob(rollout["actions"]) - acting
        targets, advantages = vtrace(
            log_ratios if self.vtrace else keras.ops.zeros_like(log_ratios),
            rollout["rewards"],
            outputs["values"],
            next_values,
            rollout["terminated"],
            rollout["truncated"],
            self.gamma,
            self.trace_lambda,
            self.clip_rho,
            self.clip_c,
            self.clip_pg,
            rollout["valid"],
        )
        return {
            "advantages": advantages,
            "returns": targets,
            "values": outputs["values"],
            "log_ratios": log_ratios,
        }

    def loss(self, batch, outputs, settings):
        mask = batch["mask"]
        distribution = self.policy.distribution(outputs)
        policy_loss, _ = policy_gradient(
            distribution.log_prob(batch["actions"]), batch["advantages"], mask
        )
        critic_loss, _ = value_loss(outputs["values"], batch["returns"], mask=mask)
        entropy_loss, metrics = entropy_bonus(distribution.entropy(), mask)
        loss = (
            policy_loss
            + self.value_coef * critic_loss
            + settings["entropy_coef"] * entropy_loss
        )
        return loss, {
            "policy_loss": policy_loss,
            "value_loss": critic_loss,
            **metrics,
            **ratio_metrics(batch["log_ratios"], self.clip_rho, mask),
        }

    def update(self, batch, settings, minibatches):
        metrics = gradients.gradient_step(self, batch, settings)
        metrics["explained_variance"] = explained_variance(
            batch["values"], batch["returns"], batch["mask"]
        )
        return metrics

    def learn_scaled(self, rollout):
        logs = super().learn_scaled(rollout)
        if self.replay_proportion:
            self.recent.add(rollout, self.replay_slots)
            for old in self.recent.draw(self.rng, self.replay_proportion):
                self._replays = True
                try:
                    found = super().learn_scaled(old)
                finally:
                    self._replays = False
                if not np.isfinite(found.get("loss", 0.0)):
                    return found  # Which ends training.
        return logs

    def arrays(self, rollout):
        arrays = super().arrays(rollout)
        # What is replayed was seen, and counted, when it was new.
        return {**arrays, "counts": arrays["valid"] & (not self._replays)}

    # State ----------------------------------------------------------------------

    def get_state(self):
        return {**super().get_state(), "recent": self.recent.get_state()}

    def get_arrays(self):
        return {**super().get_arrays(), **self.recent.get_arrays("recent")}

    def set_state(self, state, arrays):
        super().set_state(state, arrays)
        example = example_rollout(self, 1, 1)
        self.recent.set_state(state["recent"], arrays, "recent", example)
