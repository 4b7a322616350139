"""Learning from what older weights acted: fixed lags, and workers that do not wait."""

import json

import gymnasium
import keras
import numpy as np
import pytest

import kerasrl
from kerasrl import checks
from kerasrl.agents import Hyperparameter

SMALL = {"hidden_units": (8,)}


@keras.saving.register_keras_serializable("tests")
class Lagging(kerasrl.A2C):
    """Actor-critic that does not correct for lag, and notes what it learns from."""

    asynchronous = True
    kinds = {
        "synchronous": Hyperparameter(checks.flag, "fit"),
        "lag": Hyperparameter(checks.natural, "fit"),
    }

    def __init__(self, policy=None, synchronous=False, lag=0, **kwargs):
        super().__init__(policy, **kwargs)
        self.synchronous, self.lag = synchronous, lag
        self.noted = []

    def learn(self, rollout):
        version = rollout.extras.get("policy_version", np.array([[self.iterations]]))
        assert (version == version[0, 0]).all()
        weights = self.published.get(int(version[0, 0]))
        self.noted.append((self.iterations, int(version[0, 0]), rollout, weights))
        return super().learn(rollout)


def make(**arguments):
    agent = Lagging(policy=SMALL, seed=0, **arguments)
    agent.compile(jit_compile=False)
    return agent


def flat(weights):
    return np.concatenate([np.ravel(array) for array in weights])


def test_acts_by_the_weights_of_exactly_so_many_iterations_ago():
    agent = make(lag=2)
    agent.keeps_published = True
    seen = []
    for _ in agent.iterate("CartPole-v1", steps=5 * 8 * 6, verbose=0):
        seen.append(flat(agent.policy.trainable_variables))
    assert [(i, v) for i, v, *_ in agent.noted] == [
        (0, 0),
        (1, 0),
        (2, 0),
        (3, 1),
        (4, 2),
        (5, 3),
    ]
    assert sorted(agent.published) == sorted(agent.past_weights) == [3, 4, 5]
    for _, version, rollout, weights in agent.noted[3:]:
        # `seen[k]` is after iteration `k`, so what version `k + 1` acted by.
        np.testing.assert_array_equal(flat(weights), seen[version - 1])
        # The network gives the probabilities that were acted by, of those weights.
        agent.policy.set_weights(weights)
        acted = rollout.observations[0]
        outputs = agent.policy({"observations": acted})
        assert outputs["values"].shape == (8,)


@pytest.mark.parametrize("lag", [pytest.param(0, marks=pytest.mark.slow), 3])
def test_a_fixed_lag_goes_on_exactly_from_a_checkpoint(lag, tmp_path):
    agent = make(synchronous=True, lag=lag)
    settings = {"steps": 200, "num_envs": 4, "num_workers": 2, "verbose": 0}
    agent.fit("CartPole-v1", **settings)
    path = agent.save(tmp_path / "agent.kerasrl")
    resumed = kerasrl.load(path)
    assert sorted(resumed.past_weights) == sorted(agent.past_weights)
    for each in (agent, resumed):
        each.fit("CartPole-v1", **settings)
    np.testing.assert_array_equal(
        flat(agent.get_weights()), flat(resumed.get_weights())
    )
    assert [n[:2] for n in resumed.noted] == [n[:2] for n in agent.noted[-10:]]


def test_workers_act_while_it_learns():
    agent = make(rollout_length=8, normalize_rewards=True)
    agent.keeps_published = True
    settings = {"steps": 1600, "num_envs": 4, "num_workers": 2, "verbose": 0}
    history = agent.fit("CartPole-v1", epochs=2, **settings).history
    assert agent.env_steps == 1600 and agent.iterations == 100
    firsts = [rollout.first_env for _, _, rollout, _ in agent.noted]
    assert set(firsts) == {0, 2}
    learnt = {}
    for iteration, version, rollout, weights in agent.noted:
        assert rollout.rewards.shape == (8, 2) and weights is not None
        # With one fragment in flight a worker goes on only when it was learnt from.
        assert learnt.get(rollout.first_env, -1) < version <= iteration
        learnt[rollout.first_env] = iteration
    lags = [iteration - version for iteration, version, *_ in agent.noted]
    assert max(history["policy_lag_max"]) == max(lags) >= 1.0
    # A worker that waits for the processor may still act by what followed its last.
    assert len(agent.published) <= agent.iterations - min(learnt.values())
    for name in ("queue_depth", "actor_waiting_share", "learner_waiting_share"):
        assert np.isfinite(history[name]).all()
    assert history["acted_steps_per_second"][-1] > 0.0


