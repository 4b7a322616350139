"""Adapter for gymnasium vector environments in any autoreset mode."""

import copy
from functools import partial

import numpy as np
import optree
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from kerasrl import goals
from kerasrl.envs import protocol
from kerasrl.envs.actions import ActionConverter
from kerasrl.envs.environments import Environments, EnvStep
from kerasrl.envs.protocol import Misfit


class VectorEnvironments(Environments):
    """Steps a `gymnasium.vector.VectorEnv`, whatever its autoreset mode.

    - SAME_STEP: the final observation is taken from `infos["final_obs"]`.
    - NEXT_STEP (gymnasium's default): the call after an end only resets. It is reported
      as a filler (`valid` False), which learners mask out.
    - DISABLED: ended environments are reset here, with `options["reset_mask"]`.

    SAME_STEP wastes no calls; ask for it with
    `gymnasium.make_vec(id, n, vector_kwargs={"autoreset_mode": "SameStep"})`.

    Attributes:
        takes_row_seeds: bool, whether each row can be reset by itself, with a seed of
            its own; see `kerasrl.envs.row_seeds`.

    Args:
        env: the vector environment, wrapped or not.
        name: the name to show; None takes it from the environment's spec.
        owned: whether `close` closes it.

    Raises:
        TypeError: if `env` is not a `gymnasium.vector.VectorEnv`.
        ValueError: if it does not say its autoreset mode, or its spaces are not
            supported.

    Example:

    ```python
    env = gymnasium.make_vec("CartPole-v1", 4, vectorization_mode="sync")
    VectorEnvironments(env).reset([0, 1, 2, 3]).shape
    # (4, 4)
    ```
    """

    def __init__(self, env, name=None, owned=False):
        if not isinstance(env, VectorEnv):
            raise TypeError(
                f"Expected a gymnasium.vector.VectorEnv. Received: {type(env)}."
            )
        super().__init__(
            int(env.num_envs),
            env.single_observation_space,
            env.single_action_space,
            _vector_name(env) if name is None else name,
        )
        self._refuse_lost_masks(env)
        self.env = env
        self.autoreset_mode = _autoreset_mode(env)
        self.resets_on_next_step = self.autoreset_mode is AutoresetMode.NEXT_STEP
        self.takes_row_seeds = bool(env.metadata.get("row_seeds"))
        if self.takes_row_seeds and self.autoreset_mode is not AutoresetMode.DISABLED:
            raise ValueError(
                f"{env} says row_seeds in its metadata and resets by itself "
                f"({self.autoreset_mode}), when nobody could give it a seed. Say "
                "AutoresetMode.DISABLED, or leave row_seeds out."
            )
        self._owned = owned
        self._convert_actions = ActionConverter(self.action_space).batch
        self._resetting = np.zeros(self.num_envs, bool)

    def reset(self, seeds=None):
        seeds = self._check_seeds(seeds)
        if all(seed is None for seed in seeds):
            seed = None
        elif self.takes_row_seeds or isinstance(
            self.env.unwrapped, (SyncVectorEnv, AsyncVectorEnv)
        ):
            seed = seeds
        else:
            # A batched simulation has one random generator and takes one seed.
            seed = seeds[0]
        observations, infos = self._reset(seed=seed)
        self.reset_infos = self._unbatch(infos)
        self._resetting = np.zeros(self.num_envs, bool)
        out = self._empty_observations()
        self._write(observations, out, "reset")
        self._check_bounds(out, "reset")
        if self.has_action_mask:
            self._check_masks(out, "reset")
        self._warn_of_unread_masks(self.reset_infos)
        return out

    def step(self, actions, out=None):
        if out is None:
            out = self._empty_observations()
        actions = self._convert_actions(actions)
        self._num_steps += 1
        call = f"step {self._num_steps}"
        result = self.env.step(actions)
        try:
            protocol.check_step(result)
        except Misfit as misfit:
            raise self._fault(None, call, str(misfit)) from None
        observations, rewards, terminated, truncated, infos = result
        rewards = self._column("rewards", rewards, np.float32, call)
        terminated = self._column("terminated", terminated, bool, call)
        truncated = self._column("truncated", truncated, bool, call)
        self._write(observations, out, call)
        fillers = self._resetting
        any_filler = self.resets_on_next_step and fillers.any()
        if any_filler:
            # The environment ignored the action and reset; what it says is no end.
            terminated[fillers] = False
            truncated[fillers] = False
        ended = terminated | truncated
        any_ended = ended.any()
        final_observations, reset_infos = {}, None
        indices = np.flatnonzero(ended).tolist() if any_ended else []
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            for index in indices:
                final_observations[index] = self._final_observation(infos, index, call)
        else:
            leaves = self.observation_leaves(out)
            for index in indices:
                final_observations[index] = self._copy_observation_row(leaves, index)
            if self.resets_on_next_step:
                self._resetting = ended
            elif any_ended:
                # The environment may write into them at the reset.
                infos = copy.deepcopy(infos)
                reset_infos = self._reset_ended(ended, out, f"the reset after {call}")
        if self._looks or (any_ended and self._looks_at_ends):
            self._look(out, final_observations, call)
        if self.has_action_mask:
            # The call after an end ignores its action.
            self._check_masks(out, call, ended if self.resets_on_next_step else None)
        valid = self._all_valid
        if any_filler:
            rewards[fillers] = 0.0
            truncated = truncated | fillers
            valid = ~fillers
        step = EnvStep(
            out,
            rewards,
            terminated,
            truncated,
            valid,
            final_observations,
            bool(any_ended or any_filler),
            lambda: self._step_infos(infos, indices, fillers, reset_infos),
        )
        if self.has_action_mask and final_observations:
            self._check_final_masks(step, call)
        return step

    def foreach(self, function):
        envs = getattr(self.env.unwrapped, "envs", None)
        if envs is None:
            raise TypeError(
                f"The single environments of {self.env} cannot be reached from here. "
                "Use `call(name, ...)` with the name of one of their methods, or "
                "`set_attr(name, value)`; or let kerasrl make single environments, "
                "from a function that returns one."
            )
        return [function(env) for env in envs]

    def call(self, name, *args, **kwargs):
        vector_env = self.env.unwrapped
        if hasattr(vector_env, "call"):
            results = vector_env.call(name, *args, **kwargs)
            return list(results)
        if not hasattr(vector_env, name):
            raise AttributeError(f"{vector_env} has no method {name!r}.")
        return [getattr(vector_env, name)(*args, **kwargs)]

    def goal_function(self, name):
        vector_env = self.env.unwrapped
        envs = getattr(vector_env, "envs", None)
        if envs:
            if not envs[0].has_wrapper_attr(name):
                return None
            function = envs[0].get_wrapper_attr(name)
        elif hasattr(vector_env, "call"):
            # They are in processes of their own, and all of them answer.
            if not all(vector_env.call("has_wrapper_attr", name)):
                return None

            def function(*steps):
                return vector_env.call(name, *steps)[0]
        else:
            function = getattr(vector_env, name, None)
            if function is None:
                return None
        return partial(goals.ask, name, function)

    def set_attr(self, name, value):
        vector_env = self.env.unwrapped
        if hasattr(vector_env, "set_attr"):
            if not all(vector_env.call("has_wrapper_attr", name)):
                raise AttributeError(f"{vector_env} has no attribute {name!r} to set.")
            # As a list, for a value that is itself a list or tuple.
            vector_env.set_attr(name, [value] * self.num_envs)
        elif hasattr(vector_env, name):
            setattr(vector_env, name, value)
        else:
            raise AttributeError(f"{vector_env} has no attribute {name!r} to set.")

    def render(self):
        frames = self.env.render()
        return [] if frames is None else list(frames)

    def close(self):
        if self._owned:
            self.env.close()

    def _refuse_lost_masks(self, env):
        vector_env = env.unwrapped
        if self.has_action_mask:
            return
        if isinstance(vector_env, (SyncVectorEnv, AsyncVectorEnv)):
            has_method = any(vector_env.call("has_wrapper_attr", "action_masks"))
        else:
            has_method = callable(getattr(vector_env, "action_masks", None))
        if has_method:
            raise ValueError(
                f"Environments of {self.name} have a method action_masks(), which "
                "cannot be asked from here in time. Wrap each of them in "
                "kerasrl.envs.ActionMaskObservation before they are put together, or "
                "pass an id or a factory instead."
            )

    def _reset(self, **arguments):
        result = self.env.reset(**arguments)
        try:
            protocol.check_reset(result)
        except Misfit as misfit:
            raise self._fault(None, "reset", str(misfit)) from None
        return result

    def _column(self, name, values, dtype, call):
        """Rewards or flags in a new array `[B]`."""
        if type(values) is np.ndarray and values.dtype == dtype:
            if values.shape == (self.num_envs,):
                return values.copy()
        array = np.asarray(values)
        kinds = "b" if dtype is bool else "fiub"
        fits = array.dtype.kind in kinds
        if not fits and array.dtype.kind in "iu":
            fits = ((array == 0) | (array == 1)).all()  # Flags as well as bools.
        if not fits or array.shape != (self.num_envs,):
            kind = "bools" if dtype is bool else "numbers"
            raise self._fault(
                None,
                call,
                f"`step` returned {name} = {protocol.shown(values, array)}. Expected: "
                f"an array of {kind} of shape ({self.num_envs},), one for each "
                "environment.",
            )
        return array.astype(dtype)

    def _write(self, observations, out, call, rows=...):
        """Writes a batch of observations, or some of its rows, into a tree."""
        if type(observations) is np.ndarray and type(out) is np.ndarray:
            is_plain = self._observations.leaves[0].origin is None
            if is_plain and (observations.shape, observations.dtype) == (
                out.shape,
                out.dtype,
            ):
                out[rows] = observations[rows]
                return
        try:
            parts = self._observations.parts(observations)
            for leaf, target, part in zip(
                self._observations.leaves,
                self.observation_leaves(out),
                parts,
                strict=True,
            ):
                target[rows] = self._fit(leaf, part)[rows]
        except Misfit as misfit:
            problem = (
                "the observations do not fit `single_observation_space`, one row for "
                f"each environment. {misfit}"
            )
            raise self._fault(None, call, problem) from None

    def _fit(self, leaf, part):
        shape = (self.num_envs, *leaf.shape)
        try:
            return leaf.fit(part, shape)
        except Misfit as misfit:
            raise Misfit(
                f"Received at `{leaf.name}`: {misfit}. Expected: shape {shape} and "
                f"dtype {leaf.dtype}."
            ) from None

    def _look(self, observations, final_observations, call):
        """Looks closely at what a step returned, which would take too long always."""
        if self._looks:
            self._looks -= 1
        if final_observations and self._looks_at_ends:
            self._looks_at_ends -= 1
        self._check_bounds(observations, call)
        for index, final in final_observations.items():
            self._check_bounds(final, call, index)

    def _copy_observation_row(self, leaves, index):
        copy = optree.tree_map(np.empty_like, self._example)
        for row, leaf in zip(self.observation_leaves(copy), leaves, strict=True):
            row[...] = leaf[index]
        return copy

    def _final_observation(self, infos, index, call):
        final = infos.get("final_obs")
        if final is None:
            raise ValueError(
                f"{self.env} says that it resets in the same step, but an episode "
                f"ended in environment {index} and infos have no 'final_obs'. "
                f"Received infos with the keys {sorted(infos)}. Return "
                "infos['final_obs'], or say AutoresetMode.NEXT_STEP in its "
                "metadata['autoreset_mode'] if that is what it does."
            )
        try:
            if isinstance(final, np.ndarray) and final.dtype == object:
                return self._observations.copy(final[index], self._example)
            rows = [
                self._fit(leaf, part)
                for leaf, part in zip(
                    self._observations.leaves,
                    self._observations.parts(final),
                    strict=True,
                )
            ]
            return self._copy_observation_row(rows, index)
        except Misfit as misfit:
            raise self._misfit(index, call, f"infos['final_obs']: {misfit}") from None

    def _reset_ended(self, ended, out, call):
        observations, infos = self._reset(options={"reset_mask": ended.copy()})
        self._write(observations, out, call, ended)
        return infos

    def _unbatch(self, infos):
        return [_unbatch_info(infos, index) for index in range(self.num_envs)]

    def _step_infos(self, infos, indices, fillers, reset_infos):
        """The infos of a step as one dict per environment."""
        result = self._unbatch(infos)
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            final_infos = infos.get("final_info", {})
            for index in indices:
                reset_info = result[index]
                reset_info.pop("final_obs", None)
                reset_info.pop("final_info", None)
                final_info = dict(_unbatch_value(final_infos, index) or {})
                # RecordEpisodeStatistics adds this after the reset, about the end.
                if "episode" in reset_info and "episode" not in final_info:
                    final_info["episode"] = reset_info.pop("episode")
                result[index] = {**final_info, "reset_info": reset_info}
        elif reset_infos is not None:
            for index in indices:
                reset_info = _unbatch_info(reset_infos, index)
                result[index]["reset_info"] = reset_info
        for index in np.flatnonzero(fillers).tolist():
            result[index] = {"reset_info": result[index]}
        return result


