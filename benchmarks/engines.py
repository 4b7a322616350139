"""Learning under every way of using more than one process or device, and under faults.

    python benchmarks/engines.py [RUN ...] [--seeds 0 1 2]

PPO on CartPole-v1 and SAC on Pendulum-v1, with the settings of `ppo-cartpole` and
`sac-pendulum` of `learning.py`. Where there are several ranks, they share the
environments and the samples of each update, so that an update sees as much as there.
The policy at the end is evaluated deterministically over 100 episodes that training has
not seen.

- `workers`: 2 worker processes.
- `mirrored`: `tf.distribute.MirroredStrategy` of two devices of the CPU.
- `multiworker`: `tf.distribute.MultiWorkerMirroredStrategy` of two processes.
- `horovod`, `sac-horovod`: `horovodrun -np 2`.
- `kills`: 2 worker processes, of which one is killed (`kill -9`) at 20 random moments.
  Nothing may be lost but what they were collecting.
- `impala-kills`, `apex-kills`: the same with workers that act while the learner learns
  (experiments `impala-cartpole` and `apex-dqn-cartpole`).
- `learner-kill`: the learner is killed at a random moment. No worker and no shared
  memory may remain, and training goes on from the last checkpoint.

Results go to `benchmarks/results/engines.json` and `.md`; runs and seeds that are not
named keep their last results there.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from faults import NUM_KILLS, Kills, kill_learner
from launch import launch
from learning import EXPERIMENTS, RESULTS, evaluate

import kerasrl
from kerasrl import distribute

#: Iterations.
CHECKPOINT_EVERY = 20


@dataclass(frozen=True)
class Run:
    """An experiment of `learning.py` and what it runs under."""

    how: str
    engine: str = "single"
    experiment: str = "ppo-cartpole"
    num_workers: int = 0


RUNS = {
    "workers": Run("2 workers", num_workers=2),
    "mirrored": Run("mirrored:2", "mirrored:2"),
    "multiworker": Run("multiworker, 2 processes", "multiworker"),
    "horovod": Run("horovodrun -np 2", "horovod"),
    "sac-horovod": Run("horovodrun -np 2", "horovod", "sac-pendulum"),
    "kills": Run(f"2 workers, {NUM_KILLS} killed", num_workers=2),
    "impala-kills": Run(
        f"2 asynchronous workers, {NUM_KILLS} killed",
        experiment="impala-cartpole",
        num_workers=2,
    ),
    "apex-kills": Run(
        f"2 asynchronous workers, {NUM_KILLS} killed",
        experiment="apex-dqn-cartpole",
        num_workers=2,
    ),
    "learner-kill": Run("2 workers, learner killed", num_workers=2),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", metavar="RUN")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="other than the experiment's")
    parser.add_argument("--output", type=Path, default=RESULTS / "engines")
    parser.add_argument("--process", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = arguments.runs or list(RUNS)
    for name in names:
        if name not in RUNS:
            parser.error(f"unknown {name!r}; expected one of {', '.join(RUNS)}")
    if arguments.process is not None:
        seed, folder = arguments.process
        train(names[0], arguments.steps, int(seed), Path(folder))
        return
    path = arguments.output.with_suffix(".json")
    report = json.loads(path.read_text()) if path.exists() else {}
    for name in names:
        for seed in arguments.seeds:
            found = report.setdefault(name, {})
            found[str(seed)] = run(name, arguments.steps, seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(report, indent=2) + "\n")
            arguments.output.with_suffix(".md").write_text(markdown(report) + "\n")
    print(markdown({name: report[name] for name in names}))
    if not all(found["passed"] for name in names for found in report[name].values()):
        sys.exit(1)


def run(name, steps, seed):
    """Trains in processes of their own; returns what they found."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, name, "--process", str(seed), folder]
        if steps:
            command += ["--steps", str(steps)]
        found = {}
        if name == "learner-kill":
            found = kill_learner(command, Path(folder), seed)
        launch(RUNS[name].engine, command)
        found |= json.loads((Path(folder) / "result.json").read_text())
    found["passed"] = passed(name, found)
    print(f"{name}, seed {seed}: {found}", file=sys.stderr)
    return found


