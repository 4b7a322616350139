"""Grids and distributions: all combinations, within ranges, from a seed alone."""

import json

import numpy as np
import pytest
import yaml

from kerasrl.tuning import (
    choice,
    grid_search,
    loguniform,
    normal,
    quniform,
    randint,
    sample_from,
    uniform,
    variants,
)
from kerasrl.tuning.spaces import read_spaces

# As RLlib ships it.
CARTPOLE_GRID_SEARCH = """
cartpole-ppo:
    run: PPO
    env: CartPole-v0
    num_samples: 1
    stop:
        episode_reward_mean: 200
        time_total_s: 180
    config:
        num_workers: 2
        num_sgd_iter:
            grid_search: [1, 4]
        sgd_minibatch_size:
            grid_search: [128, 256, 512]
"""
DOMAINS = [
    uniform(-1, 3),
    loguniform(1e-5, 1e-2),
    quniform(0.05, 0.95, 0.1),
    randint(2, 5),
    normal(1.0, 0.1),
    choice(["tanh", "relu"]),
]


def test_grids_are_tried_in_all_combinations():
    experiment = yaml.safe_load(CARTPOLE_GRID_SEARCH)["cartpole-ppo"]
    found = list(variants(experiment["config"], experiment["num_samples"]))
    assert [
        (x["num_workers"], x["num_sgd_iter"], x["sgd_minibatch_size"]) for x, _ in found
    ] == [(2, epochs, size) for epochs in (1, 4) for size in (128, 256, 512)]
    assert found[0][1] == "num_sgd_iter=1,sgd_minibatch_size=128"


def test_settings_stay_nested_and_are_named_by_their_path():
    config = {
        "gamma": grid_search([0.9, 0.99]),
        "policy": {"hidden_units": grid_search([[32], [64, 64]]), "activation": "tanh"},
        "layers": [1, grid_search([2, 3])],
    }
    found = list(variants(config))
    assert len(found) == 8
    settings, tag = found[3]
    assert settings == {
        "gamma": 0.9,
        "policy": {"hidden_units": [64, 64], "activation": "tanh"},
        "layers": [1, 3],
    }
    assert tag == "gamma=0.9,policy.hidden_units=[64,64],layers.1=3"
    # No variant holds a list of another.
    settings["policy"]["hidden_units"].append(1)
    assert list(variants(config))[3][0]["policy"]["hidden_units"] == [64, 64]


def test_a_grid_may_hold_what_is_drawn_and_further_grids():
    policy = grid_search(
        [
            {"activation": grid_search(["tanh", "relu"])},
            {"scale": {"uniform": [1, 2]}},
        ]
    )
    found = [settings["policy"] for settings, _ in variants({"policy": policy})]
    assert found[:2] == [{"activation": "tanh"}, {"activation": "relu"}]
    assert 1 <= found[2]["scale"] <= 2


def test_each_point_of_a_grid_is_drawn_anew_as_often_as_asked():
    config = {"gamma": grid_search([0.9, 0.99]), "learning_rate": loguniform(1e-4, 1)}
    found = [settings for settings, _ in variants(config, num_samples=3, seed=5)]
    assert [each["gamma"] for each in found] == [0.9, 0.99] * 3
    assert len({each["learning_rate"] for each in found}) == 6


def test_draws_depend_on_seed_number_and_name_alone():
    config = {"a": uniform(0, 1), "b": {"c": uniform(0, 1)}}
    found = list(variants(config, num_samples=3, seed=1))
    assert found == list(variants(config, num_samples=5, seed=1))[:3]
    assert found != list(variants(config, num_samples=3, seed=2))
    assert found[0][0]["a"] != found[0][0]["b"]["c"]
    more = {"new": choice([1, 2]), **config}
    assert [x["a"] for x, _ in variants(more, 3, seed=1)] == [x["a"] for x, _ in found]


def test_functions_see_what_was_chosen_before():
    config = {
        "double": sample_from(lambda s: np.int64(2 * s["policy"]["units"])),
        "policy": {"units": grid_search([8, 16])},
        "text": sample_from(lambda s: f"{s['double']}"),
    }
    found = [settings for settings, _ in variants(config)]
    assert [(x["double"], x["text"]) for x in found] == [(16, "16"), (32, "32")]
    assert type(found[0]["double"]) is int


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.name)
def test_draws_are_what_clip_leaves_and_files_spell(domain):
    rng = np.random.default_rng(0)
    values = [domain.sample(rng) for _ in range(300)]
    assert json.loads(json.dumps(values)) == values
    assert [domain.clip(value) for value in values] == values
    assert read_spaces({"x": json.loads(json.dumps(domain.as_config()))}) == {
        "x": domain
    }
    if domain.name not in ("choice", "normal"):
        low, high = domain.clip(-100), domain.clip(100)
        assert low <= min(values) and max(values) <= high
        assert type(low) is type(values[0])


def test_distributions_are_those_they_are_called():
    rng = np.random.default_rng(0)
    assert {round(quniform(0, 1, 0.25).sample(rng), 2) for _ in range(200)} == {
        *(0, 0.25, 0.5, 0.75, 1)
    }
    assert {randint(2, 5).sample(rng) for _ in range(200)} == {2, 3, 4}
    logs = np.log10([loguniform(1e-5, 1e-1).sample(rng) for _ in range(2000)])
    assert logs.mean() == pytest.approx(-3, abs=0.1)
    draws = [normal(3, 2).sample(rng) for _ in range(2000)]
    assert np.std(draws) == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: grid_search([]), "a list of values"),
        (lambda: grid_search("abc"), "a list of values"),
        (lambda: uniform(1, 0), "low <= high"),
        (lambda: uniform(0, float("inf")), "finite"),
        (lambda: loguniform(0, 1), "positive"),
        (lambda: quniform(0.1, 0.2, 1.0), "a multiple of"),
        (lambda: randint(1, 1), "low < high"),
        (lambda: randint(0.5, 2), "an integer"),
        (lambda: normal(0, 0), "positive"),
        (lambda: read_spaces({"a": {"uniform": [0]}}), "as many numbers"),
        (lambda: read_spaces({"a": {"uniform": 3}}), "a list of numbers"),
        (lambda: read_spaces({"a": {"choice": [1], "b": 1}}), "the only key"),
        (lambda: choice([uniform(0, 1)]), "plain values"),
        (lambda: choice([{"grid_search": [1]}]), "plain values"),
        (lambda: list(variants({"a": 1}, num_samples=0)), "num_samples=0"),
        (lambda: list(variants([1])), "a dict"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_files_hold_no_functions():
    with pytest.raises(TypeError, match="in Python"):
        read_spaces({"a": {"sample_from": "lambda spec: 1"}})
    with pytest.raises(TypeError, match="cannot be written"):
        sample_from(len).as_config()
    with pytest.raises(TypeError, match="settings chosen so far"):
        sample_from(len).sample(np.random.default_rng(0))
