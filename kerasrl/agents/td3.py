"""Twin delayed deep deterministic policy gradient."""

from functools import partial

import keras
import tensorflow as tf

from kerasrl import checks
from kerasrl.agents import exploration, sequences
from kerasrl.agents.off_policy import OffPolicyAgent
from kerasrl.models import ActionValuePolicy, DeterministicActorCritic
from kerasrl.optimizers import Adam
from kerasrl.training import critics, gradients
from kerasrl.training.hyperparameters import Hyperparameter


@keras.saving.register_keras_serializable("kerasrl")
class TD3(OffPolicyAgent):
    """Twin delayed DDPG, for bounded `Box` actions.

    As `kerasrl.DDPG`, with three remedies for overestimated values: the lesser of two
    critics makes the targets, noise smooths the action in them, and the policy and the
    target network are updated less often than the critics.

    Paper: Fujimoto et al. (2018), https://arxiv.org/abs/1802.09477.

    Args:
        policy: `None` for a `kerasrl.models.DeterministicActorCritic`, a dict of
            arguments of it, a Keras model to be its trunk, or a
            `kerasrl.models.ActionValuePolicy`.
        noise, noise_scale: As for `kerasrl.DDPG`.
        target_noise: Float, standard deviation of the noise on actions in targets,
            which are scaled to [-1, 1].
        target_noise_clip: Float, bound of that noise.
        policy_delay: Integer, gradient steps of the critics for one of the policy.
        burn_in, sequence_length, period: With a recurrent policy, rows of a sequence
            that only bring its memory up to date, rows that are learnt from, and steps
            between the starts of sequences, as for `kerasrl.R2D2`. The batch size then
            counts rows that are learnt from, in whole sequences.
        batch_size, updates_per_call, **kwargs: As for `kerasrl.OffPolicyAgent`.

    Raises:
        ValueError: The action space is not bounded.

    Example:

    ```python
    kerasrl.TD3(gamma=0.98).fit("Pendulum-v1", steps=20_000)
    ```
    """

    policy_base: type = ActionValuePolicy
    default_policy: type = DeterministicActorCritic

    kinds = {
        **exploration.NOISE_KINDS,
        **sequences.KINDS,
        "target_noise": Hyperparameter(partial(checks.positive, zero=True)),
        "target_noise_clip": Hyperparameter(partial(checks.positive, optional=False)),
        "policy_delay": Hyperparameter(checks.positive_integer),
    }

    def __init__(
        self,
        policy=None,
        noise="gaussian",
        noise_scale=0.1,
        target_noise=0.2,
        target_noise_clip=0.5,
        policy_delay=2,
        burn_in=10,
        sequence_length=20,
        period=10,
        batch_size=256,
        **kwargs,
    ):
        super().__init__(policy, batch_size=batch_size, **kwargs)
        self.burn_in = burn_in
        self.sequence_length = sequence_length
        self.period = period
        self.noise = noise
        self.noise_scale = noise_scale
        self.target_noise = target_noise
        self.target_noise_clip = target_noise_clip
        self.policy_delay = policy_delay
        self.seed_generator = keras.random.SeedGenerator(self.seed)

    learns_sequences = property(sequences.are_learnt)
    samples_per_batch = property(sequences.per_batch)
    make_buffer = sequences.make_buffer
    iteration_length = sequences.iteration_length
    num_updates = sequences.num_updates

    due = critics.due_after_delay

    acting_state = exploration.noise_state
    exploration_inputs = exploration.noise_inputs
    act = exploration.act_with_noise

    def check_hyperparameters(self):
        super().check_hyperparameters()
        replaced = self.functions.keys()
        if (
            self.policy_delay > 1
            and "loss" in replaced
            and "critic_loss" not in replaced
        ):
            raise ValueError(
                f"{type(self).__name__} was given a loss function, which only one of "
                f"{self.policy_delay} steps takes: the others train the critics "
                "alone, on critic_loss. Give with_updates a critic_loss too, or set "
                "policy_delay=1."
            )

    def default_optimizer(self):
        return Adam(1e-3, epsilon=1e-8)

    def parts(self):
        return critics.parts(self.policy)

    @property
    def own_variables(self):
        return [*super().own_variables, self.seed_generator.state]

    def update(self, batch, settings):
        batch = sequences.prepared(self, batch)

        def both():
            metrics = gradients.gradient_step(self, batch, settings)
            # What is logged is the mean over all steps, in some of which it is 0.
            metrics["policy_loss"] *= self.policy_delay
            return metrics

        def critics_only():
            metrics = gradients.gradient_step(
                self, batch, settings, self.critic_loss, ["critics"]
            )
            return {**metrics, "policy_loss": tf.constant(0.0)}

        if self.policy_delay == 1:
            return both()
        return tf.cond(settings["update_policy"], both, critics_only)

    def critic_loss(self, batch, outputs, settings):
        """Computes the loss of the critics alone; see `loss`."""
        smooth = partial(
            critics.smoothed,
            scale=self.target_noise,
            limit=self.target_noise_clip,
            seed=self.seed_generator,
        )
        return critics.critic_loss(self, batch, outputs, smooth)

    def loss(self, batch, outputs, settings):
        critic_loss, metrics = self.critic_loss(batch, outputs, settings)
        policy_loss = critics.policy_loss(self, batch, outputs)
        return critic_loss + policy_loss, {**metrics, "policy_loss": policy_loss}
