"""Which distribution suits which action space."""

import keras
import optree
from gymnasium import spaces

from kerasrl.distributions.bernoulli import Bernoulli
from kerasrl.distributions.categorical import Categorical
from kerasrl.distributions.deterministic import Deterministic
from kerasrl.distributions.diagonal_gaussian import DiagonalGaussian
from kerasrl.distributions.distribution import check_last_axis
from kerasrl.distributions.joint import Joint
from kerasrl.distributions.multi_categorical import MultiCategorical
from kerasrl.distributions.named import DISTRIBUTIONS, distribution_class
from kerasrl.distributions.tanh_gaussian import TanhGaussian

# So that settings and checkpoints can name them.
for _built_in in (
    *(Bernoulli, Categorical, Deterministic, DiagonalGaussian, MultiCategorical),
    TanhGaussian,
):
    keras.saving.register_keras_serializable("kerasrl")(_built_in)
    DISTRIBUTIONS.build_in(_built_in.__name__, _built_in)


class DistributionType:
    """A distribution class together with the action space it was chosen for.

    `distribution_for` makes them. Calling one makes distributions of parameters.

    Args:
        distribution_class: Subclass of `Distribution`.
        parameters_size: Int, number of parameters of one action.
        action_shape: Tuple of ints, shape of one action; a tree of them for actions
            of several parts.
        action_dtype: Str, `"int32"` or `"float32"`, or such a tree.
        **options: Arguments of the class beyond the parameters.

    Example:

    ```python
    distribution_type = distribution_for(gymnasium.spaces.Discrete(4))
    distribution_type.parameters_size  # 4
    distribution_type(np.zeros((8, 4))).sample().shape  # (8,)
    ```
    """

    def __init__(
        self, distribution_class, parameters_size, action_shape, action_dtype, **options
    ):
        self.distribution_class = distribution_class
        self.parameters_size = parameters_size
        self.action_shape = action_shape
        self.action_dtype = action_dtype
        self.options = options

    @property
    def parts(self):
        """List of the `DistributionType` of each part of an action, itself if whole."""
        if self.distribution_class is Joint:
            return optree.tree_leaves(self.options["types"])
        return [self]

    def __call__(self, parameters, **more):
        """Makes the distribution of parameters `[..., parameters_size]`.

        Args:
            parameters: Float `[..., parameters_size]`.
            **more: Arguments of the class that are of these parameters.

        Returns:
            A `Distribution`.

        Raises:
            ValueError: The last axis has another size.
        """
        check_last_axis(
            self.distribution_class.__name__,
            parameters,
            self.parameters_size,
            f"actions of shape {self.action_shape}",
        )
        return self.distribution_class(parameters, **self.options, **more)

    def __repr__(self):
        return (
            f"<DistributionType {self.distribution_class.__name__}, "
            f"{self.parameters_size} parameters, actions {self.action_dtype} "
            f"{self.action_shape}>"
        )


def distribution_for(action_space, distribution=None):
    """Chooses the distribution for an action space.

    | Space | Distribution | Parameters |
    |---|---|---|
    | `Discrete(n)` | `Categorical` | n logits |
    | `MultiDiscrete(nvec)` | `MultiCategorical` | sum(nvec) logits |
    | `MultiBinary(shape)` | `Bernoulli` | one logit an entry |
    | `Box(shape)` | `DiagonalGaussian` | a mean and a log-std an entry |
    | `Tuple`, `Dict` of them, nested | `Joint` | those of all parts |

    Args:
        action_space: A Gymnasium space.
        distribution: `None` for that of the table; a subclass of `Distribution` or its
            registered name (see `kerasrl.distributions.distribution_class`); for the
            parts of `Dict` and `Tuple` spaces a dict, or list or tuple, of them, in
            which parts of a `Dict` may be left out.

    Returns:
        `DistributionType`: call it with parameters `[..., parameters_size]`; its
        `parameters_size`, `action_shape` and `action_dtype` describe what goes in and
        what comes out.

    Raises:
        TypeError: There is no distribution for such a space.
        ValueError: Actions of that space have no entries, or the parts are others than
            those of the space.

    Example:

    ```python
    distribution_for(gymnasium.spaces.Box(-1, 1, (3,))).parameters_size  # 6
    ```
    """
    nested = isinstance(action_space, (spaces.Dict, spaces.Tuple))
    if isinstance(distribution, (dict, list, tuple)) or (nested and not distribution):
        return _joint(action_space, distribution)
    if distribution is None:
        return _leaf(action_space, _class_for(action_space))
    found = distribution_class(distribution)
    if not nested:
        return _leaf(action_space, found)
    # A class of one's own may be of all parts at once.
    like = _joint(action_space, None)
    return DistributionType(
        found,
        _size(action_space, found),
        like.action_shape,
        like.action_dtype,
        **found.options_for(action_space),
    )


def _class_for(action_space):
    for space_class, distribution in (
        (spaces.Discrete, Categorical),
        (spaces.MultiDiscrete, MultiCategorical),
        (spaces.MultiBinary, Bernoulli),
        (spaces.Box, DiagonalGaussian),
    ):
        if isinstance(action_space, space_class):
            return distribution
    raise TypeError(
        "There is no action distribution for this space; Discrete, MultiDiscrete, "
        "MultiBinary and Box have one, and Dict and Tuple spaces of them. "
        f"Received: {action_space!r}. Wrap the environment so that its action "
        "space is one of those."
    )


def _leaf(action_space, distribution):
    return DistributionType(
        distribution,
        _size(action_space, distribution),
        action_space.shape,
        "float32" if isinstance(action_space, spaces.Box) else "int32",
        **distribution.options_for(action_space),
    )


def _size(action_space, distribution):
    size = distribution.parameters_size(action_space)
    if not size:
        raise ValueError(
            f"Actions of this space have no entries. Received: {action_space!r}."
        )
    return size


def _joint(action_space, chosen):
    types = _types(action_space, chosen)
    leaves, structure = optree.tree_flatten(types)
    return DistributionType(
        Joint,
        sum(leaf.parameters_size for leaf in leaves),
        structure.unflatten([leaf.action_shape for leaf in leaves]),
        structure.unflatten([leaf.action_dtype for leaf in leaves]),
        types=types,
    )


def _types(space, chosen):
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        if isinstance(chosen, (dict, list, tuple)):
            raise _misfit(space, chosen)
        return distribution_for(space, chosen)
    if not space.spaces:
        raise ValueError(f"Actions of this space have no entries. Received: {space!r}.")
    if isinstance(space, spaces.Tuple):
        chosen = (None,) * len(space) if chosen is None else chosen
        if not isinstance(chosen, (list, tuple)) or len(chosen) != len(space):
            raise _misfit(space, chosen)
        return tuple(map(_types, space, chosen))
    if len({type(key) for key in space.spaces}) > 1:
        raise TypeError(
            "Keys of an action space must sort together: be all strings, for example. "
            f"Received: {list(space.spaces)}."
        )
    chosen = {} if chosen is None else chosen
    if not isinstance(chosen, dict) or not set(chosen) <= set(space.spaces):
        raise _misfit(space, chosen)
    return {key: _types(part, chosen.get(key)) for key, part in space.items()}


def _misfit(space, chosen):
    return ValueError(
        f"Received distribution={chosen!r} for the action space {space}. Expected one "
        "class or name for a space without parts; a dict with some of its keys for a "
        "Dict, and one for each part for a Tuple."
    )
