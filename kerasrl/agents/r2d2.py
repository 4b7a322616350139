"""Recurrent experience replay in distributed reinforcement learning."""

from functools import partial

import keras
from keras import ops

from kerasrl import checks, losses
from kerasrl.agents import buffers, exploration
from kerasrl.agents.off_policy import OffPolicyAgent
from kerasrl.models import QFunction, QNetwork
from kerasrl.optimizers import Adam
from kerasrl.replay import SequenceReplayBuffer
from kerasrl.rollouts.rollout import POLICY_INPUTS
from kerasrl.training import gradients, passes, reading, schedules
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
            different one for each environment, `kerasrl.agents.epsilon_ladder`.
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

    kinds = {
        "burn_in": Hyperparameter(checks.natural, "replay"),
        "sequence_length": Hyperparameter(checks.positive_integer, "replay"),
        "period": Hyperparameter(checks.positive_integer, "replay"),
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

    def make_buffer(self, num_envs):
        options = dict(self.replay or {})
        exponent = options.pop("priority_exponent", 0.9)
        state = keras.tree.map_structure(
            lambda x: keras.ops.convert_to_numpy(x)[0], self.policy.get_initial_state(1)
        )
        given = {
            "capacity": self.buffer_size,
            "observation_space": self.policy.observation_space,
            "action_space": self.policy.action_space,
            "num_envs": num_envs,
            # One more row, to bootstrap from.
            "sequence_length": self.burn_in + self.sequence_length + 1,
            "period": self.period,
            "state_example": state,
            "priority_exponent": exponent if self.prioritized else None,
            **reading.kept(self),
            **buffers.stacking(self),
        }
        options = checks.keywords("replay", options, SequenceReplayBuffer, given)
        return SequenceReplayBuffer(**given, **options)

    def iteration_length(self, num_envs):
        return self.period

    def num_updates(self, num_envs):
        steps = self.period * num_envs * self.gradient_steps
        return max(self.updates_per_call, steps // self.train_every)

    def exploration_inputs(self, num_envs):
        return exploration.epsilon_inputs(self, num_envs)

    def act(self, inputs, deterministic):
        return exploration.act_epsilon_greedy(self, inputs, deterministic)

    def update(self, batch, settings):
        with self.target.scope():
            target_outputs = passes.forward(self.policy, batch)
        batch = {**batch, "target_q_values": target_outputs["q_values"]}
        if self.burn_in:
            # Before the gradient is recorded: the burn-in is not learnt from.
            state = self._burn_in_state(batch)
            batch = keras.tree.map_structure(
                lambda x: x[:, self.burn_in :] if len(x.shape) > 1 else x,
                {name: value for name, value in batch.items() if name != "state"},
            )
            batch["state"] = state
        return gradients.gradient_step(self, batch, settings)

    def loss(self, batch, outputs, settings):
        rows = {
            name: ops.swapaxes(batch[name], 0, 1)
            for name in ("rewards", "terminated", "truncated", "valid")
        }
        selector = ops.stop_gradient(outputs["q_values"]) if self.double else None
        next_values = losses.greedy_values(batch["target_q_values"], selector)
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

    def _burn_in_state(self, batch):
        names = (*POLICY_INPUTS, "episode_starts")
        rows = passes.swap({name: batch[name] for name in names})
        rows = keras.tree.map_structure(lambda x: x[: self.burn_in], rows)
        starts = rows.pop("episode_starts")
        state = self.policy.unroll(rows, batch["state"], starts)["state"]
        return keras.tree.map_structure(ops.stop_gradient, state)
