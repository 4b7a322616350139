"""Learn to cooperate: VDN and QMIX in the two-step game.

The team gets 7 for sure, or 8 if both agents dare. A sum of values cannot say the
second, so VDN settles on 7; QMIX finds 8.

Run: python examples/qmix.py --steps 16000
"""

import argparse

import kerasrl


def main():
    """Trains both, and prints what their teams get."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=16_000)
    args = parser.parse_args()
    for algorithm in (kerasrl.VDN, kerasrl.QMIX):
        agent = algorithm(
            exploration=1.0,
            sequence_length=4,
            period=4,
            learning_starts=200,
            train_every=16,
            target_update_interval=400,
            buffer_size=20_000,
            seed=0,
        )
        agent.compile(kerasrl.optimizers.Adam(1e-3))
        agent.fit("two_step", steps=args.steps, verbose=2)
        result = agent.evaluate("two_step", episodes=4, seed=0)
        print(f"{algorithm.__name__}: {result['return_mean']:g}")


if __name__ == "__main__":
    main()
