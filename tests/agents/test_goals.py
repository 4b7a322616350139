"""Agents that learn from goals that were achieved."""

import daily
import gymnasium
import keras
import numpy as np
import pytest
import tiny
from gymnasium import spaces

import kerasrl
from kerasrl import goals, testing

#: Arguments of `fit`.
BITS = {"num_envs": 2, "env_config": {"num_bits": 4}, "verbose": 0}


class Reach(gymnasium.Env):
    """A place in the plane; actions move it, as in gymnasium-robotics.

    Its `compute_terminated` knows nothing of many steps, as theirs.
    """

    def __init__(self, offset=0.0, discrete=False):
        place = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.observation_space = spaces.Dict(dict.fromkeys(goals.KEYS, place))
        box = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.moves = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
        self.action_space = spaces.Discrete(3) if discrete else box
        self.offset = offset
        self.discrete = discrete

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.goal = self.offset + self.np_random.normal(size=(2, 2))
        self.time = 0
        return self.observe(), {}

    def step(self, action):
        self.place = self.place + (self.moves[action] if self.discrete else action)
        self.time += 1
        reward = float(self.compute_reward(self.place, self.goal, {}))
        return self.observe(), reward, False, self.time == 5, {}

    def observe(self):
        return {
            "observation": self.place,
            "achieved_goal": self.place,
            "desired_goal": self.goal,
        }

    def compute_reward(self, achieved_goal, desired_goal, info):
        return -np.linalg.norm(achieved_goal - desired_goal, axis=-1)

    def compute_terminated(self, achieved_goal, desired_goal, info):
        return False


class NotAsked(Reach):
    """It has goals, and nobody to ask about others."""

    compute_reward = property()

    def step(self, action):
        return self.observe(), 0.0, False, False, {}


def dqn(**arguments):
    arguments = {"hindsight": "future", "n_step": 2, **arguments}
    return tiny.make("DQN", **arguments)


def fitted(agent, **arguments):
    history = agent.fit("BitFlipping-v1", steps=160, **BITS, **arguments).history
    assert np.isfinite(history["loss"][-1])
    return agent


def assert_same(first, second):
    for left, right in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_resume_is_exact_and_workers_change_nothing(tmp_path):
    straight, resumed, worked = dqn(), dqn(), dqn()
    fitted(straight)
    loaded = kerasrl.load(fitted(resumed).save(tmp_path / "agent.kerasrl"))
    # A worker is asked about goals, between the rollouts that it makes.
    fitted(worked, num_workers=1)
    assert_same(straight, worked)
    for agent in (straight, loaded):
        fitted(agent)
    assert_same(straight, loaded)
    assert loaded.hindsight == "future" and loaded.updates == straight.updates > 10


@pytest.mark.parametrize(
    "name",
    daily.among(["SimpleQ", "DDPG", "TD3", "SAC", "SAC_discrete"], ["SimpleQ"]),
)
def test_every_agent_that_replays_transitions(name):
    """On goals of floats that are normalized, with rewards that are too."""
    agent = tiny.make(
        name,
        hindsight="episode",
        normalize_rewards=True,
        policy={"normalize_observations": True},
    )

    def make():
        return Reach(discrete=name not in tiny.CONTINUOUS)

    history = agent.fit(make, steps=150, num_envs=2, verbose=0).history
    assert np.isfinite(history["loss"][-1]) and agent.updates > 5
    with pytest.raises(ValueError, match="has no compute_reward"):
        agent.sample(8)  # Of environments that are closed.
    agent.buffer.compute_reward = far_is_bad
    batch = agent.sample(8)
    achieved = batch["next_observations"]["achieved_goal"]
    desired = batch["observations"]["desired_goal"]
    expected = -np.linalg.norm(achieved - desired, axis=-1)
    np.testing.assert_allclose(
        batch["rewards"], agent.reward_scaler.scale(expected), rtol=1e-4, atol=1e-5
    )
    # What normalizes observations has seen the goals that there were.
    shape = (None, *agent.policy.observation_space["desired_goal"].shape)
    means = [layer.mean for layer in agent.policy.encoder.normalizers]
    assert [(None, *mean.shape) for mean in means] == [shape] * 3
    assert (achieved == desired).all(axis=-1).mean() > 0.1


@keras.saving.register_keras_serializable("test_goals")
def far_is_bad(achieved_goal, desired_goal, info):
    return -np.linalg.norm(achieved_goal - desired_goal, axis=-1)


