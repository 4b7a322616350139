"""Evolution strategies."""

from functools import partial

import keras
import numpy as np

from kerasrl import checks
from kerasrl.agents.evolution import PopulationAgent, move, with_defaults
from kerasrl.losses import evolution_weights
from kerasrl.optimizers import Adam
from kerasrl.training.hyperparameters import Hyperparameter


@keras.saving.register_keras_serializable("kerasrl")
class ES(PopulationAgent):
    """Evolution strategies: weights are moved at random, and towards what did better.

    In an iteration, each of `num_pairs` random directions is added to the weights and
    subtracted from them. Both policies play whole episodes, and the returns of all are
    replaced by their ranks (equal returns by the mean of theirs). Directions, weighted
    by the difference of the ranks of their two policies, sum up to a gradient for the
    optimizer. No gradient is computed, and no value function needed: rewards may be
    rare or late, and policies need not be differentiable in what they do.

    The weights themselves are played each iteration too, without noise; see
    `unperturbed_return_mean` in `docs/metrics.md`. Actions are the best known,
    not drawn: what is explored is weights. Only weights that such actions depend on are
    trained; those of values stay as they are.

    An iteration takes as many environment steps as its episodes do, so that `fit` ends
    with the first one that reaches `steps`. See `docs/evolution.md`.

    Paper: Salimans et al. (2017), https://arxiv.org/abs/1703.03864.

    Args:
        policy: As for `kerasrl.OnPolicyAgent`. The default has two layers of 32 units.
        num_pairs: Integer, random directions in each iteration. There are two policies
            for each.
        noise_scale: Float or schedule (see `PPO`), standard deviation of what is added
            to weights.
        weight_decay: Float, how much of each weight is added to its gradient. Ranks
            do not grow with returns, so it always has some say.
        episodes_per_policy: Integer, episodes over which returns are averaged.
        unperturbed_episodes: Integer, episodes of the weights themselves in each
            iteration.
        max_episode_steps: Integer, after which an episode is cut off, or `None`. The
            environment's own limit holds too.
        max_grad_norm: As for `kerasrl.Agent`.
        seed: Integer or `None`.

    Example:

    ```python
    kerasrl.ES().fit("CartPole-v1", steps=120_000, num_envs=64)
    ```
    """

    kinds = {
        "weight_decay": Hyperparameter(partial(checks.positive, zero=True), "now"),
    }

    def __init__(
        self,
        policy=None,
        num_pairs=16,
        noise_scale=0.1,
        weight_decay=0.005,
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
        self.weight_decay = weight_decay

    def make_policy(self, policy):
        # The more weights, the more of each direction is chance.
        return super().make_policy(with_defaults(policy, hidden_units=(32, 32)))

    def default_optimizer(self):
        return Adam(0.03, epsilon=1e-8)

    def learn_from(self, played):
        """Moves the weights by the returns of a population.

        Args:
            played: `kerasrl.training.population.PlayedPopulation`.

        Returns:
            Dict of floats.
        """
        weights = np.asarray(evolution_weights(played.returns.mean(axis=-1)))
        return move(self, played, weights, self.weight_decay)
