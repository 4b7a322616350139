"""Ranks with worker processes of their own, and with parts of a replay buffer."""

import json

import launching
import numpy as np
import pytest


# One test for each engine, so that processes are started once. What is tested is the
# same for both; one is enough for every day.
@pytest.mark.parametrize(
    "mode", ["horovod", pytest.param("multiworker", marks=pytest.mark.slow)]
)
def test_two_ranks(mode, tmp_path):
    launching.run(mode, "workers_and_shards.py", tmp_path)
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for name in ("ppo", "overlapping_sac"):
        check_ranks_agree(*(rank[name] for rank in ranks))
        for rank in ranks:
            check_repeats_and_resumes(rank[name])
        check_a_killed_worker(*(rank[name]["killed"] for rank in ranks))
    check_importance_weights(*(rank["weights"] for rank in ranks))


def check_ranks_agree(first, second):
    assert first["common"] == second["common"]
    assert first["straight"] != second["straight"]
    assert first["updates"] == second["updates"] != 0


def check_repeats_and_resumes(rank):
    assert rank["alone"] == rank["straight"]
    assert rank["loaded"] == rank["more"] != rank["straight"]


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
