"""Probe environments with known answers, to test agents, policies and wrappers.

Each isolates one thing that can go wrong, and says in its docstring what a correct
agent finds. Small enough that seconds of training decide.

Imports no TensorFlow.
"""

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


class IdentityEnv(gymnasium.Env):
    """The action must repeat the observation: one of `size` choices.

    Known answers: reward 1 where they are equal, else 0, so the best return is
    `length`, and a policy that ignores the observation averages `length / size`. Every
    action is judged at once, so any discount will do.

    Args:
        size: Integer, number of choices.
        length: Integer, steps in an episode, which ends by termination.

    Example:

    ```python
    kerasrl.PPO().fit(IdentityEnv, steps=5_000)
    ```
    """

    def __init__(self, size=2, length=10):
        self.size = size
        self.length = length
        self.observation_space = spaces.Discrete(size)
        self.action_space = spaces.Discrete(size)
        self._target = 0
        self._step = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        return self._draw(), {}

    def step(self, action):
        reward = float(int(action) == self._target)
        self._step += 1
        return self._draw(), reward, self._step >= self.length, False, {}

    def _draw(self):
        self._target = int(self.np_random.integers(self.size))
        return self._target


class ContinuousIdentityEnv(gymnasium.Env):
    """The action must repeat the observation: `size` numbers in [-1, 1].

    Known answers: the reward is minus the mean squared distance, so the best return is
    0, and a policy that ignores the observation gets at best `-length / 3`.

    Args:
        size: Integer, number of entries.
        length: Integer, steps in an episode, which ends by termination.

    Example:

    ```python
    kerasrl.PPO().fit(ContinuousIdentityEnv, steps=5_000)
    ```
    """

    def __init__(self, size=1, length=10):
        self.size = size
        self.length = length
        self.observation_space = spaces.Box(-1.0, 1.0, (size,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (size,), np.float32)
        self._target = np.zeros(size, np.float32)
        self._step = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        return self._draw(), {}

    def step(self, action):
        reward = -float(np.mean(np.square(np.asarray(action) - self._target)))
        self._step += 1
        return self._draw(), reward, self._step >= self.length, False, {}

    def _draw(self):
        target = self.np_random.uniform(-1.0, 1.0, self.size)
        self._target = target.astype(np.float32)
        return self._target.copy()


class ConstantRewardEnv(gymnasium.Env):
    """Reward 1 for ever, only cut off by a time limit.

    The observation is always zero, so nothing tells how much time is left.

    Known answers: with a bootstrap at truncations V = 1 / (1 - gamma), 10 for gamma
    0.9, whatever the time limit. An agent that treats truncation as termination finds
    less: on average `(1 - gamma ** k) / (1 - gamma)` over the remaining steps k.

    Args:
        length: Integer, steps until truncation.
        reward: Float.

    Example:

    ```python
    agent = kerasrl.A2C(gamma=0.9)
    agent.fit(ConstantRewardEnv, steps=5_000)
    ```
    """

    def __init__(self, length=10, reward=1.0):
        self.length = length
        self.reward = reward
        self.observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._step = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self._step += 1
        truncated = self._step >= self.length
        return np.zeros(1, np.float32), self.reward, False, truncated, {}


class TwoRoundEnv(gymnasium.Env):
    """Two choices in a row, of which the tempting first one is wrong.

    The first action `a` gives `first[a]` and decides what the second round pays:
    `second[a][b]` for the second action `b`. By default the first action 1 pays at
    once (1 against 0), but the best total is reached by 0, then 1.

    Observations: one of three states (start, after 0, after 1), one-hot.

    Known answers with the defaults: the best return is 3; the greedy first action
    reaches at most 2; uniformly random play averages 1.5. The best values with discount
    gamma are `3 gamma` at the start, 3 after 0 and 1 after 1.

    Args:
        first: Two rewards of the first round.
        second: Two pairs of rewards of the second round.

    Example:

    ```python
    agent.evaluate(TwoRoundEnv)["return_mean"]  # 3.0 for a trained agent
    ```
    """

    def __init__(self, first=(0.0, 1.0), second=((0.0, 3.0), (0.0, 1.0))):
        self.first = first
        self.second = second
        self.observation_space = spaces.Box(0.0, 1.0, (3,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._state = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._state = 0
        return self._observation(), {}

    def step(self, action):
        action = int(action)
        if self._state == 0:
            reward, terminated = float(self.first[action]), False
            self._state = 1 + action
        else:
            reward, terminated = float(self.second[self._state - 1][action]), True
        return self._observation(), reward, terminated, False, {}

    def _observation(self):
        return np.eye(3, dtype=np.float32)[self._state]


class MemoryEnv(gymnasium.Env):
    """The first observation must be remembered until the end.

    Only the first observation shows the cue, one of two one-hot vectors of length 2;
    the others are zeros. The last action earns 1 if it names the cue, else -1; all
    other rewards are 0.

    Known answers: a policy with memory reaches return 1, one without averages 0.

    Args:
        delay: Integer, blank observations between the cue and the last action's own.

    Example:

    ```python
    kerasrl.PPO(policy={"cell": "lstm"}).fit(MemoryEnv, steps=20_000)
    ```
    """

    def __init__(self, delay=2):
        self.delay = delay
        self.observation_space = spaces.Box(0.0, 1.0, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._cue = 0
        self._step = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._cue = int(self.np_random.integers(2))
        self._step = 0
        return np.eye(2, dtype=np.float32)[self._cue], {"cue": self._cue}

    def step(self, action):
        self._step += 1
        terminated = self._step > self.delay + 1
        reward = 0.0
        if terminated:
            reward = 1.0 if int(action) == self._cue else -1.0
        return np.zeros(2, np.float32), reward, terminated, False, {}


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


class StatelessCartPole(gymnasium.ObservationWrapper):
    """CartPole-v1 without the velocities; needs memory.

    Observation: position and angle only. Known as `"StatelessCartPole-v1"` to `fit`,
    `make_envs` and the command line. 500 steps at most, reward 1 a step.

    Known answers: a recurrent policy reaches several hundred; a feed-forward one stays
    far below, for it cannot tell which way the pole moves.

    Args:
        render_mode: As for `CartPole-v1`.

    Example:

    ```python
    kerasrl.PPO(policy={"cell": "lstm"}).fit("StatelessCartPole-v1", steps=10_000)
    ```
    """

    def __init__(self, render_mode=None):
        env = gymnasium.make(
            "CartPole-v1", render_mode=render_mode, disable_env_checker=True
        )
        super().__init__(env)
        space = env.observation_space
        self.observation_space = spaces.Box(
            space.low[[0, 2]], space.high[[0, 2]], dtype=np.float32
        )

    def observation(self, observation):
        """Leaves out the velocities.

        Args:
            observation: float32 `[4]`.

        Returns:
            float32 `[2]`.
        """
        return observation[[0, 2]]
