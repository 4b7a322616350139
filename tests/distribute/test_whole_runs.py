"""Trainings of two ranks repeat, resume, and are logged once."""

import json

import launching
import pytest


# One test for each engine, so that processes are started once. What is tested is the
# same for both; one is enough for every day.
@pytest.mark.parametrize(
    "mode", ["horovod", pytest.param("multiworker", marks=pytest.mark.slow)]
)
def test_two_ranks(mode, tmp_path):
    launching.run(mode, "whole_runs.py", tmp_path)
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for name in ("ppo", "sac"):
        check_ranks_agree(*(rank[name] for rank in ranks))
        for rank in ranks:
            check_same_seed_repeats(rank[name])
            check_checkpoint_goes_on(rank[name])
    check_steps_and_episodes(*(rank["ppo"] for rank in ranks))
    for rank in ranks:
        check_stopped_together_and_wrote_once(rank["callbacks"])


def same(first, second):
    # As text, because NaN differs from itself.
    return json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)


def check_ranks_agree(first, second):
    assert first["common"] == second["common"]
    assert same(first["logs"], second["logs"])
    # Their environments, noise and replay are their own.
    assert first["own"] != second["own"]


def check_same_seed_repeats(rank):
    assert rank["again"] == rank["own"]
    assert same(rank["again_logs"], rank["logs"])
    assert rank["other"] != rank["common"]


def check_checkpoint_goes_on(rank):
    assert rank["loaded"] == rank["more"]
    assert same(rank["loaded_logs"], rank["more_logs"])


def check_steps_and_episodes(first, second):
    assert first["env_steps"] == 512
    # 512 steps in episodes of about 20.
    assert 12 < first["episodes"] < 50
    assert first["episodes"] == second["episodes"]


def check_stopped_together_and_wrote_once(callbacks):
    assert callbacks["epochs"] == [0, 1]
    assert callbacks["rows"] == 2
    # One numbered checkpoint is kept, with its part of the second rank.
    files = [f for f in callbacks["files"] if f.startswith("checkpoint-")]
    numbered = [f for f in files if f[11].isdigit()]
    assert numbered == [numbered[0], f"{numbered[0]}.rank1"]
