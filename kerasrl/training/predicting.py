"""Actions for observations that users have, outside of any environment."""

import numpy as np
import optree

from kerasrl import action_masks, checks, spaces
from kerasrl.envs.actions import ActionConverter
from kerasrl.envs.protocol import Misfit, Observations, bound, shown
from kerasrl.training import origins


def predict(agent, observations, state, previous, deterministic, seed):
    """Implements `Agent.predict`; `previous` is a pair of actions and rewards."""
    policy = agent.policy
    if policy.observation_space is None:
        raise ValueError(
            "The agent has no weights yet. Call fit, build or kerasrl.load first."
        )
    deterministic = checks.flag("deterministic", deterministic)
    seed = checks.seed(seed)
    converter = ActionConverter(policy.action_space)
    checked = Observations(policy.observation_space)
    origins.apply(policy, checked)
    observations, num_rows = _convert(checked, observations)
    if policy.has_action_mask:
        _check_mask(policy, observations[action_masks.KEY])
    inputs = policy.example_inputs(num_rows)
    inputs["observations"] = observations
    actions, rewards = previous
    if actions is not None:
        inputs["previous_actions"] = _previous_actions(converter, actions, num_rows)
    if rewards is not None:
        inputs["previous_rewards"] = _previous_rewards(rewards, num_rows)
    actor = agent.actor(deterministic)
    actor.refresh()
    initial_state = optree.tree_map(
        lambda x: np.repeat(x[None], num_rows, axis=0), actor.initial_state
    )
    if state is None:
        state = initial_state
    elif _shapes(state) != _shapes(initial_state):
        raise ValueError(
            f"Received a state of shapes {_shapes(state)[0]}. Expected "
            f"{_shapes(initial_state)[0]}: what the last call of predict returned for "
            "as many observations, or None where episodes start."
        )
    if not deterministic:
        inputs.update(agent.exploration_inputs(num_rows))
    seeds = np.random.SeedSequence(seed).spawn(num_rows)
    generators = [np.random.default_rng(child) for child in seeds]
    noise = [values[0] for values in actor.draw(generators, 1)]
    outputs = actor({**inputs, "state": state}, noise)
    actions = converter.batch(outputs["actions"])
    return (actions, outputs["state"]) if policy.is_recurrent else actions


def _check_mask(policy, mask):
    counts = action_masks.counts_of_options(policy.action_space)
    empty = np.flatnonzero(~action_masks.has_legal(mask, counts))
    if len(empty):
        raise ValueError(
            f"Received an action mask that leaves no action to take, in row {empty[0]}:"
            f" {mask[empty[0]].tolist()}. Expected: a 1 for each choice at least."
        )


def _convert(checked, observations):
    """Observations in the dtypes that policies take, and how many there are.

    Takes whatever environments may return: any mapping for Dict, also with more keys,
    any sequence for Tuple, numbers of other dtypes that the space's can hold.
    """
    space = checked.space
    try:
        parts = checked.parts(observations)
    except Misfit as misfit:
        raise ValueError(
            f"The observations do not have the structure of {space}. {misfit}"
        ) from None
    sizes = []
    for leaf, part in zip(checked.leaves, parts, strict=True):
        try:
            shape = np.shape(part)
        except (TypeError, ValueError):
            raise ValueError(
                f"Received at `{leaf.name}` observations that make no array: "
                f"{shown(part)}. Expected rows of equal shape."
            ) from None
        if len(shape) != len(leaf.shape) + 1 or shape[1:] != leaf.shape:
            expected = ", ".join(["N", *map(str, leaf.shape)])
            raise ValueError(
                f"Received at `{leaf.name}` observations of shape {shape}. Expected "
                f"[{expected}]: a batch, so index a single observation with [None]."
            )
        sizes.append(shape[0])
    if len(set(sizes)) > 1:
        named = {
            leaf.name: size for leaf, size in zip(checked.leaves, sizes, strict=True)
        }
        raise ValueError(
            "Received observations of which the parts have different numbers of rows: "
            f"{named}. Expected the same number N in all."
        )
    converted = spaces.zeros(space, sizes[0])
    for leaf, row, part in zip(
        checked.leaves, checked.list(converted), parts, strict=True
    ):
        try:
            row[...] = leaf.fit(part, row.shape)
        except Misfit as misfit:
            raise ValueError(
                f"Received at `{leaf.name}`: {misfit}. Expected observations of {leaf}."
            ) from None
        outside = leaf.outside(row) if leaf.exact else None
        if outside is not None:
            raise ValueError(
                f"Received at `{leaf.name}`: {shown(row[outside][0])}. Expected: from "
                f"{bound(leaf.low)} to {bound(leaf.high)}."
            )
    return converted, sizes[0]


def _shapes(tree):
    return optree.tree_map(np.shape, tree), optree.tree_structure(tree)


def _previous_actions(converter, actions, num_rows):
    try:
        converted = converter.inverse(actions)
    except ValueError as error:
        raise ValueError(
            f"`previous_actions` must be actions as `predict` returns them. {error} "
            "Where an episode starts, give None for all rows, or the lowest choice and "
            "zeros for some."
        ) from None
    sizes = {len(leaf) for leaf in optree.tree_leaves(converted)}
    if sizes != {num_rows}:
        raise ValueError(
            f"Received previous_actions with {sorted(sizes)} rows for {num_rows} "
            "observations. Expected as many."
        )
    return converted


def _previous_rewards(rewards, num_rows):
    converted = np.asarray(rewards)
    if converted.shape != (num_rows,) or converted.dtype.kind not in "fiub":
        raise ValueError(
            f"Received previous_rewards = {shown(rewards, converted)}. Expected: one "
            f"number for each of {num_rows} observations."
        )
    return converted.astype(np.float32)
