"""Atari games, many at once, by the emulator's own vector environment.

Two protocols are in use, and results of the two must not be compared. `PRESETS` sets
every option of each; what else differs from other libraries is said in `docs/atari.md`.
"""

import logging
import os
import sys

import gymnasium
import numpy as np
from gymnasium import spaces

from kerasrl.checks import nearest
from kerasrl.envs.actions import ActionConverter
from kerasrl.envs.environments import Environments, EnvStep

_logger = logging.getLogger(__name__)

_COMMON = {
    "frameskip": 4,
    "maxpool": True,
    "stack_num": 4,
    "img_height": 84,
    "img_width": 84,
    "noop_max": 30,
    "reward_clipping": True,
    "max_num_frames_per_episode": 108_000,
}
#: What `preset` stands for; each option may be given besides.
PRESETS = {
    # Mnih et al. (2015), as in baselines, Stable-Baselines3 and CleanRL.
    "deepmind": {
        **_COMMON,
        "repeat_action_probability": 0.0,
        "full_action_space": False,
        "use_fire_reset": True,
        "episodic_life": True,
        "padding": "reset",
    },
    # Machado et al. (2018). Dopamine, and the ids ending in -v5, have sticky actions
    # too, but only those that each game needs: full_action_space=False.
    "machado": {
        **_COMMON,
        "repeat_action_probability": 0.25,
        "full_action_space": True,
        "use_fire_reset": False,
        "noop_max": 0,
        "episodic_life": False,
        "padding": "zero",
    },
}
DEFAULT_PRESET = "machado"
#: Options that are kerasrl's own, not those of the emulator's vector environment.
_OWN = ("reward_clipping", "episodic_life", "stack_num", "padding")


