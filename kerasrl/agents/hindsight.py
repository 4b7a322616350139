"""Learning from goals that were achieved: who can, and whom the buffer asks."""

from kerasrl import goals
from kerasrl.agents import buffers
from kerasrl.replay import HindsightReplayBuffer


def check(agent):
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
    parts = [
        part for part in buffers.parts(agent) if isinstance(part, HindsightReplayBuffer)
    ]
    if not parts:
        return
    for name in goals.QUESTIONS:
        if (agent.replay or {}).get(name) is not None:
            continue
        function = None if agent.envs is None else agent.envs.goal_function(name)
        for part in parts:
            setattr(part, name, function)
    for part in parts:
        part.check_again()
    if parts[0].compute_reward is None:
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
    for part in buffers.parts(agent):
        if isinstance(part, HindsightReplayBuffer):
            for name in goals.QUESTIONS:
                setattr(part, name, (agent.replay or {}).get(name))
