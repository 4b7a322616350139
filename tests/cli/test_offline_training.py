"""`kerasrl train --data`: agents that learn from a data set."""

import json

import gymnasium
import numpy as np
import pytest
from commands import error, kerasrl

from kerasrl import offline

TRAIN = ["train", "MARWIL", "CartPole-v1", "--progress", "none", "--seed", "0"]


@pytest.fixture
def data(tmp_path):
    """A directory with a few random episodes of CartPole-v1."""
    env = gymnasium.make("CartPole-v1")
    env.action_space.seed(0)
    with offline.Writer(
        tmp_path / "data", env.observation_space, env.action_space
    ) as writer:
        for seed in range(3):
            observation, _ = env.reset(seed=seed)
            seen, taken, rewards, ended = [observation], [], [], (False, False)
            while not any(ended):
                taken.append(env.action_space.sample())
                observation, reward, *ended, _ = env.step(taken[-1])
                seen.append(observation)
                rewards.append(reward)
            writer.add(
                offline.Episode(
                    np.stack(seen), np.array(taken), np.array(rewards), *ended
                )
            )
    return tmp_path / "data"


def test_learns_from_data_and_is_evaluated_in_the_environment(data, tmp_path):
    run = tmp_path / "run"
    result = kerasrl(
        *(*TRAIN, "--data", data, "--steps", 16, "--logdir", run),
        *("--set", "batch_size=8", "--set", "policy.hidden_units=[8]"),
        *("--eval-episodes", 2),
    )
    assert result.exit_code == 0, result.output
    assert "return" in result.output
    (line,) = (run / "result.json").read_text().splitlines()
    logs = json.loads(line)
    assert logs["env_steps"] == 0 and logs["iterations"] == 2
    assert np.isfinite(logs["log_likelihood"])


def test_data_are_mixed_into_replay(data, tmp_path):
    command = [
        *("train", "DQN", "CartPole-v1", "--progress", "none", "--seed", "0"),
        *("--steps", 64, "--logdir", tmp_path / "run", "--eval-episodes", 0),
        *("--set", "batch_size=8", "--set", "policy.hidden_units=[8]"),
        *("--set", "learning_starts=16", "--offline-ratio", 0.5),
    ]
    result = kerasrl(*command, "--offline", data)
    assert result.exit_code == 0, result.output
    assert "--offline DIR" in error(*command)
    assert "--offline" in error(*command, "--offline", tmp_path / "none")


def test_data_that_are_not_there_are_refused(tmp_path):
    assert "--data" in error(*TRAIN, "--data", tmp_path / "none", "--steps", 8)
