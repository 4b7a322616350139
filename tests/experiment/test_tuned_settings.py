"""The tuned settings that are shipped: of use, and with what was published of them."""

import importlib
import json
import pathlib
import statistics

import gymnasium
import numpy as np
import pytest
from commands import SMALL, error, kerasrl

import kerasrl as package
from kerasrl.envs.make import missing_dependency
from kerasrl.experiment import find_algorithm, split_config
from kerasrl.experiment.tuned_settings import all_tuned
from kerasrl.tuning import run_experiments

RESULTS = pathlib.Path(__file__).parents[2] / "benchmarks/results/learning.json"
OF_DATA = RESULTS.with_name("offline.json")
TUNED = {f"{each.algorithm}-{each.env}": each for each in all_tuned()}


def test_there_are_some_of_each_kind():
    assert {"PPO-CartPole-v1", "DQN-CartPole-v1", "SAC-Pendulum-v1"} < TUNED.keys()
    assert len(TUNED) > 30


@pytest.mark.parametrize("name", TUNED)
def test_agents_can_be_made_of_them(name):
    tuned = TUNED[name]
    agent = tuned.make_agent(seed=3)
    assert type(agent).__name__ == tuned.algorithm and agent.seed == 3
    arguments = tuned.fit_arguments()
    assert arguments["steps"] == tuned.steps
    if tuned.data is None:
        assert arguments["env"] == tuned.env and arguments["num_envs"] >= 1
    else:
        assert arguments.keys() == {"steps"}
    settings = split_config(tuned.config, find_algorithm(tuned.algorithm))
    for argument, value in settings.agent.items():
        if isinstance(value, bool | int | float | str):
            assert getattr(agent, argument) == value


@pytest.mark.parametrize("name", TUNED)
def test_what_they_reached_is_what_was_published(name):
    tuned = TUNED[name]
    if tuned.reached is None:
        # Then somebody else's settings, who is named.
        assert tuned.source
        return
    if tuned.data is not None:
        task = json.loads(OF_DATA.read_text())[tuned.env.partition("-")[0].lower()]
        returns = [modes for modes, *_ in task["rows"][tuned.reached["benchmark"]]]
        assert tuned.reached["policy"] == "final"
    else:
        found = json.loads(RESULTS.read_text())[tuned.reached["benchmark"]]
        returns = [run[tuned.reached["policy"]] for run in found["runs"]["kerasrl"]]
        assert tuned.steps == found["steps"]
    assert len(returns) == tuned.reached["seeds"]
    mean, worst = statistics.mean(returns), min(returns)
    assert tuned.reached["mean"] == pytest.approx(mean, abs=0.006)
    assert tuned.reached["worst"] == pytest.approx(worst, abs=0.006)


def test_the_benchmark_takes_its_settings_from_them(monkeypatch):
    monkeypatch.syspath_prepend(RESULTS.parents[1])
    learning = importlib.import_module("learning")
    offline = importlib.import_module("offline")
    for tuned in TUNED.values():
        if tuned.data is not None:
            _, rows = offline.TASKS[tuned.env.partition("-")[0].lower()]
            _, agent_class, arguments, steps, _ = rows[tuned.reached["benchmark"]]
            assert agent_class.__name__ == tuned.algorithm
            assert arguments is offline.TUNED and steps is None
        elif tuned.reached is not None:
            experiment = learning.EXPERIMENTS[tuned.reached["benchmark"]]
            assert experiment.algorithm == tuned.algorithm
            assert experiment.episodes == tuned.reached["episodes"]
            assert experiment.checkpoint == tuned.reached["policy"]
            assert experiment.measure == tuned.reached["measure"]
            # An equal agent, whatever the spelling.
            expected = split_config(tuned.config, find_algorithm(tuned.algorithm))
            assert experiment.settings.fit == expected.fit
            assert experiment.settings.policy == expected.policy
            assert experiment.settings.optimizer == expected.optimizer
            assert experiment.settings.agent.keys() == expected.agent.keys()


def is_installed(env):
    spec = gymnasium.registry.get(env)
    return spec is None or missing_dependency(spec) is None


