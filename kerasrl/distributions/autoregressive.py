"""Actions of several components, each depending on those before it."""

import itertools

import keras
import numpy as np
from keras import ops

from kerasrl.action_masks import ILLEGAL
from kerasrl.distributions.components import Components
from kerasrl.distributions.distribution import Distribution, spread_seed
from kerasrl.distributions.distribution_for import DistributionType
from kerasrl.losses.shapes import static_shape

#: Up to so many beginnings of an action, expectations go over all of them.
MOST_ENUMERATED = 32


@keras.saving.register_keras_serializable("kerasrl")
class Autoregressive(Distribution):
    """A product of conditional distributions: P(a1) P(a2 | a1) P(a3 | a1, a2) ...

    What independent components cannot say, such as that two choices agree, whichever
    they are. A model tells the parameters of every component, of the context that a
    policy emits and of the components before it. Drawing an action of N components
    takes N passes through the model, its log-probability one.

    The order is that of `Components`. Of Box entries each is a normal distribution,
    given those before.

    `entropy` and `kl` are exact where all components but the last have at most
    `MOST_ENUMERATED` (32) combinations; they are summed over those, in one pass of as
    many rows. Beyond that, and after a number, no closed form is known, and both are
    estimates from one drawn action: the sum of the entropies (divergences) of the
    components, each given those before it. They are right on average, also their
    gradients, and spread less than minus the log-probability. Each is drawn anew, so
    that over many updates their errors cancel.

    `mode` takes the most probable option of each component, given those before. The
    most probable action may be another one.

    Args:
        parameters: Float `[..., C]`, the context.
        model: Function `(actions, context) -> parameters`, such as
            `kerasrl.models.MADE`: of encoded components `[..., D]` (all but the last)
            and the context, the parameters `[..., P]` of all components, each depending
            on none but those before it.
        components: `Components` of the action space.
        legal: Bool `[..., P]`, false for options that may not be chosen, whatever the
            components before; for `MultiDiscrete` actions only. `None` if all may be.
        estimation_seed: `keras.random.SeedGenerator` of the actions that estimates are
            made of, or `None` for Keras's global one.

    Example:

    ```python
    agent = kerasrl.PPO(policy={"autoregressor": "made"})
    ```
    """

    has_weights = True

    def __init__(self, parameters, model, components, legal=None, estimation_seed=None):
        super().__init__(parameters)
        self._model = model
        self._components = components
        self._legal = legal
        self._estimation_seed = estimation_seed

    @staticmethod
    def parameters_size(action_space):
        """Raises: it depends on the model."""
        raise TypeError(
            "Autoregressive distributions need a model of the components of an action. "
            "Leave distribution= out, and give the policy one: "
            "ActorCritic(autoregressor='made')."
        )

    def sample(self, seed=None):
        """Draws actions, a tree of `[..., *shape]`, in as many passes as components.

        See `Distribution.sample`.
        """
        seeds = spread_seed(seed, len(self._components))
        return self._chosen(lambda index, part: part.sample(seeds[index]))

    def mode(self):
        """Each component's most probable value, given those before: a greedy choice."""
        return self._chosen(lambda index, part: part.mode())

    def _chosen(self, choose):
        components, context = self._components, self.parameters
        leading = ops.shape(context)[:-1]
        sizes = components.input_sizes[:-1]
        values, encoded = [], []
        for index in range(len(components)):
            rest = sum(sizes[index:])
            blank = [ops.zeros((*leading, rest))] if rest else []
            inputs = ops.concatenate([*encoded, *blank], axis=-1)
            part = components.one(index, self._emitted(inputs))
            values.append(choose(index, part))
            if index < len(sizes):
                encoded.append(components.encode(index, values[-1]))
        return components.join(values)

    def log_prob(self, actions):
        """Log-probability of actions, a tree of `[..., *shape]`, in one pass.

        See `Distribution.log_prob`.
        """
        given = static_shape(self.parameters)
        batch = None if given is None else given[:-1]
        parts = self._components.split(actions, batch)
        parameters = self._emitted(self._components.encode_all(parts))
        return ops.sum(self._log_probs(parameters, parts), axis=-1)

    def entropy(self):
        """Entropy, float32 `[...]`, in nats: exact or estimated, see the class."""
        return self._expected(
            lambda parameters, inputs: _joined(
                [part.entropy() for part in self._components.each(parameters)]
            )
        )

    def kl(self, other):
        """KL(self || other), float32 `[...]`: exact or estimated, see the class.

        See `Distribution.kl`.
        """
        self._check_kl(other)

        def divergences(parameters, inputs):
            pairs = zip(
                self._components.each(parameters),
                other._components.each(other._emitted(inputs)),
                strict=True,
            )
            return _joined([part.kl(other_part) for part, other_part in pairs])

        return self._expected(divergences)

    def _emitted(self, inputs):
        """The parameters of all components, `[..., P]`.

        Args:
            inputs: What the model sees of actions, `[..., D]`, or `[M, ..., D]` for M
                actions of each distribution.
        """

        def repeated(x):
            if len(x.shape) == len(inputs.shape):
                return x
            return ops.broadcast_to(x, (*ops.shape(inputs)[:-1], ops.shape(x)[-1]))

        parameters = self._model(inputs, repeated(self.parameters))
        if self._legal is None:
            return parameters
        # In half precision there is no such number.
        parameters = ops.cast(parameters, "float32")
        illegal = ops.full_like(parameters, ILLEGAL)
        return ops.where(repeated(self._legal), parameters, illegal)

    def _log_probs(self, parameters, parts):
        """Log-probability of each component given those before, `[..., N]`."""
        pairs = zip(self._components.each(parameters), parts, strict=True)
        return _joined([distribution.log_prob(part) for distribution, part in pairs])

    def _expected(self, quantity):
        """Mean over actions of what each component adds, given those before it.

        Args:
            quantity: Function of parameters `[..., P]` and of what the model saw,
                `[..., D]`, to `[..., N]`.
        """
        beginnings = self._beginnings()
        if beginnings is None:
            return self._estimated(quantity)
        context = self.parameters
        shape = (len(beginnings[0]), *ops.shape(context)[:-1])
        ones = (1,) * len(shape[1:])

        def repeated(array):
            array = array.reshape(shape[0], *ones, -1)
            return ops.broadcast_to(
                ops.convert_to_tensor(array), (*shape, array.shape[-1])
            )

        parts = [repeated(part) for part in beginnings]
        inputs = self._components.encode_all(parts)
        parameters = self._emitted(inputs)
        # How an action goes on does not matter to what its beginning adds.
        log_probs = self._log_probs(parameters, parts)[..., :-1]
        weights = ops.exp(ops.sum(log_probs, axis=-1))
        return ops.sum(weights * ops.sum(quantity(parameters, inputs), axis=-1), axis=0)

    def _beginnings(self):
        """All values of the components but the last, by leaf; None if too many."""
        options = self._components.options[:-1]
        if None in options or np.prod(options, dtype=float) > MOST_ENUMERATED:
            return None
        rows = np.array(list(itertools.product(*map(range, options))), np.int32)
        rows = np.pad(rows.reshape(-1, len(options)), [(0, 0), (0, 1)])
        sizes = self._components.leaf_sizes
        parts = np.split(rows, np.cumsum(sizes)[:-1], axis=-1)
        return parts

    def _estimated(self, quantity):
        # With the same numbers each time, a policy would learn what suits those.
        drawn = self.sample(self._estimation_seed)
        drawn = keras.tree.map_structure(ops.stop_gradient, drawn)
        parts = self._components.split(drawn, None)
        inputs = self._components.encode_all(parts)
        parameters = self._emitted(inputs)
        added = quantity(parameters, inputs)
        log_probs = self._log_probs(parameters, parts)
        # What follows a component depends on what was drawn there: the gradient of how
        # probable that was, times what follows. It adds nothing to the value.
        total = ops.sum(added, axis=-1, keepdims=True)
        following = ops.stop_gradient(total - ops.cumsum(added, axis=-1))
        score = ops.sum(following * (log_probs - ops.stop_gradient(log_probs)), axis=-1)
        return ops.squeeze(total, -1) + score


