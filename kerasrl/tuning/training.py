"""Training the agent of a trial."""

from collections.abc import Callable
from typing import Any

from kerasrl import agents
from kerasrl.callbacks import Callback, RunLogger
from kerasrl.callbacks.run_logger import seconds_of
from kerasrl.experiment import (
    EVAL_EPISODES,
    Settings,
    choose_steps,
    find_algorithm,
    listeners,
    make_agent,
    make_checkpoints,
    make_evaluation,
    make_optimizer,
    make_stop,
    read_stop,
    refuse,
    split_config,
)
from kerasrl.experiment.resources import split_resources
from kerasrl.tuning.link import Leave, Link
from kerasrl.tuning.result_files import keep_rows
from kerasrl.tuning.trial import Trial
from kerasrl.workers import stacks

#: Criteria that count over all processes of a trial.
USED_UP = ("epochs", "time_total_s")


def prepare(trial: Trial, link: Link) -> Callable[[], str]:
    """Make or load the agent of a trial, and what accompanies it.

    Args:
        trial: `Trial` of an agent.
        link: `Link` to its launcher.

    Returns:
        a function that trains, and returns why it ended.

    Raises:
        click.UsageError, ValueError, TypeError: for settings that cannot be.
    """
    options, env = trial.options, trial.env
    if env is None:
        refuse(f"The experiment {trial.experiment!r} names no environment: env.")
    config, _ = split_resources({**trial.settings, "seed": trial.seed})
    algorithm = find_algorithm(trial.run)
    settings = split_config(config, algorithm)
    if trial.checkpoint is None:
        agent = make_agent(algorithm, settings)
        optimizer = make_optimizer(agent, settings, resumed=False)
    else:
        agent = agents.load(trial.checkpoint)
        optimizer = take_over(agent, trial, algorithm)
    agent.compile(optimizer=optimizer, run_eagerly=bool(options.get("eager")))
    steps_done = int(agent.env_steps)
    rows = keep_rows(trial, lambda row: row.get("env_steps", 0) <= steps_done)
    link.start(len(rows))
    stop = read_stop(trial.stop)
    last_step = choose_steps(options.get("steps"), stop, agent.counted)
    steps = last_step - int(getattr(agent, agent.counted))
    left = left_of(stop, rows)
    evaluation = make_evaluation(
        env,
        settings.fit.get("env_config"),
        options.get("eval_freq", 0),
        options.get("eval_episodes", EVAL_EPISODES),
    )
    if evaluation is not None and rows:
        evaluation.counts_from = min(int(rows[-1].get("env_steps", 0)), steps_done)
    modules = tuple(options.get("modules", ()))
    stop_on = make_stop(left, agent, modules, evaluation) if left else None
    checkpoint = make_checkpoints(
        trial.directory,
        options.get("checkpoint_freq", 10),
        evaluation,
        resumed_from=trial.checkpoint,
    )
    callbacks = listeners(
        agent, trial.directory, settings, evaluation, stop_on, checkpoint
    )
    logger = next(each for each in callbacks if isinstance(each, RunLogger))
    logger.rows_before = rows
    reporter = Reporter(link, logger, checkpoint, last_step)

    def train() -> str:
        for name in USED_UP:
            if left.get(name, 1) <= 0:
                return f"{name} reached {stop[name]:g}"
        if steps <= 0:
            return "all steps are done"
        stacks.register()
        agent.fit(
            env,
            steps=steps,
            callbacks=[*callbacks, reporter],
            verbose=0,
            **settings.fit,
        )
        # What was written last, when training ended.
        link.checkpoint(checkpoint.last_path)
        if reporter.is_stopped:
            raise Leave("stopped")
        return (stop_on is not None and stop_on.reason) or "all steps are done"

    return train


def left_of(stop: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The criteria, without what earlier processes of the trial have used of them."""
    used = {
        "epochs": len(rows),
        "time_total_s": seconds_of(rows),
    }
    return {name: limit - used.get(name, 0) for name, limit in stop.items()}


def take_over(agent: Any, trial: Trial, algorithm: Any) -> Any:
    """Give the agent of another trial's checkpoint what is to be different.

    Args:
        agent: an `Agent` that was loaded.
        trial: `Trial`, whose `lineage` says what has changed.
        algorithm: what `find_algorithm` found.

    Returns:
        the agent's optimizer.

    Raises:
        click.UsageError, ValueError: for what cannot change in a trained agent.
    """
    if not isinstance(agent, agents.Agent):
        refuse(f"{trial.checkpoint} holds no agent.")
    if not trial.lineage:
        return agent.policy.optimizer
    before, settings = (
        split_config(split_resources(config)[0], algorithm)
        for config in (trial.lineage[-1]["donor_settings"], trial.settings)
    )
    settings.agent.pop("policy", None)
    for part in ("agent", "policy", "optimizer"):
        old, new = getattr(before, part), getattr(settings, part)
        setattr(settings, part, {k: x for k, x in new.items() if differs(x, old, k)})
    if settings.optimizer_name == before.optimizer_name:
        settings.optimizer_name = None
    fixed = [f"policy.{name}" for name in settings.policy]
    fixed += [f"optimizer.{x}" for x in settings.optimizer if x != "learning_rate"]
    if settings.optimizer_name is not None:
        fixed.append("optimizer")
    if fixed:
        refuse(
            f"{', '.join(fixed)} cannot change in a trained agent, so a population "
            "cannot explore it. Expected: learning_rate, or arguments of the agent."
        )
    for name, value in settings.agent.items():
        setattr(agent, name, value)
    kept = Settings()
    kept.optimizer = settings.optimizer
    return make_optimizer(agent, kept, resumed=True)


def differs(value: Any, others: dict[str, Any], name: str) -> bool:
    """Whether a setting is not what others have under its name."""
    if name not in others:
        return True
    old = others[name]
    if hasattr(value, "get_config") and type(old) is type(value):
        return value.get_config() != old.get_config()
    return value != old


class Reporter(Callback):
    """Tells the launcher of each epoch and each checkpoint, and does what it says.

    Args:
        link: `Link`.
        logger: `RunLogger`, earlier in the list.
        checkpoint: `AgentCheckpoint`, earlier in the list.
        last_step: int, steps of the agent at which training ends, as `fit` counts
            them.

    Attributes:
        is_stopped: bool, whether the launcher said so.
    """

    def __init__(
        self, link: Link, logger: RunLogger, checkpoint: Any, last_step: int
    ) -> None:
        super().__init__()
        self.last_step = last_step
        self.link = link
        self.logger = logger
        self.checkpoint = checkpoint
        self.is_stopped = False
        self._told: Any = None

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        if self.checkpoint.last_path != self._told:
            self._tell_checkpoint()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        answer = self.link.result(self.logger.row)
        steps = getattr(self.agent, self.agent.counted)
        has_ended = self.model.stop_training or steps >= self.last_step
        if answer == "pause" and has_ended:
            # It would start once more, only to end.
            return
        if answer in ("checkpoint", "pause"):
            self.checkpoint.save()
            self._tell_checkpoint()
        if answer == "pause":
            raise Leave("paused")
        if answer == "exploit":
            # What it has learnt since its last checkpoint is given up.
            raise Leave("exploit")
        if answer == "stop":
            self.is_stopped = True
            self.model.stop_training = True

    def _tell_checkpoint(self) -> None:
        self._told = self.checkpoint.last_path
        self.link.checkpoint(self._told)
