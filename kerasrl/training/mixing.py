"""A dataset beside what an agent collects: batches for its loss, or part of replay."""

import keras
import numpy as np
import optree

from kerasrl import checks
from kerasrl.models import Policy
from kerasrl.training import datasets, reading
from kerasrl.training.parts import Replaceable

#: Steps of a batch of a dataset, if nobody says how many.
_SIZE = 256


class Unmixed:
    """No dataset beside what an agent collects."""

    is_mixed = False

    def start(self):
        """There is nothing to open."""

    def draw(self, count):
        """Returns no arguments."""
        return {}

    example = draw


class Mixing:
    """Batches of a dataset for an agent that learns from what it collects.

    With `ratio` they take the place of that share of each batch of replay; without,
    losses find one under `batch["offline"]` in each gradient step. The next `fit` on
    the same dataset, with the same arguments, goes on reading where this one ends, also
    after the agent was saved and loaded. Each rank reads in an order of its own.

    Args:
        agent: The `Agent`, built.
        dataset: As for `datasets.DatasetSource`.
        batch_size: Integer, samples of the dataset for each gradient step; pieces of
            episodes if the policy has memory. `None` for 256 steps in all.
        ratio: Float in (0, 1), or `None`.
        info_keys: Names of infos that are collected besides.

    Raises:
        TypeError: It is no dataset, or the agent has no use for it.
        ValueError: The spaces differ, or arguments contradict each other.
    """

    def __init__(self, agent, dataset, batch_size=None, ratio=None, info_keys=()):
        if not datasets.is_dataset(dataset):
            raise TypeError(
                f"Received offline={dataset!r:.200}. Expected a "
                "kerasrl.offline.Dataset."
            )
        if not agent.learns_from_rollouts:
            raise TypeError(
                f"Received offline={dataset!r:.200}. {type(agent).__name__} takes no "
                "gradient steps on what it collects: leave it out."
            )
        agent.build(dataset.observation_space, dataset.action_space)
        self._agent, self._dataset = agent, dataset
        self.is_mixed = ratio is not None
        if self.is_mixed:
            self._arguments = _share(agent, batch_size, ratio)
            kept = {"infos": info_keys, "extras": reading.extras_example(agent)}
            _refuse_kept([name for name, found in kept.items() if found])
        else:
            _check_used(agent)
            self._arguments = _pieces(agent, batch_size)
        self._examples = agent.policy.example_inputs(1)["observations"]
        self._reader = None

    def start(self):
        """Opens the dataset where the agent stopped reading it, or anew."""
        agent = self._agent
        self._reader, agent.offline_reading = datasets.open_reader(
            agent, self._dataset, self._arguments, agent.offline_reading
        )

    def draw(self, count):
        """Reads the batches of several gradient steps.

        Args:
            count: Integer `K`.

        Returns:
            Dict of arguments of a `CompiledUpdate`: `"offline"`, a dict of arrays `[K,
            N, ...]` as a reader has them, with `"mask"`, float32, of `[K, N, L, ...]`
            for policies with memory. Empty if they are mixed into replay.
        """
        return self._argument(self._reader, count)

    def example(self, count):
        """Returns the like of `draw`, without reading on."""
        return self._argument(self._dataset.reader(**self._arguments, seed=0), count)

    def mix(self, batches):
        """Puts steps of the dataset in the place of the last ones of each batch.

        Args:
            batches: Dict of arrays `[K, N, ...]`, new ones, as a replay buffer samples
                them; they are changed.

        Raises:
            ValueError: They have what a dataset has not.
        """
        kept = [
            name for name in ("extras", "infos") if optree.tree_leaves(batches[name])
        ]
        # Perhaps since an earlier `fit`.
        _refuse_kept(kept)
        shape = batches["rewards"].shape
        found = self._stacked(self._reader, shape[0])
        size = found["rewards"].shape[1]
        found["discounts"] = np.float32(self._agent.gamma) * ~found["terminated"]
        for name in ("steps", "weights"):
            found[name] = np.ones(found["rewards"].shape, batches[name].dtype)

        def put(into, rows):
            into[:, shape[1] - size :] = rows

        names = ("observations", "next_observations", "actions", "rewards")
        names += ("discounts", "terminated", "truncated", "steps", "weights")
        for name in names:
            optree.tree_map_(put, batches[name], found[name])

    def _argument(self, reader, count):
        return {} if self.is_mixed else {"offline": self._stacked(reader, count)}

    def _stacked(self, reader, count):
        batches = datasets.stacked(reader, count, self._examples)
        if self.is_mixed:
            return batches
        shape = batches["rewards"].shape
        mask = batches.get("mask", np.ones(shape, bool))
        batches["mask"] = mask.astype(np.float32)
        if self._agent.policy.is_recurrent:
            return with_memory(self._agent.policy, batches)
        return batches


