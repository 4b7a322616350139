"""Starting the processes of a test that needs more than one replica."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
TIMEOUT = 400


def run(mode, script, *arguments):
    """Runs a script of this folder under an engine; fails with what it printed.

    Args:
        mode: `"mirrored:2"`, `"multiworker"`, `"horovod"` or `"elastic"`.
        script: Name of a file of this folder; gets the mode and the arguments.
    """
    processes = launch(mode, script, *arguments)
    outputs = [finish(process) for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, f"{mode}: {process.args}\n{output[-6000:]}"
    return outputs


def launch(mode, script, *arguments):
    """Starts the processes of `run`, or those that start them, and returns them."""
    command = [sys.executable, str(HERE / script), mode, *map(str, arguments)]
    if mode == "horovod":
        return [start([sys.executable, horovodrun(), "-np", "2", *command])]
    if mode == "elastic":
        hosts = ["-np", "3", "--min-np", "2", "--host-discovery-script", HERE / "hosts"]
        hosts = [*map(str, hosts), "--network-interface", "lo"]
        # One host of three is lost at once, but its neighbours wait for each other.
        environment = {"HOROVOD_GLOO_TIMEOUT_SECONDS": "15"}
        return [start([sys.executable, horovodrun(), *hosts, *command], environment)]
    if mode == "multiworker":
        configs = tf_configs(2)
        return [start(command, {"TF_CONFIG": config}) for config in configs]
    return [start(command)]


def horovodrun():
    """The launcher beside this interpreter; without it the test fails."""
    path = pathlib.Path(sys.executable).parent / "horovodrun"
    if not path.exists():
        pytest.fail(
            f"Horovod is not installed beside {sys.executable}, and this test needs "
            f"it. Run: scripts/install_horovod.sh {sys.executable}"
        )
    return str(path)


def tf_configs(number):
    ports = free_ports(number)
    workers = [f"127.0.0.1:{port}" for port in ports]
    return [
        json.dumps(
            {
                "cluster": {"worker": workers},
                "task": {"type": "worker", "index": index},
            }
        )
        for index in range(number)
    ]


def free_ports(number):
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start(command, environment=None):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    variables = {
        **os.environ,
        "PYTHONPATH": path,
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **(environment or {}),
    }
    return subprocess.Popen(
        command,
        env=variables,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(process):
    try:
        return process.communicate(timeout=TIMEOUT)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        output = process.communicate()[0]
        pytest.fail(f"Not done after {TIMEOUT} s: {process.args}\n{output[-6000:]}")
