"""Q-learning towards a target network, as functions of the agent."""

from keras import ops

from kerasrl import losses
from kerasrl.models import NoiseScope
from kerasrl.training import passes


def loss(agent, batch, outputs):
    """Computes the loss of action values, whatever the network says of them.

    Networks with atoms learn distributions by their divergence (C51), those with
    quantiles by quantile regression (QR-DQN), others by the temporal-difference error.

    Args:
        agent: An `OffPolicyAgent` with a `kerasrl.models.QFunction`, `double`, whether
            the online network chooses the action that the target network values, and
            `huber_delta`, as of `kerasrl.DQN`.
        batch: Dict of samples, as in `Agent.loss`.
        outputs: What the policy returned for them.

    Returns:
        Tuple of the loss and a dict of what is logged, as from `Agent.loss`.
    """
    policy = agent.policy
    taken = policy.combinations.number(batch["actions"])
    # Each network has noise of its own, if it is noisy.
    with agent.target.scope(), NoiseScope(stream=1):
        next_outputs = passes.next_outputs(policy, batch)
    selector = None
    if agent.double:
        with NoiseScope(stream=2):
            selector = passes.next_outputs(policy, batch)["q_values"]
    values = losses.select_actions(outputs["q_values"], taken)
    if "logits" in outputs:
        result, metrics, errors = _categorical(
            policy.atoms, batch, outputs["logits"], taken, next_outputs, selector
        )
    elif "quantiles" in outputs:
        # A network that was given may have quantiles too.
        kappa = 1.0 if agent.huber_delta is None else agent.huber_delta
        result, metrics, errors = _quantile(
            kappa, batch, outputs["quantiles"], taken, next_outputs, selector
        )
    else:
        targets = losses.q_learning_targets(
            batch["rewards"], batch["discounts"], next_outputs["q_values"], selector
        )
        result, metrics = losses.td_loss(
            values, targets, batch["weights"], agent.huber_delta
        )
        errors = losses.td_errors(values, targets)
    return result, {
        **metrics,
        "q_value": losses.mean_value(values),
        "td_errors": errors,
    }


def _categorical(atoms, batch, logits, taken, next_outputs, selector):
    logits = losses.select_actions(logits, taken, -2)
    next_actions = _best(next_outputs["q_values"], selector)
    targets = losses.project_categorical(
        batch["rewards"][:, None] + batch["discounts"][:, None] * atoms,
        ops.softmax(losses.select_actions(next_outputs["logits"], next_actions, -2)),
        atoms,
    )
    result, metrics = losses.categorical_td_loss(logits, targets, batch["weights"])
    return result, metrics, losses.categorical_td_errors(logits, targets)


def _quantile(kappa, batch, quantiles, taken, next_outputs, selector):
    quantiles = losses.select_actions(quantiles, taken, -2)
    next_actions = _best(next_outputs["q_values"], selector)
    targets = losses.td_targets(
        ops.broadcast_to(batch["rewards"][:, None], ops.shape(quantiles)),
        ops.broadcast_to(batch["discounts"][:, None], ops.shape(quantiles)),
        losses.select_actions(next_outputs["quantiles"], next_actions, -2),
    )
    result, metrics = losses.quantile_huber_loss(
        quantiles, targets, kappa=kappa, weights=batch["weights"]
    )
    return result, metrics, losses.quantile_td_errors(quantiles, targets)


def _best(q_values, selector):
    return ops.argmax(q_values if selector is None else selector, axis=-1)
