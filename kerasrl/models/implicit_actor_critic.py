"""The built-in policy of IQL."""

import keras
from keras import ops

from kerasrl.models import torso
from kerasrl.models.initializers import make_initializer
from kerasrl.models.soft_actor_critic import SoftActorCritic
from kerasrl.models.trunks import MLP


@keras.saving.register_keras_serializable("kerasrl")
class ImplicitActorCritic(SoftActorCritic):
    """Stochastic policy, critics that value actions, and a network that values states.

    The networks of implicit Q-learning (Kostrikov et al. 2021,
    https://arxiv.org/abs/2110.06169): those of `SoftActorCritic`, and `"values"` of a
    network of its own, with the layers of the critics.

    Args:
        **kwargs: As for `kerasrl.models.SoftActorCritic`, without a `cell`.

    Example:

    ```python
    policy = kerasrl.models.ImplicitActorCritic(hidden_units=(64, 64))
    agent = kerasrl.IQL(policy=policy)
    ```
    """

    def setup(self, observation_space, action_space):
        super().setup(observation_space, action_space)
        if self.cell is not None:
            raise ValueError(
                f"Received cell={self.cell!r}. {type(self).__name__} values single "
                "observations: leave it out."
            )
        units = self.critic_hidden_units
        self.value_trunk = (
            self._make_trunk(6000)
            if self.trunk is None
            else torso.copy_trunk(self.trunk, "The values need a trunk of their own")
        )
        self.value_hidden = MLP(
            self.hidden_units if units is None else units,
            self.activation,
            self.kernel_initializer,
            self._seed(7000),
        )
        self.value_head = keras.layers.Dense(
            1,
            kernel_initializer=make_initializer(
                self.kernel_initializer, 1.0, self._seed(8000)
            ),
            dtype="float32",
        )

    def call(self, inputs, state=None, training=False):
        outputs = super().call(inputs, state, training)
        features = self.encoder(self.network_observations(inputs["observations"]))
        features = torso.call_trunk(self.value_trunk, features, training)
        values = self.value_head(self.value_hidden(features))
        return {**outputs, "values": ops.squeeze(values, -1)}

    def value_variables(self):
        """Returns the trainable variables of the network that values states."""
        layers = (self.value_trunk, self.value_hidden, self.value_head)
        return [v for layer in layers for v in layer.trainable_variables]

    def policy_variables(self):
        """Returns those that are neither of the critics nor of the values."""
        values = {id(variable) for variable in self.value_variables()}
        return [v for v in super().policy_variables() if id(v) not in values]
