"""Environment steps per second of evolution strategies, beside a loop in plain NumPy.

    python benchmarks/evolution.py [--rounds 3] [--budget 150000]

The loop is what one would write: perturb the weights, reset the environment, act with
two matrix products at a time until the episode ends, rank the returns, take a step of
Adam. It trains the same network with the same settings. kerasrl does the same in this
process and in 2 workers, with its checks, logs and callbacks, and arguments that are
not named here as they are by default.

`CartPole-v1` is `fit("CartPole-v1")`, from the first step to the last of `--budget`:
weights learn, so episodes become longer, and all end when they do. The number of pairs
is that of an iteration, `2 * pairs + 1` episodes; 16 is the default. Of a larger
population more is computed at once.

`one by one` are the single environments that a function makes, whose Python is most of
the time; `200 steps` are episodes of that length, as of a task that is never over, in
rows; `nothing` is an environment that takes no time: what is left is acting.

Measurements take turns, and each number is the best of all rounds. They need as many
idle processors as workers; the processor time of one process, in the last two columns,
does not suffer as much from what else runs.
"""

import argparse
import itertools
import json
import os
import time
import warnings
from pathlib import Path

import gymnasium
import numpy as np

from kerasrl.envs.row_seeds import CartPoleRows

RESULTS = Path(__file__).parent / "results" / "evolution"
#: As the defaults of `kerasrl.ES`.
SCALE, DECAY, RATE, HIDDEN = 0.1, 0.005, 0.03, (32, 32)


