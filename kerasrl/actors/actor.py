"""Actors: acting functions compiled out of TensorFlow.

Reinforcement learning calls the policy once per environment step. One call of a
`tf.function` costs hundreds of microseconds however small the network; the same network
in NumPy costs ten or twenty. `build_actor` traces an acting function once and writes it
as a NumPy program, so that policies, distributions and exploration stay plain Keras.
"""

import time

import numpy as np

from kerasrl.actors import verification
from kerasrl.actors.compiler import compile_program
from kerasrl.actors.fallback import TensorFlowEngine, random_shapes
from kerasrl.actors.ir import Unsupported
from kerasrl.actors.program import tree_paths
from kerasrl.actors.tracing import trace as trace_function
from kerasrl.actors.tracing import with_leaves

_TIMED_FROM_FLOPS = 2e6
_BACKENDS = ("auto", "numpy", "tensorflow")


class Actor:
    """A compiled acting function.

    Made by `build_actor`. Call it with the inputs and the noise of one step.

    Args:
        engine: `Program` or `TensorFlowEngine`.
        trace: `tracing.Trace` of the function.
        backend: `"numpy"` or `"tensorflow"`.
        handles: list of `(handle, dtype, name)`, the variables behind
            `engine.weights`.
        report: dict, why this backend.
        example_inputs: tree of arrays `[N, ...]`.
        name: str.

    Attributes:
        backend: `"numpy"` or `"tensorflow"`.
        program: the `Program` (picklable, free of TensorFlow), or None where the
            backend is TensorFlow.
        noise_specs: list of `NoiseSpec`, what `draw` draws.
        report: dict with `backend`, `reason`, `ops`, `noise`, `flops`,
            `build_seconds`, and `numpy_seconds`, `tensorflow_seconds` where both
            engines were timed.
        initial_state: tree without batch axis, the recurrent state at episode starts,
            or None for zeros.
    """

    def __init__(self, engine, trace, backend, handles, report, example_inputs, name):
        self.backend = backend
        self.program = engine if backend == "numpy" else None
        self.noise_specs = engine.noise_specs
        self.report = report
        self.name = name
        self.initial_state = None
        self._engine = engine
        self._trace = trace
        self._handles = handles
        self._expected = [
            (path, array.dtype, array.shape[1:])
            for path, array in tree_paths(example_inputs)
        ]
        self._checked = False
        self._run = engine.run

    def __call__(self, inputs, noise=()):
        """Acts for one step.

        Args:
            inputs: tree of arrays `[B, ...]` in the structure, dtypes and shapes of
                the examples (checked at the first call only; `B` is free).
            noise: list of arrays `[B, ...]`, one step of what `draw` returned.

        Returns:
            Tree of arrays that no one else holds.

        Raises:
            ValueError: at the first call, if the inputs differ from the examples or
                the number of noise arrays is wrong.
        """
        if not self._checked:
            self._check(inputs, noise)
        return self._run(inputs, noise)

    def draw(self, generators, steps):
        """Draws the noise of many steps.

        Args:
            generators: list of `B` NumPy generators; environment `b` draws from
                `generators[b]` only, whatever `B` is.
            steps: int.

        Returns:
            List of arrays `[steps, B, ...]`, one per random op. Step `t` is
            `[n[t] for n in noise]`.
        """
        return self._engine.draw(generators, steps)

    def refresh(self):
        """Takes over the present values of the policy's variables.

        Until the next call the actor keeps acting with these. The arrays in
        `program.weights` are written in place, so they may lie in shared memory.
        """
        if self.backend == "tensorflow":
            self._engine.refresh()
        else:
            values = _read(self._handles)
            for array, value in zip(self.program.weights, values, strict=True):
                np.copyto(array, value)

    def positions(self, handles):
        """Returns where in `program.weights` the values of variables are.

        Args:
            handles: List of the handles of variables of the policy.

        Returns:
            List of integers, and of `None` for what acting does not read.
        """
        found = {id(handle): k for k, (handle, _, _) in enumerate(self._handles)}
        return [found.get(id(handle)) for handle in handles]

    def _check(self, inputs, noise):
        found = [(p, np.asarray(a)) for p, a in tree_paths(inputs)]
        given = [(p, a.dtype, a.shape[1:]) for p, a in found]
        if given != self._expected:
            wrong = [item for item in given if item not in self._expected]
            missing = [item for item in self._expected if item not in given]
            raise ValueError(
                f"{self.name} received inputs unlike its examples. As (path, dtype, "
                f"shape after the batch axis), received {wrong} where it expected "
                f"{missing}. Cast and reshape the inputs, or build the actor again."
            )
        if len(noise) != len(self.noise_specs):
            raise ValueError(
                f"{self.name} received {len(noise)} noise arrays and expected "
                f"{len(self.noise_specs)}. Pass one step of `draw`: "
                "`[n[t] for n in noise]`."
            )
        self._checked = True


def _read(handles):
    import tensorflow as tf

    # Looked up once: `tf` imports its modules when they are asked for.
    read = tf.raw_ops.ReadVariableOp
    return [read(resource=handle, dtype=dtype).numpy() for handle, dtype, _ in handles]


