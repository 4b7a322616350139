"""Categorical Q-learning: published vectors, definitions, reductions, gradients."""

import numpy as np
import pytest
from references import everywhere, gradient

from kerasrl.losses import (
    categorical_td_errors,
    categorical_td_loss,
    project_categorical,
    q_learning_targets,
)

F = "float32"


def f(*x):
    return np.array(x, F)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# -- published vectors -----------------------------------------------------------------


@pytest.mark.parametrize(
    "source, probabilities, atoms, expected",
    [
        (
            [0, 2, 4, 6, 8], [0.1, 0.6, 0.1, 0.1, 0.1], range(4, 9),
            [0.8, 0, 0.1, 0, 0.1],
        ),
        (
            [1, 3, 4, 5, 6], [0.1, 0.2, 0.5, 0.1, 0.1], range(4, 9),
            [0.8, 0.1, 0.1, 0, 0],
        ),
        (range(5), [0.1, 0.2, 0.1, 0.3, 0.3], range(3, 8), [0.7, 0.3, 0, 0, 0]),
        (
            [0, 2, 4, 6, 8], [0.1, 0.2, 0.2, 0.2, 0.3], range(0, 17, 4),
            [0.2, 0.4, 0.4, 0, 0],
        ),
        (
            [8, 9, 10, 12, 14], [0.1, 0.2, 0.4, 0.1, 0.2], range(0, 17, 4),
            [0, 0, 0.45, 0.45, 0.1],
        ),
    ],
)  # fmt: skip
def test_dopamine_projections(source, probabilities, atoms, expected):
    """google/dopamine, tests/dopamine/tf/agents/rainbow/rainbow_agent_test.py."""
    result = project_categorical(f(*source), f(*probabilities), f(*atoms))
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-7)


def test_rlax_projection():
    """rlax/_src/value_learning_test.py: any weights, and two supports."""
    source = np.arange(-1, 1, 0.25)
    weights = np.stack([source, source + 1])
    weights[0, ::2] = 0
    weights[1, 1::2] = 0
    atoms = np.arange(-1, 1, 0.5)
    expected = [[-0.375, -0.5, 0, 0.875], [0, 0.5, 1, 1.5]]
    for row in range(2):
        result = project_categorical(source + row, weights[row], atoms + row)
        np.testing.assert_allclose(result, expected[row], atol=1e-7)


RLAX_ATOMS = f(0.5, 1.0, 1.5)
RLAX_REWARDS, RLAX_DISCOUNTS = f(0.5, 0, 0.5, 0.8, -0.1), f(0.8, 1, 0.8, 0, 1)


def rlax_losses(logits, next_probabilities):
    source = RLAX_REWARDS[:, None] + RLAX_DISCOUNTS[:, None] * RLAX_ATOMS
    targets = np.asarray(project_categorical(source, next_probabilities, RLAX_ATOMS))
    return [
        float(categorical_td_loss(logits[i : i + 1], targets[i : i + 1])[0])
        for i in range(5)
    ]


def test_rlax_categorical_td():
    logits = f([0, 9, 0], [9, 0, 9], [0, 9, 0], [9, 9, 0], [9, 0, 9])
    next_logits = f([0, 0, 9], [1, 1, 1], [0, 0, 9], [1, 1, 1], [0, 9, 9])
    expected = [8.998915, 3.6932087, 8.998915, 0.69320893, 5.1929307]
    losses = rlax_losses(logits, softmax(next_logits))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


# -- definitions -----------------------------------------------------------------------


def by_definition(source, probabilities, atoms):
    """Algorithm 1 of https://arxiv.org/abs/1707.06887, one atom at a time."""
    result = np.zeros(len(atoms))
    spacing = (atoms[-1] - atoms[0]) / (len(atoms) - 1)
    for y, p in zip(source, probabilities, strict=True):
        b = (min(max(y, atoms[0]), atoms[-1]) - atoms[0]) / spacing
        low, high = int(np.floor(b)), int(np.ceil(b))
        if low == high:
            result[low] += p
        else:
            result[low] += p * (high - b)
            result[high] += p * (b - low)
    return result


