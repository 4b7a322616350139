"""Who acts, and who only steps."""

from kerasrl.envs.make import make_envs
from kerasrl.rollouts.collector import Collector
from kerasrl.workers.alternating import AlternatingCollector
from kerasrl.workers.asynchronous import AsynchronousCollector
from kerasrl.workers.collector import WorkerCollector
from kerasrl.workers.environments import WorkerEnvironments
from kerasrl.workers.local import LocalWorkers
from kerasrl.workers.settings import check_settings


def make_environments(
    env,
    num_envs=None,
    env_config=None,
    num_workers=0,
    worker_mode=None,
    env_timeout=None,
    cluster=None,
):
    """Makes environments here or in worker processes.

    Args:
        env, num_envs, env_config: As for `kerasrl.envs.make_envs`.
        num_workers: Integer, 0 for environments in this process.
        worker_mode: One of `MODES`, or `None` for what suits the actor.
        env_timeout, cluster: As for `WorkerPool`.

    Returns:
        A `kerasrl.envs.Environments`.

    Raises:
        ValueError: An argument makes no sense.

    Example:

    ```python
    envs = make_environments("CartPole-v1", num_envs=8, num_workers=2)
    ```
    """
    check_settings(num_envs, num_workers, worker_mode, env_timeout, cluster)
    if num_workers == 0:
        return make_envs(env, num_envs, env_config)
    return WorkerEnvironments(
        env, num_envs, env_config, num_workers, env_timeout, worker_mode, cluster
    )


def get_workers(envs):
    """Returns the `WorkerPool` of environments, or what stands for it in this process.

    Args:
        envs: `kerasrl.envs.Environments`.
    """
    pool = getattr(envs, "pool", None)
    return LocalWorkers(envs) if pool is None else pool


def make_collector(envs, actor, rollout_length, generators, **arguments):
    """Makes the collector that suits environments, an actor and a mode.

    Args:
        envs: `kerasrl.envs.Environments`. For `WorkerEnvironments` their `worker_mode`
            says who acts; `None` is `"act"` where the actor is a NumPy program, which
            can be sent to workers, else `"step"`.
        actor, rollout_length, generators, **arguments: As for
            `kerasrl.rollouts.Collector`.

    Returns:
        A `kerasrl.rollouts.Collector`.

    Raises:
        ValueError: The mode is not possible with this actor or this number of workers.

    Example:

    ```python
    envs = WorkerEnvironments("CartPole-v1", num_workers=2, worker_mode="step")
    collector = make_collector(envs, agent.actor(), 128, generators)
    ```
    """
    collector_class = Collector
    if isinstance(envs, WorkerEnvironments):
        mode = envs.worker_mode
        if mode is None:
            mode = "act" if actor.backend == "numpy" else "step"
        if mode == "act":
            collector_class = WorkerCollector
        elif mode == "alternate":
            collector_class = AlternatingCollector
        elif mode == "asynchronous":
            collector_class = AsynchronousCollector
        pool = envs.pool
        pool.healthy_steps = max(pool.healthy_steps, rollout_length)
    return collector_class(envs, actor, rollout_length, generators, **arguments)
