"""V-trace and ratios of policies: definition, published vectors, identities."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from references import discounted_returns as reference_returns
from references import everywhere, hostile_data, until_filler
from references import vtrace as reference_vtrace

from kerasrl.losses import (
    clipped_surrogate,
    gae,
    ratio_metrics,
    surrogate_reference,
    vtrace,
)

OPTIONS = {"gamma": 0.97, "lam": 0.9, "clip_rho": 1.3, "clip_c": 0.8, "clip_pg": 1.1}


def hostile(seed=0, steps=12, batch=(3,), dtype="float32"):
    """Hostile data, with ratios on both sides of every bound."""
    generator = np.random.default_rng(seed + 100)
    ratios = generator.normal(size=(steps, *batch), scale=1.5).astype(dtype)
    return {"log_ratios": ratios, **hostile_data(seed, steps, batch, dtype)}


@pytest.mark.parametrize("steps, batch", [(1, ()), (12, (2, 3))])
def test_any_shape_in_any_mode(steps, batch):
    data = hostile(steps, steps, batch)
    result = everywhere(lambda *x: vtrace(*x, **OPTIONS), *data.values())
    expected = reference_vtrace(**data, **OPTIONS)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
    assert {x.dtype.name for x in result} == {"float32"}


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    steps=st.integers(1, 14),
    envs=st.integers(1, 3),
    gamma=st.floats(0, 1),
    lam=st.floats(0, 1),
    clips=st.tuples(*[st.sampled_from([0.0, 0.5, 1.0, 3.7, float("inf")])] * 3),
    chance=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_agrees_with_the_definition(seed, steps, envs, gamma, lam, clips, chance):
    data = hostile(seed, steps, (envs,), "float64")
    names = ("clip_rho", "clip_c", "clip_pg")
    options = {"gamma": gamma, "lam": lam, **dict(zip(names, clips, strict=True))}
    valid = np.random.default_rng(seed).random((steps, envs)) >= chance
    expected = [
        until_filler(lambda *x, n=number, **kw: reference_vtrace(*x, **kw)[n])(
            *data.values(), valid=valid, **options
        )
        for number in range(2)
    ]
    # Nothing is read of the rows themselves, not even a NaN.
    for array in data.values():
        array[~valid] = True if array.dtype == bool else np.nan
    result = vtrace(**data, **options, valid=valid)
    np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-9)


# --- Published vectors -------------------------------------------------------------


def test_rlax():
    """rlax/_src/vtrace_test.py."""
    behaviour = [[[8.9, 0.7], [5, 1], [0.6, 0.1], [-0.9, -0.1]],
                 [[0.3, -5], [1, -8], [0.3, 1.7], [4.7, 3.3]]]  # fmt: skip
    target = [[[0.4, 0.5], [9.2, 8.8], [0.7, 4.4], [7.9, 1.4]],
              [[1, 0.9], [1, -1], [-4.3, 8.7], [0.8, 0.3]]]  # fmt: skip
    actions = np.array([[0, 1, 0, 0], [1, 0, 0, 1]])
    log_probs = [
        np.take_along_axis(tf.nn.log_softmax(x).numpy(), actions[..., None], -1)[..., 0]
        for x in (np.array(target), np.array(behaviour))
    ]
    log_ratios = log_probs[0] - log_probs[1]
    np.testing.assert_allclose(
        np.exp(log_ratios),
        [[0.47515128, 22.312224, 0.0387608, 3.2206988],
         [95.639175, 0.88090578, 1.1426e-5, 1.9085436]],
        rtol=1e-4,
    )  # fmt: skip
    rewards = np.array([[-1.3, -1.3, 2.3, 42], [1.3, 5.3, -3.3, -5]])
    discounts = np.array([[0, 0.89, 0.85, 0.99], [0.88, 1, 0.83, 0.95]])
    values = np.array([[2.1, 1.1, -3.1, 0], [3.1, 0.1, -1.1, 7.4]])
    last = np.array([8.4, -1.2])
    no = np.zeros((2, 4), bool)
    # Theirs are [B, T].
    next_values = np.concatenate([values[:, 1:], last[:, None]], axis=1)
    arrays = log_ratios, rewards, values, next_values, no, no
    targets, advantages = vtrace(*(x.T for x in arrays), discounts.T)
    np.testing.assert_allclose(
        np.asarray(targets).T - values,
        [[-1.6155143, -3.4973226, 1.8670533, 50.316002],
         [1.4662437, 3.6116405, -8.3327e-5, -13.54]],
        rtol=1e-3,
    )  # fmt: skip
    np.testing.assert_allclose(
        np.asarray(advantages).T,
        [[-1.6155143, -3.4973226, 1.8670534, 50.316002],
         [1.4662433, 3.6116405, -8.3369e-5, -13.54]],
        rtol=1e-3,
    )  # fmt: skip


def test_scalable_agent():
    """vtrace_test.py of deepmind/scalable_agent, with one environment."""
    log_ratios = 5 * (np.arange(5) / 5 - 0.5)
    steps = np.arange(5.0)
    no = np.zeros(5, bool)
    targets, advantages = vtrace(
        log_ratios,
        *(steps, steps, np.append(steps[1:], 1.0), no, no, 0.9),
        clip_rho=3.7,
        clip_pg=2.2,
    )
    np.testing.assert_allclose(
        targets, [0.2001819, 2.7096824, 8.5136279, 11.9323966, 7.33], atol=1e-6
    )
    np.testing.assert_allclose(
        advantages, [0.2001819, 1.7096824, 6.5136279, 10.8766142, 1.98], atol=1e-6
    )


@pytest.mark.parametrize(
    "kind, targets, advantages",
    [
        ("truncated", [6.4, 6, 5.12, 6.8], [5.9, 5, 7.12, 2.8]),
        ("terminated", [2.35, 1.5, 5.12, 6.8], [1.85, 0.5, 7.12, 2.8]),
    ],
)
def test_an_end_in_the_middle(kind, targets, advantages):
    """pytorch/rl #4209 weighs what follows a truncation by the next episode."""
    flags = {"terminated": np.zeros(4, bool), "truncated": np.zeros(4, bool)}
    flags[kind][1] = True
    found = vtrace(
        np.log([1.5, 0.5, 2, 0.8]),
        np.array([1.0, 2, -1, 3]),
        np.array([0.5, 1, -2, 4]),
        np.array([1.0, 10, 4, 5]),
        **flags,
        gamma=0.9,
    )
    np.testing.assert_allclose(found, [targets, advantages], rtol=1e-6)


