"""One process of `test_whole_runs.py`: trainings under an engine, and what they log.

`python whole_runs.py MODE FOLDER` writes `FOLDER/<rank>.json`.
"""

import hashlib
import json
import pathlib
import sys

import keras
import numpy as np

import kerasrl
from kerasrl import checkpoint, distribute
from kerasrl.callbacks import AgentCheckpoint, RunLogger

SMALL = {"hidden_units": (8,), "normalize_observations": True}


def ppo(seed=7):
    agent = kerasrl.PPO(
        SMALL,
        rollout_length=16,
        num_epochs=2,
        minibatch_size=16,
        normalize_rewards=True,
        seed=seed,
    )
    return agent, "CartPole-v1"


def sac(seed=7):
    agent = kerasrl.SAC(
        {"hidden_units": (8,)},
        batch_size=8,
        learning_starts=64,
        train_every=8,
        updates_per_call=1,
        prioritized=True,
        seed=seed,
    )
    return agent, "Pendulum-v1"


def fit(agent, env, **arguments):
    arguments = arguments or {"steps": 256}
    history = agent.fit(env, num_envs=2, verbose=0, **arguments)
    logs = {key: values[-1] for key, values in history.history.items()}
    del logs["steps_per_second"]
    return logs


def digest(agent, everything=False):
    """What all ranks must have in common, or, with `everything`, all of this rank."""
    named = checkpoint.variables(agent)
    arrays = [keras.ops.convert_to_numpy(variable) for _, variable in named]
    if not everything:
        arrays = [array for array in arrays if array.dtype.kind == "f"]
    data = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
    if everything:
        data += json.dumps(agent.get_state(), default=float).encode()
        data += b"".join(array.tobytes() for array in agent.get_arrays().values())
    return hashlib.sha256(data).hexdigest()


def run(folder):
    results = {}
    for make in (ppo, sac):
        name = make.__name__
        straight, env = make()
        logs = fit(straight, env)
        own = digest(straight, everything=True)
        # Again with the same seed, then through a file.
        again, _ = make()
        again_logs = fit(again, env)
        path = folder / f"{name}.kerasrl"
        again.save(path)
        loaded = kerasrl.load(path)
        more, loaded_more = fit(straight, env), fit(loaded, env)
        other, _ = make(seed=8)
        fit(other, env)
        results[name] = {
            "logs": logs,
            "again_logs": again_logs,
            "own": own,
            "again": digest(again, everything=True),
            "more_logs": more,
            "loaded_logs": loaded_more,
            "more": digest(straight, everything=True),
            "loaded": digest(loaded, everything=True),
            "common": digest(straight),
            "other": digest(other),
            "env_steps": straight.env_steps,
            "episodes": straight.episodes,
        }
    results["callbacks"] = with_callbacks(folder)
    return results


def with_callbacks(folder):
    """Trains with callbacks that write, and with one that stops in a single rank."""
    rank = distribute.current().rank
    epochs = []

    class StopInTheLastRank(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            epochs.append(epoch)
            # The first rank is not asked: it must hear of it.
            if rank == distribute.current().num_ranks - 1 and epoch == 1:
                self.model.stop_training = True

    agent, env = ppo()
    directory = folder / "run"
    fit(
        agent,
        env,
        epochs=4,
        steps_per_epoch=128,
        callbacks=[
            RunLogger(directory),
            AgentCheckpoint(directory, every=2, keep=1),
            keras.callbacks.CSVLogger(folder / "log.csv"),
            StopInTheLastRank(),
        ],
    )
    agent.replicas.barrier()
    return {
        "epochs": epochs,
        "files": sorted(path.name for path in directory.iterdir()),
        "rows": len((directory / "result.json").read_text().splitlines()),
    }


if __name__ == "__main__":
    mode, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    with distribute.open_scope(mode):
        results = run(folder)
        rank = distribute.current().rank
        (folder / f"{rank}.json").write_text(json.dumps(results))
        distribute.current().barrier()
