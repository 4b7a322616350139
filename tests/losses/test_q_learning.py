"""Q-learning: published vectors, definitions, gradients, masks."""

import numpy as np
import pytest
from references import everywhere, gradient

from kerasrl.losses import (
    greedy_values,
    huber,
    q_learning_targets,
    select_actions,
    td_errors,
    td_loss,
    td_targets,
)

F = "float32"
INF = np.float32(np.inf)


def f(*x):
    return np.array(x, F)


def hostile_q_values(seed=0, batch=(7,), actions=4):
    """Ties, impossible actions, and maxima that differ between the two networks."""
    generator = np.random.default_rng(seed)
    shape = (*batch, actions)
    q, selector = generator.normal(size=(2, *shape)).round(1).astype(F)
    impossible = generator.random(shape) < 0.3
    impossible[..., 1] = False
    return np.where(impossible, -INF, q), np.where(impossible, -INF, selector)


# -- published vectors -----------------------------------------------------------------


def test_rlax_q_learning():
    """rlax/_src/value_learning_test.py."""
    values = select_actions(f([1, 1, 0], [1, 2, 0]), np.array([0, 1]))
    targets = q_learning_targets(f(1, 1), f(0, 1), f([0, 1, 0], [1, 2, 0]))
    np.testing.assert_allclose(targets - values, [0, 1])


def test_rlax_double_q_learning():
    """The same file; fails if the two networks change places."""
    values = select_actions(f([1, 1, 0], [1, 2, 0]), np.array([0, 1]))
    targets = q_learning_targets(
        f(1, 1),
        f(0, 1),
        next_q_values=f([99, 1, 98], [91, 2, 66]),
        selector_q_values=f([2, 10, 1], [11, 20, 1]),
    )
    np.testing.assert_allclose(targets - values, [0, 1])


def test_rlax_sarsa():
    values = select_actions(f([1, 1, 0], [1, 1, 0]), np.array([0, 1]))
    following = select_actions(f([0, 1, 0], [3, 2, 0]), np.array([1, 0]))
    targets = td_targets(f(1, 1), f(0, 1), following)
    np.testing.assert_allclose(targets - values, [0, 3])


def test_rlax_expected_sarsa():
    values = select_actions(f([1, 1, 0.5], [1, 1, 3]), np.array([0, 1]))
    policy = f([0.2, 0.5, 0.3], [0.3, 0.4, 0.3])
    following = (policy * f([1.5, 1, 2], [3, 2, 1])).sum(-1)
    targets = td_targets(f(4, 1), f(1, 1), following)
    np.testing.assert_allclose(targets - values, [4.4, 2.0], rtol=1e-6)


def q_network(observations):
    """tf_agents/agents/dqn/dqn_agent_test.py: Q = [2x + y + 1, x + y + 1]."""
    x, y = np.asarray(observations, F).T
    return np.stack([2 * x + y + 1, x + y + 1], axis=-1)


FIRST, ACTIONS, REWARDS = [[1, 2], [3, 4]], np.array([0, 1]), f(10, 20)


@pytest.mark.parametrize(
    "rewards, discounts, following, expected",
    [
        (REWARDS, f(0.9, 0.9), [[5, 6], [7, 8]], 26.0),
        (REWARDS, f(0.9, 0.9), [[-5, 6], [-7, 8]], 9.8),
        (1.9 * REWARDS, f(0.81, 0.81), [[9, 10], [11, 12]], 47.42),
        # Three steps wanted, the second was the last: no bootstrap.
        (1.9 * REWARDS, f(0, 0), [[9, 10], [11, 12]], 21.5),
    ],
)
def test_tf_agents_dqn(rewards, discounts, following, expected):
    targets = q_learning_targets(rewards, discounts, q_network(following))
    values = select_actions(q_network(FIRST), ACTIONS)
    loss, _ = td_loss(values, targets)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_tf_agents_dqn_with_impossible_actions():
    q_values = q_network([[5, 6], [7, 8]])
    q_values[[0, 1], [0, 1]] = -np.inf
    values = select_actions(q_network(FIRST), ACTIONS)
    for selector in (None, q_values):
        targets = q_learning_targets(REWARDS, f(0.9, 0.9), q_values, selector)
        np.testing.assert_allclose(td_loss(values, targets)[0], 23.75, rtol=1e-6)


def test_rlax_huber():
    """rlax/_src/losses_test.py."""
    errors = f(-2, -1, -0.5, 0, 0.5, 1, 2)
    np.testing.assert_allclose(
        huber(errors, 1.0), [1.5, 0.5, 0.125, 0, 0.125, 0.5, 1.5]
    )


# -- definitions -----------------------------------------------------------------------


