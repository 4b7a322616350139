"""Acting in environments and recording what happened."""

import copy

import numpy as np
import optree

from kerasrl import spaces
from kerasrl.rollouts.checking import RolloutCheck
from kerasrl.rollouts.episodes import EpisodeTracker, RunningEpisodes
from kerasrl.rollouts.rollout import POLICY_INPUTS, Rollout, take

_DRAWN_STEPS = 128


class Collector:
    """Lets an actor act in environments, one rollout after the other.

    Rollouts join without a seam: each starts where the one before stopped, in the
    middle of episodes.

    Args:
        envs: `kerasrl.envs.Environments`, B of them.
        actor: Called as `actor(inputs, noise)` at every step. `inputs` is a dict of
            `observations`, `previous_actions` (trees `[B, ...]`), `previous_rewards`
            float32 `[B]` and `state` (tree `[B, ...]`), to be left unchanged. It
            returns a dict of `actions`, `state` and anything else to be recorded, in
            new arrays at every call. `actor.initial_state` is the state at the start of
            an episode, a tree without batch axis, `()` or `None` without recurrence.
            `actor.draw(generators, T)` returns the list of noise arrays `[T, B, ...]`
            of a rollout; `noise` is the list of their rows.
        rollout_length: Integer, T.
        generators: List of B `numpy.random.Generator`, the only source of randomness
            in acting.
        info_keys: Names of entries of the environments' infos to record.
        listener: `None`, or an object with the methods `on_episode_begin(episode)`,
            `on_episode_step(episode)`, `on_episode_end(episode)`, each given a
            `kerasrl.rollouts.Episode`. Costs Python time for every environment step.
        all_finals: Whether `rollout.final` covers every step that ended an episode
            (what replay buffers need), rather than truncated ones only.

    Attributes:
        exploration: Dict of arrays `[B, ...]`, additional inputs of the actor, the same
            at every step until they are set anew.

    Raises:
        ValueError: `rollout_length` is not a positive integer, or there is not one
            generator per environment.

    Example:

    ```python
    envs = kerasrl.make_envs("CartPole-v1", num_envs=8)
    generators = [np.random.default_rng(seed) for seed in range(8)]
    collector = Collector(envs, actor, 128, generators)
    collector.reset(list(range(8)))
    rollout = collector.collect()
    collector.drain_episodes()[0].episode_return
    ```
    """

    def __init__(
        self,
        envs,
        actor,
        rollout_length,
        generators,
        info_keys=(),
        listener=None,
        all_finals=False,
    ):
        if not isinstance(rollout_length, (int, np.integer)) or rollout_length < 1:
            raise ValueError(
                "`rollout_length` must be a positive integer. Received: "
                f"{rollout_length!r}."
            )
        if len(generators) != envs.num_envs:
            raise ValueError(
                "There must be one generator per environment. Received: "
                f"{len(generators)} generators for {envs.num_envs} environments."
            )
        if isinstance(info_keys, str):
            raise ValueError(
                f"`info_keys` must be a sequence of names. Received: {info_keys!r}. "
                f"Expected: [{info_keys!r}]."
            )
        self.envs = envs
        self.actor = actor
        self.rollout_length = int(rollout_length)
        self.generators = list(generators)
        self.info_keys = tuple(info_keys)
        self.listener = listener
        self.all_finals = all_finals
        self.exploration = {}
        self.env_steps = 0
        self._finished = []
        self._observations = None
        self._checked = self._rounds = self._interrupted = False
        self._check_rollout = RolloutCheck(envs)
        self._drawn = []

    def reset(self, seeds=None):
        """Starts new episodes in all environments and forgets the running ones.

        Args:
            seeds: List of B integers, environment `b` is seeded with `seeds[b]`;
                `None` leaves the environments' random generators as they are.

        Raises:
            ValueError: There are not B seeds.
        """
        num_envs = self.envs.num_envs
        self._observations = self.envs.reset(seeds)
        self._previous_actions = spaces.zeros(
            spaces.emitted(self.envs.action_space), num_envs
        )
        self._previous_rewards = np.zeros(num_envs, np.float32)
        self._starts = np.ones(num_envs, bool)
        initial_state = self.actor.initial_state
        self._initial_state = () if initial_state is None else initial_state
        self._state = optree.tree_map(
            lambda leaf: np.repeat(np.asarray(leaf)[None], num_envs, axis=0),
            self._initial_state,
        )
        self._running_episodes = RunningEpisodes(num_envs)
        self._tracker = None
        self._interrupted = False

    @property
    def observations(self):
        """Tree `[B, ...]`, what the policy sees next; `None` before `reset`."""
        return self._observations

    def collect(self):
        """Takes `rollout_length` steps in every environment.

        Returns:
            A `kerasrl.rollouts.Rollout` of new arrays.

        Raises:
            RuntimeError: `reset` has not been called, at first or after an error.
            ValueError: The actor's outputs do not fit the action space.
            FloatingPointError: An action is NaN or infinite.
            EnvProtocolError: An environment returned NaN or infinity, or something
                else that it must not.
        """
        if self._observations is None:
            raise RuntimeError("Call `reset` before the first `collect`.")
        if self._interrupted:
            raise RuntimeError(
                "The last `collect` ended in the middle, with an error: environments "
                "are elsewhere than it is known here. Call `reset`."
            )
        self._interrupted = True
        length, num_envs = self.rollout_length, self.envs.num_envs
        shape = (length, num_envs)
        # One row more than the rollout: row t is what the policy sees at step t.
        observations = _Rows(self._observations, length + 1)
        actions = _Rows(self._previous_actions, length + 1)
        rewards = np.empty((length + 1, num_envs), np.float32)
        rewards[0] = self._previous_rewards
        terminated, truncated = np.zeros(shape, bool), np.zeros(shape, bool)
        valid = np.ones(shape, bool)
        extras, infos, final, played = None, [], [], []
        tracker = self._start_tracking()
        noise = self._next_noise()
        starts, state = self._starts, self._state
        exploration = self.exploration
        inputs = {
            **exploration,
            "observations": observations.row(0),
            "previous_actions": self._previous_actions,
            "previous_rewards": self._previous_rewards,
        }
        actor, env_step = self.actor, self.envs.step
        recurrent = bool(optree.tree_leaves(state))
        any_start = bool(starts.any())
        for time in range(length):
            if recurrent and any_start:
                state = self._reset_rows(state, starts)
            inputs["state"] = state
            outputs = actor(inputs, [array[time] for array in noise])
            if extras is None:
                extras = self._first_outputs(outputs)
            taken, state = outputs["actions"], outputs["state"]
            if self._rounds:
                taken = self._as_recorded(taken)
            for name, rows in extras.items():
                rows.write(time, outputs[name])
            seen = observations.row(time + 1)
            step = env_step(taken, seen)
            actions.write(time + 1, taken)
            rewards[time + 1] = step.rewards
            any_start = step.any_ended
            previous_actions = actions.row(time + 1)
            previous_rewards = rewards[time + 1]
            if any_start:
                terminated[time], truncated[time] = step.terminated, step.truncated
                valid[time] = step.valid
                starts = step.terminated | step.truncated
                if self.all_finals or np.count_nonzero(step.truncated):
                    self._note_final(final, time, step, taken, state)
                previous_actions = _zero_rows(previous_actions, starts)
                previous_rewards = _zero_rows(previous_rewards, starts)
            # A new dict, for an actor that keeps what it was given.
            inputs = {
                **exploration,
                "observations": seen,
                "previous_actions": previous_actions,
                "previous_rewards": previous_rewards,
            }
            if self.info_keys:
                infos.append(_copy_infos(self.info_keys, step.infos))
            if step.as_played is not None:
                step = step.as_played
                played.append(step)
            if tracker is not None:
                tracker.step(time, step, taken)
        episode_starts = np.empty(shape, bool)
        episode_starts[0] = self._starts
        np.logical_or(terminated[:-1], truncated[:-1], out=episode_starts[1:])
        rollout = Rollout(
            observations=observations.slice(0, length),
            actions=actions.slice(1, length + 1),
            rewards=rewards[1:],
            terminated=terminated,
            truncated=truncated,
            valid=valid,
            episode_starts=episode_starts,
            previous_actions=_zero_rows(actions.slice(0, length), episode_starts),
            previous_rewards=_zero_rows(rewards[:-1], episode_starts),
            state=_copy(self._state),
            final=self._gather_final(final, rewards),
            extras={name: rows.slice(0, length) for name, rows in extras.items()},
            infos=info_arrays(self.info_keys, infos),
        )
        self._check_rollout(rollout, observations.slice(0, length + 1))
        inputs = {name: inputs[name] for name in POLICY_INPUTS}
        inputs["episode_starts"] = terminated[-1] | truncated[-1]
        # Copies twice: a user may write into what is handed out.
        rollout.next_inputs = _copy(inputs)
        inputs = _copy(inputs)
        self._observations = inputs["observations"]
        self._previous_actions = inputs["previous_actions"]
        self._previous_rewards = inputs["previous_rewards"]
        self._starts = inputs["episode_starts"]
        self._state = state
        self._finish_episodes(rollout, tracker, played)
        self.env_steps += rollout.num_steps
        self._interrupted = False
        return rollout

    def _next_noise(self):
        """The noise of one rollout, drawn for several if they are short."""
        length = self.rollout_length
        if not self._drawn:
            rollouts = max(1, _DRAWN_STEPS // length)
            drawn = self.actor.draw(self.generators, rollouts * length)
            self._drawn = [
                [array[start : start + length] for array in drawn]
                for start in range(0, rollouts * length, length)
            ]
        return self._drawn.pop(0)

    def drain_episodes(self):
        """The episodes that ended since the last call.

        Returns:
            List of `kerasrl.rollouts.EpisodeRecord`, in the order of time.
        """
        finished, self._finished = self._finished, []
        return finished

    def _start_tracking(self):
        if self.listener is None:
            self._tracker = None
        elif self._tracker is None or self._tracker.listener is not self.listener:
            self._tracker = EpisodeTracker(
                self.listener, self.envs, self._observations, self._running_episodes
            )
        return self._tracker

    def _reset_rows(self, state, starts):
        """The state with the rows at episode starts replaced, in new arrays."""

        def replace(leaf, initial):
            leaf = np.array(leaf)
            leaf[starts] = initial
            return leaf

        return optree.tree_map(replace, state, self._initial_state)

    def _first_outputs(self, outputs):
        """Checks the first outputs; makes arrays for the additional ones."""
        if not self._checked:
            self._check_outputs(outputs)
            self._checked = True
            # Environments must get what a reader of the rollout can compute.
            actions = optree.tree_leaves(outputs["actions"])
            recorded = optree.tree_leaves(self._previous_actions)
            self._rounds = any(
                leaf.dtype.kind == "f" and np.asarray(action).dtype != leaf.dtype
                for action, leaf in zip(actions, recorded, strict=True)
            )
        return {
            name: _Rows(value, self.rollout_length, start=False)
            for name, value in outputs.items()
            if name not in ("actions", "state")
        }

    def _as_recorded(self, actions):
        """Actions in the dtypes in which they are recorded, in new arrays."""
        return optree.tree_map(
            lambda like, action: np.asarray(action, like.dtype),
            self._previous_actions,
            actions,
        )

    def _check_outputs(self, outputs):
        missing = {"actions", "state"} - set(outputs)
        if missing:
            raise ValueError(
                f"The actor's outputs lack {sorted(missing)}. Received: "
                f"{sorted(outputs)}. Expected at least 'actions' and 'state' (`()` "
                "without recurrence)."
            )
        for name, expected in (
            ("actions", self._previous_actions),
            ("state", self._state),
        ):
            received = outputs[name]
            same = optree.tree_structure(received) == optree.tree_structure(expected)
            if not same or _shapes(received) != _shapes(expected):
                raise ValueError(
                    f"The actor's {name!r} do not fit. Received: "
                    f"{_describe(received)}. Expected: {_describe(expected)}, from "
                    + (
                        f"the action space {self.envs.action_space}."
                        if name == "actions"
                        else "`actor.initial_state` with the batch axis in front."
                    )
                )

    def _note_final(self, final, time, step, actions, state):
        ended = step.truncated & step.valid & ~step.terminated
        if self.all_finals:
            ended = (step.truncated | step.terminated) & step.valid
        for env in np.flatnonzero(ended):
            row = _copy(take({"actions": actions, "state": state}, env))
            final.append((time, int(env), step.final_observations[env], row))

    def _gather_final(self, final, rewards):
        if not final:
            return None
        times, envs, observations, rows = zip(*final, strict=True)
        stacked = optree.tree_map(lambda *leaves: np.stack(leaves), *rows)
        times, envs = np.array(times), np.array(envs)
        dtypes = optree.tree_map(lambda leaf: leaf.dtype, self._previous_actions)
        return {
            "time": times,
            "env": envs,
            "observations": optree.tree_map(
                lambda *leaves: np.stack(leaves), *observations
            ),
            "previous_actions": optree.tree_map(
                lambda leaf, dtype: leaf.astype(dtype, copy=False),
                stacked["actions"],
                dtypes,
            ),
            "previous_rewards": rewards[times + 1, envs],
            "state": stacked["state"],
        }

    def _finish_episodes(self, rollout, tracker, played=()):
        names = ("rewards", "terminated", "truncated", "valid")
        arrays = [getattr(rollout, name) for name in names]
        if played:
            # Learners were told of other episodes than there were.
            arrays = [np.stack([getattr(x, name) for x in played]) for name in names]
        records = self._running_episodes.update(*arrays, self.env_steps)
        for time, record in records:
            if tracker is not None:
                metrics = tracker.custom_metrics(time, record.env_index)
                record.custom_metrics.update(metrics)
            self._finished.append(record)


class _Rows:
    """Arrays `[T, ...]` to be filled row by row with trees of one structure.

    A tree that is a single array, by far the most frequent, takes no tree operations.
    """

    def __init__(self, example, length, start=True):
        leaves, self._structure = optree.tree_flatten(example)
        leaves = [np.asarray(leaf) for leaf in leaves]
        self._arrays = [np.empty((length, *leaf.shape), leaf.dtype) for leaf in leaves]
        self._single = self._arrays[0] if self._structure.is_leaf() else None
        if start:
            for array, leaf in zip(self._arrays, leaves, strict=True):
                array[0] = leaf

    def row(self, time):
        if self._single is not None:
            return self._single[time]
        return self._structure.unflatten([array[time] for array in self._arrays])

    def write(self, time, tree):
        if self._single is not None:
            self._single[time] = tree
            return
        leaves = self._structure.flatten_up_to(tree)
        for array, leaf in zip(self._arrays, leaves, strict=True):
            array[time] = leaf

    def slice(self, start, stop):
        return self._structure.unflatten([array[start:stop] for array in self._arrays])


def _copy(tree):
    return optree.tree_map(np.array, tree)


def _zero_rows(tree, mask):
    """A copy with zeros where `mask`, which covers the leading axes."""

    def zero(array):
        array = array.copy()
        array[mask] = 0
        return array

    return zero(tree) if isinstance(tree, np.ndarray) else optree.tree_map(zero, tree)


def _shapes(tree):
    return [np.shape(leaf) for leaf in optree.tree_leaves(tree)]


def _describe(tree):
    return optree.tree_map(lambda leaf: list(np.shape(leaf)), tree)


def _copy_infos(names, infos):
    """What infos say now: environments may go on to write into theirs."""
    return [
        {name: copy.deepcopy(info[name]) for name in names if name in info}
        for info in infos
    ]


def info_arrays(names, infos):
    """Arrays of what environments said, by name.

    Args:
        names: Names of entries of infos.
        infos: List of T lists of B dicts.

    Returns:
        Dict of arrays `[T, B, ...]`; see `Rollout.infos`.
    """
    return {name: _info_array(name, infos) for name in names}


def _info_array(name, infos):
    """One array `[T, B, ...]` of an info key; NaN or None where it is missing."""
    rows = [[info.get(name) for info in row] for row in infos]
    present = [value for row in rows for value in row if value is not None]
    shapes = {np.shape(value) for value in present}
    numeric = all(
        isinstance(value, (bool, int, float, np.number, np.bool_, np.ndarray))
        and np.asarray(value).dtype.kind in "biuf"
        for value in present
    )
    shape = (len(rows), len(rows[0]))
    if numeric and len(shapes) <= 1:
        array = np.full((*shape, *next(iter(shapes), ())), np.nan)
    else:
        array = np.full(shape, None, object)
    for time, row in enumerate(rows):
        for env, value in enumerate(row):
            if value is not None:
                array[time, env] = value
    return array
