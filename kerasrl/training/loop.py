"""The training loop around the iterations of an agent."""

import math
import time

import keras
import numpy as np

from kerasrl.training import optimizing, origins, ranks, statistics, updates


def run(agent, plan, callbacks, initial_epoch, env_seeds):
    """Trains an agent whose collector is ready, epoch by epoch, as Keras does.

    Closing the generator ends training as its last iteration would.

    Args:
        agent: The `Agent`.
        plan: The `Plan` of the run.
        callbacks: `CallbackHooks`.
        initial_epoch: Integer, epoch at which to start.
        env_seeds: List of integers, seeds of the environments.

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
    origins.reset(agent, env_seeds)
    # `keras.callbacks.BackupAndRestore` says here where to go on.
    initial_epoch = getattr(agent.policy, "_initial_epoch", None) or initial_epoch
    initial_epoch = ranks.synchronize(agent, initial_epoch)
    logs = {}
    try:
        for batch_logs, epoch_logs in _iterations(
            agent, plan, callbacks, initial_epoch
        ):
            logs = epoch_logs
            yield batch_logs
    except GeneratorExit:  # Whoever iterates has had enough.
        pass
    optimizing.finish(agent)
    callbacks.on_train_end(logs)


def _iterations(agent, plan, callbacks, initial_epoch):
    """Yields pairs of what an iteration and what the last whole epoch logged."""
    logs = {}
    for epoch in range(initial_epoch, plan.epochs):
        agent.policy.reset_metrics()
        agent.statistics.start_epoch()
        callbacks.on_epoch_begin(epoch)
        start_time, start_steps = time.perf_counter(), agent.env_steps
        mean = statistics.Mean()
        num_iterations = plan.iterations(epoch)
        for iteration in range(num_iterations):
            agent.progress = plan.progress(epoch, iteration)
            callbacks.on_train_batch_begin(iteration)
            batch_logs = agent.train_iteration(callbacks.on_rollout_end)
            mean.add(batch_logs)
            callbacks.on_train_batch_end(iteration, batch_logs)
            if agent.policy.stop_training:
                # Ranks end together, at the end of an epoch.
                if agent.replicas.num_ranks == 1:
                    break
            else:
                _check_finite(agent, batch_logs.get("loss", 0.0))
            if iteration + 1 < num_iterations:
                left = time.perf_counter()
                yield batch_logs, logs
                # What `iterate` is left for is not training.
                start_time += time.perf_counter() - left
        metrics = agent.tally.finish_epoch(
            {
                # What is known by name but was not learnt in this epoch.
                **dict.fromkeys(("loss", *agent.metric_names()), math.nan),
                **updates.policy_metrics(agent.policy),
                **mean.result(),
            }
        )
        seconds = time.perf_counter() - start_time
        logs = {
            **metrics,
            **agent.statistics.logs(),
            "env_steps": agent.env_steps,
            "steps_per_second": (agent.env_steps - start_steps) / seconds,
            "learning_rate": float(
                keras.ops.convert_to_numpy(agent.policy.optimizer.learning_rate)
            ),
        }
        callbacks.on_epoch_end(epoch, logs)
        yield batch_logs, logs
        if ranks.any_stops(agent):
            break


def _check_finite(agent, loss):
    if not np.isfinite(loss):
        raise FloatingPointError(
            f"The loss became {loss} in iteration {agent.iterations}, after "
            f"{agent.env_steps} environment steps. Lower the learning rate, check "
            "the scale of rewards and observations, or train from the last "
            "checkpoint. (Add keras.callbacks.TerminateOnNaN to stop instead.)"
        )
