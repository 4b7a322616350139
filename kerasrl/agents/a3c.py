"""Asynchronous advantage actor-critic."""

from functools import partial

import keras

from kerasrl import checks
from kerasrl.agents.on_policy import OnPolicyAgent, rollout_arrays
from kerasrl.losses import (
    entropy_bonus,
    explained_variance,
    gae,
    policy_gradient,
    value_loss,
)
from kerasrl.optimizers import Adam
from kerasrl.training import asynchrony, gradients, passes, schedules
from kerasrl.training.hyperparameters import Hyperparameter
from kerasrl.training.target_network import replaced


@keras.saving.register_keras_serializable("kerasrl")
class A3C(OnPolicyAgent):
    """Asynchronous advantage actor-critic: gradients of the weights that acted.

    Workers act while the learner learns. What a worker acted is learnt from at the
    weights it acted by: advantages, loss and gradient are those of A2C there. The
    gradient is then applied to the present weights, which other workers' gradients have
    moved meanwhile, and only that worker goes on with them. Without workers, or with
    `synchronous=True`, this is A2C, unless there is a `lag`.

    The loss is a mean over steps. Where published settings are for a sum over the steps
    of a fragment, their bound on the norm of the gradient belongs to the sum as well.

    Paper: Mnih et al. (2016), https://arxiv.org/abs/1602.01783. Its optimizer is
    `keras.optimizers.RMSprop(7e-4, rho=0.99, epsilon=0.1)`, in a common implementation.

    Args:
        policy: As for `kerasrl.OnPolicyAgent`. The policy made here has one trunk for
            actions and values, as the paper's; `{"shared_trunk": False}` for two.
        rollout_length: Integer, steps of a fragment in each environment of a worker.
        gamma: Float, discount factor.
        gae_lambda: Float in [0, 1]. 1 gives the n-step returns of the paper.
        value_coef: Float, weight of the value loss (mean squared error).
        entropy_coef: Float or schedule (see `PPO`), weight of the entropy bonus.
        max_grad_norm: Float or `None`, bound of the global norm of the gradient.
        normalize_rewards: As for `kerasrl.OnPolicyAgent`.
        synchronous: Whether workers act in step with learning, by the weights of
            exactly `lag` iterations ago: runs can be repeated, and resumed exactly.
        lag: Integer, for `synchronous=True` or no workers.
        seed: Integer or `None`.

    Example:

    ```python
    agent = kerasrl.A3C()
    agent.fit("CartPole-v1", steps=200_000, num_envs=8, num_workers=2)
    ```
    """

    uses_values = True
    asynchronous = True
    keeps_published = True
    scheduled = ("entropy_coef",)
    distribution_needs = ("sample", "mode", "log_prob", "entropy")

    kinds = {
        "gae_lambda": Hyperparameter(checks.fraction),
        "value_coef": Hyperparameter(partial(checks.positive, zero=True)),
        "entropy_coef": Hyperparameter(schedules.schedulable, "now"),
        "synchronous": Hyperparameter(checks.flag, "fit"),
        "lag": Hyperparameter(checks.natural, "fit"),
    }

    def __init__(
        self,
        policy=None,
        rollout_length=20,
        gamma=0.99,
        gae_lambda=1.0,
        value_coef=0.05,
        entropy_coef=0.01,
        max_grad_norm=None,
        normalize_rewards=False,
        synchronous=False,
        lag=0,
        seed=None,
    ):
        super().__init__(
            policy, rollout_length, gamma, max_grad_norm, normalize_rewards, seed
        )
        self.gae_lambda = gae_lambda
        self.value_coef = value_coef
        self.entropy_coef = entropy_coef
        self.synchronous = synchronous
        self.lag = lag
        self._acted_by = None

    def policy_options(self):
        return {"shared_trunk": True}

    def default_optimizer(self):
        return Adam(1e-3, epsilon=1e-5)

    def arrays(self, rollout):
        weights, are_present = asynchrony.acted_by(self, rollout)
        self._acted_by = weights
        if are_present or rollout.final is None:
            return rollout_arrays(self, rollout)
        # Final observations are valued by the weights that acted, too.
        with asynchrony.set_back(self, weights):
            return rollout_arrays(self, rollout)

    def minibatches(self, rollout):
        return {"weights": self._acted_by}

    def compute_targets(self, rollout, minibatches):
        pairs, _ = asynchrony.values_at(self, minibatches["weights"])
        with replaced(pairs):
            return self.targets(rollout)

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
        return loss, {"policy_loss": policy_loss, "value_loss": critic_loss, **metrics}

    def update(self, batch, settings, minibatches):
        _, at = asynchrony.values_at(self, minibatches["weights"])
        metrics = gradients.gradient_step(self, batch, settings, at=at)
        metrics["explained_variance"] = explained_variance(
            batch["values"], batch["returns"], batch["mask"]
        )
        return metrics
