"""Targets along stored sequences, with every kind of ending in them."""

import numpy as np
import pytest
from references import everywhere, gradient
from test_value_rescaling import h, inverse

from kerasrl.losses import (
    greedy_values,
    rescale,
    select_actions,
    sequence_priorities,
    transformed_n_step_targets,
    unrescale,
)

F = "float32"


def flags(*x):
    return np.array(x, bool)


# -- published vectors -----------------------------------------------------------------


@pytest.mark.parametrize(
    "epsilon, expected",
    [
        (
            1e-3,
            [
                [-1.6178751, 0.85600746, -0.75762916],
                [-0.87689304, 0.6246443, 0.3598088],
            ],
        ),
        (None, [[-2.4, 1.3113, 1.07], [3.92, 2.104, -2.196]]),
    ],
)
def test_rlax_transformed_two_step_q(epsilon, expected):
    """rlax/_src/nonlinear_bellman_test.py, where `q_t[t]` is Q after step t.

    It allows 1e-3: its inverse, computed literally in float32, is 2e-5 off.
    """
    q = np.array(
        [
            [[1.1, 2.1], [-1.1, 1.1], [3.1, -3.1]],
            [[2.1, 3.1], [-1.1, 0.1], [-2.1, -1.1]],
        ]
    )
    actions = np.array([[0, 1, 0], [1, 0, 0]])
    discounts = np.array([[0, 0.89, 0.85], [0.88, 1, 0.83]])
    rewards = np.array([[-1.3, -1.3, 2.3], [1.3, 5.3, -3.3]])
    next_q = np.array(
        [[[1.2, 2.2], [-1.2, 0.2], [2.2, -1.2]], [[4.2, 2.2], [1.2, 1.2], [-1.2, -2.2]]]
    )

    def rows(x, before, after):
        """Time first, and one row more."""
        x = np.pad(x, [(0, 0), (before, after)] + [(0, 0)] * (x.ndim - 2))
        return np.moveaxis(x, 1, 0).astype(F)

    values = greedy_values(
        rows(next_q, 1, 0), selector_q_values=rows(np.eye(2)[actions], 1, 0)
    )
    no = np.zeros((4, 2), bool)
    targets, mask = transformed_n_step_targets(
        values, rows(rewards, 0, 1), no, no, ~no, rows(discounts, 0, 1), 2, epsilon
    )
    np.testing.assert_array_equal(mask, [[True] * 2] * 3 + [[False] * 2])
    td = np.asarray(targets)[:3].T - np.asarray(select_actions(q.astype(F), actions))
    np.testing.assert_allclose(td, expected, rtol=5e-5)


@pytest.mark.parametrize(
    "n, terminated, expected",
    [
        (1, flags(0, 0, 0, 0), [91, 182, 273]),
        (1, flags(0, 1, 0, 0), [91, 2, 273]),
        (2, flags(0, 0, 0, 0), [1 + 1.8 + 162, 2 + 2.7 + 243, 3 + 270]),
    ],
)
def test_seed_n_step(n, terminated, expected):
    """google-research/seed_rl, agents/r2d2/learner_test.py."""
    no = np.zeros(4, bool)
    targets, mask = transformed_n_step_targets(
        np.array([-1, 100, 200, 300], F), np.array([1, 2, 3, 4], F), terminated,
        no, ~no, 0.9, n, epsilon=None,
    )  # fmt: skip
    np.testing.assert_allclose(targets[:3], expected, rtol=1e-6)
    np.testing.assert_array_equal(mask, flags(1, 1, 1, 0))


# -- the definition --------------------------------------------------------------------


