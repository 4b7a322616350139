"""Writes the golden checkpoint of the present schema: python tests/golden/make.py

Run once per schema, by the version that introduces it. The files are never rewritten:
they stand for what users have on disk.
"""

import pathlib

import numpy as np

import kerasrl
from kerasrl.checkpoint import SCHEMA

if __name__ == "__main__":
    agent = kerasrl.PPO(
        policy={"hidden_units": (4,), "normalize_observations": True},
        rollout_length=16,
        num_epochs=1,
        normalize_rewards=True,
        seed=0,
    )
    agent.fit("CartPole-v1", steps=64, num_envs=2, verbose=0)
    path = agent.save(pathlib.Path(__file__).parent / f"ppo_schema{SCHEMA}.kerasrl")
    observations = np.linspace(-1.0, 1.0, 40).reshape(10, 4)
    print(path, agent.env_steps, agent.predict(observations).tolist())
