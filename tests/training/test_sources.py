"""An agent learns from rollouts, and does not know who made them."""

import copy
import dataclasses

import gymnasium
import keras
import numpy as np
import pytest
from daily import among
from gymnasium import spaces
from tiny import make

import kerasrl
from kerasrl import callbacks, testing
from kerasrl.distribute.replicas import Replicas
from kerasrl.envs.protocol import EnvProtocolError
from kerasrl.rollouts import RewardScaler, Rollout
from kerasrl.training import sources

NUM_ENVS = 2


class Keep(kerasrl.callbacks.Callback):
    """Keeps what was learnt from."""

    def __init__(self):
        super().__init__()
        self.rollouts = []

    def on_rollout_end(self, rollout):
        self.rollouts.append(copy.deepcopy(rollout))


def env():
    return testing.RandomEndsEnv()


def built(name):
    agent = make(name, seed=3)
    agent.compile(jit_compile=False)
    with kerasrl.make_envs(env, 1) as envs:
        agent.build(envs.observation_space, envs.action_space)
    return agent


def state_of(agent):
    arrays = [*agent.get_weights(), *agent.get_arrays().values()]
    arrays += [keras.ops.convert_to_numpy(v) for v in agent.policy.optimizer.variables]
    return arrays, agent.get_state()


def assert_same(first, second):
    (arrays, state), (others, other) = first, second
    for a, b in zip(arrays, others, strict=True):
        np.testing.assert_array_equal(a, b)
    assert {**state, "env_name": None} == {**other, "env_name": None}


@pytest.mark.parametrize("name", among(["PPO", "DQN", "R2D2"], ["PPO"]))
def test_the_collector_a_list_and_a_generator_teach_the_same(name):
    agent, keep = built(name), Keep()
    agent.fit(env, steps=320, num_envs=NUM_ENVS, callbacks=[keep], verbose=0)
    assert agent.iterations == len(keep.rollouts) > 2
    assert name == "PPO" or agent.updates > 0
    wanted = state_of(agent)

    def one_by_one():
        yield from keep.rollouts

    for rollouts in (keep.rollouts, one_by_one()):
        agent = built(name)
        # Environments and samples of actions were seeded from it.
        agent.rng.integers(2**31, size=(2, NUM_ENVS))
        agent.fit(rollouts, steps=320, verbose=0)
        assert_same(state_of(agent), wanted)


