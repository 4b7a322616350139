"""Trainings of two ranks repeat, resume, and are logged once."""

import json

import launching
import pytest


@pytest.fixture(scope="module", params=["horovod", "multiworker"])
def ranks(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    launching.run(request.param, "whole_runs.py", folder)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def same(first, second):
    # As text, because NaN differs from itself.
    return json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)


@pytest.mark.parametrize("name", ["ppo", "sac"])
def test_ranks_have_weights_and_logs_in_common(name, ranks):
    first, second = (rank[name] for rank in ranks)
    assert first["common"] == second["common"]
    assert same(first["logs"], second["logs"])
    # Their environments, noise and replay are their own.
    assert first["own"] != second["own"]


@pytest.mark.parametrize("name", ["ppo", "sac"])
def test_the_same_seed_repeats_all_of_every_rank(name, ranks):
    for rank in ranks:
        assert rank[name]["again"] == rank[name]["own"]
        assert same(rank[name]["again_logs"], rank[name]["logs"])
        assert rank[name]["other"] != rank[name]["common"]


@pytest.mark.parametrize("name", ["ppo", "sac"])
def test_a_checkpoint_goes_on_exactly_in_every_rank(name, ranks):
    for rank in ranks:
        assert rank[name]["loaded"] == rank[name]["more"]
        assert same(rank[name]["loaded_logs"], rank[name]["more_logs"])


def test_steps_and_episodes_are_those_of_all_ranks(ranks):
    assert ranks[0]["ppo"]["env_steps"] == 512
    # 512 steps in episodes of about 20.
    assert 12 < ranks[0]["ppo"]["episodes"] < 50
    assert ranks[0]["ppo"]["episodes"] == ranks[1]["ppo"]["episodes"]


def test_ranks_stop_together_and_write_once(ranks):
    for rank in ranks:
        assert rank["callbacks"]["epochs"] == [0, 1]
        files = rank["callbacks"]["files"]
        assert rank["callbacks"]["rows"] == 2
        # One numbered checkpoint is kept, with its part of the second rank.
        numbered = [f for f in files if f.startswith("checkpoint-") and f[11].isdigit()]
        assert len(numbered) == 2
        assert numbered[1] == f"{numbered[0]}.rank1"
