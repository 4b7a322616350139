"""Adam, against its definition."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasrl
from kerasrl.optimizers import Adam


def by_definition(start, gradients, rate, epsilon, beta_1=0.9, beta_2=0.999):
    x = np.array(start, np.float64)
    m, v = np.zeros_like(x), np.zeros_like(x)
    for step, gradient in enumerate(gradients, 1):
        m = beta_1 * m + (1 - beta_1) * gradient
        v = beta_2 * v + (1 - beta_2) * gradient**2
        m_hat, v_hat = m / (1 - beta_1**step), v / (1 - beta_2**step)
        x = x - rate * m_hat / (np.sqrt(v_hat) + epsilon)
    return x


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
    expected = by_definition(np.ones(10), gradients, 0.01, epsilon)
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


def test_its_config_has_the_number_that_was_given():
    optimizer = Adam(1e-3, epsilon=1e-4)
    config = keras.saving.serialize_keras_object(optimizer)
    copy = keras.saving.deserialize_keras_object(config)
    assert isinstance(copy, Adam)
    assert copy.get_config() == optimizer.get_config()
    assert copy.get_config()["epsilon"] == 1e-4


def test_agents_save_and_load_it(tmp_path):
    agent = kerasrl.PPO(rollout_length=8, policy={"hidden_units": (4,)}, seed=0)
    agent.compile(Adam(1e-3, epsilon=1e-4), jit_compile=False)
    agent.fit("CartPole-v1", steps=64, num_envs=2, verbose=0)
    agent.save(tmp_path / "agent.kerasrl")
    loaded = kerasrl.load(tmp_path / "agent.kerasrl")
    assert isinstance(loaded.policy.optimizer, Adam)
    assert loaded.policy.optimizer.get_config()["epsilon"] == 1e-4
