"""Milliseconds of a gradient step by engine, and what exchanging gradients adds.

    python benchmarks/replicas.py single
    python benchmarks/replicas.py mirrored:2
    HOROVOD_CYCLE_TIME=1 horovodrun -np 2 python benchmarks/replicas.py horovod

Each rank takes 200 steps of DQN (64 samples, two layers of 64 units) in one compiled
call; the least of 7 calls counts.
"""

import contextlib
import os
import sys
import time

import gymnasium
import numpy as np

import kerasrl
from kerasrl import distribute
from kerasrl.training import ranks
from kerasrl.training.compiled import CompiledUpdate

STEPS, SAMPLES, REPEATS = 200, 64, 7


def step_milliseconds():
    agent = kerasrl.DQN({"hidden_units": (64, 64)}, seed=0, max_grad_norm=10.0)
    agent.compile(jit_compile=False)
    agent.build(
        gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32), gymnasium.spaces.Discrete(2)
    )
    rng, shape = np.random.default_rng(0), (STEPS, SAMPLES)
    batches = {
        "observations": rng.normal(size=(*shape, 4)).astype(np.float32),
        "actions": rng.integers(2, size=shape),
        "rewards": rng.normal(size=shape).astype(np.float32),
        "next_observations": rng.normal(size=(*shape, 4)).astype(np.float32),
        "discounts": np.full(shape, 0.9, np.float32),
        "weights": np.ones(shape, np.float32),
    }
    update = CompiledUpdate(agent, agent._updates)
    seconds = []
    with agent.replicas.scope():
        ranks.synchronize(agent, 0)
        for _ in range(REPEATS):
            start = time.perf_counter()
            update(batches, agent.scheduled_values(), agent.due(np.arange(STEPS)))
            seconds.append(time.perf_counter() - start)
    return 1000 * min(seconds) / STEPS


def main():
    mode = sys.argv[1]
    single = mode == "single"
    with contextlib.nullcontext() if single else distribute.open_scope(mode):
        milliseconds = step_milliseconds()
        if distribute.current().is_chief:
            cycle = os.environ.get("HOROVOD_CYCLE_TIME", "-")
            print(f"{mode}, cycle time {cycle} ms: {milliseconds:.3f} ms a step")


if __name__ == "__main__":
    main()
