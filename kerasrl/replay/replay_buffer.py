"""Replay of transitions."""

import numpy as np

from kerasrl.replay.row_store import RowStore
from kerasrl.replay.stream_buffer import StreamBuffer, check_positive
from kerasrl.replay.streams import STEP, TERMINATED, TRUNCATED


class ReplayBuffer(StreamBuffer):
    """Keeps the newest transitions and draws uniformly among them.

    Each environment is a stream of rows; the capacity is split evenly among them. An
    observation is stored once, also where it is both the next one of a transition and
    the first one of another. The final observation of an episode takes a row too.

    With `n_step`, rewards are summed over `m` steps: `n_step` of them, or fewer where
    the episode ends, the stream was cut, or the newest stored step is reached. A
    learner computes `targets = rewards + discounts * bootstrap(next_observations)`,
    which is right for each of these.

    With `frame_stack`, each frame is stored once. The environment must return stacks
    of which each is the one before moved on by one frame, as gymnasium's
    `FrameStackObservation` does; what it pads the beginning of an episode with comes
    back exactly as it was. Once the oldest rows have been overwritten, the
    `frame_stack - 1` oldest rows of a stream are not sampled.

    Args:
        capacity: Integer, number of rows over all environments, rounded up to a
            multiple of `num_envs`.
        observation_space: `gymnasium.Space` of one environment. dtypes are kept
            (images stay uint8), floating ones are float32.
        action_space: `gymnasium.Space` of one environment.
        num_envs: Integer, number of environments that fill the buffer.
        n_step: Integer, the largest number of steps that rewards are summed over.
        gamma: Float in `[0, 1]`, the discount of one step.
        frame_stack: `None`; or the number of frames that every leaf of the
            observations is a stack of; or a dict that gives this number for some
            leaves of a Dict space, nested like it.
        frame_axis: 0 or -1, the axis of the observation along which frames lie.
        directory: `None` to keep the rows in main memory. Else the path of a
            directory, in which they are kept in memory-mapped scratch files.
        previous_inputs: List of some of `"previous_actions"` and
            `"previous_rewards"`, which are kept as the policy saw them, for policies
            that read them.
        extras_example: `None`, or a dict of trees of arrays without batch axis like
            the `extras` of rollouts, which are kept then.
        keep_infos: Whether the numbers in the `infos` of rollouts are kept, float32.
            A key is kept from the first rollout on that has it. Its shape is that of
            its first number; what does not fit is NaN, after a warning.

    Raises:
        MemoryError: The arrays do not fit in memory or on the disk.
        ValueError: An argument is out of range or does not fit the spaces.

    Example:

    ```python
    buffer = ReplayBuffer(100_000, envs.observation_space, envs.action_space, 8)
    buffer.add(collector.collect())
    batch = buffer.sample(64, rng=np.random.default_rng(0))
    targets = batch["rewards"] + batch["discounts"] * next_values
    ```
    """

    starts_are_steps = True

    def __init__(
        self,
        capacity,
        observation_space,
        action_space,
        num_envs=1,
        n_step=1,
        gamma=0.99,
        frame_stack=None,
        frame_axis=0,
        directory=None,
        previous_inputs=(),
        extras_example=None,
        keep_infos=False,
    ):
        storage = {
            "observation_space": observation_space,
            "action_space": action_space,
            "num_envs": num_envs,
            "frame_stack": frame_stack,
            "frame_axis": frame_axis,
            "previous_inputs": previous_inputs,
            "extras_example": extras_example,
            "keep_infos": keep_infos,
        }
        self._build(capacity, storage, n_step, gamma, directory)

    def _build(self, capacity, storage, n_step, gamma, directory, priorities=None):
        check_positive("capacity", capacity)
        check_positive("num_envs", storage["num_envs"])
        _check_returns(n_step, gamma)
        store = RowStore(int(capacity), **storage)
        store.check_length(n_step + 1)
        super().__init__(
            store, store.streams.length, directory=directory, priorities=priorities
        )
        self.set_returns(n_step, gamma)

    def set_returns(self, n_step, gamma):
        """Changes over how many steps, and how, rewards are summed in samples.

        Args:
            n_step, gamma: As for the constructor. What is stored does not depend on
                them.

        Raises:
            ValueError: An argument is out of range.
        """
        _check_returns(n_step, gamma)
        self._store.check_length(n_step + 1)
        self.n_step = int(n_step)
        self._window = np.arange(self.n_step)
        self._powers = float(gamma) ** np.arange(self.n_step + 1)

    def sample(
        self,
        batch_size,
        num_batches=None,
        rng=None,
        importance_exponent=1.0,
        scale_rewards=None,
    ):
        """Draws transitions with replacement.

        Args:
            batch_size: Integer, N.
            num_batches: Integer, K; `None` for one batch without the axis K.
            rng: `numpy.random.Generator`, the only source of randomness; `None` for a
                new one, seeded by the operating system.
            importance_exponent: Float, exponent beta of the importance weights. Equal
                probabilities have the weight one whatever it is.
            scale_rewards: `None`, or a function of an array that is applied to each
                reward before they are summed. What is kept stays as it was.

        Returns:
            Dict of new arrays with the leading axes `[N]` or `[K, N]`:

            - `observations`, `actions`, `next_observations`: trees.
            - `previous_actions`, `previous_rewards`, `next_previous_actions`,
              `next_previous_rewards`: those of `previous_inputs`, what the policy saw
              (or would have seen) besides these observations: zeros where an episode
              starts, and after its last step that very action and reward.
            - `extras`, `infos`: dicts of what acting and environments said in the
              first of the steps taken; empty if none are kept.
            - `rewards`: float32, sum of `gamma**i * reward` over the steps taken.
            - `discounts`: float32, `gamma**steps`, 0 if the last step terminated.
            - `terminated`, `truncated`: bool, of the last step.
            - `steps`: int32, from 1 to `n_step`.
            - `indices`: int64, for `update_priorities`.
            - `weights`: float32, importance weights.
            - `probabilities`: float64, with which they were drawn.

        Raises:
            ValueError: There is nothing to sample, or an argument is out of range.
        """
        ids, weights, probabilities = self._draw(
            batch_size, num_batches, rng, importance_exponent
        )
        store = self._store
        env, position = self._starts.locate(ids)
        rows = store.streams.rows(env, position)
        if self.n_step == 1:
            rewards, steps = store.rewards.take(rows), np.ones(ids.shape, np.int64)
            rewards = rewards if scale_rewards is None else scale_rewards(rewards)
        else:
            rewards, steps = self._sum_rewards(env, position, scale_rewards)
        last = store.kinds.take(store.streams.rows(env, position + (steps - 1)))
        terminated = (last & TERMINATED) != 0
        discounts = self._powers.take(steps) * ~terminated
        following = store.read_inputs(env, position + steps)
        return {
            **store.read_inputs(env, position),
            **store.read_outcomes(rows),
            **{f"next_{name}": tree for name, tree in following.items()},
            "rewards": rewards,
            "discounts": discounts.astype(np.float32),
            "terminated": terminated,
            "truncated": (last & TRUNCATED) != 0,
            "steps": steps.astype(np.int32),
            "indices": ids,
            "weights": weights,
            "probabilities": probabilities,
        }

    def _sum_rewards(self, env, position, scale):
        """Discounted sums of rewards, float32, and the number of steps taken."""
        store = self._store
        window = position[..., None] + self._window
        rows = store.streams.rows(env[..., None], window)
        # A row without a step follows every end, cut and newest step.
        is_step = (store.kinds.take(rows) & STEP) != 0
        taken = np.logical_and.accumulate(is_step, axis=-1)
        rewards = store.rewards.take(rows)
        rewards = np.where(taken, rewards if scale is None else scale(rewards), 0.0)
        sums = rewards @ self._powers[:-1]
        return sums.astype(np.float32), taken.sum(axis=-1)

    def _note_starts(self, chunk, placement):
        position, errors = placement.position, chunk.errors
        if placement.kept is None:
            length = len(chunk)
            rank = np.arange(length)[:, None]
            slots = self._starts.push(..., rank, position, length)
        else:
            valid = chunk.valid
            time, env = np.nonzero(valid)
            rank = np.cumsum(valid, axis=0) - 1
            errors = None if errors is None else errors[time, env]
            slots = self._starts.push(
                env, rank[time, env], position[time, env], valid.sum(axis=0)
            )
        self._starts.ready_all(slots.size)
        self._sampler.insert(slots, errors)


