"""`kerasrl train` with several agents."""

import json

import pytest
from commands import kerasrl as run


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["MultiAgent", "tic_tac_toe"], "dict from ids"),
        (
            ["MultiAgent", "two_stop", "--set", 'agents={"a":"PPO"}'],
            "Did you mean 'two_step'",
        ),
        (["MultiAgent", "two_step", "--set", 'agents={"a":"PPX"}'], "mean 'PPO'"),
        (["MultiAgent", "two_step", "--set", "gama=1"], "no setting"),
        (["QMIX", "multi_agent_pendulum"], "Discrete actions"),
    ],
)
def test_mistakes_are_explained(arguments, match):
    result = run("train", *arguments, "--steps", 10)
    assert result.exit_code != 0 and match in result.output, result.output


def test_several_policies_are_trained_resumed_and_evaluated(tmp_path):
    small = {"hidden_units": [8]}
    main_policy = {"run": "PPO", "config": {"rollout_length": 8, "policy": small}}
    agents = {"main": main_policy, "past": "past:main", "dummy": "random"}
    config = {"agents": agents, "mapping": "either_side", "num_envs": 2}
    directory = tmp_path / "run"
    result = run(
        *("train", "MultiAgent", "tic_tac_toe", "--config", json.dumps(config)),
        *("--steps", 100, "--seed", 1, "--logdir", directory, "--eval-episodes", 4),
        *("--progress", "none", "--eager"),
        *("--stop", '{"policy_return_main_mean": 9}'),
    )
    assert result.exit_code == 0, result.output
    lines = (directory / "result.json").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert rows[-1]["env_steps"] >= 100 and rows[-1]["snapshots_past"] == 1
    checkpoint = max(
        directory.glob("checkpoint-[0-9]*"), key=lambda p: p.stat().st_mtime
    )
    result = run(
        *("train", "--resume", checkpoint, "--steps", 50, "--eval-episodes", 0),
        *("--progress", "none", "--eager"),
    )
    assert result.exit_code == 0, result.output
    result = run("evaluate", checkpoint, "--episodes", 3)
    assert result.exit_code == 0 and "3 episodes" in result.output, result.output
    result = run("rollout", checkpoint)
    assert result.exit_code != 0 and "several agents" in result.output


def test_steps_that_are_left_are_those_that_are_counted(tmp_path):
    one = {"run": "PG", "config": {"rollout_length": 10}}
    config = {"agents": {"one": one}, "count_steps_by": "agent_steps", "num_envs": 1}
    command = (
        *("train", "MultiAgent", "two_step", "--config", json.dumps(config)),
        *("--eval-episodes", 0, "--progress", "none", "--eager"),
    )
    elastic = (*command, "--elastic", "--logdir", tmp_path / "run", "--steps", 40)
    for _ in range(2):
        result = run(*elastic)
        assert result.exit_code == 0, result.output
    assert "All steps are done" in result.output
    # Two agents: 40 of their steps are 20 of the environment.
    stop = json.dumps({"env_steps": 40})
    result = run(*command, "--logdir", tmp_path / "stopped", "--stop", stop)
    rows = (tmp_path / "stopped" / "result.json").read_text().splitlines()
    assert result.exit_code == 0 and json.loads(rows[-1])["env_steps"] == 40
