import types
import warnings

import numpy as np
import pytest

import kerasrl
from kerasrl.callbacks import RewardScaleWarning


def rollout(rewards, ended=None, valid=None):
    rewards = np.asarray(rewards, dtype="float32")
    nothing = np.zeros(rewards.shape, dtype=bool)
    return types.SimpleNamespace(
        rewards=rewards,
        terminated=nothing if ended is None else np.asarray(ended),
        truncated=nothing,
        valid=~nothing if valid is None else np.asarray(valid),
        episode_starts=nothing,
    )


def test_scale_by_hand(agent):
    # gamma 0.5: 1, 2.5, then 1 after an end; 2, a filler left out, then -1.5.
    callback = RewardScaleWarning(rollouts=2)
    first = rollout(
        [[1.0, 2.0], [2.0, 7.0], [1.0, -1.5]],
        ended=[[False, False], [True, True], [False, False]],
        valid=[[True, True], [True, False], [True, True]],
    )
    agent.fit([callback], [{}], rollouts=[first])
    expected = np.sqrt(np.mean(np.square([1, 2, 2.5, 1, -1.5])))
    assert callback.scale == pytest.approx(expected)


def test_sums_go_on_from_rollout_to_rollout(agent):
    callback = RewardScaleWarning(rollouts=3)
    agent.fit([callback], [{}, {}], rollouts=[rollout([[4.0]]), rollout([[0.0]])])
    assert callback.scale == pytest.approx(np.sqrt((16 + 4) / 2))


@pytest.mark.parametrize(
    ("reward", "value_clip", "message"),
    [
        (5000.0, None, "drown the policy loss"),
        (1e-6, None, "hardly learn"),
        (50.0, 0.2, "value_clip=0.2"),
    ],
)
def test_warns_once(agent, reward, value_clip, message):
    agent.value_clip = value_clip
    rollouts = [rollout([[reward]])] * 6
    with pytest.warns(UserWarning, match=message) as caught:
        agent.fit([RewardScaleWarning(rollouts=2)], [{}] * 6, rollouts=rollouts)
    assert len(caught) == 1


@pytest.mark.parametrize("reward", [1.0, -10.0, 0.0])
def test_says_nothing_about_ordinary_rewards(agent, reward):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent.fit(
            [RewardScaleWarning(rollouts=1)], [{}], rollouts=[rollout([[reward]])]
        )


def test_an_agent_that_scales_rewards_is_left_alone(agent):
    agent.normalize_rewards = True
    callback = RewardScaleWarning(rollouts=1)
    agent.fit([callback], [{}], rollouts=[rollout([[1e6]])])
    assert np.isnan(callback.scale)


def test_bad_arguments():
    with pytest.raises(ValueError, match="low < high"):
        RewardScaleWarning(low=2.0, high=1.0)
    with pytest.raises(ValueError, match="rollouts must be at least 1"):
        RewardScaleWarning(rollouts=0)


def test_in_a_real_fit():
    callback = RewardScaleWarning(low=0.0, high=1.0, rollouts=2)
    with pytest.warns(UserWarning, match="drown"):
        kerasrl.PPO(rollout_length=32, num_epochs=1, seed=0).fit(
            "CartPole-v1", steps=128, num_envs=2, callbacks=[callback], verbose=0
        )
