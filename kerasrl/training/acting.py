"""Policies that act: calling them, and compiling them for it."""

import logging
import time

import keras
import optree

from kerasrl.actors import build_actor, verification
from kerasrl.rollouts.rollout import POLICY_INPUTS

_logger = logging.getLogger(__name__)


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
