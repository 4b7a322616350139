"""What policies read, acting returns and environments say, in losses that replay."""

import gymnasium
import keras
import numpy as np
import pytest
from envs.for_workers import Reporting
from gymnasium import spaces
from keras import ops

import kerasrl
from kerasrl import models
from kerasrl.checkpoint import CheckpointError
from kerasrl.replay import ReplayBuffer


def continuous():
    return Reporting(spaces.Box(-1.0, 1.0, (1,)))


class Fed:
    """A policy that depends on the step before, and returns what it was given."""

    def call(self, inputs, state=None, training=False):
        actions = ops.cast(inputs["previous_actions"], "float32")
        fed = ops.stack(
            [ops.reshape(actions, [-1]), inputs["previous_rewards"]], axis=-1
        )
        return {**self.outputs(ops.tanh(self.hidden(fed))), "fed": fed}


@keras.saving.register_keras_serializable("test_replayed")
class FedQ(Fed, models.QFunction):
    def setup(self, observation_space, action_space):
        super().setup(observation_space, action_space)
        self.hidden, self.head = keras.layers.Dense(4), keras.layers.Dense(3)

    def outputs(self, features):
        return {"q_values": self.head(features)}


@keras.saving.register_keras_serializable("test_replayed")
class FedActor(Fed, models.ActionValuePolicy):
    def __init__(self, deterministic=False, **kwargs):
        super().__init__(**kwargs)
        self.deterministic = deterministic

    def setup(self, observation_space, action_space):
        super().setup(observation_space, action_space)
        self.hidden = keras.layers.Dense(4)
        self.head = keras.layers.Dense(self.num_parameters)
        self.critic = keras.layers.Dense(3 if self.is_discrete else 1)

    def outputs(self, features):
        return {"distribution": self.head(features)}

    def q_values(self, observations, actions=None, training=False):
        if self.is_discrete:
            return self.critic(observations)[None]
        actions = ops.reshape(actions, (-1, 1))
        inputs = ops.concatenate([observations, actions], axis=-1)
        return ops.transpose(self.critic(inputs))

    def critic_variables(self):
        return self.critic.trainable_variables


def checked(agent_class):
    """A class that acts as another, says more, and checks what its loss is given."""

    class Checked(agent_class):
        def act(self, inputs, deterministic):
            outputs = super().act(inputs, deterministic)
            first = inputs["observations"][:, 0]
            previous = inputs["previous_rewards"]
            return {**outputs, "first": first, "more": {"pair": (first, previous)}}

        def update(self, batch, settings):
            self.check(batch)
            return super().update(batch, settings)

        def loss(self, batch, outputs, settings):
            self.check(batch)
            if "fed" in outputs:
                self.same(outputs["fed"], batch["observations"][..., 1:])
            return super().loss(batch, outputs, settings)

        def same(self, left, right):
            left, right = np.asarray(left), np.asarray(right)
            np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-5)
            self.num_checked = getattr(self, "num_checked", 0) + 1

        def check(self, batch):
            valid = np.asarray(batch["mask"]) > 0
            batch = keras.tree.map_structure(np.asarray, dict(batch))
            seen = batch["observations"]
            extras, infos = batch["extras"], batch["infos"]
            first, (again, previous) = extras["first"], extras["more"]["pair"]
            assert first.dtype == infos["count"].dtype == np.float32
            self.same(first[valid], seen[valid][:, 0])
            self.same(again, first)
            self.same(previous[valid], seen[valid][:, 2])
            counts = infos["count"][valid]
            self.same(counts, seen[valid][:, 0] + 1)
            self.same(infos["pair"][valid][:, 0], counts)
            even = np.where(counts % 3 == 0, counts % 2 == 0, np.nan)
            self.same(infos["even"][valid], even)
            assert set(infos) == {"count", "pair", "even"}
            assert np.isnan(infos["count"][~valid]).all()
            for name, number in (("previous_actions", 1), ("previous_rewards", 2)):
                shape = valid.shape
                self.same(batch[name].reshape(shape), seen[..., number])
                if "next_observations" in batch:
                    following = batch["next_observations"][..., number]
                    self.same(batch[f"next_{name}"].reshape(shape), following)

    return Checked


FIT = {"info_keys": ("count", "pair", "even", "name"), "num_envs": 3, "verbose": 0}
REPLAY = {
    "learning_starts": 30,
    "batch_size": 16,
    "buffer_size": 60,
    "train_every": 12,
    "seed": 0,
}
FAMILIES = {
    "SimpleQ": (kerasrl.SimpleQ, FedQ, Reporting, {}),
    "DQN": (kerasrl.DQN, FedQ, Reporting, {"n_step": 3, "prioritized": True}),
    "R2D2": (
        kerasrl.R2D2,
        lambda: {
            "hidden_units": (4,),
            "cell_units": 4,
            "previous_inputs": True,
        },
        Reporting,
        {"burn_in": 2, "sequence_length": 4, "period": 3, "n_step": 2},
    ),
    "SAC": (kerasrl.SAC, FedActor, continuous, {"n_step": 3}),
    "SAC_discrete": (kerasrl.SAC, FedActor, Reporting, {}),
    "DDPG": (kerasrl.DDPG, FedActor, continuous, {"prioritized": True}),
    "TD3": (kerasrl.TD3, FedActor, continuous, {"n_step": 2}),
}


#: One for each buffer.
DAILY = [("DQN", 1), ("R2D2", 0)]


