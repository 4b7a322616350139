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
        iterations_per_epoch: Iterations in an epoch.
        total_iterations: Iterations in all epochs; the last epoch may be shorter.
        iteration_steps: Environment steps of an iteration.
        steps: Those of all as they were asked for; whole iterations may have more.
    """

    epochs: int
    iterations_per_epoch: int
    total_iterations: int
    iteration_steps: int
    steps: int

    def iterations(self, epoch):
        """Number of iterations in an epoch."""
        done = epoch * self.iterations_per_epoch
        return min(self.iterations_per_epoch, self.total_iterations - done)

    def progress(self, epoch, iteration):
        """Share of the plan, from 0 to 1, that is done before an iteration."""
        done = epoch * self.iterations_per_epoch + iteration
        return done / self.total_iterations

    def steps_until(self, epoch, iteration):
        """Number of environment steps before an iteration, of those asked for."""
        done = epoch * self.iterations_per_epoch + iteration
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
        ValueError: Not exactly enough was given.

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
    if steps_per_epoch is None:
        if None not in (steps, epochs):
            steps_per_epoch = math.ceil(steps / epochs)
        else:
            steps_per_epoch = _DEFAULT_STEPS_PER_EPOCH
    iterations_per_epoch = math.ceil(steps_per_epoch / iteration_steps)
    if steps is None:
        total = epochs * iterations_per_epoch
        steps = total * iteration_steps
    else:
        total = math.ceil(steps / iteration_steps)
    epochs = math.ceil(total / iterations_per_epoch)
    return Plan(epochs, iterations_per_epoch, total, iteration_steps, steps)
