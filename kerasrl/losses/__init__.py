"""Pure mathematics of reinforcement learning: advantages, returns and losses.

Arrays in, arrays out: no model, no environment, no optimizer. Everything is written
with `keras.ops`, so it takes NumPy arrays as well as tensors in compiled functions. Of
kerasrl only `distribute.summing` is used, the sums over replicas that train together.

Shapes: `T` steps of `B` environments are `[T, B]`, flattened to `N = T * B`. The time
axis comes first; `...` stands for any further dimensions. Losses return a scalar and a
dict of scalars worth logging. No function broadcasts: shapes that differ are an error.
"""

from kerasrl.distribute.summing import sum_over_replicas, summing_over_replicas
from kerasrl.losses.actor_critic import (
    critics_loss,
    deterministic_policy_gradient,
    discrete_soft_policy_loss,
    discrete_soft_values,
    soft_policy_loss,
    soft_values,
    temperature_loss,
)
from kerasrl.losses.advantages import gae, standardize
from kerasrl.losses.categorical import (
    categorical_td_errors,
    categorical_td_loss,
    project_categorical,
)
from kerasrl.losses.evolution import (
    centered_ranks,
    evolution_weights,
    random_search_weights,
)
from kerasrl.losses.mixing import monotonic_mix, sum_mix
from kerasrl.losses.offline import (
    conservative_gap,
    expectile_loss,
    exponential_weights,
    marwil_loss,
    moving_square,
    regularized_policy_loss,
    weighted_imitation,
)
from kerasrl.losses.policy_gradient import (
    adapt_kl_coefficient,
    clipped_surrogate,
    entropy_bonus,
    estimated_kl,
    kl_penalty,
    policy_gradient,
)
from kerasrl.losses.q_learning import (
    greedy_values,
    huber,
    mean_value,
    q_learning_targets,
    select_actions,
    td_errors,
    td_loss,
    td_targets,
)
from kerasrl.losses.quantile import quantile_huber_loss, quantile_td_errors
from kerasrl.losses.reductions import IMPOSSIBLE, masked_mean, possible
from kerasrl.losses.returns import (
    discounted_returns,
    lambda_returns,
    n_step_returns,
)
from kerasrl.losses.sequences import (
    sequence_priorities,
    transformed_n_step_targets,
    usable_rows,
)
from kerasrl.losses.shapes import check_rank, check_same_shape
from kerasrl.losses.value import explained_variance, value_loss
from kerasrl.losses.value_rescaling import rescale, unrescale
from kerasrl.losses.vtrace import ratio_metrics, surrogate_reference, vtrace

__all__ = [
    "IMPOSSIBLE",
    "adapt_kl_coefficient",
    "categorical_td_errors",
    "categorical_td_loss",
    "centered_ranks",
    "check_rank",
    "check_same_shape",
    "clipped_surrogate",
    "conservative_gap",
    "critics_loss",
    "deterministic_policy_gradient",
    "discounted_returns",
    "discrete_soft_policy_loss",
    "discrete_soft_values",
    "entropy_bonus",
    "estimated_kl",
    "evolution_weights",
    "expectile_loss",
    "explained_variance",
    "exponential_weights",
    "gae",
    "greedy_values",
    "huber",
    "kl_penalty",
    "lambda_returns",
    "marwil_loss",
    "masked_mean",
    "mean_value",
    "monotonic_mix",
    "moving_square",
    "n_step_returns",
    "policy_gradient",
    "possible",
    "project_categorical",
    "q_learning_targets",
    "quantile_huber_loss",
    "quantile_td_errors",
    "random_search_weights",
    "ratio_metrics",
    "regularized_policy_loss",
    "rescale",
    "select_actions",
    "sequence_priorities",
    "soft_policy_loss",
    "soft_values",
    "standardize",
    "sum_mix",
    "sum_over_replicas",
    "summing_over_replicas",
    "surrogate_reference",
    "td_errors",
    "td_loss",
    "td_targets",
    "temperature_loss",
    "transformed_n_step_targets",
    "unrescale",
    "usable_rows",
    "value_loss",
    "vtrace",
    "weighted_imitation",
]
