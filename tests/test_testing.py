"""The probe environments give the answers that they promise."""

import itertools

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check_env

from kerasrl import testing
from kerasrl.envs import make_envs

PROBES = [
    testing.AgreementEnv,
    testing.CountingEnv,
    testing.IdentityEnv,
    testing.ContinuousIdentityEnv,
    testing.ConstantRewardEnv,
    testing.TwoRoundEnv,
    testing.MemoryEnv,
    testing.NestedEnv,
    testing.BitFlippingEnv,
    lambda: testing.NestedEnv(nested_actions=True),
    # gymnasium refuses what is cut off in its very first step.
    lambda: testing.RandomEndsEnv(truncate=0.0),
]


def play(env, act, seed=None):
    """Plays an episode; returns its rewards and observations."""
    observation, info = env.reset(seed=seed)
    rewards, observations, ended = [], [observation], False
    while not ended:
        observation, reward, terminated, truncated, info = env.step(act(observation))
        rewards.append(reward)
        observations.append(observation)
        ended = terminated or truncated
    return rewards, observations, terminated, truncated


@pytest.mark.parametrize("probe", PROBES)
def test_gymnasium_accepts_them(probe):
    gymnasium_check_env(probe(), skip_render_check=True)


def test_counting():
    for ends, expected in (
        ("alternate", [True, False, True]),
        ("terminated", [True, True, True]),
        ("truncated", [False, False, False]),
    ):
        env = testing.CountingEnv(4, ends)
        for episode, by_termination in enumerate(expected):
            rewards, observations, terminated, truncated = play(env, lambda _: 0)
            assert rewards == [1, 2, 3, 4]
            assert [o.tolist() for o in observations] == [
                [episode, step] for step in range(5)
            ]
            assert terminated == by_termination and truncated != by_termination
    assert env.set_phase(3) == 0 and env.phase == 3
    with pytest.raises(ValueError, match="ends"):
        testing.CountingEnv(ends="sometimes")
    with pytest.raises(ValueError, match="length"):
        testing.CountingEnv(0)
    env = testing.CountingEnv(2, render_mode="rgb_array")
    env.reset()
    dark = env.render()
    env.step(0)
    assert env.render().mean() > dark.mean()


def test_identity():
    env = testing.IdentityEnv(size=3, length=6)
    assert play(env, lambda observation: observation, 0)[0] == [1.0] * 6
    wrong = play(env, lambda observation: (observation + 1) % 3)
    assert sum(wrong[0]) == 0 and wrong[2]
    blind = [sum(play(env, lambda _: 0)[0]) for _ in range(2000)]
    assert abs(np.mean(blind) - 2.0) < 0.15
    env = testing.ContinuousIdentityEnv(size=2, length=6)
    assert play(env, lambda observation: observation, 0)[0] == [0.0] * 6
    blind = [sum(play(env, np.zeros_like)[0]) for _ in range(2000)]
    assert abs(np.mean(blind) + 2.0) < 0.1


def test_constant_reward():
    env = testing.ConstantRewardEnv(length=7)
    rewards, observations, terminated, truncated = play(env, lambda _: 1)
    assert rewards == [1.0] * 7 and truncated and not terminated
    assert len({tuple(observation) for observation in observations}) == 1


def test_two_rounds():
    env = testing.TwoRoundEnv()
    totals = {}
    for actions in itertools.product(range(2), repeat=2):
        remaining = iter(actions)
        rewards, observations, terminated, _ = play(env, lambda _: next(remaining))  # noqa: B023
        assert terminated and len(rewards) == 2
        totals[actions] = sum(rewards)
    assert max(totals, key=totals.get) == (0, 1) and totals[0, 1] == 3.0
    assert max(totals[1, 0], totals[1, 1]) == 2.0
    assert np.mean(list(totals.values())) == 1.5
    env.reset()
    assert env.step(1)[1] > 0.0  # The temptation.


