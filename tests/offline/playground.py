"""An environment of any spaces. Light: workers import it, and no TensorFlow with it."""

import gymnasium
from recorded import SPACES, sampled

import kerasrl
from kerasrl.offline.episodes import tree_of


class Playground(gymnasium.Env):
    """Random observations of any space; episodes that end in either way."""

    def __init__(self, kind="box"):
        self.observation_space, self.action_space = SPACES[kind]

    def _observe(self):
        seed = int(self.np_random.integers(2**31))
        tree = sampled(self.observation_space, 1, seed)
        leaves = kerasrl.spaces.leaf_lister(self.observation_space)(tree)
        return tree_of(self.observation_space, [leaf[0] for leaf in leaves])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        draws = self.np_random.random(2)
        end = draws[0] < 0.2
        return self._observe(), float(draws[1]), bool(end and draws[1] < 0.5), bool(
            end and draws[1] >= 0.5
        ), {"noise": float(draws[0]), "word": "no number"}  # fmt: skip
