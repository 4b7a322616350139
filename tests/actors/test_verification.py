"""The comparison of programs with TensorFlow fails where a program is wrong."""

import keras
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops
from test_actor_parity import LAYERS, OPS

import kerasrl
from kerasrl.actors import kernels_array  # noqa: F401  (registers its kernels)
from kerasrl.actors.actor import build_actor
from kerasrl.actors.kernels import KERNELS
from kerasrl.training import acting

RIGHT = dict(KERNELS)


def wrong(op, factor=1.5):
    """The kernel of an op, with a mistake in what it computes."""

    def emit(e):
        RIGHT[op](e)
        for value in e.node.outputs:
            name = e.names.get(value)
            if name is None:
                continue
            kind = value.dtype.kind
            if kind == "b":
                e.names[value] = e.assign(f"logical_not({name})")
            elif kind in "iu":
                e.names[value] = e.assign(
                    f"{name} + {e.name(np.array(1, value.dtype))}"
                )
            else:
                by, more = (e.name(np.array(c, value.dtype)) for c in (factor, 0.25))
                e.names[value] = e.assign(f"{name} * {by} + {more}")

    return emit


def accepted(function, inputs, **options):
    """Whether a function acts in NumPy; raising is a way to refuse, too."""
    try:
        return build_actor(function, inputs, **options).backend == "numpy"
    except (ValueError, IndexError, TypeError):
        return False


def zeros(*shape):
    """What agents give as examples."""
    return np.zeros(shape, np.float32)


# Functions that together use every op that Keras makes of plain code.
BY_CASE = {
    "op take_along_argmax": "ArgMax BroadcastTo Cast GatherV2 LogSoftmax Reshape Shape",
    "op argmax": "Equal LogicalAnd SelectV2",
    "op square": "Maximum",
    "op slice_step": "StridedSlice",
    "op stack": "Pack",
    "op in_place_hazard": "AddV2",
    "op bits": "BitwiseAnd",
    "op logs": "Log",
    "op logaddexp": "Abs Exp IsNan Log1p Neg RealDiv Sub",
    "op norm": "Minimum Mul Rsqrt Sqrt Square Sum",
    "op sigmoid_gates": "Cut Sigmoid Split Tanh",
    "op rounding": "Ceil Floor Round Sign",
    "op trigonometry": "Atan2 Cos Sin Tan",
    "op comparisons": "Less Greater GreaterEqual LessEqual NotEqual",
    "op softmax_axis": "ConcatV2 Range Softmax Transpose",
    "op prod_max_min": "Max Min Prod",
    "layer dense": "BiasAdd MatMul Relu",
    "op hyperbolic": "Atanh Cosh Sinh",
    "op cumsum": "Cumprod Cumsum",
    "op expand_squeeze": "ExpandDims Squeeze",
    "op flip_roll": "ReverseV2 Roll",
    "op triangle": "Einsum MatrixBandPart",
    "op any_all": "All Any",
    "op modulo": "FloorDiv FloorMod",
    "op isfinite": "IsFinite IsInf",
    "op zeros_ones": "OnesLike",
    "op logical": "LogicalNot LogicalOr",
    "op unstack": "Unpack",
    "op slice_ops": "Slice",
    "op mean_all": "Mean",
    "op top_k": "TopKV2",
    "op tile": "Tile",
    "op pad": "Pad",
    "activation relu6": "Relu6",
    "activation leaky_relu": "LeakyRelu",
    "activation elu": "Elu",
    "activation selu": "Selu",
    "activation softplus": "Softplus",
    "activation softsign": "Softsign",
    "op expm1": "Erf Expm1",
    "op powers": "Pow",
    "op divide_no_nan": "DivNoNan",
    "op matmul_batch": "BatchMatMulV2",
    "op diagonal": "MatrixDiagPartV3",
    "activation gelu": "Erfc",
    "op split_at": "SplitV",
    "op one_hot_bool": "OneHot",
    "op digitize": "LowerBound",
    "layer group_normalization": "SquaredDifference",
    "op argmax_of_signed_zeros": "ArgMin",
}


def tf_raw(op, **arguments):
    import tensorflow as tf

    return getattr(tf.raw_ops, op)(**arguments)


def unary(op, change=lambda x: x):
    return lambda x: tf_raw(op, x=change(x))


def binary(op, change=lambda x: x):
    return lambda x: tf_raw(op, x=change(x), y=change(x * 2 + 1))


