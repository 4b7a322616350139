"""The small graph language between TensorFlow and the NumPy program.

A `Graph` is a list of nodes in the order in which they can run. It holds no TensorFlow
object, so that the passes and the code generator can be read and tested without it.
"""

import numpy as np

SOURCES = ("Input", "Weight", "Const", "Resource", "Noise")
_IDENTITIES = (
    "Identity",
    "StopGradient",
    "PreventGradient",
    "CheckNumerics",
    "Snapshot",
    "EnsureShape",
    "IdentityN",
    "DebugIdentity",
)
_LARGEST_FOLDED = 1 << 22


class Unsupported(Exception):
    """An op, or a use of an op, that has no NumPy form."""

    def __init__(self, reason, node=None):
        super().__init__(reason)
        self.reason = reason
        self.node = node


class Value:
    """One tensor of a graph: output `index` of `node`.

    Args:
        node: the `Node` that computes it.
        index: int.
        shape: tuple with None for unknown sizes, or None for an unknown rank.
        dtype: NumPy dtype, or None where NumPy has none (bfloat16, resources).
    """

    __slots__ = ("node", "index", "shape", "dtype")

    def __init__(self, node, index, shape, dtype):
        self.node = node
        self.index = index
        self.shape = shape
        self.dtype = dtype


class Node:
    """One op.

    Args:
        op: str, TensorFlow's op type, or one of `SOURCES`, or `"Random"`.
        inputs: list of `Value`.
        attributes: dict of plain Python and NumPy values.
        name: str, where the op came from (`"policy/dense_1/MatMul"`).
        definition: the op's `NodeDef`, kept for the TensorFlow fallback only.

    Attributes:
        origin: the `Node` of the traced graph that this one is a simplified copy of,
            or None.
    """

    __slots__ = (
        "op", "inputs", "attributes", "name", "definition", "outputs", "origin",
    )  # fmt: skip

    def __init__(self, op, inputs, attributes=None, name="", definition=None):
        self.op = op
        self.inputs = inputs
        self.attributes = attributes or {}
        self.name = name
        self.definition = definition
        self.outputs = []
        self.origin = None

    def add_output(self, shape, dtype):
        """Appends an output and returns its `Value`."""
        value = Value(self, len(self.outputs), shape, dtype)
        self.outputs.append(value)
        return value


class Graph:
    """A straight-line computation.

    Args:
        nodes: list of `Node`, every node after its inputs.
        outputs: list of `Value`.
    """

    def __init__(self, nodes, outputs):
        self.nodes = nodes
        self.outputs = outputs

    def pruned(self):
        """Returns the graph without the nodes that no output needs."""
        needed = set()
        pending = [value.node for value in self.outputs]
        while pending:
            node = pending.pop()
            if node not in needed:
                needed.add(node)
                pending.extend(value.node for value in node.inputs)
        return Graph([node for node in self.nodes if node in needed], self.outputs)


def constant(array, name=""):
    """A `Const` node's value that holds `array`."""
    array = np.asarray(array)
    node = Node("Const", [], {"value": array}, name)
    return node.add_output(array.shape, array.dtype)


def simplify(graph, fold, shortcuts=()):
    """Removes identities, constants' arithmetic and repeated work.

    Args:
        graph: `Graph`; it is left as it is.
        fold: callable `(node) -> list of arrays` that runs a node whose inputs are all
            constants, or raises `Unsupported`.
        shortcuts: callables `(node, inputs) -> value or None`: the value that output 0
            equals.

    Returns:
        A new `Graph` of new nodes (sources are shared), pruned.
    """
    graph = graph.pruned()
    mapping = {}
    nodes = []
    seen = {}

    def emit_constant(array, name):
        array = np.asarray(array)
        key = ("Const", array.dtype.str, array.shape, array.tobytes())
        if key not in seen:
            seen[key] = constant(array, name)
            nodes.append(seen[key].node)
        return seen[key]

    for node in graph.nodes:
        if node.op == "Const":
            mapping[node.outputs[0]] = emit_constant(
                node.attributes["value"], node.name
            )
            continue
        inputs = [mapping[value] for value in node.inputs]
        if node.op in SOURCES:
            nodes.append(node)
            mapping[node.outputs[0]] = node.outputs[0]
            continue
        size = _static_size(node, inputs)
        if size is not None:
            mapping[node.outputs[0]] = emit_constant(size, node.name)
            continue
        found = [rule(node, inputs) for rule in shortcuts]
        found = [value for value in found if value is not None]
        if found:
            mapping[node.outputs[0]] = found[0]
            continue
        origin = node
        if _casts_an_added_axis(node, inputs):
            node, inputs = _cast_first(node, inputs, nodes)
            origin = None
        shortcut = _shortcut(node, inputs)
        if shortcut is not None:
            mapping.update(zip(node.outputs, shortcut, strict=False))
            continue
        key = None
        if node.op != "Random":
            key = (node.op, tuple(map(id, inputs)), _frozen(node.attributes))
            if key in seen:
                mapping.update(zip(node.outputs, seen[key].outputs, strict=True))
                continue
        copy = Node(node.op, inputs, node.attributes, node.name, node.definition)
        copy.origin = origin
        for value in node.outputs:
            copy.add_output(value.shape, value.dtype)
        if inputs and all(value.node.op == "Const" for value in inputs):
            arrays = _folded(copy, fold)
            if arrays is not None:
                for value, array in zip(node.outputs, arrays, strict=True):
                    mapping[value] = emit_constant(array, node.name)
                continue
        if key is not None:
            seen[key] = copy
        nodes.append(copy)
        mapping.update(zip(node.outputs, copy.outputs, strict=True))
    return Graph(nodes, [mapping[value] for value in graph.outputs]).pruned()


