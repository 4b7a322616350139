"""Replay of sequences with recurrent state."""

import numpy as np
import optree

from kerasrl import spaces
from kerasrl.replay.row_store import RowStore
from kerasrl.replay.stream_buffer import StreamBuffer, check_positive
from kerasrl.replay.streams import EPISODE_START, STEP, TERMINATED, TRUNCATED


class SequenceReplayBuffer(StreamBuffer):
    """Keeps the newest steps and draws sequences of them, with recurrent state.

    For Recurrent Experience Replay (R2D2), https://openreview.net/forum?id=r1lyTjAqYX.
    A sequence is `sequence_length` consecutive rows of one environment. It starts
    where a rollout started, because that is where `rollout.state` is known: collect
    rollouts of `period` steps. Sequences overlap if `period` is less than
    `sequence_length`, half of it in the paper.

    A sequence may contain the end of an episode. The final observation then has a row
    of its own, with `valid` False (no action was taken on it, and nothing may be
    learnt from it but the value of the observation), and the row behind it has
    `episode_starts` True. A sequence never goes across a cut or beyond the last step.

    Args:
        capacity: Integer, number of rows over all environments, rounded up to a
            multiple of `num_envs`.
        observation_space, action_space: `gymnasium.Space` of one environment.
        num_envs: Integer, number of environments that fill the buffer.
        sequence_length: Integer, L.
        period: Integer, the least number of steps from one start to the next. A
            rollout that begins sooner starts no sequence.
        state_example: Tree of arrays without batch axis, the recurrent state of one
            environment, as `actor.initial_state`; `()` for none.
        priority_exponent: Float in `[0, 1]`, or `None` to draw uniformly without
            priorities.
        uniform_fraction, epsilon: As of `PrioritizedReplayBuffer`.
        frame_stack, frame_axis, directory, extras_example, keep_infos: As of
            `ReplayBuffer`. Previous actions and rewards are always there.

    Raises:
        MemoryError: The arrays do not fit in memory or on the disk.
        ValueError: An argument is out of range or does not fit the spaces.

    Example:

    ```python
    buffer = SequenceReplayBuffer(
        100_000, observation_space, action_space, 8, 80, 40, actor.initial_state
    )
    buffer.add(collector.collect())  # Rollouts of 40 steps.
    batch = buffer.sample(32, rng=generator, importance_exponent=0.6)
    priorities = kerasrl.losses.sequence_priorities(abs(td_errors), mask)
    buffer.update_priorities(batch["indices"], priorities)
    ```
    """

    def __init__(
        self,
        capacity,
        observation_space,
        action_space,
        num_envs=1,
        sequence_length=80,
        period=40,
        state_example=(),
        priority_exponent=0.9,
        uniform_fraction=0.0,
        epsilon=1e-6,
        frame_stack=None,
        frame_axis=0,
        directory=None,
        extras_example=None,
        keep_infos=False,
    ):
        for name, value in (
            ("capacity", capacity),
            ("num_envs", num_envs),
            ("sequence_length", sequence_length),
            ("period", period),
        ):
            check_positive(name, value)
        store = RowStore(
            int(capacity),
            observation_space,
            action_space,
            int(num_envs),
            frame_stack,
            frame_axis,
            extras_example=extras_example,
            keep_infos=keep_infos,
        )
        # No start may be overwritten before its sequence is complete.
        store.longest_chunk = (
            store.streams.length - int(sequence_length) - store.margin - 1
        ) // (store.margin + 2)
        store.check_length(sequence_length + 2 * store.margin + 3)
        priorities = None
        if priority_exponent is not None:
            priorities = {
                "exponent": priority_exponent,
                "uniform_fraction": uniform_fraction,
                "epsilon": epsilon,
            }
        elif uniform_fraction != 0.0:
            raise ValueError(
                "`uniform_fraction` has no effect without priorities. Received: "
                f"uniform_fraction={uniform_fraction}, priority_exponent=None."
            )
        self.sequence_length = int(sequence_length)
        self.period = int(period)
        self._window = np.arange(self.sequence_length)
        started = {
            "state": state_example,
            "previous_actions": spaces.zeros(spaces.emitted(action_space), 1),
            "previous_rewards": np.zeros(1, np.float32),
        }
        self._start_spec = optree.tree_structure(started)
        paths = [".".join(map(str, path)) for path in optree.tree_paths(started)]
        self._start_names = [f"starts.{path}" for path in paths]
        start_layout = {}
        for path, leaf in zip(paths, optree.tree_leaves(started), strict=True):
            leaf = np.asarray(leaf)
            shape = leaf.shape if path.startswith("state") else leaf.shape[1:]
            start_layout[path] = (shape, leaf.dtype)
        shortest = max(1, min(self.period - 1, self.sequence_length))
        num_starts = store.streams.length // shortest + 2
        super().__init__(store, num_starts, start_layout, directory, priorities)
        self._steps_since_start = self.period

    def cut(self):
        super().cut()
        self._steps_since_start = self.period

    def get_state(self):
        return {**super().get_state(), "steps_since_start": self._steps_since_start}

    def set_state(self, state, arrays):
        steps = state.get("steps_since_start")
        if type(steps) is not int or steps < 0:
            raise ValueError(
                "The saved state does not fit this buffer. Received: "
                f"steps_since_start = {steps!r}. Expected: an integer of at least 0."
            )
        super().set_state(state, arrays)
        self._steps_since_start = steps

    def sample(
        self,
        batch_size,
        num_batches=None,
        rng=None,
        importance_exponent=1.0,
        scale_rewards=None,
    ):
        """Draws sequences with replacement.

        Args:
            batch_size: Integer, N.
            num_batches: Integer, K; `None` for one batch without the axis K.
            rng: `numpy.random.Generator`, the only source of randomness; `None` for a
                new one, seeded by the operating system.
            importance_exponent: Float, exponent beta of the importance weights. Equal
                probabilities have the weight one whatever it is.
            scale_rewards: `None`, or a function of an array that is applied to each
                reward. What is kept stays as it was.

        Returns:
            Dict of new arrays. With the leading axes `[N, L]` or `[K, N, L]`:

            - `observations`, `actions`: trees; actions are zeros where not valid.
            - `rewards`: float32, of that step, zero where not valid.
            - `terminated`, `truncated`: bool, of that step.
            - `valid`: bool, False in rows that only have the last observation of an
              episode.
            - `episode_starts`: bool, where recurrent state is reset before the row.
            - `previous_actions`, `previous_rewards`: of the step before, zeros at
              episode starts. They are those kept of that step, so rewards that were
              changed after acting are not what the policy saw.
            - `extras`, `infos`: dicts of what acting and environments said in that
              step, empty if none are kept; zeros and NaN where not valid.

            With the leading axes `[N]` or `[K, N]`:

            - `state`: tree, recurrent state before the first row, `episode_starts` not
              yet applied.
            - `indices`: int64, for `update_priorities`.
            - `weights`: float32, importance weights.
            - `probabilities`: float64, with which they were drawn.

        Raises:
            ValueError: There is nothing to sample, or an argument is out of range.
        """
        ids, weights, probabilities = self._draw(
            batch_size, num_batches, rng, importance_exponent
        )
        batch = self._read_sequences(ids.ravel())
        if scale_rewards is not None:
            batch["rewards"] = scale_rewards(batch["rewards"])
        return {
            **optree.tree_map(
                lambda leaf: leaf.reshape(*ids.shape, *leaf.shape[1:]), batch
            ),
            "indices": ids,
            "weights": weights,
            "probabilities": probabilities,
        }

    def _read_sequences(self, ids):
        """What `sample` returns for ids `[S]`, without indices and weights."""
        store = self._store
        env, first = self._starts.locate(ids)
        env, position = env[:, None], first[:, None] + self._window
        rows = store.streams.rows(env, position)
        kinds = store.kinds.take(rows)
        valid = (kinds & STEP) != 0
        outcomes = store.read_outcomes(rows)
        infos = outcomes.pop("infos")
        outcomes = optree.tree_map(lambda leaf: _fill(leaf, ~valid), outcomes)
        infos = {name: _fill(leaf, ~valid, np.nan) for name, leaf in infos.items()}
        rewards = _fill(store.rewards.take(rows), ~valid)
        slots, _ = self._starts.slots_of(ids)
        started = self._start_spec.unflatten(
            [self._start_arrays[name].take(slots, axis=0) for name in self._start_names]
        )

        def previous(at_start, leaf):
            # An episode start follows a row without a step, whose values are zeros.
            return np.concatenate([at_start[:, None], leaf[:, :-1]], axis=1)

        return {
            **store.read_inputs(env, position),
            **outcomes,
            "infos": infos,
            "rewards": rewards,
            "terminated": (kinds & TERMINATED) != 0,
            "truncated": (kinds & TRUNCATED) != 0,
            "valid": valid,
            "episode_starts": (kinds & EPISODE_START) != 0,
            "previous_actions": optree.tree_map(
                previous, started["previous_actions"], outcomes["actions"]
            ),
            "previous_rewards": previous(started["previous_rewards"], rewards),
            "state": started["state"],
        }

    def _cut(self, envs):
        super()._cut(envs)
        self._complete()
        self._starts.drop_waiting(envs)

    def _note_starts(self, chunk, placement):
        if chunk.start == 0:
            if self._steps_since_start >= self.period:
                self._push_starts(chunk, placement)
                self._steps_since_start = 0
        self._steps_since_start += len(chunk)
        self._complete()

    def _push_starts(self, chunk, placement):
        """A start at the first step that each environment took in a rollout.

        Recurrent state is that before the rollout: steps behind a filler begin an
        episode, and reset it.
        """
        starts, rollout = self._starts, chunk.rollout
        free = starts.last - starts.first < starts.length
        env = np.flatnonzero(chunk.valid.any(axis=0) & free)
        time = chunk.valid.argmax(axis=0)[env]
        counts = np.zeros(self.num_envs, np.int64)
        counts[env] = 1
        slots = starts.push(env, 0, placement.position[time, env], counts)
        begun = {
            "state": optree.tree_map(lambda leaf: leaf[env], rollout.state),
            "previous_actions": optree.tree_map(
                lambda leaf: leaf[time, env], rollout.previous_actions
            ),
            "previous_rewards": rollout.previous_rewards[time, env],
        }
        leaves = self._flatten_start(begun, len(env))
        for name, leaf in zip(self._start_names, leaves, strict=True):
            self._start_arrays[name][slots] = leaf

    def _complete(self):
        """Makes the starts whose sequences are stored as a whole ready."""
        last = self._store.streams.head - self.sequence_length
        self._sampler.insert(self._starts.ready_until(last))

    def _flatten_start(self, begun, count):
        try:
            leaves = self._start_spec.flatten_up_to(begun)
        except (TypeError, ValueError) as error:
            raise ValueError(
                "The rollout's recurrent state does not fit. Received: "
                f"{optree.tree_structure(begun['state'])}. Expected the structure of "
                f"`state_example`, {self._start_spec.child(2)}."
            ) from error
        for name, leaf in zip(self._start_names, leaves, strict=True):
            array = self._start_arrays[name]
            if leaf.shape != (count, *array.shape[1:]):
                raise ValueError(
                    f"The rollout's {name.removeprefix('starts.')} does not fit. "
                    f"Received: shape {leaf.shape[1:]} for each environment. Expected: "
                    f"{array.shape[1:]}, from `state_example` and the action space."
                )
        return leaves


def _fill(leaf, mask, value=0):
    """One value where `mask`, which covers the leading axes; in place."""
    leaf[mask] = value
    return leaf
