"""Replay as one would write it down: lists of steps, no ring, no shared storage."""

import dataclasses
from typing import Any

import numpy as np
import optree

from kerasrl.rollouts import Rollout


@dataclasses.dataclass
class Step:
    """One step of one environment. Actions are unique numbers."""

    observation: Any
    action: int
    reward: float
    terminated: bool
    truncated: bool
    next_observation: Any
    episode_start: bool
    #: Whether it is the first step after a cut, or of the history.
    after_cut: bool
    #: Whether it is the first step after a worker was lost in mid-episode.
    after_loss: bool
    #: Which call of `collect` it is from, and whether it is the first there.
    rollout: int
    first_of_rollout: bool
    #: What the policy saw of the step before.
    previous_action: int
    previous_reward: float
    #: What the environment said, NaN if nothing.
    info: float

    @property
    def ended(self):
        return self.terminated or self.truncated


class World:
    """Environments that play episodes of random lengths, and a record of it.

    Args:
        rng: `numpy.random.Generator`.
        num_envs: Integer, B.
        observers: List of B callables `(is_first) -> observation`.
        lengths: Pair, the smallest and largest length of an episode.
        fillers: Bool, whether environments reset in the step after an end.
        losses: Float, the share of steps in which a worker is lost instead: a filler
            on the observation that followed the step before, then a new episode.
    """

    def __init__(
        self, rng, num_envs, observers, lengths=(1, 6), fillers=False, losses=0.0
    ):
        self.rng = rng
        self.num_envs = num_envs
        self.observers = observers
        self.lengths = lengths
        self.fillers = fillers
        self.losses = losses
        self.count = self.rollouts = 0
        #: For each environment a list of `Step`.
        self.history = [[] for _ in range(num_envs)]
        self.reset()

    def reset(self):
        """New episodes everywhere; the histories are cut."""
        self.after_cut = [True] * self.num_envs
        self.after_loss = [False] * self.num_envs
        self.resets_now = [False] * self.num_envs
        self.starts = [True] * self.num_envs
        self.left = [self._draw_length() for _ in range(self.num_envs)]
        self.observations = [observe(True) for observe in self.observers]

    def collect(self, length):
        """A `Rollout` `[length, B, ...]`."""
        state = np.array([self.rollouts * 100.0 + e for e in range(self.num_envs)])
        rows, finals = [], []
        for time in range(length):
            rows.append(
                _stack([self._step(env, time, finals) for env in range(self.num_envs)])
            )
        self.rollouts += 1
        final = None
        if finals:
            ends = [(time, env) for time, env, _ in finals]
            times, envs, observations = zip(*finals, strict=True)
            final = {
                "time": np.array(times),
                "env": np.array(envs),
                "observations": _stack(observations),
                "previous_actions": np.array([rows[t]["actions"][e] for t, e in ends]),
                "previous_rewards": np.array([rows[t]["rewards"][e] for t, e in ends]),
            }
        return Rollout(
            **_stack(rows),
            state={"lstm": np.float32(state)[:, None] + np.float32([0.0, 0.5])},
            next_inputs={
                "observations": _stack(self.observations),
                **_stack([self._previous(env) for env in range(self.num_envs)]),
            },
            final=final,
        )

    def _step(self, env, time, finals):
        rng, filler = self.rng, self.resets_now[env]
        self.count += 1
        if self.losses and rng.random() < self.losses:
            filler = self.after_loss[env] = True
        history, is_start = self.history[env], self.starts[env]
        previous = self._previous(env)
        info = rng.choice([np.nan, self.count])
        observation, following = self.observations[env], None
        terminated = truncated = ended = False
        reward = np.float32(rng.normal())
        if not filler:
            self.left[env] -= 1
            ended = self.left[env] == 0
            terminated = ended and rng.random() < 0.5
            truncated = ended and (not terminated or rng.random() < 0.2)
            following = self.observers[env](False)
            history.append(
                Step(
                    observation=observation,
                    action=self.count,
                    reward=float(reward),
                    terminated=terminated,
                    truncated=truncated,
                    next_observation=following,
                    episode_start=is_start,
                    after_cut=self.after_cut[env],
                    after_loss=self.after_loss[env],
                    rollout=self.rollouts,
                    first_of_rollout=not (
                        history and history[-1].rollout == self.rollouts
                    ),
                    previous_action=int(previous["previous_actions"]),
                    previous_reward=float(previous["previous_rewards"]),
                    info=float(info),
                )
            )
            self.after_cut[env] = self.after_loss[env] = False
            if ended:
                finals.append((time, env, following))
        if filler or (ended and not self.fillers):
            self.left[env] = self._draw_length()
            following = self.observers[env](True)
        self.resets_now[env] = ended and self.fillers
        self.observations[env] = following
        self.starts[env] = ended or filler
        half = np.array([self.count / 2, env], np.float32)
        return {
            "observations": observation,
            "actions": np.int64(self.count),
            "rewards": np.float32(0.0) if filler else reward,
            "terminated": np.bool_(terminated),
            "truncated": np.bool_(truncated or filler),
            "valid": np.bool_(not filler),
            "episode_starts": np.bool_(is_start),
            **previous,
            "extras": {"number": np.int32(self.count), "more": {"half": half}},
            "infos": {"said": info, "text": np.array("text", object)},
        }

    def _previous(self, env):
        """What a policy sees of the step before."""
        history = [] if self.starts[env] else self.history[env]
        return {
            "previous_actions": np.int64(history[-1].action if history else 0),
            "previous_rewards": np.float32(history[-1].reward if history else 0.0),
        }

    def _draw_length(self):
        return int(self.rng.integers(self.lengths[0], self.lengths[1] + 1))


