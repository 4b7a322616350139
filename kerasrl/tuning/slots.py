"""The machine's cores and GPUs, shared out to trials."""

import logging
import math
import os
from dataclasses import dataclass, field

from kerasrl import checks
from kerasrl.experiment.resources import Resources, visible_gpus

_logger = logging.getLogger(__name__)
_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
#: What sums of shares may miss.
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Slot:
    """What one trial has while it runs.

    Attributes:
        index: int, from 0; free again once the trial has ended.
        threads: int, that its mathematics may use.
        gpus: tuple of names as for `CUDA_VISIBLE_DEVICES`.
        shares_gpu: bool, whether other trials may use the same GPU.
        needs: `Resources` that are given back with it.
    """

    index: int
    threads: int
    gpus: tuple[str, ...] = ()
    shares_gpu: bool = False
    needs: Resources = field(default_factory=Resources)

    def environment(self) -> dict[str, str]:
        """Environment variables of the trial's process."""
        variables = dict.fromkeys(_THREADS, str(self.threads))
        if self.gpus or self.needs.gpus is not None:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(self.gpus)
        if self.shares_gpu:
            # TensorFlow would take all memory for the first of them.
            variables["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
        return variables


class Slots:
    """Gives out slots as long as there is something left for another trial.

    Args:
        slots: int or None, how many trials run at once, whatever cores they ask for,
            which then share the cores evenly. None: as many as the cores suffice for.
        custom: dict from names to amounts of anything else that trials may ask for.
        cores: int or None, of this machine; None: those this process may use.
        gpus: list of names or None, the GPUs; None: those that are visible.

    Raises:
        ValueError: if `slots` is no integer from 1.

    Example:

    ```python
    slots = Slots(slots=2, gpus=["0"])
    slot = slots.take(Resources(cores=1, gpus=0.5))
    slot.environment()["CUDA_VISIBLE_DEVICES"]  # "0"
    slots.give_back(slot)
    ```
    """

    def __init__(
        self,
        slots: int | None = None,
        custom: dict[str, float] | None = None,
        cores: int | None = None,
        gpus: list[str] | None = None,
    ) -> None:
        if slots is not None:
            slots = checks.positive_integer("slots", slots)
        self.slots = slots
        self.cores = available_cores() if cores is None else cores
        self.free_cores = float(self.cores)
        #: What is left of each GPU.
        self.gpus = dict.fromkeys(visible_gpus() if gpus is None else gpus, 1.0)
        self.custom = dict(custom or {})
        self.free = dict(self.custom)
        self.taken: dict[int, Slot] = {}
        self._has_warned = False

    def check(self, needs: Resources) -> None:
        """Refuse what there will never be enough of.

        Raises:
            ValueError: for more GPUs than there are, or another resource of which
                nobody has said how much there is, or not enough.
        """
        if needs.gpus is not None and math.ceil(needs.gpus) > len(self.gpus):
            raise ValueError(
                f"A trial's num_gpus is {needs.gpus:g}, but there are "
                f"{len(self.gpus)} GPUs here. Ask for fewer, or for 0."
            )
        for name, amount in needs.custom.items():
            if name not in self.custom:
                raise ValueError(
                    f"A trial asks for {amount:g} of the resource {name!r}, and nothing"
                    f" says how much there is. Give resources={{{name!r}: {amount:g}}}"
                    ", or leave it out."
                )
            if amount > self.custom[name]:
                raise ValueError(
                    f"A trial asks for {amount:g} of the resource {name!r}, of which "
                    f"there is {self.custom[name]:g}."
                )

    def take(self, needs: Resources) -> Slot | None:
        """A slot for a trial, or None as long as others have what it needs."""
        if self.slots is not None and len(self.taken) >= self.slots:
            return None
        if self.slots is None and needs.cores > self.free_cores + _TOLERANCE:
            if self.taken:
                return None
            if not self._has_warned:
                self._has_warned = True
                _logger.warning(
                    "Trials ask for %g cores of %d: each runs alone, with all of them.",
                    *(needs.cores, self.cores),
                )
        if any(self.free[x] < n - _TOLERANCE for x, n in needs.custom.items()):
            return None
        index = next(i for i in range(len(self.taken) + 1) if i not in self.taken)
        gpus = self._choose_gpus(needs, index)
        if gpus is None:
            return None
        if self.slots is None:
            threads = min(math.floor(needs.cores + _TOLERANCE), self.cores)
        else:
            threads = self.cores // self.slots
        shares = bool(gpus) and (needs.gpus is None or needs.gpus < 1)
        slot = Slot(index, max(threads, 1), gpus, shares, needs)
        self._book(slot, -1)
        self.taken[index] = slot
        return slot

    def give_back(self, slot: Slot) -> None:
        """Say that a slot's trial has ended."""
        del self.taken[slot.index]
        self._book(slot, 1)

    def _choose_gpus(self, needs: Resources, index: int) -> tuple[str, ...] | None:
        names = list(self.gpus)
        if needs.gpus is None:
            # As a single training would: it uses a GPU if there is one.
            return (names[index % len(names)],) if names else ()
        if needs.gpus >= 1:
            free = [name for name in names if self.gpus[name] > 1 - _TOLERANCE]
            count = round(needs.gpus)
            return tuple(free[:count]) if len(free) >= count else None
        if needs.gpus == 0:
            return ()
        fitting = [x for x in names if self.gpus[x] > needs.gpus - _TOLERANCE]
        # The fullest, so that whole ones stay for those that need them.
        return (min(fitting, key=self.gpus.__getitem__),) if fitting else None

    def _book(self, slot: Slot, sign: int) -> None:
        self.free_cores += sign * slot.needs.cores
        for name in slot.gpus:
            self.gpus[name] += sign * min(slot.needs.gpus or 0.0, 1.0)
        for name, amount in slot.needs.custom.items():
            self.free[name] += sign * amount


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
