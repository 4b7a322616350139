"""A critic that sees the state of the whole, and an actor that does not."""

import numpy as np
import pytest
from gymnasium import spaces

import kerasrl
from kerasrl.multi_agent import (
    CentralCritic,
    MultiAgent,
    MultiAgentEnv,
    TicTacToe,
    TwoStep,
    make_multi_agent,
    with_central_state,
)
from kerasrl.multi_agent.env import MultiEnvironments


def make(env):
    policy = CentralCritic(hidden_units=(16,), normalize_observations=True)
    main = kerasrl.PPO(
        policy, rollout_length=16, num_epochs=1, minibatch_size=16, seed=0
    )
    main.compile(jit_compile=False)
    agent = MultiAgent({"main": main}, seed=0)
    envs = MultiEnvironments(env, 1)
    agent.build(envs.observation_space, envs.action_space)
    return agent


def test_values_see_the_state_and_actions_do_not(tmp_path):
    """By the program that acts: it has no way to the state, whatever is in it."""
    env = with_central_state(TwoStep)
    agent = make(env)
    main = agent.agents["main"]
    actor, value = main.actor(), main.value_function()
    generator = np.random.default_rng(0)
    rows = {"observation": generator.random((5, 3)).astype(np.float32)}
    inputs = {
        "previous_actions": np.zeros(5, np.int64),
        "previous_rewards": np.zeros(5, np.float32),
        "state": (),
    }
    found = []
    for number in (0.0, 1.0, np.nan):
        state = np.full((5, 3), number, np.float32)
        inputs["observations"] = {**rows, "state": state}
        noise = actor.draw([np.random.default_rng(k) for k in range(5)], 1)
        acted = actor.program.run(inputs, [each[0] for each in noise])
        found.append([acted["actions"], *acted["distribution"].T])
        if number < 2:
            found[-1].append(value(inputs, [])["values"])
    for left, right in zip(found[0][:-1], found[1][:-1], strict=True):
        assert np.array_equal(left, right)
    assert not np.allclose(found[0][-1], found[1][-1])
    assert all(np.isfinite(each).all() for each in found[2])
    # Nor does the source name it: two words for the observation, none for the state.
    assert "'observation'" in actor.program.source.replace('"', "'")
    assert "['observations']['state']" not in actor.program.source.replace('"', "'")

    agent.fit(env, steps=200, num_envs=2, num_workers=2, verbose=0)
    loaded = kerasrl.load(agent.save(tmp_path / "central"))
    for each in (agent, loaded):
        each.fit(env, steps=64, num_envs=2, verbose=0)
    pairs = zip(agent.get_weights(), loaded.get_weights(), strict=True)
    assert all(np.array_equal(*pair) for pair in pairs)


def test_states_are_those_of_the_environment_or_all_observations():
    envs = MultiEnvironments(with_central_state("two_step"), 1)
    seen, _ = envs.envs[0].reset()
    assert seen["agent_0"]["state"].tolist() == [1, 0, 0]
    # Masks are no part of it, and who is not asked is zeros.
    env = with_central_state(TicTacToe())
    seen, _ = env.reset()
    assert set(seen) == {"x"} and seen["x"]["state"].shape == (36,)
    seen, *_ = env.step({"x": 4})
    assert seen["o"]["state"][:18].sum() == 0
    assert np.array_equal(seen["o"]["state"][18:], seen["o"]["observation"])
    assert seen["o"]["action_mask"].sum() == 8
    agent = make(with_central_state("tic_tac_toe"))
    agent.fit(with_central_state("tic_tac_toe"), steps=100, num_envs=2, verbose=0)
    scores = agent.statistics.logs()
    assert scores["episode_return_min"] == scores["episode_return_max"] == 0.0


def test_what_cannot_be_is_refused():
    pair = make_multi_agent("CartPole-v1", 2)
    with pytest.raises(ValueError, match="state_space None"):
        with_central_state(pair(), "state")
    with pytest.raises(ValueError, match="source"):
        with_central_state(pair, "all")
    with pytest.raises(ValueError, match="with_central_state"):
        make(pair)
    agent = MultiAgent({"main": kerasrl.PPO(policy=CentralCritic(cell="gru"))})
    with pytest.raises(ValueError, match="cell='gru'"):
        agent.fit(with_central_state(pair), steps=20, num_envs=1, verbose=0)
    with pytest.raises(ValueError, match="entry 'state' already"):
        with_central_state(with_central_state(pair())).reset()


class Living(MultiAgentEnv):
    """Its state is of the agents that live, and fails without any."""

    possible_agents = ["a", "b"]
    observation_spaces = dict.fromkeys("ab", spaces.Box(0, 9, (1,)))
    action_spaces = dict.fromkeys("ab", spaces.Discrete(2))
    state_space = spaces.Box(0, 9, (1,), np.int64)

    def reset(self, *, seed=None, options=None):
        self.time, self.agents = 0, ["a", "b"]
        return dict.fromkeys("ab", np.zeros(1, np.float32)), {}

    def step(self, actions):
        self.time += 1
        seen = dict.fromkeys(self.agents, np.full(1, self.time, np.float32))
        ended = {"a": self.time == 2, "b": self.time == 3}
        self.agents = [agent for agent in self.agents if not ended[agent]]
        return seen, {}, {}, {a: ended[a] for a in seen}, {}

    def state(self):
        return np.concatenate([[self.time] for _ in self.agents])[:1]


def test_states_after_the_end_are_the_last_ones():
    env = with_central_state(Living())
    for _ in range(2):
        seen, _ = env.reset()
        found = [seen["b"]["state"][0]]
        for _ in range(3):
            seen, *_ = env.step(dict.fromkeys(seen, 0))
            found.append(seen["b"]["state"][0])
        assert found == [0, 1, 2, 2]
    env.reset()
    env.env.agents = []
    with pytest.raises(ValueError, match="array"):
        env.step(dict.fromkeys("ab", 0))
    # Choices have no mean; observations have one.
    make(with_central_state(Living))


def test_images_of_the_whole_are_refused():
    class Seen(Living):
        state_space = spaces.Box(0, 1, (12, 12, 3), np.float32)

    with pytest.raises(ValueError, match="with images"):
        make(with_central_state(Seen))
