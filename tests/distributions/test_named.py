"""Distributions of one's own: chosen by class, by name and by part."""

import re

import keras
import numpy as np
import pytest
from gymnasium import spaces
from laplace import Laplace

from kerasrl.distributions import (
    Categorical,
    Deterministic,
    DiagonalGaussian,
    Distribution,
    Joint,
    TanhGaussian,
    distribution_class,
    distribution_for,
    distribution_name,
    named,
    register_distribution,
)
from kerasrl.distributions.checking import check_methods, is_complete

BOX = spaces.Box(-1.0, 1.0, (2, 3))
SPACE = spaces.Dict({"move": BOX, "rest": spaces.Tuple([spaces.Discrete(2), BOX])})


def test_classes_and_names():
    for known in (Laplace, "tests>Laplace"):
        assert distribution_class(known) is Laplace
    assert distribution_name(Laplace) == "tests>Laplace"
    assert distribution_name({"move": Laplace, "rest": (None, TanhGaussian)}) == {
        "move": "tests>Laplace",
        "rest": [None, "kerasrl>TanhGaussian"],
    }
    assert distribution_class("Deterministic") is Deterministic
    assert distribution_class("kerasrl>Categorical") is Categorical


def test_a_class_for_a_space():
    for chosen in (Laplace, "tests>Laplace"):
        found = distribution_for(BOX, chosen)
        assert (found.distribution_class, found.parameters_size) == (Laplace, 12)
        assert (found.action_shape, found.action_dtype) == ((2, 3), "float32")
        assert found(np.zeros((5, 12))).sample(1).shape == (5, 2, 3)


@pytest.mark.parametrize("rest", [(None, "tests>Laplace"), [None, Laplace]])
def test_a_class_for_a_part(rest):
    found = distribution_for(SPACE, {"rest": rest})
    assert found.distribution_class is Joint
    classes = [part.distribution_class for part in found.parts]
    assert classes == [DiagonalGaussian, Categorical, Laplace]
    assert not is_complete(found) and is_complete(distribution_for(SPACE))


def test_a_class_for_all_parts_at_once():
    class Whole(Distribution):
        @staticmethod
        def parameters_size(action_space):
            return len(action_space)

    found = distribution_for(SPACE, Whole)
    assert (found.distribution_class, found.parameters_size) == (Whole, 2)
    assert found.action_dtype == {"move": "float32", "rest": ("int32", "float32")}


@pytest.mark.parametrize(
    ("space", "chosen"),
    [
        (BOX, {"move": Laplace}),
        (SPACE, {"walk": Laplace}),
        (SPACE, (Laplace, None)),
        (SPACE, {"rest": (Laplace,)}),
        (SPACE, {"move": [Laplace]}),
    ],
)
def test_parts_that_the_space_has_not_are_refused(space, chosen):
    with pytest.raises(ValueError, match="for the action space"):
        distribution_for(space, chosen)


def test_what_is_no_distribution_is_refused():
    class Unnamed(Laplace):
        pass

    with pytest.raises(TypeError, match="register_keras_serializable"):
        distribution_name(Unnamed)
    with pytest.raises(
        ValueError, match="Unknown distribution 'Laplacian'. .*register_"
    ):
        distribution_class("Laplacian")
    for wrong in (keras.layers.Dense, 3, Laplace(np.zeros((1, 2)), (1,))):
        with pytest.raises(TypeError, match="Expected a subclass"):
            distribution_class(wrong)


# The contract -------------------------------------------------------------------------

METHODS = ("sample", "mode", "log_prob", "entropy", "kl")


def check(cls, methods=METHODS, space=BOX):
    found = distribution_for(space, cls)
    check_methods(found(np.zeros((1, found.parameters_size))), found, methods, "PPO")


def test_one_that_has_all_methods_passes():
    check(Laplace)
    check({"rest": (None, Laplace)}, space=SPACE)


@pytest.mark.parametrize("name", METHODS)
def test_a_missing_method_is_named(name):
    lacking = type("Lacking", (Laplace,), {name: getattr(Distribution, name)})
    with pytest.raises(ValueError, match=f"PPO needs .*Lacking must define {name}"):
        check(lacking)
    if name not in ("sample", "log_prob"):
        check(lacking, [other for other in METHODS if other != name])


@pytest.mark.parametrize("name", METHODS)
def test_another_shape_is_refused(name):
    def wrong(self, *args, **kwargs):
        return getattr(super(cls, self), name)(*args, **kwargs)[None]

    cls = type("Wrong", (Laplace,), {name: wrong})
    with pytest.raises(ValueError, match=re.escape("returned ((1, 1")) as error:
        check(cls, [name])
    assert f"Wrong.{name}" in str(error.value)


def test_deterministic():
    found = distribution_for(BOX, Deterministic)
    parameters = np.arange(12.0).reshape(2, 6)
    distribution = found(parameters)
    for actions in (distribution.sample(), distribution.mode()):
        np.testing.assert_array_equal(actions, parameters.reshape(2, 2, 3))
    check(Deterministic, ("sample", "mode"))
    for name in ("log_prob", "entropy", "kl"):
        with pytest.raises(ValueError, match=f"has no {name}"):
            check(Deterministic, [name])
    with pytest.raises(TypeError, match="Box action spaces"):
        distribution_for(spaces.Discrete(2), Deterministic)
    with pytest.raises(ValueError, match="parameters of shape"):
        Deterministic(parameters, (4,))


def test_a_name_given_by_register_distribution(monkeypatch):
    class Logistic(Laplace):
        pass

    monkeypatch.setattr(named.DISTRIBUTIONS, "_known", {})
    register_distribution("logistic", Logistic)
    assert distribution_class("logistic") is Logistic
    # Checkpoints name the class, whatever has the name of settings by then.
    assert distribution_name("logistic") == "distributions>logistic"
    assert distribution_name(Logistic) == "distributions>logistic"
    assert distribution_class("distributions>logistic") is Logistic
    assert distribution_for(BOX, "logistic").distribution_class is Logistic
    with pytest.raises(ValueError, match="Did you mean 'logistic'"):
        distribution_class("logistics")


@pytest.mark.parametrize("wrong", [3, dict, "Laplace", keras.layers.Dense])
def test_only_distributions_are_registered(wrong):
    with pytest.raises(TypeError, match=r"subclass of kerasrl\.distributions\.Dist"):
        register_distribution("wrong", wrong)
