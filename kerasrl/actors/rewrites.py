"""Rewritings of acting graphs that save work at every step."""

import numpy as np

from kerasrl.actors.ir import Graph, Node, Unsupported

# Elementwise ops that a noise slot can do to its noise when it is drawn.
_UNARY = {
    "Neg": "negative",
    "Log": "log",
    "Log1p": "log1p",
    "Exp": "exp",
    "Sqrt": "sqrt",
    "Square": "square",
    "Abs": "absolute",
}
_BINARY = {
    "Add": "add",
    "AddV2": "add",
    "Sub": "subtract",
    "Mul": "multiply",
    "RealDiv": "divide",
    "Maximum": "maximum",
    "Minimum": "minimum",
}
_SUMS = ("Add", "AddV2", "BiasAdd", "Sub")
_WRAPPERS = ("ExpandDims", "Squeeze", "Reshape", "BroadcastTo", "Cast", "Identity")


def hoist_noise(graph, fold):
    """Moves what is done to noise alone from the steps to the drawing.

    `-log(-log(uniform))` costs five calls at each step, and next to nothing when the
    noise of a whole rollout is drawn at once. The ops become the attribute `transform`
    of their `Random` node.

    Args:
        graph: `ir.Graph`; its `Random` nodes are changed.
        fold: callable `(node) -> list of arrays`, for operands that are constants.

    Returns:
        The graph, pruned.
    """
    readers = {}
    for node in graph.nodes:
        for value in node.inputs:
            readers.setdefault(value, []).append(node)
    kept = {id(value) for value in graph.outputs}
    for random in [node for node in graph.nodes if node.op == "Random"]:
        value = random.outputs[0]
        if value.dtype is None or value.dtype.kind != "f":
            continue
        steps, start = [], value
        while id(value) not in kept and len(readers.get(value, ())) == 1:
            reader = readers[value][0]
            step = _step(reader, value, fold)
            if step is None or reader.outputs[0].dtype != value.dtype:
                break
            steps.extend(step)
            value = reader.outputs[0]
        if value is not start:
            random.attributes["transform"] = tuple(steps)
            for reader in readers.get(value, ()):
                reader.inputs = [start if v is value else v for v in reader.inputs]
            graph.outputs = [start if v is value else v for v in graph.outputs]
    return graph.pruned()


def _step(node, value, fold):
    """The node as a list of `(ufunc, constant or None, noise is first)`, or None."""
    if node.op in ("Identity", "StopGradient"):
        return []
    if node.op in _UNARY:
        return [(_UNARY[node.op], None, True)]
    if node.op not in _BINARY or node.inputs[0] is node.inputs[1]:
        return None
    is_first = node.inputs[0] is value
    array = _constant(node.inputs[1 if is_first else 0], fold)
    if array is None or array.ndim:
        return None
    return [(_BINARY[node.op], array.item(), is_first)]


def _constant(value, fold):
    """The array of a value made of constants alone, or None."""
    node = value.node
    if node.op == "Const":
        return node.attributes.get("value")
    if not node.inputs or len(node.inputs) > 2:
        return None
    arrays = [_constant(v, fold) for v in node.inputs]
    if any(array is None for array in arrays):
        return None
    copy = Node(node.op, [], node.attributes, node.name)
    for array in arrays:
        source = Node("Const", [], {"value": array})
        copy.inputs.append(source.add_output(array.shape, array.dtype))
    for output in node.outputs:
        copy.add_output(output.shape, output.dtype)
    try:
        return np.asarray(fold(copy)[value.index])
    except Unsupported:
        return None


def shortcut(node, inputs):
    """The value that a node's output 0 equals by a rule, or None.

    The rules undo what Keras does in general and acting never needs: indexing an axis
    that was just added, wrapping indices that cannot be negative, narrowing an index
    and widening it again, telling -0.0 from 0.0 before an argmax.
    """
    if node.op == "StridedSlice":
        return _unexpanded(node, inputs)
    if node.op == "Cast" and inputs[0].node.op == "Cast":
        wide = inputs[0].node.inputs[0]
        same = wide.dtype is not None and wide.dtype == node.outputs[0].dtype
        return wide if same and _is_index(inputs[0]) else None
    if node.op == "SelectV2":
        condition, changed, other = inputs
        if _asks_if_negative(condition, other) and _is_index(other):
            return other if _is_shifted(changed, other) else None
        if _asks_if_negative_zero(condition, other) and changed.shape == ():
            return other if other.node.op in _SUMS else None
    return None


def _asks_if_negative(condition, value):
    less = condition.node
    return less.op == "Less" and less.inputs[0] is value and _is_zero(less.inputs[1])


def _is_shifted(changed, value):
    return (
        changed.node.op == "AddV2"
        and changed.node.inputs[0] is value
        and changed.node.inputs[1].shape == ()
    )


