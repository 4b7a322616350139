"""Write episodes while training, read them back, and learn from them.

PPO trains on CartPole-v1 and writes its episodes. The best of them teach a plain Keras
model what to do, by nothing but `model.fit`.
"""

import argparse
import tempfile

import keras

import kerasrl


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--updates", type=int, default=500)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory:
        agent = kerasrl.PPO(seed=0)
        agent.fit("CartPole-v1", steps=options.steps, output=directory)
        dataset = kerasrl.offline.load(directory)
        found = dataset.statistics()
        print(f"{dataset}: return {found['return_mean']:.1f}")

        limit = sorted(x.episode_return for x in dataset.episodes)[-10]
        best = dataset.filter(lambda episode: episode.episode_return >= limit)
        model = keras.Sequential(
            [
                keras.Input(dataset.observation_space.shape),
                keras.layers.Dense(64, activation="tanh"),
                keras.layers.Dense(int(dataset.action_space.n)),
            ]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
        batches = best.as_tf_dataset(64, seed=0)
        pairs = batches.map(lambda batch: (batch["observations"], batch["actions"]))
        # Readers shuffle already.
        model.fit(pairs, steps_per_epoch=options.updates, shuffle=False, verbose=2)

    def act(observations):
        return model.predict_on_batch(observations).argmax(axis=-1)

    result = kerasrl.evaluate(act, "CartPole-v1", episodes=10, seed=0)
    print(f"What the model does: return {result['return_mean']:.1f}")


if __name__ == "__main__":
    main()
