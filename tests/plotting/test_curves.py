import numpy as np
import pytest

from kerasrl.plotting import band, on_common_steps


def test_values_between_reports_lie_on_straight_lines():
    steps, values = on_common_steps(
        [([0, 10, 20], [0, 1, 3]), ([5, 15, 40], [0, 2, 2])], points=4
    )
    # From the latest start to the earliest end.
    assert steps.tolist() == [5, 10, 15, 20]
    np.testing.assert_allclose(values, [[0.5, 1, 2, 3], [0, 1, 2, 2]])


def test_steps_in_any_order_and_repeated():
    steps, values = on_common_steps([([10, 0, 10], [5, 0, 2])], points=2)
    assert steps.tolist() == [0, 10] and values.tolist() == [[0, 2]]


def test_one_step_in_common_and_none():
    steps, values = on_common_steps([([7], [1]), ([0, 14], [0, 4])])
    assert steps.tolist() == [7] and values.tolist() == [[1], [2]]
    steps, values = on_common_steps([([0, 1], [0, 1]), ([2, 3], [0, 1])])
    assert steps.shape == (0,) and values.shape == (2, 0)


@pytest.mark.parametrize("curves", [[], [([], [])], [([1], [1, 2])]])
def test_what_is_no_curve(curves):
    with pytest.raises(ValueError, match="curve"):
        on_common_steps(curves)


@pytest.mark.parametrize(("count", "quantile"), [(2, 12.706), (5, 2.776), (40, 1.96)])
def test_the_band_is_students(count, quantile):
    values = np.random.default_rng(0).normal(size=count)
    found = band([([0, 1], [x, x + 1]) for x in values], points=2)
    assert found.seeds == count
    half = quantile * values.std(ddof=1) / np.sqrt(count)
    np.testing.assert_allclose(found.mean, [values.mean(), values.mean() + 1])
    np.testing.assert_allclose(found.high - found.mean, half)
    np.testing.assert_allclose(found.mean - found.low, half)


def test_one_seed_has_no_band():
    found = band([([0, 1], [2, 3])], points=2)
    assert found.mean.tolist() == [2, 3] and np.isnan(found.low).all()
