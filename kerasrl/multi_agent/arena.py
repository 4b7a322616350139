"""Agents act in their environments: who plays whom, step by step."""

import dataclasses
from typing import Any

import numpy as np

from kerasrl.multi_agent.env import Game
from kerasrl.multi_agent.recording import Steps
from kerasrl.rollouts import EpisodeRecord


@dataclasses.dataclass
class MultiAgentEpisode:
    """A running episode of several agents, as mappings and episode hooks see it.

    Args:
        env_index: Integer, which environment.
        index: Integer, how many episodes of that environment came before.
        rng: `numpy.random.Generator` of that environment, for what is drawn of it.
        policies: Dict from agents that were seen to the ids of their policies.
        returns: Dict from agents to the sums of their own rewards so far.
        length: Integer, environment steps so far.
        turn: What the environment said last: `seen`, `rewards`, `ended`, `infos`.
        user_data: Dict for the hooks' own use.
        custom_metrics: Dict of numbers, logged as for one agent.
    """

    env_index: int
    index: int
    rng: Any
    policies: dict = dataclasses.field(default_factory=dict)
    returns: dict = dataclasses.field(default_factory=dict)
    length: int = 0
    turn: Any = None
    user_data: dict = dataclasses.field(default_factory=dict)
    custom_metrics: dict = dataclasses.field(default_factory=dict)

    @property
    def episode_return(self):
        """Sum of the rewards of all agents so far."""
        return sum(self.returns.values())

    def policy_returns(self):
        """Returns a dict from policies to the mean return of their agents."""
        found: dict = {}
        for agent, policy in self.policies.items():
            found.setdefault(policy, []).append(self.returns.get(agent, 0.0))
        return {policy: sum(each) / len(each) for policy, each in found.items()}


