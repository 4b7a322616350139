"""Optimizers with epsilon where their papers have it.

Published hyperparameters of reinforcement learning name an epsilon, and mean the one
that PyTorch and Optax add. Keras's optimizers of the same names add another one.
"""

import keras
from keras import ops


@keras.saving.register_keras_serializable("kerasrl")
class Adam(keras.optimizers.Adam):
    """Adam with epsilon where its paper has it: after the bias correction.

    ```
    variable -= learning_rate * m_hat / (sqrt(v_hat) + epsilon)
    ```

    `keras.optimizers.Adam` adds epsilon to the uncorrected `sqrt(v)`, which makes it up
    to 32 times as large in the first steps. In reinforcement learning, where gradients
    are small and `epsilon=1e-5` is common, that is much of a step.

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


@keras.saving.register_keras_serializable("kerasrl")
class RMSprop(keras.optimizers.RMSprop):
    """RMSprop with epsilon outside the square root.

    ```
    variable -= learning_rate * gradient / (sqrt(v) + epsilon)
    ```

    `keras.optimizers.RMSprop` divides by `sqrt(v + epsilon)`: its `epsilon=1e-5` bounds
    the root by 3e-3 from below, where A2C's published `epsilon=1e-5` bounds it by 1e-5,
    and most gradients of a policy are smaller than 3e-3. Lecture notes that name the
    method (Hinton, 2012, lecture 6e) leave epsilon out; Mnih et al. (2016) have it
    inside, as large as 0.1, for which `keras.optimizers.RMSprop` is the right one.

    Args:
        learning_rate, rho, momentum, epsilon, centered, **kwargs: As for
            `keras.optimizers.RMSprop`.

    Example:

    ```python
    agent.compile(kerasrl.optimizers.RMSprop(7e-4, rho=0.99, epsilon=1e-5))
    ```
    """

    def update_step(self, gradient, variable, learning_rate):
        rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        index = self._get_variable_index(variable)
        velocity = self._velocities[index]
        self.assign(velocity, self._average(velocity, ops.square(gradient)))
        squares = velocity.value
        if self.centered:
            average = self._average_gradients[index]
            self.assign(average, self._average(average, gradient))
            # Of a gradient that hardly changes nothing is left, or less by rounding.
            squares = ops.maximum(squares - ops.square(average), 0.0)
        step = rate * gradient / (ops.sqrt(squares) + self.epsilon)
        if self.momentum > 0:
            momentum = self._momentums[index]
            self.assign(momentum, self.momentum * momentum + step)
            step = momentum.value
        self.assign_sub(variable, step)

    def _average(self, old, new):
        return self.rho * old + (1.0 - self.rho) * new
