"""Environments of several agents, and the one contract that all are held to."""

import numpy as np
import pytest
from gymnasium import spaces

from kerasrl.envs import EnvProtocolError
from kerasrl.multi_agent import (
    ENVIRONMENTS,
    MatrixGame,
    MultiAgentEnv,
    MultiAgentPendulum,
    MultiEnvironments,
    Pursuit,
    RockPaperScissors,
    TicTacToe,
    TwoStep,
    as_multi_agent,
    make_multi_agent,
    perfect_move,
    with_agent_groups,
)
from kerasrl.multi_agent.env import Game, make_env


def play(env, choose, seed=0, steps=200):
    """Yields the actions and the turn of each step of one episode."""
    game = Game(env, "test")
    turn = game.reset(seed)
    yield {}, turn
    while not turn.is_over and steps:
        actions = {agent: choose(agent, seen) for agent, seen in turn.seen.items()}
        turn = game.step(actions)
        steps -= 1
        yield actions, turn


def randomly(env, seed=0):
    rng = np.random.default_rng(seed)

    def choose(agent, seen):
        space = env.action_spaces[agent]
        if isinstance(seen, dict) and "action_mask" in seen:
            return rng.choice(np.flatnonzero(seen["action_mask"]))
        if isinstance(space, spaces.Discrete):
            return rng.integers(space.n)
        return space.sample()

    return choose


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_own_environments_keep_the_contract_and_their_seed(name):
    runs = []
    for _ in range(2):
        env = make_env(name)
        turns = list(play(env, randomly(env), seed=3))
        for _, turn in turns:
            for agent, seen in turn.seen.items():
                assert env.observation_spaces[agent].contains(seen)
        assert turns[-1][1].is_over
        runs.append([turn.rewards for _, turn in turns])
    if name != "multi_agent_pendulum":  # Spaces draw its actions.
        assert runs[0] == runs[1]


def test_rock_paper_scissors_pays_the_winner():
    env = RockPaperScissors(rounds=9)
    env.reset()
    for first in range(3):
        for second in range(3):
            actions = {"player_0": first, "player_1": second}
            seen, rewards, terminated, _, _ = env.step(actions)
            wins = first == (second + 1) % 3
            expected = 0.0 if first == second else (1.0 if wins else -1.0)
            assert rewards == {"player_0": expected, "player_1": -expected}
            assert seen == {"player_0": second, "player_1": first}
    assert terminated["__all__"]


def test_two_step_game_pays_by_its_table():
    payoffs = {}
    for first in (0, 1):
        for a in (0, 1):
            for b in (0, 1):
                env = TwoStep()
                env.reset()
                env.step({"agent_0": first, "agent_1": 1})
                _, rewards, _, _, _ = env.step({"agent_0": a, "agent_1": b})
                payoffs[first, a, b] = sum(rewards.values())
    assert [payoffs[0, a, b] for a in (0, 1) for b in (0, 1)] == [7.0] * 4
    assert [payoffs[1, a, b] for a in (0, 1) for b in (0, 1)] == [0.0, 1.0, 1.0, 8.0]
    assert np.mean(list(payoffs.values())) == 4.75


def test_matrix_games_have_the_means_of_uniform_play():
    assert MatrixGame("climbing").payoffs.mean() == pytest.approx(-3.444, abs=1e-3)
    assert MatrixGame("penalty").payoffs.mean() == pytest.approx(-19.78, abs=1e-2)
    env = MatrixGame([[1, 2], [3, 4]])
    assert env.step({"agent_0": 1, "agent_1": 0})[1] == {"agent_0": 1.5, "agent_1": 1.5}


def test_random_tic_tac_toe_has_the_known_shares():
    # Exact: X wins .5849, draws .1270, O wins .2881.
    rng, outcomes = np.random.default_rng(0), []
    env = TicTacToe()
    for _ in range(1500):
        choose = randomly(env, rng.integers(2**31))
        outcomes.append([t for _, t in play(env, choose)][-1].rewards["x"])
    shares = [np.mean(np.array(outcomes) == value) for value in (1, 0, -1)]
    assert np.allclose(shares, [0.5849, 0.1270, 0.2881], atol=0.04)


def test_perfect_play_draws_and_never_loses():
    env = TicTacToe()
    turns = list(play(env, lambda agent, seen: perfect_move(seen)))
    assert turns[-1][1].rewards == {"x": 0.0, "o": 0.0}
    for seed in range(20):
        random = randomly(env, seed)

        def choose(agent, seen, random=random):
            return perfect_move(seen) if agent == "o" else random(agent, seen)

        assert [t for _, t in play(env, choose)][-1].rewards["o"] >= 0.0


