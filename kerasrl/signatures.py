"""What constructors take, read from their signatures."""

import inspect
from collections.abc import Iterable

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def arguments(classes: Iterable[type]) -> list[str]:
    """Returns the names of what the constructors of classes take, in order.

    Args:
        classes: Classes, each before those that it inherits from. The search ends with
            the first whose constructor passes no `**kwargs` on to the next.

    Returns:
        List of strings, each once.

    Example:

    ```python
    arguments(kerasrl.PPO.__mro__)  # ["policy", "rollout_length", ...]
    ```
    """
    names: dict[str, None] = {}
    for cls in classes:
        constructor = vars(cls).get("__init__")
        if constructor is None:
            continue
        _, *parameters = inspect.signature(constructor).parameters.values()
        names.update((p.name, None) for p in parameters if p.kind not in _VARIADIC)
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
            break
    return list(names)