@pytest.mark.parametrize("batch", [(), (7,), (3, 5)])
def test_select_actions_agrees_with_the_definition(batch):
    q_values, _ = hostile_q_values(batch=batch)
    actions = np.random.default_rng(1).integers(4, size=batch)
    result = everywhere(select_actions, q_values, actions)
    expected = np.zeros(batch, F)
    for index in np.ndindex(batch):
        expected[index] = q_values[(*index, int(actions[index]))]
    np.testing.assert_array_equal(result, expected)
    if batch:
        assert np.isinf(result).any() and np.isfinite(result).any()


@pytest.mark.parametrize("batch", [(), (7,), (3, 5)])
def test_several_values_of_each_action_are_selected_together(batch):
    values, _ = hostile_q_values(batch=(*batch, 4), actions=6)
    actions = np.random.default_rng(1).integers(4, size=batch)
    result = everywhere(lambda v, a: select_actions(v, a, axis=-2), values, actions)
    expected = np.zeros((*batch, 6), F)
    for index in np.ndindex(batch):
        expected[index] = values[(*index, int(actions[index]))]
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("double", [False, True])
def test_targets_agree_with_the_definition_everywhere(double):
    q_values, selector = hostile_q_values(batch=(3, 5))
    generator = np.random.default_rng(2)
    rewards = generator.normal(size=(3, 5)).astype(F)
    discounts = generator.choice([0, 0.9, 0.81], size=(3, 5)).astype(F)
    q_values[discounts == 0] = generator.choice([np.nan, np.inf, -np.inf])
    more = (selector,) if double else ()
    result = everywhere(q_learning_targets, rewards, discounts, q_values, *more)
    selected_another = 0
    for i in np.ndindex(3, 5):
        best = max(range(4), key=lambda a: (selector if double else q_values)[i][a])
        selected_another += best != int(np.argmax(q_values[i]))
        target = float(rewards[i])
        if discounts[i]:
            target += float(discounts[i]) * float(q_values[i][best])
        np.testing.assert_allclose(result[i], target, rtol=1e-5)
    assert (selected_another > 3) == double
    assert (discounts == 0).sum() > 2


@pytest.mark.parametrize("delta", [None, 0.3, 1.0, 5.0])
def test_huber_agrees_with_the_definition(delta):
    errors = np.concatenate([3 * np.random.default_rng(0).normal(size=40), [0, 0.3]])
    result = everywhere(lambda e: huber(e, delta), errors.astype(F))
    for e, y in zip(errors, result, strict=True):
        if delta is None or abs(e) <= delta:
            expected = 0.5 * e * e
        else:
            expected = delta * (abs(e) - 0.5 * delta)
        np.testing.assert_allclose(y, expected, rtol=1e-5)


@pytest.mark.parametrize("delta", [0.5, 1.0])
def test_the_slope_of_huber_is_the_clipped_error(delta):
    errors = f(-INF, -1e30, -2, -delta, -0.1, 0, 0.1, delta, 2, 1e30, INF)
    slope = gradient(lambda e: huber(e, delta), errors)
    np.testing.assert_allclose(slope, np.clip(errors, -delta, delta), rtol=1e-6)


def loop_td_loss(values, targets, weights, delta, mask):
    """The mean over the entries that count, one at a time."""
    total = count = size = 0.0
    for i in range(len(values)):
        if mask is not None and not mask[i]:
            continue
        e = float(values[i]) - float(targets[i])
        if delta is None or abs(e) <= delta:
            loss = 0.5 * e * e
        else:
            loss = delta * (abs(e) - 0.5 * delta)
        total += (1.0 if weights is None else float(weights[i])) * loss
        size += abs(e)
        count += 1
    return total / count, size / count


