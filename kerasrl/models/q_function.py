"""The contract between action-value networks and agents that act by them."""

import keras
import numpy as np
from keras import ops

from kerasrl.models.combinations import DISCRETE, Combinations
from kerasrl.models.policy import Policy


@keras.saving.register_keras_serializable("kerasrl")
class QFunction(Policy):
    """Base class of action-value networks over discrete actions.

    What `kerasrl.DQN`, `kerasrl.SimpleQ` and `kerasrl.R2D2` act with and train. It is
    a `Policy` without an action distribution: the greedy action is the one of highest
    value, and how to explore is for the agent to say. Layers, recurrence, `setup` and
    the custom hooks are as for `Policy`.

    `call(inputs, state=None, training=False)` returns a dict:

    | key | content |
    |---|---|
    | `"q_values"` | float32 `[N, A]`, expected return of each action |
    | `"logits"` | `[N, A, num_atoms]`, categorical networks only, over `self.atoms` |
    | `"quantiles"` | `[N, A, num_quantiles]`, quantile networks only |
    | `"state"` | new recurrent state, tree `[N, ...]`; left out if there is none |

    `A` is `self.num_actions`, known after `setup`: of `MultiDiscrete` and `MultiBinary`
    actions every combination of choices has a value, in the order of
    `self.combinations`. A categorical network sets `self.atoms`, float32
    `[num_atoms]`, increasing and evenly spaced, and returns as `"q_values"` the
    expectation of the atoms; a quantile network returns the mean of its quantiles.

    Args:
        **kwargs: As for `keras.Model`.

    Example:

    ```python
    @keras.saving.register_keras_serializable()
    class MyQFunction(kerasrl.models.QFunction):
        def setup(self, observation_space, action_space):
            super().setup(observation_space, action_space)
            self.hidden = keras.layers.Dense(64, activation="relu")
            self.head = keras.layers.Dense(self.num_actions)

        def call(self, inputs, state=None, training=False):
            features = self.hidden(inputs["observations"])
            return {"q_values": self.head(features)}

    agent = kerasrl.DQN(policy=MyQFunction())
    ```
    """

    #: Float32 `[num_atoms]`, the returns that `"logits"` are about, or `None`.
    atoms = None
    _masked_output = "q_values"

    def setup(self, observation_space, action_space):
        """Makes the layers that depend on the spaces. Extend it, calling `super()`.

        Args:
            observation_space: `gymnasium.spaces.Space` of one environment.
            action_space: `Discrete`, `MultiDiscrete` or `MultiBinary`.

        Raises:
            TypeError: The action space is of another kind.
            ValueError: There are too many combinations of choices.
        """
        if not isinstance(action_space, DISCRETE):
            raise TypeError(
                f"{type(self).__name__} has one value for each action, so it needs a "
                "Discrete, MultiDiscrete or MultiBinary action space. Received: "
                f"{action_space}. Use kerasrl.DDPG, kerasrl.TD3 or kerasrl.SAC for Box "
                "actions, or kerasrl.PPO for any."
            )
        self.observation_space = observation_space
        self.action_space = action_space
        self.combinations = Combinations(action_space)
        self.num_actions = self.combinations.count

    def mode(self, outputs):
        """Returns the actions of highest value.

        Args:
            outputs: Dict with the key `"q_values"`, `[..., A]`.

        Returns:
            Int32 `[..., *shape]`, counted from zero; the first of equals.
        """
        return self.combinations.actions(ops.argmax(outputs["q_values"], axis=-1))

    def distribution(self, outputs):
        """Raises: an action-value network has no action distribution."""
        raise TypeError(
            f"{type(self).__name__} has no action distribution. Take the greedy "
            "actions with mode(outputs), or use a kerasrl.models.Policy."
        )

    def _check_outputs(self, outputs):
        name = type(self).__name__
        if not isinstance(outputs, dict) or "q_values" not in outputs:
            found = sorted(outputs) if isinstance(outputs, dict) else type(outputs)
            raise ValueError(
                f'{name}.call returned {found}. Expected a dict with the key "q_values"'
                "; see the docstring of kerasrl.models.QFunction."
            )
        self._check_output(outputs, "q_values", (1, self.num_actions))
        if "logits" in outputs and "quantiles" in outputs:
            raise ValueError(
                f'{name}.call returned both "logits" and "quantiles". A distribution '
                "of returns is described by either; leave one out."
            )
        if "logits" in outputs:
            atoms = self._check_atoms()
            self._check_output(outputs, "logits", (1, self.num_actions, len(atoms)))
        if "quantiles" in outputs:
            self._check_output(outputs, "quantiles", (1, self.num_actions, None))
        self._check_state(outputs)

    def _check_output(self, outputs, key, expected):
        shape = tuple(outputs[key].shape)
        fits = len(shape) == len(expected) and all(
            wanted in (None, size) for size, wanted in zip(shape, expected, strict=True)
        )
        if not fits:
            raise ValueError(
                f'{type(self).__name__}.call returned "{key}" of shape {shape} for a '
                f"batch of 1. Expected {expected} for the action space "
                f"{self.action_space}."
            )
        dtype = keras.backend.standardize_dtype(outputs[key].dtype)
        if dtype != "float32":
            raise ValueError(
                f'{type(self).__name__}.call returned "{key}" of dtype {dtype}. '
                'Expected float32: make the last layer with dtype="float32".'
            )

    def _check_atoms(self):
        atoms = None if self.atoms is None else np.asarray(self.atoms)
        if atoms is None or atoms.ndim != 1 or not (np.diff(atoms) > 0).all():
            raise ValueError(
                f'{type(self).__name__}.call returned "logits", and its atoms are '
                f"{self.atoms!r}. Expected an increasing array of rank 1: set "
                "self.atoms in setup, to np.linspace(v_min, v_max, num_atoms)."
            )
        return atoms