def passed(name, found):
    """Whether a run reached its goal, and lost no more than it may."""
    reached = found["return"] >= EXPERIMENTS[RUNS[name].experiment].gate
    if name.endswith("kills"):
        all_replaced = found["killed"] == found["replaced"] == NUM_KILLS
        kept = found["valid_steps"] == found["env_steps"]
        whole = not found["fragments_partly_lost"]
        return reached and all_replaced and kept and whole and found_flat(found)
    if name == "learner-kill":
        left = found["processes_left"] + found["shared_memory_left"]
        return reached and not left and found["resumed_at"] > 0
    return reached


def found_flat(found):
    """Whether memory did not grow in the second half of the run."""
    return found["megabytes_grown"] < 50


# In a process that learns -------------------------------------------------------


def train(name, steps, seed, folder):
    """Trains as one rank; the first writes `result.json`."""
    engine = RUNS[name].engine
    single = engine == "single"
    with contextlib.nullcontext() if single else distribute.open_scope(engine):
        replicas = distribute.current()
        found = learn(name, steps, seed, folder, replicas)
        if replicas.is_chief:
            (folder / "result.json").write_text(json.dumps(found))
        replicas.barrier()


def learn(name, steps, seed, folder, replicas):
    """Trains, or goes on where a learner was killed; returns what it found."""
    experiment = EXPERIMENTS[RUNS[name].experiment]
    steps = steps or experiment.steps
    agent = last_agent(folder)
    if agent is None:
        agent = experiment.tuned.make_agent(seed)
        share(agent, replicas.num_ranks)
    resumed_at, callbacks = agent.env_steps, []
    kills = Kills(steps, seed)
    if name.endswith("kills"):
        callbacks = [kills]
    if name == "learner-kill":
        saves = kerasrl.callbacks.AgentCheckpoint
        callbacks = [saves(folder, every=CHECKPOINT_EVERY, keep_best=False)]
    start = time.perf_counter()
    agent.fit(
        experiment.env,
        steps=steps - resumed_at,
        num_envs=experiment.num_envs // replicas.num_ranks,
        num_workers=RUNS[name].num_workers,
        callbacks=callbacks,
        verbose=0,
    )
    found = {"seconds": time.perf_counter() - start, "env_steps": agent.env_steps}
    if replicas.is_chief:
        found["return"] = evaluate(agent, experiment, seed)
    if name.endswith("kills"):
        found |= kills.found()
    if name == "learner-kill":
        found["resumed_at"] = resumed_at
    return found


def last_agent(folder):
    """The agent of the last checkpoint, or `None`."""
    paths = folder.glob("checkpoint-*[0-9]")
    paths = sorted(paths, key=lambda path: int(path.name.rpartition("-")[2]))
    return kerasrl.load(paths[-1]) if paths else None


def share(agent, num_ranks):
    """Gives each rank its part of the updates of all ranks."""
    if num_ranks == 1:
        return
    if hasattr(agent, "minibatch_size"):
        agent.minibatch_size //= num_ranks
        return
    agent.batch_size //= num_ranks
    # A rank counts its own steps, and takes the gradient steps due for those of all.
    agent.gradient_steps *= num_ranks
    # The target network follows once for each of the rank's own steps.
    agent.tau = 1.0 - (1.0 - agent.tau) ** num_ranks


# The table ----------------------------------------------------------------------


def markdown(report):
    """The table of `engines.md`."""
    lines = [
        "| run | under | experiment | gate | return by seed | seconds | passed |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, run in RUNS.items():
        results = list(report.get(name, {}).values())
        if not results:
            continue
        gate = EXPERIMENTS[run.experiment].gate
        returns = ", ".join(f"{found['return']:.0f}" for found in results)
        seconds = ", ".join(f"{found['seconds']:.0f}" for found in results)
        number = sum(found["passed"] for found in results)
        lines.append(
            f"| {name} | {run.how} | {run.experiment} | >= {gate:g} | "
            f"{returns} | {seconds} | {number} of {len(results)} |"
        )
    return "\n".join([*lines, *faults(report)])


def faults(report):
    """What was lost, for each run with faults."""
    hidden = ("return", "seconds", "passed")
    for name in ("kills", "impala-kills", "apex-kills", "learner-kill"):
        for seed, found in report.get(name, {}).items():
            items = [
                f"{key} {value}" for key, value in found.items() if key not in hidden
            ]
            yield ""
            yield f"{name}, seed {seed}: {', '.join(items).replace('_', ' ')}."


if __name__ == "__main__":
    main()
