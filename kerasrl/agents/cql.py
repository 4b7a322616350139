"""Conservative Q-learning."""

import math
from functools import partial

import keras
from keras import ops

from kerasrl import checks, losses
from kerasrl.agents import exploration
from kerasrl.agents.off_policy import OffPolicyAgent
from kerasrl.models import ActionValuePolicy, QFunction, SoftActorCritic
from kerasrl.optimizers import Adam
from kerasrl.training import critics, q_learning, schedules
from kerasrl.training.hyperparameters import Hyperparameter


@keras.saving.register_keras_serializable("kerasrl")
class CQL(OffPolicyAgent):
    """Soft actor-critic that holds down the values of actions that are not in the data.

    To the loss of the critics comes `alpha` times the logarithm of the sum of
    `exp(Q)` over all actions, minus the value of the action of the data: CQL(H). With a
    `Box` action space the sum is estimated from actions drawn uniformly, from the
    policy, and from the policy at what followed, each over the density it was drawn
    with. There is no entropy in the targets.

    With discrete actions the policy may be a `kerasrl.models.QNetwork`, or another
    network of action values alone: the same penalty beside double Q-learning, in about
    half the time. With `num_quantiles` that is what the paper has for discrete actions.

    For datasets: `fit(dataset, steps=...)`. `fit` on an environment goes on from there;
    `dataset.to_replay(agent)` before has it begin with the data, and a smaller `alpha`
    lets values of new actions grow.

    Paper: Kumar et al. (2020), https://arxiv.org/abs/2006.04779.

    Args:
        policy: As for `kerasrl.SAC`, without memory; or a `kerasrl.models.QFunction`.
        alpha: Float, weight of the penalty.
        num_actions: Integer, actions of each of the three kinds that are drawn. Used
            with `Box` actions only.
        temperature: Float, weight of the entropy of the policy in its own loss.
        exploration: Probability of a random action in environments, as for
            `kerasrl.DQN`. Used where there are action values alone: others draw from
            their policy.
        batch_size, **kwargs: As for `kerasrl.OffPolicyAgent`.

    Raises:
        TypeError: The policy values no actions.
        ValueError: A `Box` action space is not bounded.

    Example:

    ```python
    agent = kerasrl.CQL(alpha=5.0)
    agent.fit(kerasrl.offline.load("runs/pendulum"), steps=20_000)

    agent = kerasrl.CQL(policy=kerasrl.models.QNetwork(num_quantiles=32))
    agent.fit(kerasrl.offline.load("runs/cartpole"), steps=20_000)
    ```
    """

    default_policy: type = SoftActorCritic

    #: How networks of action values alone learn, see `kerasrl.DQN`.
    double = True
    huber_delta = None

    kinds = {
        "alpha": Hyperparameter(partial(checks.positive, zero=True)),
        "num_actions": Hyperparameter(checks.positive_integer),
        "temperature": Hyperparameter(partial(checks.positive, zero=True)),
        "exploration": Hyperparameter(schedules.probabilities, "now"),
    }

    def __init__(
        self,
        policy=None,
        alpha=5.0,
        num_actions=10,
        temperature=0.1,
        exploration=0.05,
        batch_size=256,
        **kwargs,
    ):
        super().__init__(policy, batch_size=batch_size, **kwargs)
        self.alpha = alpha
        self.num_actions = num_actions
        self.temperature = temperature
        self.exploration = exploration
        self.seed_generator = keras.random.SeedGenerator(self.seed)

    def default_optimizer(self):
        return Adam(3e-4, epsilon=1e-8)

    def make_policy(self, policy):
        found = super().make_policy(policy)
        if not isinstance(found, ActionValuePolicy | QFunction):
            raise TypeError(
                f"Received policy={found!r:.200}. Expected a policy with critics, a "
                "kerasrl.models.ActionValuePolicy, or action values, a "
                "kerasrl.models.QFunction."
            )
        return found

    @property
    def has_critics(self):
        """Whether a policy is learnt beside the values of actions."""
        return isinstance(self.policy, ActionValuePolicy)

    def target_sources(self):
        if not self.has_critics:
            return super().target_sources()
        return self.policy.critic_variables()

    def parts(self):
        return critics.parts(self.policy) if self.has_critics else super().parts()

    @property
    def own_variables(self):
        return [*super().own_variables, self.seed_generator.state]

    def exploration_inputs(self, num_envs):
        if not self.has_critics:
            return exploration.epsilon_inputs(self, num_envs)
        return {"random": exploration.random_until_learning(self, num_envs)}

    def act(self, inputs, deterministic):
        act = exploration.act_epsilon_greedy
        if self.has_critics:
            act = exploration.act_stochastically
        return act(self, inputs, deterministic)

    def loss(self, batch, outputs, settings):
        if not self.has_critics:
            return self._loss_of_values(batch, outputs)
        samples = critics.Samples(self, batch, outputs)
        distribution = self.policy.distribution(outputs)
        following = self.policy.distribution(samples.next_outputs())
        compute = self._discrete if self.policy.is_discrete else self._continuous
        values, next_values, gaps, (policy_loss, metrics) = compute(
            samples, distribution, following
        )
        critic_loss, critic_metrics = samples.critic_loss(values, next_values)
        gap = ops.mean(gaps)
        # Of each critic, as their losses are summed.
        penalty = self.alpha * gap * gaps.shape[0]
        return critic_loss + penalty + policy_loss, {
            "policy_loss": policy_loss,
            "conservative_gap": gap,
            **metrics,
            **critic_metrics,
        }

    def _loss_of_values(self, batch, outputs):
        loss, metrics = q_learning.loss(self, batch, outputs)
        q_values = outputs["q_values"]
        taken = self.policy.combinations.number(batch["actions"])
        values = losses.select_actions(q_values, taken)
        gap = ops.mean(losses.conservative_gap(q_values, values))
        return loss + self.alpha * gap, {**metrics, "conservative_gap": gap}

    def _discrete(self, samples, distribution, following):
        with self.target.scope():
            next_q_values = ops.min(samples.next_q_values(), axis=0)
        next_values = losses.discrete_soft_values(
            next_q_values, following.log_probs, 0.0
        )
        q_values = samples.q_values()
        taken = self.policy.combinations.number(samples.batch["actions"])
        taken = ops.broadcast_to(taken, ops.shape(q_values)[:-1])
        values = losses.select_actions(q_values, taken)
        policy_loss = losses.discrete_soft_policy_loss(
            ops.min(q_values, axis=0), distribution.log_probs, self.temperature
        )
        gaps = losses.conservative_gap(q_values, values)
        return values, next_values, gaps, policy_loss

    def _continuous(self, samples, distribution, following):
        seed = self.seed_generator
        next_actions, _ = following.sample_and_log_prob(seed)
        with self.target.scope():
            next_values = ops.min(samples.next_q_values(next_actions), axis=0)
        actions, log_probs = distribution.sample_and_log_prob(seed)
        own_values = ops.min(samples.judged(actions), axis=0)
        policy_loss = losses.soft_policy_loss(own_values, log_probs, self.temperature)
        drawn, densities = self._draw(samples.batch, distribution, following)
        # One pass over all of them, those of the data first.
        count, size = drawn.shape[0], ops.shape(log_probs)[0]
        taken = self.policy.normalize_actions(samples.batch["actions"])
        every = ops.concatenate([taken[None], drawn], axis=0)
        every = ops.reshape(every, (-1, *taken.shape[1:]))
        q_values = self._judge_many(samples, every, count + 1)
        q_values = ops.reshape(q_values, (-1, count + 1, size))
        values, others = q_values[:, 0], ops.moveaxis(q_values[:, 1:], 1, 2)
        densities = ops.broadcast_to(ops.transpose(densities), ops.shape(others))
        gaps = losses.conservative_gap(others, values, densities)
        return values, next_values, gaps, policy_loss

    def _draw(self, batch, distribution, following):
        """Actions `[3 * num_actions, N, ...]`, and the log-density of each."""
        seed, shape = self.seed_generator, self.policy.action_space.shape
        size = ops.shape(batch["rewards"])[0]
        uniform = keras.random.uniform(
            (self.num_actions, size, *shape), -1.0, 1.0, seed=seed
        )
        density = -math.log(2.0) * math.prod(shape)
        drawn = [uniform]
        densities = [ops.full((self.num_actions, size), density)]
        for each in (distribution, following):
            pairs = [each.sample_and_log_prob(seed) for _ in range(self.num_actions)]
            # No gradient of the penalty reaches the policy.
            drawn.append(ops.stop_gradient(ops.stack([pair[0] for pair in pairs])))
            densities.append(ops.stack([pair[1] for pair in pairs]))
        return ops.concatenate(drawn), ops.stop_gradient(ops.concatenate(densities))

    def _judge_many(self, samples, actions, count):
        observations = keras.tree.map_structure(
            lambda x: ops.tile(x, (count, *[1] * (len(x.shape) - 1))),
            samples.batch["observations"],
        )
        return critics.trained_q_values(self.policy, observations, actions)
