"""Atari games: what is told of them, against the emulator's own vector environment."""

import sys

import gymnasium
import keras
import numpy as np
import pytest
from ale_py.vector_env import AtariVectorEnv

import kerasrl
from kerasrl.envs import atari, make_envs

BREAKOUT = "ALE/Breakout-v5"
#: Small and quick; not those of a preset.
SMALL = {"img_height": 42, "img_width": 42}


SHORT = {"stack_num": 3, "max_num_frames_per_episode": 120}


@pytest.mark.parametrize(
    ("preset", "changed"),
    [
        ("deepmind", {}),
        ("machado", SHORT),
        pytest.param("machado", {}, marks=pytest.mark.slow),
        pytest.param("deepmind", SHORT, marks=pytest.mark.slow),
    ],
)
def test_what_learners_and_others_are_told(preset, changed):
    config = {"preset": preset, **SMALL, **changed}
    envs = make_envs(BREAKOUT, 3, config)
    options = {**atari.PRESETS[preset], **SMALL, **changed}
    assert envs.options == options
    count, padding = options["stack_num"], options["padding"]
    games = AtariVectorEnv(
        "breakout",
        3,
        stack_num=1,
        reward_clipping=False,
        autoreset_mode="SameStep",
        **{k: v for k, v in options.items() if k not in atari._OWN},
    )
    rng = np.random.default_rng(0)
    observations = envs.reset([3, 4, 5])
    frames, infos = games.reset(seed=np.array([3, 4, 5]))
    lives = infos["lives"]

    def first(frame):
        older = frame if padding == "reset" else 0 * frame
        return [older] * (count - 1) + [frame]

    stacks = [first(frame) for frame in frames[:, 0]]
    losses = overs = cuts = scored = 0
    for _ in range(180):
        for env in range(3):
            np.testing.assert_array_equal(observations[env], np.stack(stacks[env], -1))
        actions = rng.integers(envs.action_space.n, size=3)
        step = envs.step(actions)
        frames, scores, terminated, truncated, infos = games.step(actions)
        over = terminated | truncated
        lost = ~over & (infos["lives"] < lives) & options["episodic_life"]
        lives = infos["lives"]
        np.testing.assert_array_equal(step.rewards, np.sign(scores))
        np.testing.assert_array_equal(step.terminated, terminated | lost)
        np.testing.assert_array_equal(step.truncated, truncated)
        played = step.as_played
        np.testing.assert_array_equal(played.rewards, scores)
        np.testing.assert_array_equal(played.terminated, terminated)
        np.testing.assert_array_equal(played.truncated, truncated)
        assert set(step.final_observations) == set(np.flatnonzero(over | lost))
        for env in range(3):
            last = infos["final_obs"][env, 0] if over[env] else frames[env, 0]
            stack = [*stacks[env][1:], last]
            if over[env] or lost[env]:
                final = step.final_observations[env]
                np.testing.assert_array_equal(final, np.stack(stack, -1))
                stack = first(frames[env, 0])
            stacks[env] = stack
            # Those of the emulator are of the next game, where one is over.
            names = ("lives", "frame_number", "episode_frame_number")
            info = {name: infos[name][env] for name in names}
            info = {"reset_info": info} if over[env] else info
            assert step.infos[env] == {**info, "score": scores[env]}
        observations = step.observations
        losses, overs = losses + lost.sum(), overs + terminated.sum()
        cuts, scored = cuts + truncated.sum(), scored + (scores != 0).sum()
    if changed:
        assert cuts
    else:
        assert scored and overs and (losses > 0) == (preset == "deepmind")
    envs.close()


def test_presets_are_complete_and_differ():
    first, second = atari.PRESETS.values()
    assert set(first) == set(second)
    for preset, num_actions in (("deepmind", 4), ("machado", 18)):
        envs = make_envs(BREAKOUT, 1, {"preset": preset})
        assert envs.action_space.n == num_actions
        assert envs.observation_space.shape == (84, 84, 4)
        assert envs.frames == (4, -1) and envs.name == BREAKOUT
        envs.reset([0])
        assert envs.render()[0].shape == (84, 84, 3)
        envs.close()
    assert make_envs(BREAKOUT, 1).options == atari.PRESETS["machado"]


def test_the_same_seeds_give_the_same_games():
    def play(num_threads, more=0):
        envs = make_envs(BREAKOUT, 3, {**SMALL, "num_threads": num_threads})
        seeds = [1 + more, 2 + more, 1]  # The emulator takes 31 bits.
        seen = [envs.reset(seeds).sum(axis=(1, 2, 3))]
        for time in range(40):
            step = envs.step(np.full(3, time % 18))
            seen.append(step.observations.sum(axis=(1, 2, 3)))
        envs.close()
        return np.array(seen)

    first = play(1)
    np.testing.assert_array_equal(first, play(3))
    np.testing.assert_array_equal(first, play(3, 2**31))
    np.testing.assert_array_equal(first[:, 0], first[:, 2])
    assert (first[:, 0] != first[:, 1]).any()


class Watch(kerasrl.callbacks.Callback):
    """What hooks and learners see of the same games."""

    def __init__(self):
        super().__init__()
        self.games, self.scores, self.score, self.ends = [], [], {}, 0

    def on_episode_begin(self, episode):
        self.score[episode.env_index] = 0.0

    def on_episode_step(self, episode):
        self.score[episode.env_index] += episode.info["score"]

    def on_episode_end(self, episode):
        self.games.append(episode.episode_return)
        self.scores.append(self.score[episode.env_index])
        episode.custom_metrics["lives"] = episode.length

    def on_rollout_end(self, rollout):
        self.ends += int(rollout.terminated.sum())
        assert rollout.rewards.max() <= 1.0


