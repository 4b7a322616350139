"""Preprocessors by name: registered, asked for in env_config, sent to workers."""

import gymnasium
import numpy as np
import pytest

import kerasrl
from kerasrl.envs import make_envs, preprocessors, register_env
from kerasrl.workers import make_environments


class First(gymnasium.ObservationWrapper):
    """The first numbers of an observation."""

    def __init__(self, env, count=2):
        super().__init__(env)
        low, high = (getattr(env.observation_space, x)[:count] for x in ("low", "high"))
        self.observation_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        self.count = count

    def observation(self, observation):
        return observation[: self.count]


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    known = preprocessors._PREPROCESSORS
    monkeypatch.setattr(known, "_known", {})
    kerasrl.register_preprocessor("first", First)
    kerasrl.register_preprocessor("one", lambda env: First(env, 1))
    kerasrl.register_preprocessor("broken", lambda env: 3)
    register_env("plain", lambda context: gymnasium.make("CartPole-v1", **context))


@pytest.mark.parametrize("env", ["CartPole-v1", "plain"])
@pytest.mark.parametrize(
    ("config", "count"),
    [
        ({"preprocessor": "first"}, 2),
        ({"preprocessor": "one"}, 1),
        ({"preprocessor": "first", "preprocessor_config": {"count": 3}}, 3),
        ({"preprocessor": None}, 4),
    ],
)
def test_environments_are_wrapped(env, config, count):
    config["sutton_barto_reward"] = True
    envs = make_envs(env, 3, config)
    assert envs.observation_space.shape == (count,)
    assert envs.reset([0, 1, 2]).shape == (3, count)
    assert envs.name == env
    envs.close()
    assert config["sutton_barto_reward"] is True and "preprocessor" in config


def test_factories_are_wrapped():
    envs = make_envs(lambda: gymnasium.make("CartPole-v1"), 2, {"preprocessor": "one"})
    assert envs.observation_space.shape == (1,)
    envs.close()


@pytest.mark.parametrize(
    ("env", "config", "error", "message"),
    [
        ("CartPole-v1", {"preprocessor": "frist"}, ValueError, "Did you mean 'first'"),
        ("CartPole-v1", {"preprocessor": "x"}, ValueError, "broken, first, one.*regis"),
        ("CartPole-v1", {"preprocessor": "broken"}, TypeError, "gymnasium.Wrapper"),
        ("CartPole-v1", {"preprocessor_config": {}}, ValueError, "without a prepro"),
        (
            "CartPole-v1",
            {"preprocessor": "one", "preprocessor_config": 3},
            ValueError,
            "a dict of arguments",
        ),
        (
            lambda: gymnasium.make_vec("CartPole-v1", 2),
            {"preprocessor": "one"},
            ValueError,
            "'one' wraps single environments",
        ),
    ],
)
def test_what_cannot_be(env, config, error, message):
    with pytest.raises(error, match=message):
        make_envs(env, 1, config)


def test_environments_that_exist_are_not_wrapped():
    env = gymnasium.make("CartPole-v1")
    with pytest.raises(ValueError, match="cannot change an environment that exists"):
        make_envs(env, env_config={"preprocessor": "one"})
    env.close()


def test_arguments_that_it_does_not_take():
    config = {"preprocessor": "first", "preprocessor_config": {"number": 3}}
    with pytest.raises(TypeError, match="number") as caught:
        make_envs("CartPole-v1", 1, config)
    assert "raised by the preprocessor 'first'" in caught.value.__notes__[0]


@pytest.mark.parametrize("wrapper", [3, dict, "first", gymnasium.Env])
def test_only_wrappers_are_registered(wrapper):
    with pytest.raises(TypeError, match=r"Expected a subclass of gymnasium\.Wrapper"):
        kerasrl.register_preprocessor("other", wrapper)


def test_workers_know_them():
    config = {"preprocessor": "first", "preprocessor_config": {"count": 3}}
    envs = make_environments("CartPole-v1", 2, config, num_workers=1)
    try:
        assert envs.observation_space.shape == (3,)
    finally:
        envs.close()
