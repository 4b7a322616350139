"""Several policies play in worker processes, and what they recorded is joined."""

import copy

import numpy as np
import optree
from gymnasium import spaces

from kerasrl import workers
from kerasrl.agents import Agent
from kerasrl.multi_agent import policies
from kerasrl.multi_agent.env import name_of
from kerasrl.multi_agent.hosting import Host
from kerasrl.multi_agent.recording import ReplayedRecord
from kerasrl.multi_agent.rules import Mapped
from kerasrl.multi_agent.self_play import Opponents
from kerasrl.rollouts.rollout import Rollout, take
from kerasrl.workers import channel

#: What of `Opponents` is not asked by workers, so that it must be as it is here.
_NOT_SENT = ("draw", "actor")


class HostedEnvironments:
    """Environments of several agents in worker processes, which play by themselves.

    Args:
        env: As for `MultiEnvironments`, but no instance.
        making: Dict, as for `kerasrl.training.trainer.Trainer.make_environments`.

    Attributes:
        pool: `kerasrl.workers.WorkerPool`.
    """

    frames = None

    def __init__(self, env, making):
        if making["worker_mode"] not in (None, "act"):
            raise ValueError(
                f"Received worker_mode={making['worker_mode']!r}. Workers of several "
                'agents act, step and record: leave it at "act".'
            )
        if making["cluster"] is not None:
            raise ValueError(
                f"Received cluster={making['cluster']!r}. Workers of several agents "
                "are processes of this machine: leave it out."
            )
        self.name = name_of(env)
        self.pool = pool = workers.WorkerPool(
            env,
            making["num_workers"],
            making["num_envs"],
            making["env_config"],
            making["env_timeout"],
            make=Host,
        )
        self.num_envs = pool.num_envs
        try:
            first, *others = [
                (agents, described["observation_space"], described["action_space"])
                for agents, described in zip(
                    self.ask("list_agents"), pool.descriptions, strict=True
                )
            ]
            for other in others:
                if other != first:
                    raise ValueError(
                        f"Environments of {self.name} differ in their agents or "
                        f"spaces: {first[0]} and {other[0]}. Expected the same in all."
                    )
        except BaseException:
            self.close()
            raise
        self.agents, self.observation_space, self.action_space = first
        self.observation_spaces: dict = self._by_agent(self.observation_space)
        self.action_spaces: dict = self._by_agent(self.action_space)

    def _by_agent(self, space: spaces.Dict):
        return {agent: space[agent] for agent in self.agents}

    def ask(self, name, *arguments):
        """Calls a method of the `Host` of every worker; returns a list of results."""
        return self.pool.request_all("ask", name, *arguments)

    def play(self, *arguments):
        """Calls `Host.play` of every worker, for which `env_timeout` holds."""
        return self.pool.request_all("ask_watched", "play", *arguments)

    def foreach(self, function):
        """Calls a function with every environment, as it was made by its maker."""
        return self.pool.foreach_env(function)

    def call(self, name, *args, **kwargs):
        """Calls a method of every environment by its name."""
        results = sum(self.pool.request_all("call", name, args, kwargs), [])
        self.pool.remember(("call", name), "call", name, args, kwargs)
        return results

    def close(self):
        """Closes the environments and ends the processes."""
        self.pool.close()


