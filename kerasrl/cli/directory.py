"""The directory of a run."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kerasrl.experiment import refuse


def choose_directory(
    options: dict[str, Any], experiment: dict[str, Any]
) -> Path | None:
    """The directory that was asked for, or None for a new one."""
    asked = options["logdir"] or experiment.get("local_dir")
    if asked is None and options["resume"]:
        parent = Path(options["resume"]).resolve().parent
        # A checkpoint that was copied elsewhere has no run beside it.
        return parent if (parent / "params.json").exists() else None
    if asked is None:
        return None
    directory = Path(asked).expanduser()
    for each in (directory, *directory.parents):
        if each.exists() and not each.is_dir():
            refuse(f"{asked} cannot be the directory of a run: {each} is a file.")
    goes_on = options["resume"] or options["elastic"]
    if (directory / "result.json").exists() and not goes_on:
        refuse(
            f"{directory} holds a run already. Choose another --logdir, or go on with "
            "--resume CHECKPOINT."
        )
    return directory


@contextlib.contextmanager
def run_directory(asked: Path | None, agent: Any, env: str) -> Iterator[Path]:
    """The directory that was asked for or a new one; away again if `fit` refuses.

    Args:
        asked: path or None for a new directory.
        agent: an `Agent`.
        env: str, the environment's name.

    Yields:
        path. The training in the context makes it where it is missing.
    """
    from kerasrl.callbacks import run_logger

    place = Path(run_logger.RESULTS).expanduser() if asked is None else asked
    missing = [each for each in (place, *place.parents) if not each.exists()]
    if asked is None and agent.replicas.is_chief:
        asked = run_logger.new_run_directory(type(agent).__name__, env)
        missing.insert(0, asked)
    # The other ranks use the directory of the first.
    directory = Path(agent.replicas.gather_data(str(asked))[0])
    try:
        yield directory
    except Exception:
        if agent.replicas.is_chief and missing and not holds_results(missing[0]):
            remove(missing)
        raise


def holds_results(directory: Path) -> bool:
    """Whether there is anything of a training that began, be it another command's."""
    return (directory / "result.json").exists() or any(directory.glob("checkpoint*"))


def remove(missing: list[Path]) -> None:
    """Remove a directory of this command, and those made only to hold it."""
    shutil.rmtree(missing[0], ignore_errors=True)
    with contextlib.suppress(OSError):
        for each in missing[1:]:
            each.rmdir()
