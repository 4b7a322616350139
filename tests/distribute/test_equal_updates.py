"""Replicas on parts of a batch update as one replica does on the whole batch."""

import launching
import numpy as np
import pytest

SCRIPT = "equal_updates.py"
ALGORITHMS = ("PPO", "DQN", "SAC", "R2D2")
#: What ranks compute from their own part only.
OWN_METRICS = ("explained_variance",)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What one replica does."""
    folder = tmp_path_factory.mktemp("whole")
    launching.run("single", SCRIPT, folder)
    return dict(np.load(folder / "0.npz"))


# One test for each engine, so that processes are started once.
@pytest.mark.parametrize("mode", ["mirrored:2", "multiworker", "horovod"])
def test_parts_update_as_the_whole(mode, whole, tmp_path):
    launching.run(mode, SCRIPT, tmp_path)
    parts = [dict(np.load(file)) for file in sorted(tmp_path.glob("*.npz"))]
    assert len(parts) == (1 if mode == "mirrored:2" else 2)
    for name in ALGORITHMS:
        check_weights_and_metrics(name, whole, parts)
        check_clipping(name, whole)
    for name in ALGORITHMS[1:]:
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
    assert whole[f"{name}/metrics/gradient_steps"] == 3
