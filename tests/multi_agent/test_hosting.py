"""What the learner tells workers, and what becomes of it: here without processes."""

import numpy as np
import pytest
import tiny
from gymnasium import spaces
from test_trajectories import Hostile

from kerasrl import PG, ScriptedPolicy
from kerasrl.envs.registration import WorkerShare
from kerasrl.multi_agent import (
    MultiAgent,
    MultiAgentEnv,
    MultiEnvironments,
    Opponents,
    either_side,
)
from kerasrl.multi_agent.arena import Arena
from kerasrl.multi_agent.hosting import Host
from kerasrl.multi_agent.hosts import HostedPlay, describe
from kerasrl.workers import channel
from kerasrl.workers.process import _watch


class Here:
    """A worker, of which there is one, and its pool, in this process."""

    num_workers = 1

    def __init__(self, env, num_envs=2):
        self.make = lambda: Host(env, num_envs, None, WorkerShare(1, 1, 0, num_envs))
        self.host, self.pool, self.num_envs = self.make(), self, num_envs
        self.remembered, self.slices = {}, [slice(0, num_envs)]

    def ask(self, name, *arguments):
        arguments = channel.loads(channel.dumps(arguments))
        return [channel.loads(channel.dumps(getattr(self.host, name)(*arguments)))]

    def play(self, *arguments):
        return self.ask("play", *arguments)

    def remember(self, key, _, *request):
        self.remembered[key] = request

    def note_steps(self, worker, steps):
        pass

    def replace(self):
        self.host = self.make()
        for request in self.remembered.values():
            self.ask(*request)


def hosted(agent, env):
    worker = Here(env)
    agent.build(worker.host.observation_space, worker.host.action_space)
    return worker, HostedPlay(agent, worker, [[11, 12], [13, 14]], 1, None)


class Level(ScriptedPolicy):
    """Chooses what it is told."""

    level = 0

    def compute_actions(self, observations, state):
        return np.full(len(observations), self.level), state, {}


def test_workers_play_by_the_rules_as_they_are_now():
    rule = Level()
    agent = MultiAgent(
        {"main": PG(policy={"hidden_units": (8,)}), "rule": rule},
        {"player_0": "main", "player_1": "rule"},
    )
    worker, play = hosted(agent, "rock_paper_scissors")
    play.start({})

    def chosen():
        """What the rule chooses, which the other sees."""
        play.play(1)
        return {e.turn.seen["player_0"] for e in worker.host._arena.episodes}

    assert chosen() == {0}
    rule.level = 2
    play.refresh()
    assert chosen() == {2}
    # Another takes over what others go on by, until the next time that all are told.
    rule.level = 1
    worker.replace()
    assert chosen() == {2}
    play.refresh()
    assert chosen() == {1}
    told = []
    worker.ask = lambda *request: told.append(request)
    rule.rng = np.random.default_rng(0)  # As if it had played here.
    play.refresh()
    assert list(told[0][1]) == ["main"]


def test_workers_know_the_snapshots_that_there_are():
    agent = MultiAgent(
        {"main": tiny.make("PG"), "past": Opponents("main")}, either_side, seed=0
    )
    worker, play = hosted(agent, "tic_tac_toe")
    past, told = agent.agents["past"], []
    ask = worker.ask
    worker.ask = lambda *request: told.append(request) or ask(*request)

    def assert_known(first):
        play.refresh()
        update = told[-1][1]["past"]
        assert update["snapshots"][0] == first and len(update["odds"]) == len(known())
        assert len(known()) == len(past.snapshots)
        for left, right in zip(known(), past.snapshots, strict=True):
            assert all(np.array_equal(*pair) for pair in zip(left, right, strict=True))

    def known():
        return worker.host._table._opponents["past"].snapshots

    def add():
        agent.set_weights([w + 1 for w in agent.get_weights()])
        past.add()

    for _ in range(3):
        add()
    assert_known(0)
    assert_known(4)
    add()
    assert_known(4)
    past.snapshots[2] = [array * 3 for array in past.snapshots[2]]
    assert_known(2)
    for each in (past.snapshots, past.points, past.games, past.ratings):
        del each[1]
    assert_known(1)
    for each in (past.snapshots, past.points, past.games, past.ratings):
        del each[3]
    assert_known(3)
    past.choose = "latest"
    play.refresh()
    drawn = worker.host._table._opponents["past"].draw(np.random.default_rng(0))
    assert drawn == 2
    worker.replace()
    assert len(known()) == 3


