"""A network in which each output sees only the inputs before it."""

import keras
import numpy as np
from keras import ops

from kerasrl import checks
from kerasrl.models.configured import Configured
from kerasrl.models.initializers import make_initializer


@keras.saving.register_keras_serializable("kerasrl")
class MADE(Configured, keras.layers.Layer):
    """Masked autoencoder for distribution estimation.

    The parameters of all components of an action, each computed of the context and of
    the components before it alone, in one pass: weights that would let it see more are
    masked. The model of `kerasrl.distributions.Autoregressive`, for any number of
    components.

    Paper: Germain et al. (2015), https://arxiv.org/abs/1502.03509. The context is seen
    by all layers; degrees of hidden units are spread evenly. As in the paper, outputs
    see inputs directly too: each depends on all that it may, however narrow the hidden
    layers are. Two policies with one `MADE` share its weights: make one for each.

    A layer of your own does the same with an attribute `context_units`, and methods
    `arrange(input_sizes, output_sizes)` and `call(actions, context)`.

    Args:
        hidden_units: Sequence of integers, the width of each hidden layer.
        activation: Activation of hidden layers, anything Keras accepts.
        context_units: Integer, how many numbers a policy emits for its context.
        kernel_initializer: As for `MLP`; the last layer begins a hundredth as large, so
            that the first policy is nearly uniform.
        seed: Integer or `None`, seed of the initializers.

    Input shape:
        Encoded components but the last, `(..., sum(input_sizes[:-1]))`, and the
        context, `(..., context_units)`.

    Output shape:
        `(..., sum(output_sizes))`, float32.

    Example:

    ```python
    made = kerasrl.models.MADE((128, 128))
    agent = kerasrl.PPO(policy={"autoregressor": made})
    ```
    """

    def __init__(
        self,
        hidden_units=(64,),
        activation="tanh",
        context_units=64,
        kernel_initializer="orthogonal",
        seed=None,
        **kwargs,
    ):
        # Log-probabilities are differences of what it says: not in halves.
        super().__init__(**{"dtype": "float32", **kwargs})
        self.hidden_units = checks.units("hidden_units", hidden_units)
        self.activation = checks.named("activation", activation, keras.activations)
        self.context_units = checks.positive_integer("context_units", context_units)
        self.kernel_initializer = kernel_initializer
        self.seed = checks.seed(seed)
        self.sizes = None

    def arrange(self, input_sizes, output_sizes):
        """Says what the components of an action are. Called before the first use.

        Args:
            input_sizes: List of integers, numbers that encode each component. The last
                has no influence.
            output_sizes: List of integers, parameters of each component.

        Raises:
            ValueError: It was arranged for other components before.
        """
        sizes = (list(input_sizes), list(output_sizes))
        if self.sizes is not None and self.sizes != sizes:
            raise ValueError(
                f"Received components of sizes {sizes}, but this MADE was arranged for "
                f"{self.sizes}. Make one for each policy."
            )
        self.sizes = sizes

    def build(self, actions_shape, context_shape):
        if self.sizes is None:
            raise ValueError("Call `arrange` before the first use.")
        inputs, outputs = self.sizes
        count = len(outputs)
        # Of each unit, the last component that it depends on, counted from 1.
        seen = np.repeat(np.arange(1, count), inputs[:-1])
        self.kernels, self.context_kernels, self.biases = [], [], []
        self.masks = []
        gain = 1.0 if self.kernel_initializer == "normc" else 2.0**0.5
        for number, units in enumerate((*self.hidden_units, sum(outputs))):
            if number < len(self.hidden_units):
                sees = np.arange(units) * count // units
            else:
                sees = np.repeat(np.arange(count), outputs)
                gain = 0.01
            self.masks.append(_mask(seen, sees))
            for kernels, size, name in (
                (self.kernels, len(seen), "kernel"),
                (self.context_kernels, self.context_units, "context_kernel"),
            ):
                seed = self._seed(2 * number + (name == "context_kernel"))
                kernels.append(
                    self.add_weight(
                        name=f"{name}_{number}",
                        shape=(size, units),
                        initializer=make_initializer(
                            self.kernel_initializer, gain, seed
                        ),
                    )
                )
            self.biases.append(
                self.add_weight(
                    name=f"bias_{number}", shape=(units,), initializer="zeros"
                )
            )
            seen = sees
        if self.hidden_units:
            self.direct_mask = _mask(np.repeat(np.arange(1, count), inputs[:-1]), seen)
            seed = self._seed(2 * len(self.biases))
            self.direct_kernel = self.add_weight(
                name="direct_kernel",
                shape=self.direct_mask.shape,
                initializer=make_initializer(self.kernel_initializer, gain, seed),
            )

    def call(self, actions, context):
        features = actions
        last = len(self.biases) - 1
        for number, mask in enumerate(self.masks):
            # Not in the weights alone: gradients must not reach what is masked either.
            features = (
                ops.matmul(features, self.kernels[number] * mask)
                + ops.matmul(context, self.context_kernels[number])
                + self.biases[number]
            )
            if number < last:
                features = self.activation(features)
        if self.hidden_units:
            direct = ops.matmul(actions, self.direct_kernel * self.direct_mask)
            features = features + direct
        return features

    def get_build_config(self):
        # It is built by the policy that it is a part of, which knows the components.
        return None

    def build_from_config(self, config):
        pass


def _mask(seen, sees):
    """Which of some units, `[I]`, others may see, `[O]`: float32 `[I, O]`."""
    return (seen[:, None] <= sees).astype(np.float32)


def make_autoregressor(autoregressor, seed):
    """Returns the layer that an argument of a policy stands for.

    Args:
        autoregressor: As for `ActorCritic`, but not `None`.
        seed: Integer or `None`, for a layer that is made.
    """
    return MADE(seed=seed) if autoregressor == "made" else autoregressor


def check_autoregressor(autoregressor):
    """Raises unless an argument is `None`, `"made"` or a layer like `MADE`.

    Raises:
        TypeError: It is something else.
    """
    if autoregressor is None or autoregressor == "made":
        return
    needed = ("arrange", "context_units")
    if not isinstance(autoregressor, keras.Layer) or not all(
        hasattr(autoregressor, name) for name in needed
    ):
        raise TypeError(
            f"Received autoregressor={autoregressor!r}. Expected None, 'made', or a "
            "Keras layer with `context_units`, `arrange` and `call(actions, context)`, "
            "such as kerasrl.models.MADE((128,))."
        )
