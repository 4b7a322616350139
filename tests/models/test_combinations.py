"""Several choices as one."""

import itertools

import numpy as np
import pytest
from gymnasium import spaces

import kerasrl
from kerasrl.models.combinations import Combinations

SPACES = {
    "list": (spaces.MultiDiscrete([3, 1, 4]), [3, 1, 4]),
    "grid": (spaces.MultiDiscrete([[2, 3], [4, 2]]), [2, 3, 4, 2]),
    "binary": (spaces.MultiBinary((2, 2)), [2, 2, 2, 2]),
}


@pytest.mark.parametrize("name", SPACES)
def test_every_combination_has_a_number(name):
    space, counts = SPACES[name]
    combinations = Combinations(space)
    every = np.array(list(itertools.product(*map(range, counts))))
    actions = every.reshape(-1, *space.shape)
    numbers = np.arange(len(every))
    assert combinations.count == len(every)
    np.testing.assert_array_equal(combinations.number(actions), numbers)
    np.testing.assert_array_equal(combinations.actions(numbers), actions)
    # Leading axes, as of critics or of sequences.
    twice = np.stack([numbers, numbers[::-1]])
    np.testing.assert_array_equal(combinations.number(actions[twice]), twice)
    np.testing.assert_array_equal(combinations.actions(twice), actions[twice])


def test_an_action_is_legal_if_each_of_its_choices_is():
    combinations = Combinations(spaces.MultiDiscrete([3, 2]))
    options = np.random.default_rng(0).random((2, 20, 5)) < 0.5
    legal = np.asarray(combinations.legal(options))
    for where in np.ndindex(2, 20):
        for number, (first, second) in enumerate(itertools.product(range(3), range(2))):
            expected = options[where][first] and options[where][3 + second]
            assert legal[(*where, number)] == expected


def test_a_single_choice_is_left_as_it_is():
    combinations = Combinations(spaces.Discrete(3, start=2))
    actions = np.arange(3)
    assert combinations.number(actions) is combinations.actions(actions) is actions
    assert combinations.count == 3


def test_what_has_too_many_combinations_is_refused():
    with pytest.raises(ValueError, match="1,048,576 actions.*kerasrl.PPO"):
        kerasrl.DQN().build(spaces.Box(-1, 1, (2,)), spaces.MultiBinary(20))
    with pytest.raises(ValueError, match="1,048,576 actions.*kerasrl.PPO"):
        kerasrl.SAC().build(spaces.Box(-1, 1, (2,)), spaces.MultiBinary(20))
    with pytest.raises(TypeError, match="no choices"):
        Combinations(spaces.Box(-1, 1, (2,)))
