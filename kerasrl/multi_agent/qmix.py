"""QMIX: monotonic mixing of the values of a team."""

import keras

from kerasrl.agents import exploration, sequences
from kerasrl.agents.off_policy import OffPolicyAgent
from kerasrl.multi_agent import teams
from kerasrl.multi_agent.team_network import TeamNetwork


@keras.saving.register_keras_serializable("kerasrl")
class QMIX(OffPolicyAgent):
    """A team whose value grows with the value of each of its agents.

    As `kerasrl.VDN`, but the values of agents are mixed by a network whose weights are
    not negative and come of the state of the whole, which is needed in training only.
    What is worth more together it can say, as long as no agent's better choice becomes
    worse by what the others do.

    Paper: Rashid et al. (2018), https://arxiv.org/abs/1803.11485.

    Args:
        policy: `None` for a `kerasrl.multi_agent.TeamNetwork` with a monotonic mixer,
            a dict of arguments of it, or one.
        reward, double, exploration, burn_in, sequence_length, period, batch_size,
            train_every, tau, target_update_interval, max_grad_norm, **kwargs: As for
            `kerasrl.VDN`.

    Example:

    ```python
    agent = kerasrl.QMIX(policy={"mixing_units": 8})
    agent.fit("two_step", steps=20_000)
    agent.evaluate("two_step")["return_mean"]
    ```
    """

    policy_base: type = TeamNetwork
    default_policy: type = TeamNetwork

    learns_sequences = True

    make_environments = teams.make_environments
    evaluate = teams.evaluate
    check_env = staticmethod(teams.check_env)
    make_buffer = sequences.make_buffer
    iteration_length = sequences.iteration_length
    num_updates = sequences.num_updates
    update = sequences.update

    default_optimizer = teams.default_optimizer
    exploration_inputs = exploration.epsilon_inputs
    act = teams.act
    loss = teams.loss

    kinds = {**sequences.KINDS, **teams.KINDS}

    def __init__(
        self,
        policy=None,
        reward="sum",
        double=True,
        exploration=None,
        burn_in=0,
        sequence_length=20,
        period=10,
        batch_size=32,
        train_every=20,
        updates_per_call=1,
        tau=1.0,
        target_update_interval=2_000,
        max_grad_norm=10.0,
        **kwargs,
    ):
        super().__init__(
            policy,
            batch_size=batch_size,
            train_every=train_every,
            updates_per_call=updates_per_call,
            tau=tau,
            target_update_interval=target_update_interval,
            max_grad_norm=max_grad_norm,
            **kwargs,
        )
        self.reward = reward
        self.double = double
        self.exploration = teams.EXPLORATION if exploration is None else exploration
        self.burn_in = burn_in
        self.sequence_length = sequence_length
        self.period = period

    def policy_options(self):
        return {"mixer": "monotonic"}
