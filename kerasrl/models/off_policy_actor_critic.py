"""The parts that the built-in policies with critics have in common."""

import keras
from keras import ops

from kerasrl import checks
from kerasrl.models import torso
from kerasrl.models.action_encoder import ActionEncoder
from kerasrl.models.action_value_policy import ActionValuePolicy
from kerasrl.models.batched_dense import BatchedDense
from kerasrl.models.configured import Configured
from kerasrl.models.initializers import make_initializer, shift_seed
from kerasrl.models.policy import merge_time, split_time
from kerasrl.models.trunks import MLP


class OffPolicyActorCritic(Configured, ActionValuePolicy):
    """A policy network, and critics that share nothing with it but normalization.

    Subclasses say what the outputs of the policy network mean. Their docstrings
    describe the arguments.
    """

    def __init__(
        self,
        trunk=None,
        hidden_units=(256, 256),
        critic_hidden_units=None,
        activation="relu",
        filters=None,
        num_critics=2,
        cell=None,
        cell_units=torso.CELL_UNITS,
        previous_inputs=False,
        normalize_observations=False,
        kernel_initializer="fan_in_uniform",
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        trunk = torso.find_trunk(trunk, filters=filters)
        if trunk is not None:
            # Fails now, with a reason, rather than in the middle of a first fit.
            torso.copy_trunk(trunk, _COPY)
        self.trunk = trunk
        self.hidden_units = checks.units("hidden_units", hidden_units)
        self.critic_hidden_units = checks.units(
            "critic_hidden_units", critic_hidden_units, optional=True
        )
        # Made where it is used; named now, so that a mistake is found early.
        checks.named("activation", activation, keras.activations)
        self.activation = activation
        self.filters = checks.filters(filters, optional=True)
        self.num_critics = checks.positive_integer("num_critics", num_critics)
        self.cell = cell
        self.cell_units = checks.positive_integer("cell_units", cell_units)
        torso.check_cell(cell, previous_inputs, self.cell_units)
        self.previous_inputs = checks.flag("previous_inputs", previous_inputs)
        self.normalize_observations = checks.flag(
            "normalize_observations", normalize_observations
        )
        self.kernel_initializer = kernel_initializer
        self.seed = checks.seed(seed)

    def setup(self, observation_space, action_space):
        super().setup(observation_space, action_space)
        space = self.network_space
        torso.check_filters(self.filters, space)
        torso.seed_trunk(self.trunk, self._seed(1000))
        self.encoder = torso.make_encoder(
            space,
            self.trunk,
            self.normalize_observations,
            self.shifts_observations,
        )
        self.policy_trunk = self.trunk or self._make_trunk(1000)
        self.policy_hidden = MLP(
            self.hidden_units,
            self.activation,
            self.kernel_initializer,
            self._seed(2000),
        )
        self.policy_head = keras.layers.Dense(
            self.head_units(),
            kernel_initializer=self.head_initializer(self._seed(3000)),
            dtype="float32",
        )
        self.critic_trunk = (
            self._make_trunk(4000)
            if self.trunk is None
            else torso.copy_trunk(self.trunk, _COPY)
        )
        if self.cell is not None:
            seeds = {"policy": self._seed(2500), "critics": self._seed(4500)}
            self.cells = {
                name: torso.make_cell(
                    self.cell, self.cell_units, self.kernel_initializer, seed
                )
                for name, seed in seeds.items()
            }
        if self.previous_inputs:
            self.action_encoder = ActionEncoder(action_space)
        units = self.critic_hidden_units
        self.critics = Critics(
            self.num_critics,
            self.hidden_units if units is None else units,
            self.combinations.count if self.is_discrete else 1,
            self.activation,
            self.kernel_initializer,
            self._seed(5000),
        )

    def head_units(self):
        """Returns how many numbers the last layer of the policy emits."""
        return self.num_parameters

    def head_outputs(self, features):
        """Returns what `call` does, of the features before the last layer."""
        return {"distribution": self.policy_head(features)}

    def head_initializer(self, seed):
        """Returns the kernel initializer of the last layer of the policy."""
        return make_initializer(self.kernel_initializer, 1.0, seed)

    def call(self, inputs, state=None, training=False):
        if self.cell is None:
            features = self.encoder(self.network_observations(inputs["observations"]))
            features = torso.call_trunk(self.policy_trunk, features, training)
            return self.head_outputs(self.policy_hidden(features))
        if state is None:
            num_rows = ops.shape(inputs["previous_rewards"])[0]
            state = self.get_initial_state(num_rows)
        features = self._features(inputs, training)
        features, state = torso.step_cells(self.cells, features, state)
        return {**self._of_features(features), "state": state}

    def unroll(self, inputs, state, episode_starts, training=False):
        if self.cell is None:
            return super().unroll(inputs, state, episode_starts, training)
        num_steps = ops.shape(episode_starts)[0]
        features = self._features(merge_time(inputs), training)
        features, last_state = torso.unroll_cells(
            self.cells, split_time(features, num_steps), state, episode_starts
        )
        outputs = split_time(self._of_features(merge_time(features)), num_steps)
        return self.masked({**outputs, "state": last_state}, inputs)

    def get_initial_state(self, batch_size):
        if self.cell is None:
            return ()
        state = torso.initial_cell_state(self.cell, self.cell_units, batch_size)
        return {"policy": state, "critics": state}

    def q_values(self, observations, actions=None, training=False):
        return self._values(observations, actions, training, None)

    def first_q_values(self, observations, actions):
        return self._values(observations, actions, False, 1)[0]

    def remembered_q_values(self, outputs, observations, actions=None, training=False):
        if self.cell is None:
            return self.q_values(observations, actions, training)
        return self._criticize(outputs["critic_features"], actions, None)

    def first_remembered_q_values(self, outputs, observations, actions):
        if self.cell is None:
            return self.first_q_values(observations, actions)
        return self._criticize(outputs["critic_features"], actions, 1)[0]

    def _values(self, observations, actions, training, members):
        if (actions is None) != self.is_discrete:
            raise TypeError(
                f"{type(self).__name__}.q_values received actions={actions!r} for the "
                f"action space {self.action_space}. Give actions if it is a Box; of "
                "discrete spaces all actions are valued at once."
            )
        if self.cell is not None:
            # As at the start of an episode.
            size = ops.shape(keras.tree.flatten(observations)[0])[0]
            previous = {
                name: keras.tree.map_structure(
                    lambda x: ops.zeros((size, *x.shape[1:]), x.dtype), value
                )
                for name, value in self.example_inputs(1).items()
            }
            inputs = {**previous, "observations": observations}
            outputs = self.call(inputs, training=training)
            return self._criticize(outputs["critic_features"], actions, members)
        features = self.encoder(self.network_observations(observations))
        features = torso.call_trunk(self.critic_trunk, features, training)
        return self._criticize(features, actions, members)

    def _features(self, inputs, training):
        """What goes into the cells."""
        encoded = self.encoder(self.network_observations(inputs["observations"]))
        trunks = {"policy": self.policy_trunk, "critics": self.critic_trunk}
        features = {
            name: torso.call_trunk(trunk, encoded, training)
            for name, trunk in trunks.items()
        }
        if not self.previous_inputs:
            return features
        return {
            name: torso.append_previous(value, inputs, self.action_encoder)
            for name, value in features.items()
        }

    def _of_features(self, features):
        """What `call` returns, of the outputs of the cells."""
        outputs = self.head_outputs(self.policy_hidden(features["policy"]))
        return {**outputs, "critic_features": features["critics"]}

    def _criticize(self, features, actions, members):
        if self.is_discrete:
            return self.critics(features, members=members)
        actions = ops.cast(actions, "float32")
        actions = ops.reshape(actions, (-1, self.action_size))
        features = ops.concatenate([features, actions], axis=-1)
        return ops.squeeze(self.critics(features, members=members), -1)

    def critic_variables(self):
        cell = [] if self.cell is None else self.cells["critics"].trainable_variables
        return [
            *self.critic_trunk.trainable_variables,
            *cell,
            *self.critics.trainable_variables,
        ]

    def update_normalization(self, observations, mask):
        if self.normalize_observations:
            self.encoder.update(self.network_observations(observations), mask)

    def _make_trunk(self, offset):
        """Convolutions for images, nothing for all else: hidden layers follow."""
        return torso.make_trunk(
            self.network_space,
            (),
            self.activation,
            self.filters,
            self.kernel_initializer,
            self._seed(offset),
        )


_COPY = "The critics need a trunk of their own"


class Critics(keras.layers.Layer):
    """Networks of one shape, computed as one.

    Args:
        num_critics: Integer `C`.
        hidden_units, activation, kernel_initializer, seed: As for `MLP`.
        size: Integer, number of outputs of each.

    Input shape:
        `(batch_size, features)`.

    Output shape:
        `(num_critics, batch_size, size)`, float32; see `BatchedDense` for `members`.
    """

    def __init__(
        self,
        num_critics,
        hidden_units,
        size,
        activation,
        kernel_initializer,
        seed,
        **kwargs,
    ):
        super().__init__(**kwargs)
        seeds = [
            shift_seed(seed, num_critics * number)
            for number in range(len(hidden_units) + 1)
        ]
        self.hidden_layers = [
            BatchedDense(
                num_critics, units, activation, kernel_initializer, 2.0**0.5, seed
            )
            for units, seed in zip(hidden_units, seeds, strict=False)
        ]
        self.output_layer = BatchedDense(
            num_critics,
            size,
            kernel_initializer=kernel_initializer,
            seed=seeds[-1],
            dtype="float32",
        )

    def call(self, inputs, members=None):
        for layer in self.hidden_layers:
            inputs = layer(inputs, members=members)
        return self.output_layer(inputs, members=members)
