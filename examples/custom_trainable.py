"""Have a training loop of one's own run as trials of an experiment.

The loop trains with `agent.iterate`, doubles the length of rollouts half way, and
reports with each result a checkpoint that it can go on from: when the launcher or the
trial was killed, and in a population.

Run: python examples/custom_trainable.py --steps 40000
"""

import argparse
import contextlib

from kerasrl.tuning import grid_search, run_experiments


def train(context):
    """One trial: a process calls this with its settings."""
    # Here, so that the launcher starts without TensorFlow.
    import kerasrl

    steps = context.settings["steps"]
    if context.checkpoint is None:
        agent = kerasrl.PPO(rollout_length=64, seed=context.seed)
        agent.compile(kerasrl.optimizers.Adam(context.settings["learning_rate"]))
    else:
        agent = kerasrl.load(context.checkpoint)
    while (left := steps - int(agent.env_steps)) > 0:
        if agent.env_steps >= steps / 2:
            agent.rollout_length = 128
        part = agent.iterate(context.env, steps=min(left, steps // 4), verbose=0)
        with contextlib.closing(part):
            for each in part:
                result = each
        path = context.directory / f"agent-{int(agent.env_steps)}.kerasrl"
        agent.save(path)
        context.report(
            {
                "env_steps": int(agent.env_steps),
                "episode_return_mean": result["episode_return_mean"],
                "rollout_length": agent.rollout_length,
            },
            checkpoint=path,
        )


def main():
    """Tries two learning rates and prints what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--directory", default="custom_trainable")
    arguments = parser.parse_args()
    results = run_experiments(
        {
            "run": train,
            "env": "CartPole-v1",
            "config": {
                "learning_rate": grid_search([3e-4, 3e-3]),
                "steps": arguments.steps,
            },
        },
        slots=arguments.slots,
        directory=arguments.directory,
    )
    for trial in results.trials:
        rate, result = trial.settings["learning_rate"], trial.result
        print(f"{rate:g}: return {result.get('episode_return_mean')}")
    print(f"Files of trials: {results.directory}")


if __name__ == "__main__":
    main()
