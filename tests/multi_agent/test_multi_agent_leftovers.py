"""What is counted, refused and kept with several agents besides learning itself."""

import io
import zipfile

import keras
import numpy as np
import pytest
import tiny
from gymnasium import spaces

import kerasrl
from kerasrl.checkpoint import CheckpointError
from kerasrl.multi_agent import (
    MultiAgent,
    MultiAgentEnv,
    Opponents,
    either_side,
    make_multi_agent,
    with_action_masks,
    with_agent_groups,
    with_central_state,
)
from kerasrl.multi_agent.arena import MultiAgentEpisode
from kerasrl.multi_agent.env import Game, MultiEnvironments, make_env
from kerasrl.multi_agent.hosting import Host
from kerasrl.multi_agent.source import MultiAgentSource

PAIR = make_multi_agent("CartPole-v1", 2)


def test_steps_are_counted_both_ways():
    found = {}
    for counted in ("env_steps", "agent_steps"):
        member = tiny.make("PG", rollout_length=20)
        agent = MultiAgent({"main": member}, count_steps_by=counted, seed=0)
        logs = agent.fit(PAIR, steps=600, num_envs=2, verbose=0).history
        assert logs["env_steps"][-1] == agent.env_steps
        assert logs["agent_steps"][-1] == agent.agent_steps > agent.env_steps
        found[counted] = agent.env_steps, agent.agent_steps
    assert found["env_steps"][0] >= 600 > found["agent_steps"][0]
    # At most one iteration more: 20 steps of 2 environments of 2 agents.
    assert 600 <= found["agent_steps"][1] < 600 + 20 * 4 + 1
    with pytest.raises(ValueError, match="count_steps_by"):
        MultiAgent({"main": kerasrl.PG()}, count_steps_by="steps")


class Told(MultiAgentEnv):
    """Says in infos which action is legal: the one of the time."""

    possible_agents = ["a", "b"]
    observation_spaces = {"a": spaces.Box(0, 9, (1,)), "b": spaces.Box(0, 9, (2,))}
    action_spaces = {"a": spaces.Discrete(4), "b": spaces.Box(-1, 1, (1,))}

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return self._see()

    def _see(self):
        mask = (np.arange(4) == self.time % 4).astype(np.int8)
        seen = {"a": np.full(1, self.time, np.float32), "b": np.zeros(2, np.float32)}
        return seen, {"a": {"action_mask": mask}}

    def step(self, actions):
        assert actions["a"] == self.time % 4
        self.time += 1
        seen, infos = self._see()
        return seen, {"a": 1.0}, {"__all__": self.time == 9}, {}, infos


def test_masks_in_infos_are_refused_or_become_observations():
    def make():
        members = {"a": tiny.make("PG"), "b": tiny.make("PG")}
        return MultiAgent(members, train=["a"], seed=0)

    with pytest.raises(kerasrl.envs.EnvProtocolError, match="with_action_masks"):
        make().fit(Told, steps=20, num_envs=1, verbose=0)
    agent = make()
    agent.fit(with_action_masks(Told), steps=100, num_envs=2, verbose=0)
    assert agent.evaluate(with_action_masks(Told()), 1, verbose=0)["return_mean"] == 9


def test_policies_that_nobody_met_are_saved_as_they_are(tmp_path):
    members = {"main": tiny.make("PPO"), "later": tiny.make("DQN", gamma=0.5)}
    agent = MultiAgent(members, by_side)
    # Spaces differ, so that nobody knows for whom `later` is.
    checkpoint = kerasrl.callbacks.AgentCheckpoint(tmp_path, every=1)
    agent.fit(Two, steps=40, num_envs=1, callbacks=[checkpoint], verbose=0)
    loaded = kerasrl.load(checkpoint.last_path)
    assert loaded.agents["later"].policy.observation_space is None
    assert loaded.agents["later"].gamma == 0.5
    for each in (agent, loaded):
        each.fit(Two, steps=40, num_envs=1, verbose=0)
    pairs = zip(agent.get_weights(), loaded.get_weights(), strict=True)
    assert all(np.array_equal(*pair) for pair in pairs)


@keras.saving.register_keras_serializable("tests")
def by_side(agent, episode):
    return "main"


