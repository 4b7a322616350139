"""Noise slots: where an acting program takes its randomness from.

Every random op of a traced acting function becomes one slot. A slot is filled from one
NumPy generator per environment, for many steps at once, so that acting is reproducible
per environment and costs no random-number call at each step.
"""

import dataclasses

import numpy as np

_TINY = np.finfo(np.float64).tiny


@dataclasses.dataclass(frozen=True)
class NoiseSpec:
    """What one random op of an acting function needs at every step.

    Args:
        kind: `"uniform"` (in `[0, 1)`), `"normal"`, `"truncated_normal"` (within two
            standard deviations), `"gumbel"`, `"integers"` (in `[low, high)`),
            `"gamma"` (shape parameters `low`, unit rate).
        shape: tuple of ints, the shape that one environment needs at one step.
        dtype: str, NumPy dtype of the noise.
        low, high: ints, bounds of `"integers"`; `low` is an array or a float for
            `"gamma"`.
        rows: int. The op wants `rows * B` entries along its batch axis: the first axis
            of `shape` holds them when `rows` is not 1.
        axis: int, position of the batch axis in the shape that the op wants.
        transform: tuple of `(ufunc, constant or None, noise is first)`, what is done to
            the noise, in this order, once it is drawn.
        shared: bool. True where the op's shape has no batch axis, so that one draw
            (from the first generator) serves all environments.
    """

    kind: str
    shape: tuple
    dtype: str
    low: object = 0
    high: object = 0
    rows: int = 1
    axis: int = 0
    transform: tuple = ()
    shared: bool = False

    @classmethod
    def from_node(cls, node, batch_sizes, shapes):
        """Finds the batch axis by comparing the op's shapes at several batch sizes.

        Args:
            node: the `ir.Node` of the random op.
            batch_sizes: list of distinct ints.
            shapes: list of int tuples, the op's shape at each batch size.

        Returns:
            A `NoiseSpec`.

        Raises:
            ValueError: if more than one axis depends on the batch size, or one does in
                another way than `rows * batch size`.
        """
        kind, dtype = node.attributes["kind"], node.outputs[0].dtype.name
        low, high = node.attributes.get("low", 0), node.attributes.get("high", 0)
        transform = node.attributes.get("transform", ())
        moving = [
            axis
            for axis in range(len(shapes[0]))
            if any(shape[axis] != shapes[0][axis] for shape in shapes)
        ]
        if not moving:
            shape = tuple(shapes[0])
            return cls(kind, shape, dtype, low, high, transform=transform, shared=True)
        axis = moving[0]
        rows = shapes[0][axis] // batch_sizes[0]
        regular = all(
            shape[axis] == rows * size
            for shape, size in zip(shapes, batch_sizes, strict=True)
        )
        if len(moving) > 1 or not regular or rows < 1 or (axis and rows > 1):
            raise ValueError(
                f"A random op has the shapes {[tuple(s) for s in shapes]} at the batch "
                f"sizes {list(batch_sizes)}. One axis must be the batch size (or, for "
                "the first axis, a multiple of it), so that every environment gets its "
                "own noise. Ask keras.random for a shape that starts with the batch."
            )
        rest = tuple(shapes[0][:axis]) + tuple(shapes[0][axis + 1 :])
        if rows > 1:
            rest = (rows,) + rest
        return cls(kind, rest, dtype, low, high, rows, axis, transform)

    def fill(self, generator, out):
        """Fills `out` (C-contiguous, leading axes free) from one generator.

        Args:
            generator: `numpy.random.Generator`.
            out: array of the slot's working dtype (see `working_dtype`), any shape
                that ends with `shape`.
        """
        if self.kind == "uniform":
            generator.random(out=out, dtype=out.dtype)
        elif self.kind == "normal":
            generator.standard_normal(out=out, dtype=out.dtype)
        elif self.kind == "truncated_normal":
            generator.standard_normal(out=out, dtype=out.dtype)
            flat = out.reshape(-1)
            (beyond,) = np.nonzero(np.abs(flat) >= 2.0)
            while beyond.size:
                flat[beyond] = generator.standard_normal(beyond.size, dtype=out.dtype)
                beyond = beyond[np.abs(flat[beyond]) >= 2.0]
        elif self.kind == "gumbel":
            generator.standard_exponential(out=out)
        elif self.kind == "integers":
            out[...] = generator.integers(self.low, self.high, out.shape, out.dtype)
        elif self.kind == "gamma":
            out[...] = generator.standard_gamma(self.low, out.shape)
        else:
            raise ValueError(f"Unknown kind of noise: received kind={self.kind!r}.")

    @property
    def working_dtype(self):
        """The dtype in which the generators write: at least what they support."""
        if self.kind == "gumbel":
            # Double precision reaches probabilities of 1e-16; single stops at 1e-7.
            return np.dtype(np.float64)
        if self.kind in ("uniform", "normal", "truncated_normal"):
            double = np.dtype(self.dtype) == np.float64
            return np.dtype(np.float64 if double else np.float32)
        return np.dtype(self.dtype)

    def finish(self, drawn):
        """Turns what `fill` wrote into the noise itself, in the slot's dtype."""
        if self.kind == "gumbel":
            # Finite for every draw, so that a class of zero probability (logit -inf)
            # can never win.
            np.maximum(drawn, _TINY, out=drawn)
            np.log(drawn, out=drawn)
            np.negative(drawn, out=drawn)
        drawn = drawn.astype(self.dtype, copy=False)
        with np.errstate(all="ignore"):
            for ufunc, constant, is_first in self.transform:
                operands = [drawn] if constant is None else [drawn, constant]
                if not is_first:
                    operands.reverse()
                drawn = getattr(np, ufunc)(*operands, out=drawn)
        return drawn


def draw_noise(specs, generators, steps):
    """Draws the noise of many steps, environment by environment.

    Column `b` of every array comes from `generators[b]` alone, so that what an
    environment sees depends neither on its neighbours nor on how many there are.

    Args:
        specs: list of `NoiseSpec`.
        generators: list of `B` NumPy generators.
        steps: int, the number of steps to draw for.

    Returns:
        List of arrays `[steps, B, *spec.shape]`, one per spec (`[steps, *spec.shape]`,
        from the first generator, where `spec.shared`).
    """
    count = len(generators)
    drawn = []
    for spec in specs:
        leading = (steps,) if spec.shared else (count, steps)
        drawn.append(np.empty(leading + spec.shape, spec.working_dtype))
    for index, generator in enumerate(generators):
        for spec, out in zip(specs, drawn, strict=True):
            if not spec.shared:
                spec.fill(generator, out[index])
            elif index == 0:
                spec.fill(generator, out)
    noise = []
    for spec, out in zip(specs, drawn, strict=True):
        if not spec.shared:
            out = np.ascontiguousarray(out.swapaxes(0, 1))
        noise.append(spec.finish(out))
    return noise