class AtariEnvironments(Environments):
    """Games of `ale_py.vector_env.AtariVectorEnv`, as learners want them.

    Observations are the newest `stack_num` frames, uint8 `[height, width, stack_num]`,
    the newest last. Frames are stacked here: an episode begins with its first frame
    repeated (`padding="reset"`) or zeros before it (`"zero"`), and ends with the frame
    that the emulator returned last.

    Learners are told the sign of rewards (`reward_clipping`), and that an episode ends
    where a life is lost (`episodic_life`), while the game goes on. All others, logs,
    `evaluate` and episode hooks, are told of whole games and their scores.

    Args:
        game: Name of the game as the emulator has it, such as `"ms_pacman"`.
        num_envs: Integer.
        name: The name to show.
        options: Dict of all options of a preset.
        num_threads: Integer or `None` for as many as there are cores to run on.

    Attributes:
        frames: Pair of the number of frames that are stacked and their axis, for replay
            buffers.

    Example:

    ```python
    with make_envs("ALE/Pong-v5", 8, {"preset": "deepmind"}) as envs:
        envs.reset(list(range(8))).shape  # (8, 84, 84, 4)
    ```
    """

    def __init__(self, game, num_envs, name, options, num_threads=None):
        from ale_py.vector_env import AtariVectorEnv

        if num_threads is None:
            num_threads = min(num_envs, _count_cores())
        told = {key: value for key, value in options.items() if key not in _OWN}
        self._games = AtariVectorEnv(
            game,
            num_envs,
            num_threads=num_threads,
            autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP,
            stack_num=1,
            reward_clipping=False,
            episodic_life=False,
            **told,
        )
        count = options["stack_num"]
        shape = (options["img_height"], options["img_width"], count)
        super().__init__(
            num_envs,
            spaces.Box(0, 255, shape, np.uint8),
            self._games.single_action_space,
            name,
        )
        self.options = options
        self.frames = (count, -1)
        self._convert_actions = ActionConverter(self.action_space).batch
        self._stacks = self._empty_observations()
        self._words = None
        if count in (2, 4, 8) and sys.byteorder == "little":
            self._words = self._stacks.view(f"u{count}")[..., 0]
        self._lives = np.zeros(num_envs, np.int32)

    def reset(self, seeds=None):
        seeds = self._check_seeds(seeds)
        # The emulator takes 31 bits, and -1 for a seed of its own.
        seeds = np.array([-1 if seed is None else seed % 2**31 for seed in seeds])
        frames, infos = self._games.reset(seed=seeds)
        self.reset_infos = _unbatch(infos)
        self._lives = infos["lives"].copy()
        self._begin(np.ones(self.num_envs, bool), frames[:, 0])
        return self._stacks.copy()

    def step(self, actions, out=None):
        if out is None:
            out = self._empty_observations()
        self._num_steps += 1
        actions = self._convert_actions(actions)
        frames, scores, terminated, truncated, infos = self._games.step(actions)
        frames, scores = frames[:, 0], scores.astype(np.float32)
        lives = infos["lives"]
        over = terminated | truncated
        lost = self._lives > lives if self.options["episodic_life"] else self._no_ends
        # A new game has more lives, and one that ended with none left is over anyway.
        ended = over | lost
        self._lives = lives.copy()
        finals, any_ended = {}, bool(ended.any())
        if any_ended:
            last = np.where(
                over[:, None, None],
                infos.get("final_obs", frames[:, None])[:, 0],
                frames,
            )
            for index in np.flatnonzero(ended).tolist():
                older = self._stacks[index, ..., 1:]
                finals[index] = np.concatenate([older, last[index, ..., None]], -1)
        self._move_on(frames)
        if any_ended:
            self._begin(ended, frames)
        out[...] = self._stacks
        rewards = np.sign(scores) if self.options["reward_clipping"] else scores

        def infos_of_each():
            return _unbatch(infos, over, scores)

        told, played = (
            EnvStep(
                out,
                rewards_told,
                terminated | ends_told,
                # With a loss and the time limit at once, it was the limit.
                truncated,
                self._all_valid,
                finals,
                bool((over | ends_told).any()),
                infos_of_each,
            )
            for rewards_told, ends_told in (
                (rewards, lost & ~over),
                (scores, self._no_ends),
            )
        )
        told.as_played = played
        return told

    def call(self, name, *args, **kwargs):
        if not hasattr(self._games, name):
            raise AttributeError(f"{self} has no method {name!r}.")
        return [getattr(self._games, name)(*args, **kwargs)]

    def foreach(self, function):
        if self.num_envs == 1:
            return [function(AtariGame(self))]
        raise TypeError(
            f"The single games of {self.name} cannot be reached: they run in threads "
            "of the emulator. Make one game only, or have environments of your own by "
            "a factory, such as `lambda: gymnasium.make('ALE/Pong-v5')`."
        )

    def set_attr(self, name, value):
        raise AttributeError(
            f"{self.name} has no attribute {name!r} to set: its games run in threads "
            "of the emulator."
        )

    def render(self):
        """The newest frames as policies see them, grey, `[height, width, 3]`."""
        return list(np.repeat(self._stacks[..., -1:], 3, axis=-1))

    def close(self):
        self._games.close()

    def _begin(self, envs, frames):
        """Makes the stacks with which episodes begin."""
        first = frames[envs][..., None]
        older = first if self.options["padding"] == "reset" else 0
        self._stacks[envs] = older
        self._stacks[envs, ..., -1:] = first

    def _move_on(self, frames):
        stacks = self._stacks
        if self._words is None:
            stacks[..., :-1] = stacks[..., 1:]
            stacks[..., -1] = frames
            return
        # The frames of a pixel are the bytes of a word, the oldest in the lowest: a
        # shift is ten times as fast as it is to move bytes.
        words = self._words
        np.right_shift(words, 8, out=words)
        newest = frames.astype(words.dtype)
        np.left_shift(newest, 8 * (stacks.shape[-1] - 1), out=newest)
        np.bitwise_or(words, newest, out=words)


