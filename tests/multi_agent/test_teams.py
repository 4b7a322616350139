"""VDN and QMIX: teams that learn from one reward."""

import numpy as np
import pytest
from daily import among
from gymnasium import spaces

import kerasrl
from kerasrl.multi_agent import (
    MatrixGame,
    MultiAgentEnv,
    MultiEnvironments,
    Pursuit,
    RandomPolicy,
    TeamEnv,
    TeamNetwork,
    TicTacToe,
    teams,
)
from kerasrl.multi_agent.arena import Arena, Player
from kerasrl.multi_agent.seats import Seats
from kerasrl.rollouts.scripted import ScriptedActor

SMALL = {
    "policy": {"hidden_units": 8},
    "sequence_length": 4,
    "period": 4,
    "learning_starts": 60,
    "batch_size": 8,
    "train_every": 8,
    "buffer_size": 500,
    "target_update_interval": 40,
}


def make(name, **arguments):
    agent = getattr(kerasrl, name)(**{**SMALL, "seed": 3, **arguments})
    agent.compile(jit_compile=False)
    return agent


def test_a_team_sees_who_is_asked_and_what_is_legal():
    env = TeamEnv(TicTacToe())
    seen, _ = env.reset(seed=0)
    assert env.observation_space.contains(seen)
    assert seen["acts"].tolist() == [1.0, 0.0]
    assert seen["action_mask"].reshape(2, 9).sum(axis=1).tolist() == [9, 1]
    seen, reward, *_ = env.step(np.array([4, 0]))
    assert seen["acts"].tolist() == [0.0, 1.0] and reward == 0.0
    mask = seen["action_mask"].reshape(2, 9)
    assert mask[0].tolist() == [1] + [0] * 8 and mask[1, 4] == 0
    assert mask[1].sum() == 8


def test_a_team_has_members_that_die_and_are_born():
    env = TeamEnv(Pursuit(hunters=1, size=2), reward="mean")
    seen, _ = env.reset(seed=0)
    assert env.action_space.nvec.tolist() == [5] * 4
    counts, rng, ended = set(), np.random.default_rng(0), False
    while not ended:
        assert (seen["observations"][seen["acts"] == 0] == 0).all() or counts
        counts.add(tuple(seen["acts"]))
        seen, reward, terminated, truncated, infos = env.step(rng.integers(5, size=4))
        assert reward == pytest.approx(np.mean(list(infos["rewards"].values())))
        ended = terminated or truncated
    assert len(counts) > 1


class Sparse(MultiAgentEnv):
    """Pays one of two agents, and is cut off after some steps."""

    possible_agents = ["a", "b"]
    observation_spaces = dict.fromkeys(possible_agents, spaces.Box(0.0, 9.0, (1,)))
    action_spaces = dict.fromkeys(possible_agents, spaces.Discrete(2))

    def __init__(self, length=2):
        self.length = length

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return self._seen(), {}

    def step(self, actions):
        self.steps += 1
        is_late = self.steps == self.length
        return self._seen(), {"a": 3.0}, {}, {"__all__": is_late}, {}

    def _seen(self):
        return dict.fromkeys(self.possible_agents, np.ones(1, np.float32))


def test_a_time_limit_is_no_termination():
    """What it cuts off has the value of the last observation, of all that it cut."""
    env = TeamEnv(Sparse(1))
    env.reset()
    last, reward, terminated, truncated, _ = env.step(np.array([1, 0]))
    assert truncated and not terminated and reward == 3.0
    assert last["acts"].tolist() == [1.0, 1.0] and last["action_mask"].all()
    agent = make("VDN", gamma=0.5, double=False)
    agent.build(env.observation_space, env.action_space)
    policy, inputs = agent.policy, agent.policy.example_inputs(1)
    inputs["observations"] = {name: value[None] for name, value in last.items()}
    output = policy.call(inputs, policy.get_initial_state(1))["distribution"]
    best = np.array(policy.by_agent(output))[0].max(axis=-1)
    assert (best != 0).all()
    # The last step of a sequence, and what it led to.
    no, pair = np.zeros((1, 2), bool), np.repeat(np.array(output), 2, axis=0)[None]
    batch = {
        "observations": {"state": np.repeat(last["state"][None, None], 2, axis=1)},
        "target_outputs": {"distribution": pair},
        "actions": np.zeros((1, 2, 2), int),
        "rewards": np.array([[reward, 0.0]], "float32"),
        "terminated": no,
        "truncated": np.array([[True, False]]),
        "valid": np.array([[True, False]]),
        "weights": np.ones((1, 1), "float32"),
    }
    _, logs = teams.loss(agent, batch, {"distribution": np.zeros_like(pair)}, {})
    assert float(logs["td_errors"][0]) == pytest.approx(
        reward + 0.5 * best.sum(), rel=1e-5
    )


