"""Replicas on parts of a batch update as one replica does on the whole batch."""

import launching
import numpy as np
import pytest

SCRIPT = "equal_updates.py"
ALGORITHMS = ("PPO", "IMPALA", "DQN", "SAC", "R2D2")
DAILY = ("PPO", "SAC")
#: Weighted as R2D2 and PPO are.
LIKE_OTHERS = ("IMPALA", "DQN", "APPO", "A3C", "DDPG_recurrent", "SAC_recurrent")
ON_POLICY = ("PPO", "A3C", "IMPALA", "APPO")
#: What ranks compute from their own part only.
OWN_METRICS = ("explained_variance",)


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory):
    return run_mirrored(tmp_path_factory.mktemp("mirrored"), DAILY)


def run_mirrored(folder, names):
    """What two replicas of one process do, and what one does."""
    launching.run("mirrored:2", SCRIPT, folder, *names)
    return [dict(np.load(folder / name)) for name in ("0.npz", "whole.npz")]


def test_replicas_of_a_process_update_as_the_whole(mirrored):
    part, whole = mirrored
    check(DAILY, whole, [part])


@pytest.mark.slow
def test_those_that_are_like_others(tmp_path):
    part, whole = run_mirrored(tmp_path, LIKE_OTHERS)
    check(LIKE_OTHERS, whole, [part])


# One test for each engine, so that processes are started once. Whatever is learnt, an
# engine has sums and means to exchange: every day, each way of them is tried.
@pytest.mark.parametrize(
    "mode, names",
    [
        ("multiworker", ("PPO",)),
        ("horovod", ("SAC",)),
        pytest.param("horovod", ALGORITHMS, marks=pytest.mark.slow),
        pytest.param("multiworker", ALGORITHMS, marks=pytest.mark.slow),
    ],
)
def test_parts_update_as_the_whole(mode, names, mirrored, tmp_path):
    launching.run(mode, SCRIPT, tmp_path, *names)
    parts = [dict(np.load(tmp_path / f"{rank}.npz")) for rank in range(2)]
    if not set(names) <= set(DAILY):
        mirrored = run_mirrored(tmp_path, names)
    check(names, mirrored[1], parts)


def check(names, whole, parts):
    for name in names:
        check_weights_and_metrics(name, whole, parts)
        check_clipping(name, whole)
        if name not in ON_POLICY:
            check_errors_of_samples(name, whole, parts)


def check_weights_and_metrics(name, whole, parts):
    keys = [key for key in whole if key.startswith(f"{name}/")]
    keys = [key for key in keys if not key.endswith((*OWN_METRICS, "td_errors"))]
    assert len(keys) > 10
    for part in parts:
        for key in keys:
            np.testing.assert_allclose(
                part[key], whole[key], rtol=2e-5, atol=2e-6, err_msg=key
            )


def check_errors_of_samples(name, whole, parts):
    """Each rank keeps those of its own samples, which become priorities."""
    errors = np.concatenate([part[f"{name}/td_errors"] for part in parts], axis=1)
    expected = whole[f"{name}/td_errors"]
    np.testing.assert_allclose(errors, expected, rtol=2e-5, atol=2e-5)


def check_clipping(name, whole):
    assert whole[f"{name}/metrics/gradient_norm"] > 2 * 0.05
    if name not in ("A3C", "IMPALA"):  # They take one.
        assert whole[f"{name}/metrics/gradient_steps"] == 3
