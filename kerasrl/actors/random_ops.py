"""How TensorFlow's random ops become noise slots.

Also the small translations between TensorFlow's descriptions and NumPy's that importing
a graph needs.
"""

import numpy as np

from kerasrl.actors.ir import Node, constant

# The kind of noise of each random op. Input 0 is the shape ("categorical": the logits).
RANDOM = {
    "StatelessRandomUniform": "uniform",
    "StatelessRandomUniformV2": "uniform",
    "RandomUniform": "uniform",
    "StatelessRandomNormal": "normal",
    "StatelessRandomNormalV2": "normal",
    "RandomStandardNormal": "normal",
    "StatelessTruncatedNormal": "truncated_normal",
    "StatelessTruncatedNormalV2": "truncated_normal",
    "TruncatedNormal": "truncated_normal",
    "StatelessRandomUniformInt": "integers",
    "StatelessRandomUniformIntV2": "integers",
    "RandomUniformInt": "integers",
    "StatelessRandomGammaV2": "gamma",
    "StatelessRandomGammaV3": "gamma",
    "StatelessMultinomial": "categorical",
    "Multinomial": "categorical",
    "StatelessRandomBinomial": "binomial",
}
# Which inputs of a random op are data; the others are seeds, which noise replaces.
_DATA_INPUTS = {
    "StatelessRandomUniformInt": (0, 2, 3),
    "StatelessRandomUniformIntV2": (0, 4, 5),
    "RandomUniformInt": (0, 1, 2),
    "StatelessRandomGammaV2": (0, 2),
    "StatelessRandomGammaV3": (0, 4),
    "StatelessMultinomial": (0, 1),
    "Multinomial": (0, 1),
    "StatelessRandomBinomial": (0, 2, 3),
}
UNSEEDABLE = (
    "StatelessRandomUniformFullInt",
    "StatelessRandomUniformFullIntV2",
    "StatelessParameterizedTruncatedNormal",
    "RandomShuffle",
    "RandomGamma",
    "RandomPoisson",
    "RandomPoissonV2",
    "StatelessRandomPoisson",
    "ParameterizedTruncatedNormal",
)
_MOST_TRIALS = 64


def data_inputs(op_type):
    """Which inputs of a random op are data; the others are seeds."""
    return _DATA_INPUTS.get(op_type, (0,))


def static_shape(tensor):
    """The shape as a tuple with None for unknown sizes, or None."""
    return None if tensor.shape.rank is None else tuple(tensor.shape.as_list())


def numpy_dtype(dtype):
    """The NumPy dtype, or None for what NumPy itself does not have."""
    if dtype.base_dtype.name in ("resource", "variant", "string", "bfloat16"):
        return None
    try:
        found = np.dtype(dtype.as_numpy_dtype)
    except TypeError:
        return None
    return found if found.kind in "biufc" else None


def attributes_of(definition):
    """The attributes of a `NodeDef` as plain Python values."""
    import tensorflow as tf

    found = {}
    for name, attr in definition.attr.items():
        if name.startswith("_"):
            continue
        kind = attr.WhichOneof("value")
        if kind in ("i", "f", "b", "s"):
            found[name] = getattr(attr, kind)
        elif kind == "type":
            found[name] = tf.as_dtype(attr.type).name
        elif kind == "list":
            items = tuple(attr.list.i) or tuple(attr.list.s)
            found[name] = items or attr.list.SerializeToString()
        elif kind is not None:
            # Shapes and functions: only their identity matters (for repeated work).
            found[name] = getattr(attr, kind).SerializeToString()
    return found