@pytest.mark.parametrize("low, high, count", [(-10, 10, 51), (0.5, 1.5, 3), (-1, 2, 2)])
def test_projection_agrees_with_the_definition_everywhere(low, high, count):
    """Unsorted, on atoms, between them, far beyond them, infinitely far."""
    generator = np.random.default_rng(0)
    atoms = np.linspace(low, high, count)
    source = generator.normal(size=(2, 5, 9)) * (high - low) + 0.5 * (high + low)
    source[0, 0, :2] = atoms[[0, -1]]
    source[0, 1, :2] = [-np.inf, np.inf]
    source[1, 1] = atoms[1]
    probabilities = softmax(generator.normal(size=(2, 5, 9)))
    result = everywhere(
        project_categorical, source.astype(F), probabilities.astype(F), atoms.astype(F)
    )
    assert result.shape == (2, 5, count)
    for i in np.ndindex(2, 5):
        expected = by_definition(source[i], probabilities[i], atoms)
        np.testing.assert_allclose(result[i], expected, atol=2e-6)
    np.testing.assert_allclose(result.sum(-1), 1, rtol=1e-6)


def test_projection_keeps_the_mean_within_the_range():
    generator = np.random.default_rng(0)
    atoms = np.linspace(-10, 10, 51).astype(F)
    source = generator.uniform(-10, 10, size=(8, 20)).astype(F)
    probabilities = softmax(generator.normal(size=(8, 20))).astype(F)
    result = np.asarray(project_categorical(source, probabilities, atoms))
    mean = (source * probabilities).sum(-1)
    np.testing.assert_allclose((result * atoms).sum(-1), mean, rtol=1e-4, atol=1e-5)


def test_a_point_mass_makes_it_dqn():
    """Expectations of the targets are DQN's targets, and of the best action."""
    generator = np.random.default_rng(0)
    atoms = np.linspace(-5, 5, 21).astype(F)
    chosen = generator.integers(6, 15, size=(16, 3))
    next_probabilities = np.eye(21, dtype=F)[chosen]
    next_q_values = (next_probabilities * atoms).sum(-1)
    rewards = generator.uniform(-1, 1, size=16).astype(F)
    discounts = generator.choice([0, 0.9], size=16).astype(F)
    best = next_q_values.argmax(-1)
    targets = project_categorical(
        rewards[:, None] + discounts[:, None] * atoms,
        next_probabilities[np.arange(16), best],
        atoms,
    )
    np.testing.assert_allclose(
        (np.asarray(targets) * atoms).sum(-1),
        q_learning_targets(rewards, discounts, next_q_values),
        rtol=1e-5, atol=1e-5,
    )  # fmt: skip


def hostile_distributions(seed=0, batch=(20,), count=7):
    """Impossible atoms on both sides, but no target where the prediction has none."""
    generator = np.random.default_rng(seed)
    logits = 3 * generator.normal(size=(*batch, count))
    targets = softmax(3 * generator.normal(size=(*batch, count)))
    targets[generator.random(targets.shape) < 0.4] = 0
    targets[..., 0] += 0.1
    targets /= targets.sum(-1, keepdims=True)
    logits[(targets == 0) & (generator.random(targets.shape) < 0.5)] = -np.inf
    return logits.astype(F), targets.astype(F)


def divergences(logits, targets):
    """Cross-entropy and KL divergence of each row, in float64."""
    rows = []
    for x, p in zip(logits.astype("float64"), targets.astype("float64"), strict=True):
        q = softmax(x)
        terms = [(pz, qz) for pz, qz in zip(p, q, strict=True) if pz > 0]
        rows.append(
            (
                -sum(pz * np.log(qz) for pz, qz in terms),
                sum(pz * np.log(pz / qz) for pz, qz in terms),
            )
        )
    return np.array(rows).T


