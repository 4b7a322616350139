"""Making environments from ids, names, factories, instances and vector environments."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

from kerasrl import testing
from kerasrl.envs import (
    EnvContext,
    SerialEnvironments,
    VectorEnvironments,
    check_env,
    make_envs,
    register_env,
    registered_envs,
    registration,
)


@pytest.fixture(autouse=True)
def restore_names(monkeypatch):
    monkeypatch.setattr(registration, "_CREATORS", dict(registration._CREATORS))


def test_gymnasium_id():
    envs = make_envs("CartPole-v1")
    assert isinstance(envs, SerialEnvironments)
    assert envs.num_envs == 8 and envs.name == "CartPole-v1"
    assert envs.observation_space.shape == (4,)
    assert make_envs("CartPole-v1", num_envs=3).num_envs == 3


def test_env_config_of_a_gymnasium_id():
    envs = make_envs("CartPole-v1", 1, env_config={"sutton_barto_reward": True})
    envs.reset([0])
    assert envs.step(np.array([0])).rewards[0] == 0.0
    envs = make_envs("CartPole-v1", 1, env_config={"max_episode_steps": 3})
    envs.reset([0])
    steps = [envs.step(np.array([i % 2])).truncated[0] for i in range(3)]
    assert steps == [False, False, True]
    with pytest.raises(ValueError, match="nonsense"):
        make_envs("CartPole-v1", env_config={"nonsense": 1})


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("CartPol-v1", "CartPole-v1"),
        ("cartpole-v1", "CartPole-v1"),
        ("CartPole-v7", "CartPole-v1"),
        ("Pendulum", "Pendulum-v1"),
        ("StatelesCartPole-v1", "StatelessCartPole-v1"),
    ],
)
def test_unknown_names_get_the_nearest(name, nearest):
    if name == "Pendulum":  # gymnasium itself completes a missing version.
        with pytest.warns(UserWarning):
            assert make_envs(name).name == nearest
        return
    with pytest.raises(ValueError, match=f"Unknown environment.*{nearest}"):
        make_envs(name)


@pytest.mark.parametrize(
    "name", ["CartPole v1", "", "CartPole-v1:", "LunarLander-v2", "space/Invaders-v0"]
)
def test_names_that_gymnasium_cannot_read(name):
    with pytest.raises(ValueError, match="Unknown environment|cannot be imported"):
        make_envs(name)


@pytest.mark.parametrize("name", ["a:b:c", ":CartPole-v1", ".a:b", "nowhere:Env-v1"])
def test_modules_of_names(name):
    with pytest.raises(ValueError, match=f"of '{name}' cannot be imported"):
        make_envs(name)
    assert make_envs("kerasrl:CartPole-v1", 1).name == "CartPole-v1"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("LunarLander-v3", r"pip install kerasrl\[box2d\]"),
        ("Ant-v5", r"pip install kerasrl\[mujoco\]"),
        ("Ant", r"pip install kerasrl\[mujoco\]"),
        ("tabular/Blackjack-v0", r"gymnasium\[jax\]"),
        ("GymV21Environment-v0", "moved it to another"),
    ],
)
def test_missing_packages_are_named(name, expected, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=f"{name}' needs a package.*{expected}"):
        make_envs(name)


def test_env_config_that_does_not_fit():
    with pytest.raises(ValueError, match="Did you mean 'sutton_barto_reward'?"):
        make_envs("CartPole-v1", env_config={"sutton_barto_rewards": True})
    with pytest.raises(ValueError, match="does not accept.*9x9"):
        make_envs("FrozenLake-v1", env_config={"map_name": "9x9"})


def test_registered_names():
    contexts = []

    def creator(context):
        contexts.append(context)
        return testing.CountingEnv(context["length"])

    register_env("counting", creator)
    assert "counting" in registered_envs()
    envs = make_envs("counting", num_envs=3, env_config={"length": 2})
    assert envs.name == "counting"
    assert [context.vector_index for context in contexts] == [0, 1, 2]
    assert all(isinstance(context, EnvContext) for context in contexts)
    assert all(context.worker_index == context.num_workers == 0 for context in contexts)
    assert envs.foreach(lambda env: env.length) == [2, 2, 2]
    register_env("counting", "kerasrl.testing:CountingEnv")
    envs = make_envs("counting", num_envs=1, env_config={"length": 9})
    assert envs.foreach(lambda env: env.length) == [9]
    with pytest.raises(ValueError, match="module:attribute"):
        register_env("counting", "CountingEnv")
    with pytest.raises(TypeError, match="callable"):
        register_env("counting", 3)
    with pytest.raises(TypeError, match="name"):
        register_env(3, creator)


def test_stateless_cartpole_is_known():
    envs = make_envs("StatelessCartPole-v1", num_envs=2, render_mode="rgb_array")
    assert envs.name == "StatelessCartPole-v1"
    assert envs.reset([0, 1]).shape == (2, 2)
    assert envs.envs[0].render_mode == "rgb_array"


@pytest.mark.parametrize(
    "factory",
    [
        lambda: testing.CountingEnv(4),
        lambda context: testing.CountingEnv(context["length"]),
        lambda config=None: testing.CountingEnv(config.get("length", 4)),
        lambda length=4: testing.CountingEnv(length),
        testing.CountingEnv,
    ],
)
def test_factories(factory):
    config = {"length": 4}
    if factory.__code__.co_argcount == 0 if hasattr(factory, "__code__") else False:
        with pytest.raises(ValueError, match=r"\['length'\]"):
            make_envs(factory, env_config=config)
        config = None
    envs = make_envs(factory, env_config=config)
    assert envs.num_envs == 8
    assert envs.foreach(lambda env: env.length) == [4] * 8
    assert len(set(map(id, envs.envs))) == 8


def test_factory_must_make_new_environments():
    env = testing.CountingEnv(3)
    with pytest.raises(ValueError, match="new environment at every call"):
        make_envs(lambda: env, num_envs=2)
    assert make_envs(lambda: env, num_envs=1).num_envs == 1
    with pytest.raises(TypeError, match="must return a gymnasium.Env"):
        make_envs(lambda: 3)


def test_instances_stay_open():
    class Closing(testing.CountingEnv):
        closed = False

        def close(self):
            self.closed = True

    env = Closing(3)
    with make_envs(env) as envs:
        assert envs.num_envs == 1
    assert not env.closed
    with pytest.raises(ValueError, match="cannot become 4"):
        make_envs(env, num_envs=4)
    with pytest.raises(ValueError, match="env_config"):
        make_envs(env, env_config={"length": 3})
    with pytest.raises(ValueError, match="render_mode"):
        make_envs(env, render_mode="rgb_array")
    with make_envs(Closing, num_envs=2) as envs:
        pass
    assert [each.closed for each in envs.envs] == [True, True]
    assert make_envs(envs) is envs
    with pytest.raises(ValueError, match="num_envs=3"):
        make_envs(envs, num_envs=3)


def test_vector_environments():
    vector_env = SyncVectorEnv([testing.CountingEnv] * 3)
    envs = make_envs(vector_env)
    assert isinstance(envs, VectorEnvironments)
    assert envs.num_envs == 3
    assert make_envs(vector_env, num_envs=3).num_envs == 3
    with pytest.raises(ValueError, match="num_envs=8"):
        make_envs(vector_env, num_envs=8)
    envs.close()
    assert not vector_env.closed
    made = make_envs(lambda: SyncVectorEnv([testing.CountingEnv] * 2))
    assert made.num_envs == 2
    made.close()
    assert made.env.closed


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "3"])
def test_bad_numbers(number):
    with pytest.raises(ValueError, match="num_envs"):
        make_envs("CartPole-v1", num_envs=number)


def test_other_things_are_refused():
    with pytest.raises(TypeError, match="Received: 3"):
        make_envs(3)
    with pytest.raises(ValueError, match="env_config"):
        make_envs("CartPole-v1", env_config=[1])


def test_render_mode_must_be_honoured():
    envs = make_envs("CartPole-v1", 1, render_mode="rgb_array")
    assert envs.envs[0].render_mode == "rgb_array"
    envs = make_envs(testing.CountingEnv, 2, render_mode="rgb_array")
    envs.reset()
    assert [frame.shape for frame in envs.render()] == [(64, 64, 3)] * 2
    by_context = make_envs(
        lambda context: testing.CountingEnv(render_mode=context.render_mode),
        1,
        render_mode="rgb_array",
    )
    assert by_context.envs[0].render_mode == "rgb_array"
    with pytest.raises(ValueError, match="did not honour"):
        make_envs(lambda: testing.CountingEnv(), render_mode="rgb_array")


def test_spaces_must_agree_and_be_supported():
    class Sized(testing.CountingEnv):
        def __init__(self, context):
            super().__init__()
            shape = (2 + context.vector_index,)
            self.observation_space = spaces.Box(0, 1, shape)

    with pytest.raises(ValueError, match="same `observation_space`"):
        make_envs(Sized)

    class Text(testing.CountingEnv):
        def __init__(self):
            super().__init__()
            self.observation_space = spaces.Dict({"text": spaces.Text(5)})

    with pytest.raises(ValueError, match=r"observation_space\['text'\].*Text"):
        make_envs(Text)

    class Sequence(testing.CountingEnv):
        def __init__(self):
            super().__init__()
            self.action_space = spaces.Sequence(spaces.Discrete(2))

    with pytest.raises(ValueError, match="action space at `action_space`"):
        make_envs(Sequence)


def test_check_env():
    assert check_env("CartPole-v1") == []
    assert check_env(testing.CountingEnv) == []
    remarks = check_env(testing.NestedEnv(nested_actions=True))
    assert remarks == [
        "observation_space['vector'] is float64; observations are kept as float32."
    ]

    class Unseeded(testing.CountingEnv):
        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.random.default_rng().random(2, np.float32), {}

    class Outside(testing.CountingEnv):
        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.full(2, -1.0, np.float32), {}

    class Wide(testing.CountingEnv):
        def __init__(self):
            super().__init__()
            self.action_space = spaces.Box(-1000.0, 1000.0, (1,))

    for wrong in (Unseeded, Outside):
        with pytest.raises(ValueError, match=wrong.__name__):
            check_env(wrong)
    assert "rescale" in check_env(Wide)[0]
    with pytest.raises(ValueError, match="single environment"):
        check_env(lambda: SyncVectorEnv([testing.CountingEnv]))


def test_no_tensorflow():
    """Worker processes import these rooms and must stay small and quick."""
    code = (
        "import sys, importlib\n"
        "for name in ('envs', 'rollouts', 'testing', 'replay'):\n"
        "    if importlib.util.find_spec(f'kerasrl.{name}'):\n"
        "        importlib.import_module(f'kerasrl.{name}')\n"
        "import kerasrl.testing\n"
        "kerasrl.envs.make_envs('StatelessCartPole-v1', 1).reset([0])\n"
        "heavy = {'tensorflow', 'keras', 'torch', 'jax'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", "import importlib.util\n" + code],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_instance_of_a_wrapped_environment_keeps_its_name():
    env = gymnasium.wrappers.TimeLimit(testing.CountingEnv(9), 3)
    assert make_envs(env).name == "CountingEnv"
