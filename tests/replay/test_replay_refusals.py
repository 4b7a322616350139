"""What a replay buffer refuses, and how it says so."""

import dataclasses

import numpy as np
import pytest
from replay_helpers import (
    ACTIONS,
    NUMBERS,
    make_world,
    number_buffer,
    one_env_rollout,
)

from kerasrl.replay import ReplayBuffer


class TestRefusals:
    def test_other_number_of_environments(self):
        world = make_world(np.random.default_rng(0), 3)
        buffer = ReplayBuffer(60, NUMBERS, ACTIONS, 2)
        with pytest.raises(ValueError, match="made for 2 environments"):
            buffer.add(world.collect(4))

    def test_missing_final_observations(self):
        rollout = one_env_rollout([1.0, 2.0, 3.0], [0], [2])
        for final in (
            None,
            {key: value[1:] for key, value in rollout.final.items()},
        ):
            with pytest.raises(ValueError, match="collector with all_finals=True"):
                number_buffer(9).add(dataclasses.replace(rollout, final=final))

    def test_slices(self):
        with pytest.raises(ValueError, match="whole\\s+rollouts"):
            number_buffer(9).add(one_env_rollout([1.0, 2.0])[:1])

    @pytest.mark.parametrize(
        "change",
        [
            {"observations": np.zeros((2, 1, 2), np.float32)},
            {"observations": np.zeros((2, 1, 1), complex)},
            {"observations": {"a": np.zeros((2, 1, 1), np.float32)}},
            {"actions": np.zeros((2, 1), np.float32)},
            {"rewards": np.zeros((2,), np.float32)},
            {"valid": np.ones((2, 2), bool)},
        ],
    )
    def test_rollouts_that_do_not_fit(self, change):
        rollout = dataclasses.replace(one_env_rollout([1.0, 2.0]), **change)
        with pytest.raises(ValueError, match="Received"):
            number_buffer(9).add(rollout)

    @pytest.mark.parametrize(
        ("arguments", "match"),
        [
            ({"capacity": 0}, "capacity"),
            ({"capacity": 2.5}, "capacity"),
            ({"capacity": 2}, "too small"),
            ({"capacity": 5, "n_step": 5}, "too small"),
            ({"capacity": 9, "num_envs": 0}, "num_envs"),
            ({"capacity": 9, "n_step": 0}, "n_step"),
            ({"capacity": 9, "gamma": 1.5}, "gamma"),
            ({"capacity": 9, "frame_stack": 2}, "frame_stack"),
            ({"capacity": 9, "frame_axis": 1}, "frame_axis"),
        ],
    )
    def test_arguments(self, arguments, match):
        with pytest.raises(ValueError, match=match):
            number_buffer(**arguments)

    def test_samples(self):
        buffer = number_buffer(9)
        with pytest.raises(ValueError, match="nothing to sample"):
            buffer.sample(3)
        buffer.add(one_env_rollout([1.0]))
        for arguments in ((0,), (1.5,), (3, 0)):
            with pytest.raises(ValueError, match="positive integer"):
                buffer.sample(*arguments)
        with pytest.raises(ValueError, match="importance_exponent"):
            buffer.sample(3, importance_exponent=-1.0)
        with pytest.raises(ValueError, match="no priorities"):
            buffer.update_priorities(np.zeros(1, np.int64), np.zeros(1))
        assert len(buffer.sample(3)["rewards"]) == 3
