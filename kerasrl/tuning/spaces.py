"""Values that an experiment tries: grids, and distributions to draw from."""

import itertools
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from kerasrl import checks
from kerasrl.tuning.domains import (
    Choice,
    Domain,
    GridSearch,
    LogUniform,
    Normal,
    Path,
    QUniform,
    RandInt,
    SampleFrom,
    Uniform,
    leaves,
    plain,
)


def grid_search(values: Sequence[Any]) -> GridSearch:
    """Try each of some values.

    Args:
        values: sequence of values, in the types of JSON.

    Returns:
        `GridSearch`. Two grids in one experiment are tried in all combinations.

    Raises:
        ValueError: if there is no value, or `values` is no sequence.

    Example:

    ```python
    config = {"gamma": grid_search([0.98, 0.99])}
    [settings for settings, tag in variants(config)]  # [{"gamma": .98}, {"gamma": .99}]
    ```
    """
    grid = GridSearch(values)
    grid.values = tuple(map(read_spaces, grid.values))
    return grid


def uniform(low: float, high: float) -> Uniform:
    """Draw from `low` to `high`; a ValueError unless `low <= high` are finite.

    Example: `{"gamma": uniform(0.9, 1.0)}`
    """
    return Uniform(low, high)


def loguniform(low: float, high: float) -> LogUniform:
    """Draw from `low` to `high` with equally likely logarithms.

    A ValueError unless `0 < low <= high`.

    Example: `{"learning_rate": loguniform(1e-5, 1e-2)}`
    """
    return LogUniform(low, high)


def quniform(low: float, high: float, step: float) -> QUniform:
    """Draw a multiple of `step` from `low` to `high`; a ValueError if there is none.

    Example: `{"gae_lambda": quniform(0.9, 1.0, 0.01)}`
    """
    return QUniform(low, high, step)


def randint(low: int, high: int) -> RandInt:
    """Draw an integer from `low` to `high - 1`; a ValueError unless `low < high`.

    Example: `{"num_epochs": randint(1, 11)}`
    """
    return RandInt(low, high)


def normal(mean: float = 0.0, std: float = 1.0) -> Normal:
    """Draw from a normal distribution; a ValueError unless `std` is positive.

    Example: `{"temperature": normal(1.0, 0.1)}`
    """
    return Normal(mean, std)


def choice(values: Sequence[Any]) -> Choice:
    """Draw one of some values; a ValueError if there is none.

    Example: `{"num_minibatches": choice([2, 4, 8])}`
    """
    return Choice(read_spaces(values))


def sample_from(function: Callable[[dict[str, Any]], Any]) -> SampleFrom:
    """Set what a function makes of the other settings; a TypeError if it is none.

    Args:
        function: called with a copy of the nested dict of settings, of which grids and
            draws are chosen, and former `sample_from` too.

    Returns:
        `SampleFrom`.

    Example: `{"num_minibatches": sample_from(lambda s: s["rollout_length"] // 32)}`
    """
    return SampleFrom(function)


#: How files spell what is tried; `sample_from` is here to be refused there.
SPELLINGS: dict[str, Callable[..., Any]] = {
    "uniform": uniform,
    "loguniform": loguniform,
    "quniform": quniform,
    "randint": randint,
    "normal": normal,
}
OF_VALUES: dict[str, Callable[..., Any]] = {
    "grid_search": grid_search,
    "choice": choice,
    "sample_from": sample_from,
}


