"""Several policies play in environments of this process."""

import numpy as np

from kerasrl.agents import Agent
from kerasrl.multi_agent import policies
from kerasrl.multi_agent.arena import Arena
from kerasrl.multi_agent.recording import make_record
from kerasrl.multi_agent.seats import Seats
from kerasrl.multi_agent.self_play import Opponents


class Table:
    """The players of an arena, made as agents are mapped to their policies.

    Args:
        agent: The `MultiAgent`.
        envs: `MultiEnvironments`.
        seed: Integer, from which what is drawn in acting follows.
        deterministic: Whether policies take their best actions.
        recording: Dict from the ids of policies to what `make_record` takes of each;
            `None` outside of training.
    """

    def __init__(self, agent, envs, seed, deterministic, recording=None):
        self.agent = agent
        self.envs = envs
        self.players = {}
        self._seed = seed
        self._deterministic = deterministic
        self.recording = recording

    def __call__(self, name, agent):
        """Returns the player of a policy for an agent, see `Arena`."""
        spaces = (
            self.envs.observation_spaces[agent],
            self.envs.action_spaces[agent],
        )
        player = self.players.get(name)
        if player is None:
            player = self.players[name] = self._make(name, spaces)
            self._record(name, player)
        seats = player.seats
        if (seats.observation_space, seats.action_space) != spaces:
            policies.prepare(name, self.agent.agents[name], *spaces)  # Says so.
        return player

    def _make(self, name, spaces):
        member = self.agent.agents[name]
        policies.prepare(name, member, *spaces)
        if isinstance(member, Opponents):
            main = self.agent.agents[member.of]
            policies.prepare(member.of, main, *spaces)
            member.attach(main)
        number = list(self.agent.agents).index(name)
        generator = np.random.default_rng((self._seed, number))
        if self.recording is not None and isinstance(member, Agent):
            policies.start_learning(name, member)
        player = self.agent.make_player(
            name,
            Seats(
                self._actor(member, generator),
                *spaces,
                self.envs.num_envs,
                lambda row: np.random.default_rng((self._seed, number, row)),
                self.envs.name,
            ),
        )
        policies.shift(member, player.seats.checked)
        if isinstance(member, Opponents):
            policies.shift(main, player.seats.checked)
            player.seats.exploration = main.exploration_inputs
        elif isinstance(member, Agent) and not self._deterministic:
            player.seats.exploration = member.exploration_inputs
        return player

    def settle(self, recording):
        """Records those who learn, and no others.

        Args:
            recording: As for the constructor.
        """
        self.recording = recording
        for name, player in self.players.items():
            self._record(name, player)

    def _record(self, name, player):
        wanted = (self.recording or {}).get(name)
        if wanted is None:
            player.record = None
        elif player.record is None:
            player.record = make_record(player.seats, wanted)

    def _actor(self, member, generator):
        if isinstance(member, Opponents):
            return member.actor()
        return policies.actor_of(member, generator, self._deterministic)


class LocalPlay:
    """Play in environments of this process; `hosts.HostedPlay` is that of workers.

    Args:
        agent: The `MultiAgent`.
        envs: `MultiEnvironments`.
        seeds, listener: As for `Arena`.
        seed: As for `Table`.
    """

    def __init__(self, agent, envs, seeds, seed, listener):
        self.agent = agent
        self.table = Table(agent, envs, seed, False, {})
        find = agent.find_policy
        self.arena = Arena(envs, find, self.table, agent.reward, seeds, listener)

    @property
    def met(self):
        """The ids of the policies that have played."""
        return self.table.players

    @property
    def steps(self):
        """Tuple of the steps of environments, and of agents, so far."""
        return self.arena.env_steps, self.arena.agent_steps

    def start(self, recording):
        """Resets the environments, `recording` as for `Table`."""
        self.table.settle(recording)
        self.arena.start()

    def refresh(self):
        """Takes over the present weights, and how much is explored."""
        for name, player in self.table.players.items():
            if name in self.agent.learners:
                player.seats.actor.refresh()
            # Of opponents too, who explore as the policy that they are of.
            player.seats.refresh()
        for member in self.agent.opponents.values():
            member.settle()

    def steps_left(self, recording):
        """Returns after how many steps a rollout may be complete, at the least."""
        self.table.settle(recording)
        left = []
        for name, (*_, length) in recording.items():
            player = self.table.players.get(name)
            left.append(length if player is None else player.record.steps_left)
        return min(left, default=1)

    def play(self, steps):
        """Takes steps in every environment.

        Returns:
            List of pairs of an `EpisodeRecord` and the `MultiAgentEpisode`, of those
            that ended.
        """
        return [pair for _ in range(steps) for pair in self.arena.step()]

    @property
    def is_due(self):
        """Whether a rollout is complete."""
        records = [player.record for player in self.table.players.values()]
        return any(record is not None and record.is_due for record in records)

    def cut(self):
        """Returns a dict from policies to lists of the rollouts that are complete."""
        return {
            name: player.record.cut()
            for name, player in self.table.players.items()
            if player.record is not None
        }
