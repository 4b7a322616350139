"""Algorithms made of functions: what of an agent class can be replaced by one.

`with_updates` makes a class in which functions take the place of methods. They are
checked by a batch of zeros when an agent is built, and checkpoints hold their names.
"""

import functools
import inspect
import sys
import weakref

import keras
import tensorflow as tf

from kerasrl import checks
from kerasrl.training import beside

#: Arguments of `with_updates` that are functions, and the methods they become.
FUNCTIONS = {
    "act": "act",
    "exploration_inputs": "exploration_inputs",
    "targets": "targets",
    "sample": "sample",
    "update": "update",
    "loss": "loss",
    "critic_loss": "critic_loss",
    "parts": "parts",
    "optimizer": "default_optimizer",
    "gradients": "step_gradients",
    "metrics": "step_metrics",
    "after_step": "after_step",
}
#: Those that are given dicts, and how these are called.
_ARGUMENTS = {
    "act": ("inputs",),
    "targets": ("rollout",),
    "update": ("batch", "settings"),
    "loss": ("batch", "outputs", "settings"),
    "critic_loss": ("batch", "outputs", "settings"),
    "metrics": ("batch", "outputs", "settings"),
    "after_step": ("batch",),
}
#: Arguments that are attributes of the class.
ATTRIBUTES = (
    *("default_policy", "keeps_distribution", "kinds", "scheduled", "uses_values"),
)
#: Those of them that checkpoints tell: without the same, training goes on otherwise.
_KEPT = ("keeps_distribution", "scheduled", "uses_values")
#: Agents whose functions were run on a batch of zeros.
_CHECKED: weakref.WeakSet = weakref.WeakSet()
#: Those of which this is being done, and which functions were called.
_TRYING: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
#: Functions that every update calls, unless another function has taken its place.
_CALLED = ("targets", "loss", "critic_loss", "gradients", "metrics", "after_step")
#: Functions that are given a batch or rollout first, and pass it on to nobody.
_OPENED = ("targets", "loss", "critic_loss", "metrics", "after_step")


