"""Algorithms that learn from a dataset: what they learn, exact resume, refusals."""

import gymnasium
import keras
import numpy as np
import pytest
from daily import among
from gymnasium import spaces

import kerasrl
from kerasrl import offline
from kerasrl.callbacks import PeriodicEvaluation

SMALL = {"hidden_units": (8,)}
BOX = spaces.Box(np.float32([-2.0, 0.0]), np.float32([1.0, 5.0]))
SEEN = spaces.Box(-1.0, 1.0, (3,), np.float32)
AGENTS = {
    "BC": kerasrl.BC,
    "MARWIL": kerasrl.MARWIL,
    "TD3BC": kerasrl.TD3BC,
    "IQL": kerasrl.IQL,
    "IQL_discrete": kerasrl.IQL,
    "CQL": kerasrl.CQL,
    "CQL_discrete": kerasrl.CQL,
    "CQL_values": kerasrl.CQL,
}
CONTINUOUS = ("TD3BC", "IQL", "CQL")


def make(name, **arguments):
    given = {"policy": SMALL, "batch_size": 16, "updates_per_call": 4, "seed": 7}
    if name == "CQL":
        given["num_actions"] = 2
    if name == "CQL_values":
        given["policy"] = kerasrl.models.QNetwork(**SMALL)
    agent = AGENTS[name](**{**given, **arguments})
    agent.compile(jit_compile=False)
    return agent


def dataset_of(action_space, observation_space=SEEN, num_episodes=12, length=6, good=0):
    """Random episodes; the reward is 1 for choice `good`, or for small numbers."""
    generator = np.random.default_rng(0)
    action_space.seed(0)
    observation_space.seed(0)
    episodes = []
    for number in range(num_episodes):
        seen = [observation_space.sample() for _ in range(length + 1)]
        taken = [action_space.sample() for _ in range(length)]
        if isinstance(action_space, spaces.Discrete):
            rewards = np.array([float(action == good) for action in taken])
        else:
            rewards = generator.normal(size=length)
        episodes.append(
            offline.Episode(
                stacked(observation_space, seen),
                stacked(action_space, taken),
                rewards,
                terminated=number % 3 == 0,
                truncated=number % 3 == 1,
            )
        )
    return offline.from_episodes(episodes, observation_space, action_space)


def stacked(space, rows):
    if isinstance(space, spaces.Dict):
        return {k: stacked(s, [row[k] for row in rows]) for k, s in space.items()}
    if isinstance(space, spaces.Tuple):
        parts = enumerate(space.spaces)
        return tuple(stacked(s, [row[i] for row in rows]) for i, s in parts)
    return np.stack([np.asarray(row) for row in rows])


def data_for(name):
    if name in CONTINUOUS:
        return dataset_of(BOX)
    return dataset_of(spaces.Discrete(2, start=3), good=3)


def variables(agent):
    return [
        *agent.policy.variables,
        *agent.own_variables,
        *(v for each in agent.optimizers.values() for v in each.variables),
    ]


def assert_same(first, second):
    for a, b in zip(variables(first), variables(second), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)


@pytest.mark.parametrize("name", among([*AGENTS], ["MARWIL", "IQL"]))
def test_goes_on_exactly_where_it_was_saved(name, tmp_path):
    """Also within an epoch of the dataset: 40 steps of 16 are no whole ones of 72."""
    dataset = data_for(name)
    straight, stopped = make(name), make(name)
    history = straight.fit(dataset, steps=40, steps_per_epoch=20, verbose=0).history
    assert np.isfinite(history["loss"]).all() and history["gradient_norm"][0] > 0.0
    stopped.fit(dataset, steps=20, verbose=0)
    loaded = kerasrl.load(stopped.save(tmp_path / "agent.kerasrl"))
    assert_same(stopped, loaded)
    loaded.fit(dataset, steps=20, verbose=0)
    assert_same(straight, loaded)
    assert straight.env_steps == 0 and straight.iterations == 10
    action = loaded.predict(np.zeros((1, 3), np.float32))[0]
    assert dataset.action_space.contains(action)


