"""Learn while worker processes act in environments that take their time.

Trains IMPALA with workers that act in step with learning, and with workers that do not
wait for it, and says how old the weights were that acted.

Run: python examples/asynchronous.py --steps 40000 --workers 2
"""

import argparse
import time

import gymnasium

import kerasrl


class SleepyCartPole(gymnasium.Wrapper):
    """CartPole that waits for something in every step, as for a simulator elsewhere."""

    def __init__(self, seconds=200e-6):
        super().__init__(gymnasium.make("CartPole-v1"))
        self.seconds = seconds

    def step(self, action):
        """Sleeps, sometimes for long, then steps."""
        time.sleep(self.unwrapped.np_random.exponential(self.seconds))
        return self.env.step(action)


def main():
    """Trains twice and prints what workers that do not wait gain."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    for synchronous in (True, False):
        agent = kerasrl.IMPALA(rollout_length=16, synchronous=synchronous, seed=0)
        agent.compile(kerasrl.optimizers.Adam(3e-3, epsilon=1e-5))
        history = agent.fit(
            SleepyCartPole,
            steps=arguments.steps,
            epochs=4,  # The first compiles.
            num_envs=4 * arguments.workers,
            num_workers=arguments.workers,
            verbose=0,
        ).history
        name = "in step" if synchronous else "asynchronous"
        lag = history.get("policy_lag_mean", [0.0])[-1]
        print(
            f"{name:12} {history['steps_per_second'][-1]:6.0f} steps/s, "
            f"lag {lag:.1f} updates, return {history['episode_return_mean'][-1]:.0f}"
        )


if __name__ == "__main__":
    main()
