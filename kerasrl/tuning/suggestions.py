"""Trials of what a searcher suggests."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kerasrl.tuning import planning
from kerasrl.tuning.results import flatten
from kerasrl.tuning.searchers import Searcher
from kerasrl.tuning.slots import Slots
from kerasrl.tuning.trial import Trial


class Suggestions:
    """Trials of what a searcher suggests, each time that a slot is free.

    Args:
        experiments: dict with one experiment, as `planning.read` returned it.
        root: path of its directory.
        search: `Searcher`.
        seeds: as for `run_experiments`.
        slots: `Slots` of the machine.
    """

    def __init__(
        self,
        experiments: dict[str, dict[str, Any]],
        root: Path,
        search: Searcher,
        seeds: int | Sequence[int] | None,
        slots: Slots,
    ) -> None:
        if len(experiments) > 1:
            raise ValueError(
                f"Received {len(experiments)} experiments and a searcher, which "
                "searches for the settings of one. Run one after the other."
            )
        ((self.name, self.experiment),) = experiments.items()
        self.root = root
        self.search = search
        self.slots = slots
        settings = list(planning.settings_of(self.experiment, 0))
        if len(settings) > 1 or settings[0][1]:
            raise ValueError(
                f"The experiment {self.name!r} has grids or distributions in its "
                "config, or num_samples, and a searcher. Give the searcher the space, "
                "and plain values in config."
            )
        ((self.settings, _),) = settings
        given = planning.first(self.experiment.get("seeds"), seeds)
        own = self.settings.pop("seed", None)
        self.seeds = planning.choose_seeds(self.name, given, own, 0)
        self.number = 0
        self.has_started = False
        self.is_exhausted = False

    def more(self, waits: bool) -> list[Trial]:
        """The trials of the next suggestion, unless others wait or it was the last."""
        if waits or self.is_exhausted:
            return []
        if not self.has_started:
            self.search.start(self.root, len(self.seeds))
            self.has_started = True
        suggested = self.search.suggest(self.number)
        if suggested is None:
            self.is_exhausted = True
            return []
        tag = ",".join(f"{name}={short(x)}" for name, x in flatten(suggested))
        found = [
            planning.make_trial(
                self.name,
                self.experiment,
                merged(self.settings, suggested),
                tag,
                self.number,
                seed,
                self.root,
            )
            for seed in self.seeds
        ]
        planning.check(found, self.slots)
        for trial in found:
            if trial.has_ended:
                # The launcher may have been killed before the search knew.
                self.search.on_end(trial)
        self.number += 1
        return found


def merged(settings: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """Nested settings, where others go before them."""
    found = dict(settings)
    for name, value in others.items():
        old = found.get(name)
        if isinstance(old, dict) and isinstance(value, dict):
            value = merged(old, value)
        found[name] = value
    return found


def short(value: Any) -> str:
    """A setting as names of directories have it."""
    return f"{value:.5g}" if isinstance(value, float) else str(value)
