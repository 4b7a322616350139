"""What worker processes cost and gain.

    python benchmarks/workers.py [--seconds 3] [--rounds 3]

Four tables:

1. Collecting with a policy of two layers of 64 units from 8 environments, of which each
   step costs 200 microseconds of computing: in one process, and with 2 workers in each
   mode.
2. What a step of 8 environments costs that do nothing, so that only exchange and
   synchronisation are left: kerasrl's workers, gymnasium's `AsyncVectorEnv` and
   `SubprocVecEnv` of Stable-Baselines3 (the latter two have 8 processes).
3. CartPole-v1: steps per second of 8 environments, with kerasrl's policy acting in 2
   workers, and with `SubprocVecEnv` given actions that cost nothing.
4. Memory and start-up time of workers.

Measurements take turns, and each number is the best of all rounds: what other programs
on the machine take is not ours to measure. The first table needs as many idle
processors as workers.

Needs the extra `bench`: `pip install -e ".[bench]"`.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import gymnasium
import numpy as np

from kerasrl.envs import make_envs
from kerasrl.workers import make_collector, make_environments

RESULTS = Path(__file__).parent / "results"
NUM_ENVS = 8
NUM_WORKERS = 2


class Nothing(gymnasium.Env):
    """Returns the same observation for ever."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    observation = np.zeros(4, np.float32)

    def reset(self, seed=None, options=None):
        """Returns the observation."""
        return self.observation, {}

    def step(self, action):
        """Returns the observation."""
        return self.observation, 1.0, False, False, {}


class Busy(Nothing):
    """Computes for 200 microseconds in each step."""

    def step(self, action):
        """Computes, then returns the observation."""
        end = time.perf_counter() + 200e-6
        while time.perf_counter() < end:
            pass
        return super().step(action)


def per_second(function, seconds):
    """How often a function can be called in a second."""
    function()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        function()
        count += 1
    return count / (time.perf_counter() - start)


def make_actor():
    """The actor of PPO on four numbers and two actions."""
    import kerasrl

    agent = kerasrl.PPO(seed=0)
    agent.build(Nothing.observation_space, Nothing.action_space)
    return agent.actor()


def collecting(env, actor, num_workers, mode, seconds, length=128):
    """Environment steps per second of collecting."""
    with make_environments(
        env, NUM_ENVS, num_workers=num_workers, worker_mode=mode
    ) as envs:
        generators = [np.random.default_rng(index) for index in range(NUM_ENVS)]
        collector = make_collector(envs, actor, length, generators)
        collector.reset(list(range(NUM_ENVS)))
        return per_second(collector.collect, seconds) * length * NUM_ENVS


def stepping(name, seconds):
    """Calls of `step` per second, of 8 environments that do nothing."""
    actions = np.zeros(NUM_ENVS, int)
    if name == "AsyncVectorEnv":
        envs = gymnasium.vector.AsyncVectorEnv([Nothing] * NUM_ENVS)
        envs.reset()
    elif name == "SubprocVecEnv":
        envs = subproc_vec_env(Nothing)
    elif name == "one process":
        envs = make_envs(Nothing, NUM_ENVS)
        envs.reset()
    else:
        envs = make_environments(Nothing, NUM_ENVS, num_workers=NUM_WORKERS)
        envs.reset()
    try:
        return per_second(lambda: envs.step(actions), seconds)
    finally:
        envs.close()


def subproc_vec_env(factory):
    """Stable-Baselines3's environments in 8 processes, reset."""
    from stable_baselines3.common.vec_env import SubprocVecEnv

    envs = SubprocVecEnv([factory] * NUM_ENVS)
    envs.reset()
    return envs


def make_cart_pole():
    """One CartPole."""
    return gymnasium.make("CartPole-v1")


