"""Iterations that are put together by hand, compared with those of `fit`."""

import contextlib
import dataclasses
import itertools

import gymnasium
import keras
import numpy as np
import optree
import pytest
import tiny

import kerasrl
from kerasrl import execution
from kerasrl.testing import RandomEndsEnv
from kerasrl.training import asynchrony

SMALL = {"hidden_units": (8,)}
STEPS = 5 * 4 * 6  # Six iterations of A2C in four environments.


def make(agent_class=kerasrl.A2C, **arguments):
    """An agent that runs line by line, which for a few iterations takes less time."""
    agent = agent_class(policy=SMALL, seed=0, **arguments)
    agent.compile(run_eagerly=True)
    return agent


def rollouts_of(agent, steps=STEPS, env="CartPole-v1", **arguments):
    arguments = {"num_envs": 4, **arguments}
    return execution.parallel_rollouts(agent, env, steps, **arguments)


def fitted(agent, steps=STEPS, env="CartPole-v1"):
    agent.fit(env, steps=steps, num_envs=4, verbose=0)
    return agent


def assert_same(agent, other, **tolerance):
    compare = np.testing.assert_allclose if tolerance else np.testing.assert_array_equal
    for found, expected in zip(agent.get_weights(), other.get_weights(), strict=True):
        compare(found, expected, **tolerance)
    assert agent.get_state() == other.get_state()


def split(rollout):
    """The same as two rollouts of half as many environments."""
    half = rollout.rewards.shape[1] // 2
    for own in (slice(0, half), slice(half, 2 * half)):
        take = lambda x, own=own: x[own]  # noqa: E731
        final = rollout.final
        if final is not None:
            chosen = (final["env"] >= own.start) & (final["env"] < own.stop)
            final = optree.tree_map(lambda x, chosen=chosen: x[chosen], final)
            final["env"] = final["env"] - own.start
            final = final if len(final["env"]) else None
        yield dataclasses.replace(
            rollout.map(lambda x, own=own: x[:, own]),
            state=optree.tree_map(take, rollout.state),
            next_inputs=optree.tree_map(take, rollout.next_inputs),
            final=final,
            first_env=own.start,
        )


@pytest.fixture(scope="module")
def six():
    """An agent after six iterations of `fit`."""
    return fitted(make())


def test_train_one_step_is_an_iteration_of_fit(six):
    agent = make()
    results = list(execution.train_one_step(agent, rollouts_of(agent)))
    assert_same(agent, six)
    assert (agent.env_steps, agent.episodes) == (STEPS, six.episodes)
    assert len(results) == agent.iterations == 6 and np.isfinite(results[-1]["loss"])
    assert agent.envs is None and agent.source is None


@pytest.mark.slow
def test_train_one_step_replays_as_fit_does():
    agent, other = tiny.make("SimpleQ"), tiny.make("SimpleQ")
    results = execution.train_one_step(agent, rollouts_of(agent, 96))
    (logs,) = execution.report(agent, results, every=1000)
    assert_same(agent, fitted(other, 96))
    history = other.policy.history.history
    assert logs["replay_ratio"] == history["replay_ratio"][0] > 0.0
    assert logs["loss"] == history["loss"][0] and agent.updates > 0


def test_a_checkpoint_between_two_results_is_whole(tmp_path):
    agent = make()
    with contextlib.closing(rollouts_of(agent, None)) as rollouts:
        results = execution.train_one_step(agent, rollouts)
        for _ in itertools.islice(results, 3):
            pass
        loaded = kerasrl.load(agent.save(tmp_path / "agent.kerasrl"))
        assert_same(loaded, agent)
        assert (loaded.env_steps, loaded.iterations) == (60, 3)
        results.close()
    assert_same(fitted(agent, 40), fitted(loaded, 40))


def test_gradients_of_rollouts_are_those_of_fit():
    """Truncations too, whose last observations are valued by the weights that acted."""

    def new():
        agent = make(kerasrl.A3C, lag=1, rollout_length=5, max_grad_norm=0.1)
        agent.compile(keras.optimizers.Adam(0.05), jit_compile=False)
        return agent

    agent, other = new(), new()
    gradients = execution.async_gradients(agent, rollouts_of(agent, env=RandomEndsEnv))
    results = list(execution.apply_gradients(agent, gradients))
    fitted(other, env=RandomEndsEnv)
    assert_same(agent, other, rtol=1e-5, atol=1e-6)
    assert [result["gradient_lag"] for result in results] == [0] + [1] * 5
    assert {"loss", "policy_loss", "value_loss", "gradient_norm"} <= set(results[0])


