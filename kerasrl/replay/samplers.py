"""How starts are drawn: uniformly, or by priority."""

import numpy as np

from kerasrl.replay.sum_tree import SumTree


class UniformSampler:
    """Draws every start with the same probability.

    Args:
        starts: `Starts`, among which is drawn.
    """

    nbytes = 0
    uniform_fraction = 0.0
    has_priorities = False

    def __init__(self, starts):
        self._starts = starts

    @property
    def mass(self):
        """What starts count in all, where several buffers draw together."""
        return float(len(self._starts))

    def insert(self, slots, errors=None):
        """Tells of new starts."""

    def remove(self, slots):
        """Tells of starts that are gone."""

    def update(self, ids, errors):
        """Refuses priorities."""
        raise ValueError(
            "This buffer draws uniformly and has no priorities. Use "
            "PrioritizedReplayBuffer, or SequenceReplayBuffer with a "
            "`priority_exponent`."
        )

    def draw(self, shape, rng, importance_exponent):
        """Draws starts with replacement.

        Args:
            shape: Tuple `(N,)` or `(K, N)`.
            rng: `numpy.random.Generator`.
            importance_exponent: Float; has no effect, since equal probabilities have
                the weight one whatever the exponent.

        Returns:
            Int64 ids, float32 weights and float64 probabilities, each of that shape.
        """
        probabilities = np.full(shape, 1.0 / len(self._starts))
        ids = self._starts.draw(shape, rng)
        return ids, np.ones(shape, np.float32), probabilities

    def get_state(self):
        """JSON-compatible state: none."""
        return {}

    def get_arrays(self):
        """Arrays over slots: none."""
        return {}

    def check_state(self, state, arrays, count):
        """Has nothing to check."""

    def set_state(self, state):
        """Restores nothing."""


class PrioritizedSampler:
    """Draws starts in proportion to a power of their priority.

    Prioritized Experience Replay, https://arxiv.org/abs/1511.05952, the proportional
    variant. A start `i` of `M` is drawn with the probability

    `P(i) = (1 - u) p_i^a / sum_j p_j^a + u / M`

    and has the importance weight `(M P(i))^-beta`, divided by the largest one of its
    batch. New starts get the largest priority seen so far.

    Args:
        starts: `Starts`, among which is drawn.
        num_slots: Integer, number of slots of `starts`.
        exponent: Float `a` in `[0, 1]`.
        uniform_fraction: Float `u` in `[0, 1]`.
        epsilon: Positive float, added to priorities so that none is zero.
    """

    has_priorities = True

    def __init__(self, starts, num_slots, exponent, uniform_fraction, epsilon):
        _check_fraction("priority_exponent", exponent)
        _check_fraction("uniform_fraction", uniform_fraction)
        if not (_is_number(epsilon) and 0 < epsilon < np.inf):
            raise ValueError(
                f"`epsilon` must be a positive number. Received: {epsilon!r}. It "
                "keeps transitions whose error is zero from never being sampled."
            )
        self._starts = starts
        self._exponent = float(exponent)
        self.uniform_fraction = float(uniform_fraction)
        self._epsilon = float(epsilon)
        self._tree = SumTree(num_slots)
        #: The largest priority so far.
        self.largest = 1.0
        #: `None`, or where the next draw is to fall in the sum of priorities: float
        #: array of its shape, in [0, 1), for who stratifies over several samplers.
        self.places = None

    @property
    def nbytes(self):
        """Bytes of the sum tree."""
        return self._tree.nbytes

    @property
    def mass(self):
        """Sum of the powers of all priorities."""
        return self._tree.total

    def insert(self, slots, errors=None):
        """Gives new starts a priority.

        Args:
            slots: Integer array.
            errors: Float array of the same shape, absolute errors; NaN where it is not
                known. `None` if none is.
        """
        if errors is None:
            self._tree.set(slots, self.largest**self._exponent)
            return
        # What is not known has the largest so far, so that it is soon drawn once.
        known = np.isfinite(errors)
        priorities = np.where(known, errors, 0.0) + self._epsilon
        self.largest = max(self.largest, float(priorities.max(initial=0.0)))
        priorities = np.where(known, priorities, self.largest)
        self._tree.set(slots, priorities**self._exponent)

    def remove(self, slots):
        """Takes the probability from starts that are gone."""
        self._tree.set(slots, 0.0)

    def update(self, ids, errors):
        """Sets the priorities of starts; those that are gone are left out.

        Args:
            ids: int64 array.
            errors: Float array of the same shape, finite and not negative.

        Returns:
            Integer, how many are gone.

        Raises:
            ValueError: They have different shapes, an error is negative, NaN or
                infinite, or an id is unknown.
        """
        ids, errors = check_errors(ids, errors)
        slots, present = self._starts.slots_of(ids)
        if present.any():
            priorities = errors[present] + self._epsilon
            self.largest = max(self.largest, float(priorities.max()))
            self._tree.set(slots[present], priorities**self._exponent)
        return int(ids.size - np.count_nonzero(present))

    def draw(self, shape, rng, importance_exponent):
        """Draws starts with replacement, stratified within each batch.

        A batch of N has one draw from each N-th of the sum of priorities.

        Args:
            shape: Tuple `(N,)` or `(K, N)`.
            rng: `numpy.random.Generator`.
            importance_exponent: Float `beta` of the importance weights.

        Returns:
            Int64 ids, float32 weights and float64 probabilities, each of that shape.
        """
        size = shape[-1]
        total = self._tree.total
        if self.places is None:
            points = (np.arange(size) + rng.random(shape)) * (total / size)
        else:
            points = self.places * total
        slots = self._tree.find(points)
        ids = self._starts.ids_of(slots)
        uniform = self.uniform_fraction
        if uniform > 0.0:
            replaced = rng.random(shape) < uniform
            ids = np.where(replaced, self._starts.draw(shape, rng), ids)
            slots = self._starts.slots_of(ids)[0]
        count = len(self._starts)
        relative = self._tree.get(slots) * (count / total)
        relative = (1.0 - uniform) * relative + uniform
        weights = importance_weights(relative, importance_exponent)
        return ids, weights, relative / count

    def get_state(self):
        """JSON-compatible state."""
        return {"largest_priority": self.largest}

    def get_arrays(self):
        """Arrays over slots."""
        return {"priorities": self._tree.values}

    def check_state(self, state, arrays, count):
        """Raises unless saved priorities are possible ones.

        Args:
            state: Dict from `get_state`.
            arrays: Dict with the arrays of `get_arrays`.
            count: Integer, how many starts are ready.
        """
        largest = state.get("largest_priority")
        if not (_is_number(largest) and 0.0 < largest < np.inf):
            raise ValueError(
                "The saved state is damaged. Received: sampler.largest_priority = "
                f"{largest!r}. Expected: a positive number."
            )
        priorities = arrays["priorities"]
        possible = np.isfinite(priorities).all() and (priorities >= 0.0).all()
        if not possible or np.count_nonzero(priorities) != count:
            raise ValueError(
                "The saved array 'priorities' is damaged. Received: "
                f"{np.count_nonzero(priorities)} numbers that are not zero, from "
                f"{priorities.min(initial=0.0)} to {priorities.max(initial=0.0)}. "
                f"Expected: {count} positive ones."
            )

    def set_state(self, state):
        """Restores what `get_state` gave, after `get_arrays` were written to."""
        self.largest = float(state["largest_priority"])
        self._tree.set(np.arange(self._tree.size), self._tree.values)