@pytest.mark.parametrize(
    "name",
    among(
        ["MARWIL", "IQL", "CQL_discrete", "CQL_values", "TD3BC"], ["MARWIL", "TD3BC"]
    ),
)
def test_goes_on_in_an_environment(name):
    """Whoever has learnt from data does not begin by acting at random."""
    env = gymnasium.make("Pendulum-v1" if name in CONTINUOUS else "CartPole-v1")
    rollout = []
    observation, _ = env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(20):
        action = env.action_space.sample()
        following, reward, terminated, truncated, _ = env.step(action)
        rollout.append((observation, action, reward, terminated, truncated, following))
        observation = following
        if terminated or truncated:
            observation, _ = env.reset()
    columns = [
        np.stack([np.asarray(x) for x in each]) for each in zip(*rollout, strict=True)
    ]
    dataset = offline.from_arrays(
        *columns[:5],
        next_observations=columns[5],
        observation_space=env.observation_space,
        action_space=env.action_space,
    )
    agent = make(name)
    agent.fit(dataset, steps=4, verbose=0)
    if name == "CQL_values":
        np.testing.assert_allclose(agent.exploration_inputs(2)["epsilon"], 0.05)
    elif name != "MARWIL":
        assert agent.exploration_inputs(2)["random"].tolist() == [0.0, 0.0]
        agent.learning_starts = 16
    agent.fit(env.spec.id, steps=64, num_envs=2, verbose=0)
    assert agent.env_steps >= 64
    agent.fit(dataset, steps=4, verbose=0)


NESTED = spaces.Dict(
    {"move": BOX, "rest": spaces.Tuple([spaces.Discrete(3, start=2)])},
)


@pytest.mark.parametrize(
    "action_space",
    [NESTED, spaces.MultiDiscrete([3, 2], start=[1, 0]), spaces.MultiBinary(3)],
    ids=lambda space: type(space).__name__,
)
def test_cloning_takes_all_actions_with_memory(action_space):
    cell = {"cell": "gru", "cell_units": 4, "previous_inputs": True}
    agent = make("BC", policy={**SMALL, **cell}, sequence_length=4, batch_size=4)
    agent.compile(run_eagerly=True)
    history = agent.fit(dataset_of(action_space), steps=4, verbose=0).history
    assert history["gradient_norm"][0] > 0.0


