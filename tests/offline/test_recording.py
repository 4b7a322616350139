"""What `fit` and `evaluate` write is what was collected."""

import gymnasium
import numpy as np
import optree
import pytest
import tiny
from daily import among
from playground import Playground
from recorded import as_tree

import kerasrl
from kerasrl import offline
from kerasrl.envs.actions import ActionConverter
from kerasrl.offline.recording import RolloutEpisodes
from kerasrl.offline.table import leaves_of


class Rollouts(kerasrl.callbacks.Callback):
    """Keeps what was collected."""

    def __init__(self):
        super().__init__()
        self.rollouts = []

    def on_rollout_end(self, rollout):
        self.rollouts.append(rollout)


def tiny_ppo(**arguments):
    policy = {"hidden_units": (4,)}
    agent = kerasrl.PPO(
        policy=policy, rollout_length=16, num_epochs=1, seed=3, **arguments
    )
    agent.compile(jit_compile=False)
    return agent


def steps_of(rollouts, space):
    """All steps of each environment in turn, as a list of leaves `[T]`."""
    converter = ActionConverter(space)
    found = []
    for env in range(rollouts[0].rewards.shape[1]):
        for rollout in rollouts:
            rows = rollout[:, env]
            parts = (
                as_tree(rows.observations),
                as_tree(converter.batch(rows.actions)),
                rows.rewards.astype(np.float64),
                as_tree(rows.extras.get("distribution", np.zeros(16))),
            )
            found.append([leaf for part in parts for leaf in leaves_of(part)])
    return [np.concatenate(x) for x in zip(*found, strict=True)]


@pytest.mark.parametrize(
    ("kind", "num_workers"),
    [
        ("integers", 0),
        ("nested", 2),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in (("box", 0), ("image", 2), ("nested", 0))
        ),
    ],
)
def test_what_is_written_is_what_was_collected(kind, num_workers, tmp_path):
    agent, kept = tiny_ppo(), Rollouts()
    agent.fit(
        Playground,
        steps=96,
        num_envs=2,
        env_config={"kind": kind},
        num_workers=num_workers,
        info_keys=["noise", "word"],
        callbacks=[kept],
        output=tmp_path,
        verbose=0,
    )
    data = offline.load(tmp_path)
    assert data.num_steps == 96
    assert data.metadata["algorithm"] == "PPO"
    ended = sum(r.terminated.sum() + r.truncated.sum() for r in kept.rollouts)
    assert sum(x.has_ended for x in data.episodes) == ended > 4
    expected = steps_of(kept.rollouts, agent.policy.action_space)
    # The steps of each are in the order of its rewards, which are all different.
    rewards = expected[-2]
    found = [
        [
            *leaves_of(as_tree(_all_but_last(x.observations))),
            *leaves_of(as_tree(x.actions)),
            x.rewards,
            *leaves_of(as_tree(x.extras["distribution"])),
        ]
        for x in data.episodes
    ]
    found = [np.concatenate(x) for x in zip(*found, strict=True)]
    orders = np.argsort(found[-2]), np.argsort(rewards)
    for x, y in zip(found, expected, strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x[orders[0]], y[orders[1]])
    for episode in data.episodes:
        assert episode.extras["infos"].keys() == {"noise"}
        assert episode.extras["infos"]["noise"].shape == (episode.length,)
        if kind in ("box", "integers", "nested"):
            assert "emitted_actions" in episode.extras


def _all_but_last(tree):
    return optree.tree_map(lambda leaf: leaf[:-1], tree)


def test_what_followed_the_last_step_is_written(tmp_path):
    agent, kept = tiny_ppo(), Rollouts()
    agent.fit(
        *("CartPole-v1", 128), num_envs=2, callbacks=[kept], output=tmp_path, verbose=0
    )
    for episode in offline.load(tmp_path).episodes:
        seen = episode.observations
        # x moves by 0.02 of its speed in each step: rows follow each other.
        np.testing.assert_allclose(
            seen[1:, 0], seen[:-1, 0] + 0.02 * seen[:-1, 1], 1e-4
        )
        is_over = abs(seen[-1, 2]) > 12 * np.pi / 180
        assert is_over == episode.terminated


