"""Which rows of the streams the steps of a rollout take."""

import dataclasses

import numpy as np


@dataclasses.dataclass
class Placement:
    """Positions in the streams.

    Args:
        position: Integer `[T, B]`, the row of each step, meaningful where it is kept.
        kept: bool `[T, B]`, the steps that take a row, or `None` for all.
        begins: bool `[T, B]`, the steps that continue nothing stored before, or `None`
            for none.
        end: Integer `[B]`, behind the last row; if the stream is open, the row of the
            observation that the next step is taken on.
        open: bool `[B]`.
    """

    position: np.ndarray
    kept: np.ndarray | None
    begins: np.ndarray | None
    end: np.ndarray
    open: np.ndarray


def is_smooth(chunk):
    """Whether no episode ends in a chunk, and no step is a filler."""
    return (
        not (np.count_nonzero(chunk.terminated) or np.count_nonzero(chunk.truncated))
        and np.count_nonzero(chunk.valid) == chunk.valid.size
    )


def find_begins(chunk, stream_open):
    """bool `[T, B]`, the steps that do not continue the one before."""
    closed = chunk.terminated | chunk.truncated | ~chunk.valid
    return np.concatenate([~stream_open[None], closed[:-1]])


def place_smoothly(chunk, head):
    """The placement of a chunk without ends and fillers: one row per step.

    Args:
        chunk: `Chunk`.
        head: Integer `[B]`, the next row of each stream.
    """
    length = len(chunk)
    position = head + np.arange(length)[:, None]
    return Placement(position, None, None, head + length, chunk.valid[-1].copy())


def place(chunk, head, begins, num_padding):
    """The placement of any chunk.

    A valid step takes a row, and one more if it ended an episode, for the final
    observation. A filler directly after an end takes none; anywhere else its
    observation is kept, because it is the one that followed the step before.

    Args:
        chunk: `Chunk`.
        head: Integer `[B]`, the next row of each stream.
        begins: From `find_begins`.
        num_padding: Integer `[T, B]` or 0, rows needed before a step.
    """
    ended = (chunk.terminated | chunk.truncated) & chunk.valid
    kept = chunk.valid | ~begins
    behind = head + np.cumsum(num_padding + kept + ended, axis=0)
    return Placement(
        position=behind - ended - kept,
        kept=kept,
        begins=begins,
        end=behind[-1],
        open=chunk.valid[-1] & ~ended[-1],
    )
