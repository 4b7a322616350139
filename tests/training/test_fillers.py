"""Rows without a step: a worker was lost, or a vector environment only reset."""

import dataclasses

import numpy as np
import pytest
import references
import tensorflow as tf
from by_definition import DISCRETE, OBSERVATIONS
from daily import among
from tiny import OFF_POLICY, ON_POLICY

import kerasrl
from kerasrl.agents import on_policy
from kerasrl.rollouts import Rollout
from kerasrl.training import minibatches, sources

STEPS, ENVS = 12, 4
_BUILT = {}


def built(name):
    """An agent with weights of size one; the same for all tests that leave it alone."""
    if name not in _BUILT:
        agent = {"PPO": kerasrl.PPO, "A2C": kerasrl.A2C, "PG": kerasrl.PG}[name](
            policy={"hidden_units": (8,)}, gamma=0.9, seed=3
        )
        agent.compile(run_eagerly=True)
        agent.build(OBSERVATIONS, DISCRETE)
        generator = np.random.default_rng(5)
        for variable in agent.trainable_variables:
            variable.assign(generator.normal(size=variable.shape, scale=0.7))
        _BUILT[name] = agent
    return _BUILT[name]


def make_rollout(generator, valid, final=True):
    """A rollout with fillers, and a final observation for each step cut off."""
    shape = valid.shape
    kinds = generator.choice(4, shape, p=[0.7, 0.1, 0.1, 0.1])
    terminated = ((kinds == 1) | (kinds == 3)) & valid
    truncated = (kinds == 2) | (kinds == 3) | ~valid
    times, envs = np.nonzero(truncated & ~terminated & valid)

    def observations(*axes):
        return generator.normal(size=(*axes, 4)).astype(np.float32)

    def rewards(*axes):
        return generator.normal(size=axes).astype(np.float32)

    return Rollout(
        observations=observations(*shape),
        actions=generator.integers(0, 3, shape),
        rewards=rewards(*shape) * valid,
        terminated=terminated,
        truncated=truncated,
        valid=valid,
        episode_starts=np.concatenate(
            [np.ones_like(valid[:1]), (terminated | truncated)[:-1]]
        ),
        previous_actions=np.zeros(shape, np.int64),
        previous_rewards=rewards(*shape),
        next_inputs={
            "observations": observations(shape[1]),
            "previous_actions": np.zeros(shape[1], np.int64),
            "previous_rewards": rewards(shape[1]),
            "episode_starts": (terminated | truncated)[-1],
        },
        final={
            "time": times,
            "env": envs,
            "observations": observations(len(times)),
            "previous_actions": np.zeros(len(times), np.int64),
            "previous_rewards": rewards(len(times)),
            "state": (),
        }
        if final and len(times)
        else None,
    )


def values_of(agent, observations):
    inputs = agent.policy.example_inputs(len(observations))
    return np.asarray(agent.policy({**inputs, "observations": observations})["values"])


def next_values(agent, rollout):
    """V of what each step led to, before any reset."""
    found = np.stack(
        [
            values_of(agent, observations)
            for observations in (
                *rollout.observations[1:],
                rollout.next_inputs["observations"],
            )
        ]
    )
    if rollout.final is not None:
        final = rollout.final
        found[final["time"], final["env"]] = values_of(agent, final["observations"])
    return found


@pytest.mark.parametrize("name", ["PPO", "A2C", "PG"])
def test_targets_stop_before_rows_without_a_step(name):
    agent = built(name)
    for seed, chance in enumerate((0.1, 0.3, 0.6)):
        generator = np.random.default_rng(seed)
        rollout = make_rollout(generator, generator.random((STEPS, ENVS)) >= chance)
        arrays = on_policy.rollout_arrays(agent, rollout)
        found = agent.targets(tf.nest.map_structure(tf.constant, arrays))
        values = np.stack([values_of(agent, row) for row in rollout.observations])
        data = {
            "rewards": rollout.rewards,
            "next_values": next_values(agent, rollout),
            "terminated": rollout.terminated,
            "truncated": rollout.truncated,
        }
        if name == "PG":
            function, options = references.discounted_returns, {"gamma": 0.9}
            found = found["returns"]
        else:
            function, options = references.gae, {"gamma": 0.9, "lam": agent.gae_lambda}
            data = {"rewards": data.pop("rewards"), "values": values, **data}
            found = found["advantages"]
        expected = references.until_filler(function)(
            *data.values(), valid=rollout.valid, **options
        )
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_nothing_is_learnt_from_a_step_of_which_is_not_known_where_it_led():
    agent = built("PPO")
    generator = np.random.default_rng(0)
    rollout = make_rollout(generator, np.ones((STEPS, ENVS), bool), final=False)
    cut = rollout.truncated & ~rollout.terminated
    assert cut.any()
    arrays = on_policy.rollout_arrays(agent, rollout)
    np.testing.assert_array_equal(arrays["valid"], ~cut)
    # Nothing asks for values here: what is cut off is learnt from as far as it goes.
    without = kerasrl.PG(baseline=False)
    assert on_policy.rollout_arrays(without, rollout)["valid"].all()


