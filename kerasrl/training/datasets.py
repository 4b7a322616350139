"""Learning from a dataset: where its batches come from, and how far it was read.

A dataset is anything with `observation_space`, `action_space`, `num_episodes`,
`num_steps`, `episodes` and `reader`, such as a `kerasrl.offline.Dataset`.
"""

import numpy as np
import optree

from kerasrl.training import passes
from kerasrl.training.population import counts_observations

#: Observations that statistics learn of at once.
_CHUNK = 1024
_OBSERVED = ("observations", "next_observations", "final_observations")


def is_dataset(data):
    """Whether what `fit` received to learn from is a dataset."""
    wanted = ("reader", "episodes", "num_steps", "observation_space", "action_space")
    return all(hasattr(data, name) for name in wanted)


def check_learns(agent):
    """Raises a TypeError if an agent cannot learn from a dataset."""
    if not hasattr(agent, "learn_batches"):
        raise TypeError(
            f"{type(agent).__name__} learns from what its own policy just did, and "
            "fit received a dataset. Use kerasrl.BC, MARWIL, CQL, IQL or TD3BC, or "
            "another algorithm that learns from replay."
        )


class DatasetSource:
    """Batches of a dataset, each time as many as an agent learns from in one call.

    The agent says by `reader_arguments` how it reads. The next `fit` on the same
    dataset, with the same arguments, goes on reading where this one ends, also after
    the agent was saved and loaded.

    Args:
        agent: An `Agent` with `learn_batches`, built for the spaces of the dataset.
        dataset: See above.
    """

    collects = False
    is_dataset = True
    num_envs = 1
    #: Nothing but the arguments of `fit` says how many there are to be.
    steps = None

    def __init__(self, agent, dataset):
        self.agent = agent
        self._dataset = dataset
        self._arguments = agent.reader_arguments()
        self._examples = agent.policy.example_inputs(1)["observations"]
        #: Gradient steps of an iteration.
        self.iteration_length = agent.updates_per_call
        self._reader = None

    def start(self):
        """Opens the dataset where the agent stopped reading it, or anew."""
        agent = self.agent
        if agent.reading is None:
            learn_statistics(agent, self._dataset)
        self._reader, agent.reading = open_reader(
            agent, self._dataset, self._arguments, agent.reading
        )

    def refresh(self):
        """Nothing acts."""

    def collect(self):
        """Returns a dict of arrays `[K, N, ...]`, of K gradient steps."""
        return stacked(self._reader, self.iteration_length, self._examples)

    def drain_episodes(self):
        """Returns nothing: no episode ended."""
        return []

    def drain_logs(self):
        """Returns how often the whole dataset has been read."""
        return {"dataset_epochs": float(self._reader.epoch)}


def open_reader(agent, dataset, arguments, before):
    """Opens a dataset where an agent stopped reading it, or anew.

    Args:
        agent: The `Agent`, whose generator a new order is drawn with.
        dataset: As for `DatasetSource`.
        arguments: Dict of arguments of its `reader`.
        before: A `Reading`, its state, or `None`.

    Returns:
        Tuple of the reader and a `Reading` of it.
    """
    before = state_of(before)
    key = {
        "num_episodes": int(dataset.num_episodes),
        "num_steps": int(dataset.num_steps),
        **arguments,
    }
    if hasattr(dataset, "fingerprint"):
        key["contents"] = dataset.fingerprint()
    # Files that were written before know less of what was read.
    goes_on = before is not None and {**key, **before["of"]} == key
    # Drawn only where it is needed: to go on is to do as if nothing had ended.
    seed = 0 if goes_on else int(agent.rng.integers(2**31))
    reader = dataset.reader(**arguments, seed=seed)
    if goes_on:
        reader.set_state(before["state"])
    return reader, Reading(key, reader)


def stacked(reader, count, examples):
    """Reads several batches.

    Args:
        reader: What reads.
        count: Integer `K`.
        examples: Tree of arrays of observations, in the dtypes that a policy takes.

    Returns:
        Dict of arrays `[K, N, ...]`.
    """
    batches = [reader.next() for _ in range(count)]
    found = optree.tree_map(lambda *rows: np.stack(rows), *batches)
    for name in set(_OBSERVED) & set(found):
        found[name] = optree.tree_map(
            lambda x, example: x.astype(example.dtype, copy=False),
            found[name],
            examples,
        )
    return {"extras": {}, "infos": {}, **found}


class Reading:
    """How far a dataset was read.

    Args:
        key: Dict of JSON-compatible data, of what and how.
        reader: What reads it.
    """

    def __init__(self, key, reader):
        self._key, self._reader = key, reader

    def get_state(self):
        """Returns JSON-compatible data."""
        return {"of": self._key, "state": self._reader.state()}


def state_of(reading):
    """Returns what to save of how far an agent has read, or `None`.

    Args:
        reading: Its attribute of that name.
    """
    return reading.get_state() if isinstance(reading, Reading) else reading


def learn_statistics(agent, dataset):
    """Has a policy that normalizes observations learn the statistics of a dataset.

    Args:
        agent: An `Agent` that was built.
        dataset: As for `DatasetSource`.
    """
    if not counts_observations(agent.policy):
        return
    learn = passes.normalizer(agent)
    examples = agent.policy.example_inputs(1)["observations"]
    for episode in dataset.episodes:
        # Not what followed the last action, on which nothing was chosen.
        for start in range(0, episode.length, _CHUNK):
            size = min(_CHUNK, episode.length - start)

            def filled(rows, example, start=start, size=size):
                part = np.asarray(rows[start : start + size], example.dtype)
                padding = [(0, _CHUNK - size), *[(0, 0)] * (part.ndim - 1)]
                return np.pad(part, padding)[:, None]

            observations = optree.tree_map(filled, episode.observations, examples)
            # Of one shape each time, so that it is compiled once.
            learn(_Observed(observations, (np.arange(_CHUNK) < size)[:, None]))


class _Observed:
    """What statistics read of a rollout, `[T, 1, ...]`."""

    def __init__(self, observations, valid):
        self.observations, self.valid = observations, valid
