"""The parts between observations and heads that the built-in networks share.

A network encodes observations (`Encoder`), sends them through one trunk or several
(`MLP`, `CNN` or the user's) and, if it is recurrent, through one cell behind each. The
functions here check the arguments that describe these parts, make them, and step them
through time; each network decides what heads follow.
"""

import inspect
import math
import warnings

import keras
from keras import ops

from kerasrl import spaces
from kerasrl.models import by_name
from kerasrl.models.encoder import Encoder, is_image
from kerasrl.models.impala import ImpalaCNN
from kerasrl.models.initializers import make_initializer, shift_seed
from kerasrl.models.recurrence import unroll_gru, unroll_lstm
from kerasrl.models.trunks import CNN, MLP, NATURE_FILTERS, MixedTrunk

# Twice that of convolutions for 84 x 84 images is 3.4 million.
_MANY_PARAMETERS = 5_000_000
#: Default size of the state of a cell.
CELL_UNITS = 64
_CELLS = {"lstm": keras.layers.LSTMCell, "gru": keras.layers.GRUCell}


class RawEncoder(Encoder):
    """Hands observations to a user's model as they are, normalized if asked for."""

    keeps_images = False

    def call(self, observations):
        values = [
            ops.cast(self.normalize(index, value), "float32")
            if self.leaves[index].dtype.kind == "f"
            else value
            for index, value in enumerate(keras.tree.flatten(observations))
        ]
        return keras.tree.pack_sequence_as(observations, values)


def has_images(observation_space):
    """Whether observations are, or hold, images: `Box` spaces of rank 3."""
    return any(map(is_image, spaces.leaves(observation_space)))


def find_trunk(trunk, **described):
    """Returns the trunk that is given, by itself or by name, unless it is described.

    Args:
        trunk: `None`, a Keras layer, or its name as `by_name.find_model` takes it.
        **described: Arguments that describe the trunk that is made when none is
            given; `None` where not given.

    Returns:
        A Keras layer, or `None`.

    Raises:
        ValueError: There is a trunk and a description, the trunk has heads, or there is
            no model of that name.
        TypeError: The trunk is not a Keras layer.
    """
    if trunk is None:
        return None
    if isinstance(trunk, (str, dict)):
        trunk = by_name.make_model(*by_name.find_model(trunk))
    if hasattr(trunk, "build_for"):  # Policies import this module.
        raise TypeError(
            f"Received the trunk {trunk.name!r}, a {type(trunk).__name__}, which is a "
            "whole policy: give it, or its name, as policy= instead."
        )
    outputs = getattr(trunk, "outputs", None)
    if isinstance(outputs, (list, tuple)) and len(outputs) > 1:
        shapes = ", ".join(str(tuple(output.shape)) for output in outputs)
        raise _several_outputs(trunk, f"{len(outputs)} outputs, {shapes}")
    if any(value is not None for value in described.values()):
        raise ValueError(
            f"Received both a trunk and one of {', '.join(described)}. "
            "Those describe the trunk that is made when none is given; drop either."
        )
    if not isinstance(trunk, keras.Layer):
        raise TypeError(
            f"Received trunk={trunk!r}. Expected a Keras layer or model, such as "
            "kerasrl.models.MLP((256, 256)), or the name of one."
        )
    return trunk


def check_cell(cell, previous_inputs, cell_units=CELL_UNITS):
    """Raises unless `cell` is known, and there is one if anything is said of it.

    Raises:
        ValueError: Either is not so.
    """
    if cell is not None and cell not in _CELLS:
        raise ValueError(f"Received cell={cell!r}. Expected None, 'lstm' or 'gru'.")
    if previous_inputs and cell is None:
        raise ValueError(
            "Received previous_inputs=True without a cell. The previous action and "
            "reward feed the recurrent cell: add cell='lstm' or cell='gru'."
        )
    if cell_units != CELL_UNITS and cell is None:
        raise ValueError(
            f"Received cell_units={cell_units!r} without a cell. Add cell='lstm' or "
            "cell='gru', or leave cell_units out."
        )


def check_filters(filters, observation_space):
    """Raises if there are filters, but no image to convolve.

    Raises:
        ValueError: That is so.
    """
    if filters is not None and not has_images(observation_space):
        raise ValueError(
            "Received filters, but the observation space is "
            f"{observation_space}, without an image (a Box of rank 3). Leave them out."
        )


