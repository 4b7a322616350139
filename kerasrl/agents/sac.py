"""Soft actor-critic, for continuous and for discrete actions."""

import math
from functools import partial

import keras
import numpy as np
from keras import ops

from kerasrl import checks, losses
from kerasrl.agents import exploration, sequences
from kerasrl.agents.off_policy import OffPolicyAgent
from kerasrl.models import ActionValuePolicy, SoftActorCritic
from kerasrl.optimizers import Adam
from kerasrl.training import critics
from kerasrl.training.hyperparameters import Hyperparameter


def _check_entropy(name, value):
    # "auto" is what others call it.
    return None if value in (None, "auto") else checks.finite(name, value)


@keras.saving.register_keras_serializable("kerasrl")
class SAC(OffPolicyAgent):
    """Soft actor-critic: maximizes return and entropy at once.

    Learns two critics and a stochastic policy from replayed transitions. The weight of
    the entropy, the temperature, is adjusted until the policy is as random as
    `target_entropy` says. With a discrete action space, expectations over all actions
    take the place of samples.

    Papers: Haarnoja et al. (2018), https://arxiv.org/abs/1812.05905; discrete actions,
    Christodoulou (2019), https://arxiv.org/abs/1910.07207.

    Args:
        policy: `None` for a `kerasrl.models.SoftActorCritic`, a dict of arguments of
            it, a Keras model to be its trunk, or a `kerasrl.models.ActionValuePolicy`.
        temperature: Float, the temperature, or its first value if it is adjusted.
        adjust_temperature: Whether the temperature is adjusted.
        target_entropy: Float, in nats; for continuous actions of the density of actions
            scaled to [-1, 1]. `None` or `"auto"`: -1 for each number of an action, or
            `entropy_fraction` of the entropy of random choices, among the actions that
            may be taken if observations have a mask.
        entropy_fraction: Float in [0, 1], see `target_entropy`.
        burn_in, sequence_length, period: With a recurrent policy, rows of a sequence
            that only bring its memory up to date, rows that are learnt from, and steps
            between the starts of sequences, as for `kerasrl.R2D2`. The batch size then
            counts rows that are learnt from, in whole sequences.
        batch_size, **kwargs: As for `kerasrl.OffPolicyAgent`.

    Raises:
        ValueError: A `Box` action space is not bounded.

    Example:

    ```python
    kerasrl.SAC().fit("Pendulum-v1", steps=20_000)
    ```
    """

    policy_base: type = ActionValuePolicy
    default_policy: type = SoftActorCritic

    kinds = {
        **sequences.KINDS,
        "temperature": Hyperparameter(partial(checks.positive, optional=False), "now"),
        "adjust_temperature": Hyperparameter(checks.flag, "never"),
        "target_entropy": Hyperparameter(_check_entropy),
        "entropy_fraction": Hyperparameter(checks.fraction),
    }

    learns_sequences = property(sequences.are_learnt)
    samples_per_batch = property(sequences.per_batch)
    make_buffer = sequences.make_buffer
    iteration_length = sequences.iteration_length
    num_updates = sequences.num_updates
    update = sequences.update

    def __init__(
        self,
        policy=None,
        temperature=1.0,
        adjust_temperature=True,
        target_entropy=None,
        entropy_fraction=0.5,
        burn_in=10,
        sequence_length=20,
        period=10,
        batch_size=256,
        **kwargs,
    ):
        super().__init__(policy, batch_size=batch_size, **kwargs)
        self.burn_in = burn_in
        self.sequence_length = sequence_length
        self.period = period
        self.temperature = temperature
        self.adjust_temperature = adjust_temperature
        self.target_entropy = target_entropy
        self.entropy_fraction = entropy_fraction
        self.seed_generator = keras.random.SeedGenerator(self.seed)
        self.log_temperature = keras.Variable(
            np.float32(math.log(self.temperature)),
            trainable=self.adjust_temperature,
            name="log_temperature",
        )

    def default_optimizer(self):
        return Adam(1e-3, epsilon=1e-8)

    def build(self, observation_space, action_space):
        super().build(observation_space, action_space)
        self.check_hyperparameters()

    def check_hyperparameters(self):
        super().check_hyperparameters()
        if self.target_entropy is not None and not self.adjust_temperature:
            raise ValueError(
                f"Received target_entropy={self.target_entropy} with "
                "adjust_temperature=False. It is what the temperature is adjusted to: "
                "leave out either."
            )
        space = self.policy.action_space
        if self.target_entropy is None or space is None:
            return
        # That of uniformly random actions.
        if self.policy.is_discrete:
            most = math.log(self.policy.combinations.count)
        else:
            most = math.log(2) * np.prod(space.shape)
        if self.target_entropy > most:
            raise ValueError(
                f"Received target_entropy={self.target_entropy}. No policy of {space} "
                f"has more than {most:.4g}, and the temperature would grow for ever."
            )

    def apply_change(self, name, before):
        super().apply_change(name, before)
        if name == "temperature":
            self.log_temperature.assign(math.log(self.temperature))

    def wanted_entropy(self):
        """Returns the entropy that the temperature is adjusted to, a float."""
        space = self.policy.action_space
        if self.target_entropy is not None:
            return self.target_entropy
        if self.policy.is_discrete:
            return self.entropy_fraction * math.log(self.policy.combinations.count)
        return -float(np.prod(space.shape))

    def target_sources(self):
        return self.policy.critic_variables()

    @property
    def trainable_variables(self):
        own = [self.log_temperature] if self.adjust_temperature else []
        return [*self.policy.trainable_variables, *own]

    def parts(self):
        own = {"temperature": [self.log_temperature]} if self.adjust_temperature else {}
        return {**critics.parts(self.policy), **own}

    @property
    def own_variables(self):
        return [
            *super().own_variables,
            self.log_temperature,
            self.seed_generator.state,
        ]

    def exploration_inputs(self, num_envs):
        return {"random": exploration.random_until_learning(self, num_envs)}

    act = exploration.act_stochastically

    def loss(self, batch, outputs, settings):
        policy = self.policy
        samples = critics.Samples(self, batch, outputs)
        temperature = ops.exp(self.log_temperature.value)
        next_distribution = policy.distribution(samples.next_outputs())
        distribution = policy.distribution(samples.outputs)
        parts = self._discrete if self.policy.is_discrete else self._continuous
        next_values, values, (policy_loss, metrics), entropies = parts(
            samples, distribution, next_distribution, temperature
        )
        critic_loss, critic_metrics = samples.critic_loss(values, next_values)
        loss = critic_loss + policy_loss
        if self.adjust_temperature:
            loss += losses.temperature_loss(
                self.log_temperature.value,
                *self._entropies(samples.batch, entropies),
                samples.mask,
            )[0]
        return loss, {
            "policy_loss": policy_loss,
            **metrics,
            **critic_metrics,
            "temperature": temperature,
        }

    def _entropies(self, batch, entropies):
        """Entropies, and what they are wanted to be, for the temperature."""
        legal = self.policy.legal_actions(batch["observations"])
        if legal is None:
            return entropies, self.wanted_entropy()
        # Where there is less to choose from, less entropy is possible.
        most = ops.log(ops.sum(ops.cast(legal, "float32"), axis=-1))
        if self.target_entropy is None:
            return entropies - self.entropy_fraction * most, 0.0
        return entropies - ops.minimum(self.target_entropy, most), 0.0

    def _continuous(self, samples, distribution, next_distribution, temperature):
        seed = self.seed_generator
        next_actions, next_log_probs = next_distribution.sample_and_log_prob(seed)
        with self.target.scope():
            next_q_values = samples.next_q_values(next_actions)
        next_values = losses.soft_values(
            ops.min(next_q_values, axis=0), next_log_probs, temperature
        )
        values = samples.values_taken()
        actions, log_probs = distribution.sample_and_log_prob(seed)
        own_values = ops.min(samples.judged(actions), axis=0)
        policy_loss = losses.soft_policy_loss(
            own_values, log_probs, temperature, samples.mask
        )
        return next_values, values, policy_loss, -log_probs

    def _discrete(self, samples, distribution, next_distribution, temperature):
        with self.target.scope():
            next_q_values = samples.next_q_values()
        next_values = losses.discrete_soft_values(
            ops.min(next_q_values, axis=0), next_distribution.log_probs, temperature
        )
        q_values = samples.q_values()
        taken = self.policy.combinations.number(samples.batch["actions"])
        taken = ops.broadcast_to(taken, ops.shape(q_values)[:-1])
        values = losses.select_actions(q_values, taken)
        policy_loss = losses.discrete_soft_policy_loss(
            ops.min(q_values, axis=0),
            distribution.log_probs,
            temperature,
            samples.mask,
        )
        return next_values, values, policy_loss, distribution.entropy()
