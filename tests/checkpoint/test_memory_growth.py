"""Saving and loading in a loop takes no more memory."""

import fuzzing
import pytest
from memory import resident

import kerasrl


@pytest.mark.slow
def test_saving_and_loading_in_a_loop(tmp_path):
    def pairs(count):
        agent = kerasrl.load(fuzzing.GOLDEN / "ppo_schema1.kerasrl")
        for _ in range(count):
            agent = kerasrl.load(agent.save(tmp_path / "agent.kerasrl"))

    pairs(20)  # TensorFlow's pools fill up first.
    before = resident()
    pairs(15)
    assert (resident() - before) / 15 < 100  # kilobytes: 10; 830 before
