"""Some of what `make matrix` tries, and how it reports."""

import cells
import pytest
import report
from daily import among

#: One of each family every day, each with features that fight each other elsewhere.
DAILY = {
    "PPO": ("MultiDiscrete", "nested", "mask", "GRU"),
    "DQN": ("MultiDiscrete", "image", "mask", "no memory"),
}


def test_every_two_features_that_go_together_meet():
    trials = [trial for trial in report.plan() if not trial[2]]
    for algorithm in cells.AGENTS:
        rows = [{*features} for name, features, _ in trials if name == algorithm]
        for pair in report.pairs():
            if cells.exception_of_pair(algorithm, *pair) is None:
                assert any({*pair} <= row for row in rows), (algorithm, pair)


def test_the_page_says_what_was_tried():
    outcomes = [
        {"algorithm": a, "features": f, "outcome": "refused" if fails else "yes"}
        for a, f, fails in report.plan()
    ]
    acting = [name for name in cells.AGENTS if name not in cells.FROM_DATA]
    yes, meaningful = report.count(outcomes, acting)
    assert yes >= 0.9 * meaningful and meaningful > 500
    of_data = report.count(outcomes, cells.FROM_DATA)
    assert of_data[0] >= 0.6 * of_data[1] > 200
    page = report.render(outcomes)
    assert f"**{yes} of {meaningful}**" in page
    assert "data **{} of {}**".format(*of_data) in page and "| no |" not in page
    for outcome in outcomes[:10]:
        outcome["outcome"] = "ValueError: no"
    assert report.count(outcomes, acting)[0] < yes
    assert " no |" in report.render(outcomes)


@pytest.mark.parametrize("algorithm", among(list(DAILY), ["DQN"]))
def test_a_trial(algorithm):
    rest = ("stock distribution", "custom_loss", "one process")
    cells.try_out(algorithm, (*DAILY[algorithm], *rest))


def test_a_trial_can_fail(monkeypatch):
    """A resume that is not exact is seen."""
    plain = ("stock distribution", "stock loss", "one process")
    features = ("Discrete", "flat", "all legal", "no memory", *plain)
    load = cells.kerasrl.load

    def load_badly(path):
        agent = load(path)
        kernel = agent.policy.trainable_variables[0]
        kernel.assign(kernel + 1e-6)
        return agent

    monkeypatch.setattr(cells.kerasrl, "load", load_badly, raising=False)
    with pytest.raises(AssertionError):
        cells.try_out("A2C", features)
    with pytest.raises(AssertionError, match="trained"):
        cells.refuse("A2C", features)


def test_the_page_is_that_of_the_last_trials_and_all_went_as_planned():
    outcomes = report.read()
    assert report.PAGE.read_text() == report.render(outcomes)
    tried = {
        (each["algorithm"], *each["features"]): each["outcome"] for each in outcomes
    }
    for algorithm, features, fails in report.plan():
        expected = "refused" if fails else "yes"
        assert tried.get((algorithm, *features)) == expected, (algorithm, features)
