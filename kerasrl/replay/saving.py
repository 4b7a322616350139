"""State of a replay buffer as plain data and arrays."""

import numpy as np

from kerasrl.replay.streams import (
    EPISODE_START,
    STEP,
    TERMINATED,
    TRUNCATED,
    ZERO_PADDED,
)
from kerasrl.spaces import leaves, num_choices

_SCHEMA = 1
_MOST_ROWS = 2**53
_ACTIONS = ("actions", "starts.previous_actions")
#: What others than the agent say may be anything.
_ANY_NUMBERS = ("extras.", "infos.")


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
    store = buffer._store
    streams, starts, sampler = store.streams, buffer._starts, buffer._sampler
    before = streams.get_state(), starts.get_state(), store.infos
    used = _parts(buffer)
    streams.set_state(state["streams"])
    starts.set_state(state["starts"])
    try:
        if store.infos is not None:
            store.infos = store.infos.copy_layout(arrays)
        parts = _parts(buffer)
        _check_arrays(parts, arrays)
        _check_content(buffer, arrays)
        sampler.check_state(state.get("sampler", {}), arrays, len(starts))
    except (ValueError, MemoryError):
        streams.set_state(before[0])
        starts.set_state(before[1])
        store.infos = before[2]
        raise
    for name, (array, length, filled) in parts.items():
        by_env = _by_env(array, length)
        by_env[:, :filled] = arrays[name]
        if name in used:
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
            f"{sorted(set(arrays) - set(parts))}. Make the buffer with the arguments "
            "of the one that was saved: what the policy reads and acting returns must "
            "be the same."
        )
    for name, (array, length, filled) in parts.items():
        expected = (len(array) // length, filled, *array.shape[1:])
        received = np.shape(arrays[name])
        dtype = getattr(arrays[name], "dtype", None)
        fits = dtype == array.dtype
        if not fits and dtype is not None and name.startswith(_ACTIONS):
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
                or max(values) > _MOST_ROWS
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


def _check_content(buffer, arrays):
    """Raises for rows and starts that no buffer has, whose counters fit already."""
    for name, array in arrays.items():
        if name.startswith(_ANY_NUMBERS) or array.dtype.kind != "f":
            continue
        if not np.isfinite(array).all():
            _refuse_content(name, "NaN or infinity", "finite numbers")
    store, starts = buffer._store, buffer._starts
    streams, kinds = store.streams, arrays["kinds"]
    known = STEP | TERMINATED | TRUNCATED | EPISODE_START
    known |= ZERO_PADDED if store.margin else 0
    ends = (kinds & (TERMINATED | TRUNCATED)) != 0
    if (kinds & ~np.uint8(known)).any() or (ends & ((kinds & STEP) == 0)).any():
        _refuse_content("kinds", "unknown kinds of rows", "those of steps and ends")
    if store.margin and (arrays["ages"] > store.margin).any():
        _refuse_content("ages", "an age", f"at most {store.margin}")
    # What a walk over consecutive steps stops at: the newest row has no step yet.
    env = np.flatnonzero(streams.head + streams.open > 0)
    newest = (streams.head + streams.open - 1)[env] % streams.length
    if (kinds[env, newest] & STEP).any():
        _refuse_content("kinds", "a step in the newest row", "an observation only")
    _check_starts(buffer, arrays["starts.positions"], kinds)
    is_step = (kinds & STEP) != 0
    actions = leaves(store.action_space)
    for column, space in zip(store.outputs.of("actions"), actions, strict=True):
        _check_choices(column.name, arrays[column.name][is_step], space)
    if "previous_actions" in store.inputs:
        previous = store.inputs.of("previous_actions")
        for column, space in zip(previous, actions, strict=True):
            _check_choices(column.name, arrays[column.name], space)
    first, ready = starts.first, starts.ready
    if (ready - first).sum() > buffer.capacity:
        _refuse_content("starts", "more starts than rows", f"{buffer.capacity}")


def _check_starts(buffer, positions, kinds):
    """Raises unless starts lie in order among the rows that are still there."""
    store, starts = buffer._store, buffer._starts
    streams, oldest = store.streams, store.oldest()
    for env in range(streams.num_envs):
        numbers = np.arange(starts.first[env], starts.last[env])
        found = positions[env, numbers % starts.length]
        least, most = max(0, int(oldest[env])), int(streams.head[env])
        if found.size and not (
            found[0] >= least and found[-1] < most and (np.diff(found) > 0).all()
        ):
            _refuse_content(
                "starts.positions",
                f"{found.min()} to {found.max()} in environment {env}",
                f"growing ones from {least} to {most - 1}",
            )
        ready = found[: starts.ready[env] - starts.first[env]]
        if buffer.starts_are_steps:
            rows = ready % streams.length
            if not (kinds[env, rows] & STEP).all():
                _refuse_content("kinds", "starts without a step", "a step in each")


def _check_choices(name, taken, space):
    count = num_choices(space)
    if count is not None and ((taken < 0) | (taken >= count)).any():
        _refuse_content(name, "other actions", f"those of {space}")


def _refuse_content(name, received, expected):
    raise ValueError(
        f"The saved array {name!r} is damaged. Received: {received}. Expected: "
        f"{expected}."
    )
