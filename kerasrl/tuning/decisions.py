"""What a scheduler or a searcher says when a trial has reported a result."""

from dataclasses import dataclass
from typing import Any

from kerasrl.tuning.trial import Trial


@dataclass(frozen=True)
class Continue:
    """The trial goes on.

    Attributes:
        checkpoint: bool, whether it saves one first, for others to go on from.
    """

    checkpoint: bool = False


@dataclass(frozen=True)
class Stop:
    """The trial ends here, for good.

    Attributes:
        reason: str, what is shown to the user.
    """

    reason: str


@dataclass(frozen=True)
class Pause:
    """The trial saves a checkpoint, and leaves its slot until it is chosen again."""


@dataclass(frozen=True)
class Exploit:
    """The trial goes on from another one's checkpoint, with other settings.

    Attributes:
        donor: the `Trial` whose latest checkpoint is taken.
        settings: nested dict, what the trial has from now on.
    """

    donor: Trial
    settings: dict[str, Any]


Decision = Continue | Stop | Pause | Exploit
