"""Replay of transitions as if what was achieved had been the goal."""

import warnings

import numpy as np
import optree

from kerasrl import checks, goals
from kerasrl.replay.episodes import Episodes
from kerasrl.replay.replay_buffer import ReplayBuffer
from kerasrl.replay.streams import STEP, TERMINATED, TRUNCATED

#: What becomes the goal of a transition.
GOAL_STRATEGIES = ("future", "final", "episode")
#: Share of samples that may differ from what the environment said: of the first ones,
#: and again of those among them that are unusual, such as the few that reach a goal.
_TOLERATED = 0.01


class HindsightReplayBuffer(ReplayBuffer):
    """Keeps the newest transitions; most are drawn with a goal that was achieved.

    Hindsight Experience Replay, https://arxiv.org/abs/1707.01495. Observations are
    dicts with `"observation"`, `"achieved_goal"` and `"desired_goal"`, as those of
    gymnasium-robotics. Transitions are stored as they were. Of those drawn, each has
    with the probability `n_sampled_goal / (n_sampled_goal + 1)` another goal put in
    place of the desired one, in its observation and the next, and its rewards computed
    anew:

    - `"future"`: what was achieved after a step of the same episode, from this very
      step on, all with the same probability.
    - `"final"`: what was achieved with the last step of the episode.
    - `"episode"`: what was achieved after any step of the episode.

    An episode counts as far as it is stored: one that still runs ends with the newest
    observation, and one whose oldest steps were overwritten begins after them. Goals
    never come from beyond the bounds of an episode.

    With `n_step`, the reward of each of the steps that are summed is computed for the
    new goal; the sum ends early with a step that would have terminated the episode.

    Whether a step terminates for another goal is what `compute_terminated` says; it is
    then asked about all relabelled steps, and no other termination counts for them.
    Without it, steps terminate if they did. `truncated` always stays as it was.

    Args:
        capacity, observation_space, action_space, num_envs, n_step, gamma,
            frame_stack, frame_axis, directory, extras_example, keep_infos: As of
            `ReplayBuffer`.
        previous_inputs: As of `ReplayBuffer`, without `"previous_rewards"`, which
            would be those of another goal.
        goal_selection_strategy: `"future"`, `"final"` or `"episode"`.
        n_sampled_goal: Number of at least 0, how many transitions with another goal
            there are for each with its own. 0 leaves all as they are.
        compute_reward: Function of achieved goals `[M, ...]`, desired goals `[M, ...]`
            and infos, a dict of arrays `[M, ...]` of those that are kept, to rewards
            `[M]`; one that returns a single number is called for each step. `None`
            for the environment's own, which agents set in `fit`.
        compute_terminated: Function of the same, to bools `[M]`, or `None`.

    Raises:
        MemoryError: The arrays do not fit in memory or on the disk.
        ValueError: An argument is out of range or does not fit the spaces, or there
            are no goals in the observations.

    Example:

    ```python
    env = kerasrl.testing.BitFlippingEnv()
    buffer = HindsightReplayBuffer(
        100_000, env.observation_space, env.action_space, 8,
        compute_reward=env.compute_reward,
    )
    buffer.add(collector.collect())
    batch = buffer.sample(64, rng=np.random.default_rng(0))
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
        goal_selection_strategy="future",
        n_sampled_goal=4,
        compute_reward=None,
        compute_terminated=None,
        previous_inputs=(),
        extras_example=None,
        keep_infos=False,
    ):
        goals.check_space(observation_space)
        checks.choice(
            "goal_selection_strategy", goal_selection_strategy, GOAL_STRATEGIES
        )
        wanted = checks.positive("n_sampled_goal", n_sampled_goal, zero=True)
        if "previous_rewards" in previous_inputs:
            raise ValueError(
                "Received previous_inputs with 'previous_rewards' for hindsight "
                "replay. The reward before a step would be that of another goal: use "
                "a policy that does not read it, or a ReplayBuffer."
            )
        super().__init__(
            capacity,
            observation_space,
            action_space,
            num_envs,
            n_step,
            gamma,
            frame_stack,
            frame_axis,
            directory,
            previous_inputs,
            extras_example,
            keep_infos,
        )
        self.goal_selection_strategy = goal_selection_strategy
        self.compute_reward = compute_reward
        self.compute_terminated = compute_terminated
        self._share = wanted / (wanted + 1.0)
        observations = self._store.inputs.tree("observations")
        self._achieved = observations.part("achieved_goal")
        self._desired = observations.part("desired_goal")
        self._episodes = Episodes(self._store)
        self.check_again()

    def check_again(self):
        """Has the next samples compared with what the functions say of their goals.

        Call it where others are asked than before.
        """
        self._is_checked = False
        self._usual_reward = None

    def sample(
        self,
        batch_size,
        num_batches=None,
        rng=None,
        importance_exponent=1.0,
        scale_rewards=None,
    ):
        """Draws transitions with replacement, most of them with another goal.

        Args:
            batch_size, num_batches, rng, importance_exponent, scale_rewards: As of
                `ReplayBuffer.sample`.

        Returns:
            Dict of new arrays as of `ReplayBuffer.sample`. `extras` and `infos` are
            what acting and environments said of the goal that there was.

        Raises:
            ValueError: There is nothing to sample, an argument is out of range, or
                `compute_reward` is missing or returns something else than numbers
                `[M]`.
        """
        rng = np.random.default_rng() if rng is None else rng
        batch = super().sample(
            batch_size, num_batches, rng, importance_exponent, scale_rewards
        )
        chosen = np.nonzero(rng.random(batch["indices"].shape) < self._share)
        if chosen[0].size:
            if not self._is_checked:
                self._check_answers(batch["indices"].reshape(-1))
            self._relabel(batch, chosen, rng, scale_rewards)
        return batch

    def set_state(self, state, arrays):
        super().set_state(state, arrays)
        self._episodes = Episodes(self._store)

    def _relabel(self, batch, chosen, rng, scale_rewards):
        """Writes transitions with other goals over some of a batch.

        Args:
            batch: Dict from `ReplayBuffer.sample`.
            chosen: Tuple of integer arrays `[M]`, which of them.
            rng: `numpy.random.Generator`.
            scale_rewards: As of `sample`.
        """
        store = self._store
        env, position = self._starts.locate(batch["indices"][chosen])
        goal = self._read(self._achieved, env, self._draw_goals(env, position, rng))
        window = position[:, None] + self._window
        kinds = store.kinds.take(store.streams.rows(env[:, None], window))
        taken = np.logical_and.accumulate((kinds & STEP) != 0, axis=1)
        which, ahead = np.nonzero(taken)
        asked = env[which], window[which, ahead]
        desired = optree.tree_map(lambda leaf: leaf[which], goal)
        rewards = np.zeros(taken.shape)
        rewards[which, ahead] = self._ask("compute_reward", *asked, desired)
        terminated = (kinds & TERMINATED) != 0
        if self.compute_terminated is not None:
            terminated[which, ahead] = self._ask("compute_terminated", *asked, desired)
        # A step that terminates is the last one.
        taken[:, 1:] &= ~np.logical_or.accumulate(terminated, axis=1)[:, :-1]
        steps = taken.sum(axis=1)
        last = np.arange(len(steps)), steps - 1
        if scale_rewards is not None:
            rewards = scale_rewards(rewards)
        discounts = self._powers.take(steps) * ~terminated[last]
        changed = np.flatnonzero(steps != batch["steps"][chosen])
        where = tuple(index[changed] for index in chosen)
        following = store.read_inputs(env[changed], (position + steps)[changed])
        for name, tree in following.items():
            _write(batch[f"next_{name}"], where, tree)
        for name in ("observations", "next_observations"):
            _write(batch[name]["desired_goal"], chosen, goal)
        batch["rewards"][chosen] = np.where(taken, rewards, 0.0) @ self._powers[:-1]
        batch["discounts"][chosen] = discounts
        batch["terminated"][chosen] = terminated[last]
        batch["truncated"][chosen] = (kinds[last] & TRUNCATED) != 0
        batch["steps"][chosen] = steps

    def _draw_goals(self, env, position, rng):
        """Rows in which what was achieved becomes the goal, of the same episodes."""
        first, last = self._episodes.locate(env, position)
        if self.goal_selection_strategy == "final":
            return last
        # What was there before the first step was not achieved by any.
        before = position if self.goal_selection_strategy == "future" else first
        return rng.integers(before, last) + 1

    def _read(self, part, env, position):
        return self._store.read_from(part, env, position)

    def _ask(self, name, env, position, desired):
        """What a function says of steps, if something else had been desired.

        Args:
            name: `"compute_reward"` or `"compute_terminated"`.
            env, position: Integer arrays `[M]`, rows with a step.
            desired: Tree `[M, ...]`.

        Returns:
            Array `[M]`.
        """
        function, store = getattr(self, name), self._store
        if function is None:
            raise ValueError(
                f"This buffer has no {name}. Give it one: agents take it from the "
                "environment, or with replay={'compute_reward': function}."
            )
        achieved = self._read(self._achieved, env, position + 1)
        rows = store.streams.rows(env, position)
        infos = {} if store.infos is None else store.infos.read(rows)
        return goals.ask(name, function, achieved, desired, infos)

    def _check_answers(self, ids):
        """Warns if, for goals that there were, answers differ from what happened.

        It is done with the first samples, and goes on until one of them has another
        reward than most: what is wrong with success alone shows there only.
        """
        env, position = self._starts.locate(ids)
        rewards = self._store.rewards.take(self._store.streams.rows(env, position))
        if self._usual_reward is None:
            values, counts = np.unique(rewards, return_counts=True)
            self._usual_reward = values[counts.argmax()]
            chosen = slice(None)
        else:
            chosen = rewards != self._usual_reward
        env, position, rewards = env[chosen], position[chosen], rewards[chosen]
        unusual = rewards != self._usual_reward
        self._is_checked = bool(unusual.any())
        if not len(rewards):
            return
        rows = self._store.streams.rows(env, position)
        desired = self._read(self._desired, env, position)
        happened = {
            "compute_reward": rewards,
            "compute_terminated": (self._store.kinds.take(rows) & TERMINATED) != 0,
        }
        for name, expected in happened.items():
            if getattr(self, name) is None and name != "compute_reward":
                continue
            answer = self._ask(name, env, position, desired)
            wrong = ~np.isclose(answer, expected, rtol=1e-3, atol=1e-5)
            shares = [wrong[rows].mean() for rows in (..., unusual) if wrong[rows].size]
            if max(shares) > _TOLERATED:
                index = np.flatnonzero(wrong)[0]
                warnings.warn(
                    f"{name} says something else than the environment, for the goals "
                    f"that it had itself: {answer[index]} where it was "
                    f"{expected[index]}, and so in {np.count_nonzero(wrong)} of "
                    f"{len(wrong)} steps. Transitions with other goals will not go "
                    "with those that happened. Wrappers and callbacks that change "
                    "rewards must change what compute_reward returns; an info that it "
                    "reads must be among the info_keys of fit.",
                    stacklevel=2,
                )


def _write(tree, where, values):
    for leaf, value in zip(
        optree.tree_leaves(tree), optree.tree_leaves(values), strict=True
    ):
        leaf[where] = value
