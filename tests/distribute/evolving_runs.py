"""One process of `test_evolving_ranks.py`: populations that ranks share out.

`python evolving_runs.py MODE FOLDER` writes `FOLDER/<rank>.npz`, and `whole.npz`, of no
engine, where it has more than one replica to itself.
"""

import sys

import numpy as np

import kerasrl
from kerasrl import distribute

SMALL = {"hidden_units": (4,), "normalize_observations": True}


def run(file):
    results = {}
    for name in ("ES", "ARS"):
        agent = getattr(kerasrl, name)(SMALL, num_pairs=3, seed=7)
        agent.compile(jit_compile=False)
        history = agent.fit(
            "CartPole-v1", steps=300, steps_per_epoch=150, num_envs=2, verbose=0
        ).history
        for index, weights in enumerate(agent.get_weights()):
            results[f"{name}/{index}"] = weights
        for key, values in history.items():
            if key != "steps_per_second":
                results[f"{name}/{key}"] = values
        results[f"{name}/returns"] = list(agent.statistics.returns)
    np.savez(file, **results)


if __name__ == "__main__":
    mode, folder = sys.argv[1:]
    with distribute.open_scope(mode):
        run(f"{folder}/{distribute.current().rank}.npz")
    if mode.startswith("mirrored"):
        run(f"{folder}/whole.npz")
