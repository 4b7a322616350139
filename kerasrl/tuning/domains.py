"""What stands for the values of a setting: a grid, or a distribution to draw from."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from kerasrl import checks

#: Where a value stands in a tree of dicts and lists.
Path = tuple[str | int, ...]


class GridSearch:
    """Values of a setting, each of which is tried with all values of other grids.

    Args:
        values: sequence of at least one value.

    Raises:
        ValueError: if there is no value, or `values` is no sequence.
    """

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = _values("grid_search", values)

    def as_config(self) -> dict[str, Any]:
        """What stands for this grid in a file: `{"grid_search": [...]}`."""
        return {"grid_search": list(self.values)}

    def __repr__(self) -> str:
        return f"grid_search({list(self.values)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GridSearch) and other.values == self.values

    __hash__ = None  # type: ignore[assignment]


class Domain:
    """A distribution to draw a setting from.

    Subclasses define `sample`; those with a range also define `clip`.

    Attributes:
        name: str, how files and functions call it.
        arguments: tuple, what it was made with.
    """

    name = ""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def sample(self, rng: np.random.Generator) -> Any:
        """Draw a value.

        Args:
            rng: NumPy generator, the only source of chance.

        Returns:
            a value in the types of JSON.
        """
        raise NotImplementedError(f"{type(self).__name__} has no `sample`.")

    def clip(self, value: Any) -> Any:
        """The nearest value that could have been drawn.

        Args:
            value: number, such as one that was multiplied while exploring.

        Returns:
            the number, within the range and of the type of drawn ones.
        """
        return value

    def as_config(self) -> dict[str, Any]:
        """What stands for it in a file, such as `{"uniform": [0, 1]}`.

        Raises:
            TypeError: if it holds a function, which no file can.
        """
        return {self.name: list(self.arguments)}

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(map(repr, self.arguments))})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.arguments == self.arguments

    __hash__ = None  # type: ignore[assignment]


class Uniform(Domain):
    """Numbers from `low` to `high`, each equally likely."""

    name = "uniform"

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = _range(self.name, low, high)
        super().__init__(self.low, self.high)

    def sample(self, rng: np.random.Generator) -> float:
        return float(rng.uniform(self.low, self.high))

    def clip(self, value: float) -> float:
        return min(max(float(value), self.low), self.high)


class LogUniform(Uniform):
    """Positive numbers from `low` to `high`, whose logarithms are equally likely."""

    name = "loguniform"

    def __init__(self, low: float, high: float) -> None:
        checks.positive("low", low, optional=False)
        super().__init__(low, high)

    def sample(self, rng: np.random.Generator) -> float:
        # Rounding of the exponential must not leave the range.
        return self.clip(math.exp(rng.uniform(math.log(self.low), math.log(self.high))))


class QUniform(Uniform):
    """Multiples of `step` from `low` to `high`."""

    name = "quniform"

    def __init__(self, low: float, high: float, step: float) -> None:
        super().__init__(low, high)
        self.step = checks.positive("step", step, optional=False)
        self.first = math.ceil(round(self.low / self.step, 9))
        self.last = math.floor(round(self.high / self.step, 9))
        if self.first > self.last:
            raise ValueError(
                f"Received quniform({low}, {high}, {step}). Expected a multiple of "
                f"{step} within the range."
            )
        self.arguments = (self.low, self.high, self.step)

    def sample(self, rng: np.random.Generator) -> float:
        # The ends have half a step less, as if a uniform number were rounded.
        return self.clip(rng.uniform(self.low, self.high))

    def clip(self, value: float) -> float:
        count = min(max(round(value / self.step), self.first), self.last)
        # 3 * 0.1 is 0.30000000000000004, which nobody wants in a file name.
        return round(count * self.step, 12)


class RandInt(Domain):
    """Integers from `low` to `high - 1`, each equally likely."""

    name = "randint"

    def __init__(self, low: int, high: int) -> None:
        for argument, value in (("low", low), ("high", high)):
            if not checks.is_number(value) or value % 1:
                raise ValueError(
                    f"Received {argument}={value!r} of randint. Expected an integer."
                )
        self.low, self.high = int(low), int(high)
        if self.low >= self.high:
            raise ValueError(
                f"Received randint({low}, {high}). Expected low < high: high itself is "
                "not drawn."
            )
        super().__init__(self.low, self.high)

    def sample(self, rng: np.random.Generator) -> int:
        return int(rng.integers(self.low, self.high))

    def clip(self, value: float) -> int:
        return min(max(int(value), self.low), self.high - 1)


class Normal(Domain):
    """Numbers of a normal distribution; it has no range to clip to."""

    name = "normal"

    def __init__(self, mean: float = 0.0, std: float = 1.0) -> None:
        self.mean = checks.finite("mean", mean)
        self.std = checks.positive("std", std, optional=False)
        super().__init__(self.mean, self.std)

    def sample(self, rng: np.random.Generator) -> float:
        return float(rng.normal(self.mean, self.std))


class Choice(Domain):
    """One of some values, each equally likely."""

    name = "choice"

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = _values(self.name, values)
        if any(isinstance(x, Domain | GridSearch) for _, x in leaves(list(values))):
            raise ValueError(
                f"Received choice({values!r}). Expected plain values. A grid_search "
                "may hold distributions and further grids."
            )
        super().__init__(*self.values)

    def sample(self, rng: np.random.Generator) -> Any:
        return self.values[int(rng.integers(len(self.values)))]

    def __repr__(self) -> str:
        return f"choice({list(self.values)})"


class SampleFrom(Domain):
    """What a function makes of the settings that were chosen before."""

    name = "sample_from"

    def __init__(self, function: Callable[[dict[str, Any]], Any]) -> None:
        if not callable(function):
            raise TypeError(
                f"Received sample_from({function!r}). Expected a function of the dict "
                "of settings chosen so far. A file cannot hold one: write the "
                "experiment in Python."
            )
        self.function = function
        super().__init__(function)

    def sample(self, rng: np.random.Generator) -> Any:
        raise TypeError(
            "sample_from needs the settings chosen so far, which only an experiment's "
            "`config` has. Give a distribution here, such as uniform(0, 1)."
        )

    def as_config(self) -> dict[str, Any]:
        raise TypeError(
            "A function given to sample_from cannot be written to a file. Use "
            "uniform, loguniform, choice, randint, quniform or normal."
        )


def leaves(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """All values in a tree of dicts and lists, and where they stand."""
    if isinstance(tree, dict | list):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for key, value in items:
            yield from leaves(value, (*path, key))
    else:
        yield path, tree


def _values(name: str, values: Any) -> tuple[Any, ...]:
    is_sequence = isinstance(values, Sequence | np.ndarray)
    if not is_sequence or isinstance(values, str) or not len(values):
        raise ValueError(f"Received {name}({values!r}). Expected a list of values.")
    return tuple(map(plain, values))


def plain(value: Any) -> Any:
    """The value; numbers of NumPy, which no file holds, as Python's."""
    return value.item() if isinstance(value, np.generic) else value


def _range(name: str, low: Any, high: Any) -> tuple[float, float]:
    if not checks.is_number(low) or not checks.is_number(high) or low > high:
        raise ValueError(
            f"Received {name}({low!r}, {high!r}). Expected finite numbers, low <= high."
        )
    return float(low), float(high)
