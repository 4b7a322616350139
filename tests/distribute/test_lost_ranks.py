"""When a rank is lost, the others end with an error, or go on without it."""

import os
import signal
import time

import launching
import pytest

from kerasrl.distribute.elastic import newest_checkpoint

SCRIPT = "until_told.py"
#: Seconds within which the whole job must have ended, as `docs/distributed.md` says.
LIMIT = 30
STARTING = 240


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["horovod", "multiworker"])
def test_a_killed_rank_ends_the_job(mode, tmp_path):
    processes = launching.launch(mode, SCRIPT, tmp_path)
    outputs = kill_one_of_two(tmp_path, processes)
    assert all(process.returncode != 0 for process in processes)
    if mode == "horovod":
        # By the launcher, which may be faster than the other rank's own message.
        assert "Process 1 exit with status code 137" in outputs[0]
    else:
        assert "Rank 0 of 2 lost contact with another rank" in outputs[0]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["horovod", "multiworker"])
def test_starting_again_goes_on_from_the_last_checkpoint(mode, tmp_path):
    kill_one_of_two(tmp_path, launching.launch(mode, SCRIPT, tmp_path))
    before = epochs(tmp_path)
    saved = int(newest_checkpoint(tmp_path).name.removeprefix("checkpoint-"))
    (tmp_path / "finish").touch()
    launching.run(mode, SCRIPT, tmp_path)
    (ranks, iterations, steps), *more = epochs(tmp_path)[len(before) :]
    assert ranks == 2 and not more
    # An epoch is one iteration of 16 steps in 2 environments of each rank.
    assert iterations == saved + 1
    assert steps == 64 * iterations


@pytest.mark.slow
def test_horovod_goes_on_without_a_killed_rank(tmp_path):
    (process,) = launching.launch("elastic", SCRIPT, tmp_path)
    wait_for(lambda: epochs(tmp_path)[3:], [process])
    before = epochs(tmp_path)
    assert all(ranks == 3 for ranks, *_ in before)
    kill(tmp_path, rank=1)
    wait_for(lambda: epochs(tmp_path)[-1][0] == 2, [process])
    (tmp_path / "finish").touch()
    output = launching.finish(process)
    assert process.returncode == 0, output[-6000:]
    assert "going on with 2 instead of 3, from" in output
    first = next(each for each in epochs(tmp_path) if each[0] == 2)
    assert first[1] > 2
    # Of three ranks until the checkpoint, of two from there.
    assert first[2] == 96 * (first[1] - 1) + 64


def kill_one_of_two(folder, processes):
    """Kills a rank; returns what was printed when the whole job has ended."""
    wait_for(lambda: epochs(folder)[3:], processes)
    kill(folder, rank=1)
    start = time.monotonic()
    outputs = [launching.finish(process) for process in processes]
    assert time.monotonic() - start < LIMIT, outputs
    return outputs


def kill(folder, rank):
    os.kill(int((folder / f"{rank}.pid").read_text()), signal.SIGKILL)


def epochs(folder):
    """Ranks, iterations and environment steps of the epochs so far."""
    file = folder / "epochs.txt"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [[int(n) for n in line.split()] for line in lines if line.endswith("\n")]


def wait_for(condition, processes):
    end = time.monotonic() + STARTING
    while not condition():
        ended = [process for process in processes if process.poll() is not None]
        if ended or time.monotonic() > end:
            for process in processes:
                process.kill()
            pytest.fail("\n".join(process.communicate()[0] for process in processes))
        time.sleep(0.05)
