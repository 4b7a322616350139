"""The components of an action: single choices, switches and numbers, in one order."""

import math

import numpy as np
import optree
from keras import ops

from kerasrl.distributions.bernoulli import Bernoulli
from kerasrl.distributions.categorical import Categorical
from kerasrl.distributions.diagonal_gaussian import DiagonalGaussian
from kerasrl.distributions.distribution_for import distribution_for
from kerasrl.distributions.multi_categorical import MultiCategorical
from kerasrl.losses.shapes import static_shape


class Components:
    """What an action is made of, entry by entry.

    The order is that of the leaves of the action, dicts by their sorted keys, and of
    the entries of each leaf, row by row. A choice is distributed as `Categorical`, a
    switch as `Bernoulli`, a number as `DiagonalGaussian`.

    Args:
        action_space: A Gymnasium space that `distribution_for` knows.

    Attributes:
        input_sizes: List of ints, how many numbers `encode` makes of each component.
        output_sizes: List of ints, how many parameters describe each component.
        like: `DistributionType` of independent components.
        options: List of ints, the number of options of each component; None for
            numbers.
    """

    def __init__(self, action_space):
        self.like = distribution_for(action_space)
        self._structure = optree.tree_structure(
            self.like.action_dtype, none_is_leaf=True
        )
        self._leaves = [_leaf(part) for part in self.like.parts]
        kinds = [kind for leaf in self._leaves for kind in leaf.kinds]
        self.options = [options for options, _ in kinds]
        self.output_sizes = [size for _, size in kinds]
        self.input_sizes = [n if n is not None and n > 2 else 1 for n in self.options]

    @property
    def leaf_sizes(self):
        """List of ints, the number of components of each leaf."""
        return [leaf.count for leaf in self._leaves]

    def __len__(self):
        return len(self.output_sizes)

    def split(self, actions, batch):
        """Takes actions apart.

        Args:
            actions: Tree `[..., *shape]` as the action space.
            batch: The leading dimensions, as from `static_shape`, to compare with.

        Returns:
            List of tensors `[..., m]`, one for each leaf with its m components.

        Raises:
            ValueError: Structure or shapes are others.
        """
        try:
            leaves = self._structure.flatten_up_to(actions)
        except ValueError as error:
            raise ValueError(
                "Autoregressive.log_prob needs a tree of actions like the action space."
                f" Received: {optree.tree_structure(actions)}. Expected: "
                f"{self._structure}."
            ) from error
        parts = zip(self._leaves, leaves, strict=True)
        return [leaf.split(values, batch) for leaf, values in parts]

    def join(self, values):
        """Puts actions together from a list of components, each `[...]`."""
        leaves, start = [], 0
        for leaf in self._leaves:
            leaves.append(leaf.join(values[start : start + leaf.count]))
            start += leaf.count
        return self._structure.unflatten(leaves)

    def encode(self, index, values):
        """Makes what a model sees of one component.

        Args:
            index: Int, which component.
            values: `[...]`.

        Returns:
            Float32 `[..., input_sizes[index]]`: one-hot for choices among more than
            two, else the number itself.
        """
        if self.input_sizes[index] == 1:
            return ops.cast(values, "float32")[..., None]
        values = ops.cast(values, "int32")
        return ops.one_hot(values, self.input_sizes[index], dtype="float32")

    def encode_all(self, parts):
        """Makes what a model sees of all components but the last, `[..., D]`.

        Args:
            parts: List as from `split`.
        """
        encoded, index = [], 0
        for part, leaf in zip(parts, self._leaves, strict=True):
            for place in range(leaf.count):
                if index < len(self) - 1:
                    encoded.append(self.encode(index, part[..., place]))
                index += 1
        return ops.concatenate(encoded, axis=-1)

    def one(self, index, parameters):
        """The distribution of one component, of all components' parameters."""
        start = sum(self.output_sizes[:index])
        parameters = parameters[..., start : start + self.output_sizes[index]]
        if self.options[index] is None:
            return DiagonalGaussian(parameters, shape=())
        if self.output_sizes[index] < self.options[index]:
            return Bernoulli(parameters, shape=())
        return Categorical(parameters)

    def each(self, parameters):
        """The distributions of all components, as a list by leaf.

        Args:
            parameters: Float `[..., sum(output_sizes)]`.

        Returns:
            List of distributions, of which every method answers for the m components of
            a leaf, `[..., m]`.
        """
        found, start = [], 0
        for leaf in self._leaves:
            end = start + sum(size for _, size in leaf.kinds)
            found.append(leaf.each(parameters[..., start:end]))
            start = end
        return found


def _leaf(part):
    if part.distribution_class is Categorical:
        return _Choices(part.action_shape, [part.parameters_size])
    if part.distribution_class is MultiCategorical:
        nvec = np.asarray(part.options["nvec"]).ravel()
        return _Choices(part.action_shape, [int(n) for n in nvec])
    if part.distribution_class is Bernoulli:
        return _Switches(part.action_shape, [(2, 1)])
    return _Numbers(part.action_shape, [(None, 2)])


class _Leaf:
    """A leaf of an action, of `count` components.

    `kinds` has a pair for each: the number of options and of parameters.
    """

    def __init__(self, shape, kinds):
        self.shape = tuple(shape)
        self.count = math.prod(self.shape)
        self.kinds = kinds * self.count if len(kinds) == 1 else kinds

    def split(self, values, batch):
        received = static_shape(values)
        expected = None if batch is None else (*batch, *self.shape)
        if received is not None and expected is not None:
            pairs = zip(received, expected, strict=False)
            if len(received) != len(expected) or any(
                r is not None and e is not None and r != e for r, e in pairs
            ):
                raise ValueError(
                    "Autoregressive.log_prob needs one action for each distribution. "
                    f"Received: actions of shape {received}, expected {expected}. "
                    "Nothing is broadcast here."
                )
        if len(self.shape) == 1:
            return values
        leading = ops.shape(values)[: len(ops.shape(values)) - len(self.shape)]
        return ops.reshape(values, (*leading, self.count))

    def join(self, values):
        if not self.shape:
            return values[0]
        values = ops.stack(values, axis=-1)
        if len(self.shape) == 1:
            return values
        return ops.reshape(values, (*ops.shape(values)[:-1], *self.shape))


class _Choices(_Leaf):
    def __init__(self, shape, counts):
        super().__init__(shape, [(n, n) for n in counts])
        self.counts = counts

    def each(self, parameters):
        return MultiCategorical(parameters, self.counts).choices


class _Switches(_Leaf):
    def each(self, parameters):
        return Bernoulli(parameters[..., None], shape=())


class _Numbers(_Leaf):
    def each(self, parameters):
        leading = ops.shape(parameters)[:-1]
        pairs = ops.reshape(parameters, (*leading, self.count, 2))
        return DiagonalGaussian(pairs, shape=())
