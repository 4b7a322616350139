"""The residual network of IMPALA, by a definition in NumPy."""

import keras
import numpy as np
import pytest
from gymnasium import spaces

import kerasrl
from kerasrl.models import ImpalaCNN

IMAGES = spaces.Box(0, 255, (13, 10, 3), np.uint8)


def convolve(images, kernel, bias):
    """Convolutions of 3 x 3 that keep the size."""
    height, width = images.shape[1:3]
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    found = np.zeros((*images.shape[:3], kernel.shape[-1]))
    for row in range(3):
        for column in range(3):
            part = padded[:, row : row + height, column : column + width]
            found += part @ kernel[row, column]
    return found + bias


def pool(images):
    """The greatest of 3 x 3 at every second row and column, as TensorFlow pads."""
    for axis in (1, 2):
        size = images.shape[axis]
        half = -(-size // 2)
        missing = max(0, 2 * (half - 1) + 3 - size)
        pads = [(0, 0)] * 4
        pads[axis] = (missing // 2, missing - missing // 2)
        padded = np.pad(images, pads, constant_values=-np.inf)
        parts = [
            np.take(padded, np.arange(k, k + 2 * half - 1, 2), axis) for k in range(3)
        ]
        images = np.max(parts, axis=0)
    return images


def by_definition(weights, images, sections, blocks):
    """Figure 3 of the paper, on the right."""
    weights = iter([weight.astype(np.float64) for weight in weights])

    def convolution(values):
        return convolve(values, next(weights), next(weights))

    def relu(values):
        return np.maximum(values, 0.0)

    values = images / 255.0
    for _ in range(sections):
        values = pool(convolution(values))
        for _ in range(blocks):
            values = values + convolution(relu(convolution(relu(values))))
    values = relu(values).reshape(len(images), -1)
    return relu(values @ next(weights) + next(weights))


@pytest.mark.parametrize("shape", [(13, 10, 3), (8, 8, 1)])
def test_it_is_what_the_paper_says(shape):
    network = ImpalaCNN(channels=(4, 6), num_blocks=2, hidden_units=(7,), seed=1)
    images = np.random.default_rng(0).integers(0, 256, (5, *shape), np.uint8)
    network.build((None, *shape))
    for number, weight in enumerate(network.weights):
        if "bias" in weight.path:
            drawn = np.random.default_rng(number).normal(size=weight.shape)
            weight.assign(0.1 * drawn)
    found = np.asarray(network(images))
    assert network.compute_output_shape((None, *shape)) == (None, 7)
    wanted = by_definition(network.get_weights(), images, 2, 2)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_its_size_is_that_of_the_paper():
    network = ImpalaCNN()
    network.build((None, 84, 84, 4))
    convolutions = [w for w in network.weights if len(w.shape) == 4]
    assert len(convolutions) == 15
    dense = network.weights[-2]
    assert dense.shape == (11 * 11 * 32, 256)
    assert {tuple(w.shape[:2]) for w in convolutions} == {(3, 3)}


def test_it_is_made_again_from_its_description():
    network = ImpalaCNN(channels=[2], num_blocks=1, hidden_units=[], activation="elu")
    twin = ImpalaCNN.from_config(network.get_config())
    assert twin.channels == (2,) and twin.activation is keras.activations.elu
    assert twin.compute_output_shape(twin.build((None, 8, 8, 1)) or (None, 8)) == (
        None,
        32,
    )


def test_vectors_are_refused():
    with pytest.raises(ValueError, match="Expected.*height, width, channels"):
        ImpalaCNN().build((None, 4))


@pytest.mark.parametrize("cell", [None, "lstm"])
def test_it_acts_as_it_computes(cell):
    trunk = {"model": "impala", "model_config": {"channels": [2], "hidden_units": [4]}}
    policy = {"trunk": trunk} | ({"cell": cell, "cell_units": 3} if cell else {})
    agent = kerasrl.A2C(policy=policy, seed=0)
    agent.build(IMAGES, spaces.Box(-1, 1, (2,)))
    head = agent.policy.action_head
    head.kernel.assign(300 * head.kernel)  # The first means are nearly zero.
    images = np.random.default_rng(0).integers(0, 256, (6, 13, 10, 3), np.uint8)
    acted = agent.predict(images)
    outputs = agent.policy({**agent.policy.example_inputs(6), "observations": images})
    acted = acted[0] if cell else acted
    wanted = np.clip(np.asarray(outputs["distribution"])[:, :2], -1, 1)
    assert np.ptp(wanted, axis=0).max() > 1e-2
    np.testing.assert_allclose(acted, wanted, rtol=1e-4, atol=1e-5)
