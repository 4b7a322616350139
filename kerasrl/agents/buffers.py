"""Which replay buffer an agent learns from, whom that asks, and examples of it."""

import contextlib
import functools

import numpy as np

from kerasrl import checks, goals
from kerasrl.replay import (
    HindsightReplayBuffer,
    PrioritizedReplayBuffer,
    ReplayBuffer,
)
from kerasrl.training import reading
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
    kept = {name: vars(agent)[name] for name in ("buffer", "buffer_size", "replay")}
    num_steps = 2 * (agent.n_step + getattr(agent, "sequence_length", 0) + 2)
    num_steps += getattr(agent, "burn_in", 0)
    replay = {k: v for k, v in (agent.replay or {}).items() if k != "directory"}
    # Nothing is to take effect: this is no change of hyperparameters.
    set_unseen = functools.partial(object.__setattr__, agent)
    try:
        set_unseen("buffer_size", 2 * num_steps)
        set_unseen("replay", replay or None)
        agent.buffer = agent.make_buffer(1)
        agent.buffer.add(example_rollout(agent, num_steps, num_envs=1))
        yield
    finally:
        for name, value in kept.items():
            set_unseen(name, value)


def check_hindsight(agent):
    """Raises a ValueError where an agent cannot learn from hindsight."""
    if agent.hindsight is None:
        return
    if agent.learns_sequences:
        raise ValueError(
            f"Received hindsight={agent.hindsight!r}. {type(agent).__name__} with a "
            "recurrent policy learns from sequences, whose state is that of the goal "
            "that there was. Leave out the policy's cell (for R2D2, use kerasrl.DQN), "
            "or leave out hindsight."
        )
    if agent.prioritized:
        raise ValueError(
            f"Received hindsight={agent.hindsight!r} and prioritized=True. The goal of "
            "a transition is drawn anew each time, so its last error says nothing "
            "about the next: use one of them."
        )


def ask_environments(agent):
    """Has a hindsight buffer ask the environments of the running `fit` about goals.

    What `replay` has functions for is not asked of them.

    Args:
        agent: An `OffPolicyAgent` with a buffer, in `fit` or before rollouts.

    Raises:
        ValueError: There is nobody to ask for rewards.
    """
    if not isinstance(agent.buffer, HindsightReplayBuffer):
        return
    for name in goals.QUESTIONS:
        if (agent.replay or {}).get(name) is not None:
            continue
        function = None if agent.envs is None else agent.envs.goal_function(name)
        setattr(agent.buffer, name, function)
    agent.buffer.check_again()
    if agent.buffer.compute_reward is None:
        who = "rollouts" if agent.envs is None else agent.env_name
        raise ValueError(
            f"Received hindsight={agent.hindsight!r} to learn from {who}, where there "
            "is no compute_reward(achieved_goal, desired_goal, info) to ask for the "
            "rewards of other goals. Define it as a method of the environment, or pass "
            'a function: replay={"compute_reward": function}.'
        )


def forget_environments(agent):
    """Has a hindsight buffer ask nobody but the functions that `replay` has.

    The environments of a `fit` that ended are closed, or belong to the user.

    Args:
        agent: An `OffPolicyAgent`, with a buffer or without.
    """
    if not isinstance(agent.buffer, HindsightReplayBuffer):
        return
    for name in goals.QUESTIONS:
        setattr(agent.buffer, name, (agent.replay or {}).get(name))
