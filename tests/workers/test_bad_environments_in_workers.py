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
from kerasrl.workers import make_collector, make_environments

pytestmark = pytest.mark.usefixtures("nothing_is_left")

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
            # Exceptions themselves would keep all that there is in their frames.
            _EXPECTED[space] = [
                (type(outcome), str(outcome))
                if isinstance(outcome, Exception)
                else outcome
                for outcome in outcomes(envs, space)
            ]
    return _EXPECTED[space]


CASES = [(*mode, "vector") for mode in MODES] + [
    (*MODES[1 + number % 4], space)
    for number, space in enumerate(sorted(set(OBSERVATION_SPACES) - {"vector"}))
]


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
        if not isinstance(wanted, tuple):
            assert not isinstance(outcome, Exception), (case, outcome)
            assert_equal(outcome, wanted)
            continue
        assert number % 2 == 0, case
        assert (type(outcome), str(outcome)) == wanted, case
        text = "".join(traceback.format_exception(outcome))
        # Where it was over there, if it was not seen in the whole rollout here.
        if "of the rollout" not in text:
            assert "In worker" in text and "RemoteTraceback" in text, case
    assert any(isinstance(outcome, Exception) for outcome in found)
    assert np.all([hasattr(outcome, "valid") for outcome in found[1::2]])
