"""One process of `test_whole_runs.py`: trainings under an engine, and what they log.

With worker processes and without, with rollouts and with parts of a replay buffer.

`python whole_runs.py MODE FOLDER NAME...` writes `FOLDER/<rank>.json`, with trainings
of the names in `OTHERS` too.
"""

import hashlib
import json
import os
import pathlib
import signal
import sys
import warnings

import gymnasium
import keras
import numpy as np

import kerasrl
from kerasrl import checkpoint, distribute
from kerasrl.callbacks import AgentCheckpoint, RunLogger
from kerasrl.training.compiled import CompiledUpdate

SMALL = {"hidden_units": (8,), "normalize_observations": True}
WORKERS = {"steps": 256, "num_workers": 2}


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


def overlapping_sac(seed=7):
    agent, env = sac(seed)
    agent.overlap = True
    return agent, env


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


@keras.saving.register_keras_serializable("whole_runs")
class Cloning(kerasrl.models.ActorCritic):
    """Imitates the data beside what is collected."""

    def custom_loss(self, loss, batch):
        data = batch["offline"]
        outputs = kerasrl.agents.forward(self, data)
        log_probs = self.distribution(outputs).log_prob(data["actions"])
        return loss - kerasrl.losses.masked_mean(log_probs, data["mask"])


def with_data(folder):
    """Trains beside data with workers, and on data alone, and on from files."""
    generator = np.random.default_rng(0)
    steps = 60, 100  # Episodes, and their length.
    data = kerasrl.offline.from_arrays(
        generator.uniform(-1, 1, (6000, 4)).astype(np.float32),
        generator.integers(2, size=6000),
        np.ones(6000),
        np.tile(np.arange(steps[1]) == steps[1] - 1, steps[0]),
        observation_space=gymnasium.make("CartPole-v1").observation_space,
    )
    beside = kerasrl.PPO(Cloning(**SMALL), rollout_length=16, num_epochs=2, seed=7)
    alone = kerasrl.BC({"hidden_units": (8,)}, batch_size=32, seed=7)
    found = {}
    for name, agent in (("beside", beside), ("alone", alone)):
        settings = {"env": data, "steps": 40, "verbose": 0}
        if name == "beside":
            settings = {"env": "CartPole-v1", "num_envs": 2, "verbose": 0, **WORKERS}
            settings |= {"offline": data, "offline_batch_size": 16}
        agent.fit(**settings)
        path = folder / f"{name}.kerasrl"
        agent.save(path)
        loaded = kerasrl.load(path)
        before = agent.get_state()
        for each in (agent, loaded):
            each.fit(**settings)
        key = "offline_reading" if name == "beside" else "reading"
        found[name] = {
            **digests(agent),
            "loaded": digest(loaded, everything=True),
            "before": before[key]["state"],
            "after": agent.get_state()[key]["state"],
        }
    return found


#: Trainings that the command line may ask for, functions of the folder.
OTHERS = {
    "overlapping_sac": lambda folder: repeat_and_resume(overlapping_sac, folder),
    "sac": lambda _: once(sac),
    "other": lambda _: once(ppo, seed=8),
    "with_data": with_data,
    "apex": lambda _: apex(),
}


def run(folder, others):
    results = {"ppo": repeat_and_resume(ppo, folder)}
    results |= {name: OTHERS[name](folder) for name in others}
    results["callbacks"] = with_callbacks(folder)
    results["weights"] = importance_weights()
    return results


def once(make, **arguments):
    """What a training has come to, and what it logged."""
    agent, env = make(**arguments)
    logs = fit(agent, env)
    return {"logs": logs, **digests(agent)}


def digests(agent):
    return {"own": digest(agent, everything=True), "common": digest(agent)}


def repeat_and_resume(make, folder):
    """Trains again with workers, on from a file, and through a kill."""
    straight, env = make()
    results = {"logs": fit(straight, env), **digests(straight)}
    # Again with the same seed, then through a file.
    again, _ = make()
    results["again_logs"] = fit(again, env, **WORKERS)
    results["again"] = digest(again, everything=True)
    path = folder / f"{make.__name__}.kerasrl"
    again.save(path)
    loaded = kerasrl.load(path)
    results["more_logs"] = fit(straight, env)
    results["loaded_logs"] = fit(loaded, env, **WORKERS)
    results["more"] = digest(straight, everything=True)
    results["loaded"] = digest(loaded, everything=True)
    results["env_steps"] = straight.env_steps
    results["episodes"] = straight.episodes
    results["updates"] = getattr(straight, "updates", None)
    results["killed"] = with_a_killed_worker(straight, env)
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


def apex():
    """Each rank has workers that act while it learns, and a part of the replay each."""
    agent = kerasrl.ApexDQN(
        {"hidden_units": (8,)},
        batch_size=8,
        learning_starts=64,
        train_every=8,
        updates_per_call=4,
        n_step=1,
        target_update_interval=8,
        seed=7,
    )
    env = gymnasium.make("CartPole-v1")
    agent.build(env.observation_space, env.action_space)
    initial = digest(agent)
    settings = {"steps": 768, "num_envs": 4, "num_workers": 2, "verbose": 0}
    history = agent.fit("CartPole-v1", **settings).history
    shards = [shard.get_arrays() for shard in agent.buffer.shards]
    return {
        "initial": initial,
        "common": digest(agent),
        "logs": {key: history[key] for key in ("loss", "episode_return_mean")},
        "env_steps": agent.env_steps,
        "updates": agent.updates,
        "epsilons": agent.exploration_inputs(4)["epsilon"].tolist(),
        "sizes": [len(shard) for shard in agent.buffer.shards],
        "shards": [
            hashlib.sha256(
                b"".join(shard[name].tobytes() for name in sorted(shard))
            ).hexdigest()
            for shard in shards
        ],
    }


if __name__ == "__main__":
    mode, folder, *others = sys.argv[1:]
    folder = pathlib.Path(folder)
    with distribute.open_scope(mode):
        results = run(folder, others)
        rank = distribute.current().rank
        (folder / f"{rank}.json").write_text(json.dumps(results))
        distribute.current().barrier()
