"""Deep deterministic policy gradient."""

import keras

from kerasrl.agents import exploration, sequences
from kerasrl.agents.off_policy import OffPolicyAgent
from kerasrl.models import ActionValuePolicy, DeterministicActorCritic
from kerasrl.optimizers import Adam
from kerasrl.training import critics


@keras.saving.register_keras_serializable("kerasrl")
class DDPG(OffPolicyAgent):
    """Deep deterministic policy gradient, for bounded `Box` actions.

    Learns the value of continuous actions from replayed transitions, and a
    deterministic policy that goes up its slope. Noise on the actions explores.
    `kerasrl.TD3` has the remedies for its overestimation of values.

    Paper: Lillicrap et al. (2015), https://arxiv.org/abs/1509.02971.

    Args:
        policy: `None` for a `kerasrl.models.DeterministicActorCritic` with one critic,
            a dict of arguments of it, a Keras model to be its trunk, or a
            `kerasrl.models.ActionValuePolicy`.
        noise: `"gaussian"` (white) or `"ornstein_uhlenbeck"` (drifting).
        noise_scale: Float, schedule, or list of one float per environment: standard
            deviation of the noise on actions scaled to [-1, 1].
        burn_in, sequence_length, period: With a recurrent policy, rows of a sequence
            that only bring its memory up to date, rows that are learnt from, and steps
            between the starts of sequences, as for `kerasrl.R2D2`. The batch size then
            counts rows that are learnt from, in whole sequences.
        batch_size, **kwargs: As for `kerasrl.OffPolicyAgent`.

    Raises:
        ValueError: The action space is not bounded.

    Example:

    ```python
    kerasrl.DDPG(gamma=0.98).fit("Pendulum-v1", steps=20_000)
    ```
    """

    policy_base: type = ActionValuePolicy
    default_policy: type = DeterministicActorCritic

    kinds = {**exploration.NOISE_KINDS, **sequences.KINDS}

    def __init__(
        self,
        policy=None,
        noise="gaussian",
        noise_scale=0.1,
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

    learns_sequences = property(sequences.are_learnt)
    samples_per_batch = property(sequences.per_batch)
    make_buffer = sequences.make_buffer
    iteration_length = sequences.iteration_length
    num_updates = sequences.num_updates
    update = sequences.update

    acting_state = exploration.noise_state
    exploration_inputs = exploration.noise_inputs
    act = exploration.act_with_noise

    def policy_options(self):
        return {"num_critics": 1}

    def default_optimizer(self):
        return Adam(1e-3, epsilon=1e-8)

    def parts(self):
        return critics.parts(self.policy)

    def loss(self, batch, outputs, settings):
        return critics.deterministic_loss(self, batch, outputs)
