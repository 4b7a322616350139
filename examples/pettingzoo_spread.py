"""Three agents with one policy cover three landmarks (PettingZoo's simple_spread).

Needs the extra `mpe`. Random actions give an agent -26, going each to the nearest
landmark -16.

Run: python examples/pettingzoo_spread.py --steps 200000
"""

import argparse
import importlib.util

import kerasrl

ENV = "pettingzoo:parallel:mpe2.simple_spread_v3"


def main():
    """Trains one PPO for all agents, and prints the mean return of one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200_000)
    args = parser.parse_args()
    if importlib.util.find_spec("mpe2") is None:
        print("This needs mpe2: pip install kerasrl[mpe]")
        return
    agent = kerasrl.MultiAgent(
        {
            "shared": kerasrl.PPO(
                policy={"normalize_observations": True},
                rollout_length=100,
                num_epochs=15,
                minibatch_size=600,
                gamma=0.95,
                gae_lambda=0.9,
                clip_ratio=0.1,
                entropy_coef=0.01,
                normalize_rewards=True,
                seed=0,
            )
        },
        seed=0,
    )
    agent.fit(ENV, steps=args.steps, verbose=2)
    result = agent.evaluate(ENV, episodes=100, seed=0)
    print(f"Return of an agent: {result['return_mean'] / 3:.1f}")


if __name__ == "__main__":
    main()
