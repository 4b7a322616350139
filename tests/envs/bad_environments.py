"""Environments that keep gymnasium's protocol but for one fault each.

`FAULTS` lists the faults. `make(fault)` is a factory for `make_envs` and `fit` whose
environment `BAD` (of two or more) has the fault while all others are sound. Import it
as `from envs.bad_environments import ...`, in worker processes too.
"""

import copy
import dataclasses
import sys
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

#: Index of the environment that has the fault.
BAD = 1
#: Steps of an episode, and the number of the step (from 1) in which faults happen.
LENGTH, WHEN = 4, 2

OBSERVATION_SPACES = {
    "vector": spaces.Box(-10.0, 10.0, (4,), np.float32),
    "pixels": spaces.Box(0, 255, (2, 3), np.uint8),
    "board": spaces.Box(0, 2, (3,), np.int8),
    "choice": spaces.Discrete(3),
    "shifted": spaces.Discrete(3, start=5),
    "choices": spaces.MultiDiscrete([2, 3]),
    "flags": spaces.MultiBinary(3),
    "nested": spaces.Dict(
        {
            "image": spaces.Box(0, 255, (2, 2), np.uint8),
            "rest": spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1, (2,))]),
        }
    ),
}
NESTED = {
    "image": np.zeros((2, 2), np.uint8),
    "rest": (1, np.zeros(2, np.float32)),
}


