"""Sizes of observations that rollouts may hold."""

import types
import warnings

import numpy as np
import pytest
from gymnasium import spaces

from kerasrl.envs.protocol import EnvProtocolError
from kerasrl.rollouts.checking import RolloutCheck

SPACE = spaces.Dict(
    time=spaces.Box(-np.inf, np.inf, (1,), np.float64),
    speed=spaces.Box(-np.inf, np.inf, (2,)),
)


def checked(values):
    envs = types.SimpleNamespace(
        observation_space=SPACE, first_index=0, name="Clock-v0"
    )
    check = RolloutCheck(envs)
    rollout = types.SimpleNamespace(
        actions=np.zeros((3, 1)), rewards=np.zeros((3, 1)), final=None
    )
    observations = {
        "time": np.reshape(np.array(values, np.float32), (4, 1, 1)),
        "speed": np.zeros((4, 1, 2), np.float32),
    }
    for _ in range(2):
        check(rollout, observations)


@pytest.mark.parametrize("value", [3.4e38, -1e16, np.nan, -np.inf])
def test_absurd_numbers_are_refused_by_name(value):
    with pytest.raises(
        EnvProtocolError, match=r"time.*NaN, infinity or a number beyond"
    ):
        checked([0, value, 0, 0])


def test_numbers_that_float32_cannot_tell_apart_are_named_once():
    with pytest.warns(
        UserWarning, match=r"time.*Clock-v0 reach 1.7e\+09.*128 apart"
    ) as w:
        checked([0, 0, 1.7e9, 0])
    assert len(w) == 1


def test_other_numbers_pass_in_silence():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checked([0, -1e7, 1e-30, 1.6e7])
