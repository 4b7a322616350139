"""Environments stepped one after the other in this process."""

import gymnasium
import numpy as np

from kerasrl.envs.environments import Environments, EnvStep
from kerasrl.envs.spaces import ActionConverter

_FLOAT32 = np.dtype(np.float32)


class SerialEnvironments(Environments):
    """Steps a list of `gymnasium.Env` objects in a loop as tight as Python allows.

    For cheap environments this beats every vectorisation that moves data between
    processes, and gymnasium's `SyncVectorEnv`, whose bookkeeping costs more than the
    classic-control environments themselves.

    Args:
        envs: list of `gymnasium.Env` with equal spaces.
        name: the name to show; None takes it from the environment's spec.
        owned: whether `close` closes them.

    Raises:
        TypeError: if one of `envs` is not a `gymnasium.Env`.
        ValueError: if the spaces differ or are not supported.

    Example:

    ```python
    envs = SerialEnvironments([gymnasium.make("CartPole-v1")])
    envs.reset([7]).shape
    # (1, 4)
    ```
    """

    def __init__(self, envs, name=None, owned=False):
        envs = list(envs)
        _check_envs(envs)
        super().__init__(
            len(envs),
            envs[0].observation_space,
            envs[0].action_space,
            env_name(envs[0]) if name is None else name,
        )
        self.envs = envs
        self._owned = owned
        self._action_rows = ActionConverter(self.action_space).rows
        self._single_leaf = not isinstance(self._example, (dict, tuple))

    def reset(self, seeds=None):
        seeds = self._check_seeds(seeds)
        observations = self._empty_observations()
        rows = self.observation_leaves(observations)
        for index, (env, seed) in enumerate(zip(self.envs, seeds, strict=True)):
            try:
                observation, info = env.reset(seed=seed)
            except Exception as error:
                self._add_note(error, index, "reset")
                raise
            self._check_observation(index, observation, rows)
            self.reset_infos[index] = info
            for row, leaf in zip(
                rows, self.observation_leaves(observation), strict=True
            ):
                row[index] = leaf
        return observations

    def step(self, actions, out=None):
        if out is None:
            out = self._empty_observations()
        rewards, infos, observations = [], [], []
        ends = None
        index = 0
        actions = self._action_rows(actions)
        if len(actions) != self.num_envs:
            raise ValueError(
                f"There must be one action per environment. Received: {len(actions)} "
                f"actions for {self.num_envs} environments."
            )
        try:
            for env, action in zip(self.envs, actions, strict=True):
                observation, reward, terminated, truncated, info = env.step(action)
                if terminated or truncated:
                    if ends is None:
                        ends = _Ends(self.num_envs)
                    ends.terminated[index] = terminated
                    ends.truncated[index] = truncated
                    # Copied before the reset, which may reuse the env's own arrays.
                    final = self._copy_observation(observation)
                    ends.final_observations[index] = final
                    observation, reset_info = env.reset()
                    info = {**info, "reset_info": reset_info}
                observations.append(observation)
                rewards.append(reward)
                infos.append(info)
                index += 1
        except Exception as error:
            self._add_note(error, index, "step")
            raise
        self._write(observations, out)
        rewards = self._reward_array(rewards)
        if ends is None:
            no = self._no_ends
            return EnvStep(out, rewards, no, no, self._all_valid, {}, False, infos)
        return EnvStep(
            out,
            rewards,
            ends.terminated,
            ends.truncated,
            self._all_valid,
            ends.final_observations,
            True,
            infos,
        )

    def foreach(self, function):
        return [function(env) for env in self.envs]

    def call(self, name, *args, **kwargs):
        return [env.get_wrapper_attr(name)(*args, **kwargs) for env in self.envs]

    def set_attr(self, name, value):
        for index, env in enumerate(self.envs):
            if not env.set_wrapper_attr(name, value, force=False):
                raise AttributeError(
                    f"Environment {index} of {self.name} has no attribute {name!r} to "
                    f"set, neither has any of its wrappers. Received: {env}."
                )

    def render(self):
        return [env.render() for env in self.envs]

    def close(self):
        if self._owned:
            for env in self.envs:
                env.close()

    def _write(self, observations, out):
        """Writes a list of B single observations into a tree `[B, ...]`."""
        try:
            if self._single_leaf:
                out[...] = observations
            else:
                columns = zip(*map(self.observation_leaves, observations), strict=True)
                for rows, column in zip(
                    self.observation_leaves(out), columns, strict=True
                ):
                    rows[...] = column
        except Exception:
            # Slowly, for a message that names the environment.
            rows = self.observation_leaves(out)
            for index, observation in enumerate(observations):
                self._check_observation(index, observation, rows)
            raise

    def _reward_array(self, rewards):
        try:
            array = np.array(rewards, _FLOAT32)
            # Some environments return arrays of one element.
            return array if array.ndim == 1 else array.reshape(self.num_envs)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"The rewards of {self.name} are not one number per environment. "
                f"Received: {rewards}."
            ) from error

    def _add_note(self, error, index, method):
        error.add_note(
            f"Raised by `{method}` of environment {self.first_index + index} of "
            f"{self.num_envs_of_run} ({self.name})."
        )


class _Ends:
    """Notes the ends within one step; most steps have none and make none of this."""

    __slots__ = ("terminated", "truncated", "final_observations")

    def __init__(self, num_envs):
        self.terminated = np.zeros(num_envs, bool)
        self.truncated = np.zeros(num_envs, bool)
        self.final_observations = {}


def env_name(env):
    """The name to show for an environment: its gymnasium id, else its class name."""
    spec = getattr(env, "spec", None)
    return type(env.unwrapped).__name__ if spec is None else spec.id


def _check_envs(envs):
    if not envs:
        raise ValueError("There must be at least one environment. Received: none.")
    for index, env in enumerate(envs):
        if not isinstance(env, gymnasium.Env):
            raise TypeError(
                f"Environment {index} is not a gymnasium.Env. Received: {type(env)}. "
                "Subclass gymnasium.Env (old gym environments: use shimmy)."
            )
        for role in ("observation_space", "action_space"):
            if getattr(env, role, None) is None:
                raise ValueError(f"{env} does not define `{role}`.")
            if getattr(env, role) != getattr(envs[0], role):
                raise ValueError(
                    f"All environments must have the same `{role}`. Received: "
                    f"{getattr(envs[0], role)} and, from environment {index}, "
                    f"{getattr(env, role)}."
                )
