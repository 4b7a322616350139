"""Several policies in one environment, as one agent."""

import keras
import numpy as np
import pytest
import tiny
from daily import among

import kerasrl
from kerasrl.multi_agent import (
    MultiAgent,
    RandomPolicy,
    RockPaperScissors,
    TicTacToe,
    make_multi_agent,
)
from kerasrl.multi_agent.env import MultiEnvironments
from kerasrl.multi_agent.source import MultiAgentSource

PAIR = make_multi_agent("CartPole-v1", 2)
_BY_NAME = {"agent_0": "one", "agent_1": "two"}


@keras.saving.register_keras_serializable("tests")
class Rock(kerasrl.ScriptedPolicy):
    """Always plays rock."""

    def compute_actions(self, observations, state):
        return np.zeros(len(observations), int), state, {}

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def weights_of(agent):
    return {
        name: [w.copy() for w in member.get_weights()]
        for name, member in agent.learners.items()
    }


def equal(left, right):
    return all(np.array_equal(*pair) for pair in zip(left, right, strict=True))


def test_two_algorithms_learn_in_one_environment():
    agent = MultiAgent(
        {"one": tiny.make("PPO"), "two": tiny.make("DQN")}, mapping=_BY_NAME, seed=1
    )
    history = agent.fit(PAIR, steps=600, num_envs=2, verbose=0).history
    for name in ("loss_one", "loss_two", "entropy_one", "td_error_two", "loss"):
        assert np.isfinite(history[name][-1]), name
    assert history["env_steps"][-1] == agent.env_steps >= 600
    assert agent.agent_steps > agent.env_steps
    assert history["agent_steps"][-1] == agent.agent_steps
    assert agent.agents["one"].env_steps > 0 and agent.agents["two"].updates > 0
    assert history["policy_return_one_mean"][-1] > 0
    before = weights_of(agent)

    # Who does not train is not recorded, and keeps every bit.
    agent.train = ["one"]
    made = []
    agent.agents["two"].learn_from = made.append
    agent.fit(PAIR, steps=200, num_envs=2, verbose=0)
    after = weights_of(agent)
    assert equal(before["two"], after["two"]) and not made
    assert not equal(before["one"], after["one"])

    result = agent.evaluate(PAIR, episodes=3, seed=0, verbose=0)
    assert result["episodes"] == 3 and result["return_mean"] == pytest.approx(
        result["return_mean_one"] + result["return_mean_two"]
    )
    assert result == agent.evaluate(PAIR, episodes=3, seed=0, verbose=0)
    actions = agent.predict({"agent_1": np.zeros((4, 4), np.float32)})
    assert actions["agent_1"].shape == (4,)


def make_players():
    return MultiAgent(
        {
            "memory": tiny.make("PPO_recurrent"),
            "replay": tiny.make("SAC_discrete"),
            "random": RandomPolicy(),
        },
        mapping=draw_policy,
        seed=3,
    )


@keras.saving.register_keras_serializable("tests")
def draw_policy(agent, episode):
    """Any of the policies for any side."""
    return ["memory", "replay", "random"][episode.rng.integers(3)]


def test_training_goes_on_exactly_with_masks_memory_and_rules(tmp_path):
    agent = make_players()
    agent.fit("tic_tac_toe", steps=400, num_envs=3, verbose=0)
    path = agent.save(tmp_path / "players.kerasrl")
    loaded = kerasrl.load(path)
    assert type(loaded) is MultiAgent and list(loaded.agents) == list(agent.agents)
    assert loaded.get_state() == agent.get_state()
    for each in (agent, loaded):
        each.fit("tic_tac_toe", steps=300, num_envs=3, verbose=0)
    for name, arrays in weights_of(agent).items():
        assert all(np.isfinite(array).all() for array in arrays)
        assert equal(arrays, weights_of(loaded)[name])
    assert loaded.get_state() == agent.get_state()
    assert agent.agents["replay"].updates > 0
    # Nobody chose a square that was taken: that would have cost the mover alone.
    scores = agent.statistics.logs()
    assert scores["episode_return_min"] == scores["episode_return_max"] == 0.0


