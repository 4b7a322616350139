"""Agents of settings, and what accompanies their training in a run directory."""

import secrets
from pathlib import Path
from typing import Any

from kerasrl.experiment.algorithms import import_algorithm
from kerasrl.experiment.refusals import refuse
from kerasrl.experiment.settings import Settings

DEFAULT_STEPS = 100_000
#: Episodes of an evaluation while training, and of that at the end.
EVAL_EPISODES = 20
#: Steps when only a stop criterion says when to end.
UNLIMITED_STEPS = 100_000_000


def make_agent(algorithm: Any, settings: Settings) -> Any:
    """The agent of settings; its seed is drawn here, to be known, if none was given.

    Args:
        algorithm: what `find_algorithm` found.
        settings: `Settings` of it.

    Returns:
        An `Agent`, not compiled. This imports TensorFlow.
    """
    agent_class = import_algorithm(algorithm)
    arguments = dict(settings.agent)
    if arguments.get("seed") is None and "seed" in agent_class.hyperparameters():
        from kerasrl import distribute

        drawn = secrets.randbelow(2**31)
        # The same for all ranks.
        arguments["seed"] = distribute.current().gather_data(drawn)[0]
    if hasattr(agent_class, "from_settings"):
        # It is made of several, which are described by their names.
        try:
            return agent_class.from_settings(arguments)
        except (TypeError, ValueError) as error:
            refuse(str(error))
    return agent_class(**arguments)


def choose_steps(steps: int | None, stop: dict[str, Any], counted: str) -> int:
    """Steps to train for, from what was asked and when to stop.

    Args:
        steps: int or None, what was asked for.
        stop: dict of criteria.
        counted: str, the criterion that `fit` counts its steps by.
    """
    if steps is not None:
        return steps
    if not stop:
        return DEFAULT_STEPS
    # Counted over the agent's life by the criterion, over this `fit` by the limit.
    return stop.get(counted, UNLIMITED_STEPS)


def make_evaluation(
    env: str, env_config: dict[str, Any] | None, every_steps: int, episodes: int
) -> Any:
    """The callback that evaluates while training, or None if nobody asked for it."""
    from kerasrl.callbacks import PeriodicEvaluation

    if not every_steps:
        return None
    if not episodes:
        refuse("--eval-freq needs episodes: give --eval-episodes from 1.")
    return PeriodicEvaluation(
        env, every_steps=every_steps, episodes=episodes, env_config=env_config
    )


def make_checkpoints(
    directory: Path,
    every: int,
    evaluation: Any,
    resumed_from: str | Path | None = None,
) -> Any:
    """The callback that saves the agent, the best by the evaluation if there is one."""
    from kerasrl.callbacks import AgentCheckpoint

    measured = "episode" if evaluation is None else "evaluation"
    return AgentCheckpoint(
        directory,
        every,
        monitor=f"{measured}_return_mean",
        resumed_from=resumed_from,
    )


def listeners(
    agent: Any,
    directory: Path,
    settings: Settings,
    evaluation: Any,
    stop_on: Any,
    checkpoint: Any,
) -> list[Any]:
    """The callbacks that write a run directory, in their order.

    Args:
        agent: an `Agent`.
        directory: path of the run.
        settings: `Settings` of the agent.
        evaluation: what `make_evaluation` made, or None.
        stop_on: what `make_stop` made, or None.
        checkpoint: what `make_checkpoints` made.
    """
    import kerasrl.callbacks as callbacks

    found = [
        # Before those that read what it adds to the logs.
        evaluation,
        # First: what it refuses is not logged.
        stop_on,
        callbacks.RunLogger(directory, extra={"settings": settings.fit}),
        callbacks.EnvStepTensorBoard(directory),
        checkpoint,
        callbacks.RewardScaleWarning() if agent.learns_from_rollouts else None,
    ]
    return [each for each in found if each is not None]