class RandomOps:
    """Writes `ir` nodes for random ops.

    Args:
        nodes: list of `Node` to which it appends.
    """

    def __init__(self, nodes):
        self.nodes = nodes

    def lower(self, op, inputs):
        """Imports one random op.

        Args:
            op: `tf.Operation`, one of `RANDOM`.
            inputs: list of `Value`, None where the op's input is a seed.

        Returns:
            List of `Value`, the op's outputs.

        Raises:
            ValueError: if the noise depends on what is only known at each step.
        """
        kind = RANDOM[op.type]
        if kind == "categorical":
            return self._categorical(op, inputs)
        if kind == "binomial":
            return self._binomial(op, inputs)
        bounds = [inputs[i] for i in data_inputs(op.type)][1:]
        attributes = {"kind": kind}
        for name, value in zip(("low", "high"), bounds, strict=False):
            array = _constant_of(value)
            if array is None or array.ndim:
                raise ValueError(
                    f"The acting function draws {kind} noise (at {op.name}) with a "
                    f"bound or parameter that is computed, or is not a scalar. Only "
                    "constants can be drawn ahead of the steps."
                )
            attributes[name] = array.item()
        node = Node("Random", [inputs[0]], attributes, op.name)
        if numpy_dtype(op.outputs[0].dtype) is not None:
            return self._finished(node, op)
        # A dtype that NumPy does not have: draw in single precision and cast.
        self.nodes.append(node)
        shape, dtype = static_shape(op.outputs[0]), op.outputs[0].dtype
        noise = node.add_output(shape, np.dtype(np.float32))
        return [
            self._synthetic(
                "Cast", [noise], shape, None, op.name, SrcT=np.float32, DstT=dtype
            )
        ]

    def _synthetic(self, op_type, inputs, shape, dtype, name, **attributes):
        definition = node_definition(op_type, **attributes)
        node = Node(op_type, inputs, attributes_of(definition), name, definition)
        self.nodes.append(node)
        return node.add_output(shape, None if dtype is None else np.dtype(dtype))

    def _const(self, array, name):
        value = constant(array, name)
        self.nodes.append(value.node)
        return value

    def _batch_shape(self, value, rest, name):
        """The shape `(value.shape[0], *rest)` as a value."""
        shape = self._synthetic(
            "Shape", [value], (len(value.shape),), np.int32, name, T=value.dtype,
            out_type=np.int32,
        )  # fmt: skip
        zero, one = (self._const(np.array([k], np.int32), name) for k in (0, 1))
        rows = self._synthetic(
            "Slice", [shape, zero, one], (1,), np.int32, name, T=np.int32,
            Index=np.int32,
        )  # fmt: skip
        tail = self._const(np.array(rest, np.int32), name)
        axis = self._const(np.int32(0), name)
        return self._synthetic(
            "ConcatV2", [rows, tail, axis], (1 + len(rest),), np.int32, name,
            T=np.int32, N=2, Tidx=np.int32,
        )  # fmt: skip

    def _categorical(self, op, inputs):
        """argmax(logits + Gumbel noise): never a class whose logit is -inf."""
        logits, samples = inputs[0], _constant_of(inputs[1])
        if samples is None or logits.shape is None or logits.shape[1] is None:
            raise ValueError(
                f"The acting function samples categories (at {op.name}) whose number, "
                "or number of samples, is not known when it is traced."
            )
        if logits.dtype is None:
            logits = self._synthetic(
                "Cast", [logits], logits.shape, np.float32, op.name,
                SrcT=op.inputs[0].dtype, DstT=np.float32,
            )  # fmt: skip
        samples, classes = int(samples), logits.shape[1]
        rows, name, dtype = logits.shape[0], op.name, logits.dtype
        wanted = (samples, classes) if samples != 1 else (classes,)
        shape = self._batch_shape(logits, wanted, name)
        node = Node("Random", [shape], {"kind": "gumbel"}, name)
        self.nodes.append(node)
        noise = node.add_output((rows,) + wanted, dtype)
        if samples != 1:
            logits = self._synthetic(
                "ExpandDims", [logits, self._const(np.int32(1), name)],
                (rows, 1, classes), dtype, name, T=dtype, Tdim=np.int32,
            )  # fmt: skip
        total = self._synthetic(
            "AddV2", [logits, noise], noise.shape, dtype, name, T=dtype
        )
        out_dtype = numpy_dtype(op.outputs[0].dtype)
        best = self._synthetic(
            "ArgMax", [total, self._const(np.int32(-1), name)], noise.shape[:-1],
            out_dtype, name, T=dtype, Tidx=np.int32, output_type=out_dtype,
        )  # fmt: skip
        if samples == 1:
            best = self._synthetic(
                "ExpandDims", [best, self._const(np.int32(1), name)], (rows, 1),
                out_dtype, name, T=out_dtype, Tdim=np.int32,
            )  # fmt: skip
        return [best]

    def _binomial(self, op, inputs):
        """The number of uniform draws below the probability."""
        shape, counts, probabilities = inputs[0], inputs[2], inputs[3]
        trials = _constant_of(counts)
        if trials is None or trials.size == 0 or np.ptp(trials) or (
            not 0 < trials.flat[0] <= _MOST_TRIALS
        ):  # fmt: skip
            raise ValueError(
                f"The acting function draws binomial noise (at {op.name}) whose number "
                f"of trials is not one constant between 1 and {_MOST_TRIALS}."
            )
        trials, name = int(trials.flat[0]), op.name
        dtype, result = probabilities.dtype, numpy_dtype(op.outputs[0].dtype)
        out_shape = static_shape(op.outputs[0])
        if out_shape is None or dtype is None:
            raise ValueError(f"Binomial noise of an unknown rank (at {op.name}).")
        index = shape.dtype
        tail = self._const(np.array([trials], index), name)
        axis = self._const(np.int32(0), name)
        longer = self._synthetic(
            "ConcatV2", [shape, tail, axis], (len(out_shape) + 1,), index, name,
            T=index, N=2, Tidx=np.int32,
        )  # fmt: skip
        node = Node("Random", [longer], {"kind": "uniform"}, name)
        self.nodes.append(node)
        noise = node.add_output(out_shape + (trials,), dtype)
        last = self._const(np.int32(-1), name)
        level = self._synthetic(
            "ExpandDims", [probabilities, last], (probabilities.shape or ()) + (1,),
            dtype, name, T=dtype, Tdim=np.int32,
        )  # fmt: skip
        below = self._synthetic(
            "Less", [noise, level], noise.shape, bool, name, T=dtype
        )
        ones = self._synthetic(
            "Cast", [below], noise.shape, result, name, SrcT=np.bool_, DstT=result,
        )  # fmt: skip
        return [
            self._synthetic(
                "Sum",
                [ones, self._const(np.array([-1], np.int32), name)],
                out_shape,
                result,
                name,
                T=result,
                Tidx=np.int32,
                keep_dims=False,
            )  # fmt: skip
        ]

    def _finished(self, node, op):
        self.nodes.append(node)
        for tensor in op.outputs:
            node.add_output(static_shape(tensor), numpy_dtype(tensor.dtype))
        return node.outputs


def _constant_of(value):
    """The array of a constant, looking through casts and broadcasts, or None."""
    while value.node.op in ("Identity", "Cast", "BroadcastTo"):
        inner = value.node.inputs[0]
        if value.node.op == "Cast" and inner.node.op == "Const":
            return inner.node.attributes["value"].astype(value.dtype)
        value = inner
    return value.node.attributes["value"] if value.node.op == "Const" else None


def node_definition(op_type, **attributes):
    """A `NodeDef` with the given attributes."""
    import tensorflow as tf

    definition = tf.compat.v1.NodeDef(op=op_type)
    for name, value in attributes.items():
        attr = definition.attr[name]
        if isinstance(value, bool):
            attr.b = value
        elif isinstance(value, int):
            attr.i = value
        else:
            attr.type = tf.as_dtype(value).as_datatype_enum
    return definition
