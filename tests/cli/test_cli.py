import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import gymnasium
import numpy as np
import pytest
from commands import SMALL, error, kerasrl

from kerasrl import agents, experiment
from kerasrl.agents import A2C, A3C, APPO, DQN, IMPALA, PG, PPO
from kerasrl.callbacks import run_logger
from kerasrl.cli.checkpoints import make_recorder, write_steps
from kerasrl.cli.common import WholeNumber
from kerasrl.experiment import catalog
from kerasrl.workers import WorkerEnvironments


def params(directory):
    return json.loads((Path(directory) / "params.json").read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The directory of one small run."""
    directory = tmp_path_factory.mktemp("trained") / "run"
    result = kerasrl(
        *("train", "PPO", "CartPole-v1", "--steps", "3e2", "--logdir", directory),
        *("--checkpoint-freq", 5, *SMALL),
    )
    assert result.exit_code == 0, (result.output, result.exception)
    assert result.output.splitlines()[-1] == f"Run directory: {directory}"
    assert "Evaluation over 2 episodes: return " in result.output
    return directory


def test_evolution_is_trained_stopped_and_resumed(tmp_path):
    arguments = [
        *("train", "ES", "CartPole-v1", "--logdir", tmp_path / "run", "--seed", 0),
        *("--set", "num_pairs=2", "--set", "policy.hidden_units=[4]"),
        *("--progress", "none", "--eval-episodes", 0),
        *("--stop", '{"unperturbed_return_mean": 1, "env_steps": 1000}'),
    ]
    result = kerasrl(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "Stopped: unperturbed_return_mean" in result.output
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert any(name.startswith("events.out") for name in files)
    (checkpoint,) = (n for n in files if re.fullmatch(r"checkpoint-\d+", n))
    resumed = kerasrl(
        *("train", "--resume", tmp_path / "run" / checkpoint, "--steps", 400),
        *("--progress", "none", "--eval-episodes", 0),
    )
    assert resumed.exit_code == 0, (resumed.output, resumed.exception)
    rows = (tmp_path / "run" / "progress.csv").read_text().splitlines()
    assert "unperturbed_return_mean" in rows[0] and len(rows) > 2


# Processes and failures -------------------------------------------------------


def test_a_failing_environment(tmp_path, monkeypatch):
    (tmp_path / "failing.py").write_text(
        "import gymnasium, kerasrl\n"
        "class Failing(gymnasium.Wrapper):\n"
        "    def __init__(self): super().__init__(gymnasium.make('CartPole-v1'))\n"
        "    def step(self, action): raise RuntimeError('the motor\\nburnt out')\n"
        "kerasrl.register_env('Failing', lambda context: Failing())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    arguments = [
        *("train", "PPO", "Failing", "--import", "failing"),
        *("--steps", 10, "--logdir", tmp_path / "run", *SMALL),
    ]
    assert "the motor burnt out" in error(*arguments, code=1)
    result = kerasrl(*arguments, "-vv")
    assert result.exit_code == 1 and "Traceback" in result.output


def test_stack_shows_learner_and_workers():
    with WorkerEnvironments("CartPole-v1", num_envs=2, num_workers=2) as envs:
        result = kerasrl("stack", str(os.getpid()))
        pids = envs.pool.pids
    assert result.exit_code == 0, result.output
    for name in (f"Learner, process {os.getpid()}", *(f"process {p}:" for p in pids)):
        assert name in result.output
    assert "test_stack_shows_learner_and_workers" in result.output
    # At least: a learner that another test started would be shown with its workers.
    assert result.output.count("in serve") >= 2
    assert "does not train" in error("stack", "1")


# Settings ---------------------------------------------------------------------


def test_workers_as_in_rllib():
    config = {"num_workers": 2, "num_envs_per_worker": 3, "train_batch_size": 60}
    settings = experiment.split_config(config, PPO)
    assert settings.fit == {"num_workers": 2, "num_envs": 6}
    assert settings.agent == {"rollout_length": 10}


@pytest.mark.parametrize(
    "algorithm, workers, own, length",
    [
        (APPO, 2, {}, 20),
        (APPO, 2, {"synchronous": True}, 10),
        (APPO, 4, {}, 10),
        (APPO, 4, {"fragments_per_update": 1}, 20),
        (A3C, 4, {}, 20),
    ],
)
def test_a_batch_of_asynchronous_workers_is_of_some(algorithm, workers, own, length):
    config = {"num_workers": workers, "num_envs_per_worker": 3, "train_batch_size": 60}
    settings = experiment.split_config({**config, **own}, algorithm)
    assert settings.agent["rollout_length"] == length


def test_rllib_spellings_of_asynchronous_algorithms():
    config = {
        "vtrace": False,
        "vtrace_clip_rho_threshold": 2.0,
        "vtrace_clip_pg_rho_threshold": 3.0,
        "replay_proportion": 0.5,
        "replay_buffer_num_slots": 4,
    }
    assert experiment.split_config(config, IMPALA).agent == {
        "vtrace": False,
        "clip_rho": 2.0,
        "clip_pg": 3.0,
        "replay_proportion": 0.5,
        "replay_slots": 4,
    }
    weights = {"kl_coeff": 0.2, "kl_target": 0.01}
    for config, agent in (
        ({"use_kl_loss": True}, {"kl_coef": 1.0}),
        ({"use_kl_loss": True, **weights}, {"kl_coef": 0.2, "target_kl": 0.01}),
        ({"use_kl_loss": False, **weights}, {}),
        ({"target_update_frequency": 2}, {"target_update_interval": 2}),
    ):
        assert experiment.split_config(config, APPO).agent == agent


def test_rllib_spellings():
    settings = experiment.split_config(
        {
            "lr": 1e-3,
            "lambda": 0.9,
            "num_sgd_iter": 3,
            "sgd_minibatch_size": 64,
            "train_batch_size": 1024,
            "num_envs_per_worker": 4,
            "clip_param": 0.3,
            "vf_loss_coeff": 0.1,
            "entropy_coeff": 0.01,
            "grad_clip": 1.0,
            "kl_coeff": 0.2,
            "kl_target": 0.01,
            "num_workers": 0,
            "framework": "tf2",
            "observation_filter": "MeanStdFilter",
            "model": {"fcnet_hiddens": [32], "use_lstm": True, "lstm_cell_size": 16},
        },
        PPO,
    )
    assert settings.optimizer == {"learning_rate": 1e-3}
    assert settings.fit == {"num_envs": 4, "num_workers": 0}
    assert settings.agent == {
        "gae_lambda": 0.9,
        "num_epochs": 3,
        "minibatch_size": 64,
        "rollout_length": 256,
        "clip_ratio": 0.3,
        "value_coef": 0.1,
        "entropy_coef": 0.01,
        "max_grad_norm": 1.0,
        "kl_coef": 0.2,
        "target_kl": 0.01,
        "policy": {
            "normalize_observations": True,
            "hidden_units": [32],
            "cell": "lstm",
            "cell_units": 16,
        },
    }


def test_without_gae():
    assert experiment.split_config({"use_gae": False}, A2C).agent == {"gae_lambda": 1.0}
    assert experiment.split_config({"use_gae": True}, PPO).agent == {}


@pytest.mark.parametrize(
    ("algorithm", "config"),
    [
        (DQN, {"batch_size": 32, "train_batch_size": 64}),
        (DQN, {"rollout_fragment_length": 2, "train_every": 4}),
        (DQN, {"exploration": 0.1, "exploration_config": {"final_epsilon": 0.02}}),
        (DQN, {"prioritized_replay_alpha": 0.5, "replay": {"frame_stack": 4}}),
        (DQN, {"replay_buffer_config": {"capacity": 100}, "buffer_size": 200}),
        (PPO, {"gae_lambda": 0.9, "use_gae": False}),
        (PPO, {"lambda": 0.9, "use_gae": False}),
        (PPO, {"num_envs": 4, "num_envs_per_worker": 2}),
        (PPO, {"learning_rate": 0.1, "optimizer.learning_rate": 0.2}),
        (PPO, {"optimizer": {"learning_rate": 0.1}, "lr": 0.2}),
        (PPO, {"policy.hidden_units": [8], "model": {"fcnet_hiddens": [4]}}),
        (
            PPO,
            {
                "observation_filter": "NoFilter",
                "policy.normalize_observations": True,
            },
        ),
    ],
)
def test_a_setting_in_two_spellings_is_given_twice(algorithm, config):
    first, second = config
    with pytest.raises(click.UsageError) as caught:
        experiment.split_config(config, algorithm)
    message = f"{first!r} and {second!r} are the same setting"
    assert message in caught.value.message


@pytest.mark.parametrize("name", ["policy.hidden_units", "optimizer.learning_rate"])
def test_an_argument_named_alone_goes_before_that_of_a_mapping(name):
    part, _, argument = name.partition(".")
    other = {"policy": "cell", "optimizer": "epsilon"}[part]
    config = {part: {argument: 1, other: 3}, name: 2}
    for ordered in (config, dict(reversed(config.items()))):
        found = getattr(experiment.split_config(ordered, PPO), part)
        assert found == {**config[part], argument: 2}


def test_a_policy_of_ones_own_takes_no_arguments():
    with pytest.raises(click.UsageError, match=r"'policy\.hidden_units'"):
        experiment.split_config({"policy": "mine", "policy.hidden_units": [4]}, PPO)


def test_square_convolutions():
    config = {"model": {"conv_filters": [[16, [8, 8], 4], [32, 4, 2]]}}
    policy = experiment.split_config(config, PG).agent["policy"]
    assert policy == {"filters": [(16, 8, 4), (32, 4, 2)]}


#: What RLlib's `model` may say, and what that is here.
RLLIB_MODEL = [
    ({"fcnet_hiddens": [8]}, {"hidden_units": [8]}),
    ({"fcnet_activation": "relu"}, {"activation": "relu"}),
    ({"conv_filters": [[16, [4, 4], 2]]}, {"filters": [(16, 4, 2)]}),
    ({"conv_activation": "elu"}, {"activation": "elu"}),
    ({"conv_activation": "elu", "fcnet_activation": "elu"}, {"activation": "elu"}),
    ({"use_lstm": True, "lstm_cell_size": 8}, {"cell": "lstm", "cell_units": 8}),
    ({"use_lstm": False}, {"cell": None}),
    ({"use_lstm": False, "lstm_cell_size": 256}, {"cell": None}),
    (
        {"custom_model": None, "custom_model_config": {}, "fcnet_hiddens": [8]},
        {"hidden_units": [8]},
    ),
    (
        {"use_lstm": True, "lstm_use_prev_action_reward": True},
        {"cell": "lstm", "previous_inputs": True},
    ),
    ({"vf_share_layers": True}, {"shared_trunk": True}),
    ({"free_log_std": True}, {"log_std": "independent"}),
    ({"free_log_std": False}, {"log_std": "predicted"}),
    (
        {"custom_model": "nature", "custom_model_config": {"filters": [[8, 3, 2]]}},
        {"model": "nature", "model_config": {"filters": [[8, 3, 2]]}},
    ),
    ({"custom_action_dist": "Deterministic"}, {"distribution": "Deterministic"}),
]


@pytest.mark.parametrize(("model", "policy"), RLLIB_MODEL)
def test_models_of_rllib(model, policy):
    settings = experiment.split_config({"model": model}, PPO)
    assert settings.agent["policy"] == policy
    PPO(**settings.agent)


def test_preprocessors_of_rllib():
    model = {"custom_preprocessor": "crop", "fcnet_hiddens": [4]}
    for config in (
        {"model": model, "env_config": {"length": 3}},
        {"env_config.length": 3, "model": model},
        {"env_config": {"preprocessor": "crop"}, "env_config.length": 3},
    ):
        found = experiment.split_config(config, PPO).fit["env_config"]
        assert found == {"length": 3, "preprocessor": "crop"}
    assert experiment.split_config({"env_config": {}}, PPO).fit == {"env_config": {}}


def test_what_rllibs_models_leave_out_or_say_no_to():
    names = ("no_final_linear", "framestack", "grayscale", "zero_mean")
    empty = ("dim", "custom_model", "custom_preprocessor", "max_seq_len")
    model = {**dict.fromkeys(names, False), **dict.fromkeys(empty)}
    settings = experiment.split_config({"model": model}, PPO)
    assert (settings.agent, settings.fit) == ({}, {})
    found = experiment.split_config({"model": {"max_seq_len": 7}}, agents.R2D2)
    assert found.agent == {"sequence_length": 7}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"max_seq_len": 20}, "model.max_seq_len: .* set rollout_length"),
        ({"no_final_linear": True}, "subclass kerasrl.models.Policy"),
        ({"framestack": True}, "gymnasium.wrappers.FrameStackObservation"),
        ({"grayscale": True}, "GrayscaleObservation.*kerasrl.register_preprocessor"),
        ({"dim": 42}, "model.dim: .*ResizeObservation"),
        ({"zero_mean": True}, "from 0 to 1.*TransformObservation"),
        ({"framestack": "yes"}, "framestack must be true or false. Received: 'yes'"),
        ({"custom_model": 3}, "custom_model must be a text"),
        ({"custom_preproc": "x"}, "Did you mean 'custom_preprocessor'"),
        (
            {"conv_activation": "relu", "fcnet_activation": "tanh"},
            "A built-in trunk has one activation",
        ),
    ],
)
def test_what_rllibs_models_have_in_another_place(model, expected):
    with pytest.raises(click.UsageError) as caught:
        experiment.split_config({"model": model}, PPO)
    assert re.search(expected, caught.value.message), caught.value.message


def test_rllib_names_of_evolution():
    config = {
        "episodes_per_batch": 50,
        "noise_stdev": 0.02,
        "l2_coeff": 0.01,
        "stepsize": 0.02,
        "eval_prob": 0.05,
        "noise_size": 25_000_000,
        "return_proc_mode": "centered_rank",
        "action_noise_std": 0.0,
        "observation_filter": "MeanStdFilter",
        "num_workers": 2,
        "model": {"fcnet_hiddens": [8]},
    }
    settings = experiment.split_config(config, agents.ES)
    assert settings.optimizer == {"learning_rate": 0.02}
    assert settings.fit == {"num_workers": 2}
    assert settings.agent == {
        "num_pairs": 25,
        "noise_scale": 0.02,
        "weight_decay": 0.01,
        "unperturbed_episodes": 2,
        "policy": {"normalize_observations": True, "hidden_units": [8]},
    }
    config = {"num_rollouts": 50, "rollouts_used": 25, "eval_prob": 0.0}
    config |= {"sgd_stepsize": 0.01, "offset": 1}
    settings = experiment.split_config(config, agents.ARS)
    assert settings.optimizer == {"learning_rate": 0.01}
    expected = {"num_pairs": 25, "num_top": 13, "unperturbed_episodes": 1}
    assert settings.agent == {**expected, "alive_bonus": 1}
    agents.ARS(**settings.agent)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"train_batch_size": 1000}, r"2 \* num_pairs episodes"),
        ({"action_noise_std": 0.01}, "it is weights that are explored"),
        ({"return_proc_mode": "none"}, "must be centered_rank"),
        ({"eval_prob": 0.5}, "give episodes_per_batch"),
        ({"report_length": 5}, "last 100 episodes"),
        ({"rollouts_used": 5}, "has no setting 'rollouts_used'"),
    ],
)
def test_what_of_rllibs_evolution_is_refused(config, expected):
    with pytest.raises(click.UsageError, match=expected):
        experiment.split_config(config, agents.ES)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("APEX", "ApexDQN"), ("apex_ddpg", "ApexDDPG"), ("DDPG2", "DDPG")],
)
def test_rllib_names_of_algorithms(name, meant):
    result = kerasrl("list", name)
    assert result.exit_code == 0, result.output
    assert f"{name} is kerasrl.{meant}, " in result.output
    assert f"\n{meant}: " in result.output


def test_rllib_names_of_distributed_replay():
    config = {
        "num_workers": 2,
        "num_envs_per_worker": 4,
        "exploration_config": {"type": "PerWorkerEpsilonGreedy"},
        "worker_side_prioritization": True,
        "n_step": 3,
        "train_batch_size": 128,
        "replay_buffer_config": {"capacity": 20_000},
    }
    settings = experiment.split_config(config, agents.ApexDQN)
    assert settings.fit == {"num_workers": 2, "num_envs": 8}
    assert settings.agent == {
        "exploration": None,
        "initial_priorities": True,
        "n_step": 3,
        "batch_size": 128,
        "buffer_size": 20_000,
    }
    agents.ApexDQN(**settings.agent)
    for wrong in (
        {"rollout_fragment_length": 50},
        {"exploration_config": {**config["exploration_config"], "final_epsilon": 0.1}},
    ):
        with pytest.raises(
            click.UsageError, match=r"updates_per_call|no other entries"
        ):
            experiment.split_config(wrong, agents.ApexDQN)


def test_values_are_yaml():
    assert experiment.parse_assignments(
        ["a=1e-3", "b=[1, 2]", "c=null", "d=true", "e=relu", "f=-2", "g=.5", "h=x=y"]
    ) == {
        "a": 1e-3,
        "b": [1, 2],
        "c": None,
        "d": True,
        "e": "relu",
        "f": -2,
        "g": 0.5,
        "h": "x=y",
    }


def test_schedules_are_read_for_every_setting():
    schedule = {
        "class_name": "PolynomialDecay",
        "config": {"initial_learning_rate": 0.2, "decay_steps": 100},
    }
    config = {"clip_param": schedule, "entropy_coeff": schedule}
    settings = experiment.split_config(config, PPO)
    for name in ("clip_ratio", "entropy_coef"):
        assert float(settings.agent[name](0)) == pytest.approx(0.2)
        assert float(settings.agent[name](100)) == pytest.approx(1e-4)
    settings = experiment.split_config({"exploration": schedule}, DQN)
    assert float(settings.agent["exploration"](0)) == pytest.approx(0.2)


def test_integers_as_people_write_them():
    config = {"train_batch_size": 1e3, "num_envs": 1e1}
    settings = experiment.split_config(config, PPO)
    assert settings.agent == {"rollout_length": 100}
    assert settings.fit == {"num_envs": 10}
    assert [type(value) for value in settings.fit.values()] == [int]
    for text, value in (("1e3", 1000), ("12", 12), (str(2**62 + 1), 2**62 + 1)):
        assert WholeNumber(1).convert(text, None, None) == value


def test_what_may_be_null():
    config = {"num_envs": None, "model": None, "env_timeout": None}
    settings = experiment.split_config(config, PPO)
    assert settings.fit == {"num_envs": None, "env_timeout": None}


# Training ---------------------------------------------------------------------


def test_a_run_leaves_its_files(trained):
    names = {path.name for path in trained.iterdir()}
    assert {"params.json", "result.json", "progress.csv"} <= names
    assert {"checkpoint-5", "checkpoint-10"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    content = params(trained)
    assert content["algorithm"] == "PPO" and content["env"] == "CartPole-v1"
    assert content["seed"] == 0 and content["settings"] == {"num_envs": 2}
    assert (content["steps"], content["num_envs"]) == (300, 2)
    assert content["config"]["rollout_length"] == 16
    last = (trained / "result.json").read_text().splitlines()[-1]
    assert json.loads(last)["env_steps"] == 320


def test_the_same_seed_gives_the_same_run(trained, tmp_path):
    result = kerasrl(
        *("train", "ppo", "CartPole-v1", "--steps", 300, "--logdir", tmp_path, *SMALL),
    )
    assert result.exit_code == 0, result.output

    def returns(directory):
        lines = (directory / "result.json").read_text().splitlines()
        return [json.loads(line)["policy_loss"] for line in lines]

    assert returns(tmp_path) == returns(trained)


def test_a_directory_is_not_used_twice(trained):
    message = error("train", "PPO", "CartPole-v1", "--logdir", trained)
    assert "holds a run already" in message and "--resume" in message


def test_default_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(run_logger, "RESULTS", tmp_path)
    result = kerasrl("train", "A2C", "CartPole-v1", "--steps", 40, *SMALL[8:])
    assert result.exit_code == 0, result.output
    (directory,) = tmp_path.iterdir()
    assert directory.name.startswith("A2C_CartPole-v1_")
    assert result.output.splitlines()[-1] == f"Run directory: {directory}"


def test_a_seed_is_drawn_and_kept(tmp_path):
    for name in ("a", "b"):
        result = kerasrl(
            *("train", "A2C", "CartPole-v1", "--steps", 40, "--num-envs", 2),
            *("--logdir", tmp_path / name, "--progress", "none", "--eval-episodes", 0),
        )
        assert result.exit_code == 0, result.output
    seeds = [params(tmp_path / name)["seed"] for name in ("a", "b")]
    assert all(isinstance(seed, int) for seed in seeds) and seeds[0] != seeds[1]
    result = kerasrl(
        *("train", "A2C", "CartPole-v1", "--steps", 40, "--num-envs", 2),
        *("--logdir", tmp_path / "c", "--progress", "none", "--eval-episodes", 0),
        *("--seed", seeds[0]),
    )
    losses = [
        json.loads((tmp_path / name / "result.json").read_text())["loss"]
        for name in ("a", "c")
    ]
    assert losses[0] == losses[1]


def test_evaluations_while_training(tmp_path):
    arguments = [
        *("train", "A2C", "CartPole-v1", "--steps", 120, "--num-envs", 2, "--seed", 1),
        *("--set", "steps_per_epoch=40", "--eval-freq", 80),
    ]
    result = kerasrl(
        *arguments,
        *("--eval-episodes", 2, "--logdir", tmp_path / "run"),
        *("--stop", '{"evaluation_return_mean": 1e9}'),
    )
    assert result.exit_code == 0, result.output
    rows = (tmp_path / "run" / "result.json").read_text().splitlines()
    returns = [json.loads(row)["evaluation_return_mean"] for row in rows]
    assert returns[0] is None and returns[1] > 0 and returns[2] is None
    best = json.loads((tmp_path / "run" / "checkpoint-best.json").read_text())
    assert best["monitor"] == "evaluation_return_mean" and best["env_steps"] == 80
    assert "evaluation " in result.output
    assert "--eval-episodes" in error(*arguments, "--eval-episodes", 0)


def test_options_of_rllib(tmp_path):
    config = {
        "lr": 0.01,
        "rollout_fragment_length": 8,
        "num_envs_per_worker": 2,
        "model": {"fcnet_hiddens": [4]},
    }
    result = kerasrl(
        *("train", "--run", "PPO", "--env", "CartPole-v1", "--eager"),
        *("--config", json.dumps(config), "--stop", '{"timesteps_total": 40}'),
        *("--checkpoint-freq", 1, "--logdir", tmp_path / "run"),
        *("--progress", "none", "--eval-episodes", 0),
    )
    assert result.exit_code == 0, result.output
    content = params(tmp_path / "run")
    assert content["config"]["rollout_length"] == 8
    assert content["optimizer"]["config"]["learning_rate"] == pytest.approx(0.01)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"checkpoint-1", "checkpoint-2", "checkpoint-3"} <= names


def test_file(tmp_path):
    (tmp_path / "experiment.yaml").write_text(
        "cartpole-a2c:\n"
        "  run: A2C\n"
        "  env: CartPole-v1\n"
        "  stop: {episode_reward_mean: 1, timesteps_total: 5000}\n"
        "  config: {lr: 1e-3, rollout_fragment_length: 8, num_envs_per_worker: 2}\n"
        "  checkpoint_freq: 0\n"
    )
    result = kerasrl(
        *("train", "-f", tmp_path / "experiment.yaml", "--logdir", tmp_path / "run"),
        *("--set", "gamma=0.9", "--progress", "none", "--eval-episodes", 0),
    )
    assert result.exit_code == 0, result.output
    assert "Stopped: episode_return_mean" in result.output
    content = params(tmp_path / "run")
    assert content["config"]["gamma"] == 0.9
    assert content["optimizer"]["class_name"] == "RMSprop"
    assert content["optimizer"]["config"]["learning_rate"] == pytest.approx(1e-3)


def test_optimizer(tmp_path):
    schedule = {
        "class_name": "PolynomialDecay",
        "config": {"initial_learning_rate": 0.01, "decay_steps": 10},
    }
    result = kerasrl(
        *("train", "PG", "CartPole-v1", "--steps", 20, "--logdir", tmp_path / "run"),
        *("--set", "optimizer=sgd", "--set", "optimizer.momentum=0.5"),
        *("--set", f"learning_rate={json.dumps(schedule)}", *SMALL[8:]),
    )
    assert result.exit_code == 0, result.output
    optimizer = params(tmp_path / "run")["optimizer"]
    assert optimizer["class_name"] == "SGD" and optimizer["config"]["momentum"] == 0.5
    assert optimizer["config"]["learning_rate"]["class_name"] == "PolynomialDecay"


def test_algorithm_and_environment_of_a_users_module(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import gymnasium, keras, kerasrl\n"
        "class Short(gymnasium.Wrapper):\n"
        "    def __init__(self, context):\n"
        "        env = gymnasium.make('CartPole-v1')\n"
        "        limit = context['limit']\n"
        "        super().__init__(gymnasium.wrappers.TimeLimit(env, limit))\n"
        "kerasrl.register_env('Short', Short)\n"
        "@keras.saving.register_keras_serializable('mine')\n"
        "class Mine(kerasrl.A2C):\n"
        "    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    result = kerasrl(
        *("train", "mine:Mine", "Short", "--env-config", '{"limit": 3}'),
        *("--steps", 40, "--logdir", tmp_path / "run", *SMALL[8:]),
    )
    assert result.exit_code == 0, result.output
    assert "length 3.0" in result.output
    result = kerasrl(
        "evaluate",
        tmp_path / "run" / "checkpoint-4",
        "--episodes",
        2,
        "--import",
        "mine",
    )
    assert result.exit_code == 0, result.output
    assert "length 3.0" in result.output


# Checkpoints ------------------------------------------------------------------


def test_resume_goes_on_in_the_directory_of_the_run(trained, tmp_path):
    directory = tmp_path / "run"
    directory.mkdir()
    for path in trained.iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    checkpoint = directory / "checkpoint-10"
    result = kerasrl(
        *("train", "--resume", checkpoint, "--steps", 64, "--set", "lr=0.002"),
        *("--progress", "none", "--eval-episodes", 0),
    )
    assert result.exit_code == 0, result.output
    assert (directory / "checkpoint-12").exists()
    assert json.loads((directory / "result.json").read_text().splitlines()[-1])[
        "learning_rate"
    ] == pytest.approx(0.002)
    before, after = params(trained), params(directory)
    (again,) = after.pop("resumed")
    assert after == before
    assert (again["steps"], again["env_steps"]) == (64, 320)
    assert again["settings"] == {"num_envs": 2}
    old, new = (
        (each / "result.json").read_text().splitlines() for each in (trained, directory)
    )
    assert new[: len(old)] == old
    assert json.loads(new[len(old)])["epoch"] == json.loads(old[-1])["epoch"] + 1
    assert "gamma" in error("train", "--resume", checkpoint, "--set", "gamma=0.5")
    # What was there before a refused command stays.
    assert "'kl'" in error(
        *("train", "--resume", checkpoint, "--progress", "none"),
        *("--stop", '{"kl": 1}'),
    )
    assert checkpoint.exists()
    assert "of PPO, not of A2C" in error("train", "A2C", "--resume", checkpoint)


def test_rollout(trained, tmp_path):
    out = tmp_path / "deep" / "steps.npz"
    result = kerasrl(
        *("rollout", trained / "checkpoint-10", "--episodes", 3, "--seed", 1),
        *("--out", out),
    )
    assert result.exit_code == 0, result.output
    assert result.output.count("Episode ") == 3
    with np.load(out, allow_pickle=False) as steps:
        assert set(steps) == {
            *("observations", "actions", "rewards", "terminated", "truncated"),
            "episode",
        }
        episode, ended = steps["episode"], steps["terminated"] | steps["truncated"]
        assert steps["observations"].shape == (len(episode), 4)
        assert steps["actions"].shape == (len(episode),)
        assert ended.sum() == 3 and ended[-1]
        np.testing.assert_array_equal(np.unique(episode), [0, 1, 2])
        lengths = np.bincount(episode)
        assert f"length {lengths.mean():.1f}" in result.output
        # An episode starts near the upright pole, not where the one before ended.
        starts = np.flatnonzero(np.diff(episode, prepend=-1))
        assert np.abs(steps["observations"][starts]).max() <= 0.05


def test_a_refused_film_leaves_nothing(trained, tmp_path):
    checkpoint, films = trained / "checkpoint-10", tmp_path / "films"
    assert "spaces" in error(
        "rollout", checkpoint, "--env", "Pendulum-v1", "--video", films
    )
    assert not films.exists()
    assert "must be a file" in error("rollout", checkpoint, "--out", tmp_path)


def test_steps_of_environments_that_reuse_arrays(tmp_path):
    class Reusing(gymnasium.Env):
        observation_space = gymnasium.spaces.Dict(x=gymnasium.spaces.Box(0, 9, (1,)))
        action_space = gymnasium.spaces.Box(-1, 1, (1,))
        observation = {"x": np.zeros(1, np.float32)}

        def reset(self, *, seed=None, options=None):
            self.observation["x"][:] = 0
            return self.observation, {}

        def step(self, action):
            self.observation["x"] += 1
            action[:] = 9
            return self.observation, 0.0, False, False, {}

    recorder = make_recorder(Reusing(), episodes=1, keep_steps=True)
    recorder.reset()
    for time in range(3):
        recorder.step(np.full(1, time))
    write_steps(tmp_path / "steps.npz", recorder.steps)
    with np.load(tmp_path / "steps.npz") as steps:
        assert steps["observations/x"].tolist() == [[0], [1], [2]]
        assert steps["actions"].tolist() == [[0], [1], [2]]


def test_rollout_films(trained, tmp_path):
    result = kerasrl(
        *("rollout", trained / "checkpoint-10", "--episodes", 2, "--video", tmp_path),
        *("--run", "PPO", "--env", "CartPole-v1"),
    )
    assert result.exit_code == 0, result.output
    assert len(list(tmp_path.glob("*.mp4"))) == 2


def test_evaluate_is_repeatable(trained):
    arguments = ("evaluate", trained / "checkpoint-5", "--episodes", 2, "--seed", 3)
    first, second = kerasrl(*arguments), kerasrl(*arguments)
    assert first.exit_code == 0 and first.output == second.output
    assert "Evaluation over 2 episodes" in first.output
    assert kerasrl(*arguments, "--stochastic").exit_code == 0


def test_checkpoint_of_another_algorithm(trained):
    assert "of PPO, not of A2C" in error(
        "rollout", trained / "checkpoint-5", "--run", "A2C"
    )


# The rest ---------------------------------------------------------------------


def test_list():
    result = kerasrl("list")
    assert result.exit_code == 0
    for name in ("A2C", "PG", "PPO", "CartPole-v1", "StatelessCartPole-v1"):
        assert name in result.output
    assert "CartPole-v0" not in result.output
    assert "GymV21" not in result.output and "-v2" not in result.output
    for package, name in (("Box2D", "LunarLander"), ("jax", "tabular/Blackjack")):
        installed = importlib.util.find_spec(package) is not None
        assert (name in result.output) == installed
    assert "CartPole-v1" not in kerasrl("list", "algorithms").output


@pytest.mark.parametrize("name", sorted(catalog.algorithms()))
def test_list_shows_the_settings_of_an_algorithm(name):
    """The catalog reads the source: it must agree with what Python sees."""
    cls = getattr(agents, name)
    described = catalog.algorithms()[name]
    assert described.hyperparameters() == cls.hyperparameters()
    made = cls()
    for argument, each in described.arguments().items():
        assert each.meaning, argument
        default = eval(each.default, {})
        if argument not in ("policy", "seed") and default is not None:
            assert getattr(made, argument) == default, argument
    policy = described.default_policy
    assert policy.__name__ == cls.default_policy.__name__
    known = experiment.constructor_arguments(cls.default_policy)
    assert list(policy.arguments(inherited=False)) == known
    assert all(each.meaning for each in policy.arguments(inherited=False).values())
    optimizer = made.default_optimizer()
    assert described.default_optimizer.startswith(type(optimizer).__name__)
    output = kerasrl("list", name.lower()).output
    for argument in (*cls.hyperparameters(), *known):
        assert re.search(rf"^  {argument}=", output, re.MULTILINE), argument


def test_the_catalog_has_every_algorithm():
    bases = (agents.Agent, agents.OnPolicyAgent, agents.OffPolicyAgent)
    assert set(catalog.algorithms()) == {
        name
        for name, cls in vars(agents).items()
        if inspect.isclass(cls) and issubclass(cls, agents.Agent) and cls not in bases
    }


def test_version():
    import kerasrl as package

    assert package.__version__ in kerasrl("--version").output


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["list"],
        ["list", "PPO"],
        ["list", "PPQ"],
        ["tuned"],
        ["train", "PPQ", "CartPole-v1"],
        ["train", "PPO", "CartPol-v1"],
        ["train", "PPO", "CartPole-v1", "--set", "gama=1"],
        ["train", "PPO", "CartPole-v1", "--set", "policy.hiden_units=[1]"],
        ["train", "PPO", "CartPole-v1", "--stop", "{}", "--steps", "0"],
    ],
    ids=" ".join,
)
def test_what_needs_no_tensorflow_does_not_import_it(arguments):
    code = (
        "import sys; from kerasrl.cli import main\n"
        f"try: main({arguments})\n"
        "except SystemExit: pass\n"
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment)
    assert done.returncode == 0


def test_commands_let_tensorflow_say_nothing(trained):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "kerasrl.cli", "evaluate"),
            *(trained / "checkpoint-5", "--episodes", "1"),
        ],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert done.stderr == "" and len(done.stdout.splitlines()) == 1


def test_the_package_is_the_command():
    command = [sys.executable, "-m", "kerasrl", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("kerasrl, version")


OWN_PARTS = """
import gymnasium
import keras
import kerasrl
from kerasrl.distributions import Categorical


class Wide(keras.layers.Layer):
    def __init__(self, width=3, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.dense = keras.layers.Dense(width)

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, inputs):
        return self.dense(inputs)

    def get_config(self):
        return {**super().get_config(), "width": self.width}


class Own(Categorical):
    pass


class Half(gymnasium.ObservationWrapper):
    def __init__(self, env):
        super().__init__(env)
        self.observation_space = gymnasium.spaces.Box(-9, 9, (2,))

    def observation(self, observation):
        return observation[:2]


def metrics(agent, batch, outputs, settings):
    return {"reward_size": agent.scale * keras.ops.mean(batch["rewards"])}


kerasrl.register_model("wide", Wide)
kerasrl.register_distribution("own", Own)
kerasrl.register_preprocessor("half", Half)
Measured = kerasrl.A2C.with_updates("Measured", metrics=metrics, defaults={"scale": 1})
"""


def test_parts_by_name_from_file_to_checkpoint(tmp_path, monkeypatch):
    (tmp_path / "own_parts_of_a_user.py").write_text(OWN_PARTS)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "experiment.yaml").write_text(
        "named:\n"
        "  run: own_parts_of_a_user:Measured\n"
        "  env: CartPole-v1\n"
        "  config:\n"
        "    scale: 3\n"
        "    rollout_fragment_length: 8\n"
        "    num_envs_per_worker: 2\n"
        "    model:\n"
        "      custom_model: wide\n"
        "      custom_model_config: {width: 5}\n"
        "      custom_action_dist: own\n"
        "      custom_preprocessor: half\n"
    )
    modules = ("--import", "own_parts_of_a_user")
    result = kerasrl(
        *("train", "-f", tmp_path / "experiment.yaml", "--logdir", tmp_path / "run"),
        *("--steps", 32, "--progress", "none", "--eval-episodes", 0, "--eager"),
        *modules,
    )
    assert result.exit_code == 0, (result.output, result.exception)
    content = params(tmp_path / "run")
    policy = content["config"]["policy"]["config"]
    assert policy["trunk"]["registered_name"] == "models>wide"
    assert policy["trunk"]["config"]["width"] == 5
    assert (
        policy["distribution"] == "distributions>own"
        and content["config"]["scale"] == 3
    )
    assert content["settings"]["env_config"] == {"preprocessor": "half"}
    (line,) = (tmp_path / "run" / "result.json").read_text().splitlines()
    assert json.loads(line)["reward_size"] == 3.0
    (path,) = (tmp_path / "run").glob("checkpoint-*[0-9]")
    result = kerasrl("evaluate", path, "--episodes", 1, *modules)
    assert result.exit_code == 0, (result.output, result.exception)
