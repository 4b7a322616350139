"""`predict`: the same as acting, for whatever users have."""

import collections

import gymnasium
import numpy as np
import optree
import pytest
from gymnasium import spaces

import kerasrl
from kerasrl import testing
from kerasrl.envs import make_envs
from kerasrl.rollouts import Collector

SMALL = {"hidden_units": (8,), "cell": "lstm", "cell_units": 8, "previous_inputs": True}
ACTIONS = {
    "choice": spaces.Discrete(7, start=5),
    "choices": spaces.MultiDiscrete([3, 4], start=[2, -3]),
    "flags": spaces.MultiBinary(3),
    # Means of a new policy are near zero: every bound cuts.
    "integers": spaces.Box(3, 7, (2,), np.uint8),
    "numbers": spaces.Box(0.01, 0.02, (2,), np.float64),
}


class Actions(gymnasium.Env):
    """Shows nothing; the reward is what the action says."""

    def __init__(self, action_space):
        self.observation_space = spaces.Box(0, 1, (1,), np.float32)
        self.action_space = action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.ones(1, np.float32), float(np.sum(action)) / 9, False, False, {}


def ppo(action_space, **policy):
    agent = kerasrl.PPO(policy={**SMALL, **policy}, seed=3)
    agent.build(spaces.Box(0, 1, (1,), np.float32), action_space)
    # So that what the policy sees of its last action decides on the next.
    rng = np.random.default_rng(0)
    for variable in agent.policy.trainable_variables:
        variable.assign(rng.normal(size=variable.shape, scale=0.7))
    return agent


@pytest.mark.parametrize("name", ACTIONS)
def test_previous_actions_as_in_acting(name):
    """predict, given what it returned, acts as the collector does, step for step."""
    space = ACTIONS[name]
    agent = ppo(space)
    envs = make_envs(lambda: Actions(space), num_envs=3)
    generators = [np.random.default_rng(0) for _ in range(3)]
    actor = agent.actor(deterministic=True)
    actor.refresh()
    collector = Collector(envs, actor, 8, generators)
    collector.reset([0, 1, 2])
    rollout = collector.collect()
    state = actions = rewards = None
    for time in range(8):
        actions, state = agent.predict(
            rollout.observations[time],
            state=state,
            previous_actions=actions,
            previous_rewards=rewards,
        )
        rewards = rollout.rewards[time]
        emitted = rollout.actions[time]
        np.testing.assert_array_equal(
            actions, kerasrl.envs.clip_actions(emitted, space), str(time)
        )
    assert all(space.contains(action) for action in actions)
    # The test can tell: other previous actions give another state.
    other = actions
    while (other == actions).all():
        other = np.array([space.sample() for _ in range(3)])
    observations = rollout.observations[0]
    states = [
        agent.predict(observations, previous_actions=previous)[1]
        for previous in (actions, other)
    ]
    assert not np.allclose(*(optree.tree_leaves(each)[0] for each in states))


def test_start_makes_no_difference_to_acting():
    """The same weights and noise on spaces that differ in `start` only."""
    actions = []
    for start in (0, 5):
        space = spaces.Discrete(7, start=start)
        agent = ppo(space)
        envs = make_envs(lambda s=space: Scaled(s), num_envs=2)
        generators = [np.random.default_rng(env) for env in range(2)]
        agent.actor().refresh()
        collector = Collector(envs, agent.actor(), 20, generators)
        collector.reset([0, 1])
        actions.append(collector.collect().actions)
    np.testing.assert_array_equal(*actions)


class Scaled(Actions):
    """The reward is the choice, counted from zero."""

    def step(self, action):
        return super().step(action - self.action_space.start)


def test_previous_actions_that_do_not_fit():
    agent = ppo(spaces.Discrete(7, start=5))
    for actions, message in (
        (np.array([0, 5]), r"as `predict` returns them.*\[0, 5\].*`start`"),
        (np.array([5.0, 6.0]), "integers"),
        (np.array([5]), r"\[1\] rows for 2"),
        (np.array([[5], [6]]), r"shape \[B\]"),
    ):
        with pytest.raises(ValueError, match=message):
            agent.predict(np.zeros((2, 1)), previous_actions=actions)
    for rewards in (np.zeros((2, 1)), np.zeros(3), ["1", "2"]):
        with pytest.raises(ValueError, match="one number for each of 2"):
            agent.predict(np.zeros((2, 1)), previous_rewards=rewards)
    state = agent.predict(np.zeros((3, 1)))[1]
    with pytest.raises(ValueError, match="state of shapes.*as many observations"):
        agent.predict(np.zeros((2, 1)), state=state)


@pytest.fixture(scope="module")
def nested_agent():
    env = testing.NestedEnv()
    agent = kerasrl.PPO(policy={"hidden_units": (8,)}, seed=0)
    agent.build(env.observation_space, env.action_space)
    return agent


def nested(size=2):
    """Observations of `NestedEnv`, as its docstring says."""
    return {
        "image": np.ones((size, 8, 8, 3), np.uint8),
        "vector": np.ones((size, 3)),
        "choices": (np.full(size, 2), np.ones((size, 2), int)),
    }


def test_whatever_fit_takes(nested_agent):
    expected = nested_agent.predict(nested())
    for change in (
        lambda o: collections.OrderedDict(reversed(o.items())),
        lambda o: {**o, "choices": list(o["choices"])},
        lambda o: {**o, "unknown": np.zeros(7)},
        lambda o: {**o, "image": o["image"].astype(np.int64)},
        lambda o: {**o, "image": o["image"].astype(float)},
        lambda o: {**o, "vector": o["vector"].tolist()},
        lambda o: collections.UserDict(o),
    ):
        found = nested_agent.predict(change(nested()))
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"image": np.ones((3, 8, 8, 3), np.uint8)},
            r"numbers of rows.*'image'\]\": 3",
        ),
        ({"vector": np.ones(3)}, r"'vector'\].*\(3,\).*\[N, 3\].*\[None\]"),
        ({"vector": np.ones((2, 4))}, r"'vector'\].*\(2, 4\)"),
        ({"vector": [[1.0], [1.0, 2.0]]}, r"'vector'\].*no array"),
        ({"vector": np.full((2, 3), "1")}, r"'vector'\].*<U1"),
        ({"image": np.full((2, 8, 8, 3), 300)}, r"'image'\].*300.*uint8"),
        ({"image": np.full((2, 8, 8, 3), 0.7)}, r"'image'\].*0.7.*uint8"),
        ({"choices": (np.full(2, 7), np.ones((2, 2), int))}, r"\[0\].*7.*0 to 6"),
        ({"choices": (np.full(2, 1),)}, r"'choices'\].*tuple of 2"),
        ({"choices": None}, r"'choices'\].*None.*tuple of 2"),
    ],
)
def test_what_does_not_fit_is_named(nested_agent, change, message):
    with pytest.raises(ValueError, match=message) as caught:
        nested_agent.predict({**nested(), **change})
    assert "PyTreeSpec" not in str(caught.value)


def test_wrong_structures(nested_agent):
    for observations in (np.zeros((2, 3)), None, [1, 2], {"image": 0}):
        with pytest.raises(
            ValueError, match="structure of Dict.*Received at"
        ) as caught:
            nested_agent.predict(observations)
        assert "PyTreeSpec" not in str(caught.value)
