"""The one interface through which collectors see environments."""

import abc
import warnings

import numpy as np
import optree

from kerasrl import action_masks, spaces
from kerasrl.envs.protocol import (
    EnvProtocolError,
    Observations,
    bound,
    shown,
)
from kerasrl.spaces import check_space

#: So many steps, and so many with ends of episodes, are looked at most closely.
CLOSE_LOOKS = 100


class EnvStep:
    """What one step of all environments returned.

    Attributes:
        observations: tree `[B, ...]`, after autoreset: where an episode ended, the
            first observation of the next one.
        rewards: float32 `[B]`.
        terminated: bool `[B]`, the episode reached an end of the task. Read-only.
        truncated: bool `[B]`, the episode was cut off (time limit). Read-only.
        valid: bool `[B]`, False where the call only reset the environment and ignored
            the action (vector environments in NEXT_STEP mode). Such fillers have
            `truncated` True, `terminated` False and reward 0. Read-only.
        final_observations: dict from environment index to the last observation of the
            episode that ended there (tree without batch axis).
        any_ended: bool, whether `terminated` or `truncated` holds anywhere.
        as_played: None; or an `EnvStep` for statistics and hooks, where learners are
            told otherwise, of clipped rewards or of lives as episodes.
        infos: list of B dicts. Where an episode ended it is the info of the ending
            step, with the info of the reset under `"reset_info"`.

    Example:

    ```python
    step = envs.step(actions)
    step.rewards[step.valid]
    ```
    """

    __slots__ = (
        "observations",
        "rewards",
        "terminated",
        "truncated",
        "valid",
        "final_observations",
        "any_ended",
        "as_played",
        "_infos",
    )

    def __init__(
        self,
        observations,
        rewards,
        terminated,
        truncated,
        valid,
        final_observations,
        any_ended,
        infos,
    ):
        self.observations = observations
        self.rewards = rewards
        self.terminated = terminated
        self.truncated = truncated
        self.valid = valid
        self.final_observations = final_observations
        self.any_ended = any_ended
        self.as_played = None
        self._infos = infos

    @property
    def infos(self):
        # Unbatching the infos of a vector environment costs; most steps nobody asks.
        if callable(self._infos):
            self._infos = self._infos()
        return self._infos


