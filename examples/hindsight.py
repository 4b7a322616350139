"""Learn to reach goals from the ones that were reached by accident.

BitFlipping: bits are flipped one at a time until they are those of the goal, and the
reward tells that only. With many bits it hardly ever happens by chance: compare with
`--hindsight none`.

Run: python examples/hindsight.py --bits 10 --steps 30000
"""

import argparse

import kerasrl


def main():
    """Trains DQN with hindsight and prints how well it reaches new goals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bits", type=int, default=10)
    parser.add_argument("--steps", type=int, default=30_000)
    choices = ["future", "final", "episode", "none"]
    parser.add_argument("--hindsight", choices=choices, default="future")
    args = parser.parse_args()
    agent = kerasrl.DQN(
        policy={"hidden_units": (256,)},
        gamma=0.98,
        tau=0.05,
        target_update_interval=1,
        hindsight=None if args.hindsight == "none" else args.hindsight,
        seed=0,
    )
    config = {"num_bits": args.bits}
    agent.fit("BitFlipping-v1", steps=args.steps, env_config=config, verbose=2)
    result = agent.evaluate("BitFlipping-v1", 100, seed=0, env_config=config)
    print(f"Return {result['return_mean']:.2f}; failure is {-args.bits}.")


if __name__ == "__main__":
    main()