class HostedPlay:
    """Play in worker processes, with the outcome of `table.LocalPlay`.

    The learner speaks with workers once where all agents act at once, and else a few
    times for each rollout: they play for as many steps as no rollout can be complete
    before.

    A worker that is lost is replaced. Its environments begin new episodes, and what it
    had recorded that was not learnt from is lost.

    Args:
        agent: The `MultiAgent`, built.
        envs: `HostedEnvironments`.
        seeds, seed, listener: As for `LocalPlay`. There is no listener here.

    Raises:
        ValueError: A policy cannot be sent, or something is asked for that is in this
            process only.
    """

    def __init__(self, agent, envs, seeds, seed, listener):
        if listener is not None:
            raise ValueError(
                "Received a callback with on_episode_begin, on_episode_step or "
                "on_episode_end, and num_workers > 0. Workers of several agents play "
                "by themselves: use num_workers=0, or leave that callback out."
            )
        self.agent = agent
        self.envs = envs
        self.pool = envs.pool
        self.met: list = []
        self.steps = (0, 0)
        self._recording: dict = {}
        self._left: dict = {}
        self._parts: dict = {}
        self._replayed: dict = {}
        #: How many episodes ended in each environment.
        self._ended = [0] * envs.num_envs
        #: The snapshots of each that workers know.
        self._known: dict = {name: [] for name in agent.opponents}
        #: The rules that workers know, as they were sent.
        self._rules = {
            name: _pickled(member)
            for name, member in agent.agents.items()
            if not isinstance(member, (Agent, Opponents))
        }
        self.pool.when_replaced = (
            "It begins new episodes; what it had recorded is not learnt from."
        )
        fields = {
            "policies": {name: describe(agent, name) for name in agent.agents},
            "find": Mapped(agent.mapping, list(agent.agents)),
            "reward": agent.reward,
            "seed": seed,
            "seeds": seeds,
        }
        envs.ask("prepare", fields)
        again = {**fields, "again": True}
        self.pool.remember("prepare", "ask", "prepare", again)

    def start(self, recording):
        """Resets the environments, `recording` as for `Table`."""
        self.refresh()
        self._recording = recording
        self._play(0)

    def refresh(self):
        """Sends the present weights, how much is explored, and what else is new."""
        new, every = {}, {}
        for name, member in self.agent.agents.items():
            main = member
            if isinstance(member, Opponents):
                main = self.agent.agents[member.of]
                if not member.snapshots:
                    continue  # Nobody knows yet of whom.
                have = list(member.snapshots)
                first = _first_other(self._known[name], have)
                now = {"choose": member.choose, "odds": member.settle()}
                new[name] = {**now, "snapshots": (first, have[first:])}
                every[name] = {**now, "snapshots": (0, have)}
                self._known[name] = have
            elif isinstance(member, Agent) and _is_built(member):
                actor = member.actor()
                actor.refresh()
                new[name] = {"weights": actor.program.weights}
                every[name] = dict(new[name])
            else:
                if name in self._rules:
                    rule = _pickled(member)
                    every[name] = {"rule": rule}
                    if rule != self._rules[name]:
                        new[name] = every[name]
                        self._rules[name] = rule
                continue
            explored = main.exploration_inputs(self.envs.num_envs)
            new[name]["exploration"] = every[name]["exploration"] = explored
        self.envs.ask("update", new)
        # For workers that replace others.
        self.pool.remember("update", "ask", "update", every)

    def steps_left(self, recording):
        """Returns after how many steps a rollout may be complete, at the least."""
        self._recording = recording
        self._replayed = {n: e for n, e in self._replayed.items() if n in recording}
        left = []
        for name, (is_replayed, length, *rest) in recording.items():
            if is_replayed:
                left += rest
            else:
                left.append(min(self._left.get(name, [length])))
        return min(left, default=1)

    def play(self, steps):
        """Takes steps in every environment; returns as `LocalPlay.play`."""
        before, num_envs = self.steps[0], self.envs.num_envs
        episodes = self._play(steps)
        for time, record, _ in episodes:
            record.env_steps = before + (time + 1) * num_envs
        return [pair for _, *pair in episodes]

    def _play(self, steps):
        number = self.steps[0]
        reports = self.envs.play(steps, self._recording, number, self._ended)
        for worker in range(len(reports)):
            self.pool.note_steps(worker, steps)
        agent_steps = sum(report["agent_steps"] for report in reports)
        self.steps = (number + steps * self.envs.num_envs, self.steps[1] + agent_steps)
        self._left, self._parts, ended = {}, {}, {}
        for worker, report in enumerate(reports):
            for name in report["players"]:
                self._meet(name)
            for name, left in report["steps_left"].items():
                self._left.setdefault(name, []).append(left)
            for name, part in report["rollouts"].items():
                self._parts.setdefault(name, {})[worker] = part
            for name, parts in report["ended"].items():
                ended.setdefault(name, []).extend(parts)
        # In the order in which they would have ended in one process.
        for name, parts in ended.items():
            record = self._replayed.get(name)
            if record is None:
                wanted = self._recording[name][1:]
                record = self._replayed[name] = ReplayedRecord(None, *wanted)
            for _, steps_of_one in sorted(parts, key=lambda part: part[0]):
                record.extend(steps_of_one)
        episodes = [each for report in reports for each in report["episodes"]]
        for _, _, episode in episodes:
            self._ended[episode.env_index] = episode.index + 1
        return sorted(episodes, key=lambda each: each[0])

    def _meet(self, name):
        if name not in self.met:
            self.met.append(name)
            member = self.agent.agents[name]
            if isinstance(member, Agent):
                policies.start_learning(name, member)

    @property
    def is_due(self):
        """Whether a rollout is complete."""
        return bool(self._parts) or any(r.is_due for r in self._replayed.values())

    def cut(self):
        """Returns a dict from policies to lists of the rollouts that are complete."""
        found = {name: [] for name in self.met if name in self._recording}
        for name, record in self._replayed.items():
            found[name] = record.cut()
        due, self._parts = self._parts, {}
        if len(due) and any(len(p) < self.pool.num_workers for p in due.values()):
            # Those that were complete are empty by now.
            for worker in range(self.pool.num_workers):
                names = [name for name, parts in due.items() if worker not in parts]
                if names:
                    rest = self.pool.request(worker, "ask", "take", names)
                    for name, part in rest.items():
                        due[name][worker] = part
        for name, parts in due.items():
            initial = self.agent.agents[name].actor().initial_state
            found[name] = [join_columns(parts, self.pool.slices, initial)]
            self._left.pop(name, None)
        return found


