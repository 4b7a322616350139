"""From a graph to the source of a NumPy program.

Three passes. `ir.simplify` folds constants. `probe` runs the graph node by node in
NumPy at three batch sizes and so learns every shape as a linear function of the batch
size, and what depends on shapes alone. `Emitter` then writes straight-line source that
works in place wherever an array has no other reader.
"""

import math
from typing import NamedTuple

import numpy as np

from kerasrl.actors import kernels_array  # noqa: F401  (registers its kernels)
from kerasrl.actors.emitter import PROBE_SIZES, Emitter, Facts, Linear, fit_size
from kerasrl.actors.ir import SOURCES, Graph, Unsupported, constant, simplify
from kerasrl.actors.kernels import KERNELS
from kerasrl.actors.noise import NoiseSpec
from kerasrl.actors.numerics import NAMESPACE
from kerasrl.actors.program import Program, tree_paths, tree_text
from kerasrl.actors.rewrites import merge_gates, shortcut

# A rounding error in the operands of these may change the result altogether.
DISCONTINUOUS = frozenset(
    "ArgMax ArgMin TopKV2 Equal NotEqual Less LessEqual Greater GreaterEqual Floor "
    "Ceil Rint Round Sign FloorDiv FloorMod TruncateMod TruncateDiv LowerBound "
    "UpperBound IsNan IsInf IsFinite Bitcast Cast".split()
)
_SHAPE_OPS = ("Shape", "ShapeN", "Size", "Rank")


def fold(node):
    """Runs one node whose inputs are constants; returns its outputs."""
    emitter = Emitter(Graph([node], node.outputs))
    emitter.emit(node)
    scope = dict(NAMESPACE)
    scope.update(emitter.constants)
    with np.errstate(all="ignore"):
        exec("\n".join(emitter.lines), scope)
    results = []
    for value in node.outputs:
        array = np.asarray(scope[emitter.names[value]])
        if array.dtype != value.dtype:
            raise Unsupported(f"{node.op} gave {array.dtype}", node)
        results.append(np.array(array))
    return results


def probe(graph, examples, weights, seed=0):
    """Runs a graph at `PROBE_SIZES` and gathers what holds at every batch size.

    Args:
        graph: simplified `Graph`.
        examples: list of arrays `[N, ...]`, one per `Input` node, `N >= 1`.
        weights: list of arrays, one per `Weight` node.
        seed: int, for the noise used while probing.

    Returns:
        `Facts`.

    Raises:
        Unsupported: if a node has no NumPy form.
    """
    emitter = Emitter(graph)
    keep = {}
    for node in graph.nodes:
        if node.op == "Const":
            continue
        if node.op in SOURCES:
            source = f"{node.op.lower()}s[{node.attributes['index']}]"
            if node.op not in ("Input", "Weight"):
                raise Unsupported(f"{node.op} has no NumPy form", node)
            emitter.names[node.outputs[0]] = source
        elif node.op == "Random":
            emitter.node = node
            dtype = emitter.name(node.outputs[0].dtype)
            kind = node.attributes["kind"]
            emitter.fresh(
                emitter.assign(f"random({kind!r}, {emitter.ints(0)}, {dtype})")
            )
        else:
            emitter.emit(node)
        for value in node.outputs:
            if value in emitter.names:
                keep[value] = emitter.names[value]
    source = "\n".join(emitter.lines)
    code = compile(source, "<kerasrl actor probe>", "exec")
    arrays = []
    for size in PROBE_SIZES:
        generator = np.random.default_rng(seed)

        def random(kind, shape, dtype, generator=generator):
            spec = NoiseSpec(kind, tuple(shape), dtype.name, low=1, high=2)
            out = np.empty(shape, spec.working_dtype)
            spec.fill(generator, out)
            return spec.finish(out)

        scope = dict(NAMESPACE)
        scope.update(emitter.constants)
        scope["random"] = random
        scope["weights"] = weights
        scope["inputs"] = [
            array.take(np.arange(size) % len(array), 0) for array in examples
        ]
        with np.errstate(all="ignore"):
            exec(code, scope)
        found = {value: eval(name, scope) for value, name in keep.items()}
        arrays.append(found)
    return _facts(graph, arrays)


def _facts(graph, arrays):
    facts = Facts()
    from_shapes = set()
    for node in graph.nodes:
        if node.op == "Const":
            value = node.outputs[0]
            facts.shapes[value] = node.attributes["value"].shape
            continue
        from_shapes_alone = node.op in _SHAPE_OPS or (
            any(value in from_shapes for value in node.inputs)
            and node.op != "Random"
            and all(
                value in from_shapes or value.node.op == "Const"
                for value in node.inputs
            )
        )
        for value in node.outputs:
            if value not in arrays[0]:
                continue
            found = [np.asarray(each[value]) for each in arrays]
            if found[0].dtype != value.dtype:
                raise Unsupported(
                    f"{node.op} gave {found[0].dtype} instead of {value.dtype}", node
                )
            if len({array.ndim for array in found}) > 1:
                raise Unsupported(f"{node.op} of a changing rank", node)
            sizes = zip(*(array.shape for array in found), strict=True)
            shape = tuple(fit_size(size) for size in sizes)
            facts.shapes[value] = shape
            if from_shapes_alone:
                from_shapes.add(value)
                _note_derived(facts, value, found)
    return facts


