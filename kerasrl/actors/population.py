"""One acting program for many sets of weights at once.

The rows of a program's inputs are environments that share its weights. Where each row
has weights of its own, products of matrices become products of stacks, and biases,
which stand in rows already, need no change. NumPy is then called as often for a
hundred policies as for one. Products with what all rows share are taken row by row
too: those of whole matrices round otherwise for another number of rows.
"""

import ast

import numpy as np
import optree

from kerasrl.actors.numerics import NAMESPACE
from kerasrl.actors.program import Program

_SIZES = (3, 4)


class PopulationProgram:
    """A program whose rows act by weights of their own.

    What a row gets does not depend on the other rows, nor on how many there are, to the
    last bit. Pickles, so that workers can be given one.

    Args:
        program: `Program` without noise.
        own: List of integers, which of `program.weights` each row has for itself.
        size: Integer, the most rows.
        is_stacked: Whether all rows are computed at once; else one after the other. See
            `can_stack`.
    """

    def __init__(self, program, own, size, is_stacked):
        self.size = size
        self.is_stacked = is_stacked
        self._own = list(own)
        self._shared = list(program.weights)
        self._program = program
        if is_stacked:
            source = stacked_source(program.source, self._names())
            constants = {**program.constants, "rowwise": rowwise, "each_row": each_row}
            self._program = Program(source, constants, [])
        #: Weights as the program takes them, by the number of rows.
        self._views = {}
        self._stacks = [
            np.zeros(
                (size, *program.weights[index].shape), program.weights[index].dtype
            )
            for index in self._own
        ]

    @property
    def vector_size(self):
        """Number of weights that a row has for itself."""
        return sum(stack[0].size for stack in self._stacks)

    def share(self, weights):
        """Sets all that the program reads, of which rows use what is not their own.

        Args:
            weights: List of arrays like `program.weights`.
        """
        self._shared = list(weights)
        self._views.clear()

    def write(self, row, vector):
        """Sets the own weights of a row.

        Args:
            row: Integer.
            vector: Float `[vector_size]`, the weights one after the other.
        """
        start = 0
        for stack in self._stacks:
            weight = stack[row]
            stop = start + weight.size
            weight[...] = vector[start:stop].reshape(weight.shape)
            start = stop

    def move(self, source, target):
        """Gives a row the weights of another."""
        for stack in self._stacks:
            stack[target] = stack[source]

    def run(self, inputs, count=None):
        """Computes the outputs of one step of the first rows.

        Args:
            inputs: Tree of arrays `[N, ...]`, N at most `size`.
            count: Integer N, or `None`.

        Returns:
            Tree of arrays `[N, ...]`.
        """
        if count is None:
            count = len(optree.tree_leaves(inputs)[0])
        if self.is_stacked:
            weights = self._views.get(count)
            if weights is None:
                weights = self._weights([stack[:count] for stack in self._stacks])
                self._views[count] = weights
            return self._program.function(inputs, weights, ())
        outputs = []
        for row in range(count):
            one = optree.tree_map(lambda leaf, row=row: leaf[row : row + 1], inputs)
            own = [stack[row] for stack in self._stacks]
            outputs.append(self._program.function(one, self._weights(own), ()))
        return optree.tree_map(lambda *leaves: np.concatenate(leaves), *outputs)

    def _weights(self, own):
        weights = list(self._shared)
        for index, weight in zip(self._own, own, strict=True):
            weights[index] = weight
        return weights

    def _names(self):
        """The names that the source gives to the own weights."""
        return {weight_names(self._program.source)[index] for index in self._own}


def can_stack(program, own, inputs):
    """Whether rows with weights of their own can be computed all at once.

    Tries it on drawn weights, against one row after the other.

    Args:
        program, own: As for `PopulationProgram`.
        inputs: Tree of arrays `[N, ...]`, rows that differ.

    Returns:
        Bool.
    """
    try:
        stacked_source(
            program.source, {weight_names(program.source)[index] for index in own}
        )
    except NotStackable:
        return False
    generator = np.random.default_rng(0)
    for size in _SIZES:
        together, alone = (
            PopulationProgram(program, own, size, is_stacked)
            for is_stacked in (True, False)
        )
        for row in range(size):
            vector = generator.standard_normal(alone.vector_size)
            together.write(row, vector)
            alone.write(row, vector)
        rows = optree.tree_map(
            lambda leaf, size=size: leaf.take(np.arange(size) % len(leaf), 0), inputs
        )
        try:
            outputs = [each.run(rows) for each in (together, alone)]
        except (ValueError, IndexError, TypeError):
            return False
        pairs = zip(*map(optree.tree_leaves, outputs), strict=True)
        if not all(_agree(*pair) for pair in pairs):
            return False
    return True


class NotStackable(Exception):
    """A program uses a weight in a way that has no form for stacks."""


def weight_names(source):
    """Returns the names of all weights in the source of a program, in their order."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name):
            if node.value.id == "weights":
                return [element.id for element in node.targets[0].elts]
    return []


def stacked_source(source, names):
    """Rewrites a program for weights that are stacks.

    Args:
        source: str, as of a `Program`.
        names: Set of strings, the names of those weights in it.

    Returns:
        str.

    Raises:
        NotStackable: One is used otherwise than in a product with rows, or entry by
            entry.
    """
    tree = ast.parse(source)
    rewritten = _Stacking(names).visit(tree)
    for node in ast.walk(rewritten):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            if node.id in names:
                raise NotStackable(node.id)
    text = ast.unparse(rewritten)
    for name in names:
        text = text.replace(_marked(name), name)
    return text


class _Stacking(ast.NodeTransformer):
    """Marks the uses of stacked weights that are understood."""

    def __init__(self, names):
        self._names = names

    def visit_Call(self, node):
        self.generic_visit(node)
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr == "dot":
            name, (argument,) = "each_row", node.args
            if self._is_stack(argument):
                name, argument = "rowwise", self._mark(argument)
            arguments = [function.value, argument]
            return ast.Call(ast.Name(name, ast.Load()), arguments, [])
        if isinstance(function, ast.Name) and _is_entrywise(function.id):
            node.args = [
                self._mark(each) if self._is_stack(each) else each for each in node.args
            ]
        return node

    def _is_stack(self, node):
        return isinstance(node, ast.Name) and node.id in self._names

    def _mark(self, node):
        return ast.Name(_marked(node.id), ast.Load())


def _marked(name):
    return f"stacked_{name}_"


def _is_entrywise(name):
    function = NAMESPACE.get(name)
    return isinstance(function, np.ufunc) and function.signature is None


def rowwise(rows, matrices):
    """Multiplies each row by a matrix of its own.

    Args:
        rows: Float `[N, F]`.
        matrices: Float `[N, F, G]`.

    Returns:
        Float `[N, G]`.
    """
    if rows.ndim != 2:
        raise ValueError("Rows with weights of their own must be vectors.")
    return np.matmul(rows[:, None, :], matrices)[:, 0, :]


def each_row(rows, matrix):
    """Multiplies each row by the same matrix, as if it were the only one.

    Args:
        rows: Float `[..., F]`.
        matrix: Float `[F, G]`.

    Returns:
        Float `[..., G]`, the same bits for a row whatever the others are.
    """
    return np.matmul(rows[..., None, :], matrix)[..., 0, :]


def _agree(together, alone):
    if together.shape != alone.shape or together.dtype != alone.dtype:
        return False
    if together.dtype.kind == "f":
        return np.allclose(together, alone, rtol=1e-4, atol=1e-5)
    return np.array_equal(together, alone)
