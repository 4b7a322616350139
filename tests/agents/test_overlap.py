"""Collecting and updating at the same time."""

import threading
import time

import numpy as np
import pytest

import kerasrl
from kerasrl.training import sources


def make(overlap, **arguments):
    agent = kerasrl.DQN(
        policy={"hidden_units": (8,)},
        learning_starts=64,
        batch_size=16,
        updates_per_call=4,
        overlap=overlap,
        seed=5,
        **arguments,
    )
    agent.compile(jit_compile=False)
    return agent


def same(first, second):
    pairs = zip(first.get_weights(), second.get_weights(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    "prioritized", [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_the_outcome_does_not_depend_on_timing(prioritized):
    agents = [make(True, prioritized=prioritized) for _ in range(2)]
    for agent in agents:
        agent.fit("CartPole-v1", steps=400, num_envs=4, verbose=0)
    assert same(*agents)
    assert agents[0].updates > 0


def test_workers_that_collect_meanwhile_change_nothing():
    agents = [make(True, prioritized=True) for _ in range(2)]
    for agent, num_workers in zip(agents, (0, 2), strict=True):
        agent.fit(
            "CartPole-v1", steps=200, num_envs=4, num_workers=num_workers, verbose=0
        )
    assert same(*agents)
    assert agents[0].get_state() == agents[1].get_state()
    assert agents[0].updates > 0


def test_no_update_goes_on_after_collecting_failed(monkeypatch):
    """Else a thread writes weights while whoever caught the error reads them."""
    agent = make(True)
    agent.fit("CartPole-v1", steps=200, num_envs=4, verbose=0)
    update, began, ended = agent._compiled_update, threading.Event(), []

    class Slow(type(update)):
        def __call__(self, *inputs):
            began.set()
            time.sleep(0.5)
            result = super().__call__(*inputs)
            ended.append(True)
            return result

    update.__class__ = Slow

    def fail():
        began.wait(10.0)
        raise OSError("the environment is gone")

    monkeypatch.setattr(sources.ActingSource, "collect", lambda source: fail())
    before = agent.updates
    with pytest.raises(OSError, match="is gone"):
        agent.fit("CartPole-v1", steps=200, num_envs=4, verbose=0)
    assert ended == [True]
    assert agent.updates == int(agent.policy.optimizer.iterations) > before


def test_an_update_learns_from_the_iterations_before():
    seen = {True: [], False: []}

    def watch(overlap):
        agent = make(overlap)
        sample = agent.sample

        def watched(num_batches):
            seen[overlap].append((agent.env_steps, len(agent.buffer)))
            return sample(num_batches)

        agent.sample = watched
        agent.fit("CartPole-v1", steps=160, num_envs=4, verbose=0)
        return agent

    ahead, in_turn = watch(True), watch(False)
    assert ahead.env_steps == in_turn.env_steps == 160
    # Each iteration takes 16 steps. In turn, an update sees all that was taken so far.
    # The first call of each only finds out what there is to log.
    assert in_turn.num_traces == ahead.num_traces == 1
    assert all(steps == length for steps, length in seen[False])
    assert [steps for steps, _ in seen[False][1:]] == list(range(64, 161, 16))
    # At the same time, the update that runs beside steps 64 to 80 sees the first 64.
    assert [steps for steps, _ in seen[True][1:]] == list(range(64, 160, 16))
    assert in_turn.updates == ahead.updates + 4


def test_resume_is_exact(tmp_path):
    straight, resumed = make(True, n_step=3), make(True, n_step=3)
    for agent in (straight, resumed):
        agent.fit("CartPole-v1", steps=200, num_envs=2, verbose=0)
    resumed.save(tmp_path / "agent.kerasrl")
    loaded = kerasrl.load(tmp_path / "agent.kerasrl")
    for agent in (straight, loaded):
        agent.fit("CartPole-v1", steps=200, num_envs=2, verbose=0)
    assert same(straight, loaded)


def test_an_error_in_the_update_reaches_the_caller():
    class Broken(kerasrl.DQN):
        def due(self, numbers):
            due = super().due(numbers)
            if self.updates > 8:
                # Another shape, which cannot be unpacked.
                due["update_target"] = due["update_target"][:0]
            return due

    agent = Broken(
        policy={"hidden_units": (8,)}, learning_starts=16, overlap=True, seed=0
    )
    agent.compile(jit_compile=False)
    with pytest.raises(Exception, match="."):
        agent.fit("CartPole-v1", steps=400, num_envs=4, verbose=0)