def test_the_loser_learns_of_it_though_it_does_not_move():
    moves = iter([0, 3, 1, 4, 2])
    *_, (actions, last) = play(TicTacToe(), lambda agent, seen: next(moves))
    assert list(actions) == ["x"]
    assert last.rewards == {"x": 1.0, "o": -1.0}
    assert last.ended["o"][:2] == (True, False)
    env = TicTacToe()
    env.reset()
    env.step({"x": 4})
    _, rewards, terminated, _, _ = env.step({"o": 4})
    assert rewards == {"o": -1.0, "x": 0.0} and terminated["__all__"]


def test_pursuit_has_deaths_and_births():
    env = Pursuit(hunters=1, prey=3, size=2, max_steps=60)
    lives, dead = set(), set()
    for _, turn in play(env, randomly(env)):
        born = set(turn.seen) - lives
        assert not born & dead
        lives |= set(turn.seen)
        dead |= {a for a, (terminated, _, _) in turn.ended.items() if terminated}
        for agent, (terminated, _, seen) in turn.ended.items():
            assert seen is not None
            if terminated and agent.startswith("prey"):
                assert turn.rewards[agent] == -1.0
    assert {"prey_0", "prey_1", "prey_2"} <= lives


def test_pendulums_share_their_reward_and_are_gymnasiums():
    import gymnasium

    env = MultiAgentPendulum(count=2)
    env.reset(seed=0)
    single = [gymnasium.make("Pendulum-v1") for _ in range(2)]
    for index, each in enumerate(single):
        each.reset(seed=0)
        each.unwrapped.state = np.array([env._angles[index], env._speeds[index]])
    for torque in (1.5, -3.0, 0.2):
        action = np.array([torque], np.float32)
        seen, rewards, _, _, _ = env.step(dict.fromkeys(env.possible_agents, action))
        steps = [each.step(action) for each in single]
        assert rewards["agent_0"] == rewards["agent_1"]
        assert rewards["agent_0"] == pytest.approx(sum(s[1] for s in steps), rel=1e-5)
        for agent, step in zip(seen, steps, strict=True):
            assert np.allclose(seen[agent], step[0], atol=1e-5)
    joint = MultiAgentPendulum(count=2, joint=True)
    seen, _ = joint.reset(seed=1)
    assert joint.observation_spaces["both"].contains(seen["both"])


class Said(MultiAgentEnv):
    """Says what a test has it say."""

    possible_agents = ["a", "b"]
    observation_spaces = dict.fromkeys(possible_agents, spaces.Discrete(9))
    action_spaces = dict.fromkeys(possible_agents, spaces.Discrete(2))

    def __init__(self, *steps):
        self.steps = list(steps)

    def reset(self, *, seed=None, options=None):
        return {"a": 0, "b": 0}, {}

    def step(self, actions):
        return self.steps.pop(0)


@pytest.mark.parametrize(
    ("steps", "match"),
    [
        ([({"c": 1}, {}, {}, {}, {})], "possible_agents"),
        ([({}, {}, {}, {}, {})], "nobody can act"),
        ([({"a": 1}, {}, {}, {"b": True}, {})], "last observation"),
        ([({"a": 1}, {}, {})], "five dicts"),
        (
            [({"a": 1}, {}, {"b": True}, {}, {}), ({"b": 1}, {}, {}, {}, {})],
            "ended earlier",
        ),
    ],
)
def test_what_breaks_the_contract_is_refused(steps, match):
    with pytest.raises(EnvProtocolError, match=match):
        list(play(Said(*steps), lambda agent, seen: 0))


def test_ends_of_one_and_of_all_are_told_apart():
    steps = [
        ({"a": 1, "b": 2}, {"b": 3}, {"a": True}, {}, {}),
        ({"b": 4}, {}, {}, {"__all__": True}, {}),
    ]
    turns = [turn for _, turn in play(Said(*steps), lambda agent, seen: 0)]
    assert turns[1].ended == {"a": (True, False, 1)} and not turns[1].is_over
    assert turns[1].seen == {"b": 2} and turns[1].rewards == {"b": 3.0}
    assert turns[2].ended == {"b": (False, True, 4)} and turns[2].is_over
    # Of both at once, what is said of one agent is more than what is said of all.
    steps = [({"a": 1, "b": 2}, {}, {"__all__": True}, {"b": True}, {})]
    turns = [turn for _, turn in play(Said(*steps), lambda agent, seen: 0)]
    assert turns[1].ended == {"a": (True, False, 1), "b": (False, True, 2)}


