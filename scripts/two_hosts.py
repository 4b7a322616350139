#!/usr/bin/env python3
"""Trains on two hosts that this machine plays: two network namespaces, a rank in each.

    sudo scripts/two_hosts.py horovod
    sudo scripts/two_hosts.py multiworker train SAC Pendulum-v1 --steps 10000
    sudo scripts/two_hosts.py --cut 3 horovod train PPO CartPole-v1 --steps 1000000

The hosts have addresses of their own and reach each other, and nothing else, through a
switch. With `--cut SECONDS`, the switch stops forwarding that long after the first
epoch, without a word to either host, as when a cable between two switches breaks. Ranks
must then end by themselves with an error, and the script says after how many seconds
each did. `horovodrun` reaches the second host by a stand-in for ssh.

Needs Linux, root and `ip`. The exit code is 0 if both ranks trained to the end or, with
`--cut`, if both ended with an error in time.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
ADDRESSES = ("10.77.0.1", "10.77.0.2")
PORT = 12345
#: Seconds until ranks must have logged an epoch before the link is cut.
STARTING = 200
TRAIN = ["train", "PPO", "CartPole-v1", "--steps", "20000", "--seed", "0"]

#: Runs the command of one rank, and notes when it ended, and how.
RANK = """#!/bin/bash
folder=$1; shift
rank=${HOROVOD_RANK:-$RANK}
"$@" >"$folder/rank$rank.txt" 2>&1 &
child=$!
trap 'kill $child' TERM
wait $child; code=$?
echo "$code $(date +%s.%N)" >"$folder/rank$rank.end"
exit $code
"""

#: What ssh does for horovodrun. As there, the remote command outlives the local one.
SSH = """#!/bin/bash
while [ $# -gt 0 ]; do
  case $1 in
    -*) shift 2 ;;
    *) [ -z "$host" ] || break; host=$1; shift ;;
  esac