def _random_steps(name):
    env = gymnasium.make(name)
    observation, _ = env.reset(seed=0)
    env.action_space.seed(0)
    steps = []
    for number in range(300):
        action = env.action_space.sample()
        following, reward, terminated, *_ = env.step(action)
        steps.append((observation, action, reward, terminated, number % 50 == 49))
        observation = following
        if terminated or number % 50 == 49:
            observation, _ = env.reset()
    columns = [np.stack(column) for column in zip(*steps, strict=True)]
    return package.offline.from_arrays(
        *columns,
        observation_space=env.observation_space,
        action_space=env.action_space,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", [x for x, t in TUNED.items() if is_installed(t.env)])
def test_agents_train_with_them(name):
    tuned = TUNED[name]
    agent = tuned.make_agent(seed=0)
    if tuned.data is not None:
        agent.fit(_random_steps(tuned.env), steps=agent.updates_per_call, verbose=0)
        assert agent.iterations == 1
        return
    steps = 16 * tuned.fit_arguments()["num_envs"]
    agent.fit(**{**tuned.fit_arguments(), "steps": steps, "num_workers": 0}, verbose=0)
    assert agent.env_steps >= steps


def test_changes_go_first_and_leave_the_rest():
    tuned = package.tuned("ppo", "StatelessCartPole-v1")
    assert tuned.config["policy"]["cell"] == "lstm"
    changed = tuned.changed({"lr": 0.1, "policy": {"cell": "gru"}, "num_sgd_iter": 3})
    settings = split_config(changed.config, find_algorithm("PPO"))
    assert settings.optimizer == {"learning_rate": 0.1}
    assert settings.policy == {
        "cell": "gru",
        "hidden_units": [],
        "normalize_observations": True,
    }
    assert settings.agent["num_epochs"] == 3 and settings.agent["gae_lambda"] == 0.98
    assert changed.reached is None and tuned.reached is not None
    whole = tuned.changed({"policy": None})
    assert split_config(whole.config, find_algorithm("PPO")).agent["policy"] is None


def test_what_there_is_not_is_refused_with_what_there_is():
    with pytest.raises(ValueError, match="of 'XYZ'. Expected one of: A2C, .*, TD3"):
        package.tuned("XYZ", "CartPole-v1")
    message = r"PPO in 'CartPole-v9'. Expected one of: CartPole-v1, .*-v3"
    with pytest.raises(ValueError, match=message):
        package.tuned("PPO", "CartPole-v9")
    message = "one of: Pendulum-v1, .*. Algorithms with some in CartPole-v1: A2C, "
    with pytest.raises(ValueError, match=message):
        package.tuned("TD3", "CartPole-v1")


def test_settings_of_algorithms_that_learn_from_data_say_so(tmp_path):
    tuned = package.tuned("MARWIL", "CartPole-v1")
    assert "random" in tuned.data and tuned.reached["mean"] > 475
    with pytest.raises(ValueError, match="MARWIL learns from a dataset"):
        tuned.experiment()
    message = error("train", "MARWIL", "CartPole-v1", "--tuned")
    assert "give --data" in message and "random" in message
    message = error("train", "PPO", "CartPole-v1", "--tuned", "--data", tmp_path)
    assert "--data is not" in message


def test_experiments_begin_with_them(tmp_path):
    tuned = package.tuned("PPO", "CartPole-v1")
    (trial,) = run_experiments(
        tuned.experiment(), directory=tmp_path, dry_run=True
    ).trials
    assert trial.options["steps"] == 100_000
    assert trial.settings["gae_lambda"] == 0.8


def test_the_command_trains_with_them(tmp_path):
    command = ("train", "PPO", "CartPole-v1", "--tuned", "--logdir", tmp_path / "a")
    result = kerasrl(*command, *SMALL, "--set", "lr=0.5", "--steps", 64, "--eager")
    assert result.exit_code == 0, (result.output, result.exception)
    params = json.loads((tmp_path / "a/params.json").read_text())
    assert params["steps"] == 64 and params["num_envs"] == 2
    found = params["config"]
    assert (found["gamma"], found["gae_lambda"]) == (0.98, 0.8)
    assert (found["num_epochs"], found["rollout_length"]) == (1, 16)
    assert found["clip_ratio"]["class_name"] == "PolynomialDecay"
    assert params["optimizer"]["config"]["learning_rate"] == 0.5


def test_the_command_refuses_what_has_none():
    for arguments, words in (
        (("PPO", "Acrobt-v1"), "Expected one of: CartPole-v1"),
        (("PPO", "CartPole-v1", "--resume", "x"), "--resume has one"),
        (("PPO", "CartPole-v1", "--data", "x"), "--data is not"),
        (("PPO",), "name both"),
    ):
        assert words in error("train", *arguments, "--tuned")


def test_the_command_lists_them():
    lines = kerasrl("tuned").output.splitlines()
    assert len(lines) == len(TUNED)
    (line,) = (each for each in lines if each.startswith("PPO       CartPole-v1"))
    assert line.endswith("100,000 steps  return 500, worst of 10 seeds 500")
    assert any("MountainCar-v0" in x and "not measured; rl-b" in x for x in lines)
    assert kerasrl("tuned", "td3").output.startswith("TD3       Pendulum-v1")
    assert "no tuned settings of SimpleQ" in error("tuned", "SimpleQ")