def make_encoder(observation_space, trunk=None, normalize=False, shift=False):
    """Returns the encoder that suits a trunk.

    Args:
        observation_space: `gymnasium.spaces.Space` of one environment.
        trunk: `None` or a Keras layer. A user's own model gets observations as they
            are; the trunks of this package get vectors or images, `MixedTrunk` both.
        normalize, shift: Bool, see `Encoder`.

    Returns:
        An `Encoder`.
    """
    if trunk is None or isinstance(trunk, MixedTrunk):
        return Encoder(observation_space, normalize, split_images=True, shift=shift)
    ours = isinstance(trunk, (MLP, CNN, ImpalaCNN))
    encoder_class = Encoder if ours else RawEncoder
    return encoder_class(observation_space, normalize, shift=shift)


def make_trunk(
    observation_space,
    hidden_units,
    activation,
    filters=None,
    kernel_initializer="orthogonal",
    seed=None,
):
    """Returns a `CNN` for an image, a `MixedTrunk` where there are more, or an `MLP`.

    Args:
        observation_space: `gymnasium.spaces.Space` of one environment.
        hidden_units, activation, kernel_initializer, seed: As for `MLP`.
        filters: As for `CNN`, or `None` for `NATURE_FILTERS`.

    Returns:
        A Keras layer.
    """
    if has_images(observation_space):
        return (CNN if is_image(observation_space) else MixedTrunk)(
            filters or NATURE_FILTERS,
            hidden_units,
            activation,
            kernel_initializer,
            seed,
        )
    return MLP(hidden_units, activation, kernel_initializer, seed)


def seed_trunk(trunk, seed):
    """Gives a trunk that has no weights yet, and no seed, that of its policy.

    Args:
        trunk: `None` or a Keras layer; one without an attribute `seed` is left alone.
        seed: Integer or `None`.
    """
    if getattr(trunk, "seed", 0) is None and not trunk.built:
        trunk.seed = seed


def copy_trunk(trunk, reason):
    """Returns a layer like a given trunk, with fresh weights.

    Where the trunk has a seed, that of the copy is another: two networks that are to
    differ would begin with the same weights.

    Args:
        trunk: A Keras layer.
        reason: String, why a copy is needed, to begin an error message with.

    Raises:
        ValueError: It cannot be copied.
    """
    try:
        config = trunk.get_config()
        if isinstance(config.get("seed"), int):
            config = {**config, "seed": shift_seed(config["seed"], 3000)}
        return trunk.__class__.from_config(config)
    except Exception as error:
        raise ValueError(
            f"{reason} with a trunk of type {type(trunk).__name__}, which cannot be "
            f"copied: {error}. Give it a get_config."
        ) from error


class _InTraining(keras.layers.Layer):
    """Calls a layer as a part of a model that is being trained.

    Keras tells layers within a call, such as `Dropout`, that they are in training, even
    those of a layer whose own `call` has no argument for it.
    """

    def call(self, inputs, layer, training):
        return layer(inputs)


# Named, because names that begin with an underscore are none for scopes.
_in_training = _InTraining(autocast=False, name="in_training")


def call_trunk(trunk, inputs, training):
    """Calls a trunk, and lets its layers know whether they are in training."""
    # `unroll` and `q_values` are no Keras calls: the flag does not travel by itself.
    if "training" in inspect.signature(trunk.call).parameters:
        features = trunk(inputs, training=training)
    elif training:
        features = _in_training(inputs, layer=trunk, training=True)
    else:
        features = trunk(inputs)
    if isinstance(features, (list, tuple, dict)):
        raise _several_outputs(trunk, f"a {type(features).__name__} as output")
    return features


def _several_outputs(trunk, received):
    """The error about a model with heads where a trunk was expected."""
    return ValueError(
        f"Received the model {trunk.name!r} with {received}, as a trunk. A trunk "
        "returns one tensor of features, [N, F]: the heads for actions and values are "
        "added to it. Leave your own out, with keras.Model(model.inputs, features), "
        "where `features` is what they share; or, to keep them, call the model in a "
        "subclass of kerasrl.models.Policy:\n\n"
        "    def call(self, inputs, state=None, training=False):\n"
        '        logits, values = self.model(inputs["observations"])\n'
        '        return {"distribution": logits, "values": '
        "keras.ops.squeeze(values, -1)}"
    )


