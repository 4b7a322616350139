"""What `fit` and `evaluate` print while they run."""

import math

import numpy as np

from kerasrl import display


class Progress:
    """Shows how far a `fit` is.

    Args:
        agent: The `Agent`.
        plan: The `Plan` of the run.
        verbose: 0 for nothing, 1 for one line with a bar over the whole run, 2 for a
            line an epoch.
    """

    def __init__(self, agent, plan, verbose):
        self._agent = agent
        self._plan = plan
        self._verbose = verbose
        self._display = None
        self._epoch = 0
        self._loss = math.nan
        self._evaluation = None

    def begin_training(self):
        """Called before the first epoch."""
        if self._verbose == 1:
            self._display = display.Display(self._plan.steps, self._values)

    def begin_epoch(self, epoch):
        """Called before an epoch."""
        self._epoch = epoch

    def end_iteration(self, iteration, logs):
        """Called after an iteration, with what its update logged."""
        if self._display is not None:
            self._loss = logs.get("loss", self._loss)
            self._display.update(self._plan.steps_until(self._epoch, iteration + 1))

    def end_epoch(self, epoch, logs):
        """Called after an epoch, with all that is logged of it."""
        self._loss = logs.get("loss", math.nan)
        evaluation = logs.get("evaluation_return_mean", math.nan)
        if not math.isnan(evaluation):
            self._evaluation = evaluation
        if self._verbose == 2:
            values = {**self._values(), "steps/s": logs["steps_per_second"]}
            print(
                f"Epoch {epoch + 1}/{self._plan.epochs}: "
                f"{self._agent.env_steps:,} steps, {_text(values)}",
                flush=True,
            )

    def close(self):
        """Called when training has ended or failed."""
        if self._display is not None:
            self._display.close()

    def _values(self):
        episodes = self._agent.statistics.logs()
        values = {"return": episodes["episode_return_mean"]}
        if self._evaluation is not None:
            values["evaluation"] = self._evaluation
        values["length"] = _whole(episodes["episode_length_mean"])
        values["loss"] = float(self._loss)
        return values


class Evaluation:
    """Shows how far an `evaluate` is.

    Args:
        agent: The `Agent`.
        episodes: Integer, how many there are to play.
        verbose: As for `Agent.evaluate`.
    """

    def __init__(self, agent, episodes, verbose):
        if verbose == "auto":
            verbose = 1 if agent.source is None else 0
        self._verbose = verbose if agent.replicas.is_chief else 0
        self._episodes = episodes
        self._records = []
        self._display = None

    def __enter__(self):
        # Below the bar of `fit` there is no room for another.
        if self._verbose == 1 and not display.is_open():
            self._display = display.Display(
                self._episodes, self._values, "episodes", keep=False
            )
        return self

    def __exit__(self, *exception):
        if self._display is not None:
            self._display.close()
        if self._verbose == 2 and exception[0] is None:
            print(f"{self._episodes:,} episodes: {_text(self._values())}", flush=True)

    def update(self, records):
        """Called from time to time with the records of all episodes so far."""
        self._records = records
        if self._display is not None:
            self._display.update(len(records))

    def _values(self):
        if not self._records:
            return {"return": math.nan, "length": math.nan}
        return {
            "return": float(np.mean([each.episode_return for each in self._records])),
            "length": _whole(np.mean([each.length for each in self._records])),
        }


def _whole(number):
    return number if math.isnan(number) else round(float(number))


def _text(values):
    return ", ".join(f"{name} {display.number(x)}" for name, x in values.items())
