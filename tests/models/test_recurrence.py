"""Cells over sequences: outputs and gradients as from stepping the cell."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasrl.models import torso
from kerasrl.models.policy import reset_state

NUM_STEPS, NUM_ENVS, FEATURES, UNITS = 7, 3, 4, 5


def make(name):
    """A cell whose every weight is away from zero, and what to run it on."""
    cell = torso.make_cell(name, UNITS, seed=0)
    cell.build((None, FEATURES))
    rng = np.random.default_rng(0)
    for weight in cell.trainable_variables:
        weight.assign(rng.normal(scale=0.7, size=weight.shape))
    inputs = tf.constant(rng.normal(size=(NUM_STEPS, NUM_ENVS, FEATURES)), "float32")
    starts = np.zeros((NUM_STEPS, NUM_ENVS), bool)
    # At the first step, in the middle, twice in a row, at the last step, and never.
    starts[0, 0] = starts[3, 0] = starts[4, 0] = starts[NUM_STEPS - 1, 1] = True
    count = 2 if name == "lstm" else 1
    state = tuple(
        tf.constant(rng.normal(size=(NUM_ENVS, UNITS)), "float32") for _ in range(count)
    )
    targets = tf.constant(rng.normal(size=(NUM_STEPS, NUM_ENVS, UNITS)), "float32")
    return cell, inputs, state, tf.constant(starts), targets


def unroll(cell, inputs, state, starts):
    outputs, last = torso.unroll_cells({"a": cell}, {"a": inputs}, {"a": state}, starts)
    return outputs["a"], last["a"]


def step_by_step(cell, inputs, state, starts):
    """The definition: reset, then call the cell, at each step."""
    outputs = []
    for time in range(inputs.shape[0]):
        zeros = tuple(tf.zeros_like(part) for part in state)
        state = reset_state(state, zeros, starts[time])
        output, state = cell(inputs[time], list(state))
        state = tuple(state)
        outputs.append(output)
    return tf.stack(outputs), state


def losses_and_gradients(run, cell, inputs, state, starts, targets):
    """Gradients of a loss that every output and the last state enter."""
    sources = [*(v.value for v in cell.trainable_variables), inputs, *state]
    with tf.GradientTape() as tape:
        tape.watch([inputs, *state])
        outputs, last = run(cell, inputs, state, starts)
        loss = tf.reduce_sum(outputs * targets)
        for number, part in enumerate(last):
            loss += (number + 2.0) * tf.reduce_sum(tf.square(part))
    return outputs, last, tape.gradient(loss, sources)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_equals_stepping_the_cell(name, jit_compile):
    arguments = make(name)
    expected = losses_and_gradients(step_by_step, *arguments)

    @tf.function(jit_compile=jit_compile)
    def compiled():
        return losses_and_gradients(unroll, *arguments)

    found = compiled()
    assert len(found[2]) == 4 + len(arguments[2])
    for gradient in expected[2]:
        assert np.abs(gradient).max() > 1e-2
    for x, y in zip(
        keras.tree.flatten(found), keras.tree.flatten(expected), strict=True
    ):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6 * np.abs(y).max() + 1e-6)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_the_number_of_steps_may_be_unknown(name):
    cell, inputs, state, starts, targets = make(name)

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None, FEATURES)),
            tf.TensorSpec((None, None), "bool"),
        ]
    )
    def gradient(inputs, starts):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs, _ = unroll(cell, inputs, state, starts)
            loss = tf.reduce_sum(outputs**2)
        return outputs, tape.gradient(loss, inputs)

    for length in (1, NUM_STEPS):
        outputs, slope = gradient(inputs[:length], starts[:length])
        expected, _ = step_by_step(cell, inputs[:length], state, starts[:length])
        np.testing.assert_allclose(outputs, expected, atol=1e-6)
        assert slope.shape == (length, NUM_ENVS, FEATURES)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_nothing_passes_a_reset(name):
    cell, inputs, state, starts, _ = make(name)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs, _ = unroll(cell, inputs, state, starts)
        loss = tf.reduce_sum(outputs[4:, 0])
    slope = np.asarray(tape.gradient(loss, inputs))
    assert (slope[:4] == 0).all() and (slope[4:, 0] != 0).all()
    assert (slope[:, 1:] == 0).all()
