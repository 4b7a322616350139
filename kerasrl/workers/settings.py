"""What may be asked of workers."""

from kerasrl.envs.make import DEFAULT_NUM_ENVS

#: - `"act"`: each worker acts for its own environments and sends whole rollouts.
#: - `"step"`: workers step environments, the learner acts for all of them at once.
#: - `"alternate"`: so too, but for one half while the other half is stepped.
#: - `"asynchronous"`: each worker acts for its own environments, and goes on while the
#:   learner learns.
MODES = ("act", "step", "alternate", "asynchronous")


def check_settings(num_envs=None, num_workers=0, worker_mode=None, env_timeout=None):
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
        for name, value in (("worker_mode", worker_mode), ("env_timeout", env_timeout)):
            if value is not None:
                raise ValueError(
                    f"{name}={value!r} is for worker processes. Received: "
                    "num_workers=0. Give a number of workers, or leave it out."
                )
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
