"""Rescaling of values and its inverse, to the last digits of float32."""

import numpy as np
import pytest
from references import everywhere, gradient

from kerasrl.losses import rescale, unrescale

F = "float32"


def h(x, epsilon=1e-3):
    """https://arxiv.org/abs/1805.11593, proposition A.2, in float64."""
    x = np.asarray(x, "float64")
    return np.sign(x) * (np.sqrt(np.abs(x) + 1) - 1) + epsilon * x


def inverse(y, epsilon=1e-3):
    """The same, the closed form of the inverse."""
    y = np.asarray(y, "float64")
    root = np.sqrt(1 + 4 * epsilon * (np.abs(y) + 1 + epsilon))
    return np.sign(y) * (((root - 1) / (2 * epsilon)) ** 2 - 1)


def both_signs(low, high):
    x = np.geomspace(low, high, 500)
    return np.concatenate([-x[::-1], x]).astype(F)


def test_seed_values():
    """google-research/seed_rl, agents/r2d2/learner_test.py."""
    np.testing.assert_allclose(rescale(np.array([0, 3, -3], F)), [0, 1.003, -1.003])
    x = np.linspace(-100, 100, 2001).astype(F)
    np.testing.assert_allclose(unrescale(rescale(x)), x, atol=2e-4)


@pytest.mark.parametrize("epsilon", [1e-3, 1e-2, 0.5])
def test_agrees_with_the_definition_everywhere(epsilon):
    x = np.concatenate([[0.0], both_signs(1e-2, 1e6)]).astype(F)
    scaled, back = everywhere(lambda x: (rescale(x, epsilon), unrescale(x, epsilon)), x)
    np.testing.assert_allclose(scaled, h(x, epsilon), rtol=5e-7)
    np.testing.assert_allclose(back, inverse(x, epsilon), rtol=1e-6)
    assert scaled[0] == 0 and back[0] == 0


@pytest.mark.parametrize("low, high", [(1e-30, 1e-6), (1e-6, 1), (1e4, 1e6)])
def test_the_round_trip_keeps_every_digit(low, high):
    x = both_signs(low, high)
    np.testing.assert_allclose(unrescale(rescale(x)), x, rtol=5e-7)
    np.testing.assert_allclose(rescale(unrescale(x)), x, rtol=5e-7)


def test_without_the_linear_part():
    x = both_signs(1e-3, 1e4)
    np.testing.assert_allclose(rescale(x, 0.0), h(x, 0.0), rtol=1e-6)
    np.testing.assert_allclose(unrescale(rescale(x, 0.0), 0.0), x, rtol=1e-6)


def test_slopes():
    x = np.array([-1e6, -3, -1e-8, 0, 1e-8, 3, 1e6], F)
    slope = gradient(rescale, x)
    expected = 0.5 / np.sqrt(np.abs(x.astype("float64")) + 1) + 1e-3
    np.testing.assert_allclose(slope, expected, rtol=1e-5)
    steep = gradient(unrescale, np.asarray(rescale(x)))
    np.testing.assert_allclose(steep, 1 / expected, rtol=1e-5)


@pytest.mark.parametrize("function", [rescale, unrescale])
def test_a_negative_epsilon_is_refused(function):
    with pytest.raises(ValueError, match="epsilon=-0.1"):
        function(np.zeros(3, F), epsilon=-0.1)
