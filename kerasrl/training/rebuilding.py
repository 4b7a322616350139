"""Whether an agent that is made again from its description is the same.

Keras makes an object again from its `get_config`. One that leaves out an argument
gives back another object without a word: the default takes the argument's place. So
the agent is made again once, before anything depends on it, and compared: what objects
say of themselves, the arguments that they keep, and what the policy computes.
"""

import contextlib
import functools
import inspect
import itertools
import random
import weakref

import gymnasium
import keras
import numpy as np
import optree

from kerasrl import signatures, spaces
from kerasrl.checkpoint import weights

#: Agents that were compared, with the policy they had then.
_COMPARED: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
#: Arguments that every layer has, and Keras keeps.
_COMMON = {"activity_regularizer", "autocast", "dtype", "name", "trainable"}
#: Entries of configurations that Keras makes up as it goes: names, which it counts, the
#: size of the batch that a layer was built with, and how layers were called then. How
#: they are connected shows in what they compute.
_MADE_UP = {
    *("name", "input_layers", "output_layers", "inbound_nodes"),
    *("batch_shape", "build_config", "build_input_shape"),
}
_LIBRARIES = {"keras", "kerasrl"}
_PLAIN = (bool, int, float, str, bytes, type(None))
_ROWS = 4


def trust(agent):
    """Says that an agent needs no comparison: it was made from its description."""
    _COMPARED[agent] = weakref.ref(agent.policy)


def compare(agent, described):
    """Makes an agent again and compares it, once for an agent and its policy.

    Args:
        agent: An `Agent`.
        described: What a checkpoint would say of it, JSON-compatible data, which is
            taken apart.

    Raises:
        ValueError: It could not be made again, or is not the same, naming the class
            and the argument.
    """
    compared = _COMPARED.get(agent)
    if compared is not None and compared() is agent.policy:
        return
    policy, optimizer = agent.policy, agent.policy.optimizer
    classes = dict(_classes([policy, optimizer, *_values(agent)]))
    if isinstance(described["config"].get("policy"), dict):
        # Another optimizer, with slots, that nobody needs.
        described["config"]["policy"].pop("compile_config", None)
    with (
        _unmoved(),
        weights.nameless(),
        keras.saving.custom_object_scope(classes),
    ):
        try:
            twin = type(agent).from_config(described["config"])
            optimizer = keras.saving.deserialize_keras_object(described["optimizer"])
            if policy.observation_space is not None:
                twin.policy.build_for(policy.observation_space, policy.action_space)
        except Exception as error:
            raise ValueError(
                f"The {type(agent).__name__} cannot be saved: made again from its "
                f"get_config, it ends in {type(error).__name__}: {error!s:.300}. "
                f"{_advice(classes)}"
            ) from error
        found = next(_differences(agent, twin, optimizer), None)
        if found is None:
            found = next(_computed_differences(policy, twin.policy), None)
    if found is not None:
        raise ValueError(
            f"The {type(agent).__name__} cannot be saved: made again from its "
            f"get_config, it is not the same. {found}. {_advice(classes)}"
        )
    trust(agent)


def _advice(classes):
    names = ", ".join(sorted({each.__name__ for each in classes.values()}))
    of = f" of {names}" if names else ""
    return (
        f"Define get_config{of} so that it returns every argument of __init__ "
        "(and from_config, if it needs one)."
    )


def _values(agent):
    return [getattr(agent, name) for name in agent.hyperparameters()]


@contextlib.contextmanager
def _unmoved():
    """Leaves the global random generators as they were."""
    states = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


# What objects say of themselves -------------------------------------------------------


def _differences(agent, twin, optimizer):
    seen = set()
    for name in agent.hyperparameters():
        yield from _differ(getattr(agent, name), getattr(twin, name), name, seen)
    yield from _differ(agent.policy.optimizer, optimizer, "optimizer", seen)


def _differ(live, twin, where, seen):
    """Yields how an object and the one made again differ, a text for each."""
    if live is twin or id(live) in seen:
        return
    if _is_plain(live) or _is_plain(twin):
        if not _equal(live, twin):
            yield f"{where} is {live!r:.80}, and comes back as {twin!r:.80}"
    elif isinstance(live, (list, tuple)):
        if not isinstance(twin, (list, tuple)) or len(live) != len(twin):
            yield f"{where} is {live!r:.80}, and comes back as {twin!r:.80}"
            return
        for index, pair in enumerate(zip(live, twin, strict=True)):
            yield from _differ(*pair, f"{where}[{index}]", seen)
    elif isinstance(live, dict):
        if not isinstance(twin, dict) or set(live) != set(twin):
            yield f"{where} is {live!r:.80}, and comes back as {twin!r:.80}"
            return
        for key in live:
            yield from _differ(live[key], twin[key], f"{where}[{key!r}]", seen)
    elif inspect.isfunction(live):
        if getattr(twin, "__code__", None) is not live.__code__:
            yield f"{where} is {live!r:.80}, and comes back as {twin!r:.80}"
    elif _is_object(live):
        seen.add(id(live))
        if type(live) is not type(twin):
            yield f"{where} is a {type(live).__name__}, and comes back as {twin!r:.80}"
        else:
            yield from _differ_as_objects(live, twin, where, seen)


