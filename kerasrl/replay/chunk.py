"""A checked rollout as flat lists of arrays."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass
class Chunk:
    """Consecutive steps of all environments, ready to be stored.

    Args:
        inputs: List of arrays `[T, B, ...]`, what the policy saw.
        outputs: List of arrays `[T, B, ...]`, what it did, and what else it said.
        rewards, terminated, truncated, valid, episode_starts: Arrays `[T, B]`.
        infos: Dict of float32 arrays `[T, B, ...]`.
        next_inputs: List of arrays `[B, ...]`, what follows the last step.
        final_time, final_env: Integer `[M]`, the valid steps that ended an episode.
        final_inputs: List of arrays `[M, ...]`, what follows them.
        rollout: The `Rollout` it is part of.
        start: Integer, the row of the rollout with which it begins.
        errors: Float `[T, B]`, absolute errors of the steps, NaN where they are not
            known; `None` if none is.
    """

    inputs: list
    outputs: list
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    valid: np.ndarray
    episode_starts: np.ndarray
    infos: dict
    next_inputs: list
    final_time: np.ndarray
    final_env: np.ndarray
    final_inputs: list
    rollout: Any
    start: int = 0
    errors: Any = None

    def __len__(self):
        return len(self.rewards)

    def split(self, length):
        """Yields consecutive parts of at most `length` steps."""
        for start in range(0, len(self), length):
            stop = min(start + length, len(self))
            part = slice(start, stop)
            chosen = (self.final_time >= start) & (self.final_time < stop)
            yield dataclasses.replace(
                self,
                inputs=[leaf[part] for leaf in self.inputs],
                outputs=[leaf[part] for leaf in self.outputs],
                rewards=self.rewards[part],
                terminated=self.terminated[part],
                truncated=self.truncated[part],
                valid=self.valid[part],
                episode_starts=self.episode_starts[part],
                infos={name: leaf[part] for name, leaf in self.infos.items()},
                next_inputs=(
                    self.next_inputs
                    if stop == len(self)
                    else [leaf[stop] for leaf in self.inputs]
                ),
                final_time=self.final_time[chosen] - start,
                final_env=self.final_env[chosen],
                final_inputs=[leaf[chosen] for leaf in self.final_inputs],
                start=start,
                errors=None if self.errors is None else self.errors[part],
            )


def read_rollout(rollout, num_envs, inputs, outputs, infos=None):
    """Checks a rollout against a buffer.

    Args:
        rollout: `Rollout`.
        num_envs: Integer, B.
        inputs, outputs: `Columns`, whose roles are fields of the rollout.
        infos: `InfoColumns`, or `None` to keep none.

    Returns:
        `Chunk` of the whole rollout.

    Raises:
        ValueError: Its number of environments, structure, shapes or dtypes do not fit,
            or final observations are missing.
    """
    lead = np.shape(rollout.rewards)
    if len(lead) != 2 or lead[1] != num_envs:
        raise ValueError(
            f"The buffer was made for {num_envs} environments. Received: a rollout "
            f"whose rewards have shape {lead}. Expected: [T, {num_envs}]. Make the "
            "buffer with the `num_envs` of the environments that fill it."
        )
    arrays = [rollout.rewards, rollout.terminated, rollout.truncated]
    arrays += [rollout.valid, rollout.episode_starts]
    if any(array.shape != lead for array in arrays):
        raise ValueError(
            "Rewards, terminated, truncated, valid and episode_starts must all have "
            f"shape [T, B]. Received: {[array.shape for array in arrays]}."
        )
    if rollout.next_inputs is None:
        raise ValueError(
            "The rollout has no `next_inputs`: it is a slice of another one. Add whole "
            "rollouts, as Collector.collect returns them."
        )
    time, env, final = _read_final(rollout, inputs)
    fields = vars(rollout)
    return Chunk(
        inputs.flatten(fields, lead),
        outputs.flatten(fields, lead),
        *arrays,
        infos={} if infos is None else infos.flatten(rollout.infos, lead),
        next_inputs=inputs.flatten(rollout.next_inputs, lead[1:]),
        final_time=time,
        final_env=env,
        final_inputs=final,
        rollout=rollout,
    )


def _read_final(rollout, inputs):
    """Time, environment and what follows each valid step that ended an episode."""
    if not (
        np.count_nonzero(rollout.terminated) or np.count_nonzero(rollout.truncated)
    ):
        return _NONE, _NONE, []
    ended = (rollout.terminated | rollout.truncated) & rollout.valid
    count = np.count_nonzero(ended)
    if count == 0:
        return _NONE, _NONE, []
    final = rollout.final or {"time": _NONE, "env": _NONE}
    time, env = np.asarray(final["time"]), np.asarray(final["env"])
    given = np.zeros_like(ended)
    given[time, env] = True
    if len(time) != count or not np.array_equal(given, ended):
        missing = np.argwhere(ended & ~given).tolist()
        raise ValueError(
            "A replay buffer needs the final observation of every step that ended an "
            f"episode. Received: {len(time)} of {count} in rollout.final; missing "
            f"[time, env]: {missing[:5]}. Make the collector with all_finals=True."
        )
    return time, env, inputs.flatten(final, (count,))


_NONE = np.zeros(0, np.int64)
