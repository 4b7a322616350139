"""The trainable for Ray Tune, called as Ray Tune calls it."""

import json

import click
import numpy as np
import pytest

import kerasrl
from kerasrl.tuning import ray_trainable

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning:ray.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

CONFIG = {
    "run": "PPO",
    "env": "CartPole-v1",
    "steps_per_iteration": 64,
    "num_envs": 4,
    "rollout_length": 8,
    "num_epochs": 1,
    "minibatch_size": 32,
    "policy.hidden_units": [8],
    "seed": 3,
}


@pytest.fixture
def make(monkeypatch, tmp_path):
    """Makes trainables whose files are temporary, and closes them."""
    from ray.tune.trainable import trainable

    monkeypatch.setattr(trainable, "DEFAULT_STORAGE_PATH", str(tmp_path / "results"))
    made = []

    def make(**config):
        made.append(kerasrl.tuning.Trainable(config={**CONFIG, **config}))
        return made[-1]

    yield make
    for each in made:
        each.stop()


def weights(trainable):
    return trainable._agent.policy.get_weights()


def test_each_result_takes_so_many_steps_and_says_what_fit_would(make):
    trainable = make(learning_rate=1e-3)
    results = [trainable.train() for _ in range(2)]
    assert [each["env_steps"] for each in results] == [64, 128]
    assert [each["timesteps_total"] for each in results] == [64, 128]
    assert [each["training_iteration"] for each in results] == [1, 2]
    assert np.isfinite(results[-1]["loss"]) and not results[-1]["done"]
    assert results[-1]["episode_return_mean"] > 0


def test_it_is_done_after_all_steps(make):
    trainable = make(steps=96)
    assert not trainable.train()["done"]
    last = trainable.train()
    assert last["done"] and last["env_steps"] == 96


def test_steps_are_those_that_fit_counts(make):
    class Several:
        counted, env_steps, agent_steps = "agent_steps", 20, 30

        def iterate(self, env, steps, **_):
            self.left = steps

    trainable = make(steps=40)
    trainable._agent = several = Several()
    trainable._begin()
    assert several.left == 10


def test_a_trial_goes_on_from_its_checkpoint(make, tmp_path):
    trainable = make()
    trainable.train()
    trainable.save_checkpoint(str(tmp_path))
    other = make()
    other.load_checkpoint(str(tmp_path))
    for one, two in zip(weights(trainable), weights(other), strict=True):
        np.testing.assert_array_equal(one, two)
    assert other.train()["env_steps"] == 128


def test_another_trial_takes_over_weights_and_keeps_its_own_settings(make, tmp_path):
    donor = make(learning_rate=1e-2, gamma=0.9)
    donor.train()
    donor.save_checkpoint(str(tmp_path))
    trial = make(learning_rate=1e-4, gamma=0.99)
    trial.train()
    trial.load_checkpoint(str(tmp_path))
    for one, two in zip(weights(donor), weights(trial), strict=True):
        np.testing.assert_array_equal(one, two)
    optimizer = trial._agent.policy.optimizer
    assert float(optimizer.learning_rate) == pytest.approx(1e-4)
    assert int(optimizer.iterations) == int(donor._agent.policy.optimizer.iterations)
    assert trial._agent.gamma == 0.99
    trial.train()


def test_what_cannot_change_is_refused(make, tmp_path):
    donor = make()
    donor.save_checkpoint(str(tmp_path))
    for config in ({"policy.hidden_units": [4]}, {"run": "A2C", "num_epochs": None}):
        config = {k: v for k, v in {**CONFIG, **config}.items() if v is not None}
        if config["run"] == "A2C":
            del config["minibatch_size"]
        trial = kerasrl.tuning.Trainable(config=config)
        with pytest.raises(ValueError, match="cannot change in a trained agent"):
            trial.load_checkpoint(str(tmp_path))
        trial.stop()


def test_it_becomes_a_trial_with_other_settings_that_begins_anew(make):
    trainable = make()
    trainable.train()
    assert trainable.reset({**CONFIG, "gamma": 0.5})
    assert trainable.train()["env_steps"] == 64
    assert trainable._agent.gamma == 0.5


@pytest.mark.parametrize(
    "config, message",
    [
        ({"env": None}, "config needs 'env'"),
        ({"gama": 0.9}, "gamma"),
        ({"steps_per_iteration": 0}, "steps_per_iteration must be"),
    ],
)
def test_settings_that_make_no_sense(make, config, message):
    with pytest.raises(click.UsageError, match=message):
        make(**config)


@pytest.mark.parametrize(
    "config, expected",
    [
        ({}, [{"CPU": 1}]),
        ({"num_workers": 3, "num_gpus": 0.5}, [{"CPU": 4, "GPU": 0.5}]),
        ({"num_workers": 2, "cluster": "ray"}, [{"CPU": 1}, {"CPU": 1}, {"CPU": 1}]),
        (
            {
                "num_workers": 1,
                "cluster": {"num_cpus": 0.5, "resources": {"arm": 1}},
            },
            [{"CPU": 1}, {"CPU": 0.5, "arm": 1}],
        ),
        ({"num_workers": 2, "cluster": {"num_cpus": 0}}, [{"CPU": 1}]),
        (
            {
                **{
                    "num_workers": 2,
                    "num_cpus_for_driver": 2,
                    "num_cpus_per_worker": 3,
                },
                "custom_resources_per_worker": {"arm": 0.5},
            },
            [{"CPU": 8, "arm": 1}],
        ),
        (
            {
                **{"num_workers": 1, "cluster": "ray", "num_gpus_per_worker": 0.5},
                "custom_resources_per_worker": {"arm": 1},
            },
            [{"CPU": 1}, {"CPU": 1, "GPU": 0.5, "arm": 1}],
        ),
    ],
)
def test_it_asks_ray_for_what_its_workers_need(config, expected):
    asked = kerasrl.tuning.Trainable.default_resource_request({**CONFIG, **config})
    found = [{k: v for k, v in each.items() if v} for each in asked.bundles]
    assert found == expected


@pytest.mark.slow
def test_ray_tune_runs_it_with_workers_and_a_population(tmp_path, monkeypatch):
    import ray
    from ray import tune

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    try:
        scheduler = tune.schedulers.PopulationBasedTraining(
            time_attr="env_steps",
            perturbation_interval=64,
            quantile_fraction=0.5,
            hyperparam_mutations={"learning_rate": tune.loguniform(1e-4, 1e-2)},
        )
        results = tune.Tuner(
            kerasrl.tuning.Trainable,
            param_space={
                **CONFIG,
                "num_workers": 1,
                "cluster": "ray",
                "learning_rate": tune.grid_search([1e-5, 1e-3]),
            },
            tune_config=tune.TuneConfig(
                metric="episode_return_mean",
                mode="max",
                scheduler=scheduler,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                storage_path=str(tmp_path), stop={"env_steps": 512}, verbose=0
            ),
        ).fit()
    finally:
        ray.shutdown()
    assert not results.errors and len(results) == 2
    assert all(each.metrics["env_steps"] >= 512 for each in results)


def test_objects_are_the_same_in_each_process():
    one, other = (
        ray_trainable._plain(kerasrl.models.ActorCritic(hidden_units=(3,)))
        for _ in range(2)
    )
    assert json.dumps(one) == json.dumps(other)