def build_actor(
    function,
    example_inputs,
    backend="auto",
    name="actor",
    verify=True,
    check_inputs=None,
):
    """Compiles an acting function into an `Actor`.

    The function is traced once, with an unknown batch size. It may call Keras layers,
    read variables, and draw with `keras.random` (any kind of seed: seeds are replaced
    by the noise that `Actor.draw` takes from the environments' own generators). It must
    not assign to variables. Its outputs for one environment must depend on that
    environment's inputs only.

    Args:
        function: callable `(inputs) -> outputs` on nested dicts/tuples of tensors.
        example_inputs: tree of NumPy arrays `[N, ...]`, `N >= 1`. Their structure,
            dtypes and shapes after the batch axis are what the actor will accept.
        backend: `"auto"` compiles to NumPy where every op has a NumPy form, unless the
            function is heavy enough for TensorFlow to be measured faster. `"numpy"`
            and `"tensorflow"` force one.
        name: str, used in messages.
        verify: bool. Run both engines on random inputs, noise and weights and compare
            (see `verification.difference`).
        check_inputs: function of a NumPy generator that returns inputs such as will
            come, `[verification.ROWS, ...]` with rows that differ, to compare the
            engines on; None to add noise to the examples.

    Returns:
        An `Actor`.

    Raises:
        ValueError: if `backend` is unknown; if it is `"numpy"` and an op has no NumPy
            form (the message names it); if the function assigns to a variable; if
            random numbers are drawn where they cannot be replaced by noise; if what
            one environment gets depends on the others.
        TypeError: if a tree holds anything but dicts, tuples and lists.

    Example:
        >>> network = keras.Sequential([keras.layers.Dense(64, "tanh"),
        ...                             keras.layers.Dense(2)])
        >>> def act(inputs):
        ...     logits = network(inputs["observations"])
        ...     return {"actions": keras.random.categorical(logits, 1)[:, 0]}
        >>> actor = build_actor(act, {"observations": np.zeros((1, 4), np.float32)})
        >>> noise = actor.draw([np.random.default_rng(0)], steps=128)
        >>> actor({"observations": observations}, [n[0] for n in noise])["actions"]
    """
    if backend not in _BACKENDS:
        raise ValueError(
            f"Unknown backend: received backend={backend!r}, expected one of "
            f"{', '.join(map(repr, _BACKENDS))}."
        )
    start = time.perf_counter()
    pairs = tree_paths(example_inputs)
    examples = [np.asarray(array) for _, array in pairs]
    if not examples or any(array.ndim == 0 or not len(array) for array in examples):
        raise ValueError(
            "example_inputs must hold at least one array, each with at least one row "
            f"on its batch axis: received shapes {[a.shape for a in examples]}."
        )
    example_inputs = with_leaves(
        example_inputs, {p: a for (p, _), a in zip(pairs, examples, strict=True)}
    )
    trace = trace_function(function, example_inputs)
    report = {"backend": "numpy", "reason": "every op has a NumPy form"}
    compiled = engine = None
    if backend != "tensorflow":
        try:
            compiled = _compiled(trace, examples)
        except Unsupported as error:
            reason = error.reason
            if error.node is not None and error.node.name not in reason:
                reason += f" (at {error.node.name})"
            if backend == "numpy":
                raise ValueError(
                    f"{name} cannot be compiled to NumPy: {reason}. Use "
                    "backend='auto' or 'tensorflow', or write that part with other "
                    "ops."
                ) from None
            report.update(backend="tensorflow", reason=reason)
    else:
        report.update(backend="tensorflow", reason="asked for")
    if compiled is not None:
        report["flops"] = compiled.flops * len(examples[0])
        heavy = backend == "auto" and report["flops"] > _TIMED_FROM_FLOPS
        problem = None
        if verify or heavy:
            draw = check_inputs or (
                lambda generator: verification.drawn_rows(example_inputs, generator)
            )
            problem = verification.difference(
                trace, compiled, example_inputs, draw, name
            )
        if problem and backend == "numpy":
            raise ValueError(
                f"{name} gives other results in NumPy than in TensorFlow: {problem}. "
                "Use backend='tensorflow'."
            )
        if problem:
            report.update(backend="tensorflow", reason=problem)
        if problem or heavy:
            engine = TensorFlowEngine(
                trace, compiled.program.noise_specs, compiled.slots
            )
        if heavy and not problem:
            _time_both(report, compiled.program, engine, example_inputs)
    if report["backend"] == "numpy":
        engine = compiled.program
        handles = [trace.handles[index] for index in compiled.weights]
    else:
        if engine is None:
            engine = TensorFlowEngine(trace, *random_shapes(trace, examples))
        handles = trace.handles
    report["ops"] = engine.num_ops
    report["noise"] = [(spec.kind, spec.shape) for spec in engine.noise_specs]
    report["build_seconds"] = time.perf_counter() - start
    return Actor(
        engine, trace, report["backend"], handles, report, example_inputs, name
    )


def _compiled(trace, examples):
    for node in trace.graph.nodes:
        if node.op == "Weight" and node.outputs[0].dtype is None:
            raise Unsupported(f"{node.name} has a dtype that NumPy does not have")
    weights = _read(trace.handles)
    compiled = compile_program(
        trace.graph, trace.input_paths, trace.output_tree, examples, weights
    )
    compiled.program.weights = [np.array(weights[i]) for i in compiled.weights]
    return compiled


def _time_both(report, program, engine, example_inputs):
    inputs = verification.drawn_rows(example_inputs, np.random.default_rng(0))
    noise = verification.drawn_noise(program, 0)
    seconds = {}
    for key, each in (("numpy", program), ("tensorflow", engine)):
        best = np.inf
        for _ in range(7):
            start = time.perf_counter()
            each.run(inputs, noise)
            best = min(best, time.perf_counter() - start)
        seconds[key] = report[f"{key}_seconds"] = best
    if seconds["tensorflow"] < seconds["numpy"]:
        report["backend"] = "tensorflow"
        report["reason"] = "TensorFlow was measured faster"
    else:
        report["reason"] = "every op has a NumPy form, and it was measured faster"
