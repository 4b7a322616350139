"""From nested observations to what trunks take: a vector, an image, or several."""

import math
import warnings

import keras
import numpy as np
from gymnasium import spaces as gym_spaces
from keras import ops

from kerasrl import spaces
from kerasrl.models.normalization import RunningNormalization

# Floats count exactly up to here; integers with wider bounds have none to speak of.
_WIDEST = 2**24
#: Raised where observations become other numbers than they did; kept with policies.
ENCODING = 1


class Encoder(keras.layers.Layer):
    """Turns an observation, however nested, into the input of a trunk.

    What a leaf becomes depends on its space alone:

    - `Discrete` and `MultiDiscrete`: one-hot vectors.
    - `Box` of integers: divided by its greatest bound, so that entries lie within
      `[-1, 1]` and zero stays zero: pixels of `0 .. 255` are divided by 255, and so
      are bytes that are no pixels; a board of `0 .. 2` is halved; one of `-1 .. 1`
      stays. Where the bounds do not enclose zero, the one nearer to zero is subtracted
      first. Bounds may differ from entry to entry. Integers whose bounds lie more than
      `2**24` apart have none to speak of and stay as they are.
    - `Box` of floats: as it is, whatever its bounds, or normalized if asked for.
    - `MultiBinary`: as it is.

    A `Box` of rank 3 is an image and keeps its axes. Its channels are on the last axis,
    unless they are on the first: if the other two are equal and it differs from them,
    `(3, 8, 8)`, or if it is less than a quarter of either, `(4, 84, 96)`. Then it
    becomes the last, which Keras takes for the channels. Where the first axis is the
    least of three, and neither holds, there is a warning. All other leaves are
    flattened and concatenated.

    Args:
        observation_space: A `gymnasium.spaces.Space`.
        normalize: Bool, whether floating-point leaves are shifted and scaled by
            running statistics.
        split_images: Bool, whether images inside `Dict` and `Tuple` are kept apart, for
            `MixedTrunk`. Otherwise they are flattened.
        shift: Bool, whether there is a weight, the origin, for each normalized leaf of
            a float64 space. It is what was subtracted of the observations, in float64,
            before they were rounded to float32 and came here; agents set it.

    Input shape:
        Tree `[N, ...]` with the structure of the space.

    Output shape:
        `(N, features)`; `(N, height, width, channels)` for a single image; with
        `split_images`, where there are any, a tuple of images followed by the vector of
        all else, if there is something else.

    Example:

    ```python
    encoder = Encoder(gymnasium.spaces.Discrete(4))
    encoder(np.array([0, 3]))  # two one-hot rows
    ```
    """

    #: Whether a space that is a single image stays one.
    keeps_images = True

    def __init__(
        self,
        observation_space,
        normalize=False,
        split_images=False,
        shift=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.leaves = spaces.leaves(observation_space)
        images = [k for k, leaf in enumerate(self.leaves) if is_image(leaf)]
        self.is_image = self.keeps_images and is_image(observation_space)
        self.images = images if split_images or self.is_image else []
        self.channels_first = [
            k in self.images and has_channels_first(leaf.shape)
            for k, leaf in enumerate(self.leaves)
        ]
        self.scales = [_scale(leaf) for leaf in self.leaves]
        self.normalizers = [
            RunningNormalization() if normalize and _is_continuous(leaf) else None
            for leaf in self.leaves
        ]
        self._shift = shift
        self.origins = [None] * len(self.leaves)
        if normalize and not any(self.normalizers):
            raise ValueError(
                "Received normalize_observations=True for the observation space "
                f"{observation_space}, which has no floating-point part. Leave it out: "
                "categories become one-hot vectors, and integers are divided by their "
                "bounds."
            )

    def build(self, input_shape):
        for index, leaf in enumerate(self.leaves):
            if self.normalizers[index] is not None:
                self.normalizers[index].build((None, *leaf.shape))
                if self._shift and leaf.dtype == np.float64:
                    self.origins[index] = self.add_weight(
                        name="origin",
                        shape=leaf.shape,
                        initializer="zeros",
                        trainable=False,
                        dtype="float32",
                    )

    def load_own_variables(self, store):
        # Weights that were saved when there were no origins are about no shift.
        if len(store.keys()) == 0:
            for origin in self.origins:
                if origin is not None:
                    origin.assign(np.zeros(origin.shape, np.float32))
            return
        super().load_own_variables(store)

    def call(self, observations):
        values = keras.tree.flatten(observations)
        if self.is_image:
            return self.image(0, values[0])
        images = tuple(self.image(index, values[index]) for index in self.images)
        vectors = [
            self.encode(index, value)
            for index, value in enumerate(values)
            if index not in self.images
        ]
        if len(vectors) > 1:
            vectors = [ops.concatenate(vectors, axis=-1)]
        return (*images, *vectors) if images else vectors[0]

    def normalize(self, index, value):
        normalizer = self.normalizers[index]
        return value if normalizer is None else normalizer(value)

    def numbers(self, index, value):
        """Entries of a `Box` or `MultiBinary` as floats of a moderate size."""
        if self.scales[index] is None:
            return ops.cast(self.normalize(index, value), "float32")
        shift, scale = self.scales[index]
        value = ops.cast(value, "float32")
        return (value if np.all(shift == 0) else value - shift) / scale

    def image(self, index, value):
        value = self.numbers(index, value)
        if self.channels_first[index]:
            return ops.transpose(value, (0, 2, 3, 1))
        return value

    def encode(self, index, value):
        leaf = self.leaves[index]
        if isinstance(leaf, gym_spaces.Discrete):
            return ops.one_hot(value - leaf.start, int(leaf.n), dtype="float32")
        if isinstance(leaf, gym_spaces.MultiDiscrete):
            value = ops.reshape(value - leaf.start, (-1, leaf.nvec.size))
            columns = [
                ops.one_hot(value[:, column], int(size), dtype="float32")
                for column, size in enumerate(leaf.nvec.flat)
            ]
            return ops.concatenate(columns, axis=-1)
        value = self.numbers(index, value)
        if len(leaf.shape) == 1:
            return value
        return ops.reshape(value, (-1, math.prod(leaf.shape)))

    def update(self, observations, mask=None):
        """Learns the statistics of observations `[N, ...]`, if it normalizes."""
        values = keras.tree.flatten(observations)
        for normalizer, value in zip(self.normalizers, values, strict=True):
            if normalizer is not None:
                normalizer.update(value, mask)


def _is_continuous(leaf):
    return isinstance(leaf, gym_spaces.Box) and leaf.dtype.kind == "f"


def is_image(leaf):
    """Whether a space without parts is an image: a `Box` of rank 3."""
    return isinstance(leaf, gym_spaces.Box) and len(leaf.shape) == 3


def has_channels_first(shape):
    """Whether the channels of an image are on its first axis; see `Encoder`."""
    first, second, last = shape
    if second == last:
        return first != second
    if 4 * first < min(second, last):
        return True
    if first < min(second, last):
        warnings.warn(
            f"An image of shape {tuple(shape)} was taken for one of height {first}, "
            f"width {second} and {last} channels. If its channels are on the first "
            "axis, move them to the last with "
            "gymnasium.wrappers.TransformObservation.",
            stacklevel=2,
        )
    return False


def _scale(leaf):
    """What is subtracted from integers and what they are divided by, or None."""
    if not isinstance(leaf, gym_spaces.Box) or leaf.dtype.kind not in "iu":
        return None
    low, high = leaf.low.astype(np.float64), leaf.high.astype(np.float64)
    if (high - low > _WIDEST).any():
        return None
    # The number of the interval that is nearest to zero.
    shift = np.clip(0.0, low, high)
    scale = np.maximum(high - shift, shift - low)
    scale = np.where(scale == 0, 1.0, scale)
    # Plain numbers where all entries are alike, as those of images are.
    return tuple(
        float(x.flat[0]) if x.size and (x == x.flat[0]).all() else x.astype(np.float32)
        for x in (shift, scale)
    )


def warn_of_first_encoding(space):
    """Warns if a policy saved without `ENCODING` was trained on other numbers.

    Of integers, only images and `uint8` of two axes and more were divided, by 255;
    channels came first only where they were less than a quarter of the other axes.
    """
    for leaf in spaces.leaves(space):
        shape, divisor = leaf.shape, 1
        is_single_image = leaf is space and is_image(leaf)
        if leaf.dtype == np.uint8 and len(shape) >= 2:
            divisor = 255
        elif is_single_image and leaf.dtype.kind in "iu":
            divisor = 255
        shift, scale = _scale(leaf) or (0, 1)
        differs = np.any(shift != 0) or np.any(scale != divisor)
        if is_single_image:
            differs |= has_channels_first(shape) != (4 * shape[0] < min(shape[1:]))
        if differs:
            warnings.warn(
                "The policy was saved by an earlier version, which gave networks other "
                f"numbers for observations of {leaf}: integers are divided by the "
                "bounds of their space now, and channels recognized in more shapes. "
                "It does not act as it did: train it on, or anew.",
                stacklevel=2,
            )
            return
