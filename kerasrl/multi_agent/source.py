"""Where the rollouts of several policies come from."""

import dataclasses

import numpy as np

from kerasrl.agents import Agent
from kerasrl.multi_agent import policies
from kerasrl.multi_agent.arena import Arena
from kerasrl.multi_agent.recording import FreshRecord, ReplayedRecord
from kerasrl.multi_agent.seats import Seats
from kerasrl.multi_agent.self_play import Opponents

#: Steps in every environment after which nobody who learns has enough, or nobody does.
_MOST_STEPS = 1024


@dataclasses.dataclass
class MultiAgentRollout:
    """What was collected in an iteration.

    Args:
        rollouts: Dict from the ids of policies that learn to lists of
            `kerasrl.rollouts.Rollout`s `[T, B, ...]`, empty where none is due.
        num_steps: Integer, environment steps.
        agent_steps: Integer, steps of single agents.
    """

    rollouts: dict
    num_steps: int
    agent_steps: int

    @property
    def rewards(self):
        """float32 `[N]`, those of all steps in it."""
        parts = [
            rollout.rewards[rollout.valid]
            for each in self.rollouts.values()
            for rollout in each
        ]
        return np.concatenate([np.zeros(0, np.float32), *parts])


class Table:
    """The players of an arena, made as agents are mapped to their policies.

    Args:
        agent: The `MultiAgent`.
        envs: `MultiEnvironments`.
        seed: Integer, from which what is drawn in acting follows.
        deterministic: Whether policies take their best actions.
        is_training: Whether policies make ready to learn.
    """

    def __init__(self, agent, envs, seed, deterministic, is_training):
        self.agent = agent
        self.envs = envs
        self.players = {}
        self._seed = seed
        self._deterministic = deterministic
        self._is_training = is_training

    def __call__(self, name, agent):
        """Returns the player of a policy for an agent, see `Arena`."""
        spaces = (
            self.envs.observation_spaces[agent],
            self.envs.action_spaces[agent],
        )
        player = self.players.get(name)
        if player is None:
            player = self.players[name] = self._make(name, spaces)
        seats = player.seats
        if (seats.observation_space, seats.action_space) != spaces:
            # Says so.
            policies.prepare(name, self.agent.agents[name], *spaces)
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
        if self._is_training and isinstance(member, Agent):
            member.start_learning(1 if policies.is_replayed(member) else 0)
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

    def _actor(self, member, generator):
        if isinstance(member, Opponents):
            return member.actor()
        return policies.actor_of(member, generator, self._deterministic)


class MultiAgentSource:
    """Rollouts of several policies that act in the same environments.

    Args:
        agent: The `MultiAgent`.
        envs: `MultiEnvironments`.
        info_keys: Names of infos, for which there is no place.
        listener: As for `kerasrl.rollouts.Collector`, of `MultiAgentEpisode`.
    """

    collects = True
    is_dataset = False

    def __init__(self, agent, envs, info_keys=(), listener=None):
        if info_keys:
            raise ValueError(
                f"Received info_keys={list(info_keys)}. Rollouts of several agents "
                "have no infos: read episode.turn.infos in on_episode_step of a "
                "callback."
            )
        self.agent = agent
        self.envs = envs
        self.num_envs = envs.num_envs
        seeds = agent.rng.integers(2**31, size=(2, self.num_envs)).tolist()
        self.table = Table(
            agent, envs, int(agent.rng.integers(2**31)), False, is_training=True
        )
        self.arena = Arena(
            envs, agent.find_policy, self.table, agent.reward, seeds, listener
        )
        self._episodes = []

    def start(self):
        """Resets the environments."""
        self.arena.start()
        self._settle()

    def refresh(self):
        """Makes all actors and their exploration those of the present weights."""
        for member in self.agent.learners.values():
            member.progress = self.agent.progress
        for name, player in self.table.players.items():
            if name in self.agent.learners:
                player.seats.actor.refresh()
            # Of opponents too, who explore as the policy that they are of.
            player.seats.refresh()

    def _settle(self):
        """Records those who learn, and no others."""
        for name, player in self.table.players.items():
            member = self.agent.agents[name]
            if not self.agent.trains(name):
                player.record = None
            elif player.record is None:
                if policies.is_replayed(member):
                    length = member.iteration_length(1)
                    # What was recorded before does not go on.
                    member.buffer.cut()
                    player.record = ReplayedRecord(player.seats, length)
                else:
                    length = member.iteration_length(self.num_envs)
                    player.record = FreshRecord(player.seats, length)

    def collect(self):
        """Plays until some policy that learns has a whole rollout.

        Returns:
            A `MultiAgentRollout`.
        """
        arena = self.arena
        before = arena.env_steps, arena.agent_steps
        self._settle()
        for _ in range(_MOST_STEPS):
            count = len(self.table.players)
            ended = arena.step()
            self._episodes += [record for record, _ in ended]
            for _, episode in ended:
                self.agent.episode_ended(episode)
            if ended or len(self.table.players) > count:
                self._settle()  # Policies have begun to play.
            records = {
                name: player.record
                for name, player in self.table.players.items()
                if player.record is not None
            }
            if any(record.is_due for record in records.values()):
                break
        return MultiAgentRollout(
            {name: record.cut() for name, record in records.items()},
            arena.env_steps - before[0],
            arena.agent_steps - before[1],
        )

    def drain_logs(self):
        """There is nothing to say."""
        return {}

    def drain_episodes(self):
        """Returns the records of the episodes that ended, and forgets them."""
        episodes, self._episodes = self._episodes, []
        return episodes
