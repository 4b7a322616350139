"""Generalized advantage estimation: definition, published vectors, identities."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from references import check_gae, everywhere, hostile_data, until_filler
from references import discounted_returns as reference_returns
from references import gae as reference_gae

from kerasrl.losses import gae


def test_agrees_with_the_definition_on_hostile_data():
    check_gae(gae)


def test_hostile_data_has_every_kind_of_ending_in_mid_rollout():
    data = hostile_data()
    terminated, truncated = data["terminated"][1:-1, 0], data["truncated"][1:-1, 0]
    assert (terminated & ~truncated).any()
    assert (truncated & ~terminated).any()
    assert (terminated & truncated).any()


@pytest.mark.parametrize(
    "steps, batch", [(1, ()), (1, (3,)), (2, (1,)), (3, (2,)), (12, (2, 3)), (33, ())]
)
def test_any_shape_in_any_mode(steps, batch):
    data = hostile_data(steps + len(batch), steps, batch)
    result = everywhere(lambda *x: gae(*x, 0.97, 0.9), *data.values())
    np.testing.assert_allclose(
        result, reference_gae(**data, gamma=0.97, lam=0.9), rtol=1e-5, atol=1e-5
    )
    assert result.dtype == "float32"


def test_long_rollouts_keep_five_digits():
    data = hostile_data(1, steps=2048, batch=(2,))
    data["rewards"] += 1
    data["terminated"][:] = data["truncated"][:] = False
    data["next_values"] = np.concatenate([data["values"][1:], data["values"][:1]])
    # 0.999 itself is not a float32: over this horizon its rounding alone is 1.4e-5.
    gamma = float(np.float32(0.999))
    result = np.asarray(gae(**data, gamma=gamma, lam=1.0))
    rest = {k: x for k, x in data.items() if k != "values"}
    expected = reference_returns(**rest, gamma=gamma) - data["values"]
    # Advantages are in the hundreds and pass near zero only at the end.
    scale = np.maximum(np.abs(expected), 1.0)
    np.testing.assert_array_less(np.abs(result - expected) / scale, 1e-5)


@st.composite
def experience(draw):
    steps, envs = draw(st.integers(1, 20)), draw(st.integers(1, 3))
    seed = draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    shape = (steps, envs)
    chances = [draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])) for _ in range(2)]
    return {
        "rewards": generator.normal(size=shape) * draw(st.sampled_from([1, 100])),
        "values": generator.normal(size=shape),
        "next_values": generator.normal(size=shape),
        "terminated": generator.random(shape) < chances[0],
        "truncated": generator.random(shape) < chances[1],
        "gamma": draw(st.floats(0, 1)),
        "lam": draw(st.floats(0, 1)),
    }


@settings(max_examples=60, deadline=None)
@given(experience())
def test_agrees_with_the_definition_on_any_experience(data):
    result = np.asarray(gae(**data))
    assert result.dtype == "float64"
    np.testing.assert_allclose(result, reference_gae(**data), rtol=1e-9, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(experience(), st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]), st.data())
def test_agrees_with_the_definition_whatever_is_not_valid(data, chance, more):
    options = {name: data.pop(name) for name in ("gamma", "lam")}
    seed = more.draw(st.integers(0, 2**32 - 1))
    valid = np.random.default_rng(seed).random(data["rewards"].shape) >= chance
    expected = until_filler(reference_gae)(*data.values(), valid=valid, **options)
    # Nothing is read of the rows themselves, not even a NaN.
    for array in data.values():
        array[~valid] = True if array.dtype == bool else np.nan
    result = np.asarray(gae(**data, **options, valid=valid))
    np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-9)


def test_a_filler_in_mid_episode_is_no_termination():
    """Two steps of reward 1 between states of value 10, then a worker is lost."""
    rewards, values = np.array([1, 1, 0], "f"), np.full(3, 10.0, "f")
    no, valid = np.zeros(3, bool), np.array([True, True, False])
    # As a step that was cut off, the filler itself is followed by nothing of value.
    next_values = np.array([10, 10, 0], "f")
    result = gae(rewards, values, next_values, no, ~valid, 1.0, 0.5, valid)
    np.testing.assert_allclose(result, [1.5, 1.0, 0.0])
    as_a_step = gae(rewards, values, next_values, no, ~valid, 1.0, 0.5)
    np.testing.assert_allclose(as_a_step, [-1.0, -4.0, -10.0])


def test_fillers_in_every_mode():
    data = hostile_data()
    data["valid"] = np.random.default_rng(1).random((12, 3)) < 0.7
    everywhere(
        lambda valid, *x: gae(*x, 0.97, 0.9, valid),
        data.pop("valid"),
        *data.values(),
    )


# --- Published vectors -------------------------------------------------------------

RLAX_VALUES = np.array([[1, 4, -3, -2, -1, -1], [-3, -2, -1, 0, 5, -1]], "float32").T
RLAX_REWARDS = np.array([[0, 0, 1, 0, -0.5], [0, 0, 0, 0, 1]], "float32").T
RLAX_DISCOUNTS = np.array([[0.99] * 5, [0.9, 0.9, 0.9, 0, 0.9]], "float32").T


@pytest.mark.parametrize(
    "lam, expected",
    [
        (1.0, [[-1.45118, -4.4557, 2.5396, 0.5249, -0.49], [3, 2, 1, 0, -4.9]]),
        (0.7, [[-0.676979, -5.248167, 2.4846, 0.6704, -0.49],
               [2.2899, 1.73, 1, 0, -4.9]]),
        (0.4, [[0.56731, -6.042, 2.3431, 0.815, -0.49], [1.725, 1.46, 1, 0, -4.9]]),
    ],
)  # fmt: skip
def test_rlax(lam, expected):
    """rlax/_src/multistep_test.py, TruncatedGAE: a discount of 0 is a termination."""
    no = np.zeros((5, 2), bool)
    arguments = RLAX_REWARDS, RLAX_VALUES[:-1], RLAX_VALUES[1:]
    by_discount = gae(*arguments, no, no, RLAX_DISCOUNTS, lam)
    np.testing.assert_allclose(by_discount, np.array(expected).T, atol=1e-3)
    for env, gamma in enumerate((0.99, 0.9)):
        terminated = RLAX_DISCOUNTS[:, env] == 0
        one = (x[:, env] for x in arguments)
        by_flag = gae(*one, terminated, no[:, env], gamma, lam)
        np.testing.assert_allclose(by_flag, expected[env], atol=1e-3)


def test_tf_agents():
    """tf_agents/utils/value_ops_test.py, a rollout of two terminated episodes."""
    discounts = np.array([1, 1, 1, 1, 0, 0.9, 0.9, 0.9, 0], "float32")
    no, ones, threes = np.zeros(9, bool), np.ones(9, "float32"), np.full(9, 3.0, "f")
    np.testing.assert_allclose(
        gae(ones, threes, threes, discounts == 0, no, discounts, 0.95),
        [2.0808625, 1.13775, 0.145, -0.9, -2, 0.56016475, -0.16355, -1.01, -2],
        atol=1e-6,
    )


@pytest.mark.parametrize(
    "cut_short, expected",
    [
        (False, [454.8344, 376.1143, 291.298, 200, 464.5610, 383.1085, 295.387, 201,
                 474.2876, 390.1027, 299.476, 202]),
        (True, [454.0109, 375.2386, 290.3669, 199.01, 462.9138, 381.3571, 293.5248,
                199.02, 474.2876, 390.1027, 299.476, 202]),
    ],
)  # fmt: skip
def test_tianshou_terminations_and_truncations(cut_short, expected):
    """test/base/test_returns.py: episodes end at 3, 7 and 11, the first two by
    termination or by truncation."""
    rewards = [101, 102, 103, 200, 104, 105, 106, 201, 107, 108, 109, 202]
    next_values = np.array([2, 3, 4, -1, 5, 6, 7, -2, 8, 9, 10, -3], "float32")
    values = np.roll(next_values, 1)
    terminated, truncated = np.zeros((2, 12), bool)
    terminated[11] = True
    (truncated if cut_short else terminated)[[3, 7]] = True
    rewards = np.array(rewards, "float32")
    result = gae(rewards, values, next_values, terminated, truncated, 0.99, 0.95)
    np.testing.assert_allclose(result + values, expected, rtol=1e-5)


def test_seed_rl():
    """agents/policy_gradient/modules/advantages_test.py.

    For a truncated step SEED's convention is to drop it (it expects [1.04, 0, 1.18]);
    ours, as in Stable-Baselines3 and Tianshou, is to bootstrap from `next_values`.
    """
    values, rewards = np.array([1, 2, 3, 4], "f"), np.array([0.1, 0.2, 0.3], "f")
    end, no = np.array([False, True, False]), np.zeros(3, bool)
    arguments = rewards, values[:-1], values[1:]
    np.testing.assert_allclose(
        gae(*arguments, end, no, 0.97, 0.5), [0.167, -1.8, 1.18], rtol=1e-5
    )
    bootstrapped = 0.2 + 0.97 * 3 - 2
    np.testing.assert_allclose(
        gae(*arguments, no, end, 0.97, 0.5),
        [1.04 + 0.97 * 0.5 * bootstrapped, bootstrapped, 1.18],
        rtol=1e-5,
    )


# --- Identities --------------------------------------------------------------------


def test_lambda_zero_is_the_one_step_error():
    data = hostile_data()
    future = np.where(data["terminated"], 0, data["next_values"])
    expected = data["rewards"] + 0.9 * future - data["values"]
    np.testing.assert_allclose(gae(**data, gamma=0.9, lam=0.0), expected, atol=1e-5)


def test_lambda_one_is_the_return_minus_the_value():
    data = hostile_data()
    values = data["values"]
    rest = {k: x for k, x in data.items() if k != "values"}
    expected = reference_returns(**rest, gamma=0.9) - values
    np.testing.assert_allclose(gae(**data, gamma=0.9, lam=1.0), expected, atol=1e-5)


def test_an_env_alone_is_the_env_in_a_batch():
    data = hostile_data()
    together = gae(**data, gamma=0.9, lam=0.8)
    for env in range(3):
        alone = gae(**{k: x[:, env] for k, x in data.items()}, gamma=0.9, lam=0.8)
        np.testing.assert_allclose(alone, together[:, env], atol=1e-6)


@pytest.mark.parametrize("kind", ["terminated", "truncated"])
def test_a_rollout_split_at_an_ending_is_the_whole_rollout(kind):
    data = hostile_data(5)
    data["terminated"][6] = data["truncated"][6] = False
    data[kind][6] = True
    whole = gae(**data, gamma=0.9, lam=0.8)
    parts = [
        gae(**{k: x[part] for k, x in data.items()}, gamma=0.9, lam=0.8)
        for part in (slice(None, 7), slice(7, None))
    ]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_the_true_value_under_a_time_limit_leaves_no_advantage(lam):
    gamma = 0.9
    rewards = np.ones((20, 2), "float32")
    values = np.full((20, 2), 1 / (1 - gamma), "float32")
    truncated = np.zeros((20, 2), bool)
    truncated[4::5] = True
    result = gae(rewards, values, values, ~truncated & False, truncated, gamma, lam)
    np.testing.assert_allclose(result, np.zeros((20, 2)), atol=1e-5)


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_the_true_value_up_to_a_terminal_state_leaves_no_advantage(lam):
    gamma, length = 0.9, 5
    one = np.array([(1 - gamma**k) / (1 - gamma) for k in range(length, 0, -1)])
    values = np.tile(one, 4)
    # The value after a terminal state is of no interest, whatever it is.
    next_values = np.where(np.arange(20) % 5 == 4, 77.0, np.roll(values, -1))
    terminated = np.arange(20) % 5 == 4
    no = np.zeros(20, bool)
    result = gae(np.ones(20), values, next_values, terminated, no, gamma, lam)
    np.testing.assert_allclose(result, np.zeros(20), atol=1e-9)


# --- Behaviour ---------------------------------------------------------------------


def test_no_gradient_flows_through_the_result():
    data = {k: tf.constant(x) for k, x in hostile_data().items()}
    floats = [data[k] for k in ("rewards", "values", "next_values")]
    with tf.GradientTape() as tape:
        tape.watch(floats)
        result = gae(**data, gamma=0.9, lam=0.8)
    assert tape.gradient(result, floats) == [None, None, None]


def test_what_lies_behind_an_ending_does_not_reach_back():
    data = hostile_data()
    clean = np.asarray(gae(**data, gamma=0.9, lam=0.8))
    data["values"][3:, 0] = np.nan  # the first episode of env 0 ends at step 2
    data["rewards"][3:, 0] = np.inf
    data["next_values"][2, 0] = np.nan  # by termination
    result = np.asarray(gae(**data, gamma=0.9, lam=0.8))
    np.testing.assert_array_equal(result[:3], clean[:3])
    np.testing.assert_array_equal(result[:, 1:], clean[:, 1:])


def test_half_precision_is_widened():
    data = hostile_data(dtype="float16")
    result = gae(**data, gamma=0.99, lam=0.95)
    assert result.dtype == "float32"
    expected = reference_gae(**data, gamma=0.99, lam=0.95)
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["rewards", "values", "next_values", "terminated", "truncated"]
)
@pytest.mark.parametrize("reshape", [lambda x: x[..., None], lambda x: x[:-1]])
def test_shapes_that_differ_are_refused(name, reshape):
    data = hostile_data()
    data[name] = reshape(data[name])
    with pytest.raises(ValueError, match=f"{name}: \\[1"):
        gae(**data, gamma=0.9, lam=0.8)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"gamma": 1.5}, "gamma=1.5"),
        ({"lam": -0.1}, "lam=-0.1"),
        ({"gamma": float("nan")}, "gamma=nan"),
        ({"gamma": np.full(3, 0.9)}, "gamma: \\[3\\]"),
        ({"lam": np.full(3, 0.9)}, "lam"),
    ],
)
def test_arguments_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        gae(**hostile_data(), **{"gamma": 0.9, "lam": 0.8, **change})


def test_scalars_are_refused():
    with pytest.raises(ValueError, match="at least 1 dimension"):
        gae(1.0, 1.0, 1.0, False, False, 0.9, 0.8)


def test_gamma_and_lambda_may_be_tensors():
    data = hostile_data()
    expected = gae(**data, gamma=0.9, lam=0.8)
    result = gae(**data, gamma=tf.constant(0.9), lam=tf.constant(0.8))
    np.testing.assert_allclose(result, expected, atol=1e-6)
