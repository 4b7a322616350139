"""Implicit Q-learning."""

from functools import partial

import keras
from keras import ops

from kerasrl import checks, losses
from kerasrl.agents import exploration
from kerasrl.agents.off_policy import OffPolicyAgent
from kerasrl.models import ActionValuePolicy, ImplicitActorCritic
from kerasrl.optimizers import Adam
from kerasrl.training import critics, passes
from kerasrl.training.hyperparameters import Hyperparameter

#: Actions of the data are taken to be at most so far from the middle of their bounds.
_INSIDE = 0.999


@keras.saving.register_keras_serializable("kerasrl")
class IQL(OffPolicyAgent):
    """Learns from a dataset without ever valuing an action that is not in it.

    The values of states are an expectile of the values of the actions of the data: near
    1, what the best of them are worth. They make the targets of the critics. The policy
    imitates the data, each action weighed by `exp(beta * (Q - V))`.

    For bounded `Box` and for discrete actions: `fit(dataset, steps=...)`. `fit` on an
    environment goes on from there; `dataset.to_replay(agent)` before has it begin with
    the data.

    Paper: Kostrikov et al. (2021), https://arxiv.org/abs/2110.06169.

    Args:
        policy: `None` for a `kerasrl.models.ImplicitActorCritic`, a dict of arguments
            of it, a Keras model to be its trunk, or another
            `kerasrl.models.ActionValuePolicy` that returns `"values"` and has
            `value_variables()`.
        expectile: Float in [0, 1], 0.5 for the mean of the data.
        beta: Float, how much more better actions weigh.
        max_weight: Float, the greatest weight of an action.
        batch_size, **kwargs: As for `kerasrl.OffPolicyAgent`.

    Raises:
        ValueError: A `Box` action space is not bounded.

    Example:

    ```python
    agent = kerasrl.IQL(expectile=0.8)
    agent.fit(kerasrl.offline.load("runs/pendulum"), steps=20_000)
    ```
    """

    policy_base: type = ActionValuePolicy
    default_policy: type = ImplicitActorCritic
    uses_values = True

    kinds = {
        "expectile": Hyperparameter(checks.fraction),
        "beta": Hyperparameter(partial(checks.positive, zero=True)),
        "max_weight": Hyperparameter(partial(checks.positive, optional=False)),
    }

    def __init__(
        self,
        policy=None,
        expectile=0.7,
        beta=3.0,
        max_weight=100.0,
        batch_size=256,
        **kwargs,
    ):
        super().__init__(policy, batch_size=batch_size, **kwargs)
        self.expectile = expectile
        self.beta = beta
        self.max_weight = max_weight

    def default_optimizer(self):
        return Adam(3e-4, epsilon=1e-8)

    def target_sources(self):
        return self.policy.critic_variables()

    def parts(self):
        values = self.policy.value_variables()
        return {**critics.parts(self.policy), "values": values}

    def exploration_inputs(self, num_envs):
        return {"random": exploration.random_until_learning(self, num_envs)}

    act = exploration.act_stochastically

    def loss(self, batch, outputs, settings):
        policy, values = self.policy, outputs["values"]
        actions = batch["actions"]
        if policy.is_discrete:
            numbers = policy.combinations.number(actions)
            log_probs = policy.distribution(outputs).log_prob(numbers)
        else:
            numbers, actions = None, policy.normalize_actions(actions)
            # Tanh reaches no bound.
            inside = ops.clip(actions, -_INSIDE, _INSIDE)
            log_probs = policy.distribution(outputs).log_prob(inside)
        given = (batch["observations"], None if policy.is_discrete else actions)
        with self.target.scope():
            target_q_values = self._taken(policy.q_values(*given), numbers)
        target_values = ops.min(ops.stop_gradient(target_q_values), axis=0)
        values_loss = losses.expectile_loss(values, target_values, self.expectile)
        weights = losses.exponential_weights(
            target_values - values, self.beta, max_weight=self.max_weight
        )
        policy_loss, policy_metrics = losses.weighted_imitation(log_probs, weights)
        next_values = ops.stop_gradient(passes.next_outputs(policy, batch)["values"])
        samples = critics.Samples(self, batch, outputs)
        q_values = critics.trained_q_values(policy, *given)
        critic_loss, critic_metrics = samples.critic_loss(
            self._taken(q_values, numbers), next_values
        )
        return critic_loss + policy_loss + values_loss, {
            "policy_loss": policy_loss,
            "value_loss": values_loss,
            "imitation_weight": ops.mean(weights),
            **policy_metrics,
            **critic_metrics,
        }

    def _taken(self, q_values, numbers):
        """Of the values of all discrete actions, those of the data, `[C, N]`."""
        if numbers is None:
            return q_values
        taken = ops.broadcast_to(numbers, ops.shape(q_values)[:-1])
        return losses.select_actions(q_values, taken)
