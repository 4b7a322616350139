"""Arrays with a copy on each side of a connection."""

import threading

import numpy as np
import pytest
from walks import assert_equal

from kerasrl.workers.mirrored_arrays import MirroredArrays

TREE = {
    "rewards": np.zeros((4, 3), np.float32),
    "places": [{"flags": np.zeros(2, bool)}, {"flags": np.zeros(2, bool)}],
}


def pair():
    mine = MirroredArrays.like(TREE)
    return mine, MirroredArrays(mine.layout)


def deliver(source, target, told):
    places = []
    for path, count in source.changes(told):
        target.take_over(path, source.part(path), count)
        places.append(path)
    return places


def test_copies_have_shapes_dtypes_and_the_key_of_each_other():
    mine, theirs = pair()
    assert mine.key == theirs.key != MirroredArrays.like(TREE).key
    assert_equal(theirs.tree, TREE)


def test_only_what_is_said_to_be_written_arrives_and_only_once():
    mine, theirs = pair()
    told = {}
    mine.tree["rewards"][:] = 1.0
    mine.tree["places"][1]["flags"][:] = True
    mine.wrote(("rewards", range(1, 3)))
    assert deliver(mine, theirs, told) == [("rewards", range(1, 3))]
    assert theirs.tree["rewards"].sum(axis=1).tolist() == [0, 3, 3, 0]
    assert not theirs.tree["places"][1]["flags"].any()
    assert deliver(mine, theirs, told) == []
    mine.wrote(("places", 1, "flags"))
    deliver(mine, theirs, told)
    assert theirs.tree["places"][1]["flags"].all()
    assert not theirs.tree["places"][0]["flags"].any()
    # One that has just begun knows nothing.
    other = MirroredArrays(mine.layout)
    assert len(deliver(mine, other, {})) == 2
    assert_equal(other.tree, theirs.tree)


def test_all_of_it_by_default():
    mine, theirs = pair()
    mine.tree["rewards"][:] = 2.0
    mine.wrote()
    assert deliver(mine, theirs, {}) == [()]
    assert_equal(theirs.tree, mine.tree)


def test_what_arrives_late_does_not_undo_what_came_before():
    mine, theirs = pair()
    theirs.take_over(("rewards",), np.full((4, 3), 2.0), count=2)
    theirs.take_over(("rewards",), np.full((4, 3), 1.0), count=1)
    assert (theirs.tree["rewards"] == 2.0).all()
    # What arrives in its order need not be counted.
    theirs.take_over(("rewards",), np.full((4, 3), 3.0))
    assert (theirs.tree["rewards"] == 3.0).all()


def test_what_stands_for_a_part_is_made_once_a_version():
    mine, _ = pair()
    made = []

    def make(part):
        made.append(part)
        return len(made)

    mine.wrote()
    counts = [count for _, count in mine.changes({})]
    assert [mine.keep((), counts[0], make) for _ in range(3)] == [1, 1, 1]
    mine.wrote()
    ((_, count),) = mine.changes({})
    assert mine.keep((), count, make) == 2


def test_who_reads_under_the_lock_never_sees_half():
    mine, theirs = pair()
    torn = []

    def read():
        for _ in range(300):
            with theirs.locked(exclusive=False):
                torn.append(len(np.unique(theirs.tree["rewards"])) > 1)

    reader = threading.Thread(target=read)
    reader.start()
    for version in range(300):
        theirs.take_over(("rewards",), np.full((4, 3), version))
    reader.join()
    assert not any(torn)


def test_only_numbers():
    with pytest.raises(TypeError, match="Only numbers"):
        MirroredArrays.like({"names": np.array(["a"], object)})