def _differ_as_objects(live, twin, where, seen):
    config, twin_config = _config(live), _config(twin)
    for key, value in config.items():
        if not _equal(value, twin_config.get(key)):
            yield (
                f"{where}, a {type(live).__name__}, has {key}={value!r:.80}, and comes "
                f"back with {key}={twin_config.get(key)!r:.80}"
            )
    kept = _kept(live, config)
    for name, value in _attributes(live).items():
        other = _attributes(twin).get(name)
        if name in kept and (_is_compared(value) or _is_compared(other)):
            yield from _differ(value, other, f"{where}.{name}", seen)
        elif other is not None and _holds_objects(value):
            yield from _differ(value, other, f"{where}.{name}", seen)


def _attributes(live):
    """The attributes of an object that are not the library's bookkeeping.

    What it keeps may be of a user's class, though: a schedule, a regularizer.
    """
    found = {
        name: value
        for name, value in getattr(live, "__dict__", {}).items()
        if name not in _bookkeeping() or (_is_object(value) and _is_own(type(value)))
    }
    if isinstance(live, keras.Model):
        found["layers"] = live.layers
    return found


@functools.cache
def _bookkeeping():
    """Names of the attributes that Keras gives every model and layer."""
    layer, optimizer = keras.layers.Identity(), keras.optimizers.SGD()
    layer.build((1, 1))
    optimizer.build([])
    model = keras.Sequential([keras.Input((1,)), layer])
    functional = keras.Model(model.inputs, model.outputs)
    known = (layer, optimizer, keras.Model(), model, functional)
    return {"built"}.union(*map(vars, known))


def _kept(live, config):
    """Names of the attributes of an object of a user's class that must come back."""
    cls = type(live)
    if not _is_own(cls):
        return set()
    parameters = _parameters(cls)
    # Of models, Keras keeps no arguments, but takes the defaults for them.
    guessed = cls.get_config is keras.Model.get_config and not _keeps(cls)
    left_out = set(parameters) - set(config)
    if parameters and isinstance(live, keras.Model) and guessed:
        left_out = set(parameters)
    if left_out and _from_library(cls, "from_config"):
        # They may be kept under any name.
        return set(_attributes(live))
    return {*parameters, *(f"_{name}" for name in parameters)}


def _keeps(cls):
    """Whether a class of models has Keras keep the arguments of its constructor."""
    from kerasrl.models import Policy

    return issubclass(cls, Policy)


def _parameters(cls):
    """Names of the arguments of a class's constructor, those of parents too."""
    names = signatures.arguments(itertools.takewhile(_is_own, cls.__mro__))
    return [name for name in names if name not in _COMMON]


def _is_own(cls):
    """Whether a class is a user's, of neither Keras nor this library."""
    return cls.__module__.partition(".")[0] not in {*_LIBRARIES, "builtins"}


def _from_library(cls, name):
    """Whether a method is inherited from Keras or this library."""
    owner = next((each for each in cls.__mro__ if name in vars(each)), None)
    return owner is None or not _is_own(owner)


def _is_object(value):
    return hasattr(value, "get_config") and not isinstance(value, type)


def _is_plain(value):
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return isinstance(value, (*_PLAIN, np.ndarray, np.generic))


def _is_compared(value):
    return _is_plain(value) or inspect.isfunction(value)


