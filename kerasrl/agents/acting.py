"""Policies in use: building them, compiling them for acting, running episodes."""

import keras
import numpy as np
import optree

from kerasrl import spaces
from kerasrl.agents.statistics import spread
from kerasrl.envs.spaces import ActionConverter
from kerasrl.models import ActorCritic, Policy
from kerasrl.rollouts import Collector, build_actor

_EVALUATION_ROLLOUT = 64


def make_policy(policy):
    """Turns the `policy` argument of an agent into a `Policy`.

    Args:
        policy: `None`, a `Policy`, another Keras model or layer (the trunk of an
            `ActorCritic`), or a dict of arguments of `ActorCritic`.

    Returns:
        A `Policy`.

    Raises:
        TypeError: It is none of these.
    """
    if policy is None:
        return ActorCritic()
    if isinstance(policy, Policy):
        return policy
    if isinstance(policy, dict):
        return ActorCritic(**policy)
    if isinstance(policy, keras.Layer):
        return ActorCritic(trunk=policy)
    raise TypeError(
        f"Received policy={policy!r}. Expected a kerasrl.models.Policy, a keras.Model "
        "to be the trunk of one, a dict of arguments of kerasrl.models.ActorCritic, or "
        "None for the default."
    )


def build(policy, kind):
    """Compiles a policy for acting, without TensorFlow where possible.

    Args:
        policy: A `Policy` with weights.
        kind: `"stochastic"` or `"deterministic"` for actions, `"value"` for values.

    Returns:
        An actor; see `kerasrl.rollouts.build_actor`.
    """

    def function(inputs):
        outputs = policy(
            {name: value for name, value in inputs.items() if name != "state"},
            state=inputs["state"],
        )
        if kind == "value":
            return {"values": outputs["values"]}
        distribution = policy.distribution(outputs)
        deterministic = kind == "deterministic"
        actions = distribution.mode() if deterministic else distribution.sample()
        return {"actions": actions, "state": outputs.get("state", ())}

    initial_state = keras.tree.map_structure(
        keras.ops.convert_to_numpy, policy.get_initial_state(1)
    )
    actor = build_actor(
        function, {**policy.example_inputs(1), "state": initial_state}, name=kind
    )
    actor.initial_state = optree.tree_map(lambda x: x[0], initial_state)
    return actor


def rollout_arrays(agent, rollout):
    """Returns the part of a rollout that the compiled update takes.

    Args:
        agent: The `Agent`; its value function is used at truncations.
        rollout: A `kerasrl.rollouts.Rollout`.

    Returns:
        Dict of NumPy arrays `[T, B, ...]`, among them `"truncation_values"`, float32:
        the value of the final observation where an episode was truncated, else 0.
    """
    names = (
        "observations",
        "actions",
        "rewards",
        "terminated",
        "truncated",
        "valid",
        "episode_starts",
        "previous_actions",
        "previous_rewards",
        "state",
        "next_inputs",
    )
    arrays = {name: getattr(rollout, name) for name in names}
    truncation_values = np.zeros(rollout.rewards.shape, np.float32)
    if rollout.final is not None and agent.uses_values:
        final = rollout.final
        value = agent.value_function()
        value.refresh()
        inputs = {
            name: final[name]
            for name in ("observations", "previous_actions", "previous_rewards")
        }
        outputs = value({**inputs, "state": final["state"]}, [])
        truncation_values[final["time"], final["env"]] = outputs["values"]
    arrays["truncation_values"] = truncation_values
    return arrays


def predict(agent, observations, state, previous, deterministic, seed):
    """Implements `Agent.predict`; `previous` is a pair of actions and rewards."""
    policy = agent.policy
    if policy.observation_space is None:
        raise ValueError(
            "The agent has no weights yet. Call fit, build or kerasrl.load first."
        )
    example = spaces.zeros(policy.observation_space, 1)
    expected = optree.tree_structure(example)
    if optree.tree_structure(observations) != expected:
        raise ValueError(
            f"Received observations of structure {optree.tree_structure(observations)}."
            f" Expected {expected}, as in {policy.observation_space}."
        )

    def convert(value, like):
        value = np.asarray(value)
        if value.shape[1:] != like.shape[1:] or value.ndim != like.ndim:
            raise ValueError(
                f"Received observations of shape {value.shape}. Expected "
                f"[N, {', '.join(map(str, like.shape[1:]))}]: a batch, so index a "
                "single observation with [None]."
            )
        return value.astype(like.dtype, copy=False)

    observations = optree.tree_map(convert, observations, example)
    num_rows = len(optree.tree_leaves(observations)[0])
    inputs = policy.example_inputs(num_rows)
    inputs["observations"] = observations
    for name, value in zip(
        ("previous_actions", "previous_rewards"), previous, strict=True
    ):
        if value is not None:
            inputs[name] = optree.tree_map(
                lambda new, like: np.asarray(new, like.dtype).reshape(like.shape),
                value,
                inputs[name],
            )
    if state is None:
        state = policy.get_initial_state(num_rows)
        state = keras.tree.map_structure(keras.ops.convert_to_numpy, state)
    actor = agent.actor(deterministic)
    actor.refresh()
    seeds = np.random.SeedSequence(seed).spawn(num_rows)
    generators = [np.random.default_rng(child) for child in seeds]
    noise = [values[0] for values in actor.draw(generators, 1)]
    outputs = actor({**inputs, "state": state}, noise)
    actions = ActionConverter(policy.action_space).batch(outputs["actions"])
    return (actions, outputs["state"]) if policy.is_recurrent else actions


def evaluate(agent, envs, episodes, deterministic, seed):
    """Implements `Agent.evaluate` on environments."""
    actor = agent.actor(deterministic)
    actor.refresh()
    rng = np.random.default_rng(seed)
    seeds = rng.integers(2**31, size=(2, envs.num_envs)).tolist()
    generators = [np.random.default_rng(seed) for seed in seeds[0]]
    collector = Collector(envs, actor, _EVALUATION_ROLLOUT, generators)
    collector.reset(seeds[1])
    wanted = spread(episodes, envs.num_envs)
    records = []
    while any(wanted):
        collector.collect()
        for record in collector.drain_episodes():
            if wanted[record.env_index]:
                wanted[record.env_index] -= 1
                records.append(record)
    returns = [record.episode_return for record in records]
    return {
        "return_mean": float(np.mean(returns)),
        "return_std": float(np.std(returns)),
        "length_mean": float(np.mean([record.length for record in records])),
        "episodes": len(records),
    }
