"""Discounted, n-step and lambda returns."""

import numpy as np
import pytest
import references
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from references import everywhere, hostile_data

from kerasrl.losses import discounted_returns, gae, lambda_returns, n_step_returns

F = "float32"


def experience(seed=0, steps=12, batch=(3,), dtype=F):
    data = hostile_data(seed, steps, batch, dtype)
    del data["values"]
    return data


FUNCTIONS = {
    "discounted": (discounted_returns, references.discounted_returns, ()),
    "lambda 0.7": (lambda_returns, references.lambda_returns, (0.7,)),
    **{
        f"{n}-step": (n_step_returns, references.n_step_returns, (n,))
        for n in (1, 2, 3, 6, 7, 12, 1000)
    },
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_agrees_with_the_definition_on_hostile_data(name, batch):
    function, reference, more = FUNCTIONS[name]
    for seed in range(2):
        data = experience(seed, batch=batch)
        result = function(*data.values(), 0.9, *more)
        expected = reference(*data.values(), 0.9, *more)
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
        assert result.dtype == F


@pytest.mark.parametrize("name", ["discounted", "lambda 0.7", "3-step", "1000-step"])
@pytest.mark.parametrize("steps", [1, 5])
def test_the_same_in_every_mode(name, steps):
    function, _, more = FUNCTIONS[name]
    data = experience(steps=steps)
    everywhere(lambda *x: function(*x, 0.9, *more), *data.values())


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 20),
    st.integers(1, 25),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(0, 2**32 - 1),
)
def test_agrees_with_the_definition_on_any_experience(steps, n, gamma, lam, seed):
    data = experience(seed, steps, (2,), "float64").values()
    close = {"rtol": 1e-9, "atol": 1e-9}
    for name, more in (
        ("discounted_returns", ()),
        ("n_step_returns", (n,)),
        ("lambda_returns", (lam,)),
    ):
        result = globals()[name](*data, gamma, *more)
        expected = getattr(references, name)(*data, gamma, *more)
        np.testing.assert_allclose(result, expected, **close)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 20),
    st.integers(1, 25),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]),
    st.integers(0, 2**32 - 1),
)
def test_agrees_with_the_definition_whatever_is_not_valid(
    steps, n, gamma, lam, chance, seed
):
    data = experience(seed, steps, (2,), "float64")
    valid = np.random.default_rng(seed).random((steps, 2)) >= chance
    for name, more in (
        ("discounted_returns", {}),
        ("n_step_returns", {"n": n}),
        ("lambda_returns", {"lam": lam}),
    ):
        reference = references.until_filler(getattr(references, name))
        expected = reference(*data.values(), valid=valid, gamma=gamma, **more)
        hidden = {
            key: np.where(valid, array, True if array.dtype == bool else np.nan)
            for key, array in data.items()
        }
        hidden = {key: x.astype(data[key].dtype) for key, x in hidden.items()}
        result = globals()[name](**hidden, gamma=gamma, **more, valid=valid)
        np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-9)


# --- Published vectors -------------------------------------------------------------

RLAX = {
    "rewards": np.array([[1, 0, -1, 0, 1], [0.5, 0.8, -0.7, 0, 2.1]], F).T,
    "next_values": np.array([[3, 1, 5, -5, 3], [-1.7, 1.2, 2.3, 2.2, 2.7]], F).T,
    "terminated": np.zeros((5, 2), bool),
    "truncated": np.zeros((5, 2), bool),
    "gamma": np.array([[0.5, 0.9, 1, 0.5, 0.8], [0.9, 0.5, 0.3, 0.8, 0.7]], F).T,
}
RLAX_DISCOUNTED = [[1.315, 0.63, 0.7, 1.7, 3.4], [1.33592, 0.9288, 0.2576, 3.192, 3.99]]


def test_rlax_lambda_returns():
    """rlax/_src/multistep_test.py, discounts that differ from step to step."""
    expected = [
        [1.6460547, 0.72281253, 0.7375001, 0.6500001, 3.4],
        [0.7866317, 0.9913063, 0.1101501, 2.834, 3.99],
    ]
    result = lambda_returns(**RLAX, lam=0.75)
    np.testing.assert_allclose(result, np.array(expected).T, rtol=1e-5)


def test_rlax_discounted_returns():
    result = discounted_returns(**RLAX)
    np.testing.assert_allclose(result, np.array(RLAX_DISCOUNTED).T, rtol=1e-5)


def test_rlax_n_step_returns():
    expected = [[2.8, -3.15, 0.7, 1.7, 3.4], [1.2155, 0.714, 0.2576, 3.192, 3.99]]
    result = n_step_returns(**RLAX, n=3)
    np.testing.assert_allclose(result, np.array(expected).T, rtol=1e-5)
    for n in (5, 6, 100):
        result = n_step_returns(**RLAX, n=n)
        np.testing.assert_allclose(result, np.array(RLAX_DISCOUNTED).T, rtol=1e-5)


