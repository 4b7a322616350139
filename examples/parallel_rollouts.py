"""Spread a slow environment over worker processes.

The environment burns some time in every step, as a simulator would. The run with
workers gives the same weights as the one without, only sooner.

Run: python examples/parallel_rollouts.py --steps 20000 --workers 2
"""

import argparse
import time

import gymnasium
import numpy as np

import kerasrl


class SlowCartPole(gymnasium.Wrapper):
    """CartPole that takes its time."""

    def __init__(self, seconds=200e-6):
        super().__init__(gymnasium.make("CartPole-v1"))
        self.seconds = seconds

    def step(self, action):
        """Burns time, then steps."""
        end = time.perf_counter() + self.seconds
        while time.perf_counter() < end:
            pass
        return self.env.step(action)


def main():
    """Trains without and with workers and prints how long each took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    results = []
    for num_workers in (0, arguments.workers):
        agent = kerasrl.PPO(seed=0)
        start = time.perf_counter()
        agent.fit(
            SlowCartPole,
            steps=arguments.steps,
            num_envs=8,
            num_workers=num_workers,
            verbose=0,
        )
        seconds = time.perf_counter() - start
        print(f"{num_workers} workers: {seconds:.1f} seconds")
        results.append(agent.get_weights())
    same = all(np.array_equal(a, b) for a, b in zip(*results, strict=True))
    print(f"The same weights: {same}")


if __name__ == "__main__":
    main()
