"""Learn from what many actors do, each of which explores to another degree.

Two worker processes act while this one learns. The logs tell apart what those that
explore and those that hardly do have reached.

Run: python examples/apex.py --steps 150000
"""

import argparse

import kerasrl


def main():
    """Trains Ape-X DQN and prints what actors of all degrees, and none, reach."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=150_000)
    parser.add_argument("--num-workers", type=int, default=2)
    args = parser.parse_args()
    agent = kerasrl.ApexDQN(seed=0)
    logs = agent.fit(
        "CartPole-v1",
        steps=args.steps,
        num_envs=8,
        num_workers=args.num_workers,
        verbose=2,
    ).history
    for band in ("exploring", "middle", "greedy"):
        print(f"{band:>9}: {logs[f'episode_return_mean_{band}'][-1]:6.1f}")
    result = agent.evaluate("CartPole-v1", episodes=20, seed=0)
    print(f"   no exploration: {result['return_mean']:.1f}")


if __name__ == "__main__":
    main()
