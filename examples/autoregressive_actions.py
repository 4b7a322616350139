"""Parts of an action that depend on each other: agreeing at random.

    python examples/autoregressive_actions.py [--independent] [--steps 60000]

Two players of a team choose one of four signs each, at the same time. A step pays if
they show the same, and another one than last time, which neither remembers: both must
choose at random, and alike. Heads that know nothing of each other earn 2.5 at most;
where the second choice depends on the first, it is 7.5.
"""

import argparse

import numpy as np

import kerasrl
from kerasrl.testing import AgreementEnv


def main():
    """Trains, and prints how often each pair of signs is shown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--independent", action="store_true")
    parser.add_argument("--steps", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    agent = kerasrl.PPO(
        policy={"autoregressor": None if args.independent else "made"},
        gamma=0.9,
        entropy_coef=0.01,
        seed=args.seed,
    )
    agent.fit(AgreementEnv, steps=args.steps, num_envs=8, verbose=2)
    # Of a random policy, the most probable actions are not what is wanted.
    result = agent.evaluate(
        AgreementEnv, episodes=100, deterministic=False, seed=args.seed, verbose=0
    )
    env = AgreementEnv()
    print(
        f"Return {result['return_mean']:.2f}; the best is {env.best_return}, of "
        f"independent parts {env.independent_return}."
    )
    observations = np.zeros((4000, 1), np.float32)
    pairs = agent.predict(observations, deterministic=False, seed=args.seed)
    counts = np.zeros((4, 4))
    np.add.at(counts, tuple(pairs.T), 1)
    print("How often each pair is shown, in percent:")
    print(np.round(100 * counts / counts.sum()).astype(int))


if __name__ == "__main__":
    main()
