"""Rollouts of some environments in shared arrays, and rollouts made of several."""

import dataclasses
import pickle

import numpy as np
import optree

from kerasrl import spaces
from kerasrl.rollouts.rollout import TIME_FIELDS, Rollout, take
from kerasrl.workers import channel


def write_row(tree, index, row):
    """Writes one row into every array `[B, ...]` of a tree."""
    leaves, structure = optree.tree_flatten(tree)
    for leaf, value in zip(leaves, structure.flatten_up_to(row), strict=True):
        leaf[index] = value


def dump_infos(infos, first_index):
    """Pickles the infos of one step.

    Args:
        infos: List of dicts.
        first_index: Integer, index of the first of the environments among all.

    Raises:
        TypeError: There is something in them that cannot be sent.
    """
    try:
        return pickle.dumps(infos)
    except Exception:
        pass
    for index, info in enumerate(infos):
        try:
            channel.dumps(info)
        except TypeError as error:
            raise TypeError(
                f"Environment {first_index + index} put something into its infos that "
                f"cannot be sent to the learner: {error} Or leave it out of the infos."
            ) from error
    return channel.dumps(infos)


class BrokenOff(Exception):
    """What is being collected is not wanted any more."""


class InfoKeeper:
    """Environments that keep what they say in infos, for the learner.

    Args:
        envs: `kerasrl.envs.Environments`.
        freeze: `None`, or a function of the infos of a step that returns what to keep:
            environments may go on to write into theirs.

    Attributes:
        keys: `None` to keep nothing, a tuple of names, or `"all"`.
        stop: `None`, or a `memoryview` of a number: once that is not 0, `step` raises
            `BrokenOff`.
    """

    def __init__(self, envs, freeze=None):
        self._envs = envs
        self._freeze = freeze
        self.keys = self.stop = None
        self._kept = []

    def __getattr__(self, name):
        return getattr(self._envs, name)

    def step(self, actions, out=None):
        """See `kerasrl.envs.Environments.step`."""
        if self.stop is not None and self.stop[0]:
            raise BrokenOff
        step = self._envs.step(actions, out)
        if self.keys is not None:
            infos = step.infos
            if self.keys != "all":
                infos = [{key: info.get(key) for key in self.keys} for info in infos]
            self._kept.append(infos if self._freeze is None else self._freeze(infos))
        return step

    def drain(self):
        """Returns the infos since the last call, one list a step, or `None`."""
        if self.keys is None:
            return None
        kept, self._kept = self._kept, []
        return kept


def fragment_example(envs, num_envs, length, actor, exploration):
    """Arrays like those of a rollout, to make shared ones after.

    Args:
        envs: `kerasrl.envs.Environments`, whose spaces count.
        num_envs: Integer, environments of the worker, b.
        length: Integer, T.
        actor: The actor; it is called once to see what it returns.
        exploration: Dict of arrays `[b, ...]`.

    Returns:
        Nested dict of arrays.
    """
    initial_state = () if actor.initial_state is None else actor.initial_state
    inputs = {
        "observations": spaces.zeros(envs.observation_space, num_envs),
        "previous_actions": spaces.zeros(spaces.emitted(envs.action_space), num_envs),
        "previous_rewards": np.zeros(num_envs, np.float32),
    }
    state = optree.tree_map(
        lambda leaf: np.repeat(np.asarray(leaf)[None], num_envs, axis=0), initial_state
    )
    generators = [np.random.default_rng(0) for _ in range(num_envs)]
    noise = [array[0] for array in actor.draw(generators, 1)]
    outputs = actor({**exploration, **inputs, "state": state}, noise)

    def rows(tree, count):
        """Stands for arrays `[count, ...]` without taking memory."""
        return optree.tree_map(
            lambda leaf: np.broadcast_to(leaf, (count, *np.shape(leaf))), tree
        )

    extras = {
        name: value
        for name, value in outputs.items()
        if name not in ("actions", "state")
    }
    flags = np.zeros(num_envs, bool)
    step = {
        "observations": inputs["observations"],
        "actions": inputs["previous_actions"],
        "rewards": inputs["previous_rewards"],
        "terminated": flags,
        "truncated": flags,
        "valid": flags,
        "episode_starts": flags,
        "previous_actions": inputs["previous_actions"],
        "previous_rewards": inputs["previous_rewards"],
        "extras": extras,
    }
    # As many ends as there can be; the memory is taken only as far as it is used.
    final = {
        "time": np.int64(0),
        "env": np.int64(0),
        **take({**inputs, "state": state}, 0),
    }
    return {
        "steps": rows(step, length),
        "state": state,
        "next_inputs": {**inputs, "episode_starts": flags},
        "final": rows(final, length * num_envs),
        "num_final": np.zeros(1, np.int64),
        "exploration": exploration,
    }


def write_fragment(fragment, rollout):
    """Writes a rollout into shared arrays.

    Args:
        fragment: Tree of arrays as from `fragment_example`.
        rollout: `Rollout`.

    Returns:
        List of the paths of what was written; see `MirroredArrays.wrote`.
    """
    for name, target in fragment["steps"].items():
        _write(target, getattr(rollout, name))
    _write(fragment["state"], rollout.state)
    _write(fragment["next_inputs"], rollout.next_inputs)
    count = 0 if rollout.final is None else len(rollout.final["time"])
    fragment["num_final"][0] = count
    if count:
        _write(take(fragment["final"], slice(count)), rollout.final)
    written = [(name,) for name in ("steps", "state", "next_inputs", "num_final")]
    return [*written, ("final", range(count))]