def whole(x):
    return ops.cast(x * 9, "int32")


def square_matrices(x):
    return ops.einsum("bi,bj->bij", x, x)


def scatter(op, first):
    def function(x):
        indices = ops.cast(ops.arange(ops.shape(x)[0])[:, None], "int32")
        return tf_raw(op, **{first: x}, indices=indices, updates=x * 2)

    return function


ORDER = keras.Variable(np.array([3.0, 1.0, 5.0, 2.0, 0.0, 4.0], np.float32))

# Ops that only other code than Keras's makes.
RAW = {
    "Acos": unary("Acos", ops.tanh),
    "Acosh": unary("Acosh", lambda x: ops.abs(x) + 1.1),
    "Add": binary("Add"),
    "AddN": lambda x: tf_raw("AddN", inputs=[x, x * 2, x + 1]),
    "Asin": unary("Asin", ops.tanh),
    "Asinh": unary("Asinh"),
    "Atan": unary("Atan"),
    "BatchMatMul": lambda x: tf_raw("BatchMatMul", x=x[:, None], y=x[:, :, None]),
    "BatchMatMulV3": lambda x: tf_raw(
        "BatchMatMulV3", x=x[:, None], y=x[:, :, None], Tout="float32"
    ),
    "Bitcast": lambda x: tf_raw("Bitcast", input=x, type="int32"),
    "BitwiseOr": binary("BitwiseOr", whole),
    "BitwiseXor": binary("BitwiseXor", whole),
    "BroadcastArgs": lambda x: ops.broadcast_to(
        x, tf_raw("BroadcastArgs", s0=ops.shape(x), s1=ops.shape(x[:, :1]))
    ),
    "ClipByValue": lambda x: tf_raw(
        "ClipByValue", t=x, clip_value_min=-0.5, clip_value_max=0.5
    ),
    "EuclideanNorm": lambda x: tf_raw("EuclideanNorm", input=x, axis=[1]),
    "Fill": lambda x: tf_raw("Fill", dims=ops.shape(x), value=2.0),
    "Gather": lambda x: tf_raw(
        "Gather", params=[1.0, 5.0], indices=ops.argmax(x, -1) % 2
    ),
    "GatherNd": lambda x: tf_raw(
        "GatherNd", params=[1.0, 5.0], indices=ops.argmax(x, -1)[:, None] % 2
    ),
    "Inv": unary("Inv", lambda x: ops.abs(x) + 1),
    "Invert": unary("Invert", whole),
    "InvertPermutation": lambda x: x + ops.cast(
        tf_raw("InvertPermutation", x=ops.argsort(ORDER)), "float32"
    ),
    "L2Loss": lambda x: tf_raw("L2Loss", t=x),
    "LeftShift": lambda x: tf_raw("LeftShift", x=whole(x), y=whole(x) * 0 + 2),
    "Lgamma": unary("Lgamma", lambda x: ops.abs(x) + 1),
    "MatrixDiagPart": lambda x: tf_raw("MatrixDiagPart", input=square_matrices(x)),
    "MatrixDiagPartV2": lambda x: tf_raw(
        "MatrixDiagPartV2", input=square_matrices(x), k=0, padding_value=0.0
    ),
    "MirrorPad": lambda x: tf_raw(
        "MirrorPad", input=x, paddings=[[0, 0], [1, 2]], mode="REFLECT"
    ),
    "MulNoNan": binary("MulNoNan"),
    "NextAfter": lambda x: tf_raw("NextAfter", x1=x, x2=x * 2 + 1),
    "PadV2": lambda x: tf_raw(
        "PadV2", input=x, paddings=[[0, 0], [1, 2]], constant_values=2.0
    ),
    "Rank": lambda x: x + ops.cast(tf_raw("Rank", input=square_matrices(x)), "float32"),
    "Reciprocal": unary("Reciprocal", lambda x: ops.abs(x) + 1),
    "RightShift": lambda x: tf_raw("RightShift", x=whole(x), y=whole(x) * 0 + 2),
    "Rint": unary("Rint", lambda x: x * 9),
    "ScatterNd": lambda x: tf_raw(
        "ScatterNd",
        indices=ops.cast(ops.arange(ops.shape(x)[0])[:, None], "int32"),
        updates=x,
        shape=ops.shape(x),
    ),
    "Select": lambda x: tf_raw("Select", condition=x > 0, x=x, y=x * 2),
    "ShapeN": lambda x: ops.reshape(x, tf_raw("ShapeN", input=[x * 1, x])[0]),
    "Size": lambda x: x * ops.cast(tf_raw("Size", input=x[0]), "float32"),
    "TensorScatterAdd": scatter("TensorScatterAdd", "tensor"),
    "TensorScatterUpdate": scatter("TensorScatterUpdate", "tensor"),
    "TruncateDiv": lambda x: tf_raw("TruncateDiv", x=whole(x), y=whole(x) * 0 + 4),
    "TruncateMod": lambda x: tf_raw("TruncateMod", x=whole(x), y=whole(x) * 0 + 4),
    "UpperBound": lambda x: tf_raw(
        "UpperBound", sorted_inputs=ops.sort(x, -1), values=x[:, ::2] + 0.1
    ),
    "Xdivy": binary("Xdivy", lambda x: ops.abs(x) + 1),
    "Xlog1py": binary("Xlog1py", ops.abs),
    "Xlogy": binary("Xlogy", lambda x: ops.abs(x) + 1),
    "ZerosLike": lambda x: tf_raw("ZerosLike", x=x),
}  # fmt: skip
CASE_OF = {op: case for case, names in BY_CASE.items() for op in names.split()}


