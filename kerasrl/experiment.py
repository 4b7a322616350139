"""Reading what to train: hyperparameters, RLlib's spellings, experiment files.

Everything refused here ends the command with one line that names the nearest valid
name.
"""

import difflib
import inspect
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import click
import yaml

#: RLlib's names of hyperparameters that mean the same here. Where there are several
#: names for one of RLlib's, the algorithm's own settings decide.
RLLIB_CONFIG = {
    "lr": "learning_rate",
    "lambda": "gae_lambda",
    "num_sgd_iter": "num_epochs",
    "sgd_minibatch_size": "minibatch_size",
    "rollout_fragment_length": "rollout_length",
    "num_envs_per_worker": "num_envs",
    "clip_param": "clip_ratio",
    "vf_loss_coeff": "value_coef",
    "entropy_coeff": "entropy_coef",
    "kl_coeff": "kl_coef",
    "kl_target": "target_kl",
    "grad_clip": "max_grad_norm",
    "double_q": "double",
    "prioritized_replay": "prioritized",
    "prioritized_replay_beta": "importance_exponent",
    "target_network_update_freq": "target_update_interval",
    "num_steps_sampled_before_learning_starts": "learning_starts",
    "initial_alpha": "temperature",
}
RLLIB_MODEL = {
    "fcnet_hiddens": "hidden_units",
    "fcnet_activation": "activation",
    "conv_filters": "filters",
    "vf_share_layers": "shared_trunk",
    "lstm_cell_size": "cell_units",
    "use_lstm": "cell",
}
RLLIB_STOP = {
    "episode_reward_mean": "episode_return_mean",
    "episode_len_mean": "episode_length_mean",
    "timesteps_total": "env_steps",
    "episodes_total": "episodes",
    "training_iteration": "epochs",
}
#: Settings that are arguments of `fit` rather than of the agent.
FIT = (
    "num_envs",
    "env_config",
    "steps_per_epoch",
    "num_workers",
    "worker_mode",
    "env_timeout",
)
#: What an experiment in a YAML file may say.
EXPERIMENT = (
    "run",
    "env",
    "stop",
    "config",
    "checkpoint_freq",
    "checkpoint_at_end",
    "local_dir",
    "num_samples",
    "steps",
)


class Loader(yaml.SafeLoader):
    """YAML 1.1 takes `1e-3` for a text; here it is a number, as in YAML 1.2."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?$"),
    list("-+0123456789."),
)


def refuse(message: str) -> NoReturn:
    """End with a one-line error and exit code 2."""
    raise click.UsageError(" ".join(message.split()))


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is not known, with the nearest that is."""
    names = sorted(known)
    lowered = {candidate.lower(): candidate for candidate in reversed(names)}
    near = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.0)
    hint = f"Did you mean {lowered[near[0]]!r}? " if near else ""
    return f"Unknown {kind} {name!r}. {hint}Expected one of: {', '.join(names)}."


class Settings:
    """A configuration sorted by who takes what.

    Attributes:
        agent: dict, constructor arguments of the agent.
        policy: dict, arguments of the built-in policy; part of `agent` if not empty.
        optimizer: dict, arguments of the optimizer.
        optimizer_name: str or None, its name if one was given.
        fit: dict, arguments of `fit`.
    """

    def __init__(self) -> None:
        self.agent: dict[str, Any] = {}
        self.policy: dict[str, Any] = {}
        self.optimizer: dict[str, Any] = {}
        self.optimizer_name: str | None = None
        self.fit: dict[str, Any] = {}


