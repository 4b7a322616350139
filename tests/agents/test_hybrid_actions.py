"""Actions of several kinds at once, from learning to checkpoints and workers."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import kerasrl

_NUMBERS = spaces.Box(-1.0, 1.0, (1,), np.float32)


class Identity(gymnasium.Env):
    """Pays half for the choice and half for the number that is seen."""

    observation_space = spaces.Dict({"choice": spaces.Discrete(4), "number": _NUMBERS})
    # Pairs keep this order, in which the environment is told, and trees are not.
    action_space = spaces.Dict(
        [("number", _NUMBERS), ("choice", spaces.Discrete(4, start=3))]
    )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.show(), {}

    def show(self):
        self.shown = {
            "choice": self.np_random.integers(4),
            "number": self.np_random.uniform(-1, 1, 1).astype(np.float32),
        }
        return self.shown

    def step(self, action):
        assert self.action_space.contains(action)
        distance = abs(float(action["number"][0] - self.shown["number"][0]))
        chosen = action["choice"] - 3 == self.shown["choice"]
        self.steps += 1
        reward = 0.5 * float(chosen) + 0.5 * max(0.0, 1.0 - distance)
        return self.show(), reward, False, self.steps == 10, {}


AGENTS = {
    "PPO": lambda **kw: kerasrl.PPO(rollout_length=64, gamma=0.0, seed=0, **kw),
    "A2C": lambda **kw: kerasrl.A2C(gamma=0.0, seed=0, **kw),
}


@pytest.mark.parametrize(
    ("name", "steps"),
    [("PPO", 40_000), pytest.param("A2C", 100_000, marks=pytest.mark.slow)],
)
def test_what_is_seen_is_said(name, steps):
    agent = AGENTS[name]()
    agent.fit(Identity, steps=steps, num_envs=8, verbose=0)
    assert agent.actor().backend == "numpy"
    best = 10.0
    result = agent.evaluate(Identity, episodes=20, verbose=0)
    assert result["return_mean"] >= 0.95 * best


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_resume_is_exact(num_workers, tmp_path):
    """With a memory of previous actions, and in workers."""
    policy = {
        **{"hidden_units": (8,), "cell": "gru", "cell_units": 4},
        **{"previous_inputs": True, "log_std": "predicted"},
    }
    straight, resumed = (
        kerasrl.PPO(policy=policy, rollout_length=16, num_epochs=1, kl_coef=0.1, seed=0)
        for _ in range(2)
    )
    settings = {"steps": 64, "num_envs": 2, "verbose": 0}
    for agent, workers in ((straight, 0), (resumed, num_workers)):
        agent.compile(jit_compile=False)
        agent.fit(Identity, num_workers=workers, **settings)
    resumed = kerasrl.load(resumed.save(tmp_path / "agent.kerasrl"))
    before = straight.get_weights()
    for agent in (straight, resumed):
        agent.fit(Identity, **settings)
    pairs = zip(straight.get_weights(), resumed.get_weights(), strict=True)
    for one, other in pairs:
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(before[0], straight.get_weights()[0])


def test_predict_says_what_the_environment_takes():
    agent = AGENTS["PPO"](policy={"hidden_units": (8,)})
    agent.build(Identity.observation_space, Identity.action_space)
    batch = {"choice": np.arange(4), "number": np.zeros((4, 1), np.float32)}
    for deterministic in (True, False):
        actions = agent.predict(batch, deterministic=deterministic)
        for row in range(4):
            action = {name: part[row] for name, part in actions.items()}
            assert Identity.action_space.contains(action)