def test_means_of_rewards_are_over_all_that_live():
    env = TeamEnv(Sparse(), reward="mean")
    env.reset()
    assert env.step(np.array([1, 0]))[1] == 1.5
    envs, policy = MultiEnvironments(Sparse()), RandomPolicy()
    policy.setup(envs.observation_spaces["a"], envs.action_spaces["a"])
    actor = ScriptedActor(policy, np.random.default_rng(0))
    own = policy.observation_space, policy.action_space
    player = Player(Seats(actor, *own, 1, lambda row: None, "test"))
    arena = Arena(envs, lambda *_: "p", lambda *_: player, "mean", [[0], [0]])
    arena.start()
    arena.step()
    assert player.seats.rewards.tolist() == [1.5, 1.5]


def test_sizes_of_members_may_differ():
    env = TeamEnv(lambda: MatrixGame([[1, 2, 3], [4, 5, 6]]))
    seen, _ = env.reset()
    assert seen["action_mask"].tolist() == [1, 1, 0, 1, 1, 1]
    assert env.step(np.array([1, 2]))[1] == 6.0


def test_the_network_goes_through_sequences_as_step_by_step():
    env = TeamEnv(Pursuit())
    network = TeamNetwork(hidden_units=4, mixer="monotonic", hypernet_units=3, seed=1)
    network.build_for(env.observation_space, env.action_space)
    rng, steps = np.random.default_rng(0), []
    for _ in range(5):
        inputs = network.sample_inputs(3, rng)
        inputs["observations"]["acts"] = rng.integers(2, size=(3, 5)).astype("float32")
        steps.append(inputs)
    import keras

    rows = keras.tree.map_structure(lambda *x: np.stack(x), *steps)
    starts = rng.random((5, 3)) < 0.4
    first = network.get_initial_state(3) + 1.0
    unrolled = network.unroll(rows, first, starts)
    state, expected = np.array(first), []
    for step, start in zip(steps, starts, strict=True):
        state = np.where(start[:, None], 0.0, state)
        outputs = network.call(step, state)
        state = np.array(outputs["state"])
        expected.append(np.array(outputs["distribution"]))
    found = np.array(unrolled["distribution"])
    assert np.allclose(found, expected, atol=1e-5)
    assert np.allclose(unrolled["state"], state, atol=1e-5)
    # Who is not asked has a constant value, and the others differ.
    values, acts = network.by_agent(found), rows["observations"]["acts"]
    assert (np.array(values)[acts == 0] == 0).all()
    assert np.ptp(np.array(values)[acts == 1]) > 0
    taken = rng.normal(size=(5, 3, 5)).astype("float32")
    team = network.mix(taken, rows["observations"]["state"])
    assert team.shape == (5, 3)


@pytest.mark.parametrize("name", among(["VDN", "QMIX"], ["QMIX"]))
def test_training_goes_on_exactly(name, tmp_path):
    agent = make(name)
    agent.fit("tic_tac_toe", steps=200, num_envs=2, verbose=0)
    path = agent.save(tmp_path / "team.kerasrl")
    loaded = kerasrl.load(path)
    for each in (agent, loaded):
        each.fit("tic_tac_toe", steps=100, num_envs=2, verbose=0)
    assert agent.updates > 0
    for left, right in zip(agent.get_weights(), loaded.get_weights(), strict=True):
        assert np.array_equal(left, right) and np.isfinite(left).all()
    result = agent.evaluate("tic_tac_toe", episodes=4, seed=0, verbose=0)
    assert result["return_mean"] == 0.0  # Nobody moved illegally.


def test_acting_does_not_read_the_state():
    agent = make("QMIX")
    env = TeamEnv("two_step")
    agent.build(env.observation_space, env.action_space)
    actor = agent.actor(deterministic=True)
    assert actor.program is not None
    read = {id(w) for w in agent.policy.trainable_variables}
    assert len(actor.program.weights) == 7 < len(read)
    seen = agent.policy.example_inputs(1)["observations"]
    seen["action_mask"] += 1
    other = {**seen, "state": seen["state"] + 5.0}
    left, right = (agent.predict(each)[0] for each in (seen, other))
    assert np.array_equal(left, right)


def test_other_environments_are_refused():
    with pytest.raises(TypeError, match="several agents"):
        make("VDN").build(*_cartpole())
    with pytest.raises(ValueError, match="Discrete actions"):
        TeamEnv("multi_agent_pendulum")
    agent, env = make("VDN"), Sparse()
    agent.fitted_env = env
    with pytest.raises(ValueError, match="very environment"):
        agent.evaluate(env)


def _cartpole():
    import gymnasium

    env = gymnasium.make("CartPole-v1")
    return env.observation_space, env.action_space


@pytest.mark.slow
@pytest.mark.parametrize(("name", "best"), [("VDN", 7.0), ("QMIX", 8.0)])
def test_the_two_step_game_is_learnt_as_far_as_can_be_said(name, best):
    agent = make(
        name,
        policy=None,
        exploration=1.0,
        learning_starts=200,
        batch_size=32,
        train_every=16,
        target_update_interval=400,
        buffer_size=20_000,
    )
    agent.compile(kerasrl.optimizers.Adam(1e-3))
    agent.fit("two_step", steps=16_000, verbose=0)
    assert agent.evaluate("two_step", seed=0, verbose=0)["return_mean"] == best
