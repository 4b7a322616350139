"""Training on several devices, processes and hosts."""

from kerasrl.distribute.elastic import run_elastic
from kerasrl.distribute.horovod import Horovod
from kerasrl.distribute.launch import open_scope, scale_learning_rate
from kerasrl.distribute.replicas import Replicas, Single
from kerasrl.distribute.scopes import check, current
from kerasrl.distribute.tf_distribute import TfDistribute

__all__ = [
    "Horovod",
    "Replicas",
    "Single",
    "TfDistribute",
    "check",
    "current",
    "open_scope",
    "run_elastic",
    "scale_learning_rate",
]
