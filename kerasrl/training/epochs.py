"""The iterations of one `fit`, in epochs."""

import dataclasses
import math

from kerasrl import checks

_DEFAULT_STEPS_PER_EPOCH = 1000


@dataclasses.dataclass(frozen=True)
class Plan:
    """How many iterations each epoch of a `fit` has.

    Attributes:
        epochs: Index of the last epoch.
        iterations_per_epoch: The most iterations in an epoch.
        total_iterations: Iterations in all epochs.
        iteration_steps: Environment steps of an iteration.
        steps: Those of all as they were asked for; whole iterations may have more.
        even: Whether epochs share the iterations out evenly; else all have the most,
            and the last what is left.
    """

    epochs: int
    iterations_per_epoch: int
    total_iterations: int
    iteration_steps: int
    steps: int
    even: bool = False

    def done(self, epoch):
        """Number of iterations before an epoch."""
        if self.even:
            return epoch * self.total_iterations // self.epochs
        return min(epoch * self.iterations_per_epoch, self.total_iterations)

    def iterations(self, epoch):
        """Number of iterations in an epoch."""
        return self.done(epoch + 1) - self.done(epoch)

    def progress(self, epoch, iteration):
        """Share of the plan, from 0 to 1, that is done before an iteration."""
        return (self.done(epoch) + iteration) / self.total_iterations

    def steps_until(self, epoch, iteration):
        """Number of environment steps before an iteration, of those asked for."""
        done = self.done(epoch) + iteration
        return min(done * self.iteration_steps, self.steps)


def plan_epochs(iteration_steps, steps, epochs, steps_per_epoch):
    """Turns the arguments of `fit` into whole iterations.

    Args:
        iteration_steps: Integer, environment steps of one iteration.
        steps: Integer or `None`, environment steps in total.
        epochs: Integer or `None`.
        steps_per_epoch: Integer or `None`, environment steps per epoch.

    Returns:
        A `Plan`.

    Raises:
        ValueError: Not exactly enough was given, or there are fewer iterations than
            epochs.

    Example:

    ```python
    plan_epochs(1024, steps=100_000, epochs=None, steps_per_epoch=None).epochs  # 98
    ```
    """
    if steps is None and epochs is None:
        raise ValueError(
            "Received neither steps nor epochs. Give fit the number of environment "
            "steps, such as steps=100_000, or epochs (and steps_per_epoch)."
        )
    if None not in (steps, epochs, steps_per_epoch):
        raise ValueError(
            f"Received steps={steps}, epochs={epochs} and steps_per_epoch="
            f"{steps_per_epoch}. Any two of them determine the third: drop one."
        )
    steps, epochs, steps_per_epoch = (
        None if value is None else checks.positive_integer(name, value)
        for name, value in (
            ("steps", steps),
            ("epochs", epochs),
            ("steps_per_epoch", steps_per_epoch),
        )
    )
    if None not in (steps, epochs):
        total = math.ceil(steps / iteration_steps)
        if total < epochs:
            raise ValueError(
                f"Received steps={steps} and epochs={epochs}, but an epoch is at least "
                f"one iteration, here of {iteration_steps} environment steps. Give "
                f"steps={epochs * iteration_steps} or more, epochs={total} or fewer, "
                "or the agent shorter iterations."
            )
        most = math.ceil(total / epochs)
        return Plan(epochs, most, total, iteration_steps, steps, even=True)
    if steps_per_epoch is None:
        steps_per_epoch = _DEFAULT_STEPS_PER_EPOCH
    iterations_per_epoch = math.ceil(steps_per_epoch / iteration_steps)
    if steps is None:
        total = epochs * iterations_per_epoch
        steps = total * iteration_steps
    else:
        total = math.ceil(steps / iteration_steps)
    epochs = math.ceil(total / iterations_per_epoch)
    return Plan(epochs, iterations_per_epoch, total, iteration_steps, steps)
