"""What an agent would have written: the variables, counters and random generators."""

import itertools

import keras
import numpy as np

from kerasrl.checkpoint.archive import CheckpointError
from kerasrl.checkpoint.weights import describe_misfit

#: Whole numbers that stay whole in every program that reads JSON.
_MOST = 2**53
#: Keys of a state by what it is of.
_BASE = {"rng", "env_name", "env_steps", "iterations", "statistics"}
_REPLAY = {"num_envs", "buffer", "buffer_began"}
_GENERATORS = {"MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"}
#: Names of what optimizers and layers count and average, which is never negative.
_NOT_NEGATIVE = {"iteration", "learning_rate", "variance", "moving_variance", "count"}


def check_arrays(path, optimizer, named, arrays):
    """Raises unless arrays are what the variables of an agent could hold.

    Args:
        path: Of the file, for messages.
        optimizer: The Keras optimizer of the agent.
        named: List of pairs of a name and a variable, as of `variables(agent)`.
        arrays: List of arrays, in that order.

    Raises:
        CheckpointError: Naming the first variable that does not fit.
    """
    expected = [tuple(variable.shape) for _, variable in named]
    received = [array.shape for array in arrays]
    if received != expected:
        raise CheckpointError(f"{path} {describe_misfit(received, expected)}")
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    # To Keras, the mean of squared gradients; elsewhere it may have a direction.
    has_squares = type(optimizer).__module__.startswith(("keras.", "kerasrl."))
    for (name, variable), array in zip(named, arrays, strict=True):
        dtype = keras.backend.standardize_dtype(variable.dtype)
        if array.dtype.name != dtype:
            raise CheckpointError(
                f"{path}: the array of {name} has dtype {array.dtype}, expected "
                f"{dtype}."
            )
        # What a new agent holds may be infinite too, such as a mask.
        if not all_finite(array) and all_finite(keras.ops.convert_to_numpy(variable)):
            raise CheckpointError(f"{path}: the array of {name} has NaN or infinity.")
        # Weights are anything, whatever they are called, such as a `log_variance`.
        counted = not variable.trainable and name.rpartition("/")[2] in _NOT_NEGATIVE
        squared = has_squares and name.endswith("_velocity")
        if (counted or squared) and (array < 0).any():
            raise CheckpointError(f"{path}: the array of {name} has negative numbers.")


def all_finite(array):
    """Whether an array has neither NaN nor infinity, whatever its dtype."""
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


#: First parts of the names of arrays beside those of a replay buffer: what agents keep
#: of weights, or of rollouts, of a while ago. Agents check them.
APART = ("past_weights", "published", "recent")


def of_replay(arrays):
    """Returns the arrays of a state that are those of a replay buffer, a dict."""
    return {
        name: array for name, array in arrays.items() if name.split(".")[0] not in APART
    }


def check_state(path, state, arrays):
    """Raises unless the entries of a state are ones that an agent could have.

    Before the agent is made, which takes much longer.

    Args:
        path: Of the file, for messages.
        state: Dict, the content of the file's state.
        arrays: Dict, the arrays of the replay buffer in the file.

    Raises:
        CheckpointError: Naming the first entry that does not fit.
    """
    if not set(state) >= _BASE:
        refuse(path, "the keys", sorted(state), f"{sorted(_BASE)} among them")
    for key in ("env_steps", "iterations", "updates"):
        if key in state:
            check_count(path, key, state[key])
    for key in ("buffer_began", "steps_due"):
        check_count(path, key, state.get(key, 0))
    name = state["env_name"]
    if not (name is None or isinstance(name, str)):
        refuse(path, "env_name", name, "a text or null")
    _check_generator(path, state["rng"])
    _check_statistics(path, state["statistics"])
    for name in ("reading", "offline_reading"):
        _check_reading(path, name, state.get(name))
    if "reward_scaler" in state:
        _check_scaler(path, state["reward_scaler"])
    _check_replay(path, state, arrays)


def check_keys(path, agent, state):
    """Raises unless a state has the entries that an agent would have written.

    Args:
        path: Of the file, for messages.
        agent: The `Agent`, just made.
        state: Dict, the content of the file's state.

    Raises:
        CheckpointError: Entries are missing, or nobody knows them.
    """
    # Not that of a class of one's own, which may need what training has made.
    ours = next(c for c in type(agent).__mro__ if c.__module__.startswith("kerasrl."))
    own = ours.get_state(agent)
    kept = {*_BASE, *(key for key in ("updates", "reward_scaler") if key in own)}
    unknown = set(state) - set(own) - (_REPLAY if "updates" in own else set())
    if not set(state) >= kept or (
        # What a class of one's own kept in an earlier version is its own business.
        unknown and type(agent).get_state is ours.get_state
    ):
        refuse(path, "the keys", sorted(state), f"{sorted(kept)}")
    received, expected = state["rng"]["bit_generator"], own["rng"]["bit_generator"]
    if received != expected:
        refuse(path, "rng.bit_generator", received, expected)


