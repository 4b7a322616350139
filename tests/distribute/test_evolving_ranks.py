"""Populations that ranks share out end as those of one process, bit for bit."""

import launching
import numpy as np
import pytest


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["horovod", "multiworker"])
def test_ranks_share_populations_out(mode, tmp_path):
    launching.run("mirrored:2", "evolving_runs.py", tmp_path)
    whole, mirrored = (np.load(tmp_path / f"{name}.npz") for name in ("whole", "0"))
    check_same(whole, mirrored)
    launching.run(mode, "evolving_runs.py", tmp_path)
    for rank in range(2):
        check_same(whole, np.load(tmp_path / f"{rank}.npz"))


def check_same(whole, part):
    assert set(whole.files) == set(part.files)
    for name in whole.files:
        np.testing.assert_array_equal(whole[name], part[name], err_msg=name)
