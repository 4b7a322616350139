"""The source of agents that move their weights at random and look at the returns."""

import dataclasses
import types

import keras
import numpy as np

from kerasrl import workers
from kerasrl.actors import verification
from kerasrl.actors.population import can_stack
from kerasrl.envs.row_seeds import row_form
from kerasrl.models import Policy
from kerasrl.rollouts.episodes import EpisodeRecord
from kerasrl.rollouts.population import (
    Population,
    dealt,
    merge_moments,
    put_together,
)
from kerasrl.training import acting, origins

#: Rows of a process, each of which has weights of its own in memory. With more NumPy is
#: not much faster.
_MOST_ROWS = 128
#: Entries of what was played that have a row for each episode.
_ROWS = ("returns", "lengths", "terminated")


@dataclasses.dataclass
class PlayedPopulation:
    """A population, and how its episodes went.

    Args:
        population: `kerasrl.rollouts.population.Population`.
        returns: Float64 `[n, 2, E]`, of E episodes with the weights moved along each of
            n directions, and against it.
        lengths: Int64 `[n, 2, E]`.
        center_returns: Float64 `[C]`, of episodes with the weights in the middle.
        num_steps: Integer, environment steps of all.
        moments: `None`, or a pair of the number of observations that moved weights
            acted on, and a list of pairs of their mean and variance, one for each part
            of an observation.
    """

    population: Population
    returns: np.ndarray
    lengths: np.ndarray
    center_returns: np.ndarray
    num_steps: int
    moments: tuple | None = None


class PopulationSource:
    """Plays the episodes of one population after the other.

    All that is drawn follows from one number for each population, which the agent
    draws, so that training goes on from a checkpoint as if it had not stopped.

    Args:
        agent: The `Agent`, built, with `make_population(key, center)` and
            `max_episode_steps`.
        envs: `kerasrl.envs.Environments`.
        info_keys: Names of infos to record, for which there is no place.
        listener: As for `kerasrl.rollouts.Collector`.

    Raises:
        ValueError: There are names of infos, or no weights to move.
    """

    collects = False
    is_dataset = False

    def __init__(self, agent, envs, info_keys=(), listener=None):
        if info_keys:
            raise ValueError(
                f"Received info_keys={list(info_keys)}. {type(agent).__name__} keeps "
                "returns, and no rollouts that infos could be recorded in: use a "
                "callback with on_episode_step, and num_workers=0."
            )
        self.agent = agent
        self.envs = envs
        self.num_envs = envs.num_envs
        self._actor = population_actor(agent)
        self._own = own = trained_positions(agent)
        if not own:
            raise ValueError(
                f"The policy of {type(agent).__name__} has no trainable weights that "
                "its actions depend on, so there is nothing to move. Set trainable to "
                "True in some of its layers."
            )
        self._records = []
        self._counts = counts_observations(agent.policy)
        self._player = workers.make_player(
            envs,
            self._actor.program,
            own,
            can_stack(self._actor.program, own, _rows(agent)),
            initial_state=self._actor.initial_state,
            max_episode_steps=agent.max_episode_steps,
            counts=self._counts,
            listener=listener,
        )

    def start(self):
        """Settles what is subtracted of observations."""
        policy, envs = self.agent.policy, self.envs
        if self.agent.env_steps:
            origins.apply(policy, envs)
            return
        collector = types.SimpleNamespace(observations=None)

        def reset(seeds):
            collector.observations = envs.reset(seeds)

        collector.reset = reset
        origins.reset(self.agent, envs, collector, list(range(self.num_envs)))

    def refresh(self):
        """Takes over the present weights of the policy.

        Raises:
            ValueError: Others are trainable than when `fit` began.
        """
        own = trained_positions(self.agent)
        if own != self._own:
            raise ValueError(
                f"Received a policy of which {len(own)} arrays of weights are to be "
                f"moved, or others than the {len(self._own)} when fit began: trainable "
                "was set in some layer meanwhile. Who plays has prepared for those. "
                "Set it between calls of fit."
            )
        self._actor.refresh()

    def collect(self):
        """Plays a population.

        Returns:
            A `PlayedPopulation`, the same in all ranks, each of which played a part.
        """
        agent, replicas = self.agent, self.agent.replicas
        key = replicas.gather_data(int(agent.rng.integers(2**63)))[0]
        population = agent.make_population(key, vector_of(agent))
        tasks = list(range(population.num_tasks))
        own = dealt(tasks, replicas.rank, replicas.num_ranks)
        played = self._player.play(population, self._actor.program.weights, own)
        played = _gathered(replicas, played)
        end = population.num_perturbed
        self._records = _records(played, end)
        shape = (population.num_pairs, 2, population.episodes)
        moments = None
        if self._counts:
            moments = [
                merge_moments(played["lengths"][:end], mean[:end], square[:end])
                for mean, square in zip(played["means"], played["squares"], strict=True)
            ]
            moments = moments[0][0], [pair[1:] for pair in moments]
        return PlayedPopulation(
            population,
            played["returns"][:end].reshape(shape),
            played["lengths"][:end].reshape(shape),
            played["returns"][end:],
            int(played["lengths"].sum()),
            moments,
        )

    def drain_logs(self):
        """Returns nothing: no worker acts by itself."""
        return {}

    def drain_episodes(self):
        """Returns the records of the episodes of moved weights, and forgets them."""
        records, self._records = self._records, []
        return records