def number_observer(env):
    """Observations that are unique: the environment and a running number."""
    count = 0

    def observe(is_first):
        nonlocal count
        count += 1
        return np.array([env, count], np.float32)

    return observe


def frame_observer(rng, num_frames, padding, axis=0, shape=(2, 3)):
    """Stacks of random frames, padded at the beginning of an episode.

    Args:
        rng: `numpy.random.Generator`.
        num_frames: Integer, k.
        padding: `"reset"` (the first frame repeated), `"zero"`, or `"other"`.
        axis: 0 or -1, where the frames lie in the stack.
        shape: Tuple, of a frame.
    """
    frames = []

    def observe(is_first):
        frame = rng.integers(0, 256, shape).astype(np.uint8)
        if is_first:
            older = {
                "reset": frame,
                "zero": np.zeros_like(frame),
                "other": rng.integers(0, 256, shape).astype(np.uint8),
            }[padding]
            frames[:] = [older] * num_frames
        del frames[0]
        frames.append(frame)
        return np.stack(frames, axis)

    return observe


def n_step_transitions(history, n_step, gamma):
    """The sample that starts with each step of a history, by definition."""
    samples = []
    for index, first in enumerate(history):
        taken = [first]
        for step in history[index + 1 : index + n_step]:
            if taken[-1].ended or step.after_cut or step.after_loss:
                break
            taken.append(step)
        last = taken[-1]
        rewards = sum(gamma**k * step.reward for k, step in enumerate(taken))
        samples.append(
            {
                "observations": first.observation,
                "actions": first.action,
                "rewards": rewards,
                "next_observations": last.next_observation,
                "discounts": 0.0 if last.terminated else gamma ** len(taken),
                "terminated": last.terminated,
                "truncated": last.truncated,
                "steps": len(taken),
                "previous_actions": first.previous_action,
                "previous_rewards": first.previous_reward,
                "next_previous_actions": last.action,
                "next_previous_rewards": last.reward,
                "infos": first.info,
            }
        )
    return samples


@dataclasses.dataclass
class Row:
    """An observation of a stream, with the step that was taken on it or `None`."""

    observation: Any
    step: Step | None
    #: Whether a stack of frames cannot be followed back beyond it.
    is_padding: bool = False


def stream(history, padding_rows=0):
    """All rows of a history: a step, and an observation of its own after an end, a cut,
    the loss of a worker and the newest step.

    Args:
        history: List of `Step`.
        padding_rows: Integer, rows that are stored before the first one of an episode.
    """
    rows = []
    for step, following in zip(history, [*history, None][1:], strict=True):
        if step.after_cut or step.episode_start:
            rows += [Row(None, None, True)] * padding_rows
        rows.append(Row(step.observation, step))
        stops = following is None or following.after_cut or following.after_loss
        if step.ended or stops:
            rows.append(Row(step.next_observation, None))
    return rows


def surviving_steps(history, length, margin=0, padding_rows=0):
    """The steps that a ring of `length` rows still holds with `margin` rows before."""
    rows = stream(history, padding_rows)
    if len(rows) > length:
        rows = rows[-length:][margin:]
    return [row.step for row in rows if row.step is not None]


def _stack(trees):
    return optree.tree_map(lambda *leaves: np.stack(leaves), *trees)
