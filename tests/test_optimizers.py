"""Optimizers, against their definitions and literal vectors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasrl
from kerasrl.optimizers import Adam, RMSprop

AGENTS = ("PG", "A2C", "PPO", "SimpleQ", "DQN", "R2D2", "DDPG", "TD3", "SAC")


def adam_by_definition(start, gradients, rate, epsilon, beta_1=0.9, beta_2=0.999):
    x = np.array(start, np.float64)
    m, v = np.zeros_like(x), np.zeros_like(x)
    for step, gradient in enumerate(gradients, 1):
        m = beta_1 * m + (1 - beta_1) * gradient
        v = beta_2 * v + (1 - beta_2) * gradient**2
        m_hat, v_hat = m / (1 - beta_1**step), v / (1 - beta_2**step)
        x = x - rate * m_hat / (np.sqrt(v_hat) + epsilon)
    return x


def rmsprop_by_definition(
    start, gradients, rate, epsilon, rho=0.9, momentum=0.0, centered=False
):
    x = np.array(start, np.float64)
    v, mean, step = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    for gradient in gradients:
        v = rho * v + (1 - rho) * gradient**2
        mean = rho * mean + (1 - rho) * gradient
        squares = v - mean**2 if centered else v
        step = momentum * step + rate * gradient / (np.sqrt(squares) + epsilon)
        x = x - step
    return x


def positions(optimizer, start, gradients):
    variable = keras.Variable(np.array(start, "float32"))
    optimizer.build([variable])
    found = []
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient, "float32")], [variable])
        found.append(variable.numpy().copy())
    return np.array(found)


def test_literal_vectors():
    """Three steps of a scalar by hand; the second is what Keras's RMSprop makes."""
    gradients = [[1.0], [-2.0], [0.5]]
    settings = {"learning_rate": 7e-4, "rho": 0.99, "epsilon": 0.1}
    np.testing.assert_allclose(
        positions(RMSprop(**settings), [0.0], gradients)[:, 0],
        [-0.0035, 0.0008292308, -0.000238435],
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        positions(keras.optimizers.RMSprop(**settings), [0.0], gradients)[:, 0],
        [-0.0021105794, 0.0015054106, 0.000607387],
        rtol=1e-5,
    )
    # m_hat = 1, -11/19; v_hat = 1, 4.999/1.999.
    np.testing.assert_allclose(
        positions(Adam(0.1, epsilon=0.1), [1.0], gradients[:2])[:, 0],
        [1.0 - 0.1 / 1.1, 1.0 - 0.1 / 1.1 + 0.1 * (11 / 19) / 1.6813761],
        rtol=1e-6,
    )


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rmsprop_adds_epsilon_to_the_root(momentum, centered):
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(20, 8)) * 10.0 ** np.arange(-7, 1)
    options = {"rho": 0.95, "momentum": momentum, "centered": centered}
    found = positions(RMSprop(0.01, epsilon=1e-4, **options), np.ones(8), gradients)
    expected = rmsprop_by_definition(np.ones(8), gradients, 0.01, 1e-4, **options)
    np.testing.assert_allclose(found[-1], expected, rtol=2e-5)


def test_centred_squares_that_round_below_zero_are_zero():
    gradient = np.linspace(0.05, 3.0, 200)
    optimizer = RMSprop(1e-3, rho=0.9, epsilon=0.1, centered=True)
    found = positions(optimizer, np.zeros(200), [gradient] * 250)
    # In the end it is the rate times the gradient over epsilon.
    np.testing.assert_allclose(found[-2] - found[-1], gradient / 100, rtol=0.05)


@pytest.mark.parametrize("name", AGENTS)
def test_default_optimizers_are_those_of_the_papers(name):
    """Over gradients from far below any epsilon to far above, as training meets."""
    optimizer = getattr(kerasrl, name)().default_optimizer()
    config = optimizer.get_config()
    rate, epsilon = config["learning_rate"], config["epsilon"]
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(10, 8)) * 10.0 ** np.arange(-9, -1)
    if name == "A2C":
        expected = rmsprop_by_definition(
            np.ones(8), gradients, rate, epsilon, config["rho"]
        )
    else:
        expected = adam_by_definition(np.ones(8), gradients, rate, epsilon)
    found = positions(optimizer, np.ones(8), gradients)[-1]
    np.testing.assert_allclose(found - 1.0, expected - 1.0, rtol=1e-2, atol=2e-7)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("epsilon", [1e-7, 1e-5, 1e-2])
def test_it_is_the_algorithm_of_the_paper(epsilon, jit_compile):
    rng = np.random.default_rng(0)
    # From far above epsilon to far below it.
    scales = 10.0 ** np.arange(-8, 2)
    gradients = rng.normal(size=(30, 10)) * scales
    variable = keras.Variable(np.ones(10, "float32"))
    optimizer = Adam(0.01, epsilon=epsilon)
    optimizer.build([variable])

    @tf.function(jit_compile=jit_compile)
    def step(gradient):
        optimizer.apply([gradient], [variable])

    for gradient in gradients.astype("float32"):
        step(tf.constant(gradient))
    expected = adam_by_definition(np.ones(10), gradients, 0.01, epsilon)
    np.testing.assert_allclose(variable.numpy(), expected, rtol=2e-5)


def test_keras_has_another_epsilon():
    moved = []
    for optimizer in (
        Adam(0.01, epsilon=1e-3),
        keras.optimizers.Adam(0.01, epsilon=1e-3),
    ):
        variable = keras.Variable(np.ones(1, "float32"))
        optimizer.build([variable])
        optimizer.apply([tf.constant([1e-3])], [variable])
        moved.append(1.0 - float(variable.numpy()[0]))
    assert moved[0] == pytest.approx(0.005, rel=1e-3)
    assert moved[1] < 0.001


@pytest.mark.parametrize("optimizer_class", [Adam, RMSprop])
def test_its_config_has_the_number_that_was_given(optimizer_class):
    optimizer = optimizer_class(1e-3, epsilon=1e-4)
    config = keras.saving.serialize_keras_object(optimizer)
    copy = keras.saving.deserialize_keras_object(config)
    assert isinstance(copy, optimizer_class)
    assert copy.get_config() == optimizer.get_config()
    assert copy.get_config()["epsilon"] == 1e-4


@pytest.mark.parametrize("optimizer_class", [Adam, RMSprop])
def test_agents_save_and_load_it(tmp_path, optimizer_class):
    agent = kerasrl.PPO(rollout_length=8, policy={"hidden_units": (4,)}, seed=0)
    agent.compile(optimizer_class(1e-3, epsilon=1e-4), jit_compile=False)
    agent.fit("CartPole-v1", steps=64, num_envs=2, verbose=0)
    agent.save(tmp_path / "agent.kerasrl")
    loaded = kerasrl.load(tmp_path / "agent.kerasrl")
    assert isinstance(loaded.policy.optimizer, optimizer_class)
    assert loaded.policy.optimizer.get_config()["epsilon"] == 1e-4
