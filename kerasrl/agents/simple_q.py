"""Q-learning with a replay buffer and a target network, and nothing more."""

import keras

from kerasrl.agents import exploration
from kerasrl.agents.off_policy import OffPolicyAgent
from kerasrl.losses import (
    mean_value,
    q_learning_targets,
    select_actions,
    td_errors,
    td_loss,
)
from kerasrl.models import QFunction, QNetwork
from kerasrl.optimizers import Adam
from kerasrl.training import passes, schedules
from kerasrl.training.hyperparameters import Hyperparameter


@keras.saving.register_keras_serializable("kerasrl")
class SimpleQ(OffPolicyAgent):
    """Deep Q-learning in its first form, to read and to start from.

    Learns `Q(s, a) = r + gamma * max_a' Q_target(s', a')` from uniformly drawn
    transitions. `kerasrl.DQN` has the improvements that came after.

    Paper: Mnih et al. (2015), https://doi.org/10.1038/nature14236.

    Args:
        policy: `None` for a `kerasrl.models.QNetwork`, a dict of arguments of it, a
            Keras model to be its trunk, or a `kerasrl.models.QFunction`.
        exploration: Probability of a random action; see `kerasrl.DQN`.
        learning_starts, train_every, tau, target_update_interval, **kwargs: As for
            `kerasrl.OffPolicyAgent`.

    Example:

    ```python
    kerasrl.SimpleQ().fit("CartPole-v1", steps=50_000)
    ```
    """

    policy_base: type = QFunction
    default_policy: type = QNetwork

    kinds = {"exploration": Hyperparameter(schedules.probabilities, "now")}

    def __init__(
        self,
        policy=None,
        exploration=0.1,
        learning_starts=1_000,
        train_every=4,
        tau=1.0,
        target_update_interval=500,
        **kwargs,
    ):
        super().__init__(
            policy,
            learning_starts=learning_starts,
            train_every=train_every,
            tau=tau,
            target_update_interval=target_update_interval,
            **kwargs,
        )
        self.exploration = exploration

    def default_optimizer(self):
        return Adam(1e-3, epsilon=1e-8)

    def exploration_inputs(self, num_envs):
        return exploration.epsilon_inputs(self, num_envs)

    def act(self, inputs, deterministic):
        return exploration.act_epsilon_greedy(self, inputs, deterministic)

    def loss(self, batch, outputs, settings):
        with self.target.scope():
            next_outputs = passes.next_outputs(self.policy, batch)
        targets = q_learning_targets(
            batch["rewards"], batch["discounts"], next_outputs["q_values"]
        )
        taken = self.policy.combinations.number(batch["actions"])
        values = select_actions(outputs["q_values"], taken)
        loss, metrics = td_loss(values, targets, batch["weights"])
        return loss, {
            **metrics,
            "q_value": mean_value(values),
            "td_errors": td_errors(values, targets),
        }