def _check_returns(n_step, gamma):
    check_positive("n_step", n_step)
    if not 0.0 <= gamma <= 1.0:
        raise ValueError(f"`gamma` must be from 0 to 1. Received: {gamma!r}.")


class PrioritizedReplayBuffer(ReplayBuffer):
    """Keeps the newest transitions and draws those with large errors more often.

    Prioritized Experience Replay, https://arxiv.org/abs/1511.05952, the proportional
    variant with a sum tree. Of `M` transitions, `i` is drawn with the probability

    `P(i) = (1 - u) p_i^a / sum_j p_j^a + u / M`, with `p_i = |error_i| + epsilon`

    and has the importance weight `(M P(i))^-beta`, divided by the largest one of its
    batch. Draws are stratified within each batch. A new transition whose error was not
    given to `add` has the largest priority so far, 1 at first, so that it is soon drawn
    once.

    Args:
        capacity, observation_space, action_space, num_envs, n_step, gamma,
            frame_stack, frame_axis, directory, previous_inputs, extras_example,
            keep_infos: As of `ReplayBuffer`.
        priority_exponent: Float `a` in `[0, 1]`; 0 draws uniformly.
        uniform_fraction: Float `u` in `[0, 1]`, the fraction that is drawn uniformly
            whatever the priorities are.
        epsilon: Positive float, added to errors so that all are drawn at times.

    Raises:
        MemoryError: The arrays do not fit in memory or on the disk.
        ValueError: An argument is out of range or does not fit the spaces.

    Example:

    ```python
    buffer = PrioritizedReplayBuffer(100_000, observation_space, action_space)
    buffer.add(rollout)
    batch = buffer.sample(64, rng=generator, importance_exponent=0.4)
    loss = mean(batch["weights"] * td_errors**2)
    buffer.update_priorities(batch["indices"], abs(td_errors))
    ```
    """

    def __init__(
        self,
        capacity,
        observation_space,
        action_space,
        num_envs=1,
        n_step=1,
        gamma=0.99,
        frame_stack=None,
        frame_axis=0,
        directory=None,
        priority_exponent=0.6,
        uniform_fraction=0.0,
        epsilon=1e-6,
        previous_inputs=(),
        extras_example=None,
        keep_infos=False,
    ):
        storage = {
            "observation_space": observation_space,
            "action_space": action_space,
            "num_envs": num_envs,
            "frame_stack": frame_stack,
            "frame_axis": frame_axis,
            "previous_inputs": previous_inputs,
            "extras_example": extras_example,
            "keep_infos": keep_infos,
        }
        priorities = {
            "exponent": priority_exponent,
            "uniform_fraction": uniform_fraction,
            "epsilon": epsilon,
        }
        self._build(capacity, storage, n_step, gamma, directory, priorities)
