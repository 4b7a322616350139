"""Give a trunk and a preprocessor names, and use them as settings.

The same from the command line, in the directory of this file:

kerasrl train PPO CartPole-v1 --import named_parts --set policy.trunk=residual \
    --set policy.cell=lstm --set env_config.preprocessor=position

Run: python examples/named_parts.py --steps 100000
"""

import argparse
import pathlib
import tempfile

import gymnasium
import keras

import kerasrl


class Residual(keras.layers.Layer):
    """Two dense layers, the second of which changes what the first returns."""

    def __init__(self, width=64, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.first = keras.layers.Dense(width, activation="relu")
        self.second = keras.layers.Dense(width, activation="relu")

    def build(self, input_shape):
        self.first.build(input_shape)
        self.second.build((None, self.width))

    def call(self, inputs):
        features = self.first(inputs)
        return features + self.second(features)

    def get_config(self):
        return {**super().get_config(), "width": self.width}


class Position(gymnasium.ObservationWrapper):
    """Cart and pole without their velocities: a task for a memory."""

    def __init__(self, env):
        super().__init__(env)
        self.observation_space = gymnasium.spaces.Box(-10.0, 10.0, (2,))

    def observation(self, observation):
        return observation[::2]


kerasrl.register_model("residual", Residual)
kerasrl.register_preprocessor("position", Position)


def main():
    """Trains on CartPole-v1 without velocities, saves, loads and evaluates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    policy = {
        "trunk": {"model": "residual", "model_config": {"width": 32}},
        "cell": "lstm",
    }
    agent = kerasrl.PPO(policy=policy, seed=args.seed)
    env_config = {"preprocessor": "position"}
    agent.fit("CartPole-v1", steps=args.steps, env_config=env_config, verbose=2)
    with tempfile.TemporaryDirectory() as directory:
        path = agent.save(pathlib.Path(directory) / "agent.kerasrl")
        loaded = kerasrl.load(path)
    result = loaded.evaluate("CartPole-v1", env_config=env_config, verbose=0)
    print(f"mean return of the loaded agent: {result['return_mean']:.1f}")


if __name__ == "__main__":
    main()
