"""From TensorFlow to the graph language.

`trace` turns a Python function into an `ir.Graph` with its captured variables.
TensorFlow is imported inside the functions, so that importing this module is free.
"""

import numpy as np

from kerasrl.rollouts.compiler import fold
from kerasrl.rollouts.ir import Graph, Node, Unsupported, constant
from kerasrl.rollouts.program import tree_paths
from kerasrl.rollouts.rewrites import hoist_noise

# The kind of noise of each random op. Input 0 is the shape ("categorical": the logits).
_RANDOM = {
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
_UNSEEDABLE = (
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
_CALLS = ("PartitionedCall", "StatefulPartitionedCall", "StatelessCall", "RemoteCall")
_ASSIGNMENTS = ("AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp")
_MOST_TRIALS = 64


class Trace:
    """A traced acting function.

    Args:
        graph: `ir.Graph`, pruned.
        input_paths: list of tuples, where each input lies in the input tree.
        output_tree: tree of positions in `graph.outputs`.
        specs: list of `tf.TensorSpec`, one per input.
        handles: list of `(handle, TensorFlow dtype, name)`, the variables read.
        resources: list of tensors that the graph reads as they are (lookup tables).
        library: the `FunctionDefLibrary` that control-flow ops refer to.
        keep: what must stay alive (the concrete function, its variables).
    """

    def __init__(self, graph, input_paths, output_tree, specs, importer, keep):
        self.graph = graph
        self.input_paths = input_paths
        self.output_tree = output_tree
        self.specs = specs
        self.handles = importer.handles
        self.resources = importer.resources
        self.library = importer.library
        self.keep = keep


def trace(function, example_inputs):
    """Traces a function of a tree of tensors.

    Args:
        function: callable `(inputs) -> outputs` on trees of tensors.
        example_inputs: tree of NumPy arrays `[N, ...]`; the batch axis is traced as
            unknown.

    Returns:
        A `Trace`.

    Raises:
        ValueError: if the function assigns to a variable (a random generator's state
            excepted), or uses a random op that noise cannot replace.
    """
    import tensorflow as tf

    pairs = tree_paths(example_inputs)
    specs = [
        tf.TensorSpec((None,) + tuple(array.shape[1:]), array.dtype)
        for _, array in pairs
    ]
    output_tree = None

    def flat(*tensors):
        nonlocal output_tree
        paths = {path: tensor for (path, _), tensor in zip(pairs, tensors, strict=True)}
        outputs = function(with_leaves(example_inputs, paths))
        leaves = tree_paths(outputs)
        order = {path: k for k, (path, _) in enumerate(leaves)}
        output_tree = with_leaves(outputs, order)
        return [tf.convert_to_tensor(leaf) for _, leaf in leaves]

    concrete = tf.function(flat, autograph=False).get_concrete_function(*specs)
    importer = _Importer(concrete.graph)
    bound = []
    for index, tensor in enumerate(concrete.graph.inputs[: len(specs)]):
        node = Node("Input", [], {"index": index}, tensor.op.name)
        bound.append(node.add_output(_shape(tensor), _dtype(tensor.dtype)))
        importer.nodes.append(node)
    for external, _ in concrete.graph.captures:
        bound.append(importer.capture(external))
    outputs = importer.graph(concrete.graph, bound)
    graph = Graph(importer.nodes, outputs).pruned()
    importer.check(graph)
    graph = hoist_noise(graph, fold)
    for index, node in enumerate(n for n in graph.nodes if n.op == "Random"):
        node.attributes["index"] = index
    paths = [path for path, _ in pairs]
    keep = (concrete, concrete.graph.variables, function)
    return Trace(graph, paths, output_tree, specs, importer, keep)


def with_leaves(tree, leaves, path=()):
    """The tree with its leaves replaced by `leaves[path]`."""
    if isinstance(tree, dict):
        return {k: with_leaves(v, leaves, path + (k,)) for k, v in tree.items()}
    if type(tree) in (tuple, list):
        items = [with_leaves(v, leaves, path + (k,)) for k, v in enumerate(tree)]
        return type(tree)(items)
    return leaves[path]


def _shape(tensor):
    return None if tensor.shape.rank is None else tuple(tensor.shape.as_list())


def _dtype(dtype):
    """The NumPy dtype, or None for what NumPy itself does not have."""
    if dtype.base_dtype.name in ("resource", "variant", "string", "bfloat16"):
        return None
    try:
        found = np.dtype(dtype.as_numpy_dtype)
    except TypeError:
        return None
    return found if found.kind in "biufc" else None


def _attributes(definition):
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
            found[name] = tuple(attr.list.i) or tuple(attr.list.s)
        elif kind is not None:
            # Shapes and functions: only their identity matters (for repeated work).
            found[name] = getattr(attr, kind).SerializeToString()
    return found


class _Importer:
    """Walks TensorFlow graphs and writes `ir` nodes."""

    def __init__(self, graph):
        self.nodes = []
        self.handles = []
        self.resources = []
        self.assigned = []
        self.library = graph.as_graph_def().library
        self._weights = {}
        self._names = {id(v.handle): v.name for v in graph.variables}

    def capture(self, external):
        """The value of something the function closes over."""
        import tensorflow as tf

        if external.dtype != tf.resource and hasattr(external, "numpy"):
            if _dtype(external.dtype) is not None:
                value = constant(external.numpy(), "captured")
                self.nodes.append(value.node)
                return value
        node = Node("Resource", [], {"index": len(self.resources)}, "captured")
        self.resources.append(external)
        self.nodes.append(node)
        return node.add_output(_shape(external), _dtype(external.dtype))

    def graph(self, graph, bound):
        """Imports what the graph's outputs need.

        Args:
            graph: `tf.Graph` of a function.
            bound: list of `Value`, one per graph input.

        Returns:
            List of `Value`, one per graph output.
        """
        values = {
            (tensor.op.name, tensor.value_index): value
            for tensor, value in zip(graph.inputs, bound, strict=True)
        }
        needed = self._needed(graph, values)
        for op in graph.get_operations():
            if op.type in _ASSIGNMENTS:
                self._note_assignment(op, values)
            if op.name in needed:
                inputs = [
                    values.get((tensor.op.name, tensor.value_index))
                    for tensor in op.inputs
                ]
                for k, value in enumerate(self._import(graph, op, inputs)):
                    values[op.name, k] = value
        return [values[t.op.name, t.value_index] for t in graph.outputs]

    def _needed(self, graph, values):
        needed, pending = set(), [tensor.op for tensor in graph.outputs]
        while pending:
            op = pending.pop()
            if op.name in needed or (op.name, 0) in values:
                continue
            needed.add(op.name)
            inputs = list(op.inputs)
            if op.type in _RANDOM:
                inputs = [inputs[i] for i in _DATA_INPUTS.get(op.type, (0,))]
            pending.extend(tensor.op for tensor in inputs)
        return needed

    def _import(self, graph, op, inputs):
        if op.type == "Const":
            node = Node("Const", [], {}, op.name, op.node_def)
            if _dtype(op.outputs[0].dtype) is not None:
                import tensorflow as tf

                node.attributes["value"] = tf.make_ndarray(op.get_attr("value"))
                return self._finish(node, op)
            node.op = "TensorFlowConst"
            return self._finish(node, op)
        if op.type == "ReadVariableOp" and inputs[0].node.op == "Resource":
            return [self._weight(inputs[0].node, op)]
        if op.type == "ResourceGather" and inputs[0].node.op == "Resource":
            return self._gathered(op, inputs)
        if op.type in _CALLS:
            body = graph._get_function(op.get_attr("f").name).graph
            return self.graph(body, inputs)
        if op.type in _UNSEEDABLE:
            raise ValueError(
                f"The acting function uses {op.type} (at {op.name}), whose randomness "
                "cannot be drawn per environment. Use keras.random.uniform, normal, "
                "truncated_normal, randint, categorical or binomial."
            )
        if op.type in _RANDOM:
            return self._random(op, inputs)
        for function in self._bodies(op):
            for definition in self._reachable(function):
                if definition.op in _RANDOM or definition.op in _UNSEEDABLE:
                    raise ValueError(
                        f"The acting function draws random numbers ({definition.op}, "
                        f"{definition.name}) inside a loop or a branch (at {op.name}), "
                        "where they cannot be drawn per environment. Draw them before "
                        "it and pass them in."
                    )
        attributes = _attributes(op.node_def)
        return self._finish(Node(op.type, inputs, attributes, op.name, op.node_def), op)

    def _finish(self, node, op):
        for tensor in op.outputs:
            node.add_output(_shape(tensor), _dtype(tensor.dtype))
        self.nodes.append(node)
        return node.outputs

    def _weight(self, resource, op):
        handle = self.resources[resource.attributes["index"]]
        dtype = op.outputs[0].dtype
        if id(handle) not in self._weights:
            name = self._names.get(id(handle), op.name)
            node = Node("Weight", [], {"index": len(self.handles)}, name)
            node.add_output(_shape(op.outputs[0]), _dtype(dtype))
            self._weights[id(handle)] = node
            self.handles.append((handle, dtype, name))
            self.nodes.append(node)
        return self._weights[id(handle)].outputs[0]

    def _gathered(self, op, inputs):
        read = self._weight(inputs[0].node, _ReadOf(op, self, inputs[0].node))
        axis = constant(np.int32(0), op.name)
        self.nodes.append(axis.node)
        batch_dims = op.get_attr("batch_dims")
        definition = node_definition(
            "GatherV2",
            Tparams=op.outputs[0].dtype,
            Tindices=op.inputs[1].dtype,
            Taxis=np.int32,
            batch_dims=batch_dims,
        )
        if batch_dims:
            raise Unsupported("ResourceGather with batch_dims")
        node = Node(
            "GatherV2",
            [read, inputs[1], axis],
            {"batch_dims": batch_dims},
            op.name,
            definition,
        )
        return self._finish(node, op)

    # -- randomness --------------------------------------------------------------------

    def _random(self, op, inputs):
        kind = _RANDOM[op.type]
        if kind == "categorical":
            return self._categorical(op, inputs)
        if kind == "binomial":
            return self._binomial(op, inputs)
        bounds = [inputs[i] for i in _DATA_INPUTS.get(op.type, (0,))][1:]
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
        if _dtype(op.outputs[0].dtype) is not None:
            return self._finish(node, op)
        # A dtype that NumPy does not have: draw in single precision and cast.
        self.nodes.append(node)
        shape, dtype = _shape(op.outputs[0]), op.outputs[0].dtype
        noise = node.add_output(shape, np.dtype(np.float32))
        return [
            self._synthetic(
                "Cast", [noise], shape, None, op.name, SrcT=np.float32, DstT=dtype
            )
        ]

    def _synthetic(self, op_type, inputs, shape, dtype, name, **attributes):
        definition = node_definition(op_type, **attributes)
        node = Node(op_type, inputs, _attributes(definition), name, definition)
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
        out_dtype = _dtype(op.outputs[0].dtype)
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
        dtype, result = probabilities.dtype, _dtype(op.outputs[0].dtype)
        out_shape = _shape(op.outputs[0])
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
                "Sum", [ones, self._const(np.array([-1], np.int32), name)], out_shape,
                result, name, T=result, Tidx=np.int32, keep_dims=False,
            )  # fmt: skip
        ]

    # -- checks ------------------------------------------------------------------------

    def _bodies(self, op):
        names = []
        for attr in op.node_def.attr.values():
            if attr.HasField("func"):
                names.append(attr.func.name)
            names.extend(function.name for function in attr.list.func)
        return names

    def _reachable(self, name):
        functions = {f.signature.name: f for f in self.library.function}
        pending, seen = [name], set()
        while pending:
            name = pending.pop()
            if name in seen or name not in functions:
                continue
            seen.add(name)
            for definition in functions[name].node_def:
                yield definition
                for attr in definition.attr.values():
                    if attr.HasField("func"):
                        pending.append(attr.func.name)
                    pending.extend(function.name for function in attr.list.func)

    def _note_assignment(self, op, values):
        source = op.inputs[0]
        value = values.get((source.op.name, source.value_index))
        if value is not None and value.node.op == "Resource":
            handle = self.resources[value.node.attributes["index"]]
            shape = op.inputs[1].shape
            self.assigned.append((handle, op.inputs[1].dtype, shape, op.name))

    def check(self, graph):
        """Refuses assignments: the compiled program would leave them out silently."""
        live = {n.attributes["index"] for n in graph.nodes if n.op == "Weight"}
        read = {id(self.handles[index][0]) for index in live}
        for handle, dtype, shape, place in self.assigned:
            is_seed = dtype.is_integer and shape.rank == 1 and shape[0] in (None, 2, 3)
            if id(handle) in read or not is_seed:
                name = self._names.get(id(handle), "a variable")
                raise ValueError(
                    f"The acting function assigns to {name} (at {place}). It must only "
                    "read variables: return the new value as an output, or keep it in "
                    "the state. (Was a layer called with training=True?)"
                )


class _ReadOf:
    """Stands for the read of the variable that a ResourceGather indexes."""

    def __init__(self, op, importer, resource):
        import tensorflow as tf

        handle = importer.resources[resource.attributes["index"]]
        dtype = op.get_attr("dtype")
        value = tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype)
        self.outputs = [value]
        self.name = op.name


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
