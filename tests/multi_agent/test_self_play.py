"""Playing against one's own past."""

import keras
import numpy as np
import pytest
import tiny

import kerasrl
from kerasrl.multi_agent import (
    MultiAgent,
    Opponents,
    RandomPolicy,
    SelfPlay,
    either_side,
)
from kerasrl.multi_agent.arena import MultiAgentEpisode
from kerasrl.multi_agent.env import MultiEnvironments
from kerasrl.multi_agent.snapshots import OpponentPlayer
from kerasrl.multi_agent.source import MultiAgentSource


def make():
    return MultiAgent(
        {
            "main": tiny.make("PPO"),
            "past": Opponents("main", "prioritized"),
            "random": RandomPolicy(),
        },
        either_side,
        seed=5,
    )


def test_snapshots_stay_as_they_were_and_training_goes_on_exactly(tmp_path):
    agent = make()
    play = SelfPlay("past", every=3)
    history = agent.fit(
        "tic_tac_toe", steps=900, num_envs=4, callbacks=[play], verbose=0
    ).history
    past = agent.agents["past"]
    assert len(past.snapshots) >= 3
    # They are copies, and differ as the policy has learnt.
    first, last = past.snapshots[0][0].copy(), past.snapshots[-1][0].copy()
    assert not np.array_equal(first, last)
    assert history["snapshots_past"][-1] == len(past.snapshots)
    assert np.isfinite(history["elo_past"][-1])
    matrix = past.matrix()
    assert matrix.shape == (len(past.snapshots) + 1,) * 2
    assert np.isnan(np.diag(matrix)).all()
    known = ~np.isnan(matrix)
    assert known.sum() >= 2 and np.allclose((matrix + matrix.T)[known], 1.0)

    loaded = kerasrl.load(agent.save(tmp_path / "league.kerasrl"))
    assert loaded.get_state() == agent.get_state()
    for each in (agent, loaded):
        play = SelfPlay("past", every=3)
        each.fit("tic_tac_toe", steps=400, num_envs=4, callbacks=[play], verbose=0)
    assert loaded.get_state() == agent.get_state()
    arrays = zip(agent.get_weights(), loaded.get_weights(), strict=True)
    assert all(np.array_equal(*pair) for pair in arrays)
    arrays = agent.get_arrays()["past"], loaded.get_arrays()["past"]
    assert all(np.array_equal(*pair) for pair in zip(*arrays, strict=True))
    assert np.array_equal(agent.agents["past"].snapshots[0][0], first)

    # A fixed opponent, whatever the mapping of training.
    sides = {"x": "main", "o": "random"}
    result = agent.evaluate("tic_tac_toe", 40, seed=0, verbose=0, mapping=sides)
    rates = [result[f"{what}_rate_main"] for what in ("win", "draw")]
    assert sum(rates) + result["win_rate_random"] == pytest.approx(1.0)
    assert "return_mean_past" not in result


@keras.saving.register_keras_serializable("tests")
def by_main_alone(agent, episode):
    return "main"


def test_who_is_not_met_yet_has_snapshots_of_the_start(tmp_path):
    def train(agent):
        agent.fit(
            *("tic_tac_toe", 16),
            num_envs=1,
            callbacks=[SelfPlay("past", every=1)],
            verbose=0,
        )

    main = tiny.make("PG", rollout_length=8, run_eagerly=True)
    agent = MultiAgent({"main": main, "past": Opponents("main")}, by_main_alone)
    envs = MultiEnvironments("tic_tac_toe", 1)
    agent.build(envs.observation_space, envs.action_space)
    actor = agent.agents["main"].actor()
    actor.refresh()
    began = [np.array(each) for each in actor.program.weights]
    train(agent)
    past = agent.agents["past"]
    assert len(past.snapshots) == 1 + agent.iterations
    assert all(map(np.array_equal, past.snapshots[0], began))
    loaded = kerasrl.load(agent.save(tmp_path / "league.kerasrl"))
    train(loaded)
    assert len(loaded.agents["past"].snapshots) == 1 + loaded.iterations


def test_an_update_is_looked_for_as_often_before_a_policy_is_met():
    members = {"main": tiny.make("PG"), "later": tiny.make("DQN", train_every=8)}
    agent = MultiAgent(members, by_main_alone, seed=0)
    envs = MultiEnvironments("two_step", 4)
    agent.build(envs.observation_space, envs.action_space)
    source = MultiAgentSource(agent, envs)
    _, alone, among_four = source._recording()["later"]
    assert alone > among_four == source.play.steps_left(source._recording())


