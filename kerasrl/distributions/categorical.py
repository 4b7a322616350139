"""One choice out of A."""

import keras
from gymnasium import spaces
from keras import ops

from kerasrl.distributions.distribution import Distribution, space_error

# Smallest normal float32: a uniform variable of exactly 0 would give every action,
# masked or not, the score -inf.
TINY = 1.1754944e-38


class Categorical(Distribution):
    """Distribution over A discrete actions, from logits.

    For `Discrete` action spaces. Actions are `0 .. A - 1`; a space that starts
    elsewhere is shifted by the environment. A logit of `-inf` masks an action: it is
    never sampled, has probability 0 and passes no NaN to any gradient. At least one
    action of each distribution must be left.

    Args:
        parameters: Float `[..., A]`, unnormalised log-probabilities (logits).

    Example:

    ```python
    distribution = Categorical([[0.0, 0.0, -np.inf]])
    distribution.entropy()  # [0.693]
    distribution.sample(seed=1)  # [0] or [1]
    ```
    """

    def __init__(self, parameters):
        super().__init__(parameters)
        self._log_probs = None

    @staticmethod
    def parameters_size(action_space):
        """Number of actions of a `Discrete` space."""
        if not isinstance(action_space, spaces.Discrete):
            raise space_error("Categorical", action_space, "Discrete")
        return int(action_space.n)

    @property
    def log_probs(self):
        """Float32 `[..., A]`, log-probability of every action."""
        if self._log_probs is None:
            self._log_probs = ops.log_softmax(self.parameters, axis=-1)
        return self._log_probs

    def sample(self, seed=None):
        """Draws actions, int32 `[...]`, by the Gumbel-max trick.

        See `Distribution.sample`.
        """
        uniform = keras.random.uniform(
            ops.shape(self.parameters), minval=TINY, maxval=1.0, seed=seed
        )
        # As argmax(logits - log(-log(u))), https://arxiv.org/abs/1611.00712.
        exponential = -ops.log(uniform)
        return ops.argmax(self.parameters - ops.log(exponential), axis=-1)

    def mode(self):
        """Most probable actions, int32 `[...]`."""
        return ops.argmax(self.parameters, axis=-1)

    def log_prob(self, actions):
        """Log-probability of actions, int `[...]`. See `Distribution.log_prob`.

        Whether actions lie within `0 .. A - 1` is not checked.
        """
        self._check_actions(actions, ())
        # Selecting and summing compiles in half the time of take_along_axis under XLA
        # (0.8 s against 1.7 s with its gradient) and runs as fast (18 us against 19 us
        # for [2048, 6]); multiplying by one_hot instead would make NaN of -inf.
        chosen = ops.one_hot(
            ops.cast(actions, "int32"), ops.shape(self.parameters)[-1], dtype="bool"
        )
        return ops.sum(ops.where(chosen, self.log_probs, 0.0), axis=-1)

    def entropy(self):
        """Entropy, float32 `[...]`, in nats."""
        probs = ops.exp(self.log_probs)
        return -ops.sum(probs * _where_positive(probs, self.log_probs), axis=-1)

    def kl(self, other):
        """KL(self || other), float32 `[...]`. See `Distribution.kl`.

        Infinite where `other` masks an action that this one takes.
        """
        self._check_kl(other)
        probs = ops.exp(self.log_probs)
        difference = _where_positive(probs, self.log_probs - other.log_probs)
        return ops.sum(probs * difference, axis=-1)


def _where_positive(probs, x):
    return ops.where(probs > 0, x, ops.zeros_like(x))
