"""Microseconds that replay buffers take, per environment step and per sample.

    python benchmarks/replay.py [--capacity 1000000] [--rounds 5] [--cpu-time]

Each buffer is filled first, so that every step that is added overwrites another one.
Timed are `add` of a phase (T steps of B environments), and `sample` of one batch of N
and of K batches, for prioritized replay together with `update_priorities`. The tables
have the mean over the calls of a round, the smallest of the rounds.

Episodes have 200 steps. Observations are vectors of 8, or four frames of 84 x 84 bytes;
the buffer of these has a tenth of the capacity.
"""

import argparse
import time

import numpy as np
from gymnasium import spaces

from kerasrl.replay import PrioritizedReplayBuffer, ReplayBuffer
from kerasrl.rollouts import Rollout

VECTOR = spaces.Box(-np.inf, np.inf, (8,))
IMAGE = spaces.Box(0, 255, (4, 84, 84), np.uint8)
ACTIONS = spaces.Discrete(4)
EPISODE = 200
PHASES = ((1, 1), (4, 1), (1, 8), (16, 8), (64, 16))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--capacity", type=int, default=1_000_000)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--num-batches", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=200, help="calls in a round")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="time of the processor, for a machine that does other work too",
    )
    arguments = parser.parse_args()
    size, count = arguments.batch_size, arguments.num_batches
    add_header = [f"T={length} B={num_envs}" for length, num_envs in PHASES]
    sample_header = [f"N={size}", f"K={count} N={size}"]
    add_rows, sample_rows = {}, {}
    for name, (space, make) in buffers(arguments.capacity).items():
        add_rows[name] = []
        for length, num_envs in PHASES:
            player = Player(make(num_envs), space, length, num_envs)
            player.fill()
            seconds = best_time(player.play, arguments)
            add_rows[name].append(seconds / (length * num_envs))
        sample_rows[name] = sample_times(player.buffer, arguments)
    print_table("add, us per environment step", add_header, add_rows)
    print_table("sample, us per call", sample_header, sample_rows)


def buffers(capacity):
    """Dict from names to observation spaces and functions `num_envs -> buffer`."""
    common = (VECTOR, ACTIONS)
    return {
        "uniform": (VECTOR, lambda b: ReplayBuffer(capacity, *common, b)),
        "uniform, 3 steps": (
            VECTOR,
            lambda b: ReplayBuffer(capacity, *common, b, n_step=3),
        ),
        "prioritized, 3 steps": (
            VECTOR,
            lambda b: PrioritizedReplayBuffer(capacity, *common, b, n_step=3),
        ),
        "four frames, 3 steps": (
            IMAGE,
            lambda b: ReplayBuffer(
                capacity // 10, IMAGE, ACTIONS, b, n_step=3, frame_stack=4
            ),
        ),
    }


class Player:
    """Fills a buffer with episodes of `EPISODE` steps, all of them the same."""

    def __init__(self, buffer, space, length, num_envs):
        self.buffer = buffer
        self.rollout = make_rollout(space, length, num_envs)
        # Longer ones, to be done sooner.
        self.filling = make_rollout(space, EPISODE, num_envs, ends=True)
        self.ending = make_rollout(space, length, num_envs, ends=True)
        self.until_end = EPISODE

    def fill(self):
        for _ in range(2 * self.buffer.capacity // self.filling.rewards.size):
            self.buffer.add(self.filling)

    def play(self):
        self.until_end -= len(self.rollout.rewards)
        ends = self.until_end <= 0
        self.buffer.add(self.ending if ends else self.rollout)
        if ends:
            self.until_end = EPISODE


def make_rollout(space, length, num_envs, ends=False):
    """A rollout of zeros, at the end of which episodes may be truncated."""
    shape = (length, num_envs)
    observations = np.zeros((*shape, *space.shape), space.dtype)
    truncated, final = np.zeros(shape, bool), None
    if ends:
        truncated[-1] = True
        final = {
            "time": np.full(num_envs, length - 1),
            "env": np.arange(num_envs),
            "observations": observations[0],
        }
    return Rollout(
        observations=observations,
        actions=np.zeros(shape, np.int64),
        rewards=np.ones(shape, np.float32),
        terminated=np.zeros(shape, bool),
        truncated=truncated,
        valid=np.ones(shape, bool),
        episode_starts=np.zeros(shape, bool),
        previous_actions=np.zeros(shape, np.int64),
        previous_rewards=np.zeros(shape, np.float32),
        next_inputs={"observations": observations[0]},
        final=final,
    )


def sample_times(buffer, arguments):
    """Seconds for sampling (and updating priorities of) one batch, and K at once."""
    rng = np.random.default_rng(0)
    prioritized = isinstance(buffer, PrioritizedReplayBuffer)
    errors = rng.random((arguments.num_batches, arguments.batch_size))

    def learn(num_batches):
        batch = buffer.sample(arguments.batch_size, num_batches, rng)
        if prioritized:
            new = errors[0] if num_batches is None else errors
            buffer.update_priorities(batch["indices"], new)

    return [
        best_time(lambda: learn(None), arguments),
        best_time(lambda: learn(arguments.num_batches), arguments),
    ]


def best_time(function, arguments):
    """Seconds of one call: the mean over a round, the smallest of the rounds."""
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    results = []
    for _ in range(arguments.rounds):
        start = clock()
        for _ in range(arguments.calls):
            function()
        results.append((clock() - start) / arguments.calls)
    return min(results)


def print_table(title, header, rows):
    print(f"| {title} | " + " | ".join(header) + " |")
    print("|---" * (1 + len(header)) + "|")
    for name, seconds in rows.items():
        cells = [f"{1e6 * number:.2f}" for number in seconds]
        print(f"| {name} | " + " | ".join(cells) + " |")
    print()


if __name__ == "__main__":
    main()
