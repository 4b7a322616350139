"""Distributed prioritized experience replay, with values of discrete actions."""

from functools import partial

import keras

from kerasrl import checks
from kerasrl.agents import apex, exploration
from kerasrl.agents.off_policy import OffPolicyAgent
from kerasrl.models import QFunction, QNetwork
from kerasrl.models.making import check_described
from kerasrl.optimizers import Adam
from kerasrl.training import q_learning, schedules
from kerasrl.training.hyperparameters import Hyperparameter


@keras.saving.register_keras_serializable("kerasrl")
class ApexDQN(OffPolicyAgent):
    """Ape-X: deep Q-learning from what many differently curious actors did.

    Workers act while the learner learns, each environment with a probability of random
    actions of its own, from nearly greedy to almost every other action. What they did
    comes into prioritized replay, a part for each worker, with the error that the actor
    found itself: nothing has to be drawn once only to learn its priority. The learner
    is double, dueling, n-step DQN. How many gradient steps it takes for each
    environment step is as set, whoever is faster: actors or learner then wait.

    `episode_return_mean` is of all actors, most of which explore. The logs also have
    `episode_return_mean_greedy`, `_middle` and `_exploring`, each of a third of the
    environments; `evaluate` is greedy.

    Paper: Horgan et al. (2018), https://arxiv.org/abs/1803.00933.

    Args:
        policy: As for `kerasrl.DQN`.
        double: Whether the online network chooses the action that the target network
            values.
        dueling: As for `kerasrl.models.QNetwork`, of the network that is made here,
            where it is true unless said otherwise.
        exploration: Probability of a random action, as for `kerasrl.DQN`. Default: a
            different one for each environment of all workers and ranks,
            `kerasrl.agents.epsilon_ladder`.
        huber_delta: As for `kerasrl.DQN`.
        initial_priorities: Whether actors say how wrong they were. New steps whose
            error is not known yet, the last `n_step` of a fragment, have the largest
            priority so far; without, all do.
        n_step, batch_size, train_every, updates_per_call, prioritized, **kwargs: As for
            `kerasrl.OffPolicyAgent`. A fragment of a worker is as long as what
            `updates_per_call` gradient steps are due for, over all environments; with
            first priorities, as the least multiple of that that has `4 * n_step` steps.
        synchronous: Whether workers act in step with learning, by the weights of
            exactly `lag` iterations ago: runs can be repeated, and resumed exactly.
        lag: Integer, for `synchronous=True` or no workers.

    Raises:
        TypeError: The policy is not an action-value network.
        ValueError: The network learns distributions, whose errors actors do not know,
            or `dueling` contradicts the network that was given.

    Example:

    ```python
    agent = kerasrl.ApexDQN()
    agent.fit("CartPole-v1", steps=150_000, num_envs=8, num_workers=2)
    ```
    """

    policy_base: type = QFunction
    default_policy: type = QNetwork
    asynchronous = True

    kinds = {
        **apex.KINDS,
        "double": Hyperparameter(checks.flag),
        # It describes the network, which exists.
        "dueling": Hyperparameter(partial(checks.flag, optional=True), "never"),
        "exploration": Hyperparameter(
            partial(schedules.probabilities, optional=True), "now"
        ),
        "huber_delta": Hyperparameter(checks.positive),
    }

    def __init__(
        self,
        policy=None,
        double=True,
        dueling=None,
        exploration=None,
        huber_delta=1.0,
        initial_priorities=True,
        n_step=3,
        batch_size=128,
        train_every=4,
        updates_per_call=32,
        prioritized=True,
        synchronous=False,
        lag=0,
        **kwargs,
    ):
        self.dueling = dueling
        super().__init__(
            policy,
            n_step=n_step,
            batch_size=batch_size,
            train_every=train_every,
            updates_per_call=updates_per_call,
            prioritized=prioritized,
            **kwargs,
        )
        self.double = double
        self.exploration = exploration
        self.huber_delta = huber_delta
        self.initial_priorities = initial_priorities
        self.synchronous = synchronous
        self.lag = lag

    first_errors = apex.first_errors
    iteration_length = apex.iteration_length
    num_updates = apex.num_updates

    def policy_options(self):
        return {"dueling": self.dueling is not False}

    def make_policy(self, policy):
        # What was left out says nothing about a network that was given.
        said = {} if self.dueling is None else {"dueling": self.dueling}
        return check_described(super().make_policy(policy), said)

    def build(self, observation_space, action_space):
        super().build(observation_space, action_space)
        outputs = self.policy(self.policy.example_inputs(1))
        learns_distributions = "logits" in outputs or "quantiles" in outputs
        if learns_distributions and apex.records_values(self):
            raise ValueError(
                "Received initial_priorities=True and a policy that learns "
                "distributions of returns. Actors know errors of mean values only, "
                "which are of another size: use initial_priorities=False."
            )

    def default_optimizer(self):
        return Adam(5e-4, epsilon=1e-8)

    def start_learning(self, num_envs):
        super().start_learning(num_envs)
        apex.log_bands(self, self.exploration)

    def apply_change(self, name, before):
        super().apply_change(name, before)
        if name == "exploration" and self.envs is not None:
            apex.log_bands(self, self.exploration)

    def exploration_inputs(self, num_envs):
        return exploration.epsilon_inputs(self, num_envs)

    def act(self, inputs, deterministic):
        with_values = apex.records_values(self)
        return exploration.act_epsilon_greedy(self, inputs, deterministic, with_values)

    def loss(self, batch, outputs, settings):
        return q_learning.loss(self, batch, outputs)