def _share(agent, batch_size, ratio):
    """How a dataset is read to be a share of batches of replay."""
    if batch_size is not None:
        raise ValueError(
            f"Received offline_batch_size={batch_size!r} and offline_ratio={ratio!r}, "
            "which is a share of batch_size. Leave out either."
        )
    if not hasattr(agent, "remember"):
        raise TypeError(
            f"Received offline_ratio={ratio!r}, the share of batches of replay that "
            f"are of the dataset, and {type(agent).__name__} has no replay. Give "
            'offline_batch_size, and use batch["offline"] in custom_loss.'
        )
    # Raises for what single steps of a dataset do not have.
    arguments = agent.reader_arguments()
    checks.fraction("offline_ratio", ratio)
    size = round(ratio * agent.batch_size)
    if not 0 < size < agent.batch_size:
        raise ValueError(
            f"Received offline_ratio={ratio!r} with batch_size={agent.batch_size}, "
            f"which makes {size} of the dataset. Expected at least one of each kind: "
            "use fit(dataset) to learn from it alone."
        )
    return {**arguments, "batch_size": size}


def _refuse_kept(names):
    """Raises a ValueError if replay keeps what steps of a dataset do not have."""
    if names:
        raise ValueError(
            f"Received offline_ratio, and steps whose {' and '.join(names)} replay "
            "keeps, which those of a dataset do not have. Leave out info_keys, and "
            "whatever acting records."
        )


def _pieces(agent, batch_size):
    """How a dataset is read for losses."""
    length = 1
    if agent.policy.is_recurrent:
        # As long as what else is learnt from.
        length = getattr(agent, "sequence_length", None) or agent.rollout_length
    size = max(1, _SIZE // length) if batch_size is None else batch_size
    size = checks.positive_integer("offline_batch_size", size)
    if not agent.policy.is_recurrent:
        reading.refuse_previous_inputs(agent)
        return {"batch_size": size}
    return {"batch_size": size, "sequence_length": length}


def _check_used(agent):
    """Raises a ValueError if no function of a user's own could look at the batch."""
    policy, kind = type(agent.policy), type(agent)
    hooks = (
        (policy.custom_loss, Policy.custom_loss),
        (policy.custom_metrics, Policy.custom_metrics),
        (kind.step_metrics, Replaceable.step_metrics),
    )
    losses = (getattr(kind, name, None) for name in ("loss", "critic_loss", "update"))
    is_own = any(
        each is not None and not each.__module__.startswith("kerasrl.")
        for each in losses
    )
    if not is_own and all(own is default for own, default in hooks):
        raise ValueError(
            f"Received offline, of which nothing would be learnt: {policy.__name__} "
            f"has no custom_loss that reads batch['offline'], and {kind.__name__} no "
            "loss of yours. Define one, or give offline_ratio to an algorithm with "
            "replay."
        )


def with_memory(policy, batches):
    """Adds what a policy with memory takes of sequences, to batches `[K, N, L, ...]`.

    Its memory begins empty, also with pieces from the middle of an episode.
    """

    def before(rows):
        first = np.zeros_like(rows[:, :, :1])
        return np.concatenate([first, rows[:, :, :-1]], axis=2)

    shape = batches["rewards"].shape[:2]
    state = optree.tree_map(keras.ops.convert_to_numpy, policy.get_initial_state(1))
    return {
        **batches,
        "previous_actions": optree.tree_map(before, batches["actions"]),
        "previous_rewards": before(batches["rewards"]),
        "state": optree.tree_map(
            lambda x: np.broadcast_to(x[0], (*shape, *x.shape[1:])).copy(), state
        ),
    }
