"""Killing workers and learners at random moments, and counting what is lost."""

import os
import random
import resource
import signal
import threading
import time
from pathlib import Path

from launch import start

import kerasrl
from kerasrl.workers import stacks

NUM_KILLS = 20
#: Seconds; iterations are shorter, so kills hit workers in whatever they are doing.
LONGEST_DELAY = 0.1
#: Seconds that workers may take to end after the learner.
LONGEST_END = 2.0


class Kills(kerasrl.callbacks.Callback):
    """Kills workers (`kill -9`) at random moments, and looks at what is lost by it.

    Args:
        steps: Integer, environment steps of the run.
        seed: Integer.
    """

    def __init__(self, steps, seed):
        super().__init__()
        self.random = random.Random(seed)
        self.times = sorted(
            self.random.uniform(0, 0.9 * steps) for _ in range(NUM_KILLS)
        )
        self.killed, self.megabytes = [], []
        self.replaced = self.fragments = self.valid_steps = self.partly_lost = 0

    def on_train_batch_begin(self, batch, logs=None):
        while self.times and self.agent.env_steps >= self.times[0]:
            self.times.pop(0)
            delay = self.random.uniform(0.0, LONGEST_DELAY)
            threading.Timer(delay, self.kill, [self.agent.workers]).start()

    def kill(self, pool):
        """Kills one of the workers that live."""
        while True:
            living = sorted(set(pool.pids) - set(self.killed))
            if living:
                self.killed.append(self.random.choice(living))
                os.kill(self.killed[-1], signal.SIGKILL)
                return
            time.sleep(0.01)

    def on_rollout_end(self, rollout):
        """Counts the parts of workers, which must be lost as a whole or not at all."""
        pool = self.agent.workers
        first, count = rollout.first_env, rollout.valid.shape[1]
        for envs in pool.slices:
            # Of all workers, or of the one whose fragment it is.
            valid = rollout.valid[:, max(envs.start - first, 0) : envs.stop - first]
            if first <= envs.start < first + count:
                self.fragments += not valid.any()
                self.partly_lost += valid.any() and not valid.all()
        self.valid_steps += int(rollout.valid.sum())
        self.replaced = sum(pool.generations)
        self.megabytes.append(resident())

    def found(self):
        """What happened, for the report."""
        return {
            "killed": len(self.killed),
            "replaced": self.replaced,
            "fragments_lost": self.fragments,
            "fragments_partly_lost": int(self.partly_lost),
            "valid_steps": self.valid_steps,
            # From the middle of the run on, when all has been compiled.
            "megabytes_grown": self.megabytes[-1]
            - self.megabytes[len(self.megabytes) // 2],
        }


def resident():
    """Megabytes of memory of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 2**20


def kill_learner(command, folder, seed):
    """Starts a training with workers, and kills it after a checkpoint.

    Args:
        command: List of strings, what trains and writes checkpoints to `folder`.
        folder: Path.
        seed: Integer, of the moment.

    Returns:
        Dict of what remains: `processes` and `shared_memory`, which should be 0.
    """
    before = set(os.listdir("/dev/shm"))
    learner = start(command)
    while not list(folder.glob("checkpoint-*")):
        if learner.poll() is not None:
            raise RuntimeError(f"{command}\n{learner.communicate()[0][-6000:]}")
        time.sleep(0.1)
    time.sleep(random.Random(seed).uniform(0.0, 3.0))
    workers = stacks.workers_of(learner.pid)
    if len(workers) != 2:
        raise RuntimeError(f"Expected 2 workers. Found: {workers}")
    learner.kill()
    learner.communicate()
    deadline = time.monotonic() + LONGEST_END
    while any(map(runs, workers)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return {
        "workers": len(workers),
        "processes_left": sum(map(runs, workers)),
        "shared_memory_left": len(set(os.listdir("/dev/shm")) - before),
    }


def runs(pid):
    """Whether a process runs; one that only waits to be noticed by init does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
