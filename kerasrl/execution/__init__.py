"""What an iteration is made of, to make other iterations than those of `fit` of it.

Generators that take what another yields: rollouts, gradients, results. Whoever iterates
over the last of them sets the pace. Each closes the one before it when it ends or is
closed, so that environments and worker processes end with the last.
"""

from kerasrl.execution.learning import (
    Gradient,
    apply_gradients,
    async_gradients,
    train_one_step,
)
from kerasrl.execution.reporting import report
from kerasrl.execution.rollouts import concatenate, parallel_rollouts, standardize

__all__ = [
    "Gradient",
    "apply_gradients",
    "async_gradients",
    "concatenate",
    "parallel_rollouts",
    "report",
    "standardize",
    "train_one_step",
]
