"""One compiled call per update phase."""

import logging
import time
import warnings

import tensorflow as tf

from kerasrl.training import beside
from kerasrl.training.packing import Packer

_logger = logging.getLogger(__name__)


def gains_from_xla(agent):
    """Whether `jit_compile="auto"` means XLA for an agent."""
    # XLA cannot compile what replicas exchange. Convolutions take it ten times as long
    # on a CPU.
    convolves = any(len(variable.shape) > 3 for variable in agent.trainable_variables)
    slow = convolves and not tf.config.list_physical_devices("GPU")
    return agent.replicas.compiles and not slow


def _unbound(function):
    """The function itself, of a method or of a `functools.partial`."""
    return getattr(function, "__func__", getattr(function, "func", function))


def _joined(inputs, offline):
    return inputs, {} if offline is None else {beside.OFFLINE: offline}


class CompiledUpdate:
    """One whole update phase of an agent as one compiled call.

    Args:
        agent: The `Agent`, with a compiled policy.
        function: What to compile. Takes trees of tensors, updates the weights, and
            returns a dict of scalars to log and a tree of tensors.

    Attributes:
        outputs: The tree of tensors of the last call.
    """

    def __init__(self, agent, function):
        self.agent = agent
        self.function = function
        self.jit_compile = agent.jit_compile
        if self.jit_compile is True and not agent.replicas.compiles:
            raise ValueError(
                "Received jit_compile=True with several replicas. XLA cannot compile "
                'what they exchange: leave it at "auto", or pass False.'
            )
        if self.jit_compile == "auto":
            self.jit_compile = gains_from_xla(agent)
        #: What the policy was compiled with, and what it trained, when this was made.
        self._made_for = self._compilation()
        self._trained = [id(variable) for variable in agent.trainable_variables]
        self.outputs = None
        self.metric_names = None
        self._packer = None
        self._compiled = None
        self._called = False

    def __call__(self, *inputs, offline=None):
        """Runs the function.

        Args:
            *inputs: Trees of NumPy arrays. Compiled again if a structure, a shape or a
                dtype differs from the last call.
            offline: Tree of NumPy arrays `[K, N, ...]`, batches of a dataset for its
                gradient steps, or `None`; see `beside`.

        Returns:
            Dict of floats.
        """
        inputs = _joined(inputs, offline)
        packed = None if self._packer is None else self._packer.pack(inputs)
        if packed is None:
            self._packer, self._compiled = Packer(inputs), None
            packed = self._packer.pack(inputs)
        if self._compiled is None or not self._called:
            # Also in the thread of an overlapping update, which knows no scope.
            with self.agent.replicas.scope():
                results = self._first_call(packed)
        else:
            results = self._compiled(packed)
        self._called = True
        metrics, self.outputs = results
        return dict(zip(self.metric_names, metrics.numpy().tolist(), strict=True))

    def is_outdated(self):
        """Whether the policy was compiled anew, or given a schedule, since."""
        # By identity: Keras compares the values of variables.
        pairs = zip(self._made_for, self._compilation(), strict=True)
        return any(before is not now for before, now in pairs)

    def runs(self, function):
        """Whether it is of this function: agents may learn in several ways."""
        return _unbound(self.function) is _unbound(function)

    def trains(self, variables):
        """Whether these are the variables that were trainable when this was made."""
        return self._trained == [id(variable) for variable in variables]

    def _compilation(self):
        # The objects themselves and not their ids, which others might get.
        policy, optimizer = self.agent.policy, self.agent.policy.optimizer
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        # A number is assigned to the same variable; a schedule takes its place.
        rate = getattr(inner, "_learning_rate", None)
        return optimizer, rate, bool(policy.run_eagerly)

    def trace(self, *inputs, offline=None):
        """Prepares a call without making it, so that `metric_names` are known."""
        if self._compiled is None and not self.agent.policy.run_eagerly:
            inputs = _joined(inputs, offline)
            self._packer = Packer(inputs)
            with self.agent.replicas.scope():
                self._compiled = self._compile(self._packer.pack(inputs))

    def _first_call(self, packed):
        if self.agent.policy.run_eagerly:
            self._compiled = self._run
            return self._run(packed)
        try:
            if self._compiled is None:
                self._compiled = self._compile(packed)
            return self._compiled(packed)
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
            if not (self.agent.jit_compile == "auto" and self.jit_compile):
                raise
            warnings.warn(
                "XLA could not compile this update; going on without it, more slowly. "
                f"Pass jit_compile=False to compile() to silence this. Reason: {error}",
                stacklevel=2,
            )
        self.jit_compile = False
        self._compiled = self._compile(packed)
        return self._compiled(packed)

    def _compile(self, packed):
        start = time.perf_counter()
        function = tf.function(self._run, jit_compile=self.jit_compile, autograph=False)
        # A concrete function skips the look-up of a trace in every call.
        compiled = function.get_concrete_function(packed)
        _logger.info(
            "Traced the update of %s in %.1f s, %s XLA.",
            type(self.agent).__name__,
            time.perf_counter() - start,
            "with" if self.jit_compile else "without",
        )
        return compiled

    def _run(self, packed):
        self.agent.num_traces += 1
        inputs, others = self._packer.unpack(packed)
        offline = beside.given(others.get(beside.OFFLINE))
        with self.agent.replicas.summing(), offline:
            metrics, outputs = self.function(*inputs)
        self.metric_names = list(metrics)
        values = [tf.cast(value, "float32") for value in metrics.values()]
        return tf.stack(values), outputs
