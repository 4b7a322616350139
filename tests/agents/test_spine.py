"""What every agent keeps to: seeds, exact resume, one trace a run, bad input."""

import daily
import gymnasium
import keras
import numpy as np
import pytest
import tiny

import kerasrl
from kerasrl import testing

#: One agent for each kind of update, replay and memory, for every day. The others are
#: made of the same parts: `make test-slow` has them all.
CENTRAL = ["PPO", "R2D2", "SAC"]

#: Those whose updates XLA compiles every day. Loops over time take long: one of them.
COMPILED = ["IMPALA", "Rainbow", "SAC"]


def assert_same_weights(first, second):
    pairs = zip(variables(first), variables(second), strict=True)
    for (name, a), (_, b) in pairs:
        np.testing.assert_array_equal(a, b, err_msg=name)


def variables(agent):
    """Everything that moves: weights, generators of layers, own, optimizer."""
    every = agent.policy.variables + agent.own_variables
    return [(v.path, v.numpy()) for v in every + agent.policy.optimizer.variables]


def steps_for(name):
    return 400 if name in tiny.ON_POLICY else 200


@pytest.mark.parametrize("name", daily.among(tiny.AGENTS, ["DQN"]))
def test_another_seed_gives_other_weights(name):
    """Also where the first weights are the same: what is drawn later differs."""
    agents = [tiny.make(name, seed, policy={"seed": 0}) for seed in (3, 4)]
    for agent in agents:
        agent.fit(tiny.env_of(name), steps=200, num_envs=2, verbose=0)
        assert agent.iterations > 2
    pairs = zip(*(agent.get_weights() for agent in agents), strict=True)
    assert any(not np.array_equal(a, b) for a, b in pairs)


# In one test, because what takes long is to trace the update of each agent.
@pytest.mark.xla
@pytest.mark.parametrize("name", daily.among(tiny.AGENTS, CENTRAL))
def test_same_seed_same_weights_whatever_is_done_in_between(name, tmp_path):
    """Saving, loading, evaluating and predicting change nothing, and trace nothing."""
    # XLA for one of them.
    jit_compile = "auto" if name == "PPO" else False
    noise = {"noise": "ornstein_uhlenbeck"} if name == "TD3" else {}
    straight, resumed = (
        tiny.make(name, jit_compile=jit_compile, normalize_rewards=True, **noise)
        for _ in range(2)
    )
    env, steps = tiny.env_of(name), steps_for(name) // 2
    for agent in (straight, resumed):
        agent.fit(env, steps=steps, num_envs=2, verbose=0)
    assert_same_weights(straight, resumed)
    loaded = kerasrl.load(resumed.save(tmp_path / "agent.kerasrl"))
    assert_same_weights(straight, loaded)
    disturb(straight, env)
    straight_logs = straight.fit(env, steps=steps, num_envs=2, verbose=0)
    loaded_logs = loaded.fit(env, steps=steps, num_envs=2, verbose=0)
    assert_same_weights(straight, loaded)
    assert straight_logs.history.keys() == loaded_logs.history.keys()
    assert "loss" in loaded_logs.history
    for key, values in straight_logs.history.items():
        if key != "steps_per_second":
            np.testing.assert_array_equal(values, loaded_logs.history[key], err_msg=key)
    assert loaded.env_steps == straight.env_steps >= 2 * steps
    assert loaded.episodes == straight.episodes
    assert straight.num_traces == loaded.num_traces == 1
    assert straight.iterations > 10


def disturb(agent, env):
    """Acts with what training acts with, its noise, states and statistics included."""
    first = agent.evaluate(env, episodes=2, seed=1)
    assert first == agent.evaluate(env, episodes=2, seed=1)
    agent.evaluate(env, episodes=1, seed=1, deterministic=False)
    shape = agent.policy.observation_space.shape
    agent.predict(np.zeros((3, *shape), np.float32), deterministic=False)


