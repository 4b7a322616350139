"""Train DQN on an Atari game (extra `atari`).

The games are stepped together by threads of the emulator, frames are stored once, and
what is logged are the scores of whole games.

Run: python examples/atari.py --game Pong --steps 1000000
"""

import argparse

import kerasrl


def main():
    """Trains by DeepMind's protocol and prints the mean score of the last games."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--game", default="Pong")
    parser.add_argument("--preset", choices=["deepmind", "machado"], default="deepmind")
    parser.add_argument("--steps", type=int, default=1_000_000)
    args = parser.parse_args()
    agent = kerasrl.DQN(
        batch_size=32,
        # Of the paper, but for a replay that fits in 1 GB.
        buffer_size=100_000,
        learning_starts=min(20_000, args.steps - 100),
        target_update_interval=10_000,
        seed=0,
    )
    agent.compile(kerasrl.optimizers.Adam(1e-4))
    history = agent.fit(
        f"ALE/{args.game}-v5",
        steps=args.steps,
        num_envs=8,
        env_config={"preset": args.preset},
        verbose=2,
    ).history
    print(f"Mean score: {history['episode_return_mean'][-1]}")


if __name__ == "__main__":
    main()
