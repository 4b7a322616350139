"""Worker processes that step environments, and act in them, without TensorFlow.

The learner starts them with `WorkerEnvironments` and collects from them with what
`make_collector` returns. Numbers travel through memory that both sides map; single
bytes on a socket say whose turn it is. The same program runs in actors of a Ray
cluster, where both sides have copies of that memory.
"""

from kerasrl.workers.alternating import AlternatingCollector
from kerasrl.workers.asynchronous import AsynchronousCollector
from kerasrl.workers.collector import WorkerCollector
from kerasrl.workers.environments import WorkerEnvironments
from kerasrl.workers.local import LocalWorkers
from kerasrl.workers.modes import get_workers, make_collector, make_environments
from kerasrl.workers.pool import WorkerPool
from kerasrl.workers.population import make_player
from kerasrl.workers.settings import MODES, RayCluster, check_settings, read_cluster
from kerasrl.workers.shared_value import SharedValue

__all__ = [
    "MODES",
    "AlternatingCollector",
    "AsynchronousCollector",
    "LocalWorkers",
    "RayCluster",
    "SharedValue",
    "WorkerCollector",
    "WorkerEnvironments",
    "WorkerPool",
    "check_settings",
    "get_workers",
    "make_collector",
    "make_environments",
    "make_player",
    "read_cluster",
]