def cart_pole_subproc(seconds):
    """Environment steps per second of `SubprocVecEnv`, without a policy."""
    envs = subproc_vec_env(make_cart_pole)
    rng = np.random.default_rng(0)
    actions = rng.integers(2, size=(1024, NUM_ENVS))
    numbers = iter(range(10**9))
    try:
        calls = per_second(lambda: envs.step(actions[next(numbers) % 1024]), seconds)
        return calls * NUM_ENVS
    finally:
        envs.close()


def memory_and_start():
    """Megabytes (resident, proportional share) and seconds of two workers."""
    start = time.perf_counter()
    with make_environments("CartPole-v1", NUM_ENVS, num_workers=NUM_WORKERS) as envs:
        seconds = time.perf_counter() - start
        sizes = [smaps(pid) for pid in envs.pool.pids]
    return {
        "start (s)": seconds,
        "resident (MB)": max(size["Rss"] for size in sizes),
        "proportional (MB)": max(size["Pss"] for size in sizes),
    }


def smaps(pid):
    """Sizes in megabytes of a process."""
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        found[name] = int(rest.split()[0]) / 1024
    return found


def measure(functions, rounds):
    """The best of several rounds, in which the functions take turns."""
    found = {}
    for _ in range(rounds):
        for name, function in functions.items():
            found[name] = max(found.get(name, 0.0), function())
    return found


def table(head, rows):
    """Lines of a Markdown table; numbers get one or two decimals."""
    yield ""
    yield f"| {' | '.join(head)} |"
    yield f"|---|{'---:|' * (len(head) - 1)}"
    for row in rows:
        cells = [
            each if isinstance(each, str) else f"{each:.{1 if each > 9 else 2}f}"
            for each in row
        ]
        yield f"| {' | '.join(cells)} |"


def main():
    """Measures, prints and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="per measurement")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    seconds, rounds = arguments.seconds, arguments.rounds
    actor = make_actor()
    ways = {"one process": (0, None)}
    ways |= {mode: (NUM_WORKERS, mode) for mode in ("act", "step", "alternate")}
    busy = measure(
        {
            name: lambda way=way: collecting(Busy, actor, *way, seconds)
            for name, way in ways.items()
        },
        rounds,
    )
    names = ("one process", "kerasrl, 2 workers", "AsyncVectorEnv", "SubprocVecEnv")
    steps = measure(
        {name: lambda name=name: stepping(name, seconds) for name in names}, rounds
    )
    cart_pole = measure(
        {
            "kerasrl, acting in 2 workers": lambda: collecting(
                "CartPole-v1", actor, NUM_WORKERS, "act", seconds
            ),
            "kerasrl, one process": lambda: collecting(
                "CartPole-v1", actor, 0, None, seconds
            ),
            "SubprocVecEnv, no policy": lambda: cart_pole_subproc(seconds),
        },
        rounds,
    )
    size = memory_and_start()
    baseline = cart_pole["SubprocVecEnv, no policy"]
    text = "\n".join(
        [
            f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, Python "
            f"{platform.python_version()}, best of {rounds} rounds of {seconds:g} s.",
            *table(
                ("200 us a step, 8 environments", "steps/s", "against one process"),
                [(n, f"{v:,.0f}", v / busy["one process"]) for n, v in busy.items()],
            ),
            *table(
                ("8 environments that do nothing", "us per step", "of that, exchange"),
                [
                    (n, f"{1e6 / v:.0f}", 1e6 / v - 1e6 / steps["one process"])
                    for n, v in steps.items()
                ],
            ),
            *table(
                ("CartPole-v1, 8 environments", "steps/s", "against SubprocVecEnv"),
                [(n, f"{v:,.0f}", v / baseline) for n, v in cart_pole.items()],
            ),
            *table(
                ("A worker with 4 CartPoles", *size),
                [("", f"{size['start (s)']:.2f}", *list(size.values())[1:])],
            ),
        ]
    )
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "workers.md").write_text(text + "\n")
    raw = {"busy": busy, "steps": steps, "cart_pole": cart_pole, "size": size}
    (RESULTS / "workers.json").write_text(json.dumps(raw, indent=2) + "\n")


if __name__ == "__main__":
    main()
