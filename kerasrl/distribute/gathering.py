"""What the engines have in common: everything rests on two operations of theirs."""

import contextlib
import json

import numpy as np
import tensorflow as tf

from kerasrl.distribute.replicas import Replicas
from kerasrl.distribute.summing import summing_over_replicas


class LostRank(ConnectionError):
    """Another rank ended or cannot be reached."""


class Gathering(Replicas):
    """Replicas of an engine that can sum a tensor and gather an array.

    Subclasses define `sum`, `gather` and `sum_of_parts`.
    """

    compiles = False

    def sum(self, x):
        """Sums a tensor over all replicas. Compiled.

        Args:
            x: Float tensor, of the same shape everywhere.

        Returns:
            Tensor of that shape.
        """
        raise NotImplementedError(f"{type(self).__name__} must define sum.")

    def sum_of_parts(self, function, batch):
        """Runs a function on each replica's part of a batch. Compiled.

        Args:
            function: Takes a batch and returns a vector, and a dict of tensors with a
                sample axis.
            batch: Dict of tensors `[N, ...]`.

        Returns:
            Tuple of the sum of the vectors over all replicas, and the dict of the rows
            of this rank.
        """
        return self._sum_of(*function(batch))

    def _sum_of(self, vector, rows):
        return self.sum(vector), rows

    def summing(self):
        return summing_over_replicas(self.sum)

    def gradients(self, compute, batch):
        shapes, names = [], []

        def weighted(batch):
            with self.summing():
                gradients, metrics = compute(batch)
            count = metrics.pop("count", None)
            count = tf.reduce_sum(batch["mask"]) if count is None else count
            rows = {n: v for n, v in metrics.items() if len(v.shape)}
            scalars = {n: v for n, v in metrics.items() if not len(v.shape)}
            names[:], shapes[:] = list(scalars), [g.shape for g in gradients]
            # One vector, because each exchange takes its time however small it is.
            values = [tf.reshape(tf.convert_to_tensor(g), [-1]) for g in gradients]
            values += [tf.reshape(tf.cast(v, "float32"), [1]) for v in scalars.values()]
            count = tf.cast(count, "float32")
            vector = tf.concat(values, 0)
            # Not by multiplication alone: a part without entries must not bring NaN.
            vector = tf.where(count > 0, vector * count, tf.zeros_like(vector))
            return tf.concat([vector, [count]], 0), rows

        total, rows = self.sum_of_parts(weighted, batch)
        means = total[:-1] / tf.maximum(total[-1], 1.0)
        sizes = [shape.num_elements() for shape in shapes] + [1] * len(names)
        parts = tf.split(means, sizes)
        shapes = shapes + [()] * len(names)
        parts = [tf.reshape(p, shape) for p, shape in zip(parts, shapes, strict=True)]
        gradients = parts[: len(parts) - len(names)]
        scalars = parts[len(gradients) :]
        return gradients, {**dict(zip(names, scalars, strict=True)), **rows}

    def gather_data(self, data):
        text = np.frombuffer(json.dumps(data).encode(), np.uint8)
        return [
            json.loads(array.astype(np.uint8).tobytes())
            for array in self.gather(text.astype(np.int64))
        ]

    def broadcast(self, variables):
        # Every float32 and int32 is one of these, bit for bit.
        for kind, wide in (("f", np.float64), ("iub", np.int64)):
            same = [(v, np.asarray(v)) for v in variables]
            same = [(v, value) for v, value in same if value.dtype.kind in kind]
            flat = [value.astype(wide).reshape(-1) for _, value in same]
            flat = np.concatenate([np.zeros(0, wide), *flat])
            # The others send nothing.
            (received,) = self.gather(flat if self.is_chief else flat[:0])[:1]
            start = 0
            for variable, value in same:
                new = received[start : start + value.size]
                variable.assign(new.astype(value.dtype).reshape(value.shape))
                start += value.size

    def barrier(self):
        self.gather(np.zeros(1))

    @contextlib.contextmanager
    def errors(self):
        try:
            yield
        except Exception as error:
            if not self.is_lost(error):
                raise
            raise LostRank(
                f"Rank {self.rank} of {self.num_ranks} lost contact with another rank, "
                "which ended or cannot be reached; its own message says why. Start all "
                "ranks again from the last checkpoint (kerasrl train --resume, or "
                f"kerasrl.load). The engine says: {_short(error)}"
            ) from error

    def is_lost(self, error):
        """Whether an exception means that another rank is gone."""
        return isinstance(error, _LOST)


_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.DeadlineExceededError,
    tf.errors.CancelledError,
)


def _short(error):
    """What an error says besides where in which graph it happened."""
    lines = [line.strip() for line in str(error).splitlines()]
    noise = ("Detected at", "File ", "Graph execution", "[[{{")
    lines = [line for line in lines if line and not line.startswith(noise)]
    text = " ".join(lines)
    return text if len(text) <= 300 else f"... {text[-300:].partition(' ')[2]}"
