"""Mix a loss on recorded data into reinforcement learning.

PPO learns CartPole-v1, and its policy imitates a few episodes of somebody who balances:
in each gradient step `custom_loss` finds a batch of them beside PPO's own, in the same
compiled call. SAC has no need of a loss: half of each batch of its replay is recorded.

Run: python examples/imitation_loss.py --steps 20000
"""

import argparse
import tempfile

import keras

import kerasrl


@keras.saving.register_keras_serializable("examples")
class Imitating(kerasrl.models.ActorCritic):
    """Makes the actions of a dataset likely, besides what the algorithm wants."""

    def __init__(self, imitation_coef=10.0, **kwargs):
        super().__init__(**kwargs)
        self.imitation_coef = imitation_coef

    def imitation_loss(self, batch):
        """Minus the mean log-probability of the recorded actions."""
        recorded = batch["offline"]
        outputs = kerasrl.agents.forward(self, recorded)
        log_probs = self.distribution(outputs).log_prob(recorded["actions"])
        return -kerasrl.losses.masked_mean(log_probs, recorded["mask"])

    def custom_loss(self, loss, batch):
        return loss + self.imitation_coef * self.imitation_loss(batch)

    def custom_metrics(self, batch):
        return {"imitation_loss": self.imitation_loss(batch)}

    def get_config(self):
        return {**super().get_config(), "imitation_coef": self.imitation_coef}


def balance(observations):
    """Pushes towards where the pole falls."""
    _, velocity, angle, turning = observations.T
    return (angle + 0.3 * turning + 0.02 * velocity > 0.0).astype(int)


def main():
    """Trains both, and prints how long the pole stands."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        dataset = kerasrl.offline.collect(
            balance, "CartPole-v1", directory, episodes=4, seed=0
        )
        print(dataset)
        agents = {
            kerasrl.PPO(policy=Imitating(), seed=0): {"offline_batch_size": 64},
            kerasrl.SAC(learning_starts=500, seed=0): {"offline_ratio": 0.5},
        }
        for agent, how in agents.items():
            name = type(agent).__name__
            agent.fit("CartPole-v1", arguments.steps, offline=dataset, verbose=0, **how)
            result = agent.evaluate("CartPole-v1", episodes=10, seed=0, verbose=0)
            print(f"{name}: the pole stands for {result['length_mean']:.0f} steps.")


if __name__ == "__main__":
    main()