def state_of(agent):
    variables = [*agent.policy.variables, *agent.policy.optimizer.variables]
    return [np.array(variable) for variable in variables]


@pytest.mark.parametrize(
    "name", among(["PPO", "A2C", "PPO_recurrent"], ["A2C", "PPO_recurrent"])
)
def test_a_rollout_without_a_step_teaches_nothing(name):
    agent, seen = ON_POLICY[name](seed=1), []

    class Lose(kerasrl.callbacks.Callback):
        def on_rollout_end(self, rollout):
            seen.append(state_of(agent))
            if len(seen) in (1, 3):
                no = np.zeros_like(rollout.valid)
                rollout = dataclasses.replace(rollout, valid=no, truncated=~no)
            return rollout

    agent.compile(run_eagerly=True)
    history = agent.fit(
        "CartPole-v1",
        steps=4 * 2 * agent.rollout_length,
        steps_per_epoch=1,
        num_envs=2,
        callbacks=[Lose()],
        verbose=0,
    ).history
    seen.append(state_of(agent))
    # Not by momentum, and the statistics of observations stay as they are too.
    for number in (0, 2):
        for before, after in zip(seen[number], seen[number + 1], strict=True):
            np.testing.assert_array_equal(before, after)
    assert any(
        (before != after).any() for before, after in zip(seen[1], seen[2], strict=True)
    )
    np.testing.assert_array_equal(np.isnan(history["loss"]), [1, 0, 1, 0])


@pytest.mark.parametrize("name", among(["DQN", "R2D2", "SAC"], ["DQN", "R2D2"]))
def test_replay_learns_nothing_new_where_there_was_no_step(name, monkeypatch):
    # One update or more in each iteration.
    due = {"train_every": 8} if name == "R2D2" else {}
    agent = OFF_POLICY[name](seed=1, learning_starts=4, **due)
    seen, collect = [], sources.ActingSource.collect

    def lose(source):
        seen.append(agent.get_weights())
        rollout = collect(source)
        if len(seen) == 6:
            no = np.zeros_like(rollout.valid)
            rollout = dataclasses.replace(
                rollout, valid=no, truncated=~no, terminated=no, final=None
            )
        return rollout

    monkeypatch.setattr(sources.ActingSource, "collect", lose)
    agent.compile(run_eagerly=True)
    iteration = 2 * agent.iteration_length(2)
    history = agent.fit(
        "Pendulum-v1" if name == "SAC" else "CartPole-v1",
        steps=8 * iteration,
        steps_per_epoch=iteration,
        num_envs=2,
        verbose=0,
    ).history
    for before, after in zip(seen[5], seen[6], strict=True):
        np.testing.assert_array_equal(before, after)
    assert np.isnan(history["loss"][5]) and not np.isnan(history["loss"][6])


def test_minibatches_without_a_step_are_left_out():
    valid = np.zeros(40, bool)
    valid[[3, 4, 17, 18, 19, 31]] = True
    drawn = minibatches.draw_minibatches(np.random.default_rng(0), valid, 3, 2)
    used = drawn["indices"][: drawn["count"]]
    assert 4 <= len(used) < 2 * 14 and valid[used].any(axis=1).all()
    assert not valid[drawn["indices"][drawn["count"] :]].any()
    chosen = used[drawn["weights"][: drawn["count"]] > 0]
    np.testing.assert_array_equal(
        np.sort(chosen[valid[chosen]]), np.repeat(np.flatnonzero(valid), 2)
    )
    # The same as before, where all are valid.
    whole = minibatches.draw_minibatches(np.random.default_rng(0), valid | True, 3, 2)
    assert whole["count"] == len(whole["indices"]) == 28
    order = np.random.default_rng(0).permutation(40)
    np.testing.assert_array_equal(whole["indices"][:13].ravel(), order[:39])
