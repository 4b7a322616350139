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
    folder = tmp_path_factory.mktemp("single")
    launching.run("single", SCRIPT, folder)
    return dict(np.load(folder / "0.npz"))


@pytest.fixture(scope="module", params=["mirrored:2", "multiworker", "horovod"])
def parts(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    launching.run(request.param, SCRIPT, folder)
    files = sorted(folder.glob("*.npz"))
    assert len(files) == (1 if request.param == "mirrored:2" else 2)
    return [dict(np.load(file)) for file in files]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_weights_and_metrics_are_those_of_the_whole_batch(name, whole, parts):
    keys = [key for key in whole if key.startswith(f"{name}/")]
    keys = [key for key in keys if not key.endswith((*OWN_METRICS, "td_errors"))]
    assert len(keys) > 10
    for part in parts:
        for key in keys:
            np.testing.assert_allclose(
                part[key], whole[key], rtol=2e-5, atol=2e-6, err_msg=key
            )


@pytest.mark.parametrize("name", ["DQN", "SAC", "R2D2"])
def test_each_rank_keeps_the_errors_of_its_samples(name, whole, parts):
    errors = np.concatenate([part[f"{name}/td_errors"] for part in parts], axis=1)
    expected = whole[f"{name}/td_errors"]
    np.testing.assert_allclose(errors, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_gradients_were_clipped(name, whole):
    assert whole[f"{name}/metrics/gradient_norm"] > 2 * 0.05
    assert whole[f"{name}/metrics/gradient_steps"] == 3
