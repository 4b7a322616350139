"""The feature matrix of the README: every cell that says yes is tried here."""

import pathlib
import re

import gymnasium
import keras
import numpy as np
import pytest
from gymnasium import spaces

import kerasrl

README = pathlib.Path(__file__).parents[1] / "README.md"
ACTIONS = {
    "Discrete": spaces.Discrete(3, start=2),
    "MultiDiscrete": spaces.MultiDiscrete([2, 3]),
    "MultiBinary": spaces.MultiBinary(3),
    "Box": spaces.Box(np.array([-2.0, 0.0]), np.array([1.0, 5.0]), dtype=np.float32),
}
OBSERVATIONS = {
    "Box": spaces.Box(-1.0, 1.0, (3,), np.float32),
    "Dict": spaces.Dict(
        {
            "image": spaces.Box(0, 255, (6, 6, 1), np.uint8),
            "rest": spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1, (2,))]),
        }
    ),
}
AGENTS = {
    "PG": lambda **kw: kerasrl.PG(rollout_length=8, **kw),
    "A2C": lambda **kw: kerasrl.A2C(**kw),
    "PPO": lambda **kw: kerasrl.PPO(rollout_length=8, num_epochs=1, **kw),
}


class AnySpaces(gymnasium.Env):
    """Random observations; ends in both ways; refuses actions outside its space."""

    def __init__(self, observation_space, action_space):
        self.observation_space = observation_space
        self.action_space = action_space
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        if not self.action_space.contains(action):
            raise ValueError(f"{action!r} is not in {self.action_space}")
        self.steps += 1
        terminated, truncated = self.steps == 3, self.steps > 3
        return self.observation_space.sample(), 1.0, terminated, truncated, {}


@pytest.mark.parametrize("cell", [None, "gru"])
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("observation", OBSERVATIONS)
@pytest.mark.parametrize("name", AGENTS)
def test_spaces_and_recurrence(name, observation, action, cell):
    agent = AGENTS[name](policy={"cell": cell, "cell_units": 4, "hidden_units": (4,)})
    agent.compile(jit_compile=False)

    def make():
        return AnySpaces(OBSERVATIONS[observation], ACTIONS[action])

    history = agent.fit(make, steps=32, num_envs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all() and history["gradient_norm"][0] > 0.0


@pytest.mark.parametrize("name", AGENTS)
def test_custom_loss_and_metrics(name):
    class Frozen(kerasrl.models.ActorCritic):
        """Throws the algorithm's loss away: no weight may move."""

        def custom_loss(self, loss, batch):
            self.seen = sorted(batch)
            return 0.0 * loss

        def custom_metrics(self, batch):
            return {"seven": keras.ops.convert_to_tensor(7.0)}

    agent = AGENTS[name](policy=Frozen())
    env = gymnasium.make("CartPole-v1")
    agent.build(env.observation_space, env.action_space)
    before = agent.get_weights()
    history = agent.fit("CartPole-v1", steps=64, num_envs=4, verbose=0).history
    assert history["seven"] == [7.0]
    assert {"observations", "actions", "advantages", "outputs"} <= set(
        agent.policy.seen
    )
    for old, new in zip(before, agent.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_regularizers_join_the_loss():
    losses = []
    for regularizer in (None, keras.regularizers.L2(0.1)):
        keras.utils.set_random_seed(0)
        trunk = keras.Sequential(
            [keras.layers.Dense(8, kernel_regularizer=regularizer)]
        )
        agent = kerasrl.A2C(policy=trunk, seed=0)
        losses.append(agent.fit("CartPole-v1", steps=40, verbose=0).history["loss"][0])
    assert losses[1] > losses[0] + 0.01


@pytest.mark.parametrize("mode", ["SAME_STEP", "NEXT_STEP", "DISABLED"])
def test_vector_envs_train(mode):
    envs = gymnasium.make_vec(
        "CartPole-v1",
        num_envs=3,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": gymnasium.vector.AutoresetMode[mode]},
    )
    agent = kerasrl.A2C(seed=0)
    history = agent.fit(envs, steps=600, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert agent.episodes > 10
    envs.close()


def test_the_matrix_names_the_agents():
    header = re.search(r"^\| \| (.+) \|$", README.read_text(), re.MULTILINE).group(1)
    assert header.split(" | ") == list(AGENTS)
