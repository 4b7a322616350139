"""A check that an environment is fit for training."""

import gymnasium
import numpy as np
from gymnasium.utils import env_checker

from kerasrl.envs.make import make_envs
from kerasrl.envs.spaces import space_leaves


def check_env(env, env_config=None):
    """Checks an environment with gymnasium's checker and against kerasrl's limits.

    Run it once on a new environment, in a test of your own.

    Args:
        env: anything `make_envs` takes except vector environments.
        env_config: dict, as in `make_envs`.

    Returns:
        A list of strings: remarks on what works but is worth knowing (float64
        observations are kept as float32, unbounded actions, ...). Empty if there are
        none.

    Raises:
        ValueError: saying what is wrong.

    Example:

    ```python
    check_env("CartPole-v1")
    # []
    ```
    """
    number = None if isinstance(env, gymnasium.Env) else 1
    with make_envs(env, num_envs=number, env_config=env_config) as envs:
        if not hasattr(envs, "envs"):
            raise ValueError(
                f"Pass a single environment, not a vector environment. Received: {env}."
            )
        single = envs.envs[0]
        try:
            env_checker.check_env(
                single.unwrapped, skip_render_check=True, skip_close_check=True
            )
        except Exception as error:
            raise ValueError(
                f"gymnasium's checker refuses {envs.name}: {error}"
            ) from error
        _check_reset(envs)
        return _remarks(envs)


def _check_reset(envs):
    space = envs.observation_space
    first, second = envs.reset([13]), envs.reset([13])
    for (name, _), a, b in zip(
        space_leaves(space),
        envs.observation_leaves(first),
        envs.observation_leaves(second),
        strict=True,
    ):
        if not np.array_equal(a, b):
            raise ValueError(
                f"{envs.name}: reset(seed=13) twice gave different observations at "
                f"`{name}`. Draw all randomness from self.np_random after "
                "super().reset(seed=seed), so that runs can be repeated."
            )
        if not np.isfinite(a).all():
            raise ValueError(
                f"{envs.name}: reset returned NaN or infinity at `{name}`: {a}."
            )


def _remarks(envs):
    remarks = []
    for name, leaf in space_leaves(envs.observation_space):
        if leaf.dtype == np.float64:
            remarks.append(f"{name} is float64; observations are kept as float32.")
    for name, leaf in space_leaves(envs.action_space, "action"):
        if isinstance(leaf, gymnasium.spaces.Box):
            if leaf.dtype.kind != "f":
                remarks.append(
                    f"{name} is a Box of {leaf.dtype}; actions are rounded. Discrete "
                    "or MultiDiscrete learns better."
                )
            elif not leaf.is_bounded():
                remarks.append(f"{name} is unbounded; actions are not clipped.")
            elif np.abs([leaf.low, leaf.high]).max() > 100.0:
                remarks.append(
                    f"{name} has bounds beyond 100; policies start near zero with "
                    "deviation 1, so rescale it (gymnasium.wrappers.RescaleAction)."
                )
    return remarks