def _holds_objects(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return any(map(_holds_objects, value))
    return _is_object(value)


def _equal(left, right):
    """Equality of plain data, in which NaN equals NaN and lists equal tuples."""
    if isinstance(left, dict):
        return (
            isinstance(right, dict)
            and set(left) == set(right)
            and all(_equal(left[key], right[key]) for key in left)
        )
    if isinstance(left, (list, tuple)):
        return (
            isinstance(right, (list, tuple))
            and len(left) == len(right)
            and all(map(_equal, left, right))
        )
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        return np.array_equal(left, right)
    return left == right or (left != left and right != right)


def _config(live):
    """What an object says of itself, as plain data without what Keras makes up."""
    try:
        config = keras.saving.serialize_keras_object(live.get_config())
    except Exception:
        return {}  # A part of a class of Keras that is never saved by itself.
    return _without_made_up(config) if isinstance(config, dict) else {}


def _without_made_up(config):
    if isinstance(config, dict):
        return {
            key: _without_made_up(value)
            for key, value in config.items()
            if key not in _MADE_UP
        }
    if isinstance(config, (list, tuple)):
        return [_without_made_up(value) for value in config]
    return config


def _classes(values, seen=None):
    """Yields names and classes of all objects of users' classes within some."""
    seen = set() if seen is None else seen
    for value in values:
        if isinstance(value, dict):
            yield from _classes(value.values(), seen)
        elif isinstance(value, (list, tuple)):
            yield from _classes(value, seen)
        elif _is_object(value) and id(value) not in seen:
            seen.add(id(value))
            if _is_own(type(value)):
                yield keras.saving.get_registered_name(type(value)), type(value)
            yield from _classes(list(getattr(value, "__dict__", {}).values()), seen)


# What policies compute ----------------------------------------------------------------


def _computed_differences(policy, twin):
    """Yields how the outputs of a policy and of the one made again differ."""
    if policy.observation_space is None:
        return
    variables, twins = map(weights.policy_variables, (policy, twin))
    shapes = [[tuple(v.shape) for v in each] for each in (variables, twins)]
    if shapes[0] != shapes[1]:
        yield "The policy " + weights.describe_misfit(*shapes)
        return
    for variable, other in zip(variables, twins, strict=True):
        other.assign(keras.ops.convert_to_numpy(variable))
    for index, (name, result, twin_result) in enumerate(
        zip(("call", "q_values"), _compute(policy), _compute(twin), strict=False)
    ):
        # What is random on its own, outside of Keras, says nothing.
        if not _close(result, twin_result) and _close(result, _compute(policy)[index]):
            yield (
                f"{name} of the {type(policy).__name__} gives other results for the "
                "same weights and inputs"
            )


def _compute(policy):
    """What the methods of a policy return for some inputs, a list of trees."""
    from kerasrl.models import ActionValuePolicy

    rng = np.random.default_rng(0)
    observations = _draw_tree(policy.observation_space, rng)
    inputs = {
        "observations": observations,
        "previous_actions": _draw_tree(policy.action_space, rng, counted=True),
        "previous_rewards": rng.normal(size=_ROWS).astype(np.float32),
    }
    state = keras.tree.map_structure(
        lambda leaf: rng.normal(size=leaf.shape).astype(
            keras.backend.standardize_dtype(leaf.dtype)
        ),
        policy.get_initial_state(_ROWS),
    )
    actions = ()
    if isinstance(policy, ActionValuePolicy) and not policy.is_discrete:
        actions = (np.clip(_draw_tree(policy.action_space, rng), -1.0, 1.0),)
    # In the scope, random generators and the like do not move.
    with keras.StatelessScope():
        results = [_to_arrays(policy(inputs, state=state))]
        if isinstance(policy, ActionValuePolicy):
            results.append(_to_arrays(policy.q_values(observations, *actions)))
    return results


def _to_arrays(tree):
    return keras.tree.map_structure(keras.ops.convert_to_numpy, tree)


def _close(left, right):
    left, right = keras.tree.flatten(left), keras.tree.flatten(right)
    return len(left) == len(right) and all(
        a.shape == b.shape and np.allclose(a, b, 1e-4, 1e-5, equal_nan=True)
        for a, b in zip(left, right, strict=True)
    )


def _draw_tree(space, rng, counted=False):
    """A batch of values of a space; `counted`, choices are counted from zero."""
    examples, structure = optree.tree_flatten(spaces.zeros(space, _ROWS))
    return structure.unflatten(
        _draw(leaf, example, rng, counted)
        for leaf, example in zip(spaces.leaves(space), examples, strict=True)
    )


def _draw(space, example, rng, counted):
    if isinstance(space, gymnasium.spaces.Box):
        values = rng.normal(size=example.shape) * (
            8.0 if example.dtype.kind in "iu" else 1
        )
        return np.clip(values, space.low, space.high).astype(example.dtype)
    count = getattr(space, "nvec", getattr(space, "n", 2))
    if isinstance(space, gymnasium.spaces.MultiBinary):
        count = 2
    start = 0 if counted else getattr(space, "start", 0)
    return (start + np.floor(rng.random(example.shape) * count)).astype(example.dtype)
