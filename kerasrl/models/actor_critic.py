"""The built-in policy: trunk, optional recurrent cell, action and value heads."""

import inspect

import keras
from gymnasium import spaces as gym_spaces
from keras import ops

from kerasrl.models.encoder import Encoder
from kerasrl.models.initializers import make_initializer
from kerasrl.models.policy import Policy, merge_time, reset_state, split_time
from kerasrl.models.scan import scan_states
from kerasrl.models.trunks import CNN, MLP, NATURE_FILTERS

_CELLS = {"lstm": keras.layers.LSTMCell, "gru": keras.layers.GRUCell}


@keras.saving.register_keras_serializable("kerasrl")
class ActorCritic(Policy):
    """Policy and value network with a dense, convolutional or recurrent body.

    Observations are encoded (one-hot, flattened, concatenated, optionally
    normalized), go through a trunk, then through a recurrent cell if there is one,
    and end in an action head and a value head. Images get a `CNN`, all else an
    `MLP`, unless `trunk` says otherwise.

    Args:
        trunk: `None`, or a Keras layer or model from observations to features
            `[N, F]`. Given a plain model, observations reach it as they come from the
            environment (nested, unscaled; cast to float32 and normalized if so asked).
        hidden_units: Widths of the dense layers. Default `(64, 64)`, and `(512,)`
            after convolutions.
        activation: Activation of the trunk. Default `"tanh"`, `"relu"` for images.
        filters: Sequence of `(channels, kernel, stride)` for images.
        shared_trunk: Whether policy and value use the same trunk and cell. Default:
            true for images and for a given `trunk`, else false.
        cell: `None`, `"lstm"` or `"gru"`.
        cell_units: Integer, size of the cell's state.
        previous_inputs: Whether the previous action and reward are fed to the cell.
        normalize_observations: Whether floating-point observations are shifted and
            scaled by the mean and variance of all observations trained on. The
            statistics are weights of the policy, frozen outside training.
        log_std: `"independent"` of the state, or `"predicted"` by the action head.
            Used with continuous actions only.
        initial_log_std: Float, its first value.
        kernel_initializer: `"orthogonal"`, `"normc"` or a Keras initializer.
        seed: Integer or `None`, seed of the initializers. Agents fill it in if they
            have a seed.

    Raises:
        ValueError: Arguments contradict each other.

    Example:

    ```python
    policy = kerasrl.models.ActorCritic(cell="lstm", normalize_observations=True)
    agent = kerasrl.PPO(policy=policy)
    ```
    """

    #: Agents set `seed` of policies that were given none.
    seed = None

    def __init__(
        self,
        trunk=None,
        hidden_units=None,
        activation=None,
        filters=None,
        shared_trunk=None,
        cell=None,
        cell_units=64,
        previous_inputs=False,
        normalize_observations=False,
        log_std="independent",
        initial_log_std=0.0,
        kernel_initializer="orthogonal",
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if trunk is not None and (hidden_units, activation, filters) != (None,) * 3:
            raise ValueError(
                "Received both a trunk and one of hidden_units, activation, filters. "
                "Those describe the trunk that is made when none is given; drop either."
            )
        if trunk is not None and not isinstance(trunk, keras.Layer):
            raise TypeError(
                f"Received trunk={trunk!r}. Expected a Keras layer or model, such as "
                "kerasrl.models.MLP((256, 256))."
            )
        if cell is not None and cell not in _CELLS:
            raise ValueError(f"Received cell={cell!r}. Expected None, 'lstm' or 'gru'.")
        if previous_inputs and cell is None:
            raise ValueError(
                "Received previous_inputs=True without a cell. The previous action and "
                "reward feed the recurrent cell: add cell='lstm' or cell='gru'."
            )
        if log_std not in ("independent", "predicted"):
            raise ValueError(
                f"Received log_std={log_std!r}. Expected 'independent' or 'predicted'."
            )
        if shared_trunk is False and trunk is not None:
            # Fails now, with a reason, rather than in the middle of a first fit.
            _copy(trunk)
        self.trunk = trunk
        self.hidden_units = None if hidden_units is None else tuple(hidden_units)
        self.activation = activation
        self.filters = None if filters is None else tuple(map(tuple, filters))
        self.shared_trunk = shared_trunk
        self.cell = cell
        self.cell_units = cell_units
        self.previous_inputs = previous_inputs
        self.normalize_observations = normalize_observations
        self.log_std = log_std
        self.initial_log_std = initial_log_std
        self.kernel_initializer = kernel_initializer
        self.seed = seed

    def setup(self, observation_space, action_space):
        super().setup(observation_space, action_space)
        is_image = isinstance(observation_space, gym_spaces.Box) and (
            len(observation_space.shape) == 3
        )
        if self.filters is not None and not is_image:
            raise ValueError(
                "Received filters, but the observation space is "
                f"{observation_space}, not an image (a Box of rank 3). Leave them out."
            )
        shared = self.shared_trunk
        if shared is None:
            shared = is_image or self.trunk is not None
        self.branch_names = ("shared",) if shared else ("policy", "value")
        if self.trunk is None or isinstance(self.trunk, (MLP, CNN)):
            self.encoder = Encoder(observation_space, self.normalize_observations)
        else:
            self.encoder = RawEncoder(observation_space, self.normalize_observations)
        self.trunks, self.cells = {}, {}
        for number, name in enumerate(self.branch_names):
            self.trunks[name] = self._make_trunk(is_image, 1000 * (number + 1))
            if self.cell is not None:
                initializer = self._initializer(1.0, 1000 * (number + 1) + 500)
                self.cells[name] = _CELLS[self.cell](
                    self.cell_units,
                    kernel_initializer=initializer,
                    recurrent_initializer=keras.initializers.Orthogonal(
                        seed=self._seed(1000 * (number + 1) + 501)
                    ),
                )
        if self.previous_inputs:
            self.action_encoder = Encoder(action_space)
        is_gaussian = isinstance(action_space, gym_spaces.Box)
        self.independent_log_std = is_gaussian and self.log_std == "independent"
        units = self.num_parameters // (2 if self.independent_log_std else 1)
        # A nearly uniform first policy explores best; the value starts near zero.
        self.action_head = keras.layers.Dense(
            units, kernel_initializer=self._initializer(0.01, 0), dtype="float32"
        )
        self.value_head = keras.layers.Dense(
            1, kernel_initializer=self._initializer(1.0, 1), dtype="float32"
        )
        if self.independent_log_std:
            self.log_std_weight = self.add_weight(
                shape=(units,),
                initializer=keras.initializers.Constant(self.initial_log_std),
                name="log_std",
            )

    def call(self, inputs, state=None, training=False):
        features = self._features(inputs, training)
        if self.cell is None:
            return self._heads(features)
        if state is None:
            num_rows = ops.shape(inputs["previous_rewards"])[0]
            state = self.get_initial_state(num_rows)
        features, state = self._step_cells(features, state)
        return {**self._heads(features), "state": state}

    def unroll(self, inputs, state, episode_starts, training=False):
        if self.cell is None:
            return super().unroll(inputs, state, episode_starts, training)
        # Only the cell needs the order of time: trunk and heads run on all steps at
        # once.
        num_steps = ops.shape(episode_starts)[0]
        features = self._features(merge_time(inputs), training)
        features = split_time(features, num_steps)
        initial_state = self.get_initial_state(ops.shape(episode_starts)[1])

        def step(state, step_inputs):
            features, starts = step_inputs
            state = reset_state(state, initial_state, starts)
            _, state = self._step_cells(features, state)
            # The output of either cell is the first part of its state.
            return state, state

        last_state, states = scan_states(step, state, (features, episode_starts))
        features = {name: states[name][0] for name in self.branch_names}
        outputs = split_time(self._heads(merge_time(features)), num_steps)
        return {**outputs, "state": last_state}

    def get_initial_state(self, batch_size):
        if self.cell is None:
            return ()
        zeros = ops.zeros((batch_size, self.cell_units))
        state = (zeros, zeros) if self.cell == "lstm" else (zeros,)
        return {name: state for name in self.branch_names}

    def update_normalization(self, observations, mask):
        if self.normalize_observations:
            self.encoder.update(observations, mask)

    def _features(self, inputs, training):
        encoded = self.encoder(inputs["observations"])
        features = {
            name: trunk(encoded, **self._training(trunk, training))
            for name, trunk in self.trunks.items()
        }
        if not self.previous_inputs:
            return features
        previous = [
            self.action_encoder(inputs["previous_actions"]),
            inputs["previous_rewards"][:, None],
        ]
        return {
            name: ops.concatenate([value, *previous], axis=-1)
            for name, value in features.items()
        }

    def _step_cells(self, features, state):
        outputs, new_state = {}, {}
        for name, cell in self.cells.items():
            outputs[name], cell_state = cell(features[name], list(state[name]))
            new_state[name] = tuple(cell_state)
        return outputs, new_state

    def _heads(self, features):
        parameters = self.action_head(features[self.branch_names[0]])
        if self.independent_log_std:
            log_std = ops.broadcast_to(self.log_std_weight, ops.shape(parameters))
            parameters = ops.concatenate([parameters, log_std], axis=-1)
        elif isinstance(self.action_space, gym_spaces.Box):
            mean, log_std = ops.split(parameters, 2, axis=-1)
            log_std = log_std + self.initial_log_std
            parameters = ops.concatenate([mean, log_std], axis=-1)
        values = self.value_head(features[self.branch_names[-1]])
        return {"distribution": parameters, "values": ops.squeeze(values, -1)}

    def _make_trunk(self, is_image, offset):
        if self.trunk is not None:
            return self.trunk if not self.trunks else _copy(self.trunk)
        if is_image:
            return CNN(
                self.filters or NATURE_FILTERS,
                (512,) if self.hidden_units is None else self.hidden_units,
                self.activation or "relu",
                self.kernel_initializer,
                seed=self._seed(offset),
            )
        return MLP(
            (64, 64) if self.hidden_units is None else self.hidden_units,
            self.activation or "tanh",
            self.kernel_initializer,
            seed=self._seed(offset),
        )

    def _training(self, trunk, training):
        # `unroll` is not a Keras call, so the flag does not travel by itself.
        takes_it = "training" in inspect.signature(trunk.call).parameters
        return {"training": training} if takes_it else {}

    def _initializer(self, scale, offset):
        return make_initializer(self.kernel_initializer, scale, self._seed(offset))

    def _seed(self, offset):
        return None if self.seed is None else self.seed + offset

    def get_config(self):
        config = super().get_config()
        config.update(
            trunk=keras.saving.serialize_keras_object(self.trunk),
            hidden_units=self.hidden_units,
            activation=_activation_config(self.activation),
            filters=self.filters,
            shared_trunk=self.shared_trunk,
            cell=self.cell,
            cell_units=self.cell_units,
            previous_inputs=self.previous_inputs,
            normalize_observations=self.normalize_observations,
            log_std=self.log_std,
            initial_log_std=self.initial_log_std,
            kernel_initializer=keras.saving.serialize_keras_object(
                self.kernel_initializer
            ),
            seed=self.seed,
        )
        return config

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        for key in ("trunk", "activation", "kernel_initializer"):
            config[key] = keras.saving.deserialize_keras_object(config[key])
        return cls(**config)


class RawEncoder(Encoder):
    """Hands observations to a user's model as they are, normalized if asked for."""

    def call(self, observations):
        values = [
            ops.cast(self.normalize(index, value), "float32")
            if self.leaves[index].dtype.kind == "f"
            else value
            for index, value in enumerate(keras.tree.flatten(observations))
        ]
        return keras.tree.pack_sequence_as(observations, values)


def _activation_config(activation):
    if activation is None or isinstance(activation, str):
        return activation
    name = getattr(activation, "__name__", "")
    if getattr(keras.activations, name, None) is activation:
        return name
    return keras.saving.serialize_keras_object(activation)


def _copy(trunk):
    try:
        return trunk.__class__.from_config(trunk.get_config())
    except Exception as error:
        raise ValueError(
            f"Received shared_trunk=False with a trunk of type "
            f"{type(trunk).__name__}, which cannot be copied: {error}. Give it a "
            "get_config, or use shared_trunk=True."
        ) from error
