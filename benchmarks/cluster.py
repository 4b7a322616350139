"""Workers on the nodes of a Ray cluster: learning, lost nodes, cost, Ray Tune.

    python benchmarks/cluster.py [PART ...] [--seed 0]

The cluster is one of this machine with two nodes of two processors each
(`ray.cluster_utils.Cluster`), which share the processors that there are. Needs the
extra `ray`: `pip install -e ".[ray]"`.

- `ppo`, `impala` and `es` train with the settings of `ppo-cartpole`, `impala-cartpole`
  and `es-cartpole` of `learning.py` and two workers: in processes of this machine, on
  two nodes, and on two nodes of which that of a worker is removed when half of the
  steps are done. All must reach the same gates.
- `overhead` measures what a step of environments that do nothing costs, and what a
  rollout does, with local workers and in the cluster, in turn; each number is the best
  of all rounds.
- `tune` has Ray Tune sweep learning rates of PPO, and has Ray's own population based
  training begin with learning rates that learn nothing.

Each part runs in a process of its own. Results go to `benchmarks/results/cluster.json`
and `.md`; parts that are not named keep their last results there.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import learning
import numpy as np

RESULTS = Path(__file__).parent / "results" / "cluster"
LEARNING = {
    "ppo": "ppo-cartpole",
    "impala": "impala-cartpole",
    "es": "es-cartpole",
}
PARTS = (*LEARNING, "overhead", "tune")
KINDS = ("local", "ray", "node lost")
NUM_ENVS, LENGTH = 8, 128
#: Steps of each trial of Ray Tune, and of one result of it.
TRIAL_STEPS, RESULT_STEPS = 40_000, 4_000
#: Learning rates that PPO learns nothing with: too small, too large.
BAD_RATES = (1e-6, 3e-6, 1e-5, 0.3)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--only", choices=KINDS, help="one of the ways to train")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    parts = arguments.parts or PARTS
    for part in parts:
        if part not in PARTS:
            parser.error(f"unknown {part!r}; expected one of {', '.join(PARTS)}")
    if arguments.worker:
        print(json.dumps(measure(parts[0], arguments)))
        return
    path = RESULTS.with_suffix(".json")
    for part in parts:
        found = run(part, arguments)
        # Others may have written meanwhile.
        report = json.loads(path.read_text()) if path.exists() else {}
        report[part] = {**report.get(part, {}), **found} if part in LEARNING else found
        path.write_text(json.dumps(report, indent=2) + "\n")
        RESULTS.with_suffix(".md").write_text(markdown(report) + "\n")
    print(markdown({part: report[part] for part in parts}))
    if not all(passed(report[part]) for part in parts if part in LEARNING):
        sys.exit(1)


def run(part, arguments):
    """Runs a part in a process of its own; of learning, each way to train."""
    if part not in LEARNING:
        return start(part, arguments)
    kinds = [arguments.only] if arguments.only else KINDS
    return {kind: start(part, arguments, "--only", kind) for kind in kinds}


def start(part, arguments, *others):
    command = [sys.executable, __file__, part, "--worker", *others]
    for name in ("seed", "rounds", "seconds"):
        command += [f"--{name}", str(getattr(arguments, name))]
    environment = {
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # As local workers: Ray would have its own give way to all other programs.
        "RAY_worker_niceness": "0",
        **os.environ,
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command}:\n{done.stdout[-3000:]}{done.stderr[-6000:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    print(part, *others, result, file=sys.stderr)
    return result


def persistently(start):
    """Starts a node, for which Ray waits 30 seconds, as often as a busy machine needs.

    Args:
        start: Function.

    Returns:
        What it returned.
    """
    for _ in range(4):
        with contextlib.suppress(Exception):
            return start()
    return start()


@contextlib.contextmanager
def two_nodes():
    """A cluster of two nodes that this process has joined.

    Yields:
        The `ray.cluster_utils.Cluster`.
    """
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 2, "object_store_memory": 200 * 2**20}
    cluster = persistently(
        lambda: Cluster(
            initialize_head=True, head_node_args={**node, "include_dashboard": False}
        )
    )
    try:
        persistently(lambda: cluster.add_node(**node))
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def measure(part, arguments):
    """What a part finds, in this process."""
    if part == "overhead":
        with two_nodes():
            return overhead(arguments)
    if part == "tune":
        with two_nodes():
            return {"sweep": sweep(arguments.seed), "pbt": population(arguments.seed)}
    experiment = learning.EXPERIMENTS[LEARNING[part]]
    changes = {**experiment.changes, "num_workers": 2}
    experiment = dataclasses.replace(experiment, changes=changes)
    if arguments.only == "local":
        return train(experiment, arguments.seed)
    with two_nodes() as cluster:
        lost = cluster if arguments.only == "node lost" else None
        return train(experiment, arguments.seed, "ray", lost)


# Learning ------------------------------------------------------------------------


def train(experiment, seed, workers=None, lost=None):
    """Trains, and evaluates.

    Args:
        experiment: `learning.Experiment`.
        seed: Integer.
        workers: As `cluster` of `fit`.
        lost: A cluster of which the node of a worker is removed in the middle.

    Returns:
        Dict of what came of it.
    """
    import kerasrl

    class Removal(kerasrl.callbacks.Callback):
        """Removes the node of a worker that is not the head, at half of the steps."""

        seconds = None

        def on_train_batch_begin(self, batch, logs=None):
            if lost is None or self.seconds is not None:
                return
            if self.agent.env_steps >= experiment.steps / 2:
                began = time.monotonic()
                lost.remove_node(next(iter(lost.worker_nodes)), False)
                self.seconds = time.monotonic() - began

        def on_train_batch_end(self, batch, logs=None):
            self.generations = self.agent.workers.generations

    removal = Removal()
    agent = experiment.tuned.make_agent(seed)
    began = time.monotonic()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        history = agent.fit(
            experiment.env,
            steps=experiment.steps,
            num_envs=experiment.num_envs,
            num_workers=experiment.num_workers,
            cluster=workers,
            callbacks=[removal],
            verbose=0,
        )
    seconds = time.monotonic() - began
    history = history.history
    found = {
        "final": learning.evaluate(agent, experiment, seed),
        "gate": experiment.gate,
        "steps": int(agent.env_steps),
        "seconds": seconds,
        "steps_per_second": statistics.median(history["steps_per_second"]),
        "replaced": sum(removal.generations),
        "warnings": [str(w.message) for w in caught if "Worker" in str(w.message)],
    }
    for name in ("policy_lag_mean", "discarded_share"):
        if name in history:
            found[name] = float(np.nanmean(history[name]))
    return found


# Cost ----------------------------------------------------------------------------


def overhead(arguments):
    """Microseconds of a step, of a rollout, and of learning, here and there."""
    import workers

    from kerasrl.workers import make_collector, make_environments

    actor = workers.make_actor()
    actions = np.zeros(NUM_ENVS, int)

    def steps(cluster):
        with make_environments(
            workers.Nothing, NUM_ENVS, num_workers=2, cluster=cluster
        ) as envs:
            envs.reset()
            return workers.per_second(lambda: envs.step(actions), arguments.seconds)

    def rollouts(env, mode, cluster):
        with make_environments(
            env, NUM_ENVS, num_workers=2, worker_mode=mode, cluster=cluster
        ) as envs:
            generators = [np.random.default_rng(index) for index in range(NUM_ENVS)]
            collector = make_collector(envs, actor, LENGTH, generators)
            if mode == "asynchronous":
                collector.publish(0)
            collector.reset(list(range(NUM_ENVS)))
            return workers.per_second(collector.collect, arguments.seconds)

    measured = {
        "a step of 8 environments that do nothing": lambda c: steps(c),
        "a rollout of 128 steps of 8 that do nothing": lambda c: rollouts(
            workers.Nothing, "act", c
        ),
        "a rollout of 128 steps of 8 CartPoles": lambda c: rollouts(
            "CartPole-v1", "act", c
        ),
        "a fragment of 128 steps of 4 CartPoles, asynchronously": lambda c: rollouts(
            "CartPole-v1", "asynchronous", c
        ),
    }
    best = {name: {"local": 0.0, "ray": 0.0} for name in measured}
    for _ in range(arguments.rounds):
        for name, function in measured.items():
            for kind, cluster in (("local", None), ("ray", "ray")):
                best[name][kind] = max(best[name][kind], function(cluster))
    return {
        name: {kind: 1e6 / value for kind, value in kinds.items()}
        for name, kinds in best.items()
    }


# Ray Tune ------------------------------------------------------------------------


def tune_with(space, options, seed, checkpoints=False):
    """Runs Ray Tune with trials of PPO on CartPole.

    Returns:
        Tuple of what `fit` returned and its directory, which is gone afterwards.
    """
    from ray import tune

    import kerasrl

    config = kerasrl.tuned("PPO", "CartPole-v1").config
    # Its schedules are those of a longer training.
    scheduled = ("learning_rate", "clip_ratio")
    settings = {name: x for name, x in config.items() if name not in scheduled}
    with tempfile.TemporaryDirectory() as directory:
        results = tune.Tuner(
            kerasrl.tuning.Trainable,
            param_space={
                "run": "PPO",
                "env": "CartPole-v1",
                "steps_per_iteration": RESULT_STEPS,
                "seed": seed,
                **settings,
                **space,
            },
            tune_config=tune.TuneConfig(
                metric="episode_return_mean", mode="max", **options
            ),
            run_config=tune.RunConfig(
                name="cluster",
                storage_path=directory,
                stop={"env_steps": TRIAL_STEPS},
                verbose=0,
            ),
        ).fit()
        # One line for each time that a trial took over another.
        logged = Path(directory, "cluster", "pbt_global.txt")
        exploits = logged.read_text().splitlines() if logged.exists() else []
    return results, exploits


def sweep(seed):
    """Learning rates from a distribution, some good, some bad."""
    from ray import tune

    results, _ = tune_with(
        {"learning_rate": tune.loguniform(1e-5, 1e-2)},
        {"num_samples": 4, "max_concurrent_trials": 2},
        seed,
    )
    return {
        "errors": len(results.errors),
        "trials": sorted(
            (each.config["learning_rate"], each.metrics["episode_return_mean"])
            for each in results
        ),
    }


def population(seed):
    """Ray's own population based training, from learning rates that learn nothing."""
    from ray import tune
    from ray.tune.schedulers import PopulationBasedTraining

    scheduler = PopulationBasedTraining(
        time_attr="env_steps",
        perturbation_interval=2 * RESULT_STEPS,
        hyperparam_mutations={"learning_rate": tune.loguniform(1e-4, 1e-2)},
        quantile_fraction=0.5,
        resample_probability=0.5,
    )
    results, exploits = tune_with(
        {"learning_rate": tune.grid_search(list(BAD_RATES))},
        {"scheduler": scheduler, "max_concurrent_trials": 2},
        seed,
    )
    return {
        "errors": len(results.errors),
        "exploits": len(exploits),
        "trials": sorted(
            (each.config["learning_rate"], each.metrics["episode_return_mean"])
            for each in results
        ),
    }


