"""What a file may claim, what errors become, and what killed saves leave behind."""

import io
import json
import resource
import signal
import subprocess
import sys
import zipfile

import fuzzing
import numpy as np
import pytest

import kerasrl
from kerasrl import checkpoint
from kerasrl.checkpoint import CheckpointError

PPO, DQN = (fuzzing.GOLDEN / f"{name}_schema1.kerasrl" for name in ("ppo", "dqn"))


def change(path, target, name, edit):
    """Rewrites one member of a checkpoint."""
    members = [
        (each, edit(content) if each == name else content)
        for each, content in fuzzing.read_members(path.read_bytes())
    ]
    target.write_bytes(fuzzing.write_members(members))
    return target


def edit_json(edit):
    def apply(content):
        data = json.loads(content)
        edit(data)
        return json.dumps(data).encode()

    return apply


def edit_array(edit):
    def apply(content):
        stream = io.BytesIO()
        np.save(stream, edit(np.load(io.BytesIO(content)).copy()))
        return stream.getvalue()

    return apply


def peak():
    """Bytes that this process has had in memory at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def layers(*configs):
    """A trunk of Keras layers without weights, as Keras writes it."""
    return {
        "module": "keras",
        "class_name": "Sequential",
        "registered_name": None,
        "config": {
            "layers": [
                {
                    "module": "keras.layers",
                    "class_name": name,
                    "registered_name": None,
                    "config": config,
                }
                for name, config in configs
            ]
        },
    }


BOMBS = {
    "units": lambda c: c["config"]["policy"]["config"].update(
        hidden_units=[60_000] * 2
    ),
    "space": lambda c: c["config"]["policy"]["build_config"].update(
        observation_space={
            "type": "Box",
            "low": 0,
            "high": 1,
            "shape": [2**16, 2**14],
            "dtype": "float32",
        }
    ),
    "choices": lambda c: c["config"]["policy"]["build_config"].update(
        observation_space={"type": "Discrete", "n": 2**31, "start": 0}
    ),
    "layers": lambda c: c["config"]["policy"]["config"].update(
        trunk=layers(("RepeatVector", {"n": 2**28}), ("GlobalMaxPooling1D", {})),
        hidden_units=None,
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_policies_larger_than_their_arrays(tmp_path, name):
    kerasrl.load(PPO)
    before = peak()
    path = change(PPO, tmp_path / "bomb", "config.json", edit_json(BOMBS[name]))
    with pytest.raises(CheckpointError, match="bomb"):
        kerasrl.load(path)
    assert peak() - before < 2**28
    kerasrl.load(PPO)


def test_members_larger_than_the_file(tmp_path):
    path = tmp_path / "bomb"
    members = fuzzing.read_members(PPO.read_bytes())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            with archive.open(name, "w") as member:
                member.write(content)
                # Bit by bit: what this takes itself would hide what loading takes.
                for _ in range(2**8 if name == "arrays/00003.npy" else 0):
                    member.write(bytes(2**20))
    before = peak()
    with pytest.raises(CheckpointError, match="compressed"):
        kerasrl.load(path)
    assert peak() - before < 2**24


def test_headers_larger_than_their_member(tmp_path):
    def claim(content):
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "<f4", "fortran_order": False, "shape": (2**31,)}
        )
        return stream.getvalue() + content

    before = peak()
    with pytest.raises(CheckpointError, match="bytes as its shape"):
        kerasrl.load(change(PPO, tmp_path / "bomb", "arrays/00003.npy", claim))
    assert peak() - before < 2**24


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("arrays/00003.npy", edit_array(lambda a: a * np.nan)),
        ("arrays/00003.npy", edit_array(lambda a: a + 1j)),
        ("arrays/00003.npy", edit_array(lambda a: a.astype("M8[s]"))),
        ("arrays/00003.npy", edit_array(lambda a: a.astype("f8"))),
        ("arrays/00001.npy", edit_array(lambda a: -a)),
        ("state.json", edit_json(lambda s: s.update(env_steps="64"))),
        ("state.json", edit_json(lambda s: s.update(env_steps=64.0))),
        ("state.json", edit_json(lambda s: s.update(iterations=True))),
        ("state.json", edit_json(lambda s: s.update(iterations=10**30))),
        ("state.json", edit_json(lambda s: s.update(env_name=["CartPole-v1"]))),
        ("state.json", edit_json(lambda s: s["rng"].update(uinteger=2**32))),
        ("state.json", edit_json(lambda s: s["rng"]["state"].update(state=-1))),
        ("state.json", edit_json(lambda s: s["statistics"].update(episodes=1))),
        ("state.json", edit_json(lambda s: s["statistics"].update(returns=["a", 1.0]))),
        ("state.json", edit_json(lambda s: s["reward_scaler"].update(squares=-1.0))),
        ("state.json", edit_json(lambda s: s.pop("reward_scaler"))),
        ("state.json", edit_json(lambda s: s.update(updates=3))),
        ("state.json", lambda content: b"[" * 10**6 + b"]" * 10**6),
        (
            "config.json",
            edit_json(lambda c: c["config"]["policy"]["config"]["dtype"].pop("config")),
        ),
        ("config.json", edit_json(lambda c: c.update(agent=["x"]))),
    ],
)
def test_what_no_agent_has_written(tmp_path, name, edit):
    with pytest.raises(CheckpointError, match="damaged"):
        kerasrl.load(change(PPO, tmp_path / "damaged", name, edit))


def replay_member(name):
    config = dict(fuzzing.read_members(DQN.read_bytes()))["config.json"]
    return f"replay/{json.loads(config)['replay'].index(name):05d}.npy"


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("actions", lambda a: a + 2),
        ("actions", lambda a: a - 1),
        ("kinds", lambda a: a | 64),
        ("kinds", lambda a: a & ~np.uint8(1)),
        ("kinds", lambda a: a | 1),
        ("starts.positions", lambda a: a[:, ::-1]),
        ("starts.positions", lambda a: a + 10**6),
        ("rewards", lambda a: a + np.inf),
        ("observations", lambda a: a * np.nan),
        ("priorities", lambda a: -a),
    ],
)
def test_replay_that_no_buffer_has(tmp_path, name, edit):
    path = change(DQN, tmp_path / "damaged", replay_member(name), edit_array(edit))
    with pytest.raises(CheckpointError, match=name):
        kerasrl.load(path)


def test_more_environments_than_there_are_rows_of(tmp_path):
    def edit(state):
        state["num_envs"] = state["buffer"]["num_envs"] = 10**9

    before = peak()
    with pytest.raises(CheckpointError, match="1000000000 at first"):
        kerasrl.load(change(DQN, tmp_path / "bomb", "state.json", edit_json(edit)))
    assert peak() - before < 2**24


@pytest.mark.parametrize("error", [MemoryError, OSError, RecursionError, OverflowError])
def test_whatever_goes_wrong_is_about_the_file(monkeypatch, error):
    def fail(*args, **kwargs):
        raise error("inside")

    monkeypatch.setattr(kerasrl.PPO, "set_state", fail)
    with pytest.raises(CheckpointError, match=f"ppo.*{error.__name__}: inside"):
        kerasrl.load(PPO)
    monkeypatch.undo()
    kerasrl.load(PPO)


def test_a_directory_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="IsADirectoryError"):
        kerasrl.load(tmp_path)


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    agent = kerasrl.load(PPO)
    agent.set_weights([weight * np.nan for weight in agent.get_weights()])
    with pytest.raises(ValueError, match="not finite"):
        agent.save(tmp_path / "agent.kerasrl")
    assert not list(tmp_path.iterdir())


# Temporary files ----------------------------------------------------------------------

SAVE = (
    "import os, pathlib, signal, sys, time\n"
    "from kerasrl import checkpoint\n"
    "def stop(handle):\n"
    "    print('writing', flush=True)\n"
    "    {}\n"
    "os.fsync = stop\n"
    "checkpoint.write_atomically(pathlib.Path(sys.argv[1]), {{'a': b'x'}})\n"
)


def test_what_killed_saves_left_is_removed(tmp_path):
    path = tmp_path / "agent"
    others = {".agent.txt", ".agent.a.b.tmp", ".agent2.abc.tmp", "agent.abc.tmp"}
    for name in others:
        (tmp_path / name).write_text("another's")
    killed, running = (
        SAVE.format(f"os.kill(os.getpid(), signal.{name})")
        for name in ("SIGKILL", "SIGSTOP")
    )
    subprocess.run([sys.executable, "-c", killed, str(path)], check=False)
    left = {each.name for each in tmp_path.iterdir()} - others
    assert len(left) == 1
    process = subprocess.Popen(
        [sys.executable, "-c", running, str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "writing\n"
        meanwhile = {each.name for each in tmp_path.iterdir()} - others - left
        assert len(meanwhile) == 1, "the save that runs has removed the one left"
        checkpoint.write_atomically(path, {"a": b"y"})
        found = {each.name for each in tmp_path.iterdir()}
        assert found == others | meanwhile | {"agent"}
        process.send_signal(signal.SIGCONT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.stdout.close()
    assert {each.name for each in tmp_path.iterdir()} == others | {"agent"}