def constructor_arguments(cls: type) -> list[str]:
    """Names of the constructor's arguments."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(cls).parameters.values()
    return [each.name for each in parameters if each.kind not in kinds]


def split_config(config: dict[str, Any], agent_class: Any) -> Settings:
    """Sort a configuration by who takes what; refuse what nobody takes.

    Args:
        config: dict of hyperparameters in kerasrl's or RLlib's spelling.
            `policy.<name>` and `optimizer.<name>` reach the policy's and the
            optimizer's arguments.
        agent_class: the agent's class; its constructor's signature says what is valid.

    Returns:
        `Settings`.

    Raises:
        click.UsageError: for a key that is not known, given twice, or not supported.
    """
    arguments = agent_class.hyperparameters()
    known = {*arguments, *FIT, "learning_rate", "optimizer"}
    settings = Settings()
    given: dict[str, str] = {}
    for key, value in from_rllib(config, arguments).items():
        name = RLLIB_CONFIG.get(key, key)
        if name not in known and name.partition(".")[0] in ("policy", "optimizer"):
            part, _, argument = name.partition(".")
            getattr(settings, part)[argument] = value
            continue
        if name not in known:
            aliases = {
                alias for alias, target in RLLIB_CONFIG.items() if target in known
            }
            nearest = difflib.get_close_matches(key, known | aliases, n=1, cutoff=0.0)
            refuse(
                f"{agent_class.__name__} has no setting {key!r}. Did you mean "
                f"{nearest[0]!r}? Expected one of: {', '.join(sorted(known))}, "
                "policy.<argument> or optimizer.<argument>."
            )
        if name in given:
            refuse(f"{given[name]!r} and {key!r} are the same setting. Give one.")
        given[name] = key
        if name in FIT:
            settings.fit[name] = value
        elif name == "learning_rate":
            settings.optimizer["learning_rate"] = value
        elif name == "optimizer":
            if isinstance(value, dict):
                settings.optimizer.update(value)
            else:
                settings.optimizer_name = str(value)
        elif name == "policy" and isinstance(value, dict):
            settings.policy.update(value)
        else:
            settings.agent[name] = value
    if settings.policy:
        check_policy(settings.policy, agent_class.default_policy)
        settings.agent["policy"] = settings.policy
    return settings


def check_policy(policy: dict[str, Any], policy_class: type) -> None:
    """Refuse arguments that the built-in policy does not have."""
    known = constructor_arguments(policy_class)
    for name in policy:
        if name not in known:
            refuse(unknown("policy argument", name, known))


def from_rllib(config: dict[str, Any], arguments: Iterable[str]) -> dict[str, Any]:
    """Translate what in RLlib's configuration is more than another name.

    Args:
        config: dict of hyperparameters in kerasrl's or RLlib's spelling.
        arguments: names of the constructor's arguments of the agent.

    Returns:
        dict of hyperparameters.
    """
    translated: dict[str, Any] = {}
    num_workers = config.get("num_workers") or 0
    if isinstance(num_workers, bool) or not isinstance(num_workers, int):
        refuse(f"num_workers must be an integer. Received: {num_workers!r}")
    # Without any, RLlib's environments are those of the learner.
    num_shares = max(1, num_workers)
    num_envs = config.get("num_envs_per_worker", 0) * num_shares
    num_envs = config.get("num_envs", num_envs or max(8, num_workers))
    is_off_policy = "buffer_size" in arguments
    for key, value in config.items():
        if contains_grid_search(value):
            refuse(
                f"{key!r} is a grid_search. Give one value: one command trains one "
                "agent."
            )
        if key == "num_workers":
            if value:
                translated[key] = value
        elif key == "num_envs_per_worker":
            translated[key] = value * num_shares
        elif key == "framework":
            if value not in ("tf", "tf2", "tfe"):
                refuse(f"framework must be tf, tf2 or tfe. Received: {value!r}")
        elif key == "use_gae":
            # Without it RLlib's advantages are discounted returns minus values.
            if not value:
                translated["gae_lambda"] = 1.0
        elif key == "observation_filter":
            filters = {"NoFilter": False, "MeanStdFilter": True}
            if value not in filters:
                refuse(unknown("observation_filter", str(value), filters))
            translated["policy.normalize_observations"] = filters[value]
        elif key == "train_batch_size" and is_off_policy:
            translated["batch_size"] = value
        elif key == "rollout_fragment_length" and is_off_policy:
            # RLlib updates once after each fragment of each environment.
            translated["train_every"] = value * num_envs
        elif key == "replay_buffer_config":
            translated.update(replay_arguments(value or {}))
        elif key == "prioritized_replay_alpha":
            translated["replay"] = {"priority_exponent": value}
        elif key == "exploration_config":
            translated["exploration"] = epsilon_schedule(value or {})
        elif key == "train_batch_size":
            if "rollout_fragment_length" in config or "rollout_length" in config:
                refuse(
                    "Give train_batch_size or rollout_length, not both: an iteration "
                    "is rollout_length * num_envs steps."
                )
            if value % num_envs:
                refuse(
                    f"train_batch_size={value} is not a multiple of "
                    f"num_envs={num_envs}."
                )
            translated["rollout_length"] = value // num_envs
        elif key == "model":
            for name, argument in (value or {}).items():
                translated.update(model_argument(name, argument))
        else:
            translated[key] = value
    return translated


def replay_arguments(config: dict[str, Any]) -> dict[str, Any]:
    """RLlib's `replay_buffer_config` as arguments of the agent."""
    names = {
        "capacity": "buffer_size",
        "learning_starts": "learning_starts",
        "prioritized_replay_beta": "importance_exponent",
    }
    translated: dict[str, Any] = {}
    for name, value in config.items():
        if name == "type":
            translated["prioritized"] = "Prioritized" in str(value)
        elif name == "prioritized_replay_alpha":
            translated["replay"] = {"priority_exponent": value}
        elif name in names:
            translated[names[name]] = value
        else:
            known = (*names, "type", "prioritized_replay_alpha")
            refuse(unknown("entry of replay_buffer_config", name, known))
    return translated


