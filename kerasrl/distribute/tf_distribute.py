"""Replicas of a `tf.distribute.Strategy`."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from kerasrl.distribute.gathering import Gathering

_SMALLEST_TABLE = 256


class TfDistribute(Gathering):
    """Replicas of a `tf.distribute.Strategy`.

    Made by the library for agents made within `strategy.scope()`. The devices of a
    `tf.distribute.MirroredStrategy` share each batch of one process. The workers of a
    `tf.distribute.MultiWorkerMirroredStrategy` are ranks: each collects from its own
    environments, and its devices share its batches.

    Args:
        strategy: A `tf.distribute.MirroredStrategy` or
            `tf.distribute.MultiWorkerMirroredStrategy`.

    Raises:
        ValueError: It is another strategy.

    Example:

    ```python
    strategy = tf.distribute.MirroredStrategy()
    with strategy.scope():
        agent = kerasrl.PPO()
        agent.fit("CartPole-v1", steps=100_000)
    ```
    """

    def __init__(self, strategy):
        kinds = (
            tf.distribute.MirroredStrategy,
            tf.distribute.MultiWorkerMirroredStrategy,
        )
        if not isinstance(strategy, kinds):
            raise ValueError(
                f"Received a {type(strategy).__name__}. Expected a "
                "tf.distribute.MirroredStrategy or MultiWorkerMirroredStrategy."
            )
        self.strategy = strategy
        self._compiled_sums = {}
        resolver = strategy.cluster_resolver
        if resolver is not None and isinstance(strategy, kinds[1]):
            cluster = resolver.cluster_spec().as_dict()
            chiefs = len(cluster.get("chief", []))
            self.num_ranks = max(1, chiefs + len(cluster.get("worker", [])))
            is_worker = resolver.task_type == "worker"
            self.rank = (resolver.task_id or 0) + (chiefs if is_worker else 0)
        self.num_local = strategy.num_replicas_in_sync // self.num_ranks

    def _key(self):
        return id(self.strategy)

    def scope(self):
        return self.strategy.scope()

    def sum(self, x):
        context = tf.distribute.get_replica_context()
        if context is not None and context.strategy is self.strategy:
            return context.all_reduce(tf.distribute.ReduceOp.SUM, x)
        # Outside of replicas each rank has one value, and its devices share it.
        if self.num_ranks == 1:
            return tf.identity(x)
        values = self.strategy.run(
            lambda: tf.where(self._local_index() == 0, x, tf.zeros_like(x))
        )
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)

    def sum_of_parts(self, function, batch):
        self._check_divisible(batch)

        def on_part():
            index = self._local_index()
            return function(
                tf.nest.map_structure(
                    lambda x: tf.reshape(
                        x, (self.num_local, x.shape[0] // self.num_local, *x.shape[1:])
                    )[index],
                    batch,
                )
            )

        vectors, rows = self.strategy.run(on_part)
        total = self.strategy.reduce(tf.distribute.ReduceOp.SUM, vectors, axis=None)
        rows = {
            name: tf.concat(self.strategy.experimental_local_results(value), axis=0)
            for name, value in rows.items()
        }
        return total, rows

    def alone(self, function):
        # A strategy cannot be left, but other threads do not know it.
        with ThreadPoolExecutor(1) as executor:
            return executor.submit(function).result()

    def apply(self, optimizer, gradients, variables):
        number = self.strategy.num_replicas_in_sync

        def on_device():
            # Keras sums the gradients of replicas here, whether they need it or not.
            optimizer.apply([gradient / number for gradient in gradients], variables)

        self.strategy.run(on_device)

    def run(self, function):
        self.strategy.run(function)

    def gather(self, array):
        array = np.atleast_1d(array)
        if self.num_ranks == 1:
            return [array]
        sizes = self._table(np.array([len(array)]), 1)[:, 0]
        # Few different widths, because each is compiled.
        width = max(_SMALLEST_TABLE, 1 << int(max(sizes)).bit_length())
        rows = self._table(array, width)
        return [row[:size] for row, size in zip(rows, sizes, strict=True)]

    def _table(self, array, width):
        """The arrays of all ranks, `[num_ranks, width]`, filled up with zeros."""
        own = np.zeros((self.num_ranks, width), array.dtype)
        own[self.rank, : len(array)] = array
        key = (width, own.dtype)
        with self.strategy.scope():
            if key not in self._compiled_sums:
                function = tf.function(self.sum, autograph=False)
                spec = tf.TensorSpec(own.shape, own.dtype)
                self._compiled_sums[key] = function.get_concrete_function(spec)
            return self._compiled_sums[key](tf.constant(own)).numpy()

    def _local_index(self):
        context = tf.distribute.get_replica_context()
        return context.replica_id_in_sync_group % self.num_local

    def _check_divisible(self, batch):
        for size in {leaf.shape[0] for leaf in tf.nest.flatten(batch)}:
            if size % self.num_local == 0:
                continue
            raise ValueError(
                f"A batch of {size} samples (or sequences, of recurrent policies) "
                f"cannot be split evenly over {self.num_local} replicas. Choose a "
                "minibatch_size or batch_size (counted in rows of sequences too), "
                "offline_batch_size, or num_envs and rollout_length, that they divide."
            )