def test_ratings_and_shares_are_those_of_their_definition():
    past = Opponents("main")
    past.snapshots, past.ratings = [[], []], [1000.0, 1200.0]
    past.points, past.games = [0.0, 0.0], [0, 0]
    past.note(1, 1.0)
    expected = 1.0 / (1.0 + 10.0 ** (200 / 400))
    assert past.rating == pytest.approx(1000.0 + 16.0 * (1 - expected))
    assert past.ratings[1] == pytest.approx(1200.0 - 16.0 * (1 - expected))
    past.note(1, 0.5)
    assert past.shares(None)[1] == 0.75 and np.isnan(past.shares(None)[0])
    assert past.shares().tolist() == [0.5, 2.5 / 4]
    assert past.drain_logs()["win_rate"] == 0.75
    assert np.isnan(past.drain_logs()["win_rate"])


def test_the_hardest_opponents_are_met_most():
    past = Opponents("main", "prioritized", power=2.0)
    past.snapshots = [[], [], []]
    past.points, past.games = [9.0, 4.0, 0.0], [9, 9, 9]
    rng = np.random.default_rng(0)
    counts = np.bincount([past.draw(rng) for _ in range(4000)], minlength=3) / 4000
    weights = (1 - np.array([10, 5, 1]) / 11) ** 2
    assert np.allclose(counts, weights / weights.sum(), atol=0.03)
    past.choose = "latest"
    assert past.draw(rng) == 2
    past.choose = "uniform"
    assert {past.draw(rng) for _ in range(50)} == {0, 1, 2}


def test_opponents_explore_as_the_policy_does_now():
    agent = MultiAgent(
        {
            "main": tiny.make("DQN", exploration=0.5, learning_starts=0),
            "past": Opponents("main"),
        },
        either_side,
        seed=0,
    )
    envs = MultiEnvironments("tic_tac_toe", 2)
    agent.build(envs.observation_space, envs.action_space)
    source = MultiAgentSource(agent, envs)
    source.start()
    source.collect()
    seats = source.play.table.players["past"].seats
    assert (seats._explored["epsilon"] == 0.5).all()
    agent.agents["main"].exploration = 0.25
    source.refresh()
    source.collect()
    assert (seats._explored["epsilon"] == 0.25).all()


def test_opponents_of_one_policy_are_drawn_each_for_itself():
    episode, found = MultiAgentEpisode(0, 0, None), []
    for number, name in enumerate(("past", "older")):
        opponents = Opponents("main")
        opponents.draw = lambda rng, number=number: number
        player = OpponentPlayer(_Chairs(), opponents, name)
        found.append(player._numbers[player.sit(0, episode)])
    assert found == [0, 1]
    agent = MultiAgent(
        {n: tiny.make("PG") if n == "main" else Opponents("main") for n in _LEAGUE}
    )
    for name in ("past", "older"):
        agent.agents[name].note = lambda k, points, name=name: found.append((name, k))
    episode.policies = {name: name for name in _LEAGUE}
    agent.episode_ended(episode)
    assert found[2:] == [("past", 0), ("older", 1)]


_LEAGUE = ("main", "past", "older")


class _Chairs:
    def sit(self, env):
        return 0


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="'nobody'"):
        MultiAgent({"main": kerasrl.PG(), "past": Opponents("nobody")})
    with pytest.raises(ValueError, match="neither every nor win_rate"):
        SelfPlay("past")
    with pytest.raises(ValueError, match="no Opponents"):
        agent = MultiAgent({"main": tiny.make("PG")})
        agent.fit("tic_tac_toe", 50, callbacks=[SelfPlay("main", 3)], verbose=0)
    with pytest.raises(ValueError, match="drawn by episode"):
        Opponents("main").compute_actions(None, ())


def test_damaged_ratings_and_shares_are_refused():
    past = Opponents("main")
    past.snapshots, past.history = [[np.zeros(2)], [np.ones(2)]], [[0.5]]
    past.points, past.games, past.ratings = [0.0, 0.0], [0, 0], [1000.0, 1010.0]
    state, arrays = past.get_state(), past.get_arrays()
    Opponents("main").set_state(state, arrays)
    for name, bad in (("ratings", [1.0]), ("history", []), ("history", [[0.5, 0.5]])):
        with pytest.raises(ValueError, match="damaged"):
            Opponents("main").set_state({**state, name: bad}, arrays)
