"""The built-in action-value network: trunk, optional cell, plain or dueling heads."""

import keras
import numpy as np
from keras import ops

from kerasrl import checks
from kerasrl.models import torso
from kerasrl.models.action_encoder import ActionEncoder
from kerasrl.models.configured import Configured
from kerasrl.models.initializers import make_initializer, shift_seed
from kerasrl.models.noisy_dense import NoisyDense
from kerasrl.models.policy import merge_time, split_time
from kerasrl.models.q_function import QFunction
from kerasrl.models.trunks import MLP


@keras.saving.register_keras_serializable("kerasrl")
class QNetwork(Configured, QFunction):
    """Action-value network: plain, dueling, categorical, quantile, noisy, recurrent.

    Observations are encoded (one-hot, flattened, concatenated, optionally normalized),
    go through a trunk, then through a recurrent cell if there is one, and end in one
    head, or two if dueling. Images get a `CNN`, all else an `MLP`, unless `trunk` says
    otherwise.

    A dueling network (Wang et al. 2016, https://arxiv.org/abs/1511.06581) has a head
    for the value of the observation and one for the advantages of the actions, and
    adds the value to what the advantages differ from their mean over actions. With
    atoms or quantiles it does so atom by atom or quantile by quantile.

    Kernels begin orthogonal, with gain sqrt 2 before a `"relu"` and 1 at the end, so
    that first values are about as large as the features and targets are soon ruled by
    rewards. Noisy layers begin as their paper says.

    Args:
        trunk: `None`, or a Keras layer or model from observations to features
            `[N, F]`, as for `ActorCritic`.
        hidden_units: Widths of the dense layers of the trunk. Default `(64, 64)`, and
            `(512,)` after convolutions.
        activation: Activation of trunk and heads. Default `"relu"`.
        filters: Sequence of `(channels, kernel, stride)` for images.
        head_units: Widths of hidden layers of each head. Default: none, but in a
            dueling or noisy network without a `trunk` or `hidden_units` of yours the
            last layer of the trunk moves here, as in the papers: 512 units in each
            head after convolutions.
        cell: `None`, `"lstm"` or `"gru"`.
        cell_units: Integer, size of the cell's state, 64 by default.
        previous_inputs: Whether the previous action and reward are fed to the cell.
        normalize_observations: Whether floating-point observations are shifted and
            scaled by running statistics, as for `ActorCritic`.
        dueling: Whether there are two heads.
        num_atoms: Integer. More than 1 makes the network categorical (Bellemare et al.
            2017, https://arxiv.org/abs/1707.06887) over so many atoms, evenly spaced.
        v_min: Float, the lowest atom; needed with `num_atoms`.
        v_max: Float, the highest atom; needed with `num_atoms`.
        num_quantiles: Integer or `None`. How many quantiles of the return to predict
            (Dabney et al. 2018, https://arxiv.org/abs/1710.10044).
        noisy: Whether the heads are made of `NoisyDense` layers.
        kernel_initializer: `"orthogonal"`, `"normc"` or a Keras initializer.
        seed: Integer or `None`, seed of initializers and noise. Agents fill it in if
            they have a seed.

    Raises:
        ValueError: Arguments contradict each other.

    Example:

    ```python
    q_network = kerasrl.models.QNetwork(dueling=True, num_atoms=51, v_min=0, v_max=200)
    agent = kerasrl.DQN(policy=q_network)
    ```
    """

    def __init__(
        self,
        trunk=None,
        hidden_units=None,
        activation=None,
        filters=None,
        head_units=None,
        cell=None,
        cell_units=torso.CELL_UNITS,
        previous_inputs=False,
        normalize_observations=False,
        dueling=False,
        num_atoms=1,
        v_min=None,
        v_max=None,
        num_quantiles=None,
        noisy=False,
        kernel_initializer="orthogonal",
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        trunk = torso.find_trunk(trunk, hidden_units=hidden_units, filters=filters)
        if trunk is not None and activation is not None and not head_units:
            raise ValueError(
                f"Received activation={activation!r} with a trunk, which has its own, "
                "and no hidden layers after it. Drop it, or add head_units."
            )
        _check_returns(num_atoms, v_min, v_max, num_quantiles)
        self.trunk = trunk
        self.hidden_units = checks.units("hidden_units", hidden_units, optional=True)
        # Made where it is used; named now, so that a mistake is found early.
        checks.named("activation", activation, keras.activations)
        self.activation = activation
        self.filters = checks.filters(filters, optional=True)
        self.head_units = checks.units("head_units", head_units, optional=True)
        self.cell = cell
        self.cell_units = checks.positive_integer("cell_units", cell_units)
        torso.check_cell(cell, previous_inputs, self.cell_units)
        self.previous_inputs = checks.flag("previous_inputs", previous_inputs)
        self.normalize_observations = checks.flag(
            "normalize_observations", normalize_observations
        )
        self.dueling = checks.flag("dueling", dueling)
        self.num_atoms = num_atoms
        self.v_min = v_min
        self.v_max = v_max
        self.num_quantiles = num_quantiles
        self.noisy = checks.flag("noisy", noisy)
        self.kernel_initializer = kernel_initializer
        self.seed = checks.seed(seed)
        if num_atoms > 1:
            self.atoms = np.linspace(v_min, v_max, num_atoms, dtype=np.float32)

    def setup(self, observation_space, action_space):
        super().setup(observation_space, action_space)
        space = self.network_space
        torso.check_filters(self.filters, space)
        torso.seed_trunk(self.trunk, self._seed(1000))
        hidden_units, head_units = self._units()
        self.encoder = torso.make_encoder(
            space,
            self.trunk,
            self.normalize_observations,
            self.shifts_observations,
        )
        self.body = self.trunk
        if self.trunk is None:
            self.body = torso.make_trunk(
                space,
                hidden_units,
                self.activation or "relu",
                self.filters,
                self.kernel_initializer,
                self._seed(1000),
            )
        if self.cell is not None:
            self.cells = {
                "shared": torso.make_cell(
                    self.cell,
                    self.cell_units,
                    self.kernel_initializer,
                    self._seed(1500),
                )
            }
        if self.previous_inputs:
            self.action_encoder = ActionEncoder(action_space)
        # How many numbers describe the return of one action.
        self.return_size = self.num_quantiles or self.num_atoms
        size = self.num_actions * self.return_size
        self.advantage_head = self._make_head(head_units, size, 2000)
        if self.dueling:
            self.value_head = self._make_head(head_units, self.return_size, 3000)

    def call(self, inputs, state=None, training=False):
        features = self._features(inputs, training)
        if self.cell is None:
            return self._heads(features, training)
        if state is None:
            state = self.get_initial_state(ops.shape(inputs["previous_rewards"])[0])
        features, state = torso.step_cells(self.cells, {"shared": features}, state)
        return {**self._heads(features["shared"], training), "state": state}

    def unroll(self, inputs, state, episode_starts, training=False):
        if self.cell is None:
            return super().unroll(inputs, state, episode_starts, training)
        num_steps = ops.shape(episode_starts)[0]
        features = self._features(merge_time(inputs), training)
        features, last_state = torso.unroll_cells(
            self.cells,
            {"shared": split_time(features, num_steps)},
            state,
            episode_starts,
        )
        outputs = self._heads(merge_time(features["shared"]), training)
        outputs = {**split_time(outputs, num_steps), "state": last_state}
        return self.masked(outputs, inputs)

    def get_initial_state(self, batch_size):
        if self.cell is None:
            return ()
        state = torso.initial_cell_state(self.cell, self.cell_units, batch_size)
        return {"shared": state}

    def update_normalization(self, observations, mask):
        if self.normalize_observations:
            self.encoder.update(self.network_observations(observations), mask)

    def _units(self):
        """Widths of the hidden layers of the trunk and of each head."""
        hidden_units = self.hidden_units
        if hidden_units is None:
            hidden_units = (512,) if torso.has_images(self.network_space) else (64, 64)
        if self.head_units is not None:
            return hidden_units, self.head_units
        is_ours = self.trunk is None and self.hidden_units is None
        if is_ours and (self.dueling or self.noisy):
            return hidden_units[:-1], hidden_units[-1:]
        return hidden_units, ()

    def _make_head(self, head_units, size, offset):
        return Head(
            head_units,
            size,
            self.activation or "relu",
            self.noisy,
            self.kernel_initializer,
            self._seed(offset),
        )

    def _features(self, inputs, training):
        encoded = self.encoder(self.network_observations(inputs["observations"]))
        features = torso.call_trunk(self.body, encoded, training)
        if not self.previous_inputs:
            return features
        return torso.append_previous(features, inputs, self.action_encoder)

    def _heads(self, features, training):
        values = self.advantage_head(features, training=training)
        values = ops.reshape(values, (-1, self.num_actions, self.return_size))
        if self.dueling:
            state_values = self.value_head(features, training=training)[:, None]
            values = state_values + values - ops.mean(values, axis=1, keepdims=True)
        if self.num_quantiles is not None:
            return {"q_values": ops.mean(values, axis=-1), "quantiles": values}
        if self.atoms is not None:
            q_values = ops.sum(ops.softmax(values, axis=-1) * self.atoms, axis=-1)
            return {"q_values": q_values, "logits": values}
        return {"q_values": ops.squeeze(values, -1)}


class Head(keras.layers.Layer):
    """Hidden layers and a linear output in float32, all of them noisy or none.

    Args:
        hidden_units, activation, kernel_initializer, seed: As for `MLP`.
        size: Integer, number of outputs.
        noisy: Whether every layer is a `NoisyDense`, which has its own initializer.
    """

    def __init__(
        self, hidden_units, size, activation, noisy, kernel_initializer, seed, **kwargs
    ):
        super().__init__(**kwargs)
        if noisy:
            seeds = [shift_seed(seed, 10 * n) for n in range(len(hidden_units) + 1)]
            self.hidden_layers = [
                NoisyDense(units, activation, seed=seed)
                for units, seed in zip(hidden_units, seeds, strict=False)
            ]
            self.output_layer = NoisyDense(size, seed=seeds[-1], dtype="float32")
        else:
            self.hidden_layers = [
                MLP(hidden_units, activation, kernel_initializer, seed)
            ]
            self.output_layer = keras.layers.Dense(
                size,
                kernel_initializer=make_initializer(
                    kernel_initializer, 1.0, shift_seed(seed, 500)
                ),
                dtype="float32",
            )

    def call(self, inputs, training=False):
        for layer in [*self.hidden_layers, self.output_layer]:
            inputs = torso.call_trunk(layer, inputs, training)
        return inputs


def _check_returns(num_atoms, v_min, v_max, num_quantiles):
    """Raises unless the arguments describe one way to predict returns."""
    if num_atoms < 1 or (num_quantiles is not None and num_quantiles < 1):
        raise ValueError(
            f"Received num_atoms={num_atoms} and num_quantiles={num_quantiles}. "
            "Expected numbers of at least 1 (num_quantiles may be None)."
        )
    if num_atoms > 1 and num_quantiles is not None:
        raise ValueError(
            f"Received both num_atoms={num_atoms} and num_quantiles={num_quantiles}. A "
            "network predicts either; drop one."
        )
    if num_atoms == 1 and (v_min, v_max) != (None, None):
        raise ValueError(
            f"Received v_min={v_min} and v_max={v_max}, the range of the atoms, but no "
            "atoms. Add num_atoms=51, or drop them."
        )
    if num_atoms > 1 and (v_min is None or v_max is None or not v_min < v_max):
        raise ValueError(
            f"Received num_atoms={num_atoms} with v_min={v_min} and v_max={v_max}. "
            "Expected v_min < v_max, the lowest and highest discounted return that "
            "the environment can give."
        )