def test_pieces_of_episodes_are_learnt_from_as_they_are():
    """What fills up a piece changes nothing: one of 6 steps, in rows of 6 or of 9."""
    cell = {"cell": "gru", "cell_units": 4}
    agents = []
    for length in (6, 9):
        agent = make(
            "BC", policy={**SMALL, **cell}, sequence_length=length, batch_size=12
        )
        agent.compile(keras.optimizers.SGD(0.1), jit_compile=False)
        agent.fit(dataset_of(spaces.Discrete(2)), steps=4, verbose=0)
        agents.append(agent)
    for a, b in zip(*(agent.get_weights() for agent in agents), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.slow
def test_better_actions_are_imitated_more():
    """All choices are as frequent: cloning takes each, the others the one that pays."""
    dataset = dataset_of(spaces.Discrete(3), num_episodes=60, length=4, good=1)
    one_step = {"gamma": 0.0, "batch_size": 60}
    shares = {}
    for name, more in {
        "BC": {"batch_size": 60},
        "MARWIL": {**one_step, "beta": 3.0, "advantage_norm_start": 0.3},
        "IQL_discrete": {**one_step, "beta": 10.0},
        "CQL_discrete": {**one_step, "alpha": 0.1},
        "CQL_values": {**one_step, "alpha": 0.1},
    }.items():
        agent = make(name, **more)
        agent.compile(kerasrl.optimizers.Adam(3e-3), jit_compile=False)
        agent.fit(dataset, steps=400, verbose=0)
        observations = np.random.default_rng(1).uniform(-1, 1, (200, 3))
        acted = agent.predict(observations.astype(np.float32), deterministic=False)
        shares[name] = np.mean(acted == 1)
    assert shares["BC"] < 0.55
    assert min(share for name, share in shares.items() if name != "BC") > 0.7, shares


def test_statistics_of_observations_are_those_of_the_dataset():
    agent = make("TD3BC")
    dataset = data_for("TD3BC")
    agent.fit(dataset, steps=4, verbose=0)
    (normalizer,) = agent.policy.encoder.normalizers
    rows = np.concatenate([each.observations[:-1] for each in dataset.episodes])
    np.testing.assert_allclose(normalizer.mean, rows.mean(axis=0), atol=1e-5)
    before = np.array(normalizer.mean)
    agent.fit(dataset, steps=4, verbose=0)
    np.testing.assert_array_equal(before, normalizer.mean)


def test_custom_losses_join():
    @keras.saving.register_keras_serializable("offline_agents")
    class Pulled(kerasrl.models.ActorCritic):
        def custom_loss(self, loss, batch):
            assert {"observations", "actions", "mask", "outputs"} <= set(batch)
            squares = [keras.ops.sum(w**2) for w in self.trainable_variables]
            return 0.0 * loss + 0.5 * sum(squares)

    agent = make("BC", policy=Pulled(hidden_units=(4,)))
    agent.compile(keras.optimizers.SGD(1.0), jit_compile=False)
    agent.fit(data_for("BC"), steps=4, verbose=0)
    for variable in agent.policy.trainable_variables:
        np.testing.assert_array_equal(variable, 0.0)


@pytest.mark.parametrize("terminated", [0, 1])
def test_conservative_values_are_learnt_as_the_paper_says(terminated):
    """The table is that of a published example, whose gap is 1.50586828."""
    table = np.float32([[1.0, 2.0, 3.0], [0.0, -1.0, 0.5]])
    following = np.float32([[0.0, 1.0, 0.2], [4.0, 3.0, 5.0]])
    agent = make("CQL_values", policy=kerasrl.models.QNetwork(hidden_units=()))
    agent.alpha = 2.0
    agent.build(spaces.Box(0.0, 1.0, (2,), np.float32), spaces.Discrete(3))
    agent.policy.set_weights([following, np.zeros(3, np.float32)])
    for variable in agent.policy.trainable_variables:  # Not those of the target.
        variable.assign(table if len(variable.shape) == 2 else variable)
    rewards, ended = np.float32([0.5, -1.0]), np.array([False, bool(terminated)])
    seen = np.eye(2, dtype=np.float32)
    batch = {
        "observations": seen,
        "next_observations": seen[::-1],
        "actions": np.array([0, 2]),
        "rewards": rewards,
        "discounts": np.float32(0.9) * ~ended,
        "weights": np.ones(2, np.float32),
    }
    loss, logs = agent.loss(batch, agent.policy({"observations": seen}), {})
    squares = []
    for row, action in enumerate([0, 2]):
        other = 1 - row
        best = max(range(3), key=lambda a: table[other, a])  # noqa: B023
        target = rewards[row] + 0.9 * (not ended[row]) * following[other, best]
        squares.append((table[row, action] - target) ** 2)
    np.testing.assert_allclose(logs["conservative_gap"], 1.50586828, rtol=1e-6)
    np.testing.assert_allclose(
        loss, 0.5 * np.mean(squares) + 2.0 * 1.50586828, rtol=1e-6
    )


def test_conservative_quantiles_are_held_down_by_their_mean():
    policy = kerasrl.models.QNetwork(hidden_units=(8,), num_quantiles=5)
    agent = make("CQL_values", policy=policy)
    logs = agent.fit(data_for("CQL_values"), steps=4, verbose=0).history
    outputs = agent.policy({"observations": np.ones((3, 3), np.float32)})
    means = keras.ops.mean(outputs["quantiles"], axis=-1)
    np.testing.assert_allclose(outputs["q_values"], means, rtol=1e-6)
    # Of two actions that are worth as much as each other, about log 2.
    assert 0.3 < logs["conservative_gap"][0] < 1.5


def test_callbacks_evaluate_and_end_training():
    env = gymnasium.make("CartPole-v1")
    episode = offline.Episode(
        np.zeros((5, 4), np.float32), np.zeros(4, np.int64), np.ones(4), True
    )
    dataset = offline.from_episodes([episode], env.observation_space, env.action_space)
    evaluation = PeriodicEvaluation("CartPole-v1", every_epochs=1, episodes=2)
    stop = keras.callbacks.EarlyStopping(
        "evaluation_return_mean", patience=1, mode="max"
    )
    agent = make("BC")
    agent.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    history = agent.fit(
        dataset, steps=40, steps_per_epoch=4, callbacks=[evaluation, stop], verbose=0
    ).history
    # The second is no better than the first.
    assert len(history["evaluation_return_mean"]) == 2
    assert history["dataset_epochs"] == [16.0, 32.0]
    assert not hasattr(agent.reading, "get_state")


def test_the_norm_of_advantages_begins_with_those_of_the_first_batch():
    agent = make("MARWIL", updates_per_call=1, batch_size=72)
    logs = agent.fit(data_for("MARWIL"), steps=1, verbose=0).history
    expected = (2 * logs["value_loss"][0]) ** 0.5
    np.testing.assert_allclose(logs["advantage_norm"][0], expected, rtol=1e-5)
    # Weights are of advantages in units of that: none is extreme.
    assert 0.5 < logs["imitation_weight"][0] < 3.0


def test_the_norm_of_advantages_moves_as_its_loss_says():
    agent = make("MARWIL", advantage_norm_start=4.0, advantage_norm_rate=0.25)
    agent.updates_per_call = 1
    logs = agent.fit(data_for("MARWIL"), steps=1, verbose=0).history
    expected = 4.0 + 0.25 * (2 * logs["value_loss"][0] - 4.0)
    np.testing.assert_allclose(agent.advantage_square, expected, rtol=1e-5)
    np.testing.assert_allclose(logs["advantage_norm"][0], expected**0.5, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda d: kerasrl.PPO().fit(d, steps=8), TypeError, "PPO learns .*BC"),
        (lambda d: kerasrl.ES().fit(d, steps=8), TypeError, "ES"),
        (lambda d: kerasrl.DQN(n_step=3).fit(d, steps=8), ValueError, "n_step"),
        (lambda d: kerasrl.DQN(prioritized=True).fit(d, steps=8), ValueError, "prior"),
        (lambda d: kerasrl.R2D2().fit(d, steps=8), ValueError, "memory"),
        (lambda d: kerasrl.BC().fit(d, steps=8, num_envs=2), ValueError, "num_envs"),
        (lambda d: kerasrl.BC().fit(d), ValueError, "steps"),
        (lambda d: kerasrl.BC().fit("CartPole-v1", steps=8), TypeError, "PPO"),
        (lambda d: kerasrl.TD3BC().fit(d, steps=8), TypeError, "Box"),
        (lambda d: kerasrl.CQL(policy=kerasrl.models.ActorCritic()), TypeError, "QFun"),
        (
            lambda d: kerasrl.MARWIL(policy={"cell": "gru"}).fit(d, steps=8),
            ValueError,
            "memory",
        ),
        (
            lambda d: kerasrl.IQL(policy={"cell": "gru"}).fit(d, steps=8),
            ValueError,
            "cell",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call(dataset_of(spaces.Discrete(2)))


def test_a_loss_of_marwil_says_how_far_values_are_off():
    def loss(agent, batch, outputs, settings):
        log_probs = agent.policy.distribution(outputs).log_prob(batch["actions"])
        return -keras.ops.mean(log_probs), {}

    agent = kerasrl.MARWIL.with_updates("Blunt", loss=loss)(policy=SMALL, seed=1)
    agent.compile(jit_compile=False, run_eagerly=True)
    with pytest.raises(ValueError, match="loss of Blunt logs .* and no value_loss"):
        agent.fit(data_for("MARWIL"), steps=1, verbose=0)
