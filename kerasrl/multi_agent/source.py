"""Where the rollouts of several policies come from."""

import dataclasses

import numpy as np

from kerasrl.multi_agent import policies
from kerasrl.multi_agent.hosts import HostedEnvironments, HostedPlay
from kerasrl.multi_agent.table import LocalPlay

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
        places: Dict from ids to lists of int64 `[T, B, 4]`, one for each rollout: the
            index of the environment, of the episode in it, of the agent among
            `possible_agents`, and of the step of the environment; -1 for fillers.
    """

    rollouts: dict
    num_steps: int
    agent_steps: int
    places: dict

    def find_steps(self):
        """Says where each step is, so that those of other agents are found.

        Returns:
            Dict from tuples of an environment, an episode, an agent and a step, as in
            `places`, to tuples of the id of a policy, the number of its rollout, and
            the indices `t` and `b` there.

        Example:

        ```python
        class Partners(kerasrl.callbacks.Callback):
            def on_rollout_end(self, rollout):
                where = rollout.find_steps()
                for (env, episode, agent, step), mine in where.items():
                    theirs = where.get((env, episode, 1 - agent, step))
        ```
        """
        return {
            tuple(places[t, b].tolist()): (name, number, t, b)
            for name, each in self.places.items()
            for number, places in enumerate(each)
            for t, b in np.argwhere(places[..., 0] >= 0).tolist()
        }

    @property
    def rewards(self):
        """float32 `[N]`, those of all steps in it."""
        parts = [
            rollout.rewards[rollout.valid]
            for each in self.rollouts.values()
            for rollout in each
        ]
        return np.concatenate([np.zeros(0, np.float32), *parts])


class MultiAgentSource:
    """Rollouts of several policies that act in the same environments.

    Args:
        agent: The `MultiAgent`.
        envs: `MultiEnvironments`, or `HostedEnvironments` of workers.
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
        seed = int(agent.rng.integers(2**31))
        kind = HostedPlay if isinstance(envs, HostedEnvironments) else LocalPlay
        #: Who plays, here or in workers.
        self.play = kind(agent, envs, seeds, seed, listener)
        self._episodes = []

    def start(self):
        """Resets the environments."""
        for member in self.agent.opponents.values():
            main = self.agent.agents[member.of]
            if main.policy.observation_space is not None:
                # Snapshots may be due before anybody plays against them.
                member.attach(main)
                if not member.snapshots:
                    member.add()
        self.play.start(self._recording())

    def refresh(self):
        """Makes all actors and their exploration those of the present weights."""
        for member in self.agent.learners.values():
            member.progress = self.agent.progress
        self.play.refresh()

    def _recording(self):
        """What is recorded of whom: of those who learn, and no others."""
        found = {}
        for name, member in self.agent.learners.items():
            if not self.agent.trains(name):
                continue
            if policies.is_replayed(member):
                # An update is due for so many steps, of whichever agents.
                lengths = (
                    member.iteration_length(1),
                    member.iteration_length(self.num_envs),
                )
                found[name] = True, *lengths
            else:
                found[name] = False, member.iteration_length(self.num_envs)
        return found

    def collect(self):
        """Plays until some policy that learns has a whole rollout.

        Returns:
            A `MultiAgentRollout`.
        """
        play, recording = self.play, self._recording()
        before, left = play.steps, _MOST_STEPS
        while left and not play.is_due:
            steps = min(left, play.steps_left(recording))
            left -= steps
            for record, episode in play.play(steps):
                self._episodes.append(record)
                self.agent.episode_ended(episode)
        taken = [now - then for now, then in zip(play.steps, before, strict=True)]
        rollouts = play.cut()
        places = {
            name: [rollout.infos.pop("places") for rollout in each]
            for name, each in rollouts.items()
        }
        return MultiAgentRollout(rollouts, *taken, places)

    def drain_logs(self):
        """There is nothing to say."""
        return {}

    def drain_episodes(self):
        """Returns the records of the episodes that ended, and forgets them."""
        episodes, self._episodes = self._episodes, []
        return episodes
