"""Storage of rows: what happened, in the order of time."""

import numpy as np
import optree

from kerasrl import spaces
from kerasrl.replay import frames
from kerasrl.replay.columns import Columns, TreeColumns
from kerasrl.replay.infos import InfoColumns
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
    followed it, before any reset. Every observation is stored once. With it goes what
    else the policy sees, the previous action and reward, if they are wanted; with the
    action goes what else acting returned, and with the reward what else the environment
    said.

    Args:
        num_rows: Integer, rows over all environments; rounded up to a multiple of
            `num_envs`.
        observation_space, action_space: `gymnasium.Space` of one environment.
        num_envs: Integer, B.
        frame_stack, frame_axis, previous_inputs, extras_example, keep_infos: See
            `ReplayBuffer`.

    Raises:
        ValueError: `num_rows` is too small to hold a single step, or what is to be kept
            is not known.
    """

    def __init__(
        self,
        num_rows,
        observation_space,
        action_space,
        num_envs,
        frame_stack=None,
        frame_axis=0,
        previous_inputs=(),
        extras_example=None,
        keep_infos=False,
    ):
        observations = TreeColumns(
            "observations",
            spaces.zeros(observation_space, 1),
            f"the space {observation_space}",
            frame_stack,
            frame_axis,
        )
        self.action_space = spaces.emitted(action_space)
        actions = spaces.zeros(self.action_space, 1), f"the space {action_space}"
        self.inputs = Columns(
            [observations, *_previous_columns(previous_inputs, *actions)]
        )
        self.outputs = Columns(
            [TreeColumns("actions", *actions), *_extra_columns(extras_example)]
        )
        self.infos = None
        self._keep_infos = keep_infos
        self.streams = Streams(num_envs, -(-num_rows // num_envs))
        # Rows before another that its stack of frames may need.
        self.margin = max(column.num_frames for column in self.inputs.columns) - 1
        # Steps that fit at once, whatever happens in them. A chunk must not overwrite
        # rows of its own.
        self.longest_chunk = (self.streams.length - self.margin - 1) // (
            self.margin + 2
        )
        self._arrays = {}
        self._history = None
        self._envs = np.arange(num_envs)

    def check_length(self, min_length):
        """Raises a `CapacityError` if streams are too short.

        Args:
            min_length: Integer, rows of each that what is drawn takes. One chunk, with
                the frames before it, takes some too.
        """
        min_length = max(min_length, 2 * self.margin + 3)
        if self.streams.length < min_length:
            raise CapacityError(self.streams, min_length)

    def layout(self):
        """Dict from names to shapes and dtypes of the arrays."""
        num_rows = self.streams.num_envs * self.streams.length
        layout = {
            **self.inputs.layout(num_rows),
            **self.outputs.layout(num_rows),
            "rewards": ((num_rows,), np.float32),
            "kinds": ((num_rows,), np.uint8),
        }
        if self.margin:
            layout["ages"] = ((num_rows,), np.uint8)
        return layout

    @property
    def arrays(self):
        """The arrays over rows, by name."""
        return (
            self._arrays
            if self.infos is None
            else {**self._arrays, **self.infos.arrays}
        )

    def attach(self, arrays, directory=None):
        """Sets the arrays of `layout`, zeros.

        Args:
            arrays: Dict from names to arrays.
            directory: Path or `None`, where more of them go; see `ReplayBuffer`.
        """
        self._arrays = {name: arrays[name] for name in self.layout()}
        self.inputs.attach(arrays)
        self.outputs.attach(arrays)
        self.rewards, self.kinds = arrays["rewards"], arrays["kinds"]
        if self._keep_infos:
            self.infos = InfoColumns(self.kinds, directory)
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

    def read_inputs(self, env, position):
        """What a policy sees in rows, a dict of trees.

        Args:
            env: Integer array.
            position: Integer array of that shape, in the streams.
        """
        return self.read_from(self.inputs, env, position)

    def read_from(self, columns, env, position):
        """What some of the columns of `inputs` hold in rows.

        Args:
            columns: `Columns` or `TreeColumns`.
            env, position: As for `read_inputs`.
        """
        rows = self.streams.rows(env, position)
        stacks = None
        if self._history is not None:
            stacks = self._history.locate(env, position)
        return columns.read(rows, stacks)

    def read_outcomes(self, rows):
        """What was done and said in rows, a dict of trees.

        Args:
            rows: Integer array, rows with a step.

        Returns:
            Dict with `actions`, and the dicts `extras` and `infos`, empty if none are
            kept.
        """
        infos = {} if self.infos is None else self.infos.read(rows)
        return {"extras": {}, **self.outputs.read(rows), "infos": infos}

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
            frames.check_shifts(chunk, placement.begins, self.inputs.columns)
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
            begins & chunk.valid, self.inputs.columns, chunk.inputs
        )
        num_padding = other * self.margin
        placement = place(chunk, self.streams.head, begins, num_padding)
        return placement, zero_padded, other

    def _write_smoothly(self, chunk):
        """All steps and the observation after them, the most frequent case."""
        rows = self.streams.next_rows(len(chunk) + 1)
        rows, following = rows[:-1], rows[-1]
        self.inputs.write(rows, chunk.inputs)
        self.inputs.write(following, chunk.next_inputs)
        self.outputs.write(rows, chunk.outputs)
        self.rewards[rows] = chunk.rewards
        if chunk.infos:
            self.infos.write(rows, chunk.infos)
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
        self.inputs.write(rows, [leaf[which] for leaf in chunk.inputs])
        self.outputs.write(rows, [leaf[which] for leaf in chunk.outputs])
        self.rewards[rows] = chunk.rewards[which]
        if chunk.infos:
            self.infos.write(
                rows, {name: leaf[which] for name, leaf in chunk.infos.items()}
            )
        self.kinds[rows] = kinds[which]

    def _write_following(self, chunk, placement):
        """Rows with an observation only: after an end, and after the last step."""
        time, env = chunk.final_time, chunk.final_env
        if len(time):
            rows = self.streams.rows(env, placement.position[time, env] + 1)
            self.inputs.write(rows, chunk.final_inputs)
            self.kinds[rows] = 0
        env = np.flatnonzero(placement.open)
        rows = self.streams.rows(env, placement.end[env])
        self.inputs.write(rows, [leaf[env] for leaf in chunk.next_inputs])
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
        for column, leaf in frames.stacks(self.inputs.columns, chunk.inputs):
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
        for column, first in zip(self.inputs.columns, chunk.inputs, strict=True):
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


def _previous_columns(names, actions, source):
    """The columns of previous actions and rewards that are wanted."""
    examples = {"previous_actions": actions, "previous_rewards": _REWARD}
    unknown = sorted(set(names) - set(examples))
    if unknown or isinstance(names, str):
        raise ValueError(
            f"Received previous_inputs={names!r}. Expected a list of some of "
            f"{sorted(examples)}."
        )
    return [
        TreeColumns(name, example, source)
        for name, example in examples.items()
        if name in names
    ]


def _extra_columns(example):
    """The columns of what else acting returns, none if it is nothing."""
    dtypes = [np.asarray(leaf).dtype for leaf in optree.tree_leaves(example or {})]
    if not isinstance(example or {}, dict) or any(
        dtype.kind not in "biuf" and dtype.name != "bfloat16" for dtype in dtypes
    ):
        raise ValueError(
            f"Received extras_example={example!r:.200}. Expected a dict of trees of "
            "arrays of numbers."
        )
    if not dtypes:
        return []
    batch = optree.tree_map(lambda leaf: np.asarray(leaf)[None], example)
    return [TreeColumns("extras", batch, "`extras_example`")]


class CapacityError(ValueError):
    """A buffer has too few rows to sample anything from them.

    Args:
        streams: Its `Streams`.
        min_length: Integer, rows that each of them must have.
    """

    def __init__(self, streams, min_length):
        #: Integer, rows that a buffer must have.
        self.least = min_length * streams.num_envs
        super().__init__(
            f"`capacity` is too small. Received: {streams.length} rows for each of "
            f"{streams.num_envs} environments. Expected: at least {self.least} rows in "
            "all."
        )


_REWARD = np.zeros(1, np.float32)
