"""Deep Q-learning, with every improvement up to Rainbow as an option."""

import keras

from kerasrl import checks
from kerasrl.agents import exploration
from kerasrl.agents.off_policy import OffPolicyAgent
from kerasrl.models import QFunction, QNetwork
from kerasrl.models.making import check_described
from kerasrl.optimizers import Adam
from kerasrl.training import q_learning, schedules
from kerasrl.training.hyperparameters import Hyperparameter


@keras.saving.register_keras_serializable("kerasrl")
class DQN(OffPolicyAgent):
    """Deep Q-network: double, dueling, n-step, prioritized, distributional, noisy.

    Acts by the highest estimated value, with some random actions, and learns
    `Q(s, a)` from replayed transitions towards a target network. Each option stands for
    itself; all of them together are `DQN.rainbow()`.

    Papers: DQN, Mnih et al. (2015), https://doi.org/10.1038/nature14236; double,
    https://arxiv.org/abs/1509.06461; dueling, https://arxiv.org/abs/1511.06581;
    prioritized, https://arxiv.org/abs/1511.05952; C51,
    https://arxiv.org/abs/1707.06887; QR-DQN, https://arxiv.org/abs/1710.10044; noisy,
    https://arxiv.org/abs/1706.10295; Rainbow, https://arxiv.org/abs/1710.02298.

    Args:
        policy: `None` for a `kerasrl.models.QNetwork`, a dict of arguments of it, a
            Keras model to be its trunk, or a `kerasrl.models.QFunction`.
        double: Whether the online network chooses the action that the target network
            values.
        dueling, num_atoms, v_min, v_max, num_quantiles, noisy: As for
            `kerasrl.models.QNetwork`, of the network that is made here. More than one
            atom is C51; quantiles are QR-DQN.
        exploration: Probability of a random action: a float, a schedule of environment
            steps, a function of the progress of `fit`, or a list of floats, one per
            environment (see `kerasrl.agents.epsilon_ladder`). Default: 0 with noisy
            layers, else falling from 1 to 0.05 over 10,000 steps.
        huber_delta: Float or `None`, size of the error beyond which the loss grows
            linearly; `None` for the squared error, which quantiles cannot have. C51,
            which compares distributions, does not use it.
        learning_starts, train_every, updates_per_call, tau, target_update_interval,
            **kwargs: As for `kerasrl.OffPolicyAgent`.

    Raises:
        TypeError: The policy is not an action-value network.
        ValueError: An option contradicts the network that was given.

    Example:

    ```python
    agent = kerasrl.DQN(dueling=True, n_step=3, prioritized=True)
    agent.fit("CartPole-v1", steps=50_000)
    ```
    """

    policy_base: type = QFunction
    default_policy: type = QNetwork

    kinds = {
        "double": Hyperparameter(checks.flag),
        # These describe the network, which exists.
        "dueling": Hyperparameter(checks.flag, "never"),
        "num_atoms": Hyperparameter(None, "never"),
        "v_min": Hyperparameter(None, "never"),
        "v_max": Hyperparameter(None, "never"),
        "num_quantiles": Hyperparameter(None, "never"),
        "noisy": Hyperparameter(checks.flag, "never"),
        "exploration": Hyperparameter(schedules.probabilities, "now"),
        "huber_delta": Hyperparameter(checks.positive),
    }

    def __init__(
        self,
        policy=None,
        double=True,
        dueling=False,
        num_atoms=1,
        v_min=None,
        v_max=None,
        num_quantiles=None,
        noisy=False,
        exploration=None,
        huber_delta=1.0,
        learning_starts=1_000,
        train_every=4,
        updates_per_call=8,
        tau=1.0,
        target_update_interval=1_000,
        **kwargs,
    ):
        self.double = double
        self.dueling = dueling
        self.num_atoms = num_atoms
        self.v_min = v_min
        self.v_max = v_max
        self.num_quantiles = num_quantiles
        self.noisy = noisy
        super().__init__(
            policy,
            learning_starts=learning_starts,
            train_every=train_every,
            updates_per_call=updates_per_call,
            tau=tau,
            target_update_interval=target_update_interval,
            **kwargs,
        )
        if exploration is None:
            schedule = keras.optimizers.schedules.PolynomialDecay(1.0, 10_000, 0.05)
            exploration = 0.0 if noisy else schedule
        self.exploration = exploration
        self.huber_delta = huber_delta

    def check_hyperparameters(self):
        super().check_hyperparameters()
        if self.huber_delta is None and self.num_quantiles is not None:
            raise ValueError(
                "Received huber_delta=None with num_quantiles. Quantile regression has "
                "no squared error: give a positive number."
            )

    @classmethod
    def rainbow(cls, v_min=-10.0, v_max=10.0, **kwargs):
        """Returns a DQN with all improvements and the settings of the Rainbow paper.

        The sizes of replay and schedules are those of this class, made for small tasks;
        the paper's, for Atari, are `buffer_size=1_000_000`, `learning_starts=20_000`,
        `target_update_interval=8_000` and `Adam(6.25e-5, epsilon=1.5e-4)`.

        Args:
            v_min, v_max: Floats, the lowest and highest discounted return to expect.
            **kwargs: As for `DQN`, to change any of it.

        Example:

        ```python
        agent = kerasrl.DQN.rainbow(v_min=0.0, v_max=100.0)
        ```
        """
        schedule = keras.optimizers.schedules.PolynomialDecay(0.4, 100_000, 1.0)
        settings = {
            "double": True,
            "dueling": True,
            "num_atoms": 51,
            "v_min": v_min,
            "v_max": v_max,
            "noisy": True,
            "n_step": 3,
            "prioritized": True,
            "importance_exponent": schedule,
            "replay": {"priority_exponent": 0.5},
        }
        return cls(**{**settings, **kwargs})

    def policy_options(self):
        options = {
            "dueling": self.dueling or None,
            "num_atoms": None if self.num_atoms == 1 else self.num_atoms,
            "v_min": self.v_min,
            "v_max": self.v_max,
            "num_quantiles": self.num_quantiles,
            "noisy": self.noisy or None,
        }
        # What was left out says nothing about a network that was given.
        return {name: value for name, value in options.items() if value is not None}

    def make_policy(self, policy):
        return check_described(super().make_policy(policy), self.policy_options())

    def default_optimizer(self):
        return Adam(5e-4, epsilon=1e-8)

    def exploration_inputs(self, num_envs):
        return exploration.epsilon_inputs(self, num_envs)

    def act(self, inputs, deterministic):
        return exploration.act_epsilon_greedy(self, inputs, deterministic)

    def loss(self, batch, outputs, settings):
        return q_learning.loss(self, batch, outputs)
