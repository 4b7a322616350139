"""Half precision: gradients are scaled, clipped and unscaled in the right order."""

import daily
import keras
import numpy as np
import pytest
import tiny
from by_definition import BOX, DISCRETE, OBSERVATIONS, take_step, transitions

import kerasrl


@pytest.fixture
def mixed_float16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


def step_of(agent, action_space, optimizer):
    agent.compile(optimizer, jit_compile=False)
    agent.build(OBSERVATIONS, action_space)
    generator = np.random.default_rng(5)
    for variable in [*agent.trainable_variables, *agent.target.variables]:
        variable.assign(generator.normal(size=variable.shape, scale=0.3))
    batch = transitions(action_space)
    # Of the other tests' absurd observations, halves would overflow.
    batch["next_observations"] = np.clip(batch["next_observations"], -3.0, 3.0)
    return take_step(agent, batch)


@pytest.mark.parametrize("max_grad_norm", [None, 0.5])
@pytest.mark.parametrize(
    "name, action_space", [("DQN", DISCRETE), ("DDPG", BOX), ("SAC", DISCRETE)]
)
def test_a_step_is_that_of_single_precision(
    name, action_space, max_grad_norm, mixed_float16
):
    def make():
        settings = {"max_grad_norm": max_grad_norm}
        return getattr(kerasrl, name)({"hidden_units": (8,)}, **settings)

    keras.config.set_dtype_policy("float32")
    exact, _, expected = step_of(make(), action_space, keras.optimizers.SGD(1.0))
    keras.config.set_dtype_policy("mixed_float16")
    # 2 to the 15th, the default, is more than the gradients of these rewards can bear:
    # the first steps would only lower it.
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(1.0), initial_scale=16.0
    )
    metrics, _, taken = step_of(make(), action_space, optimizer)
    np.testing.assert_allclose(
        metrics["gradient_norm"], exact["gradient_norm"], rtol=0.02
    )
    for a, b in zip(taken, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=0.02 * np.abs(b).max() + 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", daily.among(["PPO_recurrent", "R2D2", "SAC"], ["SAC"]))
def test_saved_and_loaded_in_between(name, mixed_float16, tmp_path):
    straight = tiny.make(name)
    env = tiny.env_of(name)
    straight.fit(env, steps=160, num_envs=2, verbose=0)
    assert isinstance(straight.policy.optimizer, keras.optimizers.LossScaleOptimizer)
    resumed = kerasrl.load(straight.save(tmp_path / "agent.kerasrl"))
    for agent in (straight, resumed):
        agent.fit(env, steps=160, num_envs=2, verbose=0)
    for a, b in zip(straight.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
