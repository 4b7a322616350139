"""What messages and docstrings tell users to write must exist."""

import ast
import pathlib
import re

import kerasrl

ROOT = pathlib.Path(kerasrl.__file__).parent

#: `name=value` in a text, not `name == value`, an attribute or an environment variable.
MENTION = re.compile(r"(?<![\w.\[\"'{$?-])([a-z][a-z0-9_]*)=(?![=\s}])")

#: Functions that an example defines.
DEFINITION = re.compile(r"def \w+\([^)]*\)")

#: Arguments of NumPy, Keras, Gymnasium, RLlib and of schedules that our texts speak of.
ELSEWHERE = {
    # Entries of `env_config`.
    "padding",
    "preset",
    # Arguments of Keras, Minari and Ray.
    "jpeg_encoding",
    # Options of RLlib 0.3, which `kerasrl.multi_agent` takes.
    "multiagent_fcnet_hiddens",
    "multiagent_shared_model",
    "param_space",
    "run_config",
    "shuffle",
    "tune_config",
    "all",
    "allow_pickle",
    "keepdims",
    "progress",
    "rho",
    "train_batch_size",
    "vector_kwargs",
    "vectorization_mode",
}


def test_arguments_in_texts_exist():
    trees = {path: ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}
    known = ELSEWHERE | set().union(*map(public_arguments, trees.values()))
    unknown = [
        f"{path.relative_to(ROOT)}:{line}: {name}= in {text[:60]!r}"
        for path, tree in trees.items()
        for line, text in texts(tree)
        for name in MENTION.findall(DEFINITION.sub("", text))
        if name not in known
    ]
    assert unknown == []


def public_arguments(tree):
    """Names of the arguments of all functions that users may call, and of fields."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
            names.update(field.target.id for field in fields)
        if isinstance(node, ast.FunctionDef) and (
            not node.name.startswith("_") or node.name == "__init__"
        ):
            arguments = node.args
            names.update(
                each.arg
                for each in (
                    *arguments.posonlyargs,
                    *arguments.args,
                    *arguments.kwonlyargs,
                )
            )
    return names


def texts(tree):
    """Pairs of line and text of all strings; `{}` stands for what is filled in."""
    parts = {
        id(value)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for value in ast.walk(node)
        if value is not node
    }
    for node in ast.walk(tree):
        if id(node) in parts:
            continue
        if isinstance(node, ast.JoinedStr):
            text = "".join(
                value.value if isinstance(value, ast.Constant) else "{}"
                for value in node.values
            )
            yield node.lineno, text
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
