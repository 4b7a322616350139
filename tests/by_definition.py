"""Networks and batches to recompute gradient steps from their definitions with.

The networks are written out on lists of tensors: nothing here calls the code of agents,
losses or policies.
"""

import keras
import numpy as np
import tensorflow as tf
from gymnasium import spaces

OBSERVATIONS = spaces.Box(-10.0, 10.0, (4,), np.float32)
DISCRETE = spaces.Discrete(3, start=2)
#: Bounds that differ, on several axes.
BOX = spaces.Box(
    np.array([[-2.0, 0.0], [-0.5, 10.0]], np.float32),
    np.array([[1.0, 5.0], [-0.25, 30.0]], np.float32),
)
GAMMA = 0.9
#: Steps of a sequence, and how some rows end: the next is of final observations.
LENGTH = 9
ENDS = {
    0: {},
    1: {1: "terminated", 6: "truncated"},
    2: {5: "terminated"},
    3: {8: "truncated"},
    4: {3: "truncated", 5: "truncated"},
}


def build(agent, action_space=DISCRETE, spread=0.7):
    """Builds an agent whose target network is not its policy.

    Gradient descent with a learning rate of 1: what a step takes from the weights is
    the gradient.
    """
    agent.compile(keras.optimizers.SGD(1.0), jit_compile=False)
    agent.build(OBSERVATIONS, action_space)
    generator = np.random.default_rng(5)
    for variable in [*agent.trainable_variables, *agent.target.variables]:
        variable.assign(generator.normal(size=variable.shape, scale=spread))
    return agent


def transitions(action_space=DISCRETE, size=12, seed=0):
    """Transitions built to hurt, as from a buffer with `n_step=3`.

    Sums of one to three rewards, with or without an end; large rewards; weights far
    from one; next observations of terminal states that are absurd.
    """
    generator = np.random.default_rng(seed)
    steps = generator.integers(1, 4, size)
    terminated = np.arange(size) % 3 == 1
    following = generator.normal(size=(size, 4))
    following[terminated] = 1e4
    rewards = generator.normal(size=size)
    rewards[:2] = [30.0, -20.0]
    if isinstance(action_space, spaces.Discrete):
        actions = np.arange(size) % action_space.n
    else:
        shares = generator.random((size, *action_space.shape))
        actions = action_space.low + shares * (action_space.high - action_space.low)
    batch = {
        "observations": generator.normal(size=(size, 4)).astype(np.float32),
        "actions": actions.astype(action_space.dtype),
        "rewards": rewards.astype(np.float32),
        "next_observations": following.astype(np.float32),
        "discounts": np.where(terminated, 0.0, GAMMA**steps).astype(np.float32),
        "terminated": terminated,
        "truncated": np.arange(size) % 4 == 2,
        "steps": steps.astype(np.int32),
        "weights": generator.uniform(0.1, 1.0, size).astype(np.float32),
    }
    return batch


def take_step(agent, batch, **settings):
    """One gradient step. Returns metrics, errors, and what it took from the weights."""
    before = values(agent.trainable_variables)
    tensors = keras.tree.map_structure(tf.constant, batch)
    tensors["mask"] = tf.cast(
        tensors.get("valid", tf.ones_like(tensors["weights"])), "float32"
    )
    metrics = agent.update(tensors, settings)
    errors = metrics.pop("td_errors").numpy()
    after = values(agent.trainable_variables)
    taken = [old - new for old, new in zip(before, after, strict=True)]
    return {name: float(value) for name, value in metrics.items()}, errors, taken


def values(variables):
    """float64 arrays of variables."""
    return [np.asarray(variable.numpy(), np.float64) for variable in variables]


def gradients_of(function, weights):
    """The value of a function of float64 tensors, and its gradients by autodiff."""
    weights = [tf.constant(weight, tf.float64) for weight in weights]
    with tf.GradientTape() as tape:
        tape.watch(weights)
        result = function(weights)
    zero = tf.UnconnectedGradients.ZERO
    gradients = tape.gradient(result, weights, unconnected_gradients=zero)
    return float(result), [gradient.numpy() for gradient in gradients]


def net(weights, x):
    """One hidden layer: `[kernel, bias, kernel, bias]`."""
    hidden = tf.nn.relu(tf.constant(x, tf.float64) @ weights[0] + weights[1])
    return hidden @ weights[2] + weights[3]


def critics(weights, x):
    """A list of the outputs of several networks, whose weights are stacked."""
    # Not `tf.constant`: gradients flow through actions.
    x = tf.convert_to_tensor(x, tf.float64)
    return [
        tf.nn.relu(x @ weights[0][c] + weights[1][c]) @ weights[2][c] + weights[3][c]
        for c in range(weights[0].shape[0])
    ]


def huber(error, delta):
    """The Huber function of one number, a tensor; half the square without delta."""
    if delta is None or abs(float(error)) <= delta:
        return 0.5 * error**2
    return delta * (abs(error) - 0.5 * delta)


def assert_close(actual, expected, tolerance=2e-4):
    """Compares lists of arrays, relative to the greatest entry of each."""
    for number, (a, b) in enumerate(zip(actual, expected, strict=True)):
        size = max(1e-3, np.abs(b).max())
        np.testing.assert_allclose(
            a, b, rtol=0, atol=tolerance * size, err_msg=f"variable {number}"
        )


def sequences(seed=0):
    """Sequences of steps `[B, T]` as for R2D2, with ends as in `ENDS`."""
    generator = np.random.default_rng(seed)
    shape = (len(ENDS), LENGTH)
    batch = {
        "observations": generator.normal(size=(*shape, 4)).astype(np.float32),
        "previous_actions": np.zeros(shape, np.int64),
        "previous_rewards": np.zeros(shape, np.float32),
        "actions": generator.integers(0, 3, shape),
        "rewards": generator.normal(size=shape, scale=3.0).astype(np.float32),
        "terminated": np.zeros(shape, bool),
        "truncated": np.zeros(shape, bool),
        "valid": np.ones(shape, bool),
        "episode_starts": np.zeros(shape, bool),
        "weights": generator.uniform(0.1, 1.0, len(ENDS)).astype(np.float32),
        "state": {
            "shared": [
                generator.normal(size=(len(ENDS), 4)).astype(np.float32)
                for _ in range(2)
            ]
        },
    }
    for row, ends in ENDS.items():
        for time, kind in ends.items():
            batch[kind][row, time - 1] = True
            batch["valid"][row, time] = False
            batch["rewards"][row, time] = 0.0
            batch["actions"][row, time] = 0
            if time + 1 < LENGTH:
                batch["episode_starts"][row, time + 1] = True
    # The very last row of a sequence may hold a step that terminated.
    batch["terminated"][0, -1] = True
    return batch
