"""Whether a NumPy program does what TensorFlow does, asked before it acts.

Everything that could hide a difference is drawn at random: inputs, noise and weights.
Rows of zeros and the zero biases of a fresh network satisfy almost any program.
"""

import numpy as np

from kerasrl.actors.fallback import TensorFlowEngine
from kerasrl.actors.ir import Graph
from kerasrl.actors.numerics import NAMESPACE
from kerasrl.actors.program import take_rows, tree_paths
from kerasrl.actors.tracing import with_leaves

#: Rows of a batch on which the engines are compared.
ROWS = 5
_DRAWS = 3
_PATTERN = 4099


def drawn_rows(example_inputs, generator):
    """Example inputs with noise: `ROWS` rows, no two alike where they hold floats.

    Args:
        example_inputs: tree of arrays `[N, ...]`.
        generator: NumPy generator.

    Returns:
        Tree of arrays `[ROWS, ...]`. Integers and booleans stay those of the examples:
        which others are allowed is not known here.
    """
    leaves = {}
    for path, array in tree_paths(example_inputs):
        rows = take_rows(np.asarray(array), ROWS)
        if rows.dtype.kind == "f":
            scale = np.where(np.isfinite(rows), np.maximum(1.0, np.abs(rows)), 0.0)
            noise = scale * generator.standard_normal(rows.shape)
            rows = (rows + noise).astype(rows.dtype)
        leaves[path] = rows
    return with_leaves(example_inputs, leaves)


def drawn_noise(engine, seed):
    """One step of noise for `ROWS` environments."""
    generators = [np.random.default_rng((seed, row)) for row in range(ROWS)]
    return [noise[0] for noise in engine.draw(generators, 1)]


def drawn_weights(weights):
    """Weights of about the same size and sign, of which none is zero.

    Args:
        weights: list of arrays.

    Returns:
        List of arrays. Integers and booleans stay: they count, choose and switch.
    """
    pattern = np.random.default_rng(0).uniform(0.5, 1.5, _PATTERN)
    drawn = []
    for array in weights:
        if array.dtype.kind == "f":
            factors = np.resize(pattern, array.shape).astype(array.dtype)
            zeros = (factors - 0.45) * np.asarray(0.2, array.dtype)
            array = np.where(array == 0, zeros, array * factors)
        drawn.append(array)
    return drawn


def difference(trace, compiled, example_inputs, draw, name):
    """What differs between a program and TensorFlow, or None.

    Both run `_DRAWS` times on random inputs, noise and weights, on `ROWS` rows at once
    and on each row alone. Not only the results are compared, but also the numbers that
    discontinuous ops (an argmax, a comparison) are applied to. Since these can turn a
    rounding error into another action, one row in all is let pass where there are some.

    Args:
        trace: `tracing.Trace`.
        compiled: `compiler.Compilation` of it, with the weights in its program.
        example_inputs: tree of arrays `[N, ...]`.
        draw: function of a NumPy generator that returns inputs `[ROWS, ...]`.
        name: str, used in messages.

    Returns:
        A sentence, or None.

    Raises:
        ValueError: if the function mixes rows, in TensorFlow too.
    """
    check = _Check(trace, compiled)
    examples = with_leaves(
        example_inputs,
        {p: take_rows(np.asarray(a), ROWS) for p, a in tree_paths(example_inputs)},
    )
    wrong, problems = 0, []
    for seed in range(_DRAWS):
        noise = drawn_noise(compiled.program, seed)
        drawn = draw(np.random.default_rng(seed))
        inputs, wanted = check.expected(drawn, examples, noise)
        try:
            found = check.found(inputs, noise)
            alone = [
                check.found(_row(inputs, row), _noise_row(noise, row))
                for row in range(ROWS)
            ]
        except Exception as error:
            return f"NumPy raised {type(error).__name__}: {error}"
        rows, problem = _unlike(found, wanted)
        if not rows.any():
            rows, problem = _unlike_rows(alone, found, wanted)
            if rows.sum() > 1:
                check.refuse_mixing(inputs, noise, alone, name)
        wrong += int(rows.sum())
        if problem:
            problems.append(problem)
    allowed = 1 if compiled.watched else 0
    return problems[0] if wrong > allowed else None


