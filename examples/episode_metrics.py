"""Log what happens inside episodes.

Run: python examples/episode_metrics.py --steps 20000
"""

import argparse

import kerasrl


class PoleAngle(kerasrl.callbacks.Callback):
    """Logs the mean and the largest absolute angle of the pole in each episode."""

    def on_episode_begin(self, episode):
        episode.user_data["angles"] = []

    def on_episode_step(self, episode):
        episode.user_data["angles"].append(abs(float(episode.observation[2])))

    def on_episode_end(self, episode):
        angles = episode.user_data["angles"]
        episode.custom_metrics["pole_angle"] = sum(angles) / len(angles)
        episode.custom_metrics["pole_angle_largest"] = max(angles)


def main():
    """Trains on CartPole-v1 and prints the metrics of every epoch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    args = parser.parse_args()
    agent = kerasrl.PPO(seed=0)
    history = agent.fit(
        "CartPole-v1", steps=args.steps, callbacks=[PoleAngle()], verbose=0
    ).history
    for epoch, (mean, largest) in enumerate(
        zip(history["pole_angle_mean"], history["pole_angle_largest_max"], strict=True),
        start=1,
    ):
        print(f"epoch {epoch}: mean angle {mean:.3f} rad, largest {largest:.3f} rad")


if __name__ == "__main__":
    main()
