"""What PPO and its asynchronous form share: epochs, and penalties on the KL."""

import numpy as np

from kerasrl.losses import adapt_kl_coefficient, estimated_kl, explained_variance
from kerasrl.training.minibatches import draw_minibatches, minibatch_steps


def penalizes(kl_coef):
    """Whether a weight of the KL penalty, a number or a schedule, means that there is.

    The loss is another one then.
    """
    return callable(kl_coef) or kl_coef > 0.0


def check(agent):
    """Raises a ValueError if hyperparameters of the KL penalty contradict each other.

    Args:
        agent: An `Agent` with `kl_coef` and `target_kl`.
    """
    if callable(agent.kl_coef) and agent.target_kl is not None:
        raise ValueError(
            "Received both a schedule as kl_coef and target_kl, which adapts kl_coef. "
            "Use one of them."
        )


def needs(agent):
    """Returns the names of the methods that distributions of actions must have."""
    names = ("sample", "mode", "log_prob", "entropy")
    return (*names, "kl") if agent.uses_kl_penalty else names


def log_probs(policy, rollout, outputs):
    """Returns the log-probabilities of the actions of a rollout, by a policy's outputs.

    Args:
        policy: A `Policy`.
        rollout: Dict of tensors `[T, B, ...]`, see `Agent.targets`.
        outputs: Dict of tensors `[T, B, ...]` that the policy returned for it.

    Returns:
        Float `[T, B]`.
    """
    return policy.distribution(outputs).log_prob(rollout["actions"])


def divergence(policy, batch, distribution, log_probs):
    """Returns how far a policy went from what a batch was drawn by, or that of `batch`.

    Args:
        policy: A `Policy`.
        batch: Dict of tensors `[N, ...]`, with the parameters `"distribution"` and the
            `"near_log_probs"`, or else `"log_probs"`, of the actions under the policy
            to stay near to.
        distribution: `Distribution`, `[N]`, of the policy that is being trained.
        log_probs: Float `[N]`, those of the actions under it.

    Returns:
        Float `[N]`, in nats.
    """
    if policy.is_told_by_parameters:
        return policy.distribution(batch).kl(distribution)
    # What acted is gone, but for how probable its actions were.
    near = batch.get("near_log_probs", batch["log_probs"])
    return estimated_kl(log_probs, near)


def draw_epochs(agent, rollout):
    """Draws the minibatches of several epochs.

    Args:
        agent: An `Agent` with `num_epochs` and `minibatch_size`.
        rollout: Dict of NumPy arrays `[T, B, ...]`.

    Returns:
        Dict as `minibatch_steps` takes it. For recurrent policies, of whole sequences.
    """
    valid = rollout["valid"]
    if agent.policy.is_recurrent:
        valid, size = valid.any(axis=0), max(1, agent.minibatch_size // len(valid))
    else:
        valid, size = valid.ravel(), agent.minibatch_size
    if agent.replicas.num_ranks > 1:
        valid = np.ones_like(valid)  # All ranks take the same number of steps.
    return draw_minibatches(agent.rng, valid, min(size, len(valid)), agent.num_epochs)


def take_epochs(agent, batch, settings, minibatches):
    """Takes one gradient step per minibatch, or fewer where `target_kl` ends them.

    Args:
        agent, batch, settings, minibatches: As for `OnPolicyAgent.update`.

    Returns:
        Dict of scalars.
    """
    stop = None
    if agent.target_kl is not None and not agent.uses_kl_penalty:

        def stop(metrics):
            return metrics["approximate_kl"] > 1.5 * agent.target_kl

    metrics = minibatch_steps(agent, batch, settings, minibatches, stop)
    metrics["explained_variance"] = explained_variance(
        batch["values"], batch["returns"], batch["mask"]
    )
    if agent.uses_kl_penalty:
        metrics["kl_coef"] = settings["kl_coef"]
    return metrics


def adapt(agent, logs):
    """Adapts the weight of the KL penalty, if it is to be, to what an update logged."""
    if agent.uses_kl_penalty and agent.target_kl is not None and logs:
        agent.kl_coef = float(
            adapt_kl_coefficient(agent.kl_coef, logs["kl"], agent.target_kl)
        )
