"""Training on several devices, processes and hosts.

A `Replicas` says what ranks exchange (gradients, weights, statistics) and in which
order; one is for a single process, one for `tf.distribute`, one for Horovod. Whatever
trains asks the one that is current and does not know which it is. Nothing else of
kerasrl is used here; what losses and models need of it is in `summing`.
"""

from kerasrl.distribute.elastic import run_elastic
from kerasrl.distribute.horovod import Horovod
from kerasrl.distribute.launch import open_scope, scale_learning_rate
from kerasrl.distribute.replicas import Replicas
from kerasrl.distribute.scopes import check, current
from kerasrl.distribute.tf_distribute import TfDistribute

__all__ = [
    "Horovod",
    "Replicas",
    "TfDistribute",
    "check",
    "current",
    "open_scope",
    "run_elastic",
    "scale_learning_rate",
]
