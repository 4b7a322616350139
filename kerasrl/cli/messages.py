"""What commands let through of what TensorFlow and kerasrl have to say."""

import contextlib
import importlib.abc
import importlib.util
import io
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import IO, Any, cast

LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)


def quiet_import(name: str) -> None:
    """Have the first import of a package write nothing to the standard error.

    TensorFlow's libraries write there as they are loaded, whatever its log level.
    """
    if name not in sys.modules:
        sys.meta_path.insert(0, QuietFinder(name))


class QuietFinder(importlib.abc.MetaPathFinder):
    """Finds a package as the others do, once, and silences its import.

    Args:
        name: str, name of the package.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> Any:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_silently(module: ModuleType) -> None:
            with silent():
                execute(module)

        spec.loader.exec_module = execute_silently  # type: ignore[method-assign]
        return spec


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keep back what is written to the standard error, also by other languages.

    It is shown after all if what happens in the context fails.
    """
    try:
        kept = os.dup(2)
    except OSError:
        # There is no standard error.
        yield
        return
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(kept, 2)
            file.seek(0)
            os.write(2, file.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def show_messages(verbosity: int) -> None:
    """Show the messages of the logger "kerasrl" on the standard error.

    Args:
        verbosity: int, how often `-v` was given: warnings, then what happens, then
            everything.
    """
    logger = logging.getLogger("kerasrl")
    logger.setLevel(LEVELS[min(verbosity, len(LEVELS) - 1)])
    for handler in logger.handlers[:]:
        if getattr(handler, "is_of_command_line", False):
            logger.removeHandler(handler)
    handler = make_handler()
    handler.is_of_command_line = True  # type: ignore[attr-defined]
    logger.addHandler(handler)
    logger.propagate = False


def make_handler() -> logging.Handler:
    """A handler in colours for a terminal; plain lines, never wrapped, for a file."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.logging import RichHandler

        console = Console(file=cast("IO[str]", StandardError()), force_terminal=True)
        return RichHandler(console=console, show_path=False)
    handler = logging.StreamHandler(StandardError())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    return handler


class StandardError(io.TextIOBase):
    """Whatever `sys.stderr` is when something is written.

    While a bar is drawn, that is what prints above it.
    """

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()
