"""Actors: randomness, engines, weights, pickling, refusals."""

import pickle
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from keras import layers, ops

from kerasrl.actors.actor import build_actor
from kerasrl.actors.kernels import KERNELS
from kerasrl.actors.noise import NoiseSpec
from kerasrl.actors.program import Program


def floats(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def generators(count, seed=0):
    return [np.random.default_rng((seed, b)) for b in range(count)]


def first(noise):
    return [n[0] for n in noise]


def make_network(outputs=4):
    network = keras.Sequential(
        [layers.Dense(16, "tanh"), layers.Dense(16, "tanh"), layers.Dense(outputs)]
    )
    network.build((None, 6))
    return network


DROPOUT = layers.Dropout(0.5, seed=1)
SEED = keras.random.SeedGenerator(3)
SAMPLERS = {
    "categorical": lambda x: keras.random.categorical(x, 1, seed=5)[:, 0],
    "categorical_unseeded": lambda x: keras.random.categorical(x, 1),
    "categorical_generator": lambda x: keras.random.categorical(x, 1, seed=SEED),
    "categorical_many": lambda x: keras.random.categorical(x, 3, dtype="int64"),
    "categorical_rows": lambda x: ops.reshape(
        keras.random.categorical(ops.reshape(x, (-1, 3)), 1), (-1, 2)
    ),
    "normal": lambda x: x + keras.random.normal(ops.shape(x), seed=SEED),
    "normal_scaled": lambda x: keras.random.normal(
        (ops.shape(x)[0], 2, 3), 1.0, 0.5
    ),
    "truncated_normal": lambda x: keras.random.truncated_normal(ops.shape(x), seed=1),
    "uniform": lambda x: keras.random.uniform(ops.shape(x), -1.0, 2.0),
    "integers": lambda x: keras.random.randint((ops.shape(x)[0],), 3, 9),
    "bernoulli": lambda x: ops.cast(
        keras.random.uniform(ops.shape(x)) < ops.sigmoid(x), "int32"
    ),
    "binomial": lambda x: keras.random.binomial(ops.shape(x), 5.0, ops.sigmoid(x)),
    "dropout": lambda x: DROPOUT(x, training=True),
    "batch_second": lambda x: ops.mean(
        keras.random.normal((4, ops.shape(x)[0], 6)), 0
    ),
    "gamma": lambda x: keras.random.gamma(ops.shape(x), 2.0),
    "gumbel_by_hand": lambda x: ops.argmax(
        x - ops.log(-ops.log(keras.random.uniform(ops.shape(x), 1e-9, 1.0))), -1
    ),
    "noise_read_twice": lambda x: [
        ops.log(noise) + noise for noise in [keras.random.uniform(ops.shape(x), 0.1)]
    ],
    "two_slots": lambda x: (
        keras.random.normal(ops.shape(x)), keras.random.uniform(ops.shape(x)),
        keras.random.categorical(x, 1),
    ),
}  # fmt: skip


def run(actor, inputs, noise):
    return keras.tree.flatten(actor(inputs, first(noise)))


@pytest.mark.parametrize("name", SAMPLERS)
def test_sampler_agrees_between_engines_and_across_batches(name):
    x = floats(8, 6)
    fast = build_actor(SAMPLERS[name], x[:2], backend="numpy")
    slow = build_actor(SAMPLERS[name], x[:2], backend="tensorflow")
    assert (fast.backend, slow.backend) == ("numpy", "tensorflow")
    whole = fast.draw(generators(8), 3)
    for n, other in zip(whole, slow.draw(generators(8), 3), strict=True):
        assert n.shape[:2] == (3, 8)
        np.testing.assert_array_equal(n, other)
    for step in range(3):
        noise = [n[step : step + 1] for n in whole]
        for found, wanted in zip(run(fast, x, noise), run(slow, x, noise), strict=True):
            assert found.dtype == wanted.dtype
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    # Environment b draws and acts the same, alone or beside others.
    for b in (0, 5):
        alone = fast.draw(generators(8)[b : b + 1], 3)
        for n, every in zip(alone, whole, strict=True):
            np.testing.assert_array_equal(n[:, 0], every[:, b])
        one = run(fast, x[b : b + 1], alone)
        for found, every in zip(one, run(fast, x, whole), strict=True):
            np.testing.assert_allclose(found[0], every[b], rtol=1e-5, atol=1e-6)


def test_what_is_done_to_noise_alone_is_done_when_it_is_drawn():
    actor = build_actor(SAMPLERS["gumbel_by_hand"], floats(2, 6), backend="numpy")
    assert "log(" not in actor.program.source
    (noise,) = actor.draw(generators(50), 400)
    # Minus a Gumbel variable, whose mean is 0.5772 and whose variance is pi^2 / 6.
    assert noise.mean() == pytest.approx(-0.5772, abs=0.02)
    assert noise.var() == pytest.approx(np.pi**2 / 6, rel=0.03)
    kept = build_actor(SAMPLERS["noise_read_twice"], floats(2, 6), backend="numpy")
    assert "log(" in kept.program.source


def test_steps_and_environments_get_different_noise():
    actor = build_actor(SAMPLERS["two_slots"], floats(2, 6), backend="numpy")
    for n in actor.draw(generators(4), 5):
        assert len(np.unique(n.reshape(20, -1), axis=0)) == 20


def test_categorical_frequencies():
    logits = np.log(np.array([[0.5, 0.25, 0.2, 0.05]], np.float32))
    actor = build_actor(lambda x: keras.random.categorical(x, 1)[:, 0], logits)
    (noise,) = actor.draw(generators(4), 5000)
    rows = np.repeat(logits, 20000, 0)
    counts = np.bincount(actor(rows, [noise.reshape(20000, 4)]), minlength=4)
    expected = 20000 * np.exp(logits[0])
    statistic = np.sum((counts - expected) ** 2 / expected)
    assert statistic < 16.3  # The 99.9% point with three degrees of freedom.


def test_zero_probability_is_never_drawn():
    logits = np.array([[-np.inf, 0.0, -np.inf, -80.0]], np.float32)
    actor = build_actor(lambda x: keras.random.categorical(x, 1)[:, 0], logits)
    (noise,) = actor.draw(generators(10), 20000)
    assert np.isfinite(noise).all()
    drawn = actor(np.repeat(logits, 200000, 0), [noise.reshape(200000, 4)])
    assert set(drawn.tolist()) == {1}


def test_gumbel_noise_is_finite_even_for_an_exponential_of_zero():
    noise = NoiseSpec("gumbel", (2,), "float32").finish(np.array([0.0, 1.0]))
    assert noise.dtype == np.float32 and np.isfinite(noise).all()


def test_moments():
    def function(x):
        shape = ops.shape(x)
        return {
            "normal": keras.random.normal(shape, 1.0, 2.0),
            "truncated": keras.random.truncated_normal(shape),
            "uniform": keras.random.uniform(shape, 2.0, 4.0),
            "integers": keras.random.randint(shape, 0, 4),
            "binomial": keras.random.binomial(shape, 4.0, 0.25),
            "gamma": keras.random.gamma(shape, 3.0),
        }

    x = np.zeros((50000, 1), np.float32)
    actor = build_actor(function, x[:2], backend="numpy")
    drawn = actor.draw(generators(10), 5000)
    noise = [n.reshape((50000,) + n.shape[2:]) for n in drawn]
    outputs = actor(x, noise)
    expected = {
        "normal": (1.0, 2.0), "truncated": (0.0, 0.8796), "uniform": (3.0, 3**-0.5),
        "integers": (1.5, 1.25**0.5), "binomial": (1.0, 0.75**0.5),
        "gamma": (3.0, 3**0.5),
    }  # fmt: skip
    for name, (mean, deviation) in expected.items():
        assert abs(outputs[name].mean() - mean) < 5 * deviation / 50000**0.5, name
        assert abs(outputs[name].std() / deviation - 1) < 0.03, name
    assert np.abs(outputs["truncated"]).max() < 2
    assert set(np.unique(outputs["integers"])) == {0, 1, 2, 3}


def test_sampling_policy_agrees_between_engines():
    network = make_network()

    def act(inputs):
        logits = network(inputs["observations"])
        action = keras.random.categorical(logits, 1)[:, 0]
        log_probabilities = ops.log_softmax(logits)
        chosen = ops.take_along_axis(log_probabilities, action[:, None], -1)[:, 0]
        return {"actions": action, "state": (), "log_prob": chosen}

    x = {"observations": floats(8, 6), "state": ()}
    fast, slow = (build_actor(act, x, backend=b) for b in ("numpy", "tensorflow"))
    noise = fast.draw(generators(8), 20)
    for t in range(20):
        step = [n[t] for n in noise]
        found, wanted = fast(x, step), slow(x, step)
        np.testing.assert_array_equal(found["actions"], wanted["actions"])
        np.testing.assert_allclose(found["log_prob"], wanted["log_prob"], rtol=1e-5)
        assert found["state"] == wanted["state"] == ()


# -- engines ---------------------------------------------------------------------------


def test_unsupported_op_falls_back():
    layer = layers.Conv2D(2, 3)
    layer.build((None, 8, 8, 1))

    def act(x):
        logits = ops.mean(layer(x), (1, 2))
        return keras.random.categorical(logits, 1)[:, 0], logits

    x = floats(4, 8, 8, 1)
    actor = build_actor(act, x)
    assert actor.backend == "tensorflow" and actor.program is None
    assert "Conv2D" in actor.report["reason"]
    noise = first(actor.draw(generators(4), 1))
    action, logits = actor(x, noise)
    np.testing.assert_array_equal(action, (logits + noise[0]).argmax(-1))
    with pytest.raises(ValueError, match="cannot be compiled to NumPy.*Conv2D"):
        build_actor(act, x, backend="numpy")


def test_a_wrong_program_is_not_used(monkeypatch):
    """The engines are compared when an actor is built."""
    monkeypatch.setitem(KERNELS, "Tanh", KERNELS["Sin"])
    x = floats(4, 3)
    actor = build_actor(ops.tanh, x)
    assert actor.backend == "tensorflow" and "other values" in actor.report["reason"]
    np.testing.assert_allclose(actor(x), np.tanh(x), rtol=1e-5)
    with pytest.raises(ValueError, match="other results"):
        build_actor(ops.tanh, x, backend="numpy")


def test_loops_run_in_tensorflow():
    layer = layers.LSTM(3)
    layer(floats(1, 4, 6))
    x = floats(5, 4, 6)
    actor = build_actor(layer, x)
    assert actor.backend == "tensorflow"
    np.testing.assert_allclose(actor(x), layer(x), rtol=1e-5)
    np.testing.assert_allclose(actor(x[:2]), layer(x[:2]), rtol=1e-5)


def test_weights_used_in_both_a_loop_and_outside():
    layer = layers.LSTM(3)
    dense = layers.Dense(2)
    layer(floats(1, 4, 6)), dense(floats(1, 3))
    x = floats(5, 4, 6)
    actor = build_actor(lambda x: dense(layer(x)), x)
    np.testing.assert_allclose(actor(x), dense(layer(x)), rtol=1e-5)


def test_python_function_runs_in_tensorflow():
    import tensorflow as tf

    actor = build_actor(
        lambda x: tf.numpy_function(np.cbrt, [x], tf.float32), floats(3, 2)
    )
    assert actor.backend == "tensorflow"
    np.testing.assert_allclose(actor(floats(5, 2)), np.cbrt(floats(5, 2)))


def test_lower_precision_that_numpy_lacks_falls_back():
    layer = layers.Dense(4, dtype="mixed_bfloat16")
    layer.build((None, 6))

    def act(x):
        return keras.random.categorical(layer(x), 1)[:, 0]

    actor = build_actor(act, floats(2, 6))
    assert actor.backend == "tensorflow"
    noise = first(actor.draw(generators(3), 1))
    assert actor(floats(3, 6), noise).shape == (3,)


def test_noise_without_a_batch_axis_is_reported():
    def act(x):
        return x + keras.random.normal((6,))

    actor = build_actor(act, floats(2, 6))
    assert actor.backend == "tensorflow"
    assert "no batch axis" in actor.report["reason"]
    (noise,) = actor.draw(generators(4), 3)
    assert noise.shape == (3, 6)
    x = floats(4, 6)
    np.testing.assert_allclose(actor(x, [noise[1]]), x + noise[1], rtol=1e-6)
    with pytest.raises(ValueError, match="no batch axis"):
        build_actor(act, floats(2, 6), backend="numpy")


def test_heavy_functions_are_timed():
    layer = layers.Dense(512)
    layer.build((None, 512))
    actor = build_actor(layer, floats(8, 512))
    assert actor.report["flops"] == pytest.approx(2 * 8 * 512 * 512)
    assert actor.report["numpy_seconds"] > 0 and actor.report["tensorflow_seconds"] > 0
    light = build_actor(make_network(), floats(8, 6))
    assert light.backend == "numpy" and "numpy_seconds" not in light.report


@pytest.mark.parametrize("backend", ["numpy", "tensorflow"])
def test_refresh_takes_over_changed_weights(backend):
    network = make_network()
    x = floats(8, 6)
    actor = build_actor(network, x, backend=backend)
    before = actor(x)
    for variable in network.variables:
        variable.assign(variable * 1.5 + 0.1)
    np.testing.assert_array_equal(actor(x), before)
    actor.refresh()
    after = actor(x)
    np.testing.assert_allclose(after, network(x), rtol=1e-5, atol=1e-6)
    assert np.abs(after - before).max() > 0.01
    for variable in network.variables:
        variable.assign(variable * 0.0)
    np.testing.assert_array_equal(actor(x), after)


def test_refresh_writes_in_place():
    network = make_network()
    actor = build_actor(network, floats(2, 6))
    arrays = list(actor.program.weights)
    network.layers[0].bias.assign(np.ones(16))
    actor.refresh()
    assert all(a is b for a, b in zip(arrays, actor.program.weights, strict=True))
    assert any((a == 1).all() for a in arrays)


def test_nothing_folds_through_variables():
    """Values derived from variables alone follow them, statistics and ints too."""
    scale = keras.Variable(2.0, trainable=False)
    count = keras.Variable(3, dtype="int32", trainable=False)
    flag = keras.Variable(True, dtype="bool", trainable=False)
    normalization = layers.BatchNormalization()
    normalization.build((None, 6))

    def act(x):
        x = normalization(x) * ops.exp(scale) * ops.cast(count, "float32")
        return ops.where(flag, x, -x)

    x = floats(3, 6)
    actor = build_actor(act, x, backend="numpy")
    scale.assign(0.5)
    count.assign(7)
    flag.assign(False)
    normalization.moving_variance.assign(4 * np.ones(6))
    normalization.moving_mean.assign(np.ones(6))
    actor.refresh()
    np.testing.assert_allclose(actor(x), act(x), rtol=1e-5)


def test_variables_are_read_once():
    dense = layers.Dense(6)
    dense.build((None, 6))
    actor = build_actor(lambda x: dense(dense(x)), floats(2, 6))
    assert len(actor.program.weights) == 2


def test_state_goes_round():
    cell = layers.LSTMCell(5)
    cell.build((None, 6))

    def act(inputs):
        output, state = cell(inputs["observations"], list(inputs["state"]))
        return {"actions": ops.argmax(output, -1), "state": tuple(state), "out": output}

    x = {"observations": floats(4, 6), "state": (floats(4, 5), floats(4, 5, seed=1))}
    actor = build_actor(act, x, backend="numpy")
    first_outputs = actor(x)
    kept = first_outputs["out"].copy()
    # Zeroing a state row, as a collector does, touches no other output.
    first_outputs["state"][0][0] = 0
    np.testing.assert_array_equal(first_outputs["out"], kept)
    second = actor({"observations": x["observations"], "state": first_outputs["state"]})
    assert np.abs(second["out"] - kept).max() > 1e-3
    assert actor.initial_state is None


def test_outputs_are_writable_and_not_shared():
    variable = keras.Variable(np.ones((1, 3), np.float32))

    def act(x):
        return {
            "input": x,
            "weight": variable.value,
            "constant": ops.ones((2, 3)),
            "broadcast": ops.broadcast_to(variable, ops.shape(x)),
            "twice": (x + 1, x + 1),
        }

    x = floats(2, 3)
    actor = build_actor(act, x, backend="numpy")
    wanted = keras.tree.map_structure(np.array, actor(x))
    for array in keras.tree.flatten(actor(x)):
        array[...] = -1
    np.testing.assert_array_equal(x, floats(2, 3))
    keras.tree.map_structure(np.testing.assert_array_equal, actor(x), wanted)


# -- workers ---------------------------------------------------------------------------

WORKER = """
import pickle, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "keras"):
            raise ImportError("blocked: " + name)

sys.meta_path.insert(0, Block())
import numpy as np
program, x = pickle.load(sys.stdin.buffer)
noise = program.draw([np.random.default_rng((0, b)) for b in range(len(x))], 1)
outputs = program.run({"x": x}, [n[0] for n in noise])
heavy = {"tensorflow", "keras"} & set(sys.modules)
sys.stdout.buffer.write(pickle.dumps((outputs, heavy)))
"""


def test_program_runs_where_tensorflow_cannot_be_imported():
    network = make_network()

    def act(inputs):
        logits = keras.activations.gelu(network(inputs["x"]))
        return {"action": keras.random.categorical(logits, 1)[:, 0], "logits": logits}

    x = floats(3, 6)
    actor = build_actor(act, {"x": x}, backend="numpy")
    assert isinstance(actor.program, Program)
    payload = pickle.dumps((actor.program, x))
    assert b"tensorflow" not in payload and b"keras." not in payload
    done = subprocess.run(
        [sys.executable, "-c", WORKER], input=payload, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    outputs, heavy = pickle.loads(done.stdout)
    assert heavy == set()
    expected = actor({"x": x}, first(actor.draw(generators(3), 1)))
    keras.tree.map_structure(np.testing.assert_array_equal, outputs, expected)


# -- refusals --------------------------------------------------------------------------


def test_assignments_are_refused():
    counter = keras.Variable(0.0, trainable=False)

    def act(x):
        counter.assign(counter + 1)
        return x * counter

    with pytest.raises(ValueError, match="assigns to"):
        build_actor(act, floats(2, 3))
    layer = layers.BatchNormalization()
    layer.build((None, 3))
    with pytest.raises(ValueError, match="training=True"):
        build_actor(lambda x: layer(x, training=True), floats(2, 3))


def test_assignments_in_calls_and_loops_are_refused():
    import tensorflow as tf

    counter = keras.Variable(0.0, trainable=False)

    @tf.function
    def count():
        counter.assign(counter + 1)

    def act(x):
        count()
        return x

    with pytest.raises(ValueError, match="assigns to"):
        build_actor(act, floats(2, 3))

    def loop(x):
        def body(i, y):
            counter.assign(counter + 1)
            return y

        return ops.fori_loop(0, 3, body, x)

    with pytest.raises(ValueError, match="inside a loop"):
        build_actor(loop, floats(2, 3))


def test_seed_generators_may_advance():
    generator = keras.random.SeedGenerator(1)
    before = np.array(generator.state.value)
    actor = build_actor(
        lambda x: keras.random.uniform(ops.shape(x), seed=generator), floats(2, 3)
    )
    actor(floats(2, 3), first(actor.draw(generators(2), 1)))
    np.testing.assert_array_equal(generator.state.value, before)


def test_noise_that_cannot_be_drawn_ahead_is_refused():
    with pytest.raises(ValueError, match="computed"):
        build_actor(lambda x: keras.random.gamma(ops.shape(x), x), floats(2, 3) ** 2)

    def loop(x):
        return ops.fori_loop(
            0, 3, lambda i, y: y + keras.random.normal(ops.shape(y), seed=1), x
        )

    with pytest.raises(ValueError, match="inside a loop"):
        build_actor(loop, floats(2, 3))


def test_irregular_noise_shape_is_refused():
    def act(x):
        size = ops.shape(x)[0]
        return x + ops.sum(keras.random.normal((size, size)))

    with pytest.raises(ValueError, match="batch"):
        build_actor(act, floats(2, 3))


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="backend='jax'"):
        build_actor(lambda x: x, floats(2, 3), backend="jax")
    with pytest.raises(ValueError, match="at least one"):
        build_actor(lambda x: x, ())
    with pytest.raises(ValueError, match="at least one"):
        build_actor(lambda x: x, np.float32(3))
    actor = build_actor(lambda x: x["a"], {"a": floats(2, 3)})
    with pytest.raises(ValueError, match="unlike its examples"):
        actor({"a": floats(2, 3).astype(np.float64)})
    with pytest.raises(ValueError, match="unlike its examples"):
        actor({"a": floats(2, 4)})
    sampler = build_actor(SAMPLERS["normal"], floats(2, 3))
    with pytest.raises(ValueError, match="0 noise arrays and expected 1"):
        sampler(floats(2, 3))


def test_a_call_is_far_cheaper_than_tensorflow():
    network = make_network()

    def act(inputs):
        logits = network(inputs["observations"])
        return {"actions": keras.random.categorical(logits, 1)[:, 0], "state": ()}

    x = {"observations": floats(8, 6), "state": ()}
    best = {}
    for backend in ("numpy", "tensorflow"):
        actor = build_actor(act, x, backend=backend)
        noise = first(actor.draw(generators(8), 1))
        times = []
        for _ in range(50):
            start = time.perf_counter()
            actor(x, noise)
            times.append(time.perf_counter() - start)
        best[backend] = min(times)
    assert best["numpy"] < best["tensorflow"] / 3
