"""A pendulum whose velocity nobody sees, swung up by a policy that remembers.

    python examples/memory.py [--steps 30000] [--cell none]

One observation tells where the pendulum is and not which way it swings. With `--cell
none` the policy sees no more than that, and learns next to nothing.
"""

import argparse

import kerasrl

ENV = "StatelessPendulum-v1"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--cell", choices=["lstm", "gru", "none"], default="lstm")
    arguments = parser.parse_args()
    policy, settings = {"hidden_units": (64, 64)}, {}
    if arguments.cell != "none":
        policy |= {"cell": arguments.cell, "previous_inputs": True}
        # Rows of sequences: 32 sequences of 20.
        settings = {"batch_size": 640}
    agent = kerasrl.SAC(
        policy, gamma=0.95, train_every=2, learning_starts=1_000, seed=0, **settings
    )
    agent.fit(ENV, steps=arguments.steps, num_envs=4, verbose=2)
    result = agent.evaluate(ENV, episodes=10, verbose=0)
    print(f"mean return over 10 episodes: {result['return_mean']:.1f}")


if __name__ == "__main__":
    main()