def test_rollouts_and_a_function_that_is_saved(tmp_path):
    """Where no environment can be asked, and the function goes into the checkpoint."""
    recorded, make = [], lambda: Reach(discrete=True)

    class Keep(kerasrl.callbacks.Callback):
        def on_rollout_end(self, rollout):
            recorded.append(rollout)

    replay = {"n_sampled_goal": 8, "compute_reward": far_is_bad}
    agent = dqn(learning_starts=10_000)
    agent.fit(make, steps=120, num_envs=2, callbacks=[Keep()], verbose=0)
    learner = dqn(replay=replay)
    learner.build(agent.policy.observation_space, agent.policy.action_space)
    learner.fit(recorded, verbose=0)
    loaded = kerasrl.load(learner.save(tmp_path / "agent.kerasrl"))
    assert loaded.replay == replay
    assert learner.updates > 5
    # Functions that are given go on answering after `fit`.
    first, second = learner.sample(2), loaded.sample(2)
    np.testing.assert_array_equal(first["rewards"], second["rewards"])
    without = dqn()
    without.build(agent.policy.observation_space, agent.policy.action_space)
    with pytest.raises(
        ValueError, match="learn from rollouts.*compute_reward.*replay="
    ):
        without.fit(recorded, verbose=0)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: dqn(prioritized=True), "prioritized=True.*use one of them"),
        (lambda: tiny.make("R2D2", hindsight="future"), "learns from sequences"),
        (lambda: dqn(hindsight="past"), "hindsight='past'.*future"),
        (lambda: dqn(hindsight=True), "hindsight=True.*future"),
    ],
)
def test_what_cannot_go_together(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_changes_between_fits():
    agent = dqn(learning_starts=10_000)
    with pytest.raises(ValueError, match="prioritized"):
        agent.prioritized = True
    assert not agent.prioritized
    agent.fit("BitFlipping-v1", steps=40, **BITS)
    with pytest.raises(ValueError, match="not empty"):
        agent.hindsight = None
    agent.n_step = 3  # What is stored does not depend on it.
    agent.buffer.compute_reward = testing.BitFlippingEnv(4).compute_reward
    assert agent.sample(20)["steps"].max() == 3
    agent.buffer = None
    agent.hindsight = "final"
    agent.fit("BitFlipping-v1", steps=40, **BITS)
    assert agent.buffer.goal_selection_strategy == "final"


@pytest.mark.parametrize(
    ("env", "policy", "match"),
    [
        ("CartPole-v1", {}, "dicts with the keys"),
        (lambda: NotAsked(discrete=True), {}, "no compute_reward"),
        (
            lambda: Reach(1e6, discrete=True),
            {"normalize_observations": True},
            "achieved_goal so far from zero",
        ),
    ],
)
def test_environments_without_goals(env, policy, match):
    with pytest.raises(ValueError, match=match):
        dqn(policy=policy).fit(env, steps=100, num_envs=2, verbose=0)


def test_few_bits_are_learnt():
    agent = tiny.make(
        "DQN",
        policy={"hidden_units": (64,)},
        hindsight="future",
        exploration=0.3,
        gamma=0.9,
        tau=0.05,
        target_update_interval=1,
        train_every=2,
    )
    agent.compile(keras.optimizers.Adam(3e-3), jit_compile=False)
    agent.fit("BitFlipping-v1", steps=2400, **{**BITS, "num_envs": 8})
    envs = {"num_bits": 4}
    result = agent.evaluate("BitFlipping-v1", 50, seed=0, env_config=envs, verbose=0)
    # On average two of four bits differ, so the best is about -1; random play: -3.8.
    assert result["return_mean"] > -1.6


def test_bit_flipping():
    env = testing.BitFlippingEnv(3)
    observation, _ = env.reset(seed=0)
    wrong = np.flatnonzero(observation["achieved_goal"] != observation["desired_goal"])
    assert len(wrong) > 0
    for number, bit in enumerate(wrong, start=1):
        observation, reward, terminated, truncated, info = env.step(bit)
        is_last = number == len(wrong)
        assert (reward, terminated, truncated) == (is_last - 1.0, is_last, False)
        assert info["is_success"] == is_last
    env.reset(seed=1)
    # Twice the same bit is none; the third step is the last.
    ends = [env.step(0)[2:4] for _ in range(3)]
    assert ends[-1][1] or any(terminated for terminated, _ in ends)
    with pytest.raises(ValueError, match="num_bits"):
        testing.BitFlippingEnv(1)
