"""How well an agent would do, estimated from a dataset alone."""

import numpy as np

from kerasrl import checks
from kerasrl.estimates import estimators, judging

METHODS = ("is", "wis", "pdis", "dm", "dr", "wdr", "fqe")
#: Those that compare how probable actions were, and those that ask a model.
_BY_RATIOS = ("is", "wis", "pdis", "dr", "wdr")
_BY_MODEL = ("dm", "dr", "wdr", "fqe")


def estimate(
    agent,
    dataset,
    methods=METHODS,
    gamma=0.99,
    fqe_steps=2_000,
    hidden_units=(64, 64),
    num_samples=200,
    confidence=0.95,
    seed=0,
):
    """Estimates the discounted return of an agent from what others did.

    | method | is | needs |
    |---|---|---|
    | `"is"` | importance sampling of whole episodes | log-probabilities |
    | `"wis"` | the same, weighted: biased, of less variance | log-probabilities |
    | `"pdis"` | importance sampling of each reward | log-probabilities |
    | `"dm"`, `"fqe"` | V of the first observations, by fitted Q evaluation | a model |
    | `"dr"`, `"wdr"` | doubly robust, and weighted | both |

    The policy is judged as it acts while it explores; Q-learning's, which has no
    probabilities, as it acts without. Log-probabilities of those who acted are in
    `episode.extras["log_probs"]`, where kerasrl wrote the data. Rewards after a
    truncation are not counted, but by `"dm"` and `"fqe"`.

    Args:
        agent: A `kerasrl.Agent` that was built, with a policy without memory.
        dataset: `kerasrl.offline.Dataset`.
        methods: Name or names as above.
        gamma: Float, discount factor.
        fqe_steps: Integer, gradient steps of fitted Q evaluation.
        hidden_units: Widths of the dense layers of its network.
        num_samples: Integer, how often episodes are drawn for an interval.
        confidence: Float in (0, 1), its confidence.
        seed: Integer, of the network and of draws.

    Returns:
        Dict from each method to a dict of `"mean"`, `"low"` and `"high"`; and
        `"behaviour_return_mean"`, the mean discounted return of the episodes,
        `"episodes"`, their number, and, with log-probabilities, the
        `"effective_sample_size"`: where it is small, ratios say little.

    Raises:
        ValueError: A method is not known, or needs what is not there.

    Example:

    ```python
    found = kerasrl.offline.estimate(agent, dataset, methods=("wis", "fqe"))
    found["wis"]["mean"], found["effective_sample_size"]
    ```
    """
    methods = checked_methods(methods)
    checks.fraction("gamma", gamma)
    if not 0.0 < checks.fraction("confidence", confidence) < 1.0:
        raise ValueError(
            f"Received confidence={confidence!r}. Expected a number between 0 and 1, "
            "such as 0.95."
        )
    checks.positive_integer("num_samples", num_samples)
    if not dataset.num_episodes:
        raise ValueError("Received a dataset without episodes. There is no estimate.")
    by_ratios = [method for method in methods if method in _BY_RATIOS]
    if by_ratios:
        _check_log_probs(agent, dataset, by_ratios)
    fitted = None
    if any(method in _BY_MODEL for method in methods):
        steps = checks.positive_integer("fqe_steps", fqe_steps)
        fitted = judging.fit_q(agent, dataset, gamma, steps, hidden_units, seed)
    seen = list(judging.look(agent, dataset, fitted, seed))
    columns = _columns(dataset, seen, bool(by_ratios))
    found = {}
    for method in methods:
        value = _function(method, columns, gamma)
        every = np.arange(dataset.num_episodes)
        low, high = estimators.bootstrap(
            value, len(every), num_samples, confidence, seed
        )
        found[method] = {"mean": float(value(every)), "low": low, "high": high}
    returns = estimators.discounted_sums(columns["rewards"], gamma)
    found["behaviour_return_mean"] = float(returns.mean())
    found["episodes"] = dataset.num_episodes
    if by_ratios:
        size = estimators.effective_sample_size(columns["log_ratios"], are_logs=True)
        found["effective_sample_size"] = size
    return found


def checked_methods(methods):
    """Returns a tuple of names of methods; raises a ValueError for any other.

    Args:
        methods: One of `METHODS`, or several.
    """
    methods = (methods,) if isinstance(methods, str) else tuple(methods)
    for method in methods:
        checks.choice("methods", method, METHODS)
    return methods


def _check_log_probs(agent, dataset, methods):
    if "log_probs" not in dataset.extras:
        raise ValueError(
            f"Received methods={methods}, which compare how probable actions were, and "
            'a dataset without "log_probs" in its extras. Use "dm" or "fqe", or record '
            "them."
        )
    if judging.Judged(agent).is_deterministic:
        raise ValueError(
            f"Received methods={methods}, which compare how probable actions are, and "
            f'{type(agent).__name__}, whose actions have no density. Use "fqe".'
        )


def _columns(dataset, seen, with_ratios):
    """Arrays `[n, T]` of all episodes, filled up with zeros to the longest."""
    rows = {name: [] for name in ("rewards", "log_ratios", "q_values", "values")}
    for episode, found in zip(dataset.episodes, seen, strict=True):
        rows["rewards"].append(episode.rewards)
        if with_ratios:
            behaviour = np.asarray(episode.extras["log_probs"], np.float64)
            rows["log_ratios"].append(found["log_probs"] - behaviour)
        for name in ("q_values", "values"):
            if name in found:
                rows[name].append(found[name])
    longest = max(len(each) for each in rows["rewards"])
    columns = {}
    for name, parts in rows.items():
        if parts:
            filled = np.zeros((len(parts), longest))
            for row, part in zip(filled, parts, strict=True):
                row[: len(part)] = part
            columns[name] = filled
    return columns


def _function(method, columns, gamma):
    """A function of which episodes to take, whose value is the estimate."""
    names = ["log_ratios", "rewards"]
    if method in ("dr", "wdr"):
        names += ["q_values", "values"]
    if method in ("dm", "fqe"):
        first = columns["values"][:, 0]
        return lambda chosen: first[chosen].mean()
    weighted = {
        "wis": estimators.weighted_importance_sampling,
        "wdr": estimators.weighted_doubly_robust,
    }
    if method in weighted:
        function = weighted[method]
        return lambda chosen: function(
            *(columns[n][chosen] for n in names), gamma, are_logs=True
        )
    single = {
        "is": estimators.importance_sampling,
        "pdis": estimators.per_decision_importance_sampling,
        "dr": estimators.doubly_robust,
    }
    # Episode by episode: once for all draws.
    of_episodes = single[method](*(columns[n] for n in names), gamma, are_logs=True)
    return lambda chosen: of_episodes[chosen].mean()
