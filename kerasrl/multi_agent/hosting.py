"""Several policies play in a worker process: neither Keras nor TensorFlow."""

import numpy as np

from kerasrl.multi_agent.arena import Arena, MultiAgentEpisode, Player
from kerasrl.multi_agent.env import MultiEnvironments
from kerasrl.multi_agent.recording import FreshRecord, ReplayedRecord, make_record
from kerasrl.multi_agent.seats import Seats, refuse_spaces
from kerasrl.multi_agent.snapshots import OpponentPlayer, ProgramActor, draw_snapshot
from kerasrl.rollouts.rollout import take
from kerasrl.rollouts.scripted import ScriptedActor
from kerasrl.workers import channel


class Host(MultiEnvironments):
    """Environments of a worker, and the policies that play in them.

    Args:
        env, num_envs, env_config: As for `MultiEnvironments`.
        share: `kerasrl.envs.registration.WorkerShare`.
    """

    resets_on_next_step = False

    def __init__(self, env, num_envs, env_config, share):
        super().__init__(env, num_envs, env_config)
        self._share = share
        self._fields = self._table = self._arena = None

    def list_agents(self):
        """Returns `possible_agents` of the environments."""
        return self.agents

    def prepare(self, fields):
        """Takes over who may play.

        Args:
            fields: Dict of `"policies"` (see `hosts.describe`), `"find"`, the function
                that maps agents, `"reward"`, `"seed"` and `"seeds"`, as for `Table` and
                `Arena`; and `"again"` where this process takes the place of another.
        """
        self._fields, self._arena = fields, None
        self._table = _Table(self, self._share, fields)

    def update(self, updates):
        """Takes over weights, exploration, snapshots and changed rules, by policy."""
        for name, each in updates.items():
            self._table.update(name, each)

    def play(self, steps, recording, number, ended):
        """Takes steps in every environment.

        Args:
            steps: Integer; 0 resets the environments.
            recording: As for `Table`.
            number: Integer, how many steps there were before. Where this process takes
                the place of another, all that it draws is other.
            ended: List of integers, how many episodes ended in each environment of all
                workers.

        Returns:
            Dict of `"players"`, names of policies that have played; `"steps_left"` and
            `"rollouts"`, by those that learn from what is fresh, of which the latter
            are complete; `"ended"`, by those that learn from replay, lists of pairs of
            a time and the steps of whole episodes of agents; `"episodes"`, a list of
            tuples of a time, an `EpisodeRecord` and a `MultiAgentEpisode`; and
            `"agent_steps"`.
        """
        if self._arena is None:
            self._begin(number, ended)
        table, arena = self._table, self._arena
        table.settle(recording)
        before = arena.agent_steps
        episodes, ended = [], {}
        for time in range(steps):
            for record, episode in arena.step():
                episodes.append((time, record, self._kept(episode)))
            for name, player in table.players.items():
                if isinstance(player.record, ReplayedRecord):
                    complete = player.record.drain()
                    if complete:
                        ended.setdefault(name, []).append((time, complete))
        left, rollouts = {}, {}
        for name, record in table.fresh():
            if record.is_due:
                rollouts[name] = record.take()
            left[name] = record.steps_left
        return {
            "players": list(table.players),
            "steps_left": left,
            "rollouts": rollouts,
            "ended": ended,
            "episodes": episodes,
            "agent_steps": arena.agent_steps - before,
        }

    def take(self, names):
        """Returns what there is of rollouts that are complete elsewhere, by policy."""
        return {
            name: each.take() for name, each in self._table.fresh() if name in names
        }

    def _begin(self, number, ended):
        first = self._share.first_index
        own = slice(first, first + self.num_envs)
        seeds = [each[own] for each in self._fields["seeds"]]
        begun = None
        if self._fields.get("again"):
            # Not 0, which would be as if it were not there.
            self._table.again = (number + 1,)
            rng = np.random.default_rng((self._fields["seed"], number + 1, first))
            seeds = rng.integers(2**31, size=(2, self.num_envs)).tolist()
            # After those that were lost in the middle.
            begun = [each + 1 for each in ended[own]]
        find, reward = self._fields["find"], self._fields["reward"]
        self._arena = Arena(
            self, find, self._table, reward, seeds, first_env=first, begun=begun
        )
        self._arena.start()

    def _kept(self, episode):
        """What of an episode is sent to the learner."""
        drawn = episode.user_data.get("snapshots")
        return MultiAgentEpisode(
            episode.env_index,
            episode.index,
            None,
            episode.policies,
            episode.returns,
            episode.length,
            user_data={} if drawn is None else {"snapshots": drawn},
            custom_metrics=episode.custom_metrics,
        )


