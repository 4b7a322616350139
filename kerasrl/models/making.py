"""The policy of an agent, from what its constructor was given."""

import keras

from kerasrl.models import by_name
from kerasrl.models.policy import Policy

#: Keys of a dict that names a model.
_KEYS = ("model", "model_config")


def make_policy(policy, base, default, options=None):
    """Turns the `policy` argument of an agent into a policy.

    Args:
        policy: `None`, a policy, another Keras model or layer (the trunk of the
            default policy), the name of either, or a dict of arguments of the default
            policy. With the key `"model"`, the name of a policy or trunk, and perhaps
            `"model_config"`, a dict of its arguments, it is that.
        base: Class that the policy must derive from.
        default: Class of the default policy.
        options: Dict of arguments with which the default policy is made.

    Returns:
        An instance of `base`.

    Raises:
        TypeError: It is none of these.
        ValueError: A name or a key is not known.
    """
    options = options or {}
    if isinstance(policy, str):
        policy = {"model": policy}
    if isinstance(policy, dict) and policy.keys() & set(_KEYS):
        policy, own = _make_named(policy, base)
        options = {**options, **own}
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
        "keras.Model to be the trunk of one, the name of either, a dict of arguments "
        f"of kerasrl.models.{default.__name__}, or None for the default."
    )


def check_described(policy, options):
    """Returns a policy, if it is as the arguments of an agent say.

    Args:
        policy: A policy, made by the agent or given to it.
        options: Dict of what was said of it, by the names of its attributes.

    Raises:
        ValueError: It is not.
    """
    for name, value in options.items():
        found = getattr(policy, name, None)
        if found != value:
            raise ValueError(
                f"Received {name}={value!r} with a policy whose {name} is {found!r}. "
                "Both describe the network: leave out the argument."
            )
    return policy


def _make_named(described, base):
    """The policy or trunk that a dict names, and what else it says of the policy."""
    described = dict(described)
    model = {key: described.pop(key) for key in _KEYS if key in described}
    found, config = by_name.find_model(model)
    name = model["model"]
    if isinstance(found, type) and issubclass(found, Policy):
        # Before it is made: another kind of policy takes other arguments.
        _check_base(name, found, base)
    made = by_name.make_model(found, config)
    if isinstance(made, Policy):
        _check_base(name, type(made), base)
        if described:
            raise ValueError(
                f"Received {', '.join(described)} with the model {name!r}, which is a "
                "whole policy. What it takes belongs into model_config."
            )
    return made, described


def _check_base(name, policy_class, base):
    if not issubclass(policy_class, base):
        raise TypeError(
            f"The model {name!r} is a {policy_class.__name__}. Expected a policy that "
            f"derives from kerasrl.models.{base.__name__}, or a layer to be the trunk "
            "of one."
        )
