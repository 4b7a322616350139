"""What an agent compiles lives as long as the agent."""

import gc
import weakref

import gymnasium
import numpy as np
import pytest
import tiny

import kerasrl
from kerasrl.training import compiled


@pytest.mark.parametrize("name", ["PPO", "SAC"])
def test_a_deleted_agent_frees_its_graphs(name):
    agent = tiny.make(name)
    agent.fit(tiny.env_of(name), steps=80, num_envs=2, verbose=0)
    agent.predict(agent.policy.observation_space.sample()[None])
    kept = {
        "agent": weakref.ref(agent),
        "policy": weakref.ref(agent.policy),
        "update": weakref.ref(agent._compiled_update),
        "graph": weakref.ref(agent._compiled_update._compiled.graph),
    }
    del agent
    gc.collect()
    assert [part for part, reference in kept.items() if reference() is not None] == []


@pytest.mark.xla
def test_what_gains_from_xla():
    """Convolutions, which XLA makes ten times as slow on a CPU, do not."""
    image = gymnasium.spaces.Box(0, 255, (36, 36, 4), np.uint8)
    vector = gymnasium.spaces.Box(0.0, 1.0, (3,))
    for make in (kerasrl.DQN, kerasrl.PPO):
        for space, gains in ((image, False), (vector, True)):
            agent = make(policy={"hidden_units": (4,)})
            agent.build(space, gymnasium.spaces.Discrete(2))
            assert compiled.gains_from_xla(agent) == gains
