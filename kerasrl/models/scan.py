"""A loop over time that XLA can differentiate."""

import keras
import tensorflow as tf


def scan_states(step, state, inputs):
    """Steps a state through time and keeps every state.

    `keras.ops.scan` does the same, but XLA cannot compile its gradient: it does not
    tell the loop how often it runs at most.

    Args:
        step: Function of the state, tree `[B, ...]`, and the inputs of one step, that
            returns the new state and the state to keep, both like the state.
        state: Tree `[B, ...]`, the first state.
        inputs: Tree `[T, B, ...]`.

    Returns:
        Tuple of the last state, `[B, ...]`, and the states kept, `[T, B, ...]`.
    """
    inputs = keras.tree.map_structure(tf.convert_to_tensor, inputs)
    flat_state = [tf.convert_to_tensor(x) for x in keras.tree.flatten(state)]
    first = keras.tree.flatten(inputs)[0]
    num_steps = first.shape[0] or tf.shape(first)[0]
    kept = [
        tf.TensorArray(x.dtype, num_steps, element_shape=x.shape) for x in flat_state
    ]

    def body(time, flat_state, kept):
        new_state, keep = step(
            keras.tree.pack_sequence_as(state, flat_state),
            keras.tree.map_structure(lambda x: x[time], inputs),
        )
        kept = [
            array.write(time, value)
            for array, value in zip(kept, keras.tree.flatten(keep), strict=True)
        ]
        return time + 1, keras.tree.flatten(new_state), kept

    _, flat_state, kept = tf.while_loop(
        lambda time, *_: time < num_steps,
        body,
        (tf.constant(0), flat_state, kept),
        maximum_iterations=num_steps,
    )
    stacked = [array.stack() for array in kept]
    return (
        keras.tree.pack_sequence_as(state, flat_state),
        keras.tree.pack_sequence_as(state, stacked),
    )
