"""Environments that break the protocol: the same error with workers as without.

Workers must survive what their environments do, so each fault comes to environments
that were sound before, and they are sound again afterwards.
"""

import functools
import traceback

import numpy as np
import pytest
from envs.bad_environments import BAD, FAULTS, OBSERVATION_SPACES, BadEnv
from walks import ZeroActor, assert_equal, generators

from kerasrl.envs import make_envs
from kerasrl.rollouts.workers import make_collector, make_environments

#: Long enough for an end and for what follows it.
LENGTH = 6
NUM_ENVS = 3
MODES = [("act", 1), ("act", 2), ("step", 1), ("step", 2), ("alternate", 2)]
_EXPECTED = {}


class Changing(BadEnv):
    """Gets its fault while it runs."""

    def __init__(self, context):
        super().__init__(context["space"])
        self.index = context.env_index


def install(env, fault=None, call=None):
    env = env.unwrapped
    env.fault = fault if env.index == BAD else None
    env.call, env._episode = call, 0


def faults_of(space):
    return [
        (fault, call)
        for fault in FAULTS
        for call in fault.calls
        if fault.space == space
    ]


def outcomes(envs, space):
    """What comes of each fault: an exception, or a rollout; and of none, after each."""
    collector = make_collector(envs, ZeroActor(), LENGTH, generators(NUM_ENVS))
    found = []
    for fault, call in faults_of(space):
        for change in (functools.partial(install, fault=fault, call=call), install):
            envs.foreach(change)
            try:
                collector.reset(range(NUM_ENVS))
                found.append(collector.collect())
            except Exception as error:
                found.append(error)
    return found


def expected(space):
    if space not in _EXPECTED:
        with make_envs(Changing, NUM_ENVS, {"space": space}) as envs:
            _EXPECTED[space] = outcomes(envs, space)
    return _EXPECTED[space]


CASES = [(*mode, "vector") for mode in MODES] + [
    (*MODES[1 + number % 4], space)
    for number, space in enumerate(set(OBSERVATION_SPACES) - {"vector"})
]


@pytest.mark.filterwarnings("ignore::RuntimeWarning:numpy", "ignore:invalid value")
@pytest.mark.parametrize("mode, num_workers, space", sorted(CASES))
def test_a_broken_protocol_is_the_same_error(mode, num_workers, space):
    arguments = {"num_workers": num_workers, "worker_mode": mode}
    with make_environments(Changing, NUM_ENVS, {"space": space}, **arguments) as envs:
        pids = envs.pool.pids
        found = outcomes(envs, space)
        assert envs.pool.pids == pids
    for number, (outcome, wanted) in enumerate(
        zip(found, expected(space), strict=True)
    ):
        fault, call = faults_of(space)[number // 2]
        case = f"{fault.name} in {call}"
        if not isinstance(wanted, Exception):
            assert not isinstance(outcome, Exception), (case, outcome)
            assert_equal(outcome, wanted)
            continue
        assert number % 2 == 0, case
        assert type(outcome) is type(wanted), case
        assert str(outcome) == str(wanted), case
        text = "".join(traceback.format_exception(outcome))
        # Where it was seen over there, if not only in what arrived.
        if "NaN or infinity" not in text:
            assert "In worker" in text and "RemoteTraceback" in text, case
    assert any(isinstance(outcome, Exception) for outcome in found)
    assert np.all([hasattr(outcome, "valid") for outcome in found[1::2]])
