"""Policies that are no networks: evaluated, recorded, learnt from, as opponents."""

import dataclasses
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import kerasrl
from kerasrl.testing import CountingEnv


class Counter(kerasrl.ScriptedPolicy):
    """Counts its steps since an episode began, which is its state."""

    def get_initial_state(self, batch_size):
        return {"steps": np.full(batch_size, 7)}

    def compute_actions(self, observations, state):
        steps = state["steps"]
        actions = np.zeros(len(steps), int)
        return actions, {"steps": steps + 1}, {"steps": steps, "pair": {"x": 2 * steps}}


class Random(kerasrl.ScriptedPolicy):
    def compute_actions(self, observations, state):
        numbers = self.rng.integers(self.action_space.n, size=len(observations))
        return numbers + self.action_space.start, state, {}


class Ends(gymnasium.Env):
    """Episodes of lengths that differ, told in the observation; by turns cut off."""

    observation_space = spaces.Box(0, 100, (2,))
    action_space = spaces.Discrete(2, start=3)

    def __init__(self, length=3):
        self.length, self.episodes, self.steps = length, 0, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episodes, self.steps = self.episodes + 1, 0
        return self.observation(), {}

    def step(self, action):
        if action not in (3, 4):
            raise ValueError(action)
        self.steps += 1
        ends = self.steps == self.length
        is_cut = self.episodes % 2 == 0
        reward = float(action == 4)
        return self.observation(), reward, ends and not is_cut, ends and is_cut, {}

    def observation(self):
        return np.array([self.steps, self.length], np.float32)


class Three(Counter):
    def compute_actions(self, observations, state):
        actions, state, extras = super().compute_actions(observations, state)
        return actions + 3, state, extras


def make(context):
    return Ends(3 + context.env_index)


def test_state_starts_anew_in_each_environment():
    rollouts = list(Three().rollouts(make, 48, rollout_length=8, num_envs=3, seed=0))
    assert len(rollouts) == 2
    for rollout in rollouts:
        expected = 7 + rollout.observations[..., 0]
        np.testing.assert_array_equal(rollout.extras["steps"], expected)
        np.testing.assert_array_equal(rollout.extras["pair"]["x"], 2 * expected)
        # As agents count them.
        np.testing.assert_array_equal(rollout.actions, 0)
        assert rollout.terminated.any() and rollout.truncated.any()
        ends = rollout.terminated | rollout.truncated
        assert len(rollout.final["time"]) == ends.sum()
    assert rollouts[0].episode_starts[0].all()
    assert not rollouts[1].episode_starts[0].all()
    # It is nobody's who learns from them.
    assert rollouts[1].state == () and rollouts[1].final["state"] == ()


@pytest.mark.parametrize("num_envs", [1, 3])
def test_evaluation(num_envs):
    for _ in range(2):
        found = kerasrl.evaluate(Random(), make, episodes=6, seed=4, num_envs=num_envs)
        again = Random().evaluate(make, episodes=6, seed=4, num_envs=num_envs)
        assert found == again and found["episodes"] == 6
    assert 0.0 < found["return_mean"] < found["length_mean"]
    assert kerasrl.evaluate(Random(), make, 6, num_envs=num_envs)["episodes"] == 6


def test_functions_and_agents_are_evaluated_too():
    def lean(observations):
        return (observations[:, 2] > 0).astype(int)

    found = kerasrl.evaluate(lean, "CartPole-v1", episodes=10, seed=0)
    assert 30 < found["return_mean"] < 60
    vector = gymnasium.make_vec("CartPole-v1", 2)
    assert kerasrl.evaluate(lean, vector, episodes=3, seed=0)["episodes"] == 3
    vector.close()
    agent = kerasrl.A2C(policy={"hidden_units": (4,)}, seed=0)
    arguments = {"episodes": 2, "seed": 1, "verbose": 0}
    found = kerasrl.evaluate(agent, "CartPole-v1", **arguments)
    assert found == agent.evaluate("CartPole-v1", **arguments)
    for wrong in (3, "lean", kerasrl.A2C):
        with pytest.raises(TypeError, match=r"a kerasrl\.ScriptedPolicy, or a func"):
            kerasrl.evaluate(wrong, "CartPole-v1")