class _Table:
    """The players of a worker; as `table.Table` is in the learner.

    Attributes:
        again: Tuple of integers that seeds end in; empty in the first process.
    """

    def __init__(self, host, share, fields):
        self.players = {}
        self._host = host
        self._share = share
        self._policies = fields["policies"]
        self._seed = fields["seed"]
        self.again: tuple = ()
        self._recording = {}
        #: What the learner last sent of each.
        self._updates = {}
        self._actors = {}
        self._opponents = {
            name: _Snapshots(each["choose"])
            for name, each in self._policies.items()
            if each is not None and "choose" in each
        }

    def __call__(self, name, agent):
        host = self._host
        spaces = host.observation_spaces[agent], host.action_spaces[agent]
        if name not in self.players:
            self.players[name] = self._make(name, agent, spaces)
            self._record(name)
        seats = self.players[name].seats
        refuse_spaces(name, spaces, (seats.observation_space, seats.action_space))
        return self.players[name]

    def settle(self, recording):
        self._recording = recording
        for name in self.players:
            self._record(name)

    def _record(self, name):
        player, wanted = self.players[name], self._recording.get(name)
        if wanted is None:
            player.record = None
        elif player.record is None:
            player.record = make_record(player.seats, wanted)

    def fresh(self):
        """Pairs of the names and the records of those that learn from what is fresh."""
        found = ((name, player.record) for name, player in self.players.items())
        return [pair for pair in found if isinstance(pair[1], FreshRecord)]

    def update(self, name, update):
        self._updates.setdefault(name, {}).update(update)
        if name in self._opponents:
            self._opponents[name].update(update)
        if name in self._actors and "weights" in update:
            self._actors[name].use(update["weights"])
        if "rule" in update:
            rule = channel.loads(update["rule"])
            self._policies[name] = {"rule": rule}
            if name in self.players:
                seats = self.players[name].seats
                spaces = seats.observation_space, seats.action_space
                seats.actor.policy = _set_up(rule, name, spaces)
        if name in self.players:
            self.players[name].seats.refresh()

    def _make(self, name, agent, spaces):
        described = self._policies[name]
        number = list(self._policies).index(name)
        if described is None:
            raise ValueError(
                f"The agent {agent!r} was mapped to the policy {name!r}, which has no "
                "weights yet. Workers act by programs that are made beforehand: call "
                f"agents[{name!r}].build(observation_space, action_space) before fit, "
                "map by a dict, or use num_workers=0."
            )
        share, count = self._share, self._host.num_envs
        if "rule" in described:
            actor = self._rule(described["rule"], name, spaces, number)
        else:
            refuse_spaces(name, spaces, described["spaces"])
            actor = ProgramActor(described["program"], described["initial_state"])
            actor.use(self._updates[name].get("weights"))
            self._actors[name] = actor

        def generator(row):
            env = share.first_index + row % count
            row = env + row // count * share.num_envs
            return np.random.default_rng((self._seed, number, row, *self.again))

        seats = Seats(actor, *spaces, count, generator, self._host.name)
        own = slice(share.first_index, share.first_index + count)
        seats.exploration = lambda _: take(
            self._updates.get(name, {}).get("exploration", {}), own
        )
        if described.get("origins") is not None:
            seats.checked.set_origins(described["origins"])
        if name in self._opponents:
            return OpponentPlayer(seats, self._opponents[name], name)
        return Player(seats)

    def _rule(self, rule, name, spaces, number):
        seed = self._seed, number, self._share.worker_index, *self.again
        rng = np.random.default_rng(seed)
        return ScriptedActor(_set_up(rule, name, spaces), rng)


def _set_up(rule, name, spaces):
    """Returns a rule that is ready for the spaces of an agent."""
    if rule.observation_space is None:
        rule.setup(*spaces)
        rule.observation_space, rule.action_space = spaces
    refuse_spaces(name, spaces, (rule.observation_space, rule.action_space))
    return rule


class _Snapshots:
    """Opponents as a worker knows them."""

    def __init__(self, choose):
        self.snapshots = []
        self._choose = choose
        self._odds = np.zeros(0)

    def update(self, update):
        self._choose, self._odds = update["choose"], update["odds"]
        first, added = update["snapshots"]
        self.snapshots[first:] = added

    def draw(self, rng):
        return draw_snapshot(rng, self._choose, self._odds)
