"""Settings that reached published returns, in `kerasrl/tuned/*.yaml`."""

import dataclasses
from pathlib import Path
from typing import Any

from kerasrl.experiment.algorithms import find_algorithm
from kerasrl.experiment.making import make_agent
from kerasrl.experiment.optimizer import make_optimizer
from kerasrl.experiment.reading import load_yaml
from kerasrl.experiment.settings import entries, split_config

FOLDER = Path(__file__).parents[1] / "tuned"


@dataclasses.dataclass(frozen=True)
class TunedSettings:
    """How to train an algorithm in an environment, and what came of it.

    Attributes:
        algorithm: str, name of the agent's class.
        env: str, the environment's id.
        steps: int, environment steps, which schedules in `config` are made for; of
            algorithms that learn from a dataset, gradient steps.
        config: dict, as in files of experiments: hyperparameters, and arguments of
            `fit` such as `num_envs`.
        reached: dict or None, what the learning benchmark published: `benchmark` (its
            name), `measure` (`"return"`, or the share of `"success"`), its `mean` over
            `seeds`, and the `worst` of them, over so many `episodes` each of the
            `policy` (`"final"`, or the `"best"` in evaluations while training), and the
            `commit` that published it, or the `data` that
            `benchmarks/offline.py` makes. None: it was not measured.
        source: str or None, whose settings these are, or are near.
        data: str or None, what the dataset was that the algorithm learnt from. `fit`
            takes one like it in place of the environment.

    Example:

    ```python
    tuned = kerasrl.tuned("PPO", "CartPole-v1")
    agent = tuned.make_agent(seed=0)
    agent.fit(**tuned.fit_arguments())
    ```
    """

    algorithm: str
    env: str
    steps: int
    config: dict[str, Any]
    reached: dict[str, Any] | None = None
    source: str | None = None
    data: str | None = None

    def changed(self, config: dict[str, Any]) -> "TunedSettings":
        """The same with other settings, of which nobody knows what they reach.

        Args:
            config: dict in kerasrl's or RLlib's spelling, as `config`; entries of
                `policy` go before those here, and leave the others.

        Returns:
            `TunedSettings`.
        """
        arguments = find_algorithm(self.algorithm).hyperparameters()
        given = {name for _, name, _ in entries(config, arguments)}
        kept = {
            name: value
            for _, name, value in entries(self.config, arguments)
            if not {name, name.partition(".")[0]} & given
        }
        return dataclasses.replace(self, config={**kept, **config}, reached=None)

    def experiment(self) -> dict[str, Any]:
        """An experiment for `kerasrl.tuning.run_experiments`.

        Raises:
            ValueError: the algorithm learns from a dataset.
        """
        if self.data is not None:
            raise ValueError(
                f"Experiments act in environments, and {self.algorithm} learns from a "
                "dataset: make_agent().fit(dataset, **fit_arguments())."
            )
        return {
            "run": self.algorithm,
            "env": self.env,
            "steps": self.steps,
            "config": dict(self.config),
        }

    def make_agent(self, seed: int | None = None) -> Any:
        """An agent with these settings and its optimizer. Imports TensorFlow.

        Args:
            seed: int or None for one that is drawn, and that the agent knows.

        Returns:
            An `Agent`, compiled.
        """
        algorithm = find_algorithm(self.algorithm)
        settings = split_config({**self.config, "seed": seed}, algorithm)
        agent = make_agent(algorithm, settings)
        agent.compile(optimizer=make_optimizer(agent, settings, resumed=False))
        return agent

    def fit_arguments(self) -> dict[str, Any]:
        """Arguments of `fit`: the environment, how many of it, and steps.

        Of algorithms that learn from a dataset the steps alone: `fit(dataset, **...)`.
        """
        settings = split_config(self.config, find_algorithm(self.algorithm))
        source = {} if self.data is not None else {"env": self.env}
        return {**source, "steps": self.steps, **settings.fit}


def tuned(algorithm: str, env: str) -> TunedSettings:
    """Settings with which an algorithm learns in an environment.

    Args:
        algorithm: str, name of an agent's class, in capitals or not.
        env: str, the environment's id.

    Returns:
        `TunedSettings`.

    Raises:
        ValueError: if there are none; the message lists those that there are.

    Example:

    ```python
    tuned = kerasrl.tuned("SAC", "Pendulum-v1")
    tuned.reached["mean"]  # -145.46
    kerasrl.tuning.run_experiments(tuned.experiment(), seeds=5)
    ```
    """
    names = {path.stem: path for path in FOLDER.glob("*.yaml")}
    path = names.get(str(algorithm).lower())
    if path is None:
        known = ", ".join(sorted({each.algorithm for each in all_tuned()}))
        raise ValueError(
            f"There are no tuned settings of {algorithm!r}. Expected one of: {known}."
        )
    found = read(path)
    for each in found:
        if each.env == env:
            return each
    others = [each.algorithm for each in all_tuned() if each.env == env]
    elsewhere = f" Algorithms with some in {env}: {', '.join(others)}."
    raise ValueError(
        f"There are no tuned settings of {found[0].algorithm} in {env!r}. Expected one "
        f"of: {', '.join(each.env for each in found)}.{elsewhere if others else ''}"
    )


def all_tuned() -> list[TunedSettings]:
    """All tuned settings, by algorithm and environment."""
    return [each for path in sorted(FOLDER.glob("*.yaml")) for each in read(path)]


def read(path: Path) -> list[TunedSettings]:
    """The tuned settings of a file, whose name is that of the algorithm."""
    algorithm = find_algorithm(path.stem).__name__
    found: Any = load_yaml(path.read_text(encoding="utf-8"))
    return [TunedSettings(algorithm, env, **entry) for env, entry in found.items()]
