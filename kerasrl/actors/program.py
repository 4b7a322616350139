"""The acting program: NumPy source, constants, weights; no TensorFlow.

A `Program` is what rollout workers receive. It pickles, and it runs on NumPy only.
"""

import numpy as np

from kerasrl.actors.noise import draw_noise
from kerasrl.actors.numerics import NAMESPACE


class Program:
    """A compiled acting function.

    Args:
        source: str, Python source that defines `program(inputs, weights, noise)`.
        constants: dict from name to array or dtype, globals of the source.
        weights: list of arrays, what the program reads from the policy. They may be
            views of shared memory; the program never writes to them.
        noise_specs: list of `NoiseSpec`, one per random op.
        num_ops: int, the number of ops that were compiled.

    Example:
        >>> outputs = program.run(inputs, [n[0] for n in program.draw(generators, 1)])
    """

    def __init__(self, source, constants, weights, noise_specs=(), num_ops=0):
        self.source = source
        self.constants = constants
        self.weights = weights
        self.noise_specs = list(noise_specs)
        self.num_ops = num_ops
        self._build()

    def _build(self):
        scope = dict(NAMESPACE)
        scope.update(self.constants)
        exec(compile(self.source, "<kerasrl actor>", "exec"), scope)
        self.function = scope["program"]

    def __getstate__(self):
        state = dict(self.__dict__)
        del state["function"]
        return state

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._build()

    def run(self, inputs, noise=()):
        """Computes the outputs of one step.

        Args:
            inputs: tree of arrays `[B, ...]`, in the structure and dtypes of the
                examples that the program was built from.
            noise: list of arrays `[B, ...]`, one per noise slot.

        Returns:
            Tree of new arrays.
        """
        return self.function(inputs, self.weights, noise)

    def draw(self, generators, steps):
        """Draws noise for many steps; see `noise.draw_noise`."""
        return draw_noise(self.noise_specs, generators, steps)


def tree_paths(tree, path=()):
    """The `(path, leaf)` pairs of a nested dict, tuple or list, in keras.tree's order.

    Args:
        tree: nested dict/tuple/list of leaves. Dicts are walked by sorted key.
        path: tuple, the path of `tree` itself.

    Returns:
        List of `(tuple of keys and positions, leaf)`.

    Raises:
        TypeError: if a container of another type is met.
    """
    if isinstance(tree, dict):
        try:
            keys = sorted(tree)
        except TypeError:
            keys = list(tree)
        pairs = [(key, tree[key]) for key in keys]
    elif type(tree) in (tuple, list):
        pairs = list(enumerate(tree))
    elif isinstance(tree, (tuple, list)):
        raise TypeError(
            f"Received a tree that holds a {type(tree).__name__}. An acting function "
            "takes and returns nested dicts, tuples and lists of tensors: turn it into "
            "a dict (`x._asdict()`) or a tuple."
        )
    else:
        return [(path, tree)]
    found = []
    for key, item in pairs:
        found.extend(tree_paths(item, path + (key,)))
    return found


def tree_text(tree, texts, path=()):
    """Source of a tree whose leaves are the sources `texts[path]`."""
    if isinstance(tree, dict):
        items = [
            f"{key!r}: {tree_text(item, texts, path + (key,))}"
            for key, item in tree.items()
        ]
        return "{" + ", ".join(items) + "}"
    if isinstance(tree, (tuple, list)):
        items = [tree_text(item, texts, path + (k,)) for k, item in enumerate(tree)]
        if isinstance(tree, list):
            return "[" + ", ".join(items) + "]"
        return "(" + "".join(item + ", " for item in items) + ")"
    return texts[path]


def take_rows(array, size):
    """The first `size` rows of an array, starting again where it ends."""
    return array.take(np.arange(size) % len(array), 0)
