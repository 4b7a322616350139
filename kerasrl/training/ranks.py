"""What ranks of one training agree on, and where each goes its own way."""

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


def check_plan(agent, plan):
    """Raises a ValueError if ranks are about to do different amounts of work."""
    own = [plan.iteration_steps, plan.epochs, plan.iterations_per_epoch]
    plans = agent.replicas.gather_data(own)
    if any(other != own for other in plans):
        raise ValueError(
            "Ranks differ in steps per iteration, epochs or iterations per epoch: "
            f"{plans}. Pass the same arguments to fit in all of them."
        )


def any_stops(agent, stops=False):
    """Whether any rank stops, or a callback of it did, so that all ranks do."""
    return any(agent.replicas.gather_data(bool(agent.policy.stop_training or stops)))


def is_seed(variable):
    """Whether a variable is the state of one of Keras's random generators."""
    return variable.dtype in ("int64", "uint32") and tuple(variable.shape) == (2,)


def _stride(seed):
    # The first number is the seed, the second a counter.
    return np.array([1_000_003, 0], np.asarray(seed).dtype)
