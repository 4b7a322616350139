import importlib.util

import pytest

import kerasrl
from kerasrl.callbacks import VideoRecorder


def test_films_are_written_every_so_many_epochs(tmp_path):
    agent = kerasrl.PPO(rollout_length=16, num_epochs=1, seed=0)
    agent.compile(run_eagerly=True)
    agent.fit(
        "CartPole-v1",
        steps=128,
        steps_per_epoch=32,
        num_envs=2,
        callbacks=[VideoRecorder("CartPole-v1", tmp_path, every_epochs=2, episodes=2)],
        verbose=0,
    )
    films = sorted(path.name for path in tmp_path.glob("*.mp4"))
    assert films == [
        f"CartPole-v1-steps-{steps}-episode-{episode}.mp4"
        for steps in (128, 64)
        for episode in (0, 1)
    ]
    assert all((tmp_path / film).stat().st_size > 1000 for film in films)


def test_the_extra_is_named_when_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "kerasrl\[video\]"'):
        VideoRecorder("CartPole-v1", tmp_path)


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="every_epochs must be at least 1"):
        VideoRecorder("CartPole-v1", tmp_path, every_epochs=0)
