"""What agents share that learn from the returns of weights moved at random."""

from functools import partial

import numpy as np
import tensorflow as tf

from kerasrl import checks
from kerasrl.agents.agent import Agent
from kerasrl.models import Policy
from kerasrl.rollouts.population import Population
from kerasrl.training import gradients, population, schedules
from kerasrl.training.hyperparameters import Hyperparameter
from kerasrl.training.parts import Replaceable


class PopulationAgent(Agent):
    """What agents share that learn from the returns of weights moved at random.

    Args:
        policy, num_pairs, noise_scale, episodes_per_policy, unperturbed_episodes,
            max_episode_steps, max_grad_norm, seed: As for `kerasrl.ES`.
    """

    learns_from_rollouts = False
    distribution_needs = ("mode",)
    scheduled = ("noise_scale",)

    kinds = {
        "num_pairs": Hyperparameter(checks.positive_integer, "now"),
        "noise_scale": Hyperparameter(
            partial(schedules.schedulable, zero=False), "now"
        ),
        "episodes_per_policy": Hyperparameter(checks.positive_integer, "now"),
        "unperturbed_episodes": Hyperparameter(checks.positive_integer, "now"),
        "max_episode_steps": Hyperparameter(
            partial(checks.positive_integer, optional=True), "fit"
        ),
    }

    source_class = population.PopulationSource
    make_environments = population.make_environments
    trainable_variables = property(population.trained_variables)

    def __init__(
        self,
        policy,
        num_pairs,
        noise_scale,
        episodes_per_policy,
        unperturbed_episodes,
        max_episode_steps,
        max_grad_norm,
        seed,
    ):
        super().__init__(policy, 1.0, max_grad_norm, False, seed)
        self.num_pairs = num_pairs
        self.noise_scale = noise_scale
        self.episodes_per_policy = episodes_per_policy
        self.unperturbed_episodes = unperturbed_episodes
        self.max_episode_steps = max_episode_steps

    def compile(self, *args, metrics=None, **kwargs):
        if metrics:
            raise ValueError(
                f"Received metrics={metrics!r}. They compare predicted values with "
                f"targets, and {type(self).__name__} learns from returns alone: look "
                "at population_return_mean, or log from a callback."
            )
        super().compile(*args, metrics=metrics, **kwargs)

    def check_hyperparameters(self):
        super().check_hyperparameters()
        check_policy(self)

    def make_population(self, key, center):
        """Returns the population of an iteration.

        Args:
            key, center: As for `kerasrl.rollouts.population.Population`.
        """
        return Population(
            key,
            center,
            schedules.current(self, "noise_scale"),
            self.num_pairs,
            self.episodes_per_policy,
            self.unperturbed_episodes,
        )

    def iteration_length(self, num_envs):
        return None  # Episodes are counted, however long they are.


def with_defaults(policy, **defaults):
    """Returns the constructor argument `policy` with other defaults of the default.

    Args:
        policy: As for `kerasrl.Agent`.
        **defaults: Arguments of `kerasrl.models.ActorCritic`.
    """
    if policy is not None and not isinstance(policy, dict):
        return policy
    if policy and "trunk" in policy:
        del defaults["hidden_units"]  # It has its own.
    return {**defaults, **(policy or {})}


def check_policy(agent):
    """Refuses what a policy or an agent has to say about a loss, where there is none.

    Raises:
        ValueError: Part of it would be ignored.
    """
    policy, name = agent.policy, type(agent).__name__
    for owner, base, method in (
        (policy, Policy, "custom_loss"),
        (policy, Policy, "custom_metrics"),
        (agent, Replaceable, "step_metrics"),
    ):
        if getattr(type(owner), method) is not getattr(base, method):
            raise ValueError(
                f"{type(owner).__name__} has a {method}, which is about losses, but "
                f"{name} has none: it learns from returns alone. Change the rewards, "
                "or log from a callback."
            )
    if policy.observation_space is None:
        return  # It has no weights yet, and has computed nothing.
    for variable in policy.trainable_variables:
        if getattr(variable, "regularizer", None) is not None:
            raise ValueError(
                f"The weight {variable.path} has a regularizer, but {name} has no loss "
                "to add it to. Leave it out; ES has weight_decay."
            )
    if policy.losses:
        raise ValueError(
            f"{type(policy).__name__} has losses of its own, by add_loss or "
            f"activity_regularizer in some layer, but {name} has none to add them to: "
            "it learns from returns alone. Leave them out, or change the rewards."
        )


def move(agent, played, weights, decay=0.0):
    """Takes one optimizer step up the weighted sum of directions.

    Args:
        agent: An `Agent`.
        played: `PlayedPopulation`.
        weights: Float `[n]`, of each direction.
        decay: Float, the gradient of so much of half the squared weights is added.

    Returns:
        Dict of floats to log.
    """
    directions, center = played.population, played.population.center
    ascent = np.zeros(len(center))
    for pair in np.flatnonzero(weights).tolist():
        ascent += float(weights[pair]) * directions.direction(pair)
    descent = decay * center - ascent
    update = agent.compiled_update(partial(_step, agent))
    logs = update(population.arrays_of(agent, descent))
    after = population.vector_of(agent)
    population.learn_moments(agent, played)
    returns = played.returns
    size = np.linalg.norm(center) or np.linalg.norm(after)
    return {
        "loss": -float(returns.mean()),
        "population_return_mean": float(returns.mean()),
        "population_return_std": float(returns.std()),
        "unperturbed_return_mean": float(played.center_returns.mean()),
        "weight_norm": float(np.linalg.norm(after)),
        "update_ratio": float(np.linalg.norm(after - center) / (size or 1.0)),
        **logs,
    }


def _step(agent, descent):
    # 1, but in mixed precision: the optimizer divides by it.
    scale = agent.policy.optimizer.scale_loss(1.0)
    found = [tf.convert_to_tensor(each) * scale for each in descent]
    return {"gradient_norm": gradients.take_step(agent, found, {})}, ()