# Report --------------------------------------------------------------------------


def passed(kinds):
    """Whether all ways to train reached the gate, and lost nodes were made up for."""
    return all(
        found["final"] >= found["gate"] and (kind != "node lost" or found["replaced"])
        for kind, found in kinds.items()
    )


def markdown(report):
    """The tables of a report."""
    lines = []
    parts = [part for part in LEARNING if part in report]
    if parts:
        lines += [
            f"{os.cpu_count()} processors, shared with other programs; one seed each.",
            "",
            "| | workers | return over unseen episodes | gate | steps/s | seconds | "
            "replaced |",
            "|---|---|---:|---:|---:|---:|---:|",
        ]
    for part in parts:
        for kind, found in report[part].items():
            lines.append(
                f"| {LEARNING[part]} | {kind} | {found['final']:.1f} | "
                f"{found['gate']} | {found['steps_per_second']:,.0f} | "
                f"{found['seconds']:.0f} | {found['replaced']} |"
            )
    if "overhead" in report:
        lines += [
            "",
            "| microseconds of | local | Ray | Ray adds |",
            "|---|---:|---:|---:|",
        ]
        for name, kinds in report["overhead"].items():
            added = kinds["ray"] - kinds["local"]
            lines.append(
                f"| {name} | {kinds['local']:,.0f} | {kinds['ray']:,.0f} | "
                f"{added:,.0f} |"
            )
    for name, title in (("sweep", "a sweep"), ("pbt", "its PBT")):
        if "tune" in report:
            found = report["tune"][name]
            lines += [
                "",
                f"| Ray Tune, {title}: learning rate at the end | return |",
                "|---|---:|",
                *(f"| {rate:.2g} | {value:.1f} |" for rate, value in found["trials"]),
            ]
            if "exploits" in found:
                lines += [
                    "",
                    f"{found['exploits']} times a trial went on from another's "
                    f"checkpoint; all began with one of {list(BAD_RATES)}.",
                ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