def hostile_rows(seed=0, length=40, batch=(3,)):
    """Rows of episodes that end in every way, and what must not be read is NaN.

    Terminated, truncated, both, cut without a flag; episodes of one step; two rows
    without an action in a row; endings before, at and beyond the end of the sequence.
    """
    generator = np.random.default_rng(seed)
    columns = int(np.prod(batch))
    names = ("values", "rewards", "terminated", "truncated", "valid")
    rows = {name: np.zeros((length, columns)) for name in names}
    for b in range(columns):
        t = generator.integers(3)  # the sequence may start with rows that do not count
        while t < length:
            steps, ending = generator.integers(1, 7), generator.integers(4)
            rows["valid"][t : t + steps, b] = 1
            last = t + steps - 1
            if last < length:
                rows["terminated"][last, b] = ending in (1, 3)
                rows["truncated"][last, b] = ending in (2, 3)
            t += steps + generator.integers(1, 3)
    rows["values"] = generator.normal(size=(length, columns)) * 10
    rows["rewards"] = generator.normal(size=(length, columns))
    rows = {name: x.reshape(length, *batch) for name, x in rows.items()}
    flags = {name: rows[name].astype(bool) for name in names[2:]}
    unread = ~flags["valid"]
    rows["rewards"][unread] = np.nan
    flags["terminated"][unread] = generator.random(unread.sum()) < 0.5
    flags["truncated"][unread] = generator.random(unread.sum()) < 0.5
    # Nothing follows a termination, whatever its final observation is worth.
    after = np.concatenate([np.zeros_like(unread[:1]), flags["terminated"][:-1]])
    rows["values"][after & unread] = np.nan
    return {k: rows[k].astype(F) for k in names[:2]} | flags


def by_definition(values, rewards, terminated, truncated, valid, gamma, n, epsilon):
    """Walks from each row to where its sum ends, in float64."""
    forward = h if epsilon is not None else (lambda x, _: x)
    backward = inverse if epsilon is not None else (lambda x, _: x)
    length = len(values)
    targets, mask = np.zeros(values.shape), np.zeros(values.shape, bool)
    for t, *b in np.ndindex(values.shape):
        if not valid[(t, *b)]:
            continue
        total, discount, u, steps = 0.0, 1.0, t, 0
        while True:
            here = (u, *b)
            bootstrap = steps == n or not valid[here]
            if not bootstrap and u == length - 1 and not terminated[here]:
                bootstrap = True
                if steps == 0:
                    break
            if bootstrap:
                total += discount * float(backward(values[here], epsilon))
                mask[(t, *b)] = True
                break
            total += discount * float(rewards[here])
            steps += 1
            if terminated[here]:
                mask[(t, *b)] = True
                break
            discount *= gamma
            u += 1
            if truncated[here]:
                total += discount * float(backward(values[(u, *b)], epsilon))
                mask[(t, *b)] = True
                break
        targets[(t, *b)] = forward(total, epsilon) if mask[(t, *b)] else 0.0
    return targets, mask


@pytest.mark.parametrize("n", [1, 2, 5, 100])
@pytest.mark.parametrize("epsilon", [1e-3, None])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_agrees_with_the_definition_on_hostile_rows(n, epsilon, batch):
    for seed in range(4):
        data = hostile_rows(seed, batch=batch)
        targets, mask = transformed_n_step_targets(
            **data, gamma=0.9, n=n, epsilon=epsilon
        )
        expected, expected_mask = by_definition(**data, gamma=0.9, n=n, epsilon=epsilon)
        np.testing.assert_array_equal(mask, expected_mask)
        np.testing.assert_allclose(targets, expected, rtol=1e-4, atol=1e-5)


def test_the_rows_are_hostile():
    """They hold what they promise, also where the sequence stops."""
    endings, last_rows = set(), set()
    for seed in range(4):
        data = hostile_rows(seed, batch=(2, 3))
        valid, kinds = data["valid"], (data["terminated"], data["truncated"])
        ends = valid[:-1] & ~valid[1:]
        endings |= set(zip(*(kind[:-1][ends].tolist() for kind in kinds), strict=True))
        last_rows |= set(zip(valid[-1].flat, kinds[0][-1].flat, strict=True))
    assert len(endings) == 4
    assert {(True, False), (True, True)} <= last_rows
    assert not all(valid for valid, _ in last_rows)


@pytest.mark.parametrize("length", [1, 2, 11])
def test_the_same_in_every_mode(length):
    data = hostile_rows(3, length=length)
    everywhere(
        lambda *x: transformed_n_step_targets(*x, 0.97, 3), *data.values(), atol=1e-5
    )


def test_rows_are_worth_what_they_show():
    """One episode by hand: three steps, its final observation, one step of the next."""
    targets, mask = transformed_n_step_targets(
        values=np.array([1, 2, 4, 8, 16], F), rewards=np.array([1, 1, 1, 99, 1], F),
        terminated=flags(0, 0, 0, 0, 0), truncated=flags(0, 0, 1, 0, 0),
        valid=flags(1, 1, 1, 0, 1), gamma=0.5, n=2, epsilon=None,
    )  # fmt: skip
    np.testing.assert_allclose(targets, [1 + 0.5 + 1, 1 + 0.5 + 2, 1 + 4, 0, 0])
    np.testing.assert_array_equal(mask, flags(1, 1, 1, 0, 0))


