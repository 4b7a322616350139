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

    @property
    def expected_steps(self):
        """Number of environment steps that whole iterations have."""
        return self.iteration_steps * self.total_iterations

    def begin(self, initial_epoch):
        """Called before the first epoch. All is known."""

    def add(self, epoch, steps):
        """Called with the environment steps of each iteration. They are known."""

    def has_more(self, epoch, iteration):
        """Whether an epoch has an iteration of this index."""
        return iteration < self.iterations(epoch)

    def ended(self, epoch):
        """Index of the epoch that has ended, where one began with an index."""
        return epoch

    @property
    def is_over(self):
        """Whether no epoch is to follow, whatever `epochs` says."""
        return False


class OpenPlan:
    """Epochs of iterations that take as many environment steps as they need.

    An iteration of whole episodes ends when they do. An epoch is over with the first
    iteration that reaches its last step, and has one at least; so is training, if it is
    the steps that were asked for. Where epochs share out steps, their indices follow
    these: an iteration that is as long as nine of them ends as the ninth, so that an
    index says what is done to whoever goes on from it.

    Args:
        epochs: Index of the last epoch, if there are so many.
        steps_per_epoch: Environment steps of each.
        steps: Those of all.
        ends_by_steps: Whether training ends after `steps`; else, after `epochs`, each
            of which begins where the one before ended.
    """

    iteration_steps = iterations_per_epoch = None

    def __init__(self, epochs, steps_per_epoch, steps, ends_by_steps):
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch
        self.steps = self.expected_steps = steps
        self.ends_by_steps = ends_by_steps
        self.begin(0)

    def begin(self, initial_epoch):
        """Called before the first epoch: those before count as full."""
        self._done = min(initial_epoch * self.steps_per_epoch, self.steps)

    def add(self, epoch, steps):
        """Called with the environment steps of each iteration."""
        self._done += steps
        if not self.ends_by_steps:
            self._done = min(self._done, self._end(epoch))

    def has_more(self, epoch, iteration):
        """Whether an epoch has an iteration of this index."""
        return iteration == 0 or self._done < self._end(epoch)

    def ended(self, epoch):
        """Index of the epoch that has ended, where one began with an index."""
        if self.is_over:
            return self.epochs - 1
        return max(epoch, self._done // self.steps_per_epoch - 1)

    def progress(self, epoch, iteration):
        """Share of the plan, from 0 to 1, that is done."""
        return self.steps_until(epoch, iteration) / self.steps

    def steps_until(self, epoch, iteration):
        """Number of environment steps that are done, of those asked for."""
        return min(self._done, self.steps)

    @property
    def is_over(self):
        """Whether no epoch is to follow."""
        return self._done >= self.steps

    def _end(self, epoch):
        return min((epoch + 1) * self.steps_per_epoch, self.steps)


def plan_epochs(iteration_steps, steps, epochs, steps_per_epoch):
    """Turns the arguments of `fit` into whole iterations.

    Args:
        iteration_steps: Integer, environment steps of one iteration; `None` if that is
            not known before.
        steps: Integer or `None`, environment steps in total.
        epochs: Integer or `None`.
        steps_per_epoch: Integer or `None`, environment steps per epoch.

    Returns:
        A `Plan`, or an `OpenPlan` for iterations of unknown length.

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
    if iteration_steps is None:
        return _plan_openly(steps, epochs, steps_per_epoch)
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


def _plan_openly(steps, epochs, steps_per_epoch):
    if None not in (steps, epochs):
        return OpenPlan(epochs, math.ceil(steps / epochs), steps, True)
    if steps_per_epoch is None:
        steps_per_epoch = _DEFAULT_STEPS_PER_EPOCH
    if steps is None:
        return OpenPlan(epochs, steps_per_epoch, epochs * steps_per_epoch, False)
    return OpenPlan(math.ceil(steps / steps_per_epoch), steps_per_epoch, steps, True)