@pytest.mark.parametrize("delta", [None, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("poison", [None, np.nan, np.inf])
def test_td_loss_agrees_with_the_definition(delta, weighted, poison):
    generator = np.random.default_rng(0)
    values, targets, weights = 2 * generator.normal(size=(3, 20)).astype(F)
    mask = None
    if poison is not None:
        mask = generator.random(20) < 0.6
        for x in (values, targets, weights):
            x[~mask] = poison
    weights = np.abs(weights) if weighted else None
    loss, logs = td_loss(values, targets, weights, delta, mask)
    expected, size = loop_td_loss(values, targets, weights, delta, mask)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(logs["td_error"], size, rtol=1e-5)
    assert list(logs) == ["td_error"]
    slope = gradient(lambda v: td_loss(v, targets, weights, delta, mask)[0], values)
    assert np.isfinite(slope).all() and (slope != 0).any()
    if mask is not None:
        assert (slope[~mask] == 0).all()
    errors = np.asarray(td_errors(values, targets, mask))
    kept = np.ones(20, bool) if mask is None else mask
    np.testing.assert_allclose(errors[kept], np.abs(values[kept] - targets[kept]))
    assert (errors[~kept] == 0).all()


def test_td_loss_is_the_same_in_every_mode():
    generator = np.random.default_rng(0)
    values, targets, weights = generator.normal(size=(3, 4, 5)).astype(F)
    mask = generator.random((4, 5)) < 0.5
    everywhere(
        lambda v, t, w, m: (*td_loss(v, t, w, 1.0, m), td_errors(v, t, m)),
        values, targets, weights, mask,
    )  # fmt: skip


def test_nothing_that_counts_is_a_loss_of_zero():
    nothing = np.zeros(3, bool)
    loss, logs = td_loss(f(1, 2, 3), f(0, 0, 0), mask=nothing)
    assert loss == 0 and logs["td_error"] == 0


def test_weights_are_not_normalised():
    values, targets = f(1.0, 2.0), f(0.0, 0.0)
    whole, _ = td_loss(values, targets)
    half, _ = td_loss(values, targets, weights=f(0.5, 0.5))
    np.testing.assert_allclose(half, 0.5 * whole, rtol=1e-6)


# -- gradients -------------------------------------------------------------------------


def test_only_the_values_get_a_gradient():
    x, y, w = f(1, 2), f(0.5, 3), f(1, 0.5)
    assert gradient(lambda t: td_loss(x, t, w)[0], y) is None
    assert gradient(lambda w: td_loss(x, y, w)[0], w) is None
    assert gradient(lambda v: td_loss(v, y)[1]["td_error"], x) is None
    assert gradient(lambda v: td_errors(v, y), x) is None
    assert gradient(lambda r: td_targets(r, w, y), x) is None
    assert gradient(lambda d: td_targets(x, d, y), w) is None
    assert gradient(lambda v: td_targets(x, w, v), y) is None
    q_values, selector = hostile_q_values()
    one = np.ones(7, F)
    assert gradient(lambda q: q_learning_targets(one, one, q), q_values) is None
    assert (
        gradient(lambda s: q_learning_targets(one, one, q_values, s), selector) is None
    )


def test_only_the_action_taken_gets_a_gradient():
    q_values, _ = hostile_q_values()
    actions = np.argmax(q_values, axis=-1)
    slope = gradient(lambda q: select_actions(q, actions), q_values)
    np.testing.assert_array_equal(slope, np.eye(4)[actions])


def test_greedy_values_pass_a_gradient_to_the_values_only():
    q_values, selector = hostile_q_values()
    slope = gradient(lambda q: greedy_values(q, selector), q_values)
    np.testing.assert_array_equal(slope, np.eye(4)[np.argmax(selector, axis=-1)])
    assert gradient(lambda s: greedy_values(q_values, s), selector) is None


def test_half_precision_is_widened():
    x = f(1, 2).astype("float16")
    assert td_targets(x, x, x).dtype == F
    assert td_loss(x, x)[0].dtype == F
    assert select_actions(x[None], np.array([1])).dtype == F


# -- wrong arguments -------------------------------------------------------------------

N, N1, NA = np.zeros(4, F), np.zeros((4, 1), F), np.zeros((4, 2), F)


@pytest.mark.parametrize(
    "call",
    [
        lambda: select_actions(NA, N1),
        lambda: select_actions(NA, N[:3]),
        lambda: select_actions(N, N),
        lambda: select_actions(NA, N, axis=-2),
        lambda: select_actions(NA[..., None], N, axis=-1),
        lambda: greedy_values(NA, NA[:3]),
        lambda: td_targets(N1, N, N),
        lambda: td_targets(N, N1, N),
        lambda: td_targets(N, N, N1),
        lambda: q_learning_targets(N1, N1, NA),
        lambda: q_learning_targets(N, N, NA, NA[:, :1]),
        lambda: td_loss(N1, N),
        lambda: td_loss(N, N1),
        lambda: td_loss(N, N, N1),
        lambda: td_loss(N, N, mask=N1),
        lambda: td_errors(N, N1),
        lambda: td_errors(N, N, mask=N1),
    ],
)
def test_shapes_that_differ_are_refused(call):
    with pytest.raises(ValueError, match="must all have the same shape"):
        call()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: select_actions(1.0, 0), "`q_values` must have at least 1"),
        (lambda: select_actions(N, 0, axis=-2), "`q_values` must have at least 2"),
        (lambda: select_actions(NA, N, axis=0), "axis=0"),
        (lambda: greedy_values(1.0), "`q_values` must have at least 1"),
        (lambda: huber(N, 0.0), "delta=0.0"),
        (lambda: td_loss(N, N, delta=-1.0), "delta=-1.0"),
        (lambda: td_loss(N, N, delta=float("nan")), "delta=nan"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