class Bandit(kerasrl.ScriptedPolicy):
    """Learns which of the actions has the greater mean reward."""

    def setup(self, observation_space, action_space):
        super().setup(observation_space, action_space)
        self.sums, self.counts = np.zeros((2, 2))

    def compute_actions(self, observations, state):
        means = self.sums / np.maximum(self.counts, 1)
        numbers = np.full(len(observations), np.argmax(means))
        explores = self.rng.random(len(observations)) < 0.2
        numbers = np.where(explores, self.rng.integers(2, size=len(numbers)), numbers)
        return numbers + 3, state, {"explores": explores}

    def learn_on_batch(self, rollout):
        for action in (0, 1):
            chosen = rollout.valid & (rollout.actions == action)
            self.sums[action] += rollout.rewards[chosen].sum()
            self.counts[action] += chosen.sum()
        return {"explored": float(rollout.extras["explores"].mean())}

    def get_weights(self):
        return [self.sums, self.counts]

    def set_weights(self, weights):
        self.sums, self.counts = (np.array(weight) for weight in weights)


def test_it_learns_on_batches():
    policy = Bandit()
    logs = policy.fit(make, 400, rollout_length=20, num_envs=2, seed=0)
    assert len(logs) == 10 and 0.0 < np.mean([x["explored"] for x in logs]) < 0.4
    assert np.argmax(policy.sums / policy.counts) == 1
    other = Bandit()
    other.setup(policy.observation_space, policy.action_space)
    other.set_weights(policy.get_weights())
    results = [kerasrl.evaluate(each, make, 4, seed=2) for each in (policy, other)]
    assert results[0] == results[1]
    with pytest.raises(NotImplementedError, match="does not define learn_on_batch"):
        Random().fit(make, 8, num_envs=1)
    Random().set_weights(Random().get_weights())
    with pytest.raises(ValueError, match="Received weights for a Random"):
        Random().set_weights([1.0])


@pytest.mark.parametrize("name", ["A2C", "DQN"])
def test_agents_learn_from_an_expert(name):
    expert = Three()
    rollouts = list(expert.rollouts(make, 64, rollout_length=16, num_envs=2, seed=0))
    replay = {"learning_starts": 8, "batch_size": 4} if name == "DQN" else {}
    agent = getattr(kerasrl, name)(policy={"hidden_units": (4,)}, seed=0, **replay)
    agent.compile(run_eagerly=True)
    agent.build(expert.observation_space, expert.action_space)
    logs = agent.fit(rollouts, verbose=0).history
    assert np.isfinite(logs["loss"]).all() and agent.env_steps == 64


def test_a_memory_is_not_learnt_from_what_another_acted():
    expert = Three()
    rollouts = list(expert.rollouts(make, 8, rollout_length=4, num_envs=2, seed=0))
    agent = kerasrl.A2C(policy={"hidden_units": (4,), "cell": "gru"})
    agent.build(expert.observation_space, expert.action_space)
    with pytest.raises(ValueError, match="A recurrent policy learns from what it"):
        agent.fit(rollouts, verbose=0)
    # One without a memory learns from what one with a memory has acted.
    rollout = dataclasses.replace(rollouts[0], state={"h": np.zeros((2, 3))})
    if rollout.final is not None:
        rollout.final["state"] = {"h": np.zeros((len(rollout.final["time"]), 3))}
    agent = kerasrl.A2C(policy={"hidden_units": (4,)})
    agent.compile(run_eagerly=True)
    agent.build(expert.observation_space, expert.action_space)
    assert np.isfinite(agent.fit([rollout], verbose=0).history["loss"]).all()


class Duel(gymnasium.Env):
    """Who says a number that the other does not say wins; the other is a policy."""

    observation_space = spaces.Box(0, 1, (2,))
    action_space = spaces.Discrete(2)

    def __init__(self, opponent):
        self.opponent = opponent
        self.opponent.setup(self.observation_space, self.action_space)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.opponent.rng = self.np_random
        self.state = self.opponent.get_initial_state(1)
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        observation = np.zeros((1, 2), np.float32)
        answer, self.state, _ = self.opponent.compute_actions(observation, self.state)
        self.steps += 1
        return observation[0], float(answer[0] != action), self.steps == 5, False, {}