def test_gradients_are_taken_where_the_agent_was_when_it_acted():
    agent = make()
    with contextlib.closing(rollouts_of(agent, None, RandomEndsEnv)) as source:
        rollout = next(each for each in source if each.final is not None)
        (there,) = execution.async_gradients(agent, [rollout])
        acted = [np.array(v) for v in agent.policy.trainable_variables]
        agent.set_weights([array + 0.5 for array in agent.get_weights()])
        (here,) = execution.async_gradients(agent, [rollout])
        moved = agent.get_weights()
        agent.published, agent.iterations = {0: acted}, 3
        rollout.extras["policy_version"] = np.zeros((5, 4), np.int64)
        (again,) = execution.async_gradients(agent, [rollout])
    assert (again.version, again.num_steps, again.num_envs) == (0, 20, 4)
    assert again.metrics == there.metrics != here.metrics
    for found, expected in zip(again.arrays, there.arrays, strict=True):
        np.testing.assert_array_equal(found, expected)
    for found, expected in zip(agent.get_weights(), moved, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_mean_over_all_workers_is_the_gradient_of_all(six):
    agent = make()
    halves = (half for whole in rollouts_of(agent) for half in split(whole))
    gradients = execution.async_gradients(agent, halves)
    results = list(execution.apply_gradients(agent, gradients, update_all=True))
    assert_same(agent, six, rtol=1e-5, atol=1e-6)
    assert len(results) == 6


def test_workers_send_gradients_at_the_weights_that_they_acted_by(tmp_path):
    agent = make(normalize_rewards=True)
    rollouts = rollouts_of(agent, None, num_workers=2, mode="async")
    gradients = execution.async_gradients(agent, rollouts)
    results = execution.apply_gradients(agent, gradients)
    with contextlib.closing(execution.report(agent, results, every=100)) as reports:
        logs = next(reports)
        assert logs["env_steps"] == agent.env_steps == 100
        assert logs["iterations"] == agent.iterations == 10
        assert logs["policy_lag_max"] == 1.0 >= logs["gradient_lag"] > 0.0
        # The weights of whatever is still in the making are in the checkpoint.
        assert agent.iterations - 1 in agent.published
        loaded = kerasrl.load(agent.save(tmp_path / "agent.kerasrl"))
        assert_same(loaded, agent)
        assert loaded.published.keys() == agent.published.keys()
    assert not agent.published and not agent.keeps_published
    fresh = rollouts_of(agent, None, num_workers=2, mode="async")
    with pytest.raises(ValueError, match="weights of 1 iterations ago"):
        list(execution.train_one_step(agent, fresh))
    assert agent.envs is None


@pytest.fixture(scope="module")
def rollouts():
    """Rollouts with all kinds of ends, of an agent with memory."""
    agent = kerasrl.A2C(policy={**SMALL, "cell": "gru", "cell_units": 3}, seed=0)
    return list(rollouts_of(agent, 60, RandomEndsEnv))


def test_concatenate_puts_environments_side_by_side(rollouts):
    assert any(rollout.final is not None for rollout in rollouts)
    for whole in rollouts:
        (joined,) = execution.concatenate(split(whole), min_steps=whole.num_steps)
        leaves, structure = optree.tree_flatten(joined)
        expected, expected_structure = optree.tree_flatten(whole)
        assert structure == expected_structure
        for leaf, array in zip(leaves, expected, strict=True):
            np.testing.assert_array_equal(leaf, array)
            assert leaf.dtype == array.dtype
    joined = list(execution.concatenate(rollouts, min_steps=21))
    assert [rollout.rewards.shape for rollout in joined] == [(5, 8)]
    with pytest.raises(ValueError, match="not alike"):
        list(execution.concatenate([rollouts[0], rollouts[1][:3]], 1000))
        list(execution.concatenate([rollouts[0], rollouts[1][:3]], 21))


def test_standardize(rollouts):
    rollout = rollouts[0]
    valid = rollout.valid.copy()
    valid[0, 0] = False
    noise = np.arange(20.0).reshape(5, 4)
    changed = dataclasses.replace(rollout, valid=valid, infos={"noise": noise})
    changed.rewards[0, 0] = 100.0
    (result,) = execution.standardize([changed], "rewards")
    assert result.rewards.dtype == np.float32 and result.rewards[0, 0] == 100.0
    np.testing.assert_allclose(result.rewards[valid].mean(), 0.0, atol=1e-6)
    assert changed.rewards[0, 0] == 100.0 and result.actions is changed.actions
    (result,) = execution.standardize([result], "noise")
    np.testing.assert_allclose(result.infos["noise"][valid].std(), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(changed.infos["noise"], noise)
    same = dataclasses.replace(changed, rewards=np.ones((5, 4), np.float32))
    (result,) = execution.standardize([same], "rewards")
    assert not result.rewards[valid].any()
    with pytest.raises(ValueError, match=r"Expected one of \['noise', 'rewards'\]"):
        list(execution.standardize([changed], "advantages"))
    wide = dataclasses.replace(changed, infos={"wide": np.zeros((5, 4, 2))})
    with pytest.raises(ValueError, match="one number for each step"):
        list(execution.standardize([wide], "wide"))
    with pytest.raises(TypeError, match="name of a field"):
        execution.standardize([changed], 5)


def test_report_means_what_fit_logs(six):
    agent = make()
    results = execution.train_one_step(agent, rollouts_of(agent))
    reports = list(execution.report(agent, results, every=50))
    assert [logs["env_steps"] for logs in reports] == [60, 120]
    assert [logs["iterations"] for logs in reports] == [3, 6]
    history = six.policy.history.history
    assert set(history) - set(reports[-1]) == set()
    losses = [logs["loss"] for logs in reports]
    np.testing.assert_allclose(np.mean(losses), history["loss"][0], rtol=1e-6)
    assert reports[-1]["episodes"] == history["episodes"][-1]


class Noted(gymnasium.Wrapper):
    """Notes that it was closed."""

    closed = 0

    def __init__(self):
        super().__init__(gymnasium.make("CartPole-v1"))

    def close(self):
        Noted.closed += 1
        super().close()


def test_environments_end_with_the_last_generator():
    agent = make()
    Noted.closed = 0
    joined = execution.concatenate(rollouts_of(agent, None, Noted), 40)
    results = execution.train_one_step(agent, joined)
    next(results)
    assert (agent.env_steps, agent.iterations) == (40, 1)
    assert len(agent.foreach_env(id)) == 4
    with pytest.raises(RuntimeError, match="being trained already"):
        agent.fit("CartPole-v1", steps=20)
    with pytest.raises(RuntimeError, match="being trained already"):
        next(rollouts_of(agent))
    results.close()
    assert Noted.closed == 4 and agent.envs is None
    # Also where learning fails.
    agent.learn_from = lambda rollout: {"loss": float("nan")}
    with pytest.raises(FloatingPointError, match="loss became nan"):
        list(execution.train_one_step(agent, rollouts_of(agent, None, Noted)))
    assert Noted.closed == 8 and agent.envs is None and agent.source is None


def test_progress_is_that_of_the_steps():
    agent = make(kerasrl.PPO, rollout_length=5, clip_ratio=lambda progress: 0.3)
    seen = [agent.progress for _ in rollouts_of(agent, 80)]
    assert seen == [0.0, 0.25, 0.5, 0.75]
    with pytest.raises(ValueError, match="clip_ratio is a function of progress"):
        rollouts_of(agent, None)


def test_what_cannot_work_says_so(rollouts):
    agent = make()
    with pytest.raises(ValueError, match="bulk_sync"):
        rollouts_of(agent, mode="synchronous")
    with pytest.raises(ValueError, match="steps=0"):
        rollouts_of(agent, 0)
    with pytest.raises(ValueError, match="min_steps=0"):
        execution.concatenate(rollouts, 0)
    with pytest.raises(ValueError, match="overlap"):
        rollouts_of(tiny.make("SimpleQ", overlap=True))
    with pytest.raises(ValueError, match="Leave one of them out"):
        lagging = kerasrl.A3C(synchronous=True, lag=1)
        rollouts_of(lagging, num_workers=2, mode="async")
    with pytest.raises(TypeError, match="not from rollouts"):
        rollouts_of(kerasrl.ES())
    for other, reason in (
        (tiny.make("SimpleQ"), "OnPolicyAgent"),
        (kerasrl.IMPALA(), "corrects for older weights"),
        (
            kerasrl.A2C.with_updates("A", after_step=lambda agent, batch: None)(),
            "batch",
        ),
    ):
        with pytest.raises(TypeError, match=reason):
            execution.async_gradients(other, rollouts)
    for stage in (execution.train_one_step, execution.async_gradients):
        with pytest.raises(RuntimeError, match="nothing acts"):
            list(stage(agent, rollouts))
    agent = make(normalize_rewards=True)
    joined = execution.concatenate(rollouts_of(agent), 40)
    with pytest.raises(ValueError, match="leave concatenate out"):
        list(execution.train_one_step(agent, joined))


def test_gradients_of_something_else_are_refused():
    agent = make()
    with contextlib.closing(rollouts_of(agent)) as source:
        rollout = next(source)
        with pytest.raises(TypeError, match="to apply"):
            list(execution.apply_gradients(agent, [rollout]))
        wrong = execution.Gradient([np.zeros(3)], 0, 20, 4, {"loss": 0.0})
        with pytest.raises(ValueError, match="one for each trainable variable"):
            list(execution.apply_gradients(agent, [wrong]))
        with pytest.raises(ValueError, match="update_all='all'"):
            execution.apply_gradients(agent, [], update_all="all")
        agent.parts = lambda: {
            "policy": [*agent.trainable_variables, keras.Variable(0.0)]
        }
        with pytest.raises(TypeError, match="trains variables that are not its"):
            list(execution.async_gradients(agent, [rollout]))
        versions = np.arange(20).reshape(5, 4)
        rollout.extras["policy_version"] = versions
        with pytest.raises(ValueError, match="one version"):
            list(execution.async_gradients(agent, [rollout]))
        assert asynchrony.num_parts(agent.envs) == 1
