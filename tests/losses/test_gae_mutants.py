"""The check of GAE can fail: it rejects eight bugs that shipped somewhere."""

import numpy as np
import pytest
from references import check_gae

from kerasrl.losses import gae


def backwards(deltas, weights):
    """A_t = deltas_t + weights_t * A_{t+1}."""
    result = np.zeros_like(deltas)
    later = np.zeros_like(deltas[0])
    for t in reversed(range(len(deltas))):
        later = deltas[t] + weights[t] * later
        result[t] = later
    return result


def correct(rewards, values, next_values, terminated, truncated, gamma, lam):
    deltas = rewards + gamma * next_values * ~terminated - values
    return backwards(deltas, gamma * lam * ~(terminated | truncated))


def mask_one_step_late(rewards, values, next_values, terminated, truncated, gamma, lam):
    """Stable-Baselines3 #105: the flag of the step before."""
    first = np.zeros_like(terminated[:1])
    terminated = np.concatenate([first, terminated[:-1]])
    truncated = np.concatenate([first, truncated[:-1]])
    return correct(rewards, values, next_values, terminated, truncated, gamma, lam)


def stale_last_value(rewards, values, next_values, terminated, truncated, gamma, lam):
    """Stable-Baselines3 #183: the rollout's end bootstraps from the observation that
    the last action was taken in."""
    next_values = np.concatenate([next_values[:-1], values[-1:]])
    return correct(rewards, values, next_values, terminated, truncated, gamma, lam)


def truncation_as_termination(
    rewards, values, next_values, terminated, truncated, gamma, lam
):
    """CleanRL #198, keras-rl #298."""
    done = terminated | truncated
    return correct(rewards, values, next_values, done, truncated, gamma, lam)


def truncation_not_cut(rewards, values, next_values, terminated, truncated, gamma, lam):
    """skrl #449: the next episode's advantage leaks into this one."""
    no = np.zeros_like(truncated)
    return correct(rewards, values, next_values, terminated, no, gamma, lam)


def bootstrap_from_reset_observation(
    rewards, values, next_values, terminated, truncated, gamma, lam
):
    """pytorch/rl #4209: the value of the observation that comes next in the rollout,
    which after an ending is another episode's."""
    next_values = np.concatenate([values[1:], next_values[-1:]])
    return correct(rewards, values, next_values, terminated, truncated, gamma, lam)


def bootstrap_from_own_value(
    rewards, values, next_values, terminated, truncated, gamma, lam
):
    """EmbodiChain #612: at a truncation, the value of the state itself."""
    next_values = np.where(truncated, values, next_values)
    return correct(rewards, values, next_values, terminated, truncated, gamma, lam)


def envs_on_one_time_axis(
    rewards, values, next_values, terminated, truncated, gamma, lam
):
    """PufferLib: the start of one environment follows the end of another."""
    flat = (x.T.ravel() for x in (rewards, values, next_values, terminated, truncated))
    return correct(*flat, gamma, lam).reshape(rewards.T.shape).T


def lambda_forgotten(rewards, values, next_values, terminated, truncated, gamma, lam):
    return correct(rewards, values, next_values, terminated, truncated, gamma, 1.0)


MUTANTS = [
    mask_one_step_late,
    stale_last_value,
    truncation_as_termination,
    truncation_not_cut,
    bootstrap_from_reset_observation,
    bootstrap_from_own_value,
    envs_on_one_time_axis,
    lambda_forgotten,
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda f: f.__name__)
def test_the_check_rejects(mutant):
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_gae(mutant)


@pytest.mark.parametrize("function", [gae, correct])
def test_the_check_accepts_what_is_correct(function):
    check_gae(function)
