"""The loss of several critics."""

import numpy as np
import pytest

from kerasrl.losses import critics_loss


def by_definition(values, targets, weights):
    total, errors = 0.0, np.zeros(len(targets))
    for critic in values:
        for n, value in enumerate(critic):
            total += weights[n] * 0.5 * (value - targets[n]) ** 2 / len(targets)
            errors[n] += abs(value - targets[n]) / len(values)
    return total, errors


@pytest.mark.parametrize("critics", [1, 2, 5])
def test_it_is_the_sum_over_critics_of_mean_squares(critics):
    rng = np.random.default_rng(critics)
    values = rng.normal(size=(critics, 7)).astype("float32") * 10
    targets = rng.normal(size=7).astype("float32")
    weights = rng.uniform(size=7).astype("float32")
    expected, expected_errors = by_definition(values, targets, weights)
    loss, metrics, errors = critics_loss(values, targets, weights)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(errors, expected_errors, rtol=1e-5)
    np.testing.assert_allclose(metrics["td_error"], expected_errors.mean(), rtol=1e-5)
    ones = np.ones(7, "float32")
    np.testing.assert_allclose(
        critics_loss(values, targets)[0], critics_loss(values, targets, ones)[0]
    )


def test_the_example_of_its_docstring():
    loss, metrics, errors = critics_loss([[1.0], [3.0]], targets=[2.0])
    assert (float(loss), float(metrics["td_error"])) == (1.0, 1.0)
    assert np.asarray(errors).tolist() == [1.0]


@pytest.mark.parametrize(
    "shapes", [((7,), (7,)), ((2, 7), (2, 7)), ((2, 7), (6,)), ((2, 7), (7, 1))]
)
def test_other_shapes_are_refused(shapes):
    with pytest.raises(ValueError):
        critics_loss(*(np.zeros(shape, "float32") for shape in shapes))
