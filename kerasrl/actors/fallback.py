"""The TensorFlow engine: the traced graph, compiled again with its noise as inputs.

It serves acting functions that have no NumPy form, and it is what the NumPy programs
are checked against. TensorFlow is imported inside the functions.
"""

from kerasrl.actors.emitter import PROBE_SIZES
from kerasrl.actors.ir import Graph
from kerasrl.actors.noise import NoiseSpec, draw_noise
from kerasrl.actors.program import take_rows, tree_paths
from kerasrl.actors.random_ops import node_definition
from kerasrl.actors.tracing import with_leaves


class TensorFlowEngine:
    """Runs a trace in TensorFlow, with the interface of a `Program`.

    Args:
        trace: `tracing.Trace`.
        noise_specs: list of `NoiseSpec`.
        slots: list of ints, the `index` of the `Random` node of each spec.
    """

    def __init__(self, trace, noise_specs, slots):
        import tensorflow as tf

        self.noise_specs = list(noise_specs)
        self.num_ops = len(trace.graph.nodes)
        self._trace = trace
        self._paths = trace.input_paths
        leaves = tree_paths(trace.output_tree)
        self._positions = [position for _, position in leaves]
        self._leaf_paths = [path for path, _ in leaves]
        self._constant = tf.constant
        self._dtypes = [spec.dtype for spec in trace.specs]
        count, num_weights = len(trace.specs), len(trace.handles)

        def flat(*tensors):
            noise = [
                _arranged(spec, tensor)
                for spec, tensor in zip(
                    noise_specs, tensors[count + num_weights :], strict=True
                )
            ]
            return import_graph(
                trace,
                trace.graph,
                tensors[:count],
                tensors[count : count + num_weights],
                dict(zip(slots, noise, strict=True)),
            )

        signature = list(trace.specs)
        for handle, dtype, _ in trace.handles:
            shape = tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype).shape
            signature.append(tf.TensorSpec(shape, dtype))
        for spec in noise_specs:
            lead = () if spec.shared else (None,)
            signature.append(tf.TensorSpec(lead + spec.shape, spec.dtype))
        self._run = tf.function(flat, autograph=False).get_concrete_function(*signature)
        self.refresh()

    def refresh(self):
        """Takes the present values of the variables.

        Variables that are read inside a loop or a branch are always read as they are.
        """
        import tensorflow as tf

        # TensorFlow's tensors are values: a later assignment does not change them.
        self.weights = [
            tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype)
            for handle, dtype, _ in self._trace.handles
        ]

    def run(self, inputs, noise=()):
        """Computes the outputs of one step; see `Program.run`."""
        tensors = []
        for path, dtype in zip(self._paths, self._dtypes, strict=True):
            leaf = inputs
            for key in path:
                leaf = leaf[key]
            tensors.append(self._constant(leaf, dtype))
        tensors.extend(self.weights)
        tensors.extend(map(self._constant, noise))
        outputs = self._run(*tensors)
        arrays = {
            path: outputs[position].numpy()
            for path, position in zip(self._leaf_paths, self._positions, strict=True)
        }
        return with_leaves(self._trace.output_tree, arrays)

    def draw(self, generators, steps):
        """Draws noise for many steps; see `noise.draw_noise`."""
        return draw_noise(self.noise_specs, generators, steps)


def _arranged(spec, noise):
    """Brings a noise slot into the shape that its op has."""
    import tensorflow as tf

    if spec.rows > 1:
        return tf.reshape(noise, (-1,) + spec.shape[1:])
    if spec.axis:
        order = list(range(1, len(spec.shape) + 1))
        order.insert(spec.axis, 0)
        return tf.transpose(noise, order)
    return noise


def import_graph(trace, graph, inputs, weights, noise):
    """Puts an `ir.Graph` into the TensorFlow graph under construction.

    Args:
        trace: `tracing.Trace` that the graph belongs to.
        graph: `Graph`.
        inputs, weights: lists of tensors.
        noise: dict from the `index` of `Random` nodes to tensors; the other random
            ops become zeros.

    Returns:
        List of tensors, one per output of the graph.
    """
    import tensorflow as tf

    definition = tf.compat.v1.GraphDef()
    definition.versions.producer = tf.version.GRAPH_DEF_VERSION
    names, feeds = {}, {}
    needs_library = False

    def feed(name, tensor):
        made = node_definition("Placeholder", dtype=tensor.dtype)
        made.name = name
        definition.node.append(made)
        feeds[f"{name}:0"] = tensor

    def reference(value):
        return f"{names[value.node]}:{value.index}"

    for k, node in enumerate(graph.nodes):
        name = names[node] = f"op{k}"
        index = node.attributes.get("index")
        if node.op == "Input":
            feed(name, inputs[index])
        elif node.op == "Weight":
            feed(name, weights[index])
        elif node.op == "Resource":
            # `identity` brings an eager tensor into the graph.
            feed(name, tf.identity(trace.resources[index]))
        elif node.op == "Random" and index in noise:
            feed(name, noise[index])
        elif node.op == "Random":
            shape, dtype = node.inputs[0], node.outputs[0].dtype
            feed(f"{name}_zero", tf.zeros((), dtype))
            made = node_definition("Fill", T=dtype, index_type=shape.dtype)
            made.name = name
            made.input.extend([reference(shape), f"{name}_zero:0"])
            definition.node.append(made)
        elif node.definition is None:
            feed(name, tf.constant(node.attributes["value"]))
        else:
            made = definition.node.add()
            made.CopyFrom(node.definition)
            made.name = name
            del made.input[:]
            made.input.extend(reference(value) for value in node.inputs)
            made.attr.pop("_class", None)
            needs_library |= any(
                attr.HasField("func") or attr.list.func for attr in made.attr.values()
            )
    if needs_library:
        definition.library.CopyFrom(trace.library)
    wanted = [reference(value) for value in graph.outputs]
    return tf.graph_util.import_graph_def(
        definition, input_map=feeds, return_elements=wanted, name=""
    )


def random_shapes(trace, examples):
    """Finds the noise slots of a trace by running it at several batch sizes.

    Args:
        trace: `tracing.Trace`.
        examples: list of arrays `[N, ...]`, one per input.

    Returns:
        `(list of NoiseSpec, list of the Random nodes' indices)`.

    Raises:
        ValueError: if a random op's shape depends on the batch in an irregular way.
    """
    import tensorflow as tf

    nodes = [node for node in trace.graph.nodes if node.op == "Random"]
    if not nodes:
        return [], []
    shapes = Graph(trace.graph.nodes, [node.inputs[0] for node in nodes]).pruned()

    def flat(*tensors):
        weights = [
            tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype)
            for handle, dtype, _ in trace.handles
        ]
        return import_graph(trace, shapes, tensors, weights, {})

    run = tf.function(flat, autograph=False).get_concrete_function(*trace.specs)
    found = []
    for size in PROBE_SIZES:
        tensors = [tf.constant(take_rows(array, size)) for array in examples]
        found.append([tuple(shape.numpy().tolist()) for shape in run(*tensors)])
    specs = [
        NoiseSpec.from_node(node, PROBE_SIZES, shapes)
        for node, shapes in zip(nodes, zip(*found, strict=True), strict=True)
    ]
    return specs, [node.attributes["index"] for node in nodes]
