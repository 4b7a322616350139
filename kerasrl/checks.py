"""Checks of constructor arguments: each returns the argument or says what is wrong."""

import difflib
import inspect
import math
import numbers
from collections.abc import Iterable

import numpy as np

#: What counts steps has 64 bits.
_LARGEST = 2**63 - 1
#: More would be a page rather than a message.
_MOST_NAMES = 60
#: What the modules of Keras hold besides what `get` makes by name.
_NO_NAMES = {
    "LossScaleOptimizer",
    "Optimizer",
    "deserialize",
    "get",
    "legacy",
    "schedules",
    "serialize",
}


def nearest(name, known):
    """Returns the end of a message about an unknown name: what was meant, or all.

    All are named unless they are very many.

    Example:

    ```python
    nearest("reluu", ["elu", "relu"])  # "Did you mean 'relu'?"
    ```
    """
    names = sorted(known)
    lowered = {candidate.lower(): candidate for candidate in reversed(names)}
    near = difflib.get_close_matches(name.lower(), lowered, n=1)
    if near:
        return f"Did you mean {lowered[near[0]]!r}?"
    if len(names) > _MOST_NAMES:
        return "No known name is near to it."
    return f"Expected one of: {', '.join(names)}."


def positive_integer(name, value, zero=False, optional=False):
    """Returns an integer argument, or raises a ValueError unless it is positive.

    With `zero`, 0 is allowed. With `optional`, `None` is.
    """
    if value is None and optional:
        return None
    # 1e6 is what people write for a million steps.
    if not _is_whole(value) or not (0 if zero else 1) <= value <= _LARGEST:
        expected = "an integer >= 0" if zero else "a positive integer"
        expected += " or None" * optional
        raise ValueError(f"Received {name}={value!r}. Expected {expected}.")
    return int(value)


def natural(name, value):
    """Returns an integer argument, or raises a ValueError if it is negative."""
    return positive_integer(name, value, zero=True)


def finite(name, value):
    """Returns a float argument, or raises a ValueError unless it is a number."""
    if not is_number(value):
        raise ValueError(f"Received {name}={value!r}. Expected a finite number.")
    return float(value)


def positive(name, value, zero=False, optional=None):
    """Returns a number or `None`, or raises a ValueError unless it is positive.

    With `zero`, 0 is allowed. With `optional`, `None` is; it is by default unless 0 is.
    """
    optional = not zero if optional is None else optional
    if value is None and optional:
        return None
    if is_number(value) and (value > 0 or (zero and value == 0)):
        return float(value)
    expected = "a number >= 0" if zero else "a positive number"
    raise ValueError(
        f"Received {name}={value!r}. Expected {expected}{' or None' * optional}."
    )


def fraction(name, value, zero=True):
    """Returns a float argument, or raises a ValueError unless it lies in [0, 1].

    Without `zero`, 0 is not allowed.
    """
    if not is_number(value) or not 0.0 <= value <= 1.0 or (value == 0 and not zero):
        interval = "[0, 1]" if zero else "(0, 1]"
        raise ValueError(f"Received {name}={value!r}. Expected a number in {interval}.")
    return float(value)


def flag(name, value, optional=False):
    """Returns a bool, or raises a ValueError: most other objects would count as true.

    With `optional`, `None` is allowed.
    """
    if value is None and optional:
        return None
    is_flag = isinstance(value, (bool, np.bool_))
    if not is_flag and not (is_number(value) and value in (0, 1)):
        raise ValueError(f"Received {name}={value!r}. Expected True or False.")
    return bool(value)


def mapping(name, value, optional=False):
    """Returns a copy of a dict of arguments, or raises a ValueError.

    With `optional`, `None` is allowed.
    """
    if value is None and optional:
        return None
    if not isinstance(value, dict):
        raise ValueError(f"Received {name}={value!r}. Expected a dict of arguments.")
    return dict(value)


def names(name, value):
    """Returns a sequence of names as a tuple, or raises a ValueError."""
    is_names = _is_sequence(value) and all(isinstance(each, str) for each in value)
    if not is_names:
        raise ValueError(
            f"Received {name}={value!r}. Expected a sequence of names, such as "
            "['success']."
        )
    return tuple(value)


def keywords(name, value, function, taken=()):
    """Returns a dict, or raises a ValueError for keys that a function does not take.

    Those in `taken` are given by the caller.
    """
    known = [key for key in inspect.signature(function).parameters if key not in taken]
    for key in value:
        if key not in known:
            raise ValueError(
                f"Received {name}={value!r} with the key {key!r}. "
                f"{nearest(str(key), known)}"
            )
    return value


def seed(value):
    """Returns a seed as an integer or `None`, or raises a ValueError."""
    if value is None:
        return None
    # Keras takes 32 bits; layers have seeds of their own above this one.
    if not _is_whole(value) or not 0 <= value < 2**31:
        raise ValueError(
            f"Received seed={value!r}. Expected an integer from 0 to 2**31 - 1, or "
            "None."
        )
    return int(value)


def units(name, value, optional=False):
    """Returns widths of layers as a tuple, or raises a ValueError.

    With `optional`, `None` is allowed.
    """
    if value is None and optional:
        return None
    if not _is_sequence(value):
        raise ValueError(
            f"Received {name}={value!r}. Expected a sequence of positive integers, "
            "one per layer, such as [64, 64]."
        )
    return tuple(
        positive_integer(f"{name}[{index}]", width) for index, width in enumerate(value)
    )


def filters(value, optional=False):
    """Returns `(channels, kernel, stride)` of convolutions, or raises a ValueError.

    With `optional`, `None` is allowed.
    """
    if value is None and optional:
        return None
    if not _is_sequence(value):
        raise ValueError(
            f"Received filters={value!r}. Expected a sequence of (channels, kernel, "
            "stride), one per layer, such as [[32, 8, 4], [64, 4, 2]]."
        )
    checked = []
    for index, layer in enumerate(value):
        layer = units(f"filters[{index}]", layer)
        if len(layer) != 3:
            raise ValueError(
                f"Received filters[{index}]={layer!r}. Expected (channels, kernel, "
                "stride)."
            )
        checked.append(layer)
    return tuple(checked)


def choice(name, value, choices):
    """Returns an argument, or raises a ValueError unless it is one of `choices`."""
    if value not in choices:
        raise ValueError(f"Received {name}={value!r}. Expected one of {choices}.")
    return value


def named(name, value, library):
    """Returns what Keras knows by a name, or raises a ValueError with the nearest.

    Args:
        name: Name of the argument.
        value: What a `get` of Keras takes: a name, an object, a config.
        library: `keras.activations` or `keras.optimizers`.
    """
    try:
        return library.get(value)
    except (TypeError, ValueError) as error:
        if not isinstance(value, str):
            raise ValueError(f"Received {name}={value!r}. {error}") from error
        known = [x.lower() for x in dir(library) if x[0] != "_" and x not in _NO_NAMES]
        raise ValueError(
            f"Received {name}={value!r}, which Keras does not know. "
            f"{nearest(value, known)}"
        ) from error


def _is_whole(value):
    return is_number(value) and value % 1 == 0


def _is_sequence(value):
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes, dict))


def is_number(value):
    """Whether a value is a finite real number, and not a bool."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # An integer beyond all floats.
        return False
