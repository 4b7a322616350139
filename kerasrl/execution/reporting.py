"""Putting together what was learnt since the last time."""

import time

import keras

from kerasrl import checks
from kerasrl.execution.streams import reading
from kerasrl.training import statistics


def report(agent, results, every=1000):
    """Yields metrics with the statistics of episodes, every so many environment steps.

    Args:
        agent: The `kerasrl.Agent` that learns.
        results: Iterable of dicts of floats, as of `train_one_step`.
        every: Integer, environment steps between reports, rounded up to whole results.

    Yields:
        Dict as the logs of an epoch of `fit` (see `docs/metrics.md`): means of
        `results` since the last report, returns and lengths of the latest episodes,
        `env_steps`, `iterations`, `steps_per_second` and `learning_rate`. What came
        after the last whole interval makes the last report.

    Example:

    ```python
    for logs in report(agent, train_one_step(agent, rollouts), every=10_000):
        print(logs["env_steps"], logs["episode_return_mean"])
    ```
    """
    every = checks.positive_integer("every", every)
    return _reports(agent, results, every)


def _reports(agent, results, every):
    with reading(results) as stream:
        interval = _Interval(agent)
        for result in stream:
            interval.mean.add(result)
            # When the stream ends, the agent has let go of it.
            interval.source = agent.source
            if agent.env_steps - interval.steps >= every:
                yield interval.logs()
                interval = _Interval(agent)
        if agent.env_steps > interval.steps:
            yield interval.logs()


class _Interval:
    """What happens between two reports.

    Args:
        agent: The `Agent`.
    """

    def __init__(self, agent):
        self.agent = agent
        self.steps, self.time = agent.env_steps, time.perf_counter()
        self.mean = statistics.Mean()
        self.source = agent.source
        agent.statistics.start_epoch()
        if agent.policy.compiled:
            agent.policy.reset_metrics()

    def logs(self):
        agent = self.agent
        seconds = max(time.perf_counter() - self.time, 1e-9)
        logs = {**statistics.policy_metrics(agent.policy), **self.mean.result()}
        if self.source is not None:
            logs.update(self.source.drain_logs())
        logs.update(agent.drain_logs())
        logs.update(agent.statistics.logs())
        logs["env_steps"] = agent.env_steps
        logs["iterations"] = agent.iterations
        logs["steps_per_second"] = (agent.env_steps - self.steps) / seconds
        if agent.policy.compiled:
            rate = agent.policy.optimizer.learning_rate
            logs["learning_rate"] = float(keras.ops.convert_to_numpy(rate))
        return logs
