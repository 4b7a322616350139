"""Pure mathematics of reinforcement learning: advantages, returns and losses.

Arrays in, arrays out: no model, no environment, no optimizer. Everything is written
with `keras.ops`, so it takes NumPy arrays as well as tensors in compiled functions.

Shapes: `T` steps of `B` environments are `[T, B]`, flattened to `N = T * B`. The time
axis comes first; `...` stands for any further dimensions. Losses return a scalar and a
dict of scalars worth logging. No function broadcasts: shapes that differ are an error.
"""

from kerasrl.losses.advantages import gae, standardize
from kerasrl.losses.policy_gradient import (
    adapt_kl_coefficient,
    clipped_surrogate,
    entropy_bonus,
    kl_penalty,
    policy_gradient,
)
from kerasrl.losses.reductions import masked_mean
from kerasrl.losses.returns import (
    discounted_returns,
    lambda_returns,
    n_step_returns,
)
from kerasrl.losses.shapes import check_rank, check_same_shape
from kerasrl.losses.value import explained_variance, value_loss

__all__ = [
    "adapt_kl_coefficient",
    "check_rank",
    "check_same_shape",
    "clipped_surrogate",
    "discounted_returns",
    "entropy_bonus",
    "explained_variance",
    "gae",
    "kl_penalty",
    "lambda_returns",
    "masked_mean",
    "n_step_returns",
    "policy_gradient",
    "standardize",
    "value_loss",
]
