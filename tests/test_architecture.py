"""The rules that keep the house in order: who imports whom, and what is off limits."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

import kerasrl
from kerasrl import agents
from kerasrl.agents.evolution import PopulationAgent

ROOT = pathlib.Path(kerasrl.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

#: What each room may import from the others, besides itself and `BASICS`. A room is a
#: folder, or a file beside them. No two may reach each other.
BASICS = {
    *(
        "action_masks",
        "checks",
        "display",
        "goals",
        "logs",
        "names",
        "optimizers",
        "signatures",
        "spaces",
        "spellings",
    )
}
MAY_IMPORT = {
    "actors": set(),
    "agents": {"distribute", "losses", "models", "replay", "rollouts", "training"},
    "callbacks": {"envs"},
    "checkpoint": set(),
    "cli": {
        *("callbacks", "distribute", "envs", "experiment", "offline", "tuning"),
        "workers",
    },
    "distribute": set(),
    "distributions": {"losses"},
    "envs": set(),
    "estimates": {"agents", "callbacks", "envs", "losses", "models", "training"},
    "execution": {"agents", "training", "workers"},
    "experiment": {"callbacks", "distribute"},
    "losses": {"distribute"},
    "models": {"distribute", "distributions"},
    "multi_agent": {
        *("agents", "callbacks", "checkpoint", "distribute", "envs", "losses"),
        *("models", "rollouts", "training", "workers"),
    },
    "plotting": set(),
    "offline": {"envs", "rollouts"},
    "replay": set(),
    "rollouts": {"envs"},
    "testing": set(),
    "training": {
        *("actors", "callbacks", "checkpoint", "distribute", "envs", "losses"),
        *("models", "offline", "rollouts", "workers"),
    },
    "tuning": {"agents", "callbacks", "experiment", "plotting", "workers"},
    "workers": {"actors", "envs", "rollouts"},
    # These are below all rooms.
    "action_masks": set(),
    "checks": set(),
    "display": set(),
    "goals": set(),
    "logs": set(),
    "names": set(),
    "optimizers": set(),
    "signatures": set(),
    "spaces": set(),
    "spellings": set(),
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


def room_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def test_every_file_is_in_a_room():
    assert {room_of(path) for path in MODULES} == {*MAY_IMPORT, "__init__", "__main__"}


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_point_one_way(room):
    allowed = MAY_IMPORT[room] | {room, "__version__"}
    if room not in BASICS - {"goals", "names", "spellings"}:
        allowed |= BASICS
    used = set()
    for path in MODULES:
        if room_of(path) != room:
            continue
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "kerasrl" and len(parts) > 1:
                assert parts[1] in allowed, f"{path} imports {name}"
                used.add(parts[1])
    # What nobody uses would let somebody in unseen.
    assert MAY_IMPORT[room] <= used


def test_no_two_rooms_reach_each_other():
    reached = {room: set(others) for room, others in MAY_IMPORT.items()}
    for middle in reached:
        for others in reached.values():
            if middle in others:
                others |= reached[middle]
    assert not [room for room, others in reached.items() if room in others]


def test_what_losses_use_of_replicas_uses_nothing():
    assert set(imports(ROOT / "distribute/summing.py")) == {"contextlib", "threading"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_longer_than_500_lines(path):
    assert len(path.read_text().splitlines()) <= 500


@pytest.mark.parametrize("room", sorted(x for x in MAY_IMPORT if (ROOT / x).is_dir()))
def test_a_room_says_what_lives_there(room):
    document = ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text()))
    assert document.count(". ") + document.count(".\n") + 1 >= 3, document


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_public_keras(path):
    for name in imports(path):
        assert not name.startswith(("keras.src", "tf_keras", "tensorflow.keras")), name


@pytest.mark.parametrize(
    "module",
    [
        *("actors", "envs", "multi_agent.hosting", "replay", "rollouts", "spaces"),
        *("testing", "tuning", "workers"),
    ],
)
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
    bases = {agents.OnPolicyAgent, agents.OffPolicyAgent, PopulationAgent}
    algorithms = [
        value
        for value in vars(agents).values()
        if isinstance(value, type) and issubclass(value, agents.Agent)
    ]
    algorithms = set(algorithms) - bases - {agents.Agent}
    assert len(algorithms) >= 9
    for algorithm in algorithms:
        (base,) = algorithm.__bases__
        assert base in bases | {agents.Agent}


def test_agents_are_algorithms_in_files_under_300_lines():
    """And their base classes, how they explore, and what they replay from."""
    files = {path.stem: path for path in (ROOT / "agents").glob("*.py")}
    others = ("agent", "on_policy", "off_policy", "exploration", "buffers", "building")
    for name in ("__init__", *others):
        del files[name]
    classes = {name.lower() for name in vars(agents) if name.isidentifier()}
    for name, path in files.items():
        assert name.replace("_", "") in classes, f"{path} is no algorithm"
        assert len(path.read_text().splitlines()) < 300


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


PAGE = (ROOT.parent / "docs" / "architecture.md").read_text()
#: Cells of the rows of its tables, without the marks of code.
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| `")
]


def test_the_page_for_contributors_has_these_rooms():
    rooms = {
        row[0].strip("`"): set(re.findall(r"`(\w+)`", row[2]))
        for row in ROWS
        if len(row) == 3 and re.fullmatch(r"`\w+`", row[0]) and "/" not in row[1]
    }
    rooms = {room: others for room, others in rooms.items() if room in MAY_IMPORT}
    assert rooms == {
        room: others for room, others in MAY_IMPORT.items() if room not in BASICS
    }


def test_what_the_page_for_contributors_mentions_exists():
    for path in re.findall(r"`([\w/]+\.py)`", PAGE):
        assert (ROOT / path).exists() or (ROOT.parent / path).exists(), path
    hops = [row for row in ROWS if row[0].endswith(".py`")]
    assert len(hops) > 20
    for path, name, _ in hops:
        tree = ast.parse((ROOT / path.strip("`")).read_text())
        kinds = (ast.FunctionDef, ast.ClassDef)
        names = {node.name for node in ast.walk(tree) if isinstance(node, kinds)}
        assert name.strip("`") in names, f"{path} has no {name}"


def test_what_may_be_overridden_exists():
    owners = {
        "every agent": [agents.OnPolicyAgent, agents.OffPolicyAgent],
        "`OnPolicyAgent`": [agents.OnPolicyAgent],
        "`OffPolicyAgent`": [agents.OffPolicyAgent],
    }
    methods = [row for row in ROWS if row[1] in owners]
    assert len(methods) == 11
    for method, of, _ in methods:
        for owner in owners[of]:
            assert callable(getattr(owner, method.strip("`")))