@pytest.mark.parametrize(
    "name", among(["R2D2", "TD3", "DDPG", "SimpleQ", "SAC_recurrent"], ["R2D2"])
)
def test_others_learn_from_whole_episodes(name):
    """Sequences of agents that are not asked at once, and continuous actions."""
    agent = MultiAgent({"main": tiny.make(name)}, reward="mean", seed=0)
    env, config = "tic_tac_toe", None
    if name in tiny.CONTINUOUS:
        env, config = "multi_agent_pendulum", {"max_steps": 20}
    agent.fit(env, steps=250, num_envs=2, env_config=config, verbose=0)
    assert agent.agents["main"].updates > 0
    assert all(np.isfinite(array).all() for array in agent.get_weights())


def test_mapping_is_asked_once_for_each_agent_and_episode():
    asked = []

    def mapping(agent, episode):
        asked.append((episode.env_index, episode.index, agent))
        return "main"

    agent = MultiAgent({"main": tiny.make("A2C")}, mapping=mapping)
    agent.fit("pursuit", steps=300, num_envs=2, verbose=0)
    assert len(set(asked)) == len(asked) > 8
    assert {agent for _, _, agent in asked} > {"hunter_0", "prey_0", "prey_1"}


def test_a_policy_learns_to_beat_a_rule():
    agent = MultiAgent(
        {
            "main": tiny.make("PPO", policy={"normalize_observations": False}),
            "rock": Rock(),
        },
        mapping={"player_0": "main", "player_1": "rock"},
        seed=0,
    )
    agent.fit(RockPaperScissors, steps=6_000, num_envs=8, verbose=0)
    result = agent.evaluate(RockPaperScissors, episodes=8, seed=0, verbose=0)
    assert result["return_mean_main"] == 10.0
    assert result["return_mean_rock"] == -10.0
    assert result["return_mean"] == 0.0


def test_shared_rewards_are_sums_and_means():
    from kerasrl.multi_agent import TwoStep

    totals = {}
    for reward in ("own", "sum", "mean"):
        agent = MultiAgent({"main": tiny.make("PG")}, reward=reward, seed=0)
        seen = []
        learn = agent.agents["main"].learn_from
        agent.agents["main"].learn_from = lambda r, seen=seen, learn=learn: (
            seen.append(r.rewards.sum()) or learn(r)
        )
        agent.fit(TwoStep, steps=32, num_envs=2, verbose=0)
        totals[reward] = sum(seen)
    assert totals["sum"] == 2 * totals["own"] and totals["mean"] == totals["own"] > 0


def make_source(agent, env="tic_tac_toe"):
    envs = MultiEnvironments(env, 1)
    agent.build(envs.observation_space, envs.action_space)
    source = MultiAgentSource(agent, envs)
    source.start()
    return source


def test_training_that_is_switched_off_and_on_joins_nothing():
    agent = MultiAgent({"main": tiny.make("R2D2", period=2)}, seed=0)
    source, member = make_source(agent), agent.agents["main"]
    first = source.collect().rollouts["main"]
    # It would go on.
    assert not (first[-1].terminated | first[-1].truncated)[-1].any()
    agent.train = []
    source.collect()
    agent.train = None
    for rollout in [*first, *source.collect().rollouts["main"]]:
        member.buffer.add(rollout)


def test_who_moves_second_is_recorded_from_its_first_move():
    agent = MultiAgent(
        {n: tiny.make("PG", rollout_length=2) for n in ("x", "o")}, seed=0
    )
    source = make_source(agent)
    assert set(source.collect().rollouts) == {"x", "o"}
    assert source.play.table.players["o"].record.pending == 1