def test_a_fragment_ends_with_the_value_of_what_follows():
    """Sample Factory and early RLlib invent it, so that the last error is 0."""
    no = np.zeros(4, bool)
    arrays = np.array([[1, 2, -1, 3], [0.5, 1, -2, 4], [1, -2, 4, 5]], "float64")
    found = vtrace(np.zeros(4), *arrays, no, no, 0.9)
    expected = [[7.4575, 7.175, 5.75, 7.5], [6.9575, 6.175, 7.75, 3.5]]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_surrogate_of_rllib():
    """Ratios 1.5 and 0.6: that to the target network, but bounded."""
    acting, target, trained = np.log([[0.5, 0.25], [0.4, 0.5], [0.6, 0.3]])
    reference = surrogate_reference(target, acting)
    np.testing.assert_allclose(np.exp(trained - reference), [1.5, 0.6])
    advantages = np.array([2.0, -1.0])
    for clip_ratio, expected in ((0.4, -1.1), (0.2, -0.8)):
        loss, _ = clipped_surrogate(trained, reference, advantages, clip_ratio)
        np.testing.assert_allclose(loss, expected, rtol=1e-6)
    # Ten times less probable to the target network than when it was acted.
    reference = surrogate_reference(np.log([0.05]), np.log([0.5]))
    np.testing.assert_allclose(np.exp(reference), [0.25])


def test_interval_of_sample_factory():
    log_probs = np.log(np.array([0.5, 0.905, 0.91, 1.1, 1.11]))
    for sign in (1.0, -1.0):
        advantages = np.full(5, sign)
        loss, logs = clipped_surrogate(
            log_probs, np.zeros(5), advantages, 0.1, reciprocal=True
        )
        ratios = np.exp(log_probs)
        clipped = np.clip(ratios, 0.90909091, 1.1)
        expected = -np.minimum(sign * ratios, sign * clipped).mean()
        np.testing.assert_allclose(loss, expected, rtol=1e-6)
        np.testing.assert_allclose(logs["clip_fraction"], 0.6)


# --- Identities --------------------------------------------------------------------


