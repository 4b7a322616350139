"""Environment steps per second of evolution strategies, beside a loop in plain NumPy.

    python benchmarks/evolution.py [--rounds 3] [--iterations 6]

The loop is what one would write: perturb the weights, reset the environment, act with
two matrix products at a time until the episode ends, rank the returns, take a step of
Adam. It trains the same network with the same settings. kerasrl does the same in this
process and in 2 workers, with 66 environments, and with its checks, logs and callbacks.

All episodes have 200 steps, so that all play as much: CartPole-v1 goes on when the pole
has fallen. `CartPole-v1, vector` is gymnasium's own in NumPy, 66 at a time, beside the
loop on CartPole-v1. `nothing` is an environment that takes no time: what is left is
acting.

Where an environment is Python, most of the time is its own, and what NumPy does at once
for a population is the smaller part.

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

RESULTS = Path(__file__).parent / "results" / "evolution"
#: As many as there are episodes in an iteration, and one more: workers share them.
NUM_ENVS = 66
NUM_PAIRS, SCALE, DECAY, RATE, HIDDEN = 32, 0.1, 0.005, 0.03, (64, 64)


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


class Vector:
    """Makes gymnasium's CartPole in NumPy."""

    def __init__(self, num_envs):
        self.num_envs = num_envs

    def __call__(self):
        """Returns the vector environment."""
        mode = gymnasium.VectorizeMode.VECTOR_ENTRY_POINT
        env = gymnasium.make_vec("CartPole-v1", self.num_envs, mode)
        return never_ending(env)


def never_ending(env):
    """CartPole for which a pole that lies stands."""
    env.unwrapped.theta_threshold_radians = env.unwrapped.x_threshold = np.inf
    return env


def cartpole():
    """CartPole-v1 of 200 steps."""
    return never_ending(gymnasium.make("CartPole-v1", max_episode_steps=200))


def pendulum():
    """Pendulum-v1."""
    return gymnasium.make("Pendulum-v1")


#: What the loop steps, and what kerasrl does, by the number of processes.
ENVS = {
    "CartPole-v1": (cartpole, lambda _: cartpole),
    "Pendulum-v1": (pendulum, lambda _: pendulum),
    "CartPole-v1, vector": (cartpole, lambda parts: Vector(NUM_ENVS // parts)),
    "nothing": (Nothing, lambda _: Nothing),
}


class Clock:
    """Time as it passes, and as this process has it."""

    def __init__(self):
        self.start = np.array([time.perf_counter(), time.process_time()])

    def stop(self, steps):
        """Returns steps per second of both, an array."""
        now = np.array([time.perf_counter(), time.process_time()])
        return steps / (now - self.start)


def plain_loop(make_env, iterations):
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

    steps = 0
    for iteration in range(1, iterations + 2):
        if iteration == 2:
            clock, steps = Clock(), 0
        noise = rng.standard_normal((NUM_PAIRS, len(theta)), np.float32)
        returns = np.zeros((NUM_PAIRS, 2))
        for pair in range(NUM_PAIRS):
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


def ours(make_env, iterations, num_workers):
    """Measures `kerasrl.ES`; returns what `Clock.stop` does."""
    import kerasrl

    agent = kerasrl.ES(
        {"hidden_units": HIDDEN},
        num_pairs=NUM_PAIRS,
        noise_scale=SCALE,
        weight_decay=DECAY,
        max_episode_steps=200 if isinstance(make_env, Vector) else None,
        seed=0,
    )
    clock = steps = None
    run = agent.iterate(
        make_env, steps=10**9, num_envs=NUM_ENVS, num_workers=num_workers, verbose=0
    )
    for _ in run:
        if agent.iterations == 1:  # The update was compiled.
            clock, steps = Clock(), agent.env_steps
        elif agent.iterations == iterations + 1:
            break
    result = clock.stop(agent.env_steps - steps)
    run.close()
    return result


def main():
    """Measures in turns, and writes a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=6)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # Poles that lie are out of bounds.
    report = {}
    for name, (env, env_of) in ENVS.items():
        iterations = arguments.iterations
        ways = {
            "plain NumPy": lambda e=env, n=iterations: plain_loop(e, n),
            "1 process": lambda e=env_of, n=iterations: ours(e(1), n, 0),
            "2 workers": lambda e=env_of, n=iterations: ours(e(2), n, 2),
        }
        best = {way: np.zeros(2) for way in ways}
        for _ in range(arguments.rounds):
            for way, measure in ways.items():
                best[way] = np.maximum(best[way], measure())
        report[name] = {way: value.round().tolist() for way, value in best.items()}
        print(name, report[name], flush=True)
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
