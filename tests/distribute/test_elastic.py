"""Going on from the newest checkpoint, in one process."""

import json

import pytest
from click.testing import CliRunner

from kerasrl import distribute
from kerasrl.cli import main
from kerasrl.distribute.elastic import Hosts, newest_checkpoint

SMALL = [
    *("--set", "rollout_length=16", "--set", "num_epochs=1"),
    *("--set", "minibatch_size=16", "--set", "policy.hidden_units=[8]"),
    *("--num-envs", "2", "--seed", "3", "--progress", "none", "--eval-episodes", "0"),
]


def train(*arguments):
    command = ["train", "PPO", "CartPole-v1", "--elastic", *SMALL, *arguments]
    return CliRunner().invoke(main, [str(argument) for argument in command])


def test_the_same_command_goes_on(tmp_path):
    directory = tmp_path / "run"
    first = train("--logdir", directory, "--steps", 64)
    assert first.exit_code == 0, first.output
    assert newest_checkpoint(directory).name == "checkpoint-2"
    # Hyperparameters on the line are those in the checkpoint: they are not refused.
    second = train("--logdir", directory, "--steps", 160)
    assert second.exit_code == 0, second.output
    rows = (directory / "result.json").read_text().splitlines()
    assert [json.loads(row)["env_steps"] for row in rows] == [64, 160]
    third = train("--logdir", directory, "--steps", 160)
    assert third.exit_code == 0
    expected = f"All steps are done. Checkpoint: {directory / 'checkpoint-5'}\n"
    assert third.output == expected


@pytest.mark.parametrize("arguments", [[], ["--logdir", "run", "--resume", "file"]])
def test_elastic_wants_a_directory_and_finds_the_checkpoint_itself(arguments):
    result = train(*arguments)
    assert result.exit_code == 2
    assert "in --logdir DIR: give that, and not --resume" in result.output


def test_newest_is_the_highest_number_of_the_first_rank(tmp_path):
    assert newest_checkpoint(tmp_path / "none") is None
    for name in ("9", "10", "11.rank1", "best", "best.json"):
        (tmp_path / f"checkpoint-{name}").touch()
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-10"


def test_a_function_is_given_what_rank_0_found(tmp_path):
    (tmp_path / "checkpoint-4").touch()
    result = distribute.run_elastic(lambda checkpoint: [checkpoint], tmp_path)
    assert result == [str(tmp_path / "checkpoint-4")]


class TwoRanks:
    """The other rank has heard of new hosts, or not."""

    def __init__(self, other):
        self.other = other
        self.found = 0

    def gather_data(self, data):
        return [data, self.other]

    def find_place(self):
        self.found += 1


def test_all_ranks_leave_when_one_has_heard_of_other_hosts():
    from horovod.common.exceptions import HostsUpdatedInterrupt

    Hosts(TwoRanks(other=False)).check()
    with pytest.raises(HostsUpdatedInterrupt):
        Hosts(TwoRanks(other=True)).check()
    replicas = TwoRanks(other=False)
    hosts = Hosts(replicas)
    hosts.on_hosts_updated(timestamp=1, update_res=2)
    with pytest.raises(HostsUpdatedInterrupt):
        hosts.check()
    hosts.on_reset()
    hosts.check()
    assert replicas.found == 1
