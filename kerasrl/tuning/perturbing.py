"""How settings change when one trial takes over another's: the "explore" of PBT."""

import copy
import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kerasrl.spellings import RLLIB_CONFIG
from kerasrl.tuning.domains import Choice, Domain, GridSearch, SampleFrom, plain
from kerasrl.tuning.spaces import read_spaces

#: Settings that decide what is in a checkpoint, or which environments go on in it. What
#: a donor hands on fits those of its own only.
FIXED = (
    *("policy", "model", "seed", "env", "dueling", "noisy"),
    *("num_atoms", "v_min", "v_max", "num_quantiles", "target_network"),
    *("adjust_temperature", "buffer_size", "replay", "prioritized", "num_envs"),
    *("num_envs_per_worker", "num_workers", "worker_mode", "advantage_norm_start"),
)


def check_mutations(mutations: Any) -> dict[str, Any]:
    """Mutations as `perturb` takes them, or an error that says what is wrong.

    Args:
        mutations: nested dict from settings to what they may become: a distribution,
            also as files spell it, a list of values in their order, or a function of a
            `numpy.random.Generator`.

    Returns:
        nested dict of distributions, tuples and functions.

    Raises:
        ValueError: if nothing is perturbed, or a setting that has to stay as it is.
        TypeError: if a setting may become what is no distribution, list or function.
    """
    if not isinstance(mutations, dict) or not mutations:
        raise ValueError(
            f"Received mutations={mutations!r}. Expected a dict such as "
            '{"learning_rate": loguniform(1e-5, 1e-2)}.'
        )
    return {
        name: _check(name, values) for name, values in read_spaces(mutations).items()
    }


def _check(name: str, values: Any) -> Any:
    if is_fixed(name) and not isinstance(values, dict):
        raise ValueError(
            f"Received mutations of {name!r}, which a trained agent cannot change: "
            "what is in a checkpoint was made for it. Try its values by a grid_search; "
            "a trial takes over that of its donor."
        )
    if isinstance(values, dict):
        return {key: _check(f"{name}.{key}", each) for key, each in values.items()}
    if isinstance(values, Choice):
        values = list(values.values)
    if isinstance(values, list | tuple | np.ndarray) and len(values):
        return tuple(map(plain, values))
    is_drawn = isinstance(values, Domain) and not isinstance(values, SampleFrom)
    is_function = callable(values) and len(inspect.signature(values).parameters) == 1
    if is_drawn or (is_function and not isinstance(values, Domain | GridSearch)):
        return values
    raise TypeError(
        f"Received mutations of {name!r}: {values!r}. Expected a distribution such as "
        "uniform(0.9, 1.0), a list of values, or a function of a NumPy generator."
    )


def is_fixed(name: str) -> bool:
    """Whether a setting, by its dotted name, stays as a checkpoint has it."""
    first = name.partition(".")[0]
    if first == "optimizer":
        return name != "optimizer.learning_rate"
    return first in FIXED or RLLIB_CONFIG.get(first, first) in FIXED


def perturb(
    settings: dict[str, Any],
    mutations: dict[str, Any],
    rng: np.random.Generator,
    resample_probability: float = 0.25,
    factors: Sequence[float] = (1.2, 0.8),
) -> dict[str, Any]:
    """Settings near to others.

    A value of a list becomes the one before or after it; at its ends, it may stay. With
    `resample_probability`, or if it is not in the list, any of the list is drawn.
    A number is multiplied by one of `factors` and clipped to the range of its
    distribution; with `resample_probability`, it is drawn anew. Integers stay integers
    and true or false stays as it is. A setting that is not there is drawn.

    Args:
        settings: nested dict of plain values; left as it is.
        mutations: what `check_mutations` returned.
        rng: NumPy generator, the only source of chance.
        resample_probability: number from 0 to 1.
        factors: sequence of positive numbers.

    Returns:
        nested dict, a copy.

    Example:

    ```python
    rng = np.random.default_rng(0)
    perturb({"gamma": 0.95}, {"gamma": uniform(0.9, 1.0)}, rng)  # {"gamma": 1.0}
    ```
    """
    new = copy.deepcopy(settings)
    for name, values in mutations.items():
        name = spelled(name, new)
        before = new.get(name)
        if isinstance(values, dict):
            inner = before if isinstance(before, dict) else {}
            new[name] = perturb(inner, values, rng, resample_probability, factors)
            continue
        # Drawn in any case: what one setting becomes is no matter to the next.
        resamples = rng.random() < resample_probability
        if isinstance(values, tuple):
            new[name] = _neighbour(before, values, rng, resamples)
        else:
            new[name] = _multiplied(before, values, rng, resamples, factors)
    return new


def spelled(name: str, settings: dict[str, Any]) -> str:
    """A setting's name as `settings` have it: "lr" is the same as "learning_rate"."""
    same = RLLIB_CONFIG.get(name, name)
    found = (key for key in settings if RLLIB_CONFIG.get(key, key) == same)
    return name if name in settings else next(found, name)


def _neighbour(
    before: Any, values: tuple[Any, ...], rng: np.random.Generator, resamples: bool
) -> Any:
    # Files hold lists where programs have tuples.
    known = [json.dumps(each) for each in values]
    text = json.dumps(before)
    if resamples or text not in known:
        return values[int(rng.integers(len(values)))]
    index = known.index(text) + int(rng.choice([-1, 1]))
    return values[min(max(index, 0), len(values) - 1)]


def _multiplied(
    before: Any,
    values: Domain | Callable[[np.random.Generator], Any],
    rng: np.random.Generator,
    resamples: bool,
    factors: Sequence[float],
) -> Any:
    if isinstance(before, bool):
        return before
    if resamples or not isinstance(before, int | float):
        drawn = values.sample(rng) if isinstance(values, Domain) else values(rng)
        value = plain(drawn)
    else:
        value = before * float(rng.choice(list(factors)))
    if isinstance(before, int):
        value = int(value)
    clipped = values.clip(value) if isinstance(values, Domain) else value
    # Ranges of numbers make floats of integers; not every range has an integer.
    is_whole = isinstance(before, int) and clipped == int(clipped)
    return int(clipped) if is_whole else clipped