class AtariGame(gymnasium.Env):
    """The game of `AtariEnvironments` that have one only, for films and wrappers.

    Rewards and ends are those of the whole game.

    Args:
        envs: `AtariEnvironments` of one game.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}
    render_mode = "rgb_array"

    def __init__(self, envs):
        self.spec = None
        self.observation_space = envs.observation_space
        self.action_space = envs.action_space
        self._envs = envs
        self._begun = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        begun, self._begun = self._begun, None
        if begun is None or seed is not None:
            begun = self._envs.reset([seed]), self._envs.reset_infos[0]
        observations, info = begun
        return observations[0].copy(), dict(info)

    def step(self, action):
        step = self._envs.step(np.array([action])).as_played
        terminated, truncated = bool(step.terminated[0]), bool(step.truncated[0])
        observations, info = step.observations, step.infos[0]
        if terminated or truncated:
            # The emulator has begun another one.
            self._begun = observations, info.pop("reset_info")
            observations = step.final_observations
        reward = float(step.rewards[0])
        return observations[0].copy(), reward, terminated, truncated, info

    def render(self):
        return self._envs.render()[0]


def make_atari(name, spec, num_envs, env_config, render_mode, share):
    """Makes the games of an id that gymnasium knows from ale-py.

    Args:
        name: The id.
        spec: `gymnasium.envs.registration.EnvSpec` of it.
        num_envs: Integer.
        env_config: Dict with the entry `preset` and options of it, or `None`.
        render_mode: `"rgb_array"` or `None`.
        share: `WorkerShare`.

    Returns:
        `AtariEnvironments`.

    Raises:
        ValueError: An option is not known, or worker processes were asked for.
    """
    if share.num_workers:
        raise ValueError(
            f"Received num_workers={share.num_workers} with {name!r}, whose games are "
            "stepped by threads of the emulator. Leave num_workers out, and give "
            "num_envs, such as 32."
        )
    if render_mode not in (None, "rgb_array"):
        raise ValueError(
            f"Received render_mode={render_mode!r} with {name!r}. Expected None or "
            "'rgb_array', frames as policies see them."
        )
    given = dict(env_config or {})
    given.pop("render_mode", None)
    preset = given.pop("preset", DEFAULT_PRESET)
    if preset not in PRESETS:
        raise ValueError(
            f"Received preset={preset!r} in env_config. Expected one of "
            f"{list(PRESETS)}."
        )
    options = PRESETS[preset]
    for key in given:
        if key not in (*options, "num_threads"):
            raise ValueError(
                f"{name!r} has no option {key!r} in env_config. "
                f"{nearest(key, {*options, 'preset', 'num_threads'})} For what only "
                "gymnasium.make takes, pass a factory that calls it."
            )
    num_threads = given.pop("num_threads", None)
    options = {**options, **given}
    if options["padding"] not in ("reset", "zero"):
        raise ValueError(
            f"Received padding={options['padding']!r}. Expected 'reset' or 'zero'."
        )
    _logger.info("%s by the preset %r, changed: %s.", name, preset, given or "nothing")
    return AtariEnvironments(spec.kwargs["game"], num_envs, name, options, num_threads)


def is_atari(spec):
    """Whether an id is one whose games ale-py steps many at once, from the screen.

    Args:
        spec: `gymnasium.envs.registration.EnvSpec`.
    """
    return spec.namespace == "ALE" and "obs_type" not in spec.kwargs


def _count_cores():
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # Not on this system.
        return os.cpu_count() or 1


def _unbatch(infos, over=None, scores=None):
    """Infos `[B]` as a list of dicts, with the score of the step.

    Where a game is over, the emulator has begun another one, and its infos are of that.
    """
    names = ("lives", "frame_number", "episode_frame_number")
    result = [
        dict(zip(names, values, strict=True))
        for values in zip(*(infos[name].tolist() for name in names), strict=True)
    ]
    if scores is not None:
        for index, score in enumerate(scores.tolist()):
            if over[index]:
                result[index] = {"reset_info": result[index]}
            result[index]["score"] = score
    return result
