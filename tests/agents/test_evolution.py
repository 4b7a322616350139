"""Evolution strategies and random search: updates, exactness, and what is refused."""

import gymnasium
import keras
import numpy as np
import pytest

import kerasrl
from kerasrl.callbacks import Callback, StopOn
from kerasrl.rollouts.population import Population
from kerasrl.training.population import PlayedPopulation, arrays_of, vector_of

AGENTS = {"ES": kerasrl.ES, "ARS": kerasrl.ARS}
NORMALIZED = {"normalize_observations": True, "hidden_units": (4,)}


def make(name, **arguments):
    given = {"num_pairs": 3, "seed": 7, "policy": {"hidden_units": (4,)}}
    agent = AGENTS[name](**{**given, **arguments})
    agent.compile(jit_compile=False)
    return agent


def built(name, **arguments):
    agent = make(name, **arguments)
    env = gymnasium.make("CartPole-v1")
    agent.build(env.observation_space, env.action_space)
    return agent


class Told(Population):
    """A population whose directions are given."""

    directions: np.ndarray

    def direction(self, pair):
        missing = len(self.center) - len(self.directions[pair])
        return np.pad(self.directions[pair], (0, missing)).astype(np.float32)


def played(agent, returns, directions, lengths=None):
    returns = np.array(returns, np.float64)[..., None]
    population = Told(0, vector_of(agent), 0.1, len(returns))
    object.__setattr__(population, "directions", np.array(directions))
    lengths = np.ones_like(returns) if lengths is None else lengths[..., None]
    return PlayedPopulation(population, returns, lengths, returns[0, 0], 9)


class OneNumber(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)


def linear(name, weights, **arguments):
    """An agent with a matrix `[1, 2]` of weights, and two biases that are zero."""
    agent = AGENTS[name](policy={"hidden_units": ()}, **arguments)
    agent.compile(run_eagerly=True)
    agent.build(OneNumber.observation_space, OneNumber.action_space)
    values = [np.array(weights).reshape(1, 2), np.zeros(2)]
    for variable, value in zip(agent.trainable_variables, values, strict=True):
        variable.assign(value)
    return agent


def test_literal_vectors_of_es():
    agent = linear("ES", [0.5, -0.25], weight_decay=0.005, num_pairs=3)
    agent.compile(keras.optimizers.Adam(0.01, epsilon=1e-8))
    returns = [[10, -5], [3, 8], [0, 1]]
    logs = agent.learn_from(played(agent, returns, [[1, 0], [0, 1], [1, -1]]))
    moved = vector_of(agent)
    np.testing.assert_allclose(moved[:2], [0.50999998, -0.24000253], atol=1e-6)
    assert logs["update_ratio"] == pytest.approx(0.02529499, abs=1e-6)
    norm = np.linalg.norm([-0.13083333, -0.00125])
    assert logs["gradient_norm"] == pytest.approx(norm, abs=1e-6)
    assert logs["population_return_mean"] == pytest.approx(np.mean(returns))
    assert logs["population_return_std"] == pytest.approx(np.std(returns))
    assert logs["loss"] == -logs["population_return_mean"]
    assert logs["weight_norm"] == pytest.approx(np.linalg.norm(moved))


@pytest.mark.parametrize(
    ("num_top", "gradient"),
    [(2, [1.19589615, -0.74743509]), (4, [0.99655765, -1.524147])],
)
def test_literal_vectors_of_ars(num_top, gradient):
    agent = linear("ARS", [0.0, 0.0], num_pairs=4, num_top=num_top)
    returns = np.array([[10, 2], [3, 8], [0, 1], [-4, 6]])
    # A bonus of 1 for each step, and as many steps as it takes to undo it.
    lengths = np.array([[1, 2], [3, 4], [5, 6], [7, 8]])
    agent.alive_bonus = 1.0
    directions = [[1, 0], [0, 1], [1, 1], [-1, 2]]
    logs = agent.learn_from(played(agent, returns + lengths, directions, lengths))
    np.testing.assert_allclose(
        vector_of(agent)[:2], 0.02 * np.array(gradient), atol=1e-7
    )
    assert logs["population_return_mean"] == pytest.approx(np.mean(returns + lengths))


@pytest.mark.parametrize("name", AGENTS)
def test_equal_returns_move_nothing(name):
    decay = {"weight_decay": 0.0} if name == "ES" else {}
    agent = built(name, **decay)
    before = vector_of(agent)
    directions = np.random.default_rng(0).normal(size=(3, len(before)))
    logs = agent.learn_from(played(agent, np.full((3, 2), 500.0), directions))
    np.testing.assert_array_equal(vector_of(agent), before)
    assert logs["gradient_norm"] == logs["update_ratio"] == 0.0


