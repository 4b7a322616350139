"""Try some learning rates with some seeds, several trainings at once.

Each trial is a process with a directory of its own. Run it again, and it skips what has
finished; kill it, and the next run goes on from the last checkpoints.

Run: python examples/sweep.py --steps 30000
"""

import argparse

from kerasrl.tuning import grid_search, run_experiments


def main():
    """Trains, then prints how the settings compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--directory", default="sweep")
    arguments = parser.parse_args()
    results = run_experiments(
        {
            "run": "PPO",
            "env": "CartPole-v1",
            "stop": {"env_steps": arguments.steps},
            "config": {"learning_rate": grid_search([3e-4, 3e-3])},
        },
        seeds=2,
        slots=2,
        directory=arguments.directory,
        progress="lines",
    )
    for row in results.compare():
        print(
            f"{row['setting']}: return {row['mean']:.1f} +- {row['half_width']:.1f} "
            f"over {row['seeds']} seeds"
        )
    print(f"Best: {results.best().directory}")


if __name__ == "__main__":
    main()
