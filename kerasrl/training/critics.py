"""What algorithms with critics of actions have in common, as functions of the agent."""

from keras import ops

from kerasrl import losses
from kerasrl.training import passes, terms
from kerasrl.training.target_network import frozen


def parts(policy):
    """Returns the variables of critics and policy, as `Agent.parts` does.

    Args:
        policy: A `kerasrl.models.ActionValuePolicy`.
    """
    critics, actor = policy.critic_variables(), policy.policy_variables()
    return {"critics": critics, "policy": actor}


def values_taken(policy, batch):
    """Returns what critics say of the actions that were taken, to be trained.

    Args:
        policy: A `kerasrl.models.ActionValuePolicy` of `Box` actions.
        batch: Dict of `"observations"` and `"actions"`, `[N, ...]`.

    Returns:
        Float `[C, N]`, of each of C critics.
    """
    actions = policy.normalize_actions(batch["actions"])
    with terms.training_pass():
        return policy.q_values(batch["observations"], actions, training=True)


def critic_loss(agent, batch, change_actions=None):
    """Computes the loss of critics whose targets follow a deterministic policy.

    ```
    target = rewards + discounts * min_c Q'_c(next_observations, mode'(next_outputs))
    ```

    where primes are of the target network, and the least of all critics counts.

    Args:
        agent: An `OffPolicyAgent` with a `kerasrl.models.ActionValuePolicy`.
        batch: Dict of samples, as in `Agent.loss`.
        change_actions: `None`, or a function of the actions in targets, `[N, ...]` in
            [-1, 1], that returns those to take in their place.

    Returns:
        Tuple of the loss and a dict of what is logged, as from `Agent.loss`.
    """
    policy, next_observations = agent.policy, batch["next_observations"]
    with agent.target.scope():
        next_actions = policy.mode(passes.next_outputs(policy, batch))
        if change_actions is not None:
            next_actions = change_actions(next_actions)
        next_values = policy.q_values(next_observations, next_actions)
    targets = losses.td_targets(
        batch["rewards"], batch["discounts"], ops.min(next_values, axis=0)
    )
    values = values_taken(policy, batch)
    loss, metrics, errors = losses.critics_loss(values, targets, batch["weights"])
    return loss, {
        "critic_loss": loss,
        **metrics,
        "q_value": ops.mean(values),
        "td_errors": errors,
    }


def policy_loss(policy, batch, outputs):
    """Computes the loss of a deterministic policy: less where a critic says more.

    Args:
        policy: A `kerasrl.models.ActionValuePolicy`.
        batch: Dict of `"observations"`, `[N, ...]`.
        outputs: What the policy returned for them.

    Returns:
        Float scalar, whose gradient reaches no critic.
    """
    with frozen(policy):
        values = policy.first_q_values(batch["observations"], policy.mode(outputs))
    return losses.deterministic_policy_gradient(values)[0]