class Replaceable:
    """The side of `kerasrl.Agent` that functions can take the place of."""

    #: Functions that `with_updates` was given, by the names of its arguments.
    functions: dict = {}
    #: Names of the attributes that it was given.
    attributes: tuple = ()

    @classmethod
    def with_updates(cls, name, *, defaults=None, **updates):
        """Makes an agent class in which functions take the place of methods.

        Each is called as the method is, with the agent in front. What it replaces is
        still there: `kerasrl.PPO.loss(agent, batch, outputs, settings)`.

        | argument | called with | returns |
        |---|---|---|
        | `act` | `inputs, deterministic` | dict of actions, state and extras |
        | `exploration_inputs` | `num_envs` | dict of arrays `[B, ...]` |
        | `targets` | `rollout` | dict to add to the batch; on-policy |
        | `sample` | `num_batches` | dict of batches `[K, N, ...]`; off-policy |
        | `update` | as the `update` of the class | dict of scalars |
        | `loss` | `batch, outputs, settings` | scalar, and dict of scalars |
        | `critic_loss` | as `loss` | the same, of critics alone; TD3 |
        | `parts` | nothing | dict of lists of variables |
        | `optimizer` | nothing | a Keras optimizer, if `compile` is given none |
        | `gradients` | `gradients, variables` | the gradients to apply |
        | `metrics` | `batch, outputs, settings` | dict of further scalars to log |
        | `after_step` | `batch` | nothing; it may assign to variables |

        The methods of the base classes, and `step_gradients`, `step_metrics` and
        `after_step` say more. When an agent is built, all of them are run on a batch of
        zeros: a key that is not there is named then, and not after the first rollout.

        The class is registered with Keras as `"agents>name"`. Checkpoints hold that
        name and those of the functions, and no code: to load one, call `with_updates`
        with functions of the same names first. `save` refuses functions that cannot be
        found by their name, such as a lambda.

        Args:
            name: Name of the class, such as `"MyPPO"`.
            defaults: Dict of values of hyperparameters in place of their defaults, and
                of new hyperparameters, attributes that functions may read.
            **updates: Functions as in the table, or the class attributes
                `default_policy`, `uses_values`, `keeps_distribution`, `scheduled`
                and `kinds`.

        Returns:
            A subclass of this class.

        Raises:
            TypeError: There is no such argument for this class, or a function is none.
            ValueError: The name is no name of a class.

        Example:

        ```python
        def loss(agent, batch, outputs, settings):
            loss, metrics = kerasrl.PPO.loss(agent, batch, outputs, settings)
            size = keras.ops.mean(keras.ops.square(outputs["values"]))
            return loss + agent.value_decay * size, {**metrics, "value_size": size}

        Decayed = kerasrl.PPO.with_updates(
            "Decayed", loss=loss, defaults={"gamma": 0.98, "value_decay": 1e-3}
        )
        Decayed().fit("CartPole-v1", steps=100_000)
        ```
        """
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(
                f"Received name={name!r}. Expected the name of a class, such as "
                "'MyPPO'."
            )
        functions, namespace = (
            {},
            {"__module__": cls.__module__, "__doc__": cls.__doc__},
        )
        defaults = checks.mapping("defaults", defaults, optional=True) or {}
        _refuse_taken(cls, defaults)
        for key, value in updates.items():
            method = FUNCTIONS.get(key)
            if key in ATTRIBUTES:
                namespace[key] = _attribute(cls, key, value, defaults)
            elif method is None or not hasattr(cls, method):
                known = [k for k, v in FUNCTIONS.items() if hasattr(cls, v)]
                raise TypeError(
                    f"{cls.__name__}.with_updates has no argument {key!r}. "
                    f"{checks.nearest(key, ['defaults', *known, *ATTRIBUTES])}"
                )
            elif not callable(value):
                raise TypeError(
                    f"Received {key}={value!r}. Expected a function that is called as "
                    f"{cls.__name__}.{method}, with the agent in front."
                )
            else:
                functions[key] = value
                namespace[method] = _method(key, value)
        namespace["functions"] = {**cls.functions, **functions}
        given = [key for key in ATTRIBUTES if key in updates]
        namespace["attributes"] = (*cls.attributes, *given)
        if functions:
            first = next(iter(functions.values()))
            namespace["__module__"] = getattr(first, "__module__", cls.__module__)
        if defaults:
            namespace["__init__"] = _constructor(cls, defaults)

        def build(self, observation_space, action_space):
            cls.build(self, observation_space, action_space)
            self.check_functions()

        namespace["build"] = functools.wraps(cls.build)(build)
        made = type(name, (cls,), namespace)
        return keras.saving.register_keras_serializable("agents", name)(made)

    def step_gradients(self, gradients, variables):
        """Changes the gradients of a step before they are clipped. Compiled.

        Args:
            gradients: List of tensors, means over replicas, in no scale.
            variables: List of the variables that they are of.

        Returns:
            List of as many tensors of the same shapes. Here, the same.
        """
        return gradients

    def step_metrics(self, batch, outputs, settings):
        """Returns further scalars to log of each gradient step. Compiled.

        Args:
            batch, outputs, settings: As for `loss`.

        Returns:
            Dict of scalars. Here, empty.
        """
        return {}

    def after_step(self, batch):
        """Called after the optimizers have taken a step. Compiled; here, nothing.

        Args:
            batch: As for `loss`, of this rank. Where there are several, what is
                assigned should depend on weights alone: ranks would differ.
        """

    def check_functions(self):
        """Runs functions that were given on a batch of zeros, once.

        Raises:
            ValueError: One looks up what is not there.
        """
        # Line by line, mistakes show where they are made.
        if self in _CHECKED or self.policy.run_eagerly:
            return
        with self.replicas.scope(), self.replicas.summing():
            example = self.example_update()
            if example is not None:
                function, inputs = example
                traced = tf.function(function, autograph=False)
                _TRYING[self] = called = set()
                try:
                    traced.get_concrete_function(*inputs)
                    _refuse_unused(type(self), called)
                except _NotToldYetError:
                    pass  # Training will tell.
                finally:
                    del _TRYING[self]
        _CHECKED.add(self)

    def example_update(self):
        """Returns what is compiled for an update, and an example of what it is given.

        Returns:
            Tuple of a function and a tuple of its arguments, trees of arrays of zeros;
            or `None` if there is no example.
        """


