"""Learn features by self-supervision, besides rewards.

The trunk of the policy is trained by PPO and, in the same gradient steps, as an encoder
whose code must tell the observation again (an autoencoder), with an L2 penalty on the
code. No recorded data and no labels are needed: observations are their own.

Run: python examples/self_supervised.py --steps 50000
"""

import argparse

import keras
from keras import ops

import kerasrl
from kerasrl.losses import masked_mean


@keras.saving.register_keras_serializable("examples")
class Autoencoding(kerasrl.models.Policy):
    """Actor and critic on a code from which the observation can be told."""

    def __init__(self, code_size=32, autoencoder_coef=1.0, l2=1e-4, **kwargs):
        super().__init__(**kwargs)
        self.code_size = code_size
        self.autoencoder_coef = autoencoder_coef
        self.l2 = l2
        self.encoder = keras.Sequential(
            [
                keras.layers.Dense(64, activation="tanh"),
                keras.layers.Dense(code_size, activation="tanh"),
            ]
        )
        self.value = keras.layers.Dense(1)

    def setup(self, observation_space, action_space):
        super().setup(observation_space, action_space)
        self.head = keras.layers.Dense(self.num_parameters)
        self.decoder = keras.Sequential(
            [
                keras.layers.Dense(64, activation="tanh"),
                keras.layers.Dense(observation_space.shape[0]),
            ]
        )

    def call(self, inputs, state=None, training=False):
        code = self.encoder(inputs["observations"])
        return {
            "distribution": self.head(code),
            "values": ops.squeeze(self.value(code), -1),
            "code": code,
            "decoded": self.decoder(code),
        }

    def autoencoder_loss(self, batch):
        """Mean squared error of the decoded observations."""
        error = ops.square(batch["outputs"]["decoded"] - batch["observations"])
        return masked_mean(ops.mean(error, axis=-1), batch["mask"])

    def custom_loss(self, loss, batch):
        squares = ops.sum(ops.square(batch["outputs"]["code"]), axis=-1)
        penalty = self.l2 * masked_mean(squares, batch["mask"])
        return loss + self.autoencoder_coef * self.autoencoder_loss(batch) + penalty

    def custom_metrics(self, batch):
        return {"autoencoder_loss": self.autoencoder_loss(batch)}

    def get_config(self):
        own = ("code_size", "autoencoder_coef", "l2")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


def main():
    """Trains, and prints how both losses and the return went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50_000)
    arguments = parser.parse_args()
    agent = kerasrl.PPO(policy=Autoencoding(), seed=0)
    history = agent.fit("CartPole-v1", arguments.steps, verbose=0).history
    errors = history["autoencoder_loss"]
    print(f"Error of the autoencoder: {errors[0]:.3f}, at last {errors[-1]:.4f}.")
    result = agent.evaluate("CartPole-v1", episodes=10, seed=0, verbose=0)
    print(f"The pole stands for {result['length_mean']:.0f} steps.")


if __name__ == "__main__":
    main()
