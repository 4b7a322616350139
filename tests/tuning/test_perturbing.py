"""What settings become: neighbours, multiples within their range, or a new draw."""

import numpy as np
import pytest

import kerasrl
from kerasrl.tuning import (
    choice,
    grid_search,
    loguniform,
    normal,
    randint,
    sample_from,
    uniform,
)
from kerasrl.tuning.perturbing import check_mutations, is_fixed, perturb, spelled


def outcomes(settings, mutations, resample_probability=0.0, count=200):
    mutations = check_mutations(mutations)
    rng = np.random.default_rng(0)
    return [
        perturb(settings, mutations, rng, resample_probability) for _ in range(count)
    ]


def test_a_value_of_a_list_moves_to_a_neighbour_and_stays_at_the_ends():
    for before, after in ((2, {1, 4}), (1, {1, 2}), (8, {4, 8})):
        found = outcomes({"num_epochs": before}, {"num_epochs": [1, 2, 4, 8]})
        assert {each["num_epochs"] for each in found} == after


def test_a_value_that_is_in_no_list_is_drawn_from_it():
    found = outcomes({"num_epochs": 3}, {"num_epochs": choice([1, 2, 4])})
    assert {each["num_epochs"] for each in found} == {1, 2, 4}
    found = outcomes({"units": [32]}, {"units": [(32,), (64,), (128,)]})
    assert {each["units"] for each in found} == {(32,), (64,)}


def test_a_number_is_multiplied_and_clipped_to_its_range():
    found = outcomes({"gamma": 0.5}, {"gamma": uniform(0.0, 1.0)})
    assert {each["gamma"] for each in found} == {0.5 * 1.2, 0.5 * 0.8}
    found = outcomes({"gamma": 0.95}, {"gamma": uniform(0.9, 1.0)})
    assert {each["gamma"] for each in found} == {0.9, 1.0}
    # Values that walk out of the range in many small steps.
    settings, mutations = {"lr": 1e-3}, check_mutations({"lr": loguniform(1e-4, 1e-2)})
    rng = np.random.default_rng(0)
    values = []
    for _ in range(500):
        settings = perturb(settings, mutations, rng, 0.0)
        values.append(settings["lr"])
    assert min(values) >= 1e-4 and max(values) <= 1e-2
    assert len(set(values)) > 20


def test_integers_stay_integers_and_flags_stay_as_they_are():
    found = outcomes({"n": 10, "on": True}, {"n": randint(1, 12), "on": uniform(0, 1)})
    assert {each["n"] for each in found} == {8, 11}
    assert all(type(each["n"]) is int and each["on"] is True for each in found)
    # No integer is in this range.
    found = outcomes({"n": 1}, {"n": uniform(0.5, 0.9)})
    assert all(0.5 <= each["n"] <= 0.9 for each in found)


def test_with_some_probability_a_value_is_drawn_anew():
    found = outcomes({"x": 1.0}, {"x": uniform(5, 6)}, resample_probability=0.25)
    drawn = [each["x"] for each in found if each["x"] > 5]
    assert 25 < len(drawn) < 80
    found = outcomes({"x": 1}, {"x": [1, 2, 3]}, resample_probability=1.0)
    assert {each["x"] for each in found} == {1, 2, 3}
    found = outcomes({"x": 1.0}, {"x": lambda rng: rng.normal()}, 1.0)
    assert len({each["x"] for each in found}) == 200
    found = outcomes({"x": 2.0}, {"x": normal(0, 1)})
    assert {each["x"] for each in found} == {2.4, 1.6}


def test_nested_settings_missing_ones_and_other_spellings():
    settings = {"env_config": {"gravity": 10.0}, "lr": 0.1, "other": [1]}
    mutations = {
        "env_config": {"gravity": uniform(1, 20)},
        "learning_rate": uniform(0, 1),
        "gamma": uniform(0.9, 1),
    }
    (found,) = outcomes(settings, mutations, count=1)
    assert set(found) == {"env_config", "lr", "other", "gamma"}
    assert found["env_config"]["gravity"] in (12.0, 8.0)
    assert found["lr"] in (0.1 * 1.2, 0.1 * 0.8)
    assert 0.9 <= found["gamma"] <= 1
    assert settings["lr"] == 0.1 and found["other"] is not settings["other"]
    assert spelled("x", {"y": 1}) == "x"


def test_one_setting_more_leaves_the_seed_in_charge():
    first = outcomes({"a": 1.0}, {"a": uniform(0, 9)}, 0.25)
    assert first == outcomes({"a": 1.0}, {"a": {"uniform": [0, 9]}}, 0.25)


@pytest.mark.parametrize(
    "name", ["policy", "policy.hidden_units", "model", "num_envs", "seed", "optimizer"]
)
def test_what_fixes_shapes_is_not_perturbed(name):
    with pytest.raises(ValueError, match="cannot change"):
        check_mutations({name: [1, 2]})


def test_entries_of_mappings_are_looked_at():
    check_mutations({"optimizer": {"learning_rate": uniform(0, 1)}})
    for mutations in ({"optimizer": {"epsilon": [1]}}, {"policy": {"units": [1]}}):
        with pytest.raises(ValueError, match="cannot change"):
            check_mutations(mutations)


@pytest.mark.parametrize(
    ("mutations", "error"),
    [
        ({}, ValueError),
        ([], ValueError),
        ({"gamma": []}, TypeError),
        ({"gamma": 0.9}, TypeError),
        ({"gamma": grid_search([1])}, TypeError),
        ({"gamma": sample_from(len)}, TypeError),
        ({"gamma": lambda: 1}, TypeError),
    ],
)
def test_what_cannot_be_drawn_is_refused(mutations, error):
    with pytest.raises(error, match="Received mutations"):
        check_mutations(mutations)


def test_what_agents_cannot_change_is_not_perturbed():
    for name in kerasrl.agents.__all__:
        agent_class = getattr(kerasrl.agents, name)
        for argument, kind in all_kinds(agent_class).items():
            if kind.effect == "never":
                assert is_fixed(argument), (name, argument)


def all_kinds(agent_class):
    parents = reversed(getattr(agent_class, "__mro__", ()))
    found = {}
    for each in parents:
        found |= vars(each).get("kinds", {})
    return found