def _asks_if_negative_zero(condition, value):
    """Whether a condition is `x == 0 and signbit(x)`, as `keras.ops.argmax` asks.

    A sum is -0.0 only where both terms are, and then a tie with 0.0 is broken by order.
    """
    both = condition.node
    if both.op != "LogicalAnd":
        return False
    equal, less = (v.node for v in both.inputs)
    if equal.op != "Equal" or equal.inputs[0] is not value or less.op != "Less":
        return False
    masked = less.inputs[0].node
    if masked.op != "BitwiseAnd" or not _is_zero(equal.inputs[1]):
        return False
    bits = masked.inputs[0].node
    return bits.op == "Bitcast" and bits.inputs[0] is value


def merge_gates(graph):
    """Computes neighbouring sigmoid gates of a recurrent cell in one go.

    `sigmoid(a), sigmoid(b), ... = split(x)` becomes `split(sigmoid([a, b]), ...)`.

    Args:
        graph: simplified `ir.Graph`.

    Returns:
        A graph.
    """
    readers = {}
    for node in graph.nodes:
        for value in node.inputs:
            readers.setdefault(value, []).append(node)
    outputs = set(graph.outputs)
    nodes, replaced, gone = [], {}, set()

    def is_gate(value):
        found = readers.get(value, ())
        return len(found) == 1 and found[0].op == "Sigmoid" and value not in outputs

    for node in graph.nodes:
        if node in gone:
            continue
        node.inputs = [replaced.get(value, value) for value in node.inputs]
        nodes.append(node)
        if node.op != "Split" or node.inputs[0].node.op != "Const":
            continue
        x = node.inputs[1]
        axis = int(node.inputs[0].node.attributes["value"])
        if x.shape is None or axis not in (-1, len(x.shape) - 1) or not x.shape[-1]:
            continue
        width = x.shape[-1] // len(node.outputs)
        for first, last in _runs([is_gate(value) for value in node.outputs]):
            gates = node.outputs[first:last]
            shape = x.shape[:-1] + (width * len(gates),)
            cut = _node("Cut", [x], shape, x.dtype, node.name)
            cut.attributes.update(start=first * width, stop=last * width)
            name = readers[gates[0]][0].name
            gated = _node("Sigmoid", cut.outputs, shape, x.dtype, name)
            nodes.extend([cut, gated])
            for k, gate in enumerate(gates):
                part = _node("Cut", gated.outputs, gate.shape, gate.dtype, name)
                part.attributes.update(start=k * width, stop=(k + 1) * width)
                nodes.append(part)
                sigmoid = readers[gate][0]
                replaced[sigmoid.outputs[0]] = part.outputs[0]
                gone.add(sigmoid)
    return Graph(nodes, [replaced.get(v, v) for v in graph.outputs]).pruned()


def _runs(flags):
    """The `(first, last)` of runs of at least two true flags."""
    first = 0
    for k, flag in enumerate([*flags, False]):
        if not flag:
            if k - first >= 2:
                yield first, k
            first = k + 1


def _node(op, inputs, shape, dtype, name):
    node = Node(op, list(inputs), {}, name)
    node.add_output(shape, dtype)
    return node


def _unexpanded(node, inputs):
    source = inputs[0].node
    if source.op != "ExpandDims" or any(v.node.op != "Const" for v in inputs[1:]):
        return None
    inner = source.inputs[0]
    axis = source.inputs[1].node.attributes.get("value")
    if inner.shape is None or axis is None:
        return None
    axis = int(axis) % (len(inner.shape) + 1)
    begin, end, strides = (v.node.attributes["value"] for v in inputs[1:])
    mask = {
        name: node.attributes.get(f"{name}_mask", 0)
        for name in ("begin", "end", "shrink_axis", "new_axis", "ellipsis")
    }
    if len(strides) != axis + 1 or mask["shrink_axis"] != 1 << axis:
        return None
    if mask["new_axis"] or mask["ellipsis"] or begin[axis] not in (0, -1):
        return None
    whole = (1 << axis) - 1
    if mask["begin"] & whole != whole or mask["end"] & whole != whole:
        return None
    return inner if all(stride == 1 for stride in strides) else None


def _is_zero(value):
    array = value.node.attributes.get("value") if value.node.op == "Const" else None
    return array is not None and array.ndim == 0 and array == 0


def _is_index(value):
    """Whether a value is an index that some op computed, hence not negative."""
    while value.node.op in _WRAPPERS and value.dtype is not None:
        if value.dtype.kind not in "iu" or value.dtype.itemsize < 4:
            return False
        value = value.node.inputs[0]
    return value.node.op in ("ArgMax", "ArgMin") or (
        value.node.op == "TopKV2" and value.index == 1
    )
