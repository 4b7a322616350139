"""What is subtracted of observations, in float64, before they are rounded to float32.

A time in seconds since 1970 is the same for a minute or two once it is a float32. Where
a policy normalizes a float64 space, nothing is lost by moving the origin, so agents
move it to the first observation of their first `fit`, entry by entry where float32
numbers lie too far apart. There it stays, as a weight of the policy: environments, in
workers and in `evaluate` too, and `predict` subtract it where observations come in, and
everything behind that, statistics too, is about the rest.
"""

import keras
import numpy as np
import optree

from kerasrl import action_masks, goals, spaces
from kerasrl.models.encoder import Encoder
from kerasrl.rollouts.checking import LARGEST

#: Entries are shifted where float32 numbers lie further apart: from 16384 on.
_COARSE = 1e-3


def reset(agent, envs, collector, seeds):
    """Starts episodes in the environments of `fit`, shifted as the policy wants them.

    The origin is chosen once in the life of a policy, by rank 0. Environments are then
    reset twice, with the same seeds.

    Args:
        agent: The `Agent`.
        envs: `kerasrl.envs.Environments`.
        collector: The `kerasrl.rollouts.Collector` that acts in them.
        seeds: List of integers, seeds of the environments.
    """
    policy = agent.policy
    apply(policy, envs)
    collector.reset(seeds)
    weights = _weights(policy)
    if all(weight is None for weight in weights):
        return
    current = [_to_list(weight) for weight in weights]
    chosen = current
    if not agent.env_steps and not _has_seen_data(policy):
        leaves = optree.tree_leaves(collector.observations)
        chosen = [
            None if weight is None else _choose(leaf[0]).tolist()
            for weight, leaf in zip(weights, leaves, strict=True)
        ]
    chosen = agent.replicas.gather_data(chosen)[0]
    _refuse_for_goals(agent, chosen)
    if chosen == current:
        return
    for weight, origin in zip(weights, chosen, strict=True):
        if weight is not None:
            weight.assign(np.array(origin, np.float32))
    apply(policy, envs)
    collector.reset(seeds)


def apply(policy, target):
    """Has observations shifted by the origin of a policy.

    Args:
        policy: A `kerasrl.models.Policy`.
        target: `kerasrl.envs.Environments` or `kerasrl.envs.protocol.Observations`.
    """
    arrays = [
        None if weight is None else _to_array(weight).astype(np.float64)
        for weight in _weights(policy)
    ]
    if all(array is None for array in arrays):
        return
    structure = optree.tree_structure(spaces.zeros(policy.observation_space, 1))
    target.set_origins(
        structure.unflatten(
            array if array is not None and array.any() else None for array in arrays
        )
    )


def _refuse_for_goals(agent, origins):
    """Raises a ValueError if goals that are to be exchanged would be shifted."""
    if getattr(agent, "hindsight", None) is None:
        return
    example = spaces.zeros(agent.policy.observation_space, 1)
    for path, origin in zip(optree.tree_paths(example), origins, strict=True):
        if path[0] in goals.KEYS[1:] and np.any(origin or 0.0):
            raise ValueError(
                f"Received {path[0]} so far from zero that normalize_observations "
                "would shift its origin. What is achieved could not become what is "
                "desired. Let the environment subtract a constant of both, or use "
                "float32 for their spaces."
            )


def _weights(policy):
    encoder = getattr(policy, "encoder", None)
    if not isinstance(encoder, Encoder):
        return []
    weights = list(encoder.origins)
    space = policy.observation_space
    if policy.has_action_mask and len(weights) < len(spaces.leaves(space)):
        # The encoder does not get the mask, which is one leaf after those before it.
        before = [space[key] for key in space if key < action_masks.KEY]
        weights.insert(sum(len(spaces.leaves(part)) for part in before), None)
    return weights


def _has_seen_data(policy):
    return any(
        normalizer is not None and _to_array(normalizer.count) > 0
        for normalizer in policy.encoder.normalizers
    )


def _choose(observation):
    """The origin, by a first observation that was rounded to float32."""
    sizes = np.abs(observation)
    usable = sizes <= LARGEST  # Neither NaN nor infinity.
    spacing = np.spacing(np.where(usable, sizes, np.float32(0)))
    return np.where(spacing > _COARSE, observation, np.float32(0))


def _to_list(weight):
    return None if weight is None else _to_array(weight).tolist()


def _to_array(variable):
    # Variables of `tf.distribute` are no arrays, nor floats.
    return keras.ops.convert_to_numpy(variable)
