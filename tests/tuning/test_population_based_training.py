"""Populations: who exploits whom, what is taken over, and the same after a restart."""

import json
import math

import pytest
from fake_runner import FakeRunner, make_trials

from kerasrl.tuning import (
    Continue,
    Exploit,
    Pause,
    PopulationBasedTraining,
    loguniform,
    uniform,
)

END = 200


def population(**arguments):
    return PopulationBasedTraining(
        {"aim": loguniform(0.1, 100.0)},
        **{"interval": 10, "metric": "level", **arguments},
    )


def step(state, settings):
    """A level that rises where `aim` is near to an optimum, which moves from 1 to 8."""
    state["env_steps"] += 1
    optimum = 8 ** (state["env_steps"] / END)
    distance = math.log(settings["aim"] / optimum) / 0.3
    state["level"] = state.get("level", 0.0) + math.exp(-(distance**2) / 2)
    return dict(state)


AIMS = [{"aim": 10 ** (-1 + 3 * index / 7)} for index in range(8)]


def scored(count, fraction):
    scheduler = population(quantile_fraction=fraction)
    trials = make_trials([{"aim": 1.0}] * count)
    for trial in trials:
        scheduler.scores[trial.name] = float(trial.number)
    lower, upper = scheduler.quantiles(trials)
    return [each.number for each in lower], [each.number for each in upper]


@pytest.mark.parametrize(
    ("count", "fraction", "size"),
    [
        *((8, 0.25, 2), (4, 0.5, 2), (3, 0.25, 1), (3, 0.5, 1), (2, 0.25, 1)),
        *((1, 0.5, 0), (0, 0.25, 0), (8, 0.0, 0)),
    ],
)
def test_sizes_of_quantiles(count, fraction, size):
    lower, upper = scored(count, fraction)
    assert lower == list(range(size))
    assert upper == list(range(count - size, count))


def test_who_has_ended_or_has_no_score_does_not_count():
    scheduler = population(quantile_fraction=0.5)
    trials = make_trials([{"aim": 1.0}] * 5)
    for trial in trials[:4]:
        scheduler.scores[trial.name] = float(trial.number)
    scheduler.scores[trials[1].name] = None
    trials[3].status = "finished"
    lower, upper = scheduler.quantiles(trials)
    # What diverged is the worst.
    assert [each.number for each in (*lower, *upper)] == [1, 2]


def results(scheduler, trials, env_steps, levels):
    found = []
    for trial, level in zip(trials, levels, strict=True):
        result = {"env_steps": env_steps, "level": level}
        trial.results.append(result)
        found.append(scheduler.on_result(trial, result, trials))
    return found


def running(count):
    trials = make_trials([{"aim": float(1 + index)} for index in range(count)])
    for trial in trials:
        trial.status = "running"
    return trials


def test_nothing_happens_before_the_interval_and_while_burning_in():
    scheduler, trials = population(burn_in=15), running(3)
    for env_steps in (5, 10, 14):
        assert results(scheduler, trials, env_steps, [1, 2, 3]) == [Continue()] * 3
    assert not scheduler.scores
    results(scheduler, trials, 15, [1, 2, 3])
    assert len(scheduler.scores) == 3
    # Since that, no interval has passed.
    assert results(scheduler, trials, 24, [3, 2, 1]) == [Continue()] * 3


def test_the_best_save_and_the_worst_go_on_from_them():
    scheduler, trials = population(factors=(2.0,), resample_probability=0), running(4)
    # The first knows nobody yet, and there is nothing to take over from the second.
    assert results(scheduler, trials, 10, [4, 3, 2, 1]) == [
        Continue(),
        Continue(),
        Continue(),
        Continue(),
    ]
    # It asks again as soon as there is, whatever the interval.
    trials[0].checkpoint = trials[0].directory / "checkpoint-1"
    trials[3].results.append({"env_steps": 11, "level": 1})
    decision = scheduler.on_result(trials[3], trials[3].result, trials)
    assert decision == Exploit(trials[0], {"aim": 2.0})
    # Its interval is that of its donor from now on.
    assert scheduler.perturbed[trials[3].name] == scheduler.perturbed[trials[0].name]
    trials[0].results.append({"env_steps": 20, "level": 5})
    decision = scheduler.on_result(trials[0], trials[0].result, trials)
    assert decision == Continue(checkpoint=True)


def test_donors_are_drawn_from_the_best_at_random():
    scheduler = population(quantile_fraction=0.5, resample_probability=0)
    trials = running(4)
    for trial in trials:
        trial.checkpoint = trial.directory / "checkpoint-1"
    results(scheduler, trials, 10, [2, 1, 4, 3])
    donors = set()
    for turn in range(2, 30):
        decisions = results(scheduler, trials, 10 * turn, [2, 1, 4, 3])
        donors |= {x.donor.number for x in decisions if isinstance(x, Exploit)}
    assert donors == {2, 3}


def test_who_only_has_what_was_taken_from_another_is_no_donor():
    scheduler, trials = population(quantile_fraction=0.5), running(2)
    trials[0].checkpoint = trials[0].directory / "checkpoint-1-of-00001-0"
    trials[0].lineage.append({"taken": "checkpoint-1-of-00001-0"})
    assert results(scheduler, trials, 10, [2, 1]) == [Continue()] * 2
    trials[0].checkpoint = trials[0].directory / "checkpoint-2"
    assert isinstance(results(scheduler, trials, 20, [2, 1])[1], Exploit)


