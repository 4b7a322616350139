"""Quantile regression: published vectors, definitions, gradients."""

import numpy as np
import pytest
from references import everywhere, gradient

from kerasrl.losses import quantile_huber_loss, quantile_td_errors, td_errors

F = "float32"


def f(*x):
    return np.array(x, F)


@pytest.mark.parametrize(
    "taus, kappa, expected",
    [
        ([0.2, 0.7], 0.0, 2.0),
        ([0.0, 0.4], 0.0, 2.2),
        ([0.2, 0.7], 2.0, 2.5),
        ([0.0, 0.4], 2.0, 8.5 / 3),
    ],
)
def test_rlax_quantile_regression(taus, kappa, expected):
    """rlax/_src/value_learning_test.py."""
    loss, _ = quantile_huber_loss(f([-1, 3]), f([-3, 4, 2]), f(taus), kappa)
    np.testing.assert_allclose(loss, expected, rtol=3e-7)


def by_definition(quantiles, targets, taus, kappa):
    """https://arxiv.org/abs/1710.10044, equation 10, for one entry."""
    total = 0.0
    for q, tau in zip(quantiles, taus, strict=True):
        for z in targets:
            u = float(z) - float(q)
            if kappa == 0:
                size = abs(u)
            elif abs(u) <= kappa:
                size = 0.5 * u * u
            else:
                size = kappa * (abs(u) - 0.5 * kappa)
            total += abs(float(tau) - (1 if u < 0 else 0)) * size / len(targets)
    return total


def hostile_quantiles(seed=0, batch=(6,), count=5, others=3):
    """Crossed quantiles, and targets that hit some of them exactly."""
    generator = np.random.default_rng(seed)
    quantiles = generator.normal(size=(*batch, count)).astype(F)
    targets = 2 * generator.normal(size=(*batch, others)).astype(F)
    targets[..., 0] = quantiles[..., 1]
    taus = generator.random((*batch, count)).astype(F)
    return quantiles, targets, taus


@pytest.mark.parametrize("kappa", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("midpoints", [False, True])
@pytest.mark.parametrize("poison", [None, np.nan, np.inf])
def test_agrees_with_the_definition(kappa, midpoints, poison):
    quantiles, targets, taus = hostile_quantiles()
    weights, mask, kept = np.arange(1, 7).astype(F), None, np.ones(6, bool)
    if poison is not None:
        mask = kept = np.array([1, 0, 1, 1, 0, 1], bool)
        for x in (quantiles, targets, weights):
            x[~mask] = poison
    if midpoints:
        taus = np.tile((np.arange(5) + 0.5) / 5, (6, 1))
    rows = np.array(
        [by_definition(quantiles[i], targets[i], taus[i], kappa) for i in range(6)]
    )
    given = None if midpoints else taus
    loss, logs = quantile_huber_loss(quantiles, targets, given, kappa, weights, mask)
    np.testing.assert_allclose(loss, (weights * rows)[kept].mean(), rtol=1e-5)
    plain, _ = quantile_huber_loss(quantiles, targets, given, kappa, mask=mask)
    np.testing.assert_allclose(plain, rows[kept].mean(), rtol=1e-5)
    errors = np.asarray(quantile_td_errors(quantiles, targets, mask))
    expected = np.abs(targets[kept].mean(-1) - quantiles[kept].mean(-1))
    np.testing.assert_allclose(errors[kept], expected, rtol=1e-5)
    assert (errors[~kept] == 0).all()
    np.testing.assert_allclose(logs["td_error"], expected.mean(), rtol=1e-5)
    slope = gradient(
        lambda q: quantile_huber_loss(q, targets, given, kappa, weights, mask)[0],
        quantiles,
    )
    assert np.isfinite(slope).all()
    assert (slope[kept] != 0).any(-1).all() and (slope[~kept] == 0).all()


def test_the_same_in_every_mode():
    quantiles, targets, taus = hostile_quantiles(batch=(2, 3))
    weights = np.random.default_rng(1).random((2, 3)).astype(F)
    mask = np.array([[1, 0, 1], [1, 1, 0]], bool)
    everywhere(
        lambda q, z, t, w, m: (
            *quantile_huber_loss(q, z, t, 1.0, w, m),
            *quantile_huber_loss(q, z),
            quantile_td_errors(q, z, m),
        ),
        quantiles, targets, taus, weights, mask,
    )  # fmt: skip


def test_without_kappa_the_slope_counts_the_targets_below():
    """So it is 0 where just the fraction tau of the targets lies below."""
    quantiles = np.array([[-1, 0, 0.5, 3]], F)
    targets = np.random.default_rng(0).normal(size=(1, 400)).astype(F)
    slope = gradient(lambda q: quantile_huber_loss(q, targets, kappa=0.0)[0], quantiles)
    below = (targets[0] < quantiles[0][:, None]).mean(-1)
    np.testing.assert_allclose(
        slope[0], below - [0.125, 0.375, 0.625, 0.875], atol=1e-5
    )


def test_errors_are_those_of_dqn():
    quantiles, targets, _ = hostile_quantiles()
    np.testing.assert_allclose(
        quantile_td_errors(quantiles, targets),
        td_errors(quantiles.mean(-1), targets.mean(-1)),
        rtol=1e-5,
    )


def test_only_the_quantiles_get_a_gradient():
    quantiles, targets, taus = hostile_quantiles()
    one = np.ones(6, F)
    assert gradient(lambda z: quantile_huber_loss(quantiles, z)[0], targets) is None
    assert (
        gradient(lambda t: quantile_huber_loss(quantiles, targets, t)[0], taus) is None
    )
    assert (
        gradient(lambda w: quantile_huber_loss(quantiles, targets, weights=w)[0], one)
        is None
    )
    assert gradient(lambda q: quantile_td_errors(q, targets), quantiles) is None
    assert (
        gradient(lambda q: quantile_huber_loss(q, targets)[1]["td_error"], quantiles)
        is None
    )


NM, NK, N1 = np.zeros((4, 5), F), np.zeros((4, 3), F), np.zeros((4, 1), F)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: quantile_huber_loss(NM, NK[:2]), "must all have the same shape"),
        (lambda: quantile_huber_loss(NM, NK[0]), "must all have the same shape"),
        (lambda: quantile_huber_loss(NM, NK, NM[0]), "must all have the same shape"),
        (lambda: quantile_huber_loss(NM, NK, weights=N1), "must all have the same"),
        (lambda: quantile_huber_loss(NM, NK, mask=N1), "must all have the same shape"),
        (lambda: quantile_huber_loss(1.0, NK), "`quantiles` must have at least 1"),
        (lambda: quantile_huber_loss(NM, 1.0), "`targets` must have at least 1"),
        (lambda: quantile_huber_loss(NM, NK, kappa=-1.0), "kappa=-1.0"),
        (lambda: quantile_td_errors(NM, NK[:2]), "must all have the same shape"),
        (lambda: quantile_td_errors(NM, NK, N1), "must all have the same shape"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
