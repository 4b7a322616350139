import click
import pytest

from kerasrl.experiment.resources import (
    Resources,
    split_resources,
    use_resources,
    visible_gpus,
)
from kerasrl.tuning.slots import Slots


def taken(slots, *needs):
    return [slots.take(each) for each in needs]


def test_as_many_trials_as_there_are_cores_for():
    slots = Slots(cores=4, gpus=[])
    first, second, none = taken(slots, *[Resources(cores=2)] * 3)
    assert none is None and (first.index, second.index) == (0, 1)
    assert first.environment()["OMP_NUM_THREADS"] == "2"
    assert "CUDA_VISIBLE_DEVICES" not in first.environment()
    slots.give_back(first)
    assert slots.take(Resources(cores=3)) is None
    assert slots.take(Resources(cores=1)).index == 0


def test_a_number_of_slots_goes_before_cores():
    slots = Slots(slots=3, cores=2, gpus=[])
    found = taken(slots, *[Resources(cores=8)] * 4)
    assert [each and each.threads for each in found] == [1, 1, 1, None]


def test_a_trial_that_asks_for_more_cores_than_there_are_runs_alone(caplog):
    slots = Slots(cores=2, gpus=[])
    alone, none = taken(slots, Resources(cores=5), Resources(cores=1))
    assert alone.threads == 2 and none is None
    assert "each runs alone" in caplog.text
    slots.give_back(alone)
    small = slots.take(Resources(cores=1))
    assert slots.take(Resources(cores=5)) is None
    slots.give_back(small)
    assert slots.free_cores == 2


def test_gpus_are_shared_out():
    slots = Slots(slots=9, cores=9, gpus=["3", "5"])
    half, other, whole, none = taken(
        slots, *[Resources(gpus=0.5)] * 2, *[Resources(gpus=1)] * 2
    )
    # Halves on one, so that the other stays whole.
    assert (half.gpus, other.gpus, whole.gpus, none) == (("3",), ("3",), ("5",), None)
    assert half.environment()["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert "TF_FORCE_GPU_ALLOW_GROWTH" not in whole.environment()
    assert slots.take(Resources(gpus=0.2)) is None
    without = slots.take(Resources(gpus=0))
    assert without.environment()["CUDA_VISIBLE_DEVICES"] == ""
    for each in (half, other, whole):
        slots.give_back(each)
    assert slots.take(Resources(gpus=2)).gpus == ("3", "5")


def test_who_does_not_say_shares_gpus_in_turn():
    slots = Slots(slots=3, cores=3, gpus=["0", "1"])
    found = taken(slots, *[Resources()] * 3)
    assert [each.gpus for each in found] == [("0",), ("1",), ("0",)]
    assert found[0].shares_gpu


def test_thirds_of_a_gpu_add_up_to_one():
    slots = Slots(slots=9, cores=9, gpus=["0"])
    found = taken(slots, *[Resources(gpus=1 / 3)] * 4)
    assert [each is None for each in found] == [False, False, False, True]


def test_what_is_scarce_besides():
    slots = Slots(slots=9, cores=9, gpus=[], custom={"license": 2})
    first, none = taken(slots, *[Resources(custom={"license": 1.5})] * 2)
    assert none is None
    slots.give_back(first)
    assert slots.take(Resources(custom={"license": 2}))


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        (Resources(gpus=3), "num_gpus is 3, but there are 1 GPUs"),
        (Resources(custom={"license": 1}), "nothing says how much"),
        (Resources(custom={"token": 3}), "of which there is 2"),
    ],
)
def test_what_there_will_never_be_is_refused(needs, message):
    with pytest.raises(ValueError, match=message):
        Slots(gpus=["0"], custom={"token": 2}).check(needs)


def test_rllibs_names_become_resources():
    config = {
        "gamma": 0.9,
        "num_workers": 3,
        "num_cpus_per_worker": 2,
        "num_gpus": 0.25,
        "num_gpus_per_worker": 0,
        "custom_resources_per_worker": {"license": 1},
    }
    rest, found = split_resources(config)
    assert rest == {"gamma": 0.9, "num_workers": 3}
    assert found == Resources(7.0, 0.25, {"license": 3})
    assert split_resources({})[1] == Resources(1.0, None, {})


def test_a_cluster_places_workers():
    config = {
        "num_workers": 3,
        "num_cpus_per_worker": 2,
        "num_gpus_per_worker": 0.5,
        "custom_resources_per_worker": {"arm": 1},
    }
    asked = {"num_cpus": 2, "num_gpus": 0.5, "resources": {"arm": 1}}
    for cluster, kept in (("ray", {}), ({"address": "auto"}, {"address": "auto"})):
        rest, found = split_resources({**config, "cluster": cluster})
        assert rest == {"num_workers": 3, "cluster": {**kept, **asked}}
        assert found == Resources(1.0, None, {})
        # A single training as well.
        assert use_resources({**config, "cluster": cluster}) == rest
    assert split_resources({"cluster": "ray"})[0] == {"cluster": "ray"}
    with pytest.raises(click.UsageError, match="'num_cpus' of cluster are the same"):
        split_resources({**config, "cluster": {"num_cpus": 1}})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_gpus": -1}, "num_gpus must be a number from 0"),
        ({"num_gpus": 1.5}, "a share of one, or whole ones"),
        ({"num_gpus_per_worker": 0.5}, "workers act in NumPy"),
        ({"num_cpus_per_worker": 0}, "num_cpus_per_worker must be a number above 0"),
        ({"custom_resources_per_worker": {"a": "b"}}, "custom_resources_per_worker.a"),
    ],
)
def test_amounts_that_make_no_sense(config, message):
    with pytest.raises(click.UsageError, match=message):
        split_resources(config)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("", []), ("-1", []), ("0,2", ["0", "2"]), ("1,-1,2", ["1"]), (" 3 ", ["3"])],
)
def test_gpus_that_are_visible(value, expected, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible_gpus() == expected
