"""Stacks of frames whose frames are stored once.

A row stores the newest frame of its stack; the older ones are the frames of the rows
before it. What lies before the first row of an episode depends on the environment: it
repeats the first frame, or pads with zeros, or something else (an environment that was
not just reset, a wrapper with a padding of its own), for which additional rows are
stored. So every stack comes back exactly as it was.
"""

import numpy as np

from kerasrl.replay.columns import FrameColumn
from kerasrl.replay.streams import ZERO_PADDED


class FrameHistory:
    """Says which rows hold the frames of a stack.

    Args:
        num_frames: Integer, the number of frames of the largest stack.
        streams: `Streams`.
        ages: uint8 array over rows: how many rows before this one belong to the same
            episode, at most `num_frames - 1`.
        kinds: uint8 array over rows.
    """

    def __init__(self, num_frames, streams, ages, kinds):
        self.num_frames = num_frames
        self._streams = streams
        self._ages = ages
        self._kinds = kinds
        self._offsets = np.arange(num_frames - 1, -1, -1)

    def locate(self, env, position):
        """Rows of the frames of stacks.

        Args:
            env: Integer array.
            position: Integer array of that shape, in the streams.

        Returns:
            Pair of an integer array `[..., F]`, the oldest frame first, and a bool
            array of that shape that is True where a frame is zeros, or `None`.
        """
        age = self._ages.take(self._streams.rows(env, position)).astype(np.int64)
        env, position, age = env[..., None], position[..., None], age[..., None]
        rows = self._streams.rows(env, position - np.minimum(self._offsets, age))
        beyond = self._offsets > age
        if not beyond.any():
            return rows, None
        first_kind = self._kinds.take(self._streams.rows(env, position - age))
        padded = beyond & ((first_kind & ZERO_PADDED) != 0)
        return rows, padded if padded.any() else None

    def ages_of(self, placement, head, other):
        """Ages of the steps of a chunk, before they are capped.

        Args:
            placement: `Placement`.
            head: Integer `[B]`, where the chunk began.
            other: bool `[T, B]`, the steps before which older frames are stored, or
                `None`.

        Returns:
            Integer `[T, B]`.
        """
        length, num_envs = placement.position.shape
        time = np.arange(length)[:, None]
        first = self._ages.take(self._streams.rows(np.arange(num_envs), head))
        age = first.astype(np.int64) + time
        if placement.begins is None:
            return age
        begun = np.maximum.accumulate(np.where(placement.begins, time, -1), axis=0)
        first = np.take_along_axis(other, np.maximum(begun, 0), axis=0)
        first = first * (self.num_frames - 1)
        return np.where(begun >= 0, first + time - begun, age)

    def write(self, env, position, ages):
        """Stores the ages of rows."""
        rows = self._streams.rows(env, position)
        self._ages[rows] = np.minimum(ages, self.num_frames - 1)


def classify_begins(begins, columns, leaves):
    """How the stacks at the beginning of something are padded.

    Args:
        begins: bool `[T, B]`.
        columns: List of `Column`.
        leaves: List of arrays `[T, B, ...]`.

    Returns:
        Pair of bool arrays `[T, B]`: padded with zeros, and neither with zeros nor by
        repetition.
    """
    time, env = np.nonzero(begins)
    repeated, zero = np.ones(len(time), bool), np.ones(len(time), bool)
    for column, leaf in stacks(columns, leaves):
        frames = column.frames(leaf, 2)[time, env]
        older, newest = frames[:, :-1], frames[:, -1:]
        axes = tuple(range(1, frames.ndim))
        repeated &= (older == newest).all(axis=axes)
        zero &= (older == 0).all(axis=axes)
    padded, other = np.zeros_like(begins), np.zeros_like(begins)
    padded[time, env] = zero & ~repeated
    other[time, env] = ~zero & ~repeated
    return padded, other


def check_shifts(chunk, begins, columns):
    """Raises unless every stack is the one before it, moved on by one frame.

    Args:
        chunk: `Chunk`.
        begins: bool `[T, B]`, the steps that continue nothing, or `None` for none. The
            first row is not looked at.
        columns: List of `Column` of what the policy sees.

    Raises:
        ValueError: Naming the first stack that is something else.
    """
    ended = (chunk.terminated | chunk.truncated) & chunk.valid
    goes_on = chunk.valid[-1] & ~ended[-1]
    for column, leaf in stacks(columns, chunk.inputs):
        frames = column.frames(leaf, 2)
        wrong = _differs(frames[:-1, :, 1:], frames[1:, :, :-1])
        if begins is not None:
            wrong &= ~begins[1:]
        if wrong.any():
            raise _shift_error(column, *np.argwhere(wrong)[0] + [1, 0])
    for column, leaf, following in stacks(columns, chunk.inputs, chunk.next_inputs):
        last, following = column.frames(leaf[-1], 1), column.frames(following, 1)
        wrong = _differs(last[:, 1:], following[:, :-1], 1) & goes_on
        if wrong.any():
            raise _shift_error(column, len(chunk), np.flatnonzero(wrong)[0])
    if not chunk.final_inputs:
        return
    time, env = chunk.final_time, chunk.final_env
    for column, leaf, final in stacks(columns, chunk.inputs, chunk.final_inputs):
        last = column.frames(leaf, 2)[time, env]
        wrong = _differs(last[:, 1:], column.frames(final, 1)[:, :-1], 1)
        if wrong.any():
            index = np.flatnonzero(wrong)[0]
            raise _shift_error(column, time[index] + 1, env[index])


def stacks(columns, *leaves):
    """The columns that are stacks of frames, each with its leaves."""
    for entry in zip(columns, *leaves, strict=True):
        if isinstance(entry[0], FrameColumn):
            yield entry


def _differs(left, right, lead=2):
    return (left != right).any(axis=tuple(range(lead, left.ndim)))


def _shift_error(column, time, env):
    return ValueError(
        f"`frame_stack` needs {column.name} that are the stack of the step before, "
        f"moved on by one frame. Received something else after step {time} of the "
        f"rollout in environment {env}. Stack frames as the outermost wrapper "
        "(gymnasium.wrappers.FrameStackObservation), or leave `frame_stack` out."
    )
