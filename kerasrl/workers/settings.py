"""What may be asked of workers."""

import dataclasses

from kerasrl import checks
from kerasrl.envs.make import DEFAULT_NUM_ENVS

#: - `"act"`: each worker acts for its own environments and sends whole rollouts.
#: - `"step"`: workers step environments, the learner acts for all of them at once.
#: - `"alternate"`: so too, but for one half while the other half is stepped.
#: - `"asynchronous"`: each worker acts for its own environments, and goes on while the
#:   learner learns.
MODES = ("act", "step", "alternate", "asynchronous")


@dataclasses.dataclass(frozen=True)
class RayCluster:
    """A Ray cluster whose nodes workers are spread over; needs `pip install ray`.

    Args:
        address: String, as for `ray.init`, if the program has not called that yet;
            `None` is the cluster that `RAY_ADDRESS` names, or else one of this machine
            alone, which is started.
        num_cpus: Float, processors that Ray keeps free for each worker.
        num_gpus: Float, graphics cards for each worker, which its environments may use.
        resources: Dict from names of other resources that nodes declare to how much of
            them each worker needs, to choose where workers go.
        runtime_env: Dict, as for actors of Ray: how nodes get files and packages.

    Raises:
        ValueError: A number is negative or not finite; when workers are made, the
            program has joined another cluster than the one at `address`.

    Example:

    ```python
    cluster = kerasrl.RayCluster(address="auto", num_cpus=0.5)
    kerasrl.PPO().fit("CartPole-v1", steps=10**6, num_workers=64, cluster=cluster)
    ```
    """

    address: str | None = None
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    resources: dict | None = None
    runtime_env: dict | None = None

    def __post_init__(self):
        amounts = {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus}
        for name, value in {**amounts, **(self.resources or {})}.items():
            if checks.finite(name, value) < 0:
                raise ValueError(
                    f"Received {name}={value!r}. Expected a number from 0."
                )


def read_cluster(cluster):
    """Returns what `fit(cluster=...)` means.

    Args:
        cluster: `None`, `"ray"`, a `RayCluster`, or a dict of its arguments.

    Returns:
        `None`, or a `RayCluster`.

    Raises:
        ValueError: It is none of these.
    """
    if cluster is None or isinstance(cluster, RayCluster):
        return cluster
    if cluster == "ray":
        return RayCluster()
    if isinstance(cluster, dict):
        known = [field.name for field in dataclasses.fields(RayCluster)]
        unknown = [name for name in cluster if name not in known]
        if not unknown:
            return RayCluster(**cluster)
        raise ValueError(
            f"Unknown argument of `cluster`. Received: {unknown[0]!r}. Expected one "
            f"of: {', '.join(map(repr, known))}."
        )
    raise ValueError(
        f"Received cluster={cluster!r}. Expected None for processes of this machine, "
        '"ray", a kerasrl.RayCluster, or a dict of its arguments.'
    )


def check_settings(
    num_envs=None, num_workers=0, worker_mode=None, env_timeout=None, cluster=None
):
    """Refuses settings of workers that make no sense; see `make_environments`.

    Returns:
        The number of environments, if there are workers.
    """
    is_integer = isinstance(num_workers, int) and not isinstance(num_workers, bool)
    if not is_integer or num_workers < 0:
        raise ValueError(
            f"`num_workers` must be an integer from 0. Received: {num_workers!r}."
        )
    if worker_mode not in (None, *MODES):
        raise ValueError(
            f"Unknown worker_mode. Received: {worker_mode!r}. Expected one of: "
            f"{', '.join(map(repr, MODES))}, or None."
        )
    if num_workers == 0:
        for name, value in (
            ("worker_mode", worker_mode),
            ("env_timeout", env_timeout),
            ("cluster", cluster),
        ):
            if value is not None:
                raise ValueError(
                    f"{name}={value!r} is for worker processes. Received: "
                    "num_workers=0. Give a number of workers, or leave it out."
                )
    read_cluster(cluster)
    if num_envs is None:
        num_envs = max(DEFAULT_NUM_ENVS, num_workers)
    if isinstance(num_envs, bool) or not isinstance(num_envs, int) or num_envs < 1:
        raise ValueError(
            f"`num_envs` must be a positive integer or None. Received: {num_envs!r}."
        )
    if num_envs < num_workers:
        raise ValueError(
            "Every worker needs an environment. Received: num_envs="
            f"{num_envs}, num_workers={num_workers}. `num_envs` counts those of all "
            "workers."
        )
    if env_timeout is not None and not env_timeout > 0:
        raise ValueError(
            f"`env_timeout` must be positive seconds or None. Received: {env_timeout}."
        )
    if worker_mode == "asynchronous":
        refuse_uneven(num_envs, num_workers)
    return num_envs


def refuse_uneven(num_envs, num_workers):
    """Raises a ValueError unless all workers have as many environments."""
    if num_envs % num_workers:
        raise ValueError(
            f"Received num_envs={num_envs}, num_workers={num_workers}. Workers that "
            "act asynchronously are learnt from one at a time, so each must have as "
            "many environments: make `num_envs` a multiple of `num_workers`."
        )
