"""Agents of every family, small enough to train in a second."""

import pathlib

from by_definition import BOX

import kerasrl
from kerasrl import testing

ROOT = pathlib.Path(__file__).parents[1]
_SMALL = {"hidden_units": (8,)}
_REPLAY = {"learning_starts": 60, "batch_size": 8, "buffer_size": 500}


def _making(agent_class, made, defaults):
    """A function that makes an agent with a small network, whatever else is asked."""

    def make(policy=None, **kw):
        small = {} if "trunk" in (policy or {}) else _SMALL
        policy = {**made, **small, **(policy or {})}
        return agent_class(policy=policy, **{**defaults, **kw})

    return make


def _on_policy(agent_class, **defaults):
    return _making(agent_class, {"normalize_observations": True}, defaults)


def _recurrent(agent_class, **defaults):
    made = {"cell": "lstm", "cell_units": 8, "previous_inputs": True}
    return _making(agent_class, made, defaults)


def _replay(agent_class, policy=None, **defaults):
    return _making(agent_class, policy or {}, {**_REPLAY, **defaults})


_PPO = {"rollout_length": 16, "num_epochs": 2, "minibatch_size": 32}
_SHORTER = {"rollout_length": 8}
_SEQUENCES = {"burn_in": 2, "sequence_length": 6, "period": 4, "n_step": 2}
_MEMORY = {"cell": "lstm", "cell_units": 4, "previous_inputs": True}
_SHORT = {**_SEQUENCES, "batch_size": 24, "updates_per_call": 1, "train_every": 4}
_APEX = {"updates_per_call": 8, "target_update_interval": 40}

ON_POLICY = {
    "PG": _on_policy(kerasrl.PG, rollout_length=16),
    "A2C": _on_policy(kerasrl.A2C),
    "PPO": _on_policy(kerasrl.PPO, **_PPO),
    "A3C": _on_policy(kerasrl.A3C, rollout_length=5, lag=1),
    "IMPALA": _on_policy(kerasrl.IMPALA, replay_proportion=0.5, lag=2, **_SHORTER),
    "APPO": _on_policy(kerasrl.APPO, target_network=True, lag=1, **_PPO),
    "MARWIL": _on_policy(kerasrl.MARWIL, rollout_length=16),
    "PG_recurrent": _recurrent(kerasrl.PG, rollout_length=16),
    "A2C_recurrent": _recurrent(kerasrl.A2C),
    "PPO_recurrent": _recurrent(kerasrl.PPO, **_PPO),
    "A3C_recurrent": _recurrent(kerasrl.A3C, rollout_length=5, lag=1),
    "IMPALA_recurrent": _recurrent(kerasrl.IMPALA, lag=1, **_SHORTER),
    "APPO_recurrent": _recurrent(kerasrl.APPO, vtrace=True, lag=1, **_PPO),
}
OFF_POLICY = {
    "SimpleQ": _replay(kerasrl.SimpleQ),
    "DQN": _replay(kerasrl.DQN, updates_per_call=4, target_update_interval=40),
    "Rainbow": _replay(
        kerasrl.DQN.rainbow, v_min=0.0, v_max=50.0, num_atoms=5, updates_per_call=4
    ),
    "ApexDQN": _replay(kerasrl.ApexDQN, **_APEX),
    "R2D2": _replay(
        kerasrl.R2D2,
        {"cell_units": 4, "previous_inputs": True},
        target_update_interval=40,
        **_SEQUENCES,
    ),
    "DDPG": _replay(kerasrl.DDPG, noise="ornstein_uhlenbeck"),
    "ApexDDPG": _replay(kerasrl.ApexDDPG, **_APEX),
    "TD3": _replay(kerasrl.TD3),
    "SAC": _replay(kerasrl.SAC),
    "SAC_discrete": _replay(kerasrl.SAC),
    # Those made for data that go on in environments.
    "TD3BC": _replay(kerasrl.TD3BC),
    "IQL": _replay(kerasrl.IQL),
    "IQL_discrete": _replay(kerasrl.IQL),
    "CQL": _replay(kerasrl.CQL, num_actions=2),
    "CQL_discrete": _replay(kerasrl.CQL),
    "DDPG_recurrent": _replay(kerasrl.DDPG, {"cell": "gru", "cell_units": 4}, **_SHORT),
    "TD3_recurrent": _replay(kerasrl.TD3, _MEMORY, prioritized=True, **_SHORT),
    "SAC_recurrent": _replay(kerasrl.SAC, _MEMORY, **_SHORT),
    "SAC_discrete_recurrent": _replay(kerasrl.SAC, _MEMORY, **_SHORT),
}
AGENTS = {**ON_POLICY, **OFF_POLICY}
CONTINUOUS = ("DDPG", "TD3", "SAC")
CONTINUOUS += ("ApexDDPG", *(f"{name}_recurrent" for name in CONTINUOUS))
CONTINUOUS += ("TD3BC", "IQL", "CQL")


def env_of(name):
    """Id of an environment whose actions an agent can take."""
    return "Pendulum-v1" if name in CONTINUOUS else "CartPole-v1"


def make(name, seed=7, jit_compile=False, run_eagerly=False, **arguments):
    """An agent by its name, compiled without XLA, which takes seconds."""
    agent = AGENTS[name](seed=seed, **arguments)
    agent.compile(jit_compile=jit_compile, run_eagerly=run_eagerly)
    return agent


def hostile_env(name):
    """A function that makes `RandomEndsEnv`, with actions that an agent can take."""
    if name not in CONTINUOUS:
        return testing.RandomEndsEnv

    def make_env():
        env = testing.RandomEndsEnv()
        env.action_space = BOX
        return env

    return make_env
