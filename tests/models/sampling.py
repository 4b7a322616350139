"""Inputs of networks, drawn from the spaces they were built for."""

import keras
import numpy as np


def sample_inputs(policy, num_rows, seed=0):
    """Draws a batch of observations, actions and rewards of the policy's spaces."""
    policy.observation_space.seed(seed)
    policy.action_space.seed(seed)
    inputs = policy.example_inputs(num_rows)
    rows = [
        (policy.observation_space.sample(), policy.action_space.sample())
        for _ in range(num_rows)
    ]
    observations, actions = (
        keras.tree.map_structure(lambda *leaves: np.stack(leaves), *column)
        for column in zip(*rows, strict=True)
    )
    like = inputs["observations"]
    inputs["observations"] = keras.tree.map_structure(
        lambda x, y: x.astype(y.dtype), _as_tree(observations, like), like
    )
    inputs["previous_actions"] = actions
    rng = np.random.default_rng(seed)
    inputs["previous_rewards"] = rng.normal(size=num_rows).astype(np.float32)
    return inputs


def _as_tree(value, like):
    flat = keras.tree.flatten(value)
    return keras.tree.pack_sequence_as(like, flat)
