"""Train PPO and DQN side by side, each on an agent of its own in one environment.

Run: python examples/two_trainers.py --steps 50000
"""

import argparse

import kerasrl
from kerasrl.multi_agent import make_multi_agent


def main():
    """Trains two policies, then one of them alone while the other only acts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50_000)
    args = parser.parse_args()
    env = make_multi_agent("CartPole-v1", 2)
    agent = kerasrl.MultiAgent(
        {
            "ppo": kerasrl.PPO(seed=0),
            "dqn": kerasrl.DQN(learning_starts=200, seed=1),
        },
        mapping={"agent_0": "ppo", "agent_1": "dqn"},
        seed=0,
    )
    agent.fit(env, steps=args.steps, verbose=2)
    agent.train = ["ppo"]  # The other keeps every bit of its weights.
    agent.fit(env, steps=args.steps // 2, verbose=2)
    result = agent.evaluate(env, episodes=20, seed=0)
    for name in agent.agents:
        print(f"{name}: {result[f'return_mean_{name}']:.0f}")


if __name__ == "__main__":
    main()