def _unbatch_info(infos, index):
    """The part of a vector environment's infos that belongs to one environment."""
    result = {}
    for key, value in infos.items():
        if isinstance(key, str) and key.startswith("_") and key[1:] in infos:
            continue  # The mask of another key.
        mask = infos.get(f"_{key}")
        if mask is not None and not mask[index]:
            continue
        result[key] = _unbatch_value(value, index)
    return result


def _unbatch_value(value, index):
    if isinstance(value, dict):
        return _unbatch_info(value, index)
    if isinstance(value, (np.ndarray, list, tuple)):
        return value[index]
    return value


def _autoreset_mode(env):
    mode = (env.metadata or {}).get("autoreset_mode")
    if isinstance(mode, AutoresetMode):
        return mode
    try:
        return AutoresetMode(mode)
    except ValueError:
        raise ValueError(
            f"The vector environment {env} does not say how it resets. Received "
            f"metadata['autoreset_mode'] = {mode!r}. Expected a gymnasium.vector."
            "AutoresetMode: set metadata['autoreset_mode'] to SAME_STEP if `step` "
            "resets at once and returns infos['final_obs'], NEXT_STEP if the call "
            "after an end resets and ignores the action, or DISABLED if "
            "reset(options={'reset_mask': mask}) resets the masked environments."
        ) from None


def _vector_name(env):
    spec = getattr(env.unwrapped, "spec", None)
    if spec is None:
        spec = getattr(
            (getattr(env.unwrapped, "envs", None) or [None])[0], "spec", None
        )
    return type(env.unwrapped).__name__ if spec is None else spec.id
