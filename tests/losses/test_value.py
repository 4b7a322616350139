"""Value losses and explained variance."""

import numpy as np
import pytest
from references import everywhere, gradient

from kerasrl.losses import explained_variance, value_loss

F = "float32"


def test_tf_agents_value_loss():
    """tf_agents/agents/ppo/ppo_agent_test.py, V = 2x + y + 5."""
    loss, logs = value_loss(np.array([9, 15], F), np.array([1.9, 1], F))
    np.testing.assert_allclose(loss, 123.205, rtol=1e-6)
    assert logs == {}


def test_clipped_loss_agrees_with_the_definition_everywhere():
    generator = np.random.default_rng(0)
    values, targets, old = generator.normal(size=(3, 50)).astype(F)
    loss, logs = everywhere(
        lambda v, t, o: value_loss(v, t, o, clip=0.5), values, targets, old
    )
    total, moved = 0.0, 0
    for v, t, o in zip(values, targets, old, strict=True):
        clipped = o + min(max(v - o, -0.5), 0.5)
        total += max((v - t) ** 2, (clipped - t) ** 2)
        moved += abs(v - o) > 0.5
    np.testing.assert_allclose(loss, total / 50, rtol=1e-5)
    np.testing.assert_allclose(logs["value_clip_fraction"], moved / 50, rtol=1e-6)
    assert 0 < moved < 50


@pytest.mark.parametrize(
    "value, flows", [(0.7, False), (0.3, True), (-0.7, True), (-0.3, True)]
)
def test_a_value_that_moved_far_enough_towards_its_target_rests(value, flows):
    one = np.ones(1, F)
    slope = gradient(lambda v: value_loss(v, one, 0 * one, 0.5)[0], value * one)
    assert (slope[0] != 0) == flows


def test_only_the_values_get_a_gradient():
    x, y = np.array([1.0, 2.0], F), np.array([0.5, 3.0], F)
    assert gradient(lambda t: value_loss(x, t)[0], y) is None
    assert gradient(lambda o: value_loss(x, y, o, 0.1)[0], y) is None
    np.testing.assert_allclose(gradient(lambda v: value_loss(v, y)[0], x), x - y)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_masked_entries_change_nothing(poison, clip):
    arrays = np.random.default_rng(0).normal(size=(3, 6)).astype(F)
    mask = np.array([1, 0, 1, 1, 0, 1], bool)
    bad = np.where(mask, arrays, np.float32(poison))
    loss, _ = everywhere(lambda *x: value_loss(*x[:3], clip, x[3]), *bad, mask)
    good = arrays[:, mask]
    expected, _ = value_loss(*good, clip)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    slope = gradient(lambda v: value_loss(v, bad[1], bad[2], clip, mask)[0], bad[0])
    assert np.isfinite(slope).all()
    assert (slope[~mask] == 0).all()
    np.testing.assert_allclose(
        explained_variance(bad[0], bad[1], mask),
        explained_variance(good[0], good[1]),
        rtol=1e-5,
    )


def test_explained_variance():
    targets = np.random.default_rng(0).normal(5, 2, size=(8, 3)).astype(F)
    values = targets + np.random.default_rng(1).normal(size=(8, 3)).astype(F)
    result = everywhere(explained_variance, values, targets)
    expected = 1 - np.var(targets - values) / np.var(targets)
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    assert explained_variance(targets, targets) == 1
    np.testing.assert_allclose(explained_variance(targets + 7, targets), 1, atol=1e-5)
    np.testing.assert_allclose(explained_variance(0 * targets, targets), 0, atol=1e-5)
    assert explained_variance(-values, targets) < 0


def test_explained_variance_of_targets_that_do_not_vary_is_zero():
    assert explained_variance(np.arange(3.0), np.full(3, 2.0)) == 0
    assert explained_variance(np.full(3, 2.0), np.full(3, 2.0)) == 0


def test_clip_needs_old_values():
    x = np.zeros(3, F)
    with pytest.raises(ValueError, match="old_values=None"):
        value_loss(x, x, clip=0.2)
    with pytest.raises(ValueError, match="clip=0.0"):
        value_loss(x, x, x, clip=0.0)


@pytest.mark.parametrize("index", range(4))
def test_shapes_that_differ_are_refused(index):
    arguments = [np.ones(4, F) for _ in range(4)]
    arguments[index] = arguments[index][:, None]
    values, targets, old_values, mask = arguments
    with pytest.raises(ValueError, match="must all have the same shape"):
        value_loss(values, targets, old_values, 0.2, mask)
    if index != 2:
        with pytest.raises(ValueError, match="must all have the same shape"):
            explained_variance(values, targets, mask)