def make_environments(agent, env, making):
    """Makes environments, those that have a row form in that.

    Episodes are the same. Unless their number is given there are as many rows as
    episodes in an iteration, as far as memory allows.

    Args:
        agent: An `Agent` whose `source_class` is `PopulationSource`.
        env, making: As for `kerasrl.training.trainer.Trainer.make_environments`.
    """
    form = row_form(env, making["env_config"])
    if form is None:
        return workers.make_environments(env, **making)
    num_envs, num_workers = making["num_envs"], making["num_workers"]
    others = (making[name] for name in ("worker_mode", "env_timeout", "cluster"))
    workers.check_settings(num_envs, num_workers, *others)
    if num_envs is None:
        population = agent.make_population(0, np.zeros(0, np.float32))
        num_envs = -(-population.num_tasks // agent.replicas.num_ranks)
        num_envs = min(num_envs, _MOST_ROWS * max(num_workers, 1))
        num_envs = max(num_envs, num_workers)
    making = {**making, "num_envs": num_envs, "env_config": None}
    return workers.make_environments(form, **making)


def population_actor(agent):
    """Returns the deterministic acting function of an agent as a NumPy program.

    Raises:
        ValueError: The policy has no NumPy form.
    """
    actor = agent._actors.get("population") or agent.actor(deterministic=True)
    if actor.program is None:
        try:
            # TensorFlow may have been faster, for one policy.
            actor = acting.build(agent, "deterministic", "numpy")
        except ValueError as error:
            raise ValueError(
                f"{type(agent).__name__} plays by many weights at once, in NumPy, and "
                f"this policy has no such form: {error} Images can be made vectors in "
                "a wrapper."
            ) from None
        agent._actors["population"] = actor
    if actor.noise_specs:
        raise ValueError(
            f"{type(agent).__name__} takes the best action that a policy knows, and "
            "this one draws random numbers even then. Let act(deterministic=True) "
            "draw none."
        )
    return actor


def trained_variables(agent):
    """Returns the trainable variables of the policy that acting depends on.

    Others, such as those of values, have no effect on returns.
    """
    if agent.policy.observation_space is None:
        return agent.policy.trainable_variables
    variables = agent.policy.trainable_variables
    places = _places(agent, variables)
    return [v for v, place in zip(variables, places, strict=True) if place is not None]


def trained_positions(agent):
    """Returns where in the acting program the trained variables are, in their order."""
    return _places(agent, agent.trainable_variables)


def vector_of(agent):
    """Returns the values of the trained variables one after the other, `[D]`."""
    values = [keras.ops.convert_to_numpy(v) for v in agent.trainable_variables]
    return np.concatenate([value.reshape(-1) for value in values])


def arrays_of(agent, vector):
    """Returns a vector as a list of arrays like the trained variables."""
    arrays, start = [], 0
    for variable in agent.trainable_variables:
        size = int(np.prod(variable.shape))
        array = vector[start : start + size].reshape(variable.shape)
        arrays.append(array.astype(variable.dtype))
        start += size
    return arrays


def counts_observations(policy):
    """Whether a policy learns the statistics of observations."""
    default = type(policy).update_normalization is Policy.update_normalization
    return not default and bool(getattr(policy, "normalize_observations", True))


def learn_moments(agent, played):
    """Has the policy learn the mean and variance of the observations of a population.

    Two rows that have both, each with half of the weight, stand for all.
    """
    if played.moments is None:
        return
    count, moments = played.moments
    leaves = []
    examples = keras.tree.flatten(agent.policy.example_inputs(1)["observations"])
    for example, (mean, variance) in zip(examples, moments, strict=True):
        deviation = np.sqrt(variance)
        rows = np.stack([mean - deviation, mean + deviation])
        # What is no float is not normalized.
        rows = rows if example.dtype.kind == "f" else np.repeat(example, 2, axis=0)
        leaves.append(rows)
    structure = agent.policy.example_inputs(1)["observations"]
    observations = keras.tree.pack_sequence_as(structure, leaves)
    agent.policy.update_normalization(observations, np.full(2, count / 2.0))


def _places(agent, variables):
    # Variables of a strategy have a handle for each device; acting knows the first.
    handles = agent.replicas.alone(lambda: [v.value.handle for v in variables])
    return population_actor(agent).positions(handles)


def _rows(agent):
    """Inputs of acting that differ, and look like what will come."""
    generator = np.random.default_rng(0)
    examples = acting.example_inputs(agent, "deterministic")
    drawn = verification.drawn_rows(examples, generator)
    return {**drawn, **agent.policy.sample_inputs(verification.ROWS, generator)}


def _gathered(replicas, played):
    """What all ranks played, in the order of tasks."""
    if replicas.num_ranks == 1:
        return played

    def of_ranks(array):
        # Flat, as ranks exchange numbers.
        kind = np.float64 if array.dtype.kind == "f" else np.int64
        parts = replicas.gather(array.astype(kind).reshape(-1))
        shape = array.shape[1:]
        return [part.reshape(-1, *shape).astype(array.dtype) for part in parts]

    parts = [{} for _ in range(replicas.num_ranks)]
    for name in _ROWS:
        for part, rows in zip(parts, of_ranks(played[name]), strict=True):
            part[name] = rows
    for name in ("means", "squares"):
        columns = [of_ranks(array) for array in played[name]]
        for rank, part in enumerate(parts):
            part[name] = [column[rank] for column in columns]
    custom = replicas.gather_data(played["custom_metrics"])
    for part, rows in zip(parts, custom, strict=True):
        part["custom_metrics"] = rows
    return put_together(parts)


def _records(played, end):
    steps = np.cumsum(played["lengths"]).tolist()
    return [
        EpisodeRecord(
            0,
            float(played["returns"][task]),
            int(played["lengths"][task]),
            bool(played["terminated"][task]),
            steps[task],
            played["custom_metrics"][task],
        )
        for task in range(end)
    ]
