"""Swing up two pendulums with one reward: an agent each, or one agent for both.

Run: python examples/multi_agent_pendulum.py --steps 100000
"""

import argparse

import kerasrl
from kerasrl.multi_agent import MultiAgentPendulum


def make_ppo(seed):
    """PPO as it suits a pendulum."""
    return kerasrl.PPO(
        gamma=0.95, normalize_rewards=True, minibatch_size=128, seed=seed
    )


def main():
    """Trains both, and compares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000)
    args = parser.parse_args()
    runs = {
        "one policy for both agents": ({"shared": make_ppo(0)}, False),
        "a policy for each": ({f"agent_{k}": make_ppo(k) for k in range(2)}, False),
        "one agent, Tuple spaces": ({"both": make_ppo(0)}, True),
    }
    for name, (policies, joint) in runs.items():
        agent = kerasrl.MultiAgent(policies, seed=0)
        config = {"joint": joint}
        agent.fit(MultiAgentPendulum, args.steps, env_config=config, verbose=2)
        result = agent.evaluate(MultiAgentPendulum, 8, seed=0, env_config=config)
        # All agents get the reward of all.
        team = result["return_mean"] / (1 if joint else 2)
        print(f"{name}: {team:.0f} for both pendulums")


if __name__ == "__main__":
    main()
