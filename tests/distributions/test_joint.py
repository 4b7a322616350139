"""Actions of several parts: sums over the parts, by definition."""

import keras
import numpy as np
import pytest
from gymnasium import spaces
from references import everywhere

from kerasrl.distributions import (
    Bernoulli,
    Categorical,
    DiagonalGaussian,
    DistributionType,
    Joint,
    MultiCategorical,
    distribution_for,
)

# Keys out of order, which pairs keep and a plain dict does not, a start, shapes, and a
# tuple in a dict.
SPACE = spaces.Dict(
    [
        ("move", spaces.Box(-1, 1, (2,))),
        ("key", spaces.Discrete(3, start=5)),
        (
            "rest",
            spaces.Tuple([spaces.MultiDiscrete([2, 4]), spaces.MultiBinary(3)]),
        ),
    ]
)
SIZES = {"key": 3, "move": 4, "choices": 6, "switches": 3}


def make(*batch, seed=0):
    distribution_type = distribution_for(SPACE)
    shape = (*batch, distribution_type.parameters_size)
    parameters = np.random.default_rng(seed).normal(size=shape).astype("float32")
    return distribution_type, parameters


def parts(parameters):
    """The distributions of the parts, made by hand."""
    key, move, choices, switches = np.split(
        parameters, np.cumsum(list(SIZES.values()))[:-1], axis=-1
    )
    return {
        "key": Categorical(key),
        "move": DiagonalGaussian(move),
        "choices": MultiCategorical(choices, [2, 4]),
        "switches": Bernoulli(switches),
    }


def by_part(actions):
    choices, switches = actions["rest"]
    return {
        "key": actions["key"],
        "move": actions["move"],
        "choices": choices,
        "switches": switches,
    }


def test_the_space_says_its_parts():
    distribution_type, _ = make()
    assert distribution_type.distribution_class is Joint
    assert distribution_type.parameters_size == sum(SIZES.values())
    assert [part.parameters_size for part in distribution_type.parts] == list(
        SIZES.values()
    )
    assert distribution_type.action_shape == {
        "move": (2,),
        "key": (),
        "rest": ((2,), (3,)),
    }
    assert distribution_type.action_dtype["rest"] == ("int32", "int32")


@pytest.mark.parametrize("batch", [(), (5,), (3, 5)])
def test_actions_are_trees_like_the_space(batch):
    distribution_type, parameters = make(*batch)
    distribution = distribution_type(parameters)
    for actions in (distribution.sample(seed=1), distribution.mode()):
        keras.tree.assert_same_structure(actions, distribution_type.action_dtype)
        shapes = keras.tree.map_structure(lambda x: list(x.shape), by_part(actions))
        assert shapes == {
            "key": [*batch],
            "move": [*batch, 2],
            "choices": [*batch, 2],
            "switches": [*batch, 3],
        }
        assert tuple(distribution.log_prob(actions).shape) == batch


def test_sums_over_the_parts():
    distribution_type, parameters = make(7)
    _, others = make(7, seed=1)
    distribution, other = distribution_type(parameters), distribution_type(others)
    actions = distribution.sample(seed=3)
    mine, theirs, chosen = parts(parameters), parts(others), by_part(actions)
    for received, expected in (
        (distribution.log_prob(actions), [mine[n].log_prob(chosen[n]) for n in mine]),
        (distribution.entropy(), [mine[n].entropy() for n in mine]),
        (distribution.kl(other), [mine[n].kl(theirs[n]) for n in mine]),
    ):
        expected = np.sum([np.asarray(x) for x in expected], axis=0)
        np.testing.assert_allclose(received, expected, rtol=1e-5)
    modes = by_part(distribution.mode())
    for name, part in mine.items():
        np.testing.assert_array_equal(modes[name], part.mode())


def test_parts_are_drawn_apart():
    """Not with the same numbers, where the seed is one."""
    twins = distribution_for(spaces.Tuple([spaces.Box(-1, 1, (1,))] * 2))
    first, second = twins(np.zeros((1000, 4), "float32")).sample(seed=4)
    correlation = np.corrcoef(np.ravel(first), np.ravel(second))[0, 1]
    assert abs(correlation) < 0.15
    again, _ = twins(np.zeros((1000, 4), "float32")).sample(seed=4)
    np.testing.assert_array_equal(first, again)


def test_the_same_in_every_mode():
    distribution_type, parameters = make(4)
    _, others = make(4, seed=1)
    actions = distribution_type(parameters).sample(seed=1)
    actions = keras.tree.map_structure(np.asarray, actions)

    def function(parameters, others):
        distribution = distribution_type(parameters)
        return (
            distribution.log_prob(actions),
            distribution.entropy(),
            distribution.kl(distribution_type(others)),
        )

    everywhere(function, parameters, others, atol=1e-5)


def test_what_does_not_fit_is_refused():
    distribution_type, parameters = make(4)
    distribution = distribution_type(parameters)
    with pytest.raises(ValueError, match="tree of actions like the action space"):
        distribution.log_prob(np.zeros(4))
    with pytest.raises(ValueError, match=r"parameters of shape \[\.\.\., 16\]"):
        distribution_type(parameters[:, 1:])
    with pytest.raises(TypeError, match="Received: Bernoulli"):
        distribution.kl(Bernoulli(parameters))
    for empty in (
        spaces.Tuple([]),
        spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Dict()}),
    ):
        with pytest.raises(ValueError, match="no entries"):
            distribution_for(empty)
    with pytest.raises(TypeError, match="sort together.*'a', 1"):
        distribution_for(
            spaces.Dict([("a", spaces.Discrete(2)), (1, spaces.Discrete(2))])
        )
    pairs = [distribution_for(spaces.Dict({n: spaces.Discrete(2)})) for n in "ab"]
    with pytest.raises(ValueError, match="same parts"):
        pairs[0](parameters[:, :2]).kl(pairs[1](parameters[:, :2]))
    with pytest.raises(ValueError, match="needs parts"):
        Joint(parameters, {})
    assert isinstance(distribution_type, DistributionType)
