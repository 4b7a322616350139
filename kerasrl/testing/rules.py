"""Environments that show whether episodes and spaces are dealt with rightly."""

import gymnasium
import numpy as np
from gymnasium import spaces


class CountingEnv(gymnasium.Env):
    """Counts its own steps, so that every number in a rollout is known in advance.

    Observation `[episode, step]`: both count from 0 and `step` restarts with each
    episode. The reward of an action is the step that it leads to: 1, 2, ..., `length`.
    Odd and even episodes end differently if `ends="alternate"`: the first is
    terminated, the second truncated, and so on.

    Known answers: an episode has `length` steps and return `length (length + 1) / 2`;
    the last observation of episode `e` is `[e, length]`, the next one `[e + 1, 0]`.

    Args:
        length: Integer, steps in an episode.
        ends: `"alternate"`, `"terminated"` or `"truncated"`.
        render_mode: `None` or `"rgb_array"`: a grey image that brightens with the step.

    Raises:
        ValueError: `length` is below 1 or `ends` is unknown.

    Example:

    ```python
    env = CountingEnv(length=3)
    env.reset()  # (array([0., 0.], dtype=float32), {"episode_number": 0})
    env.step(0)  # (array([0., 1.], dtype=float32), 1.0, False, False, {...})
    ```
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}

    def __init__(self, length=5, ends="alternate", render_mode=None):
        if length < 1:
            raise ValueError(f"`length` must be at least 1. Received: {length}.")
        if ends not in ("alternate", "terminated", "truncated"):
            raise ValueError(
                "`ends` must be 'alternate', 'terminated' or 'truncated'. Received: "
                f"{ends!r}."
            )
        self.length = length
        self.ends = ends
        self.render_mode = render_mode
        self.observation_space = spaces.Box(0, np.inf, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.phase = 0
        self._episode = -1
        self._step = 0

    def set_phase(self, phase):
        """Remembers a number, for tests of curricula.

        Args:
            phase: Kept as the attribute `phase`.

        Returns:
            The phase before.
        """
        before, self.phase = self.phase, phase
        return before

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        # A seed starts the count again: the same seed, the same observations.
        self._episode = 0 if seed is not None else self._episode + 1
        self._step = 0
        return self._observation(), {"episode_number": self._episode}

    def step(self, action):
        self._step += 1
        ended = self._step >= self.length
        by_termination = self.ends == "terminated" or (
            self.ends == "alternate" and self._episode % 2 == 0
        )
        return (
            self._observation(),
            float(self._step),
            ended and by_termination,
            ended and not by_termination,
            {"step": self._step, "action": action},
        )

    def render(self):
        if self.render_mode != "rgb_array":
            return None
        level = 255 * self._step // self.length
        return np.full((64, 64, 3), level, np.uint8)

    def _observation(self):
        return np.array([self._episode, self._step], np.float32)


class NestedEnv(gymnasium.Env):
    """Observations and, if asked for, actions that are nested.

    The observation is a dict of a uint8 `image`, a float64 `vector` and a tuple
    `choices` of a Discrete and a MultiDiscrete. All hold the number of steps taken in
    the episode, up to a limit, so that a mixed-up leaf or time shows.

    Known answers: after step `s` the image is full of `s`, the vector is
    `[s, -s, s / 2]`, the choices are `s % 7` and `[s % 2, s % 3]`. The reward is 1 for
    an action that equals `s % 2` (its Discrete part), so the best return is `length`.

    Args:
        length: Integer, steps in an episode, at most 255; it ends by truncation.
        nested_actions: Bool. Whether actions are a dict of a Discrete `choice` and a
            tuple `moves` of a Box in [-1, 1] and a MultiBinary, instead of Discrete.

    Example:

    ```python
    kerasrl.PPO().fit(NestedEnv, steps=5_000)
    ```
    """

    def __init__(self, length=6, nested_actions=False):
        self.length = length
        self.observation_space = spaces.Dict(
            {
                "image": spaces.Box(0, 255, (8, 8, 3), np.uint8),
                "vector": spaces.Box(-np.inf, np.inf, (3,), np.float64),
                "choices": spaces.Tuple(
                    [spaces.Discrete(7), spaces.MultiDiscrete([2, 3])]
                ),
            }
        )
        choice = spaces.Discrete(2)
        moves = spaces.Tuple(
            [spaces.Box(-1.0, 1.0, (2,), np.float32), spaces.MultiBinary(3)]
        )
        self.nested_actions = nested_actions
        self.action_space = (
            spaces.Dict({"choice": choice, "moves": moves})
            if nested_actions
            else choice
        )
        self._step = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        return self._observation(), {}

    def step(self, action):
        choice = action["choice"] if self.nested_actions else action
        reward = float(int(choice) == self._step % 2)
        self._step += 1
        truncated = self._step >= self.length
        return self._observation(), reward, False, truncated, {"action": action}

    def _observation(self):
        step = self._step
        return {
            "image": np.full((8, 8, 3), step, np.uint8),
            "vector": np.array([step, -step, step / 2]),
            "choices": (np.int64(step % 7), np.array([step % 2, step % 3])),
        }


class RandomEndsEnv(gymnasium.Env):
    """Ends at random, both ways, often at once: hostile to bookkeeping.

    At every step the episode is terminated with probability `terminate` and truncated
    with probability `truncate` (both may hold). The observation is
    `[serial, step]`: `serial` numbers all observations of the environment's life, the
    first of each episode included, so that every array of a rollout can be checked
    against it. The reward is 1.

    Known answers: V = 1 / (1 - gamma (1 - terminate)), the same at every step, if and
    only if truncations bootstrap and terminations do not.

    Args:
        terminate: Float, probability per step.
        truncate: Float, probability per step.

    Example:

    ```python
    envs = kerasrl.make_envs(lambda: RandomEndsEnv(0.2, 0.2), num_envs=4)
    ```
    """

    def __init__(self, terminate=0.1, truncate=0.1):
        self.terminate = terminate
        self.truncate = truncate
        self.observation_space = spaces.Box(0.0, np.inf, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._serial = -1
        self._step = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self._serial = -1
        self._step = 0
        return self._observation(), {}

    def step(self, action):
        self._step += 1
        terminated, truncated = self.np_random.random(2) < (
            self.terminate,
            self.truncate,
        )
        return self._observation(), 1.0, bool(terminated), bool(truncated), {}

    def _observation(self):
        self._serial += 1
        return np.array([self._serial, self._step], np.float32)
