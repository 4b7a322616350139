"""Default spaces: every algorithm has one, and takes all that may be drawn from it."""

import pytest

from kerasrl.experiment import find_algorithm, split_config
from kerasrl.tuning.search_spaces import SPACES, search_space
from kerasrl.tuning.spaces import variants


def test_every_algorithm_has_a_space():
    from kerasrl.experiment.catalog import algorithms

    assert set(algorithms()) == set(SPACES)


@pytest.mark.parametrize("algorithm", SPACES)
def test_an_algorithm_takes_what_is_drawn(algorithm):
    for settings, _ in variants(search_space(algorithm), num_samples=20):
        sorted_settings = split_config(settings, find_algorithm(algorithm))
        assert sorted_settings.optimizer["learning_rate"] > 0


def test_a_name_that_is_none_is_refused():
    with pytest.raises(ValueError, match="Did you mean 'PPO'"):
        search_space("ppo")
