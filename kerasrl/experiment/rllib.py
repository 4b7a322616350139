"""RLlib's spellings of hyperparameters."""

from collections.abc import Iterable, Iterator
from typing import Any

from kerasrl.experiment import evolution
from kerasrl.experiment.refusals import (
    FLAG,
    MAPPING,
    POSITIVE,
    TEXT,
    Kind,
    check,
    check_all,
    number,
    optional,
    refuse,
    unknown,
    whole,
)
from kerasrl.experiment.schedules import epsilon_schedule
from kerasrl.spellings import ELSEWHERE, RLLIB_MODEL

RLLIB_STOP = {
    "episode_reward_mean": "episode_return_mean",
    "episode_len_mean": "episode_length_mean",
    "timesteps_total": "env_steps",
    "episodes_total": "episodes",
    "training_iteration": "epochs",
}
CLUSTER = Kind(
    '"ray", or a mapping of the arguments of kerasrl.RayCluster',
    lambda value: value if value == "ray" or isinstance(value, dict) else None,
)
#: The settings that are read here. Agents and policies check their own.
KINDS = {
    "num_envs": optional(whole(1)),
    "num_envs_per_worker": whole(1),
    "env_config": optional(MAPPING),
    "steps_per_epoch": optional(whole(1)),
    "num_workers": optional(whole(0)),
    "worker_mode": optional(TEXT),
    "env_timeout": optional(POSITIVE),
    "cluster": optional(CLUSTER),
    "train_batch_size": whole(1),
    "rollout_fragment_length": whole(1),
    "model": optional(MAPPING),
    "replay_buffer_config": optional(MAPPING),
    "exploration_config": optional(MAPPING),
    "prioritized_replay_alpha": number("a number from 0", least=0),
    "use_gae": FLAG,
    "use_kl_loss": FLAG,
    "framework": TEXT,
    "observation_filter": TEXT,
}
#: Entries of `model` that are read here, or mean nothing without a value.
MODEL_KINDS = {
    "use_lstm": optional(FLAG),
    "lstm_use_prev_action_reward": optional(FLAG),
    "free_log_std": optional(FLAG),
    "max_seq_len": optional(whole(1)),
    "no_final_linear": optional(FLAG),
    "framestack": optional(FLAG),
    "grayscale": optional(FLAG),
    "zero_mean": optional(FLAG),
    "custom_model": optional(TEXT),
    "custom_model_config": optional(MAPPING),
    "custom_options": optional(MAPPING),
    "custom_action_dist": optional(TEXT),
    "custom_preprocessor": optional(TEXT),
}
#: Those that ask for what is done elsewhere here, unless they say no.
MODEL_REFUSED = (
    *("max_seq_len", "no_final_linear", "framestack", "grayscale", "dim", "zero_mean"),
)


