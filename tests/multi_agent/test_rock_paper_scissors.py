"""A policy with memory finds out a rule that a policy without could not."""

import importlib.util
import pathlib

import pytest

_FILE = pathlib.Path(__file__).parents[2] / "benchmarks" / "multi_agent.py"


@pytest.mark.slow
def test_memory_beats_what_beats_the_last_move():
    spec = importlib.util.spec_from_file_location("multi_agent_benchmark", _FILE)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    rule, learner = benchmark.rock_paper_scissors(0, 20_000)
    # All but the first round, which is even.
    assert rule["return"] >= 8.5
    assert learner["return"] >= 8.0
