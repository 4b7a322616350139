"""What a setting may be, and the one line that refuses anything else.

Every message names the setting, what was received and the nearest valid choice.
"""

import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, NoReturn

import click

from kerasrl.checks import nearest

#: What counts steps has 64 bits.
LARGEST = 2**63 - 1


def refuse(message: str) -> NoReturn:
    """End with a one-line error and exit code 2."""
    raise click.UsageError(" ".join(message.split()))


def first_line(error: BaseException) -> str:
    """The message of an error on one line; its type if it has none."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is not known, with the nearest that is."""
    return f"Unknown {kind} {name!r}. {nearest(name, known)}"


def constructor_arguments(cls: type) -> list[str]:
    """Names of the constructor's arguments."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(cls).parameters.values()
    return [each.name for each in parameters if each.kind not in kinds]


class Kind(NamedTuple):
    """What a value may be.

    Attributes:
        expected: str, as messages say it.
        convert: function of a value; returns what is meant, or None for another kind.
        optional: bool, whether null is a value too.
    """

    expected: str
    convert: Callable[[Any], Any]
    optional: bool = False


def check(name: str, value: Any, kind: Kind) -> Any:
    """The value as its kind has it; refused if it is of another kind."""
    if value is None and kind.optional:
        return None
    converted = kind.convert(value)
    if converted is None:
        refuse(f"{name} must be {kind.expected}. Received: {value!r}")
    return converted


def check_all(
    values: dict[str, Any], kinds: dict[str, Kind], where: str = ""
) -> dict[str, Any]:
    """The values, those of a known kind checked."""
    return {
        name: check(where + name, value, kinds[name]) if name in kinds else value
        for name, value in values.items()
    }


def whole(least: int, most: int = LARGEST) -> Kind:
    """Integers, also in the notation 1e5."""

    def convert(value: Any) -> int | None:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            return None
        return value if least <= value <= most else None

    limit = "" if most == LARGEST else f" to {most}"
    return Kind(f"an integer from {least}{limit}", convert)


def number(expected: str, least: float = -math.inf, most: float = math.inf) -> Kind:
    """Finite numbers."""

    def convert(value: Any) -> float | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        try:
            is_valid = math.isfinite(value) and least <= value <= most
        except OverflowError:
            return None
        return value if is_valid else None

    return Kind(expected, convert)


def instance(expected: str, cls: type) -> Kind:
    """Values of a class that are not empty texts."""
    return Kind(
        expected,
        lambda value: value if isinstance(value, cls) and value != "" else None,
    )


def optional(kind: Kind) -> Kind:
    """The kind, or null."""
    return kind._replace(optional=True)


FLAG = instance("true or false", bool)
MAPPING = instance("a mapping", dict)
TEXT = instance("a text that is not empty", str)
NUMBER = number("a number")
RATE = number("a number from 0, or a schedule", least=0)
POSITIVE = number("a positive number", least=math.ulp(0.0))
SHARE = number("a number from 0 to 1", least=0, most=1)
