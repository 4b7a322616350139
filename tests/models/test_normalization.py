"""Running normalization of observations of every size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasrl.models import RunningNormalization


def made(shape):
    layer = RunningNormalization()
    layer.build((None, *shape))
    return layer


@given(
    offset=st.sampled_from([0.0, -3.0, 1e3, 1e6, -1e9]),
    scale=st.sampled_from([1e-2, 1.0, 1e4]),
    shape=st.sampled_from([(), (3,), (2, 2)]),
    cuts=st.lists(st.integers(0, 40), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_statistics_are_those_of_all_data(offset, scale, shape, cuts, seed):
    """In float64 and of what float32 holds, however the data are cut."""
    generator = np.random.default_rng(seed)
    data = (offset + scale * generator.normal(size=(40, *shape))).astype(np.float32)
    layer = made(shape)
    for batch in np.split(data, sorted(cuts)):
        layer.update(batch)
    exact = data.astype(np.float64)
    spacing = np.spacing(np.abs(exact).max().astype(np.float32))
    np.testing.assert_allclose(layer.mean, exact.mean(0), rtol=1e-6, atol=spacing)
    np.testing.assert_allclose(
        layer.variance, exact.var(0), rtol=1e-3, atol=10 * spacing * (scale + spacing)
    )
    assert float(layer.count) == 40
    if scale > 100 * spacing:
        found = np.asarray(layer(data))
        wanted = (exact - exact.mean(0)) / np.sqrt(exact.var(0) + 1e-8)
        np.testing.assert_allclose(found, np.clip(wanted, -10, 10), rtol=0.05, atol=0.1)


@pytest.mark.parametrize("value", [0.1, -1000.1, 1e6 + 0.3, 1.7e9, 1e14])
def test_constant_features_are_not_amplified(value):
    """Their deviation is nothing but rounding, in the data or in the sums."""
    layer = made((1,))
    data = np.full((1000, 1), value, np.float32)
    for batch in np.split(data, [10, 300, 301]):
        layer.update(batch)
    assert np.abs(layer(data)).max() < 0.3
    neighbours = np.nextafter(data[:2], np.float32(np.inf))
    assert np.abs(layer(neighbours)).max() < 0.6


@pytest.mark.parametrize("worst", [3.4e38, -3.4e38, 1e20, np.inf, np.nan])
def test_a_number_that_measures_nothing_spoils_nothing(worst):
    generator = np.random.default_rng(0)
    data = generator.normal(5, 2, (64, 2)).astype(np.float32)
    layer, spoilt = made((2,)), made((2,))
    spoilt.update(np.insert(data, 7, [1.0, worst], 0).astype(np.float32))
    layer.update(data)
    for a, b in zip(layer.get_weights(), spoilt.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    if not np.isnan(worst):
        assert np.isfinite(spoilt(np.array([[1.0, worst]], np.float32))).all()


def test_masked_rows_may_hold_anything():
    layer = made((1,))
    layer.update(np.array([[1.0], [np.nan], [3.0]], np.float32), [True, False, True])
    assert float(layer.mean[0]) == 2.0 and float(layer.count) == 2.0
