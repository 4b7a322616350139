"""Bad input gets one line that says what to mend, and leaves nothing behind."""

import inspect
import re
import shutil
import sys
from pathlib import Path

import gymnasium
import pytest
from commands import error, kerasrl

import kerasrl as package
from kerasrl.callbacks import run_logger
from kerasrl.experiment import optimizer
from kerasrl.logs import LOGGED

CARTPOLE = ("train", "PPO", "CartPole-v1", "--steps", "10", "--progress", "none")
#: A schedule whose argument is missing, and one whose name is wrong.
UNFINISHED = '{"class_name": "PolynomialDecay", "config": {}}'
MISSPELT = '{"class_name": "PolinomialDecay", "config": {}}'


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    """Where runs go; nothing may be left there, nor in the working directory."""
    monkeypatch.setattr(run_logger, "RESULTS", tmp_path / "home" / "results")
    monkeypatch.chdir(tmp_path)
    yield
    written = {"experiment.yaml", "kept", "own.py", "__pycache__"}
    assert {path.name for path in tmp_path.iterdir()} <= written


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["trian"], "Did you mean 'train'"),
        (["--bogus"], "No such option '--bogus'"),
        (["evaluate"], "Missing argument 'CHECKPOINT'"),
        (["stack", "a"], "'PID': it must be an integer from 1"),
        (["train", ""], "'[ALGO]': it is empty"),
        (["train", "PPO", ""], "'[ENV]': it is empty"),
        (["train", "PPO", "CartPole v1"], "mean 'CartPole-v1'"),
        (["train", "PPO", "FrozenLake-v2"], "mean 'FrozenLake-v1'"),
        (["train", "-f", ""], "'--file': it is empty"),
        (["train", "PPQ", "CartPole-v1"], "'PPQ'. Did you mean 'PPO'"),
        (["train", "PPO", "CartPol-v1"], "'CartPole-v1'"),
        (["train", "PPO", "CartPole-v1", "--set", "gama=1"], "mean 'gamma'"),
        (["train", "PPO", "CartPole-v1", "--config", '{"lamda": 1}'], "mean 'lambda'"),
        (
            ["train", "PG", "CartPole-v1", "--set", "num_sgd_iter=3"],
            "PG has no setting 'num_sgd_iter'",
        ),
        (["train", "PPO", "CartPole-v1", "--set", "gamma"], "key=value"),
        (["train", "PPO", "CartPole-v1", "--set", "gamma=[1"], "is not YAML"),
        (["train", "PPO", "CartPole-v1", "--set", "gamma=3"], "gamma"),
        (["train", "PPO", "CartPole-v1", "--config", "{gamma}"], "JSON object"),
        (["train", "PPO", "CartPole-v1", "--config", "[1]"], "JSON object"),
        (
            ["train", "PPO", "CartPole-v1", "--set", "policy.hiden_units=[3]"],
            "mean 'hidden_units'",
        ),
        (
            ["train", "PPO", "CartPole-v1", "--set", "optimizer.epsilom=1"],
            "mean 'epsilon'",
        ),
        (["train", "PPO", "CartPole-v1", "--set", "optimizer=adan"], "adan"),
        (
            [
                "train",
                "PPO",
                "CartPole-v1",
                "--set",
                "lr=1",
                "--set",
                "learning_rate=2",
            ],
            "same setting",
        ),
        (["train", "PPO", "CartPole-v1", "--stop", '{"loss": "low"}'], "number"),
        (["train"], "Which algorithm?"),
        (["train", "PPO"], "Which environment?"),
        (["train", "PPO", "CartPole-v1", "--run", "A2C"], "given twice"),
        (["train", "PPO", "CartPole-v1", "--steps", "0"], "--steps"),
        (["train", "PPO", "CartPole-v1", "--step", "10"], "--steps"),
        (["train", "-f", "nowhere.yaml"], "nowhere.yaml"),
        (["train", "nowhere:Agent", "CartPole-v1"], "'nowhere' cannot be imported"),
        (["train", "json:loads", "CartPole-v1"], "not a subclass of kerasrl.Agent"),
        (["train", "PPO", "CartPole-v1", "--import", "nowhere"], "cannot be imported"),
        (["train", "--resume", "nowhere/checkpoint-3"], "no checkpoint at"),
        (["rollout", "nowhere/checkpoint-3"], "no checkpoint at"),
        (
            ["train", "PPO", "CartPole-v1", "--num-workers", "3", "--num-envs", "2"],
            "Every worker needs an environment",
        ),
        (["train", "PPO", "CartPole-v1", "--set", "num_workers=a"], "an integer"),
        (["train", "PPO", "CartPole-v1", "--config", '{"framework": "torch"}'], "tf2"),
        (
            ["train", "PPO", "CartPole-v1", "--config", '{"train_batch_size": 1001}'],
            "not a multiple",
        ),
    ],
)
def test_bad_input_gets_one_line(arguments, expected):
    assert expected in error(*arguments)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ('{"model": 3}', "model must be a mapping. Received: 3"),
        ('{"train_batch_size": "abc"}', "train_batch_size must be an integer from 1"),
        ('{"train_batch_size": null}', "train_batch_size must be an integer from 1"),
        ('{"train_batch_size": 8, "num_envs": 0}', "num_envs must be an integer from"),
        ('{"num_envs_per_worker": "a"}', "num_envs_per_worker must be an integer"),
        ('{"num_workers": 1, "env_timeout": "a"}', "env_timeout must be a positive"),
        (
            '{"rollout_fragment_length": 1.5}',
            "must be an integer from 1. Received: 1.5",
        ),
        ('{"steps_per_epoch": true}', "steps_per_epoch must be an integer"),
        ('{"framework": ["tf"]}', "framework must be a text"),
        ('{"observation_filter": ["x"]}', "observation_filter must be a text"),
        ('{"replay_buffer_config": 3}', "replay_buffer_config must be a mapping"),
        ('{"replay_buffer_config": {"type": 3}}', "replay_buffer_config.type must be"),
        ('{"exploration_config": [1]}', "exploration_config must be a mapping"),
        (
            '{"exploration_config": {"initial_epsilon": 2}}',
            "exploration_config.initial_epsilon must be a number from 0 to 1",
        ),
        ('{"model": {"conv_filters": [[1, 2]]}}', "list of [channels, kernel, stride]"),
        ('{"model": {"use_lstm": "maybe"}}', "use_lstm must be true or false"),
        ('{"env": 3}', "env must be a text"),
        ('{"env_config": 3}', "env_config must be a mapping"),
        ('{"lr": "abc"}', "learning_rate must be a number from 0, or a schedule"),
        ('{"lr": null}', "learning_rate must be a number from 0, or a schedule"),
        ('{"lr": {"foo": 1}}', "{class_name: PolynomialDecay, config: {...}}"),
        (f'{{"lr": {UNFINISHED}}}', "PolynomialDecay does not accept these arguments"),
        (f'{{"lr": {MISSPELT}}}', "Did you mean 'PolynomialDecay'?"),
        (f'{{"entropy_coeff": {MISSPELT}}}', "Did you mean 'PolynomialDecay'?"),
        ('{"clip_ratio": {"a": 1}}', "Received clip_ratio={'a': 1}"),
        ('{"optimizer": 3}', "optimizer must be a text"),
        ('{"optimizer": "MultiOptimizer"}', "Unknown optimizer 'MultiOptimizer'"),
        ('{"optimizer": "adamm"}', "Did you mean 'Adam'?"),
        ('{"optimizer": {"epsilon": "abc"}}', "optimizer.epsilon must be a number"),
        ('{"optimizer": {"clipnorm": "abc"}}', "be a positive number or null"),
        ('{"optimizer": {"beta_1": 5}}', "optimizer.beta_1 must be a number from 0 to"),
        ('{"optimizer": {"beta_2": 1}}', "optimizer.beta_2 must be a number from 0 to"),
        ('{"optimizer": {"beta_1": -0.1}}', "to below 1. Received: -0.1"),
        ('{"optimizer": {"epsilon": -1}}', "optimizer.epsilon must be a number from 0"),
        (
            '{"optimizer": {"clipnorm": 0}}',
            "clipnorm must be a positive number or null",
        ),
        ('{"optimizer": {"weight_decay": -1}}', "must be a number from 0 or null"),
        ('{"optimizer": {"gradient_accumulation_steps": 1.5}}', "an integer from 2"),
        ('{"optimizer": {"use_ema": 1}}', "optimizer.use_ema must be true or false"),
        ("[" * 100_000, "--config must be a JSON object"),
    ],
)
def test_types_of_settings(config, expected):
    assert expected in error(*CARTPOLE, "--config", config)


