"""The likeliest first mistakes get an answer."""

import inspect

import pytest

import kerasrl
from kerasrl import models, spellings

AGENTS = [
    *(
        "PG",
        "A2C",
        "PPO",
        "SimpleQ",
        "DQN",
        "R2D2",
        "DDPG",
        "TD3",
        "SAC",
        "ApexDQN",
        "ApexDDPG",
    ),
    *("ES", "ARS"),
    *("A3C", "IMPALA", "APPO"),
    *("BC", "MARWIL", "TD3BC", "IQL", "CQL"),
]


@pytest.mark.parametrize(
    ("agent", "name", "message"),
    [
        ("PPO", "learning_rate", "agent.compile(keras.optimizers.Adam(learning_rate))"),
        ("SAC", "lr", "agent.compile(keras.optimizers.Adam(learning_rate))"),
        ("PPO", "n_steps", "called 'rollout_length'"),
        ("DQN", "n_steps", "called 'n_step'"),
        ("PPO", "train_batch_size", "rollout_length * num_envs"),
        ("DQN", "train_batch_size", "called 'batch_size'"),
        ("PPO", "batch_size", "called 'minibatch_size'"),
        ("PPO", "clip_range", "called 'clip_ratio'"),
        ("PPO", "clip_param", "called 'clip_ratio'"),
        ("A2C", "ent_coef", "called 'entropy_coef'"),
        ("SAC", "ent_coef", "called 'temperature'"),
        ("A2C", "vf_coef", "called 'value_coef'"),
        ("PPO", "n_epochs", "called 'num_epochs'"),
        ("PPO", "num_sgd_iter", "called 'num_epochs'"),
        ("IMPALA", "vtrace_clip_rho_threshold", "called 'clip_rho'"),
        ("IMPALA", "lambda_", "called 'trace_lambda'"),
        ("IMPALA", "broadcast_interval", "begin a fragment"),
        ("APPO", "learner_queue_size", "two fragments ahead"),
        ("A3C", "sample_async", "worker_mode='asynchronous'"),
        ("CQL", "min_q_weight", "called 'alpha'"),
        ("IQL", "weight_temp", "called 'beta'"),
        ("PG", "rollout_fragment_length", "called 'rollout_length'"),
        ("PPO", "verbose", "fit(env, verbose="),
        ("PPO", "env", "fit(env, env="),
        ("DQN", "policy_kwargs", "called 'policy'"),
        ("TD3", "tensorboard_log", "callbacks"),
        ("DQN", "buffersize", "Did you mean 'buffer_size'?"),
        ("DQN", "quite_another", "Expected one of: "),
    ],
)
def test_unknown_arguments_of_agents(agent, name, message):
    with pytest.raises(TypeError) as caught:
        getattr(kerasrl, agent)(**{name: 1})
    assert f"{agent} has no argument {name!r}" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("agent", AGENTS)
def test_every_agent_answers_and_shows_its_signature(agent):
    agent_class = getattr(kerasrl, agent)
    with pytest.raises(TypeError, match=f"{agent} has no argument 'sead'.*'seed'"):
        agent_class(sead=0)
    assert inspect.signature(agent_class) == _without_self(agent_class.__init__)
    names = {n for n, p in inspect.signature(agent_class).parameters.items()}
    assert names - {"kwargs"} <= set(agent_class.hyperparameters())


def _without_self(function):
    signature = inspect.signature(function)
    return signature.replace(parameters=list(signature.parameters.values())[1:])


@pytest.mark.parametrize(
    ("method", "name", "message"),
    [
        ("fit", "total_timesteps", "called 'steps'"),
        ("fit", "callback", "called 'callbacks'"),
        ("fit", "progress_bar", "called 'verbose'"),
        ("fit", "num_workerz", "Did you mean 'num_workers'?"),
        ("fit", "learning_rate", "agent.compile"),
        ("iterate", "total_timesteps", "called 'steps'"),
        ("evaluate", "n_eval_episodes", "called 'episodes'"),
        ("evaluate", "episode", "Did you mean 'episodes'?"),
        ("predict", "observation", "called 'observations'"),
        ("compile", "optimiser", "Did you mean 'optimizer'?"),
        ("compile", "learning_rate", "keras.optimizers.Adam"),
    ],
)
def test_unknown_arguments_of_methods(method, name, message):
    agent = kerasrl.PPO()
    with pytest.raises(TypeError) as caught:
        getattr(agent, method)("CartPole-v1", **{name: 1})
    assert f"PPO.{method} has no argument {name!r}" in str(caught.value)
    assert message in str(caught.value)
    assert "kwargs" not in inspect.signature(getattr(agent, method)).parameters


@pytest.mark.parametrize(
    "policy", ["ActorCritic", "QNetwork", "SoftActorCritic", "DeterministicActorCritic"]
)
def test_unknown_arguments_of_policies(policy):
    make = getattr(models, policy)
    for name, message in (
        ("hiden_units", "Did you mean 'hidden_units'?"),
        ("net_arch", "called 'hidden_units'"),
        ("fcnet_hiddens", "called 'hidden_units'"),
        ("lr", "agent.compile"),
    ):
        with pytest.raises(TypeError) as caught:
            make(**{name: (4,)})
        assert f"{policy} has no argument {name!r}" in str(caught.value)
        assert message in str(caught.value)
    assert make(name="mine", dtype="float32", trainable=False).name == "mine"


def test_a_policy_as_a_dict_gets_the_same_answer():
    with pytest.raises(TypeError, match="ActorCritic has no argument 'hiden_units'"):
        kerasrl.PPO({"hiden_units": (4,)})


def test_names_lead_to_arguments_that_exist():
    known = set()
    for agent in AGENTS:
        known |= set(getattr(kerasrl, agent).hyperparameters())
    for function in (kerasrl.Agent.fit, kerasrl.Agent.evaluate, kerasrl.Agent.predict):
        known |= set(inspect.signature(function).parameters)
    for policy in (models.ActorCritic, models.QNetwork):
        known |= set(inspect.signature(policy).parameters)
    wanted = {*spellings.RLLIB_CONFIG.values(), *spellings.RLLIB_MODEL.values()}
    wanted |= {name for names in spellings.OTHER_NAMES.values() for name in names}
    # These are keys of a policy given by name.
    assert wanted - known == {"learning_rate", "model", "model_config"}
