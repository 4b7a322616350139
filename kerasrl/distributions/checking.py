"""Whether a distribution of one's own keeps the contract."""

import keras
import optree

from kerasrl.distributions.bernoulli import Bernoulli
from kerasrl.distributions.categorical import Categorical
from kerasrl.distributions.diagonal_gaussian import DiagonalGaussian
from kerasrl.distributions.multi_categorical import MultiCategorical

_COMPLETE = (Bernoulli, Categorical, DiagonalGaussian, MultiCategorical)


def is_complete(distribution_type):
    """Whether all parts of a distribution are known to have every method.

    Args:
        distribution_type: `DistributionType`.

    Returns:
        Bool.
    """
    return all(part.distribution_class in _COMPLETE for part in distribution_type.parts)


def check_methods(distribution, distribution_type, methods, who):
    """Raises unless methods of a distribution return what they should.

    Args:
        distribution: A `Distribution` of parameters `[1, P]`.
        distribution_type: The `DistributionType` that made it.
        methods: Names of methods out of `"sample"`, `"mode"`, `"log_prob"`,
            `"entropy"` and `"kl"`.
        who: Str, who needs them, for the message.

    Raises:
        ValueError: One is missing, or returns another shape or kind of numbers.
    """
    # With a seed of its own: Keras's global generator stays where it was.
    arguments = {"sample": lambda: (0,), "kl": lambda: (distribution,)}
    arguments["log_prob"] = lambda: (distribution.sample(0),)
    for name in methods:
        try:
            result = getattr(distribution, name)(*arguments.get(name, tuple)())
        except NotImplementedError as error:
            raise ValueError(
                f"{who} needs {name} of the distribution of the policy's actions, "
                f"{distribution_type.distribution_class.__name__}. {error}"
            ) from error
        expected = ((1,), "float")
        if name in ("sample", "mode"):
            expected = optree.tree_map(
                lambda dtype, shape: ((1, *shape), dtype.rstrip("0123456789")),
                distribution_type.action_dtype,
                distribution_type.action_shape,
            )
        received = optree.tree_map(_describe, result)
        if received != expected:
            raise ValueError(
                f"{distribution_type.distribution_class.__name__}.{name} of one action "
                f"returned {received}. Expected (shape, kind): {expected}."
            )


def _describe(array):
    dtype = keras.backend.standardize_dtype(array.dtype)
    return tuple(array.shape), dtype.rstrip("0123456789")
