import json

import pytest

from kerasrl.tuning import grid_search, run_experiments, uniform
from kerasrl.tuning.planning import is_sweep
from kerasrl.tuning.trial import Trial


def plan(tmp_path, experiments, **arguments):
    arguments = {"directory": tmp_path, "dry_run": True, **arguments}
    return run_experiments(experiments, **arguments).trials


def ppo(**entries):
    return {"run": "PPO", "env": "CartPole-v1", **entries}


def test_names_say_what_differs(tmp_path):
    config = {"gamma": grid_search([0.9, 0.99]), "model": {"fcnet_hiddens": [32]}}
    trials = plan(tmp_path, ppo(config=config, stop={"env_steps": 10}))
    assert [trial.name for trial in trials] == [
        "PPO_CartPole-v1_00000_gamma=0.9_seed=0",
        "PPO_CartPole-v1_00001_gamma=0.99_seed=0",
    ]
    assert trials[1].settings == {"gamma": 0.99, "model": {"fcnet_hiddens": [32]}}
    assert trials[1].directory == tmp_path / trials[1].name
    # Each has its own, whatever is done to it.
    assert trials[0].settings["model"] is not trials[1].settings["model"]
    assert not list(tmp_path.iterdir())


def test_names_of_directories_stay_short_and_plain(tmp_path):
    config = {"policy": grid_search([{"hidden_units": [8] * 90, "activation": "a/b"}])}
    with pytest.raises(ValueError):
        plan(tmp_path, {"run": "PPO", "config": {"gama": 1}})
    (trial,) = plan(
        tmp_path, {"run": "module:Mine", "env": "ALE/P-v5", "config": config}
    )
    assert trial.name.startswith("Mine_ALE-P-v5_00000_") and len(trial.name) < 170
    assert "/" not in trial.name and " " not in trial.name


def test_several_experiments_have_folders_and_share_rounds(tmp_path):
    trials = plan(tmp_path, {"a": ppo(), "b": ppo(seeds=1)}, seeds=2)
    assert [(x.experiment, x.seed) for x in trials] == [("a", 0), ("b", 0), ("a", 1)]
    assert trials[1].directory.parent == tmp_path / "b"


def test_samples_without_a_draw_are_seeds(tmp_path):
    trials = plan(tmp_path, ppo(num_samples=3))
    assert [(trial.number, trial.seed) for trial in trials] == [(0, 0), (0, 1), (0, 2)]
    trials = plan(tmp_path, ppo(num_samples=2, config={"seed": 7}), seeds=None)
    assert [trial.seed for trial in trials] == [7, 8]
    assert "seed" not in trials[0].settings


def test_a_grid_of_seeds(tmp_path):
    config = {"seed": grid_search([3, 5]), "gamma": grid_search([0.9, 0.99])}
    trials = plan(tmp_path, ppo(config=config))
    assert [(x.number, x.seed) for x in trials] == [(0, 3), (1, 3), (0, 5), (1, 5)]


def test_seeds_may_be_listed(tmp_path):
    assert [x.seed for x in plan(tmp_path, ppo(), seeds=[4, 1])] == [4, 1]
    with pytest.raises(ValueError, match="the same setting more than once"):
        plan(tmp_path, ppo(num_samples=2), seeds=[4, 1])
    with pytest.raises(ValueError, match="Give one of them"):
        plan(tmp_path, ppo(config={"seed": 1}), seeds=2)


def test_draws_depend_on_the_seed_alone(tmp_path):
    config = {"gamma": uniform(0.9, 1.0)}

    def gammas(**arguments):
        trials = plan(tmp_path, ppo(config=config, num_samples=5), **arguments)
        return [trial.settings["gamma"] for trial in trials if trial.seed == 0]

    assert gammas() == gammas() != gammas(seed=1)