@pytest.mark.parametrize("delay", [0, 3])
def test_memory(delay):
    env = testing.MemoryEnv(delay)
    for seed in range(6):
        _, info = env.reset(seed=seed)
        cue = info["cue"]
        rewards, observations, terminated, _ = play(env, lambda _: cue, seed)  # noqa: B023
        assert rewards == [0.0] * (delay + 1) + [1.0] and terminated
        assert observations[0].argmax() == cue and observations[0].sum() == 1
        assert all(not later.any() for later in observations[1:])
        assert sum(play(env, lambda _: 1 - cue, seed)[0]) == -1.0  # noqa: B023


def test_nested():
    env = testing.NestedEnv(length=8)
    rewards, observations, terminated, truncated = play(
        env, lambda observation: int(observation["choices"][1][0])
    )
    assert sum(rewards) == 8 and truncated and not terminated
    for step, observation in enumerate(observations):
        assert (observation["image"] == step).all()
        assert observation["vector"].tolist() == [step, -step, step / 2]
        assert observation["choices"][0] == step % 7
        assert observation["choices"][1].tolist() == [step % 2, step % 3]


def test_random_ends():
    env = testing.RandomEndsEnv(0.3, 0.2)
    serial, terminations, truncations, steps = 0, 0, 0, 0
    observation, _ = env.reset(seed=0)
    for _ in range(4000):
        assert observation[0] == serial
        observation, reward, terminated, truncated, _ = env.step(0)
        serial += 1
        assert observation[0] == serial and reward == 1.0
        steps += 1
        terminations += terminated
        truncations += truncated
        if terminated or truncated:
            observation, _ = env.reset()
            assert observation[1] == 0
            serial += 1
    assert abs(terminations / steps - 0.3) < 0.03
    assert abs(truncations / steps - 0.2) < 0.03


def test_stateless_cartpole():
    env = testing.StatelessCartPole()
    full, _ = env.unwrapped.reset(seed=3)
    partial, _ = env.reset(seed=3)
    np.testing.assert_array_equal(partial, full[[0, 2]])
    assert env.observation_space.contains(partial)
    assert env.spec.max_episode_steps == 500
    envs = make_envs("StatelessCartPole-v1", num_envs=1)
    np.testing.assert_array_equal(envs.reset([3])[0], partial)


def test_stateless_pendulum():
    env = testing.StatelessPendulum()
    full, _ = env.unwrapped.reset(seed=3)
    partial, _ = env.reset(seed=3)
    np.testing.assert_array_equal(partial, full[:2])
    assert env.observation_space.contains(partial)
    envs = make_envs("StatelessPendulum-v1", num_envs=1)
    np.testing.assert_array_equal(envs.reset([3])[0], partial)


def test_agreement():
    """Both bounds, and what parts by themselves get, by definition and by play."""
    env = testing.AgreementEnv(size=3, length=20_001)
    rng = np.random.default_rng(0)

    def payoff(joint):
        cells = [(a, b) for a in range(3) for b in range(3)]
        drawn = iter(rng.choice(9, 20_001, p=np.ravel(joint)))
        return np.mean(play(env, lambda _: cells[next(drawn)])[0][1:])

    together = np.eye(3) / 3
    np.testing.assert_allclose(payoff(together), env.best_return / 20_000, atol=0.01)
    apart = np.outer([0.5, 0.3, 0.2], [0.9, 0.1, 0.0])
    # The other part knows nothing: p (1 - p) q, summed over the choices.
    np.testing.assert_allclose(payoff(apart), 0.25 * 0.9 + 0.21 * 0.1, atol=0.01)
    best = np.outer([0.5, 0.5, 0.0], [1.0, 0.0, 0.0])
    np.testing.assert_allclose(payoff(best), env.independent_return / 20_000, atol=0.01)
    first, second = rng.dirichlet(np.ones(3), (2, 1000))
    assert (first * (1 - first) * second).sum(-1).max() <= 0.25
    assert sum(play(testing.AgreementEnv(4, 3), lambda _: [2, 2, 2])[0]) == 0
    assert sum(play(testing.AgreementEnv(4, 3), lambda _: [2, 2, 1])[0]) == 0
    turns = itertools.cycle([[0, 0, 0], [3, 3, 3]])
    assert sum(play(testing.AgreementEnv(4, 3), lambda _: next(turns))[0]) == 10
