"""Training an agent as a trial of Ray Tune."""

import json
import numbers
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

from kerasrl.experiment import (
    check,
    find_algorithm,
    make_agent,
    make_optimizer,
    optional,
    refuse,
    split_config,
    whole,
)
from kerasrl.experiment.resources import split_resources
from kerasrl.workers import read_cluster

try:
    from ray import tune
except ImportError as error:
    raise ImportError(
        "kerasrl.tuning.Trainable is a trainable of Ray Tune, which is not installed. "
        "Install it with `pip install kerasrl[ray]`."
    ) from error

#: What a trial reads itself; the rest are settings as `kerasrl train` takes them.
OWN = ("run", "env", "steps", "steps_per_iteration")
#: Environment steps of one result of Ray Tune if nothing else is said.
STEPS_PER_ITERATION = 5_000
_UNLIMITED = 10**12
_AGENT, _SETTLED = "agent.kerasrl", "settled.json"


class Trainable(tune.Trainable):
    """An agent that Ray Tune trains, with the settings of `kerasrl train`.

    Each iteration of Ray's takes `steps_per_iteration` environment steps. Environments,
    their episodes and workers live on from one to the next. A checkpoint is the whole
    agent, so that a trial that was paused goes on exactly, but for new episodes. A
    trial that goes on from another's, as in Ray's `PopulationBasedTraining`, has that
    one's weights, optimizer and statistics and its own settings.

    Entries of `config`:
        run: str, the algorithm, as for `kerasrl train`.
        env: str, the environment.
        steps: int, steps, as `fit` counts them, after which it is done. Default: never;
            Ray's `RunConfig(stop=...)` says when.
        steps_per_iteration: int, environment steps of one result. Default: 5000.
        num_gpus: float, graphics cards of the learner. Default: 0. Also RLlib's
            `num_cpus_for_driver`, `num_cpus_per_worker`, `custom_resources_per_worker`
            and, with `cluster`, `num_gpus_per_worker`.
        num_workers, cluster, ...: arguments of `fit`. With `cluster`, Ray reserves a
            place for each worker, on any node, else processors beside the learner.
        Anything else: hyperparameters, in kerasrl's or RLlib's spelling, also those of
            parts: `policy.hidden_units`, `optimizer.epsilon`.

    Results have what `agent.iterate` yields (`episode_return_mean`, `env_steps`, ...;
    see `docs/metrics.md`).

    Raises:
        click.UsageError: for settings that do not exist or cannot be.
        ValueError: for settings of another trial's checkpoint that cannot change in a
            trained agent.

    Example:

    ```python
    tuner = ray.tune.Tuner(
        kerasrl.tuning.Trainable,
        param_space={"run": "PPO", "env": "CartPole-v1",
                     "learning_rate": ray.tune.loguniform(1e-4, 1e-2)},
        tune_config=ray.tune.TuneConfig(
            metric="episode_return_mean", mode="max", num_samples=8),
        run_config=ray.tune.RunConfig(stop={"env_steps": 100_000}),
    )
    tuner.fit().get_best_result().config
    ```
    """

    _agent: Any = None
    _run: Generator[dict[str, Any], None, None] | None = None

    def setup(self, config: dict[str, Any]) -> None:
        """Read the settings. The agent is made when it is needed first."""
        # Ray has seen to it.
        config, _ = split_resources(config)
        own = {name: config.pop(name) for name in OWN if name in config}
        for name in ("run", "env"):
            if not isinstance(own.get(name), str):
                refuse(f"config needs {name!r}, a text. Received: {own.get(name)!r}")
        self._env = own["env"]
        self._steps = check("steps", own.get("steps"), optional(whole(1)))
        every = own.get("steps_per_iteration", STEPS_PER_ITERATION)
        self._every = check("steps_per_iteration", every, whole(1))
        self._algorithm = find_algorithm(own["run"])
        self._settings = settings = split_config(config, self._algorithm)
        optimizer = {
            name: value
            for name, value in settings.optimizer.items()
            if name != "learning_rate"
        }
        #: What cannot change once there is an agent.
        self._settled = {
            "run": own["run"],
            "policy": settings.agent.get("policy"),
            "optimizer": [settings.optimizer_name, optimizer],
        }

    def step(self) -> dict[str, Any]:
        """Train for `steps_per_iteration` environment steps."""
        if self._run is None:
            self._run = self._begin()
        began, result, is_done = int(self._agent.env_steps), {}, False
        while int(self._agent.env_steps) - began < self._every:
            following = next(self._run, None)
            if following is None:
                is_done = True
                break
            result = following
        if self._steps is not None and self._counted() >= self._steps:
            is_done = True
        shown = {
            name: value.item() if hasattr(value, "item") else value
            for name, value in result.items()
            if isinstance(value, numbers.Number) or hasattr(value, "item")
        }
        steps = int(self._agent.env_steps)
        return {**shown, "env_steps": steps, "timesteps_total": steps, "done": is_done}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save the whole agent, if it has begun to train."""
        if self._agent is not None:
            self._agent.save(Path(checkpoint_dir) / _AGENT)
        path = Path(checkpoint_dir) / _SETTLED
        path.write_text(json.dumps(self._settled, default=_plain), encoding="utf-8")

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Take over a saved agent, and give it the settings of this trial."""
        import kerasrl

        path = Path(checkpoint) / _SETTLED
        settled = json.loads(path.read_text(encoding="utf-8"))
        for name, value in json.loads(
            json.dumps(self._settled, default=_plain)
        ).items():
            if value != settled[name]:
                raise ValueError(
                    f"Received a checkpoint of an agent with {name}={settled[name]!r}, "
                    f"for a trial with {name}={value!r}. It cannot change in a trained "
                    "agent: leave it out of what a population explores."
                )
        self.cleanup()
        saved = Path(checkpoint) / _AGENT
        if not saved.exists():
            return  # Of a trial that had not begun.
        self._agent = agent = kerasrl.load(str(saved))
        for name, value in self._settings.agent.items():
            if name not in ("policy", "seed"):
                setattr(agent, name, value)
        make_optimizer(agent, self._settings, resumed=True)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become a trial with other settings, which begins anew."""
        self.cleanup()
        self.setup(dict(new_config))
        return True

    def cleanup(self) -> None:
        """Close environments, and end workers."""
        self._end_run()
        self._agent = None

    @classmethod
    def default_resource_request(
        cls, config: dict[str, Any]
    ) -> tune.PlacementGroupFactory:
        """A processor for the learner and one for each worker, unless others are."""
        rest, asked = split_resources(config)
        learner = {"CPU": asked.cores, "GPU": float(asked.gpus or 0.0), **asked.custom}
        cluster = read_cluster(rest.get("cluster"))
        if cluster is None:
            return tune.PlacementGroupFactory([learner])
        num_workers = check("num_workers", rest.get("num_workers", 0), whole(0))
        worker = {
            "CPU": float(cluster.num_cpus),
            "GPU": float(cluster.num_gpus),
            **(cluster.resources or {}),
        }
        # Ray refuses places for nothing.
        places = [worker] * num_workers if any(worker.values()) else []
        return tune.PlacementGroupFactory([learner, *places])

    def _make(self) -> Any:
        agent = make_agent(self._algorithm, self._settings)
        agent.compile(optimizer=make_optimizer(agent, self._settings, resumed=False))
        return agent

    def _begin(self) -> Generator[dict[str, Any], None, None]:
        if self._agent is None:
            self._agent = self._make()
        steps = _UNLIMITED if self._steps is None else self._steps
        left = max(1, steps - self._counted())
        return self._agent.iterate(
            self._env, steps=left, verbose=0, **self._settings.fit
        )

    def _counted(self) -> int:
        """The steps so far, as `fit` counts them."""
        return int(getattr(self._agent, self._agent.counted))

    def _end_run(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.close()


def _plain(value: Any) -> Any:
    """An object in JSON's types, the same in each process that makes it."""
    import keras

    return _without_numbers(keras.saving.serialize_keras_object(value))


def _without_numbers(tree: Any) -> Any:
    """What serializing gave, without names that count how many were made before."""
    if isinstance(tree, dict):
        found = {key: _without_numbers(value) for key, value in tree.items()}
        if isinstance(found.get("name"), str):
            found["name"] = re.sub(r"_\d+$", "", found["name"])
        return found
    return [_without_numbers(x) for x in tree] if isinstance(tree, list) else tree
