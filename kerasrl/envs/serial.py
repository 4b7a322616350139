"""Environments stepped one after the other in this process."""

import math
import warnings
from functools import partial

import gymnasium
import numpy as np

from kerasrl import goals
from kerasrl.envs import protocol
from kerasrl.envs.action_mask import with_told_masks
from kerasrl.envs.actions import ActionConverter
from kerasrl.envs.environments import Environments, EnvStep
from kerasrl.envs.protocol import EnvProtocolError, Misfit

_FLOAT32 = np.dtype(np.float32)
_BOOLS = (bool, np.bool_)
_NOTHING = object()
_UNKNOWN_ARGUMENT = "got an unexpected keyword argument"


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
        envs = [with_told_masks(env) for env in envs]
        super().__init__(
            len(envs),
            envs[0].observation_space,
            envs[0].action_space,
            env_name(envs[0]) if name is None else name,
        )
        self.envs = envs
        self._owned = owned
        self._action_rows = ActionConverter(self.action_space).rows
        self._plain_rewards = True
        self._write = self._observations.writer()

    def reset(self, seeds=None):
        seeds = self._check_seeds(seeds)
        observations = self._empty_observations()
        for index, (env, seed) in enumerate(zip(self.envs, seeds, strict=True)):
            observation, info = self._reset(index, env, seed=seed)
            try:
                self._observations.write_one(observation, observations, index)
            except Misfit as misfit:
                raise self._misfit(index, "reset", misfit) from None
            self.reset_infos[index] = info
        self._check_bounds(observations, "reset")
        if self.has_action_mask:
            self._check_masks(observations, "reset")
        self._warn_of_unread_masks(self.reset_infos)
        for index, env in enumerate(self.envs):
            for role in ("observation_space", "action_space"):
                if getattr(env, role) != getattr(self, role):
                    raise self._fault(
                        index,
                        "reset",
                        f"the environment changed its `{role}`. Received: "
                        f"{getattr(env, role)}. Expected: {getattr(self, role)}, as "
                        "when it was made.",
                    )
        return observations

    def step(self, actions, out=None):
        if out is None:
            out = self._empty_observations()
        self._num_steps += 1
        rewards, infos, observations = [], [], []
        ends, result, looks = None, _NOTHING, self._looks
        actions = self._action_rows(actions)
        if len(actions) != self.num_envs:
            raise ValueError(
                f"There must be one action per environment. Received: {len(actions)} "
                f"actions for {self.num_envs} environments."
            )
        try:
            for env, action in zip(self.envs, actions, strict=True):
                result = env.step(action)
                observation, reward, terminated, truncated, info = result
                if terminated or truncated or looks:
                    index = len(observations)
                    terminated, truncated = self._flags(index, result)
                    if terminated or truncated:
                        if ends is None:
                            ends = _Ends(self.num_envs)
                        observation, info = self._end(index, env, ends, result)
                        ends.terminated[index] = terminated
                        ends.truncated[index] = truncated
                observations.append(observation)
                rewards.append(reward)
                infos.append(info)
        except EnvProtocolError:
            raise
        except (Exception, SystemExit) as error:
            index = len(observations)
            if result is not _NOTHING:
                # What the one before returned, if `step` itself raised the error.
                self._check(protocol.check_count, result, index)
                self._flags(index, result)
            self._explain(error, index, "step", self._call())
            raise
        try:
            self._write(observations, out)
        except Exception:
            self._write_slowly(observations, out, ends)
        if looks or (ends is not None and self._looks_at_ends):
            self._look(out, rewards, infos, ends)
        if self.has_action_mask:
            self._check_masks(out, self._call() if ends is None else self._calls())
        rewards = self._reward_array(rewards)
        if ends is None:
            no = self._no_ends
            return EnvStep(out, rewards, no, no, self._all_valid, {}, False, infos)
        step = EnvStep(
            out,
            rewards,
            ends.terminated,
            ends.truncated,
            self._all_valid,
            ends.final_observations,
            True,
            infos,
        )
        if self.has_action_mask:
            self._check_final_masks(step, self._call())
        return step

    def foreach(self, function):
        return [function(env) for env in self.envs]

    def call(self, name, *args, **kwargs):
        return [env.get_wrapper_attr(name)(*args, **kwargs) for env in self.envs]

    def goal_function(self, name):
        env = self.envs[0]
        if not env.has_wrapper_attr(name):
            return None
        return partial(goals.ask, name, env.get_wrapper_attr(name))

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
        if not self._owned:
            return
        for index, env in enumerate(self.envs):
            try:
                env.close()
            except Exception as error:
                # What was learnt must not be lost, nor another error be hidden.
                warnings.warn(
                    f"Environment {self.first_index + index} of {self.name} could not "
                    f"be closed: {error!r}",
                    stacklevel=2,
                )

    def _reset(self, index, env, **seed):
        """What `reset` of one environment returned; with a seed it is no autoreset."""
        result = _NOTHING
        try:
            result = env.reset(**seed)
            observation, info = result
            if type(result) is not tuple or type(info) is not dict:
                protocol.check_reset(result)
            return observation, info
        except (Exception, SystemExit) as error:
            call = "reset" if seed else self._call(ended=True)
            if result is not _NOTHING:
                try:
                    protocol.check_reset(result)
                except Misfit as misfit:
                    raise self._fault(index, call, str(misfit)) from None
            if isinstance(error, TypeError) and _UNKNOWN_ARGUMENT in str(error):
                raise self._fault(
                    index,
                    call,
                    f"`reset` raised {error}. Expected: def reset(self, *, seed=None, "
                    "options=None). Environments of the old gym have neither: add "
                    "both, or convert them with shimmy.",
                ) from error
            self._explain(error, index, "reset", call)
            raise

    def _flags(self, index, result):
        """`terminated` and `truncated` of what `step` returned, as bools."""
        if type(result[2]) in _BOOLS and type(result[3]) in _BOOLS:
            return result[2:4]
        self._check(protocol.check_step, result, index)
        flags = []
        for name, value in zip(("terminated", "truncated"), result[2:4], strict=True):
            try:
                flags.append(protocol.as_flag(value))
            except Misfit as misfit:
                problem = f"`step` returned {name} = {misfit}."
                raise self._fault(index, self._call(), problem) from None
        return flags

    def _end(self, index, env, ends, result):
        """Keeps the last observation; returns the first of the next, and an info."""
        info = result[4]
        try:
            # Copied before the reset, which may reuse the environment's own arrays.
            final = self._observations.copy(result[0], self._example)
        except Misfit as misfit:
            raise self._misfit(index, self._call(), misfit) from None
        if self._looks_at_ends or type(info) is not dict:
            self._look_at_end(index, final, result)
        ends.final_observations[index] = final
        # Like the observation: environments may write into theirs at the reset.
        info = {**info}
        observation, info["reset_info"] = self._reset(index, env)
        return observation, info

    def _look_at_end(self, index, final, result):
        self._check(protocol.check_step, result, index)
        self._check_bounds(final, self._call(), index)

    def _write_slowly(self, observations, out, ends):
        """Writes observations one by one, for a message that names the environment."""
        for index, observation in enumerate(observations):
            try:
                self._observations.write_one(observation, out, index)
            except Misfit as misfit:
                ended = ends is not None and index in ends.final_observations
                raise self._misfit(index, self._call(ended), misfit) from None

    def _look(self, observations, rewards, infos, ends):
        """Looks closely at what a step returned, which would take too long always."""
        if self._looks:
            self._looks -= 1
        if ends is not None and self._looks_at_ends:
            self._looks_at_ends -= 1
        for index, info in enumerate(infos):
            self._check(protocol.check_info, info, index)
        if any(getattr(reward, "ndim", 0) for reward in rewards):
            self._plain_rewards = False
        call = self._call() if ends is None else self._calls()
        self._check_bounds(observations, call)

    def _reward_array(self, rewards):
        if self._plain_rewards:
            try:
                # Raises for what is no number; NumPy would read the text "5" as one.
                math.fsum(rewards)
                array = np.array(rewards, _FLOAT32)
                if array.ndim == 1:
                    return array
            except Exception:
                pass  # Found out below, one by one.
        array = np.empty(self.num_envs, _FLOAT32)
        for index, reward in enumerate(rewards):
            try:
                array[index] = protocol.as_reward(reward)
            except Misfit as misfit:
                problem = f"`step` returned as reward {misfit}."
                raise self._fault(index, self._call(), problem) from None
        return array

    def _check(self, check, value, index):
        """Calls a check on what the last step of an environment returned."""
        try:
            check(value)
        except Misfit as misfit:
            raise self._fault(index, self._call(), str(misfit)) from None

    def _call(self, ended=False):
        step = f"step {self._num_steps}"
        return f"the reset after {step}" if ended else step

    def _calls(self):
        return f"{self._call()} or the reset after it"

    def _explain(self, error, index, method, call):
        """Says which environment raised an error.

        Raises:
            EnvProtocolError: if the error would end the process without a reason.
        """
        if isinstance(error, SystemExit):
            problem = f"the environment called sys.exit({error.code!r})."
            raise self._fault(index, call, problem) from error
        note = (
            f"of environment {self.first_index + index} of "
            f"{self.num_envs_of_run} ({self.name})."
        )
        if not any(note in each for each in getattr(error, "__notes__", ())):
            error.add_note(f"Raised by `{method}` {note}")


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
