"""Checkpoints that earlier versions wrote stay loadable, and mean the same."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest

import kerasrl
from kerasrl.checkpoint import SCHEMA

GOLDEN = pathlib.Path(__file__).parent / "golden"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
#: Algorithms whose update has been mended since: they load and act as they did, and
#: learn on in another way.
LEARN_ANEW = ()

_spec = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
make = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make)


def assert_equal(received, expected):
    for name, value in expected.items():
        np.testing.assert_allclose(
            received[name], value, rtol=1e-4, atol=1e-5, err_msg=name
        )


@pytest.mark.parametrize("file", EXPECTED)
def test_golden_checkpoint(file):
    name, expected = file.rsplit("_", 1)[0], EXPECTED[file]
    agent = kerasrl.load(GOLDEN / f"{file}.kerasrl")
    assert_equal(make.describe(agent), expected["saved"])
    make.train(agent, name, make.MORE)
    if name in LEARN_ANEW:
        assert agent.env_steps > expected["saved"]["env_steps"]
        assert all(np.isfinite(weight).all() for weight in agent.get_weights())
    else:
        assert_equal(make.describe(agent), expected["continued"])


def test_every_algorithm_has_one_of_the_present_schema():
    assert set(EXPECTED) == {f"{name}_schema{SCHEMA}" for name in make.AGENTS}
