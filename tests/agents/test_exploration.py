"""What agents try: how often, how far, and never while they are judged."""

import daily
import gymnasium
import keras
import numpy as np
import pytest
import tiny
from by_definition import BOX, OBSERVATIONS

import kerasrl
from kerasrl import testing
from kerasrl.agents import exploration
from kerasrl.agents.exploration import epsilon_greedy, epsilon_ladder

SMALL = {"hidden_units": (8,)}


def slow(agent_class):
    """A parameter that is not for every day, because another does it by its code."""
    return pytest.param(agent_class, marks=pytest.mark.slow)


def chi_square(counts, probabilities):
    expected = np.sum(counts) * np.asarray(probabilities)
    return np.sum((counts - expected) ** 2 / expected)


def record(agent, env, **arguments):
    """Fits, and returns every rollout."""
    rollouts = []

    class Keep(kerasrl.callbacks.Callback):
        def on_rollout_end(self, rollout):
            rollouts.append(rollout)

    agent.fit(env, callbacks=[Keep()], verbose=0, **arguments)
    return rollouts


def actions_of(rollouts):
    """All actions, `[T, B, ...]`."""
    return np.concatenate([rollout.actions for rollout in rollouts])


# Epsilon-greedy -----------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_epsilon_greedy_frequencies(epsilon):
    count, best = 20_000, 2
    q_values = np.tile(np.eye(4, dtype=np.float32)[best], (count, 1))
    actions = np.asarray(
        epsilon_greedy(q_values, np.full(count, epsilon, np.float32), seed=1)
    )
    probabilities = np.full(4, epsilon / 4)
    probabilities[best] += 1 - epsilon
    counts = np.bincount(actions, minlength=4)
    assert counts[probabilities == 0].sum() == 0
    possible = probabilities > 0
    # The 99.9th percentile of three degrees of freedom.
    assert chi_square(counts[possible], probabilities[possible]) < 16.3


def test_epsilon_is_per_row():
    epsilon = np.repeat(np.float32([0.0, 0.5, 1.0]), 5_000)
    q_values = np.tile(np.float32([0, 1]), (15_000, 1))
    greedy = np.asarray(epsilon_greedy(q_values, epsilon, seed=2)) == 1
    shares = greedy.reshape(3, -1).mean(axis=1)
    assert shares[0] == 1.0
    np.testing.assert_allclose(shares[1:], [0.75, 0.5], atol=0.03)


def test_epsilon_ladder():
    """https://arxiv.org/abs/1803.00933, for eight actors."""
    expected = [0.4, 0.16, 0.064, 0.0256, 0.01024, 0.004096, 0.0016384, 0.00065536]
    np.testing.assert_allclose(epsilon_ladder(8), expected, rtol=1e-12)
    assert epsilon_ladder(1) == [0.4]
    np.testing.assert_allclose(epsilon_ladder(2), [expected[0], expected[-1]])
    np.testing.assert_allclose(
        epsilon_ladder(3, base=0.5, exponent=2.0), [0.5, 0.25, 0.125]
    )


class ThreeActions(testing.TwoRoundEnv):
    """One state for ever, three actions."""

    def __init__(self):
        super().__init__()
        self.action_space = gymnasium.spaces.Discrete(3)

    def step(self, action):
        return self._observation(), 0.0, False, False, {}


def greedy_agent(agent_class, **arguments):
    """An agent that always thinks action 1 the best, and does not learn."""
    agent = agent_class(policy=SMALL, learning_starts=0, batch_size=2, **arguments)
    agent.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    env = ThreeActions()
    agent.build(env.observation_space, env.action_space)
    kernel, bias = agent.policy.trainable_variables[-2:]
    kernel.assign(0.0 * kernel)
    bias.assign([0.0, 1.0, 0.0])
    return agent


@pytest.mark.parametrize("agent_class", [kerasrl.DQN, slow(kerasrl.SimpleQ)])
def test_each_environment_has_its_epsilon(agent_class):
    epsilons = [0.0, 0.3, 0.9]
    agent = greedy_agent(agent_class, exploration=epsilons, train_every=60, seed=0)
    actions = actions_of(record(agent, ThreeActions, steps=4_500, num_envs=3))
    for env, epsilon in enumerate(epsilons):
        share = np.mean(actions[:, env] != 1)
        np.testing.assert_allclose(share, 2 / 3 * epsilon, atol=0.05)
        assert epsilon or share == 0.0


def test_one_epsilon_per_environment_is_needed():
    agent = kerasrl.DQN(policy=SMALL, exploration=[0.1, 0.2])
    with pytest.raises(ValueError, match="2 values of exploration for 3 environments"):
        agent.fit("CartPole-v1", steps=64, num_envs=3, verbose=0)
    # The agent is as it was.
    agent.fit("CartPole-v1", steps=64, num_envs=2, verbose=0)
    result = agent.evaluate("CartPole-v1", 3, deterministic=False, num_envs=3)
    assert result["episodes"] == 3
    assert agent.predict(np.zeros((5, 4)), deterministic=False).shape == (5,)


