"""The latest rollouts, kept to be learnt from again."""

import dataclasses

import numpy as np
import optree

from kerasrl.rollouts.rollout import POLICY_INPUTS


class RecentRollouts:
    """The latest rollouts, from which some are drawn for each that is added.

    Example:

    ```python
    recent = RecentRollouts()
    recent.add(rollout, slots=16)
    for old in recent.draw(rng, proportion=0.5):  # One for every two added.
        ...
    ```
    """

    def __init__(self):
        self.rollouts = []
        #: Rollouts to draw that are due, less than one after each `draw`.
        self.due = 0.0

    def add(self, rollout, slots):
        """Keeps a rollout, in place of the oldest where there are too many.

        Those of other shapes are forgotten: what is compiled for one is not for both.

        Args:
            rollout: A `Rollout`.
            slots: Integer, how many to keep.
        """
        if self.rollouts and _form(self.rollouts[-1]) != _form(rollout):
            self.rollouts.clear()
        self.rollouts.append(rollout)
        del self.rollouts[:-slots]

    def draw(self, rng, proportion):
        """Draws the rollouts that are due since the last one was added.

        Args:
            rng: `numpy.random.Generator`.
            proportion: Float, how many for each that is added, in the mean.

        Returns:
            List of `Rollout`, with repetition.
        """
        self.due += proportion
        count = int(self.due + 1e-9)  # Ten tenths are one.
        self.due = max(0.0, self.due - count)
        return [self.rollouts[rng.integers(len(self.rollouts))] for _ in range(count)]

    # State ----------------------------------------------------------------------

    def get_state(self):
        """Returns what is not in arrays, as JSON-compatible data."""
        described = [
            {
                "extras": list(rollout.extras),
                "infos": [name for name, x in rollout.infos.items() if _is_plain(x)],
                "final": rollout.final is not None,
                "first_env": rollout.first_env,
            }
            for rollout in self.rollouts
        ]
        return {"due": self.due, "rollouts": described}

    def get_arrays(self, prefix):
        """Returns a dict from names, of three parts with a dot between, to arrays."""
        arrays = {}
        for number, rollout in enumerate(self.rollouts):
            infos = {n: x for n, x in rollout.infos.items() if _is_plain(x)}
            kept = dataclasses.replace(rollout, infos=infos)
            for index, leaf in enumerate(optree.tree_leaves(kept)):
                arrays[f"{prefix}.{number}.{index}"] = np.asarray(leaf)
        return arrays

    def set_state(self, state, arrays, prefix, example):
        """Restores what `get_state` and `get_arrays` returned.

        Args:
            state: What `get_state` returned.
            arrays: Dict of arrays, others among them. Without any of `get_arrays`,
                there are no rollouts.
            prefix: As for `get_arrays`.
            example: A `Rollout` `[1, 1, ...]` of the same policy and spaces.

        Raises:
            ValueError: It is not what they could have returned.
        """
        own = {name: x for name, x in arrays.items() if name.split(".")[0] == prefix}
        if not isinstance(state, dict) or set(state) != {"due", "rollouts"}:
            raise ValueError(f"Received {state!r:.200} as the state of rollouts.")
        described = state["rollouts"] if own else []
        rollouts = []
        for number, entry in enumerate(described):
            structure = optree.tree_structure(_template(example, entry))
            names = [f"{prefix}.{number}.{i}" for i in range(structure.num_leaves)]
            if not set(names) <= set(own):
                raise ValueError(
                    f"Arrays of rollout {number} are missing. Expected: {names}."
                )
            leaves = [own.pop(name) for name in names]
            rollout = optree.tree_unflatten(structure, leaves)
            first = entry["first_env"]
            rollout.first_env = tuple(first) if isinstance(first, list) else first
            _check(rollout, example)
            rollouts.append(rollout)
        if own:
            raise ValueError(f"Received arrays of no rollout: {sorted(own)}.")
        if not 0.0 <= state["due"] < 1.0:
            raise ValueError(
                f"Received {state['due']!r} as the share of a rollout that is due. "
                "Expected a number from 0 to 1."
            )
        self.rollouts, self.due = rollouts, float(state["due"])


def _is_plain(array):
    return np.asarray(array).dtype != object


def _form(rollout):
    """What a compiled update is compiled for."""
    infos = {name for name, x in rollout.infos.items() if _is_plain(x)}
    return rollout.rewards.shape, set(rollout.extras), infos


def _template(example, entry):
    """A rollout of the structure that one was saved with."""
    keys = {"extras", "infos", "final", "first_env"}
    if not isinstance(entry, dict) or set(entry) != keys:
        raise ValueError(f"Received {entry!r:.200} as the description of a rollout.")
    leaf = np.zeros(())
    final = None
    if entry["final"]:
        final = {name: leaf for name in ("time", "env")}
        final |= {name: example.next_inputs[name] for name in POLICY_INPUTS}
        final["state"] = example.state
    return dataclasses.replace(
        example,
        extras={name: example.extras.get(name, leaf) for name in entry["extras"]},
        infos=dict.fromkeys(entry["infos"], leaf),
        final=final,
    )


def _check(rollout, example):
    """Raises a ValueError unless arrays are those of a rollout like an example."""
    lead = rollout.rewards.shape
    if len(lead) != 2:
        raise ValueError(f"Received rewards of shape {lead}. Expected [T, B].")
    for name in ("observations", "actions", "previous_actions", "rewards", "state",
                 "previous_rewards", "terminated", "truncated", "valid",
                 "episode_starts", "next_inputs"):  # fmt: skip
        whole = name not in ("state", "next_inputs")
        axes = lead if whole else lead[1:]
        _check_like(name, getattr(rollout, name), getattr(example, name), axes)
    for name, tree in rollout.extras.items():
        if name in example.extras:
            _check_like(name, tree, example.extras[name], lead)
        else:
            _check_like(name, tree, tree, lead)
    for name, array in rollout.infos.items():
        # NaN where environments did not say.
        _check_like(name, array, array, lead, finite=False)
    if rollout.final is not None:
        times, envs = rollout.final["time"], rollout.final["env"]
        count = times.shape[:1]
        inside = all(
            x.shape == count
            and x.dtype.kind == "i"
            and (x >= 0).all()
            and (x < n).all()
            for x, n in zip((times, envs), lead, strict=True)
        )
        if not inside:
            raise ValueError("Received final observations of no step of a rollout.")
        for name in POLICY_INPUTS:
            like = example.next_inputs[name]
            _check_like(name, rollout.final[name], like, count)
        _check_like("state", rollout.final["state"], example.state, count)
    first = rollout.first_env
    firsts = first if isinstance(first, tuple) else (first,)
    if not firsts or not all(type(each) is int and each >= 0 for each in firsts):
        raise ValueError(
            f"Received first_env={first!r} of a rollout. Expected a whole number, or "
            "several."
        )
    rollout.parts()  # Refuses what does not share out its environments.


def _check_like(name, tree, example, lead, finite=True):
    leaves = optree.tree_leaves(tree)
    for array, like in zip(leaves, optree.tree_leaves(example), strict=True):
        expected = (*lead, *like.shape[len(lead) :])
        # Choices may be of any size.
        number = array.dtype.kind in "fiub" and array.dtype.kind == like.dtype.kind
        if not number or array.shape != expected:
            raise ValueError(
                f"Received {name} of shape {array.shape} and {array.dtype} among "
                f"rollouts. Expected: {expected} and {like.dtype}."
            )
        if finite and array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"Received {name} with NaN or infinity among rollouts.")