def test_rewards_are_scaled_by_the_returns_of_each_environment():
    scaler = kerasrl.rollouts.RewardScaler(0.9)
    scaler.start(4)
    whole = kerasrl.rollouts.RewardScaler(0.9)
    rng = np.random.default_rng(0)
    rollouts = [_rollout(rng) for _ in range(6)]
    for rollout in rollouts:
        expected = whole(rollout)
    for rollout in rollouts:
        for first in (0, 2):
            part = rollout[:, first : first + 2]
            part.first_env = first
            found = scaler(part)
    np.testing.assert_allclose(scaler.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(scaler.squares, whole.squares, rtol=1e-12)
    np.testing.assert_allclose(found, expected[:, 2:], rtol=1e-6)


def test_rewards_of_joined_fragments_are_scaled_in_the_order_of_their_steps():
    """Against returns of each environment, summed one after the other."""
    rng = np.random.default_rng(0)
    scaler = kerasrl.rollouts.RewardScaler(0.9)
    running, seen = np.zeros(6), []
    for firsts in ((0, 2), (4, 4), (2, 0), (0, 4)):
        rollout = _rollout(rng)
        rollout.first_env = firsts
        scaled = scaler(rollout)
        for part, first in enumerate(firsts):
            for index in range(2):
                column, env = 2 * part + index, first + index
                for time in range(5):
                    running[env] = 0.9 * running[env] + rollout.rewards[time, column]
                    seen.append(running[env])
                    if (rollout.terminated | rollout.truncated)[time, column]:
                        running[env] = 0.0
        np.testing.assert_allclose(
            scaled, rollout.rewards / np.sqrt(np.var(seen) + 1e-8), rtol=1e-5
        )


def test_parts_of_a_rollout_say_which_environments_they_are_of():
    rollout = _rollout(np.random.default_rng(0))
    assert rollout.parts() == [(0, slice(0, 4))]
    rollout.first_env = (6, 2)
    assert rollout.parts() == [(6, slice(0, 2)), (2, slice(2, 4))]
    rollout.first_env = (0, 2, 4)
    with pytest.raises(ValueError, match="3 equal parts"):
        rollout.parts()


@pytest.mark.parametrize("given, expected", [(None, 2), (3, 3)])
def test_an_update_learns_from_several_fragments(given, expected):
    agent = kerasrl.IMPALA(
        SMALL,
        rollout_length=4,
        fragments_per_update=given,
        normalize_rewards=True,
        replay_proportion=0.5,
        seed=0,
    )
    agent.compile(jit_compile=False)
    noted = []

    class Notes(kerasrl.callbacks.Callback):
        def on_rollout_end(self, rollout):
            noted.append(rollout)

    settings = {"num_envs": 4, "num_workers": 4, "verbose": 0, "callbacks": [Notes()]}
    agent.fit("CartPole-v1", steps=4 * expected * 10, **settings)
    assert agent.iterations == 10 and agent.env_steps == 40 * expected
    assert {rollout.rewards.shape for rollout in noted} == {(4, expected)}
    assert {first for each in noted for first in each.first_env} == {0, 1, 2, 3}
    assert kerasrl.IMPALA.from_config(agent.get_config()).fragments_per_update == given
    state, arrays = agent.get_state(), agent.get_arrays()
    agent.set_state(json.loads(json.dumps(state)), arrays)
    assert agent.recent.rollouts[-1].first_env == noted[-1].first_env
    # Workers that are recorded are told apart again.
    for rollout in noted:
        del rollout.extras["policy_version"]
    other = make(rollout_length=4)
    other.build(agent.policy.observation_space, agent.policy.action_space)
    other.fit(noted, verbose=0)
    assert list(other.statistics.lengths) == list(agent.statistics.lengths)


def test_gradients_of_the_weights_that_acted_are_of_one_fragment():
    agent = kerasrl.A3C(SMALL, rollout_length=4, seed=0)
    agent.compile(jit_compile=False)
    agent.fit("CartPole-v1", steps=64, num_envs=4, num_workers=4, verbose=0)
    assert agent.iterations == 16


@pytest.mark.parametrize("settings", [{}, {"num_workers": 2, "worker_mode": "act"}])
def test_several_fragments_need_workers_that_do_not_wait(settings):
    agent = kerasrl.APPO(SMALL, fragments_per_update=2)
    with pytest.raises(ValueError, match="fragments_per_update=2"):
        agent.fit("CartPole-v1", steps=64, num_envs=4, verbose=0, **settings)
    with pytest.raises(ValueError, match="fragments_per_update"):
        kerasrl.APPO(SMALL, fragments_per_update=0)


def _rollout(rng):
    zeros = np.zeros((5, 4), np.float32)
    return kerasrl.rollouts.Rollout(
        observations=zeros,
        actions=zeros,
        rewards=rng.standard_normal((5, 4)).astype(np.float32),
        terminated=rng.random((5, 4)) < 0.2,
        truncated=rng.random((5, 4)) < 0.2,
        valid=np.ones((5, 4), bool),
        episode_starts=np.zeros((5, 4), bool),
        previous_actions=zeros,
        previous_rewards=zeros,
    )


@pytest.mark.parametrize(
    "make_agent, arguments, message",
    [
        (kerasrl.PPO, {}, "kerasrl.APPO"),
        (lambda: make(synchronous=True), {}, "synchronous=True"),
        (lambda: make(lag=1), {}, "not fixed"),
        (lambda: make(lag=1), {"worker_mode": "step"}, "needs synchronous"),
        (lambda: kerasrl.DQN(overlap=True), {}, "overlap=True"),
        (make, {"num_envs": 3}, "multiple of `num_workers`"),
        (make, {"num_workers": 0}, "for worker processes"),
    ],
)
def test_what_cannot_be_is_refused(make_agent, arguments, message):
    settings = {"num_workers": 2, "worker_mode": "asynchronous", **arguments}
    with pytest.raises(ValueError, match=message):
        make_agent().fit("CartPole-v1", steps=100, verbose=0, **settings)


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays.update({"past_weights.1": np.zeros(2)}),
        lambda arrays: arrays.update({"past_weights.1.x": np.zeros(2)}),
        lambda arrays: arrays.update({"past_weights.9999.0": np.zeros(2)}),
        lambda arrays: arrays.pop(next(iter(arrays))),
        lambda arrays: arrays.update({next(iter(arrays)): np.zeros(3)}),
    ],
)
def test_damaged_past_weights_are_refused(change, lagging):
    state, arrays = lagging.get_state(), lagging.get_arrays()
    lagging.set_state(state, arrays)
    change(arrays)
    with pytest.raises(ValueError, match="past_weights"):
        lagging.set_state(state, arrays)


