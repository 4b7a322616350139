"""Writing a graph as straight-line NumPy source.

An `Emitter` holds the names and the ownership of arrays; the kernels of `kernels` and
`kernels_array` call it to write one node at a time.
"""

import numpy as np

from kerasrl.actors.ir import Unsupported
from kerasrl.actors.kernels import KERNELS

PROBE_SIZES = (2, 3, 5)
# NumPy wants `out` by name here; by position is a little faster elsewhere.
_KEYWORD_ONLY = ("maximum", "minimum")


class Linear:
    """A size that depends on the batch: `slope * B + offset`."""

    __slots__ = ("slope", "offset")

    def __init__(self, slope, offset):
        self.slope = slope
        self.offset = offset

    def __eq__(self, other):
        return (
            isinstance(other, Linear)
            and self.slope == other.slope
            and self.offset == other.offset
        )

    def __hash__(self):
        return hash((self.slope, self.offset))

    def __str__(self):
        text = "B" if self.slope == 1 else f"{self.slope} * B"
        return text if not self.offset else f"({text} + {self.offset})"


def fit_size(sizes):
    """The int or `Linear` that gives `sizes` at `PROBE_SIZES`.

    Raises:
        Unsupported: if no linear function does.
    """
    first, second, third = (int(size) for size in sizes)
    if first == second == third:
        return first
    slope = second - first
    offset = first - slope * PROBE_SIZES[0]
    if slope * PROBE_SIZES[2] + offset != third:
        raise Unsupported(f"a size that is not linear in the batch: {list(sizes)}")
    return Linear(slope, offset)


class Facts:
    """What the probe found out about a graph.

    Args:
        shapes: dict from `Value` to a tuple of ints and `Linear`.
        derived: dict from integer `Value`s that depend on shapes alone to flat lists
            of ints and `Linear`.
        fixed: dict from `Value`s that depend on shapes alone, and are the same at every
            batch size, to their arrays.
    """

    def __init__(self):
        self.shapes = {}
        self.derived = {}
        self.fixed = {}