@pytest.mark.parametrize("poison", [None, np.nan, np.inf, -np.inf])
def test_loss_agrees_with_the_definition(poison):
    logits, targets = hostile_distributions()
    generator = np.random.default_rng(1)
    weights, mask = generator.random(20).astype(F), None
    kept = np.ones(20, bool)
    if poison is not None:
        mask = kept = generator.random(20) < 0.6
        logits[~mask], targets[~mask], weights[~mask] = poison, poison, poison
    losses, expected_errors = divergences(logits[kept], targets[kept])
    loss, logs = categorical_td_loss(logits, targets, weights, mask)
    np.testing.assert_allclose(loss, (weights[kept] * losses).mean(), rtol=1e-5)
    np.testing.assert_allclose(logs["td_error"], expected_errors.mean(), rtol=1e-5)
    assert list(logs) == ["td_error"]
    plain, _ = categorical_td_loss(logits, targets, mask=mask)
    np.testing.assert_allclose(plain, losses.mean(), rtol=1e-5)
    errors = np.asarray(categorical_td_errors(logits, targets, mask))
    np.testing.assert_allclose(errors[kept], expected_errors, rtol=1e-5)
    assert (errors[~kept] == 0).all()
    slope = gradient(
        lambda x: categorical_td_loss(x, targets, weights, mask)[0], logits
    )
    expected = softmax(logits[kept]) - targets[kept]
    expected *= weights[kept, None] / kept.sum()
    np.testing.assert_allclose(slope[kept], expected, rtol=1e-4, atol=1e-6)
    assert (slope[~kept] == 0).all()


def test_loss_is_the_same_in_every_mode():
    logits, targets = hostile_distributions(batch=(2, 10))
    generator = np.random.default_rng(1)
    weights = generator.random((2, 10)).astype(F)
    mask = generator.random((2, 10)) < 0.5
    everywhere(
        lambda x, p, w, m: (
            *categorical_td_loss(x, p, w, m),
            categorical_td_errors(x, p, m),
        ),
        logits, targets, weights, mask,
    )  # fmt: skip


def test_errors_vanish_where_nothing_is_left_to_learn():
    """The cross-entropy does not."""
    targets = softmax(f([0.1, 2, -1], [0, 0, 0]))
    logits = np.log(targets) + 5
    errors = np.asarray(categorical_td_errors(logits, targets))
    assert (errors >= 0).all() and (errors < 1e-6).all()
    assert categorical_td_loss(logits, targets)[0] > 0.5


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_extreme_logits_stay_finite(size):
    logits, targets = f([size, -size, 0]), f([0.2, 0.3, 0.5])
    loss, logs = categorical_td_loss(logits, targets)
    assert np.isfinite([loss, logs["td_error"]]).all()
    slope = gradient(lambda x: categorical_td_loss(x, targets)[0], logits)
    np.testing.assert_allclose(slope, [[0.8, -0.3, -0.5]], rtol=1e-6)


def test_only_the_logits_get_a_gradient():
    logits, targets = hostile_distributions()
    one = np.ones(20, F)
    assert gradient(lambda p: categorical_td_loss(logits, p)[0], targets) is None
    assert gradient(lambda w: categorical_td_loss(logits, targets, w)[0], one) is None
    assert gradient(lambda x: categorical_td_errors(x, targets), logits) is None
    assert (
        gradient(lambda x: categorical_td_loss(x, targets)[1]["td_error"], logits)
        is None
    )


# -- wrong arguments -------------------------------------------------------------------

Z, NZ, N, N1 = np.arange(3.0), np.ones((4, 3), F), np.ones(4, F), np.ones((4, 1), F)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: project_categorical(NZ, N, Z), "must all have the same shape"),
        (lambda: project_categorical(NZ, NZ, NZ), "`atoms` must have 1 dim"),
        (lambda: project_categorical(1.0, 1.0, Z), "`source_atoms` must have at least"),
        (lambda: project_categorical(NZ, NZ, [1.0]), "at least 2 numbers. Received: 1"),
        (lambda: project_categorical(NZ, NZ, [0, 1, 3]), "evenly spaced"),
        (lambda: project_categorical(NZ, NZ, [2, 1, 0]), "evenly spaced"),
        (lambda: project_categorical(NZ, NZ, [1, 1, 1]), "evenly spaced"),
        (lambda: categorical_td_loss(NZ, NZ[:, :2]), "must all have the same shape"),
        (lambda: categorical_td_loss(NZ, NZ, N1), "must all have the same shape"),
        (lambda: categorical_td_loss(NZ, NZ, N, N1), "must all have the same shape"),
        (lambda: categorical_td_loss(1.0, 1.0), "`logits` must have at least 1"),
        (lambda: categorical_td_errors(NZ, NZ[:2]), "must all have the same shape"),
        (lambda: categorical_td_errors(NZ, NZ, N1), "must all have the same shape"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
