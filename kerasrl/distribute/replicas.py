"""What an agent asks of its replicas, and the answers where there is only one."""

import contextlib

import numpy as np


class Replicas:
    """One replica: every question is answered at once, nothing is communicated.

    What agents have outside of any context, and the base class of engines.

    Agents are written against this interface and know no engine. Two words are kept
    apart: a *rank* is a process with environments, replay and random generators of its
    own; within a rank, a batch may be split over several *local replicas*, one for each
    device.

    Attributes:
        num_ranks: Integer, processes that learn together.
        rank: Integer, number of this one.
        num_local: Integer, replicas among which this process splits its batches.
        compiles: Whether whole updates can be compiled with XLA.
    """

    num_ranks = 1
    rank = 0
    num_local = 1
    compiles = True

    @property
    def is_chief(self):
        """Whether this rank writes files and shows progress."""
        return self.rank == 0

    def __eq__(self, other):
        return type(self) is type(other) and self._key() == other._key()

    def __hash__(self):
        return hash((type(self), self._key()))

    def _key(self):
        return None

    def scope(self):
        """Returns a context in which variables are made and updated as replicas do."""
        return contextlib.nullcontext()

    def errors(self):
        """Returns a context that explains errors of communication."""
        return contextlib.nullcontext()

    def alone(self, function):
        """Runs a function as if there were no replicas, for what only acts."""
        return function()

    # In compiled code -----------------------------------------------------------

    def gradients(self, compute, batch):
        """Computes gradients on a batch, as if replicas had computed them together.

        Each replica computes on its part, and the parts are averaged in proportion to
        the entries that count in each: where a loss is a mean over the entries of
        `batch["mask"]`, the result is that of one replica on all parts together.

        Args:
            compute: Function of a batch that returns a list of gradients and a dict of
                metrics: scalars, which are averaged likewise, and tensors with a sample
                axis, which stay with this rank. A scalar `"count"` among them is how
                many entries the means are over, if not `sum(mask)`.
            batch: Dict of tensors `[N, ...]`, with `"mask"`.

        Returns:
            What `compute` returns, without `"count"`.
        """
        gradients, metrics = compute(batch)
        metrics.pop("count", None)
        return gradients, metrics

    def apply(self, optimizer, gradients, variables):
        """Updates variables by gradients that replicas have in common. Compiled."""
        import keras
        import tensorflow as tf

        def apply(strategy=None):
            optimizer.apply(gradients, variables)

        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            apply()  # It refuses to be anywhere else.
        else:
            # Where Keras sees no replica it sums over none. That sum, even over one, is
            # a custom gradient, and TensorFlow keeps every graph that has one.
            tf.distribute.get_replica_context().merge_call(apply)

    def summing(self):
        """Returns a context in which the library's sums go over all replicas."""
        return contextlib.nullcontext()

    def run(self, function):
        """Runs a function that updates metrics, where those may be updated."""
        function()

    # Outside --------------------------------------------------------------------

    def gather(self, array):
        """Collects an array from every rank.

        Args:
            array: float64 or int64 array, of the same shape in all ranks but for the
                first axis.

        Returns:
            List of arrays, in the order of ranks.
        """
        return [np.asarray(array)]

    def gather_data(self, data):
        """Collects JSON-compatible data from every rank, a list in their order."""
        return [data]

    def broadcast(self, variables):
        """Gives variables the values that they have in rank 0.

        Args:
            variables: List of `keras.Variable`.
        """

    def barrier(self):
        """Waits until all ranks are here."""

    def survive(self, function):
        """Calls a function, and again whenever the engine can go on with other ranks.

        Args:
            function: Takes nothing. Starts from what was last committed.

        Returns:
            What it returns.
        """
        return function()

    def committed(self):
        """Is told by all ranks at once that what they did is in a checkpoint."""