def function_of(op):
    """A function whose program uses an op."""
    if op in RAW:
        return RAW[op]
    kind, name = CASE_OF[op].split()
    if kind == "op":
        return OPS[name]
    if kind == "activation":
        return keras.activations.get(name)
    layer = LAYERS[name]()
    layer.build((None, 6))
    return layer


@pytest.mark.parametrize("op", KERNELS)
def test_a_wrong_kernel_is_found(op, monkeypatch):
    """Each op in turn, with examples of zeros, as agents give them."""
    function = function_of(op)
    assert accepted(function, zeros(1, 6))
    used = []

    def emit(e):
        used.append(op)
        wrong(op)(e)

    monkeypatch.setitem(KERNELS, op, emit)
    assert not accepted(function, zeros(1, 6))
    assert used


def test_every_kernel_has_a_case():
    assert set(RAW).isdisjoint(CASE_OF)
    assert {*RAW, *CASE_OF} == set(KERNELS)


# -- the actors of agents --------------------------------------------------------------

BOX = spaces.Box(-np.inf, np.inf, (4,))
NESTED = spaces.Dict({"a": BOX, "b": spaces.Discrete(3), "c": spaces.Box(0, 9, (2, 2))})
SMALL = {"hidden_units": (8,), "activation": "tanh"}
AGENTS = {
    "ppo": lambda: (kerasrl.PPO(policy=SMALL), NESTED, spaces.Discrete(3)),
    "ppo_normalized": lambda: (
        kerasrl.PPO(policy={**SMALL, "cell": "gru", "normalize_observations": True}),
        BOX,
        spaces.Box(-1, 1, (2,)),
    ),
    "dqn": lambda: (kerasrl.DQN(policy=SMALL), BOX, spaces.Discrete(3)),
    "sac": lambda: (kerasrl.SAC(policy=SMALL), BOX, spaces.Box(-1, 1, (2,))),
}


@pytest.fixture(scope="module")
def agent(request):
    made, *both = AGENTS[request.param]()
    made.build(*both)
    return made


def mistaken(op, ufunc, *more):
    """A kernel that calls another function of NumPy."""

    def emit(e):
        operands = [e.arg(i) for i in range(len(e.node.inputs))]
        extra = [e.name(np.array(c, e.out_dtype)) for c in more]
        e.fresh(e.assign(f"{ufunc}({', '.join([*operands, *extra])})"))

    return op, emit


def scaled_product(e):
    RIGHT["MatMul"](e)
    value = e.node.outputs[0]
    e.names[value] = e.assign(f"{e.names[value]} * {e.name(np.array(7, 'float32'))}")


MISTAKES = {
    "sine for tanh": mistaken("Tanh", "sin"),
    "seven times a product": ("MatMul", scaled_product),
    "bias subtracted": mistaken("BiasAdd", "subtract"),
}