def test_agents_learn_without_a_loop_too():
    keep, wanted = Keep(), built("DQN")
    wanted.fit(env, steps=320, num_envs=NUM_ENVS, callbacks=[keep], verbose=0)
    agent = built("DQN")
    agent.rng.integers(2**31, size=(2, NUM_ENVS))
    agent.start_learning(NUM_ENVS)
    for rollout in keep.rollouts:
        agent.remember(rollout)
        agent.env_steps += rollout.num_steps
        agent.learn(agent.updates_due(rollout.num_steps))
    for a, b in zip(agent.get_weights(), wanted.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert agent.updates == wanted.updates > 0


def test_episodes_and_steps_of_recorded_rollouts_are_counted():
    keep, agent = Keep(), built("PPO")
    agent.fit(env, steps=320, num_envs=NUM_ENVS, callbacks=[keep], verbose=0)
    other = built("PPO")
    history = other.fit(keep.rollouts, verbose=0).history  # Each once.
    assert other.env_steps == agent.env_steps == 320
    assert other.statistics.get_state() == agent.statistics.get_state()
    assert history["episodes"][-1] == agent.episodes > 3


def uniform_rollouts(rng, count, action_space, log_prob):
    """Rollouts that a policy of one's own made, which never saw the agent's."""
    for _ in range(count):
        observations = rng.normal(size=(9, NUM_ENVS, 3)).astype(np.float32)
        actions = np.array(
            [[rng.integers(action_space.n) for _ in range(NUM_ENVS)] for _ in range(8)]
        )
        ends = rng.random((8, NUM_ENVS)) < 0.2
        yield Rollout(
            observations=observations[:-1],
            actions=actions,
            rewards=rng.normal(size=(8, NUM_ENVS)).astype(np.float32),
            terminated=ends,
            truncated=np.zeros_like(ends),
            valid=np.ones_like(ends),
            episode_starts=np.concatenate([np.ones((1, NUM_ENVS), bool), ends[:-1]]),
            previous_actions=np.zeros_like(actions),
            previous_rewards=np.zeros((8, NUM_ENVS), np.float32),
            next_inputs={
                "observations": observations[-1],
                "previous_actions": actions[-1],
                "previous_rewards": np.zeros(NUM_ENVS, np.float32),
                "episode_starts": ends[-1],
            },
            extras={"log_probs": np.full((8, NUM_ENVS), log_prob, np.float32)},
        )


def chooser():
    """An agent that such rollouts fit."""
    agent = kerasrl.PPO(policy={"hidden_units": (8,)}, num_epochs=1, seed=0)
    agent.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    agent.build(spaces.Box(-9.0, 9.0, (3,), np.float32), spaces.Discrete(4))
    return agent


@pytest.mark.parametrize("kept", among(["log_probs", "distribution"], ["distribution"]))
def test_ratios_are_to_the_policy_that_acted(kept):
    """And not to what it has become since. So is the penalty on the divergence."""
    agent = chooser()
    if kept == "distribution":
        agent.kl_coef = 0.5
    action_space = agent.policy.action_space
    rng = np.random.default_rng(0)
    for variable in agent.policy.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    (rollout,) = uniform_rollouts(rng, 1, action_space, log_prob=np.log(1 / 4))
    if kept == "distribution":
        rollout.extras = {"distribution": np.full((8, NUM_ENVS, 4), 7.0, np.float32)}
    agent.start_learning(NUM_ENVS)
    logs = agent.learn(rollout)
    observations = rollout.observations.reshape(-1, 3)
    inputs = {
        "observations": observations,
        "previous_actions": np.zeros(16, np.int64),
        "previous_rewards": np.zeros(16, np.float32),
    }
    logits = agent.policy(inputs)["distribution"]
    logits = keras.ops.convert_to_numpy(keras.tree.flatten(logits)[0])
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    log_ratios = log_probs[range(16), rollout.actions.ravel()] - np.log(1 / 4)
    ratios = np.exp(log_ratios)
    np.testing.assert_allclose(
        logs["approximate_kl"], np.mean(ratios - 1 - log_ratios), rtol=1e-4
    )
    np.testing.assert_allclose(
        logs["clip_fraction"], np.mean(np.abs(ratios - 1) > 0.2), rtol=1e-4
    )
    if kept == "distribution":
        divergence = np.mean(np.log(1 / 4) - log_probs)  # Of the uniform one from it.
        np.testing.assert_allclose(logs["kl"], divergence, rtol=1e-4)


SPACES = {
    "Discrete": spaces.Discrete(3, start=2),
    "MultiDiscrete": spaces.MultiDiscrete([2, 3]),
    "MultiBinary": spaces.MultiBinary(3),
    "Box": spaces.Box(-2.0, 1.0, (2,), np.float32),
}


@pytest.mark.parametrize("name", SPACES)
def test_the_distributions_of_acting_are_kept(name):
    """In a NumPy program, and equal to what the policy computes."""
    keep = Keep()
    agent = kerasrl.PPO(policy={"hidden_units": (8,)}, rollout_length=8, seed=0)
    agent.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    agent.fit(
        lambda: gymnasium.wrappers.TransformAction(
            testing.RandomEndsEnv(), lambda action: 0, SPACES[name]
        ),
        steps=16,
        num_envs=NUM_ENVS,
        callbacks=[keep],
        verbose=0,
    )
    assert agent.actor().backend == "numpy"
    (rollout,) = keep.rollouts
    flat = rollout.map(lambda x: x.reshape(-1, *x.shape[2:]))
    outputs = agent.policy(
        {
            "observations": flat.observations,
            "previous_actions": flat.previous_actions,
            "previous_rewards": flat.previous_rewards,
        }
    )
    parameters = keras.ops.convert_to_numpy(outputs["distribution"])
    np.testing.assert_allclose(
        flat.extras["distribution"], parameters, rtol=1e-4, atol=1e-6
    )


def test_an_act_of_ones_own_need_not_keep_them():
    class Own(kerasrl.PPO):
        def act(self, inputs, deterministic):
            acted = super().act(inputs, deterministic)
            return {name: acted[name] for name in ("actions", "state")}

    agents = [
        cls(policy={"hidden_units": (8,)}, rollout_length=16, seed=0)
        for cls in (Own, kerasrl.PPO)
    ]
    for agent in agents:
        agent.compile(jit_compile=False)
        agent.fit("CartPole-v1", steps=64, num_envs=NUM_ENVS, verbose=0)
    pairs = zip(*(agent.get_weights() for agent in agents), strict=True)
    for own, usual in pairs:
        np.testing.assert_allclose(own, usual, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_learnt_from_is_refused():
    agent = built("PPO")
    rollouts = list(
        uniform_rollouts(np.random.default_rng(0), 2, spaces.Discrete(2), 0)
    )
    with pytest.raises(ValueError, match="build"):
        make("PPO").fit(rollouts, verbose=0)
    with pytest.raises(ValueError, match="num_envs, info_keys with rollouts"):
        agent.fit(rollouts, num_envs=2, info_keys=["x"], verbose=0)
    with pytest.raises(ValueError, match="no rollout at all"):
        agent.fit([], verbose=0)
    with pytest.raises(TypeError, match="Expected a kerasrl.rollouts.Rollout"):
        agent.fit([1, 2], verbose=0)
    untouched = iter(rollouts)
    with pytest.raises(ValueError, match="neither steps nor epochs"):
        agent.fit(untouched, verbose=0)
    assert len(list(untouched)) == 2
    narrow = rollouts[1][:, :1]
    with pytest.raises(ValueError, match="1 environments after one of 2"):
        source = sources.RecordedSource(chooser(), [rollouts[0], narrow])
        source.collect(), source.collect()
    assert agent.source is None and agent.env_steps == 0


def test_training_ends_where_rollouts_do():
    keep, agent = Keep(), built("A2C")
    agent.fit(env, steps=40, num_envs=NUM_ENVS, callbacks=[keep], verbose=0)
    taken = len(keep.rollouts)
    agent = built("A2C")
    with pytest.warns(UserWarning, match=f"no more rollouts after {taken} iterations"):
        history = agent.fit(iter(keep.rollouts), steps=10_000, verbose=0)
    assert agent.iterations == taken
    assert history.history["env_steps"] == [40]
    agent.fit(keep.rollouts, verbose=0)  # Without a warning, which would be an error.
    assert agent.iterations == 2 * taken


def test_results_of_iterate_are_iterations_also_where_rollouts_end_early():
    rollouts = list(
        uniform_rollouts(np.random.default_rng(0), 3, spaces.Discrete(4), -1.0)
    )
    for steps_per_epoch in (16, 1000):
        agent = chooser()
        with pytest.warns(UserWarning, match="no more rollouts after 3 iterations"):
            results = list(
                agent.iterate(
                    iter(rollouts), 10_000, steps_per_epoch=steps_per_epoch, verbose=0
                )
            )
        assert [result["iterations"] for result in results] == [1, 2, 3]


def test_rollouts_of_other_episodes_do_not_go_on_with_those_before():
    (rollout,) = uniform_rollouts(np.random.default_rng(0), 1, spaces.Discrete(4), -1.0)
    shape = rollout.rewards.shape
    nothing, ones = np.zeros(shape, bool), np.ones(shape, np.float32)
    ends = nothing.copy()
    ends[-1] = True
    first = dataclasses.replace(
        rollout, rewards=ones, terminated=nothing, episode_starts=ends[::-1]
    )
    second = dataclasses.replace(first, terminated=ends)
    agent, warning = chooser(), callbacks.RewardScaleWarning()
    agent.gamma = 1.0
    agent.fit([first, second], callbacks=[warning], verbose=0)
    assert list(agent.statistics.returns) == [8.0, 8.0]
    assert list(agent.statistics.lengths) == [8, 8]
    sums = np.arange(1, 9)
    np.testing.assert_allclose(warning.scale, np.sqrt(np.mean(sums**2)))
    scaler = RewardScaler(gamma=1.0)
    scaler(first), scaler(second)
    assert scaler.mean == np.mean(sums)


def test_off_policy_agents_learn_from_what_others_said_more_about():
    rollouts = list(
        uniform_rollouts(np.random.default_rng(0), 2, spaces.Discrete(4), -1.0)
    )
    for rollout in rollouts:
        time, env = np.nonzero(rollout.terminated)
        rollout.final = {
            "time": time,
            "env": env,
            "observations": np.zeros((len(time), 3), np.float32),
            "previous_actions": rollout.actions[time, env],
            "previous_rewards": rollout.rewards[time, env],
            "state": (),
        }
    agent = kerasrl.DQN({"hidden_units": (4,)}, learning_starts=16, seed=0)
    agent.compile(jit_compile=False)
    agent.build(spaces.Box(-9.0, 9.0, (3,), np.float32), spaces.Discrete(4))
    agent.fit(rollouts, verbose=0)
    assert len(agent.buffer) == 32 and not agent.buffer.keeps("extras")


def _with(rollout, name, change):
    return dataclasses.replace(rollout, **{name: change(getattr(rollout, name))})


DAMAGED = {
    "slice": (lambda r: r[:4], "slice of another"),
    "choices": (
        lambda r: _with(r, "actions", lambda x: x + 1),
        "choices counted from 0",
    ),
    "dtype": (
        lambda r: _with(r, "observations", lambda x: x.astype(np.float64)),
        "float64.*Expected.*float32",
    ),
    "shape": (
        lambda r: _with(r, "observations", lambda x: x[..., :2]),
        r"\(8, 2, 2\).*Expected.*\(8, 2, 3\)",
    ),
    "NaN": (lambda r: _with(r, "rewards", lambda x: x * np.nan), "reward with NaN"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_rollouts_that_do_not_fit_are_refused_before_weights_move(name):
    change, message = DAMAGED[name]
    (rollout,) = uniform_rollouts(np.random.default_rng(0), 1, spaces.Discrete(4), -1.0)
    agent = chooser()
    with pytest.raises((ValueError, EnvProtocolError), match=message):
        agent.fit([change(rollout)], verbose=0)
    assert agent.iterations == agent.env_steps == 0 and agent.source is None
    with pytest.raises(TypeError, match="one kerasrl.rollouts.Rollout"):
        agent.fit(rollout, verbose=0)


class Ranks(Replicas):
    """Two ranks, of which the other says what it is told to."""

    num_ranks = 2

    def __init__(self, others):
        self.others = others

    def gather_data(self, data):
        return [data, self.others.pop(0)]


def test_ranks_take_as_many_rollouts_of_the_same_shapes():
    """Else one waits for what the other never sends."""
    agent = chooser()
    rollouts = list(
        uniform_rollouts(np.random.default_rng(0), 2, spaces.Discrete(4), -1.0)
    )
    agent.replicas = Ranks([[8, 2], None])
    source = sources.RecordedSource(agent, rollouts)
    assert source.collect() is rollouts[0] and source.collect() is None
    agent.replicas = Ranks([[9, 2]])
    source = sources.RecordedSource(agent, rollouts)
    with pytest.raises(ValueError, match="different shapes"):
        source.collect()


def test_methods_that_nothing_calls_any_more_are_refused():
    with pytest.raises(TypeError, match="Old defines train_iteration"):

        class Old(kerasrl.DQN):
            def train_iteration(self, collector):
                """As it once was."""


def test_ratios_of_a_distribution_of_ones_own_are_to_what_it_was():
    """It may take more than the parameters, here a weight that moves on."""

    class Tempered(kerasrl.models.ActorCritic):
        def setup(self, observation_space, action_space):
            super().setup(observation_space, action_space)
            self.temperature = self.add_weight(shape=(), initializer="zeros")

        def distribution(self, outputs):
            scaled = outputs["distribution"] * keras.ops.exp(self.temperature)
            return self.distribution_type(scaled)

    keep = Keep()
    agent = kerasrl.PPO(policy=Tempered(), rollout_length=8, num_epochs=1, seed=0)
    agent.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    agent.fit("CartPole-v1", steps=16, num_envs=2, callbacks=[keep], verbose=0)
    agent.policy.temperature.assign(4.0)
    (rollout,) = keep.rollouts
    before = rollout.extras["log_probs"]
    np.testing.assert_allclose(before, np.log(0.5), atol=0.1)
    logs = agent.learn(rollout)
    assert logs["approximate_kl"] > 1e-3
    rollout.extras = {"distribution": np.zeros((8, 2, 3), np.float32)}
    with pytest.raises(ValueError, match="distribution_in_extras"):
        agent.learn(rollout)
