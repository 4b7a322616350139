"""Monotonic advantage re-weighted imitation learning."""

from functools import partial

import keras
import tensorflow as tf
from keras import ops

from kerasrl import checks, losses
from kerasrl.agents import offline
from kerasrl.agents.on_policy import OnPolicyAgent
from kerasrl.optimizers import Adam
from kerasrl.training import gradients, passes, reading
from kerasrl.training.hyperparameters import Hyperparameter


@keras.saving.register_keras_serializable("kerasrl")
class MARWIL(OnPolicyAgent):
    """Imitates a dataset, better actions more than others.

    A value function learns what returns to expect; an action weighs
    `exp(beta * A / sqrt(c))`, where A is by how much its return exceeded that, and c
    the running mean of the squares of A. Returns are discounted sums of rewards to the
    end of the record; where that is no termination, the value of the last observation
    stands for what would have followed.

    `fit` on an environment goes on with what the policy itself does: one gradient step
    of the same loss on each rollout.

    Paper: Wang et al. (2018), https://papers.nips.cc/paper/7866.

    Args:
        policy: As for `kerasrl.OnPolicyAgent`, without memory.
        beta: Float, how much more better actions weigh. 0 is behaviour cloning.
        batch_size: Integer, steps of a dataset per gradient step.
        updates_per_call: Integer, gradient steps on a dataset that run in one compiled
            call, which is an iteration of `fit`.
        gamma: Float, discount factor.
        value_coef: Float, weight of the loss of values, half the mean of `A^2`.
        advantage_norm_start: Float, what c begins with; `None` for the mean square of
            the first batch. Far too small a number makes weights so large that Adam
            takes thousands of steps to forget them.
        advantage_norm_rate: Float in [0, 1], by which share c moves in a gradient step.
        rollout_length: Integer, steps collected in each environment per iteration, of
            `fit` on one.
        max_grad_norm, normalize_rewards, seed: As for `kerasrl.OnPolicyAgent`. Rewards
            of a dataset are never normalized.

    Example:

    ```python
    agent = kerasrl.MARWIL(beta=2.0)
    agent.fit(kerasrl.offline.load("runs/mixed"), steps=5_000)
    agent.fit("CartPole-v1", steps=10_000)
    ```
    """

    uses_values = True

    kinds = {
        **offline.KINDS,
        "beta": Hyperparameter(partial(checks.positive, zero=True)),
        "value_coef": Hyperparameter(partial(checks.positive, zero=True)),
        "advantage_norm_start": Hyperparameter(checks.positive, "never"),
        "advantage_norm_rate": Hyperparameter(checks.fraction),
    }

    def __init__(
        self,
        policy=None,
        beta=1.0,
        batch_size=256,
        updates_per_call=8,
        gamma=0.99,
        value_coef=1.0,
        advantage_norm_start=None,
        advantage_norm_rate=1e-2,
        rollout_length=128,
        max_grad_norm=None,
        normalize_rewards=False,
        seed=None,
    ):
        super().__init__(
            policy, rollout_length, gamma, max_grad_norm, normalize_rewards, seed
        )
        self.beta = beta
        self.batch_size = batch_size
        self.updates_per_call = updates_per_call
        self.value_coef = value_coef
        self.advantage_norm_start = advantage_norm_start
        self.advantage_norm_rate = advantage_norm_rate
        # 0 stands for none yet.
        self.advantage_square = keras.Variable(
            self.advantage_norm_start or 0.0, trainable=False, name="advantage_square"
        )

    learn_batches = offline.learn_imitation

    def default_optimizer(self):
        return Adam(1e-3, epsilon=1e-8)

    def build(self, observation_space, action_space):
        super().build(observation_space, action_space)
        if self.policy.is_recurrent:
            raise ValueError(
                "MARWIL values single observations, and the policy has memory. Leave "
                "its cell out, or imitate with kerasrl.BC."
            )

    @property
    def own_variables(self):
        return [*super().own_variables, self.advantage_square]

    def reader_arguments(self):
        """Returns how a dataset is read, arguments of its `reader`."""
        reading.refuse_previous_inputs(self)
        return {"batch_size": self.batch_size, "gamma": self.gamma}

    def targets(self, rollout):
        _, next_values = passes.rollout_outputs(self.policy, rollout)
        names = ("terminated", "truncated")
        returns = losses.discounted_returns(
            rollout["rewards"],
            next_values,
            *(rollout[name] for name in names),
            self.gamma,
            rollout["valid"],
        )
        return {"returns": returns}

    def imitate(self, batch, settings):
        """Takes one gradient step on a batch of a dataset. Compiled.

        Args:
            batch: Dict of tensors `[N, ...]`.
            settings: Dict, empty.

        Returns:
            Dict of scalars to log.
        """
        following = {"next_observations": batch["final_observations"]}
        last_values = passes.next_outputs(self.policy, following)["values"]
        last_values = ops.stop_gradient(last_values)
        returns = batch["returns_to_go"] + batch["final_discounts"] * last_values
        return self.update({**batch, "returns": returns}, settings)

    def update(self, batch, settings, minibatches=()):
        square = tf.identity(self.advantage_square.value)
        settings = {**settings, "advantage_square": square}
        metrics = gradients.gradient_step(self, batch, settings)
        if "value_loss" not in metrics:
            raise ValueError(
                f"The loss of {type(self).__name__} logs {', '.join(metrics)}, and no "
                "value_loss: half the mean squared difference of values and returns, "
                "from which the scale of advantages is learnt. Return it among what is "
                "logged, as kerasrl.losses.marwil_loss does."
            )
        found = 2.0 * metrics["value_loss"]
        square = tf.where(square > 0.0, square, found)
        moved = square + self.advantage_norm_rate * (found - square)
        with tf.control_dependencies([tf.convert_to_tensor(metrics["loss"])]):
            self.advantage_square.assign(moved)
        return {**metrics, "advantage_norm": tf.sqrt(moved)}

    def loss(self, batch, outputs, settings):
        values, returns, mask = outputs["values"], batch["returns"], batch["mask"]
        log_probs = self.policy.distribution(outputs).log_prob(batch["actions"])
        square, advantages = settings["advantage_square"], returns - values
        first = losses.moving_square(0.0, advantages, 1.0, mask)
        square = losses.moving_square(
            ops.where(square > 0.0, square, first),
            advantages,
            self.advantage_norm_rate,
            mask,
        )
        return losses.marwil_loss(
            log_probs, values, returns, square, self.beta, self.value_coef, mask=mask
        )
