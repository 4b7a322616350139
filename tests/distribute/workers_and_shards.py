"""One process of `test_workers_and_shards.py`: ranks with workers and with replay.

`python workers_and_shards.py MODE FOLDER` writes `FOLDER/<rank>.json`.
"""

import json
import os
import pathlib
import signal
import sys
import warnings

import keras
from whole_runs import digest, fit, ppo, sac

import kerasrl
from kerasrl import distribute
from kerasrl.training.compiled import CompiledUpdate

WORKERS = {"steps": 256, "num_workers": 2}


def overlapping_sac(seed=7):
    agent, env = sac(seed)
    agent.overlap = True
    return agent, env


def run(folder):
    results = {
        make.__name__: repeat_and_resume(make, folder)
        for make in (ppo, overlapping_sac)
    }
    results["weights"] = importance_weights()
    return results


def repeat_and_resume(make, folder):
    """Trains with workers and without, on from a file, and through a kill."""
    agent, env = make()
    fit(agent, env, **WORKERS)
    alone, _ = make()
    fit(alone, env, steps=256)
    results = {
        "straight": digest(agent, everything=True),
        "alone": digest(alone, everything=True),
        "common": digest(agent),
        "updates": getattr(agent, "updates", None),
    }
    path = folder / f"{make.__name__}.kerasrl"
    alone.save(path)
    loaded = kerasrl.load(path)
    for each in (agent, loaded):
        fit(each, env, **WORKERS)
    results["more"] = digest(agent, everything=True)
    results["loaded"] = digest(loaded, everything=True)
    results["killed"] = with_a_killed_worker(agent, env)
    return results


def with_a_killed_worker(agent, env):
    """Kills one worker of the last rank once."""
    replicas = distribute.current()

    class Killer(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 1 and replicas.rank == replicas.num_ranks - 1:
                os.kill(agent.workers.pids[0], signal.SIGKILL)

    before = agent.env_steps
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(agent, env, callbacks=[Killer()], **WORKERS)
    return {
        "common": digest(agent),
        "env_steps": agent.env_steps - before,
        "lost": agent.iteration_length(2),
        "warnings": len([w for w in caught if "SIGKILL" in str(w.message)]),
    }


class WatchedDQN(kerasrl.DQN):
    """Writes down with which probability it draws what it draws."""

    def sample(self, num_batches):
        batches = super().sample(num_batches)
        # One environment, and nothing overwritten: indices count transitions.
        priorities = self.buffer.get_arrays()["priorities"].ravel()
        chosen = priorities[batches["indices"]] / priorities.sum()
        drawn.append({"size": len(self.buffer), "probabilities": chosen.tolist()})
        return batches


drawn = []


def importance_weights():
    """What is drawn, and with which weights it is learnt from."""
    used, call = [], CompiledUpdate.__call__

    def watched(self, batches, *others):
        used.append(batches["weights"].tolist())
        return call(self, batches, *others)

    CompiledUpdate.__call__ = watched
    try:
        agent = WatchedDQN(
            {"hidden_units": (8,)},
            batch_size=4,
            learning_starts=64,
            updates_per_call=4,
            prioritized=True,
            importance_exponent=0.7,
            seed=3,
        )
        agent.fit("CartPole-v1", steps=320, num_envs=1, verbose=0)
    finally:
        CompiledUpdate.__call__ = call
    # The first are only an example, for compiling.
    return {"drawn": drawn[1:], "used": used}


if __name__ == "__main__":
    mode, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    with distribute.open_scope(mode):
        results = run(folder)
        rank = distribute.current().rank
        (folder / f"{rank}.json").write_text(json.dumps(results))
        distribute.current().barrier()
