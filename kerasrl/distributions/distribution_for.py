"""Which distribution suits which action space."""

import optree
from gymnasium import spaces

from kerasrl.distributions.bernoulli import Bernoulli
from kerasrl.distributions.categorical import Categorical
from kerasrl.distributions.diagonal_gaussian import DiagonalGaussian
from kerasrl.distributions.distribution import check_last_axis
from kerasrl.distributions.joint import Joint
from kerasrl.distributions.multi_categorical import MultiCategorical


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

    def __call__(self, parameters):
        """Makes the distribution of parameters `[..., parameters_size]`.

        Args:
            parameters: Float `[..., parameters_size]`.

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
        return self.distribution_class(parameters, **self.options)

    def __repr__(self):
        return (
            f"<DistributionType {self.distribution_class.__name__}, "
            f"{self.parameters_size} parameters, actions {self.action_dtype} "
            f"{self.action_shape}>"
        )


def distribution_for(action_space):
    """Chooses the distribution for an action space.

    | Space | Distribution | Parameters |
    |---|---|---|
    | `Discrete(n)` | `Categorical` | n logits |
    | `MultiDiscrete(nvec)` | `MultiCategorical` | sum(nvec) logits |
    | `MultiBinary(shape)` | `Bernoulli` | one logit an entry |
    | `Box(shape)` | `DiagonalGaussian` | a mean and a log-std an entry |
    | `Tuple`, `Dict` of them, nested | `Joint` | those of all parts |

    Args:
        action_space: A Gymnasium space out of the table.

    Returns:
        `DistributionType`: call it with parameters `[..., parameters_size]`; its
        `parameters_size`, `action_shape` and `action_dtype` describe what goes in and
        what comes out.

    Raises:
        TypeError: There is no distribution for such a space.
        ValueError: Actions of that space have no entries.

    Example:

    ```python
    distribution_for(gymnasium.spaces.Box(-1, 1, (3,))).parameters_size  # 6
    ```
    """
    if isinstance(action_space, (spaces.Dict, spaces.Tuple)):
        return _joint(action_space)
    if isinstance(action_space, spaces.Discrete):
        distribution_class, dtype, options = Categorical, "int32", {}
    elif isinstance(action_space, spaces.MultiDiscrete):
        distribution_class, dtype = MultiCategorical, "int32"
        options = {"nvec": action_space.nvec}
    elif isinstance(action_space, spaces.MultiBinary):
        distribution_class, dtype = Bernoulli, "int32"
        options = {"shape": action_space.shape}
    elif isinstance(action_space, spaces.Box):
        distribution_class, dtype = DiagonalGaussian, "float32"
        options = {"shape": action_space.shape}
    else:
        raise TypeError(
            "There is no action distribution for this space; Discrete, MultiDiscrete, "
            "MultiBinary and Box have one, and Dict and Tuple spaces of them. "
            f"Received: {action_space!r}. Wrap the environment so that its action "
            "space is one of those."
        )
    size = distribution_class.parameters_size(action_space)
    if not size:
        raise ValueError(
            f"Actions of this space have no entries. Received: {action_space!r}."
        )
    return DistributionType(
        distribution_class, size, action_space.shape, dtype, **options
    )


def _joint(action_space):
    types = _types(action_space)
    leaves, structure = optree.tree_flatten(types)
    return DistributionType(
        Joint,
        sum(leaf.parameters_size for leaf in leaves),
        structure.unflatten([leaf.action_shape for leaf in leaves]),
        structure.unflatten([leaf.action_dtype for leaf in leaves]),
        types=types,
    )


def _types(space):
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        return distribution_for(space)
    if not space.spaces:
        raise ValueError(f"Actions of this space have no entries. Received: {space!r}.")
    if isinstance(space, spaces.Tuple):
        return tuple(_types(part) for part in space)
    if len({type(key) for key in space.spaces}) > 1:
        raise TypeError(
            "Keys of an action space must sort together: be all strings, for example. "
            f"Received: {list(space.spaces)}."
        )
    return {key: _types(part) for key, part in space.items()}