@pytest.mark.parametrize("kind", ["stochastic", "deterministic"])
@pytest.mark.parametrize("agent", AGENTS, indirect=True)
def test_an_agent_does_not_act_by_a_wrong_program(agent, kind, monkeypatch):
    """Also where only an argmax of the wrong numbers comes out."""
    assert acting.build(agent, kind).backend == "numpy"
    before = [np.array(variable) for variable in agent.policy.variables]
    for mistake, (op, emit) in MISTAKES.items():
        with monkeypatch.context() as patch:
            patch.setitem(KERNELS, op, emit)
            actor = acting.build(agent, kind)
        assert actor.backend == "tensorflow", mistake
    # The weights were drawn for the comparison only.
    after = [np.array(variable) for variable in agent.policy.variables]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)


# -- properties ------------------------------------------------------------------------


@given(
    activation=st.sampled_from("tanh relu gelu silu elu softplus sigmoid".split()),
    head=st.sampled_from("argmax sample values softmax".split()),
    op=st.integers(0, 100),
    factor=st.sampled_from([-1.0, 0.0, 0.9, 1.1, 7.0]),
)
@settings(max_examples=15, deadline=None)
def test_right_programs_pass_and_wrong_ones_do_not(activation, head, op, factor):
    network = keras.Sequential([layers.Dense(8, activation), layers.Dense(3)])
    network.build((None, 4))

    def act(x):
        logits = network(x)
        return {
            "argmax": lambda: ops.argmax(logits, -1),
            "sample": lambda: keras.random.categorical(logits, 1)[:, 0],
            "values": lambda: logits,
            "softmax": lambda: ops.softmax(logits),
        }[head]()

    used = []

    def spy(name):
        def emit(e):
            if e.facts is not None and e.out_dtype.kind == "f":
                used.append(name)
            RIGHT[name](e)

        return emit

    with pytest.MonkeyPatch.context() as patch:
        for name in RIGHT:
            patch.setitem(KERNELS, name, spy(name))
        assert accepted(act, zeros(1, 4))
    name = sorted(set(used))[op % len(set(used))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(KERNELS, name, wrong(name, factor))
        assert not accepted(act, zeros(1, 4)), name


def test_rounding_and_ties_and_infinite_logits_pass():
    weights = keras.Variable(np.array([[1.0, 1.0, -np.inf]] * 4, np.float32))

    def act(x):
        logits = ops.sum(ops.abs(x)[:, :, None] * weights, 1)
        halves = ops.cast(ops.tanh(x), "float16")
        return {
            "ties": ops.argmax(logits, -1),
            "sampled": keras.random.categorical(logits, 1),
            "equal": x == x,
            "halves": halves * 3,
            "count": ops.cast(x * 3, "int32"),
        }

    assert accepted(act, zeros(1, 4) + 1)


def test_functions_that_are_not_defined_everywhere_are_compared_where_they_are():
    table = layers.Embedding(3, 4)
    table.build((None,))

    def act(inputs):
        return table(inputs["token"]) + ops.sqrt(inputs["positive"])

    inputs = {
        "token": np.array([2], np.uint8), "positive": np.ones((1, 1), np.float32)
    }  # fmt: skip
    given = {**inputs, "token": np.array([200] * 5, np.uint8)}
    assert accepted(act, inputs)
    assert accepted(act, inputs, check_inputs=lambda generator: given)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(KERNELS, "Sqrt", wrong("Sqrt"))
        assert not accepted(act, inputs)


def test_what_depends_on_other_rows_is_refused():
    with pytest.raises(ValueError, match="depends on the others beside it"):
        build_actor(lambda x: x - ops.mean(x, 0), zeros(1, 3))
    with pytest.raises(ValueError, match="num_envs"):
        build_actor(lambda x: {"rank": ops.cumsum(x, 0)}, zeros(1, 3))


def test_a_program_that_mixes_rows_is_not_used(monkeypatch):
    def emit(e):
        RIGHT["Tanh"](e)
        value = e.node.outputs[0]
        e.names[value] = e.assign(f"{e.names[value]}[::-1]")

    monkeypatch.setitem(KERNELS, "Tanh", emit)
    assert not accepted(ops.tanh, zeros(1, 3))


def test_a_program_that_raises_is_not_used(monkeypatch):
    """NumPy may refuse what TensorFlow takes."""

    def emit(e):
        e.fresh(e.assign(f"{e.arg(0)}.take({e.arg(0)}.astype(int) * 0 + 9, 1)"))

    monkeypatch.setitem(KERNELS, "Tanh", emit)
    assert not accepted(ops.tanh, zeros(1, 3))
