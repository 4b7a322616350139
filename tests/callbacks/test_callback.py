import pytest

import kerasrl
from kerasrl.callbacks import Callback


def test_agent_is_an_error_before_fit():
    with pytest.raises(RuntimeError, match="has no agent yet"):
        Callback().agent  # noqa: B018


def test_agent_works_without_super_init(agent):
    class Forgetful(Callback):
        def __init__(self):
            self.seen = None

        def on_train_begin(self, logs=None):
            self.seen = self.agent

    callback = Forgetful()
    callback.set_agent(agent)
    callback.on_train_begin()
    assert callback.seen is agent


def test_hooks_in_a_real_fit():
    calls = []

    class Recorder(Callback):
        def on_train_begin(self, logs=None):
            assert self.agent.env_name == "CartPole-v1"
            assert self.model is self.agent.policy

        def on_train_batch_begin(self, batch, logs=None):
            calls.append("batch_begin")

        def on_episode_begin(self, episode):
            assert episode.user_data == {}
            episode.user_data["steps"] = 0

        def on_episode_step(self, episode):
            episode.user_data["steps"] += 1
            assert episode.length == episode.user_data["steps"]
            assert episode.episode_return == pytest.approx(episode.length)

        def on_episode_end(self, episode):
            assert episode.terminated or episode.truncated
            episode.custom_metrics["twice"] = 2.0 * episode.length
            calls.append("episode_end")

        def on_rollout_end(self, rollout):
            assert rollout.rewards.shape == (32, 2)
            calls.append("rollout_end")

        def on_train_batch_end(self, batch, logs=None):
            assert "loss" in logs
            calls.append("batch_end")

    agent = kerasrl.PPO(rollout_length=32, num_epochs=1, minibatch_size=64, seed=0)
    agent.compile(run_eagerly=True)
    history = agent.fit(
        "CartPole-v1",
        steps=256,
        steps_per_epoch=256,
        num_envs=2,
        callbacks=[Recorder()],
        verbose=0,
    ).history
    assert calls.count("batch_begin") == calls.count("rollout_end") == 4
    assert calls.count("episode_end") == agent.episodes > 0
    while "batch_end" in calls:
        end = calls.index("batch_end")
        assert calls[0] == "batch_begin" and calls[end - 1] == "rollout_end"
        del calls[: end + 1]
    for statistic in ("mean", "min", "max"):
        assert history[f"twice_{statistic}"][-1] == pytest.approx(
            2 * history["episode_length_mean"][-1]
            if statistic == "mean"
            else 2 * history[f"episode_return_{statistic}"][-1]
        )


def test_rollout_can_be_rewritten():
    class NoReward(Callback):
        def on_rollout_end(self, rollout):
            rollout.rewards = rollout.rewards * 0.0
            return rollout

    def weights(callbacks):
        agent = kerasrl.PG(rollout_length=16, seed=0, normalize_advantages=False)
        agent.compile(run_eagerly=True)
        agent.fit("CartPole-v1", steps=64, num_envs=2, callbacks=callbacks, verbose=0)
        return agent.get_weights()

    plain, silent = weights([]), weights([NoReward()])
    assert any((a != b).any() for a, b in zip(plain, silent, strict=True))
