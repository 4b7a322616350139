"""What is looked for in whole rollouts, where it costs next to nothing."""

import types
import warnings

import numpy as np
import optree

from kerasrl import action_masks, spaces
from kerasrl.envs.protocol import EnvProtocolError, Observations, bound, shown

#: The greatest size of an observation: squares of larger ones would soon be infinite.
LARGEST = 1e15
# Up to here float32 tells whole numbers apart.
_COUNTS_EXACTLY = 2.0**24
_WHOLE = {"b": "bool", "i": "integers", "u": "integers"}


class RolloutCheck:
    """Refuses rollouts with numbers that would spread into the weights.

    Args:
        envs: `kerasrl.envs.Environments`.
    """

    def __init__(self, envs):
        self._envs = envs
        self._observations = Observations(envs.observation_space)
        self._warned = set()

    def __call__(self, rollout, observations, counts=None):
        """Checks a rollout.

        Args:
            rollout: `kerasrl.rollouts.Rollout`.
            observations: Tree `[T + 1, B, ...]`, those of the rollout and the next.
            counts: Bool `[T + 1, B]`, which observations are acted on; `None` for all.
                Others may be anything, and so may what follows them.

        Raises:
            FloatingPointError: An action is NaN or infinite.
            EnvProtocolError: A reward or observation is, or an observation is beyond
                `LARGEST`, or, of integers, out of the bounds of its space.
        """
        # First, because an environment can only answer NaN with NaN.
        for leaf in optree.tree_leaves(rollout.actions):
            if leaf.dtype.kind != "f":
                continue
            wrong = _of(~np.isfinite(leaf), counts)
            if wrong.any():
                time, env = np.argwhere(wrong)[0][:2].tolist()
                raise FloatingPointError(
                    "The policy chose an action with NaN or infinity at step "
                    f"{time} of the rollout, in environment {env}. Received: "
                    f"{shown(leaf[time, env])}. Lower the learning rate, clip "
                    "gradients, or look at what the policy computes."
                )
        rewards = rollout.rewards
        wrong = _of(~np.isfinite(rewards), counts)
        if wrong.any():
            time, env = np.argwhere(wrong)[0].tolist()
            self._refuse("a reward with NaN or infinity", time, env, rewards[time, env])
        trees = [(observations, None)]
        if rollout.final is not None:
            trees.append((rollout.final["observations"], rollout.final))
        for tree, final in trees:
            leaves = self._observations.list(tree)
            for leaf, array in zip(self._observations.leaves, leaves, strict=True):
                self._check_leaf(leaf, array, final, None if final else counts)

    def _check_leaf(self, leaf, array, final, counts):
        if leaf.exact:
            wrong = leaf.outside(array)
            what = f"out of the bounds {bound(leaf.low)} to {bound(leaf.high)}"
        else:
            largest = np.abs(array).max(initial=0.0)
            if largest < _COUNTS_EXACTLY:
                return
            if largest <= LARGEST:
                return self._warn_of_rounding(leaf, largest)
            # The comparison is false for NaN.
            wrong = ~(np.abs(array) <= LARGEST)
            what = f"with NaN, infinity or a number beyond {LARGEST:g}"
        wrong = None if wrong is None else _of(wrong, counts)
        if wrong is None or not wrong.any():
            return
        where = np.argwhere(wrong)[0]
        if final is None:
            # An observation of row t is what step t - 1 returned, or a reset.
            time, env = where[:2].tolist()
            value = array[time, env]
        else:
            time, env = (final[name][where[0]].item() for name in ("time", "env"))
            value = array[where[0]]
        kind = "an" if final is None else "a final"
        self._refuse(f"{kind} observation ({leaf.name}) {what}", time, env, value)

    def _warn_of_rounding(self, leaf, largest):
        if leaf.name not in self._warned:
            self._warned.add(leaf.name)
            warnings.warn(
                f"Observations ({leaf.name}) of {self._envs.name} reach {largest:.3g}. "
                "They are kept as float32, whose numbers lie "
                f"{np.spacing(np.float32(largest)):g} apart there: smaller changes are "
                "lost. Subtract a constant, or divide, in a wrapper "
                "(gymnasium.wrappers.TransformObservation). Where the space is float64 "
                "and the first observation is as large, normalize_observations=True "
                "subtracts that.",
                stacklevel=2,
            )

    def _refuse(self, what, time, env, value):
        envs = self._envs
        raise EnvProtocolError(
            f"Environment {envs.first_index + env} of {envs.name} returned {what} at "
            f"step {time} of the rollout. Received: {shown(value)}. Fix the "
            "environment, or correct its observations in a wrapper."
        )


