"""Stopping early: by the median of others, and at rungs."""

import json
import math

import pytest
from fake_runner import FakeRunner, make_trials

from kerasrl.tuning import (
    Continue,
    MedianStopping,
    Scheduler,
    Stop,
    SuccessiveHalving,
)
from kerasrl.tuning.schedulers import Measure


def report(scheduler, trials, index, env_steps, value):
    trial = trials[index]
    result = {"env_steps": env_steps, "episode_return_mean": value}
    trial.results.append(result)
    return scheduler.on_result(trial, result, trials)


def test_without_more_all_trials_run_in_order():
    trials = make_trials([{}, {}, {}])
    scheduler = Scheduler()
    assert scheduler.choose(trials) is trials[0]
    trials[0].status, trials[1].status = "running", "paused"
    assert scheduler.choose(trials) is trials[1]
    trials[1].status = trials[2].status = "finished"
    assert scheduler.choose(trials) is None
    assert report(scheduler, trials, 0, 1, 0.0) == Continue()


def test_the_median_is_of_means_and_the_best_of_a_trial_counts():
    scheduler = MedianStopping(min_trials=3)
    trials = make_trials([{}] * 4)
    # Means until 20 are 2, 4 and 6.
    for index, values in enumerate([(1, 3), (2, 6), (12, 0)]):
        for step, value in enumerate(values, 1):
            assert report(scheduler, trials, index, 10 * step, value) == Continue()
    # 4 is no worse than the median, 3.9 is.
    assert report(scheduler, trials, 3, 20, 4.0) == Continue()
    trials[3].results.clear()
    decision = report(scheduler, trials, 3, 20, 3.9)
    assert isinstance(decision, Stop) and "3.9" in decision.reason
    # What it had reached before counts for it.
    trials[3].results.clear()
    assert report(scheduler, trials, 3, 10, 9.0) == Continue()
    assert report(scheduler, trials, 3, 20, 0.0) == Continue()


def test_the_median_waits_for_others_and_for_the_grace_period():
    scheduler = MedianStopping(min_trials=2, grace_period=20)
    trials = make_trials([{}] * 3)
    for index in (0, 1):
        report(scheduler, trials, index, 10, 100.0)
        report(scheduler, trials, index, 20, 5.0)
    assert report(scheduler, trials, 2, 10, 0.0) == Continue()
    # What was before the grace period is in no mean.
    assert report(scheduler, trials, 2, 20, 6.0) == Continue()
    # Nobody came this far.
    assert report(scheduler, trials, 2, 30, 0.0) == Continue()


def test_less_may_be_better():
    scheduler = MedianStopping(min_trials=1, mode="min")
    trials = make_trials([{}] * 2)
    report(scheduler, trials, 0, 10, 1.0)
    assert isinstance(report(scheduler, trials, 1, 10, 2.0), Stop)


def test_halving_keeps_the_best_part_of_each_rung():
    scheduler = SuccessiveHalving(grace_period=10, reduction_factor=2)
    trials = make_trials([{}] * 4)
    # The first that comes goes on, whatever it has.
    assert report(scheduler, trials, 0, 10, 1.0) == Continue()
    assert report(scheduler, trials, 1, 10, 3.0) == Continue()
    # The median of 1 and 3 is asked for.
    assert isinstance(report(scheduler, trials, 2, 10, 1.9), Stop)
    assert report(scheduler, trials, 3, 10, 1.9) == Continue()
    # Between rungs nothing is asked.
    assert report(scheduler, trials, 0, 15, -9.0) == Continue()
    assert report(scheduler, trials, 0, 19, -9.0) == Continue()
    # The next rungs are at 20 and 40.
    assert report(scheduler, trials, 1, 20, 3.0) == Continue()
    assert isinstance(report(scheduler, trials, 0, 20, 2.9), Stop)
    assert report(scheduler, trials, 3, 45, 0.0) == Continue()
    assert [sorted(rung) for rung in scheduler.rungs] == [
        [trial.name for trial in trials],
        [trials[0].name, trials[1].name],
        [trials[3].name],
    ]


@pytest.mark.parametrize("factor", [2, 3, 10])
def test_rungs_are_powers(factor):
    scheduler = SuccessiveHalving(grace_period=factor, reduction_factor=factor)
    for power in range(8):
        now = factor ** (power + 1)
        assert scheduler._rung(now) == power
        assert scheduler._rung(0.999 * now) == (power - 1 if power else None)