@pytest.mark.parametrize(
    ("name", "num_workers"),
    [
        *DAILY,
        *(
            pytest.param(name, 0, marks=pytest.mark.slow)
            for name in FAMILIES
            if (name, 0) not in DAILY
        ),
    ],
)
def test_losses_see_what_was_there_in_that_very_step(name, num_workers):
    agent_class, policy, env, settings = FAMILIES[name]
    agent = checked(agent_class)(policy(), **REPLAY, **settings)
    agent.compile(run_eagerly=True)
    # The buffer goes round more than once.
    agent.fit(env, steps=240, num_workers=num_workers, **FIT)
    assert agent.num_checked > 50


class Remembering(gymnasium.Env):
    """Rewards depend on this action and the last, 0 at first; cut off at times."""

    observation_space = spaces.Box(-1.0, 1.0, (1,))
    action_space = spaces.Discrete(2)
    rewards = np.array([[1.0, 0.0], [-1.0, 3.0]])

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.last, self.time = 0, 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        reward, self.last = self.rewards[self.last, action], action
        self.time += 1
        return np.zeros(1, np.float32), reward, False, self.time == 3, {}


@keras.saving.register_keras_serializable("test_replayed")
class Table(models.QFunction):
    """A table over the previous action: the observation says nothing."""

    def setup(self, observation_space, action_space):
        super().setup(observation_space, action_space)
        self.table = keras.layers.Dense(2, use_bias=False, kernel_initializer="zeros")

    def call(self, inputs, state=None, training=False):
        inputs["previous_rewards"]  # Looked up, and not used.
        previous = ops.one_hot(inputs["previous_actions"], 2)
        return {"q_values": self.table(previous)}


@pytest.mark.parametrize(
    "agent_class",
    [pytest.param(kerasrl.SimpleQ, marks=pytest.mark.slow), kerasrl.DQN],
)
def test_values_that_only_the_previous_action_tells(agent_class):
    """By value iteration; most steps are followed by a cut, whose value must count."""
    values, gamma = np.zeros((2, 2)), 0.5
    for _ in range(60):
        values = Remembering.rewards + gamma * values.max(axis=1)
    agent = agent_class(
        Table(),
        gamma=gamma,
        exploration=1.0,
        learning_starts=64,
        batch_size=64,
        train_every=4,
        updates_per_call=16,
        target_update_interval=64,
        seed=0,
    )
    agent.compile(keras.optimizers.SGD(1.0), jit_compile=False)
    agent.fit(Remembering, steps=3000, num_envs=4, verbose=0)
    np.testing.assert_allclose(agent.get_weights()[0], values, atol=0.05)
    assert agent.previous_inputs == ["previous_actions"]
    assert not agent.buffer.keeps("previous_rewards")


@keras.saving.register_keras_serializable("test_replayed")
class Telling(kerasrl.DQN):
    def act(self, inputs, deterministic):
        outputs = super().act(inputs, deterministic)
        return {**outputs, "first": inputs["observations"][:, 0]}

    def loss(self, batch, outputs, settings):
        loss, metrics = super().loss(batch, outputs, settings)
        even = batch["infos"]["even"]
        known = ops.mean(ops.cast(even == even, "float32"))
        first = ops.mean(batch["extras"]["first"])
        return loss + 0.01 * known * first, {**metrics, "known": known, "first": first}


def make_telling():
    keras.utils.set_random_seed(0)
    agent = Telling(FedQ(), n_step=2, prioritized=True, **REPLAY)
    agent.compile(jit_compile=False)
    agent.build(Reporting.observation_space, spaces.Discrete(3, start=4))
    return agent


@pytest.mark.slow
def test_resume_is_exact(tmp_path):
    straight, resumed = make_telling(), make_telling()
    for agent in (straight, resumed):
        agent.fit(Reporting, steps=72, **FIT)
    loaded = kerasrl.load(resumed.save(tmp_path / "agent.kerasrl"))
    logs = [agent.fit(Reporting, steps=72, **FIT) for agent in (straight, loaded)]
    for key in ("loss", "known", "first"):
        first, second = (log.history[key] for log in logs)
        assert first == second and np.isfinite(first).all()
    for left, right in zip(straight.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)
    # Without the key, later steps have none; those that are there stay.
    loaded.fit(Reporting, steps=12, num_envs=3, verbose=0)
    assert set(loaded.buffer.sample(9)["infos"]) == {"count", "pair", "even"}


def test_a_replay_that_no_longer_fits_what_acting_returns(tmp_path, monkeypatch):
    agent = make_telling()
    agent.fit(Reporting, steps=36, **FIT)
    path = agent.save(tmp_path / "agent.kerasrl")
    monkeypatch.setattr(Telling, "act", kerasrl.DQN.act)
    with pytest.raises(CheckpointError, match="Unknown: \\['extras.first'\\]"):
        kerasrl.load(path)
    monkeypatch.undo()
    kerasrl.load(path)


@pytest.mark.parametrize(
    ("agent", "match"),
    [
        (
            lambda: Telling({"hidden_units": (4,)}, **REPLAY),
            "not keep the extras that acting returns.*must pass extras_example",
        ),
        (
            lambda: kerasrl.DQN(FedQ(), **REPLAY),
            "not keep the previous_actions that the policy reads.*previous_inputs",
        ),
    ],
)
def test_buffers_of_ones_own_that_keep_too_little(agent, match):
    agent = agent()
    agent.make_buffer = lambda num_envs: ReplayBuffer(
        99, Reporting.observation_space, spaces.Discrete(3), num_envs
    )
    with pytest.raises(ValueError, match=match):
        agent.fit(Reporting, steps=12, **FIT)