def _is_built(member):
    return member.policy.observation_space is not None


def _first_other(known, have):
    """The first place where lists do not have the same objects."""
    pairs = enumerate(zip(known, have, strict=False))
    others = (place for place, (a, b) in pairs if a is not b)
    return next(others, min(len(known), len(have)))


def _pickled(rule):
    """A rule as workers are told of it when it has changed."""
    kept = copy.copy(rule)
    kept.rng = None  # That of whoever played last in this process.
    return channel.dumps(kept)


def describe(agent, name):
    """Returns what workers are told of a policy, to play by it.

    Args:
        agent: The `MultiAgent`.
        name: Id of the policy.

    Returns:
        Dict; `None` for a policy that nobody is known to be mapped to.

    Raises:
        ValueError: It acts in TensorFlow, or is an `Opponents` with its own `draw`.
    """
    member, others = agent.agents[name], {}
    if isinstance(member, Opponents):
        for method in _NOT_SENT:
            own = getattr(getattr(member, method), "__func__", None)
            if own is not getattr(Opponents, method):
                raise ValueError(
                    f"The policy {name!r} is a {type(member).__name__} with its own "
                    f"{method}, which workers cannot call. Use num_workers=0; or "
                    "override settle, whose odds they draw by if choose='prioritized'."
                )
        main = agent.agents[member.of]
        if not _is_built(main):
            return None
        member.attach(main)
        member.actor()  # Which keeps the first snapshot.
        others["choose"] = member.choose
        member = main
    if not isinstance(member, Agent):
        return {"rule": member}
    if not _is_built(member):
        return None
    actor = member.actor()
    if actor.program is None:
        raise ValueError(
            f"The policy {name!r} acts by TensorFlow, so workers cannot act by it: "
            f"{actor.report['reason']}. Use num_workers=0."
        )
    program = copy.copy(actor.program)
    program.weights = None
    shifted = _Shifted()
    policies.shift(member, shifted)
    policy = member.policy
    return {
        "program": program,
        "initial_state": actor.initial_state,
        "spaces": (policy.observation_space, policy.action_space),
        "origins": shifted.origins,
        **others,
    }


class _Shifted:
    """Notes what is subtracted of observations."""

    origins = None

    def set_origins(self, origins):
        self.origins = origins


def join_columns(parts, slices, initial_state):
    """Joins rollouts of the rows of workers into one of the rows of all.

    A row is that of an environment `e` of E, `e`, `E + e`, `2 E + e` and so on, here
    and there. Where a worker has fewer, there are fillers.

    Args:
        parts: Dict from workers to `Rollout`s `[T, C, ...]`, or `None` where nobody has
            acted yet.
        slices: List of slices, which environments each worker has.
        initial_state: As of an actor.

    Returns:
        A `Rollout`.
    """
    known = {worker: part for worker, part in parts.items() if part is not None}
    num_envs, columns, most = slices[-1].stop, [], 0
    for worker, part in known.items():
        own = slices[worker]
        blocks = part.rewards.shape[1] // (own.stop - own.start)
        most = max(most, blocks)
        rows = np.arange(blocks)[:, None] * num_envs + np.arange(own.start, own.stop)
        columns.append(rows.reshape(-1))
    count = most * num_envs

    def join(axis, leaves):
        shape = (*leaves[0].shape[:axis], count, *leaves[0].shape[axis + 1 :])
        joined = np.zeros(shape, leaves[0].dtype)
        for leaf, own in zip(leaves, columns, strict=True):
            joined[(slice(None),) * axis + (own,)] = leaf
        return joined

    def join_trees(axis, trees):
        return optree.tree_map(lambda *leaves: join(axis, leaves), *trees)

    each = list(known.values())
    names = ("observations", "actions", "rewards", "terminated", "truncated", "valid")
    names += ("episode_starts", "previous_actions", "previous_rewards", "extras")
    names += ("infos",)
    fields = {n: join_trees(1, [getattr(part, n) for part in each]) for n in names}
    fields["truncated"] |= ~fields["valid"]
    fields["infos"]["places"][~fields["valid"]] = -1
    state = join_trees(0, [part.state for part in each])
    missing = np.setdiff1d(np.arange(count), np.concatenate(columns))
    if initial_state is not None and len(missing):
        optree.tree_map(_fill(missing), state, initial_state)
    return Rollout(
        **fields,
        state=state,
        next_inputs=join_trees(0, [part.next_inputs for part in each]),
        final=_finals(each, columns),
    )


def _fill(rows):
    def fill(leaf, value):
        leaf[rows] = value

    return fill


def _finals(parts, columns):
    found = [
        {**part.final, "env": own[part.final["env"]]}
        for part, own in zip(parts, columns, strict=True)
        if part.final is not None
    ]
    if not found:
        return None
    joined = optree.tree_map(lambda *leaves: np.concatenate(leaves), *found)
    return take(joined, np.lexsort((joined["env"], joined["time"])))