def test_halving_goes_on_after_a_restart():
    def scheduler():
        return SuccessiveHalving(grace_period=2, reduction_factor=2)

    def step(state, settings):
        state["env_steps"] += 1
        return {**state, "episode_return_mean": settings["speed"] * state["env_steps"]}

    settings = [{"speed": speed} for speed in (3, 1, 4, 2, 6, 5)]
    whole = FakeRunner(settings, scheduler(), step, end=20, slots=2).run()
    ends = [(each.status, len(each.results)) for each in whole.trials]
    assert ("stopped", 2) in ends and ends[4] == ("finished", 20)
    for most in (1, 7, 30):
        again = FakeRunner(settings, scheduler(), step, end=20, slots=2).run(most)
        again.resume(scheduler()).run()
        assert [each.status for each in again.trials][4] == "finished"
        assert again.scheduler.rungs[0].keys() == whole.scheduler.rungs[0].keys()


def test_a_number_that_is_none_is_unknown_at_first_and_bad_later():
    measure = Measure("loss", "min", "epoch")
    (trial,) = make_trials([{}])
    trial.results = [{"loss": None}]
    assert measure.score(trial, trial.results[-1]) is None
    trial.results += [{"loss": 2.0}, {"loss": None}]
    assert measure.score(trial, trial.results[-2]) == -2
    assert measure.score(trial, trial.results[-1]) == -float("inf")
    json.dumps(SuccessiveHalving().get_state(), allow_nan=False)


@pytest.mark.parametrize(
    "scheduler",
    [
        MedianStopping(metric="episode_reward"),
        SuccessiveHalving(metric="episode_reward"),
    ],
)
def test_a_metric_that_nobody_reports_is_refused(scheduler):
    with pytest.raises(ValueError, match="Did you mean 'episode_return_mean'"):
        report(scheduler, make_trials([{}]), 0, 10**6, 0.0)


def test_evaluations_are_in_some_results_only():
    scheduler = SuccessiveHalving(metric="evaluation_return_mean", grace_period=1)
    assert report(scheduler, make_trials([{}]), 0, 5, 0.0) == Continue()
    assert not scheduler.rungs


@pytest.mark.parametrize(
    "arguments",
    [
        {"mode": "most"},
        {"grace_period": -1},
        {"reduction_factor": 1},
    ],
)
def test_what_cannot_be_meant_is_refused(arguments):
    with pytest.raises(ValueError, match="Received"):
        SuccessiveHalving(**arguments)


def test_a_result_must_say_its_time():
    with pytest.raises(ValueError, match="time_total"):
        report(MedianStopping(time_attr="time_total"), make_trials([{}]), 0, 1, 0.0)


def test_an_epoch_without_an_evaluation_says_nothing():
    measure = Measure("evaluation_return_mean", "max", "env_steps")
    (trial,) = make_trials([{}])
    for value, score in ((None, None), (3.0, 3.0), (None, None), (math.nan, None)):
        trial.results.append({"evaluation_return_mean": value})
        assert measure.score(trial, trial.result) == score
    assert measure.score(trial, {}) is None


def test_what_has_diverged_is_known_by_earlier_results_only():
    measure = Measure("episode_return_mean", "max", "env_steps")
    (trial,) = make_trials([{}])
    trial.results = [{"episode_return_mean": value} for value in (None, 1.0, None)]
    scores = [measure.score(trial, result) for result in trial.results]
    assert scores == [None, 1.0, -math.inf]


def test_halving_stops_who_was_to_be_stopped_when_the_launcher_was_killed():
    def scheduler():
        return SuccessiveHalving(grace_period=10, reduction_factor=2)

    first, trials = scheduler(), make_trials([{}] * 2)
    report(first, trials, 0, 10, 5.0)
    decision = report(first, trials, 1, 10, 1.0)
    assert isinstance(decision, Stop)
    again = scheduler()
    again.set_state(json.loads(json.dumps(first.get_state())))
    trials[1].results.clear()
    assert report(again, trials, 1, 10, 1.0) == decision
    # As written before there was such an entry.
    again.set_state({"rungs": []})
    assert report(again, trials, 1, 10, 1.0) == Continue()
