"""From gradients to weights: what runs inside the one compiled call per iteration."""

import math
import warnings

import keras
import numpy as np
import optree
import tensorflow as tf

#: What a policy is given in every step, besides its state.
INPUTS = ("observations", "previous_actions", "previous_rewards")

_MAX_METRICS = 64


class TrainFunction:
    """One whole update phase of an agent as one compiled call.

    Args:
        agent: The `Agent`, with a compiled policy.
    """

    def __init__(self, agent):
        self.agent = agent
        self.jit_compile = agent.jit_compile
        if self.jit_compile == "auto":
            # XLA takes long to compile loops over time, and then gains nothing.
            self.jit_compile = not agent.policy.is_recurrent
        self.metric_names = None
        self._packer = None
        self._function = None
        self._variables = [
            variable.value
            for variable in agent.policy.weights
            if variable.dtype == "float32"
        ]
        shapes = [tuple(variable.shape) for variable in self._variables]
        self._places = [
            (id(variable.handle), shape, math.prod(shape))
            for variable, shape in zip(self._variables, shapes, strict=True)
        ]

    def __call__(self, *inputs):
        """Runs targets and updates.

        Args:
            *inputs: The rollout, a dict of NumPy arrays `[T, B, ...]`; the values of
                `agent.scheduled`, a float32 array; a tree of arrays from
                `agent.minibatches`.

        Returns:
            Dict of floats.
        """
        packed = None if self._packer is None else self._packer.pack(inputs)
        if packed is None:
            self._packer, self._function = Packer(inputs), None
            packed = self._packer.pack(inputs)
        if self._function is None:
            metrics, weights = self._first_call(packed)
        else:
            metrics, weights = self._function(packed)
        self._weights = weights
        return dict(zip(self.metric_names, metrics.numpy().tolist(), strict=True))

    def new_weights(self):
        """Returns the float weights after the last call, sparing a read of each.

        Returns:
            Dict from the id of the handle of a variable to its value.
        """
        flat, values, start = self._weights.numpy(), {}, 0
        for handle, shape, size in self._places:
            values[handle] = flat[start : start + size].reshape(shape)
            start += size
        return values

    def _first_call(self, packed):
        policy = self.agent.policy

        def train(packed):
            return self._train(*self._packer.unpack(packed))

        if policy.run_eagerly:
            self._function = train
            return train(packed)
        try:
            self._function = self._compile(train, packed)
            return self._function(packed)
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
            if not (self.agent.jit_compile == "auto" and self.jit_compile):
                raise
            warnings.warn(
                "XLA could not compile this update; going on without it, more slowly. "
                f"Pass jit_compile=False to compile() to silence this. Reason: {error}",
                stacklevel=2,
            )
        self.jit_compile = False
        self._function = self._compile(train, packed)
        return self._function(packed)

    def _compile(self, train, packed):
        function = tf.function(train, jit_compile=self.jit_compile, autograph=False)
        # A concrete function skips the look-up of a trace in every call.
        return function.get_concrete_function(packed)

    def _train(self, rollout, settings, minibatches):
        agent = self.agent
        agent.num_traces += 1
        settings = dict(zip(agent.scheduled, tf.unstack(settings), strict=True))
        rollout = {**rollout, "mask": tf.cast(rollout["valid"], "float32")}
        batch = {**rollout, **agent.targets(rollout)}
        del batch["next_inputs"]
        if "returns" in batch and "values" in batch:
            # A last axis, which Keras's metrics average over.
            returns, values = (merge(batch[n])[:, None] for n in ("returns", "values"))
            agent.policy.compute_metrics(None, returns, values, merge(batch["mask"]))
        batch = to_samples(batch, agent.policy.is_recurrent)
        metrics = agent.update(batch, settings, minibatches)
        # Last, so that acting, values and probabilities of one iteration all rest on
        # the same statistics; the next rollout is acted with the new ones.
        agent.policy.update_normalization(
            merge(rollout["observations"]), merge(rollout["valid"])
        )
        self.metric_names = list(metrics)
        weights = [tf.reshape(variable, [-1]) for variable in self._variables]
        return (
            tf.stack([tf.cast(value, "float32") for value in metrics.values()]),
            tf.concat(weights, axis=0),
        )


