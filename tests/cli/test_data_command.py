"""`kerasrl data info|convert|merge`."""

import pathlib
import sys

import gymnasium
import numpy as np
import pytest
from click.testing import CliRunner

from kerasrl import offline
from kerasrl.cli import main


def run(*arguments):
    return CliRunner().invoke(main, ["data", *map(str, arguments)])


@pytest.fixture
def directory(tmp_path):
    env = gymnasium.make("CartPole-v1")
    env = offline.RecordEpisodes(env, tmp_path / "data")
    env.reset(seed=0)
    for _ in range(60):
        env.note(log_probs=np.log(0.5))
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()
    env.close()
    return tmp_path


def test_info_says_what_is_there(directory):
    result = run("info", directory / "data")
    assert result.exit_code == 0, result.output
    for text in ("Steps:             60", "log_probs", "CartPole-v1", "Discrete(2)"):
        assert text in result.output
    result = run("info", directory / "nothing")
    assert result.exit_code == 2 and "There is no data set" in result.output


def test_data_go_through_other_formats_and_together(directory):
    steps = [("data", "lines", "json"), ("lines", "back", "kerasrl")]
    if "h5py" in sys.modules or _has_h5py():
        steps += [("back", "hdf", "minari"), ("hdf", "again", "kerasrl")]
    for source, target, kind in steps:
        more = ["--env", "CartPole-v1"] if source == "lines" else []
        paths = (directory / source, directory / target)
        result = run("convert", *paths, "--to", kind, *more)
        assert result.exit_code == 0, result.output
    last = steps[-1][1]
    result = run("merge", directory / "both", directory / "data", directory / last)
    assert "120 steps" in result.output
    data = offline.load(directory / "both")
    assert data.num_steps == 120 and data.extras == ["log_probs"]
    half = data.num_episodes // 2
    for one, other in zip(data.episodes[:half], data.episodes[half:], strict=True):
        np.testing.assert_array_equal(one.observations, other.observations)
    result = run("merge", directory / "both", directory / "data")
    assert result.exit_code == 2 and "there already" in result.output


def test_damaged_files_are_skipped_if_asked_for(directory):
    (path,) = pathlib.Path(directory / "data").glob("shard-*")
    path.write_bytes(path.read_bytes()[:-30])
    assert run("info", directory / "data").exit_code == 2
    with pytest.warns(UserWarning, match="1 damaged"):
        result = run("info", directory / "data", "--skip-damaged")
    assert "1 files or lines left out" in result.output


def _has_h5py():
    try:
        import h5py  # noqa: F401
    except ImportError:
        return False
    return True
