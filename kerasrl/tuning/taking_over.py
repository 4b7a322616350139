"""Going on from another trial's checkpoint."""

import contextlib
import os
import re
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

from kerasrl.tuning.trial import Trial


def take_over(trial: Trial, donor: Trial, settings: dict[str, Any]) -> dict[str, Any]:
    """Give a trial, whose process does not train, a copy of another's checkpoint.

    A launcher that is killed meanwhile finds the trial as it was before or after.

    Args:
        trial: `Trial` that goes on as the other one.
        donor: `Trial` with a checkpoint.
        settings: nested dict, what `trial` has from now on.

    Returns:
        dict, the new entry of `trial.lineage`.
    """
    source = donor.checkpoint
    if source is None:
        raise ValueError(f"{donor.name} has no checkpoint to go on from.")
    # Under a name of its own: it may have another one with the same number.
    first = re.sub(r"-of-.*", "", source.name)
    target = trial.directory / f"{first}-of-{donor.number:05}-{donor.seed}"
    if source != target:
        copy(source, target)
    entry = {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "trial": trial.name,
        "donor": donor.name,
        "checkpoint": source.name,
        "taken": target.name,
        "env_steps": trial.result.get("env_steps"),
        "donor_env_steps": donor.result.get("env_steps"),
        "rows": len(trial.results),
        "settings_before": trial.settings,
        "donor_settings": donor.settings,
        "settings": settings,
    }
    trial.lineage.append(entry)
    trial.settings = settings
    trial.checkpoint = target
    trial.save()
    for old in trial.directory.glob("checkpoint-*"):
        # The best that it ever was stays.
        if old != target and not old.name.startswith("checkpoint-best"):
            remove(old)
    return entry


def copy(source: Path, target: Path) -> None:
    """Copy a file or a folder, whole or not at all."""
    temporary = target.with_name(f".{target.name}.tmp")
    remove(temporary)
    if source.is_dir():
        shutil.copytree(source, temporary)
        remove(target)
    else:
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)


def remove(path: Path) -> None:
    """Remove a file or a folder, if there is one."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
