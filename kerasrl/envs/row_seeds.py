"""Vector environments of which each row is reset by itself, with a seed of its own.

Where many episodes are played that must not depend on each other, that is what single
environments have, at the speed of a batched simulation. A vector environment says that
it can by `metadata["row_seeds"] = True`, with `AutoresetMode.DISABLED`:

- `reset(seed=seeds, options={"reset_mask": mask})` resets the rows where the bool `[B]`
  `mask` holds, and no others. `seeds` is a list of B entries; where one is an integer,
  the row goes on as it would whatever the other rows do, and whatever it did before.
- Rows that have ended may be stepped without being reset. What they return then is not
  looked at.
"""

import dataclasses

import gymnasium
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode

from kerasrl.envs.registration import find_creator

_ROOM = "gymnasium.envs.classic_control.cartpole"


class CartPoleRows(CartPoleVectorEnv):
    """gymnasium's CartPole in NumPy, each row as its single environment, bit for bit.

    Args:
        num_envs: Integer B.
        max_episode_steps: Integer, after which episodes are truncated.

    Example:

    ```python
    env = CartPoleRows(num_envs=2)
    env.reset(seed=[5, 6])
    env.reset(seed=[7, None], options={"reset_mask": np.array([True, False])})
    ```
    """

    metadata = {
        **CartPoleVectorEnv.metadata,
        "autoreset_mode": AutoresetMode.DISABLED,
        "row_seeds": True,
    }

    def __init__(self, num_envs=1, max_episode_steps=500):
        super().__init__(num_envs, max_episode_steps)
        self._generators = [None] * num_envs
        self._no_rows = np.zeros(num_envs, bool)

    def reset(self, *, seed=None, options=None):
        """Resets rows; see the top of this file. An integer is the seed of row 0."""
        if self.state is None:
            super().reset(seed=0)  # Makes the arrays.
        mask = (options or {}).get("reset_mask")
        rows = range(self.num_envs) if mask is None else np.flatnonzero(mask).tolist()
        if seed is None or isinstance(seed, int | np.integer):
            # As gymnasium's SyncVectorEnv has it.
            seeds = [seed if seed is None else seed + i for i in range(self.num_envs)]
        else:
            seeds = seed
        for row in rows:
            if seeds[row] is not None or self._generators[row] is None:
                self._generators[row], _ = seeding.np_random(seeds[row])
            drawn = self._generators[row].uniform(self.low, self.high, size=4)
            self.state[:, row] = drawn
            self.steps[row] = 0
        return self.state.T.astype(np.float32), {}

    def step(self, action):
        """Steps all rows, and resets none.

        Computes what gymnasium does, in the same order of operations, with half as many
        calls: it looks for rows to reset, and at actions, which others have looked at.
        """
        if self.kinematics_integrator != "euler":
            result = super().step(action)
            self.prev_done = self._no_rows
            return result
        _, speed, angle, spin = self.state
        cos, sin = np.cos(angle), np.sin(angle)
        force = np.where(action == 1, self.force_mag, -self.force_mag)
        push = (force + self.polemass_length * np.square(spin) * sin) / self.total_mass
        inertia = 4.0 / 3.0 - self.masspole * np.square(cos) / self.total_mass
        turn = (self.gravity * sin - cos * push) / (self.length * inertia)
        gain = push - self.polemass_length * turn * cos / self.total_mass
        self.state = self.state + self.tau * np.array((speed, gain, spin, turn))
        position, _, angle, _ = np.abs(self.state)
        is_out = position > self.x_threshold
        terminated = is_out | (angle > self.theta_threshold_radians)
        self.steps += 1
        truncated = self.steps >= self.max_episode_steps
        rewards = np.ones(self.num_envs, np.float32)
        return self.state.T.astype(np.float32), rewards, terminated, truncated, {}


@dataclasses.dataclass(frozen=True)
class RowForm:
    """What stands for a gymnasium id where rows are wanted; `make_envs` takes it.

    Args:
        name: String, the id.
        max_episode_steps: Integer.
    """

    name: str
    max_episode_steps: int

    def __call__(self, num_envs):
        """Returns a `gymnasium.vector.VectorEnv` of so many rows."""
        return CartPoleRows(num_envs, self.max_episode_steps)


def row_form(env, env_config=None):
    """Returns the `RowForm` of what plays the same in rows, to the last bit, or `None`.

    Args:
        env: What `fit` is given.
        env_config: As for `fit`.

    Example:

    ```python
    row_form("CartPole-v1")(num_envs=64)
    ```
    """
    if not isinstance(env, str) or env_config or find_creator(env) is not None:
        return None
    spec = gymnasium.registry.get(env)
    if (
        spec is None
        or spec.entry_point != f"{_ROOM}:CartPoleEnv"
        or spec.vector_entry_point != f"{_ROOM}:CartPoleVectorEnv"
        or spec.max_episode_steps is None
        or spec.kwargs
        or spec.additional_wrappers
    ):
        return None
    return RowForm(env, spec.max_episode_steps)
