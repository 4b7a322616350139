"""Exploration that is held for several steps: acting, learning and resuming."""

import numpy as np
import pytest
from daily import among
from gymnasium import spaces
from tiny import hostile_env

import kerasrl
from kerasrl import testing
from kerasrl.training.acting import policy_state

#: What a state of acting has besides that of the policy.
HELD = ("kerasrl_noise", "kerasrl_age")
BOX = spaces.Box(-1.0, 1.0, (1,))
REPLAY = {"learning_starts": 8, "batch_size": 4, "buffer_size": 100, "train_every": 2}
AGENTS = {
    "PPO": lambda **kw: kerasrl.PPO(rollout_length=8, num_epochs=1, seed=0, **kw),
    "A2C": lambda **kw: kerasrl.A2C(seed=0, **kw),
    "SAC": lambda **kw: kerasrl.SAC(seed=0, **REPLAY, **kw),
}


def make(name, noise_steps=3, **policy):
    policy = {"hidden_units": (6,), "noise_steps": noise_steps, **policy}
    agent = AGENTS[name](policy=policy)
    agent.compile(jit_compile=False)
    return agent


class Acting:
    """An actor with what it carries, in B environments that show the same."""

    def __init__(self, name, num_envs, **arguments):
        self.agent = make(name, **arguments)
        self.agent.build(BOX, BOX)
        if name == "SAC":
            self.agent.env_steps = 1000
        self.actor = self.agent.actor()
        self.generators = [np.random.default_rng(seed) for seed in range(num_envs)]
        self.inputs = {
            **self.agent.policy.example_inputs(num_envs),
            **self.agent.exploration_inputs(num_envs),
        }
        self.inputs["observations"] += 0.7
        start = self.actor.initial_state
        repeat = lambda x: np.repeat(np.asarray(x)[None], num_envs, 0)  # noqa: E731
        self.start = {
            "kerasrl_policy": (),
            **{name: repeat(start[name]) for name in HELD},
        }
        self.state = self.start

    def step(self):
        noise = [each[0] for each in self.actor.draw(self.generators, 1)]
        self.acted = self.actor({**self.inputs, "state": self.state}, noise)
        self.state = self.acted["state"]
        return self.acted["actions"][:, 0]


@pytest.mark.parametrize("name", ["PPO", "SAC"])
def test_noise_is_held_for_so_many_steps(name):
    acting = Acting(name, 2)
    assert acting.actor.backend == "numpy"
    actions = np.stack([acting.step() for _ in range(7)])
    changes = (np.diff(actions, axis=0) != 0.0).all(axis=1)
    assert changes.tolist() == [False, False, True, False, False, True]
    assert ((np.diff(actions, axis=0) != 0.0).any(axis=1) == changes).all()
    assert actions[0, 0] != actions[0, 1]
    # An episode starts in the second environment: what the collector does.
    for key in HELD:
        acting.state[key][1] = acting.start[key][1]
    actions = np.stack([actions[-1], acting.step(), acting.step(), acting.step()])
    changes = np.diff(actions, axis=0) != 0.0
    assert changes.tolist() == [[False, True], [False, False], [True, False]]


@pytest.mark.parametrize("name", ["PPO", "SAC"])
def test_actions_are_distributed_as_is_learnt(name):
    acting = Acting(name, 5000)
    actions, policy = acting.step().astype(np.float64), acting.agent.policy
    outputs = policy(acting.inputs, state=())
    mean, log_std = np.asarray(outputs["distribution"][0])
    if name == "SAC":
        actions = np.arctanh(np.clip(actions, -1 + 1e-7, 1 - 1e-7))
    else:
        np.testing.assert_allclose(
            acting.acted["distribution"], outputs["distribution"], rtol=1e-4, atol=1e-5
        )
    spread = (actions - mean) / np.exp(log_std)
    assert abs(spread.mean()) < 0.06 and abs(spread.std() - 1.0) < 0.05
    deterministic = acting.agent.actor(deterministic=True)
    inputs = {k: v for k, v in acting.inputs.items() if k != "random"}
    acted = deterministic({**inputs, "state": acting.state}, [])
    expected = np.tanh(mean) if name == "SAC" else mean
    np.testing.assert_allclose(acted["actions"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(acted["state"][HELD[1]], acting.state[HELD[1]])


@pytest.mark.parametrize("name", among(AGENTS, ["A2C"]))
def test_resume_is_exact(name, tmp_path):
    """With workers, where there can be, and with memory."""
    cell = {"cell": "gru", "cell_units": 4} if name == "PPO" else {}
    straight, resumed = (make(name, **cell) for _ in range(2))
    settings = {"steps": 40, "num_envs": 2, "verbose": 0}
    env = testing.ContinuousIdentityEnv
    straight.fit(env, **settings)
    resumed.fit(env, num_workers=0 if name == "SAC" else 2, **settings)
    resumed = kerasrl.load(resumed.save(tmp_path / "agent.kerasrl"))
    before = np.array(straight.policy.held_noise.log_std)
    for agent in (straight, resumed):
        agent.fit(env, **settings)
    pairs = zip(straight.get_weights(), resumed.get_weights(), strict=True)
    for one, other in pairs:
        np.testing.assert_array_equal(one, other)
    assert (before != np.array(straight.policy.held_noise.log_std)).any()
    assert resumed.policy.noise_steps == 3


def test_ends_of_every_kind_with_memory():
    """Values of final observations are of the policy's own state."""
    agent = make("A2C", cell="gru", cell_units=4)
    history = agent.fit(hostile_env("SAC"), steps=60, num_envs=3, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    actions, state = agent.predict(np.zeros((3, 2), np.float32), deterministic=False)
    again, _ = agent.predict(np.zeros((3, 2), np.float32), state, deterministic=False)
    assert actions.shape == again.shape == (3, 2, 2)
    np.testing.assert_array_equal(state[HELD[1]], 1)


def test_names_of_other_states_are_not_taken():
    """A policy may have a state of its own with the plainest of names."""
    state = {"policy": 1.0, "noise": 2.0, "age": 3.0}
    assert policy_state(state) is state
    assert policy_state({"kerasrl_policy": 1.0, **dict.fromkeys(HELD)}) == 1.0


def test_rollouts_of_others_are_learnt_from():
    """Whose noise was not held, and the other way round."""
    for theirs, mine in ((None, 3), (3, None), (2, 3)):
        source, agent = (make("A2C", noise_steps=n) for n in (theirs, mine))
        source.compile(run_eagerly=True)
        agent.compile(run_eagerly=True)
        rollouts = []

        class Keep(kerasrl.callbacks.Callback):
            def on_rollout_end(self, rollout, rollouts=rollouts):
                rollouts.append(rollout)

        env = hostile_env("SAC")
        source.fit(env, steps=30, num_envs=3, callbacks=[Keep()], verbose=0)
        assert rollouts[0].final is not None
        agent.build(source.policy.observation_space, source.policy.action_space)
        assert np.isfinite(agent.fit(rollouts, verbose=0).history["loss"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["PPO", "A2C"])
def test_learns(name):
    agent = getattr(kerasrl, name)(policy={"noise_steps": 4}, gamma=0.5, seed=0)
    env = testing.ContinuousIdentityEnv
    agent.fit(env, steps=20_000, num_envs=4, verbose=0)
    # Blind play gets at best -10 / 3.
    assert agent.evaluate(env, 20, verbose=0)["return_mean"] > -0.5
