"""A choice and a number in one action: golf, with one distribution of your own.

    python examples/hybrid_actions.py [--distribution laplace] [--steps 200000]

Each stroke takes a club, of three, and how hard to swing. The action space is a Dict of
a Discrete and a Box: the policy draws both from one joint distribution, and nothing
else is to be said. With `--distribution laplace`, swings come from a distribution that
this file defines, with heavier tails than the normal one; clubs stay as they are.
"""

import argparse

import gymnasium
import keras
import numpy as np
from gymnasium import spaces
from keras import ops

import kerasrl

RANGES = np.array([10.0, 50.0, 150.0])  # Metres, of a putter, an iron and a driver.


class Golf(gymnasium.Env):
    """The hole is up to 300 m away; every stroke costs 1, and ends where it falls."""

    observation_space = spaces.Box(-2.0, 2.0, (1,), np.float32)
    action_space = spaces.Dict(
        {"club": spaces.Discrete(3), "swing": spaces.Box(0.0, 1.0, (1,), np.float32)}
    )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.distance = self.np_random.uniform(50.0, 300.0)
        self.strokes = 0
        return self._observation(), {}

    def step(self, action):
        flight = RANGES[action["club"]] * action["swing"][0]
        flight *= self.np_random.normal(1.0, 0.03)
        self.distance = abs(self.distance - flight)
        self.strokes += 1
        holed = self.distance < 1.0
        return self._observation(), -1.0, holed, self.strokes == 20, {}

    def _observation(self):
        level = np.log10(max(self.distance, 0.1)) - 1.0
        return np.array([level], np.float32)


@keras.saving.register_keras_serializable("examples")
class Laplace(kerasrl.distributions.Distribution):
    """Independent numbers, each by exp(-|action - mean| / scale) / (2 scale)."""

    def __init__(self, parameters):
        super().__init__(parameters)
        self.mean, log_scale = ops.split(self.parameters, 2, axis=-1)
        self.scale = ops.exp(log_scale - 1.0)

    @staticmethod
    def parameters_size(action_space):
        return 2 * action_space.shape[0]

    def sample(self, seed=None):
        uniform = keras.random.uniform(ops.shape(self.mean), -0.5, 0.5, seed=seed)
        tail = ops.log1p(-2.0 * ops.minimum(ops.abs(uniform), 0.4999))
        return self.mean - self.scale * ops.sign(uniform) * tail

    def mode(self):
        return self.mean

    def log_prob(self, actions):
        distance = ops.abs(actions - self.mean) / self.scale
        return -ops.sum(distance + ops.log(2.0 * self.scale), axis=-1)

    def entropy(self):
        return ops.sum(1.0 + ops.log(2.0 * self.scale), axis=-1)


def main():
    """Trains, and plays some holes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--distribution", choices=["normal", "laplace"], default="normal"
    )
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    policy = {"initial_log_std": -1.0}
    if args.distribution == "laplace":
        policy = {"distribution": {"swing": Laplace}}  # It has a scale of its own.
    agent = kerasrl.PPO(policy=policy, entropy_coef=0.005, seed=args.seed)
    agent.fit(Golf, steps=args.steps, num_envs=8, verbose=2)
    env = Golf()
    observation, _ = env.reset(seed=args.seed)
    ended = False
    while not ended:
        actions = agent.predict(observation[None])
        action = {name: part[0] for name, part in actions.items()}
        before = env.distance
        observation, _, terminated, truncated, _ = env.step(action)
        club = ("putter", "iron", "driver")[action["club"]]
        print(f"{before:6.1f} m: {club}, {float(action['swing'][0]):.0%}")
        ended = terminated or truncated
    result = agent.evaluate(Golf, episodes=50, seed=args.seed, verbose=0)
    print(f"{-result['return_mean']:.1f} strokes a hole")


if __name__ == "__main__":
    main()