def test_only_weights_that_act_are_trained():
    agent = make("ES", policy={"hidden_units": (4,)})
    agent.fit("CartPole-v1", steps=1, num_envs=4, verbose=0)
    policy = agent.policy
    trained = {id(variable) for variable in agent.trainable_variables}
    others = [v for v in policy.trainable_variables if id(v) not in trained]
    assert len(trained) == 4 and len(others) == 4
    fresh = built("ES", policy={"hidden_units": (4,)}).policy
    for variable, old in zip(
        policy.trainable_variables, fresh.trainable_variables, strict=True
    ):
        changed = not np.array_equal(variable.numpy(), old.numpy())
        assert changed == (id(variable) in trained), variable.path
    assert sum(x.size for x in arrays_of(agent, vector_of(agent))) == len(
        vector_of(agent)
    )


@pytest.mark.parametrize("name", AGENTS)
def test_goes_on_exactly_where_it_stopped(name, tmp_path):
    straight, resumed = (make(name, policy=NORMALIZED) for _ in range(2))
    straight.fit("CartPole-v1", steps=200, num_envs=3, verbose=0)
    resumed.fit("CartPole-v1", steps=200, num_envs=5, verbose=0)
    loaded = kerasrl.load(resumed.save(tmp_path / "agent.kerasrl"))
    assert loaded.get_config() == resumed.get_config()
    straight.evaluate("CartPole-v1", episodes=2, seed=0, verbose=0)
    straight.predict(np.zeros((3, 4), np.float32))
    first = straight.fit("CartPole-v1", steps=200, num_envs=4, verbose=0)
    second = loaded.fit("CartPole-v1", steps=200, num_envs=4, verbose=0)
    for one, other in zip(straight.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    for key, values in first.history.items():
        if key != "steps_per_second":
            np.testing.assert_array_equal(values, second.history[key], err_msg=key)
    assert straight.env_steps == loaded.env_steps >= 400
    other = make(name, policy={**NORMALIZED, "seed": 7}, seed=8)
    other.fit("CartPole-v1", steps=200, num_envs=3, verbose=0)
    assert other.env_steps != straight.env_steps


def test_statistics_are_of_what_moved_weights_acted_on():
    """Weighed as if all of it had been one batch; what theta sees does not count."""
    agent = make("ARS", policy=NORMALIZED)
    seen = []

    class Seen(gymnasium.ObservationWrapper):
        def observation(self, observation):
            seen.append(np.array(observation, np.float64))
            return observation

    agent.fit(
        lambda: Seen(gymnasium.make("CartPole-v1")), steps=1, num_envs=1, verbose=0
    )
    (normalizer,) = agent.policy.encoder.normalizers
    count = int(normalizer.count.numpy())
    # The last observation of each episode is not acted on; the last episodes are those
    # of the weights in the middle, and then an environment that idles is reset.
    assert agent.env_steps > count == sum(agent.statistics.lengths)
    rows, start = [], 1  # The first reset of all settles the origin.
    for length in agent.statistics.lengths:
        rows.extend(seen[start : start + length])
        start += length + 1
    np.testing.assert_allclose(
        normalizer.mean.numpy(), np.mean(rows, axis=0), rtol=1e-4
    )
    np.testing.assert_allclose(
        normalizer.variance.numpy(), np.var(rows, axis=0), rtol=1e-3, atol=1e-6
    )


@pytest.mark.parametrize("name", AGENTS)
def test_what_is_logged(name):
    agent = make(
        name, unperturbed_episodes=2, noise_scale=lambda progress: 1 - progress / 2
    )
    steps, progress = [], []
    for logs in agent.iterate("CartPole-v1", steps=600, steps_per_epoch=300, verbose=0):
        steps.append(logs["env_steps"])
        progress.append(agent.progress)
        assert agent.iterations * 6 == logs["episodes"] == agent.episodes
    assert steps == sorted(set(steps)) and steps[-2] < 600 <= steps[-1]
    assert progress == [0.0, *(each / 600 for each in steps[:-1])]
    history = agent.policy.history.history
    assert history["env_steps"][-1] == agent.env_steps
    assert len(history["loss"]) == 2 and np.isfinite(list(history.values())).all()
    wanted = {"population_return_mean", "population_return_std", "gradient_norm"}
    wanted |= {"unperturbed_return_mean", "update_ratio", "weight_norm"}
    assert wanted <= history.keys()


def test_training_may_end_by_the_return_of_the_weights_themselves():
    agent = kerasrl.ARS(seed=0)
    stop = StopOn({"unperturbed_return_mean": 500.0})
    result = agent.fit("CartPole-v1", steps=25_000, callbacks=[stop], verbose=0)
    assert max(result.history["unperturbed_return_mean"]) == 500.0
    assert agent.evaluate("CartPole-v1", 10, seed=0, verbose=0)["return_mean"] > 450


def test_episodes_are_cut_off_where_one_says():
    agent = make("ES", max_episode_steps=5, episodes_per_policy=2)
    agent.fit("CartPole-v1", steps=1, verbose=0)
    assert set(agent.statistics.lengths) == {5}
    assert agent.env_steps == 5 * (3 * 2 * 2 + 1)


def test_callbacks_hear_of_episodes_of_this_process():
    class Count(Callback):
        def on_episode_end(self, episode):
            episode.custom_metrics["width"] = float(episode.observation[0])

    agent = make("ES")
    result = agent.fit("CartPole-v1", steps=1, callbacks=[Count()], verbose=0)
    assert np.isfinite(result.history["width_mean"]).all()


def test_gradients_may_be_changed_before_they_are_applied():
    """`with_updates` and the methods of subclasses, as for every agent."""
    still = kerasrl.ES.with_updates(
        "Still",
        gradients=lambda agent, gradients, variables: [0 * g for g in gradients],
    )
    agent = still({"hidden_units": (2,)}, num_pairs=2, seed=0)
    agent.compile(keras.optimizers.SGD(1.0), run_eagerly=True)
    history = agent.fit("CartPole-v1", steps=1, verbose=0).history
    assert history["update_ratio"] == [0.0]


def test_what_would_be_ignored_is_refused():
    agent = make("ES")

    class Looks(Callback):
        def on_rollout_end(self, rollout):
            pass

    with pytest.raises(TypeError, match="Looks looks at rollouts, and ES has none"):
        agent.fit("CartPole-v1", steps=1, callbacks=[Looks()], verbose=0)
    with pytest.raises(ValueError, match="info_keys"):
        agent.fit("CartPole-v1", steps=1, info_keys=["x"], verbose=0)
    with pytest.raises(TypeError, match="not from rollouts"):
        agent.fit([], steps=1, verbose=0)
    with pytest.raises(ValueError, match="num_top=5 and num_pairs=3"):
        make("ARS", num_top=5)
    with pytest.raises(ValueError, match="num_pairs"):
        make("ES", num_pairs=0)
    with pytest.raises(ValueError, match=r"metrics=\['mae'\].*returns alone"):
        agent.compile(metrics=["mae"])
    for name, value in (("gamma", 0.9), ("normalize_rewards", True)):
        with pytest.raises(ValueError, match=f"ES has no such argument.*takes {name}"):
            setattr(agent, name, value)
    assert agent.gamma == 1.0 and agent.reward_scaler is None
    dense = keras.layers.Dense(4, activity_regularizer="l2")
    with pytest.raises(ValueError, match="losses of its own.*but ES has none to add"):
        built("ES", policy=keras.Sequential([dense]))
    dense = keras.layers.Dense(4, kernel_regularizer="l2")
    with pytest.raises(ValueError, match="regularizer, but ES has no loss"):
        built("ES", policy=keras.Sequential([dense]))

    class Lossy(kerasrl.models.ActorCritic):
        def custom_loss(self, loss, batch):
            return loss

    with pytest.raises(ValueError, match="Lossy has a custom_loss.*but ES has none"):
        built("ES", policy=Lossy())
    frozen = built("ES")
    frozen.policy.trainable = False
    with pytest.raises(ValueError, match="nothing to move"):
        frozen.fit("CartPole-v1", steps=1, verbose=0)
    measured = kerasrl.ES.with_updates("Measured", metrics=lambda *arguments: {})
    with pytest.raises(ValueError, match="Measured has a step_metrics"):
        measured().fit("CartPole-v1", steps=1, verbose=0)
    assert agent.iterations == 0


def test_a_policy_of_ones_own_and_halves_and_frozen_layers():
    """The optimizer's scale for halves changes no step, and frozen weights stay."""
    moved = []
    for optimizer in (
        keras.optimizers.SGD(1.0),
        keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0)),
    ):
        keras.utils.set_random_seed(0)
        first = keras.layers.Dense(3, "tanh", name="first")
        first.trainable = False
        trunk = keras.Sequential([first, keras.layers.Dense(3)])
        agent = make("ES", policy=trunk)
        agent.compile(optimizer, run_eagerly=True)
        agent.fit("CartPole-v1", steps=1, verbose=0)
        assert len(agent.trainable_variables) == 4
        moved.append(vector_of(agent))
    np.testing.assert_allclose(*moved, atol=1e-6)