class Nothing(gymnasium.Env):
    """Returns the same observation for 200 steps."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    observation = np.full(4, 0.5, np.float32)

    def reset(self, seed=None, options=None):
        """Returns the observation."""
        self.left = 200
        return self.observation, {}

    def step(self, action):
        """Returns the observation."""
        self.left -= 1
        return self.observation, 1.0, False, self.left == 0, {}


class Rows:
    """Makes CartPole of 200 steps in rows."""

    def __init__(self, num_envs):
        self.num_envs = num_envs

    def __call__(self):
        """Returns the vector environment."""
        return never_ending(CartPoleRows(self.num_envs, 200))


def never_ending(env):
    """CartPole for which a pole that lies stands."""
    env.unwrapped.theta_threshold_radians = env.unwrapped.x_threshold = np.inf
    return env


def cartpole():
    """CartPole-v1."""
    return gymnasium.make("CartPole-v1")


def long_cartpole():
    """CartPole-v1 of 200 steps."""
    return never_ending(gymnasium.make("CartPole-v1", max_episode_steps=200))


def pendulum():
    """Pendulum-v1."""
    return gymnasium.make("Pendulum-v1")


def ways(num_pairs):
    """What is measured of a population.

    Returns:
        Dict from names to pairs of what the loop steps, and a function of the number of
        processes that returns what kerasrl steps and how many of it.
    """
    count = 2 * num_pairs + 2  # As many as there are episodes: workers share them.
    if num_pairs != 32:
        return {"CartPole-v1": (cartpole, lambda _: ("CartPole-v1", None))}
    return {
        "CartPole-v1": (cartpole, lambda _: ("CartPole-v1", None)),
        "CartPole-v1, one by one": (cartpole, lambda _: (cartpole, count)),
        "CartPole-v1, 200 steps": (
            long_cartpole,
            lambda parts: (Rows(count // parts), count),
        ),
        "Pendulum-v1": (pendulum, lambda _: (pendulum, count)),
        "nothing": (Nothing, lambda _: (Nothing, count)),
    }


class Clock:
    """Time as it passes, and as this process has it."""

    def __init__(self):
        self.start = np.array([time.perf_counter(), time.process_time()])

    def stop(self, steps):
        """Returns steps per second of both, an array."""
        now = np.array([time.perf_counter(), time.process_time()])
        return steps / (now - self.start)


def plain_loop(make_env, num_pairs, budget):
    """Measures the loop in plain NumPy; returns what `Clock.stop` does."""
    env, rng = make_env(), np.random.default_rng(0)
    is_discrete = isinstance(env.action_space, gymnasium.spaces.Discrete)
    num_actions = env.action_space.n if is_discrete else env.action_space.shape[0]
    sizes = [env.observation_space.shape[0], *HIDDEN, int(num_actions)]
    pairs = itertools.pairwise(sizes)
    shapes = [shape for i, o in pairs for shape in ((i, o), (o,))]
    bounds = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
    theta = rng.normal(size=bounds[-1]).astype(np.float32) * 0.1
    first, second = np.zeros_like(theta), np.zeros_like(theta)

    def play(weights):
        parts = [
            weights[a:b].reshape(shape)
            for (a, b), shape in zip(itertools.pairwise(bounds), shapes, strict=True)
        ]
        observation, _ = env.reset(seed=int(rng.integers(2**31)))
        total, length, ended = 0.0, 0, False
        while not ended:
            hidden = np.tanh(observation @ parts[0] + parts[1])
            hidden = np.tanh(hidden @ parts[2] + parts[3])
            output = hidden @ parts[4] + parts[5]
            action = output.argmax() if is_discrete else output
            observation, reward, terminated, truncated, _ = env.step(action)
            total, length = total + reward, length + 1
            ended = terminated or truncated
        return total, length

    steps, iteration, clock = 0, 0, None
    while steps < budget:
        iteration += 1
        if clock is None and iteration == 2:
            clock, steps = Clock(), 0
        noise = rng.standard_normal((num_pairs, len(theta)), np.float32)
        returns = np.zeros((num_pairs, 2))
        for pair in range(num_pairs):
            for side, sign in enumerate((SCALE, -SCALE)):
                returns[pair, side], length = play(theta + sign * noise[pair])
                steps += length
        steps += play(theta)[1]
        ranks = returns.argsort(axis=None).argsort().reshape(returns.shape)
        ranks = ranks / (returns.size - 1) - 0.5
        gradient = DECAY * theta - (ranks[:, 0] - ranks[:, 1]) @ noise / returns.size
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        mean, square = first / (1 - 0.9**iteration), second / (1 - 0.999**iteration)
        theta = (theta - RATE * mean / (np.sqrt(square) + 1e-8)).astype(np.float32)
    return clock.stop(steps)


def ours(env, num_envs, num_pairs, budget, num_workers):
    """Measures `kerasrl.ES`; returns what `Clock.stop` does."""
    import kerasrl

    agent = kerasrl.ES(num_pairs=num_pairs, seed=0)
    given = {"num_envs": num_envs, "num_workers": num_workers, "verbose": 0}
    run = agent.iterate(env, steps=10**9, **given)
    next(run)  # The update is compiled.
    clock, began = Clock(), agent.env_steps
    while agent.env_steps - began < budget:
        next(run)
    result = clock.stop(agent.env_steps - began)
    run.close()
    return result


def main():
    """Measures in turns, and writes a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--budget", type=int, default=150_000)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # Poles that lie are out of bounds.
    budget, report = arguments.budget, {}
    for num_pairs in (16, 32, 64, 128):
        for name, (env, envs_of) in ways(num_pairs).items():
            best = {"plain NumPy": np.zeros(2)}
            for _ in range(arguments.rounds):
                found = {"plain NumPy": plain_loop(env, num_pairs, budget)}
                for num_workers in (0, 2):
                    given = *envs_of(max(num_workers, 1)), num_pairs, budget
                    found[f"{num_workers} workers"] = ours(*given, num_workers)
                for way, value in found.items():
                    best[way] = np.maximum(best.get(way, 0.0), value)
            row = report[f"{name}, {num_pairs} pairs"] = {
                way: value.round().tolist() for way, value in best.items()
            }
            print(name, num_pairs, row, flush=True)
    lines = [
        "| | plain NumPy | kerasrl | 2 workers | times the loop | 2 workers "
        "| µs of processor, loop | kerasrl |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, best in report.items():
        (plain, plain_alone), (one, one_alone), (two, _) = best.values()
        lines.append(
            f"| {name} | {plain:,.0f} | {one:,.0f} | {two:,.0f} | {one / plain:.1f} | "
            f"{two / plain:.1f} | {1e6 / plain_alone:.1f} | {1e6 / one_alone:.1f} |"
        )
    lines.append("")
    lines.append(
        f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} at the end."
    )
    RESULTS.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
    RESULTS.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
