"""Agents in environments that are bad, or that take unusual actions."""

import numpy as np
import pytest
from envs import bad_environments as bad
from envs.for_workers import Echo, MakeEcho
from gymnasium import spaces

import kerasrl
from kerasrl.envs import EnvProtocolError, check_env, clip_actions
from kerasrl.workers import make_collector, make_environments

PIXELS = spaces.Box(3, 250, (2,), np.uint8)
#: Bounds that no float of single precision holds, around an uneven center.
WIDE = spaces.Box(-(2**62), 2**61 + 1, (1,), np.int64)
CASES = {
    "PG": (kerasrl.PG, PIXELS),
    "PPO": (kerasrl.PPO, spaces.Box(0, 3, (1, 2), np.int32)),
    "A2C": (kerasrl.A2C, spaces.MultiDiscrete([3, 200], dtype=np.uint8, start=[9, 1])),
    "SAC": (kerasrl.SAC, PIXELS),
    "SAC_wide": (kerasrl.SAC, WIDE),
    "TD3": (kerasrl.TD3, spaces.Box(-100, 100, (2,), np.int8)),
    "DDPG": (kerasrl.DDPG, spaces.Box(0, 1, (2, 1), np.uint16)),
    "DQN": (kerasrl.DQN, spaces.Discrete(100, start=20, dtype=np.int8)),
    "R2D2": (kerasrl.R2D2, spaces.Discrete(4, start=-9)),
}
NUM_ENVS, LENGTH = 4, 9


def rollouts(agent, action_space, num_workers=0, mode=None):
    """What two rollouts record, and what the environments got meanwhile."""
    make = MakeEcho(action_space)
    envs = make_environments(make, NUM_ENVS, None, num_workers, mode, None)
    try:
        agent.build(envs.observation_space, action_space)
        generators = [np.random.default_rng(env) for env in range(NUM_ENVS)]
        agent.actor().refresh()
        collector = make_collector(
            envs, agent.actor(), LENGTH, generators, info_keys=("got",)
        )
        collector.exploration = agent.exploration_inputs(NUM_ENVS)
        collector.reset(list(range(NUM_ENVS)))
        pair = collector.collect(), collector.collect()
    finally:
        envs.close()
    return [(rollout.actions, rollout.infos["got"]) for rollout in pair]


@pytest.mark.parametrize("name", CASES)
def test_environments_get_what_the_record_says(name):
    agent_class, space = CASES[name]
    agent = agent_class(seed=0)
    for actions, got in rollouts(agent, space):
        is_box = isinstance(space, spaces.Box)
        assert actions.dtype == ("float32" if is_box else space.dtype)
        assert actions.dtype.kind == "f" or actions.min() >= 0
        flat = actions.reshape(-1, *space.shape)
        taken = clip_actions(flat, space).reshape(actions.shape)
        np.testing.assert_array_equal(taken, got)
    # Not by truncation, which once went unseen where nothing was rounded up.
    if isinstance(space, spaces.Box) and space is not WIDE:
        assert (flat != np.trunc(flat)).any()


# "alternate" exchanges steps as "step" does.
@pytest.mark.parametrize("mode", ["act", "alternate"])
def test_workers_record_the_same(mode):
    agent = kerasrl.SAC(seed=0)
    alone = rollouts(agent, PIXELS)
    found = rollouts(agent, PIXELS, 2, mode)
    for (actions, got), (expected, expected_got) in zip(found, alone, strict=True):
        assert actions.dtype == np.float32
        np.testing.assert_allclose(actions, expected, rtol=1e-6)
        np.testing.assert_array_equal(got, expected_got)


def test_critics_see_what_was_emitted():
    """Replayed actions are those of the policy: within [-1, 1], and not rounded."""
    agent = kerasrl.SAC(seed=0, learning_starts=10_000, buffer_size=256)
    agent.fit(lambda: Echo(PIXELS), steps=40, num_envs=2, verbose=0)
    actions = agent.sample(1)["actions"]
    normalized = np.asarray(agent.policy.normalize_actions(actions))
    assert np.abs(normalized).max() <= 1.0 + 1e-6
    assert len(np.unique(normalized)) > 60


def test_fit_says_what_check_env_says():
    old = next(fault for fault in bad.FAULTS if fault.name == "step old")
    only = next(fault for fault in bad.FAULTS if fault.name == "reset observation only")
    agent = kerasrl.PPO(policy={"hidden_units": (4,)}, rollout_length=8)
    for fault in (old, only):
        env = bad.BadEnv("vector", fault, fault.calls[0])
        messages = []
        for function in (check_env, lambda env: agent.fit(env, steps=8, verbose=0)):
            with pytest.raises(EnvProtocolError) as caught:
                function(bad.BadEnv("vector", fault, env.call))
            messages.append(str(caught.value))
        assert messages[0] == messages[1]
        assert "Environments of the old gym" in messages[0]
