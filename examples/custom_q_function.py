"""A Q network of one's own, with an auxiliary loss, trained by DQN.

    python examples/custom_q_function.py [--steps 50000]

Beside the values of actions it predicts how the observation will change. That shapes
the features, and the error is logged as `forecast`.
"""

import argparse

import keras
from keras import ops

import kerasrl


@keras.saving.register_keras_serializable("examples")
class ForecastingQ(kerasrl.models.QFunction):
    """Values of actions and a forecast, from shared features."""

    def __init__(self, units=128, forecast_coef=0.1, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.forecast_coef = forecast_coef

    def setup(self, observation_space, action_space):
        super().setup(observation_space, action_space)
        self.hidden = keras.Sequential(
            [keras.layers.Dense(self.units, "relu") for _ in range(2)]
        )
        self.q_head = keras.layers.Dense(self.num_actions)
        self.forecast_head = keras.layers.Dense(observation_space.shape[0])

    def call(self, inputs, state=None, training=False):
        features = self.hidden(inputs["observations"])
        return {
            "q_values": self.q_head(features),
            "forecast": self.forecast_head(features),
        }

    def custom_loss(self, loss, batch):
        return loss + self.forecast_coef * self._forecast_error(batch)

    def custom_metrics(self, batch):
        return {"forecast": self._forecast_error(batch)}

    def _forecast_error(self, batch):
        change = batch["next_observations"] - batch["observations"]
        return ops.mean(ops.square(batch["outputs"]["forecast"] - change))

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "forecast_coef": self.forecast_coef,
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=50_000)
    steps = parser.parse_args().steps
    agent = kerasrl.DQN(policy=ForecastingQ(), updates_per_call=32, seed=0)
    history = agent.fit("CartPole-v1", steps=steps, verbose=0).history
    print("forecast error:", history["forecast"][0], "->", history["forecast"][-1])
    print(agent.evaluate("CartPole-v1", episodes=20))


if __name__ == "__main__":
    main()