def epsilon_schedule(config: dict[str, Any]) -> Any:
    """RLlib's `exploration_config` as a schedule of environment steps."""
    from keras.optimizers.schedules import PolynomialDecay

    config = dict(config)
    kind = config.pop("type", "EpsilonGreedy")
    if kind != "EpsilonGreedy":
        refuse(f"exploration_config has type {kind!r}. Expected 'EpsilonGreedy'.")
    first = config.pop("initial_epsilon", 1.0)
    last = config.pop("final_epsilon", 0.05)
    steps = config.pop("epsilon_timesteps", 10_000)
    if config:
        known = ("type", "initial_epsilon", "final_epsilon", "epsilon_timesteps")
        refuse(unknown("entry of exploration_config", next(iter(config)), known))
    return PolynomialDecay(first, steps, last)


def model_argument(name: str, value: Any) -> dict[str, Any]:
    """One entry of RLlib's `model` as an argument of the policy."""
    if name not in RLLIB_MODEL:
        refuse(unknown("entry of model", name, RLLIB_MODEL))
    if name == "use_lstm":
        value = "lstm" if value else None
    elif name == "conv_filters":
        # [channels, [height, width], stride]: only square kernels have one size.
        filters = []
        for channels, kernel, stride in value:
            if isinstance(kernel, list) and len(set(kernel)) == 1:
                kernel = kernel[0]
            filters.append((channels, kernel, stride))
        value = filters
    return {f"policy.{RLLIB_MODEL[name]}": value}


def contains_grid_search(value: Any) -> bool:
    """Whether RLlib's `grid_search` stands anywhere in a tree of dicts and lists."""
    if isinstance(value, dict):
        return "grid_search" in value or any(map(contains_grid_search, value.values()))
    return isinstance(value, list) and any(map(contains_grid_search, value))


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """`["gamma=0.98", ...]` as a dict; values are YAML."""
    config: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            refuse(f"--set takes key=value. Received: {assignment!r}")
        try:
            config[key.strip()] = yaml.load(text, Loader)
        except yaml.YAMLError as error:
            refuse(f"--set {key}: {text!r} is not YAML: {first_line(error)}")
    return config


def parse_json(option: str, text: str | None) -> dict[str, Any]:
    """A JSON object given to an option."""
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        refuse(f"{option} must be a JSON object. Received: {text!r}: {error}")
    if not isinstance(value, dict):
        refuse(f"{option} must be a JSON object. Received: {text!r}")
    return value


def read_experiment(path: str) -> dict[str, Any]:
    """The one experiment of a YAML file in RLlib's layout."""
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        refuse(f"{path} cannot be read as YAML: {first_line(error)}")
    if not isinstance(content, dict) or not content:
        refuse(f"{path} must hold one experiment: `name: {{run: PPO, env: ...}}`.")
    if len(content) > 1:
        refuse(
            f"{path} holds {len(content)} experiments "
            f"({', '.join(map(str, content))}). One command runs one: split the file."
        )
    name, experiment = next(iter(content.items()))
    if not isinstance(experiment, dict):
        refuse(f"{path}: the experiment {name!r} must be a mapping with run, env, ...")
    for key in experiment:
        if key not in EXPERIMENT:
            refuse(f"{path}: " + unknown("entry", str(key), EXPERIMENT))
    if contains_grid_search(experiment):
        refuse(
            f"{path}: grid_search is not supported: give one value for each setting."
        )
    if experiment.get("num_samples", 1) != 1:
        refuse(f"{path}: num_samples must be 1: one command trains one agent.")
    for key in ("config", "stop"):
        if not isinstance(experiment.get(key) or {}, dict):
            refuse(f"{path}: {key} must be a mapping.")
    return experiment


def read_stop(criteria: dict[str, Any]) -> dict[str, Any]:
    """Stop criteria in kerasrl's names."""
    return {RLLIB_STOP.get(name, name): value for name, value in criteria.items()}


def first_line(error: BaseException) -> str:
    """The message of an error on one line; its type if it has none."""
    return " ".join(str(error).split()) or type(error).__name__