class Two(Told):
    """One of the two agents is never asked."""

    def _see(self):
        return {"a": np.full(1, self.time, np.float32)}, {}

    def step(self, actions):
        self.time += 1
        return self._see()[0], {}, {"__all__": self.time == 9}, {}, {}


def test_a_damaged_policy_is_named(tmp_path):
    agent = MultiAgent({"main": tiny.make("PPO")})
    envs = MultiEnvironments("two_step", 1)
    agent.build(envs.observation_space, envs.action_space)
    path = agent.save(tmp_path / "whole")
    damaged = rewritten(path, tmp_path / "damaged", lambda a: a[: len(a) // 2])
    with pytest.raises(CheckpointError) as caught:
        kerasrl.load(damaged)
    assert f"{damaged} (the policy 'main')" in str(caught.value)
    assert "/0" not in str(caught.value).replace(str(damaged), "")


def test_snapshots_are_checked_and_what_was_recent_is_kept(tmp_path):
    agent = MultiAgent(
        {"main": tiny.make("PPO"), "past": Opponents("main")}, either_side, seed=0
    )
    agent.fit("tic_tac_toe", steps=80, num_envs=2, verbose=0)
    past = agent.agents["past"]
    past._recent = [1.5, 3]
    path = agent.save(tmp_path / "whole")
    assert kerasrl.load(path).agents["past"].drain_logs()["win_rate"] == 0.5
    good = past.snapshots[0]
    for last in (good[-1][:-1], np.full_like(good[-1], np.nan)):
        bad = [*good[:-1], last]
        past.snapshots[0] = bad
        path = agent.save(tmp_path / "bad")
        with pytest.raises(CheckpointError, match="snapshot 0 of 'past'"):
            kerasrl.load(path)


def rewritten(path, target, change):
    """A file in which the first saved policy is another."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.startswith("replay") and name.endswith(".npy"):
                array, out = change(np.load(io.BytesIO(content))), io.BytesIO()
                np.save(out, array)
                content = out.getvalue()
            new.writestr(name, content)
    return target


def test_all_weights_can_be_set():
    one, two = (MultiAgent({"main": tiny.make("DQN", seed=k)}) for k in (1, 2))
    envs = MultiEnvironments("two_step", 1)
    for agent in (one, two):
        agent.build(envs.observation_space, envs.action_space)
    two.set_weights(one.get_weights())
    pairs = list(zip(one.get_weights(), two.get_weights(), strict=True))
    assert pairs and all(np.array_equal(*pair) for pair in pairs)


def test_messages_say_what_is_about_several_agents():
    agent = MultiAgent({"main": tiny.make("PG")})
    curiosity = kerasrl.callbacks.Curiosity()
    with pytest.raises(ValueError, match="given to a MultiAgent, of several policies"):
        agent.fit(PAIR, steps=20, num_envs=1, callbacks=[curiosity], verbose=0)
    member = tiny.make("DQN")
    member.fit("CartPole-v1", steps=64, num_envs=8, verbose=0)
    agent = MultiAgent({"main": member})
    with pytest.raises(ValueError, match=r"agents\['main'\].buffer = None"):
        agent.fit(PAIR, steps=20, num_envs=1, verbose=0)


class Counting(MultiAgentEnv):
    """One agent, that sees which episode and step it is."""

    possible_agents = ["a"]
    observation_spaces = {"a": spaces.Box(0, 999, (2,))}
    action_spaces = {"a": spaces.Discrete(2)}
    episode = -1

    def reset(self, *, seed=None, options=None):
        self.episode, self.time = self.episode + 1, 0
        return self._see(), {}

    def _see(self):
        return {"a": np.array([self.episode, self.time], np.float32)}

    def step(self, actions):
        self.time += 1
        return self._see(), {}, {"__all__": self.time == 7}, {}, {}


def test_nothing_joins_where_training_was_off():
    """What was last before it is not followed by what came first after it."""
    member = tiny.make("DQN", n_step=1)
    agent = MultiAgent({"main": member}, seed=0)
    envs = MultiEnvironments(Counting, 1)
    agent.build(envs.observation_space, envs.action_space)
    source = MultiAgentSource(agent, envs)
    source.start()
    first = source.collect().rollouts["main"]
    agent.train = []
    source.collect()
    agent.train = None
    for rollout in first:
        member.buffer.add(rollout)
    second = source.collect().rollouts["main"]
    for rollout in second:
        member.buffer.add(rollout)
    last, following = first[-1].observations[-1, 0], second[0].observations[0, 0]
    assert last[0] < following[0] and not first[-1].terminated[-1, 0]
    batch = member.buffer.sample(2000, rng=np.random.default_rng(0))
    steps = batch["next_observations"] - batch["observations"]
    ended = batch["terminated"] > 0
    assert np.array_equal(steps[~ended], np.tile([0.0, 1.0], ((~ended).sum(), 1)))


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_steps_of_other_agents_are_found(num_workers):
    """The partner's step of the same time: the same state, and half of the payoff."""

    class Partners(kerasrl.callbacks.Callback):
        found = 0

        def on_rollout_end(self, rollout):
            where = rollout.find_steps()
            parts = {n: each[0] for n, each in rollout.rollouts.items() if each}
            assert len(where) == sum(r.num_steps for r in parts.values())
            for (env, episode, agent, step), (name, number, t, b) in where.items():
                other = where.get((env, episode, 1 - agent, step))
                mine, own = parts[name], parts[name].observations[t, b]
                assert number == 0 and own[0] == (step == 0) and 0 <= env < 3
                assert mine.episode_starts[t, b] == (step == 0)
                if other is not None and other[0] in parts:
                    theirs = parts[other[0]]
                    place = other[2], other[3]
                    assert other[0] != name
                    assert np.array_equal(theirs.observations[place], own)
                    assert theirs.rewards[place] == mine.rewards[t, b]
                    self.found += 1
            return rollout

    partners = Partners()
    members = {f"agent_{k}": tiny.make("PG", rollout_length=8) for k in range(2)}
    MultiAgent(members, seed=0).fit(
        "two_step",
        steps=90,
        num_envs=3,
        num_workers=num_workers,
        callbacks=[partners],
        verbose=0,
    )
    assert partners.found > 60


class Plain:
    """As those of other libraries: no `MultiAgentEnv`, with a method of its own."""

    possible_agents = ["a", "b"]
    observation_spaces = dict.fromkeys("ab", spaces.Box(0, 9, (1,)))
    action_spaces = dict.fromkeys("ab", spaces.MultiDiscrete([2, 3]))
    infos: dict = {"a": None, "b": None}

    def reset(self, seed=None, options=None):
        return dict.fromkeys("ab", np.zeros(1, np.float32)), self.infos

    def step(self, actions):
        return *self.reset()[:1], {}, {"__all__": True}, {}, self.infos

    def set_phase(self, phase):
        self.phase = phase
        return phase


@pytest.mark.parametrize(
    "wrap",
    [
        with_action_masks,
        with_central_state,
        lambda env: with_agent_groups(env, {"team": ["a", "b"]}),
    ],
)
def test_methods_are_those_of_the_environment_itself(wrap):
    envs = MultiEnvironments(wrap(Plain), 2)
    assert envs.call("set_phase", 3) == [3, 3]
    assert envs.foreach(lambda env: (type(env), env.phase)) == [(Plain, 3)] * 2


def test_infos_may_be_nothing_and_masks_tuples():
    groups = with_agent_groups(Plain(), {"team": ["a"]})
    for env in (Plain(), with_action_masks(Plain()), groups):
        game = Game(make_env(env), "plain")
        assert set(game.reset().seen) == set(env.possible_agents)
        assert game.step(dict.fromkeys(env.possible_agents, [1])).is_over
    env = with_action_masks(Plain())
    assert env.reset()[0]["a"]["action_mask"].tolist() == [1] * 5
    env.env.env.infos = {"a": {"action_mask": (np.array([0, 1]), np.array([1, 0, 1]))}}
    assert env.reset()[0]["a"]["action_mask"].tolist() == [0, 1, 1, 0, 1]


def test_workers_send_custom_metrics():
    episode = MultiAgentEpisode(0, 0, None, custom_metrics={"height": 2.0})
    assert Host._kept(None, episode).custom_metrics == {"height": 2.0}


@pytest.mark.parametrize("name", ["find_policy", "make_player"])
def test_workers_do_not_ignore_what_an_agent_itself_has(name):
    agent = MultiAgent({"main": tiny.make("PG")})
    setattr(agent, name, getattr(agent, name))
    with pytest.raises(ValueError, match=f"{name}, which workers cannot call"):
        agent.fit("two_step", steps=10, num_workers=1, verbose=0)
