"""Starting the processes of a benchmark that runs under an engine."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

SECONDS = 1800


def launch(engine, command):
    """Runs a command under an engine, in two ranks where there are ranks.

    Args:
        engine: `"single"`, `"mirrored:2"`, `"multiworker"` or `"horovod"`.
        command: List of strings.

    Raises:
        RuntimeError: A process failed; with what it printed.
    """
    environments = [{}]
    if engine == "horovod":
        launcher = Path(sys.executable).parent / "horovodrun"
        command = [sys.executable, str(launcher), "-np", "2", *command]
    if engine == "multiworker":
        environments = [{"TF_CONFIG": config} for config in tf_configs(2)]
    processes = [start(command, environment) for environment in environments]
    outputs = [process.communicate(timeout=SECONDS)[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        if process.returncode:
            raise RuntimeError(f"{engine}: {command}\n{output[-6000:]}")


def start(command, environment=None):
    """Starts a process whose output can be read."""
    return subprocess.Popen(
        command,
        env={
            "KERAS_BACKEND": "tensorflow",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            **os.environ,
            **(environment or {}),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def tf_configs(number):
    """Values of `TF_CONFIG` for workers on free ports of this machine."""
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    workers = ["{}:{}".format(*each.getsockname()) for each in sockets]
    for each in sockets:
        each.close()
    return [
        json.dumps(
            {
                "cluster": {"worker": workers},
                "task": {"type": "worker", "index": index},
            }
        )
        for index in range(number)
    ]