class Environments(abc.ABC):
    """B environments stepped together, whatever they are made of.

    Made by `kerasrl.envs.make_envs`. Autoreset is normalised here: whatever mode the
    environments use, `step` reports true ends, true final observations and the first
    observation of the next episode.

    Attributes:
        num_envs: B.
        observation_space: `gymnasium.Space` of a single environment.
        action_space: `gymnasium.Space` of a single environment.
        name: the name to show, for instance `"CartPole-v1"`.
        reset_infos: list of B dicts, the infos of the last `reset`.
        resets_on_next_step: bool, whether the call after an end only resets (a filler),
            so that the `observations` of an ending step are still the final ones.
        frames: None; or a pair of how many frames each observation stacks, and the
            axis along which they lie.
        first_index: index of the first of them among all environments of a run, when
            they are one worker's share; messages count from there.
        num_envs_of_run: integer, the number of all environments of the run.
        has_action_mask: bool, whether observations say which actions may be taken.

    Example:

    ```python
    envs = make_envs("CartPole-v1", num_envs=2)
    observations = envs.reset([0, 1])
    envs.step(np.array([0, 1])).rewards
    # array([1., 1.], dtype=float32)
    ```
    """

    resets_on_next_step = False
    frames = None
    first_index = 0

    def __init__(self, num_envs, observation_space, action_space, name):
        check_space(observation_space, "observation")
        check_space(action_space, "action")
        self.num_envs = self.num_envs_of_run = num_envs
        self.observation_space = observation_space
        self.action_space = action_space
        self.name = name
        self.reset_infos = [{} for _ in range(num_envs)]
        self._observations = Observations(observation_space)
        self.observation_leaves = self._observations.list
        self._example = optree.tree_map(
            lambda leaf: leaf[0, ...], spaces.zeros(observation_space, 1)
        )
        self._num_steps = 0
        self._looks = self._looks_at_ends = CLOSE_LOOKS
        self._warned = set()
        self.has_action_mask = action_masks.has_mask(observation_space, action_space)
        self._counts = action_masks.counts_of_options(action_space)
        self._no_ends = _constant(num_envs, False)
        self._all_valid = _constant(num_envs, True)

    @abc.abstractmethod
    def reset(self, seeds=None):
        """Starts a new episode in every environment.

        Args:
            seeds: list of B integers, environment `b` gets `seeds[b]`; None leaves
                the environments' random generators as they are. Later automatic
                resets do not seed again.

        Returns:
            Observations, tree `[B, ...]`, in new arrays.

        Raises:
            ValueError: if there are not B seeds.
            EnvProtocolError: if an observation does not fit the observation space, or
                an environment returned something else than it has to.
        """

    @abc.abstractmethod
    def step(self, actions, out=None):
        """Takes one step in every environment, resetting those whose episode ends.

        Args:
            actions: tree `[B, ...]` as the policy emits them: discrete choices counted
                from zero, Box actions unbounded (they are clipped to the space here).
            out: tree `[B, ...]` that the observations are written into; None makes
                new arrays.

        Returns:
            An `EnvStep`.

        Raises:
            ValueError: if the actions do not fit the action space.
            EnvProtocolError: if an environment returned something else than it has to.
            Exception: whatever an environment raises, with a note that says which.
        """

    def set_origins(self, origins):
        """Has a constant subtracted of all observations from the next `reset` on.

        In float64, before they are rounded to float32: what changes little at a great
        distance from zero, such as a time in seconds since 1970, is kept so.

        Args:
            origins: tree of float64 arrays, or None for nothing, shaped like one
                observation.
        """
        self._observations.set_origins(origins)

    @abc.abstractmethod
    def foreach(self, function):
        """Calls `function(env)` on every single environment.

        Args:
            function: takes a `gymnasium.Env`.

        Returns:
            The list of results.

        Raises:
            TypeError: if the single environments cannot be reached from here (they
                live in other processes or inside one batched simulation).
        """

    @abc.abstractmethod
    def call(self, name, *args, **kwargs):
        """Calls the method `name` of every environment, also below wrappers.

        Args:
            name: method name.
            *args: passed on.
            **kwargs: passed on.

        Returns:
            The list of results (one result only for a batched simulation, which is
            one object).

        Raises:
            AttributeError: if an environment has no such method.

        Example:

        ```python
        envs.call("set_phase", 2)
        ```
        """

    def goal_function(self, name):
        """Returns what an environment says about goals, as a function of many steps.

        All environments are taken to say the same; one of them is asked.

        Args:
            name: `"compute_reward"` or `"compute_terminated"`.

        Returns:
            Function of achieved goals, desired goals and infos `[M, ...]` to an array
            `[M]`; see `kerasrl.goals.ask`. `None` if there is no such method.
        """
        return None

    @abc.abstractmethod
    def set_attr(self, name, value):
        """Sets the attribute `name` of every environment, also below wrappers.

        Args:
            name: an attribute that the environments already have.
            value: the same value for all of them.

        Raises:
            AttributeError: if an environment has no such attribute.
        """

    @abc.abstractmethod
    def render(self):
        """Renders every environment.

        Returns:
            A list of what the environments' `render` returned, frames
            `[height, width, 3]` uint8 for `render_mode="rgb_array"`.
        """

    @abc.abstractmethod
    def close(self):
        """Closes the environments that kerasrl made; what a user passed stays open."""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def __repr__(self):
        return f"<{type(self).__name__} {self.name} x {self.num_envs}>"

    def _empty_observations(self):
        return spaces.zeros(self.observation_space, self.num_envs)

    def _check_seeds(self, seeds):
        """A list of B Python integers or of B times None."""
        if seeds is None:
            return [None] * self.num_envs
        seeds = [None if seed is None else int(seed) for seed in seeds]
        if len(seeds) != self.num_envs:
            raise ValueError(
                f"There must be one seed per environment. Received: {len(seeds)} "
                f"seeds for {self.num_envs} environments."
            )
        return seeds

    def _fault(self, index, call, problem):
        """The error about what environment `index` did; None if it is not known."""
        who = self.name
        if index is not None:
            who = f"Environment {self.first_index + index} of {self.name}"
        return EnvProtocolError(
            f"{who}, in {call}: {problem} (kerasrl.check_env(env) looks at one "
            "environment closely.)"
        )

    def _misfit(self, index, call, misfit):
        """The error about an observation that does not fit the space."""
        return self._fault(
            index,
            call,
            f"the observation does not fit the observation space. {misfit} Fix the "
            "environment's `observation_space`, or what it returns.",
        )

    def _check_bounds(self, observations, call, index=None):
        """Looks whether observations are within the bounds of their space.

        Args:
            observations: tree `[B, ...]`, or of environment `index` alone.
            call: string, what returned them.
            index: integer or None.

        Raises:
            EnvProtocolError: if integers are not. Bounds of floats are often not kept,
                and that has no consequences here: it warns, once for each leaf.
        """
        for leaf, array in zip(
            self._observations.leaves,
            self.observation_leaves(observations),
            strict=True,
        ):
            outside = leaf.outside(array)
            if outside is None or leaf.name in self._warned:
                continue
            where = int(np.argwhere(outside)[0][0]) if index is None else index
            fault = self._fault(
                where,
                call,
                f"the observation is out of bounds. Received at `{leaf.name}`: "
                f"{shown(leaf.returned(array)[outside][0])}. Expected: from "
                f"{bound(leaf.returned(leaf.low))} to "
                f"{bound(leaf.returned(leaf.high))}. Fix the environment's "
                "`observation_space`, or what it returns.",
            )
            if leaf.exact:
                raise fault
            self._warned.add(leaf.name)
            warnings.warn(str(fault), stacklevel=4)

    def _check_final_masks(self, step, call):
        """Looks whether what was cut off could have gone on; see `_check_masks`."""
        for index, final in step.final_observations.items():
            cut = step.truncated[index] and not step.terminated[index]
            mask = final[action_masks.KEY]
            if cut and not action_masks.has_legal(mask, self._counts):
                raise self._fault(
                    index,
                    call,
                    "the episode was truncated, and the action mask of its last "
                    "observation leaves no action to take. Where nothing can be done "
                    "any more, the episode ends with `terminated`.",
                )

    def _check_masks(self, observations, call, exempt=None):
        """Looks whether there is an action to take in every environment.

        Args:
            observations: tree `[B, ...]` with masks.
            call: string, what returned them.
            exempt: bool `[B]` or None, where no action is taken on them.

        Raises:
            EnvProtocolError: if there is none.
        """
        legal = action_masks.has_legal(observations[action_masks.KEY], self._counts)
        if exempt is not None:
            legal = legal | exempt
        if not legal.all():
            raise self._fault(
                int(np.flatnonzero(~legal)[0]),
                call,
                "the action mask leaves no action to take. Expected: a 1 for each "
                "choice at least; where nothing can be done any more, the episode "
                "ends, with `terminated`.",
            )

    def _warn_of_unread_masks(self, infos):
        """Warns if infos of a reset have a mask, and observations none."""
        unread = self._counts is not None and not self.has_action_mask
        if unread and any(action_masks.KEY in info for info in infos):
            warnings.warn(
                f"{self.name} says in info[{action_masks.KEY!r}] which actions may be "
                "taken, and nothing reads that. Wrap it in kerasrl.envs."
                "ActionMaskObservation, which adds it to the observations: then every "
                "algorithm honours it.",
                stacklevel=4,
            )


def _constant(size, value):
    array = np.full(size, value, bool)
    array.setflags(write=False)
    return array