@pytest.fixture(scope="module")
def lagging():
    agent = make(lag=2)
    agent.fit("CartPole-v1", steps=120, num_envs=4, verbose=0)
    return agent


def test_older_weights_are_forgotten_where_they_would_mislead():
    agent = make(lag=2)
    agent.keeps_published = True
    settings = {"num_envs": 2, "verbose": 0}
    agent.fit("CartPole-v1", steps=60, **settings)
    assert agent.past_weights and agent.published
    agent.set_weights([np.full_like(w, 0.5) for w in agent.get_weights()])
    assert not agent.past_weights
    seen = agent.iterations
    agent.fit("CartPole-v1", steps=10, **settings)
    assert agent.noted[-1][:2] == (seen, seen)
    np.testing.assert_array_equal(flat(agent.noted[-1][3]), 0.5)
    # Without lag for a while, and with another one later.
    agent.lag = 0
    agent.fit("CartPole-v1", steps=20, **settings)
    assert not agent.past_weights and not agent.published
    agent.lag = 2
    agent.fit("CartPole-v1", steps=40, **settings)
    assert [i - v for i, v, *_ in agent.noted[-4:]] == [0, 1, 2, 2]
    # Where other variables are trained, gradients cannot be computed at older ones.
    layers = [layer for layer in agent.policy.layers if layer.trainable_variables]
    layers[0].trainable = False
    agent.fit("CartPole-v1", steps=10, **settings)
    assert agent.noted[-1][1] == agent.noted[-1][0]


def test_older_weights_are_in_every_checkpoint(tmp_path):
    agent = make(lag=2)
    agent.fit("CartPole-v1", steps=60, num_envs=2, verbose=0)
    path = agent.save(tmp_path / "agent.kerasrl", include_replay=False)
    loaded = kerasrl.load(path)
    assert sorted(loaded.past_weights) == sorted(agent.past_weights) != []


def test_rewards_may_be_scaled_from_any_fragment_on():
    agent = make(rollout_length=8)
    settings = {"num_envs": 4, "num_workers": 2, "verbose": 0}
    for _ in agent.iterate("CartPole-v1", steps=160, **settings):
        agent.normalize_rewards = True
    scaler = kerasrl.rollouts.RewardScaler(0.9)
    rollout = _rollout(np.random.default_rng(0))
    scaler(rollout)
    rollout.first_env = 4
    scaler(rollout)
    assert len(scaler._returns) == 8


def test_recorded_fragments_are_of_the_environments_they_were_acted_in():
    agent = make(rollout_length=3)
    settings = {"num_envs": 4, "num_workers": 2, "verbose": 0}
    agent.fit(lambda: gymnasium.wrappers.TimeLimit(Endless(), 7), steps=240, **settings)
    rollouts = [rollout for _, _, rollout, _ in agent.noted]
    for rollout in rollouts:
        del rollout.extras["policy_version"]
    other = make(rollout_length=3)
    other.build(Endless.observation_space, Endless.action_space)
    other.fit(rollouts, verbose=0)
    assert set(other.statistics.lengths) == {7} == set(agent.statistics.lengths)


class Endless(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return (
            self.np_random.uniform(-1, 1, 2).astype(np.float32),
            1.0,
            False,
            False,
            {},
        )