def test_an_interrupted_fit_goes_on_where_it_was(tmp_path):
    """Iterations of 90 steps and epochs of 10: an index says how many are done."""

    class Stops(keras.callbacks.Callback):
        def __init__(self, agent, last):
            super().__init__()
            self.agent, self.last, self.seen = agent, last, []

        def on_epoch_end(self, epoch, logs=None):
            self.seen.append((epoch, self.agent.env_steps, self.agent.progress))
            if len(self.seen) == self.last:
                raise KeyboardInterrupt

    agent = make("ES", num_pairs=4, max_episode_steps=10)
    agent.compile(run_eagerly=True)
    backup = keras.callbacks.BackupAndRestore(tmp_path)
    given = {"steps": 450, "steps_per_epoch": 10, "verbose": 0}

    class Still(OneNumber):
        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self.np_random.uniform(-1, 1, 1).astype(np.float32), {}

        def step(self, action):
            return self.reset()[0], float(action), False, False, {}

    stops = Stops(agent, 2)
    with pytest.raises(KeyboardInterrupt):
        agent.fit(Still, **given, callbacks=[backup, stops])
    assert stops.seen == [(8, 90, 0.0), (17, 180, 0.2)]
    rest = Stops(agent, None)
    history = agent.fit(Still, **given, callbacks=[backup, rest])
    assert history.epoch == [26, 35, 44] and agent.env_steps == 450
    assert [progress for *_, progress in rest.seen] == [0.4, 0.6, 0.8]