def read_fragment(fragment):
    """Returns a `Rollout` whose arrays are the shared ones."""
    count = int(fragment["num_final"][0])
    return Rollout(
        **fragment["steps"],
        state=fragment["state"],
        next_inputs=fragment["next_inputs"],
        final=take(fragment["final"], slice(count)) if count else None,
    )


def dropped_fragment(fragment, before, observations, initial_state):
    """Returns the rollout of a worker that was lost: nothing in it is valid.

    Args:
        fragment: Tree of arrays as from `fragment_example`, for the shapes.
        before: Dict as `Rollout.next_inputs` of these environments before the loss.
        observations: Tree `[b, ...]`, the first of the new episodes.
        initial_state: Tree without batch axis.
    """
    steps = optree.tree_map(np.zeros_like, fragment["steps"])
    steps["truncated"][:] = True
    steps["episode_starts"][:] = True
    # What followed the step before is known, and replay buffers want to know it.
    for target, first, later in (
        (steps["observations"], before["observations"], observations),
        (steps["previous_actions"], before["previous_actions"], None),
        (steps["previous_rewards"], before["previous_rewards"], None),
        (steps["episode_starts"], before["episode_starts"], None),
    ):
        _write(take(target, 0), first)
        if later is not None:
            _write(take(target, slice(1, None)), later)
    zeros = optree.tree_map(np.zeros_like, fragment["next_inputs"])
    state = optree.tree_map(np.zeros_like, fragment["state"])
    _write(state, initial_state)
    return Rollout(
        **steps,
        state=state,
        next_inputs={
            **zeros,
            "observations": observations,
            "episode_starts": np.ones_like(zeros["episode_starts"]),
        },
    )


def begin_generators_anew(generators):
    """Replaces generators whose copies a lost worker has used, nobody knows how far.

    Args:
        generators: List of `numpy.random.Generator`, changed in place.

    Returns:
        List of integers, seeds for the new episodes.
    """
    seeds = [int(generator.integers(2**31)) for generator in generators]
    for index, generator in enumerate(generators):
        # Not the same one: it would draw again what was drawn.
        generators[index] = np.random.default_rng(int(generator.integers(2**63)))
    return seeds


def join_rollouts(rollouts, starts):
    """Puts rollouts of different environments side by side, in new arrays.

    Args:
        rollouts: List of `Rollout` of the same length.
        starts: List of integers, the index of the first environment of each.

    Returns:
        A `Rollout`; its `infos` are empty.
    """

    def join(name, axis):
        trees = [getattr(rollout, name) for rollout in rollouts]
        return optree.tree_map(
            lambda *leaves: np.concatenate(leaves, axis=axis), *trees
        )

    return Rollout(
        **{name: join(name, 1) for name in TIME_FIELDS},
        state=join("state", 0),
        next_inputs=join("next_inputs", 0),
        final=_join_final(rollouts, starts),
    )


def join_fragments(rollouts):
    """Puts fragments of workers side by side, each as wide as the others.

    Args:
        rollouts: List of `Rollout` `[T, b, ...]`, in the order in which they were done.

    Returns:
        A `Rollout` `[T, len(rollouts) * b, ...]`, the first itself if there is one; its
        `first_env` has that of each.
    """
    if len(rollouts) == 1:
        return rollouts[0]
    width = rollouts[0].rewards.shape[1]
    joined = join_rollouts(rollouts, range(0, width * len(rollouts), width))
    for name in rollouts[0].infos:
        arrays = [rollout.infos[name] for rollout in rollouts]
        joined.infos[name] = _join_infos(arrays)
    joined.first_env = tuple(rollout.first_env for rollout in rollouts)
    return joined


def _join_infos(arrays):
    """One array of what an info key was in each; objects where these are unlike."""
    if len({(array.shape[2:], array.dtype.kind) for array in arrays}) == 1:
        return np.concatenate(arrays, axis=1)
    lengths = [array.shape[:2] for array in arrays]
    joined = np.full((lengths[0][0], sum(width for _, width in lengths)), None, object)
    start = 0
    for array in arrays:
        time, width = array.shape[:2]
        for row in range(time):
            for env in range(width):
                joined[row, start + env] = _said(array[row, env])
        start += width
    return joined


def _said(value):
    """What stands among objects for an entry of an array of numbers."""
    if value is None or (np.ndim(value) == 0 and value != value):
        return None  # Where numbers are, NaN says that nothing was said.
    return value


def truncated_only(rollout):
    """Leaves in `final` what was truncated without being terminated."""
    final = rollout.final
    if final is None:
        return rollout
    chosen = ~rollout.terminated[final["time"], final["env"]]
    if not chosen.any():
        return dataclasses.replace(rollout, final=None)
    return dataclasses.replace(rollout, final=take(final, chosen))


def _join_final(rollouts, starts):
    finals = [
        {**rollout.final, "env": rollout.final["env"] + start}
        for rollout, start in zip(rollouts, starts, strict=True)
        if rollout.final is not None
    ]
    if not finals:
        return None
    joined = optree.tree_map(lambda *leaves: np.concatenate(leaves), *finals)
    return take(joined, np.lexsort((joined["env"], joined["time"])))


def _write(target, source):
    """Copies a tree into arrays, repeated along leading axes if they have more."""
    leaves, structure = optree.tree_flatten(target)
    for leaf, value in zip(leaves, structure.flatten_up_to(source), strict=True):
        np.copyto(leaf, value)
