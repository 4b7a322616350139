"""Whatever happens to a file, it is refused, or loads as what it says."""

import random
import warnings

import fuzzing
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

CONTENTS = {
    name: (fuzzing.GOLDEN / f"{name}.kerasrl").read_bytes() for name in fuzzing.FILES
}


@pytest.mark.parametrize("kind", fuzzing.MUTATIONS)
@settings(max_examples=5, deadline=None)
@given(name=st.sampled_from(list(CONTENTS)), seed=st.integers(0, 2**32))
def test_damaged_files(tmp_path_factory, kind, name, seed):
    path = tmp_path_factory.mktemp("run") / "damaged.kerasrl"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of names that occur twice.
        damaged = fuzzing.MUTATIONS[kind](CONTENTS[name], random.Random(seed))
    path.write_bytes(damaged)
    assert fuzzing.outcome(path) in ("refused", "as in the file")
