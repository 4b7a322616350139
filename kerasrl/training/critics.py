"""What algorithms with critics of actions have in common, as functions of the agent."""

import keras
from keras import ops

from kerasrl import losses
from kerasrl.models.policy import merge_time
from kerasrl.training import passes, terms
from kerasrl.training.target_network import frozen


def parts(policy):
    """Returns the variables of critics and policy, as `Agent.parts` does.

    Args:
        policy: A `kerasrl.models.ActionValuePolicy`.
    """
    critics, actor = policy.critic_variables(), policy.policy_variables()
    return {"critics": critics, "policy": actor}


class Samples:
    """A batch as critics learn from it: single steps, or the rows of sequences.

    Rows of sequences are merged into one axis of samples. What followed a row is the
    row behind it, whose value the target network gave with a memory of its own.

    Args:
        agent: An `OffPolicyAgent` with a `kerasrl.models.ActionValuePolicy`.
        batch: Dict of samples, as in `Agent.loss`.
        outputs: What the policy returned for them.

    Attributes:
        batch, outputs: Dicts of tensors `[N, ...]`.
        mask: Bool `[N]`, which have a target, and are learnt from; `None` if all.
        next_outputs: Function without arguments, what the policy returns for what the
            values in targets are of.
        next_observations: Tree `[N, ...]` of the same.
    """

    def __init__(self, agent, batch, outputs):
        self.agent, self.policy = agent, agent.policy
        self.is_sequences = agent.policy.is_recurrent
        self.batch, self.outputs = batch, outputs
        self.mask = None
        if not self.is_sequences:
            self.next_observations = batch["next_observations"]
            return
        self._rows = {
            name: ops.swapaxes(batch[name], 0, 1)
            for name in ("rewards", "terminated", "truncated", "valid")
        }
        names = ("observations", "actions", "target_outputs", "valid")
        self.batch = merge_time({name: batch[name] for name in names})
        self.batch["weights"] = self._of_sequences(batch["weights"])
        self.outputs = merge_time(outputs)
        usable = losses.usable_rows(self._rows["valid"], self._rows["terminated"])
        self.mask = ops.reshape(ops.swapaxes(usable, 0, 1), (-1,))
        self.next_observations = self.batch["observations"]

    def next_outputs(self):
        if self.is_sequences:
            return self.batch["target_outputs"]
        return passes.next_outputs(self.policy, self.batch)

    def next_q_values(self, actions=None):
        """What the critics say, in whose scope this is called, of what is next."""
        given = (
            [self.next_observations]
            if actions is None
            else [self.next_observations, actions]
        )
        if self.is_sequences:
            outputs = self.batch["target_outputs"]
            return self.policy.remembered_q_values(outputs, *given)
        return self.policy.q_values(*given)

    def q_values(self, actions=None):
        """What the critics say, to be trained."""
        given = {"actions": actions, "training": True}
        observations = self.batch["observations"]
        with terms.training_pass():
            if self.is_sequences:
                return self.policy.remembered_q_values(
                    self.outputs, observations, **given
                )
            return self.policy.q_values(observations, **given)

    def values_taken(self):
        """What the critics say of the `Box` actions that were taken, to be trained."""
        return self.q_values(self.policy.normalize_actions(self.batch["actions"]))

    def judged(self, actions, first=False):
        """What the critics, or the first, say of actions; no gradient reaches them."""
        policy, observations = self.policy, self.batch["observations"]
        with frozen(policy):
            if not self.is_sequences:
                ask = policy.first_q_values if first else policy.q_values
                return ask(observations, actions)
            # What the critics remember is of their own variables.
            outputs = keras.tree.map_structure(ops.stop_gradient, self.outputs)
            ask = policy.remembered_q_values
            ask = policy.first_remembered_q_values if first else ask
            return ask(outputs, observations, actions)

    def targets(self, next_values):
        """Targets of the critics, `[N]`; 0 for samples that have none.

        Args:
            next_values: Float `[N]`, of `next_observations`.
        """
        if not self.is_sequences:
            batch = self.batch
            return losses.td_targets(batch["rewards"], batch["discounts"], next_values)
        targets, _ = losses.transformed_n_step_targets(
            self._by_time(next_values),
            **self._rows,
            gamma=self.agent.gamma,
            n=self.agent.n_step,
            epsilon=None,
        )
        return ops.reshape(ops.swapaxes(targets, 0, 1), (-1,))

    def critic_loss(self, values, next_values):
        """The loss of critics, and what is logged of it.

        Args:
            values: Float `[C, N]`, of the actions taken.
            next_values: Float `[N]`, of `next_observations`.

        Returns:
            Tuple of the loss and a dict, as from `Agent.loss`.
        """
        mask = self.mask
        loss, metrics, errors = losses.critics_loss(
            values, self.targets(next_values), self.batch["weights"], mask
        )
        if self.is_sequences:
            errors = losses.sequence_priorities(
                self._by_time(errors), self._by_time(mask)
            )
            # What means are of, for replicas that take them of their own parts.
            metrics["count"] = ops.sum(ops.cast(mask, "float32"))
            mask = ops.broadcast_to(mask, ops.shape(values))
        return loss, {
            "critic_loss": loss,
            **metrics,
            "q_value": losses.mean_value(values, mask),
            "td_errors": errors,
        }

    def _by_time(self, rows):
        """Rows `[N * L]` as `[L, N]`."""
        length = ops.shape(self._rows["valid"])[0]
        return ops.swapaxes(ops.reshape(rows, (-1, length)), 0, 1)

    def _of_sequences(self, weights):
        length = ops.shape(self._rows["valid"])[0]
        return ops.reshape(ops.repeat(weights[:, None], length, axis=1), (-1,))