def test_a_truncation_ends_the_sum_whatever_the_next_row_is():
    targets, mask = transformed_n_step_targets(
        np.array([1, 2, 4], F), np.array([3, 5, 7], F), flags(0, 0, 0),
        flags(1, 0, 0), flags(1, 1, 1), 0.5, 2, epsilon=None,
    )  # fmt: skip
    np.testing.assert_allclose(targets, [3 + 1, 5 + 2, 0])
    np.testing.assert_array_equal(mask, flags(1, 1, 0))


def test_a_termination_on_the_last_row_needs_no_next_row():
    targets, mask = transformed_n_step_targets(
        np.array([1, 2], F), np.array([3, 5], F), flags(0, 1), flags(0, 0),
        flags(1, 1), 0.5, 5, epsilon=None,
    )  # fmt: skip
    np.testing.assert_allclose(targets, [5.5, 5])
    assert np.all(mask)


def test_rescaling_wraps_the_plain_targets():
    data = hostile_rows(0)
    plain, mask = transformed_n_step_targets(
        **{**data, "values": np.asarray(unrescale(data["values"]))},
        gamma=0.9, n=3, epsilon=None,
    )  # fmt: skip
    scaled, _ = transformed_n_step_targets(**data, gamma=0.9, n=3)
    np.testing.assert_allclose(scaled, rescale(plain), rtol=1e-5, atol=1e-6)


def test_no_gradient_flows():
    data = hostile_rows(0)
    rest = [data[k] for k in ("rewards", "terminated", "truncated", "valid")]
    for index in (0, 1):
        arguments = [data["values"], *rest]

        def function(x, index=index, arguments=arguments):
            changed = [x if i == index else a for i, a in enumerate(arguments)]
            return transformed_n_step_targets(*changed, 0.9, 2)[0]

        assert gradient(function, arguments[index]) is None


# -- priorities ------------------------------------------------------------------------


def test_r2d2_priority():
    errors = np.array([1, 2, 4, 0.5], F)
    np.testing.assert_allclose(sequence_priorities(errors), 3.7875, rtol=1e-6)


def test_priorities_agree_with_the_definition():
    generator = np.random.default_rng(0)
    errors = np.abs(generator.normal(size=(9, 4))).astype(F)
    mask = generator.random((9, 4)) < 0.5
    mask[:, 2] = False
    errors[~mask] = np.nan
    result = everywhere(lambda e, m: sequence_priorities(e, m, 0.7), errors, mask)
    for b in range(4):
        kept = [float(errors[t, b]) for t in range(9) if mask[t, b]]
        expected = 0.7 * max(kept) + 0.3 * sum(kept) / len(kept) if kept else 0.0
        np.testing.assert_allclose(result[b], expected, rtol=1e-5)
    assert gradient(lambda e: sequence_priorities(e, mask), errors) is None


# -- wrong arguments -------------------------------------------------------------------


@pytest.mark.parametrize("index", range(5))
def test_shapes_that_differ_are_refused(index):
    arguments = [np.zeros(4, F)] * 2 + [np.zeros(4, bool)] * 3
    arguments[index] = arguments[index][:, None]
    with pytest.raises(ValueError, match="must all have the same shape"):
        transformed_n_step_targets(*arguments, 0.9, 2)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"n": 0}, "n=0"),
        ({"gamma": 1.5}, "gamma=1.5"),
        ({"epsilon": -1.0}, "epsilon=-1.0"),
        ({"gamma": np.ones(3)}, "gamma: \\[3\\]"),
    ],
)
def test_numbers_out_of_range_are_refused(change, message):
    x, no = np.zeros(4, F), np.zeros(4, bool)
    with pytest.raises(ValueError, match=message):
        transformed_n_step_targets(
            x, x, no, no, ~no, **{"gamma": 0.9, "n": 2, **change}
        )


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: sequence_priorities(np.ones(3), np.ones((3, 1))), "same shape"),
        (lambda: sequence_priorities(np.ones(3), eta=1.1), "eta=1.1"),
        (lambda: sequence_priorities(1.0), "at least 1"),
        (lambda: transformed_n_step_targets(1.0, 1.0, 0, 0, 1, 0.9, 1), "at least 1"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
