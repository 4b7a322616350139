"""Functions that are trials, without TensorFlow, and what tests ask of processes.

Trials run this file by its path.
"""

import json
import os
import pathlib
import subprocess
import sys
import time

PATH = pathlib.Path(__file__).resolve()


def climb(context):
    """Adds `speed` to a level in each of `epochs`, and keeps it in checkpoints."""
    settings = context.settings
    level, done = 0.0, 0
    if context.checkpoint is not None:
        level, done = json.loads(context.checkpoint.read_text())
    for epoch in range(done, settings.get("epochs", 5)):
        time.sleep(settings.get("pause", 0.0))
        level += settings["speed"] + 0.001 * context.seed
        path = context.directory / f"checkpoint-{epoch + 1}"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps([level, epoch + 1]))
        os.replace(temporary, path)
        result = {"episode_return_mean": level, "env_steps": 100 * (epoch + 1)}
        context.report(result, checkpoint=path)


def crash(context):
    """Climbs, and crashes where `crashes` says, as often as it says."""
    marks = context.directory / "crashes"
    crashed = len(marks.read_text()) if marks.exists() else 0
    if crashed < context.settings.get("crashes", 0):
        context.settings["epochs"] = 2 + crashed
        climb(context)
        with open(marks, "a") as file:
            file.write("x")
        print("about to crash")
        raise RuntimeError("the motor burnt out")
    climb(context)


def fork(context):
    """Has a child that outlives it, and climbs slowly."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (context.directory / "child").write_text(str(child.pid))
    climb(context)


def without_checkpoint(context):
    """Reports, and nothing more."""
    for epoch in range(3):
        context.report({"episode_return_mean": float(epoch), "env_steps": epoch})


def show_environment(context):
    """Reports the variables that its slot has set."""
    names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "CUDA_VISIBLE_DEVICES")
    (context.directory / "environment.json").write_text(
        json.dumps({name: os.environ.get(name) for name in names})
    )
    context.report({"episode_return_mean": 0.0, "env_steps": 1, "nothing": "nan"})


def processes_of(directory):
    """Ids of the processes that have a directory among their arguments."""
    found = []
    for place in pathlib.Path("/proc").iterdir():
        if not place.name.isdigit():
            continue
        try:
            arguments = (place / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(directory) in arguments and "trial_process" in arguments:
            found.append(int(place.name))
    return found


def is_alive(pid):
    """Whether a process runs; one that is over and not waited for does not."""
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except OSError:
        return False
    return state.split()[0] not in ("Z", "X")


def wait_until(condition, seconds=20.0):
    """Waits for something to be so; fails if it is not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)