def _note_derived(facts, value, found):
    if any(isinstance(size, Linear) for size in facts.shapes[value]):
        return
    if all(np.array_equal(found[0], other) for other in found[1:]):
        facts.fixed[value] = found[0]
    elif found[0].dtype.kind in "iu":
        items = zip(*(array.reshape(-1) for array in found), strict=True)
        try:
            facts.derived[value] = [fit_size(item) for item in items]
        except Unsupported:
            pass  # It stays a computation; only its use as a size is refused.


def settle(graph, facts):
    """Turns what came out the same at every batch size into constants.

    Args:
        graph: `Graph` that was probed.
        facts: `Facts`.

    Returns:
        A pruned `Graph` in which shape arithmetic is gone, except where it depends on
        the batch size in a way that is not linear.
    """
    fixed = {}
    for value, array in facts.fixed.items():
        fixed[value] = constant(array, value.node.name)
        facts.shapes[fixed[value]] = array.shape
    for node in graph.nodes:
        node.inputs = [fixed.get(value, value) for value in node.inputs]
    outputs = [fixed.get(value, value) for value in graph.outputs]
    nodes = [value.node for value in fixed.values()] + graph.nodes
    return _without_shape_arithmetic(Graph(nodes, outputs), facts)


def _without_shape_arithmetic(graph, facts):
    """Drops nodes that are read only as sizes, which the source spells out."""
    needed = set()
    pending = [value for value in graph.outputs if value not in facts.derived]
    while pending:
        node = pending.pop().node
        if node in needed:
            continue
        needed.add(node)
        pending.extend(v for v in node.inputs if v not in facts.derived)
    nodes = [node for node in graph.nodes if node in needed]
    return Graph(nodes, graph.outputs)


def lower(graph, examples, weights):
    """Simplifies and probes a graph until its shapes are known.

    Args:
        graph: `Graph`.
        examples: list of arrays `[N, ...]`, one per input.
        weights: list of arrays.

    Returns:
        `(graph, facts)` ready for the final `Emitter`.

    Raises:
        Unsupported: if a node has no NumPy form.
    """
    graph = merge_gates(simplify(graph, fold, [shortcut]))
    missing = [
        node
        for node in graph.nodes
        if node.op not in KERNELS and node.op not in SOURCES + ("Random",)
    ]
    if missing:
        places = ", ".join(f"{node.op} (at {node.name})" for node in missing[:8])
        raise Unsupported(f"no NumPy form for {places}", missing[0])
    facts = probe(graph, examples, weights)
    return settle(graph, facts), facts


class Compilation(NamedTuple):
    """What `compile_program` returns.

    Args:
        program: `Program`; its list of weights is still empty.
        weights: list of ints, which weights the program reads, in its order.
        slots: list of ints, which `Random` nodes (by attribute `index`) the noise
            slots belong to, in the program's order.
        flops: int, multiply-adds times two of the matrix products at batch size 1.
        watched: list of values of the given graph, where rounding is amplified (the
            floating-point operands of `DISCONTINUOUS` ops).
        watched_source: str, the program's source, with a fourth argument: a list to
            which copies of the watched values are appended.
    """

    program: Program
    weights: list
    slots: list
    flops: float
    watched: list
    watched_source: str


