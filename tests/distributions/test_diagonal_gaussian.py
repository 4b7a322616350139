"""DiagonalGaussian: published numbers, moments, extremes."""

import numpy as np
import pytest
import tensorflow as tf
from references import gradient

from kerasrl.distributions import DiagonalGaussian

MEAN = np.array([[1, -1], [0.1, -0.1]])
STD = np.array([[0.1, 0.1], [0.2, 0.3]])


def gaussian(mean, std):
    return DiagonalGaussian(np.concatenate([mean, np.log(std)], axis=-1))


def test_rlax_vectors():
    """rlax/_src/distributions_test.py."""
    distribution = gaussian(MEAN, STD)
    np.testing.assert_allclose(
        distribution.log_prob(np.array([[1.2, -1.1], [-0.1, 0]])),
        [0.26729202, 0.41997814],
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        distribution.entropy(), [-1.7672932, 0.02446628], rtol=1e-4
    )
    other = gaussian([[1, -10], [0.3, -0.2]], [[0.1, 0.1], [0.8, 0.3]])
    np.testing.assert_allclose(distribution.kl(other), [4050, 1.00435], rtol=1e-5)
    standard = gaussian(np.zeros((2, 2)), np.ones((2, 2)))
    np.testing.assert_allclose(
        distribution.kl(standard), [4.6151705, 1.8884108], rtol=1e-6
    )


def test_moments_of_samples():
    draws = 100_000
    distribution = gaussian(np.tile(MEAN[1], [draws, 1]), np.tile(STD[1], [draws, 1]))
    samples = np.asarray(distribution.sample(seed=1), "float64")
    error = STD[1] / np.sqrt(draws)
    np.testing.assert_array_less(np.abs(samples.mean(0) - MEAN[1]), 4.5 * error)
    np.testing.assert_allclose(samples.std(0), STD[1], rtol=0.02)
    assert abs(np.corrcoef(samples.T)[0, 1]) < 0.02


def test_the_mean_is_the_mode():
    np.testing.assert_allclose(gaussian(MEAN, STD).mode(), MEAN, rtol=1e-6)


def test_samples_carry_the_gradient_of_their_parameters():
    parameters = np.array([[0.5, 0.0]], "float32")
    noise = np.asarray(DiagonalGaussian(parameters).sample(seed=1)) - 0.5
    x = tf.constant(parameters)
    with tf.GradientTape() as tape:
        tape.watch(x)
        samples = DiagonalGaussian(x).sample(seed=1)
    slope = tape.gradient(samples, x)
    np.testing.assert_allclose(slope, [[1.0, noise[0, 0]]], rtol=1e-5)


def test_nearly_equal_distributions_keep_their_digits():
    """A trust region looks at divergences of 1e-6, where s^2 - 1 has none left."""
    one = DiagonalGaussian(np.array([[0.0, 0.0]]))
    kl = one.kl(DiagonalGaussian(np.array([[0.0, 1e-3]])))
    exact = 0.5 * np.expm1(-2e-3) + 1e-3
    np.testing.assert_allclose(kl, [exact], rtol=1e-3)


@pytest.mark.parametrize("log_std", [-1e4, -20.0, 20.0, 1e4, -np.inf, np.inf])
def test_extreme_deviations_stay_finite(log_std):
    parameters = np.array([[1.0, log_std]], "float32")

    def everything(x):
        d = DiagonalGaussian(x)
        return d.log_prob(np.array([[1.5]])) + d.entropy() + d.kl(d)

    assert np.isfinite(everything(parameters)).all()
    assert np.isfinite(gradient(everything, parameters)).all()
    assert np.isfinite(DiagonalGaussian(parameters).sample(seed=1)).all()
