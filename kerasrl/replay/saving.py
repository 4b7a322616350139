"""State of a replay buffer as plain data and arrays."""

import numpy as np

_SCHEMA = 1


def describe(buffer):
    """What a buffer must have in common with one whose state it takes."""
    streams = buffer._store.streams
    return {
        "schema": _SCHEMA,
        "class": type(buffer).__name__,
        "num_envs": streams.num_envs,
        "rows_per_env": streams.length,
        "starts_per_env": buffer._starts.length,
    }


def filled_arrays(buffer):
    """Arrays `[B, filled, ...]`, views.

    Args:
        buffer: `StreamBuffer`.
    """
    return {
        name: _by_env(array, length)[:, :filled]
        for name, (array, length, filled) in _parts(buffer).items()
    }


def restore(buffer, state, arrays):
    """Sets counters and arrays of a buffer, after checking all of them.

    Args:
        buffer: `StreamBuffer`.
        state: Dict of `StreamBuffer.get_state`.
        arrays: Dict of `StreamBuffer.get_arrays`.
    """
    for key, expected in describe(buffer).items():
        if state.get(key) != expected:
            raise ValueError(
                f"The saved state does not fit this buffer. Received: {key} = "
                f"{state.get(key)!r}. Expected: {expected!r}. Make the buffer with the "
                "arguments of the one that was saved."
            )
    _check_counters(buffer, state)
    streams, starts, sampler = buffer._store.streams, buffer._starts, buffer._sampler
    before = streams.get_state(), starts.get_state()
    used = _parts(buffer)
    streams.set_state(state["streams"])
    starts.set_state(state["starts"])
    try:
        parts = _parts(buffer)
        _check_arrays(parts, arrays)
        sampler.check_state(state.get("sampler", {}), arrays, len(starts))
    except ValueError:
        streams.set_state(before[0])
        starts.set_state(before[1])
        raise
    for name, (array, length, filled) in parts.items():
        by_env = _by_env(array, length)
        by_env[:, :filled] = arrays[name]
        by_env[:, filled : used[name][2]] = 0
    sampler.set_state(state["sampler"])


def _parts(buffer):
    """Dict from names to an array, its entries per environment, and those in use."""
    streams, starts = buffer._store.streams, buffer._starts
    rows = min(streams.length, int((streams.head + streams.open).max()))
    slots = min(starts.length, int(starts.last.max()))
    parts = {
        name: (array, streams.length, rows)
        for name, array in buffer._store.arrays.items()
    }
    for source in (buffer._start_arrays, buffer._sampler.get_arrays()):
        for name, array in source.items():
            parts[name] = (array, starts.length, slots)
    return parts


def _by_env(array, length):
    return array.reshape(-1, length, *array.shape[1:])


def _check_arrays(parts, arrays):
    if set(arrays) != set(parts):
        raise ValueError(
            "The saved arrays do not fit this buffer. Missing: "
            f"{sorted(set(parts) - set(arrays))}. Unknown: "
            f"{sorted(set(arrays) - set(parts))}."
        )
    for name, (array, length, filled) in parts.items():
        expected = (len(array) // length, filled, *array.shape[1:])
        received = np.shape(arrays[name])
        dtype = getattr(arrays[name], "dtype", None)
        fits = dtype == array.dtype
        if not fits and dtype is not None and "actions" in name:
            # Actions of integer boxes were once kept in the dtype of the space.
            fits = array.dtype.kind == "f" and dtype.kind in "iu"
        if received != expected or not fits:
            raise ValueError(
                f"The saved array {name!r} does not fit this buffer. Received: shape "
                f"{received} and dtype {dtype}. Expected: shape {expected} and dtype "
                f"{array.dtype}."
            )


def _check_counters(buffer, state):
    num_envs = buffer.num_envs
    kinds = {
        "streams": {"head": int, "open": bool},
        "starts": {"first": int, "ready": int, "last": int},
    }
    for part, names in kinds.items():
        for name, kind in names.items():
            values = state.get(part, {}).get(name)
            if (
                not isinstance(values, list)
                or len(values) != num_envs
                or any(type(value) is not kind for value in values)
                or min(values) < 0
            ):
                raise ValueError(
                    f"The saved state does not fit this buffer. Received: {part}."
                    f"{name} = {values!r}. Expected: a list of {num_envs} values of "
                    f"type {kind.__name__}, not negative."
                )
    first, ready, last = (
        np.array(state["starts"][name]) for name in ("first", "ready", "last")
    )
    longest = buffer._starts.length
    if not ((first <= ready) & (ready <= last) & (last <= first + longest)).all():
        raise ValueError(
            "The saved state is damaged. Received: starts = "
            f"{state['starts']}. Expected: first <= ready <= last <= first + {longest}."
        )