def _of(wrong, counts):
    """What is wrong `[T, B, ...]` of what counts."""
    if counts is None:
        return wrong
    return wrong & counts[: len(wrong)].reshape(
        *wrong.shape[:2], *[1] * (wrong.ndim - 2)
    )


class RecordedCheck:
    """Refuses rollouts of others that are not of some spaces, or have bad numbers.

    Args:
        observation_space, action_space: `gymnasium.Space` of one environment.
    """

    def __init__(self, observation_space, action_space):
        recorded = types.SimpleNamespace(
            observation_space=observation_space, name="the rollouts", first_index=0
        )
        self._check_numbers = RolloutCheck(recorded)
        self._has_mask = action_masks.has_mask(observation_space, action_space)
        self._counts = action_masks.counts_of_options(action_space)
        action_space = spaces.emitted(action_space)
        self._actions = spaces.leaves(action_space)
        self._examples = {
            "observations": spaces.zeros(observation_space, 1),
            "actions": spaces.zeros(action_space, 1),
        }

    def __call__(self, rollout):
        """Checks a rollout.

        Args:
            rollout: `kerasrl.rollouts.Rollout`.

        Raises:
            ValueError: It is a slice, or a structure, shape, dtype or choice is not of
                these spaces.
            FloatingPointError, EnvProtocolError: As from `RolloutCheck`.
        """
        following = rollout.next_inputs
        if following is None:
            raise ValueError(
                "The rollout has no `next_inputs`: it is a slice of another one. Learn "
                "from whole rollouts, as Collector.collect returns them."
            )
        lead = np.shape(rollout.rewards)
        self._check_tree("observations", rollout.observations, lead)
        self._check_tree("observations", following["observations"], lead[1:])
        self._check_tree("actions", rollout.actions, lead)
        leaves = optree.tree_leaves(rollout.actions)
        for space, leaf in zip(self._actions, leaves, strict=True):
            count = spaces.num_choices(space)
            if count is not None and ((leaf < 0) | (leaf >= count)).any():
                raise ValueError(
                    f"The rollout's actions are not of {space}. Received: numbers from "
                    f"{leaf.min()} to {leaf.max()}. Expected: choices counted from 0, "
                    "whatever the space starts at."
                )
        if self._has_mask:
            mask = rollout.observations[action_masks.KEY]
            legal = action_masks.are_legal(mask, rollout.actions, self._counts)
            if not (legal | ~rollout.valid).all():
                time, env = np.argwhere(~legal & rollout.valid)[0].tolist()
                raise ValueError(
                    f"The rollout's action at step {time} in environment {env} is one "
                    "that its mask forbids. Received: "
                    f"{np.asarray(rollout.actions)[time, env].tolist()} with the mask "
                    f"{mask[time, env].tolist()}. Give the mask under which it was "
                    "chosen."
                )
        observations = optree.tree_map(
            lambda leaf, last: np.concatenate([leaf, last[None]]),
            rollout.observations,
            following["observations"],
        )
        self._check_numbers(rollout, observations)

    def _check_tree(self, name, tree, lead):
        example = self._examples[name]
        received, expected = _describe(tree, 0), _describe(example, 1, lead)
        structures = optree.tree_structure(tree), optree.tree_structure(example)
        if structures[0] != structures[1]:
            received, expected = structures
        if received != expected:
            raise ValueError(
                f"The rollout's {name} do not fit the spaces that the agent was built "
                f"for. Received: {received}. Expected: {expected}."
            )


def _describe(tree, num_axes, lead=()):
    """Shapes and dtypes of the leaves; whole numbers may be of any size."""
    return [
        ((*lead, *leaf.shape[num_axes:]), _WHOLE.get(leaf.dtype.kind, str(leaf.dtype)))
        for leaf in map(np.asarray, optree.tree_leaves(tree))
    ]
