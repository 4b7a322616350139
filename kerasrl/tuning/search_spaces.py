"""Where to search the settings of an algorithm, if nobody says otherwise."""

from collections.abc import Callable
from typing import Any

from kerasrl.checks import nearest
from kerasrl.tuning.spaces import choice, loguniform, uniform

Space = dict[str, Any]


def search_space(algorithm: str) -> Space:
    """The settings of an algorithm that matter most, and their usual ranges.

    Wide enough to hold good settings for small and for large tasks, after those of
    rl-baselines3-zoo. Narrow what is known, and add what the task needs.

    Args:
        algorithm: str, its name, such as `"PPO"`.

    Returns:
        nested dict of distributions, a new one.

    Raises:
        ValueError: for another name.

    Example:

    ```python
    space = {**search_space("PPO"), "gamma": 0.99, "num_envs": 8}
    ```
    """
    if algorithm not in SPACES:
        raise ValueError(
            f"Received algorithm={algorithm!r}. {nearest(str(algorithm), SPACES)}"
        )
    return SPACES[algorithm]()


def _common() -> Space:
    return {
        "learning_rate": loguniform(1e-5, 1e-2),
        "gamma": choice([0.9, 0.95, 0.98, 0.99, 0.995, 0.999]),
    }


def _policy() -> Space:
    return {
        "hidden_units": choice([[64], [64, 64], [256, 256], [400, 300]]),
        "activation": choice(["tanh", "relu"]),
    }


def _on_policy(longest: int = 2048) -> Space:
    lengths = [2**power for power in range(3, 12) if 2**power <= longest]
    return {
        **_common(),
        "rollout_length": choice(lengths),
        "entropy_coef": loguniform(1e-8, 0.1),
        "value_coef": uniform(0.01, 1.0),
        "max_grad_norm": choice([0.3, 0.5, 1.0, 5.0, None]),
        "policy": _policy(),
    }


def _pg() -> Space:
    return {**_on_policy(512), "normalize_advantages": choice([True, False])}


def _a2c() -> Space:
    return {
        **_on_policy(128),
        "gae_lambda": choice([0.8, 0.9, 0.95, 0.98, 1.0]),
        "normalize_advantages": choice([True, False]),
    }


def _a3c() -> Space:
    return {**_on_policy(128), "gae_lambda": choice([0.8, 0.9, 0.95, 0.98, 1.0])}


def _ppo() -> Space:
    return {
        **_on_policy(),
        "num_epochs": choice([1, 3, 5, 10, 20]),
        "minibatch_size": choice([32, 64, 128, 256, 512]),
        "gae_lambda": choice([0.8, 0.9, 0.95, 0.98, 1.0]),
        "clip_ratio": choice([0.1, 0.2, 0.3, 0.4]),
    }


def _appo() -> Space:
    return {
        **_on_policy(128),
        "num_epochs": choice([1, 2, 4, 8]),
        "minibatch_size": choice([64, 128, 256, 512]),
        "gae_lambda": choice([0.8, 0.9, 0.95, 0.98, 1.0]),
        "clip_ratio": choice([0.1, 0.2, 0.3, 0.4]),
    }


def _impala() -> Space:
    return {**_on_policy(128), "trace_lambda": choice([0.8, 0.9, 0.95, 1.0])}


def _replay() -> Space:
    return {
        **_common(),
        "batch_size": choice([32, 64, 128, 256, 512]),
        "buffer_size": choice([10_000, 50_000, 100_000, 1_000_000]),
        "n_step": choice([1, 3, 5]),
    }


def _q_learning() -> Space:
    return {
        **_replay(),
        "train_every": choice([1, 4, 8, 16]),
        "target_update_interval": choice([1, 250, 500, 1_000, 5_000, 10_000]),
        "policy": _policy(),
    }


def _simple_q() -> Space:
    return {**_q_learning(), "exploration": loguniform(0.01, 0.3)}


def _dqn() -> Space:
    return {
        **_q_learning(),
        "dueling": choice([True, False]),
        "prioritized": choice([True, False]),
    }


def _apex_dqn() -> Space:
    return {**_q_learning(), "importance_exponent": uniform(0.2, 1.0)}


def _r2d2() -> Space:
    return {
        **_common(),
        "batch_size": choice([16, 32, 64]),
        "n_step": choice([1, 3, 5]),
        "train_every": choice([8, 20, 40]),
        "target_update_interval": choice([500, 1_000, 2_000, 5_000]),
        "priority_mixture": uniform(0.5, 1.0),
        "burn_in": choice([0, 5, 10]),
    }


def _continuous() -> Space:
    return {
        **_replay(),
        "tau": choice([0.001, 0.005, 0.01, 0.02, 0.05]),
        "train_every": choice([1, 4, 8]),
        "policy": _policy(),
    }


def _with_noise() -> Space:
    return {
        **_continuous(),
        "noise": choice(["gaussian", "ornstein_uhlenbeck"]),
        "noise_scale": uniform(0.01, 0.5),
    }


def _apex_ddpg() -> Space:
    return {**_continuous(), "importance_exponent": uniform(0.2, 1.0)}


def _td3() -> Space:
    return {
        **_with_noise(),
        "target_noise": uniform(0.1, 0.4),
        "policy_delay": choice([1, 2, 4]),
    }


def _sac() -> Space:
    return {**_continuous(), "adjust_temperature": choice([True, False])}


def _of_data() -> Space:
    return {
        **_common(),
        "batch_size": choice([64, 128, 256, 512]),
        "policy": _policy(),
    }


def _bc() -> Space:
    space = _of_data()
    del space["gamma"]
    return space


def _marwil() -> Space:
    return {
        **_of_data(),
        "beta": choice([0.25, 0.5, 1.0, 2.0, 4.0]),
        "value_coef": loguniform(0.1, 10.0),
    }


def _cql() -> Space:
    return {**_of_data(), "alpha": loguniform(0.1, 10.0)}


def _iql() -> Space:
    return {
        **_of_data(),
        "expectile": choice([0.5, 0.7, 0.8, 0.9]),
        "beta": loguniform(0.5, 10.0),
    }


def _td3bc() -> Space:
    return {
        **_of_data(),
        "alpha": loguniform(0.5, 10.0),
        "target_noise": uniform(0.1, 0.4),
    }


def _evolution() -> Space:
    return {
        "learning_rate": loguniform(1e-3, 0.1),
        "num_pairs": choice([8, 16, 32, 64]),
        "noise_scale": loguniform(0.01, 0.3),
    }


def _es() -> Space:
    return {**_evolution(), "weight_decay": choice([0.0, 0.001, 0.005, 0.01])}


SPACES: dict[str, Callable[[], Space]] = {
    "A2C": _a2c,
    "A3C": _a3c,
    "APPO": _appo,
    "ARS": _evolution,
    "ApexDDPG": _apex_ddpg,
    "ApexDQN": _apex_dqn,
    "BC": _bc,
    "CQL": _cql,
    "DDPG": _with_noise,
    "DQN": _dqn,
    "ES": _es,
    "IMPALA": _impala,
    "IQL": _iql,
    "MARWIL": _marwil,
    "PG": _pg,
    "PPO": _ppo,
    "R2D2": _r2d2,
    "SAC": _sac,
    "SimpleQ": _simple_q,
    "TD3": _td3,
    "TD3BC": _td3bc,
}
