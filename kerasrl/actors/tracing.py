"""From TensorFlow to the graph language.

`trace` turns a Python function into an `ir.Graph` with its captured variables.
TensorFlow is imported inside the functions, so that importing this module is free.
"""

import numpy as np

from kerasrl.actors.compiler import fold
from kerasrl.actors.ir import Graph, Node, Unsupported, constant
from kerasrl.actors.program import tree_paths
from kerasrl.actors.random_ops import (
    RANDOM,
    UNSEEDABLE,
    RandomOps,
    attributes_of,
    data_inputs,
    node_definition,
    numpy_dtype,
    static_shape,
)
from kerasrl.actors.rewrites import hoist_noise

_CALLS = ("PartitionedCall", "StatefulPartitionedCall", "StatelessCall", "RemoteCall")
_ASSIGNMENTS = ("AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp")


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
        bound.append(node.add_output(static_shape(tensor), numpy_dtype(tensor.dtype)))
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


class _Importer:
    """Walks TensorFlow graphs and writes `ir` nodes."""

    def __init__(self, graph):
        self.nodes = []
        self.random = RandomOps(self.nodes)
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
            if numpy_dtype(external.dtype) is not None:
                value = constant(external.numpy(), "captured")
                self.nodes.append(value.node)
                return value
        node = Node("Resource", [], {"index": len(self.resources)}, "captured")
        self.resources.append(external)
        self.nodes.append(node)
        return node.add_output(static_shape(external), numpy_dtype(external.dtype))

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
            if op.type in _CALLS and op.name not in needed:
                self._scan(graph, op, values)
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
            if op.type in RANDOM:
                inputs = [inputs[i] for i in data_inputs(op.type)]
            pending.extend(tensor.op for tensor in inputs)
        return needed

    def _import(self, graph, op, inputs):
        if op.type == "Const":
            node = Node("Const", [], {}, op.name, op.node_def)
            if numpy_dtype(op.outputs[0].dtype) is not None:
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
        if op.type in UNSEEDABLE:
            raise ValueError(
                f"The acting function uses {op.type} (at {op.name}), whose randomness "
                "cannot be drawn per environment. Use keras.random.uniform, normal, "
                "truncated_normal, randint, categorical or binomial."
            )
        if op.type in RANDOM:
            return self.random.lower(op, inputs)
        for function in self._bodies(op):
            for definition in self._reachable(function):
                if definition.op in _ASSIGNMENTS:
                    raise ValueError(
                        "The acting function assigns to a variable inside a loop or a "
                        f"branch (at {op.name}). It must only read variables."
                    )
                if definition.op in RANDOM or definition.op in UNSEEDABLE:
                    raise ValueError(
                        f"The acting function draws random numbers ({definition.op}, "
                        f"{definition.name}) inside a loop or a branch (at {op.name}), "
                        "where they cannot be drawn per environment. Draw them before "
                        "it and pass them in."
                    )
        attributes = attributes_of(op.node_def)
        return self._finish(Node(op.type, inputs, attributes, op.name, op.node_def), op)

    def _finish(self, node, op):
        for tensor in op.outputs:
            node.add_output(static_shape(tensor), numpy_dtype(tensor.dtype))
        self.nodes.append(node)
        return node.outputs

    def _weight(self, resource, op):
        handle = self.resources[resource.attributes["index"]]
        dtype = op.outputs[0].dtype
        if id(handle) not in self._weights:
            name = self._names.get(id(handle), op.name)
            node = Node("Weight", [], {"index": len(self.handles)}, name)
            node.add_output(static_shape(op.outputs[0]), numpy_dtype(dtype))
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

    def _scan(self, graph, op, values):
        """Notes what a call assigns whose results no one needs."""
        body = graph._get_function(op.get_attr("f").name).graph
        inner = {}
        for tensor, given in zip(body.inputs, op.inputs, strict=True):
            value = values.get((given.op.name, given.value_index))
            if value is not None:
                inner[tensor.op.name, tensor.value_index] = value
        for other in body.get_operations():
            if other.type in _ASSIGNMENTS:
                self._note_assignment(other, inner)
            elif other.type in _CALLS:
                self._scan(body, other, inner)

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
