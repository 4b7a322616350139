"""What populations and searches find, against settings that stay as they are.

Run: python benchmarks/tuning.py [toy ppo optuna] [--slots 2]
"""

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from pathlib import Path

from kerasrl.tuning import (
    OptunaSearch,
    PopulationBasedTraining,
    grid_search,
    loguniform,
    run_experiments,
)

RESULTS = Path(__file__).parent / "results"
#: Of the toy: reports that a trial makes, and rounds between two of them.
REPORTS, ROUNDS = 20, 10
#: Learning rates that are all too low or too high for PPO on CartPole.
BAD_RATES = [1e-6, 1e-5, 0.1, 0.3]
#: CartPole counts as solved at this mean return of 100 episodes.
SOLVED = 475
PPO_STEPS, PPO_INTERVAL = 163_840, 10_240
#: Settings that Optuna tries, and environment steps of each.
TRIALS, TRIAL_STEPS = 20, 20_480
#: How much better what it found must be than the worst tenth of what it tried.
MARGIN = 50


def main():
    """Runs what was asked for, and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", help=f"Of {', '.join(RUNS)}. Default: all.")
    parser.add_argument("--slots", type=int, default=2)
    arguments = parser.parse_args()
    for name in arguments.runs:
        if name not in RUNS:
            parser.error(f"There is no run {name!r}. Expected: {', '.join(RUNS)}")
    found = read()
    for name in arguments.runs or RUNS:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as directory:
            row = RUNS[name](Path(directory), arguments.slots)
        row["seconds"] = round(time.perf_counter() - start)
        found[name] = row
        print(json.dumps({name: row}, indent=2), flush=True)
        write(found)


def follow(context):
    """A level that rises where `aim` is near to an optimum, which moves from 1 to 8."""
    state = {"env_steps": 0, "level": 0.0}
    if context.checkpoint is not None:
        state = json.loads(context.checkpoint.read_text())
    while state["env_steps"] < REPORTS * ROUNDS:
        for _ in range(ROUNDS):
            state["level"] += gain(context.settings["aim"], state["env_steps"])
            state["env_steps"] += 1
        path = context.directory / f"state-{state['env_steps']}.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(state))
        os.replace(temporary, path)
        context.report(state, checkpoint=path)


def gain(aim, env_steps):
    """What one round adds, 1 at most."""
    optimum = 8 ** (env_steps / (REPORTS * ROUNDS))
    return math.exp(-((math.log(aim / optimum) / 0.3) ** 2) / 2)


def toy(directory, slots):
    """A population on the toy, against every aim that stays as it is."""
    results = run_experiments(
        {
            "toy": {
                "run": follow,
                "config": {
                    "aim": grid_search([10 ** (-1 + 3 * x / 7) for x in range(8)])
                },
            }
        },
        slots=slots,
        directory=directory,
        scheduler=PopulationBasedTraining(
            {"aim": loguniform(0.1, 100.0)},
            interval=ROUNDS,
            metric="level",
            synchronous=True,
        ),
        metric="level",
        progress="lines",
    )
    steps = range(REPORTS * ROUNDS)
    fixed = max(
        sum(gain(10 ** (-1 + 3 * x / 999), step) for step in steps) for x in range(1000)
    )
    best = results.best().result["level"]
    return {
        "what": "level of the toy, of 200",
        "population": round(best, 1),
        "best fixed": round(fixed, 1),
        "passed": best > 1.5 * fixed,
    }


def ppo_experiment(rates, steps):
    """PPO on CartPole with learning rates, as `config` has them."""
    return {
        "ppo": {
            "run": "PPO",
            "env": "CartPole-v1",
            "stop": {"env_steps": steps, "episode_return_mean": SOLVED},
            "steps": steps,
            "config": {
                "learning_rate": rates,
                "num_envs": 8,
                "steps_per_epoch": PPO_INTERVAL // 2,
            },
        }
    }


def ppo(directory, slots):
    """A population of PPO from bad learning rates, against each of them alone."""
    experiment = ppo_experiment(grid_search(BAD_RATES), PPO_STEPS)
    alone = run_experiments(
        experiment, slots=slots, directory=directory / "alone", progress="lines"
    )
    together = run_experiments(
        experiment,
        slots=slots,
        directory=directory / "population",
        scheduler=PopulationBasedTraining(
            {"learning_rate": loguniform(1e-6, 0.3)},
            interval=PPO_INTERVAL,
            quantile_fraction=0.5,
            factors=(3.0, 1 / 3),
            # An interval takes a second, and a process several to start: who did well
            # would have ended before others could learn from it.
            synchronous=True,
        ),
        progress="lines",
    )
    fixed = {
        f"{trial.settings['learning_rate']:g}": round(highest(trial), 1)
        for trial in alone.trials
    }
    winner = max(together.trials, key=highest)
    return {
        "what": "episode_return_mean of PPO on CartPole-v1",
        "population": round(highest(winner), 1),
        "env_steps": winner.result["env_steps"],
        "rates of the best": [
            *(round_to(x["settings_before"]["learning_rate"]) for x in winner.lineage),
            round_to(winner.settings["learning_rate"]),
        ],
        "fixed": fixed,
        "best fixed": max(fixed.values()),
        "exploits": sum(len(trial.lineage) for trial in together.trials),
        "passed": highest(winner) >= SOLVED > max(fixed.values()),
    }


def optuna(directory, slots):
    """Learning rates that Optuna tries; best and worst again, with new seeds."""
    search = OptunaSearch(
        {"learning_rate": loguniform(1e-6, 1.0)},
        num_trials=TRIALS,
        report_every=TRIAL_STEPS // 4,
    )
    experiment = ppo_experiment(None, TRIAL_STEPS)["ppo"]
    experiment["config"] |= {"steps_per_epoch": TRIAL_STEPS // 4}
    del experiment["config"]["learning_rate"], experiment["stop"]["episode_return_mean"]
    tried = run_experiments(
        {"search": experiment},
        slots=slots,
        directory=directory / "search",
        search=search,
        progress="lines",
    ).trials
    tried = sorted(tried, key=final)
    worst = [x.settings["learning_rate"] for x in tried[: math.ceil(TRIALS / 10)]]
    best = search.study.best_params["learning_rate"]
    experiment["config"]["learning_rate"] = grid_search([best, *worst])
    again = run_experiments(
        {"again": experiment},
        slots=slots,
        directory=directory / "again",
        seeds=[11, 12, 13],
        progress="lines",
    )
    returns = {
        rate: statistics.fmean(
            final(x) for x in again.trials if x.settings["learning_rate"] == rate
        )
        for rate in (best, *worst)
    }
    low = statistics.fmean(returns[rate] for rate in worst)
    return {
        "what": f"episode_return_mean of PPO on CartPole-v1 after {TRIAL_STEPS} steps",
        "best rate": round_to(best),
        "worst rates": [round_to(rate) for rate in worst],
        "found": round(returns[best], 1),
        "worst decile": round(low, 1),
        "margin": MARGIN,
        "stopped early": sum(x.status == "stopped" for x in tried),
        "passed": returns[best] - low >= MARGIN,
    }


RUNS = {"toy": toy, "ppo": ppo, "optuna": optuna}


def highest(trial):
    """The highest mean return of a trial's epochs."""
    values = (row.get("episode_return_mean") for row in trial.results)
    return max((each for each in values if each is not None), default=-math.inf)


def final(trial):
    """The latest mean return of a trial; no number is the worst."""
    value = trial.result.get("episode_return_mean")
    return -math.inf if value is None else value


def round_to(value):
    """A number with two digits that count."""
    return float(f"{value:.2g}")


def read():
    """The rows that were published."""
    path = RESULTS / "tuning.json"
    return json.loads(path.read_text()) if path.exists() else {}


def write(found):
    """Writes the rows, and the table of them."""
    lines = [
        "| run | what is compared | found | without | passed | seconds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in RUNS:
        row = found.get(name)
        if row is None:
            continue
        value = row.get("population", row.get("found"))
        other = row.get("best fixed", row.get("worst decile"))
        lines.append(
            f"| {name} | {row['what']} | {value} | {other} | "
            f"{'yes' if row['passed'] else 'no'} | {row['seconds']} |"
        )
    text = json.dumps({x: found[x] for x in RUNS if x in found}, indent=2) + "\n"
    for name, content in (("json", text), ("md", "\n".join(lines) + "\n")):
        path = RESULTS / f"tuning.{name}"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(content)
        os.replace(temporary, path)


if __name__ == "__main__":
    main()
