"""Worker processes that step environments, and act in them, without TensorFlow.

The learner starts them with `WorkerEnvironments` and collects from them with what
`make_collector` returns. Numbers travel through memory that both sides map; single
bytes on a socket say whose turn it is.
"""

from kerasrl.rollouts.workers.alternating import AlternatingCollector
from kerasrl.rollouts.workers.collector import WorkerCollector
from kerasrl.rollouts.workers.environments import WorkerEnvironments
from kerasrl.rollouts.workers.local import LocalWorkers
from kerasrl.rollouts.workers.modes import (
    get_workers,
    make_collector,
    make_environments,
)
from kerasrl.rollouts.workers.pool import WorkerPool
from kerasrl.rollouts.workers.settings import MODES, check_settings

__all__ = [
    "MODES",
    "AlternatingCollector",
    "LocalWorkers",
    "WorkerCollector",
    "WorkerEnvironments",
    "WorkerPool",
    "check_settings",
    "get_workers",
    "make_collector",
    "make_environments",
]
