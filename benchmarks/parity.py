"""Updates of PPO and A2C against those of Stable-Baselines3, weight by weight.

    python benchmarks/parity.py [PPO | A2C] [--iterations 6]

Stable-Baselines3 collects rollouts on CartPole-v1. Both libraries start from the same
weights and learn from the same rollouts: advantages, losses, clipping, optimizer (PPO:
twenty epochs). The table shows how far weights moved in each iteration, and how far
apart they came.

Needs the extra `bench`: `pip install -e ".[bench]"`.
"""

import argparse
import sys

import gymnasium
import keras
import numpy as np
import stable_baselines3
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.env_util import make_vec_env

import kerasrl
from kerasrl.training.compiled import CompiledUpdate

ENVS, TOLERANCE = 8, 1e-4
PARTS = ("policy_net", "value_net")
#: Of each algorithm, the steps of a rollout, then our settings and theirs.
SETTINGS = {
    "PPO": (
        32,
        {
            "num_epochs": 20,
            "minibatch_size": 32 * ENVS,
            "gamma": 0.98,
            "gae_lambda": 0.8,
        },
        {
            "n_epochs": 20,
            "batch_size": 32 * ENVS,
            "gamma": 0.98,
            "gae_lambda": 0.8,
            "learning_rate": 1e-3,
        },
    ),
    "A2C": (5, {}, {}),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("algorithm", nargs="?", default="PPO", choices=SETTINGS)
    parser.add_argument("--iterations", type=int, default=6)
    arguments = parser.parse_args()
    steps, own_settings, their_settings = SETTINGS[arguments.algorithm]
    theirs = make_theirs(arguments.algorithm, steps, their_settings)
    ours = make_ours(arguments.algorithm, steps, own_settings, get_weights(theirs))
    update = CompiledUpdate(ours, ours._targets_and_update)
    settings = ours.scheduled_values()
    print("iteration  largest move  largest difference")
    worst = 0.0
    for iteration in range(arguments.iterations):
        before = get_weights(theirs)
        rollout = collect(theirs, steps)
        update(rollout, settings, ours.minibatches(rollout))
        theirs.train()
        after = get_weights(theirs)
        moved = largest(before, after)
        apart = largest(ours.get_weights(), after)
        worst = max(worst, apart)
        print(f"{iteration:9d}  {moved:12.6f}  {apart:18.2e}")
    sys.exit(worst > TOLERANCE)


def make_theirs(algorithm, steps, settings):
    envs = make_vec_env("CartPole-v1", n_envs=ENVS, seed=0)
    model = getattr(stable_baselines3, algorithm)(
        "MlpPolicy", envs, n_steps=steps, seed=0, device="cpu", **settings
    )
    model._setup_learn(steps * ENVS)
    return model


def make_ours(algorithm, steps, settings, weights):
    agent = getattr(kerasrl, algorithm)(rollout_length=steps, **settings)
    optimizer = agent.default_optimizer()
    if algorithm == "PPO":
        optimizer.learning_rate = 1e-3
    agent.compile(optimizer, jit_compile=False)
    env = gymnasium.make("CartPole-v1")
    agent.build(env.observation_space, env.action_space)
    agent.set_weights(weights)
    return agent


def get_weights(model):
    """Weights of their policy in the order and orientation of ours."""
    state = {name: v.numpy().copy() for name, v in model.policy.state_dict().items()}
    layers = [f"mlp_extractor.{net}.{i}" for net in PARTS for i in (0, 2)]
    layers += ["action_net", "value_net"]
    pairs = ((state[f"{name}.weight"].T, state[f"{name}.bias"]) for name in layers)
    return [array for pair in pairs for array in pair]


def collect(model, steps):
    """One rollout of theirs, as our update takes it."""
    callbacks = CallbackList([])
    callbacks.init_callback(model)
    buffer = model.rollout_buffer
    model.collect_rollouts(model.env, callbacks, buffer, steps)
    starts = buffer.episode_starts.astype(bool)
    ended = np.concatenate([starts[1:], model._last_episode_starts[None].astype(bool)])
    actions = buffer.actions[..., 0].astype(np.int64)
    zeros = np.zeros(starts.shape, np.float32)
    return {
        "observations": buffer.observations.astype(np.float32),
        "actions": actions,
        # Theirs hold the value of what followed a truncation already.
        "rewards": buffer.rewards.astype(np.float32),
        "terminated": ended,
        "truncated": np.zeros_like(ended),
        "valid": np.ones_like(ended),
        "episode_starts": starts,
        "previous_actions": np.zeros_like(actions),
        "previous_rewards": zeros,
        "truncation_values": zeros,
        "state": (),
        "extras": {"log_probs": buffer.log_probs.astype(np.float32)},
        "infos": {},
        "next_inputs": {
            "observations": model._last_obs.astype(np.float32),
            "previous_actions": np.zeros(ENVS, np.int64),
            "previous_rewards": zeros[0],
            "episode_starts": ended[-1],
        },
    }


def largest(first, second):
    pairs = zip(first, second, strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    main()
