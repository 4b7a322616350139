import subprocess
import sys

import click
import pytest
from light_trials import PATH, wait_until

from kerasrl.tuning.queue_file import QueueFile
from kerasrl.tuning.runner import Runner
from kerasrl.tuning.slots import Slots

ENTRY = (
    "{name}:\n  run: " + f"{PATH}:climb" + "\n  env: E\n"
    "  config: {{speed: {{grid_search: [1, 2]}}, pause: {pause}}}\n"
)


@pytest.fixture
def queue(tmp_path):
    """A queue of one experiment, and what it says."""
    path = tmp_path / "queue.yaml"
    path.write_text(ENTRY.format(name="first", pause=0))
    said = []
    made = QueueFile(path, tmp_path / "run", said.append, check=lambda trials: None)
    made.said = said
    return made


def read(queue):
    """What a look at the file that is due gives."""
    queue._next = 0.0
    return queue.more(True)


def test_experiments_that_are_added_join(queue):
    assert [trial.tag for trial in read(queue)] == ["speed=1", "speed=2"]
    assert read(queue) == []
    with open(queue.path, "a") as file:
        file.write(ENTRY.format(name="second", pause=1))
    trials = read(queue)
    assert {trial.experiment for trial in trials} == {"second"}
    assert trials[0].directory.parent == queue.root / "second"
    assert queue.said[-1].endswith("2 trials of " + f"{queue.path} join the queue.")


def test_what_cannot_be_read_waits(queue):
    read(queue)
    before = queue.path.read_text()
    for broken in ("second: {run: [", "second: {rn: PPO}", "second: {run: 5}"):
        queue.path.write_text(before + broken)
        assert read(queue) == []
        assert "to be mended" in queue.said.pop()
        # Once for each change.
        assert read(queue) == [] and "to be mended" not in queue.said[-1]
    queue.path.write_text(before + ENTRY.format(name="second", pause=1))
    assert len(read(queue)) == 2


def test_what_changed_or_went_goes_on_as_it_was(queue):
    read(queue)
    queue.path.write_text(ENTRY.format(name="first", pause=0.5))
    assert read(queue) == []
    assert "first changed, and goes on as it was" in queue.said[-1]
    queue.path.write_text(ENTRY.format(name="third", pause=1))
    assert len(read(queue)) == 2
    queue.path.unlink()
    assert read(queue) == []


def test_a_queue_that_never_could_be_read_is_refused(queue):
    queue.path.write_text("a: [")
    with pytest.raises(click.UsageError, match="cannot be read as YAML"):
        queue.more(False)


def test_a_queue_grows_while_it_runs(tmp_path):
    path = tmp_path / "queue.yaml"
    path.write_text(ENTRY.format(name="first", pause=0.4))
    command = ["launch", path, "--logdir", tmp_path / "run", "--slots", "2"]
    with subprocess.Popen(
        [sys.executable, "-m", "kerasrl", *map(str, command)],
        stdout=subprocess.PIPE,
        text=True,
    ) as launcher:
        try:
            wait_until(lambda: list(tmp_path.glob("run/first/*/result.json")))
            with open(path, "a") as file:
                file.write(ENTRY.format(name="second", pause=0))
            output, _ = launcher.communicate(timeout=30)
        finally:
            launcher.kill()
    assert launcher.returncode == 0, output
    assert len(list(tmp_path.glob("run/second/*/checkpoint-5"))) == 2
    assert len((tmp_path / "run/summary.csv").read_text().splitlines()) == 5
    assert output.count("finished") == 4


def test_a_queue_has_one_directory(queue):
    entry = ENTRY.format(name="first", pause=0)
    queue.path.write_text(entry + "  local_dir: elsewhere\n")
    with pytest.raises(ValueError, match="first: local_dir: all experiments"):
        queue.more(False)


def test_a_launcher_waits_for_a_queue_that_is_broken_though_nothing_runs(queue):
    whole = queue.path.read_text()
    read(queue)
    queue.path.write_text(whole + "second: [")
    ticks = []

    def tick():
        ticks.append(queue.is_broken)
        if len(ticks) == 2:
            queue.path.write_text(whole)

    Runner(
        [],
        queue.root,
        Slots(1),
        more=queue.more,
        is_awaited=lambda: queue.is_broken,
        say=print,
        on_change=tick,
        on_tick=tick,
    ).run()
    assert ticks == [True, True] and not queue.is_broken
    queue.path.write_text("[")
    assert read(queue) == [] and queue.is_broken
    queue.path.unlink()
    assert read(queue) == [] and not queue.is_broken