@pytest.mark.parametrize("name", ["bogus", "foo", ""])
def test_names_that_are_near_to_nothing(name):
    message = error(*CARTPOLE, "--set", f"policy.{name}=1")
    assert "Did you mean" not in message and "hidden_units" in message
    message = error("train", name or "bogus", "CartPole-v1")
    assert "Did you mean" not in message and "A2C, A3C, APPO, ARS, " in message


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--seed", "-1", "'--seed': it must be an integer from 0 to 2147483647"),
        ("--seed", "9" * 23, "'--seed': it must be an integer from 0 to 2147483647"),
        ("--steps", "1e-5", "'--steps': it must be an integer from 1"),
        ("--steps", "1e400", "'--steps': it must be an integer from 1"),
        ("--steps", "many", "Received: 'many'"),
        ("--num-envs", "0", "'--num-envs': it must be an integer from 1"),
        ("--logdir", "", "'--logdir': it is empty"),
        ("--resume", "", "'--resume': it is empty"),
        ("--import", "", "'--import': it is empty"),
        ("--import", ".own", "'.own' is not the name of a module"),
        ("--distribute", "mirrord", "--distribute: Received 'mirrord'"),
        ("--progress", "no", "'--progress': 'no' is not one of"),
        ("--env-config", '{"bogus": 1}', "no argument 'bogus' in env_config"),
        ("--logdir", f"{__file__}/run", "test_refusals.py is a file"),
        ("--set", "lr=2020-99-99", "is not YAML"),
    ],
)
def test_options(option, value, expected):
    assert expected in error(*CARTPOLE, option, value)


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        ('{"foo": 3}', "Unknown stop criterion 'foo'. Expected one of: "),
        ('{"episode_retrun_mean": 3}', "Did you mean 'episode_return_mean'?"),
        ('{"foo_mean": 3}', "Unknown stop criterion 'foo_mean'"),
        ('{"env_steps": NaN}', "'env_steps' must be a positive number"),
        ('{"timesteps_total": 0}', "'timesteps_total' must be a positive number"),
        ('{"timesteps_total": 1, "env_steps": 2}', "are the same stop criterion"),
    ],
)
def test_stop_criteria(stop, expected):
    assert expected in error(*CARTPOLE, "--stop", stop)


