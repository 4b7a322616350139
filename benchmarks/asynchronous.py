"""What it gains to act while learning, and what that costs.

    python benchmarks/asynchronous.py [MEASUREMENT ...] [--rllib PYTHON]
        [--seconds 10] [--rounds 3]

Three tables, on two cores, with 2 worker processes and 8 environments in each:

1. IMPALA in an environment that sleeps for 1 millisecond and an exponential time of as
   much on average, asynchronous and in step (`synchronous=True`): with 8 environments
   in each worker and with one, where a single slow step is not averaged out; with the
   default network and with a larger one, whose updates take longer; and with 16 workers
   of one environment each, as one has where environments wait and do not compute. Those
   against A2C as well, the on-policy agent of as many steps an update.
2. Sampling of CartPole-v1 by workers that act by themselves, with a learner that does
   nothing, against two processes that act alone, in rollouts of as many steps, and hand
   over nothing.
3. IMPALA and APPO with their default arguments on CartPole-v1, against RLlib's (new
   API stack, 2 env runners, 8 environments each; `rllib_peer.py`). `--rllib` is the
   interpreter of an environment that has `ray[rllib]`; without it this table is left
   out.

Each number is of a process of its own. Measurements take turns; ratios are of the
medians of the rounds. Those that are not named keep their last results.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np

import kerasrl
from kerasrl.workers import make_environments

RESULTS = Path(__file__).parent / "results"
NUM_ENVS, NUM_WORKERS = 16, 2
LARGE = {"hidden_units": (1024, 1024)}


class Sleeping(gymnasium.Env):
    """Sleeps in each step; episodes have 200 of them."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        """Starts an episode."""
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(4, np.float32), {}

    def step(self, action):
        """Sleeps for 1 millisecond and an exponential time."""
        time.sleep(1e-3 * (1.0 + self.np_random.exponential()))
        self.time += 1
        return np.zeros(4, np.float32), 1.0, False, self.time == 200, {}


class Idle(kerasrl.A2C):
    """Learns nothing."""

    asynchronous, synchronous = True, False

    def learn(self, rollout):
        """Drops the rollout."""
        return {}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("measurements", nargs="*", metavar="MEASUREMENT")
    parser.add_argument("--rllib", metavar="PYTHON")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS / "asynchronous")
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(json.dumps(MEASURES[arguments.measure](arguments.seconds)))
        return
    names = list(MEASURES)
    if arguments.rllib:
        names += ["RLlib IMPALA", "RLlib APPO"]
    for name in arguments.measurements:
        if name not in names:
            parser.error(f"There is no measurement {name!r}. There are: {names}.")
    names = arguments.measurements or names
    path = arguments.output
    before = path.with_suffix(".json")
    found = json.loads(before.read_text()) if before.exists() else {}
    found |= {name: [] for name in names}
    for _ in range(arguments.rounds):
        for name in names:
            found[name].append(measure(name, arguments))
            print(name, found[name][-1], file=sys.stderr)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(found, indent=2) + "\n")
    page = markdown(found)
    path.with_suffix(".md").write_text(page + "\n")
    print(page)


def measure(name, arguments):
    """Runs one measurement in a process of its own; returns what it printed."""
    command = [sys.executable, __file__, "--measure", name]
    if name.startswith("RLlib"):
        peer = Path(__file__).with_name("rllib_peer.py")
        command = [arguments.rllib, str(peer), name.split()[1]]
    command += ["--seconds", str(arguments.seconds)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(output.stdout.splitlines()[-1])


def trained(agent, env, seconds, num_envs=NUM_ENVS, num_workers=NUM_WORKERS):
    """Steps per second of a training, after its first half second of iterations."""
    start = None
    settings = {"num_envs": num_envs, "num_workers": num_workers, "verbose": 0}
    began = None
    for _ in agent.iterate(env, steps=10**9, **settings):
        now = time.perf_counter()
        began = now if began is None else began
        if start is None and now - began > 0.5:
            start, before = now, agent.env_steps
        if start is not None and now - start > seconds:
            break
    return {"steps_per_second": (agent.env_steps - before) / (now - start)}


def alone(seconds, length):
    """Steps per second of two processes that act with the same policy, added up."""
    agent = Idle(policy=None, rollout_length=length)
    env = gymnasium.make("CartPole-v1")
    agent.build(env.observation_space, env.action_space)
    envs = make_environments("CartPole-v1", NUM_ENVS, None, NUM_WORKERS)
    program = agent.actor().program

    def act(worker):
        from kerasrl.rollouts import Collector
        from kerasrl.workers.acting import PartialActor

        count = len(worker.envs.envs)
        actor = PartialActor(program, (), 0, count, count, None)
        generators = [np.random.default_rng(seed) for seed in range(count)]
        collector = Collector(worker.envs, actor, length, generators)
        collector.reset(list(range(count)))
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            collector.collect()
        return collector.env_steps / (time.perf_counter() - start)

    with envs:
        return {"steps_per_second": sum(envs.pool.foreach_worker(act))}


#: Steps of a fragment where sampling is measured. The learner's work for each is the
#: same, however long it is.
ROLLOUT = 128
MEASURES = {
    "asynchronous": lambda s: trained(kerasrl.IMPALA(), Sleeping, s),
    "in step": lambda s: trained(kerasrl.IMPALA(synchronous=True), Sleeping, s),
    "asynchronous, large": lambda s: trained(kerasrl.IMPALA(LARGE), Sleeping, s),
    "in step, large": lambda s: trained(
        kerasrl.IMPALA(LARGE, synchronous=True), Sleeping, s
    ),
    "asynchronous, one each": lambda s: trained(kerasrl.IMPALA(), Sleeping, s, 2),
    "in step, one each": lambda s: trained(
        kerasrl.IMPALA(synchronous=True), Sleeping, s, 2
    ),
    "asynchronous, 16 workers": lambda s: trained(
        kerasrl.IMPALA(), Sleeping, s, num_workers=16
    ),
    "in step, 16 workers": lambda s: trained(
        kerasrl.IMPALA(synchronous=True), Sleeping, s, num_workers=16
    ),
    "A2C, 16 workers": lambda s: trained(
        kerasrl.A2C(rollout_length=16), Sleeping, s, num_workers=16
    ),
    "sampling": lambda s: trained(Idle(rollout_length=ROLLOUT), "CartPole-v1", s),
    "sampling, 32 steps": lambda s: trained(Idle(rollout_length=32), "CartPole-v1", s),
    "acting alone": lambda s: alone(s, ROLLOUT),
    "acting alone, 32 steps": lambda s: alone(s, 32),
    "IMPALA": lambda s: trained(kerasrl.IMPALA(), "CartPole-v1", s),
    "APPO": lambda s: trained(kerasrl.APPO(), "CartPole-v1", s),
}


def markdown(found):
    """The tables."""
    median = {
        name: statistics.median(each["steps_per_second"] for each in runs)
        for name, runs in found.items()
    }
    pairs = [
        ("asynchronous", "in step"),
        ("asynchronous, large", "in step, large"),
        ("asynchronous, one each", "in step, one each"),
        ("asynchronous, 16 workers", "in step, 16 workers"),
        ("asynchronous, 16 workers", "A2C, 16 workers"),
        ("sampling", "acting alone"),
        ("sampling, 32 steps", "acting alone, 32 steps"),
        ("IMPALA", "RLlib IMPALA"),
        ("APPO", "RLlib APPO"),
    ]
    lines = [
        "| | steps/s | against | steps/s | ratio | rounds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for first, second in pairs:
        if first in median and second in median:
            ratio = median[first] / median[second]
            lines.append(
                f"| {first} | {median[first]:,.0f} | {second} | "
                f"{median[second]:,.0f} | {ratio:.2f} | {len(found[first])} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
