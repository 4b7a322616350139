"""What other libraries call arguments, and what is said about unknown ones."""

import functools
import inspect

from kerasrl import checks

#: RLlib's names of algorithms, in lower case, and what they mean here.
RLLIB_ALGORITHMS = {
    "apex": ("ApexDQN", "with num_workers, 2 or more to explore differently"),
    "apex_ddpg": ("ApexDDPG", "with num_workers, 2 or more to explore differently"),
    "ddpg2": ("DDPG", "of which there is one"),
}
#: RLlib's names of hyperparameters that mean the same here. Where there are several
#: names for one of RLlib's, the algorithm's own settings decide.
RLLIB_CONFIG = {
    "lr": "learning_rate",
    "lambda": "gae_lambda",
    "num_sgd_iter": "num_epochs",
    "sgd_minibatch_size": "minibatch_size",
    "rollout_fragment_length": "rollout_length",
    "num_envs_per_worker": "num_envs",
    "clip_param": "clip_ratio",
    "vf_loss_coeff": "value_coef",
    "entropy_coeff": "entropy_coef",
    "kl_coeff": "kl_coef",
    "kl_target": "target_kl",
    "grad_clip": "max_grad_norm",
    "double_q": "double",
    "prioritized_replay": "prioritized",
    "prioritized_replay_beta": "importance_exponent",
    "target_network_update_freq": "target_update_interval",
    "num_steps_sampled_before_learning_starts": "learning_starts",
    "initial_alpha": "temperature",
    "worker_side_prioritization": "initial_priorities",
    "noise_stdev": "noise_scale",
    "l2_coeff": "weight_decay",
    "offset": "alive_bonus",
    "stepsize": "learning_rate",
    "sgd_stepsize": "learning_rate",
    "target_update_frequency": "target_update_interval",
    "vtrace_clip_rho_threshold": "clip_rho",
    "vtrace_clip_pg_rho_threshold": "clip_pg",
    "replay_buffer_num_slots": "replay_slots",
    "min_q_weight": "alpha",
    "moving_average_sqd_adv_norm_start": "advantage_norm_start",
    "moving_average_sqd_adv_norm_update_rate": "advantage_norm_rate",
}
RLLIB_MODEL = {
    "fcnet_hiddens": "hidden_units",
    "fcnet_activation": "activation",
    "conv_filters": "filters",
    "conv_activation": "activation",
    "vf_share_layers": "shared_trunk",
    "lstm_cell_size": "cell_units",
    "use_lstm": "cell",
    "lstm_use_prev_action_reward": "previous_inputs",
    "free_log_std": "log_std",
    "custom_model": "model",
    "custom_model_config": "model_config",
    "custom_options": "model_config",
    "custom_action_dist": "distribution",
}
#: Further names, most of Stable-Baselines3, that mean the same here. What is called
#: has one of several.
OTHER_NAMES = {
    "train_batch_size": ("batch_size",),
    "rollout_fragment_length": ("train_every",),
    "n_steps": ("rollout_length", "n_step"),
    "n_epochs": ("num_epochs",),
    "minibatch_size": ("batch_size",),
    "batch_size": ("minibatch_size",),
    "clip_range": ("clip_ratio",),
    "conservative_weight": ("alpha",),
    "n_action_samples": ("num_actions",),
    "weight_temp": ("beta",),
    "clip_range_vf": ("value_clip",),
    "vf_clip_param": ("value_clip",),
    "vf_coef": ("value_coef",),
    "ent_coef": ("entropy_coef", "temperature"),
    "alpha": ("temperature",),
    "normalize_advantage": ("normalize_advantages",),
    "target_policy_noise": ("target_noise",),
    "action_noise": ("noise",),
    "train_freq": ("train_every",),
    "training_intensity": ("train_every",),
    "goal_selection_strategy": ("hindsight",),
    "replay_buffer_kwargs": ("replay",),
    "replay_buffer_config": ("replay",),
    "exploration_fraction": ("exploration",),
    "exploration_initial_eps": ("exploration",),
    "exploration_final_eps": ("exploration",),
    "exploration_config": ("exploration",),
    "epsilon": ("exploration",),
    "policy_kwargs": ("policy",),
    "model": ("policy",),
    "discount": ("gamma",),
    "lambda_": ("gae_lambda", "trace_lambda"),
    "clip_rho_threshold": ("clip_rho",),
    "clip_pg_rho_threshold": ("clip_pg",),
    "horizon": ("rollout_length",),
    "total_timesteps": ("steps",),
    "timesteps": ("steps",),
    "num_steps": ("steps", "rollout_length"),
    "callback": ("callbacks",),
    "n_envs": ("num_envs",),
    "n_eval_episodes": ("episodes", "unperturbed_episodes"),
    "eval_prob": ("unperturbed_episodes",),
    "sigma": ("noise_scale",),
    "delta_std": ("noise_scale",),
    "population_size": ("num_pairs",),
    "episodes_per_batch": ("num_pairs",),
    "num_rollouts": ("num_pairs",),
    "n_delta": ("num_pairs",),
    "rollouts_used": ("num_top",),
    "n_top": ("num_top",),
    "alive_bonus_offset": ("alive_bonus",),
    "num_episodes": ("episodes",),
    "num_env_runners": ("num_workers",),
    "progress_bar": ("verbose",),
    "env_kwargs": ("env_config",),
    "net_arch": ("hidden_units",),
    "units": ("hidden_units",),
    "activation_fn": ("activation",),
    "log_std_init": ("initial_log_std",),
    "ortho_init": ("kernel_initializer",),
    "observation": ("observations",),
    "explore": ("deterministic",),
}
_OPTIMIZER = (
    "The learning rate belongs to the optimizer: "
    "agent.compile(keras.optimizers.Adam(learning_rate))."
)
_SIZE = "An iteration has rollout_length * num_envs steps: set rollout_length."
_FIT = "It is an argument of fit: agent.fit(env, {name}=...)."
_WRAPPER = (
    "Policies see what environments return: wrap them with gymnasium.wrappers."
    "{wrapper}, by name with kerasrl.register_preprocessor."
)
_MODEL = "It goes by its name: policy={{'model': name, 'model_config': {{...}}}}."
_CALLBACK = "Use a callback: fit(callbacks=[keras.callbacks.TensorBoard(directory)])."
_FRESH = "Workers take over the latest weights whenever they begin a fragment."
_QUEUE = "A worker is two fragments ahead of the learner at most; then it waits."
#: Names of what is done in another place here.
ELSEWHERE = {
    "learning_rate": _OPTIMIZER,
    "lr": _OPTIMIZER,
    "actor_lr": _OPTIMIZER,
    "critic_lr": _OPTIMIZER,
    "lr_schedule": _OPTIMIZER,
    "stepsize": _OPTIMIZER,
    "sgd_stepsize": _OPTIMIZER,
    "optimizer": "Optimizers are set with agent.compile(optimizer).",
    "optimizer_class": "Optimizers are set with agent.compile(optimizer).",
    "rms_prop_eps": "Optimizers are set with agent.compile(optimizer).",
    "use_rms_prop": "Optimizers are set with agent.compile(optimizer).",
    "train_batch_size": _SIZE,
    "train_batch_size_per_learner": _SIZE,
    "tensorboard_log": _CALLBACK,
    "eval_env": "Use a callback: kerasrl.callbacks.PeriodicEvaluation.",
    "evaluation_interval": "Use a callback: kerasrl.callbacks.PeriodicEvaluation.",
    "log_interval": "Give fit steps_per_epoch: it logs once an epoch.",
    "device": "TensorFlow chooses; tf.config and tf.device say otherwise.",
    "framework": "kerasrl runs on TensorFlow.",
    "reset_num_timesteps": "fit always goes on where it stopped.",
    "n_sampled_goal": "It belongs to the replay: replay={'n_sampled_goal': 4}.",
    "use_gae": "gae_lambda=1.0 does without.",
    "batch_mode": "Rollouts have a fixed length; episodes go on in the next.",
    "max_seq_len": "Sequences are as long as rollouts: set rollout_length.",
    "no_final_linear": (
        "Heads follow every trunk: subclass kerasrl.models.Policy to leave them out."
    ),
    "framestack": _WRAPPER.format(wrapper="FrameStackObservation"),
    "grayscale": _WRAPPER.format(wrapper="GrayscaleObservation"),
    "dim": _WRAPPER.format(wrapper="ResizeObservation"),
    "zero_mean": (
        "Pixels become numbers from 0 to 1. "
        + _WRAPPER.format(wrapper="TransformObservation")
    ),
    **dict.fromkeys(("custom_model", "custom_model_config"), _MODEL),
    "custom_preprocessor": (
        "It goes by its name: env_config={{'preprocessor': name}}, see "
        "kerasrl.register_preprocessor."
    ),
    "sample_async": "Workers act meanwhile with fit(worker_mode='asynchronous').",
    **dict.fromkeys(("broadcast_interval", "max_policy_lag"), _FRESH),
    **dict.fromkeys(
        (
            "learner_queue_size",
            "learner_queue_timeout",
            "max_requests_in_flight_per_env_runner",
            "max_sample_requests_in_flight_per_worker",
        ),
        _QUEUE,
    ),
    "optimize_memory_usage": "Each observation is stored once anyway.",
    **dict.fromkeys(
        (
            "env",
            "steps",
            "epochs",
            "steps_per_epoch",
            "num_envs",
            "env_config",
            "num_workers",
            "cluster",
            "verbose",
            "callbacks",
        ),
        _FIT,
    ),
}


