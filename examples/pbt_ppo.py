"""Train a population of PPO agents from learning rates that are all bad.

Whoever is behind takes over the weights, the optimizer and the settings of somebody who
is ahead, and tries a learning rate near to theirs. Each trial is a process of its own.

Run: python examples/pbt_ppo.py --steps 150000
"""

import argparse

from kerasrl.tuning import (
    PopulationBasedTraining,
    grid_search,
    loguniform,
    run_experiments,
)


def main():
    """Trains the population and prints who learnt from whom."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=150_000)
    parser.add_argument(
        "--learning-rates", type=float, nargs="+", default=[1e-6, 1e-5, 0.1, 0.3]
    )
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--directory", default="pbt")
    arguments = parser.parse_args()
    # Some twenty comparisons, of whole epochs.
    steps_per_epoch = max(1_024, arguments.steps // 20)
    results = run_experiments(
        {
            "run": "PPO",
            "env": "CartPole-v1",
            "stop": {"env_steps": arguments.steps, "episode_return_mean": 475},
            "steps": arguments.steps,
            "config": {
                "learning_rate": grid_search(arguments.learning_rates),
                "steps_per_epoch": steps_per_epoch,
            },
        },
        slots=arguments.slots,
        directory=arguments.directory,
        scheduler=PopulationBasedTraining(
            {"learning_rate": loguniform(1e-6, 0.3)},
            interval=steps_per_epoch,
            quantile_fraction=0.5,
            factors=(3.0, 1 / 3),
        ),
    )
    for trial in results.trials:
        rates = [each["settings_before"]["learning_rate"] for each in trial.lineage]
        rates.append(trial.settings["learning_rate"])
        path = " -> ".join(f"{rate:.2g}" for rate in rates)
        value = trial.result.get("episode_return_mean") or float("nan")
        print(f"{trial.name}: return {value:.0f}, learning rates {path}")
    best = results.best()
    print(f"The best is in {best.checkpoint}")


if __name__ == "__main__":
    main()
