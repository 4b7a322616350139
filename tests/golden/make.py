"""Writes golden checkpoints of the present schema: python tests/golden/make.py NAME ...

Run once per schema, by the version that introduces it, and once for an algorithm that
is new. The files are never rewritten: they stand for what users have on disk.
`expected.json` beside them says what they mean.
"""

import json
import pathlib
import sys

import numpy as np

import kerasrl
from kerasrl.checkpoint import SCHEMA

GOLDEN = pathlib.Path(__file__).parent
EXPECTED = GOLDEN / "expected.json"
#: Environment steps before and after the checkpoint, in two environments.
STEPS, MORE = 64, 16

_HIDDEN = {"hidden_units": (4,)}
_CELL = {"cell": "lstm", "cell_units": 2, "previous_inputs": True, **_HIDDEN}
_REPLAY = {
    "learning_starts": 32,
    "batch_size": 4,
    "buffer_size": 80,
    "train_every": 4,
    "seed": 0,
}
AGENTS = {
    "pg": lambda: kerasrl.PG(_HIDDEN, rollout_length=8, seed=0),
    "a2c": lambda: kerasrl.A2C({**_HIDDEN, "normalize_observations": True}, seed=0),
    "ppo": lambda: kerasrl.PPO(
        {**_HIDDEN, "normalize_observations": True},
        rollout_length=16,
        num_epochs=1,
        normalize_rewards=True,
        seed=0,
    ),
    "ppo_recurrent": lambda: kerasrl.PPO(_CELL, rollout_length=8, num_epochs=2, seed=0),
    "a3c": lambda: kerasrl.A3C(_HIDDEN, rollout_length=8, lag=1, seed=0),
    "impala": lambda: kerasrl.IMPALA(
        _CELL, rollout_length=8, lag=1, replay_proportion=0.5, replay_slots=2, seed=0
    ),
    "appo": lambda: kerasrl.APPO(
        _HIDDEN,
        rollout_length=8,
        num_epochs=2,
        vtrace=True,
        target_network=True,
        kl_coef=0.1,
        seed=0,
    ),
    "simple_q": lambda: kerasrl.SimpleQ(_HIDDEN, **_REPLAY),
    "dqn": lambda: kerasrl.DQN(
        _HIDDEN, prioritized=True, n_step=3, normalize_rewards=True, **_REPLAY
    ),
    "rainbow": lambda: kerasrl.DQN.rainbow(
        policy=_HIDDEN, v_min=0.0, v_max=50.0, num_atoms=3, **_REPLAY
    ),
    "r2d2": lambda: kerasrl.R2D2(
        _CELL, burn_in=2, sequence_length=4, period=4, n_step=2, **_REPLAY
    ),
    "ddpg": lambda: kerasrl.DDPG(_HIDDEN, noise="ornstein_uhlenbeck", **_REPLAY),
    "td3": lambda: kerasrl.TD3(_HIDDEN, **_REPLAY),
    "sac": lambda: kerasrl.SAC(_HIDDEN, **_REPLAY),
    "sac_discrete": lambda: kerasrl.SAC(_HIDDEN, **_REPLAY),
}
CONTINUOUS = ("ddpg", "td3", "sac")


def path_of(name, schema):
    """The file of an agent."""
    return GOLDEN / f"{name}_schema{schema}.kerasrl"


def train(agent, name, steps):
    """Trains an agent in the environment of its name."""
    env = "Pendulum-v1" if name in CONTINUOUS else "CartPole-v1"
    agent.fit(env, steps=steps, num_envs=2, verbose=0)


def describe(agent):
    """What an agent holds and does, as plain data."""
    size = agent.policy.observation_space.shape[0]
    observations = np.linspace(-1.0, 1.0, 10 * size).reshape(10, size)
    actions = agent.predict(observations)
    return {
        "env_steps": agent.env_steps,
        "iterations": agent.iterations,
        "episodes": agent.episodes,
        "actions": (actions[0] if agent.policy.is_recurrent else actions).tolist(),
        "weights": [float(w.astype("float64").sum()) for w in agent.get_weights()],
    }


def main(names):
    """Writes the checkpoints of some agents, and what they mean."""
    expected = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}
    for name in names or AGENTS:
        path = path_of(name, SCHEMA)
        if not path.exists():
            agent = AGENTS[name]()
            agent.compile(jit_compile=False)
            train(agent, name, STEPS)
            agent.save(path)
        if path.stem in expected:
            continue
        agent = kerasrl.load(path)
        meaning = {"saved": describe(agent)}
        train(agent, name, MORE)
        expected[path.stem] = {**meaning, "continued": describe(agent)}
    EXPECTED.write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
