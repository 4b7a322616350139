"""A critic that sees the whole, and an actor that does not."""

import keras
from gymnasium import spaces
from keras import ops

from kerasrl import action_masks
from kerasrl.models import ActorCritic
from kerasrl.models.encoder import Encoder
from kerasrl.multi_agent.central import STATE
from kerasrl.spaces import leaves


@keras.saving.register_keras_serializable("kerasrl")
class CentralCritic(ActorCritic):
    """An `ActorCritic` whose values see the state of the whole, and no one else.

    Observations are those of `kerasrl.multi_agent.with_central_state`. Actions come of
    what the agent observes itself; values of that and of `"state"`, which acting does
    not read: `predict` takes anything in its place.

    Papers: Lowe et al. (2017), https://arxiv.org/abs/1706.02275; Yu et al. (2022),
    https://arxiv.org/abs/2103.01955.

    Args:
        **kwargs: As for `kerasrl.models.ActorCritic`. Policy and values have networks
            of their own, without memory, and no `trunk` is given.

    Raises:
        ValueError: Observations have no `"state"`, or networks are to be shared.

    Example:

    ```python
    kerasrl.PPO(policy=kerasrl.multi_agent.CentralCritic(hidden_units=(64, 64)))
    ```
    """

    def setup(self, observation_space, action_space):
        space = observation_space
        if not (isinstance(space, spaces.Dict) and STATE in space.spaces):
            raise ValueError(
                f"CentralCritic received the observation space {space}. Expected a "
                f"Dict with {STATE!r}: wrap the environment by "
                "kerasrl.multi_agent.with_central_state."
            )
        for name in ("trunk", "cell", "shared_trunk"):
            if getattr(self, name):
                raise ValueError(
                    f"CentralCritic received {name}={getattr(self, name)!r}. The "
                    "networks of policy and values see different things here, and have "
                    "no memory: leave it out."
                )
        self.shared_trunk, self.shifts_observations = False, False
        super().setup(observation_space, action_space)
        has_numbers = any(leaf.dtype.kind == "f" for leaf in leaves(space[STATE]))
        self.state_encoder = Encoder(
            space[STATE], self.normalize_observations and has_numbers
        )
        encoders = self.encoder, self.state_encoder
        if any(each.images or each.is_image for each in encoders):
            raise ValueError(
                f"CentralCritic received the observation space {space}, with images. "
                "Expected vectors and choices."
            )

    @property
    def network_space(self):
        """The observation space less the mask and the state."""
        return _own(super().network_space)

    def network_observations(self, observations):
        return _own(super().network_observations(observations))

    def update_normalization(self, observations, mask):
        super().update_normalization(observations, mask)
        if self.normalize_observations:
            self.state_encoder.update(observations[STATE], mask)

    def _trunk_inputs(self, observations):
        own = self.encoder(self.network_observations(observations))
        every = ops.concatenate([own, self.state_encoder(observations[STATE])], axis=-1)
        return {name: own if name == "policy" else every for name in self.trunks}


def _own(tree):
    """What an agent sees itself, of observations or their space."""
    is_space = isinstance(tree, spaces.Dict)
    items = tree.spaces.items() if is_space else tree.items()
    rest = {key: value for key, value in items if key != STATE}
    if list(rest) == [action_masks.OBSERVATION]:
        return rest[action_masks.OBSERVATION]
    return spaces.Dict(rest) if is_space else rest