@pytest.mark.parametrize("lam", [0.0, 0.9, 1.0])
def test_of_the_present_policy_it_is_gae(lam):
    data = {**hostile(dtype="float64"), "log_ratios": np.zeros((12, 3))}
    targets, advantages = vtrace(**data, gamma=0.97, lam=lam)
    values = data["values"]
    rest = {name: x for name, x in data.items() if name != "log_ratios"}
    expected = np.asarray(gae(**rest, gamma=0.97, lam=lam))
    np.testing.assert_allclose(advantages, expected, rtol=1e-10)
    np.testing.assert_array_equal(targets, values + expected)
    if lam == 1.0:
        del rest["values"]
        returns = reference_returns(**rest, gamma=0.97)
        np.testing.assert_allclose(targets, returns, rtol=1e-10)


def test_without_ratios_the_targets_are_the_values():
    data = {**hostile(), "log_ratios": np.full((12, 3), -np.inf, "f")}
    targets, advantages = vtrace(**data, gamma=0.97)
    np.testing.assert_allclose(targets, data["values"], atol=1e-6)
    np.testing.assert_allclose(advantages, np.zeros((12, 3)), atol=1e-6)


def test_certain_actions_give_finite_results():
    data = {**hostile(), "log_ratios": np.full((12, 3), np.inf, "f")}
    unbounded = {name: np.inf for name in ("clip_rho", "clip_c", "clip_pg")}
    assert np.isfinite(vtrace(**data, gamma=0.97)).all()
    short = {name: x[:3] for name, x in data.items()}
    assert np.isfinite(vtrace(**short, gamma=0.97, **unbounded)).all()


def test_a_rollout_split_at_an_ending_is_the_whole_rollout():
    data = hostile(5)
    data["terminated"][6], data["truncated"][6] = False, True
    whole = np.asarray(vtrace(**data, **OPTIONS))
    for part in (slice(None, 7), slice(7, None)):
        found = vtrace(**{name: x[part] for name, x in data.items()}, **OPTIONS)
        np.testing.assert_allclose(found, whole[:, part], atol=1e-6)


# --- Behaviour ---------------------------------------------------------------------


def test_no_gradient_flows_through_the_results():
    data = {name: tf.constant(x) for name, x in hostile().items()}
    floats = [data[n] for n in ("log_ratios", "rewards", "values", "next_values")]
    with tf.GradientTape() as tape:
        tape.watch(floats)
        result = vtrace(**data, gamma=0.9)
    assert tape.gradient(result, floats) == [None] * 4


def test_what_lies_behind_an_ending_does_not_reach_back():
    data = hostile()
    clean = np.asarray(vtrace(**data, gamma=0.9))
    data["values"][3:, 0] = np.nan  # the first episode of env 0 ends at step 2
    data["rewards"][3:, 0] = np.inf
    data["next_values"][2, 0] = np.nan  # by termination
    result = np.asarray(vtrace(**data, gamma=0.9))
    np.testing.assert_array_equal(result[:, :3], clean[:, :3])
    np.testing.assert_array_equal(result[:, :, 1:], clean[:, :, 1:])


@pytest.mark.parametrize("name", list(hostile()))
def test_shapes_that_differ_are_refused(name):
    for reshape in (lambda x: x[..., None], lambda x: x[:-1]):
        data = hostile()
        data[name] = reshape(data[name])
        with pytest.raises(ValueError, match=f"{name}: \\[1"):
            vtrace(**data, gamma=0.9)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"gamma": 1.5}, "gamma=1.5"),
        ({"lam": -0.1}, "lam=-0.1"),
        ({"clip_rho": -1.0}, "clip_rho=-1.0"),
        ({"clip_pg": float("nan")}, "clip_pg=nan"),
        ({"clip_c": np.ones(3)}, "clip_c"),
        ({"gamma": np.full(3, 0.9)}, "gamma: \\[3\\]"),
    ],
)
def test_arguments_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        vtrace(**hostile(), **{"gamma": 0.9, **change})


def test_metrics_of_ratios():
    log_ratios = np.log(np.array([0.5, 2.0, 3.0, np.nan]))
    mask = np.array([True, True, True, False])
    found = ratio_metrics(log_ratios, 1.0, mask)
    expected = {
        "rho_mean": 5.5 / 3,
        "rho_clipped_fraction": 2 / 3,
        "approximate_kl": np.mean(np.array([0.5, 2, 3]) - 1 - log_ratios[:3]),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6)
    endless = ratio_metrics(np.array([-np.inf, np.inf]))
    assert all(np.isfinite(value) for value in endless.values())
