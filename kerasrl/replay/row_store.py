"""Storage of rows: what happened, in the order of time."""

import numpy as np

from kerasrl import spaces
from kerasrl.replay import frames
from kerasrl.replay.columns import TreeColumns
from kerasrl.replay.placement import find_begins, is_smooth, place, place_smoothly
from kerasrl.replay.streams import (
    EPISODE_START,
    STEP,
    TERMINATED,
    TRUNCATED,
    ZERO_PADDED,
    Streams,
)


class RowStore:
    """Rows of all environments, in ring streams.

    A row is an observation with the action taken on it, the reward, and whether the
    step ended the episode. After a step that ended one, a row with the final
    observation follows, so the row after any step always has the observation that
    followed it, before any reset. Every observation is stored once.

    Args:
        num_rows: Integer, rows over all environments; rounded up to a multiple of
            `num_envs`.
        observation_space, action_space: `gymnasium.Space` of one environment.
        num_envs: Integer, B.
        frame_stack, frame_axis: See `ReplayBuffer`.

    Raises:
        ValueError: `num_rows` is too small to hold a single step.
    """

    def __init__(
        self,
        num_rows,
        observation_space,
        action_space,
        num_envs,
        frame_stack=None,
        frame_axis=0,
    ):
        self.observations = TreeColumns(
            "observations", observation_space, frame_stack, frame_axis
        )
        self.actions = TreeColumns("actions", spaces.emitted(action_space))
        self.streams = Streams(num_envs, -(-num_rows // num_envs))
        # Rows before another that its stack of frames may need.
        self.margin = self.observations.num_frames - 1
        # Steps that fit at once, whatever happens in them. A chunk must not overwrite
        # rows of its own.
        self.longest_chunk = (self.streams.length - self.margin - 1) // (
            self.margin + 2
        )
        if self.longest_chunk < 1:
            refuse_capacity(self.streams, 2 * self.margin + 3)
        self.arrays = {}
        self._history = None
        self._envs = np.arange(num_envs)

    def layout(self):
        """Dict from names to shapes and dtypes of the arrays."""
        num_rows = self.streams.num_envs * self.streams.length
        layout = {
            **self.observations.layout(num_rows),
            **self.actions.layout(num_rows),
            "rewards": ((num_rows,), np.float32),
            "kinds": ((num_rows,), np.uint8),
        }
        if self.margin:
            layout["ages"] = ((num_rows,), np.uint8)
        return layout

    def attach(self, arrays):
        """Sets the arrays of `layout`, zeros."""
        self.arrays = {name: arrays[name] for name in self.layout()}
        for column in self.observations.columns + self.actions.columns:
            column.array = arrays[column.name]
        self.rewards, self.kinds = arrays["rewards"], arrays["kinds"]
        if self.margin:
            self._history = frames.FrameHistory(
                self.margin + 1, self.streams, arrays["ages"], self.kinds
            )

    def is_full(self):
        """Whether rows were overwritten."""
        return self.streams.head.max() >= self.streams.length

    def oldest(self):
        """Position `[B]` of the oldest row whose stack of frames is still there.

        Before any row is overwritten, it is at most 0. Rows before the beginning of
        the stream are not needed by any other.
        """
        streams = self.streams
        oldest = streams.head + streams.open - streams.length
        if self.margin:
            return np.where(oldest > 0, oldest + self.margin, 0)
        return oldest

    def most_rows(self, placement):
        """How many rows `oldest` may have moved by when a chunk was stored."""
        length = len(placement.position)
        per_step = 1 if placement.kept is None else 2 + self.margin
        return length * per_step + 1 + self.margin

    def read_observations(self, env, position):
        """The tree of observations of rows.

        Args:
            env: Integer array.
            position: Integer array of that shape, in the streams.
        """
        rows = self.streams.rows(env, position)
        stacks = None
        if self._history is not None:
            stacks = self._history.locate(env, position)
        return self.observations.read(rows, stacks)

    def append(self, chunk):
        """Stores a chunk of at most `longest_chunk` steps.

        Args:
            chunk: `Chunk`.

        Returns:
            `Placement`, where its steps lie.

        Raises:
            ValueError: It does not begin where the one before stopped, or a stack of
                frames does not continue the one before.
        """
        streams = self.streams
        self._check_continuity(chunk)
        if is_smooth(chunk) and (self._history is None or streams.open.all()):
            placement = place_smoothly(chunk, streams.head)
            zero_padded = other = None
        else:
            placement, zero_padded, other = self._place(chunk)
        if self._history is not None:
            columns = self.observations.columns
            frames.check_shifts(chunk, placement.begins, columns)
            self._write_ages(chunk, placement, other)
        if placement.kept is None:
            self._write_smoothly(chunk)
        else:
            self._write_steps(chunk, placement, zero_padded)
            self._write_following(chunk, placement)
        streams.head, streams.open = placement.end, placement.open
        return placement

    def _place(self, chunk):
        begins = find_begins(chunk, self.streams.open)
        if self._history is None:
            return place(chunk, self.streams.head, begins, 0), None, None
        zero_padded, other = frames.classify_begins(
            begins & chunk.valid, self.observations.columns, chunk.observations
        )
        num_padding = other * self.margin
        placement = place(chunk, self.streams.head, begins, num_padding)
        return placement, zero_padded, other

    def _write_smoothly(self, chunk):
        """All steps and the observation after them, the most frequent case."""
        rows = self.streams.next_rows(len(chunk) + 1)
        rows, following = rows[:-1], rows[-1]
        self.observations.write(rows, chunk.observations)
        self.observations.write(following, chunk.next_observations)
        self.actions.write(rows, chunk.actions)
        self.rewards[rows] = chunk.rewards
        self.kinds[rows] = STEP
        if np.count_nonzero(chunk.episode_starts):
            self.kinds[rows[chunk.episode_starts]] = STEP | EPISODE_START
        self.kinds[following] = 0

    def _write_steps(self, chunk, placement, zero_padded):
        which = np.nonzero(placement.kept)
        rows = self.streams.rows(which[1], placement.position[which])
        kinds = chunk.episode_starts * np.uint8(EPISODE_START)
        kinds |= chunk.valid * np.uint8(STEP)
        kinds |= (chunk.valid & chunk.terminated) * np.uint8(TERMINATED)
        kinds |= (chunk.valid & chunk.truncated) * np.uint8(TRUNCATED)
        if zero_padded is not None:
            kinds |= zero_padded * np.uint8(ZERO_PADDED)
        self.observations.write(rows, [leaf[which] for leaf in chunk.observations])
        self.actions.write(rows, [leaf[which] for leaf in chunk.actions])
        self.rewards[rows] = chunk.rewards[which]
        self.kinds[rows] = kinds[which]

    def _write_following(self, chunk, placement):
        """Rows with an observation only: after an end, and after the last step."""
        time, env = chunk.final_time, chunk.final_env
        if len(time):
            rows = self.streams.rows(env, placement.position[time, env] + 1)
            self.observations.write(rows, chunk.final_observations)
            self.kinds[rows] = 0
        env = np.flatnonzero(placement.open)
        rows = self.streams.rows(env, placement.end[env])
        following = [leaf[env] for leaf in chunk.next_observations]
        self.observations.write(rows, following)
        self.kinds[rows] = 0

    def _write_ages(self, chunk, placement, other):
        history, streams = self._history, self.streams
        age = history.ages_of(placement, streams.head, other)
        if placement.kept is None:
            history.write(self._envs, placement.position, age)
        else:
            time, env = np.nonzero(placement.kept)
            position = placement.position[time, env]
            history.write(env, position, age[time, env])
            time, env = chunk.final_time, chunk.final_env
            position = placement.position[time, env] + 1
            history.write(env, position, age[time, env] + 1)
        env = np.flatnonzero(placement.open)
        history.write(env, placement.end[env], age[-1, env] + 1)
        if other is not None and other.any():
            self._write_padding(chunk, placement, *np.nonzero(other))

    def _write_padding(self, chunk, placement, time, env):
        """Rows for older frames that are neither repeated nor zeros."""
        env_column = env[:, None]
        position = placement.position[time, env][:, None]
        ahead = np.arange(self.margin, 0, -1)
        self._history.write(env_column, position - ahead, 0)
        self.kinds[self.streams.rows(env_column, position - ahead)] = 0
        for column, leaf in frames.stacks(
            self.observations.columns, chunk.observations
        ):
            older = column.frames(leaf, 2)[time, env][:, :-1]
            ahead = np.arange(column.num_frames - 1, 0, -1)
            rows = self.streams.rows(env_column, position - ahead)
            column.array[rows] = older

    def _check_continuity(self, chunk):
        """Raises if the first observations are not those stored as the next ones."""
        streams = self.streams
        if not np.count_nonzero(streams.open):
            return
        rows = streams.rows_of_all(streams.head)
        stacks = None
        if self._history is not None:
            stacks = self._history.locate(self._envs, streams.head)
        for column, first in zip(
            self.observations.columns, chunk.observations, strict=True
        ):
            leaf = column.read(rows, stacks)
            equal = leaf == first[0]
            if equal.all():
                continue
            same = (equal | ((leaf != leaf) & (first[0] != first[0]))).reshape(
                streams.num_envs, -1
            )
            wrong = ~same.all(axis=1) & streams.open & chunk.valid[0]
            if wrong.any():
                raise ValueError(
                    f"The rollout does not begin where the one before stopped. "
                    f"Received other {column.name} than its next_inputs in "
                    f"environments {np.flatnonzero(wrong).tolist()}. Call cut() after "
                    "environments were reset or steps were left out."
                )


def refuse_capacity(streams, min_length):
    """Raises because streams are too short."""
    raise ValueError(
        f"`capacity` is too small. Received: {streams.length} rows for each of "
        f"{streams.num_envs} environments. Expected: at least "
        f"{min_length * streams.num_envs} rows in all."
    )
