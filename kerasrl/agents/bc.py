"""Behaviour cloning."""

import keras

from kerasrl import checks, losses
from kerasrl.agents import offline
from kerasrl.agents.agent import Agent
from kerasrl.optimizers import Adam
from kerasrl.training import gradients, reading
from kerasrl.training.hyperparameters import Hyperparameter


@keras.saving.register_keras_serializable("kerasrl")
class BC(Agent):
    """Behaviour cloning: makes the actions of a dataset likely, whatever came of them.

    It learns from a dataset alone. To go on in an environment, hand its policy to an
    algorithm that does: `kerasrl.PPO(policy=agent.policy)`.

    Paper: Pomerleau (1991), https://doi.org/10.1162/neco.1991.3.1.88.

    Args:
        policy: `None` for a `kerasrl.models.ActorCritic`, a dict of arguments of it, a
            Keras model to be its trunk, or a `kerasrl.models.Policy`.
        batch_size: Integer, steps per gradient step; with a recurrent policy, pieces
            of episodes.
        sequence_length: Integer, steps of such a piece. Its memory begins empty.
        updates_per_call: Integer, gradient steps that run in one compiled call, which
            is an iteration of `fit`.
        max_grad_norm: Float or `None`, bound of the global norm of the gradient.
        seed: Integer or `None`.

    Example:

    ```python
    dataset = kerasrl.offline.load("runs/cartpole")
    agent = kerasrl.BC()
    agent.fit(dataset, steps=2_000)
    agent.evaluate("CartPole-v1")
    ```
    """

    learns_from_rollouts = False
    distribution_needs = ("sample", "mode")

    kinds = {
        **offline.KINDS,
        "sequence_length": Hyperparameter(checks.positive_integer, "fit"),
    }

    def __init__(
        self,
        policy=None,
        batch_size=256,
        sequence_length=16,
        updates_per_call=8,
        max_grad_norm=None,
        seed=None,
    ):
        super().__init__(policy, 1.0, max_grad_norm, False, seed)
        self.batch_size = batch_size
        self.sequence_length = sequence_length
        self.updates_per_call = updates_per_call

    learn_batches = offline.learn_imitation

    def default_optimizer(self):
        return Adam(1e-3, epsilon=1e-8)

    def iteration_length(self, num_envs):
        raise TypeError(
            "BC imitates a dataset, and fit received an environment. Give it a "
            "kerasrl.offline.Dataset; to go on in an environment, use "
            "kerasrl.PPO(policy=agent.policy)."
        )

    def reader_arguments(self):
        """Returns how a dataset is read, arguments of its `reader`."""
        arguments = {"batch_size": self.batch_size}
        if self.policy.is_recurrent:
            return {**arguments, "sequence_length": self.sequence_length}
        reading.refuse_previous_inputs(self)
        return arguments

    def imitate(self, batch, settings):
        """Takes one gradient step. Compiled.

        Args:
            batch: Dict of tensors `[N, ...]`, `[N, L, ...]` with a recurrent policy.
            settings: Dict, empty.

        Returns:
            Dict of scalars to log.
        """
        return gradients.gradient_step(self, batch, settings)

    def loss(self, batch, outputs, settings):
        log_probs = self.policy.distribution(outputs).log_prob(batch["actions"])
        return losses.weighted_imitation(log_probs, mask=batch["mask"])
