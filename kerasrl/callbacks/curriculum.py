"""Making the task harder as the agent gets better."""

from collections.abc import Callable
from typing import Any

from kerasrl.callbacks.callback import Callback


class Curriculum(Callback):
    """Tells every environment which phase of the curriculum it is in.

    At the end of each epoch `function(agent, logs)` says which phase comes next; when
    it changes, `set_phase(phase)` is called on every environment, through wrappers. The
    environment decides what that means; most use it from the next `reset` on.

    Adds `curriculum_phase` to the epoch's logs when the phase is a number: the phase in
    which that epoch was played.

    A new `fit` makes new environments: they are told the current phase when training
    begins. Checkpoints do not hold the phase; give `initial` after a resume.

    Args:
        function: callable of `(agent, logs)` that returns a phase, of any type your
            environment takes, or None to stay.
        initial: the phase to start in; None tells the environments nothing at first.
        method: str, the name of the environment's method.

    Attributes:
        phase: the current phase.

    Raises:
        TypeError: if `function` cannot be called.

    Example:

    ```python
    def harder(agent, logs):
        return 1 if logs["episode_return_mean"] > 200 else None

    agent.fit(MyEnv, steps=100_000, callbacks=[kerasrl.callbacks.Curriculum(harder)])
    ```
    """

    def __init__(
        self,
        function: Callable[[Any, dict[str, Any]], Any],
        initial: Any = None,
        method: str = "set_phase",
    ) -> None:
        super().__init__()
        if not callable(function):
            raise TypeError(
                "function must be a callable of (agent, logs) that returns a phase or "
                f"None. Received: {function!r}"
            )
        self.function = function
        self.method = method
        self.phase = initial

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self.phase is not None:
            self.agent.call_envs(self.method, self.phase)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = {} if logs is None else logs
        if isinstance(self.phase, int | float):
            logs["curriculum_phase"] = float(self.phase)
        phase = self.function(self.agent, logs)
        if phase is not None and phase != self.phase:
            self.agent.call_envs(self.method, phase)
            self.phase = phase
