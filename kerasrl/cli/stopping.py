"""When `kerasrl train` stops."""

from typing import Any

from kerasrl.experiment import COUNTERS, refuse, unknown

#: What the agents of kerasrl log with the policies of kerasrl; see docs/metrics.md.
LOGGED = (
    "episode_return_mean",
    "episode_return_min",
    "episode_return_max",
    "episode_length_mean",
    "episodes",
    "env_steps",
    "steps_per_second",
    "learning_rate",
    "loss",
    "policy_loss",
    "value_loss",
    "entropy",
    "gradient_norm",
    "explained_variance",
    "clip_fraction",
    "approximate_kl",
    "gradient_steps",
    "kl",
    "kl_coef",
    "td_error",
    "q_value",
    "critic_loss",
    "temperature",
)


def make_stop(criteria: dict[str, Any], agent: Any, modules: tuple[str, ...]) -> Any:
    """The callback that stops training, once the names of criteria are checked.

    A name that is not in `LOGGED` can only come from code of the user's: custom metrics
    of a policy or of episodes, or callbacks that an agent adds. So it is refused here
    unless there is such code, in a module of `--import` or of the algorithm. What is
    left, also a metric of another algorithm's, is refused when the first epoch ends
    without it.

    Args:
        criteria: dict of numbers.
        agent: an `Agent`.
        modules: the modules of `--import`.

    Returns:
        A `kerasrl.callbacks.StopOn`.
    """
    from kerasrl.callbacks import StopOn

    known = {*LOGGED, *COUNTERS}
    if not modules and type(agent).__module__.startswith("kerasrl."):
        for name in criteria:
            if name not in known:
                refuse(unknown("stop criterion", name, known))

    class Stop(StopOn):
        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            values = {*(logs or {}), *COUNTERS}
            for name in criteria:
                if name in values:
                    continue
                if name in LOGGED:
                    refuse(
                        f"{type(agent).__name__} does not log the stop criterion "
                        f"{name!r}. Expected one of: {', '.join(sorted(values))}."
                    )
                refuse(unknown("stop criterion", name, values))
            super().on_epoch_end(epoch, logs)

    return Stop(criteria)