def test_r2d2_climbs_the_ladder():
    agent = kerasrl.R2D2(policy=SMALL, learning_starts=0)
    given = agent.exploration_inputs(4)["epsilon"]
    np.testing.assert_allclose(given, epsilon_ladder(4), rtol=1e-6)
    agent = kerasrl.R2D2(policy=SMALL, learning_starts=0, exploration=0.25)
    np.testing.assert_array_equal(agent.exploration_inputs(2)["epsilon"], [0.25, 0.25])


@pytest.mark.parametrize("by", ["env_steps", "progress"])
def test_epsilon_schedules(by):
    """From 1 to 0 over the run, at the start of each iteration."""
    schedule = (
        keras.optimizers.schedules.PolynomialDecay(1.0, 400, 0.0)
        if by == "env_steps"
        else lambda progress: 1.0 - progress
    )
    agent = greedy_agent(kerasrl.DQN, exploration=schedule, train_every=100)
    seen = []
    original = agent.exploration_inputs

    def record_inputs(num_envs):
        seen.append(float(original(num_envs)["epsilon"][0]))
        return original(num_envs)

    agent.actor()  # Made with an example of its inputs.
    agent.exploration_inputs = record_inputs
    agent.updates_per_call = 1
    agent.fit(ThreeActions, steps=400, num_envs=2, verbose=0)
    np.testing.assert_allclose(seen, [1.0, 0.75, 0.5, 0.25], rtol=1e-6)


def test_default_epsilon():
    inputs = kerasrl.DQN(learning_starts=0).exploration_inputs(2)["epsilon"]
    np.testing.assert_array_equal(inputs, 1.0)
    agent = kerasrl.DQN(learning_starts=0)
    agent.env_steps = 10_000
    np.testing.assert_allclose(agent.exploration_inputs(2)["epsilon"], 0.05)
    noisy = kerasrl.DQN(noisy=True, learning_starts=0)
    np.testing.assert_array_equal(noisy.exploration_inputs(2)["epsilon"], 0.0)


def test_actions_are_random_until_learning_starts():
    agent = greedy_agent(kerasrl.DQN, exploration=0.0, train_every=30, seed=0)
    agent.learning_starts = 900
    actions = actions_of(record(agent, ThreeActions, steps=1_800, num_envs=3))
    counts = np.bincount(actions[:300].ravel(), minlength=3)
    assert chi_square(counts, np.full(3, 1 / 3)) < 13.8
    # An iteration that begins before ends as it began.
    length = agent.iteration_length(3)
    assert (actions[300 + length :] == 1).all()


# Noise on continuous actions ----------------------------------------------------------


class Still(gymnasium.Env):
    """Nothing happens; episodes of a few steps, actions of `BOX`."""

    observation_space = OBSERVATIONS
    action_space = BOX

    def __init__(self, length=1_000_000):
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        return np.zeros(4, np.float32), {}

    def step(self, action):
        if not self.action_space.contains(action):
            raise ValueError(f"{action} is not in the action space")
        self._step += 1
        return np.zeros(4, np.float32), 0.0, False, self._step >= self.length, {}


def still_agent(agent_class, **arguments):
    """An agent whose policy wants the middle of the box, and does not learn."""
    agent = agent_class(
        policy=SMALL,
        **{
            "learning_starts": 0,
            "batch_size": 2,
            "train_every": 500,
            "seed": 0,
            **arguments,
        },
    )
    agent.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    agent.build(OBSERVATIONS, BOX)
    for variable in agent.policy.policy_variables():
        variable.assign(0.0 * variable)
    return agent


def normalized(actions):
    center, radius = (BOX.high + BOX.low) / 2, (BOX.high - BOX.low) / 2
    return (actions - center) / radius


@pytest.mark.parametrize("agent_class", [kerasrl.TD3, slow(kerasrl.DDPG)])
def test_gaussian_noise(agent_class):
    agent = still_agent(agent_class, noise_scale=[0.0, 0.1, 0.3])
    noise = normalized(actions_of(record(agent, Still, steps=6_000, num_envs=3)))
    assert noise.shape[1:] == (3, 2, 2)
    np.testing.assert_allclose(noise.mean(axis=0), 0.0, atol=0.03)
    np.testing.assert_allclose(
        noise.std(axis=0).mean(axis=(1, 2)), [0.0, 0.1, 0.3], rtol=0.05, atol=1e-6
    )
    wide = noise[:, 2].reshape(len(noise), -1)
    # White: neither steps nor entries have to do with each other.
    correlations = np.corrcoef(np.concatenate([wide[1:], wide[:-1]], axis=1).T)
    np.testing.assert_allclose(correlations - np.eye(8), 0.0, atol=0.1)


