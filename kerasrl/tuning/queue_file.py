"""A file of experiments that may grow while they run."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from kerasrl.experiment import read_experiments
from kerasrl.tuning import planning
from kerasrl.tuning.trial import Trial

#: Seconds between two looks at the file.
_PERIOD = 1.0


class QueueFile:
    """Trials of the experiments in a file, read again whenever it has changed.

    An experiment that is in it for the first time joins the end of the queue. One that
    was changed or removed goes on as it was.

    Args:
        path: path of the YAML file.
        root: path of the directory in which each experiment has one.
        say: function of a text for the user.
        check: function of a list of trials that raises if they cannot run here.
        seeds: as for `run_experiments`.
        seed: int, likewise.
        modules: names of modules, likewise.

    Raises:
        click.UsageError, ValueError, TypeError: if the file cannot be read.
    """

    def __init__(
        self,
        path: str | Path,
        root: Path,
        say: Callable[[str], None],
        check: Callable[[list[Trial]], None],
        seeds: int | Sequence[int] | None = None,
        seed: int = 0,
        modules: Sequence[str] = (),
    ) -> None:
        self.path = Path(path)
        self.root = root
        self.say = say
        self.check = check
        self.seeds = seeds
        self.seed = seed
        self.modules = modules
        self.known: dict[str, dict[str, Any]] = {}
        #: Whether it could not be read as it is.
        self.is_broken = False
        self._stamp: tuple[int, int] | None = None
        self._next = 0.0

    def read(self) -> list[Trial]:
        """Trials of the experiments that are new in the file."""
        found = read_experiments(str(self.path))
        new = {name: each for name, each in found.items() if name not in self.known}
        for name, each in new.items():
            if each.get("local_dir") is not None:
                raise ValueError(
                    f"{self.path}: {name}: local_dir: all experiments of a queue are "
                    f"in one directory, {self.root}. Leave it out, and give --logdir."
                )
        read = {name: planning.read(name, x, self.modules) for name, x in new.items()}
        places = {name: self.root / planning.file_name(name) for name in read}
        trials = planning.plan(read, places, self.seeds, self.seed)
        self.check(trials)
        changed = [n for n, x in self.known.items() if n in found and found[n] != x]
        if changed:
            self.say(
                f"{self.path}: {', '.join(changed)} changed, and goes on as it was. "
                "Add what is new under a name of its own."
            )
        self.known.update(found)
        return trials

    def more(self, waits: bool) -> list[Trial]:
        """New trials if the file has changed; what cannot be read is said, and waits.

        A launcher waits as well while it is broken, though nothing runs.

        Args:
            waits: bool, whether there is something to do until the next look.
        """
        now = time.monotonic()
        if waits and now < self._next:
            return []
        self._next = now + _PERIOD
        stamp = stamp_of(self.path)
        if stamp is None:
            # Nothing comes any more.
            self.is_broken = False
            return []
        if stamp == self._stamp:
            return []
        self.is_broken = False
        try:
            trials = self.read()
        except (click.UsageError, ValueError, TypeError) as error:
            if self._stamp is None:
                raise
            # Somebody may be writing it just now.
            self.say(f"Waiting for {self.path} to be mended: {error}")
            self.is_broken = True
            trials = []
        self._stamp = stamp
        if trials:
            self.say(f"{len(trials)} trials of {self.path} join the queue.")
        return trials


def stamp_of(path: Path) -> tuple[int, int] | None:
    """What changes when a file does; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
