"""Write an algorithm of your own: override one method.

Run: python examples/custom_algorithm.py --steps 100000
"""

import argparse

import keras

import kerasrl
from kerasrl.losses import policy_gradient, standardize


@keras.saving.register_keras_serializable("examples")
class VanillaPolicyGradient(kerasrl.OnPolicyAgent):
    """REINFORCE: raise the probability of actions that were followed by more reward."""

    def loss(self, batch, outputs, settings):
        log_probs = self.policy.distribution(outputs).log_prob(batch["actions"])
        weights = standardize(batch["returns"], batch["mask"])
        return policy_gradient(log_probs, weights, batch["mask"])


def main():
    """Trains on CartPole-v1 and prints the evaluation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000)
    args = parser.parse_args()
    agent = VanillaPolicyGradient(rollout_length=256, max_grad_norm=0.5, seed=0)
    agent.compile(keras.optimizers.Adam(1e-2))
    agent.fit("CartPole-v1", steps=args.steps, verbose=2)
    print(agent.evaluate("CartPole-v1", seed=0))


if __name__ == "__main__":
    main()
