"""Checkpoints that earlier versions wrote stay loadable, and mean the same."""

import pathlib

import numpy as np
import pytest

import kerasrl
from kerasrl.checkpoint import SCHEMA

GOLDEN = pathlib.Path(__file__).parent / "golden"
OBSERVATIONS = np.linspace(-1.0, 1.0, 40).reshape(10, 4)
#: Environment steps and predicted actions, as printed by `golden/make.py`.
EXPECTED = {1: (64, [1, 1, 1, 1, 1, 1, 0, 0, 0, 0])}


@pytest.mark.parametrize("schema", EXPECTED)
def test_golden_checkpoint(schema):
    env_steps, actions = EXPECTED[schema]
    agent = kerasrl.load(GOLDEN / f"ppo_schema{schema}.kerasrl")
    assert agent.env_steps == env_steps
    assert agent.predict(OBSERVATIONS).tolist() == actions
    agent.fit("CartPole-v1", steps=32, num_envs=2, verbose=0)
    assert agent.env_steps == env_steps + 32


def test_the_present_schema_has_one():
    assert SCHEMA in EXPECTED