def test_ornstein_uhlenbeck_noise():
    """Autocorrelation 0.85 a step, and the stationary deviation of such a process."""
    agent = still_agent(kerasrl.DDPG, noise="ornstein_uhlenbeck", noise_scale=0.1)
    noise = normalized(actions_of(record(agent, Still, steps=8_000, num_envs=2)))
    np.testing.assert_allclose(noise[0].std(), 0.1, rtol=0.7)
    later = noise[50:].reshape(len(noise) - 50, -1)
    np.testing.assert_allclose(later.std(), 0.1 / np.sqrt(1 - 0.85**2), rtol=0.1)
    for lag in (1, 3):
        shares = [np.corrcoef(x[lag:], x[:-lag])[0, 1] for x in later.T]
        np.testing.assert_allclose(np.mean(shares), 0.85**lag, atol=0.04)


def test_ornstein_uhlenbeck_noise_begins_anew_with_each_episode():
    agent = still_agent(kerasrl.DDPG, noise="ornstein_uhlenbeck", noise_scale=0.1)
    noise = normalized(
        actions_of(record(agent, lambda: Still(5), steps=5_000, num_envs=2))
    )
    # Deviations of the first, second, ... step of an episode.
    by_step = noise.reshape(-1, 5, 8).std(axis=(0, 2))
    expected = [
        0.1 * np.sqrt(sum(0.85 ** (2 * k) for k in range(n + 1))) for n in range(5)
    ]
    np.testing.assert_allclose(by_step, expected, rtol=0.07)


def test_one_step_of_ornstein_uhlenbeck():
    result = exploration.ornstein_uhlenbeck(np.ones((1, 2)), np.array([[0.0, 0.5]]))
    np.testing.assert_allclose(result, [[0.85, 1.35]])


@pytest.mark.parametrize("agent_class", [kerasrl.DDPG, slow(kerasrl.TD3), kerasrl.SAC])
def test_uniform_actions_cover_the_box_until_learning_starts(agent_class):
    agent = still_agent(agent_class, learning_starts=10_000)
    actions = actions_of(record(agent, Still, steps=4_000, num_envs=4))
    for index in np.ndindex(BOX.shape):
        low, high = BOX.low[index], BOX.high[index]
        counts, _ = np.histogram(actions[:, :, *index], bins=10, range=(low, high))
        assert counts.sum() == actions.shape[0] * 4  # None beyond the bounds.
        assert chi_square(counts, np.full(10, 0.1)) < 27.9  # 9 degrees, 99.9 %.


@pytest.mark.parametrize("name", daily.among(tiny.CONTINUOUS, ["TD3", "SAC"]))
def test_actions_stay_within_asymmetric_bounds(name):
    """`Still` refuses others. With noise wide enough to reach every bound."""
    arguments = {} if name.startswith("SAC") else {"noise_scale": 2.0}
    agent = tiny.make(name, learning_starts=0, **arguments)
    agent.compile(keras.optimizers.Adam(0.1), jit_compile=False)
    actions = actions_of(record(agent, lambda: Still(7), steps=150, num_envs=3))
    assert (actions >= BOX.low - 1e-5).all() and (actions <= BOX.high + 1e-5).all()
    if not name.startswith("SAC"):
        assert (
            np.isclose(actions, BOX.low).any() and np.isclose(actions, BOX.high).any()
        )
    observations = 5 * np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    for deterministic in (True, False):
        chosen = agent.predict(observations, deterministic=deterministic, seed=0)
        if agent.policy.is_recurrent:
            chosen, _ = chosen
        assert all(BOX.contains(action) for action in chosen)


# While judged -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["DQN", "Rainbow", "DDPG", "TD3", "SAC"])
def test_predict_is_greedy_and_repeatable(name):
    agent = tiny.make(name)
    observation = OBSERVATIONS
    space = BOX if name in tiny.CONTINUOUS else gymnasium.spaces.Discrete(5)
    agent.build(observation, space)
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    greedy = agent.predict(x)
    np.testing.assert_array_equal(greedy, agent.predict(x, seed=3))
    agent.env_steps = 10_000  # Past the random beginning.
    np.testing.assert_array_equal(greedy, agent.predict(x))
    policy = agent.policy
    outputs = policy({"observations": x})
    expected = np.asarray(policy.mode(outputs))
    if name in tiny.CONTINUOUS:
        expected = np.asarray(policy.scale_actions(expected))
    np.testing.assert_allclose(greedy, expected, rtol=1e-5, atol=1e-5)
    explored = [agent.predict(x, deterministic=False, seed=s) for s in (1, 1, 2)]
    np.testing.assert_array_equal(explored[0], explored[1])
    assert not np.array_equal(explored[0], explored[2])
    assert not np.array_equal(explored[0], greedy)


def test_noisy_networks_explore_by_their_noise():
    agent = kerasrl.DQN(policy=SMALL, noisy=True, learning_starts=0, seed=1)
    agent.build(OBSERVATIONS, gymnasium.spaces.Discrete(5))
    x = np.zeros((400, 4), np.float32)  # Nothing but noise tells the rows apart.
    assert len(set(agent.predict(x))) == 1
    assert len(set(agent.predict(x, deterministic=False, seed=0))) > 1
