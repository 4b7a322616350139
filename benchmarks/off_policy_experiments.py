"""What `learning.py` trains of the off-policy algorithms."""

#: The tuned settings of DQN for Stable-Baselines3, which has none of the improvements.
#: Ours copies the target network while it collects, so once for all 128 gradient steps
#: that follow 256 steps.
SB3_DQN = {
    "buffer_size": 100_000,
    "learning_starts": 1_000,
    "batch_size": 64,
    "train_freq": 256,
    "gradient_steps": 128,
    # Below the steps between updates: once for all gradient steps, as ours.
    "target_update_interval": 10,
    "exploration_fraction": 8_000 / 50_000,
    "exploration_final_eps": 0.04,
    "max_grad_norm": 10,
    "policy_kwargs": {"net_arch": [256, 256]},
}
SB3_ACROBOT = {
    "buffer_size": 50_000,
    "learning_starts": 500,
    "batch_size": 128,
    # Steps of all eight environments, so 32; as many gradient steps follow.
    "train_freq": 4,
    "gradient_steps": -1,
    "target_update_interval": 250,
    "exploration_fraction": 6_000 / 30_000,
    "exploration_final_eps": 0.1,
    "max_grad_norm": 10,
    "policy_kwargs": {"net_arch": [256, 256]},
}
#: What each improvement sets.
IMPROVEMENTS = {
    "double": {"double": True},
    "dueling": {"dueling": True},
    "prioritized": {"prioritized": True},
    "n-step": {"n_step": 3},
    "c51": {"num_atoms": 51, "v_min": 0.0, "v_max": 100.0},
    "quantile": {"num_quantiles": 32},
    "noisy": {"noisy": True},
    "rainbow": {
        "double": True,
        "dueling": True,
        "prioritized": True,
        "n_step": 3,
        "num_atoms": 51,
        "v_min": 0.0,
        "v_max": 100.0,
        "noisy": True,
    },
}
SB3_PENDULUM = {
    "gamma": 0.98,
    "batch_size": 128,
    "buffer_size": 100_000,
    "learning_starts": 1_000,
    # Two steps of eight environments, then sixteen gradient steps.
    "train_freq": 2,
    "gradient_steps": -1,
    "policy_kwargs": {"net_arch": [64, 64]},
}


def off_policy_experiments(experiment):
    """Returns the experiments by name.

    Args:
        experiment: The class `Experiment` of `learning.py`.
    """
    cartpole = {
        "env": "CartPole-v1",
        "required": 1.0,
        "checkpoint": "best",
        "evaluations": 50,
    }
    experiments = {
        "dqn-cartpole": experiment(algorithm="DQN", gate=475, sb3=SB3_DQN, **cartpole),
        "dqn-acrobot": experiment(
            algorithm="DQN",
            env="Acrobot-v1",
            gate=-100,
            required=1.0,
            checkpoint="best",
            evaluations=15,
            sb3=SB3_ACROBOT,
        ),
    }
    for name, changes in IMPROVEMENTS.items():
        if changes.get("noisy"):
            changes = {**changes, "exploration": None}
        experiments[f"dqn-{name}-cartpole"] = experiment(
            algorithm="DQN", gate=450, changes=changes, **cartpole
        )
    pendulum = {"env": "Pendulum-v1", "gate": -250, "required": 1.0}
    for algorithm, noise in (
        ("DDPG", {"noise_scale": 0.1}),
        ("TD3", {"noise_scale": 0.1}),
        ("SAC", {}),
    ):
        experiments[f"{algorithm.lower()}-pendulum"] = experiment(
            algorithm=algorithm, sb3={**SB3_PENDULUM, **noise}, **pendulum
        )
    # Two workers that act while the learner learns, with default arguments.
    experiments["apex-dqn-cartpole"] = experiment(
        algorithm="ApexDQN", env="CartPole-v1", gate=450, required=1.0
    )
    experiments["apex-ddpg-pendulum"] = experiment(algorithm="ApexDDPG", **pendulum)
    experiments["sac-pendulum-held-noise"] = experiment(
        algorithm="SAC", changes={"policy": {"noise_steps": 8}}, **pendulum
    )
    # With one step and tau=0.005, and unscaled, mean values had come to 40 after 20,000
    # steps; of endless episodes they are 100 and more. Angles end at 0.2, positions at
    # 2.4: unscaled, seed 0 stayed below 300.
    experiments["sac-discrete-cartpole"] = experiment(
        algorithm="SAC", gate=400, **cartpole
    )
    stateless = {**cartpole, "env": "StatelessCartPole-v1"}
    experiments["r2d2-stateless"] = experiment(algorithm="R2D2", gate=300, **stateless)
    experiments["dqn-stateless"] = experiment(
        algorithm="DQN",
        settings_of="CartPole-v1",
        other_steps=60_000,
        gate=150,
        below=True,
        **stateless,
    )
    swung = {"algorithm": "SAC", "env": "StatelessPendulum-v1", "required": 1.0}
    experiments["sac-stateless"] = experiment(gate=-300, **swung)
    experiments["sac-stateless-feed-forward"] = experiment(
        gate=-600,
        below=True,
        changes={
            "policy": {"cell": None, "previous_inputs": False},
            "batch_size": 256,
        },
        **swung,
    )
    for name, hindsight, bound in (
        ("dqn-hindsight-bits", "future", {"gate": 0.95}),
        ("dqn-bits", None, {"gate": 0.2, "below": True}),
    ):
        experiments[name] = experiment(
            algorithm="DQN",
            env="BitFlipping-v1",
            required=1.0,
            measure="success",
            changes={"hindsight": hindsight},
            **bound,
        )
    return experiments
