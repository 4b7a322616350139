"""Estimates of agents: fitted Q evaluation with a known answer, and what is refused."""

import numpy as np
import pytest
from gymnasium import spaces

import kerasrl
from kerasrl import estimates, offline
from kerasrl.estimates import estimators, judging
from kerasrl.training import behavior

GAMMA = 0.9
STATES, ACTIONS = spaces.Discrete(2), spaces.Discrete(2)
#: From state and action to reward and next state, `None` at the end.
STEPS = {(0, 0): (0.0, 1), (0, 1): (1.0, None), (1, 0): (2.0, None), (1, 1): (0.0, 0)}
#: What the policy that is judged does: probability of action 0 in each state.
FIRST = (0.5, 0.8)
VALUES = (1.32752992, 1.83895539)
Q_VALUES = {(0, 0): 1.65505985, (0, 1): 1.0, (1, 0): 2.0, (1, 1): 1.19477693}


@pytest.fixture(scope="module")
def agent():
    """A policy whose probabilities are `FIRST`."""
    agent = kerasrl.PG(policy={"hidden_units": ()}, seed=0)
    agent.build(STATES, ACTIONS)
    logits = np.log([[p, 1.0 - p] for p in FIRST]).astype(np.float32)
    head = agent.policy.action_head
    head.set_weights([logits, np.zeros(2, np.float32)])
    return agent


def play(num_episodes, first=0.5):
    """Episodes of a policy that takes action 0 with one probability everywhere."""
    generator, episodes = np.random.default_rng(0), []
    for _ in range(num_episodes):
        seen, taken, rewards = [0], [], []
        while seen[-1] is not None:
            taken.append(int(generator.random() >= first))
            reward, state = STEPS[seen[-1], taken[-1]]
            seen.append(state)
            rewards.append(reward)
        log_probs = np.log([first if action == 0 else 1 - first for action in taken])
        episodes.append(
            offline.Episode(
                np.array([*seen[:-1], 0]),
                np.array(taken),
                np.array(rewards),
                terminated=True,
                extras={"log_probs": log_probs},
            )
        )
    return offline.from_episodes(episodes, STATES, ACTIONS)


def test_fitted_q_evaluation_finds_the_exact_answer(agent):
    fitted = judging.fit_q(agent, play(400), GAMMA, 6_000, (), seed=0)
    for (state, action), expected in Q_VALUES.items():
        found = fitted.q_values(np.array([state]), np.array([action]))
        np.testing.assert_allclose(found, [expected], atol=0.03)


def test_all_estimates_hold_the_exact_answer(agent):
    found = estimates.estimate(agent, play(2_000), gamma=GAMMA, fqe_steps=3_000)
    for method in ("is", "wis", "pdis", "dm", "dr", "wdr", "fqe"):
        np.testing.assert_allclose(found[method]["mean"], VALUES[0], atol=0.1)
        assert found[method]["low"] <= found[method]["mean"] <= found[method]["high"]
    assert found["dm"] == found["fqe"]
    assert 500 < found["effective_sample_size"] < 2_000
    assert found["episodes"] == 2_000


def test_ratios_are_of_the_probabilities_of_both(agent):
    dataset = play(5, first=0.25)
    for episode, seen in zip(
        dataset.episodes, judging.look(agent, dataset), strict=True
    ):
        expected = [
            FIRST[state] if action == 0 else 1.0 - FIRST[state]
            for state, action in zip(
                episode.observations[:-1], episode.actions, strict=True
            )
        ]
        np.testing.assert_allclose(np.exp(seen["log_probs"]), expected, rtol=1e-5)


def test_densities_are_of_actions_in_their_own_units():
    """What a policy draws is as dense as how often it does: over all, 1."""
    space = spaces.Box(np.float32([-1.0]), np.float32([5.0]))
    agent = kerasrl.SAC(policy={"hidden_units": (4,)}, seed=0)
    agent.build(STATES, space)
    grid = np.linspace(-0.99, 4.99, 600, dtype=np.float32)[:, None]
    episode = offline.Episode(np.zeros(601, int), grid, np.zeros(600))
    (seen,) = judging.look(agent, offline.from_episodes([episode], STATES, space))
    total = np.trapezoid(np.exp(seen["log_probs"]), grid[:, 0])
    np.testing.assert_allclose(total, 1.0, atol=0.05)