def test_copies_end_each_for_itself():
    env = make_multi_agent("CartPole-v1", 2)()
    rights = list(play(env, lambda agent, seen: int(agent == "agent_0")))
    ended = [agent for _, turn in rights for agent in turn.ended]
    assert sorted(ended) == ["agent_0", "agent_1"]
    assert len(rights) < 20
    with pytest.raises(TypeError, match="one instance"):
        make_multi_agent(object(), 2)


def test_groups_act_as_one_and_sum_rewards():
    env = with_agent_groups("two_step", {"team": ["agent_0", "agent_1"]})()
    assert env.possible_agents == ["team"]
    seen, _ = env.reset()
    assert env.observation_spaces["team"].contains(seen["team"])
    env.step({"team": (1, 0)})
    _, rewards, terminated, _, infos = env.step({"team": (1, 1)})
    assert rewards == {"team": 8.0} and terminated["__all__"]
    assert infos["team"]["rewards"] == {"agent_0": 4.0, "agent_1": 4.0}
    with pytest.raises(ValueError, match="each agent once"):
        with_agent_groups(TwoStep(), {"team": ["agent_0", "agent_9"]})
    with pytest.raises(ValueError, match="which actions are legal"):
        with_agent_groups(TicTacToe(), {"team": ["x"]})


def test_dict_environments_of_others_come_in_without_their_packages():
    class Old:
        """Says its spaces as RLlib's did."""

        _agent_ids = {"b", "a"}
        observation_space = spaces.Discrete(2)
        action_space = spaces.Dict(a=spaces.Discrete(2), b=spaces.Discrete(3))

        def reset(self, *, seed=None, options=None):
            return {"a": 0}, {}

        def step(self, actions):
            return {"b": 1}, {}, {"__all__": False}, {"__all__": False}, {}

    env = as_multi_agent(Old())
    assert env.possible_agents == ["a", "b"]
    assert env.action_spaces["b"] == spaces.Discrete(3)
    with pytest.raises(TypeError, match="who may act"):
        as_multi_agent(type("Nobody", (), {"reset": 0, "step": 0})())
    with pytest.raises(ValueError, match="Did you mean 'two_step'"):
        MultiEnvironments("two_stop")
    with pytest.raises(ValueError, match="one environment"):
        MultiEnvironments(TwoStep(), num_envs=2)


class Parallel:
    """As PettingZoo's parallel API: `b` dies at once, and `c` is born later."""

    possible_agents = ["a", "b", "c"]
    metadata = {"name": "parallel"}

    def observation_space(self, agent):
        return spaces.Discrete(9)

    def action_space(self, agent):
        return spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        self.agents, self.steps = ["a", "b"], 0
        return {"a": 0, "b": 0}, {"a": {}, "b": {}}

    def step(self, actions):
        assert set(actions) == set(self.agents)
        self.steps += 1
        there = list(self.agents)
        self.agents = [[], ["a"], ["a", "c"], []][self.steps]
        there = sorted({*there, *self.agents})
        is_dead = {agent: agent not in self.agents for agent in there}
        return (
            dict.fromkeys(there, self.steps),
            dict.fromkeys(there, 1.0),
            {a: dead and self.steps == 1 for a, dead in is_dead.items()},
            {a: dead and self.steps == 3 for a, dead in is_dead.items()},
            {agent: {} for agent in there},
        )


def test_parallel_environments_have_deaths_and_births():
    env = as_multi_agent(Parallel())
    turns = [turn for _, turn in play(env, lambda agent, seen: 0)]
    assert [list(turn.seen) for turn in turns] == [["a", "b"], ["a"], ["a", "c"], []]
    assert turns[1].ended == {"b": (True, False, 1)}
    assert turns[3].ended == {"a": (False, True, 3), "c": (False, True, 3)}
    # Whoever ends need not be observed once more.
    env = as_multi_agent(Parallel())
    step = env.env.step

    def leave_out(actions):
        seen, *rest = step(actions)
        return ({a: each for a, each in seen.items() if a != "b"}, *rest)

    env.env.step = leave_out
    turns = [turn for _, turn in play(env, lambda agent, seen: 0)]
    assert turns[1].ended == {"b": (True, False, None)}
    assert MultiEnvironments(Parallel).name == "parallel"
    assert MultiEnvironments(Parallel()).name == "parallel"
