"""Augmented random search."""

from functools import partial

import keras
import numpy as np
from keras.optimizers import SGD

from kerasrl import checks
from kerasrl.agents.evolution import PopulationAgent, move, with_defaults
from kerasrl.losses import random_search_weights
from kerasrl.training.hyperparameters import Hyperparameter


@keras.saving.register_keras_serializable("kerasrl")
class ARS(PopulationAgent):
    """Augmented random search: few directions, linear policies, plain steps.

    In an iteration, each of `num_pairs` random directions is added to the weights and
    subtracted from them, and both policies play whole episodes. The weights move along
    the `num_top` directions of which either policy did best, each by the difference
    of its two returns, over the standard deviation of all those returns. Where all are
    equal nothing moves.

    The default policy is linear and starts at zero. This is version 1 of the paper;
    with `policy={"normalize_observations": True}` it is version 2: statistics are of
    the observations of moved weights, and stand still within an iteration.

    For what is played, counted and trained, see `kerasrl.ES` and `docs/evolution.md`.

    Paper: Mania et al. (2018), https://arxiv.org/abs/1803.07055.

    Args:
        policy: As for `kerasrl.ES`, but linear by default; a dict of arguments changes
            that, such as `{"hidden_units": (64, 64)}`.
        num_pairs: Integer, random directions in each iteration. There are two policies
            for each.
        num_top: Integer, how many of them are followed; `None` for all.
        noise_scale: As for `kerasrl.ES`.
        alive_bonus: Float, subtracted from the reward of each step for who learns, but
            not in logs. Where rewards contain a bonus for going on, such as 1 a
            step for some of MuJoCo's robots, standing still would be worth as much as
            moving.
        episodes_per_policy, unperturbed_episodes, max_episode_steps: As for
            `kerasrl.ES`.
        max_grad_norm: As for `kerasrl.Agent`.
        seed: Integer or `None`.

    Example:

    ```python
    kerasrl.ARS().fit("CartPole-v1", steps=25_000)
    ```
    """

    kinds = {
        "num_top": Hyperparameter(
            partial(checks.positive_integer, optional=True), "now"
        ),
        "alive_bonus": Hyperparameter(checks.finite, "now"),
    }

    def __init__(
        self,
        policy=None,
        num_pairs=8,
        num_top=None,
        noise_scale=0.03,
        alive_bonus=0.0,
        episodes_per_policy=1,
        unperturbed_episodes=1,
        max_episode_steps=None,
        max_grad_norm=None,
        seed=None,
    ):
        super().__init__(
            policy,
            num_pairs,
            noise_scale,
            episodes_per_policy,
            unperturbed_episodes,
            max_episode_steps,
            max_grad_norm,
            seed,
        )
        self.num_top = num_top
        self.alive_bonus = alive_bonus

    def make_policy(self, policy):
        zeros = keras.initializers.Zeros()
        return super().make_policy(
            with_defaults(policy, hidden_units=(), kernel_initializer=zeros)
        )

    def default_optimizer(self):
        return SGD(0.02)

    def check_hyperparameters(self):
        super().check_hyperparameters()
        if self.num_top is not None and self.num_top > self.num_pairs:
            raise ValueError(
                f"Received num_top={self.num_top} and num_pairs={self.num_pairs}. "
                "There are no more directions to follow than are tried."
            )

    def learn_from(self, played):
        """Moves the weights by the returns of a population.

        Args:
            played: `kerasrl.training.population.PlayedPopulation`.

        Returns:
            Dict of floats.
        """
        returns = played.returns - self.alive_bonus * played.lengths
        num_top = self.num_pairs if self.num_top is None else self.num_top
        weights, deviation = random_search_weights(returns.mean(axis=-1), num_top)
        logs = move(self, played, np.asarray(weights))
        return {**logs, "top_return_std": float(deviation)}