@pytest.mark.parametrize(
    "name", among(["PPO", "A2C", "DQN", "SAC", "SAC_discrete"], ["PPO", "DQN", "SAC"])
)
def test_recording_changes_nothing_and_knows_how_probable_actions_were(name, tmp_path):
    weights = []
    for output in (None, tmp_path):
        agent = tiny.make(name)
        env = tiny.hostile_env(name)
        agent.fit(env, steps=160, num_envs=2, output=output, verbose=0)
        weights.append([np.array(x) for x in agent.get_weights()])
    for x, y in zip(*weights, strict=True):
        np.testing.assert_array_equal(x, y)
    data = offline.load(tmp_path)
    log_probs = np.concatenate([x.extras["log_probs"] for x in data.episodes])
    assert log_probs.shape == (data.num_steps,) and np.isfinite(log_probs).all()
    if name in ("DQN", "SAC_discrete"):
        # Random until learning starts, by choices that are as probable.
        assert (log_probs <= 1e-6).all()
        first = data.episodes[0].extras["log_probs"]
        np.testing.assert_allclose(first, -np.log(agent.policy.action_space.n), 1e-5)
    if name == "PPO":
        episode = data.episodes[0]
        parameters = episode.extras["distribution"]
        actions = episode.actions - agent.policy.action_space.start
        distribution = agent.policy.distribution({"distribution": parameters})
        expected = np.array(distribution.log_prob(actions))
        np.testing.assert_allclose(episode.extras["log_probs"], expected, 1e-4, 1e-5)


def test_epsilon_greedy_is_as_probable_as_it_is_drawn(tmp_path):
    agent = tiny.make("DQN", exploration=0.4, learning_starts=0, updates_per_call=1)
    agent.fit("CartPole-v1", steps=40, output=tmp_path, verbose=0, num_envs=1)
    log_probs = offline.load(tmp_path).episodes[0].extras["log_probs"]
    assert set(np.round(np.exp(log_probs), 5)) <= {np.float32(0.2), np.float32(0.8)}


def test_evaluations_are_written_and_are_the_episodes_that_count(tmp_path):
    agent = tiny_ppo()
    arguments = {"episodes": 5, "seed": 1, "num_envs": 2, "verbose": 0}
    expected = agent.evaluate("CartPole-v1", **arguments)
    result = agent.evaluate("CartPole-v1", output=tmp_path / "greedy", **arguments)
    assert result == expected
    data = offline.load(tmp_path / "greedy")
    returns = [x.episode_return for x in data.episodes]
    assert len(returns) == 5 and np.mean(returns) == result["return_mean"]
    assert all(x.has_ended for x in data.episodes)
    assert not any(x.extras["log_probs"].any() for x in data.episodes)
    agent.evaluate(
        "CartPole-v1", output=tmp_path / "drawn", deterministic=False, **arguments
    )
    drawn = offline.load(tmp_path / "drawn").episodes[0].extras["log_probs"]
    assert (drawn < 0).all()
    # Nothing is recorded where nobody asked for it.
    assert not agent.records_log_probs


def test_what_noise_of_layers_chose_has_no_probability(tmp_path):
    agent = tiny.make("Rainbow", learning_starts=0)
    agent.fit("CartPole-v1", steps=40, output=tmp_path, verbose=0, num_envs=1)
    assert "log_probs" not in offline.load(tmp_path).extras


class Moving(gymnasium.Env):
    """Writes into the actions that it is given."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        action[:] = 0.0
        return np.zeros(1, np.float32), 0.0, True, False, {}


def test_actions_are_written_as_they_were_given(tmp_path):
    env = offline.RecordEpisodes(Moving(), tmp_path)
    env.reset()
    env.step(np.full(1, 0.5, np.float32))
    env.close()
    assert offline.load(tmp_path).episodes[0].actions.tolist() == [[0.5]]


def test_infos_that_come_late_are_nan_before():
    rollouts = Rollouts()
    tiny_ppo().fit(
        *("CartPole-v1", 32), num_envs=1, callbacks=[rollouts], info_keys=["x"],
        verbose=0,
    )  # fmt: skip
    first, second = rollouts.rollouts
    env = gymnasium.make("CartPole-v1")
    episodes = RolloutEpisodes(env.observation_space, env.action_space)
    for rollout in (first, second):
        rollout.terminated[:], rollout.truncated[:] = False, False
        rollout.episode_starts[:] = False
    first.infos.clear()
    second.infos = {"x": np.ones((16, 1))}
    assert episodes.add(first) + episodes.add(second) == []
    (episode,) = episodes.unfinished()
    told = episode.extras["infos"]["x"]
    assert np.isnan(told[:16]).all() and (told[16:] == 1.0).all()


def test_who_makes_no_rollouts_writes_none(tmp_path, monkeypatch):
    agent = kerasrl.ES(num_pairs=2, seed=0)
    with monkeypatch.context() as patch:
        # Nor starts any worker.
        patch.setattr(kerasrl.ES, "make_environments", None)
        with pytest.raises(TypeError, match=r"evaluate\(env, output=...\)"):
            agent.fit("CartPole-v1", 100, output=tmp_path, verbose=0)
    agent = tiny_ppo()
    agent.fit("CartPole-v1", 64, num_envs=1, output=tmp_path, verbose=0)
    rollouts = list(offline.load(tmp_path).rollouts(16))
    with pytest.raises(ValueError, match="output"):
        agent.fit(rollouts, output=tmp_path)
