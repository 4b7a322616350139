"""Rewards for what was not foreseen: the definition, and that they fade."""

import gymnasium
import numpy as np
import pytest
import tiny

import kerasrl
from kerasrl.callbacks import Callback, Curiosity


class Seen(Callback):
    """Keeps the rewards of rollouts, before or after curiosity."""

    def __init__(self):
        super().__init__()
        self.rollouts = []

    def on_rollout_end(self, rollout):
        self.rollouts.append(rollout)


def test_what_is_added_is_the_error_of_the_prediction():
    """A model that foresees no change at all is wrong by the change itself."""
    curiosity = Curiosity(scale=0.5, clip=1e9, learning_rate=1e-12, seed=0)
    before, after = Seen(), Seen()
    make, zeros = curiosity._make, []

    def make_zeros(*sizes):
        model = make(*sizes)
        model.set_weights([0.0 * weight for weight in model.get_weights()])
        zeros.append(model)
        return model

    curiosity._make = make_zeros
    agent = tiny.make("PPO")
    agent.fit(
        tiny.hostile_env("PPO"),
        steps=32,
        num_envs=2,
        callbacks=[before, curiosity, after],
        verbose=0,
    )
    (rollout,), (shaped,) = before.rollouts, after.rollouts
    assert len(zeros) == 1
    changes, added = [], []
    for time in range(16):
        for env in range(2):
            ended = rollout.terminated[time, env] or rollout.truncated[time, env]
            difference = shaped.rewards[time, env] - rollout.rewards[time, env]
            if not ended:
                later = (
                    rollout.next_inputs["observations"]
                    if time == 15
                    else rollout.observations[time + 1]
                )
                following = later[env]
            elif rollout.terminated[time, env]:
                assert difference == 0.0  # Nobody knows what followed.
                continue
            else:
                final = rollout.final
                here = (final["time"] == time) & (final["env"] == env)
                (following,) = final["observations"][here]
            changes.append(following - rollout.observations[time, env])
            added.append(difference)
    changes = np.array(changes, np.float64)
    spread = changes.std(axis=0)
    spread[spread < 1e-8] = 1.0  # What never moves.
    expected = 0.5 * np.square(changes / spread).mean(axis=-1)
    np.testing.assert_allclose(added, expected, rtol=1e-3, atol=1e-4)
    assert rollout.truncated.any() and rollout.terminated.any()


def test_to_end_is_no_news_for_replay_either():
    """Whose rollouts have what was seen after a termination, too."""
    before, after = Seen(), Seen()
    agent = tiny.make("DQN", learning_starts=1000)
    callbacks = [before, Curiosity(seed=0), after]
    agent.fit(
        tiny.hostile_env("DQN"), steps=96, num_envs=2, callbacks=callbacks, verbose=0
    )
    ends = 0
    for rollout, shaped in zip(before.rollouts, after.rollouts, strict=True):
        added = shaped.rewards - rollout.rewards
        assert (added[rollout.terminated] == 0.0).all()
        ends += rollout.terminated.sum()
    assert ends > 0


def test_what_comes_again_and_again_is_no_news():
    curiosity = Curiosity(seed=0, learning_rate=1e-2, batch_size=64)
    history = tiny.make("PPO").fit(
        *("CartPole-v1", 640), steps_per_epoch=64, num_envs=2, callbacks=[curiosity],
        verbose=0,
    ).history  # fmt: skip
    errors = history["curiosity_error"]
    assert 0.5 < errors[0] < 3.0 and errors[-1] < 0.3 * errors[0]
    np.testing.assert_allclose(history["intrinsic_reward"], 0.1 * np.array(errors), 0.2)
    # What episodes return is told without it.
    assert history["episode_return_mean"] == history["episode_length_mean"]


def test_it_goes_on_exactly_where_it_was_saved(tmp_path):
    straight, curiosity = tiny.make("PPO"), Curiosity(batch_size=16, seed=0)
    arguments = {"steps": 64, "num_envs": 2, "verbose": 0}
    straight.fit("CartPole-v1", callbacks=[curiosity], **arguments)
    resumed = kerasrl.load(straight.save(tmp_path / "agent.kerasrl"))
    loaded = Curiosity(batch_size=16)
    loaded.load(curiosity.save(tmp_path / "curiosity.npz"))
    for agent, callback in ((straight, curiosity), (resumed, loaded)):
        agent.fit("CartPole-v1", callbacks=[callback], **arguments)
    pairs = [*zip(straight.get_weights(), resumed.get_weights(), strict=True)]
    models = (each.foreseer.get_weights() for each in (curiosity, loaded))
    for ours, theirs in [*pairs, *zip(*models, strict=True)]:
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match="hidden_units"):
        Curiosity(hidden_units=(8,)).load(tmp_path / "curiosity.npz")
    with pytest.raises(ValueError, match="first rollout"):
        Curiosity().save(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", x=np.zeros(2))
    np.save(tmp_path / "array.npy", np.zeros(2))
    whole = (tmp_path / "curiosity.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("other.npz", "array.npy", "cut.npz", "empty.npz"):
        with pytest.raises(ValueError, match="not written by"):
            Curiosity().load(tmp_path / name)


def test_to_load_changes_all_or_nothing_and_no_argument(tmp_path):
    curiosity = Curiosity(batch_size=16, seed=0)
    tiny.make("PG").fit(
        *("CartPole-v1", 64), num_envs=2, callbacks=[curiosity], verbose=0
    )
    path = curiosity.save(tmp_path / "curiosity.npz")
    slower = Curiosity(learning_rate=1e-4)
    slower.load(path)
    assert float(slower.foreseer.optimizer.learning_rate) == pytest.approx(1e-4)

    with np.load(path) as file:
        arrays = dict(file)
    arrays["seen.mean"] = arrays["seen.mean"] + 1
    del arrays["changes.count"]
    np.savez(tmp_path / "damaged.npz", **arrays)
    other = Curiosity(hidden_units=(8,), seed=1)
    tiny.make("PG").fit("CartPole-v1", 32, num_envs=2, callbacks=[other], verbose=0)
    for callback, name in ((other, "curiosity"), (curiosity, "damaged")):
        callback.save(tmp_path / "before.npz")
        with pytest.raises(ValueError, match=name):
            callback.load(tmp_path / f"{name}.npz")
        callback.save(tmp_path / "after.npz")
        with np.load(tmp_path / "before.npz") as before:
            with np.load(tmp_path / "after.npz") as after:
                assert all(np.array_equal(before[x], after[x]) for x in before.files)


def test_what_cannot_be_foreseen_is_refused():
    with pytest.raises(ValueError, match="scale"):
        Curiosity(scale=0.0)
    image = gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)

    def make_env():
        env = kerasrl.testing.RandomEndsEnv()
        env.observation_space = image
        return env

    agent = tiny.make("PPO", policy={"normalize_observations": False})
    with pytest.raises(ValueError, match="is an image.*features"):
        agent.fit(make_env, steps=32, callbacks=[Curiosity()], verbose=0)
