"""Rows that are reset by themselves: single environments, bit for bit."""

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from kerasrl.envs import make_envs, register_env
from kerasrl.envs.registration import _CREATORS
from kerasrl.envs.row_seeds import CartPoleRows, RowForm, row_form

COUNT, LIMIT = 5, 40


def only(row, value=True):
    mask = np.zeros(COUNT, bool)
    mask[row] = value
    return {"reset_mask": mask}


@pytest.mark.parametrize("integrator", ["euler", "semi-implicit euler"])
def test_each_row_is_a_single_environment(integrator):
    """Through ends of both kinds, each row reset when its own episode has ended."""
    rng = np.random.default_rng(0)
    rows = CartPoleRows(COUNT, LIMIT)
    singles = [
        gymnasium.make("CartPole-v1", max_episode_steps=LIMIT) for _ in range(COUNT)
    ]
    for env in (rows, *singles):
        env.unwrapped.kinematics_integrator = integrator
    seeds = list(range(10, 10 + COUNT))
    observations, _ = rows.reset(seed=seeds)
    for row, (single, seed) in enumerate(zip(singles, seeds, strict=True)):
        np.testing.assert_array_equal(observations[row], single.reset(seed=seed)[0])
    ends = np.zeros(2, int)
    for _ in range(300):
        # The last rows hold on for longer.
        tilt = observations[:, 2] + 0.5 * observations[:, 3] > 0
        actions = np.where(np.arange(COUNT) < 3, rng.integers(2, size=COUNT), tilt)
        observations, rewards, terminated, truncated, _ = rows.step(actions)
        for row, single in enumerate(singles):
            expected = single.step(actions[row])
            np.testing.assert_array_equal(observations[row], expected[0])
            found = rewards[row], terminated[row], truncated[row]
            assert found == expected[1:4]
            if terminated[row] or truncated[row]:
                ends += (terminated[row], truncated[row])
                # Every other time with a seed, else as its generator goes on.
                seed = None if sum(ends) % 2 else int(sum(ends))
                seeds = [99] * COUNT
                seeds[row] = seed
                observations, _ = rows.reset(seed=seeds, options=only(row))
                first, _ = single.reset(seed=seed)
                np.testing.assert_array_equal(observations[row], first)
    assert (ends > 5).all()


def test_an_integer_is_the_seed_of_the_first_row():
    rows = CartPoleRows(3)
    observations, _ = rows.reset(seed=7)
    np.testing.assert_array_equal(observations, rows.reset(seed=[7, 8, 9])[0])


def test_environments_of_rows_take_a_seed_for_each():
    envs = make_envs(RowForm("CartPole-v1", LIMIT), COUNT)
    assert (envs.name, envs.num_envs) == ("CartPole-v1", COUNT)
    assert envs.takes_row_seeds and not envs.resets_on_next_step
    apart = make_envs("CartPole-v1", COUNT)
    assert not getattr(apart, "takes_row_seeds", False)
    seeds = [3, 1, 4, 1, 5]
    np.testing.assert_array_equal(envs.reset(seeds), apart.reset(seeds))
    for _ in range(30):
        # Also where an episode ends, and its row begins the next.
        actions = np.ones(COUNT, np.int64)
        one, other = envs.step(actions), apart.step(actions)
        np.testing.assert_array_equal(one.observations, other.observations)
        np.testing.assert_array_equal(one.terminated, other.terminated)
        assert one.final_observations.keys() == other.final_observations.keys()
        for row, final in one.final_observations.items():
            np.testing.assert_array_equal(final, other.final_observations[row])
    assert one.terminated.dtype == bool


def test_who_resets_by_itself_takes_no_seeds():
    class Confused(CartPoleRows):
        metadata = {**CartPoleRows.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}

    with pytest.raises(ValueError, match="says row_seeds .* resets by itself"):
        make_envs(Confused(2))


def test_what_has_a_row_form(monkeypatch):
    monkeypatch.setattr("kerasrl.envs.registration._CREATORS", dict(_CREATORS))
    assert row_form("CartPole-v1") == RowForm("CartPole-v1", 500)
    assert row_form("CartPole-v0", {}) == RowForm("CartPole-v0", 200)
    spec = gymnasium.spec("CartPole-v1")
    room = "gymnasium.envs.classic_control.cartpole"
    for name, arguments in (
        ("Changed-v0", {"kwargs": {"sutton_barto_reward": True}}),
        ("Wrapped-v0", {"additional_wrappers": (None,)}),
        ("Endless-v0", {"max_episode_steps": None}),
        ("Other-v0", {"entry_point": f"{room}:CartPoleVectorEnv"}),
    ):
        given = {"entry_point": f"{room}:CartPoleEnv", "max_episode_steps": 500}
        given["vector_entry_point"] = spec.vector_entry_point
        monkeypatch.setitem(
            gymnasium.registry,
            name,
            gymnasium.envs.registration.EnvSpec(name, **{**given, **arguments}),
        )
        assert row_form(name) is None, name
    for env in ("Pendulum-v1", "Nothing-v7", lambda: None, gymnasium.Env):
        assert row_form(env) is None
    assert row_form("CartPole-v1", {"sutton_barto_reward": True}) is None
    register_env("CartPole-v1", lambda: gymnasium.make("Pendulum-v1"))
    assert row_form("CartPole-v1") is None