class Emitter:
    """Writes the lines of a program; kernels talk to it.

    Without `facts` it writes the probing form: nothing in place, shapes read at run
    time. With them it writes the final form.

    Args:
        graph: `Graph`.
        facts: `Facts` or None.
    """

    def __init__(self, graph, facts=None):
        self.facts = facts
        self.lines = []
        self.constants = {}
        self.names = {}
        self.roots = {}
        self.owned = set()
        self.node = None
        self.needs_batch = False
        self.is_risky = False
        self._constant_keys = {}
        self._count = 0
        self._readers = {}
        for node in graph.nodes:
            for value in node.inputs:
                self._readers[value] = self._readers.get(value, 0) + 1
        for value in graph.outputs:
            self._readers[value] = self._readers.get(value, 0) + 1

    # -- what kernels ask --------------------------------------------------------------

    @property
    def out_dtype(self):
        """NumPy dtype of output 0."""
        return self.output_dtype(0)

    def output_dtype(self, k):
        """NumPy dtype of output `k`."""
        dtype = self.node.outputs[k].dtype
        if dtype is None:
            raise Unsupported("a dtype that NumPy does not have", self.node)
        return dtype

    def dtype(self, i):
        """NumPy dtype of input `i`."""
        return self.node.inputs[i].dtype

    def attr(self, name, default=None):
        """An attribute of the node."""
        return self.node.attributes.get(name, default)

    def const(self, i):
        """The array of input `i` if it is a constant, else None."""
        node = self.node.inputs[i].node
        return node.attributes["value"] if node.op == "Const" else None

    def need(self, i, what):
        """The array of input `i`, which must be a constant."""
        array = self.const(i)
        if array is None:
            raise Unsupported(f"{self.node.op} where {what} is computed", self.node)
        return array

    def shape(self, i):
        """Shape of input `i`: a tuple of ints, `Linear` and (when probing) None."""
        return self._shape_of(self.node.inputs[i])

    def rank(self, i):
        """Rank of input `i`."""
        shape = self.shape(i)
        if shape is None:
            raise Unsupported(f"{self.node.op} of an unknown rank", self.node)
        return len(shape)

    def size(self, i, axis):
        """Source of the size of one axis of input `i`."""
        size = self.shape(i)[axis]
        if size is None:
            return f"{self.arg(i)}.shape[{axis}]"
        return self._size_text(size)

    def known_shape(self):
        """Source of output 0's shape in the final form, None when probing."""
        if self.facts is None:
            return None
        sizes = self.facts.shapes[self.node.outputs[0]]
        moving = [size for size in sizes if isinstance(size, Linear)]
        if len(moving) == 1 and self.node.op in ("Reshape", "Squeeze"):
            texts = ["-1" if isinstance(size, Linear) else str(size) for size in sizes]
            if not any(size == 0 for size in sizes):
                return f"({', '.join(texts)},)"
        return f"({''.join(self._size_text(size) + ', ' for size in sizes)})"

    def keeps_shape(self):
        """Whether output 0 is known to have the shape of input 0."""
        if self.facts is None:
            return False
        shapes = self.facts.shapes
        return shapes[self.node.outputs[0]] == shapes[self.node.inputs[0]]

    def int_items(self, i, count):
        """Sources of the `count` ints that input `i` holds."""
        value = self.node.inputs[i]
        array = self.const(i)
        if array is not None:
            return [str(int(item)) for item in array.reshape(-1)]
        if self.facts is None:
            return [f"int({self.arg(i)}[{k}])" for k in range(count)]
        if value not in self.facts.derived:
            raise Unsupported(f"{self.node.op} with a shape made of data", self.node)
        return [self._size_text(item) for item in self.facts.derived[value]]

    def ints(self, i):
        """Source of the tuple of ints that input `i` holds."""
        array = self.const(i)
        if array is None and self.facts is None:
            return f"{self.arg(i)}.tolist()"
        return f"({''.join(item + ', ' for item in self.int_items(i, 0))})"

    def number(self, i):
        """Source of the number that input `i` holds."""
        array = self.const(i)
        if array is not None:
            return repr(array.item())
        value = self.node.inputs[i]
        if self.facts is not None:
            if value not in self.facts.derived:
                raise Unsupported(f"{self.node.op} with a bound made of data")
            return self._size_text(self.facts.derived[value][0])
        return self.arg(i)

    def arg(self, i):
        """Name of input `i`."""
        return self.operand(self.node.inputs[i])

    def is_used(self, k):
        """Whether anything reads output `k`."""
        return self._readers.get(self.node.outputs[k], 0) > 0

    def reusable(self, *candidates):
        """Name of an input whose memory output 0 may take over, or None."""
        if self.facts is None:
            return None
        out = self.node.outputs[0]
        shape = self.facts.shapes[out]
        if not shape:
            return None
        for i in candidates:
            value = self.node.inputs[i]
            root = self.roots.get(value)
            if (
                root is value
                and root in self.owned
                and value.dtype == out.dtype
                and self.facts.shapes[value] == shape
                and self._later_readers(root) == 0
            ):
                return self.names[value]
        return None

    # -- what kernels write ------------------------------------------------------------

    def new(self):
        """A fresh local name."""
        self._count += 1
        return f"t{self._count}"

    def name(self, item):
        """Global name of a constant array or dtype."""
        if isinstance(item, np.dtype):
            self.constants.setdefault(item.name, item)
            return item.name
        key = (item.dtype.str, item.shape, item.tobytes())
        if key not in self._constant_keys:
            name = f"c{len(self._constant_keys)}"
            self._constant_keys[key] = name
            self.constants[name] = item
        return self._constant_keys[key]

    def line(self, text):
        """Writes one line."""
        self.lines.append(text)

    def assign(self, text):
        """Writes `name = text` with a fresh name, which it returns."""
        name = self.new()
        self.line(f"{name} = {text}")
        return name

    def apply(self, ufunc, *operands, into=None):
        """Calls a ufunc, in place where `into` names an array; returns the name."""
        text = ", ".join(operands)
        if into is None or self.facts is None or not self._makes_array():
            return self.assign(f"{ufunc}({text})")
        keyword = "out=" if ufunc in _KEYWORD_ONLY else ""
        self.line(f"{ufunc}({text}, {keyword}{into})")
        return into

    def fresh(self, name, k=0):
        """Binds output `k` to an array that nothing else holds."""
        value = self.node.outputs[k]
        self.names[value] = name
        self.roots[value] = value
        self.owned.add(value)

    def view(self, name, i, k=0):
        """Binds output `k` to an array that may share memory with input `i`."""
        value, source = self.node.outputs[k], self.node.inputs[i]
        self.names[value] = name
        self.roots[value] = self.roots.get(source, source)

    def bind_source(self, value, name):
        """Binds an array that belongs to the caller: it is never written to."""
        self.names[value] = name
        self.roots[value] = value

    def risky(self):
        """Says that the node may overflow or divide by zero without being wrong."""
        self.is_risky = True

    # -- the rest ----------------------------------------------------------------------

    def operand(self, value):
        """Source text by which a value is read."""
        if value in self.names:
            return self.names[value]
        if value.node.op == "Const":
            name = self.name(value.node.attributes["value"])
        elif self.facts is not None and value in self.facts.derived:
            items = [self._size_text(item) for item in self.facts.derived[value]]
            inside = f"[{', '.join(items)}]" if self.facts.shapes[value] else items[0]
            return f"array({inside}, {self.name(value.dtype)})"
        else:
            raise Unsupported(f"{value.node.op} as an operand", value.node)
        return name

    def _makes_array(self):
        return bool(self.facts.shapes[self.node.outputs[0]])

    def _shape_of(self, value):
        return value.shape if self.facts is None else self.facts.shapes[value]

    def _size_text(self, size):
        if isinstance(size, Linear):
            self.needs_batch = True
        return str(size)

    def _later_readers(self, root):
        here = sum(1 for v in self.node.inputs if self.roots.get(v) is root)
        left = sum(
            self._readers.get(value, 0)
            for value, other in self.roots.items()
            if other is root
        )
        return left - here

    def emit(self, node):
        """Writes one node."""
        self.node = node
        if node.op not in KERNELS:
            raise Unsupported(f"{node.op} has no NumPy form", node)
        if any(value.dtype is None for value in node.inputs + node.outputs):
            raise Unsupported(f"{node.op} of a dtype that NumPy does not have", node)
        try:
            KERNELS[node.op](self)
        except Unsupported as error:
            error.node = error.node or node
            raise
        for value in node.inputs:
            self._readers[value] -= 1
