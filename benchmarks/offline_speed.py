"""Samples per second of learning from data: reading and updates, and d3rlpy's.

    python benchmarks/offline_speed.py --peer /path/to/python

Behaviour cloning (bc), discrete CQL by one network of action values and a target (cql),
and CQL of numbers by a policy and two critics that value 31 actions of each sample
(cql-box), of the same random steps, with the same batches and networks (two layers of
256 ReLU units), in turn in processes of their own, each on one core with one thread: on
a machine that does other things too, threads that wait for each other would be what is
measured. d3rlpy wants an old gymnasium: `--peer` is the Python of an environment that
has it. Start-up and compiling are left out. Medians of several rounds are what counts.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np

RESULTS = Path(__file__).parent / "results"
SIZE, BATCH = 20_000, 256
#: Gradient steps that are timed.
ROWS = {"bc": 1_000, "cql": 1_000, "cql-box": 60}


def arrays(row):
    """Returns random steps of CartPole's shapes, of episodes of 100 steps.

    For `cql-box` with an action that is a number from -1 to 1.
    """
    generator = np.random.default_rng(0)
    observations = generator.normal(size=(SIZE, 4)).astype(np.float32)
    actions = generator.integers(2, size=SIZE)
    if row == "cql-box":
        actions = generator.uniform(-1.0, 1.0, size=(SIZE, 1)).astype(np.float32)
    ends = (np.arange(SIZE) % 100 == 99).astype(np.float32)
    return observations, actions, np.ones(SIZE, np.float32), ends


def ours(row):
    """Returns samples per second of kerasrl."""
    import kerasrl

    kinds = {}
    if row == "cql-box":
        box = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        kinds = {"action_space": box}
    dataset = kerasrl.offline.from_arrays(*arrays(row), **kinds)
    arguments = {"batch_size": BATCH, "updates_per_call": 50}
    hidden = {"hidden_units": (256, 256), "activation": "relu"}
    if row == "cql":
        hidden = kerasrl.models.QNetwork(**hidden)
    agent_class = kerasrl.BC if row == "bc" else kerasrl.CQL
    agent = agent_class(policy=hidden, **arguments)
    return measure(lambda steps: agent.fit(dataset, steps=steps, verbose=0), ROWS[row])


def theirs(row):
    """Returns samples per second of d3rlpy."""
    import d3rlpy

    observations, actions, rewards, ends = arrays(row)
    dataset = d3rlpy.dataset.MDPDataset(observations, actions, rewards, ends)
    if row == "bc":
        config = d3rlpy.algos.DiscreteBCConfig(batch_size=BATCH)
    elif row == "cql":
        config = d3rlpy.algos.DiscreteCQLConfig(batch_size=BATCH)
    else:
        config = d3rlpy.algos.CQLConfig(batch_size=BATCH)
    algorithm = config.create(device="cpu")
    quiet = {
        "show_progress": False,
        "logger_adapter": d3rlpy.logging.NoopAdapterFactory(),
    }
    return measure(
        lambda steps: algorithm.fit(
            dataset, n_steps=steps, n_steps_per_epoch=steps, **quiet
        ),
        ROWS[row],
    )


def measure(fit, steps):
    """Times a second call: the first one builds and compiles."""
    fit(50)
    start = time.perf_counter()
    fit(steps)
    return steps * BATCH / (time.perf_counter() - start)


def on_one_core():
    """Keeps a process on the first of the cores it may use."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])


def main():
    """Runs both in turn, and prints and writes a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", default=sys.executable)
    parser.add_argument("rows", nargs="*", help="Names of rows; all if none.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        library, row = arguments.one
        print(json.dumps({"kerasrl": ours, "d3rlpy": theirs}[library](row)))
        return
    path = RESULTS / "offline_speed.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    for row in arguments.rows or ROWS:
        found[row] = {"kerasrl": [], "d3rlpy": []}
        for _ in range(arguments.rounds):
            for library, python in (
                ("kerasrl", sys.executable),
                ("d3rlpy", arguments.peer),
            ):
                command = [python, __file__, "--one", library, row]
                text = subprocess.run(
                    command,
                    capture_output=True,
                    text=True,
                    check=True,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                    preexec_fn=on_one_core,
                ).stdout
                found[row][library].append(float(text.splitlines()[-1]))
                print(row, library, round(found[row][library][-1]), flush=True)
    lines = [
        "| | kerasrl | d3rlpy | ratio | by round |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row, rates in ((row, found[row]) for row in ROWS if row in found):
        own, other = (np.median(rates[name]) for name in ("kerasrl", "d3rlpy"))
        pairs = zip(rates["kerasrl"], rates["d3rlpy"], strict=True)
        each = ", ".join(f"{a / b:.1f}" for a, b in pairs)
        lines.append(
            f"| {row} | {own:,.0f} | {other:,.0f} | {own / other:.1f} | {each} |"
        )
    text = "\n".join(lines) + "\n"
    print(text)
    (RESULTS / "offline_speed.md").write_text(text)
    path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