done
answer={folder}/answer-$$; mkfifo "$answer"
setsid --fork ip netns exec "{prefix}-$host" bash -c "$*; echo \\$? >$answer"
read -r code <"$answer"
exit "$code"
"""


def main():
    arguments = parse()
    launch = {"horovod": launch_horovod, "multiworker": launch_multiworker}
    must_fail = arguments.cut is not None
    with (
        tempfile.TemporaryDirectory(prefix="two-hosts-") as folder,
        Network() as network,
    ):
        folder = pathlib.Path(folder)
        since = time.time()
        launch[arguments.engine](network, folder, command(arguments, folder))
        if must_fail:
            wait_for_an_epoch(folder, since + STARTING)
            time.sleep(arguments.cut)
            network.cut()
            since = time.time()
            print(f"The link was cut after {epochs(folder)} epochs.", flush=True)
        ends = wait_for_ranks(folder, since + arguments.limit)
        show(folder, ends, since)
    as_expected = [end and bool(end[0]) == must_fail for end in ends.values()]
    sys.exit(0 if all(as_expected) else 1)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", choices=["horovod", "multiworker"])
    parser.add_argument(
        "--cut",
        type=float,
        metavar="SECONDS",
        help="cut the link after the first epoch",
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=300,
        help="seconds until a rank counts as hanging",
    )
    parser.add_argument(
        "command",
        nargs=argparse.REMAINDER,
        help=f"what follows `kerasrl`; default: {' '.join(TRAIN)}",
    )
    arguments = parser.parse_args()
    arguments.command = arguments.command or TRAIN
    if os.geteuid() != 0 or shutil.which("ip") is None:
        parser.error("needs root, and the command ip (package iproute2)")
    return arguments


def command(arguments, folder):
    """The command of each rank."""
    return [
        *(script(folder / "rank", RANK), str(folder)),
        *(sys.executable, "-m", "kerasrl.cli", *arguments.command),
        *("--distribute", arguments.engine, "--logdir", str(folder / "run")),
        *("--progress", "none"),
    ]


class Network:
    """Two hosts and the switch between them, each a network namespace."""

    def __init__(self):
        self.prefix = f"kerasrl{os.getpid()}"
        self.switch = f"{self.prefix}-switch"
        self.hosts = [f"{self.prefix}-{address}" for address in ADDRESSES]

    def __enter__(self):
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error):
        for space in (*self.hosts, self.switch):
            pids = ip("netns", "pids", space, check=False).split()
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            ip("netns", "delete", space, check=False)

    def _build(self):
        for space in (*self.hosts, self.switch):
            ip("netns", "add", space)
        ip("-n", self.switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", self.switch, "link", "set", "bridge", "up")
        for index, (host, address) in enumerate(
            zip(self.hosts, ADDRESSES, strict=True)
        ):
            port = f"port{index}"
            ip(
                *("link", "add", "eth0", "netns", host, "type", "veth"),
                *("peer", "name", port, "netns", self.switch),
            )
            ip("-n", self.switch, "link", "set", port, "master", "bridge", "up")
            ip("-n", host, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", host, "link", "set", "eth0", "up")
            ip("-n", host, "link", "set", "lo", "up")

    def cut(self):
        ip("-n", self.switch, "link", "set", "bridge", "down")

    def start(self, host, command, **environment):
        variables = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                [str(ROOT), os.environ.get("PYTHONPATH", "")]
            ),
            "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3"),
            **environment,
        }
        command = ["ip", "netns", "exec", self.hosts[host], *command]
        return subprocess.Popen(command, env=variables)


def launch_multiworker(network, folder, command):
    cluster = {"worker": [f"{address}:{PORT}" for address in ADDRESSES]}
    for rank in range(2):
        task = {"type": "worker", "index": rank}
        config = json.dumps({"cluster": cluster, "task": task})
        network.start(rank, command, RANK=str(rank), TF_CONFIG=config)


def launch_horovod(network, folder, command):
    programs = folder / "bin"
    programs.mkdir()
    script(programs / "ssh", SSH.format(prefix=network.prefix, folder=folder))
    horovodrun = pathlib.Path(sys.executable).parent / "horovodrun"
    hosts = ",".join(f"{address}:1" for address in ADDRESSES)
    launcher = [sys.executable, str(horovodrun), "-np", "2", "-H", hosts]
    # So that it tries the stand-in for ssh rather than trust what it found last time.
    launcher += ["--disable-cache", "--network-interface", "eth0", *command]
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    network.start(0, launcher, PATH=path)


def wait_for_an_epoch(folder, until):
    since = time.time()
    while not epochs(folder):
        ends = wait_for_ranks(folder, time.time())
        if any(ends.values()) or time.time() > until:
            show(folder, ends, since)
            sys.exit("No epoch was logged.")
        time.sleep(0.1)


def epochs(folder):
    results = folder / "run" / "result.json"
    return len(results.read_text().splitlines()) if results.exists() else 0


def wait_for_ranks(folder, until):
    """Returns exit code and time of each rank, `None` for those that did not end."""
    ends = {0: None, 1: None}
    while True:
        for rank in ends:
            file = folder / f"rank{rank}.end"
            if file.exists() and (text := file.read_text()).endswith("\n"):
                code, when = text.split()
                ends[rank] = int(code), float(when)
        if all(ends.values()) or time.time() >= until:
            return ends
        time.sleep(0.1)


def show(folder, ends, since):
    for rank, end in ends.items():
        what = "has not ended"
        if end is not None:
            what = f"ended after {end[1] - since:.1f} s with exit code {end[0]}"
        print(f"Rank {rank} {what}:")
        output = folder / f"rank{rank}.txt"
        lines = output.read_text().splitlines() if output.exists() else []
        print("\n".join(f"  {line}" for line in lines[-3:]), flush=True)


def script(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def ip(*arguments, check=True):
    done = subprocess.run(["ip", *arguments], text=True, capture_output=True)
    if check and done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    main()
