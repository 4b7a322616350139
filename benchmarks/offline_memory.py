"""Memory of learning from data sets that are larger than what a reader may hold.

    python benchmarks/offline_memory.py

Episodes of random bytes are written to disk, so many times the 128 MiB that a reader is
allowed, and `BC` learns from all of them once, in a process of its own. The resident
memory of that process, without what it maps from files, is looked at 20 times a second:
the most that was seen since the first gradient steps must not grow with the data.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import gymnasium
import numpy as np

RESULTS = Path(__file__).parent / "results"
MIB = 2**20
#: What a reader may hold, and how large the data are beside it.
HELD, TIMES = 128 * MIB, (1, 4, 16)
#: Steps of an episode, and bytes that are seen in each.
LENGTH, SEEN = 255, 4096
BATCH = 256
#: The most by which memory may grow with the data.
GATE = 1.2


def write(directory, size):
    """Writes episodes of so many bytes."""
    from kerasrl import offline

    seen = gymnasium.spaces.Box(0, 255, (SEEN,), np.uint8)
    generator = np.random.default_rng(0)
    with offline.Writer(directory, seen, gymnasium.spaces.Discrete(4)) as writer:
        for _ in range(size // ((LENGTH + 1) * SEEN)):
            observations = generator.integers(
                256, size=(LENGTH + 1, SEEN), dtype=np.uint8
            )
            actions = generator.integers(4, size=LENGTH)
            rewards = np.ones(LENGTH)
            writer.add(offline.Episode(observations, actions, rewards, True))


def resident():
    """Bytes of memory of this process that are no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(x.split()[1]) * 1024 for x in lines if x.startswith("RssAnon"))


def learn(directory):
    """Reads all of it once; returns megabytes before, at most, and seconds."""
    import kerasrl

    class Streaming(kerasrl.BC):
        def reader_arguments(self):
            return {**super().reader_arguments(), "memory_bytes": HELD}

    dataset = kerasrl.offline.load(directory)
    agent = Streaming(policy={"hidden_units": (16,)}, batch_size=BATCH, seed=0)
    agent.compile(jit_compile=False)
    before = resident()
    seen, over = [], threading.Event()

    def look():
        while not over.wait(0.05):
            seen.append(resident())

    looking = threading.Thread(target=look)
    looking.start()
    start = time.perf_counter()
    agent.fit(dataset, steps=dataset.num_steps // BATCH + 1, verbose=0)
    seconds = time.perf_counter() - start
    over.set()
    looking.join()
    return {
        "data_mib": dataset.nbytes / MIB,
        "before_mib": before / MIB,
        "most_mib": max(seen) / MIB,
        "steps_per_second": dataset.num_steps / seconds,
    }


def main():
    """Measures each size in a process of its own, and writes a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        what, directory = arguments.one
        if what == "learn":
            print(json.dumps(learn(directory)))
        else:
            write(directory, int(what) * HELD)
        return
    found = []
    for times in TIMES:
        with tempfile.TemporaryDirectory() as directory:
            for what in (str(times), "learn"):
                text = subprocess.run(
                    [sys.executable, __file__, "--one", what, directory],
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout
            found.append(json.loads(text.splitlines()[-1]))
            print(found[-1], flush=True)
    lines = [
        "| data, MiB | memory before, MiB | the most, MiB | steps per second |",
        "| --- | --- | --- | --- |",
    ]
    for each in found:
        lines.append("| " + " | ".join(f"{x:,.0f}" for x in each.values()) + " |")
    growth = found[-1]["most_mib"] / found[0]["most_mib"]
    lines += ["", f"{growth:.2f} times as much for {TIMES[-1]} times the data. "]
    lines[-1] += f"Gate: at most {GATE}."
    text = "\n".join(lines) + "\n"
    print(text)
    (RESULTS / "offline_memory.md").write_text(text)
    (RESULTS / "offline_memory.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
