"""Policies in use: building them, compiling them for acting, running episodes."""

import keras
import numpy as np
import optree

from kerasrl import spaces
from kerasrl.agents.statistics import spread
from kerasrl.envs.spaces import ActionConverter
from kerasrl.models import Policy
from kerasrl.rollouts import Collector, build_actor

#: What a policy is given in every step, besides its state.
INPUTS = ("observations", "previous_actions", "previous_rewards")

_EVALUATION_ROLLOUT = 64


def make_policy(policy, base, default, options=None):
    """Turns the `policy` argument of an agent into a policy.

    Args:
        policy: `None`, a policy, another Keras model or layer (the trunk of the
            default policy), or a dict of arguments of the default policy.
        base: Class that the policy must derive from.
        default: Class of the default policy.
        options: Dict of arguments with which the default policy is made.

    Returns:
        An instance of `base`.

    Raises:
        TypeError: It is none of these.
    """
    options = options or {}
    if isinstance(policy, base):
        return policy
    if policy is None:
        return default(**options)
    if isinstance(policy, dict):
        return default(**{**options, **policy})
    if isinstance(policy, keras.Layer) and not isinstance(policy, Policy):
        return default(trunk=policy, **options)
    raise TypeError(
        f"Received policy={policy!r}. Expected a kerasrl.models.{base.__name__}, a "
        "keras.Model to be the trunk of one, a dict of arguments of "
        f"kerasrl.models.{default.__name__}, or None for the default."
    )


def call_policy(policy, inputs):
    """Calls a policy with those of the inputs of acting that are meant for it."""
    return policy({name: inputs[name] for name in INPUTS}, state=inputs["state"])


def build(agent, kind):
    """Compiles a policy for acting, without TensorFlow where possible.

    Args:
        agent: An `Agent` that was built.
        kind: `"stochastic"` or `"deterministic"` for actions, `"value"` for values.

    Returns:
        An actor; see `kerasrl.rollouts.build_actor`.
    """
    policy = agent.policy

    def function(inputs):
        if kind == "value":
            return {"values": call_policy(policy, inputs)["values"]}
        return agent.act(inputs, deterministic=kind == "deterministic")

    initial_state = agent.acting_state()
    initial_state = keras.tree.map_structure(keras.ops.convert_to_numpy, initial_state)
    examples = {**policy.example_inputs(1), "state": initial_state}
    if kind == "stochastic":
        examples.update(agent.exploration_inputs(1))
    actor = agent.replicas.alone(lambda: build_actor(function, examples, name=kind))
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
    if optree.tree_is_leaf(example):
        observations = np.asarray(observations)
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
    actor = agent.actor(deterministic)
    actor.refresh()
    if state is None:
        state = optree.tree_map(
            lambda x: np.repeat(x[None], num_rows, axis=0), actor.initial_state
        )
    if not deterministic:
        inputs.update(agent.exploration_inputs(num_rows))
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
    if not deterministic:
        collector.exploration = agent.exploration_inputs(envs.num_envs)
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
