"""Trainings of two ranks repeat, with workers too, resume, and are logged once."""

import json

import launching
import numpy as np
import pytest

from kerasrl.agents import epsilon_ladder

OTHERS = ["overlapping_sac", "sac", "other", "with_data", "apex"]


# One test for each engine, so that processes are started once. What is tested is the
# same for both; one is enough for every day, and of that, without what has parts of the
# other trainings.
@pytest.mark.parametrize(
    "mode, others",
    [
        ("horovod", []),
        pytest.param("horovod", OTHERS, marks=pytest.mark.slow),
        pytest.param("multiworker", OTHERS, marks=pytest.mark.slow),
    ],
)
def test_two_ranks(mode, others, tmp_path):
    launching.run(mode, "whole_runs.py", tmp_path, *others)
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for name in ("ppo", *others[:3]):
        check_ranks_agree(*(rank[name] for rank in ranks))
    for name in ("ppo", "overlapping_sac") if others else ("ppo",):
        for rank in ranks:
            check_same_seed_repeats(rank[name])
            check_checkpoint_goes_on(rank[name])
        check_a_killed_worker(*(rank[name]["killed"] for rank in ranks))
    if others:
        check_each_rank_reads_in_its_order(*(rank["with_data"] for rank in ranks))
    for rank in ranks:
        if others:
            assert rank["other"]["common"] != rank["ppo"]["common"]
            check_reading_goes_on(rank["with_data"])
        check_stopped_together_and_wrote_once(rank["callbacks"])
    check_steps_and_episodes(*(rank["ppo"] for rank in ranks))
    check_importance_weights(*(rank["weights"] for rank in ranks))
    if others:
        check_updates(*(rank["overlapping_sac"] for rank in ranks))
        check_shards_of_ranks(*(rank["apex"] for rank in ranks))


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


def check_checkpoint_goes_on(rank):
    assert rank["loaded"] == rank["more"] != rank["own"]
    assert same(rank["loaded_logs"], rank["more_logs"])


def check_each_rank_reads_in_its_order(first, second):
    for name in ("beside", "alone"):
        assert first[name]["common"] == second[name]["common"]
        assert first[name]["after"]["seed"] != second[name]["after"]["seed"]


def check_reading_goes_on(found):
    for each in found.values():
        assert each["loaded"] == each["own"]
        assert each["after"]["seed"] == each["before"]["seed"]
        assert each["after"] != each["before"]


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


def check_updates(first, second):
    assert first["updates"] == second["updates"] != 0


def check_a_killed_worker(first, second):
    assert (first["warnings"], second["warnings"]) == (0, 1)
    assert first["common"] == second["common"]
    # The worker has one environment.
    assert first["env_steps"] == second["env_steps"] == 256 - second["lost"]


def check_importance_weights(first, second):
    """By definition: either rank is chosen with equal probability."""
    assert len(first["used"]) == len(first["drawn"]) == len(second["used"]) > 5
    differ = False
    for phase in range(len(first["used"])):
        drawn = [rank["drawn"][phase] for rank in (first, second)]
        used = np.array([rank["used"][phase] for rank in (first, second)])
        total = sum(each["size"] for each in drawn)
        joint = np.array([each["probabilities"] for each in drawn]) / len(drawn)
        weights = (total * joint) ** -0.7
        weights /= weights.max(axis=(0, 2), keepdims=True)
        np.testing.assert_allclose(used, weights, rtol=1e-5)
        differ |= bool((used.max(axis=2) < 0.9).any())
    # Else weights of each rank by itself would do.
    assert differ


def check_shards_of_ranks(first, second):
    """Ape-X: what is learnt is common, what is replayed is each worker's own."""
    assert first["common"] == second["common"] != first["initial"]
    assert same(first["logs"], second["logs"]) and np.isfinite(first["logs"]["loss"])
    assert first["env_steps"] == second["env_steps"] == 768
    assert first["updates"] == second["updates"] > 20
    for rank in (first, second):
        assert sum(rank["sizes"]) == 384 and min(rank["sizes"]) > 0
    assert len({*first["shards"], *second["shards"]}) == 4
    # One ladder over the environments of all workers of all ranks.
    ladder = first["epsilons"] + second["epsilons"]
    np.testing.assert_allclose(ladder, epsilon_ladder(8), rtol=1e-6)
