"""Who acts, and who only steps."""

from kerasrl.rollouts.collector import Collector
from kerasrl.rollouts.workers.alternating import AlternatingCollector
from kerasrl.rollouts.workers.collector import WorkerCollector
from kerasrl.rollouts.workers.environments import WorkerEnvironments

#: - `"act"`: each worker acts for its own environments and sends whole rollouts.
#: - `"step"`: workers step environments, the learner acts for all of them at once.
#: - `"alternate"`: so too, but for one half while the other half is stepped.
MODES = ("act", "step", "alternate")


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
    return collector_class(envs, actor, rollout_length, generators, **arguments)
