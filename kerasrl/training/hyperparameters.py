"""Constructor arguments: checked wherever they are set, and never ignored."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from kerasrl import checkpoint, signatures, spellings

_WHILE_RUNNING = "{name} cannot change while fit runs: set it before the next call."
#: When a change takes effect, and what is said where it comes too late.
_EFFECTS = {
    "now": "",
    "update": "",
    "act": _WHILE_RUNNING,
    "fit": _WHILE_RUNNING,
    "replay": (
        "The replay buffer was made for the old value and is not empty. Set "
        "agent.buffer = None between calls of fit to start with an empty one."
    ),
    "never": "It is settled when an agent is made: make another one with it.",
}


@dataclasses.dataclass(frozen=True)
class Hyperparameter:
    """How a constructor argument is checked, and when a later change takes effect.

    Args:
        check: `None`, or a function of its name and value that returns the value to
            keep or raises a ValueError.
        effect: When a change takes effect. `"update"`: in the next update, which is
            compiled anew. `"now"`: wherever it is read next, nothing is compiled with
            it. `"fit"`: in the next `fit`; refused while one runs. `"act"`: likewise,
            and what acts is compiled anew. `"replay"`: in the next replay buffer;
            refused while there is something in the present one. `"never"`: refused.

    Example:

    ```python
    class Mine(kerasrl.PPO):
        kinds = {"margin": Hyperparameter(checks.positive)}

        def __init__(self, margin=0.1, **kwargs):
            super().__init__(**kwargs)
            self.margin = margin
    ```
    """

    check: Callable[[str, Any], Any] | None = None
    effect: str = "update"

    def __post_init__(self):
        if self.effect not in _EFFECTS:
            raise ValueError(
                f"Received effect={self.effect!r}. Expected one of {list(_EFFECTS)}."
            )


class Configurable:
    """An object whose constructor arguments are attributes that can be set again.

    Setting one applies the check that the constructor applies, and then either has an
    effect or raises. Values are the same in `get_config`, so what that says holds.
    """

    #: From the names of constructor arguments to what is known of them. Those of
    #: parents need not be repeated, and an argument without an entry is not checked.
    kinds: dict[str, Hyperparameter] = {}

    def __new__(cls, *args, **kwargs):
        # Before the constructor, whose own error would name no other argument.
        spellings.refuse_unknown(cls.__name__, kwargs, _names(cls))
        return super().__new__(cls)

    def __setattr__(self, name, value):
        if name in _names(type(self)):
            self._set_hyperparameter(name, value)
            return
        if name in vars(self) and kind_of(type(self), name) is not None:
            _refuse_settled(self, name, value)
        super().__setattr__(name, value)

    def _set_hyperparameter(self, name, value):
        kept, names = vars(self), _names(type(self))
        before = kept.get(name)
        # A constructor may set an argument before its parent does.
        is_change = names <= kept.keys()
        value = self.check_hyperparameter(name, value)
        if is_change:
            if _same(before, value):
                return
            self.refuse_change(name, value)
        object.__setattr__(self, name, value)
        try:
            if names <= kept.keys():
                self.check_hyperparameters()
            if is_change:
                self.apply_change(name, before)
        except BaseException:
            if is_change:
                object.__setattr__(self, name, before)
            raise

    def check_hyperparameter(self, name, value):
        """Returns the value to keep for a constructor argument, or raises.

        Args:
            name: Name of the argument.
            value: What it was set to.
        """
        kind = kind_of(type(self), name)
        if kind is None or kind.check is None:
            return value
        return kind.check(name, value)

    def check_hyperparameters(self):
        """Raises a ValueError if constructor arguments contradict each other.

        Called once all are set, and after each change. Extend it, calling `super()`.
        """

    def refuse_change(self, name, value):
        """Raises if it is too late to change a constructor argument.

        Args:
            name: Name of the argument.
            value: What it was set to.
        """

    def apply_change(self, name, before):
        """Lets the new value of a constructor argument take effect.

        Args:
            name: Name of the argument.
            before: Its value until now.
        """

    @classmethod
    def hyperparameters(cls):
        """Returns the names of the constructor's arguments, those of parents too."""
        return list(_names(cls))

    def get_config(self):
        """Returns the constructor arguments as JSON-compatible data."""
        values = {name: getattr(self, name) for name in self.hyperparameters()}
        return checkpoint.serialize_config(values)

    @classmethod
    def from_config(cls, config):
        """Makes an object from what `get_config` returned."""
        return cls(**checkpoint.deserialize_config(config))


def kind_of(cls, name):
    """Returns the `Hyperparameter` that a class or its parents declare, or `None`."""
    for parent in cls.__mro__:
        found = vars(parent).get("kinds", {}).get(name)
        if found is not None:
            return found
    return None


def effect_of(agent, name):
    """Returns when a change of an argument takes effect; see `Hyperparameter`."""
    kind = kind_of(type(agent), name)
    if kind is not None:
        return kind.effect
    if name in agent.scheduled:
        return "now"
    # An `act` of somebody else's, compiled once, may depend on it.
    is_ours = type(agent).act.__module__.startswith("kerasrl.agents.")
    return "update" if is_ours else "act"


def check_kept(agent):
    """Raises a TypeError if a constructor argument is in no attribute of its name.

    Nothing could then say whether it was set for the first time or later.
    """
    for name in _names(type(agent)) - vars(agent).keys():
        raise TypeError(
            f"{type(agent).__name__} takes the argument {name!r} and does not keep it: "
            f"set self.{name} = {name} in the constructor. Configs, checkpoints and "
            "later changes rely on it."
        )


def refuse(agent, name, value, effect):
    """Raises a ValueError that says why an argument cannot change any more.

    Args:
        agent: A `Configurable`.
        name: Name of the argument.
        value: What it was set to.
        effect: A key of the effects of `Hyperparameter`, or the reason.
    """
    reason = _EFFECTS.get(effect, effect).format(name=name)
    raise ValueError(
        f"Received {name}={value!r} for a {type(agent).__name__} with "
        f"{name}={getattr(agent, name)!r}. {reason}"
    )


def _refuse_settled(owner, name, value):
    """Raises a ValueError if an argument of a parent is set that a class settles."""
    before = getattr(owner, name)
    if not _same(before, value):
        cls = type(owner).__name__
        raise ValueError(
            f"Received {name}={value!r}. {cls} has no such argument: it always has "
            f"{name}={before!r}, and another value would have no effect. Leave it, or "
            f"use an algorithm that takes {name}."
        )


@functools.cache
def _names(cls):
    """The names of the constructor's arguments, in order: a dict used as a set."""
    return dict.fromkeys(signatures.arguments(cls.__mro__)).keys()


def _same(before, value):
    if before is value:
        return True
    if type(before) is not type(value):
        return False
    try:
        return bool(before == value)
    except (TypeError, ValueError):  # Arrays, for one.
        return False
