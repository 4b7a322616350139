"""The built-in policy: trunk, optional recurrent cell, action and value heads."""

import keras
from keras import ops

from kerasrl import checks
from kerasrl.distributions import (
    DiagonalGaussian,
    autoregressive_for,
    distribution_for,
    distribution_name,
)
from kerasrl.models import held_noise, made, torso
from kerasrl.models.action_encoder import ActionEncoder
from kerasrl.models.configured import Configured
from kerasrl.models.initializers import make_initializer
from kerasrl.models.policy import Policy, merge_time, split_time

_COPY = "Received shared_trunk=False (True needs no copy)"


@keras.saving.register_keras_serializable("kerasrl")
class ActorCritic(Configured, Policy):
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
        cell_units: Integer, size of the cell's state, 64 by default.
        previous_inputs: Whether the previous action and reward are fed to the cell.
        normalize_observations: Whether floating-point observations are shifted and
            scaled by the mean and variance of all observations trained on. The
            statistics are weights of the policy, frozen outside training. What a
            float64 space has far from zero is first shifted, before it is rounded.
        log_std: `"independent"` of the state, or `"predicted"` by the action head.
            Used with `DiagonalGaussian` and its subclasses, so with continuous
            actions, or parts of them, only.
        initial_log_std: Float, its first value.
        distribution: `None` for that of the action space; a subclass of
            `kerasrl.distributions.Distribution` that is registered, or its name; for
            the parts of a `Dict` or `Tuple` action space, a dict or tuple of them. The
            action head emits all parameters, but for the standard deviations that
            `log_std` is about.
        autoregressor: `None` for actions of independent components. `"made"`, a `MADE`
            or a layer like it, makes each component depend on those before it, see
            `kerasrl.distributions.Autoregressive`; the action head then emits its
            context.
        noise_steps: `None` for noise of its own at each step. An integer n, for `Box`
            actions, is generalised state-dependent exploration (Raffin et al. 2021,
            https://arxiv.org/abs/2005.05719): noise is linear in the features before
            the action head, and drawn anew every n steps and where episodes start.
            `initial_log_std` is then of actions where all features are 1.
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

    # `distribution` is a method of policies.
    kept_as = {"distribution": "distribution_name"}

    def __init__(
        self,
        trunk=None,
        hidden_units=None,
        activation=None,
        filters=None,
        shared_trunk=None,
        cell=None,
        cell_units=torso.CELL_UNITS,
        previous_inputs=False,
        normalize_observations=False,
        log_std="independent",
        initial_log_std=0.0,
        distribution=None,
        autoregressor=None,
        noise_steps=None,
        kernel_initializer="orthogonal",
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        trunk = torso.find_trunk(
            trunk, hidden_units=hidden_units, activation=activation, filters=filters
        )
        if log_std not in ("independent", "predicted"):
            raise ValueError(
                f"Received log_std={log_std!r}. Expected 'independent' or 'predicted'."
            )
        if shared_trunk is False and trunk is not None:
            # Fails now, with a reason, rather than in the middle of a first fit.
            torso.copy_trunk(trunk, _COPY)
        self.trunk = trunk
        self.hidden_units = checks.units("hidden_units", hidden_units, optional=True)
        # Made where it is used; named now, so that a mistake is found early.
        checks.named("activation", activation, keras.activations)
        self.activation = activation
        self.filters = checks.filters(filters, optional=True)
        self.shared_trunk = checks.flag("shared_trunk", shared_trunk, optional=True)
        self.cell = cell
        self.cell_units = checks.positive_integer("cell_units", cell_units)
        torso.check_cell(cell, previous_inputs, self.cell_units)
        self.previous_inputs = checks.flag("previous_inputs", previous_inputs)
        self.normalize_observations = checks.flag(
            "normalize_observations", normalize_observations
        )
        self.log_std = log_std
        self.initial_log_std = initial_log_std
        self.distribution_name = distribution_name(distribution)
        made.check_autoregressor(autoregressor)
        changed = log_std != "independent" or initial_log_std
        if autoregressor is not None and (distribution or changed):
            raise ValueError(
                "Received an autoregressor together with "
                f"distribution={distribution!r}, initial_log_std={initial_log_std}, "
                f"log_std={log_std!r}. "
                "What an autoregressor says of the components of actions are the "
                "default distributions: leave those out."
            )
        self.autoregressor = autoregressor
        self.noise_steps = held_noise.check_noise(
            noise_steps,
            log_std=log_std != "independent",
            distribution=distribution,
            autoregressor=autoregressor,
        )
        self.kernel_initializer = kernel_initializer
        self.seed = checks.seed(seed)

    def choose_distribution(self, action_space):
        if self.autoregressor is not None:
            self.component_model = made.make_autoregressor(
                self.autoregressor, self._seed(3000)
            )
            return autoregressive_for(
                action_space, self.component_model, self._seed(3001)
            )
        return distribution_for(action_space, self.distribution_name)

    def setup(self, observation_space, action_space):
        held_noise.check_action_space(self.noise_steps, action_space)
        super().setup(observation_space, action_space)
        space = self.network_space
        torso.check_filters(self.filters, space)
        torso.seed_trunk(self.trunk, self._seed(1000))
        self.is_image = torso.has_images(space)
        shared = self.shared_trunk
        if shared is None:
            shared = self.is_image or self.trunk is not None
        self.branch_names = ("shared",) if shared else ("policy", "value")
        self.encoder = torso.make_encoder(
            space,
            self.trunk,
            self.normalize_observations,
            self.shifts_observations,
        )
        self.trunks, self.cells = {}, {}
        for number, name in enumerate(self.branch_names):
            self.trunks[name] = self._make_trunk(1000 * (number + 1))
            if self.cell is not None:
                self.cells[name] = torso.make_cell(
                    self.cell,
                    self.cell_units,
                    self.kernel_initializer,
                    self._seed(1000 * (number + 1) + 500),
                )
        if self.previous_inputs:
            self.action_encoder = ActionEncoder(action_space)
        # Of each part of an action: how many parameters, and whether it is Gaussian.
        self.part_sizes = [
            (
                part.parameters_size,
                issubclass(part.distribution_class, DiagonalGaussian),
            )
            for part in self.distribution_type.parts
        ]
        num_means = sum(size // 2 for size, gaussian in self.part_sizes if gaussian)
        self._check_log_std(num_means)
        self.independent_log_std = num_means > 0 and self.log_std == "independent"
        units = self.num_parameters
        if self.independent_log_std:
            units -= num_means
        if self.noise_steps is not None:
            self.held_noise = held_noise.HeldNoise(num_means, self.initial_log_std)
            self.independent_log_std = False
        # A nearly uniform first policy explores best; the value starts near zero.
        scale = 0.01 if self.autoregressor is None else 1.0
        self.action_head = keras.layers.Dense(
            units, kernel_initializer=self._initializer(scale, 0), dtype="float32"
        )
        self.value_head = keras.layers.Dense(
            1, kernel_initializer=self._initializer(1.0, 1), dtype="float32"
        )
        if self.independent_log_std:
            self.log_std_weight = self.add_weight(
                shape=(num_means,),
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
        features, state = torso.step_cells(self.cells, features, state)
        return {**self._heads(features), "state": state}

    def unroll(self, inputs, state, episode_starts, training=False):
        if self.cell is None:
            return super().unroll(inputs, state, episode_starts, training)
        # Only the cell needs the order of time: trunk and heads run on all steps at
        # once.
        num_steps = ops.shape(episode_starts)[0]
        features = self._features(merge_time(inputs), training)
        features, last_state = torso.unroll_cells(
            self.cells,
            split_time(features, num_steps),
            state,
            episode_starts,
        )
        outputs = split_time(self._heads(merge_time(features)), num_steps)
        return self.masked({**outputs, "state": last_state}, inputs)

    def get_initial_state(self, batch_size):
        if self.cell is None:
            return ()
        state = torso.initial_cell_state(self.cell, self.cell_units, batch_size)
        return {name: state for name in self.branch_names}

    def update_normalization(self, observations, mask):
        if self.normalize_observations:
            self.encoder.update(self.network_observations(observations), mask)

    def _trunk_inputs(self, observations):
        """What each trunk is given, by its name."""
        encoded = self.encoder(self.network_observations(observations))
        return dict.fromkeys(self.trunks, encoded)

    def _features(self, inputs, training):
        given = self._trunk_inputs(inputs["observations"])
        features = {
            name: torso.call_trunk(trunk, given[name], training)
            for name, trunk in self.trunks.items()
        }
        if not self.previous_inputs:
            return features
        return {
            name: torso.append_previous(value, inputs, self.action_encoder)
            for name, value in features.items()
        }

    def _heads(self, features):
        first = features[self.branch_names[0]]
        values = self.value_head(features[self.branch_names[-1]])
        outputs = {"values": ops.squeeze(values, -1)}
        if self.held_noise is None:
            parameters = self._with_log_std(self.action_head(first))
            return {"distribution": parameters, **outputs}
        # What is good to act by is not moved by how much to explore.
        seen = ops.stop_gradient(ops.cast(first, "float32"))
        parameters = [self.action_head(first), self.held_noise(seen)]
        return {
            "distribution": ops.concatenate(parameters, axis=-1),
            "noise_features": seen,
            **outputs,
        }

    def _check_log_std(self, num_means):
        """Raises where a chosen distribution leaves nothing to start or to predict."""
        changed = self.initial_log_std or self.log_std != "independent"
        if changed and not num_means and self.distribution_name is not None:
            raise ValueError(
                f"Received initial_log_std={self.initial_log_std}, log_std="
                f"{self.log_std!r} with distribution={self.distribution_name!r}, where "
                "no part of an action is a DiagonalGaussian or a subclass of it. Leave "
                "them out, and scale in the distribution what it is given."
            )

    def _with_log_std(self, emitted):
        """The parameters of all parts, from what the action head emits."""
        if not any(gaussian for _, gaussian in self.part_sizes):
            return emitted
        pieces, start, first_mean = [], 0, 0
        for size, gaussian in self.part_sizes:
            independent = gaussian and self.independent_log_std
            width = size // 2 if independent else size
            piece = emitted[..., start : start + width]
            start += width
            if independent:
                log_std = self.log_std_weight[first_mean : first_mean + width]
                first_mean += width
                pieces += [piece, ops.broadcast_to(log_std, ops.shape(piece))]
            elif gaussian:
                mean, log_std = ops.split(piece, 2, axis=-1)
                pieces += [mean, log_std + self.initial_log_std]
            else:
                pieces.append(piece)
        return ops.concatenate(pieces, axis=-1)

    def _make_trunk(self, offset):
        if self.trunk is not None:
            is_first = not self.trunks
            return self.trunk if is_first else torso.copy_trunk(self.trunk, _COPY)
        hidden_units = (512,) if self.is_image else (64, 64)
        return torso.make_trunk(
            self.network_space,
            hidden_units if self.hidden_units is None else self.hidden_units,
            self.activation or ("relu" if self.is_image else "tanh"),
            self.filters,
            self.kernel_initializer,
            self._seed(offset),
        )

    def _initializer(self, scale, offset):
        return make_initializer(self.kernel_initializer, scale, self._seed(offset))