def trained_q_values(policy, observations, actions=None):
    """What the critics of a policy without memory say, to be trained.

    Args:
        policy, observations, actions: As for
            `kerasrl.models.ActionValuePolicy.q_values`.
    """
    with terms.training_pass():
        return policy.q_values(observations, actions, training=True)


def critic_loss(agent, batch, outputs, change_actions=None):
    """Computes the loss of critics whose targets follow a deterministic policy.

    ```
    target = rewards + discounts * min_c Q'_c(next_observations, mode'(next_outputs))
    ```

    where primes are of the target network, and the least of all critics counts.

    Args:
        agent: An `OffPolicyAgent` with a `kerasrl.models.ActionValuePolicy`.
        batch: Dict of samples, as in `Agent.loss`.
        outputs: What the policy returned for them.
        change_actions: `None`, or a function of the actions in targets, `[N, ...]` in
            [-1, 1], that returns those to take in their place.

    Returns:
        Tuple of the loss and a dict of what is logged, as from `Agent.loss`.
    """
    samples = Samples(agent, batch, outputs)
    with agent.target.scope():
        next_actions = agent.policy.mode(samples.next_outputs())
        if change_actions is not None:
            next_actions = change_actions(next_actions)
        next_values = samples.next_q_values(next_actions)
    return samples.critic_loss(samples.values_taken(), ops.min(next_values, axis=0))


def smoothed(actions, scale, limit, seed):
    """Adds noise to actions in targets, so that the critics are alike near to them.

    Args:
        actions: Float `[N, ...]` in [-1, 1].
        scale: Float, standard deviation of the noise; 0 for none.
        limit: Float, bound of the noise.
        seed: `keras.random.SeedGenerator`.

    Returns:
        Float `[N, ...]` in [-1, 1].
    """
    if scale == 0.0:
        return actions
    noise = scale * keras.random.normal(ops.shape(actions), seed=seed)
    return ops.clip(actions + ops.clip(noise, -limit, limit), -1.0, 1.0)


def due_after_delay(agent, numbers):
    """Says which gradient steps update the policy, of an agent that delays these.

    Args:
        agent: An `OffPolicyAgent` with a `policy_delay`.
        numbers: As for `OffPolicyAgent.due`.

    Returns:
        Dict, as from `OffPolicyAgent.due`, of `"update_policy"` and `"update_target"`.
    """
    after = numbers + 1
    update_policy = after % agent.policy_delay == 0
    # What came due in between waits for the policy.
    target_due = agent.target_due(after - agent.policy_delay, after)
    return {
        "update_policy": update_policy,
        "update_target": target_due & update_policy,
    }


def deterministic_loss(agent, batch, outputs):
    """Computes the loss of critics and of the deterministic policy that they judge.

    Args:
        agent, batch, outputs: As for `critic_loss`.

    Returns:
        Tuple of the loss and a dict of what is logged, as from `Agent.loss`.
    """
    loss, metrics = critic_loss(agent, batch, outputs)
    of_policy = policy_loss(agent, batch, outputs)
    return loss + of_policy, {**metrics, "policy_loss": of_policy}


def policy_loss(agent, batch, outputs):
    """Computes the loss of a deterministic policy: less where a critic says more.

    Args:
        agent, batch, outputs: As for `critic_loss`.

    Returns:
        Float scalar, whose gradient reaches no critic.
    """
    samples = Samples(agent, batch, outputs)
    values = samples.judged(agent.policy.mode(samples.outputs), first=True)
    return losses.deterministic_policy_gradient(values, samples.mask)[0]