class _NotToldYetError(KeyError):
    """A function asks for what only environments and rollouts will tell."""


class _Open(dict):
    """A dict that will have more entries than it has yet."""

    def __missing__(self, key):
        raise _NotToldYetError(key)


def _refuse_unused(cls, called):
    for key in cls.functions:
        if key in _CALLED and key not in called:
            raise ValueError(
                f"The {key} function of {cls.__name__} is never called: its update "
                "takes no step that does. Drop it, or let update call "
                "kerasrl.training.gradients.gradient_step or the update of the class "
                "that with_updates was called on."
            )


def _opened(value):
    """What a function is given in a trial: infos and extras may hold anything."""
    if not isinstance(value, dict):
        return value
    parts = {key: _Open(value.get(key, {})) for key in ("infos", "extras")}
    return {**value, **parts}


def trust(agent):
    """Says that the functions of an agent need no check: it was trained with them."""
    _CHECKED.add(agent)


def _method(key, function):
    """A method that calls a function, and says which key it misses."""

    @functools.wraps(function)
    def method(self, *args, **kwargs):
        if self in _TRYING:
            _TRYING[self].add(key)
        if self in _TRYING and key in _OPENED:
            args = (_opened(args[0]), *args[1:])
        try:
            return function(self, *args, **kwargs)
        except _NotToldYetError:
            raise
        except KeyError as error:
            if error.args[:1] == (beside.OFFLINE,) and self in _TRYING:
                raise _NotToldYetError(beside.OFFLINE) from None  # By `fit` alone.
            problem = _missing_key(error, self, key, args)
            if problem is None:
                raise
            raise ValueError(problem) from error

    return method


def _missing_key(error, agent, key, args):
    """What to say of a key that a function looked up, or `None`."""
    missing = error.args[0] if error.args else None
    given = {}
    for name, value in zip(_ARGUMENTS.get(key, ()), args, strict=False):
        if isinstance(value, dict):
            given[name] = list(value)
            for part in ("extras", "infos"):
                if isinstance(value.get(part), dict):
                    given[f"{name}[{part!r}]"] = list(value[part])
    if not isinstance(missing, str) or all(missing in keys for keys in given.values()):
        return None
    has_it = [name for name, keys in given.items() if missing in keys]
    near = checks.nearest(missing, {each for keys in given.values() for each in keys})
    hint = near if near.startswith("Did you mean") else ""
    if has_it:
        hint = f"It is in {has_it[0]}."
    listed = "; ".join(
        f"{name}: {', '.join(map(str, keys)) or 'nothing'}"
        for name, keys in given.items()
    )
    return (
        f"The {key} function of {type(agent).__name__} looked up {missing!r}, which is "
        f"not there. {hint} What it is given: {listed}."
    )


def _refuse_taken(cls, defaults):
    """Raises if a new hyperparameter has the name of something else."""
    for name in defaults:
        if name not in cls.hyperparameters() and hasattr(cls, name):
            raise ValueError(
                f"Received the default {name!r}, which is no hyperparameter of "
                f"{cls.__name__}, but a method or attribute. Choose another name."
            )


def _attribute(cls, key, value, defaults):
    """The value of an attribute of the class to be made."""
    if key == "kinds":
        return checks.mapping("kinds", value)
    if key != "scheduled":
        return value
    value = checks.names("scheduled", value)
    known = {*cls.hyperparameters(), *defaults}
    for name in value:
        if name not in known:
            raise ValueError(
                f"Received {name!r} in scheduled, which is no hyperparameter. "
                f"{checks.nearest(name, known)}"
            )
    # `loss` of the class looks up the values of its own.
    return tuple(dict.fromkeys((*cls.scheduled, *value)))


