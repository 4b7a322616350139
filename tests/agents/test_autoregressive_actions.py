"""Parts of an action that depend on each other: learning, acting, resuming."""

import numpy as np
import pytest
from daily import among
from gymnasium import spaces
from test_hybrid_actions import Identity

import kerasrl
from kerasrl import testing
from kerasrl.distributions import autoregressive

AGENTS = {
    "A2C": lambda **kw: kerasrl.A2C(**kw),
    "PPO": lambda **kw: kerasrl.PPO(rollout_length=8, num_epochs=1, kl_coef=0.1, **kw),
}
#: Steps, enough for every seed, and the weight of the entropy.
LEARNING = {"PPO": (60_000, 0.01), "A2C": (100_000, 0.05)}


@pytest.mark.slow
@pytest.mark.parametrize("name", among(["PPO", "A2C"], ["PPO"]))
def test_resume_is_exact_with_workers(name, tmp_path, monkeypatch):
    """And with memory; PPO is held near the policy that acted. Entropy is estimated."""
    monkeypatch.setattr(autoregressive, "MOST_ENUMERATED", 0)
    policy = {"hidden_units": (8,), "autoregressor": "made"}
    if name == "A2C":
        policy.update(cell="gru", cell_units=4, previous_inputs=True)
    straight, resumed = (AGENTS[name](policy=policy, seed=0) for _ in range(2))
    settings = {"steps": 32, "num_envs": 2, "verbose": 0}
    for agent, workers in ((straight, 0), (resumed, 2)):
        agent.compile(jit_compile=False)
        history = agent.fit(Identity, num_workers=workers, **settings).history
    if name == "PPO":
        np.testing.assert_allclose(history["kl"], history["approximate_kl"], rtol=1e-4)
    assert straight.actor().backend == "numpy"
    resumed = kerasrl.load(resumed.save(tmp_path / "agent.kerasrl"))
    before = straight.get_weights()
    states = [agent.policy.estimation_seed.state for agent in (straight, resumed)]
    assert np.array_equal(*states) and states[0][1] > 0
    for agent in (straight, resumed):
        agent.fit(Identity, **settings)
    pairs = zip(straight.get_weights(), resumed.get_weights(), strict=True)
    for one, other in pairs:
        np.testing.assert_array_equal(one, other)
    moved = [
        not np.array_equal(one, other)
        for one, other in zip(before, straight.get_weights(), strict=True)
    ]
    assert np.mean(moved) > 0.9


def test_what_acts_without_tensorflow_draws_as_it_should():
    """In as many passes as parts, with noise of its own for each environment."""
    agent = AGENTS["PPO"](policy={"autoregressor": "made", "seed": 1}, seed=1)
    space = spaces.MultiDiscrete([2, 3])
    agent.build(spaces.Box(-1, 1, (1,)), space)
    for weight in agent.policy.component_model.weights:
        weight.assign(np.random.default_rng(0).normal(size=weight.shape))
    actor, rows = agent.actor(), 6000
    assert actor.backend == "numpy"
    noise = actor.draw([np.random.default_rng(row) for row in range(rows)], 1)
    acted = actor(
        {**agent.policy.example_inputs(rows), "state": ()}, [n[0] for n in noise]
    )
    assert set(acted) == {"actions", "state", "log_probs"}
    actions, counts = np.unique(acted["actions"], axis=0, return_counts=True)
    for action, count in zip(actions, counts, strict=True):
        log_probs = acted["log_probs"][(acted["actions"] == action).all(axis=1)]
        np.testing.assert_allclose(log_probs, log_probs[0], rtol=1e-5)
        probability = np.exp(log_probs[0])
        deviation = np.sqrt(rows * probability * (1 - probability)) + 1
        assert abs(count - rows * probability) < 4.5 * deviation
    assert len(actions) == 6


@pytest.mark.parametrize("cell", [None, pytest.param("gru", marks=pytest.mark.slow)])
def test_no_illegal_action_ever(cell):
    """Of an environment in which it is an error."""
    make = lambda: testing.IllegalActionsEnv([3, 4], 2, episode_length=5)  # noqa: E731
    policy = {"hidden_units": (4,), "autoregressor": "made", "cell": cell}
    agent = AGENTS["PPO"](policy=policy, seed=0)
    agent.compile(jit_compile=False)
    history = agent.fit(make, steps=160, num_envs=4, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    for deterministic in (True, False):
        agent.evaluate(make, 4, deterministic=deterministic, verbose=0)
    assert agent.actor().backend == "numpy"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", LEARNING)
def test_parts_learn_to_agree_at_random(name, seed):
    env = testing.AgreementEnv()
    returns, (steps, entropy_coef) = {}, LEARNING[name]
    for autoregressor in (None, "made"):
        agent = getattr(kerasrl, name)(
            policy={"autoregressor": autoregressor},
            gamma=0.9,
            entropy_coef=entropy_coef,
            seed=seed,
        )
        agent.fit(testing.AgreementEnv, steps=steps, num_envs=8, verbose=0)
        returns[autoregressor] = agent.evaluate(
            testing.AgreementEnv, 400, deterministic=False, seed=1, verbose=0
        )["return_mean"]
    assert returns["made"] >= 0.95 * env.best_return
    # But for the noise of 400 episodes.
    assert returns[None] < 1.05 * env.independent_return


class Renamed(autoregressive.Autoregressive):
    """A distribution of one's own that is nothing else."""


class Own(kerasrl.models.ActorCritic):
    def choose_distribution(self, action_space):
        found = super().choose_distribution(action_space)
        found.distribution_class = Renamed
        return found


def test_masks_reach_a_distribution_derived_from_it():
    policy = Own(autoregressor="made", hidden_units=(8,), seed=0)
    agent = kerasrl.PPO(policy=policy, seed=0)
    vector = spaces.Box(-1.0, 1.0, (2,), np.float32)
    mask = spaces.MultiBinary(6)
    observed = spaces.Dict({"action_mask": mask, "vector": vector})
    agent.build(observed, spaces.MultiDiscrete([3, 3]))
    legal = np.tile(np.array([[1, 0, 0, 0, 1, 0]], np.int8), (64, 1))
    observations = {"action_mask": legal, "vector": np.zeros((64, 2), np.float32)}
    actions = agent.predict(observations, deterministic=False, seed=0)
    np.testing.assert_array_equal(actions, np.tile([[0, 1]], (64, 1)))
