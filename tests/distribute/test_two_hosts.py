"""Ranks on two hosts, which are network namespaces of this machine."""

import os
import shutil
import subprocess
import sys

import launching
import pytest

#: Seconds after which ranks that lost each other have ended: `docs/distributed.md`.
LIMIT = 60


def why_not():
    """Why this machine cannot play two hosts, or an empty string."""
    if sys.platform != "linux" or shutil.which("ip") is None:
        return "Network namespaces need Linux and the command ip (package iproute2)."
    if os.geteuid() != 0:
        return "Only root may make network namespaces."
    name = f"kerasrl{os.getpid()}-try"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"This root may not make network namespaces: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return ""


def two_hosts(*arguments):
    reason = why_not()
    if reason:
        pytest.skip(reason)
    launching.horovodrun()
    script = launching.ROOT / "scripts" / "two_hosts.py"
    process = launching.start([sys.executable, str(script), *map(str, arguments)])
    output = launching.finish(process)
    assert process.returncode == 0, output
    return output


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["horovod", "multiworker"])
def test_two_hosts_train_to_the_end(engine):
    output = two_hosts(
        *("--limit", 300, engine, "train", "PPO", "CartPole-v1", "--steps", 8192),
    )
    assert output.count("with exit code 0:") == 2
    assert "Evaluation over 20 episodes" in output


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["horovod", "multiworker"])
def test_a_cut_link_ends_both_ranks(engine):
    output = two_hosts(
        *("--cut", 1, "--limit", LIMIT, engine),
        *("train", "PPO", "CartPole-v1", "--steps", 10_000_000),
    )
    for rank in range(2):
        assert f"Rank {rank} of 2 lost contact with another rank" in output
