"""A dataset beside what an agent collects: each step its batch, resume, shares."""

import gymnasium
import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny
from daily import among

import kerasrl
from kerasrl import models, offline
from kerasrl.agents import buffers
from kerasrl.training import beside

ops = keras.ops
ENV = gymnasium.make("CartPole-v1")


def dataset_of(rewards, length=5):
    """Episodes of CartPole's spaces with the rewards that are given, in their order."""
    generator, episodes = np.random.default_rng(0), []
    for rows in np.split(np.asarray(rewards, np.float64), len(rewards) // length):
        episodes.append(
            offline.Episode(
                generator.uniform(-1, 1, (length + 1, 4)).astype(np.float32),
                generator.integers(2, size=length),
                rows,
                terminated=True,
            )
        )
    return offline.from_episodes(episodes, ENV.observation_space, ENV.action_space)


class Told:
    """Sums what it is told: the weight moves by the mean reward of each batch."""

    def setup(self, observation_space, action_space):
        super().setup(observation_space, action_space)
        self.told = self.add_weight(name="told", initializer="zeros")

    def custom_loss(self, loss, batch):
        rewards = batch["offline"]["rewards"]
        mask = batch["offline"]["mask"]
        return 0.0 * loss + self.told * ops.sum(rewards * mask) / ops.sum(mask)


@keras.saving.register_keras_serializable("test_mixing")
class ToldActorCritic(Told, models.ActorCritic):
    """By distribution."""


@keras.saving.register_keras_serializable("test_mixing")
class ToldQNetwork(Told, models.QNetwork):
    """By value."""


@keras.saving.register_keras_serializable("test_mixing")
class Cloning(models.ActorCritic):
    """Imitates a dataset besides."""

    def custom_loss(self, loss, batch):
        data = batch["offline"]
        outputs = kerasrl.agents.forward(self, data)
        log_probs = self.distribution(outputs).log_prob(data["actions"])
        return loss - kerasrl.losses.masked_mean(log_probs, data["mask"])


def make(name, policy, **more):
    agent = tiny.AGENTS[name](policy=None, seed=7, **more)
    agent.policy = policy
    agent.compile(keras.optimizers.SGD(1.0), jit_compile=False)
    return agent


@pytest.mark.parametrize(
    "name", among(["PPO", "A2C", "DQN", "PPO_recurrent"], ["PPO_recurrent", "DQN"])
)
def test_each_gradient_step_has_the_next_batch(name):
    """In the order of a reader, and counted on by as many as there were steps."""
    kind = ToldQNetwork if name == "DQN" else ToldActorCritic
    memory = {"cell": "gru", "cell_units": 4} if "recurrent" in name else {}
    more = {} if name == "DQN" else {"max_grad_norm": None}
    agent = make(name, kind(hidden_units=(4,), **memory), **more)
    data = dataset_of(np.arange(40.0))
    logs = agent.fit(
        *("CartPole-v1", 96), num_envs=2, offline=data, offline_batch_size=7, verbose=0
    ).history
    steps = round(np.nansum(logs.get("gradient_steps", [1.0])) * agent.iterations)
    if name == "A2C":
        steps = agent.iterations
    if name == "DQN":
        steps = agent.updates
    found = agent.offline_reading
    length = {"sequence_length": agent.rollout_length} if memory else {}
    assert found["of"] == {
        **{"num_episodes": 8, "num_steps": 40, "batch_size": 7},
        "contents": data.fingerprint(),
        **length,
    }
    reader = data.reader(7, seed=found["state"]["seed"], **length)
    means = []
    for _ in range(steps):
        batch = reader.next()
        mask = batch.get("mask", np.ones(7, bool))
        means.append(batch["rewards"][mask].mean())
    assert steps > 1 and reader.state() == found["state"]
    np.testing.assert_allclose(agent.policy.told, -np.sum(means), rtol=1e-5)


@pytest.mark.parametrize(
    "name", among(["PPO", "PPO_recurrent", "SAC_discrete"], ["PPO", "SAC_discrete"])
)
def test_reading_goes_on_where_it_was_saved(name, tmp_path):
    data = dataset_of(np.arange(40.0))
    arguments = {"num_envs": 2, "verbose": 0, "offline": data}
    if name == "SAC_discrete":
        agent = tiny.make(name)
        arguments["offline_ratio"] = 0.5
    else:
        memory = {"cell": "gru", "cell_units": 4} if "recurrent" in name else {}
        agent = make(name, Cloning(hidden_units=(4,), **memory))
        agent.compile(jit_compile=False)
        arguments["offline_batch_size"] = 6
    agent.fit("CartPole-v1", 96, **arguments)
    loaded = kerasrl.load(agent.save(tmp_path / "agent.kerasrl"))
    before = agent.offline_reading["state"]
    for each in (agent, loaded):
        each.fit("CartPole-v1", 96, **arguments)
        assert each.offline_reading["state"]["seed"] == before["seed"]
        assert each.offline_reading["state"] != before
    for a, b in zip(agent.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@keras.saving.register_keras_serializable("test_mixing")
class Deaf(models.ActorCritic):
    """Has a loss of its own, which looks at no dataset."""

    def custom_loss(self, loss, batch):
        batch["offline"]["rewards"]  # Of which it makes nothing.
        return 2.0 * loss


@keras.saving.register_keras_serializable("test_mixing")
class Measuring(models.ActorCritic):
    """Only logs what it finds."""

    def custom_metrics(self, batch):
        return {"recorded_reward": ops.mean(batch["offline"]["rewards"])}


def test_data_of_which_nothing_is_computed_are_refused():
    data = dataset_of(np.full(40, 3.0))
    arguments = {"num_envs": 2, "verbose": 0, "offline": data}
    with pytest.raises(ValueError, match="nothing would be learnt: no loss"):
        make("PPO", Deaf(hidden_units=(4,))).fit("CartPole-v1", 32, **arguments)
    agent = make("PPO", Measuring(hidden_units=(4,)))
    logs = agent.fit("CartPole-v1", 32, **arguments).history
    assert logs["recorded_reward"] == [3.0]


def test_other_data_of_as_many_steps_are_read_from_their_start():
    """Data of the same counts, loaded anew or not, and other data."""
    data, other = dataset_of(np.arange(40.0)), dataset_of(np.arange(40.0) + 1.0)
    agent = kerasrl.BC(policy={"hidden_units": (4,)}, batch_size=16, seed=0)
    agent.compile(jit_compile=False)

    def position(dataset):
        agent.fit(dataset, steps=8, verbose=0)
        return {k: agent.reading["state"][k] for k in ("seed", "epoch", "position")}

    first, second = position(data), position(dataset_of(np.arange(40.0)))
    assert second["seed"] == first["seed"] and second["epoch"] > first["epoch"]
    assert position(other) != position(data)
    assert position(other)["epoch"] == first["epoch"]
    # As a file has it that was written before contents were known.
    del agent.reading["of"]["contents"]
    assert position(other)["epoch"] > first["epoch"]


class Drawn(kerasrl.callbacks.Callback):
    """Keeps the rewards and discounts of batches, as they are learnt from."""

    def __init__(self):
        super().__init__()
        self.rewards = self.discounts = None

    def on_train_batch_end(self, batch, logs=None):
        if self.agent.buffer is not None and len(self.agent.buffer):
            _, batches = buffers.draw(self.agent, 3)
            self.rewards, self.discounts = batches["rewards"], batches["discounts"]


def test_a_share_of_each_batch_of_replay_is_of_the_dataset():
    agent = tiny.make("DQN")
    drawn = Drawn()
    data = dataset_of(np.full(40, 7.0), length=1)  # Each step is the last.
    agent.fit(
        *("CartPole-v1", 96), num_envs=2, offline=data, offline_ratio=0.25, verbose=0,
        callbacks=[drawn],
    )  # fmt: skip
    is_data = drawn.rewards == 7.0
    assert is_data.shape == (3, 8)
    assert is_data[:, 6:].all() and not is_data[:, :6].any()
    assert not drawn.discounts[is_data].any()
    assert agent.updates > 0


def test_parts_of_a_batch_go_to_replicas_beside_their_own():
    from kerasrl.distribute.tf_distribute import TfDistribute

    replicas = TfDistribute(tf.distribute.MirroredStrategy(["CPU:0"]))
    batch = {"mask": tf.ones(4), "offline": {"x": tf.range(6)}}
    vector, rows = replicas.sum_of_parts(
        lambda part: (tf.ones(1), {"x": part["offline"]["x"]}), batch
    )
    assert vector.numpy().tolist() == [1.0]
    assert rows["x"].numpy().tolist() == list(range(6))
    replicas.num_local = 4
    with pytest.raises(ValueError, match="6 samples.*offline_batch_size"):
        replicas.sum_of_parts(lambda part: part, batch)


def test_there_is_nothing_beside_a_step_outside():
    batch = {"x": 1}
    assert beside.joined(batch) is batch


DATA = dataset_of(np.arange(10.0))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: kerasrl.PPO().fit("CartPole-v1", 8, offline=[1]),
            TypeError,
            "Dataset",
        ),
        (
            lambda: kerasrl.PPO().fit("CartPole-v1", 8, offline=DATA),
            ValueError,
            "nothing would be learnt.*custom_loss",
        ),
        (
            lambda: kerasrl.PPO().fit("CartPole-v1", 8, offline_batch_size=8),
            TypeError,
            "offline=None",
        ),
        (
            lambda: kerasrl.PPO().fit(
                "CartPole-v1", 8, offline=DATA, offline_ratio=0.5
            ),
            TypeError,
            "no replay",
        ),
        (
            lambda: kerasrl.DQN(n_step=3).fit(
                "CartPole-v1", 8, offline=DATA, offline_ratio=0.5
            ),
            ValueError,
            "n_step.*to_replay",
        ),
        (
            lambda: kerasrl.DQN().fit(
                "CartPole-v1", 8, offline=DATA, offline_ratio=0.001
            ),
            ValueError,
            "at least one",
        ),
        (
            lambda: kerasrl.DQN().fit(
                "CartPole-v1", 8, offline=DATA, offline_ratio=0.5, offline_batch_size=4
            ),
            ValueError,
            "Leave out either",
        ),
        (
            lambda: kerasrl.DQN().fit(
                "CartPole-v1", 8, offline=DATA, offline_ratio=0.5, info_keys=["x"]
            ),
            ValueError,
            "infos.*Leave out info_keys",
        ),
        (
            lambda: kerasrl.ES().fit("CartPole-v1", 8, offline=DATA),
            TypeError,
            "ES takes no gradient steps",
        ),
        (
            lambda: kerasrl.DQN().fit(DATA, 8, offline=DATA),
            ValueError,
            "offline.merge",
        ),
        (
            lambda: kerasrl.PPO(policy=Cloning()).fit("Acrobot-v1", 8, offline=DATA),
            ValueError,
            "space",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()
