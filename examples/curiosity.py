"""Explore by curiosity, and share out a reward that comes at the end.

In MountainCar-v0 every step costs 1 until the car is on the hill, which random actions
do not reach. `Curiosity` adds to rewards how badly a learned model foresaw what
followed. `Backdated` then rewrites the rewards of whole episodes: those that ended
within a rollout get a bonus for how high the car has been, from the step on which it
was there backwards.

Run: python examples/curiosity.py --steps 100000
"""

import argparse
import dataclasses

import numpy as np

import kerasrl
from kerasrl.callbacks import Callback, Curiosity


class Backdated(Callback):
    """Rewards the steps that led to the highest place of an episode, when it is over.

    Args:
        bonus: float, for the step that reached it; each step before gets `decay` times
            as much as the one after it.
        decay: float.
    """

    def __init__(self, bonus=1.0, decay=0.95):
        super().__init__()
        self.bonus, self.decay = bonus, decay

    def on_rollout_end(self, rollout):
        rewards = rollout.rewards.copy()
        ends = rollout.terminated | rollout.truncated
        for env in range(rewards.shape[1]):
            start = 0
            for stop in np.flatnonzero(ends[:, env]) + 1:
                heights = np.abs(rollout.observations[start:stop, env, 0] + 0.5)
                best = int(np.argmax(heights))
                ages = np.arange(best, -1, -1)
                bonus = self.bonus * heights[best] * self.decay**ages
                rewards[start : start + best + 1, env] += bonus
                start = stop
        return dataclasses.replace(rollout, rewards=rewards)


def main():
    """Trains, and prints what was new, and how far the car came."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000)
    arguments = parser.parse_args()
    curiosity = Curiosity(scale=1.0, seed=0)
    agent = kerasrl.PPO(
        rollout_length=256, policy={"normalize_observations": True}, seed=0
    )
    history = agent.fit(
        "MountainCar-v0",
        steps=arguments.steps,
        callbacks=[curiosity, Backdated()],
        verbose=0,
    ).history
    errors = history["curiosity_error"]
    print(f"Error of what was foreseen: {errors[0]:.3f}, at last {errors[-1]:.3f}.")
    best = np.nanmax(history["episode_return_max"])
    print(f"The best episode returned {best:.0f}; -200 is not to arrive.")


if __name__ == "__main__":
    main()