def make_agent(**arguments):
    # No convolutions: they would act in TensorFlow.
    trunk = [keras.layers.Flatten(), keras.layers.Dense(4)]
    agent = kerasrl.DQN(
        policy=keras.Sequential(trunk),
        batch_size=4,
        buffer_size=600,
        exploration=1.0,
        **{"learning_starts": 10_000, "seed": 0, **arguments},
    )
    agent.compile(jit_compile=False)
    return agent


CONFIG = {"preset": "deepmind", "max_num_frames_per_episode": 400, **SMALL}
DEEPMIND = {"num_envs": 2, "env_config": CONFIG, "verbose": 0}


def test_logs_are_of_whole_games_and_frames_are_stored_once(tmp_path):
    agent, watch, game = make_agent(learning_starts=450), Watch(), "ALE/Asteroids-v5"
    logs = agent.fit(game, steps=520, callbacks=[watch], **DEEPMIND).history
    # Games that are cut off after 100 steps, with some lives lost in each.
    assert agent.episodes == len(watch.games) == 4 and watch.ends > 0
    assert watch.games == watch.scores == list(agent.statistics.returns)
    assert max(watch.games) >= 20 and logs["lives_mean"][0] == 100
    # A row has one frame, and a few numbers: action, reward, kind, age.
    assert agent.buffer.nbytes / agent.buffer.capacity < 42 * 42 + 32
    assert agent.updates > 10
    loaded = kerasrl.load(agent.save(tmp_path / "agent.kerasrl"))
    assert loaded.frames == agent.frames == [4, -1]
    for each in (agent, loaded):
        each.fit(game, steps=64, **DEEPMIND)
    for left, right in zip(agent.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)
    # Scores again, however many lives they take.
    settings = {**DEEPMIND, "num_envs": 1}
    result = agent.evaluate(game, 1, seed=0, deterministic=False, **settings)
    assert result["length_mean"] == 100


def test_what_replay_says_of_frames_goes_first():
    agent = make_agent(replay={"frame_stack": None})
    agent.build(
        make_envs(BREAKOUT, 1, SMALL).observation_space, gymnasium.spaces.Discrete(4)
    )
    agent.frames = [4, -1]
    assert agent.make_buffer(1).nbytes / 600 > 4 * 42 * 42
    agent.replay = None
    assert agent.make_buffer(1).nbytes / 600 < 42 * 42 + 32


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"env_config": {"preset": "nature"}}, "preset='nature'.*deepmind.*machado"),
        ({"env_config": {"frame_skip": 2}}, "no option 'frame_skip'.*'frameskip'"),
        ({"env_config": {"obs_type": "ram"}}, "no option 'obs_type'.*factory"),
        ({"env_config": {"padding": "edge"}}, "padding='edge'"),
        ({"render_mode": "human"}, "render_mode='human'"),
    ],
)
def test_options_that_are_refused(arguments, match, monkeypatch):
    monkeypatch.setattr("kerasrl.envs.make.check_display", lambda: None)
    with pytest.raises(ValueError, match=match):
        make_envs(BREAKOUT, 1, **arguments)


def test_preprocessors_are_refused():
    """They wrap single environments, and would be left out without a word."""
    kerasrl.envs.register_preprocessor("flat", gymnasium.wrappers.FlattenObservation)
    with pytest.raises(ValueError, match="'flat' wraps single environments"):
        make_envs(BREAKOUT, 1, {"preprocessor": "flat"})


def test_workers_are_refused():
    with pytest.raises(ValueError, match="num_workers=1.*Leave num_workers out"):
        make_agent().fit(BREAKOUT, steps=16, num_workers=1, verbose=0)


def test_one_game_is_an_environment():
    """For films and `kerasrl rollout`: the same games, whole and unclipped."""
    config = {**CONFIG, "max_num_frames_per_episode": 80}
    several, alone = (make_envs("ALE/Asteroids-v5", 1, config) for _ in range(2))
    game = alone.foreach(lambda env: env)[0]
    observation, _ = game.reset(seed=5)
    expected = several.reset([5])
    for time in range(44):
        np.testing.assert_array_equal(observation, expected[0])
        step = several.step(np.array([time % 14])).as_played
        observation, reward, terminated, truncated, info = game.step(time % 14)
        assert (reward, terminated) == (step.rewards[0], step.terminated[0])
        assert truncated == step.truncated[0] == (time in (19, 39))
        told = dict(step.infos[0])
        begun = told.pop("reset_info", None)
        assert info == told
        expected = step.observations
        if truncated:
            np.testing.assert_array_equal(observation, step.final_observations[0])
            observation, info = game.reset()
            assert info == begun and info["lives"] == 4
    assert game.render().shape == (42, 42, 3)
    several.close()
    alone.close()


def test_what_cannot_be_reached():
    envs = make_envs(BREAKOUT, 2, SMALL)
    with pytest.raises(TypeError, match="factory"):
        envs.foreach(lambda env: env)
    with pytest.raises(AttributeError, match="difficulty"):
        envs.set_attr("difficulty", 1)
    with pytest.raises(AttributeError, match="set_phase"):
        envs.call("set_phase", 1)
    envs.close()


def test_the_extra_is_named_when_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    monkeypatch.delitem(gymnasium.registry, BREAKOUT, raising=False)
    with pytest.raises(ValueError, match=r"pip install kerasrl\[atari\]"):
        make_envs(BREAKOUT, 1)