class Arena:
    """Environments of several agents, and the policies that act for these.

    Args:
        envs: `MultiEnvironments`.
        find: Function of an agent's id and the `MultiAgentEpisode` that returns the id
            of its policy. Called once for each agent and episode.
        player: Function of the id of a policy and one of an agent that returns its
            `Player`.
        reward: `"own"`, `"sum"` or `"mean"`: what of the rewards of a step each agent
            is told.
        seeds: Pair of lists of E integers, seeds of environments and of episodes.
        listener: As for `kerasrl.rollouts.Collector`, of `MultiAgentEpisode`.
        first_env: Integer, the index of the first of the environments among all.
        begun: List of E integers, how many episodes there were before in each;
            `None` for none.
    """

    def __init__(
        self,
        envs,
        find,
        player,
        reward,
        seeds,
        listener=None,
        first_env=0,
        begun=None,
    ):
        self.envs = envs
        self.find = find
        self.player = player
        self.reward = reward
        self.listener = listener
        self.first_env = first_env
        self._numbers = {agent: k for k, agent in enumerate(envs.agents)}
        self.games = [Game(env, envs.name) for env in envs.envs]
        self.rngs = [np.random.default_rng(seed) for seed in seeds[1]]
        self.env_steps = self.agent_steps = 0
        self._seeds = seeds[0]
        self._begun = list(begun or [0] * len(self.games))
        self.episodes = [None] * len(self.games)
        #: From agents to pairs of a player and a row, for each environment.
        self._seated = [{} for _ in self.games]

    def start(self):
        """Resets all environments."""
        for env, _ in enumerate(self.envs.envs):
            self._begin(env, self._seeds[env])

    def _begin(self, env, seed=None):
        turn = self.games[env].reset(seed)
        episode = MultiAgentEpisode(
            self.first_env + env, self._begun[env], self.rngs[env], turn=turn
        )
        self._begun[env] += 1
        self.episodes[env] = episode
        self._seated[env] = {}
        self._look(env, turn)
        if self.listener is not None:
            self.listener.on_episode_begin(episode)

    def _look(self, env, turn):
        """Seats those who are new, and shows all what they act on next."""
        seated, episode = self._seated[env], self.episodes[env]
        for agent, observation in turn.seen.items():
            if agent not in seated:
                policy = self.find(agent, episode)
                episode.policies[agent] = policy
                player = self.player(policy, agent)
                seated[agent] = player, player.sit(env, episode)
            player, row = seated[agent]
            place = episode.env_index, episode.index, self._numbers[agent]
            player.seats.see(row, observation, (*place, episode.length))

    def step(self):
        """Takes one step in every environment.

        Returns:
            List of pairs of an `EpisodeRecord` and the `MultiAgentEpisode`, of those
            that ended.
        """
        turns = self._act()
        self.env_steps += len(turns)
        complete = {}
        for env, turn in enumerate(turns):
            self._credit(env, turn)
            self._complete(env, turn, complete)
        for player, each in complete.items():
            player.finish(*each)
        records = []
        # Going through environments, which says that they go on where it is watched.
        for env, (_, turn) in enumerate(zip(self.envs.envs, turns, strict=True)):
            episode = self.episodes[env]
            episode.length += 1
            episode.turn = turn
            if not turn.is_over:
                self._look(env, turn)
            if self.listener is not None:
                self.listener.on_episode_step(episode)
            if turn.is_over:
                records.append(self._end(env, turn))
        return records

    def _act(self):
        """Has everybody act who was seen last; returns the turns that follow."""
        asked: dict = {}
        for env in range(len(self.games)):
            for agent in self.episodes[env].turn.seen:
                player, row = self._seated[env][agent]
                asked.setdefault(player, []).append((row, env, agent))
        actions: list = [{} for _ in self.games]
        for player, seats in asked.items():
            rows = np.array([row for row, _, _ in seats])
            chosen = player.act(rows)
            self.agent_steps += len(seats)
            for (_, env, agent), action in zip(seats, chosen, strict=True):
                actions[env][agent] = action
        # So also here.
        stepped = zip(self.envs.envs, self.games, actions, strict=True)
        return [game.step(own) for _, game, own in stepped]

    def _credit(self, env, turn):
        """Adds rewards to the returns of agents, and to what their steps gather."""
        returns = self.episodes[env].returns
        for agent, reward in turn.rewards.items():
            returns[agent] = returns.get(agent, 0.0) + reward
        shared = sum(turn.rewards.values())
        seated = self._seated[env]  # Who lived before the step.
        if self.reward == "mean":
            shared /= max(len(seated), 1)
        for agent, (player, row) in seated.items():
            own = self.reward == "own"
            reward = turn.rewards.get(agent, 0.0) if own else shared
            player.seats.rewards[row] += reward

    def _complete(self, env, turn, complete):
        """Collects the steps that are complete now, by player."""
        seated = self._seated[env]
        for agent in [*turn.seen, *turn.ended]:
            if agent not in seated:
                continue  # Born just now.
            player, row = seated[agent]
            end = turn.ended.get(agent)
            going, ended = complete.setdefault(player, ([], []))
            if end is None:
                going.append(row)
            else:
                ended.append((row, *end))
                del seated[agent]

    def _end(self, env, turn):
        episode = self.episodes[env]
        metrics = {
            f"policy_return_{policy}": value
            for policy, value in episode.policy_returns().items()
        }
        if self.listener is not None:
            self.listener.on_episode_end(episode)
        cut = any(truncated for _, truncated, _ in turn.ended.values())
        record = EpisodeRecord(
            episode.env_index,
            float(episode.episode_return),
            episode.length,
            not cut,
            self.env_steps,
            {**metrics, **episode.custom_metrics},
        )
        self._begin(env)
        return record, episode


class Player:
    """One policy while it plays: where its agents sit, and what is recorded of them.

    Args:
        seats: `Seats`.
        record: `None`, or a record of `recording` that steps are added to.
    """

    def __init__(self, seats, record=None):
        self.seats = seats
        self.record = record

    def sit(self, env, episode):
        """Gives an agent that begins in an environment a row of the seats."""
        return self.seats.sit(env)

    def act(self, rows):
        """Chooses actions in rows of the seats, see `Seats.act`."""
        return self.seats.act(rows)

    def finish(self, going, ended):
        """Takes in steps that are complete.

        Args:
            going: List of rows whose agents are observed again.
            ended: List of tuples of a row, terminated, truncated, and the last
                observation or `None`, of agents that ended.
        """
        seats = self.seats
        if self.record is not None:
            rows = np.array([*going, *(end[0] for end in ended)])
            terminated = np.zeros(len(rows), bool)
            truncated = np.zeros(len(rows), bool)
            finals = {}
            for place, end in enumerate(ended, len(going)):
                terminated[place], truncated[place] = end[1:3]
                seen = end[3]
                finals[end[0]] = None if seen is None else seats.copied(seen)
            self.record.add(Steps(rows, terminated, truncated, finals))
        if going:
            seats.go_on(np.array(going))
        for end in ended:
            seats.waits[end[0]] = False
            seats.leave(end[0])
