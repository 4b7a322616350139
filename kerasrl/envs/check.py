"""A check that an environment is fit for training."""

import math
import warnings

import gymnasium
import numpy as np
import optree
from gymnasium.utils import env_checker

from kerasrl import action_masks, spaces
from kerasrl.envs.actions import ActionConverter
from kerasrl.envs.make import make_envs
from kerasrl.envs.protocol import EnvProtocolError
from kerasrl.spaces import named_leaves

_STEPS = 200


def check_env(env, env_config=None):
    """Checks an environment with gymnasium's checker and against kerasrl's limits.

    Takes 200 random steps and looks at everything that comes back: whether `reset` and
    `step` return what they must, and whether observations fit the observation space in
    structure, shape, kind and bounds. Training looks at shapes and kinds always, at
    bounds of floats in the first steps only, and says the same of what is wrong.

    Run it once on a new environment, in a test of your own.

    Args:
        env: anything `make_envs` takes except vector environments.
        env_config: dict, as in `make_envs`.

    Returns:
        A list of strings: remarks on what works but is worth knowing (float64
        observations are kept as float32, unbounded actions, ...). Empty if there are
        none.

    Raises:
        EnvProtocolError: a `ValueError` saying what is wrong, and in which call.

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
        _take_steps(envs)
        single = envs.envs[0]
        if envs.has_action_mask:
            # It would take illegal actions.
            _check_reset(envs)
            return [
                *_remarks(envs),
                "gymnasium's checker, which knows no masks, was not run.",
            ]
        try:
            env_checker.check_env(
                single.unwrapped, skip_render_check=True, skip_close_check=True
            )
        except Exception as error:
            raise EnvProtocolError(
                f"gymnasium's checker refuses {envs.name}: {error}"
            ) from error
        _check_reset(envs)
        return _remarks(envs)


def _take_steps(envs):
    """Takes random steps, and looks closely at each."""
    envs._looks = envs._looks_at_ends = math.inf
    inverse = ActionConverter(envs.action_space).inverse
    example = spaces.zeros(envs.action_space, 1)
    envs.action_space.seed(13)
    with warnings.catch_warnings():
        # One of the remarks instead.
        warnings.filterwarnings("ignore", ".*the observation is out of bounds")
        observations = envs.reset([13])
        _check_finite(envs, "reset", observations)
        for number in range(_STEPS):
            action = _legal_sample(envs, observations)
            step = envs.step(inverse(optree.tree_map(_one_row, example, action)))
            observations, call = step.observations, f"step {number + 1}"
            if not np.isfinite(step.rewards).all():
                raise envs._fault(0, call, f"the reward is {step.rewards[0]}.")
            _check_finite(
                envs, call, step.observations, *step.final_observations.values()
            )


def _legal_sample(envs, observations):
    space = envs.action_space
    if not envs.has_action_mask:
        return space.sample()
    mask = (observations[action_masks.KEY][0] > 0).astype(np.int8)
    if isinstance(space, gymnasium.spaces.Discrete):
        return space.sample(mask)
    ends = np.cumsum(action_masks.counts_of_options(space))[:-1]
    chosen = [space.np_random.choice(np.flatnonzero(m)) for m in np.split(mask, ends)]
    return np.reshape(chosen, space.shape) + space.start


def _one_row(_, action):
    return np.asarray(action)[None]


def _check_finite(envs, call, *observations):
    for tree in observations:
        for (name, _), leaf in zip(
            named_leaves(envs.observation_space),
            envs.observation_leaves(tree),
            strict=True,
        ):
            if not np.isfinite(leaf).all():
                problem = f"the observation has NaN or infinity at `{name}`: {leaf}."
                raise envs._fault(0, call, problem)


def _check_reset(envs):
    space = envs.observation_space
    first, second = envs.reset([13]), envs.reset([13])
    for (name, _), a, b in zip(
        named_leaves(space),
        envs.observation_leaves(first),
        envs.observation_leaves(second),
        strict=True,
    ):
        if not np.array_equal(a, b):
            raise EnvProtocolError(
                f"{envs.name}: reset(seed=13) twice gave different observations at "
                f"`{name}`. Draw all randomness from self.np_random after "
                "super().reset(seed=seed), so that runs can be repeated."
            )


def _remarks(envs):
    remarks = []
    for name, leaf in named_leaves(envs.observation_space):
        if leaf.dtype == np.float64:
            remarks.append(f"{name} is float64; observations are kept as float32.")
        if name in envs._warned:
            remarks.append(f"{name} goes beyond its bounds; correct them.")
    for name, leaf in named_leaves(envs.action_space, "action"):
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
