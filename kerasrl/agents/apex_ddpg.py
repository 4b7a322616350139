"""Distributed prioritized experience replay, with a policy of continuous actions."""

from functools import partial

import keras

from kerasrl.agents import apex, exploration
from kerasrl.agents.off_policy import OffPolicyAgent
from kerasrl.models import ActionValuePolicy, DeterministicActorCritic
from kerasrl.optimizers import Adam
from kerasrl.training import critics, schedules
from kerasrl.training.hyperparameters import Hyperparameter


@keras.saving.register_keras_serializable("kerasrl")
class ApexDDPG(OffPolicyAgent):
    """Ape-X: deterministic policy gradient from what many differently noisy actors did.

    Workers act while the learner learns, each environment with noise of another size,
    from hardly any to that of `kerasrl.agents.epsilon_ladder`. What they did comes into
    prioritized replay, a part for each worker, with the error that the actor found
    itself. How many gradient steps the learner takes for each environment step is as
    set, whoever is faster: actors or learner then wait.

    `episode_return_mean` is of all actors. The logs also have
    `episode_return_mean_greedy`, `_middle` and `_exploring`, each of a third of the
    environments; `evaluate` is without noise.

    Paper: Horgan et al. (2018), https://arxiv.org/abs/1803.00933.

    Args:
        policy: As for `kerasrl.DDPG`, without memory.
        noise: `"gaussian"` (white) or `"ornstein_uhlenbeck"` (drifting).
        noise_scale: Standard deviation of the noise, as for `kerasrl.DDPG`. Default: a
            different one for each environment of all workers and ranks, from 0.4 to
            0.0007.
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
        ValueError: The action space is not bounded.

    Example:

    ```python
    agent = kerasrl.ApexDDPG()
    agent.fit("Pendulum-v1", steps=100_000, num_envs=8, num_workers=2)
    ```
    """

    policy_base: type = ActionValuePolicy
    default_policy: type = DeterministicActorCritic
    asynchronous = True

    kinds = {
        **apex.KINDS,
        **exploration.NOISE_KINDS,
        "noise_scale": Hyperparameter(partial(schedules.rates, optional=True), "now"),
    }

    def __init__(
        self,
        policy=None,
        noise="gaussian",
        noise_scale=None,
        initial_priorities=True,
        n_step=1,
        batch_size=128,
        train_every=4,
        updates_per_call=32,
        prioritized=True,
        synchronous=False,
        lag=0,
        **kwargs,
    ):
        super().__init__(
            policy,
            n_step=n_step,
            batch_size=batch_size,
            train_every=train_every,
            updates_per_call=updates_per_call,
            prioritized=prioritized,
            **kwargs,
        )
        self.noise = noise
        self.noise_scale = noise_scale
        self.initial_priorities = initial_priorities
        self.synchronous = synchronous
        self.lag = lag

    first_errors = apex.first_errors
    iteration_length = apex.iteration_length
    num_updates = apex.num_updates
    acting_state = exploration.noise_state
    exploration_inputs = exploration.noise_inputs

    def policy_options(self):
        return {"num_critics": 1}

    def default_optimizer(self):
        return Adam(1e-3, epsilon=1e-8)

    def parts(self):
        return critics.parts(self.policy)

    def start_learning(self, num_envs):
        super().start_learning(num_envs)
        apex.log_bands(self, self.noise_scale)

    def apply_change(self, name, before):
        super().apply_change(name, before)
        if name == "noise_scale" and self.envs is not None:
            apex.log_bands(self, self.noise_scale)

    def act(self, inputs, deterministic):
        with_values = apex.records_values(self)
        return exploration.act_with_noise(self, inputs, deterministic, with_values)

    def loss(self, batch, outputs, settings):
        return critics.deterministic_loss(self, batch, outputs)