def read_spaces(config: Any) -> Any:
    """Replace what files write, such as `{"grid_search": [1, 2]}`, by what it means.

    Args:
        config: tree of dicts and lists with plain values, grids and distributions.

    Returns:
        a new tree; each mapping with one key that names a grid or a distribution has
        become one.

    Raises:
        ValueError, TypeError: for one whose values make no sense, by its key.

    Example:

    ```python
    read_spaces({"gamma": {"uniform": [0.9, 1.0]}})  # {"gamma": uniform(0.9, 1.0)}
    ```
    """
    if isinstance(config, list):
        return [read_spaces(each) for each in config]
    if not isinstance(config, dict):
        return config
    names = [key for key in config if key in SPELLINGS or key in OF_VALUES]
    if not names:
        return {key: read_spaces(value) for key, value in config.items()}
    name, values = names[0], config[names[0]]
    if len(config) > 1:
        raise ValueError(
            f"Received {config!r}. Expected {name!r} to be the only key of its mapping."
        )
    if name in OF_VALUES:
        return OF_VALUES[name](values)
    if not isinstance(values, list | tuple):
        raise ValueError(f"Received {name}: {values!r}. Expected a list of numbers.")
    try:
        return SPELLINGS[name](*values)
    except TypeError as error:
        raise ValueError(
            f"Received {name}: {values!r}. Expected as many numbers as "
            f"`{name}` has arguments: {error}"
        ) from error


def variants(
    config: dict[str, Any], num_samples: int = 1, seed: int = 0
) -> Iterator[tuple[dict[str, Any], str]]:
    """All settings that an experiment tries.

    The product of all grids, `num_samples` times, each with draws of its own. A draw
    depends on `seed`, on the variant's number and on the setting's name alone: more
    samples, or another setting drawn, change none of those before.

    Args:
        config: nested dict of plain values, grids and distributions, also as files
            spell them.
        num_samples: positive integer.
        seed: integer from 0.

    Yields:
        tuples of a nested dict of plain values, and a text that names those which
        differ, such as `"gamma=0.9,policy.hidden_units=[32]"`; empty if none does.

    Raises:
        ValueError, TypeError: for a grid or distribution that makes no sense, a number
            of samples below 1, or a seed below 0.

    Example:

    ```python
    config = {"gamma": grid_search([0.9, 0.99]), "learning_rate": loguniform(1e-4, 0.1)}
    len(list(variants(config, num_samples=3)))  # 6
    ```
    """
    num_samples = checks.positive_integer("num_samples", num_samples)
    seed = checks.natural("seed", seed)
    config = read_spaces(checks.mapping("config", config))
    numbers = itertools.count()
    for _ in range(num_samples):
        for settings, chosen in _grid_points(config, {}):
            # Each variant is its own copy: grids share what stands beside them.
            settings = _copy(settings)
            tried = dict(chosen)
            _draw(settings, tried, seed, next(numbers))
            yield settings, ",".join(f"{_name(p)}={_text(x)}" for p, x in tried.items())


def _grid_points(config: Any, chosen: dict[Path, Any]) -> Iterator[tuple[Any, dict]]:
    """The tree for each combination of grids; a grid's value may hold further ones."""
    found = next((p for p, x in leaves(config) if isinstance(x, GridSearch)), None)
    if found is None:
        yield config, chosen
        return
    for value in _get(config, found).values:
        yield from _grid_points(_with(config, found, value), {**chosen, found: value})


def _draw(settings: Any, chosen: dict[Path, Any], seed: int, number: int) -> None:
    """Put draws in the place of distributions, functions of the settings last."""
    drawn = [(p, x) for p, x in leaves(settings) if isinstance(x, Domain)]
    for path, domain in sorted(drawn, key=lambda leaf: isinstance(leaf[1], SampleFrom)):
        if isinstance(domain, SampleFrom):
            value = plain(domain.function(_copy(settings)))
        else:
            name = zlib.crc32(_name(path).encode())
            value = domain.sample(np.random.default_rng([seed, number, name]))
        _get(settings, path[:-1])[path[-1]] = value
        chosen[path] = value


def _get(tree: Any, path: Path) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _with(tree: Any, path: Path, value: Any) -> Any:
    """The tree with another value at a place; the rest is shared."""
    if not path:
        return value
    tree = tree.copy()
    tree[path[0]] = _with(tree[path[0]], path[1:], value)
    return tree


def _copy(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _copy(value) for key, value in tree.items()}
    return [_copy(each) for each in tree] if isinstance(tree, list) else tree


def _name(path: Path) -> str:
    return ".".join(map(str, path))


def _text(value: Any) -> str:
    """A value as short as a file's name needs it."""
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), default=str)
