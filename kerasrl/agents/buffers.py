"""Which replay buffer an agent learns from, and examples of it."""

import contextlib
import functools
import math

import numpy as np

from kerasrl import checks
from kerasrl.replay import (
    HindsightReplayBuffer,
    PrioritizedReplayBuffer,
    ReplayBuffer,
    ShardedReplay,
    global_weights,
)
from kerasrl.replay.row_store import CapacityError
from kerasrl.training import asynchrony, reading, schedules
from kerasrl.training.dummy import example_rollout


def make(agent, num_envs):
    """Makes an empty buffer of transitions as an agent asks for it.

    Args:
        agent: An `OffPolicyAgent` with weights.
        num_envs: Integer, the environments that it will be filled from.

    Returns:
        A `kerasrl.replay.ReplayBuffer` or one of its subclasses.
    """
    buffer_class = PrioritizedReplayBuffer if agent.prioritized else ReplayBuffer
    given = {
        "capacity": agent.buffer_size,
        "observation_space": agent.policy.observation_space,
        "action_space": agent.policy.action_space,
        "num_envs": num_envs,
        "n_step": agent.n_step,
        "gamma": agent.gamma,
        **reading.kept(agent),
    }
    if agent.hindsight is not None:
        buffer_class = HindsightReplayBuffer
        given["goal_selection_strategy"] = agent.hindsight
    given.update(stacking(agent))
    options = checks.keywords("replay", agent.replay or {}, buffer_class, given)
    return buffer_class(**given, **options)


def make_if_needed(agent, num_envs):
    """Makes a buffer for the running `fit`, unless the agent has one that fits.

    Args:
        agent: An `OffPolicyAgent`.
        num_envs: Integer, the environments that it will be filled from.

    Returns:
        An empty buffer, or `None`.

    Raises:
        ValueError: There is something in that of the agent, from other environments or
            workers.
    """
    buffer, num_parts = agent.buffer, asynchrony.num_parts(agent.envs)
    if buffer is None:
        return make_parts(agent, num_envs, num_parts)
    found = len(getattr(buffer, "shards", (buffer,)))
    if (buffer.num_envs, found) == (num_envs, num_parts):
        return None
    if len(buffer) == 0:
        return make_parts(agent, num_envs, num_parts)
    fix = "or set agent.buffer = None to start with an empty one."
    if buffer.num_envs != num_envs:
        raise ValueError(
            f"Received {num_envs} environments, but the replay buffer was "
            f"filled from {buffer.num_envs}. Pass num_envs={buffer.num_envs} to fit, "
            f"{fix}"
        )
    said = "without more than one asynchronous worker" if found == 1 else ""
    said = said or f"by {found} asynchronous workers, and has a part for each"
    wanted = "another worker_mode"
    if found > 1:
        wanted = f'num_workers={found} and worker_mode="asynchronous"'
    act = "Pass"
    if found > 1 and agent.asynchronous and agent.synchronous:
        act = "Set agent.synchronous = False and pass"
    raise ValueError(
        f"Received environments in {num_parts} parts, but the replay buffer was filled "
        f"{said}. {act} {wanted} to fit, {fix}"
    )


def make_parts(agent, num_envs, num_parts):
    """Makes an empty buffer, in several parts if rollouts come so.

    Args:
        agent: An `OffPolicyAgent`.
        num_envs: Integer, the environments that it will be filled from.
        num_parts: Integer, how many workers hand in theirs one at a time, or 1.

    Returns:
        What `agent.make_buffer` returns, or a `kerasrl.replay.ShardedReplay` of such.
    """
    if num_parts == 1:
        return agent.make_buffer(num_envs)
    return _make_sharded(agent, num_envs, num_parts)


def _make_sharded(agent, num_envs, num_parts):
    size = math.ceil(agent.buffer_size / num_parts)
    width = num_envs // num_parts
    with _of_all(agent, num_parts), _set_unseen(agent, buffer_size=size):
        return ShardedReplay([agent.make_buffer(width) for _ in range(num_parts)])


@contextlib.contextmanager
def _of_all(agent, num_parts):
    """A context in which a part that is too small is an error of the whole buffer."""
    try:
        yield
    except CapacityError as error:
        if num_parts == 1:
            raise
        raise ValueError(
            f"Received buffer_size={agent.buffer_size} for {num_parts} asynchronous "
            "workers, each of which has a part of the buffer. Expected at least "
            f"{num_parts * error.least} in all: {error.least} rows for the "
            "environments of each."
        ) from error