class Packer:
    """Joins arrays into one buffer, since each argument of a compiled call costs time.

    Large arrays stay apart: copying them would cost more.

    Args:
        tree: Tree of NumPy arrays, an example: later ones have the same structure,
            shapes and dtypes.
    """

    _LARGEST_BYTES = 2**20

    def __init__(self, tree):
        leaves, self.structure = optree.tree_flatten(tree)
        self.specs = [(leaf.shape, leaf.dtype) for leaf in leaves]
        self.is_large = [leaf.nbytes > self._LARGEST_BYTES for leaf in leaves]

    def pack(self, tree):
        """Returns a tuple of tensors, a buffer of bytes and the large leaves.

        Returns `None` for a tree with another structure, other shapes or dtypes.
        """
        leaves, structure = optree.tree_flatten(tree)
        if structure != self.structure or self.specs != [
            (leaf.shape, leaf.dtype) for leaf in leaves
        ]:
            return None
        pairs = list(zip(leaves, self.is_large, strict=True))
        # Through one bytes object: faster than joining arrays of several dtypes.
        buffer = b"".join([leaf.tobytes() for leaf, is_large in pairs if not is_large])
        large = [tf.convert_to_tensor(leaf) for leaf, is_large in pairs if is_large]
        return tf.convert_to_tensor(np.frombuffer(buffer, np.uint8)), *large

    def unpack(self, packed):
        """Returns the tree of tensors that `pack` was given."""
        buffer, *large = packed
        leaves, start = [], 0
        for (shape, dtype), is_large in zip(self.specs, self.is_large, strict=True):
            if is_large:
                leaves.append(large.pop(0))
                continue
            size = math.prod(shape) * dtype.itemsize
            part = buffer[start : start + size]
            start += size
            if dtype.kind == "b":
                part = tf.cast(part, "bool")
            elif dtype.itemsize > 1:
                part = tf.bitcast(tf.reshape(part, [-1, dtype.itemsize]), dtype)
            elif dtype != np.uint8:
                part = tf.bitcast(part, dtype)
            leaves.append(tf.reshape(part, shape))
        return optree.tree_unflatten(self.structure, leaves)


