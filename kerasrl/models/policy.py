"""The contract between policies and agents."""

import inspect
import weakref

import keras
import numpy as np
from keras import ops

from kerasrl import spaces, spellings
from kerasrl.distributions import Autoregressive, distribution_for
from kerasrl.distributions.checking import check_methods, is_complete
from kerasrl.models import encoder, masking, torso
from kerasrl.models.scan import scan_states

#: What every `keras.Model` takes.
_OF_KERAS = ("activity_regularizer", "autocast", "dtype", "name", "trainable")


@keras.saving.register_keras_serializable("kerasrl")
class Policy(masking.MasksActions, keras.Model):
    """Base class of policies: a `keras.Model` that agents can act with and train.

    A subclass defines `call`, and `get_initial_state` if it is recurrent. Everything
    else has a default. Layers whose size depends on the spaces are made in `setup`,
    which the agent calls once before the first use; layers of fixed size may be made
    in `__init__`, as in any Keras model.

    `call(inputs, state=None, training=False)` works on one time step of a batch:

    | argument | content |
    |---|---|
    | `inputs["observations"]` | observations, tree `[N, ...]` as in the space |
    | `inputs["previous_actions"]` | tree `[N, ...]`, emitted; zeros at episode starts |
    | `inputs["previous_rewards"]` | float32 `[N]`, zeros at episode starts |
    | `state` | tree `[N, ...]` of recurrent state, `()` or `None` if there is none |

    Emitted actions are those of the distribution: choices count from zero whatever
    the `start` of the space, and `Box` actions are float32 before clipping and
    rounding. `kerasrl.envs.clip_actions` turns them into those of the environment.

    It returns a dict:

    | key | content |
    |---|---|
    | `"distribution"` | `[N, P]`, parameters of the action distribution |
    | `"values"` | `[N]` (not `[N, 1]`), state values; `PG(baseline=False)` needs none |
    | `"state"` | new recurrent state, tree `[N, ...]`; left out if there is none |

    `P` is `self.num_parameters`, known after `setup`. More keys are allowed; losses
    find them in `batch["outputs"]`.

    Where observations have an entry `"action_mask"`, logits of actions that may not be
    taken are replaced after `call` and `unroll`, which need not do anything about them.

    Checkpoints hold the arguments of `__init__`, if all are numbers, texts, booleans or
    `None`. For others, define `get_config`. A class that extends a built-in policy need
    not, if it keeps each new argument in an attribute of its name.

    Args:
        **kwargs: As for `keras.Model`.

    Example:

    ```python
    @keras.saving.register_keras_serializable()
    class MyPolicy(kerasrl.models.Policy):
        def setup(self, observation_space, action_space):
            super().setup(observation_space, action_space)
            self.hidden = keras.layers.Dense(64, activation="tanh")
            self.head = keras.layers.Dense(self.num_parameters)
            self.value = keras.layers.Dense(1)

        def call(self, inputs, state=None, training=False):
            features = self.hidden(inputs["observations"])
            values = keras.ops.squeeze(self.value(features), -1)
            return {"distribution": self.head(features), "values": values}

    agent = kerasrl.PPO(policy=MyPolicy())
    ```
    """

    def __new__(cls, *args, **kwargs):
        # `keras.Layer` keeps plain arguments for `get_config`, as `keras.Model` does
        # not: it would say the defaults, whatever was passed.
        return keras.Layer.__new__(cls, *args, **kwargs)

    def __init__(self, **kwargs):
        known = inspect.signature(type(self)).parameters
        spellings.refuse_unknown(type(self).__name__, kwargs, known, _OF_KERAS)
        super().__init__(**kwargs)
        self.observation_space = None
        self.action_space = None
        self.has_values = False
        #: A `HeldNoise`, where noise is held for `noise_steps`.
        self.held_noise = None
        #: Whether observations may be shifted before they are rounded; see `Encoder`.
        self.shifts_observations = True
        #: Whose `weights_were_set` is called when all weights were set at once.
        self.observers = weakref.WeakSet()

    def setup(self, observation_space, action_space):
        """Makes the layers that depend on the spaces. Extend it, calling `super()`.

        Args:
            observation_space: `gymnasium.spaces.Space` of one environment.
            action_space: `gymnasium.spaces.Space` of one environment.

        Raises:
            TypeError: There is no action distribution for this action space.
        """
        self.observation_space = observation_space
        self.action_space = action_space
        self.distribution_type = self.choose_distribution(action_space)
        self.num_parameters = self.distribution_type.parameters_size
        # Tracked by Keras: checkpoints tell how estimates go on.
        self.estimation_seed = self.distribution_type.options.get("estimation_seed")

    def choose_distribution(self, action_space):
        """Returns which distribution actions are drawn from. Override it for others.

        Args:
            action_space: `gymnasium.spaces.Space` of one environment.

        Returns:
            A `kerasrl.distributions.DistributionType`. Here the default for the space;
            `distribution_for(action_space, Logistic)` is one of a class of your own.
        """
        return distribution_for(action_space)

    def build_for(self, observation_space, action_space):
        """Creates all weights, once. Agents call this; `setup` is what to extend.

        Args:
            observation_space: `gymnasium.spaces.Space` of one environment.
            action_space: `gymnasium.spaces.Space` of one environment.

        Raises:
            ValueError: The policy was built for other spaces before.
        """
        if self.observation_space is not None:
            if (self.observation_space, self.action_space) != (
                observation_space,
                action_space,
            ):
                raise ValueError(
                    "Received an environment with observation space "
                    f"{observation_space} and action space {action_space}, but the "
                    f"policy was built for {self.observation_space} and "
                    f"{self.action_space}. Use an environment with the same spaces, "
                    "or a new policy."
                )
            return
        try:
            self.setup(observation_space, action_space)
            self._check_maskable()
            outputs = self(self.example_inputs(1), state=self.get_initial_state(1))
            self._check_outputs(outputs)
        except Exception:
            # A second attempt must not take this policy for a finished one.
            self.observation_space = self.action_space = None
            raise
        self.has_values = "values" in outputs
        self.built = True
        if type(self).__module__.startswith("kerasrl."):
            torso.warn_of_size(self)

    def call(self, inputs, state=None, training=False):
        """Computes distribution parameters and values. See the class docstring."""
        raise NotImplementedError(
            f"{type(self).__name__} must define call(inputs, state=None, "
            "training=False); see the docstring of kerasrl.models.Policy."
        )

    def unroll(self, inputs, state, episode_starts, training=False):
        """Runs the policy over sequences, resetting its state at episode starts.

        Args:
            inputs: As for `call`, with leading axes `[T, B, ...]`.
            state: Tree `[B, ...]`, the state before step 0.
            episode_starts: Bool `[T, B]`. Where true, the state is set to the
                initial state before that step.
            training: Bool, as in Keras.

        Returns:
            Dict as from `call`, with leading axes `[T, B, ...]`. `"state"` is the
            state after the last step, `[B, ...]`.
        """
        if not self.is_recurrent:
            outputs = self(merge_time(inputs), training=training)
            return split_time(outputs, ops.shape(episode_starts)[0])
        initial_state = self.get_initial_state(ops.shape(episode_starts)[1])

        def step(state, step_inputs):
            inputs, starts = step_inputs
            state = reset_state(state, initial_state, starts)
            return self(inputs, state=state, training=training)["state"], state

        # The loop gives the states in which each step was taken; all other outputs
        # follow in one call.
        last_state, states = scan_states(step, state, (inputs, episode_starts))
        outputs = self(merge_time(inputs), state=merge_time(states), training=training)
        outputs = {name: value for name, value in outputs.items() if name != "state"}
        num_steps = ops.shape(episode_starts)[0]
        return {**split_time(outputs, num_steps), "state": last_state}

    @property
    def is_recurrent(self):
        """Whether the policy carries state from one step to the next."""
        return bool(keras.tree.flatten(self.get_initial_state(1)))

    def get_initial_state(self, batch_size):
        """Returns the state at the start of an episode.

        Args:
            batch_size: Integer or scalar tensor `N`.

        Returns:
            Tree of tensors `[N, ...]`; `()` for a policy without state.
        """
        return ()

    def distribution(self, outputs):
        """Returns the action distribution that `call` or `unroll` described.

        Args:
            outputs: Dict with the key `"distribution"`, `[..., P]`.

        Returns:
            A `kerasrl.distributions.Distribution`.
        """
        more = {}
        if issubclass(self.distribution_type.distribution_class, Autoregressive):
            more["legal"] = outputs.get("legal_actions")
        return self.distribution_type(outputs["distribution"], **more)

    @property
    def is_told_by_parameters(self):
        """Whether `"distribution"` alone says how actions were drawn, then as now.

        Not if `distribution` is overridden, or reads weights: those change.
        """
        own = type(self).distribution is not Policy.distribution
        return not own and not self.distribution_type.distribution_class.has_weights

    def check_distribution(self, methods, who):
        """Raises unless a distribution of one's own has the methods that are needed.

        Args:
            methods: Names of methods of `kerasrl.distributions.Distribution`.
            who: Str, who needs them, for the message.

        Raises:
            ValueError: One is missing, or returns another shape.
        """
        if not self.is_told_by_parameters or is_complete(self.distribution_type):
            return
        parameters = np.zeros((1, self.num_parameters), np.float32)
        distribution = self.distribution_type(parameters)
        check_methods(distribution, self.distribution_type, methods, who)

    def step_extras(self, outputs):
        """Returns what else to record of each step while acting.

        It is in `rollout.extras`, and for losses in `batch["extras"]`: as it was when
        the action was chosen, from workers and out of replay buffers too.

        Args:
            outputs: Dict, what `call` returned for the observations acted on.

        Returns:
            Dict of tensors `[N, ...]`, or trees of them. Here, empty.
        """
        return {}

    def custom_loss(self, loss, batch):
        """Changes the loss. The default returns it as it is.

        Args:
            loss: Scalar, the loss of the algorithm on this minibatch, regularizers
                and `add_loss` terms included.
            batch: Dict of what the algorithm trains on (`observations`, `actions`,
                `advantages`, ...), `"mask"`, float32, 0 for samples that do not count
                (see `kerasrl.losses.masked_mean`), and `"outputs"`, what this policy
                returned for it. With `fit(env, offline=dataset)` also `"offline"`, a
                batch of the dataset; `kerasrl.agents.forward(self, batch["offline"])`
                is what this policy returns for that.

        Returns:
            Scalar, the loss to minimize.
        """
        return loss

    def custom_metrics(self, batch):
        """Returns more scalars to log. The default returns none.

        Args:
            batch: As for `custom_loss`.

        Returns:
            Dict of scalars, averaged over the updates of an epoch.
        """
        return {}

    def set_weights(self, weights):
        super().set_weights(weights)
        self._tell_observers()

    def load_weights(self, filepath, skip_mismatch=False, **kwargs):
        super().load_weights(filepath, skip_mismatch=skip_mismatch, **kwargs)
        self._tell_observers()

    def _tell_observers(self):
        for observer in list(self.observers):
            observer.weights_were_set()

    def update_normalization(self, observations, mask):
        """Learns the statistics of new observations. The default has none.

        Args:
            observations: Tree `[N, ...]`. Of ES and ARS, two rows that have the mean
                and the variance of all.
            mask: Bool `[N]`, false for rows to ignore; or float, the number of
                observations that each stands for.
        """

    def example_inputs(self, batch_size):
        """Returns a batch of zeros to call the policy with.

        Args:
            batch_size: Integer `N`.

        Returns:
            Dict as `inputs` of `call`, NumPy arrays.
        """
        rewards = spaces.zeros(_SCALAR, batch_size)
        return {
            "observations": spaces.zeros(self.observation_space, batch_size),
            "previous_actions": spaces.zeros(
                spaces.emitted(self.action_space), batch_size
            ),
            "previous_rewards": rewards,
        }

    def sample_inputs(self, batch_size, generator):
        """Returns a random batch of what the policy may be called with.

        Args:
            batch_size: Integer `N`.
            generator: `numpy.random.Generator`.

        Returns:
            As from `example_inputs`.
        """
        observations, actions = (
            spaces.samples(space, batch_size, generator)
            for space in (self.observation_space, spaces.emitted(self.action_space))
        )
        return {
            "observations": observations,
            "previous_actions": actions,
            "previous_rewards": generator.standard_normal(batch_size, np.float32),
        }

    def _check_outputs(self, outputs):
        if not isinstance(outputs, dict) or "distribution" not in outputs:
            raise ValueError(
                f"{type(self).__name__}.call returned {type(outputs).__name__}. "
                'Expected a dict with the keys "distribution" and "values"; see the '
                "docstring of kerasrl.models.Policy."
            )
        shape = tuple(outputs["distribution"].shape)
        if shape != (1, self.num_parameters):
            raise ValueError(
                f'{type(self).__name__}.call returned "distribution" of shape {shape} '
                f"for a batch of 1. Expected (1, {self.num_parameters}) for the action "
                f"space {self.action_space}."
            )
        if "values" in outputs and tuple(outputs["values"].shape) != (1,):
            raise ValueError(
                f'{type(self).__name__}.call returned "values" of shape '
                f"{tuple(outputs['values'].shape)} for a batch of 1. Expected (1,): "
                "remove the last axis with keras.ops.squeeze(values, -1)."
            )
        self._check_state(outputs)

    def _check_state(self, outputs):
        if self.is_recurrent and "state" not in outputs:
            raise ValueError(
                f"{type(self).__name__} has an initial state, so its call must return "
                'the new state under the key "state".'
            )

    def get_build_config(self):
        if self.observation_space is None:
            return None
        return {
            "observation_space": spaces.space_to_config(self.observation_space),
            "action_space": spaces.space_to_config(self.action_space),
            "encoding": encoder.ENCODING,
            "shifts_observations": self.shifts_observations,
            "honours_masks": self.honours_masks,
        }

    def build_from_config(self, config):
        # Policies that were saved when there was no shift have no weights for it.
        self.shifts_observations = config.get("shifts_observations", False)
        self.honours_masks = config.get("honours_masks", False)
        self.build_for(
            spaces.space_from_config(config["observation_space"]),
            spaces.space_from_config(config["action_space"]),
        )
        if "encoding" not in config and any(
            type(layer) is encoder.Encoder for layer in self.layers
        ):
            encoder.warn_of_first_encoding(self.observation_space)


_SCALAR = spaces.spaces.Box(-float("inf"), float("inf"), ())


def merge_time(tree):
    """Reshapes every leaf `[T, B, ...]` to `[T * B, ...]`."""
    return keras.tree.map_structure(
        lambda x: ops.reshape(x, (-1, *ops.shape(x)[2:])), tree
    )


def split_time(tree, num_steps):
    """Reshapes every leaf `[T * B, ...]` to `[T, B, ...]`, `T` being `num_steps`."""
    return keras.tree.map_structure(
        lambda x: ops.reshape(x, (num_steps, -1, *ops.shape(x)[1:])), tree
    )


def reset_state(state, initial_state, starts):
    """Replaces rows of a state where an episode starts.

    Args:
        state, initial_state: Trees `[B, ...]` of the same structure.
        starts: Bool `[B]`.

    Returns:
        Tree `[B, ...]`.
    """

    def choose(current, initial):
        shape = (-1,) + (1,) * (len(current.shape) - 1)
        return ops.where(ops.reshape(starts, shape), initial, current)

    return keras.tree.map_structure(choose, state, initial_state)
