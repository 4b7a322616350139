"""Policies that act by distributions of one's own, from learning to checkpoints."""

import keras
import numpy as np
import pytest
from daily import among
from gymnasium import spaces
from laplace import Laplace

import kerasrl
from kerasrl import testing
from kerasrl.distributions import Deterministic, Distribution
from kerasrl.models import Policy

HYBRID = spaces.Dict({"choice": spaces.Discrete(3), "move": spaces.Box(-1, 1, (2,))})
AGENTS = {
    "PG": lambda **kw: kerasrl.PG(rollout_length=8, **kw),
    "A2C": lambda **kw: kerasrl.A2C(**kw),
    "PPO": lambda **kw: kerasrl.PPO(rollout_length=8, num_epochs=1, **kw),
}


def make(name, distribution=Laplace, **arguments):
    policy = {"hidden_units": (4,), "distribution": distribution}
    agent = AGENTS[name](policy=policy, seed=0, **arguments)
    agent.compile(jit_compile=False)
    return agent


@pytest.mark.parametrize("name", among(AGENTS, ["A2C"]))
def test_exact_resume_with_workers(name, tmp_path):
    straight, resumed = make(name), make(name, "tests>Laplace")
    settings = {"num_envs": 2, "verbose": 0, "steps": 32}
    env = testing.ContinuousIdentityEnv
    straight.fit(env, **settings)
    resumed.fit(env, num_workers=2, **settings)
    assert straight.actor().backend == "numpy"
    resumed = kerasrl.load(resumed.save(tmp_path / "agent.kerasrl"))
    assert resumed.policy.get_config()["distribution"] == "tests>Laplace"
    for agent in (straight, resumed):
        agent.fit(env, **settings)
    pairs = zip(straight.get_weights(), resumed.get_weights(), strict=True)
    for one, other in pairs:
        np.testing.assert_array_equal(one, other)
    observations = np.zeros((3, 1), np.float32)
    for deterministic in (True, False):
        actions = resumed.predict(observations, deterministic=deterministic)
        assert actions.shape == (3, 1)
    result = resumed.evaluate(env, episodes=2, verbose=0)
    assert np.isfinite(result["return_mean"])


def test_for_one_part(tmp_path):
    agent = make("PPO", {"move": Laplace}, kl_coef=0.1)
    agent.build(spaces.Box(-1, 1, (3,)), HYBRID)
    agent = kerasrl.load(agent.save(tmp_path / "agent.kerasrl"))
    parts = agent.policy.distribution_type.parts
    assert parts[1].distribution_class is Laplace


def test_what_an_algorithm_needs_is_told_when_it_is_built():
    box = spaces.Box(-1.0, 1.0, (2,))
    lacking = {"kl": Distribution.kl, "entropy": Distribution.entropy}
    for name, method in lacking.items():
        cls = type(f"No{name}", (Laplace,), {name: method})
        keras.saving.register_keras_serializable("tests")(cls)
        for agent, needed in (
            (make("PPO", cls, kl_coef=0.1), True),
            (make("PPO", cls), name != "kl"),
            (make("A2C", cls), name != "kl"),
        ):
            if needed:
                with pytest.raises(ValueError, match=f"must define {name}"):
                    agent.build(box, box)
            else:
                agent.build(box, box)
    for distribution in (Deterministic, "TanhGaussian"):
        with pytest.raises(ValueError, match="PPO needs"):
            make("PPO", distribution).build(box, box)


class Imitation(kerasrl.OnPolicyAgent):
    """Learns to say what it sees, by no log-probability."""

    def loss(self, batch, outputs, settings):
        distance = outputs["distribution"] - batch["observations"]
        return keras.ops.mean(keras.ops.square(distance)), {}


def test_a_deterministic_policy_learns_by_a_loss_of_its_own():
    policy = {"hidden_units": (16,), "distribution": "Deterministic"}
    agent = Imitation(policy=policy, rollout_length=16, seed=0)
    agent.compile(keras.optimizers.Adam(0.03), jit_compile=False)
    env = testing.ContinuousIdentityEnv
    agent.fit(env, steps=1600, verbose=0)
    result = agent.evaluate(env, episodes=4, deterministic=False, verbose=0)
    assert result["return_mean"] > -0.5


# Policies whose distribution takes more than its parameters ---------------------------


@keras.saving.register_keras_serializable("tests")
class TwoOutputs(Policy):
    """Says means and deviations apart."""

    def setup(self, observation_space, action_space):
        super().setup(observation_space, action_space)
        self.num_parameters //= 2
        self.head = keras.layers.Dense(self.num_parameters)
        self.spread = keras.layers.Dense(self.num_parameters)
        self.value = keras.layers.Dense(1)

    def call(self, inputs, state=None, training=False):
        features = inputs["observations"]
        return {
            "distribution": self.head(features),
            "log_std": self.spread(features),
            "values": keras.ops.squeeze(self.value(features), -1),
        }

    def distribution(self, outputs):
        parts = [outputs["distribution"], outputs["log_std"]]
        return self.distribution_type(keras.ops.concatenate(parts, axis=-1))


def test_ppo_holds_such_a_policy_near_the_one_that_acted():
    """Which ended in a KeyError of the second output."""
    agent = kerasrl.PPO(policy=TwoOutputs(), rollout_length=32, kl_coef=10.0, seed=0)
    agent.compile(keras.optimizers.Adam(0.01), jit_compile=False)
    history = agent.fit(testing.ContinuousIdentityEnv, steps=64, verbose=0).history
    np.testing.assert_allclose(history["kl"], history["approximate_kl"], rtol=1e-4)
    # Without a penalty it is 0.0045.
    assert 0.0 < np.mean(history["kl"]) < 0.002