def test_actions_at_the_bounds_are_as_dense_as_who_took_them_says():
    """Of the same policy every ratio is 1, also where tanh rounds to a bound."""
    space = spaces.Box(-2.0, 2.0, (1,), np.float32)
    agent = kerasrl.SAC(policy={"hidden_units": (4,)}, seed=0)
    agent.build(STATES, space)
    actions = np.float32([[-2.0], [1.9999], [2.0], [0.5]])
    inputs = agent.policy.example_inputs(4)
    inputs = {**inputs, "state": (), "random": np.zeros(4, np.float32)}
    acted = behavior.log_probs(agent, inputs, agent.policy(inputs), actions)
    episode = offline.Episode(np.zeros(5, int), actions, np.zeros(4))
    (seen,) = judging.look(agent, offline.from_episodes([episode], STATES, space))
    expected = np.array(acted["behavior_log_probs"])
    np.testing.assert_allclose(seen["log_probs"], expected, rtol=1e-5)


def test_greedy_policies_take_the_best():
    agent = kerasrl.DQN(policy={"hidden_units": (4,)}, seed=0)
    agent.build(STATES, ACTIONS)
    dataset = play(5)
    best = [agent.predict(np.array([state]))[0] for state in (0, 1)]
    for episode, seen in zip(
        dataset.episodes, judging.look(agent, dataset), strict=True
    ):
        expected = [
            float(action == best[state])
            for state, action in zip(
                episode.observations[:-1], episode.actions, strict=True
            )
        ]
        np.testing.assert_array_equal(np.exp(seen["log_probs"]), expected)


def test_what_cannot_be_estimated_is_refused(agent):
    silent = offline.from_episodes(
        [
            offline.Episode(e.observations, e.actions, e.rewards, True)
            for e in play(3).episodes
        ],
        STATES,
        ACTIONS,
    )
    with pytest.raises(ValueError, match="log_probs"):
        estimates.estimate(agent, silent, methods=["wis"])
    with pytest.raises(ValueError, match="methods"):
        estimates.estimate(agent, silent, methods=["guess"])
    with pytest.raises(ValueError, match="log_probs"):
        estimates.estimate(agent, silent, methods="wis")
    for confidence in (0.0, 1.0, 95):
        with pytest.raises(ValueError, match="confidence"):
            estimates.estimate(agent, silent, "fqe", confidence=confidence)
    with pytest.raises(ValueError, match="methods"):
        estimates.OffPolicyEstimation(silent, methods="guess")
    with pytest.raises(ValueError, match="no weights"):
        estimates.estimate(kerasrl.PG(), silent, methods=["fqe"])
    memory = kerasrl.PG(policy={"cell": "gru", "hidden_units": (4,)})
    memory.build(STATES, ACTIONS)
    with pytest.raises(ValueError, match="memory"):
        estimates.estimate(memory, silent, methods=["fqe"])
    assert estimators.effective_sample_size(np.zeros((2, 1))) == 0.0


def test_estimates_while_training_are_logged_where_they_are_due():
    train, test = play(20), play(10)
    agent = kerasrl.BC(policy={"hidden_units": (4,)}, updates_per_call=2, seed=0)
    agent.compile(jit_compile=False)
    estimation = estimates.OffPolicyEstimation(
        test, methods=["wis"], every_epochs=2, num_samples=10
    )
    history = agent.fit(
        train, steps=8, steps_per_epoch=2, callbacks=[estimation], verbose=0
    ).history
    assert agent.env_steps == 0
    for name in (
        "estimated_return_wis",
        "estimated_return_wis_low",
        "effective_sample_size",
    ):
        assert np.isfinite(history[name]).tolist() == [False, True, False, True]
    with pytest.raises(ValueError, match="every_epochs"):
        estimates.OffPolicyEstimation(test, every_epochs=0)
