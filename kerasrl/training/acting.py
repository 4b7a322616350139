"""Policies that act: calling them, and compiling them for it."""

import contextvars
import logging
import time

import keras
import optree
from keras import ops

from kerasrl.actors import build_actor, verification
from kerasrl.models import Policy
from kerasrl.models.noisy_dense import drew_noise
from kerasrl.rollouts.rollout import POLICY_INPUTS
from kerasrl.training import behavior

#: What policies returned in the acting function that is being traced, and whether their
#: layers were noisy.
_CALLED = contextvars.ContextVar("called", default=None)
#: Keys of a state of acting with noise that is held: no policy has the same of its own.
_STATE, _NOISE, _AGE = "kerasrl_policy", "kerasrl_noise", "kerasrl_age"
_logger = logging.getLogger(__name__)


def call_policy(policy, inputs):
    """Calls a policy with those of the inputs of acting that are meant for it."""
    state = policy_state(inputs["state"])
    outputs = policy({name: inputs[name] for name in POLICY_INPUTS}, state=state)
    called = _CALLED.get()
    if called is not None:
        called.append((outputs, drew_noise()))
    return outputs


def records(policy):
    """Whether a policy has something of its own to record of each step."""
    return type(policy).step_extras is not Policy.step_extras


def _act(agent, inputs):
    """Acts with exploration, and adds what the policy has to record."""
    policy = agent.policy
    if not (records(policy) or agent.records_log_probs):
        return agent.act(inputs, deterministic=False)
    token = _CALLED.set([])
    try:
        acted = agent.act(inputs, deterministic=False)
        if not _CALLED.get():  # By an `act` that calls it in another way.
            call_policy(policy, inputs)
        outputs, is_noisy = _CALLED.get()[0]
        extras = dict(policy.step_extras(outputs))
        # How often noise of layers would choose an action nobody knows.
        if agent.records_log_probs and not is_noisy:
            extras |= behavior.log_probs(agent, inputs, outputs, acted["actions"])
    finally:
        _CALLED.reset(token)
    taken = sorted(acted.keys() & extras.keys())
    if taken:
        raise ValueError(
            f"{type(policy).__name__}.step_extras returned {taken}, which "
            f"{type(agent).__name__}.act returns already. Choose other names."
        )
    return {**acted, **extras}


def first_state(policy):
    """Returns the state of acting by `choose` at the start of an episode.

    Args:
        policy: A `Policy` that was built.

    Returns:
        Tree `[1, ...]`: that of the policy, and where noise is held, that noise with
        its age in steps.
    """
    state = policy.get_initial_state(1)
    if policy.held_noise is None:
        return state
    noise = ops.zeros((1, *policy.held_noise.matrix_shape))
    return {_STATE: state, _NOISE: noise, _AGE: ops.zeros((1,), "int32")}


def policy_state(state):
    """Returns the part of a state of acting that is the policy's.

    Rollouts may be of others, whose noise was held or was not.
    """
    is_held = isinstance(state, dict) and set(state) == {_STATE, _NOISE, _AGE}
    return state[_STATE] if is_held else state


def choose(policy, inputs, outputs, distribution, deterministic):
    """Chooses actions from a distribution.

    Args:
        policy: A `Policy`.
        inputs: Dict, the inputs of acting.
        outputs: Dict, what the policy returned for them.
        distribution: The `Distribution` that it described.
        deterministic: Whether to take the mode.

    Returns:
        Dict of `"actions"`, and `"state"` as of `first_state`, `[N, ...]`.
    """
    state = outputs.get("state", ())
    if policy.held_noise is None:
        actions = distribution.mode() if deterministic else distribution.sample()
        return {"actions": actions, "state": state}
    noise, age = inputs["state"][_NOISE], inputs["state"][_AGE]
    if deterministic:
        held = {_STATE: state, _NOISE: noise, _AGE: age}
        return {"actions": distribution.mode(), "state": held}
    anew = ops.equal(age % policy.noise_steps, 0)[:, None, None]
    noise = ops.where(anew, keras.random.normal(ops.shape(noise)), noise)
    unit = policy.held_noise.unit(outputs["noise_features"], noise)
    return {
        "actions": distribution.from_noise(unit),
        "state": {_STATE: state, _NOISE: noise, _AGE: age + 1},
    }


def build(agent, kind, backend="auto"):
    """Compiles a policy for acting, without TensorFlow where possible.

    Args:
        agent: An `Agent` that was built.
        kind: `"stochastic"` or `"deterministic"` for actions, `"value"` for values.
        backend: As for `kerasrl.actors.build_actor`.

    Returns:
        An actor; see `kerasrl.actors.build_actor`.
    """
    policy = agent.policy

    def function(inputs):
        if kind == "value":
            return {"values": call_policy(policy, inputs)["values"]}
        if kind == "deterministic":
            return agent.act(inputs, deterministic=True)
        return _act(agent, inputs)

    examples = example_inputs(agent, kind)

    def check_inputs(generator):
        drawn = verification.drawn_rows(examples, generator)
        return {**drawn, **policy.sample_inputs(verification.ROWS, generator)}

    start = time.perf_counter()
    actor = agent.replicas.alone(
        lambda: build_actor(
            function, examples, backend, name=kind, check_inputs=check_inputs
        )
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
    if kind == "value":
        state = policy_state(state)
    examples = {**agent.policy.example_inputs(1), "state": state}
    if kind == "stochastic":
        examples.update(agent.exploration_inputs(1))
    return examples
