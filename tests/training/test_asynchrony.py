"""Learning from what older weights acted: fixed lags, and workers that do not wait."""

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
    for _, version, rollout, weights in agent.noted[3:]:
        # `seen[k]` is after iteration `k`, so what version `k + 1` acted by.
        np.testing.assert_array_equal(flat(weights), seen[version - 1])
        # The network gives the probabilities that were acted by, of those weights.
        agent.policy.set_weights(weights)
        acted = rollout.observations[0]
        outputs = agent.policy({"observations": acted})
        assert outputs["values"].shape == (8,)
    assert sorted(agent.published) == sorted(agent.past_weights) == [3, 4, 5]


@pytest.mark.parametrize("lag", [0, 3])
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
    for iteration, version, rollout, weights in agent.noted:
        assert rollout.rewards.shape == (8, 2)
        # With one fragment in flight of each of two workers.
        assert weights is not None and 0 <= iteration - version <= 1
    assert max(history["policy_lag_max"]) <= 1.0 and len(agent.published) <= 2
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