def autoregressive_for(action_space, model, seed=0):
    """Returns the type of autoregressive distributions over an action space.

    Args:
        action_space: A Gymnasium space.
        model: As for `Autoregressive`, a layer with an attribute `context_units`, the
            size of the context, and a method `arrange(input_sizes, output_sizes)`,
            which is told the sizes of all components (see `Components`).
        seed: Integer, or `None` for a random one: from where entropies and divergences
            that have no closed form are estimated.

    Returns:
        A `DistributionType`. Its option `estimation_seed`, a
        `keras.random.SeedGenerator`, has a state, which a `Policy` keeps.

    Raises:
        ValueError: Actions have one component only, or in the model a component's
            parameters depend on itself or on one after it.

    Example:

    ```python
    space = gymnasium.spaces.MultiDiscrete([4, 4])
    autoregressive_for(space, kerasrl.models.MADE()).parameters_size  # 64
    ```
    """
    components = Components(action_space)
    if len(components) < 2:
        raise ValueError(
            f"Actions of {action_space} have one component, which depends on no other. "
            "Leave autoregressor= out."
        )
    model.arrange(components.input_sizes, components.output_sizes)
    _check_order(model, components)
    return DistributionType(
        Autoregressive,
        model.context_units,
        components.like.action_shape,
        components.like.action_dtype,
        model=model,
        components=components,
        estimation_seed=keras.random.SeedGenerator(seed),
    )


def _check_order(model, components):
    """Raises if parameters depend on components that are not before theirs.

    Log-probabilities would then be those of no distribution. It also makes the weights
    of the model.
    """
    sizes, outputs = components.input_sizes[:-1], components.output_sizes
    generator = np.random.default_rng(0)
    # In row j, component j is another one than in the first row of all.
    rows = np.repeat(generator.normal(size=(1, sum(sizes))), len(outputs), 0)
    for index, end in enumerate(np.cumsum(sizes)):
        rows[index + 1, end - sizes[index] : end] += 1.0
    context = np.repeat(generator.normal(size=(1, model.context_units)), len(rows), 0)
    result = model(rows.astype(np.float32), context.astype(np.float32))
    result = ops.convert_to_numpy(result)
    if result.shape != (len(rows), sum(outputs)):
        raise ValueError(
            f"{type(model).__name__} returned shape {result.shape} for {len(rows)} "
            f"actions. Expected {(len(rows), sum(outputs))}: the parameters of "
            f"components of {outputs}, side by side."
        )
    moved = ~np.isclose(result, result[:1], 1e-5, 1e-6)
    for index in range(len(sizes)):
        if moved[index + 1, : sum(outputs[: index + 1])].any():
            raise ValueError(
                f"In {type(model).__name__}, parameters of a component depend on "
                f"component {index}, which is not before it. Mask what it sees, as "
                "kerasrl.models.MADE does."
            )


def _joined(parts):
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)
