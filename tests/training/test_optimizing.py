"""Critics, policy and temperature: an optimizer and a gradient norm for each."""

import gymnasium
import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny
from by_definition import BOX, OBSERVATIONS, build, take_step, transitions, values
from daily import among

import kerasrl
from kerasrl.training import gradients, optimizing

SMALL = {"hidden_units": (8,)}
AGENTS = {"DDPG": kerasrl.DDPG, "TD3": kerasrl.TD3, "SAC": kerasrl.SAC}


def changes_by_part(agent, taken):
    """What a step took from the variables of each part, flat."""
    order = {id(v): number for number, v in enumerate(agent.trainable_variables)}
    return {
        name: np.concatenate([taken[order[id(v)]].ravel() for v in variables])
        for name, variables in agent.parts().items()
    }


@pytest.mark.parametrize("name", AGENTS)
def test_parts_are_all_that_is_trained(name):
    agent = build(AGENTS[name](policy=SMALL), BOX)
    parts = [id(v) for variables in agent.parts().values() for v in variables]
    assert sorted(parts) == sorted(map(id, agent.trainable_variables))


@pytest.mark.parametrize("name", AGENTS)
def test_each_part_is_clipped_by_its_own_norm(name):
    bound, settings, batch = 0.3, {}, transitions(BOX)
    if name == "TD3":
        settings["update_policy"] = tf.constant(True)
    steps = []
    for max_grad_norm in (None, bound):
        agent = AGENTS[name](policy=SMALL, max_grad_norm=max_grad_norm, seed=3)
        metrics, _, taken = take_step(build(agent, BOX), batch, **settings)
        steps.append((metrics["gradient_norm"], changes_by_part(agent, taken)))
    (norm, whole), (same_norm, clipped) = steps
    norms = {part: np.linalg.norm(change) for part, change in whole.items()}
    np.testing.assert_allclose(norm, np.linalg.norm(list(norms.values())), rtol=1e-3)
    np.testing.assert_allclose(norm, same_norm, rtol=1e-5)
    for part, change in clipped.items():
        expected = whole[part] * min(1.0, bound / norms[part])
        np.testing.assert_allclose(change, expected, rtol=2e-2, atol=1e-5)
    # Else one norm of all could be taken for it.
    assert min(norms["critics"], norms["policy"]) > bound


@pytest.mark.parametrize("name", AGENTS)
def test_gradients_change_nothing_until_they_are_applied(name):
    settings = {"update_policy": tf.constant(True)} if name == "TD3" else {}
    agents = [build(AGENTS[name](policy=SMALL, seed=3), BOX) for _ in range(2)]
    metrics, _, taken = take_step(agents[0], transitions(BOX), **settings)
    batch = keras.tree.map_structure(tf.constant, transitions(BOX))
    batch["mask"] = tf.ones_like(batch["weights"])
    agent, variables = agents[1], agents[1].trainable_variables
    before = values([*variables, *agent.policy.optimizer.variables])
    found, computed = gradients.compute_gradients(agent, batch, settings)
    for old, now in zip(
        before, values([*variables, *agent.policy.optimizer.variables]), strict=True
    ):
        np.testing.assert_array_equal(old, now)
    assert computed["loss"] == metrics["loss"]
    # In the order of the parts, as `apply` takes them.
    halves = [0.5 * gradient for gradient in found]
    norm = optimizing.apply(agent, halves)
    np.testing.assert_allclose(norm, 0.5 * metrics["gradient_norm"], rtol=1e-6)
    for old, now, whole in zip(before, values(variables), taken, strict=False):
        np.testing.assert_allclose(old - now, 0.5 * whole, rtol=1e-4, atol=1e-4)


def test_a_delayed_policy_begins_at_the_full_rate():
    """Adam's first step is as long as the learning rate, whoever stepped before."""
    agent = kerasrl.TD3(policy=SMALL, policy_delay=4, seed=3)
    build(agent, BOX)
    agent.compile(kerasrl.optimizers.Adam(1e-3, epsilon=1e-12), jit_compile=False)
    agent.build(OBSERVATIONS, BOX)
    before = values(agent.policy.policy_variables())
    for number in range(4):
        due = {
            key: tf.constant(x[0]) for key, x in agent.due(np.array([number])).items()
        }
        take_step(agent, transitions(BOX, seed=number), **due)
    after = values(agent.policy.policy_variables())
    moved = np.concatenate(
        [abs(a - b).ravel() for a, b in zip(after, before, strict=True)]
    )
    np.testing.assert_allclose(moved[moved > 0], 1e-3, rtol=2e-3)
    assert (moved > 0).mean() > 0.5


def test_schedules_count_the_steps_of_the_first_part():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [1e-2, 1e-3])
    agent = kerasrl.TD3(policy=SMALL, policy_delay=2, seed=3)
    agent.compile(keras.optimizers.SGD(schedule), jit_compile=False)
    agent.build(OBSERVATIONS, BOX)
    rates = []
    for number in range(4):
        due = {
            key: tf.constant(x[0]) for key, x in agent.due(np.array([number])).items()
        }
        take_step(agent, transitions(BOX), **due)
        rates.append(float(agent.optimizers["policy"].learning_rate))
    # The policy's first step is the second of all, and each of its rates that of then.
    np.testing.assert_allclose(rates[1::2], [1e-2, 1e-3])