def test_algorithms_and_environments_may_be_a_grid(tmp_path):
    experiment = {
        "run": {"grid_search": ["PPO", "A2C"]},
        "config": {"env": {"grid_search": ["CartPole-v1", "Acrobot-v1"]}},
    }
    trials = plan(tmp_path, experiment)
    assert [(trial.run, trial.env) for trial in trials] == [
        *(("PPO", "CartPole-v1"), ("PPO", "Acrobot-v1")),
        *(("A2C", "CartPole-v1"), ("A2C", "Acrobot-v1")),
    ]


def test_rllibs_grid_example_works_as_it_stands(tmp_path):
    import yaml

    text = """
    cartpole-ppo:
        env: CartPole-v0
        run: PPO
        stop: {episode_reward_mean: 200, time_total_s: 180}
        config:
            num_workers: 2
            num_sgd_iter: {grid_search: [1, 4]}
            sgd_minibatch_size: {grid_search: [128, 256, 512]}
    """
    trials = plan(tmp_path, yaml.safe_load(text))
    assert len(trials) == 6
    assert trials[5].tag == "num_sgd_iter=4,sgd_minibatch_size=512"


@pytest.mark.parametrize(
    ("experiments", "error", "message"),
    [
        ({}, ValueError, "experiments is empty"),
        ({"env": "CartPole-v1"}, TypeError, "experiment 'env'"),
        ({"a": {"env": "E"}}, ValueError, "names no algorithm"),
        ({"run": "PPPO"}, ValueError, "Did you mean 'PPO'"),
        (ppo(evn=3), ValueError, "Unknown entry 'evn'. Did you mean 'env'"),
        (ppo(config={"gama": 0.9}), ValueError, "Did you mean 'gamma'"),
        (ppo(config={"gamma": {"grid_search": []}}), ValueError, "grid_search"),
        (ppo(config={"gamma": grid_search([0.9]), "a": len}), TypeError, "setting 'a'"),
        (ppo(num_samples=0), ValueError, "num_samples must be an integer from 1"),
        (ppo(seeds=[]), ValueError, "a number of seeds, or a list"),
        (ppo(config={"num_gpus": 64}), ValueError, "num_gpus is 64"),
        (ppo(config={"num_gpus_per_worker": 1}), ValueError, "act in NumPy"),
        (ppo(stop={"env_steps": "a"}), ValueError, "stop criterion 'env_steps'"),
        (ppo(resources_per_trial={"token": 1}), ValueError, "'token'"),
        ({"run": "PPO", "env": object()}, TypeError, "register_env"),
        (
            {"a": ppo(local_dir="x"), "b": ppo(local_dir="y")},
            ValueError,
            "different local_dir",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(
    experiments, error, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        run_experiments(experiments, progress="none", dry_run=True)
    assert not list(tmp_path.iterdir())


def test_which_files_are_sweeps():
    assert not is_sweep({"a": ppo(config={"gamma": 0.9}, num_samples=1)})
    for entries in (
        {"config": {"gamma": {"uniform": [0.9, 1.0]}}},
        {"config": {"model": {"fcnet_hiddens": {"grid_search": [[8], [16]]}}}},
        {"num_samples": 2},
        {"seeds": 1},
        {"env": {"grid_search": ["A", "B"]}},
    ):
        assert is_sweep({"a": ppo(**entries)})
    assert is_sweep({"a": ppo(), "b": ppo()})


def test_a_trial_on_disk_is_whole_or_not_a_trial(tmp_path):
    trial = Trial("a", "PPO", "E", {}, {"gamma": 0.9}, 0, tmp_path / "a")
    trial.save()
    (trial.directory / "result.json").write_text('{"epoch": 0}\n{"epo')
    loaded = Trial.load(trial.directory)
    assert loaded.results == [{"epoch": 0}] and loaded.settings == {"gamma": 0.9}
    for text in ("", "[]", json.dumps({"name": "a"})):
        (trial.directory / "trial.json").write_text(text)
        with pytest.raises(ValueError, match="is not the state of a trial"):
            Trial.load(trial.directory)