def test_layers_may_not_be_frozen_while_episodes_are_played():
    agent = make("ES", policy=keras.Sequential([keras.layers.Dense(3, "tanh")]))
    agent.compile(run_eagerly=True)
    run = agent.iterate("CartPole-v1", steps=10_000, verbose=0)
    next(run)
    weights = agent.get_weights()
    (first,) = (v for v in agent.trainable_variables if v.shape == (4, 3))
    first.trainable = False
    with pytest.raises(ValueError, match="trainable was set in some layer meanwhile"):
        next(run)
    for one, other in zip(weights, agent.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    agent.fit("CartPole-v1", steps=1, verbose=0)
    assert len(agent.trainable_variables) == 3


@pytest.mark.parametrize("num_workers", [0, 2])
def test_rows_of_numpy_play_what_single_environments_play(num_workers):
    """CartPole-v1 is made in rows unless it is wrapped: the same in every bit."""
    agents, histories = [], []
    for env, settings in (
        ("CartPole-v1", {"num_workers": num_workers}),
        (lambda: gymnasium.make("CartPole-v1"), {"num_envs": 3}),
    ):
        agent = make("ES", policy=NORMALIZED, unperturbed_episodes=3)
        rows = []
        run = agent.iterate(env, steps=400, verbose=0, **settings)
        for _ in run:
            rows.append(agent.envs.num_envs)
        # As many as there are episodes.
        assert set(rows) == {settings.get("num_envs", 9)}
        assert agent.env_name == "CartPole-v1"
        agents.append(agent)
        histories.append(agent.policy.history.history)
    one, other = agents
    for first, second in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)
    assert list(one.statistics.returns) == list(other.statistics.returns)
    for key, values in histories[0].items():
        if key != "steps_per_second":
            np.testing.assert_array_equal(values, histories[1][key], err_msg=key)


def test_there_are_as_many_rows_as_episodes_unless_one_says():
    def rows(num_workers=0, num_envs=None, **arguments):
        agent = make("ES", max_episode_steps=1, **arguments)
        making = dict.fromkeys(("env_config", "worker_mode", "env_timeout", "cluster"))
        making.update(num_envs=num_envs, num_workers=num_workers)
        with agent.make_environments("CartPole-v1", making) as envs:
            return envs.num_envs

    assert rows() == 7
    assert rows(episodes_per_policy=5) == 31
    assert rows(num_envs=4) == 4
    assert rows(num_pairs=200) == 128