def test_tf_agents_discounted_returns():
    """tf_agents/utils/value_ops_test.py."""
    discounts = np.array([1, 1, 1, 1, 0, 0.9, 0.9, 0.9, 0.9], F)
    next_values = np.array([0] * 8 + [8], F)
    no = np.zeros(9, bool)
    expected = [5, 4, 3, 2, 1]
    expected += [8 * 0.9**4 + 3.439, 8 * 0.9**3 + 2.71, 8 * 0.9**2 + 1.9, 8 * 0.9 + 1]
    for terminated in (no, discounts == 0):
        result = discounted_returns(
            np.ones(9, F), next_values, terminated, no, discounts
        )
        np.testing.assert_allclose(result, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "rewards, terminated, truncated, expected",
    [
        (range(8), [0, 3, 7], [5], [0, 1.23, 2.3, 3, 4.5, 5, 6.7, 7]),
        ([7, 6, 1, 2, 3, 4, 5], [1, 3, 5], [], [7.6, 6, 1.2, 2, 3.4, 4, 5]),
        ([7, 6, 1, 2, 3, 4, 5], [1, 3, 6], [], [7.6, 6, 1.2, 2, 3.45, 4.5, 5]),
    ],
)
def test_tianshou_discounted_returns(rewards, terminated, truncated, expected):
    """test/base/test_returns.py, without a value function."""
    rewards = np.array(rewards, F)
    flags = np.zeros((2, len(rewards)), bool)
    flags[0, terminated] = flags[1, truncated] = True
    result = discounted_returns(rewards, 0 * rewards, *flags, 0.1)
    np.testing.assert_allclose(result, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "n, expected",
    [
        (1, [2.6, 4, 4.4, 5.3, 6.2, 8, 8, 8.9, 9.8, 12]),
        (2, [3.4, 4, 5.53, 6.62, 7.8, 8, 9.89, 10.98, 12.2, 12]),
        (10, [3.4, 4, 5.678, 6.78, 7.8, 8, 10.122, 11.22, 12.2, 12]),
    ],
)
def test_tianshou_n_step_returns(n, expected):
    """test/base/test_returns.py: ten steps in a row of its ring buffer; the value of
    what follows a step is minus the next step's reward."""
    index = np.arange(2, 12)
    rewards = (index + 1).astype(F)
    next_values = -np.append(rewards[1:], 0).astype(F)
    end, no = index % 4 == 3, np.zeros(10, bool)
    result = n_step_returns(rewards, next_values, end, no, 0.1, n)
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    # The ending at index 3 a truncation: what follows it is valued at -4.
    cut = index == 3
    next_values[cut] = -4
    result = n_step_returns(rewards, next_values, end & ~cut, cut, 0.1, n)
    expected = [{1: 2.6, 2: 3.36, 10: 3.36}[n], 3.6, *expected[2:]]
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_rllib_n_step_rewards():
    """rllib/evaluation/tests/test_postprocessing.py: the rewards alone."""
    rewards = np.array([10, 0, 100, 100, 100, 100, 100], F)
    end, no = np.arange(7) == 6, np.zeros(7, bool)
    result = n_step_returns(rewards, 0 * rewards, end, no, 0.9, 3)
    np.testing.assert_allclose(result, [91, 171, 271, 271, 271, 190, 100], rtol=1e-6)
    rewards = np.array([10, 100], F)
    result = n_step_returns(rewards, 0 * rewards, end[-2:], no[-2:], 1.0, 3)
    np.testing.assert_allclose(result, [110, 100])


def test_seed_rl_n_step_returns():
    """agents/r2d2/learner_test.py."""
    rewards, values = np.array([1, 2, 3], F), np.array([100, 200, 300], F)
    no, end = np.zeros(3, bool), np.array([False, True, False])
    for terminated, n, expected in (
        (no, 1, [91, 182, 273]),
        (end, 1, [91, 2, 273]),
        (no, 2, [1 + 1.8 + 162, 2 + 2.7 + 243, 3 + 270]),
    ):
        result = n_step_returns(rewards, values, terminated, no, 0.9, n)
        np.testing.assert_allclose(result, expected, rtol=1e-6)


# --- Identities and behaviour ------------------------------------------------------


def test_one_step_and_lambda_zero_are_the_same_target():
    data = experience()
    future = np.where(data["terminated"], 0, data["next_values"])
    expected = data["rewards"] + 0.9 * future
    one_step = n_step_returns(**data, gamma=0.9, n=1)
    np.testing.assert_allclose(one_step, expected, rtol=1e-6)
    np.testing.assert_allclose(
        lambda_returns(**data, gamma=0.9, lam=0.0), expected, rtol=1e-6
    )


def test_lambda_one_is_the_discounted_return():
    data = experience()
    np.testing.assert_allclose(
        lambda_returns(**data, gamma=0.9, lam=1.0),
        discounted_returns(**data, gamma=0.9),
        rtol=1e-5,
    )


def test_lambda_returns_are_advantages_plus_values():
    data = hostile_data()
    advantages = gae(**data, gamma=0.9, lam=0.8)
    values = data.pop("values")
    result = lambda_returns(**data, gamma=0.9, lam=0.8)
    np.testing.assert_allclose(result, advantages + values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["discounted", "lambda 0.7", "3-step"])
def test_no_gradient_flows_through_targets(name):
    function, _, more = FUNCTIONS[name]
    data = {k: tf.constant(x) for k, x in experience().items()}
    floats = [data["rewards"], data["next_values"]]
    with tf.GradientTape() as tape:
        tape.watch(floats)
        result = function(*data.values(), 0.9, *more)
    assert tape.gradient(result, floats) == [None, None]


@pytest.mark.parametrize("name", ["discounted", "lambda 0.7", "3-step"])
def test_shapes_that_differ_are_refused(name):
    function, _, more = FUNCTIONS[name]
    for key in ("rewards", "next_values", "terminated", "truncated"):
        data = experience()
        data[key] = data[key][..., None]
        with pytest.raises(ValueError, match=f"{key}: \\[12, 3, 1\\]"):
            function(*data.values(), 0.9, *more)


@pytest.mark.parametrize("n", [0, -1, 1.5, True, None])
def test_a_number_of_steps_that_is_none_is_refused(n):
    with pytest.raises(ValueError, match="`n` must be an int of at least 1"):
        n_step_returns(**experience(), gamma=0.9, n=n)
