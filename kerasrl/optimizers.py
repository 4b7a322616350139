"""Optimizers that Keras lacks."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("kerasrl")
class Adam(keras.optimizers.Adam):
    """Adam with epsilon where its paper has it: after the bias correction.

    ```
    variable -= learning_rate * m_hat / (sqrt(v_hat) + epsilon)
    ```

    `keras.optimizers.Adam` adds epsilon to the uncorrected `sqrt(v)`, which makes it up
    to 32 times as large in the first steps. Published hyperparameters of reinforcement
    learning, where gradients are small and `epsilon=1e-5` is common, mean this one, as
    do PyTorch and Optax.

    Paper: Kingma and Ba (2015), Algorithm 1, https://arxiv.org/abs/1412.6980.

    Args:
        learning_rate, beta_1, beta_2, epsilon, **kwargs: As for
            `keras.optimizers.Adam`.

    Example:

    ```python
    agent.compile(kerasrl.optimizers.Adam(1e-3, epsilon=1e-5))
    ```
    """

    @property
    def epsilon(self):
        """What Keras's form of the update has to add to have that effect."""
        step = ops.cast(self.iterations + 1, "float32")
        return self._epsilon * ops.sqrt(1.0 - ops.power(self.beta_2, step))

    @epsilon.setter
    def epsilon(self, value):
        self._epsilon = value

    def get_config(self):
        return {**super().get_config(), "epsilon": self._epsilon}
