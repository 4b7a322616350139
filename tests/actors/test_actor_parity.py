"""Every op that policies are made of gives in NumPy what it gives in TensorFlow."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from kerasrl.actors.actor import build_actor

BATCH_SIZES = (1, 3, 8)


def floats(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def rows(tree, size):
    return keras.tree.map_structure(lambda array: array[:size], tree)


def check(function, inputs, rtol=1e-5, atol=1e-6):
    actor = build_actor(function, rows(inputs, 2), backend="numpy", verify=False)
    for size in BATCH_SIZES:
        given = rows(inputs, size)
        before = keras.tree.map_structure(np.array, given)
        outputs = actor(given)
        keras.tree.map_structure(np.testing.assert_array_equal, given, before)
        expected = function(keras.tree.map_structure(ops.convert_to_tensor, given))
        keras.tree.assert_same_structure(outputs, expected)

        def same(found, wanted):
            wanted = np.asarray(wanted)
            assert isinstance(found, np.ndarray)
            assert found.dtype == wanted.dtype
            assert found.shape == wanted.shape
            np.testing.assert_allclose(found, wanted, rtol=rtol, atol=atol)

        keras.tree.map_structure(same, outputs, expected)
    return actor


ACTIVATIONS = (
    "relu relu6 leaky_relu elu selu celu gelu silu softplus tanh sigmoid softmax "
    "log_softmax softsign hard_sigmoid hard_silu hard_tanh log_sigmoid mish "
    "exponential linear tanh_shrink soft_shrink hard_shrink squareplus threshold "
    "sparse_plus glu sparsemax"
).split()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name):
    activation = (
        keras.activations.get(name)
        if name != "threshold"
        else (lambda x: keras.activations.threshold(x, 0.1, 0.5))
    )
    check(activation, 3 * floats(8, 6))


def test_gelu_is_right_in_both_forms():
    x = 3 * floats(8, 6)
    check(lambda x: keras.activations.gelu(x, approximate=False), x)
    check(lambda x: keras.activations.gelu(x, approximate=True), x)


def test_activations_survive_extreme_inputs():
    x = np.array([[-1e4, -200, -90, -20, 0, 20, 90, 200, 1e4]] * 8, np.float32)
    for name in "sigmoid softplus tanh elu silu softmax log_softmax gelu".split():
        with np.errstate(all="raise"):
            check(keras.activations.get(name), x)


LAYERS = {
    "dense": lambda: layers.Dense(5, "relu"),
    "dense_no_bias": lambda: layers.Dense(5, use_bias=False),
    "mlp": lambda: keras.Sequential([layers.Dense(7, "tanh"), layers.Dense(3)]),
    "layer_normalization": lambda: layers.LayerNormalization(),
    "batch_normalization": lambda: layers.BatchNormalization(),
    "rms_normalization": lambda: layers.RMSNormalization(),
    "unit_normalization": lambda: layers.UnitNormalization(),
    "group_normalization": lambda: layers.GroupNormalization(groups=2),
    "spectral": lambda: layers.SpectralNormalization(layers.Dense(4)),
    "dropout": lambda: layers.Dropout(0.5),
    "gaussian_noise": lambda: layers.GaussianNoise(0.5),
    "normalization": lambda: layers.Normalization(mean=0.3, variance=2.0),
    "rescaling": lambda: layers.Rescaling(1 / 255.0, offset=-1),
    "flatten": lambda: layers.Flatten(),
    "prelu": lambda: layers.PReLU(),
    "einsum_dense": lambda: layers.EinsumDense("ab,bc->ac", 5, bias_axes="c"),
    "repeat": lambda: layers.RepeatVector(3),
    "reshape": lambda: layers.Reshape((3, -1)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer_on_vectors(name):
    layer = LAYERS[name]()
    layer.build((None, 6))
    # Away from the initial zeros and ones.
    for k, variable in enumerate(layer.variables):
        if variable.dtype == "float32" and "seed" not in variable.path:
            variable.assign(np.abs(floats(*variable.shape, seed=k)) + 0.1)
    check(layer, floats(8, 6))


SEQUENCE_LAYERS = {
    "dense": lambda: layers.Dense(5, "tanh"),
    "layer_normalization": lambda: layers.LayerNormalization(axis=-1),
    "layer_normalization_two_axes": lambda: layers.LayerNormalization(axis=(1, 2)),
    "batch_normalization": lambda: layers.BatchNormalization(),
    "einsum_dense": lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 3)),
    "pooling": lambda: layers.GlobalAveragePooling1D(),
    "max_pooling": lambda: layers.GlobalMaxPooling1D(),
    "permute": lambda: layers.Permute((2, 1)),
    "flatten": lambda: layers.Flatten(),
    "cropping": lambda: layers.Cropping1D(1),
    "padding": lambda: layers.ZeroPadding1D(1),
    "upsampling": lambda: layers.UpSampling1D(2),
}


@pytest.mark.parametrize("name", SEQUENCE_LAYERS)
def test_layer_on_sequences(name):
    layer = SEQUENCE_LAYERS[name]()
    layer.build((None, 4, 6))
    check(layer, floats(8, 4, 6))


@pytest.mark.parametrize("causal", [False, True])
def test_multi_head_attention(causal):
    layer = layers.MultiHeadAttention(num_heads=2, key_dim=3)
    query, value = floats(8, 4, 6), floats(8, 5, 6, seed=1)
    mask = np.random.default_rng(2).random((8, 4, 5)) < 0.7

    def attend(inputs):
        return layer(inputs[0], inputs[1], use_causal_mask=causal)

    def attend_masked(inputs):
        return layer(inputs[0], inputs[1], attention_mask=inputs[2])

    attend((query, value))
    check(attend, (query, value), rtol=1e-4)
    check(attend_masked, (query, value, mask), rtol=1e-4)


def test_grouped_query_attention():
    layer = layers.GroupQueryAttention(4, num_query_heads=4, num_key_value_heads=2)
    x = floats(8, 3, 6)
    layer(x, x)
    check(lambda x: layer(x, x), x, rtol=1e-4)


CELLS = {
    "lstm": lambda: layers.LSTMCell(5),
    "lstm_relu": lambda: layers.LSTMCell(5, activation="relu", use_bias=False),
    "gru": lambda: layers.GRUCell(5, reset_after=True),
    "gru_before": lambda: layers.GRUCell(5, reset_after=False),
    "simple": lambda: layers.SimpleRNNCell(5),
    "stacked": lambda: layers.StackedRNNCells([layers.LSTMCell(5), layers.GRUCell(4)]),
}


@pytest.mark.parametrize("name", CELLS)
def test_recurrent_cell(name):
    cell = CELLS[name]()
    sizes = keras.tree.flatten(cell.state_size)
    state = tuple(floats(8, size, seed=k) for k, size in enumerate(sizes))

    def step(inputs):
        given = list(inputs["state"])
        if name == "stacked":
            given = [given[:2], given[2:]]
        output, new = cell(inputs["x"], given)
        return {"output": output, "state": tuple(keras.tree.flatten(new))}

    inputs = {"x": floats(8, 6, seed=9), "state": state}
    step(rows(inputs, 1))
    check(step, inputs)


def test_embedding_and_integer_inputs():
    layer = layers.Embedding(7, 4)
    layer.build((None,))
    tokens = np.random.default_rng(0).integers(0, 7, (8, 3))
    check(layer, tokens)
    check(layer, tokens.astype(np.int32))
    check(lambda x: layers.Flatten()(layer(x)), tokens)


def test_pixels_are_cast():
    pixels = np.random.default_rng(0).integers(0, 255, (8, 4, 4, 3)).astype(np.uint8)
    check(lambda x: ops.cast(x, "float32") / 255.0, pixels)


OPS = {
    "concatenate": lambda x: ops.concatenate([x, 2 * x], -1),
    "concatenate_batch": lambda x: ops.concatenate([x, x], 0),
    "stack": lambda x: ops.stack([x, x + 1], 1),
    "stack_last": lambda x: ops.stack([x, x + 1], -1),
    "unstack": lambda x: tuple(ops.unstack(x, axis=1)),
    "split": lambda x: tuple(ops.split(x, 3, -1)),
    "split_at": lambda x: tuple(ops.split(x, [2, 3], -1)),
    "slice_step": lambda x: x[:, ::2],
    "slice_reverse": lambda x: x[:, ::-1],
    "slice_negative": lambda x: x[:, -2:],
    "slice_index": lambda x: x[:, 1],
    "slice_new_axis": lambda x: x[:, None, 1:],
    "slice_ellipsis": lambda x: x[..., :-1],
    "slice_ops": lambda x: ops.slice(x, (0, 2), (1, 3)),
    "take": lambda x: ops.take(x, [0, 2, 2], -1),
    "take_along_axis": lambda x: ops.take_along_axis(
        x, ops.cast(ops.abs(x[:, :2]) * 2, "int32") % 6, 1
    ),
    "where": lambda x: ops.where(x > 0, x, -2.0),
    "where_row": lambda x: ops.where(x[:, :1] > 0, x, ops.zeros_like(x)),
    "comparisons": lambda x: (x > 0, x >= 0.5, x < 0, x <= 1, ops.equal(x, x), x != 0),
    "logical": lambda x: ops.logical_or(
        ops.logical_and(x > 0, x < 1), ops.logical_not(x > -1)
    ),
    "sum": lambda x: ops.sum(x, -1),
    "sum_all": lambda x: ops.sum(x),
    "sum_keep": lambda x: ops.sum(x, -1, keepdims=True),
    "sum_integers": lambda x: ops.sum(ops.cast(x * 5, "int32"), -1),
    "mean": lambda x: ops.mean(x, -1),
    "mean_batch": lambda x: ops.mean(x, 0),
    "mean_all": lambda x: ops.mean(x),
    "std_var": lambda x: (ops.std(x, -1), ops.var(x, -1)),
    "prod_max_min": lambda x: (ops.prod(x, -1), ops.max(x, -1), ops.min(x, -1)),
    "any_all": lambda x: (ops.any(x > 1, -1), ops.all(x > -1, -1)),
    "cumsum": lambda x: (ops.cumsum(x, -1), ops.cumprod(x, -1)),
    "argmax": lambda x: (ops.argmax(x, -1), ops.argmin(x, -1)),
    "argsort": lambda x: (ops.argsort(x, -1), ops.sort(x, -1)),
    "top_k": lambda x: tuple(ops.top_k(x, 3)),
    "one_hot": lambda x: ops.one_hot(ops.argmax(x, -1), 6),
    "one_hot_out_of_range": lambda x: ops.one_hot(ops.argmax(x, -1), 3),
    "clip": lambda x: ops.clip(x, -0.5, 0.5),
    "transpose": lambda x: ops.transpose(ops.reshape(x, (-1, 2, 3)), (0, 2, 1)),
    "reshape_batch": lambda x: ops.reshape(x, (ops.shape(x)[0], 3, 2)),
    "reshape_flat": lambda x: ops.reshape(x, (-1,)),
    "reshape_computed": lambda x: ops.reshape(x, (ops.shape(x)[0] * 2, 3)),
    "expand_squeeze": lambda x: ops.squeeze(ops.expand_dims(x, 1), 1),
    "tile": lambda x: ops.tile(x, (1, 2)),
    "tile_new_axis": lambda x: ops.tile(x[:, None], (1, 3, 1)),
    "repeat": lambda x: ops.repeat(x, 2, -1),
    "pad": lambda x: ops.pad(x, ((0, 0), (1, 2))),
    "broadcast": lambda x: ops.broadcast_to(x[:, :1], ops.shape(x)),
    "zeros_ones": lambda x: (
        ops.zeros(ops.shape(x)), ops.ones_like(x), ops.zeros((2,)),
    ),
    "full": lambda x: ops.full((ops.shape(x)[0], 2), 3.5),
    "arange": lambda x: ops.arange(ops.shape(x)[0]),
    "flip_roll": lambda x: (ops.flip(x, -1), ops.roll(x, 1, -1)),
    "rounding": lambda x: (ops.floor(x), ops.ceil(x), ops.round(x * 2), ops.sign(x)),
    "powers": lambda x: (x**2, x**3, ops.abs(x) ** 0.5, ops.power(ops.abs(x), 1.7)),
    "power_of_tensor": lambda x: ops.power(ops.abs(x) + 0.1, x),
    "roots": lambda x: (
        ops.sqrt(ops.abs(x)), ops.rsqrt(ops.abs(x) + 1), 1 / (x * x + 1),
    ),
    "logs": lambda x: (ops.log(ops.abs(x) + 1), ops.log1p(ops.abs(x)), ops.exp(x)),
    "expm1": lambda x: (ops.expm1(x), ops.erf(x), ops.log2(ops.abs(x) + 1)),
    "trigonometry": lambda x: (
        ops.sin(x), ops.cos(x), ops.tan(x), ops.arctan2(x, x + 1),
    ),
    "hyperbolic": lambda x: (ops.sinh(x), ops.cosh(x), ops.arctanh(ops.tanh(x) * 0.9)),
    "modulo": lambda x: (x % 0.7, x // 0.7, ops.cast(x * 9, "int32") % 4),
    "integer_division": lambda x: ops.cast(x * 9, "int32") // 4,
    "square": lambda x: (ops.square(x), ops.maximum(x, 0.1), ops.minimum(x, x * 2)),
    "norm": lambda x: (ops.norm(x, axis=-1), ops.normalize(x, axis=-1)),
    "logsumexp": lambda x: ops.logsumexp(x, -1),
    "softmax_axis": lambda x: ops.softmax(ops.reshape(x, (-1, 2, 3)), 1),
    "einsum_outer": lambda x: ops.einsum("bi,bj->bij", x, x),
    "einsum_dot": lambda x: ops.einsum("bi,bi->b", x, x),
    "einsum_batch": lambda x: ops.einsum(
        "bij,bkj->bik", ops.reshape(x, (-1, 2, 3)), ops.reshape(x, (-1, 2, 3))
    ),
    "einsum_diagonal": lambda x: ops.einsum(
        "bij->bi", ops.reshape(x, (-1, 2, 3))
    ),
    "matmul_batch": lambda x: ops.matmul(
        ops.reshape(x, (-1, 2, 3)), ops.reshape(x, (-1, 3, 2))
    ),
    "matmul_transposed": lambda x: ops.matmul(x, ops.transpose(x)),
    "tensordot": lambda x: ops.tensordot(x, np.ones((6, 2), np.float32), 1),
    "dot": lambda x: ops.dot(x, np.ones((6, 2), np.float32)),
    "isfinite": lambda x: (ops.isnan(x), ops.isinf(x), ops.isfinite(x / 0.0)),
    "nan_to_num": lambda x: ops.nan_to_num(ops.log(x), nan=0.0, neginf=-1.0),
    "casts": lambda x: (
        ops.cast(x, "int32"), ops.cast(x, "bool"), ops.cast(x > 0, "float32"),
        ops.cast(x, "float64"), ops.cast(x, "int64"), ops.cast(ops.abs(x), "uint8"),
    ),
    "triangle": lambda x: ops.tril(ops.einsum("bi,bj->bij", x, x)),
    "diagonal": lambda x: ops.diagonal(ops.einsum("bi,bj->bij", x, x), 0, 1, 2),
    "bits": lambda x: ops.bitwise_and(ops.cast(x * 9, "int32"), 3),
    "swap": lambda x: ops.swapaxes(x[:, None], 1, 2),
    "moveaxis": lambda x: ops.moveaxis(x[:, None], 1, 2),
    "smallest_three": lambda x: ops.max(ops.sort(x, -1)[:, :3], -1),
    "huber": lambda x: keras.losses.huber(x, x * 2),
    "digitize": lambda x: ops.searchsorted(
        ops.convert_to_tensor([-1.0, 0.0, 1.0]), x[:, 0]
    ),
    "logaddexp": lambda x: (ops.logaddexp(x, 1.0), ops.log10(ops.abs(x) + 1)),
    "in_place_hazard": lambda x: (ops.tanh(x + 1) + (x + 1), (x + 1) * 2),
    "same_value_twice": lambda x: (x * 2, x * 2, x, x),
    "view_hazard": lambda x: (ops.exp(x)[:, :3], ops.tanh(ops.exp(x))),
    "replace_nan": lambda x: ops.sum(ops.where(ops.isnan(x), 0.0, x) * 0 + 1, -1),
    "divide_no_nan": lambda x: ops.divide_no_nan(x, ops.maximum(x, 0.0)),
    "argmax_of_signed_zeros": lambda x: (
        ops.argmax(x * 0.0, -1), ops.argmin(x * 0.0, -1),
    ),
    "take_along_argmax": lambda x: ops.take_along_axis(
        ops.log_softmax(x), ops.argmax(x, -1)[:, None], -1
    )[:, 0],
    "take_along_negative": lambda x: ops.take_along_axis(
        x, ops.cast(x[:, :2] * 2, "int32") % 6 - 6, -1
    ),
    "take_along_batched": lambda x: ops.take_along_axis(
        ops.reshape(x, (-1, 2, 3)),
        ops.argmax(ops.reshape(x, (-1, 2, 3)), -1)[..., None], -1,
    ),
    "one_hot_bool": lambda x: ops.one_hot(ops.argmax(x + 1, -1), 6, dtype="bool"),
    "sigmoid_gates": lambda x: (
        lambda a, b, c: (ops.sigmoid(a), ops.sigmoid(b), ops.tanh(c))
    )(*ops.split(x, 3, -1)),
    "sigmoid_gates_read_twice": lambda x: (
        lambda a, b, c: (ops.sigmoid(a) + a, ops.sigmoid(b), ops.sigmoid(c))
    )(*ops.split(x + 1, 3, -1)),
    "constant": lambda x: (x, np.array([1.0, 2.0], np.float32), np.int32(4)),
}  # fmt: skip


@pytest.mark.parametrize("name", OPS)
def test_op(name):
    check(OPS[name], floats(8, 6))


def test_trees_of_every_kind():
    def function(inputs):
        (a, b), c = inputs["pair"], inputs["list"][0]
        return {"out": [a + b, (c,)], "none": (), "deep": {"x": {"y": a * c}}}

    inputs = {"pair": (floats(8, 2), floats(8, 2, seed=1)), "list": [floats(8, 2)]}
    check(function, inputs)


def test_double_precision_stays():
    check(lambda x: (ops.tanh(x) * 2.0, ops.erf(x)), floats(8, 3).astype(np.float64))


def test_half_precision_stays():
    check(lambda x: ops.tanh(x) * 2.0 + 1, floats(8, 3).astype(np.float16), rtol=2e-3)


def test_nested_tensorflow_function_is_inlined():
    import tensorflow as tf

    dense = layers.Dense(4)
    dense.build((None, 6))

    @tf.function
    def inner(x):
        return tf.nn.silu(dense(x))

    @tf.function
    def outer(x):
        return inner(x) + inner(2 * x)

    check(lambda x: outer(x) + 1, floats(8, 6))


DISTRIBUTIONS = ("Categorical", "DiagonalGaussian", "MultiCategorical", "Bernoulli")


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distribution(name):
    """Sampling, probabilities and entropy of our own distributions."""
    import functools

    from kerasrl import distributions

    cls = getattr(distributions, name)
    if name == "MultiCategorical":
        cls = functools.partial(cls, nvec=(2, 4))

    def act(inputs):
        distribution = cls(inputs["parameters"])
        actions = distribution.sample()
        return {
            "actions": actions,
            "mode": distribution.mode(),
            "log_prob": distribution.log_prob(actions),
            "entropy": distribution.entropy(),
            "kl": distribution.kl(cls(inputs["parameters"] * 0.5)),
        }

    inputs = {"parameters": floats(8, 6)}
    fast, slow = (build_actor(act, inputs, backend=b) for b in ("numpy", "tensorflow"))
    generators = [np.random.default_rng(b) for b in range(8)]
    noise = [n[0] for n in fast.draw(generators, 1)]
    found, wanted = fast(inputs, noise), slow(inputs, noise)
    for key, array in wanted.items():
        assert found[key].dtype == array.dtype
        np.testing.assert_allclose(found[key], array, rtol=1e-5, atol=1e-6)