def test_predictions_take_what_was_done_before():
    agent = MultiAgent({"main": tiny.make("PPO_recurrent")}, seed=0)
    envs = MultiEnvironments("two_step", 1)
    agent.build(envs.observation_space, envs.action_space)
    seen, done, paid = np.ones((2, 3), np.float32), np.array([1, 0]), np.array([3.0, 1])
    _, states = agent.predict(
        {"agent_1": seen},
        previous_actions={"agent_1": done},
        previous_rewards={"agent_1": paid},
    )
    member = agent.agents["main"]
    _, expected = member.predict(seen, previous_actions=done, previous_rewards=paid)
    _, other = member.predict(seen)
    left, right, wrong = map(keras.tree.flatten, (states["agent_1"], expected, other))
    assert equal(left, right) and not equal(left, wrong)
    with pytest.raises(ValueError, match="previous_actions=array"):
        agent.predict({"agent_1": seen}, previous_actions=done)


def test_all_weights_at_once_are_those_of_targets_too():
    agent = MultiAgent({"main": tiny.make("DQN")}, seed=0)
    envs = MultiEnvironments("two_step", 1)
    agent.build(envs.observation_space, envs.action_space)
    told = []
    for observer in agent.agents["main"].policy.observers:
        observer.weights_were_set = lambda: told.append(1)
    agent.policy.set_weights(agent.policy.get_weights())
    assert told


def test_random_policies_are_uniform_over_what_is_legal():
    policy = RandomPolicy()
    policy.setup(TicTacToe.observation_spaces["x"], TicTacToe.action_spaces["x"])
    policy.rng = np.random.default_rng(0)
    mask = np.zeros((3000, 9), np.int8)
    mask[:, [1, 4, 8]] = 1
    actions, _, _ = policy.compute_actions({"action_mask": mask}, ())
    assert set(actions) == {1, 4, 8}
    assert np.allclose(np.bincount(actions)[[1, 4, 8]] / 3000, 1 / 3, atol=0.04)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: MultiAgent({}), TypeError, "dict from ids"),
        (lambda: MultiAgent({"a": 3}), TypeError, "Expected a kerasrl.Agent"),
        (lambda: MultiAgent({"a": kerasrl.ES()}), TypeError, "step by step"),
        (lambda: MultiAgent({"a": kerasrl.IMPALA()}), TypeError, "workers of its own"),
        (lambda: MultiAgent({"a": kerasrl.PG()}, train=["b"]), ValueError, "'b'"),
        (lambda: MultiAgent({"a": kerasrl.PG()}, train="a"), TypeError, "a list"),
        (lambda: MultiAgent({"a": kerasrl.PG()}, reward="all"), ValueError, "reward"),
        (
            lambda: MultiAgent({"a": kerasrl.PG()}).fit(PAIR, steps=9, env_timeout=2.0),
            ValueError,
            "env_timeout=2.0",
        ),
        (
            lambda: MultiAgent({"a": kerasrl.PG()}).fit(PAIR, steps=9, output="x"),
            ValueError,
            "output or offline",
        ),
        (
            lambda: MultiAgent({"a": kerasrl.PG(), "b": kerasrl.PG()}).fit(PAIR, 9),
            ValueError,
            "for the agent 'agent_0'",
        ),
        (
            lambda: MultiAgent({"a": RandomPolicy()}).fit(PAIR, steps=9),
            ValueError,
            "no agent that learns",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, error, match):
    with pytest.raises(error, match=match):
        make()


def test_agents_of_other_spaces_need_other_policies():
    agent = MultiAgent(
        {"main": tiny.make("PG"), "pole": tiny.make("PG")}, lambda a, e: "main"
    )
    from kerasrl.multi_agent import MatrixGame

    with pytest.raises(ValueError, match="different policies"):
        agent.fit(lambda: MatrixGame([[1, 2, 3], [4, 5, 6]]), steps=20, verbose=0)


def test_code_that_no_file_can_hold_is_refused_before_training(tmp_path):
    agent = MultiAgent({"main": kerasrl.PG()}, mapping=lambda a, e: "main")
    checkpoint = kerasrl.callbacks.AgentCheckpoint(tmp_path)
    with pytest.raises(ValueError, match="not registered"):
        agent.fit(PAIR, steps=20, callbacks=[checkpoint], verbose=0)
