"""The iteration of on-policy algorithms: collect a rollout, learn from it, drop it."""

import dataclasses

import numpy as np
import tensorflow as tf

from kerasrl import checks
from kerasrl.agents.agent import Agent
from kerasrl.losses import discounted_returns
from kerasrl.models.policy import merge_time
from kerasrl.rollouts.rollout import POLICY_INPUTS, TIME_FIELDS
from kerasrl.training import acting, gradients, passes
from kerasrl.training.dummy import example_rollout
from kerasrl.training.hyperparameters import Hyperparameter


class OnPolicyAgent(Agent):
    """Base class of algorithms that learn from each rollout once, while it is fresh.

    A subclass defines `loss`, and whichever of the other stages of an iteration it
    needs, which run in this order:

    1. `learn(rollout)`: of `rollout_length` steps in every environment.
    2. `targets(rollout)`: what to learn from them. Compiled.
    3. `update(batch, settings, minibatches)`: gradient steps on
       `loss(batch, outputs, settings)`. Compiled, in one call with the targets.

    Args:
        policy: `None` for the default by space, a `kerasrl.models.Policy`, another
            `keras.Model` or layer to be the trunk of the default policy, or a dict of
            arguments of `kerasrl.models.ActorCritic`.
        rollout_length: Integer, steps collected in each environment per iteration.
        gamma, max_grad_norm, normalize_rewards, seed: As for `kerasrl.Agent`.

    Example:

    ```python
    @keras.saving.register_keras_serializable()
    class Reinforce(kerasrl.OnPolicyAgent):
        def loss(self, batch, outputs, settings):
            log_probs = self.policy.distribution(outputs).log_prob(batch["actions"])
            return kerasrl.losses.policy_gradient(
                log_probs, batch["returns"], batch["mask"]
            )

    Reinforce(rollout_length=64).fit("CartPole-v1", steps=10_000)
    ```
    """

    distribution_needs: tuple[str, ...] = ("sample", "mode")

    kinds = {"rollout_length": Hyperparameter(checks.positive_integer, "fit")}

    def __init__(
        self,
        policy=None,
        rollout_length=128,
        gamma=0.99,
        max_grad_norm=None,
        normalize_rewards=False,
        seed=None,
    ):
        super().__init__(policy, gamma, max_grad_norm, normalize_rewards, seed)
        self.rollout_length = rollout_length

    def iteration_length(self, num_envs):
        return self.rollout_length

    def learn_from(self, rollout):
        return self.learn(rollout)

    def learn(self, rollout):
        """Updates the policy by a rollout: `targets`, then `update`.

        Args:
            rollout: A `kerasrl.rollouts.Rollout`, `[T, B, ...]`, acted by the present
                policy.

        Returns:
            Dict of floats: the loss and its terms, empty if there was nothing to learn.
        """
        if self.reward_scaler is not None:
            # Callbacks may have kept the rollout.
            scaled = self.reward_scaler(rollout)
            rollout = dataclasses.replace(rollout, rewards=scaled)
        return self.learn_scaled(rollout)

    def learn_scaled(self, rollout):
        """Does so with rewards that are scaled already, if they are to be."""
        arrays = self.arrays(rollout)
        update = self.compiled_update(self._targets_and_update)
        inputs = arrays, self.scheduled_values(), self.minibatches(arrays)
        has_steps = bool(arrays["valid"].any())
        count = _count_steps(inputs[-1])
        if has_steps or self.replicas.num_ranks > 1:
            logs = update(*inputs, **self.mixing.draw(count))
            return logs if has_steps else {}
        # All workers were lost. Momentum and regularizers would still move the weights.
        update.trace(*inputs, **self.mixing.example(count))
        return {}

    def arrays(self, rollout):
        """Returns the part of a rollout that the compiled update takes."""
        return rollout_arrays(self, rollout)

    def minibatches(self, rollout):
        """Returns what `update` needs that is drawn outside the compiled call."""
        return ()

    def compute_targets(self, rollout, minibatches):
        """Calls `targets`, where it takes more than the rollout by something else."""
        return self.targets(rollout)

    def _targets_and_update(self, rollout, scheduled_values, minibatches):
        inputs = rollout, scheduled_values, minibatches
        return learn_compiled(self, *inputs, self.update), ()

    def example_update(self):
        rollout = example_rollout(self, self.rollout_length, num_envs=2)
        arrays = self.arrays(rollout)
        rng, self.rng = self.rng, np.random.default_rng(0)
        try:
            minibatches = self.minibatches(arrays)
        finally:
            self.rng = rng
        inputs = arrays, self.scheduled_values(), minibatches
        return self._targets_and_update, inputs

    def targets(self, rollout):
        """Computes what to learn from a rollout. Compiled.

        Args:
            rollout: Dict of tensors `[T, B, ...]` with the fields of a
                `kerasrl.rollouts.Rollout`.

        Returns:
            Dict to add to the batch, `[T, B, ...]`. Here `"returns"`, discounted
            returns without bootstrap at the end of the rollout or a truncation.
        """
        next_values = tf.zeros_like(rollout["rewards"])
        returns = discounted_returns(
            rollout["rewards"],
            next_values,
            rollout["terminated"],
            rollout["truncated"],
            self.gamma,
            rollout["valid"],
        )
        return {"returns": returns}

    def loss(self, batch, outputs, settings):
        """Computes the loss of the algorithm on a batch. Compiled.

        Args:
            batch: Dict of tensors, leading axis `[N]` (or `[B, T]` for recurrent
                policies): `observations`, `actions`, `rewards`, `mask`, what `targets`
                returned, and the dicts `extras`, of what else `act` returned, and
                `infos`, of the numbers that `fit(info_keys=...)` asked for.
            outputs: What the policy returned for it.
            settings: Dict of the current values of the `scheduled` hyperparameters.

        Returns:
            Tuple of a scalar loss and a dict of scalars to log.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define loss(batch, outputs, settings)."
        )

    def update(self, batch, settings, minibatches):
        """Updates the policy on a batch. Compiled. Here, one step on all of it.

        Args:
            batch: As for `loss`.
            settings: As for `loss`.
            minibatches: What `minibatches` returned, as tensors.

        Returns:
            Dict of scalars: `"loss"` and what `loss` logs.
        """
        return gradients.gradient_step(self, batch, settings)

    def value_function(self):
        """Returns the compiled value function; see `actor`."""
        if "value" not in self._actors:
            self._actors["value"] = acting.build(self, "value")
        return self._actors["value"]


def _count_steps(minibatches):
    """How many gradient steps `minibatches` are for, at most."""
    has_many = isinstance(minibatches, dict) and "indices" in minibatches
    return len(minibatches["indices"]) if has_many else 1


def learn_compiled(agent, rollout, scheduled_values, minibatches, update):
    """Does what an iteration does inside the compiled call.

    Args:
        agent: The `OnPolicyAgent`.
        rollout: Dict of tensors, what `OnPolicyAgent.arrays` returned. If there is
            `"counts"`, bool `[T, B]`, statistics learn of no other steps.
        scheduled_values: Tensor `[len(agent.scheduled)]`.
        minibatches: As for `OnPolicyAgent.update`.
        update: What to do with the batch, as `OnPolicyAgent.update`.

    Returns:
        Dict of scalars, what `update` returned.
    """
    policy = agent.policy
    settings = dict(zip(agent.scheduled, tf.unstack(scheduled_values), strict=True))
    rollout = {**rollout, "mask": tf.cast(rollout["valid"], "float32")}
    batch = {**rollout, **agent.compute_targets(rollout, minibatches)}
    del batch["next_inputs"]
    if "returns" in batch and "values" in batch:
        # A last axis, which Keras's metrics average over.
        pairs = [merge_time(batch[n])[:, None] for n in ("returns", "values")]
        mask = merge_time(tf.cast(batch.get("counts", batch["valid"]), "float32"))
        agent.replicas.run(lambda: policy.compute_metrics(None, *pairs, mask))
    batch = passes.to_samples(batch, policy.is_recurrent)
    metrics = update(batch, settings, minibatches)
    # Last, so that acting, values and probabilities of one iteration all rest on the
    # same statistics; the next rollout is acted with the new ones.
    policy.update_normalization(
        merge_time(rollout["observations"]),
        merge_time(rollout.get("counts", rollout["valid"])),
    )
    return metrics


def rollout_arrays(agent, rollout):
    """Returns the part of a rollout that the compiled update takes.

    Args:
        agent: The `Agent`; its value function is used at truncations.
        rollout: A `kerasrl.rollouts.Rollout`.

    Returns:
        Dict of NumPy arrays `[T, B, ...]`, among them `"truncation_values"`, float32:
        the value of the final observation where an episode was truncated, else 0. A
        step that was truncated without a final observation is not valid: what follows
        it is not known.
    """
    names = (*TIME_FIELDS, "state", "next_inputs")
    arrays = {name: getattr(rollout, name) for name in names}
    arrays["state"] = acting.policy_state(rollout.state)
    arrays["infos"] = {
        name: values.astype(np.float32)
        for name, values in rollout.infos.items()
        if values.dtype != object
    }
    truncation_values = np.zeros(rollout.rewards.shape, np.float32)
    if agent.uses_values:
        unknown = rollout.truncated & ~rollout.terminated
        if rollout.final is not None:
            unknown[rollout.final["time"], rollout.final["env"]] = False
        arrays["valid"] = rollout.valid & ~unknown
    if rollout.final is not None and agent.uses_values:
        final = rollout.final
        value = agent.value_function()
        value.refresh()
        inputs = {name: final[name] for name in POLICY_INPUTS}
        state = acting.policy_state(final["state"])
        outputs = value({**inputs, "state": state}, [])
        truncation_values[final["time"], final["env"]] = outputs["values"]
    arrays["truncation_values"] = truncation_values
    return arrays