class _Check:
    """Both engines, each with its outputs and the watched values as one dict."""

    def __init__(self, trace, compiled):
        scope = {**NAMESPACE, **compiled.program.constants}
        exec(compile(compiled.watched_source, "<kerasrl actor check>", "exec"), scope)
        self._program = scope["program"]
        self._count = len(compiled.watched)
        self._names = [f"{v.node.name} (before rounding)" for v in compiled.watched]
        self._engine = TensorFlowEngine(
            _WatchedTrace(trace, compiled.watched),
            compiled.program.noise_specs,
            compiled.slots,
        )
        self._true = self._engine.weights
        self._drawn = drawn_weights([weight.numpy() for weight in self._true])
        self._read = compiled.weights

    def expected(self, drawn, examples, noise):
        """Inputs that TensorFlow takes, and its outputs for them.

        Not every function is defined everywhere: where a drawn input is refused or
        gives NaN, the true weights are tried, and then the examples.
        """
        attempts = [(drawn, self._drawn), (drawn, self._true), (examples, self._true)]
        for inputs, weights in attempts:
            self._use(weights)
            try:
                outputs = self.tensorflow(inputs, noise)
            except Exception:
                if inputs is examples:
                    raise
                continue
            if not any(_has_nan(array) for array in outputs.values()):
                break
        return inputs, outputs

    def _use(self, weights):
        self._engine.weights = list(weights)
        arrays = [np.asarray(weight) for weight in weights]
        self._weights = [arrays[index] for index in self._read]

    def found(self, inputs, noise):
        watched = []
        outputs = self._program(inputs, self._weights, noise, watched)
        return self._named(outputs, watched)

    def tensorflow(self, inputs, noise):
        outputs = self._engine.run(inputs, noise)
        return self._named(outputs["outputs"], outputs["watched"])

    def _named(self, outputs, watched):
        named = {
            f"output {'/'.join(map(str, path))}": array
            for path, array in tree_paths(outputs)
        }
        for k, array in enumerate(watched):
            named[f"value {k}, {self._names[k]},"] = array
        return named

    def refuse_mixing(self, inputs, noise, alone, name):
        """Raises if rows depend on one another in TensorFlow as in NumPy."""
        mixed = 0
        for row in range(ROWS):
            truth = self.tensorflow(_row(inputs, row), _noise_row(noise, row))
            rows, _ = _unlike(alone[row], truth)
            mixed += not rows.any()
        if mixed == ROWS:
            raise ValueError(
                f"{name} computes for one environment something that depends on the "
                "others beside it: a row of a batch comes out otherwise alone. What an "
                "environment gets would change with num_envs. Reduce over the axes "
                "after the first only."
            )


class _WatchedTrace:
    """A trace with more outputs."""

    def __init__(self, trace, values):
        self.graph = Graph(trace.graph.nodes, [*trace.graph.outputs, *values])
        first = len(trace.graph.outputs)
        self.output_tree = {
            "outputs": trace.output_tree,
            "watched": [first + k for k in range(len(values))],
        }
        self.input_paths = trace.input_paths
        self.specs = trace.specs
        self.handles = trace.handles
        self.resources = trace.resources
        self.library = trace.library


def _row(tree, row):
    leaves = {path: array[row : row + 1] for path, array in tree_paths(tree)}
    return with_leaves(tree, leaves)


def _noise_row(noise, row):
    return [array[row : row + 1] for array in noise]


def _has_nan(array):
    return array.dtype.kind == "f" and bool(np.isnan(array).any())


def _close(found, wanted):
    """Where arrays agree up to the rounding of many operations."""
    if wanted.dtype.kind != "f":
        return found == wanted
    half = wanted.dtype.itemsize < 4
    finite = wanted[np.isfinite(wanted)]
    # Sums cancel: an entry is as wrong as the terms it came from are large.
    scale = float(np.abs(finite).max()) if finite.size else 0.0
    relative = 2e-2 if half else 1e-3
    return np.isclose(
        found.astype(np.float64),
        wanted.astype(np.float64),
        rtol=relative,
        atol=relative * 0.1 * scale + 1e-6,
        equal_nan=True,
    )


def _bad_rows(close):
    """Bool `[ROWS]`; all of them where an array has no row per environment."""
    if close.ndim and len(close) == ROWS:
        return ~close.reshape(ROWS, -1).all(-1)
    return np.full(ROWS, not close.all())


def _unlike(found, wanted):
    """Which rows differ, bool `[ROWS]`, and a sentence on the first that does."""
    rows, problem = np.zeros(ROWS, bool), None
    for place, array in wanted.items():
        other = found[place]
        if other.dtype != array.dtype or other.shape != array.shape:
            return np.ones(ROWS, bool), (
                f"{place} is {other.dtype}{other.shape} in NumPy and "
                f"{array.dtype}{array.shape} in TensorFlow"
            )
        bad = _bad_rows(_close(other, array))
        if bad.any() and problem is None:
            problem = f"{place} has other values in NumPy than in TensorFlow"
        rows |= bad
    return rows, problem


def _unlike_rows(alone, found, wanted):
    """Which rows came out otherwise alone, bool `[ROWS]`, and a sentence."""
    rows, problem = np.zeros(ROWS, bool), None
    for place, array in wanted.items():
        if not array.ndim or len(array) != ROWS:
            continue
        pieces = [outputs[place] for outputs in alone]
        if any(piece.shape != array[:1].shape for piece in pieces):
            continue  # The axis is another than that of environments.
        bad = _bad_rows(_close(np.concatenate(pieces), found[place]))
        if bad.any() and problem is None:
            problem = f"{place} depends in NumPy on the other rows"
        rows |= bad
    return rows, problem
