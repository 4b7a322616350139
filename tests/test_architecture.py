"""The rules that keep the house in order: who imports whom, and what is off limits."""

import ast
import pathlib
import subprocess
import sys

import pytest

import kerasrl
from kerasrl import agents

ROOT = pathlib.Path(kerasrl.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

#: What each room may import from the others, besides itself.
MAY_IMPORT = {
    "losses": set(),
    "distributions": {"losses"},
    "models": {
        "checks",
        "distributions",
        "losses",
        "signatures",
        "spaces",
        "spellings",
    },
    "envs": {"checks", "spaces", "testing"},
    "replay": {"spaces"},
    "rollouts": {"envs", "replay", "spaces"},
    "distribute": {"losses"},
    "agents": {
        "callbacks",
        "checkpoint",
        "checks",
        "display",
        "distribute",
        "distributions",
        "envs",
        "logs",
        "losses",
        "models",
        "optimizers",
        "replay",
        "rollouts",
        "signatures",
        "spaces",
        "spellings",
    },
}


def imports(path):
    """Names of the modules that a file imports, at any depth of its code."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_point_one_way(room):
    allowed = MAY_IMPORT[room] | {room}
    paths = [path for path in MODULES if path.parent.name == room]
    assert paths
    for path in paths:
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "kerasrl" and len(parts) > 1:
                assert parts[1] in allowed, f"{path} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_public_keras(path):
    for name in imports(path):
        assert not name.startswith(("keras.src", "tf_keras", "tensorflow.keras")), name


@pytest.mark.parametrize("module", ["envs", "replay", "rollouts", "testing", "spaces"])
def test_rooms_of_workers_import_no_tensorflow(module):
    code = (
        f"import sys, kerasrl, kerasrl.{module}\n"
        "heavy = {'tensorflow', 'keras', 'torch', 'horovod', 'matplotlib'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_no_algorithm_inherits_from_another():
    bases = {agents.OnPolicyAgent, agents.OffPolicyAgent}
    algorithms = [
        value
        for value in vars(agents).values()
        if isinstance(value, type) and issubclass(value, agents.Agent)
    ]
    algorithms = set(algorithms) - bases - {agents.Agent}
    assert len(algorithms) >= 9
    for algorithm in algorithms:
        assert len(algorithm.__bases__) == 1 and algorithm.__bases__[0] in bases


def test_an_algorithm_is_one_file_under_300_lines():
    for algorithm in (
        "pg",
        "a2c",
        "ppo",
        "dqn",
        "simple_q",
        "r2d2",
        "ddpg",
        "td3",
        "sac",
    ):
        path = ROOT / "agents" / f"{algorithm}.py"
        assert len(path.read_text().splitlines()) < 300


def test_an_algorithm_is_one_short_file():
    for name in ("pg", "a2c", "ppo"):
        assert len((ROOT / "agents" / f"{name}.py").read_text().splitlines()) < 300


def test_losses_know_no_bare_done():
    for path in (ROOT / "losses").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.arg):
                assert node.arg not in ("done", "dones"), path


def test_public_names_resolve():
    for name in kerasrl.__all__:
        assert getattr(kerasrl, name).__doc__
    with pytest.raises(AttributeError, match="nothing"):
        kerasrl.nothing  # noqa: B018


def test_names_of_test_files_differ():
    # pytest imports each by its bare name: of two alike, it refuses the second, but
    # only where no earlier run has left compiled files.
    names = [path.name for path in pathlib.Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