def refuse(path, name, value, expected):
    """Raises a `CheckpointError` about an entry of the state."""
    raise CheckpointError(
        f"{path} is damaged. Received: {name} = {value!r:.120}. Expected: {expected}."
    )


def check_count(path, name, value, least=0):
    """Raises unless a value is a whole number of a possible size."""
    if type(value) is not int or not least <= value <= _MOST:
        refuse(path, name, value, f"a whole number from {least} to 2**53")


def _check_generator(path, state):
    try:
        known = state["bit_generator"] in _GENERATORS
        generator = getattr(np.random, state["bit_generator"] if known else "")(0)
        generator.state = state
        # NumPy takes numbers that are too large or negative as far as they go.
        valid = generator.state == state and _same_kinds(generator.state, state)
    except Exception:
        valid = False
    if not valid:
        refuse(path, "rng", state, "the state of a random generator of NumPy")


def _same_kinds(left, right):
    if isinstance(left, dict):
        return all(_same_kinds(left[key], right[key]) for key in left)
    return type(left) is type(right)


def _check_statistics(path, state):
    keys = {"episodes", "returns", "lengths"}
    if not isinstance(state, dict) or set(state) - {"groups"} != keys:
        refuse(path, "statistics", state, f"the keys {sorted(keys)}")
    check_count(path, "statistics.episodes", state["episodes"])
    groups = state.get("groups", {})
    if not isinstance(groups, dict) or not all(
        isinstance(values, list) for values in groups.values()
    ):
        refuse(path, "statistics.groups", groups, "an object of lists")
    for value in itertools.chain(*groups.values()):
        _check_number(path, "statistics.groups", value)
    returns, lengths = state["returns"], state["lengths"]
    for name, values in (("returns", returns), ("lengths", lengths)):
        if not isinstance(values, list) or len(values) > state["episodes"]:
            refuse(path, f"statistics.{name}", values, "a list, of episodes at most")
    if len(returns) != len(lengths):
        refuse(path, "statistics.lengths", lengths, f"{len(returns)} of them")
    for value in returns:
        _check_number(path, "statistics.returns", value)
    for value in lengths:
        check_count(path, "statistics.lengths", value)


def _check_reading(path, where, reading):
    if reading is None:
        return
    if not isinstance(reading, dict) or set(reading) != {"of", "state"}:
        refuse(path, where, reading, "the keys ['of', 'state'], or null")
    for name, entries in reading.items():
        if not isinstance(entries, dict):
            refuse(path, f"{where}.{name}", entries, "an object")
        for key, value in entries.items():
            _check_number(path, f"{where}.{name}.{key}", value)


def _check_scaler(path, state):
    keys = {"count", "mean", "squares"}
    if not isinstance(state, dict) or set(state) != keys:
        refuse(path, "reward_scaler", state, f"the keys {sorted(keys)}")
    for name, value in state.items():
        _check_number(path, f"reward_scaler.{name}", value)
        if name != "mean" and value < 0:
            refuse(
                path, f"reward_scaler.{name}", value, "a number that is not negative"
            )


def _check_number(path, name, value):
    if type(value) not in (int, float) or not abs(value) < float("inf"):
        refuse(path, name, value, "a finite number")


def _check_replay(path, state, arrays):
    """Whether the size of the buffer is that of its arrays, before there is one."""
    arrays = of_replay(arrays)
    if ("buffer" in state) != ("num_envs" in state) or (
        arrays and "buffer" not in state
    ):
        refuse(path, "the keys", sorted(state), "num_envs and buffer, or neither")
    if "buffer" not in state:
        return
    buffer, num_envs = state["buffer"], state["num_envs"]
    check_count(path, "num_envs", num_envs, least=1)
    if not isinstance(buffer, dict):
        refuse(path, "buffer", buffer, "an object")
    if "shards" in buffer:
        # Each has as many of the environments.
        shards = buffer["shards"]
        if not isinstance(shards, list) or not shards or num_envs % len(shards):
            refuse(path, "buffer.shards", shards, f"a list, in which {num_envs} fit")
        num_envs //= len(shards)
    for name, array in arrays.items():
        if array.shape[:1] != (num_envs,):
            refuse(path, f"the shape of {name}", array.shape, f"{num_envs} at first")
