"""The training loop: its arguments, what it counts, logs, repeats and resumes."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import zipfile

import gymnasium
import keras
import numpy as np
import pytest
from memory import resident

import kerasrl
from kerasrl import testing
from kerasrl.models import ActorCritic

ROOT = pathlib.Path(__file__).parents[2]

AGENTS = {
    "PG": lambda **kw: kerasrl.PG(rollout_length=16, **kw),
    "A2C": lambda **kw: kerasrl.A2C(**kw),
    "PPO": lambda **kw: kerasrl.PPO(
        rollout_length=16, num_epochs=2, minibatch_size=32, **kw
    ),
}
BODIES = {
    "feed_forward": {"normalize_observations": True},
    "recurrent": {"cell": "lstm", "cell_units": 8, "previous_inputs": True},
}


def make(name, body="feed_forward", seed=7, jit_compile=False, **arguments):
    agent = AGENTS[name](policy=BODIES[body], seed=seed, **arguments)
    agent.compile(jit_compile=jit_compile)
    return agent


def assert_same_weights(first, second):
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_steps_are_rounded_up_to_whole_iterations():
    agent = make("PPO")
    history = agent.fit("CartPole-v1", steps=100, num_envs=4, verbose=0).history
    assert agent.env_steps == 128  # 2 iterations of 16 * 4
    assert history["env_steps"] == [128]
    agent.fit("CartPole-v1", steps=64, num_envs=4, verbose=0)
    assert agent.env_steps == 192


def test_epochs_and_steps_per_epoch():
    agent = make("PPO")
    history = agent.fit(
        "CartPole-v1", epochs=3, steps_per_epoch=100, num_envs=4, verbose=0
    )
    assert history.history["env_steps"] == [128, 256, 384]
    assert history.epoch == [0, 1, 2]
    history = agent.fit(
        "CartPole-v1",
        epochs=3,
        steps_per_epoch=64,
        initial_epoch=2,
        num_envs=4,
        verbose=0,
    )
    assert history.epoch == [2]
    assert agent.env_steps == 384 + 64


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "neither steps nor epochs"),
        ({"steps": 10, "epochs": 2, "steps_per_epoch": 5}, "drop one"),
        ({"steps": 0}, "positive integer"),
        ({"steps": 10.5}, "positive integer"),
        ({"epochs": -1}, "positive integer"),
    ],
)
def test_wrong_lengths_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make("PPO").fit("CartPole-v1", verbose=0, **arguments)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"gamma": 1.5}, "gamma"),
        ({"rollout_length": 0}, "rollout_length"),
        ({"clip_ratio": "high"}, "clip_ratio"),
        ({"gae_lambda": -0.1}, "gae_lambda"),
        ({"max_grad_norm": -0.5}, "max_grad_norm"),
        ({"value_coef": -1.0}, "value_coef"),
        ({"value_clip": 0.0}, "value_clip"),
        ({"kl_coef": lambda progress: progress, "target_kl": 0.01}, "target_kl"),
    ],
)
def test_wrong_hyperparameters_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        kerasrl.PPO(**arguments)


def test_wrong_policy_is_refused():
    with pytest.raises(TypeError, match="kerasrl.models.Policy"):
        kerasrl.PPO(policy=3)


def test_wrong_callback_is_refused():
    with pytest.raises(TypeError, match="keras.callbacks.Callback"):
        make("PPO").fit("CartPole-v1", steps=64, callbacks=[print], verbose=0)


def test_other_env_is_refused_and_leaves_the_agent_usable():
    agent = make("PPO")
    agent.fit("CartPole-v1", steps=64, num_envs=4, verbose=0)
    with pytest.raises(ValueError, match="built for"):
        agent.fit("Acrobot-v1", steps=64, verbose=0)
    agent.fit("CartPole-v1", steps=64, num_envs=4, verbose=0)


def test_nan_loss_stops_with_a_reason():
    agent = make("PPO")
    agent.compile(keras.optimizers.SGD(float("inf")))
    with pytest.raises(FloatingPointError, match="learning rate"):
        agent.fit("CartPole-v1", steps=2_000, num_envs=4, verbose=0)


def test_nan_loss_stops_with_a_reason_where_errors_are_priorities():
    class Wrong(kerasrl.DQN):
        def loss(self, batch, outputs, settings):
            loss, metrics = super().loss(batch, outputs, settings)
            nan = float("nan")
            return loss * nan, {**metrics, "td_errors": metrics["td_errors"] * nan}

    agent = Wrong({"hidden_units": (2,)}, prioritized=True, learning_starts=8)
    agent.compile(run_eagerly=True)
    with pytest.raises(FloatingPointError, match="learning rate"):
        agent.fit("CartPole-v1", steps=64, num_envs=2, verbose=0)


def test_schedules_reach_the_loss():
    seen = []

    class Recording(kerasrl.PPO):
        def loss(self, batch, outputs, settings):
            loss, metrics = super().loss(batch, outputs, settings)
            names = ("clip_ratio", "entropy_coef", "kl_coef")
            return loss, {**metrics, **{f"set_{n}": settings[n] for n in names}}

        def learn(self, rollout):
            logs = super().learn(rollout)
            seen.append([logs[f"set_{name}"] for name in self.scheduled])
            return logs

    agent = Recording(
        rollout_length=16,
        clip_ratio=lambda progress: 0.2 * (1 - progress),
        entropy_coef=keras.optimizers.schedules.PolynomialDecay(0.1, 128, 0.0),
    )
    agent.fit("CartPole-v1", steps=256, num_envs=4, verbose=0)
    clip, entropy, _ = np.array(seen).T
    np.testing.assert_allclose(clip, [0.2, 0.15, 0.1, 0.05], rtol=1e-5)
    # The schedule sees environment steps, those of the new rollout included.
    np.testing.assert_allclose(entropy, [0.05, 0.0, 0.0, 0.0], atol=1e-7)
    assert agent.num_traces == 1


def test_history_has_the_documented_keys():
    history = make("PPO").fit("CartPole-v1", steps=128, verbose=0).history
    documented = (ROOT / "docs" / "metrics.md").read_text()
    for key in history:
        assert f"`{key}`" in documented, key
    for key in ("episode_return_mean", "env_steps", "steps_per_second", "loss"):
        assert key in history


def test_compile_metrics_compare_values_with_targets():
    agent = make("A2C")
    agent.compile(metrics=["mae"])
    history = agent.fit("CartPole-v1", steps=80, verbose=0).history
    # Values start near 0 and every reward is 1.
    assert 0.5 < history["mae"][0] < 6.0


def test_eager_update_equals_compiled():
    weights = []
    for run_eagerly in (False, True):
        agent = make("PPO")
        agent.compile(run_eagerly=run_eagerly, jit_compile=False)
        agent.fit("CartPole-v1", steps=64, num_envs=4, verbose=0)
        weights.append(agent.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_evaluate_leaves_training_alone():
    agents = [make("PPO") for _ in range(2)]
    for evaluated, agent in enumerate(agents):
        agent.fit("CartPole-v1", steps=200, num_envs=4, verbose=0)
        if evaluated:
            first = agent.evaluate("CartPole-v1", episodes=5, seed=1)
            again = agent.evaluate("CartPole-v1", episodes=5, seed=1)
            assert first == again
            assert first["episodes"] == 5
            assert set(first) == {
                "return_mean",
                "return_std",
                "length_mean",
                "episodes",
            }
        agent.fit("CartPole-v1", steps=200, num_envs=4, verbose=0)
    assert_same_weights(*agents)


def test_evaluate_plays_whole_episodes():
    agent = make("A2C")
    result = agent.evaluate(
        lambda: testing.CountingEnv(7), episodes=6, deterministic=False
    )
    assert result["length_mean"] == 7.0
    assert result["return_std"] == 0.0


@pytest.mark.parametrize("body", BODIES)
def test_predict(body):
    agent = make("A2C", body)
    with pytest.raises(ValueError, match="fit"):
        agent.predict(np.zeros((1, 4)))
    env = gymnasium.make("CartPole-v1")
    agent.build(env.observation_space, env.action_space)
    observations = np.random.default_rng(0).normal(size=(3, 4))
    result = agent.predict(observations)
    actions = result[0] if body == "recurrent" else result
    assert actions.shape == (3,)
    assert all(action in env.action_space for action in actions)
    if body == "recurrent":
        new_state = agent.predict(observations, *result[1:], actions, np.ones(3))[1]
        assert not np.array_equal(
            new_state["policy"][0],
            agent.predict(observations, result[1])[1]["policy"][0],
        ), "the previous action and reward must reach the policy"
        _, state = agent.predict(observations, state=result[1])
        assert not np.array_equal(state["policy"][0], result[1]["policy"][0])
    with pytest.raises(ValueError, match="batch"):
        agent.predict(observations[0])


def test_predict_follows_new_weights():
    agent = make("A2C")
    env = gymnasium.make("CartPole-v1")
    agent.build(env.observation_space, env.action_space)
    observations = np.random.default_rng(0).normal(size=(64, 4))
    agent.predict(observations)
    weights = agent.get_weights()
    for index, value in ((0, 1.0), (1, -1.0)):
        bias = [w for w in weights if w.shape == (2,)][0]
        bias[:] = [-100.0 * value, 100.0 * value]
        agent.set_weights(weights)
        assert (agent.predict(observations) == (1 if index == 0 else 0)).all()


def test_summary_and_config_round_trip(capsys):
    agent = kerasrl.PPO(
        policy={"hidden_units": (8,)},
        entropy_coef=keras.optimizers.schedules.PolynomialDecay(0.1, 128, 0.0),
    )
    env = gymnasium.make("CartPole-v1")
    agent.build(env.observation_space, env.action_space)
    agent.summary()
    assert "Total params" in capsys.readouterr().out
    config = json.loads(json.dumps(agent.get_config()))
    copy = kerasrl.PPO.from_config(config)
    assert copy.policy.hidden_units == (8,)
    assert copy.entropy_coef.get_config() == agent.entropy_coef.get_config()
    assert copy.get_config().keys() == agent.get_config().keys()


def test_memory_is_flat():
    """No more memory is in use after the last 1,500 of 2,000 iterations than before."""
    agent = make("A2C")
    agent.compile(jit_compile=False)
    kilobytes = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: kilobytes.append(resident())
    )
    agent.fit(
        "CartPole-v1", epochs=4, steps_per_epoch=20_000, callbacks=[watch], verbose=0
    )
    assert agent.iterations == 2_000
    assert kilobytes[-1] - kilobytes[0] < 2_000  # 1.3 per iteration


# Checkpoints --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    agent = make("PPO")
    agent.fit("CartPole-v1", steps=64, num_envs=4, verbose=0)
    return agent.save(tmp_path_factory.mktemp("run") / "agent.kerasrl")


def damage(path, tmp_path, change):
    """Rewrites a checkpoint with `change(name, content)`; None drops the member."""
    target = tmp_path / "damaged.kerasrl"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


def test_truncated_checkpoint_is_refused(saved, tmp_path):
    content = saved.read_bytes()
    for share in (0.0, 0.3, 0.9, 0.999):
        path = tmp_path / "cut.kerasrl"
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ValueError, match="complete"):
            kerasrl.load(path)


def test_corrupt_checkpoint_is_refused(saved, tmp_path):
    content = bytearray(saved.read_bytes())
    for position in range(1000, len(content) - 2000, len(content) // 7):
        bad = bytearray(content)
        bad[position] ^= 0xFF
        path = tmp_path / "bad.kerasrl"
        path.write_bytes(bad)
        with pytest.raises(ValueError, match="bad.kerasrl"):
            kerasrl.load(path)


def test_pickle_is_refused(saved, tmp_path):
    import io

    evil = io.BytesIO()
    np.save(evil, np.array([{"any": "object"}], dtype=object), allow_pickle=True)

    def change(name, content):
        return evil.getvalue() if name == "arrays/00000.npy" else content

    with pytest.raises(ValueError, match="Object arrays"):
        kerasrl.load(damage(saved, tmp_path, change))


def layer(name):
    """What Keras writes for an operation of the module `keras.layers`, or elsewhere."""
    module = "keras.layers" if name != "KerasTensor" else "keras.src.backend"
    return {
        "module": module,
        "class_name": name,
        "config": {},
        "registered_name": None,
    }


def edit_config(saved, tmp_path, edit):
    def change(name, content):
        if name != "config.json":
            return content
        config = json.loads(content)
        edit(config)
        return json.dumps(config)

    return damage(saved, tmp_path, change)


@pytest.mark.parametrize(
    "edit, message",
    [
        (lambda c: c.update(schema=99), "schema 99"),
        (lambda c: c.pop("schema"), "schema"),
        (lambda c: c.update(agent="os>system"), "not known here"),
        (
            lambda c: c["config"].update(
                clip_ratio={
                    "module": "os",
                    "class_name": "function",
                    "config": "getcwd",
                    "registered_name": "getcwd",
                }
            ),
            "not registered",
        ),
        (
            lambda c: c["config"].update(
                clip_ratio={
                    "module": "os",
                    "class_name": "function",
                    "config": "system",
                    "registered_name": "kerasrl>PPO",
                }
            ),
            "not registered",
        ),
        (lambda c: c.pop("optimizer"), "KeyError"),
        (lambda c: c.update(optimizer=None), "optimizer"),
        (lambda c: c["config"].update(surprise=3), "surprise"),
        (lambda c: c.update(variables=[3]), "members"),
        (lambda c: c.update(agent="kerasrl>ActorCritic"), "not known here"),
        (
            lambda c: c["config"].update(
                clip_ratio={"class_name": "__lambda__", "config": {"value": "x"}}
            ),
            "code",
        ),
        (
            lambda c: c["config"].update(
                policy={
                    "module": "subprocess",
                    "class_name": "Popen",
                    "config": {"args": "true"},
                    "registered_name": None,
                }
            ),
            "not registered",
        ),
        (lambda c: c["config"]["policy"]["config"].update(hidden_units=[3]), "fit"),
        (lambda c: c["config"].update(gamma=3), "agent.kerasrl|damaged.kerasrl"),
        (lambda c: c["config"].update(policy=layer("TFSMLayer")), "code"),
        (lambda c: c["config"].update(policy=layer("TorchModuleWrapper")), "code"),
        (lambda c: c["config"].update(policy=layer("KerasTensor")), "not registered"),
    ],
)
def test_strange_configurations_are_refused(saved, tmp_path, edit, message):
    with pytest.raises(ValueError, match=message):
        kerasrl.load(edit_config(saved, tmp_path, edit))


def test_missing_and_extra_members_are_refused(saved, tmp_path):
    path = damage(saved, tmp_path, lambda n, c: None if n == "state.json" else c)
    with pytest.raises(ValueError, match="state.json"):
        kerasrl.load(path)
    with zipfile.ZipFile(path := tmp_path / "more.kerasrl", "w") as archive:
        with zipfile.ZipFile(saved) as old:
            for name in old.namelist():
                archive.writestr(name, old.read(name))
        archive.writestr("extra.pkl", b"")
    with pytest.raises(ValueError, match="extra.pkl"):
        kerasrl.load(path)


def test_missing_file():
    with pytest.raises(FileNotFoundError):
        kerasrl.load("nowhere.kerasrl")


def test_unregistered_function_cannot_be_saved(tmp_path):
    agent = make("PPO", clip_ratio=lambda progress: 0.1)
    agent.fit("CartPole-v1", steps=64, num_envs=4, verbose=0)
    with pytest.raises(ValueError, match="register_keras_serializable"):
        agent.save(tmp_path / "agent.kerasrl")
    assert not list(tmp_path.iterdir())


def test_unbuilt_agent_cannot_be_saved(tmp_path):
    with pytest.raises(ValueError, match="no weights"):
        kerasrl.PPO().save(tmp_path / "agent.kerasrl")


def test_failure_while_writing_keeps_the_previous_file(saved, tmp_path, monkeypatch):
    path = tmp_path / "agent.kerasrl"
    path.write_bytes(saved.read_bytes())
    agent = kerasrl.load(path)

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        agent.save(path)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["agent.kerasrl"]
    kerasrl.load(path)


def test_killing_the_process_while_saving_keeps_the_previous_file(saved, tmp_path):
    path = tmp_path / "agent.kerasrl"
    path.write_bytes(saved.read_bytes())
    script = (
        "import os, sys, signal\n"
        "from kerasrl import checkpoint\n"
        "import pathlib\n"
        "os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)\n"
        "checkpoint.write_atomically(pathlib.Path(sys.argv[1]), {'a': b'x' * 10**6})\n"
    )
    result = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert result.returncode == -signal.SIGKILL
    assert path.read_bytes() == saved.read_bytes()
    kerasrl.load(path)


def test_custom_agent_and_policy_need_their_classes(tmp_path):
    class Mine(kerasrl.A2C):
        """Not registered."""

    agent = Mine(policy=ActorCritic(hidden_units=(4,)))
    agent.fit("CartPole-v1", steps=40, verbose=0)
    agent.save(tmp_path / "agent.kerasrl")
    with pytest.raises(ValueError, match="custom_objects"):
        kerasrl.load(tmp_path / "agent.kerasrl")
    loaded = kerasrl.load(tmp_path / "agent.kerasrl", custom_objects={"Mine": Mine})
    assert type(loaded) is Mine
    assert_same_weights(agent, loaded)


def test_a_policy_need_not_be_registered_to_be_saved(tmp_path):
    class Own(ActorCritic):
        """Not registered."""

    agent = kerasrl.A2C(policy=Own(hidden_units=(4,)))
    agent.fit("CartPole-v1", steps=40, verbose=0)
    path = agent.save(tmp_path / "agent.kerasrl")
    with pytest.raises(ValueError, match="custom_objects"):
        kerasrl.load(path)
    loaded = kerasrl.load(path, custom_objects={"Own": Own})
    assert type(loaded.policy) is Own
    assert_same_weights(agent, loaded)


@pytest.mark.parametrize("agent_class", [kerasrl.PPO, kerasrl.DQN])
def test_a_functional_model_is_saved_with_its_operations(agent_class, tmp_path):
    inputs = keras.Input((4,))
    features = keras.layers.Dense(8, activation=keras.activations.silu)(inputs)
    features = keras.ops.concatenate([features, keras.ops.sin(inputs) * 2.0], axis=-1)
    trunk = keras.Model(inputs, keras.ops.relu(features[:, :6]))
    agent = agent_class(trunk, seed=0)
    agent.compile(jit_compile=False)
    agent.fit("CartPole-v1", steps=64, num_envs=2, verbose=0)
    loaded = kerasrl.load(agent.save(tmp_path / "agent.kerasrl"))
    assert_same_weights(agent, loaded)
    observations = np.random.default_rng(0).normal(size=(16, 4))
    np.testing.assert_array_equal(
        agent.predict(observations), loaded.predict(observations)
    )


def test_code_cannot_be_saved(tmp_path):
    trunk = keras.Sequential([keras.layers.Lambda(lambda x: 2.0 * x)])
    agent = kerasrl.A2C(trunk)
    saving = kerasrl.callbacks.AgentCheckpoint(tmp_path)
    with pytest.raises(ValueError, match="code"):
        agent.fit("CartPole-v1", steps=40, callbacks=[saving], verbose=0)
    assert agent.iterations == 0, "found out before training"


class Greedy(ActorCritic):
    """Policy with metrics and a loss that tests exchange."""

    metrics_of = staticmethod(lambda batch: {})
    loss_of = staticmethod(lambda loss: loss)

    def custom_metrics(self, batch):
        return self.metrics_of(batch)

    def custom_loss(self, loss, batch):
        return self.loss_of(loss)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics_of": lambda batch: {"loss": 3.0}}, "'loss'.*another name"),
        ({"metrics_of": lambda batch: {"explained_variance": 3.0}}, "another name"),
        ({"metrics_of": lambda batch: {"entropy": 3.0}}, "'entropy'.*another name"),
        ({"metrics_of": lambda batch: {"each": batch["rewards"]}}, "each=.*scalar"),
        ({"loss_of": lambda loss: None}, "custom_loss returned None"),
    ],
)
def test_strange_metrics_and_losses_of_a_policy_are_refused(
    changes, message, monkeypatch
):
    for name, function in changes.items():
        monkeypatch.setattr(Greedy, name, staticmethod(function))
    with pytest.raises(ValueError, match=message):
        kerasrl.A2C(Greedy()).fit("CartPole-v1", steps=40, verbose=0)


def test_a_loss_without_metrics_is_refused():
    class Bare(kerasrl.PG):
        def loss(self, batch, outputs, settings):
            return super().loss(batch, outputs, settings)[0]

    with pytest.raises(TypeError, match="tuple of a scalar and a dict"):
        Bare().fit("CartPole-v1", steps=40, verbose=0)


def test_a_callback_that_returns_no_rollout_is_refused():
    class Three(kerasrl.callbacks.Callback):
        def on_rollout_end(self, rollout):
            return 3

    with pytest.raises(TypeError, match="Three.on_rollout_end returned 3"):
        kerasrl.A2C().fit("CartPole-v1", steps=40, callbacks=[Three()], verbose=0)


def test_predict_takes_lists():
    agent = make("A2C")
    env = gymnasium.make("CartPole-v1")
    agent.build(env.observation_space, env.action_space)
    rows = [[0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 0.0, 0.0]]
    np.testing.assert_array_equal(agent.predict(rows), agent.predict(np.array(rows)))


@pytest.mark.xla
def test_auto_goes_on_without_xla_where_it_must():
    import tensorflow as tf

    class NoXla(kerasrl.A2C):
        def loss(self, batch, outputs, settings):
            loss, metrics = super().loss(batch, outputs, settings)
            words = tf.strings.length(tf.strings.as_string(batch["rewards"][:1]))
            return loss + 0.0 * tf.cast(words[0], "float32"), metrics

    agent = NoXla(seed=0)
    with pytest.warns(UserWarning, match="XLA could not compile"):
        agent.fit("CartPole-v1", steps=80, verbose=0)
    assert agent.iterations == 2
    agent.compile(jit_compile=True)
    with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.UnimplementedError)):
        agent.fit("CartPole-v1", steps=80, verbose=0)


def test_values_and_probabilities_rest_on_the_statistics_of_acting():
    """Before any gradient step the probability ratio is 1, normalization or not."""
    seen = {}

    class Recording(kerasrl.PPO):
        def learn(self, rollout):
            seen["rollout"] = rollout
            self.actor().refresh()
            outputs = self.value_function()
            outputs.refresh()
            seen["values"] = outputs(
                {
                    "observations": rollout.observations[0],
                    "previous_actions": rollout.previous_actions[0],
                    "previous_rewards": rollout.previous_rewards[0],
                    "state": (),
                },
                [],
            )["values"]
            return super().learn(rollout)

        def targets(self, rollout):
            targets = super().targets(rollout)
            seen["targets"] = targets["values"].numpy()[0]
            return targets

    agent = Recording(policy={"normalize_observations": True}, rollout_length=8, seed=0)
    agent.compile(keras.optimizers.Adam(1e-2), run_eagerly=True)
    agent.fit("CartPole-v1", steps=4 * 8 * 2, num_envs=2, verbose=0)
    np.testing.assert_allclose(seen["values"], seen["targets"], rtol=1e-4, atol=1e-5)
    assert float(agent.policy.encoder.normalizers[0].count) == 64.0


def test_weights_changed_by_anybody_are_acted_with():
    def set_all(agent, value):
        for variable in agent.policy.trainable_variables:
            variable.assign(keras.ops.full(variable.shape, value))

    class Changing(kerasrl.A2C):
        def learn(self, rollout):
            logs = super().learn(rollout)
            set_all(self, 1.0)
            return logs

    class Perturb(kerasrl.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            set_all(self.agent, float(batch))

        def on_rollout_end(self, rollout):
            weights = self.agent.actor().program.weights
            assert all((w == float(self.agent.iterations)).all() for w in weights)

    agent = Changing(seed=0, policy={"hidden_units": (4,)})
    for _ in agent.iterate("CartPole-v1", steps=120, num_envs=2, verbose=0):
        if agent.iterations > 1:
            # What the last iteration, and so this one's acting, left behind.
            assert all((w == 1.0).all() for w in agent.actor().program.weights)
    agent = kerasrl.A2C(seed=0, policy={"hidden_units": (4,)})
    agent.fit("CartPole-v1", steps=30, num_envs=2, callbacks=[Perturb()], verbose=0)
    assert agent.iterations == 3


def test_keyword_arguments_of_parents_are_saved(tmp_path):
    @keras.saving.register_keras_serializable("tests")
    class Scaled(kerasrl.A2C):
        def __init__(self, scale=1.0, **kwargs):
            super().__init__(**kwargs)
            self.scale = scale

    agent = Scaled(scale=2.0, gamma=0.9, seed=3)
    agent.fit("CartPole-v1", steps=40, verbose=0)
    loaded = kerasrl.load(agent.save(tmp_path / "agent.kerasrl"))
    assert (loaded.scale, loaded.gamma, loaded.seed) == (2.0, 0.9, 3)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_cannot_be_loaded_is_not_saved(tmp_path):
    agent = make("A2C")
    agent.policy = ActorCritic(activation=lambda x: x)
    agent.compile(jit_compile=False)
    agent.fit("CartPole-v1", steps=40, verbose=0)
    with pytest.raises(ValueError, match="lambda|code"):
        agent.save(tmp_path / "agent.kerasrl")
    assert not list(tmp_path.iterdir())


def test_keras_activations_and_metrics_are_saved(tmp_path):
    agent = kerasrl.A2C(policy={"activation": keras.activations.relu})
    agent.compile(jit_compile=False, metrics=["mae"])
    agent.fit("CartPole-v1", steps=40, verbose=0)
    loaded = kerasrl.load(agent.save(tmp_path / "agent.kerasrl"))
    assert loaded.policy.activation == "relu"
    assert "mae" in loaded.fit("CartPole-v1", steps=40, verbose=0).history


def test_policy_without_values_is_refused_where_they_are_needed():
    class NoValues(kerasrl.models.Policy):
        def setup(self, observation_space, action_space):
            super().setup(observation_space, action_space)
            self.head = keras.layers.Dense(self.num_parameters)

        def call(self, inputs, state=None, training=False):
            return {"distribution": self.head(inputs["observations"])}

    with pytest.raises(ValueError, match="baseline=False"):
        kerasrl.PG(policy=NoValues()).fit("CartPole-v1", steps=64, verbose=0)
    agent = kerasrl.PG(policy=NoValues(), baseline=False)
    agent.fit("CartPole-v1", steps=64, num_envs=1, verbose=0)
    with pytest.raises(ValueError, match="value head"):
        agent.baseline = True
    assert not agent.baseline


def test_averaged_weights_are_the_weights_in_the_end():
    agent = make("A2C")
    agent.compile(keras.optimizers.Adam(1e-2, use_ema=True), jit_compile=False)
    agent.fit("CartPole-v1", steps=200, verbose=0)
    averages = [v for v in agent.policy.optimizer.variables if "average" in v.path]
    assert averages
    for weight, average in zip(agent.policy.trainable_weights, averages, strict=True):
        np.testing.assert_array_equal(weight, average)


def test_the_env_that_fit_steps_is_not_evaluated_on():
    env = gymnasium.make("CartPole-v1")

    class Evaluate(kerasrl.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.agent.evaluate("CartPole-v1", episodes=1)
            with pytest.raises(ValueError, match="another"):
                self.agent.evaluate(env, episodes=1)

    agent = make("A2C")
    agent.fit(env, steps=20, callbacks=[Evaluate()], verbose=0)
    assert agent.evaluate(env, episodes=1)["episodes"] == 1