@pytest.mark.parametrize("name", among([*AGENTS], ["TD3"]))
def test_stock_callbacks_set_the_rate_of_every_part(name):
    agent = tiny.make(name)
    callback = keras.callbacks.LearningRateScheduler(lambda epoch: 0.5 ** (epoch + 3))
    agent.fit(
        tiny.env_of(name),
        epochs=3,
        steps_per_epoch=40,
        num_envs=2,
        verbose=0,
        callbacks=[callback],
    )
    for part, optimizer in agent.optimizers.items():
        assert float(optimizer.learning_rate) == 0.5**5, part


def same_names():
    """A trunk whose copy, the critics', has variables of the same paths."""
    return keras.Sequential([keras.layers.Dense(5, name="first")], name="trunk")


@pytest.mark.parametrize(
    "optimizer",
    [
        kerasrl.optimizers.Adam(1e-2),
        keras.optimizers.Nadam(1e-2),
        keras.optimizers.SGD(1e-2, momentum=0.9, use_ema=True),
        keras.optimizers.Adam(
            keras.optimizers.schedules.ExponentialDecay(1e-2, 3, 0.5)
        ),
        keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(1e-2)),
    ],
    ids=lambda optimizer: type(optimizer).__name__,
)
def test_the_state_of_one_optimizer_becomes_that_of_all(optimizer):
    """As from checkpoints of when there was one: the next step agrees."""
    agent = kerasrl.SAC(policy={"trunk": same_names(), **SMALL}, seed=3)
    agent.compile(optimizer, jit_compile=False)
    agent.build(OBSERVATIONS, BOX)
    variables = agent.trainable_variables
    old = optimizing.joined(agent, ["optimizer/adam/iteration"])
    generator = np.random.default_rng(0)
    gradients = [
        [generator.normal(size=v.shape).astype(np.float32) for v in variables]
        for _ in range(3)
    ]
    start = values(variables)
    for step in gradients[:2]:
        old["all"].apply([tf.constant(g) for g in step], variables)
    middle = values(variables)
    optimizing.separate(agent, old)
    old["all"].apply([tf.constant(g) for g in gradients[2]], variables)
    expected = values(variables)
    for variable, value in zip(variables, middle, strict=True):
        variable.assign(value)
    by_id = {
        id(v): tf.constant(g) for v, g in zip(variables, gradients[2], strict=True)
    }
    parts = agent.parts()
    ordered = [by_id[id(v)] for name in parts for v in parts[name]]
    optimizing.apply(agent, ordered, list(parts))
    for a, b, c in zip(values(variables), expected, start, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
        assert np.abs(a - c).max() > 1e-3


def test_a_checkpoint_with_an_optimizer_for_each_is_taken_as_it_is():
    agent = build(kerasrl.SAC(policy=SMALL), BOX)
    names = [name for name, _ in kerasrl.checkpoint.variables(agent)]
    assert optimizing.joined(agent, names) is None


def test_an_overflow_in_one_part_skips_the_step_of_all():
    """They share the scale of the loss, and it shrinks in all of them."""
    agent = kerasrl.DDPG(policy=SMALL, seed=3)
    inner = keras.optimizers.SGD(1.0)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=16.0)
    agent.compile(optimizer, jit_compile=False)
    agent.build(OBSERVATIONS, BOX)
    parts = agent.parts()
    before = values(agent.trainable_variables)
    ones = [tf.ones(v.shape) for name in parts for v in parts[name]]
    overflow = [*ones[:-1], tf.fill(ones[-1].shape, float("inf"))]
    optimizing.apply(agent, overflow, list(parts))
    for a, b in zip(values(agent.trainable_variables), before, strict=True):
        np.testing.assert_array_equal(a, b)
    scales = [float(o.scale_loss(1.0)) for o in agent.optimizers.values()]
    assert scales == [8.0, 8.0]
    norm = optimizing.apply(agent, ones, list(parts))
    count = sum(int(np.prod(v.shape)) for v in agent.trainable_variables)
    np.testing.assert_allclose(norm, count**0.5 / 8.0, rtol=1e-5)
    for a, b in zip(values(agent.trainable_variables), before, strict=True):
        np.testing.assert_allclose(b - a, 1 / 8, rtol=1e-5)


def test_compiling_with_the_same_optimizer_keeps_all():
    agent = tiny.make("TD3")
    env = gymnasium.make(tiny.env_of("TD3"))
    agent.build(env.observation_space, env.action_space)
    before = dict(agent.optimizers)
    agent.compile(agent.policy.optimizer, jit_compile=False)
    agent.build(env.observation_space, env.action_space)
    assert agent.optimizers == before
    agent.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    agent.build(env.observation_space, env.action_space)
    assert agent.optimizers["policy"] is not before["policy"]
    assert isinstance(agent.optimizers["policy"], keras.optimizers.SGD)