def share_largest(samplers):
    """Makes the largest priority of any of several samplers that of all.

    Args:
        samplers: List of `PrioritizedSampler`, or of such as have no priorities.
    """
    samplers = [sampler for sampler in samplers if sampler.has_priorities]
    largest = max((sampler.largest for sampler in samplers), default=1.0)
    for sampler in samplers:
        sampler.largest = largest


def importance_weights(probabilities, importance_exponent, gather=None):
    """Computes importance weights, divided by the largest one of each batch.

    Args:
        probabilities: float64 `[N]` or `[K, N]`, or multiples of them.
        importance_exponent: Float `beta`.
        gather: `None`; or as for `global_weights`, for the largest ones of all buffers.

    Returns:
        float32 of the same shape.
    """
    weights = probabilities**-importance_exponent
    largest = weights.max(axis=-1, keepdims=True)
    if gather is not None:
        largest = np.max(gather(largest), axis=0)
    return (weights / largest).astype(np.float32)


def global_weights(probabilities, importance_exponent, gather):
    """Computes importance weights of batches that several buffers draw together.

    Of `R` buffers each draws its part of a batch: a transition that buffer `r` draws
    with the probability `P_r(i)` has `P_r(i) / R` among the `M` of all buffers. Its
    weight is `(M P_r(i) / R)^-beta`, divided by the largest one of the whole batch,
    which leaves nothing of `M` and `R`.

    Args:
        probabilities: float64 `[K, N]`, those of a sample of this buffer.
        importance_exponent: Float `beta`.
        gather: Function that takes an array and returns the list of those of all
            buffers.

    Returns:
        float32 `[K, N]`.

    Example:

    ```python
    batch = buffer.sample(64, 8)
    weights = global_weights(batch["probabilities"], 0.4, replicas.gather)
    ```
    """
    return importance_weights(probabilities, importance_exponent, gather)


def check_errors(ids, errors):
    """Returns ids and errors of samples as arrays that belong together.

    Raises:
        ValueError: They have different shapes, or an error is negative, NaN or
            infinite.
    """
    ids, errors = np.asarray(ids), np.asarray(errors, np.float64)
    if ids.shape != errors.shape or ids.dtype.kind not in "iu":
        raise ValueError(
            "There must be one absolute error for each index. Received: indices "
            f"of shape {ids.shape} and dtype {ids.dtype}, errors of shape "
            f"{errors.shape}."
        )
    wrong = errors[~(np.isfinite(errors) & (errors >= 0.0))]
    if wrong.size:
        raise ValueError(
            "Priorities come from finite absolute errors. Received: "
            f"{wrong.flat[0]}. Expected numbers of at least 0: pass "
            "abs(td_errors), and look for the cause of NaN in the loss."
        )
    return ids, errors


def _check_fraction(name, value):
    if not (_is_number(value) and 0.0 <= value <= 1.0):
        raise ValueError(f"`{name}` must be a number from 0 to 1. Received: {value!r}.")


def _is_number(value):
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)