@pytest.mark.parametrize("directory", [[], ["--logdir", "deep/run"]])
def test_what_only_training_can_refuse_leaves_nothing(directory):
    # A metric of another algorithm.
    message = error(
        *("train", "A2C", "CartPole-v1", "--progress", "none", "--num-envs", 2),
        *("--set", "steps_per_epoch=20", "--stop", '{"clip_fraction": 1}', *directory),
    )
    assert "A2C does not log the stop criterion 'clip_fraction'" in message
    message = error("train", "DQN", "Pendulum-v1", "--steps", 10, *directory)
    assert "needs a Discrete, MultiDiscrete or MultiBinary" in message


def test_what_was_trained_stays(tmp_path):
    error(
        *("train", "A2C", "CartPole-v1", "--progress", "none", "--num-envs", 2),
        *("--set", "steps_per_epoch=20", "--stop", '{"clip_fraction": 1}'),
        *("--checkpoint-freq", 1, "--logdir", "kept"),
    )
    assert (tmp_path / "kept" / "checkpoint-2").exists()


def test_a_directory_that_was_there_stays(tmp_path):
    (tmp_path / "experiment.yaml").mkdir()
    arguments = (
        "train",
        "DQN",
        "Pendulum-v1",
        "--logdir",
        tmp_path / "experiment.yaml",
    )
    error(*arguments)
    assert (tmp_path / "experiment.yaml").is_dir()