def from_rllib(
    config: dict[str, Any], arguments: Iterable[str]
) -> Iterator[tuple[str, str, Any]]:
    """Translate what in RLlib's configuration is more than another name.

    Args:
        config: dict of hyperparameters in kerasrl's or RLlib's spelling.
        arguments: names of the constructor's arguments of the agent.

    Yields:
        tuples of a key of `config`, and the name and the value of a hyperparameter that
        it stands for. Two keys may stand for the same one.
    """
    for key, value in config.items():
        if contains_grid_search(value):
            refuse(
                f"{key!r} is a grid_search, and this trains one agent. Give one value, "
                "or have all tried: kerasrl tune."
            )
    config = check_all(config, KINDS)
    num_workers = config.get("num_workers") or 0
    # Without any, RLlib's environments are those of the learner.
    num_shares = max(1, num_workers)
    num_envs = config.get("num_envs_per_worker", 0) * num_shares
    num_envs = config.get("num_envs") or num_envs or max(8, num_workers)
    is_off_policy = "buffer_size" in arguments
    for key, value in config.items():
        if key == "num_workers":
            yield key, key, num_workers
        elif key == "num_envs_per_worker":
            yield key, key, value * num_shares
        elif key == "framework":
            if value not in ("tf", "tf2", "tfe"):
                refuse(f"framework must be tf, tf2 or tfe. Received: {value!r}")
        elif key == "use_gae":
            # Without it RLlib's advantages are discounted returns minus values.
            if not value:
                yield key, "gae_lambda", 1.0
        elif key == "use_kl_loss":
            if value and not config.keys() & {"kl_coeff", "kl_coef"}:
                yield key, "kl_coef", 1.0
        elif key in ("kl_coeff", "kl_target") and config.get("use_kl_loss") is False:
            continue  # Weights of what is not there.
        elif key == "observation_filter":
            filters = {"NoFilter": False, "MeanStdFilter": True}
            if value not in filters:
                refuse(unknown("observation_filter", value, filters))
            yield key, "policy.normalize_observations", filters[value]
        elif key in evolution.KINDS and "num_pairs" in arguments:
            for name, argument in evolution.evolution_arguments(key, value, config):
                yield key, name, argument
        elif key == "train_batch_size" and is_off_policy:
            yield key, "batch_size", value
        elif key == "rollout_fragment_length" and "initial_priorities" in arguments:
            refuse(
                "rollout_fragment_length: workers of Ape-X act for what "
                "updates_per_call gradient steps are due for, one for each train_every "
                "environment steps. Give these."
            )
        elif key == "rollout_fragment_length" and is_off_policy:
            # RLlib updates once after each fragment of each environment.
            yield key, "train_every", value * num_envs
        elif key == "replay_buffer_config":
            for name, argument in (value or {}).items():
                yield key, *replay_argument(name, argument)
        elif key == "prioritized_replay_alpha":
            yield key, "replay", {"priority_exponent": value}
        elif key == "exploration_config":
            yield key, "exploration", epsilon_schedule(value or {})
        elif key == "train_batch_size":
            if "rollout_fragment_length" in config or "rollout_length" in config:
                refuse(
                    "Give train_batch_size or rollout_length, not both: an iteration "
                    "is rollout_length * num_envs steps, of asynchronous workers "
                    "rollout_length * those that an update learns from."
                )
            size = num_envs
            if "synchronous" in arguments and not config.get("synchronous"):
                size //= num_shares  # It learns from some of the workers at a time.
                if "fragments_per_update" in arguments:
                    half = max(1, num_shares // 2)
                    size *= config.get("fragments_per_update") or half
            if value % size:
                what = "num_envs" if size == num_envs else "environments of an update"
                refuse(f"train_batch_size={value} is not a multiple of {what}={size}.")
            yield key, "rollout_length", value // size
        elif key == "model":
            for name, argument in model_arguments(value or {}, arguments):
                yield key, name, argument
        else:
            yield key, key, value


def replay_argument(name: str, value: Any) -> tuple[str, Any]:
    """One entry of RLlib's `replay_buffer_config` as an argument of the agent."""
    names = {
        "capacity": "buffer_size",
        "learning_starts": "learning_starts",
        "prioritized_replay_beta": "importance_exponent",
    }
    if name == "type":
        kind = check("replay_buffer_config.type", value, TEXT)
        return "prioritized", "Prioritized" in kind
    if name == "prioritized_replay_alpha":
        value = check(f"replay_buffer_config.{name}", value, KINDS[name])
        return "replay", {"priority_exponent": value}
    if name not in names:
        known = (*names, "type", "prioritized_replay_alpha")
        refuse(unknown("entry of replay_buffer_config", name, known))
    return names[name], value


def model_arguments(
    model: dict[str, Any], arguments: Iterable[str]
) -> Iterator[tuple[str, Any]]:
    """RLlib's `model` in names of settings, see `from_rllib`."""
    activations = [model.get(f"{part}_activation") for part in ("fcnet", "conv")]
    if None not in activations and activations[0] != activations[1]:
        refuse(
            f"fcnet_activation is {activations[0]!r} and conv_activation "
            f"{activations[1]!r}. A built-in trunk has one activation: give one, or "
            'register a trunk of your own: model: {"custom_model": name}.'
        )
    for name, value in model.items():
        if name in MODEL_KINDS:
            value = check(name, value, MODEL_KINDS[name])
        if _says_nothing(name, model):
            continue
        if value is None or (name in MODEL_REFUSED and value is False):
            continue  # As RLlib has it if nothing is said.
        if name == "max_seq_len" and "sequence_length" in arguments:
            yield "sequence_length", value
        elif name in MODEL_REFUSED:
            refuse(f"model.{name}: {ELSEWHERE[name]}")
        elif name == "custom_preprocessor":
            yield "env_config.preprocessor", value
        elif name == "conv_activation" and activations[0] is not None:
            continue  # It is the same.
        elif name in RLLIB_MODEL:
            yield f"policy.{RLLIB_MODEL[name]}", model_value(name, value)
        else:
            known = (*RLLIB_MODEL, *MODEL_REFUSED, "custom_preprocessor")
            refuse(unknown("entry of model", name, known))


def _says_nothing(name: str, model: dict[str, Any]) -> bool:
    """Whether an entry is about what another one says is not there."""
    if name == "custom_model_config":
        return not model[name] and "custom_model" in model and not model["custom_model"]
    return name == "lstm_cell_size" and model.get("use_lstm") is False


def model_value(name: str, value: Any) -> Any:
    """The value of an entry of RLlib's `model` as the policy's argument has it."""
    if name == "use_lstm":
        return "lstm" if value else None
    if name == "free_log_std":
        return "independent" if value else "predicted"
    if name != "conv_filters":
        return value
    layers = value if isinstance(value, list) else [value]
    if not all(isinstance(each, list) and len(each) == 3 for each in layers):
        refuse(
            f"conv_filters must be a list of [channels, kernel, stride]. Received: "
            f"{value!r}"
        )
    # [channels, [height, width], stride]: only square kernels have one size.
    filters = []
    for channels, kernel, stride in layers:
        if isinstance(kernel, list) and len(set(kernel)) == 1:
            kernel = kernel[0]
        filters.append((channels, kernel, stride))
    return filters


def contains_grid_search(value: Any) -> bool:
    """Whether RLlib's `grid_search` stands anywhere in a tree of dicts and lists."""
    if isinstance(value, dict):
        return "grid_search" in value or any(map(contains_grid_search, value.values()))
    return isinstance(value, list) and any(map(contains_grid_search, value))
