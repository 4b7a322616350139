"""What ranks of one training agree on, and where each goes its own way."""

import types

import numpy as np

from kerasrl import checkpoint


def separate(agent):
    """Gives each rank random numbers of its own, once in the life of an agent.

    Rank 0 has those of an agent without ranks.
    """
    rank = agent.replicas.rank
    if agent.knows_its_rank:
        return
    if rank:
        agent.rng = np.random.Generator(agent.rng.bit_generator.jumped(rank))


def synchronize(agent, initial_epoch):
    """Starts all ranks from the variables of rank 0.

    Args:
        agent: The `Agent`, built.
        initial_epoch: Integer, epoch to start with.

    Returns:
        That of rank 0.
    """
    replicas = agent.replicas
    if replicas.num_ranks == 1:
        return initial_epoch
    everything = [variable for _, variable in checkpoint.variables(agent)]
    # Keras keeps random generators as integers.
    seeds = [v for v in everything if is_seed(v)]
    weights = [v for v in everything if not is_seed(v)]
    replicas.broadcast(weights)
    own_seeds = [np.array(seed) for seed in seeds]
    replicas.broadcast(seeds)
    for seed, own in zip(seeds, own_seeds, strict=True):
        if not agent.knows_its_rank:
            own = np.asarray(seed) + replicas.rank * _stride(seed)
        seed.assign(own)
    agent.knows_its_rank = True
    states = replicas.gather_data([agent.iterations, agent.env_steps, initial_epoch])
    if any(state[:2] != states[0][:2] for state in states):
        raise ValueError(
            "Ranks go on from different points (iterations, environment steps, epoch): "
            f"{states}. Load the same checkpoint in all of them; if its files are of "
            "different times, an earlier one."
        )
    return states[0][2]


def check_plan(agent, num_envs, plan):
    """Raises a ValueError if ranks are about to do different amounts of work."""
    steps = agent.iteration_length(num_envs)
    own = [steps, plan.epochs, plan.iterations_per_epoch]
    plans = agent.replicas.gather_data(own)
    if any(other != own for other in plans):
        raise ValueError(
            "Ranks differ in steps per iteration, epochs or iterations per epoch: "
            f"{plans}. Pass the same arguments to fit in all of them."
        )


class Pool:
    """Puts together what ranks did in an epoch.

    Args:
        agent: The `Agent`.
    """

    def __init__(self, agent):
        self.agent = agent
        self.replicas = agent.replicas
        self.episodes = []
        self._steps = 0

    def add(self, rollout, records):
        """Counts a rollout, and keeps the episodes that ended in it.

        Until the end of the epoch, other ranks are taken to have made as many steps.
        """
        if self.replicas.num_ranks == 1:
            self.agent.env_steps += rollout.num_steps
            self.agent.statistics.add(records)
            return
        self.agent.env_steps += rollout.num_steps * self.replicas.num_ranks
        self._steps += rollout.num_steps
        iteration = self.agent.iterations
        self.episodes += [
            [iteration, float(r.episode_return), int(r.length), dict(r.custom_metrics)]
            for r in records
        ]

    def flush(self):
        """Makes steps and episodes so far those of all ranks, before a checkpoint."""
        self.finish_epoch({})

    def finish_epoch(self, metrics):
        """Makes steps and episodes those of all ranks.

        Args:
            metrics: Dict of floats.

        Returns:
            Dict of their means over ranks.
        """
        replicas, agent = self.replicas, self.agent
        if replicas.num_ranks == 1:
            return metrics
        ranks = replicas.gather_data([self._steps, self.episodes, metrics])
        agent.env_steps += sum(r[0] for r in ranks) - self._steps * replicas.num_ranks
        # As they came: iteration by iteration, not rank by rank.
        episodes = sorted((e for r in ranks for e in r[1]), key=lambda e: e[0])
        agent.statistics.add(
            types.SimpleNamespace(
                episode_return=value, length=length, custom_metrics=custom
            )
            for _, value, length, custom in episodes
        )
        self._steps, self.episodes = 0, []
        return {
            name: float(np.mean([r[2][name] for r in ranks if name in r[2]]))
            for name in metrics
        }

    def stops(self, stop):
        """Whether any rank wants to stop, so that all do."""
        return any(self.replicas.gather_data(bool(stop)))


def is_seed(variable):
    """Whether a variable is the state of one of Keras's random generators."""
    return variable.dtype in ("int64", "uint32") and tuple(variable.shape) == (2,)


def _stride(seed):
    # The first number is the seed, the second a counter.
    return np.array([1_000_003, 0], np.asarray(seed).dtype)
