"""Arguments that change over time."""

import math
import types

import numpy as np
import pytest
from keras.optimizers import schedules

from kerasrl.training.schedules import current, current_rates, rates, schedulable


def agent_with(value, env_steps=0, progress=0.0):
    return types.SimpleNamespace(
        rate=value,
        env_steps=env_steps,
        progress=progress,
        schedules={},
        check_hyperparameter=schedulable,
        source=types.SimpleNamespace(num_envs=2),
    )


@pytest.mark.parametrize(
    "schedule",
    [
        schedules.PolynomialDecay(1.0, 1000, 0.1),
        schedules.ExponentialDecay(1.0, 100, 0.9),
        schedules.CosineDecay(0.5, 2000),
        schedules.PiecewiseConstantDecay([100, 900], [1.0, 0.5, 0.1]),
        schedules.InverseTimeDecay(1.0, 100, 0.5),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_schedules_have_the_values_that_keras_gives_them(schedule):
    agent = agent_with(schedule)
    for step in (0, 1, 99, 100, 101, 500, 999, 1500, 10**6):
        agent.env_steps = step
        expected = float(schedule(step))
        assert current(agent, "rate") == pytest.approx(expected, rel=1e-6)


def test_a_schedule_of_single_numbers_only_works_too():
    class Steep(schedules.LearningRateSchedule):
        def __call__(self, step):
            return 1.0 if int(step) < 10 else 0.5

        def get_config(self):
            return {}

    agent = agent_with(Steep())
    assert current(agent, "rate") == 1.0
    agent.env_steps = 10
    assert current(agent, "rate") == 0.5


def test_numbers_and_functions_of_progress():
    assert current(agent_with(0.3), "rate") == 0.3
    assert current(agent_with(lambda p: 1 - p, progress=0.25), "rate") == 0.75


def test_rates_are_one_for_all_environments_or_one_for_each():
    found = current_rates(agent_with(0.5), "rate", 3)
    assert found.dtype == np.float32 and found.tolist() == [0.5, 0.5, 0.5]
    found = current_rates(agent_with([0.0, 0.25]), "rate", 2)
    assert found.tolist() == [0.0, 0.25]
    agent = agent_with([0.0, 0.25])
    agent.source.num_envs = 3
    with pytest.raises(ValueError, match="num_envs=2"):
        current_rates(agent, "rate", 3)


@pytest.mark.parametrize("value", [[], [-0.1], ["a"], "all", None, math.inf])
def test_wrong_rates_are_refused(value):
    with pytest.raises(ValueError, match="rate"):
        rates("rate", value)
