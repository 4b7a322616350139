"""What a policy would have done where another one acted, and what that is worth.

Used by `kerasrl.offline.estimate`.
"""

import keras
import numpy as np
import optree
import tensorflow as tf
from gymnasium import spaces
from keras import ops

from kerasrl import losses
from kerasrl.agents import OffPolicyAgent
from kerasrl.envs.actions import ActionConverter
from kerasrl.models import (
    ActionValuePolicy,
    DeterministicActorCritic,
    Policy,
    QFunction,
    QNetwork,
)
from kerasrl.spaces import has_floats, num_choices
from kerasrl.training import passes

#: Rows of one compiled call.
_ROWS = 1024
#: Actions that stand for all, where there are too many to add up.
_DRAWN = 16


class Judged:
    """The policy of an agent, as estimates see it.

    Args:
        agent: An `Agent` that was built, with a policy without memory.

    Raises:
        ValueError: The policy has memory.
    """

    def __init__(self, agent):
        self.policy = policy = agent.policy
        if policy.observation_space is None:
            raise ValueError(
                "The agent has no weights yet. Call fit, build or kerasrl.load first."
            )
        if policy.is_recurrent:
            raise ValueError(
                "Received an agent whose policy has memory. Estimates take "
                "observations one by one: evaluate it in an environment."
            )
        self.is_greedy = isinstance(policy, QFunction)
        self.has_critics = isinstance(policy, ActionValuePolicy)
        self.is_deterministic = self.has_critics and not self._has_distribution()
        #: Whether probabilities of all actions can be told.
        self.is_countable = isinstance(policy.action_space, spaces.Discrete)

    def log_probs(self, outputs, actions):
        """Log-probabilities of actions as policies emit them, `[N]`."""
        policy = self.policy
        if self.is_greedy:
            best = policy.mode(outputs)
            same = ops.reshape(ops.equal(best, actions), (ops.shape(best)[0], -1))
            return ops.where(ops.all(same, axis=-1), 0.0, -np.inf)
        distribution = policy.distribution(outputs)
        if not self.has_critics:
            return distribution.log_prob(actions)
        if policy.is_discrete:
            return distribution.log_prob(policy.combinations.number(actions))
        # As who acted computes it: at the bounds, too, ratios are of the same number.
        log_probs = distribution.log_prob(policy.normalize_actions(actions))
        # Of the action in its own units.
        scales = policy.action_radius[policy.action_radius > 0]
        return log_probs - float(np.log(scales).sum())

    def probabilities(self, outputs):
        """Those of all actions of a `Discrete` space, `[N, A]`."""
        if self.is_greedy:
            q_values = outputs["q_values"]
            best = ops.argmax(q_values, axis=-1)
            return ops.one_hot(best, q_values.shape[-1], dtype="float32")
        return ops.exp(self.policy.distribution(outputs).log_probs)

    def draw(self, outputs, seed):
        """Draws one action for each row, as policies emit them."""
        policy = self.policy
        if self.is_greedy:
            return policy.mode(outputs)
        if self.is_deterministic:
            return policy.scale_actions(policy.mode(outputs))
        drawn = policy.distribution(outputs).sample(seed)
        if not self.has_critics:
            return drawn
        if policy.is_discrete:
            return policy.combinations.actions(drawn)
        return policy.scale_actions(drawn)

    def _has_distribution(self):
        return not isinstance(self.policy, DeterministicActorCritic)


class FittedQ(OffPolicyAgent):
    """Fitted Q evaluation: learns what the actions of a dataset are worth to a policy.

    ```
    Q(s, a) <- r + gamma * Q'(s', a'),   a' of the policy that is judged
    ```

    Paper: Le et al. (2019), https://arxiv.org/abs/1903.08738.

    Args:
        policy: A `kerasrl.models.QNetwork` or `DeterministicActorCritic`, whose critics
            are the Q.
        **kwargs: As for `kerasrl.OffPolicyAgent`.
    """

    policy_base: type = Policy
    judged: Judged

    def default_optimizer(self):
        return keras.optimizers.Adam(1e-3)

    @property
    def trainable_variables(self):
        if isinstance(self.policy, ActionValuePolicy):
            return self.policy.critic_variables()
        return self.policy.trainable_variables

    def target_sources(self):
        return self.trainable_variables

    def loss(self, batch, outputs, settings):
        judged = self.judged
        following = passes.next_outputs(judged.policy, batch)
        observed = batch["next_observations"]
        with self.target.scope():
            if judged.is_countable:
                q_values = passes.next_outputs(self.policy, batch)["q_values"]
                shares = judged.probabilities(following)
                next_values = ops.sum(shares * q_values, axis=-1)
            else:
                drawn = judged.draw(following, self.seed_generator)
                next_values = self.q_values(observed, drawn)
        targets = losses.td_targets(batch["rewards"], batch["discounts"], next_values)
        values = self.q_values(batch["observations"], batch["actions"], True)
        loss, metrics = losses.td_loss(values, targets, batch["weights"], None)
        return loss, {**metrics, "q_value": ops.mean(values)}

    def q_values(self, observations, actions, training=False):
        """Q of actions as policies emit them, `[N]`."""
        policy = self.policy
        if isinstance(policy, ActionValuePolicy):
            normalized = ops.clip(policy.normalize_actions(actions), -1.0, 1.0)
            return policy.q_values(observations, normalized, training)[0]
        size = ops.shape(keras.tree.flatten(observations)[0])[0]
        inputs = passes.zeros_like_inputs(policy, observations, size)
        q_values = policy(inputs, training=training)["q_values"]
        return losses.select_actions(q_values, policy.combinations.number(actions))


