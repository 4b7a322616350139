"""Every step of every agent is in rollouts once, whatever borders rollouts have."""

import numpy as np
import optree
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

import kerasrl
from kerasrl.multi_agent import MultiAgentEnv, MultiEnvironments
from kerasrl.multi_agent.arena import Arena, Player
from kerasrl.multi_agent.recording import FreshRecord, ReplayedRecord
from kerasrl.multi_agent.seats import Seats
from kerasrl.rollouts.scripted import ScriptedActor

AGENTS = ["a", "b", "c", "d"]


class Hostile(MultiAgentEnv):
    """Agents wait, get rewards meanwhile, die, are born; episodes end in both ways.

    Observations say who is asked, where and when: no two are alike. `log` has what
    happened, in order.
    """

    possible_agents = AGENTS
    observation_spaces = dict.fromkeys(AGENTS, spaces.Box(0, 1e6, (3,), np.float32))
    action_spaces = dict.fromkeys(AGENTS, spaces.Discrete(5))

    def __init__(self):
        self.episode, self.log = -1, []

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.number, self.rng = seed % 1000, np.random.default_rng(seed)
        self.episode, self.time = self.episode + 1, 0
        self.alive, self.unborn = ["a", "b"], ["c", "d"]
        seen = {agent: self.see(agent) for agent in self.alive}
        self.log.append((self.episode, {}, seen, {}, {}, {}))
        return seen, {}

    def see(self, agent):
        key = (self.number, self.episode * 4 + AGENTS.index(agent), self.time)
        return np.array(key, np.float32)

    def step(self, actions):
        self.time += 1
        rng, terminated, truncated = self.rng, {}, {}
        if self.unborn and rng.random() < 0.1:
            self.alive.append(self.unborn.pop(0))
        rewards = {a: float(rng.integers(9)) for a in self.alive if rng.random() < 0.7}
        for agent in self.alive:
            if rng.random() < 0.05:
                (terminated if rng.random() < 0.5 else truncated)[agent] = True
        if rng.random() < 0.05:
            (terminated if rng.random() < 0.5 else truncated)["__all__"] = True
        ends = {*terminated, *truncated}
        gone = set(self.alive) if "__all__" in ends else ends
        left = [agent for agent in self.alive if agent not in gone]
        asked = [agent for agent in left if rng.random() < 0.6] or left[:1]
        seen = {
            agent: self.see(agent) for agent in [*asked, *sorted(gone - {"__all__"})]
        }
        self.alive = left
        self.log.append((self.episode, actions, seen, rewards, terminated, truncated))
        return seen, rewards, terminated, truncated, {}

    def reference(self):
        """From keys of observations to what followed, by definition."""
        found, pending = {}, {}
        for episode, actions, seen, rewards, terminated, truncated in self.log:
            for agent, action in actions.items():
                pending[episode, agent]["action"] = int(action)
            for agent, reward in rewards.items():
                if (episode, agent) in pending:
                    pending[episode, agent]["reward"] += reward
            dies = {**dict.fromkeys(AGENTS, terminated.get("__all__", False))}
            for agent in AGENTS:
                mine = pending.get((episode, agent))
                cut = truncated.get(agent, False)
                dead = terminated.get(agent, False) or (dies[agent] and not cut)
                cut = not dead and (cut or truncated.get("__all__", False))
                if mine and (dead or cut or agent in seen):
                    mine |= {"terminated": dead, "truncated": cut}
                    mine["next"] = tuple(seen[agent])
                    found[mine.pop("key")] = mine
                    del pending[episode, agent]
                if agent in seen and not (dead or cut):
                    last = mine or {"action": 0, "reward": 0.0}
                    pending[episode, agent] = {
                        "key": tuple(seen[agent]),
                        "reward": 0.0,
                        "start": mine is None,
                        "previous": (last["action"], last["reward"]),
                    }
        return found


class Known(kerasrl.ScriptedPolicy):
    """Acts by what it sees, and counts its steps as its state."""

    def get_initial_state(self, batch_size):
        return np.zeros(batch_size, int)

    def compute_actions(self, observations, state):
        actions = (observations @ np.array([1, 3, 7], np.float32)).astype(int) % 5
        return actions, state + 1, {"age": state}


def collect(make_record, num_envs, steps, late=0):
    """Plays; returns the environments, the rollouts, and the record."""
    envs = MultiEnvironments(Hostile, num_envs)
    policy = Known()
    space = envs.observation_spaces["a"], envs.action_spaces["a"]
    policy.setup(*space)
    actor = ScriptedActor(policy, np.random.default_rng(0))
    seats = Seats(actor, *space, num_envs, lambda row: None, "test")
    player = Player(seats)
    seeds = [list(range(1, num_envs + 1)), list(range(num_envs))]
    arena = Arena(envs, lambda *_: "p", lambda *_: player, "own", seeds)
    arena.start()
    for _ in range(late):
        arena.step()
    player.record = record = make_record(seats)
    rollouts = []
    for _ in range(steps):
        arena.step()
        rollouts += record.cut()
    return envs.envs, rollouts, record