def compile_program(graph, input_paths, output_tree, examples, weights):
    """Compiles a graph into a `Program`.

    Args:
        graph: `ir.Graph`. Its `Input` nodes have the attribute `index`, a position in
            `input_paths`; its `Weight` nodes one in `weights`; its `Random` nodes have
            `index`, `kind`, `low` and `high`.
        input_paths: list of tuples, where each input lies in the input tree.
        output_tree: tree whose leaves are positions in `graph.outputs`.
        examples: list of arrays `[N, ...]`, one per input.
        weights: list of arrays.

    Returns:
        A `Compilation`.

    Raises:
        Unsupported: if some op has no NumPy form.
    """
    num_ops = len(graph.nodes)
    graph, facts = lower(graph, examples, weights)
    emitter = Emitter(graph, facts)
    specs, slots, flops, watched = [], [], 0.0, []
    names = {"Input": {}, "Weight": {}}
    for node in graph.nodes:
        if node.op == "Const":
            continue
        value = node.outputs[0]
        if node.op in names:
            prefix = "x" if node.op == "Input" else "w"
            name = f"{prefix}{node.attributes['index']}"
            names[node.op][node.attributes["index"]] = name
            emitter.bind_source(value, name)
        elif node.op == "Random":
            specs.append(noise_spec(node, facts.shapes[value]))
            name = noise_text(specs[-1], f"n{len(slots)}")
            slots.append(node.attributes["index"])
            if not name.isidentifier():
                name = emitter.assign(name)
            emitter.bind_source(value, name)
        else:
            watched.extend(
                (len(emitter.lines), emitter.operand(value), source)
                for value, source in _amplified(node)
            )
            emitter.emit(node)
            flops += _flops(node, facts)
    texts = _output_texts(graph, emitter)
    head = [
        f"{name} = inputs{''.join(f'[{key!r}]' for key in input_paths[index])}"
        for index, name in names["Input"].items()
    ]
    order = sorted(names["Weight"])
    if order:
        head.append("".join(names["Weight"][i] + ", " for i in order) + "= weights")
    if specs:
        head.append("".join(f"n{k}, " for k in range(len(specs))) + "= noise")
    if emitter.needs_batch:
        # The batch size is wanted even where no input's values are.
        path = "".join(f"[{key!r}]" for key in input_paths[0])
        head.append(f"B = inputs{path}.shape[0]")
    returned = {path: texts[leaf] for path, leaf in tree_paths(output_tree)}
    end = [f"return {tree_text(output_tree, returned)}"]

    def source(arguments, lines):
        body = head + lines + end
        if emitter.is_risky:
            body = ["with errstate(all='ignore'):"] + ["    " + line for line in body]
        body = "\n".join("    " + line for line in body)
        return f"def program({arguments}):\n{body}\n"

    lines = list(emitter.lines)
    for place, text, _ in reversed(watched):
        lines.insert(place, f"watched.append(array({text}))")
    program = Program(
        source("inputs, weights, noise", emitter.lines),
        emitter.constants,
        [],
        specs,
        num_ops,
    )
    return Compilation(
        program,
        order,
        slots,
        flops,
        [value for _, _, value in watched],
        source("inputs, weights, noise, watched", lines),
    )


def _amplified(node):
    """The floating-point operands of a `DISCONTINUOUS` op, with their origins."""
    if node.op not in DISCONTINUOUS or node.origin is None:
        return []
    if node.op == "Cast" and node.outputs[0].dtype.kind not in "iub":
        return []
    return [
        (value, source)
        for value, source in zip(node.inputs, node.origin.inputs, strict=True)
        if value.dtype is not None
        and value.dtype.kind == "f"
        and value.node.op not in (*SOURCES, "Random")
    ]


def _output_texts(graph, emitter):
    """Sources of the outputs: arrays that neither the program nor a caller shares."""
    texts, taken = [], set()
    for value in graph.outputs:
        text = emitter.operand(value)
        root = emitter.roots.get(value)
        if not emitter.facts.shapes[value]:
            text = f"array({text})"
        elif value.node.op == "Const" or root is not None:
            if root not in emitter.owned or root in taken:
                text += ".copy()"
            taken.add(root)
        texts.append(text)
    return texts


def _flops(node, facts):
    products = ("MatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum")
    if node.op not in products or len(node.inputs) != 2:
        return 0.0
    sizes = []
    for value in (*node.inputs, node.outputs[0]):
        dims = [
            size.slope + size.offset if isinstance(size, Linear) else size
            for size in facts.shapes[value]
        ]
        sizes.append(float(np.prod(dims)))
    # [m, k] x [k, n] -> [m, n]: the product of the three sizes is (m k n) squared.
    return 2.0 * math.sqrt(sizes[0] * sizes[1] * sizes[2])


def noise_spec(node, shape):
    """The `NoiseSpec` of a `Random` node.

    Args:
        node: the node.
        shape: tuple of ints and `Linear`.

    Raises:
        Unsupported: if the batch axis cannot be found.
    """
    sizes = (2, 3)
    shapes = [
        tuple(
            size.slope * batch + size.offset if isinstance(size, Linear) else size
            for size in shape
        )
        for batch in sizes
    ]
    try:
        spec = NoiseSpec.from_node(node, sizes, shapes)
    except ValueError as error:
        raise Unsupported(str(error), node) from None
    if spec.shared:
        raise Unsupported(
            f"a random op (at {node.name}) of the shape {shapes[0]}, which has no "
            "batch axis: all environments share its noise",
            node,
        )
    return spec


def noise_text(spec, name):
    """Source that brings a noise slot into the shape its op has."""
    if spec.rows > 1:
        return f"{name}.reshape(({', '.join(['-1', *map(str, spec.shape[1:])])},))"
    if spec.axis:
        order = list(range(1, len(spec.shape) + 1))
        order.insert(spec.axis, 0)
        return f"{name}.transpose({', '.join(map(str, order))})"
    return name
