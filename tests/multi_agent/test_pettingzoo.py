"""PettingZoo's environments through the adapters."""

import numpy as np
import pytest

from kerasrl.multi_agent import MultiEnvironments, as_multi_agent
from kerasrl.multi_agent.env import Game, make_env

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def play(env, choose, seed=0):
    game = Game(env, "test")
    turn, turns = game.reset(seed), []
    while not turn.is_over:
        turn = game.step({a: choose(a, seen) for a, seen in turn.seen.items()})
        turns.append(turn)
    return turns


def test_the_loser_of_a_board_game_gets_its_loss():
    env = make_env("pettingzoo:aec:classic/tictactoe-v3")
    moves = iter([0, 3, 1, 4, 2])
    last = play(env, lambda agent, seen: next(moves))[-1]
    winner, loser = env.possible_agents
    assert last.rewards == {winner: 1.0, loser: -1.0}
    assert last.ended[loser][:2] == (True, False)
    assert last.is_over and not last.seen


def test_rewards_are_those_of_the_environment_itself():
    from pettingzoo.classic import rps_v2

    rng = np.random.default_rng(0)
    moves = rng.integers(3, size=40).tolist()
    own, expected = iter(moves), {}
    env = rps_v2.env(max_cycles=10)
    turns = play(as_multi_agent(env), lambda agent, seen: next(own))
    totals = {a: sum(t.rewards.get(a, 0.0) for t in turns) for a in env.possible_agents}
    env, own = rps_v2.env(max_cycles=10), iter(moves)
    env.reset(seed=0)
    for agent in env.agent_iter():
        _, reward, terminated, truncated, _ = env.last()
        expected[agent] = expected.get(agent, 0.0) + reward
        env.step(None if terminated or truncated else next(own))
    assert totals == expected and any(totals.values())
    # It stops by a limit.
    assert all(end[:2] == (False, True) for t in turns for end in t.ended.values())


def test_names_that_nobody_knows_are_explained():
    with pytest.raises(ValueError, match="pettingzoo:parallel:ID"):
        make_env("pettingzoo:classic/tictactoe-v3")
    with pytest.raises(ImportError, match=r"kerasrl\[mpe\]"):
        make_env("pettingzoo:parallel:mpe2.simple_nothing_v3")


def test_simple_spread_has_the_known_return_of_doing_nothing():
    envs = MultiEnvironments("pettingzoo:parallel:mpe2.simple_spread_v3", 1)
    env = envs.envs[0]
    totals = []
    for seed in range(60):
        turns = play(env, lambda agent, seen: 0, seed)
        assert len(turns) == 25
        assert all(end[:2] == (False, True) for end in turns[-1].ended.values())
        totals.append(sum(t.rewards["agent_0"] for t in turns))
    # -24.1 with a deviation of some 8 in an episode.
    assert np.mean(totals) == pytest.approx(-24.1, abs=4)
    assert env.state().shape == env.state_space.shape
