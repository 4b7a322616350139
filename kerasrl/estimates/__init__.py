"""How well an agent would do, estimated from what others did.

`kerasrl.offline.estimate` judges an agent by a dataset; `OffPolicyEstimation` does so
while it trains. `estimators` has the mathematics, pure functions of arrays, and
`judging` what a policy would have done, and fitted Q evaluation.
"""

from kerasrl.estimates.callback import OffPolicyEstimation
from kerasrl.estimates.estimation import METHODS, estimate

__all__ = ["METHODS", "OffPolicyEstimation", "estimate"]
