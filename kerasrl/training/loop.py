"""The training loop around the iterations of an agent."""

import math
import time
import warnings
from concurrent import futures

import keras
import numpy as np

from kerasrl.training import optimizing, ranks, statistics


def run(agent, source, plan, callbacks, initial_epoch):
    """Trains an agent on what a source gives, epoch by epoch, as Keras does.

    Closing the generator ends training as its last iteration would.

    Args:
        agent: The `Agent`, ready to learn.
        source: Where rollouts come from, see `sources`.
        plan: The `Plan` of the run.
        callbacks: `CallbackHooks`.
        initial_epoch: Integer, epoch at which to start.

    Yields:
        Dict of floats, what each iteration logged. After the last of an epoch,
        callbacks have seen the end of it.

    Raises:
        FloatingPointError: The loss became NaN or infinite.
    """
    agent.policy.stop_training = False
    agent.policy._initial_epoch = None
    callbacks.on_train_begin()
    # After the callbacks, which may have set up the environments.
    source.start()
    # `keras.callbacks.BackupAndRestore` says here where to go on.
    initial_epoch = getattr(agent.policy, "_initial_epoch", None) or initial_epoch
    initial_epoch = ranks.synchronize(agent, initial_epoch)
    plan.begin(initial_epoch)
    logs = {}
    with futures.ThreadPoolExecutor(1, "kerasrl-update") as updating:
        epochs = _epochs(agent, source, plan, callbacks, initial_epoch, updating)
        try:
            for batch_logs, epoch_logs in epochs:
                logs = epoch_logs
                if batch_logs is not None:
                    yield batch_logs
        except GeneratorExit:  # Whoever iterates has had enough.
            pass
    optimizing.finish(agent)
    callbacks.on_train_end(logs)


def _epochs(agent, source, plan, callbacks, initial_epoch, updating):
    """Yields pairs of what an iteration and what the last whole epoch logged.

    Where an epoch ends for want of rollouts, there is no iteration: `None`.
    """
    logs, has_more, epoch = {}, True, initial_epoch
    while epoch < plan.epochs:
        # Asked anew in every epoch, and at its end: a callback may compile metrics.
        if statistics.has_metrics(agent.policy):
            agent.policy.reset_metrics()
        agent.statistics.start_epoch()
        callbacks.on_epoch_begin(epoch)
        start_time, start_steps = time.perf_counter(), agent.env_steps
        mean = statistics.Mean()
        iteration = 0
        while plan.has_more(epoch, iteration):
            agent.progress = plan.progress(epoch, iteration)
            callbacks.on_train_batch_begin(iteration)
            steps_before = getattr(agent, agent.counted)
            batch_logs = _iterate(agent, source, callbacks.on_rollout_end, updating)
            if batch_logs is None:
                _warn_of_the_end(iteration, epoch, plan)
                has_more = False
                break
            mean.add(batch_logs)
            plan.add(epoch, getattr(agent, agent.counted) - steps_before)
            callbacks.on_train_batch_end(iteration, batch_logs)
            if agent.policy.stop_training:
                # Ranks end together, at the end of an epoch.
                if agent.replicas.num_ranks == 1:
                    break
            else:
                check_finite(agent, batch_logs.get("loss", 0.0))
            iteration += 1
            if plan.has_more(epoch, iteration):
                left = time.perf_counter()
                yield batch_logs, logs
                # What `iterate` is left for is not training.
                start_time += time.perf_counter() - left
        metrics = agent.tally.finish_epoch(
            {
                # What is known by name but was not learnt in this epoch.
                **dict.fromkeys(("loss", *agent.metric_names()), math.nan),
                **statistics.policy_metrics(agent.policy),
                **source.drain_logs(),
                **agent.drain_logs(),
                **mean.result(),
            }
        )
        seconds = time.perf_counter() - start_time
        logs = {
            **metrics,
            **agent.statistics.logs(),
            "env_steps": agent.env_steps,
            "steps_per_second": (agent.env_steps - start_steps) / seconds,
            "learning_rate": _learning_rate(agent.policy.optimizer),
        }
        epoch = plan.ended(epoch)
        callbacks.on_epoch_end(epoch, logs)
        epoch += 1
        yield batch_logs, logs
        if ranks.any_stops(agent, not has_more) or plan.is_over:
            break


def _iterate(agent, source, on_rollout_end, updating):
    """Has the agent learn from the next rollout.

    Args:
        agent: The `Agent`.
        source: Where rollouts come from.
        on_rollout_end: Function of a rollout that returns the one to learn from.
        updating: Executor for updates while the source collects.

    Returns:
        Dict of floats, what was logged, or `None` if there are no more rollouts.
    """
    source.refresh()
    if source.is_dataset:
        logs = agent.learn_batches(source.collect())
        agent.iterations += 1
        return logs
    if not (agent.overlap and source.collects):
        rollout = source.collect()
        if rollout is None:
            return None
        agent.tally.add(rollout, source.drain_episodes())
        logs = agent.learn_from(on_rollout_end(rollout)) or {}
        agent.iterations += 1
        return logs
    # What is learnt from, and by what is acted, is settled before either begins, so the
    # outcome does not depend on which is faster.
    pending = updating.submit(agent.prepare_learning(agent.updates_due()))
    try:
        rollout = source.collect()
    finally:
        # Also where collecting failed: nothing may write once it has.
        futures.wait([pending])
    agent.tally.add(rollout, source.drain_episodes())
    logs = pending.result()
    agent.remember(on_rollout_end(rollout))
    agent.iterations += 1
    return logs


def _learning_rate(optimizer):
    rate = optimizer.learning_rate
    try:
        return float(rate)
    except TypeError:  # A variable of a strategy, which takes longer to read.
        return float(keras.ops.convert_to_numpy(rate))


def _warn_of_the_end(iteration, epoch, plan):
    done = plan.done(epoch) + iteration
    warnings.warn(
        f"There are no more rollouts after {done} iterations, where steps or epochs "
        f"asked for {plan.total_iterations}. Training ends here.",
        stacklevel=2,
    )


def check_finite(agent, loss):
    """Raises a FloatingPointError if the loss of an `Agent` is not a number."""
    if not np.isfinite(loss):
        raise FloatingPointError(
            f"The loss became {loss} in iteration {agent.iterations}, after "
            f"{agent.env_steps} environment steps. Lower the learning rate, check "
            "the scale of rewards and observations, or train from the last "
            "checkpoint. (Add keras.callbacks.TerminateOnNaN to stop instead.)"
        )
