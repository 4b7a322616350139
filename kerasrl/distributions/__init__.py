"""Action distributions: what the numbers that a policy emits mean.

Each has a file with how it is sampled, its log-probability, entropy, divergence and
mode, as tensors `[N, ...]`; `distribution_for` chooses one by the action space. They
use shape checks of the losses, and know no policy.
"""

from kerasrl.distributions.autoregressive import Autoregressive, autoregressive_for
from kerasrl.distributions.bernoulli import Bernoulli
from kerasrl.distributions.categorical import Categorical
from kerasrl.distributions.components import Components
from kerasrl.distributions.deterministic import Deterministic
from kerasrl.distributions.diagonal_gaussian import DiagonalGaussian
from kerasrl.distributions.distribution import Distribution
from kerasrl.distributions.distribution_for import DistributionType, distribution_for
from kerasrl.distributions.joint import Joint
from kerasrl.distributions.multi_categorical import MultiCategorical
from kerasrl.distributions.named import (
    distribution_class,
    distribution_name,
    register_distribution,
)
from kerasrl.distributions.tanh_gaussian import TanhGaussian

__all__ = [
    "Autoregressive",
    "Bernoulli",
    "Categorical",
    "Components",
    "Deterministic",
    "DiagonalGaussian",
    "Distribution",
    "DistributionType",
    "Joint",
    "MultiCategorical",
    "TanhGaussian",
    "autoregressive_for",
    "distribution_class",
    "distribution_for",
    "distribution_name",
    "register_distribution",
]