def _constructor(cls, defaults):
    """A constructor with other defaults, and with arguments that `cls` has not."""
    known = cls.hyperparameters()
    new = [name for name in defaults if name not in known]
    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    for name, default in {**_defaults(cls), **defaults}.items():
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters.append(inspect.Parameter(name, kind, default=default))
    signature = inspect.Signature(parameters)

    def __init__(self, *args, **kwargs):
        given = signature.bind_partial(self, *args, **kwargs).arguments
        given.pop("self")
        given = {**defaults, **given}
        own = {name: given.pop(name) for name in new}
        cls.__init__(self, **given)
        for name, value in own.items():
            if name in vars(self):
                raise ValueError(
                    f"Received the default {name!r}, which is no hyperparameter of "
                    f"{cls.__name__}, but its state. Choose another name."
                )
            setattr(self, name, value)

    __init__.__signature__ = signature
    return __init__


def _nothing():
    """Stands for the constructor of a class that defines none."""


def _defaults(cls):
    """The defaults of the constructor of a class, those that parents have too."""
    found = {}
    for name in cls.hyperparameters():
        for each in cls.__mro__:
            constructor = vars(each).get("__init__")
            parameters = (
                inspect.signature(constructor).parameters if constructor else ()
            )
            if name in parameters:
                found[name] = parameters[name].default
                break
    return found


def describe(agent):
    """Returns what `with_updates` made an agent's class of, in names and data.

    Args:
        agent: An `Agent`.

    Returns:
        Dict from arguments of `with_updates` to names of functions, and to the values
        of attributes; empty for other classes.

    Raises:
        ValueError: One has no name by which it could be found, or the class's own name
            was given to another.
    """
    cls = type(agent)
    if not cls.functions and not cls.attributes:
        return {}
    registered = keras.saving.get_registered_name(cls)
    if keras.saving.get_registered_object(registered) is not cls:
        raise ValueError(
            f"The {cls.__name__} cannot be saved: another class was registered as "
            f"{registered!r} after it. Give with_updates different names."
        )
    described = {key: _name(cls, key, value) for key, value in cls.functions.items()}
    return {**described, **{key: _plain(cls, key) for key in _KEPT}}


def refuse_others(agent_class, described):
    """Raises if a class is made of other functions than a checkpoint says.

    Args:
        agent_class: Subclass of `Agent`.
        described: What `describe` returned when it was saved.

    Raises:
        ValueError: Naming the first that differs.
    """
    for key in _KEPT:
        present = _plain(agent_class, key)
        # Checkpoints of before do not tell.
        if described.get(key, present) != present:
            raise ValueError(
                f"It was saved by a {agent_class.__name__} with "
                f"{key}={described[key]!r}, which has {present!r} here. Call "
                "with_updates with the same."
            )
    for key in {**described, **agent_class.functions}:
        if key in _KEPT:
            continue
        received, present = described.get(key), agent_class.functions.get(key)
        present = None if present is None else _name(agent_class, key, present)
        # What ran as a script may be imported now.
        if received != present and (
            None in (received, present)
            or "__main__" not in (received.split(":")[0], present.split(":")[0])
            or received.split(":")[1:] != present.split(":")[1:]
        ):
            raise ValueError(
                f"It was saved with {received} as the {key} function of "
                f"{agent_class.__name__}, which has {present} here. Checkpoints hold "
                "names and no code: call with_updates with that function."
            )


def _plain(cls, key):
    value = getattr(cls, key, None)
    if isinstance(value, property):
        return None  # Hyperparameters decide, which checkpoints hold.
    return list(value) if isinstance(value, tuple) else value


def _name(cls, key, function):
    registered = keras.saving.get_registered_name(function)
    if keras.saving.get_registered_object(registered) is function:
        return registered
    module = getattr(function, "__module__", None)
    path = getattr(function, "__qualname__", "")
    found = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    if found is not function:
        raise ValueError(
            f"The {cls.__name__} cannot be saved: its {key} function, {function!r}, "
            "is found by no name, and checkpoints hold names and no code. Define it "
            "with def at the top of a module, or register it with "
            "keras.saving.register_keras_serializable."
        )
    return f"{module}:{path}"
