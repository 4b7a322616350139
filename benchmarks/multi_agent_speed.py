"""Agent steps per second of one PPO for three agents on simple_spread_v3.

    python benchmarks/multi_agent_speed.py [--peer PYTHON] [--seconds 20] [--rounds 2]

Acting, stepping and learning, in one process and with two workers, and, with `--peer`,
an interpreter for `multi_agent_peer.py`, RLlib and SB3 through SuperSuit in the same
run: everybody in turn, `--rounds` times. Nothing else should run meanwhile. `--publish`
writes `results/multi_agent_speed.json` and `.md`. Needs the extra `mpe`.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "multi_agent_speed"
SPREAD = "pettingzoo:parallel:mpe2.simple_spread_v3"
OURS = {"kerasrl": 0, "kerasrl, 2 workers": 2}
PEERS = {"RLlib": "rllib", "SB3, SuperSuit": "sb3"}


def ours(num_workers, seconds):
    """Runs our PPO, as `multi_agent_peer.py` those of others."""
    import kerasrl

    main = kerasrl.PPO(
        policy={"hidden_units": (64, 64)},
        rollout_length=100,
        num_epochs=10,
        minibatch_size=600,
        gamma=0.95,
        seed=0,
    )
    agent = kerasrl.MultiAgent({"main": main}, seed=0)
    options = {"num_envs": 8, "num_workers": num_workers, "verbose": 0}
    run = agent.iterate(SPREAD, steps=10**9, **options)
    with contextlib.closing(run):
        next(run)
        next(run)
        first, before = agent.agent_steps, agent.iterations
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            next(run)
        passed = time.perf_counter() - start
        done = agent.agent_steps - first
        return {
            "agent_steps_per_second": done / passed,
            "agent_steps_per_iteration": done / (agent.iterations - before),
        }


def measure(name, arguments):
    """Runs one measurement in a process of its own; returns what it printed."""
    if name in OURS:
        command = [sys.executable, __file__, "--measure", name]
    else:
        peer = Path(__file__).with_name("multi_agent_peer.py")
        command = [arguments.peer, str(peer), PEERS[name]]
    command += ["--seconds", str(arguments.seconds)]
    limit = arguments.seconds + 90
    output = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, timeout=limit
    )
    return json.loads(output.stdout.splitlines()[-1])


def markdown(found, command):
    """Returns the page of results."""
    own = [statistics.median(found[name]) for name in OURS]
    lines = [
        "# Speed with several agents",
        "",
        f"`{command}`,",
        "on two cores: agent steps per second of training one PPO for three agents on",
        "simple_spread_v3 in 8 environments, medians of",
        f"{len(found['kerasrl'])} rounds in turn (of two: means).",
        "",
        "| who | agent steps/s | each round | ours, and with 2 workers |",
        "|---|---|---|---|",
    ]
    for name, speeds in found.items():
        median = statistics.median(speeds)
        times = " and ".join(f"{speed / median:.1f}" for speed in own)
        times = "" if name in OURS else f"{times} times that"
        each = ", ".join(f"{speed:,.0f}" for speed in speeds)
        lines.append(f"| {name} | {median:,.0f} | {each} | {times} |")
    lines += [
        "",
        "Everybody learns from 2,400 agent steps at a time, 10 epochs of minibatches",
        "of 600, with two layers of 64 units; peers step their environments in two",
        "processes. The environment takes most of the time of all.",
        "",
    ]
    return "\n".join(lines)


def main():
    """Measures everybody in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", metavar="PYTHON")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--publish", action="store_true")
    parser.add_argument("--measure", choices=OURS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(json.dumps(ours(OURS[arguments.measure], arguments.seconds)))
        return
    names = [*OURS, *(PEERS if arguments.peer else ())]
    found = {name: [] for name in names}
    for _ in range(arguments.rounds):
        for name in names:
            result = measure(name, arguments)
            found[name].append(round(result["agent_steps_per_second"], 1))
            print(name, json.dumps(result), file=sys.stderr, flush=True)
    command = "python benchmarks/multi_agent_speed.py --peer PYTHON --publish"
    command += f" --seconds {arguments.seconds:g} --rounds {arguments.rounds}"
    page = markdown(found, command)
    print(page)
    if arguments.publish:
        RESULTS.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
        RESULTS.with_suffix(".md").write_text(page)


if __name__ == "__main__":
    main()
