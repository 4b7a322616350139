"""What the source of kerasrl says about its algorithms, without importing them.

Importing an agent imports TensorFlow, which takes seconds. Reading its source does not,
so that lists and what is misspelt are answered at once.
"""

import ast
import functools
import inspect
import re
from pathlib import Path
from typing import NamedTuple

import kerasrl

ROOT = Path(kerasrl.__file__).parent
BASES = ("Agent", "OnPolicyAgent", "OffPolicyAgent")


class Argument(NamedTuple):
    """An argument of a constructor.

    Attributes:
        default: str or None, its default as the source has it; None if there is none.
        meaning: str, the first sentence about it.
    """

    default: str | None
    meaning: str


class Class:
    """A class of kerasrl as its source describes it.

    Args:
        module: str, such as "kerasrl.agents.ppo".
        node: what `ast` has of it.
    """

    def __init__(self, module: str, node: ast.ClassDef) -> None:
        self.module = module
        self.node = node
        self.__name__ = node.name
        self.doc = inspect.cleandoc(ast.get_docstring(node) or "")

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return self.doc.partition("\n")[0]

    @functools.cached_property
    def parents(self) -> "list[Class]":
        """It and the classes it derives from, as far as they are kerasrl's."""
        found = [self]
        for base in self.node.bases:
            if isinstance(base, ast.Name):
                parent = find(self.module, base.id)
                if parent is not None:
                    return found + parent.parents
        return found

    def attribute(self, name: str) -> ast.AST | None:
        """The value of a class attribute, or a method, its own or inherited."""
        for parent in self.parents:
            for node in parent.node.body:
                if isinstance(node, ast.FunctionDef) and node.name == name:
                    return node
                if isinstance(node, ast.AnnAssign) and isinstance(
                    node.target, ast.Name
                ):
                    if node.target.id == name:
                        return node.value
        return None

    def signature(self, inherited: bool) -> dict[str, str | None]:
        """Arguments of the constructor and their defaults.

        Args:
            inherited: whether those that `**kwargs` hands to a parent are among them.
        """
        found: dict[str, str | None] = {}
        for parent in self.parents:
            own = [
                node for node in parent.node.body if isinstance(node, ast.FunctionDef)
            ]
            init = next((node for node in own if node.name == "__init__"), None)
            if init is None:
                continue
            names = [each.arg for each in init.args.args[1:]]
            given = [ast.unparse(each) for each in init.args.defaults]
            defaults = [None] * (len(names) - len(given)) + given
            for name, default in zip(names, defaults, strict=True):
                found.setdefault(name, default)
            if init.args.kwarg is None or not inherited:
                break
        return found

    def hyperparameters(self) -> list[str]:
        """As `kerasrl.Agent.hyperparameters`."""
        return list(self.signature(inherited=True))

    @property
    def default_policy(self) -> "Class":
        """The class of the policy made by default."""
        value = self.attribute("default_policy")
        policy = find(self.module, value.id) if isinstance(value, ast.Name) else None
        for parent in self.parents:
            policy = policy or find(parent.module, getattr(value, "id", ""))
        if policy is None:
            raise LookupError(f"{self.__name__} has no default policy.")
        return policy

    @property
    def default_optimizer(self) -> str:
        """The optimizer made by default, as the source writes it."""
        method = self.attribute("default_optimizer")
        nodes = ast.walk(method) if method is not None else ()
        for node in nodes:
            if isinstance(node, ast.Return) and node.value is not None:
                return ast.unparse(node.value)
        return ""

    def arguments(self, inherited: bool = True) -> dict[str, Argument]:
        """Arguments of the constructor, with defaults and what docstrings say."""
        return {
            name: Argument(default, first_sentence(self.meaning(name)))
            for name, default in self.signature(inherited).items()
        }

    def meaning(self, name: str) -> str:
        """What the docstring says of an argument, or the one that it refers to."""
        for parent in self.parents:
            text = sections(parent.doc).get(name)
            if text is None:
                continue
            other = re.match(r"As for `(?:\w+\.)*(\w+)`", text)
            if other is None:
                return text
            package = "models" if "models." in other[0] else "agents"
            referred = find(f"kerasrl.{package}", other[1])
            if referred is None or referred.node is parent.node:
                return text
            return referred.meaning(name) or text
        return ""


def algorithms() -> dict[str, Class]:
    """The algorithms by name."""
    names = [name for name, room in kerasrl._PUBLIC.items() if room == "kerasrl.agents"]
    found = {name: find("kerasrl.agents", name) for name in sorted(names)}
    return {n: cls for n, cls in found.items() if cls is not None and n not in BASES}


@functools.cache
def find(module: str, name: str) -> Class | None:
    """The class that a module defines, or imports from another of kerasrl's."""
    for node in read(module):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return Class(module, node)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "kerasrl"
        ):
            if any((each.asname or each.name) == name for each in node.names):
                return find(str(node.module), name)
    return None


@functools.cache
def read(module: str) -> list[ast.stmt]:
    """The statements of a module of kerasrl."""
    path = ROOT.joinpath(*module.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8")).body


@functools.cache
def sections(doc: str) -> dict[str, str]:
    """What the `Args:` of a docstring say, by name."""
    _, _, text = doc.partition("\nArgs:\n")
    entries: list[str] = []
    for line in text.partition("\n\n")[0].splitlines():
        if line.startswith("     ") and entries:
            entries[-1] += f" {line.strip()}"
        else:
            entries.append(line.strip())
    found = {}
    for entry in entries:
        names, _, meaning = entry.partition(": ")
        found.update({name.strip(): meaning for name in names.split(",")})
    return found


def first_sentence(text: str) -> str:
    """The first sentence of a text; the first two where that says next to nothing."""
    sentences = re.split(r"(?<=[\w)`\]][\w)`\]])\. ", text)
    found = sentences[0]
    if len(found) < 20 and len(sentences) > 1:
        found = ". ".join(sentences[:2])
    return found.removesuffix(".")
