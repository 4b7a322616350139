"""A workflow without `fit`: batches that grow, a stage of one's own, a kept checkpoint.

Generators hand rollouts on. One of them is this program's: it makes batches larger when
episodes get longer, because a batch then has fewer of them. The loop decides when to
evaluate, what to keep and when to stop.

Run: python examples/workflow.py --steps 60000
"""

import argparse
import contextlib

import kerasrl
from kerasrl import execution


def growing(agent, rollouts, least, most):
    """Joins rollouts to batches that are the larger, the longer episodes are."""
    parts = []
    for rollout in rollouts:
        parts.append(rollout)
        mean = agent.statistics.logs()["episode_length_mean"]
        wanted = min(most, max(least, 4 * mean)) if mean == mean else least
        steps = sum(part.num_steps for part in parts)
        if steps >= wanted:
            yield from execution.concatenate(parts, min_steps=steps)
            parts = []


def main():
    """Trains until an evaluation reaches 450, and keeps the best agent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60_000)
    parser.add_argument("--workers", type=int, default=0)
    args = parser.parse_args()

    agent = kerasrl.PPO(rollout_length=32, num_epochs=4, seed=0)
    rollouts = execution.parallel_rollouts(
        agent, "CartPole-v1", args.steps, num_envs=8, num_workers=args.workers
    )
    results = execution.train_one_step(agent, growing(agent, rollouts, 256, 2048))
    best = 0.0
    with contextlib.closing(execution.report(agent, results, every=5_000)) as reports:
        for logs in reports:
            found = agent.evaluate("CartPole-v1", episodes=10, seed=1, verbose=0)
            print(
                f"{logs['env_steps']} steps, {logs['iterations']} iterations: "
                f"{found['return_mean']:.1f}"
            )
            if found["return_mean"] > best:
                best = found["return_mean"]
                agent.save("best.kerasrl")
            if best >= 450:
                break
    print(f"The best is kept in best.kerasrl: {best:.1f}")


if __name__ == "__main__":
    main()
