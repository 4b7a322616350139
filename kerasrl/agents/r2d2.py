"""Recurrent experience replay in distributed reinforcement learning."""

from functools import partial

import keras
from keras import ops

from kerasrl import checks, losses
from kerasrl.agents import exploration, sequences
from kerasrl.agents.off_policy import OffPolicyAgent
from kerasrl.models import QFunction, QNetwork
from kerasrl.optimizers import Adam
from kerasrl.training import schedules
from kerasrl.training.hyperparameters import Hyperparameter


@keras.saving.register_keras_serializable("kerasrl")
class R2D2(OffPolicyAgent):
    """Recurrent deep Q-learning from sequences, for what a single step does not show.

    Keeps sequences of steps with the recurrent state in which each began. The first
    steps of a sequence, the burn-in, only bring that state up to date; the rest is
    learnt from by double Q-learning over several steps, with rescaled values.

    Paper: Kapturowski et al. (2019), https://openreview.net/forum?id=r1lyTjAqYX.

    Args:
        policy: `None` for a `kerasrl.models.QNetwork` with an LSTM cell, a dict of
            arguments of it, a Keras model to be its trunk, or a recurrent
            `kerasrl.models.QFunction`.
        burn_in: Integer, rows at the start of a sequence that are not learnt from.
        sequence_length: Integer, rows of a sequence that are learnt from.
        period: Integer, steps in each environment between the starts of sequences, and
            of one iteration.
        double: Whether the online network chooses the action that the target network
            values.
        rescaling: Float or `None`, epsilon of `kerasrl.losses.rescale`; `None` learns
            values as they are.
        priority_mixture: Float in [0, 1], weight of the greatest error of a sequence in
            its priority; the mean error has the rest.
        exploration: Probability of a random action, as for `kerasrl.DQN`. Default: a
            different one for each environment of all ranks,
            `kerasrl.agents.epsilon_ladder`.
        n_step, batch_size, train_every, updates_per_call, tau, target_update_interval,
            prioritized, importance_exponent, **kwargs: As for
            `kerasrl.OffPolicyAgent`. The batch size counts sequences. An iteration
            takes the gradient steps that are due since the last one, in compiled calls
            of `updates_per_call` or, if that is more,
            `period * num_envs * gradient_steps / train_every`, rounded down.

    Raises:
        TypeError: The policy is not an action-value network.
        ValueError: The policy is not recurrent.

    Example:

    ```python
    kerasrl.R2D2().fit("CartPole-v1", steps=100_000)
    ```
    """

    policy_base: type = QFunction
    default_policy: type = QNetwork

    learns_sequences = True

    make_buffer = sequences.make_buffer
    iteration_length = sequences.iteration_length
    num_updates = sequences.num_updates
    update = sequences.update

    kinds = {
        **sequences.KINDS,
        "double": Hyperparameter(checks.flag),
        "rescaling": Hyperparameter(checks.positive),
        "priority_mixture": Hyperparameter(checks.fraction),
        "exploration": Hyperparameter(
            partial(schedules.probabilities, optional=True), "now"
        ),
    }

    def __init__(
        self,
        policy=None,
        burn_in=10,
        sequence_length=20,
        period=10,
        double=True,
        rescaling=1e-3,
        priority_mixture=0.9,
        exploration=None,
        n_step=5,
        batch_size=32,
        train_every=20,
        updates_per_call=1,
        tau=1.0,
        target_update_interval=2_000,
        prioritized=True,
        importance_exponent=0.6,
        **kwargs,
    ):
        super().__init__(
            policy,
            n_step=n_step,
            batch_size=batch_size,
            train_every=train_every,
            updates_per_call=updates_per_call,
            tau=tau,
            target_update_interval=target_update_interval,
            prioritized=prioritized,
            importance_exponent=importance_exponent,
            **kwargs,
        )
        self.burn_in = burn_in
        self.sequence_length = sequence_length
        self.period = period
        self.double = double
        self.rescaling = rescaling
        self.priority_mixture = priority_mixture
        self.exploration = exploration

    def policy_options(self):
        return {"cell": "lstm"}

    def build(self, observation_space, action_space):
        super().build(observation_space, action_space)
        if not self.policy.is_recurrent:
            raise ValueError(
                "R2D2 learns recurrent state, and the policy has none. Give it a cell, "
                "as in kerasrl.models.QNetwork(cell='lstm'), or use kerasrl.DQN."
            )

    def default_optimizer(self):
        return Adam(5e-4, epsilon=1e-8)

    def exploration_inputs(self, num_envs):
        return exploration.epsilon_inputs(self, num_envs)

    def act(self, inputs, deterministic):
        return exploration.act_epsilon_greedy(self, inputs, deterministic)

    def loss(self, batch, outputs, settings):
        rows = {
            name: ops.swapaxes(batch[name], 0, 1)
            for name in ("rewards", "terminated", "truncated", "valid")
        }
        selector = ops.stop_gradient(outputs["q_values"]) if self.double else None
        next_values = losses.greedy_values(
            batch["target_outputs"]["q_values"], selector
        )
        targets, usable = losses.transformed_n_step_targets(
            ops.swapaxes(next_values, 0, 1),
            **rows,
            gamma=self.gamma,
            n=self.n_step,
            epsilon=self.rescaling,
        )
        taken = self.policy.combinations.number(batch["actions"])
        values = losses.select_actions(outputs["q_values"], taken)
        values = ops.swapaxes(values, 0, 1)
        weights = ops.broadcast_to(batch["weights"], ops.shape(values))
        loss, metrics = losses.td_loss(values, targets, weights, None, usable)
        errors = losses.td_errors(values, targets, usable)
        return loss, {
            **metrics,
            "q_value": losses.mean_value(values, usable),
            "count": ops.sum(ops.cast(usable, "float32")),
            "td_errors": losses.sequence_priorities(
                errors, usable, self.priority_mixture
            ),
        }
