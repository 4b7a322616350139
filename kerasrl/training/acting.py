"""Policies in use: building them, compiling them for acting, running episodes."""

import logging
import time

import keras
import numpy as np
import optree

from kerasrl.actors import build_actor, verification
from kerasrl.models import Policy
from kerasrl.rollouts import Collector
from kerasrl.rollouts.rollout import POLICY_INPUTS, TIME_FIELDS
from kerasrl.training import origins, progress
from kerasrl.training.statistics import spread

_EVALUATION_ROLLOUT = 64

_logger = logging.getLogger(__name__)


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
    return policy({name: inputs[name] for name in POLICY_INPUTS}, state=inputs["state"])


def build(agent, kind):
    """Compiles a policy for acting, without TensorFlow where possible.

    Args:
        agent: An `Agent` that was built.
        kind: `"stochastic"` or `"deterministic"` for actions, `"value"` for values.

    Returns:
        An actor; see `kerasrl.actors.build_actor`.
    """
    policy = agent.policy

    def function(inputs):
        if kind == "value":
            return {"values": call_policy(policy, inputs)["values"]}
        return agent.act(inputs, deterministic=kind == "deterministic")

    examples = example_inputs(agent, kind)

    def check_inputs(generator):
        drawn = verification.drawn_rows(examples, generator)
        return {**drawn, **policy.sample_inputs(verification.ROWS, generator)}

    start = time.perf_counter()
    actor = agent.replicas.alone(
        lambda: build_actor(function, examples, name=kind, check_inputs=check_inputs)
    )
    _logger.info(
        "Made the %s actor in %.2f s. It runs in %s%s.",
        kind,
        time.perf_counter() - start,
        actor.backend,
        f": {actor.report['reason']}" if actor.report.get("reason") else "",
    )
    actor.initial_state = optree.tree_map(lambda x: x[0], examples["state"])
    return actor


def example_inputs(agent, kind):
    """Returns inputs of acting in one environment, arrays `[1, ...]`.

    Args:
        agent, kind: As for `build`.
    """
    state = keras.tree.map_structure(keras.ops.convert_to_numpy, agent.acting_state())
    examples = {**agent.policy.example_inputs(1), "state": state}
    if kind == "stochastic":
        examples.update(agent.exploration_inputs(1))
    return examples


def rollout_arrays(agent, rollout):
    """Returns the part of a rollout that the compiled update takes.

    Args:
        agent: The `Agent`; its value function is used at truncations.
        rollout: A `kerasrl.rollouts.Rollout`.

    Returns:
        Dict of NumPy arrays `[T, B, ...]`, among them `"truncation_values"`, float32:
        the value of the final observation where an episode was truncated, else 0. A
        step that was truncated without a final observation is not valid: what follows
        it is not known.
    """
    names = (*TIME_FIELDS, "state", "next_inputs")
    arrays = {name: getattr(rollout, name) for name in names}
    arrays["infos"] = {
        name: values.astype(np.float32)
        for name, values in rollout.infos.items()
        if values.dtype != object
    }
    truncation_values = np.zeros(rollout.rewards.shape, np.float32)
    if agent.uses_values:
        unknown = rollout.truncated & ~rollout.terminated
        if rollout.final is not None:
            unknown[rollout.final["time"], rollout.final["env"]] = False
        arrays["valid"] = rollout.valid & ~unknown
    if rollout.final is not None and agent.uses_values:
        final = rollout.final
        value = agent.value_function()
        value.refresh()
        inputs = {name: final[name] for name in POLICY_INPUTS}
        outputs = value({**inputs, "state": final["state"]}, [])
        truncation_values[final["time"], final["env"]] = outputs["values"]
    arrays["truncation_values"] = truncation_values
    return arrays


def evaluate(agent, envs, episodes, deterministic, seed, verbose):
    """Implements `Agent.evaluate` on environments."""
    actor = agent.actor(deterministic)
    actor.refresh()
    rng = np.random.default_rng(seed)
    seeds = rng.integers(2**31, size=(2, envs.num_envs)).tolist()
    generators = [np.random.default_rng(seed) for seed in seeds[0]]
    collector = Collector(envs, actor, _EVALUATION_ROLLOUT, generators)
    if not deterministic:
        collector.exploration = agent.exploration_inputs(envs.num_envs)
    origins.apply(agent.policy, envs)
    collector.reset(seeds[1])
    wanted = spread(episodes, envs.num_envs)
    records = []
    with progress.Evaluation(agent, episodes, verbose) as shown:
        while any(wanted):
            collector.collect()
            for record in collector.drain_episodes():
                if wanted[record.env_index]:
                    wanted[record.env_index] -= 1
                    records.append(record)
            shown.update(records)
    returns = [record.episode_return for record in records]
    return {
        "return_mean": float(np.mean(returns)),
        "return_std": float(np.std(returns)),
        "length_mean": float(np.mean([record.length for record in records])),
        "episodes": len(records),
    }