def test_opponents_that_workers_could_not_ask_are_refused():
    class Own(Opponents):
        def draw(self, rng):
            return 0

    class Odds(Opponents):
        def settle(self):
            self._odds = np.ones(len(self.snapshots))
            return self._odds

    agent = MultiAgent({"main": tiny.make("PG"), "past": Own("main")}, either_side)
    envs = MultiEnvironments("tic_tac_toe", 1)
    agent.build(envs.observation_space, envs.action_space)
    with pytest.raises(ValueError, match="'past' is a Own with its own draw"):
        describe(agent, "past")
    agent.agents["past"] = Odds("main")
    assert describe(agent, "past")["choose"] == "uniform"
    agent.agents["past"].actor = lambda: None
    with pytest.raises(ValueError, match="a Odds with its own actor"):
        describe(agent, "past")


def test_who_takes_the_place_of_another_draws_other_things_in_other_episodes():
    agent = MultiAgent({"main": tiny.make("PG")}, seed=0)
    worker, play = hosted(agent, Hostile)
    recording = {"main": (False, 16)}
    play.start(recording)
    noises, numbers, places = [], [], []

    def go_on(rounds=1):
        for _ in range(rounds):
            while not play.is_due:
                play.play(play.steps_left(recording))
            play.refresh()
            (rollout,) = play.cut()["main"]
            places.append(rollout.infos["places"][rollout.valid])
        noises.append(worker.host._table.players["main"].seats._noise[0][:, :2])
        numbers.extend(env.number for env in worker.host.envs)

    # Lost before anything of it was heard, and later.
    play.play(2)
    play.steps, play._ended = (0, 0), [0, 0]
    go_on(0)
    for _ in range(3):
        worker.replace()
        go_on(6)
    columns = np.moveaxis(np.concatenate(noises, axis=1), 1, 0)
    columns = columns.reshape(len(columns), -1)
    assert len(np.unique(columns, axis=0)) == len(columns)
    assert len(set(numbers)) == len(numbers)
    found = np.concatenate(places)
    assert len(np.unique(found, axis=0)) == len(found) > 200
    # Of lost ones nothing was heard, and the next are as many later.
    assert set(np.unique(found[:, 1])) >= set(range(1, 6))


class Slow(MultiAgentEnv):
    """Episodes of two steps; notes what the learner could see during resets."""

    possible_agents = ["a"]
    observation_spaces = {"a": spaces.Discrete(2)}
    action_spaces = {"a": spaces.Discrete(2)}
    heartbeat, seen = None, None

    def reset(self, *, seed=None, options=None):
        self.time = 0
        if self.heartbeat is not None:
            self.seen.append(tuple(self.heartbeat[:2].tolist()))
        return {"a": 0}, {}

    def step(self, actions):
        self.time += 1
        return {"a": 0}, {}, {"__all__": self.time == 2}, {}, {}


def test_every_reset_is_heard_of_and_named():
    """Also where all episodes end together: their times must not add up."""
    envs, heartbeat = MultiEnvironments(Slow, 3), np.zeros(8, np.int64)
    for env in envs.envs:
        env.heartbeat, env.seen = heartbeat, []
    seen = [env.seen for env in envs.envs]
    _watch(envs, heartbeat)

    class Nobody:
        class seats:
            rewards = np.zeros(3)
            see = staticmethod(lambda *_: None)

        sit = staticmethod(lambda env, _: env)
        act = staticmethod(lambda rows: [0] * len(rows))
        finish = staticmethod(lambda *_: None)

    player = Nobody()
    arena = Arena(envs, lambda *_: "p", lambda *_: player, "own", [[0] * 3, [0] * 3])
    arena.start()
    for _ in range(4):
        arena.step()
    for env, beats in enumerate(seen):
        assert len(beats) == 3 and {number for _, number in beats} == {env}
    counts = [count for beats in seen for count, _ in beats]
    assert len(set(counts)) == len(counts)
