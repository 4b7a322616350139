"""Pre-train a policy with plain Keras on recorded data, then go on with PPO.

A trunk and a head learn by `model.fit` to tell the actions of somebody who balances a
pole, with nothing of reinforcement learning. The trunk becomes that of a policy, the
weights of the head those of its own, and PPO goes on from there.

Run: python examples/pretraining.py --steps 20000
"""

import argparse
import tempfile

import keras

import kerasrl


def balance(observations):
    """Pushes towards where the pole falls."""
    _, velocity, angle, turning = observations.T
    return (angle + 0.3 * turning + 0.02 * velocity > 0.0).astype(int)


def pretrain(dataset, num_updates):
    """Returns a trunk and a head that imitate a dataset, trained by Keras alone."""
    trunk = keras.Sequential(
        [
            keras.Input(dataset.observation_space.shape),
            keras.layers.Dense(64, activation="tanh"),
            keras.layers.Dense(64, activation="tanh"),
        ]
    )
    head = keras.layers.Dense(int(dataset.action_space.n))
    model = keras.Sequential([trunk, head])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    batches = dataset.as_tf_dataset(128, seed=0)
    pairs = batches.map(lambda batch: (batch["observations"], batch["actions"]))
    # Readers shuffle already.
    model.fit(pairs, steps_per_epoch=num_updates, shuffle=False, verbose=2)
    return trunk, head


def main():
    """Trains both ways, and prints how long the pole stands before and after."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--updates", type=int, default=1_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        dataset = kerasrl.offline.collect(
            balance, "CartPole-v1", directory, episodes=8, seed=0
        )
        trunk, head = pretrain(dataset, arguments.updates)
    agent = kerasrl.PPO(policy=trunk, seed=0)
    agent.build(dataset.observation_space, dataset.action_space)
    agent.policy.action_head.set_weights(head.get_weights())
    for when in ("Before", "After"):
        result = agent.evaluate("CartPole-v1", episodes=10, seed=0, verbose=0)
        print(f"{when} PPO the pole stands for {result['length_mean']:.0f} steps.")
        if when == "Before":
            agent.fit("CartPole-v1", arguments.steps, verbose=0)


if __name__ == "__main__":
    main()
