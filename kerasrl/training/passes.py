"""Forward passes of a policy over samples, sequences and rollouts."""

import keras
import tensorflow as tf

from kerasrl.losses.shapes import check_same_shape
from kerasrl.models import Policy
from kerasrl.models.policy import merge_time
from kerasrl.rollouts.rollout import POLICY_INPUTS


def forward(policy, batch, training=False):
    """Runs a policy on a batch of samples or of whole sequences.

    Args:
        policy: A `Policy`.
        batch: Dict with `POLICY_INPUTS`, `[N, ...]`; for a recurrent policy `[B, T,
            ...]`, with `"state"` `[B, ...]` and `"episode_starts"` `[B, T]`.
        training: Bool, as in Keras.

    Returns:
        Dict as from `policy.call`, with the leading axes of the batch.

    Example:

    ```python
    def custom_loss(self, loss, batch):
        offline = batch["offline"]
        outputs = kerasrl.agents.forward(self, offline)
        log_probs = self.distribution(outputs).log_prob(offline["actions"])
        return loss - 0.1 * keras.ops.mean(log_probs)
    ```
    """
    inputs = _inputs(policy, batch)
    if not policy.is_recurrent:
        return policy(inputs, training=training)
    inputs = swap(inputs)
    outputs = policy.unroll(
        inputs, batch["state"], swap(batch["episode_starts"]), training=training
    )
    # Not all that users define does it.
    outputs = policy.masked(outputs, inputs)
    return swap({name: value for name, value in outputs.items() if name != "state"})


def next_outputs(policy, batch):
    """Runs a policy on what followed the steps of a batch, to compute targets.

    Args:
        policy: A `Policy` without recurrent state.
        batch: Dict of tensors `[N, ...]` from a replay buffer, with
            `"next_observations"` and what else the policy reads of that time,
            `"next_previous_actions"` and `"next_previous_rewards"`.

    Returns:
        Dict as from `policy.call`, `[N, ...]`.

    Example:

    ```python
    with self.target.scope():
        next_outputs = kerasrl.agents.next_outputs(self.policy, batch)
    ```
    """
    return policy(_inputs(policy, batch, "next_"))


def _inputs(policy, batch, prefix=""):
    """What a policy is given of a batch."""
    inputs = {
        name: batch[prefix + name] for name in POLICY_INPUTS if prefix + name in batch
    }
    missing = [name for name in POLICY_INPUTS if name not in inputs]
    if missing and not policy.is_recurrent:
        # What replay does not keep is not read, and yet it may be looked up.
        size = keras.ops.shape(keras.tree.flatten(inputs["observations"])[0])[0]
        examples = policy.example_inputs(1)
        for name in missing:
            inputs[name] = keras.tree.map_structure(
                lambda x: tf.zeros((size, *x.shape[1:]), x.dtype), examples[name]
            )
    return inputs


def zeros_like_inputs(policy, observations, size):
    """Returns inputs of a policy for observations alone, all else of them zero.

    Args:
        policy: A `Policy` without recurrent state.
        observations: Tree of tensors `[N, ...]`.
        size: Integer or scalar tensor `N`.
    """
    examples = policy.example_inputs(1)
    zeros = {
        name: keras.tree.map_structure(
            lambda x: tf.zeros((size, *x.shape[1:]), x.dtype), examples[name]
        )
        for name in POLICY_INPUTS
        if name != "observations"
    }
    return {**zeros, "observations": observations}


def rollout_outputs(policy, rollout):
    """Runs a policy over a rollout and one step beyond.

    Args:
        policy: A `Policy`.
        rollout: Dict of tensors `[T, B, ...]`, see `Agent.targets`.

    Returns:
        Tuple of the outputs `[T, B, ...]` and the values `[T, B]` of the observations
        that follow each action *before any reset*: at a truncation that is the value
        of the final observation. At a termination it is of no use and not used.
    """
    steps = {name: rollout[name] for name in (*POLICY_INPUTS, "episode_starts")}
    steps = tf.nest.map_structure(
        lambda x, last: tf.concat([x, last[None]], axis=0),
        steps,
        {name: rollout["next_inputs"][name] for name in steps},
    )
    starts = steps.pop("episode_starts")
    outputs = policy.masked(policy.unroll(steps, rollout["state"], starts), steps)
    outputs = {name: value for name, value in outputs.items() if name != "state"}
    next_values = tf.where(
        rollout["truncated"], rollout["truncation_values"], outputs["values"][1:]
    )
    return tf.nest.map_structure(lambda x: x[:-1], outputs), next_values


def acted(policy, rollout, outputs):
    """Returns by what the actions of a rollout were drawn.

    What an `act` of one's own, or whoever recorded the rollout, did not keep is taken
    to be of the present policy.

    Args:
        policy: A `Policy`.
        rollout: Dict of tensors `[T, B, ...]`, see `Agent.targets`.
        outputs: Dict of tensors `[T, B, ...]`, what the present policy returns for it.

    Returns:
        Tuple of the log-probabilities of the actions, `[T, B]`, and the parameters of
        the distributions, `[T, B, P]`.
    """
    extras = rollout["extras"]
    acting = extras.get("distribution", outputs["distribution"])
    check_same_shape(
        distribution_in_extras=acting, of_the_policy=outputs["distribution"]
    )
    log_probs = extras.get("log_probs")
    if log_probs is None:
        distribution = policy.distribution({**outputs, "distribution": acting})
        log_probs = distribution.log_prob(rollout["actions"])
    return log_probs, acting


def normalizer(agent):
    """Returns how statistics of observations are learnt from rollouts.

    Args:
        agent: An `Agent` with a policy that was built.

    Returns:
        Function of a `Rollout`.
    """
    policy = agent.policy
    default = type(policy).update_normalization is Policy.update_normalization
    if default or not getattr(policy, "normalize_observations", True):
        return lambda rollout: None

    @tf.function
    def normalize(observations, mask):
        with agent.replicas.summing():
            policy.update_normalization(merge_time(observations), merge_time(mask))

    def learn(rollout):
        normalize(rollout.observations, rollout.valid)

    return learn


def swap(tree):
    """Exchanges the first two axes of every leaf."""

    def transpose(x):
        return tf.transpose(x, [1, 0, *range(2, len(x.shape))])

    return tf.nest.map_structure(transpose, tree)


def to_samples(batch, is_recurrent):
    """Gives a batch `[T, B, ...]` one leading axis of samples to draw from.

    Samples are steps, `[T * B, ...]`, or, for recurrent policies, whole sequences,
    `[B, T, ...]`; the entry `"state"` is `[B, ...]` already.
    """
    state = batch["state"]
    steps = {name: value for name, value in batch.items() if name != "state"}
    if is_recurrent:
        return {**swap(steps), "state": state}
    return merge_time(steps)