def test_it_plays_against_policies_and_agents():
    result = kerasrl.evaluate(Counter(), lambda: Duel(Counter()), 3)
    assert result["return_mean"] == 0.0
    result = kerasrl.evaluate(Counter(), lambda: Duel(Random()), 20, seed=0)
    assert 1.0 < result["return_mean"] < 4.0


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (np.zeros(2, int), "Expected a tuple of actions"),
        ((np.zeros(2, int), (), None), "returned None as extras"),
        ((np.zeros(2, int), (), {"state": np.zeros(2)}), r"extras named \['state'\]"),
        ((np.zeros(2) + 0.5, (), {}), "actions that do not fit"),
        ((np.full(2, 9), (), {}), "actions that do not fit"),
        ((np.zeros(1, int), (), {}), "actions that do not fit|shape"),
        ((np.zeros(2, int), (), {"a": np.zeros(3)}), "extras with an array of shape"),
        ((np.zeros(2, int), (), {"a": 1.0}), r"extras with an array of shape \(\)"),
        ((np.zeros(2, int), {"a": np.zeros(2)}, {}), "state of another structure"),
    ],
)
def test_what_it_may_not_return(returned, message):
    class Wrong(kerasrl.ScriptedPolicy):
        def compute_actions(self, observations, state):
            return returned

    with pytest.raises(ValueError, match=message):
        Wrong().evaluate(lambda: CountingEnv(), 1, num_envs=2)


def test_it_is_for_one_kind_of_spaces():
    policy = Three()
    policy.evaluate(make, 1)
    with pytest.raises(ValueError, match="Use another one"):
        policy.evaluate("CartPole-v1", 1)
    with pytest.raises(NotImplementedError, match="must define compute_actions"):
        kerasrl.ScriptedPolicy().evaluate("CartPole-v1", 1)
    with pytest.raises(ValueError, match="episodes=0"):
        policy.evaluate(make, 0)
    with pytest.raises(ValueError, match="steps=0"):
        policy.rollouts(make, 0)


def test_it_imports_no_tensorflow():
    code = (
        "import sys, kerasrl\n"
        "def lean(x): return (x[:, 2] > 0).astype(int)\n"
        "kerasrl.evaluate(lean, 'CartPole-v1', episodes=1)\n"
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_generators_belong_to_what_runs():
    alone = Random()
    expected = [
        rollout.actions for rollout in alone.rollouts(make, 24, 4, seed=1, num_envs=3)
    ]
    policy, found = Random(), []
    for rollout in policy.rollouts(make, 24, 4, seed=1, num_envs=3):
        found.append(rollout.actions)
        policy.evaluate(make, 2, seed=5, num_envs=1)
    np.testing.assert_array_equal(found, expected)


class Changing(kerasrl.ScriptedPolicy):
    def compute_actions(self, observations, state):
        first = (observations[:, 0] == 0).all()
        extras = {"first": np.zeros(len(observations))} if first else {}
        return np.full(len(observations), 3), state, extras


class Late(Changing):
    def compute_actions(self, observations, state):
        actions, state, extras = super().compute_actions(observations, state)
        return actions, state, {} if extras else {"late": actions}


@pytest.mark.parametrize("policy_class", [Changing, Late])
def test_extras_are_those_of_every_step(policy_class):
    with pytest.raises(ValueError, match="compute_actions returned extras.*but before"):
        list(policy_class().rollouts(make, 24, 8, seed=0, num_envs=1))


class Lists(Counter):
    def get_initial_state(self, batch_size):
        return {"steps": [7] * batch_size}


def test_lists_are_no_states():
    with pytest.raises(ValueError, match=r"Lists.get_initial_state\(1\) returned"):
        Lists().evaluate(make, 1, num_envs=1)


class Unextended(Random):
    def setup(self, observation_space, action_space):
        self.number = action_space.n


def test_setup_need_not_call_its_parent():
    policy = Unextended()
    assert policy.evaluate(make, 1, seed=0, num_envs=1)["episodes"] == 1
    assert policy.action_space == Ends.action_space and policy.number == 2


def test_keras_models_are_no_policies_to_evaluate():
    import keras

    model = keras.Sequential([keras.layers.Dense(2)])
    with pytest.raises(TypeError, match="make it the policy of an agent"):
        kerasrl.evaluate(model, "CartPole-v1")
