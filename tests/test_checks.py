"""What constructors take, and what they say about the rest."""

import gymnasium
import keras
import numpy as np
import pytest

import kerasrl
from kerasrl import checks


def test_integers():
    assert checks.positive_integer("steps", 1e6) == 1_000_000
    assert checks.positive_integer("steps", 0, zero=True) == 0
    for value in (0, -1, 1.5, "3", True, None):
        with pytest.raises(ValueError, match="steps"):
            checks.positive_integer("steps", value)
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="steps"):
            checks.positive_integer("steps", value)


def test_seeds():
    assert checks.seed(None) is None
    assert checks.seed(np.int64(3)) == 3 and type(checks.seed(np.int64(3))) is int
    assert checks.seed(1e3) == 1000
    for value in (1.5, "a", -1, True, 2**31):
        with pytest.raises(ValueError, match="seed"):
            checks.seed(value)
    kerasrl.A2C(seed=2**31 - 1).fit("CartPole-v1", steps=40, num_envs=2, verbose=0)


def test_names_that_keras_knows():
    relu = checks.named("activation", "relu", keras.activations)
    assert relu is keras.activations.relu
    with pytest.raises(ValueError, match="Did you mean 'relu'"):
        checks.named("activation", "reluu", keras.activations)
    with pytest.raises(ValueError, match="Did you mean 'adam'"):
        kerasrl.PPO().compile("adamm")
    with pytest.raises(ValueError, match="Expected one of: .*relu"):
        checks.named("activation", "quite another", keras.activations)


def test_widths_and_flags_of_other_types():
    assert checks.units("hidden_units", np.array([32, 16])) == (32, 16)
    assert checks.units("hidden_units", (n for n in (3, 2))) == (3, 2)
    assert checks.filters(np.array([[8, 4, 2]])) == ((8, 4, 2),)
    assert checks.flag("double", 1) is True and checks.flag("double", 0) is False


def test_the_reason_of_keras_is_kept():
    config = {"class_name": "Adam", "config": {"learning_rat": 1}}
    with pytest.raises(ValueError, match="learning_rat"):
        kerasrl.PPO().compile(config)


def replay_of(agent_class, **arguments):
    agent_class(replay=arguments).fit("CartPole-v1", steps=40, verbose=0)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: kerasrl.PPO(normalize_advantages="nope"), "normalize_advantages"),
        (lambda: kerasrl.A2C(normalize_advantages=2), "normalize_advantages"),
        (lambda: kerasrl.PG(baseline="no"), "baseline"),
        (lambda: kerasrl.PPO(normalize_rewards="maybe"), "normalize_rewards"),
        (
            lambda: kerasrl.PPO({"normalize_observations": 0.5}),
            "normalize_observations",
        ),
        (lambda: kerasrl.PPO({"shared_trunk": "yes"}), "shared_trunk"),
        (lambda: kerasrl.PPO({"hidden_units": 64}), "hidden_units"),
        (lambda: kerasrl.PPO({"hidden_units": [64, 0]}), "hidden_units"),
        (lambda: kerasrl.PPO({"filters": [[8, 4]]}), "filters"),
        (lambda: kerasrl.PPO({"filters": 8}), "filters"),
        (lambda: kerasrl.PPO({"cell": "lstm", "cell_units": 1.5}), "cell_units"),
        (lambda: kerasrl.PPO({"activation": "reluu"}), "activation"),
        (lambda: kerasrl.PPO({"seed": "a"}), "seed"),
        (lambda: kerasrl.PPO(clip_ratio=True), "clip_ratio"),
        (lambda: kerasrl.PPO(gamma=True), "gamma"),
        (lambda: kerasrl.PPO(seed=-1), "seed"),
        (lambda: kerasrl.DQN(double="no"), "double"),
        (lambda: kerasrl.DQN(prioritized="no"), "prioritized"),
        (lambda: kerasrl.DQN(replay=3), "replay"),
        (lambda: replay_of(kerasrl.DQN, compres=True), "replay"),
        (lambda: replay_of(kerasrl.DQN, capacity=5), "replay"),
        (lambda: replay_of(kerasrl.R2D2, compres=True), "replay"),
        (lambda: kerasrl.DQN({"dueling": "no"}), "dueling"),
        (lambda: kerasrl.SAC(adjust_temperature="no"), "adjust_temperature"),
        (lambda: kerasrl.SAC({"num_critics": 0}), "num_critics"),
        (lambda: kerasrl.SAC({"critic_hidden_units": 3}), "critic_hidden_units"),
        (lambda: kerasrl.PPO().fit("CartPole-v1", 40, verbose="foo"), "verbose"),
        (lambda: kerasrl.PPO().fit("CartPole-v1", 40, initial_epoch=-1), "initial"),
    ],
)
def test_arguments_of_the_wrong_kind_are_named(make, name):
    with pytest.raises(ValueError, match=f"Received {name}.*(Expected|Did you mean)"):
        make()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (
            lambda agent: agent.compile(jit_compile=True, run_eagerly=True),
            "run_eagerly",
        ),
        (lambda agent: agent.compile(run_eagerly="no"), "run_eagerly"),
        (lambda agent: agent.predict(ZEROS, deterministic="no"), "deterministic"),
        (lambda agent: agent.predict(ZEROS, seed=-4), "seed"),
        (lambda agent: agent.predict(ZEROS, seed=True), "seed"),
        (lambda agent: agent.evaluate("CartPole-v1", seed=True), "seed"),
        (lambda agent: agent.evaluate("CartPole-v1", seed=-1), "seed"),
        (lambda agent: agent.evaluate("CartPole-v1", deterministic=2), "deterministic"),
        (lambda agent: agent.evaluate("CartPole-v1", episodes=True), "episodes"),
        (lambda agent: agent.evaluate("CartPole-v1", num_envs=True), "num_envs"),
        (lambda agent: agent.evaluate(MADE, env_config={"a": 1}), "env_config"),
        (lambda agent: agent.evaluate(MADE, num_envs=2), "num_envs"),
        (lambda agent: agent.fit(MADE, 8, env_config={"a": 1}), "env_config"),
        (lambda agent: agent.fit(MADE, 8, num_envs=2), "num_envs"),
        (lambda agent: agent.fit("CartPole-v1", 8, worker_mode="step"), "worker_mode"),
        (lambda agent: agent.fit("CartPole-v1", 8, env_timeout=3.0), "env_timeout"),
        (lambda agent: agent.fit("CartPole-v1", 8, initial_epoch=-1), "initial_epoch"),
        (lambda agent: kerasrl.PPO({"cell_units": 16}), "cell_units"),
        (lambda agent: kerasrl.DQN({"cell_units": 16}), "cell_units"),
        (lambda agent: kerasrl.PPO({"previous_inputs": True}), "previous_inputs"),
        (lambda agent: kerasrl.DQN(v_min=-1.0), "v_min"),
    ],
)
def test_arguments_that_would_have_no_effect_are_refused(call, name, built):
    with pytest.raises(ValueError, match=name):
        call(built)


ZEROS = np.zeros((1, 4), np.float32)
MADE = gymnasium.make("CartPole-v1")


@pytest.fixture(scope="module")
def built():
    agent = kerasrl.PPO({"hidden_units": (4,)})
    agent.build(MADE.observation_space, MADE.action_space)
    return agent