def test_who_diverged_is_no_donor():
    scheduler, trials = population(quantile_fraction=0.5), running(2)
    for trial in trials:
        trial.checkpoint = trial.directory / "checkpoint-1"
    results(scheduler, trials, 1, [1.0, 1.0])
    found = results(scheduler, trials, 10, [None, None])
    assert not any(isinstance(each, Exploit) for each in found)


def test_trials_take_turns_where_slots_are_few():
    scheduler, trials = population(), running(3)
    trials[2].status = "pending"
    trials[1].results.append({"env_steps": 3, "level": 1})
    assert results(scheduler, trials[:1], 10, [1]) == [Continue()]
    trials[0].results.clear()
    scheduler = population()
    trials[0].results.append({"env_steps": 10, "level": 1})
    decision = scheduler.on_result(trials[0], trials[0].result, trials)
    assert decision == Pause()
    trials[0].status = trials[1].status = "paused"
    assert scheduler.choose(trials) is trials[2]
    trials[2].status = "running"
    assert scheduler.choose(trials) is trials[1]


@pytest.mark.parametrize("arguments", [{}, {"synchronous": True}, {"slots": 3}])
def test_a_population_follows_an_optimum_that_moves(arguments):
    slots = arguments.pop("slots", 8)
    runner = FakeRunner(AIMS, population(**arguments), step, END, slots).run()
    best = max(each.results[-1]["level"] for each in runner.trials)
    fixed = []
    for index in range(200):
        state, settings = {"env_steps": 0}, {"aim": 10 ** (-1 + 3 * index / 199)}
        for _ in range(END):
            step(state, settings)
        fixed.append(state["level"])
    assert best > 1.5 * max(fixed)
    assert all(0.1 <= each.settings["aim"] <= 100 for each in runner.trials)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("slots", [8, 3])
@pytest.mark.parametrize("most", [1, 37, 73, 76, 83, 200, 801])
def test_a_restart_gives_the_same_schedule(most, slots, late):
    whole = FakeRunner(AIMS, population(synchronous=True), step, END).run()
    again = FakeRunner(AIMS, population(synchronous=True), step, END, slots)
    again.run(most, late).resume(population(synchronous=True)).run(most, late)
    again.resume(population(synchronous=True)).run()
    schedule = whole.schedule()
    assert sum(map(len, schedule.values())) >= 19
    assert again.schedule() == schedule
    levels = [each.result["level"] for each in whole.trials]
    assert [each.result["level"] for each in again.trials] == levels


def test_all_wait_for_each_other_and_take_over_what_was_then():
    runner = FakeRunner(AIMS, population(synchronous=True), step, END, slots=2).run()
    lineage = [each for trial in runner.trials for each in trial.lineage]
    assert {each["donor_env_steps"] % 10 for each in lineage} == {0}
    # At each of 19 barriers, two of eight.
    assert len(lineage) == 38


def test_burning_in_keeps_nobody_waiting_for_ever():
    scheduler = population(synchronous=True, burn_in=55)
    runner = FakeRunner(AIMS, scheduler, step, END).run()
    first = min(x["donor_env_steps"] for t in runner.trials for x in t.lineage)
    assert first == 55


def test_a_trial_that_fails_keeps_nobody_waiting():
    runner = FakeRunner(AIMS, population(synchronous=True), step, END)
    runner.trials[3].status = "failed"
    runner.run()
    assert sum(len(each.lineage) for each in runner.trials) == 38


def test_what_was_decided_is_done_after_a_kill():
    scheduler, trials = population(quantile_fraction=0.5), running(2)
    for trial in trials:
        trial.checkpoint = trial.directory / "checkpoint-1"
    results(scheduler, trials, 10, [2, 1])
    # Killed before anything was done about it.
    again = population(quantile_fraction=0.5)
    again.set_state(json.loads(json.dumps(scheduler.get_state(), allow_nan=False)))
    decision = again.on_start(trials[1], trials)
    assert isinstance(decision, Exploit) and decision.donor is trials[0]
    trials[1].lineage.append({"donor": trials[0].name})
    assert again.on_start(trials[1], trials) == Continue()
    assert again.on_start(trials[0], trials) == Continue()


def test_a_function_may_have_the_last_word():
    scheduler = population(
        quantile_fraction=0.5, explore=lambda settings: {**settings, "aim": 7.0}
    )
    trials = running(2)
    trials[0].checkpoint = trials[0].directory / "checkpoint-1"
    found = results(scheduler, trials, 10, [2, 1])
    assert found[1].settings == {"aim": 7.0}


@pytest.mark.parametrize(
    "arguments",
    [
        {"quantile_fraction": 0.6},
        {"quantile_fraction": -0.1},
        {"interval": 0},
        {"resample_probability": 2},
        {"factors": ()},
        {"factors": (0.0,)},
        {"mode": "best"},
        {"burn_in": -1},
        {"seed": -1},
        {"mutations": {}},
        {"mutations": {"policy.hidden_units": [[32], [64]]}},
    ],
)
def test_what_cannot_be_meant_is_refused(arguments):
    arguments = {"mutations": {"aim": uniform(0, 1)}, "interval": 10, **arguments}
    with pytest.raises(ValueError, match="Received"):
        PopulationBasedTraining(**arguments)


def test_who_could_not_take_over_goes_on_as_it_was():
    scheduler, trials = population(quantile_fraction=0.5), running(2)
    trials[0].checkpoint = trials[0].directory / "checkpoint-1"
    results(scheduler, trials, 10, [2, 1])
    # Its launcher found no file.
    results(scheduler, trials, 11, [2, 1])
    assert scheduler.on_start(trials[1], trials) == Continue()
