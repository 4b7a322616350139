"""What an agent compiles lives as long as the agent."""

import gc
import weakref

import pytest
import tiny


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
