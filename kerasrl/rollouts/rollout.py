"""Experience as arrays over time and environments."""

import dataclasses
from typing import Any

import numpy as np
import optree

#: What a policy is given in every step, besides its state.
POLICY_INPUTS = ("observations", "previous_actions", "previous_rewards")
#: The extra of acting that says how probable actions were, to be written to files.
BEHAVIOR_LOG_PROBS = "behavior_log_probs"


@dataclasses.dataclass
class Rollout:
    """T steps of B environments, as a tree of arrays `[T, B, ...]`.

    A node of `optree` and `keras.tree`: `optree.tree_map` goes through all of it.
    `rollout[index]` and `rollout.map(function)` treat the `[T, B]` part, and
    `dataclasses.replace(rollout, rewards=...)` makes a changed copy.

    An episode never stops with a bare `done`: `terminated` removes the bootstrap,
    `terminated | truncated` cuts traces, and `final` has what is needed to evaluate the
    last observation of every truncated episode in one batch.

    Args:
        observations: Tree `[T, B, ...]`. `observations[t]` is what `actions[t]` was
            chosen on.
        actions: Tree `[T, B, ...]`, as the policy emitted them: before clipping, and
            discrete choices counted from zero.
        rewards: float32 `[T, B]`. `rewards[t]` follows `actions[t]`.
        terminated: bool `[T, B]`, the episode reached an end of the task after
            `actions[t]`.
        truncated: bool `[T, B]`, the episode was cut off after `actions[t]`.
        valid: bool `[T, B]`, False for fillers, which nothing may be learnt from:
            calls on which a vector environment in NEXT_STEP mode only reset, and what a
            worker that was lost would have collected. They have `truncated` True; their
            observation is what the step before led to.
        episode_starts: bool `[T, B]`, True where `observations[t]` is the first of an
            episode: recurrent state must be set to the initial state before step `t`.
        previous_actions: Tree `[T, B, ...]`, zeros at episode starts.
        previous_rewards: float32 `[T, B]`, zeros at episode starts.
        state: Tree `[B, ...]`, recurrent state before row 0, `episode_starts[0]` not
            yet applied. `()` without recurrence.
        next_inputs: Dict of what the policy sees at step T: `observations`,
            `previous_actions` (trees `[B, ...]`), `previous_rewards` float32 `[B]`,
            `episode_starts` bool `[B]`.
        final: `None` if no valid step was truncated without being terminated (or, with
            `Collector(all_finals=True)`, ended an episode in any way), else a dict over
            these K steps in the order of time: `time` and `env` int `[K]`,
            `observations` tree `[K, ...]` (the last observation of the episode),
            `previous_actions` tree `[K, ...]` and `previous_rewards` float32 `[K]`
            (action and reward of that very step), `state` tree `[K, ...]` (after the
            policy consumed `observations[time, env]`).
        extras: Dict of trees `[T, B, ...]`, whatever else the actor returned.
        infos: Dict of arrays `[T, B, ...]` of the info keys asked for: float64 with
            NaN where a number is missing, else objects with `None`.
        first_env: Integer, the number of its first environment among all that are
            trained in: not 0 where workers are learnt from one at a time. Where several
            fragments of workers are joined, a tuple of as many integers, each of an
            equal share of the columns; one environment may be there twice, the earlier
            steps first.

    Example:

    ```python
    rollout = collector.collect()
    first_half = rollout[:64]
    flat = rollout.map(lambda array: array.reshape(-1, *array.shape[2:]))
    ```
    """

    observations: Any
    actions: Any
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    valid: np.ndarray
    episode_starts: np.ndarray
    previous_actions: Any
    previous_rewards: np.ndarray
    state: Any = ()
    next_inputs: dict | None = None
    final: dict | None = None
    extras: dict = dataclasses.field(default_factory=dict)
    infos: dict = dataclasses.field(default_factory=dict)
    first_env: Any = 0

    @property
    def num_steps(self):
        """Number of environment steps in it: T times B, less the fillers."""
        return int(np.count_nonzero(self.valid))

    def parts(self):
        """Says of which environments it is.

        Returns:
            List of pairs of the number of an environment among all that are trained
            in, and the slice of the columns that are of it and of those that follow.
        """
        firsts = self.first_env
        firsts = firsts if isinstance(firsts, tuple) else (firsts,)
        width, rest = divmod(self.rewards.shape[1], len(firsts))
        if rest:
            raise ValueError(
                f"Received a rollout of {self.rewards.shape[1]} environments with "
                f"first_env={self.first_env}. Expected a number that has "
                f"{len(firsts)} equal parts."
            )
        return [
            (first, slice(part * width, (part + 1) * width))
            for part, first in enumerate(firsts)
        ]

    def map(self, function):
        """Applies a function to every `[T, B, ...]` array.

        Args:
            function: Takes and returns an array.

        Returns:
            A `Rollout` with the mapped arrays; `state`, `next_inputs` and `final` are
            those of this one.
        """
        fields = {
            name: optree.tree_map(function, getattr(self, name))
            for name in (*TIME_FIELDS, "infos")
        }
        return dataclasses.replace(self, **fields)

    def __getitem__(self, index):
        """Slices every `[T, B, ...]` array.

        Args:
            index: Whatever indexes an array: a slice of time, a pair of slices, a
                boolean mask `[T, B]`.

        Returns:
            A `Rollout` whose `state`, `next_inputs` and `final` are `None`, because
            they belong to the whole.
        """
        sliced = self.map(lambda array: array[index])
        return dataclasses.replace(sliced, state=None, next_inputs=None, final=None)


_FIELDS = tuple(
    field.name for field in dataclasses.fields(Rollout) if field.name != "first_env"
)
#: Fields with leaves `[T, B, ...]` of plain numbers. The others are `infos`, and what
#: describes the rollout as a whole.
TIME_FIELDS = tuple(
    name for name in _FIELDS if name not in ("state", "next_inputs", "final", "infos")
)


def _flatten(rollout: Any) -> Any:
    children = tuple(getattr(rollout, name) for name in _FIELDS)
    return children, rollout.first_env, _FIELDS


def _unflatten(first_env: Any, children: Any) -> Any:
    fields = dict(zip(_FIELDS, children, strict=True))
    return Rollout(**fields, first_env=first_env)


# The global namespace, so that both `optree` and `keras.tree` know the class.
_register: Any = optree.register_pytree_node
_register(Rollout, _flatten, _unflatten, namespace=optree.registry.__GLOBAL_NAMESPACE)


def take(tree, index):
    """Indexes every array of a tree; views where NumPy gives views.

    Args:
        tree: Tree of arrays.
        index: Whatever indexes an array.

    Returns:
        Tree of arrays or, where nothing is left to index, NumPy scalars.
    """
    if isinstance(tree, np.ndarray):  # By far the most frequent.
        return tree[index]
    return optree.tree_map(lambda array: array[index], tree)