def gradient_step(agent, batch, settings):
    """Takes one optimizer step on the loss of a batch.

    The order is: gradients, clipping by the global norm, optimizer.

    Args:
        agent: The `Agent`.
        batch: Dict of tensors with a leading sample axis.
        settings: Dict of scalars, see `Agent.loss`.

    Returns:
        Dict of scalars: `"loss"`, what `agent.loss` logs, `"gradient_norm"` (before
        clipping) and the policy's custom metrics.
    """
    policy = agent.policy
    variables = policy.trainable_variables
    with tf.GradientTape() as tape:
        loss, metrics = compute_loss(agent, batch, settings)
    gradients = tape.gradient(
        loss,
        [variable.value for variable in variables],
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    norm = tf.linalg.global_norm(gradients)
    if agent.max_grad_norm is not None:
        scale = agent.max_grad_norm / tf.maximum(norm, agent.max_grad_norm)
        gradients = [gradient * scale for gradient in gradients]
    policy.optimizer.apply(gradients, variables)
    return {"loss": loss, **metrics, "gradient_norm": norm}


def compute_loss(agent, batch, settings):
    """Returns the loss to minimize on a batch, and scalars to log.

    Adds regularizers and `add_loss` terms of the policy to the algorithm's loss, then
    gives the policy's `custom_loss` the last word.

    Args:
        agent, batch, settings: As for `gradient_step`.

    Returns:
        Tuple of a scalar and a dict of scalars.
    """
    policy = agent.policy
    outputs = forward(policy, batch, training=True)
    loss, metrics = agent.loss(batch, outputs, settings)
    for extra in policy.losses:
        loss = loss + keras.ops.sum(extra)
    batch = {**batch, "outputs": outputs}
    loss = policy.custom_loss(loss, batch)
    return loss, {**metrics, **policy.custom_metrics(batch)}


def minibatch_steps(agent, batch, settings, minibatches, stop=None):
    """Takes one gradient step per minibatch, in a loop inside the graph.

    Args:
        agent, batch, settings: As for `gradient_step`.
        minibatches: Dict of `"indices"`, int32 `[K, size]` into the sample axis, and
            `"weights"`, float32 `[K, size]`, 0 where an index only fills up a row.
        stop: `None`, or a function of the dict of metrics of a minibatch that returns
            a bool scalar: whether that step is to be the last.

    Returns:
        Dict of scalars, means over the steps taken, and `"gradient_steps"`.
    """
    indices, weights = minibatches["indices"], minibatches["weights"]
    names = []

    def step(number, _, totals):
        chosen, weight = indices[number], weights[number]
        minibatch = tf.nest.map_structure(lambda x: tf.gather(x, chosen), batch)
        shape = (-1,) + (1,) * (len(minibatch["mask"].shape) - 1)
        minibatch["mask"] *= tf.reshape(weight, shape)
        metrics = gradient_step(agent, minibatch, settings)
        names[:] = metrics
        values = tf.stack([tf.cast(value, "float32") for value in metrics.values()])
        stopped = tf.constant(False) if stop is None else stop(metrics)
        # A loop in the graph needs a fixed shape before its body is known.
        if len(metrics) > _MAX_METRICS:
            raise ValueError(
                f"Received {len(metrics)} metrics from the loss and custom_metrics. "
                f"Expected at most {_MAX_METRICS}."
            )
        padded = tf.pad(values, [[0, _MAX_METRICS - len(metrics)]])
        return number + 1, stopped, totals + padded

    count, _, totals = tf.while_loop(
        lambda number, stopped, _: (number < indices.shape[0]) & ~stopped,
        step,
        (tf.constant(0), tf.constant(False), tf.zeros(_MAX_METRICS)),
    )
    means = tf.unstack(totals / tf.cast(count, "float32"))[: len(names)]
    return {**dict(zip(names, means, strict=True)), "gradient_steps": count}


def draw_minibatches(rng, num_samples, size, num_epochs):
    """Shuffles samples into minibatches of equal shape.

    Args:
        rng: `numpy.random.Generator`.
        num_samples: Integer, samples in the batch.
        size: Integer, samples per minibatch, at most `num_samples`.
        num_epochs: Integer, times that every sample is used.

    Returns:
        Dict as `minibatch_steps` takes it. If `size` does not divide `num_samples`,
        the last minibatch of an epoch is filled up with samples of weight 0.
    """
    per_epoch = -(-num_samples // size)
    padding = per_epoch * size - num_samples
    orders = [rng.permutation(num_samples) for _ in range(num_epochs)]
    indices = np.array([np.concatenate([o, o[:padding]]) for o in orders], np.int32)
    weights = np.ones(indices.shape, np.float32)
    weights[:, num_samples:] = 0.0
    return {"indices": indices.reshape(-1, size), "weights": weights.reshape(-1, size)}


def forward(policy, batch, training=False):
    """Runs a policy on a batch of samples or of whole sequences.

    Args:
        policy: A `Policy`.
        batch: Dict with `INPUTS`, `[N, ...]`; for a recurrent policy `[B, T, ...]`,
            with `"state"` `[B, ...]` and `"episode_starts"` `[B, T]`.
        training: Bool, as in Keras.

    Returns:
        Dict as from `policy.call`, with the leading axes of the batch.
    """
    inputs = {name: batch[name] for name in INPUTS}
    if not policy.is_recurrent:
        return policy(inputs, training=training)
    outputs = policy.unroll(
        swap(inputs), batch["state"], swap(batch["episode_starts"]), training=training
    )
    return swap({name: value for name, value in outputs.items() if name != "state"})


def rollout_outputs(policy, rollout):
    """Runs a policy over a rollout and one step beyond.

    Args:
        policy: A `Policy`.
        rollout: Dict of tensors `[T, B, ...]`, see `Agent.targets`.

    Returns:
        Tuple of the outputs `[T, B, ...]` and the values `[T, B]` of the observations
        that follow each action *before any reset*: at a truncation that is the value
        of the final observation. At a termination it is of no use and not used.
    """
    steps = {name: rollout[name] for name in (*INPUTS, "episode_starts")}
    steps = tf.nest.map_structure(
        lambda x, last: tf.concat([x, last[None]], axis=0),
        steps,
        {name: rollout["next_inputs"][name] for name in steps},
    )
    starts = steps.pop("episode_starts")
    outputs = policy.unroll(steps, rollout["state"], starts)
    outputs = {name: value for name, value in outputs.items() if name != "state"}
    next_values = tf.where(
        rollout["truncated"], rollout["truncation_values"], outputs["values"][1:]
    )
    return tf.nest.map_structure(lambda x: x[:-1], outputs), next_values


def build_metrics(policy):
    """Creates the variables of metrics, which must not happen inside the graph."""
    if any(not metric.variables for metric in policy.metrics):
        zeros = keras.ops.zeros((1, 1))
        policy.compute_metrics(None, zeros, zeros, keras.ops.zeros(1))
        policy.reset_metrics()


def policy_metrics(policy):
    """Returns the results of the Keras metrics of a policy, as floats."""
    if len(policy.metrics) <= 1:  # Only Keras's own tracker of the loss.
        return {}
    results = policy.get_metrics_result()
    results.pop("loss", None)
    return {name: float(value) for name, value in results.items()}


def merge(tree):
    """Reshapes every leaf `[T, B, ...]` to `[T * B, ...]`."""
    return tf.nest.map_structure(
        lambda x: tf.reshape(x, tf.concat([[-1], tf.shape(x)[2:]], 0)), tree
    )


def swap(tree):
    """Exchanges the first two axes of every leaf."""

    def transpose(x):
        return tf.transpose(x, [1, 0, *range(2, len(x.shape))])

    return tf.nest.map_structure(transpose, tree)


def to_samples(batch, is_recurrent):
    """Gives a batch `[T, B, ...]` one leading axis of samples to draw from.

    Samples are steps, `[T * B, ...]`, or, for recurrent policies, whole sequences,
    `[B, T, ...]`; the entry `"state"` is `[B, ...]` already.
    """
    state = batch["state"]
    steps = {name: value for name, value in batch.items() if name != "state"}
    if is_recurrent:
        return {**swap(steps), "state": state}
    return merge(steps)
