"""Give a policy of your own an extra loss and metrics.

The policy predicts, besides action and value, the next observation from the present
one and the action. The error of that prediction is added to the loss of the algorithm
(`custom_loss`) and logged: as a plain scalar (`custom_metrics`) and with a Keras
metric.

Run: python examples/custom_policy.py --steps 50000
"""

import argparse

import keras
from keras import ops

import kerasrl
from kerasrl.losses import masked_mean


@keras.saving.register_keras_serializable("examples")
class PredictivePolicy(kerasrl.models.Policy):
    """Actor-critic that also learns to predict what happens next."""

    def __init__(self, units=64, prediction_coef=0.1, **kwargs):
        super().__init__(**kwargs)
        self.prediction_coef = prediction_coef
        self.hidden = keras.layers.Dense(units, activation="tanh")
        self.value = keras.layers.Dense(1)
        self.error = keras.metrics.Mean(name="prediction_error_epoch")

    def setup(self, observation_space, action_space):
        super().setup(observation_space, action_space)
        self.head = keras.layers.Dense(self.num_parameters)
        self.prediction = keras.layers.Dense(
            int(action_space.n) * observation_space.shape[0]
        )

    def call(self, inputs, state=None, training=False):
        features = self.hidden(inputs["observations"])
        return {
            "distribution": self.head(features),
            "values": ops.squeeze(self.value(features), -1),
            "prediction": self.prediction(features),
        }

    def prediction_error(self, batch):
        """Mean squared error of the change of the observation, per sample."""
        size = self.observation_space.shape[0]
        prediction = ops.reshape(batch["outputs"]["prediction"], (-1, size))
        num_actions = int(self.action_space.n)
        rows = ops.arange(ops.shape(batch["actions"])[0]) * num_actions
        chosen = ops.take(prediction, rows + ops.cast(batch["actions"], "int32"), 0)
        change = batch["next_observations"] - batch["observations"]
        # At the end of an episode the next observation belongs to another one.
        ends = ops.logical_or(batch["terminated"], batch["truncated"])
        error = ops.mean(ops.square(chosen - change), axis=-1)
        return ops.where(ends, 0.0, error)

    def custom_loss(self, loss, batch):
        error = self.prediction_error(batch)
        self.error.update_state(error)
        return loss + self.prediction_coef * masked_mean(error, batch["mask"])

    def custom_metrics(self, batch):
        error = self.prediction_error(batch)
        return {"prediction_error": masked_mean(error, batch["mask"])}


@keras.saving.register_keras_serializable("examples")
class PredictivePPO(kerasrl.PPO):
    """PPO that hands the next observations to the policy's losses."""

    def targets(self, rollout):
        following = rollout["next_inputs"]["observations"][None]
        observations = ops.concatenate([rollout["observations"][1:], following])
        return {**super().targets(rollout), "next_observations": observations}


def main():
    """Trains on CartPole-v1 and prints the last value of each metric."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    keras.utils.set_random_seed(args.seed)
    agent = PredictivePPO(policy=PredictivePolicy(), seed=args.seed)
    history = agent.fit("CartPole-v1", steps=args.steps, verbose=2).history
    print({name: values[-1] for name, values in history.items()})


if __name__ == "__main__":
    main()