def test_metrics_of_ones_own_may_stop(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(
        "import keras, kerasrl\n"
        "@keras.saving.register_keras_serializable('own')\n"
        "class Own(kerasrl.A2C):\n"
        "    def learn(self, rollout):\n"
        "        logs = super().learn(rollout)\n"
        "        return {**logs, 'episode_los': 5.0}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = ("train", "own:Own", *CARTPOLE[2:], "--eval-episodes", 0)
    result = kerasrl(*own, "--logdir", "run", "--stop", '{"episode_los": 5}')
    assert result.exit_code == 0, result.output
    assert "Stopped: episode_los = 5 reached 5" in result.output
    shutil.rmtree("run")
    assert "Did you mean 'episode_los'?" in error(*own, "--stop", '{"episode_loss": 5}')


def test_logged_names_are_the_documented_ones():
    path = Path(package.__file__).parents[1] / "docs" / "metrics.md"
    table, _, _ = path.read_text().partition("Added by others")
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    names = set(re.findall(r"`(\w+)`", " ".join(cells))) - {"_min", "_max"}
    assert names == set(LOGGED)


def test_files_that_stand_for_more_than_memory(tmp_path):
    path = tmp_path / "experiment.yaml"
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
        for before, name in zip("abcdefghi", "bcdefghij", strict=True)
    )
    merged = "a: &a {x: 1}\n" + "".join(
        f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n"
        for before, name in zip("abcdefghi", "bcdefghij", strict=True)
    )
    for content in (bomb, merged):
        path.write_text(content)
        message = error("train", "-f", path, "--progress", "none")
        assert "stands for more than 100,000 values" in message
    path.write_text("a: " + "x" * 2_000_000)
    assert "more than 1,000,000 characters" in error("train", "-f", path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a: {run: PPO}\nb: 3", "experiment 'b' must be a mapping"),
        ("a: {run: PPO, evn: E}", "Unknown entry 'evn'. Did you mean 'env'"),
        ("a: {run: PPO, env: E, num_samples: 0}", "num_samples must be an integer"),
        ("a: {run: PPO, env: E, stop: 3}", "stop must be a mapping"),
        ("a: 3", "must be a mapping"),
        ("", "one experiment"),
        ("a: [", "cannot be read as YAML"),
        ("a: {run: PPO, env: CartPole-v1, stop: {env_stps: 3}}", "mean 'env_steps'"),
        ("a: {run: [PPO], env: E}", "run must be a text"),
        ("a: {run: PPO, env: 5}", "env must be a text"),
        ("a: {run: PPO, env: E, config: {1: 2}}", "the key 1 must be a text"),
        ("a: {run: PPO, env: E, config: {model: {1: 2}}}", "the key 1 must be a text"),
        ("a: {run: PPO, env: E, config: 3}", "config must be a mapping"),
        ("a: {run: PPO, env: E, checkpoint_freq: abc}", "checkpoint_freq must be an"),
        ("a: {run: PPO, env: E, local_dir: 5}", "local_dir must be a text"),
        ("a: {run: PPO, env: E, local_dir: ''}", "local_dir must be a text"),
        ("a: {run: PPO, env: E, steps: 1.5}", "steps must be an integer from 1"),
        ("a: {run: PPO, env: E, checkpoint_at_end: false}", "always ends with a check"),
        ("run: PPO\nenv: E", "run, env must stand below the name of the experiment"),
        ("run: PPO\nenv: E\nconfig: {lr: 1}", "`name: {run: PPO, env: ...}`"),
        ("run: PPO", "run must stand below the name of the experiment"),
        ("a: 2020-99-99", "cannot be read as YAML"),
        ("a: &a {run: PPO, env: E, config: {b: *a}}", "cannot be read as YAML"),
    ],
)
def test_bad_files(content, expected, tmp_path):
    path = tmp_path / "experiment.yaml"
    path.write_text(content)
    assert expected in error(
        "train", "-f", path, "--logdir", tmp_path / "run", "--progress", "none"
    )


def test_every_number_of_an_optimizer_has_a_range():
    import keras

    names = set()
    for cls in vars(keras.optimizers).values():
        if inspect.isclass(cls) and issubclass(cls, keras.optimizers.Optimizer):
            if not optimizer.required(cls):
                names |= {
                    name
                    for name, each in inspect.signature(cls).parameters.items()
                    if each.default is None or type(each.default) in (int, float)
                }
    free = {"learning_rate", "name", "muon_a", "muon_b", "muon_c", "exclude_layers"}
    assert names <= free | set(optimizer.RANGES)


def test_a_window_needs_a_display(monkeypatch, tmp_path):
    names = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER", "SDL_VIDEO_DRIVER")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    message = error("rollout", tmp_path / "checkpoint-1", "--render")
    assert "no display" in message and "--video" in message


def test_a_checkpoint_names_no_module_to_import(tmp_path, monkeypatch):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "surprise.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(kept)
    agent = package.A2C({"hidden_units": (2,)}, seed=0)
    env = gymnasium.make("CartPole-v1")
    agent.build(env.observation_space, env.action_space)
    agent.env_name = "surprise:CartPole-v1"
    path = agent.save(kept / "checkpoint-1")
    for command in (
        ("evaluate", path),
        ("rollout", path),
        ("train", "--resume", path, "--steps", 10, "--logdir", tmp_path / "run"),
    ):
        message = error(*command)
        assert "a module to import" in message
        assert "--env surprise:CartPole-v1" in message


def test_not_a_checkpoint(tmp_path):
    (tmp_path / "checkpoint-1").write_bytes(b"PK\x03\x04 not really")
    error("rollout", tmp_path / "checkpoint-1")
    assert "name one of them" in error("rollout", tmp_path)
    (tmp_path / "checkpoint-1").unlink()