@pytest.mark.parametrize(
    ("agent_class", "settings", "env"),
    [
        (kerasrl.PPO, {"rollout_length": 32, "num_epochs": 2}, "CartPole-v1"),
        pytest.param(
            *(kerasrl.SAC, {"learning_starts": 20, "batch_size": 8}, "Pendulum-v1"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_dropout_and_averaged_weights_resume_exactly(
    agent_class, settings, env, tmp_path
):
    """What moves besides weights: generators of layers, averages of the optimizer."""

    def make():
        keras.utils.set_random_seed(0)
        trunk = [keras.layers.Dense(8, "tanh"), keras.layers.Dropout(0.3)]
        agent = agent_class(policy=keras.Sequential(trunk), seed=3, **settings)
        optimizer = keras.optimizers.Adam(1e-2, use_ema=True, ema_overwrite_frequency=7)
        agent.compile(optimizer, jit_compile=False)
        agent.fit(env, steps=64, num_envs=2, verbose=0)
        return agent

    straight = make()
    loaded = kerasrl.load(straight.save(tmp_path / "agent.kerasrl"))
    before = variables(straight)
    for agent in (straight, loaded):
        agent.fit(env, steps=64, num_envs=2, verbose=0)
    assert_same_weights(straight, loaded)
    moved = {
        path
        for (path, old), (_, new) in zip(before, variables(straight), strict=True)
        if not np.array_equal(old, new)
    }
    assert any("seed_generator" in path for path in moved)
    assert any("average" in path for path in moved)


@pytest.mark.xla
@pytest.mark.parametrize("name", daily.among(tiny.AGENTS, COMPILED))
def test_a_run_traces_once(name):
    """With XLA: of which the one trace says too that it could compile it."""
    agent = tiny.make(name, jit_compile="auto")
    steps = 500 if name in tiny.ON_POLICY else 400
    agent.fit(tiny.hostile_env(name), steps=steps, num_envs=2, verbose=0)
    assert agent.num_traces == 1
    assert agent.compiled_update(None).jit_compile
    assert agent.iterations > 10


@pytest.mark.parametrize("name", daily.among(["DQN", "R2D2"], ["DQN"]))
def test_without_replay_a_loaded_agent_starts_with_an_empty_buffer(name, tmp_path):
    agent = tiny.make(name)
    env = tiny.env_of(name)
    agent.fit(env, steps=100, num_envs=2, verbose=0)
    assert len(agent.buffer) > 0
    whole = agent.save(tmp_path / "whole.kerasrl")
    path = agent.save(tmp_path / "agent.kerasrl", include_replay=False)
    assert path.stat().st_size < whole.stat().st_size
    loaded = kerasrl.load(path)
    assert loaded.buffer is None
    assert_same_weights(agent, loaded)
    # Also with another number of environments: there is nothing left that would clash.
    history = loaded.fit(env, steps=60, num_envs=3, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert loaded.updates > agent.updates > 0


@pytest.mark.parametrize("name", daily.among(["DQN", "R2D2"], ["DQN"]))
def test_another_number_of_envs_is_refused_and_leaves_the_agent_usable(name):
    agent = tiny.make(name)
    agent.fit("CartPole-v1", steps=80, num_envs=2, verbose=0)
    with pytest.raises(ValueError, match="num_envs=2 to fit, or set agent.buffer"):
        agent.fit("CartPole-v1", steps=80, num_envs=3, verbose=0)
    agent.fit("CartPole-v1", steps=80, num_envs=2, verbose=0)
    agent.buffer = None
    agent.fit("CartPole-v1", steps=80, num_envs=3, verbose=0)


@pytest.mark.parametrize("name", ["DQN", "R2D2"])
def test_episodes_do_not_go_on_across_fits(name):
    """`fit` resets the environments: the steps of a stored episode count up by one."""
    agent = tiny.make(name, learning_starts=10_000)
    for _ in range(3):
        agent.fit(testing.CountingEnv(length=1_000), steps=16, verbose=0)
    batch = agent.buffer.sample(500, rng=np.random.default_rng(0))
    if name == "R2D2":
        rows = batch["observations"]
        before, after = rows[:, :-1], rows[:, 1:]
    else:
        before, after = batch["observations"], batch["next_observations"]
    np.testing.assert_array_equal(after[..., 1] - before[..., 1], 1.0)
    assert before[..., 1].max() > 5


@pytest.mark.parametrize(
    "name",
    daily.among(
        [n for n in tiny.OFF_POLICY if "_recurrent" not in n or n == "SAC_recurrent"],
        ["ApexDQN", "R2D2", "SAC"],
    ),
)
def test_normalized_observations_and_documented_logs(name):
    agent = tiny.make(name, policy={"normalize_observations": True})
    history = agent.fit(tiny.env_of(name), steps=100, num_envs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    documented = (tiny.ROOT / "docs" / "metrics.md").read_text()
    assert not [key for key in history if f"`{key}`" not in documented]
    # Every step has counted once, those before learning started too.
    assert float(agent.policy.encoder.normalizers[0].count) == agent.env_steps


def test_rewards_are_normalized_when_sampled():
    agent = tiny.make("DQN", normalize_rewards=True, learning_starts=10_000)
    agent.fit("CartPole-v1", steps=200, num_envs=2, verbose=0)
    # What is kept stays as it was, though the scale goes on changing.
    kept = agent.buffer.sample(8, 2, rng=np.random.default_rng(0))["rewards"]
    np.testing.assert_array_equal(kept, 1.0)
    scaled = agent.sample(2)["rewards"]
    np.testing.assert_array_equal(scaled, agent.reward_scaler.scale(kept))
    assert scaled.max() < 0.5


@pytest.mark.parametrize("name", ["DQN", "R2D2"])
def test_each_reward_is_scaled_and_clipped_before_they_are_summed(name):
    # What is sampled counts: no update need be compiled for it.
    agent = tiny.make(
        name, normalize_rewards=True, n_step=3, gamma=0.5, learning_starts=10_000
    )
    agent.fit("CartPole-v1", steps=200, num_envs=2, verbose=0)
    # As if returns had spread so little that each reward of 1 is far beyond the bound.
    agent.reward_scaler.count, agent.reward_scaler.squares = 1.0, 1e-6
    assert float(agent.reward_scaler.scale(np.ones(1))[0]) == 10.0
    batch = agent.sample(2)
    if name == "R2D2":
        expected = 10.0 * batch["valid"]
        # What the policy is given stays as the environment gave it.
        assert set(np.unique(batch["previous_rewards"])) == {0.0, 1.0}
    else:
        expected = 10.0 * (1.0 - 0.5 ** batch["steps"]) / (1.0 - 0.5)
        assert batch["steps"].max() == 3
    np.testing.assert_allclose(batch["rewards"], expected, rtol=1e-6)
    kept = agent.buffer.sample(8, 2)["rewards"]
    assert kept.max() <= 1.75  # 1 + 0.5 + 0.25


@pytest.mark.parametrize("name", daily.among(["DQN", "R2D2", "SAC_discrete"], ["R2D2"]))
def test_nested_observations(name):
    agent = tiny.make(name)
    history = agent.fit(testing.NestedEnv, steps=120, num_envs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all() and history["gradient_norm"][0] > 0.0
    observation, _ = testing.NestedEnv().reset()
    batch = {
        "image": observation["image"][None],
        "vector": observation["vector"][None],
        "choices": tuple(np.asarray(x)[None] for x in observation["choices"]),
    }
    result = agent.predict(batch)
    actions = result[0] if name == "R2D2" else result
    assert actions.shape == (1,)


@pytest.mark.parametrize("name", daily.among(["DQN", "R2D2", "SAC_discrete"], ["R2D2"]))
def test_steps_that_only_reset_are_not_learnt_from(name):
    """A `NEXT_STEP` vector environment has filler steps between episodes."""
    envs = gymnasium.vector.SyncVectorEnv(
        [lambda: testing.CountingEnv(length=3)] * 2,
        autoreset_mode=gymnasium.vector.AutoresetMode.NEXT_STEP,
    )
    agent = tiny.make(name)
    history = agent.fit(envs, steps=200, verbose=0).history
    envs.close()
    assert np.isfinite(history["loss"]).all()
    assert agent.env_steps < 200
    batch = agent.buffer.sample(400, rng=np.random.default_rng(0))
    valid = batch.get("valid", np.ones_like(batch["rewards"], bool))
    # The reward of a step is where it leads to; a filler would have the reward 0.
    np.testing.assert_array_equal(
        batch["rewards"][valid], batch["observations"][..., 1][valid] + 1
    )
    assert set(batch["rewards"][valid]) == {1.0, 2.0, 3.0}


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"gamma": 1.5}, "gamma"),
        ({"n_step": 0}, "n_step"),
        ({"buffer_size": 0}, "buffer_size"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"learning_starts": -1}, "learning_starts"),
        ({"train_every": 0}, "train_every"),
        ({"gradient_steps": 0}, "gradient_steps"),
        ({"updates_per_call": "all"}, "updates_per_call"),
        ({"tau": 1.5}, "tau"),
        ({"target_update_interval": 0}, "target_update_interval"),
        ({"importance_exponent": "linear"}, "importance_exponent"),
        ({"exploration": -0.1}, "exploration"),
        ({"exploration": [0.1, 1.5]}, r"exploration\[1\]"),
        ({"huber_delta": -1.0}, "huber_delta"),
        ({"max_grad_norm": 0.0}, "max_grad_norm"),
    ],
)
def test_wrong_hyperparameters_of_dqn_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        kerasrl.DQN(**arguments)


@pytest.mark.parametrize(
    "agent_class, arguments, message",
    [
        (kerasrl.DDPG, {"noise": "pink"}, "ornstein_uhlenbeck"),
        (kerasrl.DDPG, {"noise_scale": -1.0}, "noise_scale"),
        (kerasrl.TD3, {"target_noise": -0.1}, "target_noise"),
        (kerasrl.TD3, {"target_noise_clip": None}, "target_noise_clip"),
        (kerasrl.TD3, {"policy_delay": 0}, "policy_delay"),
        (kerasrl.SAC, {"temperature": 0.0}, "temperature"),
        (kerasrl.SAC, {"entropy_fraction": 2.0}, "entropy_fraction"),
        (kerasrl.R2D2, {"burn_in": -1}, "burn_in"),
        (kerasrl.R2D2, {"sequence_length": 0}, "sequence_length"),
        (kerasrl.R2D2, {"period": 0}, "period"),
        (kerasrl.R2D2, {"rescaling": -1e-3}, "rescaling"),
        (kerasrl.R2D2, {"priority_mixture": 1.5}, "priority_mixture"),
    ],
)
def test_wrong_hyperparameters_are_refused(agent_class, arguments, message):
    with pytest.raises(ValueError, match=message):
        agent_class(**arguments)


def test_configuration_round_trip():
    for name, make in tiny.OFF_POLICY.items():
        agent = make(seed=3)
        copy = type(agent).from_config(agent.get_config())
        first, second = agent.get_config(), copy.get_config()
        assert first == second, name