def fit_q(agent, dataset, gamma, steps, hidden_units, seed):
    """Learns the Q of an agent's policy from a dataset.

    Args:
        agent: An `Agent` that was built.
        dataset: `kerasrl.offline.Dataset`.
        gamma: Float, discount factor.
        steps: Integer, gradient steps.
        hidden_units: Widths of the dense layers of the network.
        seed: Integer.

    Returns:
        A `FittedQ` that was fitted.
    """
    discrete = num_choices(dataset.action_space) is not None
    arguments = {
        "hidden_units": hidden_units,
        "normalize_observations": has_floats(dataset.observation_space),
    }
    if discrete:
        network = QNetwork(**arguments)
    else:
        network = DeterministicActorCritic(**arguments, num_critics=1)
    fitted = FittedQ(
        network, gamma=gamma, batch_size=256, tau=0.01, updates_per_call=50, seed=seed
    )
    fitted.judged = Judged(agent)
    fitted.seed_generator = keras.random.SeedGenerator(seed)
    fitted.fit(dataset, steps=steps, verbose=0)
    return fitted


def look(agent, dataset, fitted=None, seed=0):
    """Looks at the episodes of a dataset as a policy does.

    Args:
        agent: An `Agent` that was built.
        dataset: `kerasrl.offline.Dataset`.
        fitted: A `FittedQ`, or `None`.
        seed: Integer, of actions that are drawn.

    Yields:
        Dict for each episode of T steps: `"log_probs"` `[T]` of its actions, `None` for
        a deterministic policy; with `fitted` also `"q_values"` and `"values"` `[T]`.
    """
    judged = Judged(agent)
    inverse = ActionConverter(dataset.action_space).inverse
    generator = keras.random.SeedGenerator(seed)
    examples = agent.policy.example_inputs(1)["observations"]

    @tf.function(autograph=False)
    def compute(observations, actions):
        inputs = passes.zeros_like_inputs(judged.policy, observations, _ROWS)
        outputs = judged.policy(inputs)
        found = {}
        if not judged.is_deterministic:
            found["log_probs"] = judged.log_probs(outputs, actions)
        if fitted is None:
            return found
        found["q_values"] = fitted.q_values(observations, actions)
        if judged.is_countable:
            inputs = passes.zeros_like_inputs(fitted.policy, observations, _ROWS)
            every = fitted.policy(inputs)["q_values"]
            shares = judged.probabilities(outputs)
            found["values"] = ops.sum(shares * every, axis=-1)
        else:
            draws = [judged.draw(outputs, generator) for _ in range(_DRAWN)]
            every = [fitted.q_values(observations, each) for each in draws]
            found["values"] = ops.mean(ops.stack(every), axis=0)
        return found

    for episode in dataset.episodes:
        length, parts = episode.length, []
        actions = episode.extras.get("emitted_actions")
        if actions is None:
            actions = inverse(episode.actions)
        observations = optree.tree_map(
            lambda x, example: np.asarray(x[:-1], example.dtype),
            episode.observations,
            examples,
        )
        for start in range(0, length, _ROWS):
            rows = [_filled(x, start) for x in (observations, actions)]
            parts.append({k: v.numpy() for k, v in compute(*rows).items()})
        yield {
            name: np.concatenate([part[name] for part in parts])[:length].astype(float)
            for name in parts[0]
        }


def _filled(tree, start):
    """Rows from `start` on, `_ROWS` of them, the last filled up with zeros."""

    def fill(x):
        part = x[start : start + _ROWS]
        return np.pad(part, [(0, _ROWS - len(part)), *[(0, 0)] * (x.ndim - 1)])

    return optree.tree_map(fill, tree)