class OwnError(Exception):
    """What sound code inside a bad environment raises."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """One way to be a bad environment.

    Args:
        name: Unique, for test ids.
        part: What is wrong: `"observation"`, `"reward"`, `"terminated"`,
            `"truncated"`, `"info"` (that of a step), `"result"` (of a whole call), or
            `"raise"` (the call raises `value`).
        value: What stands in the place of the part.
        calls: In which calls it happens, see `CALLS`.
        space: Key of `OBSERVATION_SPACES`.
        message: Regular expression that an error message about it matches.
    """

    name: str
    part: str
    value: Any
    calls: tuple = ("step",)
    space: str = "vector"
    message: str = ""


#: `"reset"` is the first, `"autoreset"` the one after an episode; `"final"` is the step
#: that ends an episode, `"step"` another one.
CALLS = ("reset", "step", "final", "autoreset")

_OBSERVATIONS = [
    ("scalar", "vector", 0.0, r"\(\)"),
    ("one number", "vector", np.zeros(1, np.float32), r"\(1,\)"),
    ("one row", "vector", np.zeros((1, 4), np.float32), r"\(1, 4\)"),
    ("one column", "vector", np.zeros((4, 1), np.float32), r"\(4, 1\)"),
    ("too long", "vector", np.zeros(5, np.float32), r"\(5,\)"),
    ("empty", "vector", np.zeros(0, np.float32), r"\(0,\)"),
    ("ragged", "vector", [0.0, [0.0, 0.0], 0.0, 0.0], ""),
    ("none", "vector", None, "None"),
    ("text", "vector", "text", "text"),
    ("digits", "vector", ["1", "2", "3", "4"], ""),
    ("complex", "vector", np.zeros(4, np.complex64), "complex64"),
    ("objects", "vector", np.array([None] * 4), "object"),
    ("times", "vector", np.zeros(4, "datetime64[s]"), "datetime64"),
    (
        "nan",
        "vector",
        np.array([0, np.nan, 0, 0], np.float32),
        "NaN, infinity or a number",
    ),
    ("infinite", "vector", np.array([0, 0, -np.inf, 0], np.float32), "infinity"),
    ("fraction", "pixels", np.full((2, 3), 0.7), "0.7"),
    ("below", "pixels", np.full((2, 3), -1), "-1"),
    ("above", "pixels", np.full((2, 3), 300), "300"),
    ("one row of pixels", "pixels", np.zeros((1, 3), np.uint8), r"\(1, 3\)"),
    ("off the board", "board", np.full(3, 3, np.int8), "3"),
    ("no choice", "choice", 7, "7"),
    ("negative choice", "choice", -1, "-1"),
    ("half a choice", "choice", 0.5, "0.5"),
    ("list of a choice", "choice", [1], r"\(1,\)"),
    ("not from start", "shifted", 0, "0"),
    ("no choices", "choices", np.array([0, 3]), "3"),
    ("no flag", "flags", np.array([0, 1, 2], np.int8), "2"),
    ("key missing", "nested", {"image": NESTED["image"]}, "rest"),
    ("no dict", "nested", np.zeros(4), ""),
    ("short tuple", "nested", {**NESTED, "rest": (1,)}, "rest"),
    ("nested shape", "nested", {**NESTED, "image": np.zeros((1, 2), "u1")}, "image"),
    ("nested choice", "nested", {**NESTED, "rest": (7, np.zeros(2))}, "rest"),
]
_REWARDS = [
    ("digit", "5"),
    ("text", "much"),
    ("none", None),
    ("complex", 1j),
    ("two", [1.0, 2.0]),
    ("array of two", np.zeros(2)),
    ("empty", np.zeros(0)),
    ("dict", {"reward": 1.0}),
    ("nan", float("nan")),
    ("infinite", np.float64("inf")),
]
_FLAGS = [
    ("text", "False"),
    ("empty text", ""),
    ("none", None),
    ("two", 2),
    ("half", 0.5),
    ("array of two", np.zeros(2, bool)),
    ("dict", {}),
]
_INFOS = [("none", None), ("list", []), ("text", "fine"), ("pairs", [("a", 1)])]


def _faults():
    observation = np.zeros(4, np.float32)
    for name, space, value, message in _OBSERVATIONS:
        yield Fault(f"observation {name}", "observation", value, CALLS, space, message)
    for name, value in _REWARDS:
        yield Fault(f"reward {name}", "reward", value, ("step", "final"), "vector")
    for part in ("terminated", "truncated"):
        for name, value in _FLAGS:
            yield Fault(f"{part} {name}", part, value, ("step",), message=part)
    for name, value in _INFOS:
        yield Fault(f"info {name}", "info", value, CALLS, message="info")
    resets = ("reset", "autoreset")
    steps = ("step", "final")
    for name, value in (
        ("observation only", observation),
        ("observation of two numbers only", np.zeros(2, np.float32)),
        ("three values", (observation, {}, {})),
        ("nothing", None),
    ):
        yield Fault(f"reset {name}", "result", value, resets, message="reset")
    for name, value in (
        ("old", (observation, 0.0, False, {})),
        ("six values", (observation, 0.0, False, False, {}, {})),
        ("observation only", observation),
        ("nothing", None),
    ):
        yield Fault(f"step {name}", "result", value, steps, message="step")
    yield Fault("raises", "raise", OwnError("own"), CALLS, message="own")
    # Names that our own code catches for its own purposes.
    for error in (KeyError, IndexError, TypeError, ValueError, StopIteration):
        yield Fault(
            f"raises {error.__name__}", "raise", error("own"), ("reset", "step")
        )


FAULTS = list(_faults())


class BadEnv(gymnasium.Env):
    """Episodes of `LENGTH` steps in which nothing happens but one fault.

    Args:
        space: Key of `OBSERVATION_SPACES`.
        fault: A `Fault`, or `None`.
        call: One of `CALLS`.
    """

    def __init__(self, space="vector", fault=None, call="step"):
        self.observation_space = OBSERVATION_SPACES[space]
        self.action_space = spaces.Discrete(2)
        self.fault = fault
        self.call = call
        self._episode = self._step = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._episode += 1
        self._step = 0
        call = "reset" if self._episode == 1 else "autoreset"
        return self._result(call, {"observation": self._observation(), "info": {}})

    def step(self, action):
        self._step += 1
        ends = self._step == LENGTH
        call = "final" if ends else "step" if self._step == WHEN else None
        parts = {
            "observation": self._observation(),
            "reward": 1.0,
            "terminated": False,
            "truncated": ends,
            "info": {},
        }
        return self._result(call, parts)

    def _observation(self):
        # Of the dtypes of the space, and the same every time.
        self.observation_space.seed(0)
        return self.observation_space.sample()

    def _result(self, call, parts):
        if self.fault is None or call != self.call:
            return tuple(parts.values())
        if self.fault.part == "raise":
            raise copy.copy(self.fault.value)
        if self.fault.part == "result":
            return self.fault.value
        return tuple({**parts, self.fault.part: self.fault.value}.values())


class _Factory:
    """Makes environment `index` with a fault, the others without; can be pickled."""

    def __init__(self, index, env_class, *arguments):
        self.index = index
        self.env_class = env_class
        self.arguments = arguments

    def __call__(self, context):
        if self.index in (None, context.env_index):
            return self.env_class(*self.arguments)
        return BadEnv(*self.arguments[:1])


def make(fault, call, index=BAD):
    """A factory of environments of which one has a fault.

    Args:
        fault: One of `FAULTS`.
        call: One of `fault.calls`.
        index: Which one; `None` for all.
    """
    return _Factory(index, BadEnv, fault.space, fault, call)


class RaisesInClose(BadEnv):
    """Cannot be closed."""

    def close(self):
        raise OwnError("cannot be closed")


class RaisesInInit(BadEnv):
    """Cannot be made."""

    def __init__(self, *arguments):
        raise OwnError("cannot be made")


class Exits(BadEnv):
    """Ends the process it is in, without saying that something is wrong."""

    def step(self, action):
        sys.exit(0)


class ChangesSpace(BadEnv):
    """Says that it has another observation space once it was reset."""

    def reset(self, *, seed=None, options=None):
        result = super().reset(seed=seed)
        self.observation_space = spaces.Box(-10.0, 10.0, (7,), np.float32)
        return result


class ChangesActionSpace(BadEnv):
    """Says that it has another action space once it was reset."""

    def reset(self, *, seed=None, options=None):
        result = super().reset(seed=seed)
        self.action_space = spaces.Discrete(9)
        return result


#: Faults that are more than one wrong value. `make_class` makes factories of them.
CLASSES = (RaisesInClose, RaisesInInit, Exits, ChangesSpace, ChangesActionSpace)


def make_class(env_class, index=BAD):
    """As `make`, for one of `CLASSES`."""
    return _Factory(index, env_class, "vector")
