"""From nested observations to one vector or one image."""

import keras
from gymnasium import spaces as gym_spaces
from keras import ops

from kerasrl import spaces
from kerasrl.models.normalization import RunningNormalization


class Encoder(keras.layers.Layer):
    """Turns an observation, however nested, into the input of a trunk.

    Discrete leaves become one-hot vectors, floating leaves are normalized if asked
    for, arrays of `uint8` with rows and columns are divided by 255, and everything is
    flattened and concatenated. A space that is a single image (a `Box` of rank 3) stays
    an image; a first axis of less than a quarter of the others, as in a stack of grey
    frames `(4, 84, 84)`, becomes the last, which Keras takes for the channels.

    Args:
        observation_space: A `gymnasium.spaces.Space`.
        normalize: Bool, whether floating-point leaves are shifted and scaled by
            running statistics.

    Input shape:
        Tree `[N, ...]` with the structure of the space.

    Output shape:
        `(N, features)`, or `(N, height, width, channels)` for a single image.

    Example:

    ```python
    encoder = Encoder(gymnasium.spaces.Discrete(4))
    encoder(np.array([0, 3]))  # two one-hot rows
    ```
    """

    def __init__(self, observation_space, normalize=False, **kwargs):
        super().__init__(**kwargs)
        self.leaves = spaces.leaves(observation_space)
        self.is_image = isinstance(observation_space, gym_spaces.Box) and (
            len(observation_space.shape) == 3
        )
        self.channels_first = self.is_image and (
            4 * observation_space.shape[0] < min(observation_space.shape[1:])
        )
        self.normalizers = [
            RunningNormalization() if normalize and _is_continuous(leaf) else None
            for leaf in self.leaves
        ]
        if normalize and not any(self.normalizers):
            raise ValueError(
                "Received normalize_observations=True for the observation space "
                f"{observation_space}, which has no floating-point part. Leave it out: "
                "categories become one-hot vectors, and uint8 images are divided by "
                "255."
            )

    def build(self, input_shape):
        for normalizer, leaf in zip(self.normalizers, self.leaves, strict=True):
            if normalizer is not None:
                normalizer.build((None, *leaf.shape))

    def call(self, observations):
        values = keras.tree.flatten(observations)
        if self.is_image:
            image = self.normalize(0, values[0])
            return ops.transpose(image, (0, 2, 3, 1)) if self.channels_first else image
        vectors = [self.encode(index, value) for index, value in enumerate(values)]
        return vectors[0] if len(vectors) == 1 else ops.concatenate(vectors, axis=-1)

    def normalize(self, index, value):
        normalizer = self.normalizers[index]
        return value if normalizer is None else normalizer(value)

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
        value = ops.cast(self.normalize(index, value), "float32")
        if leaf.dtype == "uint8" and len(leaf.shape) >= 2:
            value = value / 255.0
        if len(leaf.shape) == 1:
            return value
        size = 1
        for length in leaf.shape:
            size *= length
        return ops.reshape(value, (-1, size))

    def update(self, observations, mask=None):
        """Learns the statistics of observations `[N, ...]`, if it normalizes."""
        values = keras.tree.flatten(observations)
        for normalizer, value in zip(self.normalizers, values, strict=True):
            if normalizer is not None:
                normalizer.update(value, mask)


def _is_continuous(leaf):
    return isinstance(leaf, gym_spaces.Box) and leaf.dtype.kind == "f"