def refuse_unknown(where, given, known, also=()):
    """Raises a TypeError for keyword arguments that do not exist, with what was meant.

    Args:
        where: Text, what was called.
        given: Names that were given.
        known: Names that exist.
        also: Names that exist, and are nobody's mistake.
    """
    for name in given:
        if name not in known and name not in also:
            raise TypeError(
                f"{where} has no argument {name!r}. {explain(name, list(known))}"
            )


def explain(name, known):
    """Returns a sentence about an unknown argument: what it is called here.

    Example:

    ```python
    explain("n_epochs", ["num_epochs", "gamma"])  # "It is called 'num_epochs' here."
    ```
    """
    names = (RLLIB_CONFIG.get(name), RLLIB_MODEL.get(name), *OTHER_NAMES.get(name, ()))
    for candidate in names:
        if candidate in known:
            return f"It is called {candidate!r} here."
    if name in ELSEWHERE:
        return ELSEWHERE[name].format(name=name)
    return checks.nearest(name, known)


def explained(function):
    """Decorates a method, so that it says more about unknown keyword arguments.

    Its signature stays what it is.
    """
    known = set(inspect.signature(function).parameters)

    @functools.wraps(function)
    def wrapper(self, *args, **kwargs):
        if not kwargs.keys() <= known:
            where = f"{type(self).__name__}.{function.__name__}"
            refuse_unknown(where, kwargs, known - {"self"})
        return function(self, *args, **kwargs)

    return wrapper