def _folded(node, fold):
    if node.op == "Random":
        return None
    try:
        arrays = fold(node)
    except Unsupported:
        return None
    if sum(np.asarray(array).nbytes for array in arrays) > _LARGEST_FOLDED:
        return None
    return arrays


def _frozen(attributes):
    items = []
    for name in sorted(attributes):
        value = attributes[name]
        if isinstance(value, list):
            value = tuple(value)
        items.append((name, str(value) if isinstance(value, np.dtype) else value))
    return tuple(items)


def _casts_an_added_axis(node, inputs):
    return node.op == "Cast" and inputs[0].node.op == "ExpandDims"


def _cast_first(node, inputs, nodes):
    """Cast(ExpandDims(x)) as ExpandDims(Cast(x)), where rules can meet it."""
    expand = inputs[0].node
    inner, axis = expand.inputs
    cast = Node("Cast", [inner], node.attributes, node.name)
    cast.add_output(inner.shape, node.outputs[0].dtype)
    nodes.append(cast)
    late = Node("ExpandDims", [cast.outputs[0], axis], {}, expand.name)
    late.outputs = node.outputs
    return late, late.inputs


def _static_size(node, inputs):
    """What a slice of a shape holds, where those sizes are known, or None."""
    shape = inputs[0].node if inputs else None
    if node.op != "StridedSlice" or shape.op != "Shape":
        return None
    sizes = shape.inputs[0].shape
    if sizes is None or any(value.node.op != "Const" for value in inputs[1:]):
        return None
    begin, end, stride = (int(v.node.attributes["value"][0]) for v in inputs[1:])
    if node.attributes.get("shrink_axis_mask", 0):
        wanted = sizes[begin]
    else:
        first = None if node.attributes.get("begin_mask", 0) else begin
        last = None if node.attributes.get("end_mask", 0) else end
        wanted = sizes[first:last:stride]
    if wanted is None or (isinstance(wanted, tuple) and None in wanted):
        return None
    return np.array(wanted, node.outputs[0].dtype)


def _shortcut(node, inputs):
    """The inputs that already are this node's outputs, or None."""
    if node.op in _IDENTITIES:
        return inputs
    if node.op == "Cast" and inputs[0].dtype == node.outputs[0].dtype:
        return inputs if inputs[0].dtype is not None else None
    if node.op == "Split":
        return _joined_parts(node, inputs)
    if node.op in ("Mul", "RealDiv", "AddV2", "Add", "Sub"):
        neutral = 1 if node.op in ("Mul", "RealDiv") else 0
        sides = (0, 1) if node.op in ("Mul", "AddV2", "Add") else (1,)
        for side in sides:
            other = inputs[side].node
            if other.op == "Const" and inputs[side].shape == ():
                if other.attributes["value"] == neutral:
                    return [inputs[1 - side]]
    return None


def _joined_parts(node, inputs):
    """The arrays that were joined only to be split again, or None.

    So are mean and deviation of actions, of which a deterministic policy needs one.
    """
    axis, joined = inputs
    if joined.node.op != "ConcatV2":
        return None
    *parts, joined_along = joined.node.inputs
    if axis.node.op != "Const" or joined_along.node.op != "Const":
        return None
    shapes = [part.shape for part in parts]
    if len(parts) != len(node.outputs) or any(shape is None for shape in shapes):
        return None
    rank = len(shapes[0])
    axes = [int(v.node.attributes["value"]) % rank for v in (axis, joined_along)]
    sizes = {shape[axes[0]] for shape in shapes}
    return parts if axes[0] == axes[1] and len(sizes) == 1 and sizes != {None} else None
