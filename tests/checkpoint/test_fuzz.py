"""Whatever happens to a file, it is refused, or loads as what it says."""

import random
import warnings

import fuzzing
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

CONTENTS = [(fuzzing.GOLDEN / f"{name}.kerasrl").read_bytes() for name in fuzzing.FILES]


@pytest.mark.parametrize("kind", fuzzing.MUTATIONS)
@settings(max_examples=5, deadline=None)
@given(content=st.sampled_from(CONTENTS), seed=st.integers(0, 2**32))
def test_damaged_files(tmp_path_factory, kind, content, seed):
    path = tmp_path_factory.mktemp("run") / "damaged.kerasrl"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of names that occur twice.
        path.write_bytes(fuzzing.MUTATIONS[kind](content, random.Random(seed)))
    assert fuzzing.outcome(path) in ("refused", "as in the file")
