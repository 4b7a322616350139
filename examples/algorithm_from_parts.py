"""Make algorithms of functions: PPO with some replaced, and one of a loss alone.

Run: python examples/algorithm_from_parts.py --steps 100000
"""

import argparse
import pathlib
import tempfile

import keras
from keras import ops

import kerasrl


def loss_with_decay(agent, batch, outputs, settings):
    """PPO's, and a term that keeps values small."""
    loss, metrics = kerasrl.PPO.loss(agent, batch, outputs, settings)
    size = ops.mean(ops.square(outputs["values"]))
    return loss + agent.value_decay * size, {**metrics, "value_size": size}


def bounded_gradients(agent, gradients, variables):
    """Bounds each number, before the norm of all is clipped."""
    return [ops.clip(gradient, -1.0, 1.0) for gradient in gradients]


def shrink_weights(agent, batch):
    """Decays the weights after each step, whatever the optimizer."""
    for variable in agent.policy.trainable_variables:
        variable.assign((1.0 - agent.weight_decay) * variable)


def share_of_ends(agent, batch, outputs, settings):
    """How often episodes ended in the batch."""
    ends = ops.logical_or(batch["terminated"], batch["truncated"])
    return {"share_of_ends": ops.mean(ops.cast(ends, "float32"))}


def reinforce(agent, batch, outputs, settings):
    """Raises the probability of actions that more reward followed."""
    log_probs = agent.policy.distribution(outputs).log_prob(batch["actions"])
    weights = kerasrl.losses.standardize(batch["returns"], batch["mask"])
    return kerasrl.losses.policy_gradient(log_probs, weights, batch["mask"])


DecayedPPO = kerasrl.PPO.with_updates(
    "DecayedPPO",
    loss=loss_with_decay,
    gradients=bounded_gradients,
    after_step=shrink_weights,
    metrics=share_of_ends,
    defaults={"gamma": 0.98, "value_decay": 1e-4, "weight_decay": 1e-6},
)
Reinforce = kerasrl.build_agent_class(
    "Reinforce", loss=reinforce, defaults={"rollout_length": 256, "max_grad_norm": 0.5}
)


def main():
    """Trains both on CartPole-v1; the first goes on from a checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    agent = DecayedPPO(value_decay=1e-3, seed=args.seed)
    agent.fit("CartPole-v1", steps=args.steps // 2, verbose=2)
    with tempfile.TemporaryDirectory() as directory:
        # By the names of the class and its functions, as there is no code in it.
        path = agent.save(pathlib.Path(directory) / "agent.kerasrl")
        agent = kerasrl.load(path)
    agent.fit("CartPole-v1", steps=args.steps // 2, verbose=2)
    print("DecayedPPO:", agent.evaluate("CartPole-v1", seed=0, verbose=0))

    agent = Reinforce(seed=args.seed)
    agent.compile(keras.optimizers.Adam(1e-2))
    agent.fit("CartPole-v1", steps=args.steps, verbose=2)
    print("Reinforce:", agent.evaluate("CartPole-v1", seed=0, verbose=0))


if __name__ == "__main__":
    main()
