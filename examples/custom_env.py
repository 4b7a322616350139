"""Train on an environment of your own.

SimpleCorridor: the agent starts at the left end of a corridor and has to walk to the
right end. Every step costs 0.1; the end pays 1. The best return for length 5 is
1 - 4 * 0.1 = 0.6.

Run: python examples/custom_env.py --length 5 --steps 20000
"""

import argparse

import gymnasium
import numpy as np

import kerasrl


class SimpleCorridor(gymnasium.Env):
    """A corridor of a given length, left (0) or right (1) at every step."""

    observation_space: gymnasium.Space
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, length=5):
        self.length = length
        self.position = 0
        self.observation_space = gymnasium.spaces.Box(0.0, length, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = 0
        return self._observe(), {}

    def step(self, action):
        self.position = max(0, self.position + (1 if action == 1 else -1))
        at_the_end = self.position >= self.length
        return self._observe(), 1.0 if at_the_end else -0.1, at_the_end, False, {}

    def _observe(self):
        return np.array([self.position], np.float32)


def main():
    """Registers the environment, trains PPO on it and prints the evaluation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    kerasrl.register_env(
        "SimpleCorridor",
        lambda config: gymnasium.wrappers.TimeLimit(SimpleCorridor(**config), 100),
    )
    agent = kerasrl.PPO(rollout_length=64, seed=args.seed)
    agent.fit(
        "SimpleCorridor",
        steps=args.steps,
        env_config={"length": args.length},
        verbose=2,
    )
    print(agent.evaluate("SimpleCorridor", env_config={"length": args.length}, seed=0))


if __name__ == "__main__":
    main()