def check(rollouts, envs):
    """Compares each step with the reference; returns how many there are."""
    reference = {}
    for env in envs:
        reference.update(env.reference())
    seen = set()
    for rollout in rollouts:
        finals = {}
        if rollout.final is not None:
            places = zip(rollout.final["time"], rollout.final["env"], strict=True)
            finals = {place: index for index, place in enumerate(places)}
        length = len(rollout.rewards)
        for time, env in np.argwhere(rollout.valid).tolist():
            key = tuple(rollout.observations[time, env])
            expected = reference[key]
            assert key not in seen
            seen.add(key)
            assert rollout.actions[time, env] == expected["action"]
            assert rollout.rewards[time, env] == expected["reward"]
            assert rollout.terminated[time, env] == expected["terminated"]
            assert rollout.truncated[time, env] == expected["truncated"]
            assert rollout.episode_starts[time, env] == expected["start"]
            assert rollout.extras["age"][time, env] == 0 or not expected["start"]
            previous = (
                rollout.previous_actions[time, env],
                rollout.previous_rewards[time, env],
            )
            assert previous == expected["previous"]
            if (time, env) in finals:
                index = finals[time, env]
                assert tuple(rollout.final["observations"][index]) == expected["next"]
                assert rollout.final["previous_rewards"][index] == expected["reward"]
                assert rollout.final["state"][index] == (
                    rollout.extras["age"][time, env] + 1
                )
            elif expected["truncated"]:
                raise AssertionError("a truncation without its last observation")
            elif not expected["terminated"]:
                # What the step led to is in the next row, filler or not.
                rows = rollout.observations, rollout.previous_rewards
                if time + 1 == length:
                    following = rollout.next_inputs
                    rows = following["observations"], following["previous_rewards"]
                    assert not following["episode_starts"][env]
                    assert tuple(rows[0][env]) == expected["next"]
                    assert rows[1][env] == expected["reward"]
                else:
                    assert tuple(rows[0][time + 1, env]) == expected["next"]
                    assert rows[1][time + 1, env] == expected["reward"]
        for env in np.flatnonzero(rollout.valid[0] & ~rollout.episode_starts[0]):
            # The state before a rollout is that of the agent in its first row.
            assert rollout.state[env] == rollout.extras["age"][0, env]
    return len(seen), len(reference)


@given(length=st.integers(1, 50), num_envs=st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_fresh_rollouts_have_every_step_once(length, num_envs):
    envs, rollouts, record = collect(lambda s: FreshRecord(s, length), num_envs, 150)
    found, expected = check(rollouts, envs)
    assert found + record.pending == expected > 100
    assert all(rollout.rewards.shape[0] == length for rollout in rollouts)
    for rollout in rollouts:
        # The fullest column is full, and fillers only come at the ends of columns.
        assert rollout.valid[-1].any()
        assert not (rollout.valid[1:] & ~rollout.valid[:-1]).any()
        assert rollout.truncated[~rollout.valid].all()


@given(length=st.integers(1, 50), num_envs=st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_replayed_rollouts_have_whole_episodes_of_agents(length, num_envs):
    envs, rollouts, record = collect(lambda s: ReplayedRecord(s, length), num_envs, 150)
    found, expected = check(rollouts, envs)
    assert found + record.pending == expected
    assert found > 20
    ends = sum((r.terminated | r.truncated).sum() for r in rollouts)
    assert ends == sum(len(r.final["time"]) for r in rollouts if r.final is not None)
    joined = np.concatenate([r.episode_starts[:, 0] for r in rollouts])
    over = np.concatenate([(r.terminated | r.truncated)[:, 0] for r in rollouts])
    assert (joined[1:] == over[:-1]).all()


def test_replayed_rollouts_leave_out_episodes_that_had_begun():
    envs, rollouts, _ = collect(lambda s: ReplayedRecord(s, 3), 2, 100, late=5)
    found, expected = check(rollouts, envs)
    assert 20 < found < expected


def test_steps_do_not_depend_on_how_many_environments_there_are():
    alone = collect(lambda s: ReplayedRecord(s, 1), 1, 150)
    several = collect(lambda s: ReplayedRecord(s, 1), 3, 150)
    keys = [
        {tuple(r.observations[0, 0]): float(r.rewards[0, 0]) for r in rollouts}
        for _, rollouts, _ in (alone, several)
    ]
    first = {key: value for key, value in keys[1].items() if key[0] == 1}
    assert first == keys[0]
    assert optree.tree_structure(alone[1][0]) == optree.tree_structure(several[1][0])