def warn_of_size(policy):
    """Warns of a network of millions of parameters that no one asked for.

    Args:
        policy: A policy of this package that was built.
    """
    count = policy.count_params()
    if count <= _MANY_PARAMETERS:
        return
    defaults = inspect.signature(type(policy).__init__).parameters
    for name in ("trunk", "hidden_units", "filters"):
        if name in defaults and getattr(policy, name) != defaults[name].default:
            return
    largest = max(policy.weights, key=lambda weight: math.prod(weight.shape))
    advice = "Describe a smaller network with hidden_units=, or give a trunk."
    images = [x for x in spaces.leaves(policy.network_space) if is_image(x)]
    if images:
        advice = (
            f"Images of {images[0].shape} are large: make them 84 x 84 and grey with "
            "gymnasium.wrappers.AtariPreprocessing, or with ResizeObservation and "
            "GrayscaleObservation, and stack them with FrameStackObservation; or give "
            "filters= with more strides."
        )
    warnings.warn(
        f"{type(policy).__name__} has {count / 1e6:.1f} million parameters for the "
        f"observation space {_short(policy.observation_space)}, "
        f"{math.prod(largest.shape) / 1e6:.1f} million of them in one weight of shape "
        f"{tuple(largest.shape)}. Acting and learning will be slow. {advice}",
        stacklevel=2,
    )


def _short(space):
    text = str(space)
    return text if len(text) <= 100 else f"{text[:97]}..."


def make_cell(name, units, kernel_initializer="orthogonal", seed=None):
    """Returns a recurrent cell.

    Args:
        name: `"lstm"` or `"gru"`.
        units: Integer, size of the state.
        kernel_initializer: As in `MLP`; the recurrent kernel is orthogonal.
        seed: Integer or `None`.

    Returns:
        A `keras.layers.LSTMCell` or `keras.layers.GRUCell`.
    """
    return _CELLS[name](
        units,
        kernel_initializer=make_initializer(kernel_initializer, 1.0, seed),
        recurrent_initializer=keras.initializers.Orthogonal(seed=shift_seed(seed, 1)),
        seed=seed,
        # Whatever the global policy: over many steps, a state of halves loses much.
        dtype="float32",
    )


def initial_cell_state(name, units, batch_size):
    """Returns the state of a cell at the start of an episode.

    Args:
        name: `"lstm"` or `"gru"`.
        units: Integer, size of the state.
        batch_size: Integer or scalar tensor `N`.

    Returns:
        Tuple of zeros `[N, units]`: output and memory (LSTM), or output (GRU).
    """
    zeros = ops.zeros((batch_size, units))
    return (zeros, zeros) if name == "lstm" else (zeros,)


def append_previous(features, inputs, action_encoder):
    """Appends the previous action and reward to the features of a cell.

    Args:
        features: Float32 `[N, F]`.
        inputs: Dict as for `kerasrl.models.Policy.call`.
        action_encoder: `ActionEncoder` of the action space.

    Returns:
        Float32 `[N, F + size of the encoded action + 1]`.
    """
    actions = action_encoder(inputs["previous_actions"])
    rewards = inputs["previous_rewards"][:, None]
    return ops.concatenate([features, actions, rewards], axis=-1)


def step_cells(cells, features, state):
    """Steps cells through one time step.

    Args:
        cells: Dict of cells.
        features: Dict, by the same names, of float32 `[N, F]`.
        state: Dict of tuples of float32 `[N, units]`.

    Returns:
        Tuple of the outputs, dict of float32 `[N, units]`, and the new state.
    """
    outputs, new_state = {}, {}
    for name, cell in cells.items():
        outputs[name], cell_state = cell(features[name], list(state[name]))
        new_state[name] = tuple(cell_state)
    return outputs, new_state


def unroll_cells(cells, features, state, episode_starts):
    """Steps cells through time, from their initial state where episodes start.

    Args:
        cells: Dict of cells, built.
        features: Dict, by the same names, of float32 `[T, B, F]`.
        state: Dict of tuples of float32 `[B, units]`, the state before step 0.
        episode_starts: Bool `[T, B]`.

    Returns:
        Tuple of the outputs, dict of float32 `[T, B, units]`, and the last state.
    """
    outputs, last_state = {}, {}
    for name, cell in cells.items():
        is_lstm = isinstance(cell, keras.layers.LSTMCell)
        outputs[name], last_state[name] = (unroll_lstm if is_lstm else unroll_gru)(
            cell, ops.cast(features[name], "float32"), state[name], episode_starts
        )
    return outputs, last_state
