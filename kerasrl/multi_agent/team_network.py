"""The network of a team: values of the actions of each, and how they mix."""

import keras
import numpy as np
from gymnasium import spaces
from keras import ops

from kerasrl import checks, losses
from kerasrl.models.configured import Configured
from kerasrl.models.initializers import shift_seed
from kerasrl.models.policy import Policy
from kerasrl.models.recurrence import unroll_gru

MIXERS = ("sum", "monotonic")


@keras.saving.register_keras_serializable("kerasrl")
class TeamNetwork(Configured, Policy):
    """Values of the actions of each agent of a `TeamEnv`, by one network for all.

    A dense layer, a GRU cell and a dense layer see an agent's observation, which of the
    agents it is (without that, agents that see the same could not do different things)
    and what it did last. What `"distribution"` has are these values, `[N, n * A]`; the
    mode of it is what is best for each.

    `mix` makes the value of the team of the values of the actions that its agents take.
    Acting does not need it, nor the state that it looks at.

    Args:
        hidden_units: Integer, width of the dense layer and of the cell.
        mixer: `"sum"`, or `"monotonic"`, by weights that come of the state (QMIX).
        mixing_units: Integer, hidden units of the monotonic mixer.
        hypernet_units: Integer or `None`, hidden units of the networks that its
            weights come of; `None` for none.
        seed: Integer or `None`.

    Raises:
        TypeError: The spaces are not those of a `TeamEnv`.
    """

    def __init__(
        self,
        hidden_units=64,
        mixer="sum",
        mixing_units=32,
        hypernet_units=None,
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.hidden_units = checks.positive_integer("hidden_units", hidden_units)
        self.mixer = checks.choice("mixer", mixer, MIXERS)
        self.mixing_units = checks.positive_integer("mixing_units", mixing_units)
        self.hypernet_units = checks.positive_integer(
            "hypernet_units", hypernet_units, optional=True
        )
        self.seed = checks.seed(seed)

    def setup(self, observation_space, action_space):
        is_team = isinstance(observation_space, spaces.Dict) and {
            *("observations", "acts", "action_mask", "state")
        } <= set(observation_space)
        if not (is_team and isinstance(action_space, spaces.MultiDiscrete)):
            raise TypeError(
                f"Received the spaces {observation_space} and {action_space}. Expected "
                "those of a kerasrl.multi_agent.TeamEnv: give fit an environment of "
                "several agents."
            )
        super().setup(observation_space, action_space)
        self.num_agents, length = observation_space["observations"].shape
        self.num_actions = int(action_space.nvec[0])
        (self.state_size,) = observation_space["state"].shape
        seen = length + self.num_agents + self.num_actions
        units = self.hidden_units
        self.hidden = self._dense(units, "relu", 0)
        self.cell = keras.layers.GRUCell(
            units,
            kernel_initializer=keras.initializers.GlorotUniform(self._seed(1)),
            recurrent_initializer=keras.initializers.Orthogonal(seed=self._seed(2)),
            seed=self._seed(3),
            dtype="float32",
        )
        self.head = self._dense(self.num_actions, None, 4)
        self.hidden.build((None, seen))
        self.cell.build((None, units))
        self.head.build((None, units))
        if self.mixer == "monotonic":
            self._make_mixer()

    def _make_mixer(self):
        count, units = self.num_agents, self.mixing_units
        self.first_weights = self._hypernet(count * units, self.hypernet_units, 10)
        self.first_biases = self._hypernet(units, None, 20)
        self.second_weights = self._hypernet(units, self.hypernet_units, 30)
        self.offset = self._hypernet(1, units, 40)

    def _hypernet(self, size, hidden, number):
        """Layers from the state to weights, a list."""
        layers, width = [self._dense(size, None, number)], self.state_size
        if hidden is not None:
            layers.insert(0, self._dense(hidden, "relu", number + 1))
        for layer in layers:
            layer.build((None, width))
            width = layer.units
        return layers

    def _dense(self, units, activation, number):
        return keras.layers.Dense(
            units,
            activation=activation,
            kernel_initializer=keras.initializers.GlorotUniform(self._seed(number)),
            dtype="float32",
        )

    def _seed(self, number):
        return shift_seed(self.seed, number)

    def get_initial_state(self, batch_size):
        if self.observation_space is None:
            return ops.zeros((batch_size, 1))
        return ops.zeros((batch_size, self.num_agents * self.hidden_units))

    def call(self, inputs, state=None, training=False):
        seen = self._seen(inputs)
        count = ops.shape(seen)[0]
        state = ops.reshape(state, (-1, self.hidden_units))
        features = self.hidden(ops.reshape(seen, (-1, seen.shape[-1])))
        output, _ = self.cell(features, [state])
        values = ops.reshape(
            self.head(output), (count, self.num_agents, self.num_actions)
        )
        return {
            "distribution": self._of_acting(values, inputs),
            "state": ops.reshape(output, (count, -1)),
        }

    def unroll(self, inputs, state, episode_starts, training=False):
        seen = self._seen(inputs)
        length, batch = ops.shape(seen)[0], ops.shape(seen)[1]
        features = self.hidden(ops.reshape(seen, (-1, seen.shape[-1])))
        features = ops.reshape(features, (length, -1, self.hidden_units))
        state = ops.reshape(state, (-1, self.hidden_units))
        starts = ops.repeat(episode_starts, self.num_agents, axis=1)
        outputs, (last,) = unroll_gru(self.cell, features, (state,), starts)
        values = self.head(ops.reshape(outputs, (-1, self.hidden_units)))
        shape = (length, batch, self.num_agents, self.num_actions)
        return {
            "distribution": self._of_acting(ops.reshape(values, shape), inputs),
            "state": ops.reshape(last, (batch, -1)),
        }

    def by_agent(self, values):
        """Reshapes values `[..., n * A]` to `[..., n, A]`."""
        shape = ops.shape(values)[:-1]
        return ops.reshape(values, (*shape, self.num_agents, self.num_actions))

    def mix(self, values, state):
        """Returns the value of the team.

        Args:
            values: Float32 `[..., n]`, of the actions that agents take.
            state: Float32 `[..., S]`, that of the whole.

        Returns:
            Float32 `[...]`.
        """
        if self.mixer == "sum":
            return losses.sum_mix(values)
        first = _apply(self.first_weights, state)
        shape = (*ops.shape(first)[:-1], self.num_agents, self.mixing_units)
        return losses.monotonic_mix(
            values,
            ops.reshape(first, shape),
            _apply(self.first_biases, state),
            _apply(self.second_weights, state),
            ops.squeeze(_apply(self.offset, state), -1),
        )

    def _seen(self, inputs):
        """What the network is given of each agent, float32 `[..., n, F + n + A]`."""
        seen = inputs["observations"]["observations"]
        done = ops.one_hot(
            ops.cast(inputs["previous_actions"], "int32"), self.num_actions
        )
        who = ops.broadcast_to(
            np.eye(self.num_agents, dtype=np.float32),
            (*ops.shape(seen)[:-1], self.num_agents),
        )
        return ops.concatenate([seen, who, done], axis=-1)

    def _of_acting(self, values, inputs):
        """Values `[..., n * A]`; whoever is not asked has a constant one."""
        acts = inputs["observations"]["acts"]
        values = values * acts[..., None]
        shape = ops.shape(values)[:-2]
        return ops.reshape(values, (*shape, self.num_agents * self.num_actions))


def _apply(layers, x):
    for layer in layers:
        x = layer(x)
    return x