def restore(agent, state, arrays):
    """Makes the buffer of a checkpoint.

    Args:
        agent: An `OffPolicyAgent`.
        state: Dict of `OffPolicyAgent.get_state`, with a buffer.
        arrays: Dict of its arrays.

    Raises:
        ValueError: They do not fit the agent, or were damaged.
    """
    if "shards" in state["buffer"]:
        shards = state["buffer"]["shards"]
        if not (isinstance(shards, list) and shards):
            raise ValueError(
                f"The saved state is damaged. Received: shards = {shards!r:.80}. "
                "Expected: a list, one for each worker."
            )
        # Also of one: somebody made it so.
        buffer = _make_sharded(agent, state["num_envs"], len(shards))
    else:
        buffer = agent.make_buffer(state["num_envs"])
    buffer.set_state(state["buffer"], asynchrony.without_past(arrays))
    return buffer


def set_returns(agent):
    """Has the buffer of an agent sum rewards as the agent says now."""
    buffers = parts(agent)
    with _of_all(agent, len(buffers)):
        for buffer in buffers:
            if isinstance(buffer, ReplayBuffer):
                buffer.set_returns(agent.n_step, agent.gamma)


def add(agent, rollout):
    """Adds a rollout to the buffer of an agent, with the errors that acting knew."""
    agent.buffer.add(rollout, agent.first_errors(rollout))


def draw(agent, count):
    """Draws the batches of several gradient steps.

    Args:
        agent: An `OffPolicyAgent` with something in its buffer.
        count: Integer `K`.

    Returns:
        Tuple of the indices `[K, N]` and the dict of all else, with importance weights
        over the buffers of all ranks.
    """
    batches = agent.sample(count)
    indices, probabilities = batches.pop("indices"), batches.pop("probabilities")
    if agent.mixing.is_mixed:
        agent.mixing.mix(batches)
    if agent.prioritized and agent.replicas.num_ranks > 1:
        exponent = schedules.current(agent, "importance_exponent")
        gather = agent.replicas.gather
        batches["weights"] = global_weights(probabilities, exponent, gather)
    return indices, batches


def checked_errors(agent, errors):
    """Returns the errors of samples; raises if there are none to make priorities of."""
    if agent.prioritized and errors is None:
        raise ValueError(
            f"Received prioritized=True, but {type(agent).__name__}.loss returns no "
            '"td_errors" to make priorities of. Return them, or leave out prioritized.'
        )
    return errors


def stacking(agent):
    """Returns arguments of a buffer by which frames are stored once, if they can be.

    Args:
        agent: An `OffPolicyAgent` whose environments may say how they stack frames.

    Returns:
        Dict, empty if they do not, or `replay` has arguments of its own for that.
    """
    if agent.frames is None or {"frame_stack", "frame_axis"} & set(agent.replay or ()):
        return {}
    return dict(zip(("frame_stack", "frame_axis"), agent.frames, strict=True))


def example_batches(agent):
    """Returns what the compiled call of an agent is given, from its buffer.

    Args:
        agent: An `OffPolicyAgent` with something in its buffer.

    Returns:
        Tuple of batches, scheduled values and what is due. No generator moves.
    """
    rng, agent.rng = agent.rng, np.random.default_rng(0)
    try:
        batches = agent.sample(agent.num_updates(agent.buffer.num_envs))
    finally:
        agent.rng = rng
    numbers = np.arange(len(batches.pop("indices")))
    del batches["probabilities"]
    return batches, agent.scheduled_values(), agent.due(numbers)


@contextlib.contextmanager
def example(agent):
    """A context in which the buffer of an agent holds a few steps of zeros.

    Args:
        agent: An `OffPolicyAgent` that was built.
    """
    buffer = agent.buffer
    num_steps = 2 * (agent.n_step + getattr(agent, "sequence_length", 0) + 2)
    num_steps += getattr(agent, "burn_in", 0)
    replay = {k: v for k, v in (agent.replay or {}).items() if k != "directory"}
    with _set_unseen(agent, buffer_size=2 * num_steps, replay=replay or None):
        try:
            agent.buffer = agent.make_buffer(1)
            agent.buffer.add(example_rollout(agent, num_steps, num_envs=1))
            yield
        finally:
            agent.buffer = buffer


@contextlib.contextmanager
def _set_unseen(agent, **values):
    """A context with other hyperparameters, without a change taking effect."""
    kept = {name: vars(agent)[name] for name in values}
    set_unseen = functools.partial(object.__setattr__, agent)
    try:
        for name, value in values.items():
            set_unseen(name, value)
        yield
    finally:
        for name, value in kept.items():
            set_unseen(name, value)


def parts(agent):
    """Returns the buffers of single workers, the one buffer of an agent, or none.

    Args:
        agent: An `OffPolicyAgent`.
    """
    if agent.buffer is None:
        return ()
    return getattr(agent.buffer, "shards", (agent.buffer,))
