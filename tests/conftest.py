"""Shared set-up of the tests."""

import ctypes
import gc
import os
import pathlib
import re
import resource

import pytest

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "PYTEST_XDIST_WORKER" in os.environ:
    # One process per core: more threads would only wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
# XLA compiles in half the time when LLVM need not make the most of what it is given.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

#: Megabytes that tests may leave behind before they are collected.
_GARBAGE = 100
_kept = {"resident": 0}


#: Agents of `tiny` that are made of parts of others, in tests of all agents.
_SELDOM = {"DDPG_recurrent", "TD3_recurrent", "SAC_discrete_recurrent"}
_IMPLIED = pathlib.Path(__file__).parent / "implied.txt"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Leaves what others imply, and combinations of other agents, to the slow tests."""
    lines = [line.strip() for line in _IMPLIED.read_text().splitlines()]
    patterns = {x: _pattern(x) for x in lines if x and not x.startswith("#")}
    unused = set(patterns)
    for item in items:
        arguments = getattr(getattr(item, "callspec", None), "params", {})
        implied = [x for x, p in patterns.items() if p.fullmatch(item.nodeid)]
        unused.difference_update(implied)
        strings = (x for x in arguments.values() if type(x) is str)
        if implied or not _SELDOM.isdisjoint(strings):
            item.add_marker(pytest.mark.slow)
    everything = config.args == config.getini("testpaths")
    if everything and unused:
        raise pytest.UsageError(f"No tests are called {sorted(unused)}, in {_IMPLIED}.")


def _pattern(line):
    return re.compile(".*".join(map(re.escape, line.split("*"))))


def pytest_collection_finish():
    """Lets Python's collector leave out what modules hold, TensorFlow's above all."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Leaves XLA, which compiles for seconds, to the tests that are marked with it."""
    from kerasrl.training import compiled

    as_for_users = _kept.setdefault("gains_from_xla", compiled.gains_from_xla)
    marked = item.get_closest_marker("xla") is not None
    compiled.gains_from_xla = as_for_users if marked else lambda agent: False


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item):
    """Frees what tests left, agents and the graphs of theirs, before it is too much.

    Python's collector counts objects, of which a graph has few for its megabytes.
    """
    result = yield
    if _resident() > _kept["resident"] + _GARBAGE:
        _forget_custom_gradients()
        gc.collect()
        _trim()
        _kept["resident"] = _resident()
    return result


def _trim():
    """Gives back to the system what was freed in pieces, where its C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _resident():
    """Megabytes of memory of this process; 0 where the system does not say."""
    try:
        pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * resource.getpagesize() // 2**20


def _forget_custom_gradients():
    # A custom gradient, which a recurrence has, is registered by a name of its own in
    # each graph, and never removed: the graph stays. Nothing looks it up by its name
    # once the graph is made.
    from tensorflow.python.framework import ops

    registry = ops.gradient_registry._registry
    for name in [name for name in registry if name.startswith("CustomGradient-")]:
        del registry[name]
