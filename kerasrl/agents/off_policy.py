"""The iteration of off-policy algorithms: collect, remember, sample, learn."""

import math
from functools import partial

import numpy as np
import tensorflow as tf

from kerasrl import checks
from kerasrl.agents import buffers, hindsight, offline
from kerasrl.agents.agent import Agent
from kerasrl.replay import GOAL_STRATEGIES
from kerasrl.training import hyperparameters, minibatches, passes, reading, schedules
from kerasrl.training.asynchrony import without_past
from kerasrl.training.gradients import gradient_step
from kerasrl.training.hyperparameters import Hyperparameter
from kerasrl.training.statistics import ReplayCounts, count_samples
from kerasrl.training.target_network import TargetNetwork


class OffPolicyAgent(Agent):
    """Base class of algorithms that learn from a replay buffer.

    A subclass defines `loss`, and whichever other stages of an iteration it needs,
    which run in this order:

    1. `remember(rollout)`: the replay buffer keeps a few steps of every environment.
    2. `sample(num_batches)`: draw the batches of all gradient steps that are due.
    3. `update(batch, settings)`: one gradient step on `loss(batch, outputs,
       settings)`. Compiled; all steps that are due run in one call. The target network
       follows after each.

    Args:
        policy: Depends on the algorithm; `None` for its default.
        gamma: Float, discount factor.
        n_step: Integer, rewards summed before the bootstrap.
        buffer_size: Integer, environment steps that the replay buffer keeps.
        batch_size: Integer, samples per gradient step.
        learning_starts: Integer, environment steps that the replay buffer has seen
            before the first update. Actions are random in the first so many steps of
            training; with a buffer that is empty again, as after loading without it,
            they are the policy's.
        train_every: Integer, environment steps (over all environments) between
            updates.
        gradient_steps: Integer, gradient steps per update.
        updates_per_call: Integer, gradient steps that run in one compiled call. The
            environment steps they are due for are taken first, so the ratio of gradient
            to environment steps is the same, and the policy that acts is at most as
            many updates old. More makes training faster; 1 updates after every step.
            Rounded up to what the number of environments allows: with eight, which
            `fit` has by default, a gradient step for each environment step comes to 8
            in a call.
        tau: Float, share by which the target network moves at each of its updates.
        target_update_interval: Integer, environment steps between updates of the
            target network (it can follow once per gradient step at most).
        prioritized: Whether samples are drawn in proportion to their last error.
        importance_exponent: Float or schedule, with `prioritized` how far the bias of
            that is corrected, from 0 (not) to 1 (fully).
        hindsight: `None`; or `"future"`, `"final"` or `"episode"`, to learn also from
            goals that were achieved: see `kerasrl.replay.HindsightReplayBuffer`.
        replay: `None`, or a dict of further arguments of
            `kerasrl.replay.ReplayBuffer` (`frame_stack`, `directory`),
            `kerasrl.replay.PrioritizedReplayBuffer` (`priority_exponent`) or
            `kerasrl.replay.HindsightReplayBuffer` (`n_sampled_goal`).
        overlap: Whether to collect and to update at the same time, in two threads. An
            update then learns from what the iterations before it collected.
        max_grad_norm: As for `kerasrl.Agent`.
        normalize_rewards: Whether rewards are divided by the running standard deviation
            of the discounted return, and clipped to 10 of them, each before they are
            summed over `n_step`. Those in the replay buffer stay as they are.
        seed: Integer or `None`.

    Example:

    ```python
    agent = kerasrl.DQN(updates_per_call=32)
    agent.fit("CartPole-v1", steps=50_000)
    ```
    """

    scheduled: tuple[str, ...] = ()

    kinds = {
        "n_step": Hyperparameter(checks.positive_integer),
        "buffer_size": Hyperparameter(checks.positive_integer, "replay"),
        "batch_size": Hyperparameter(checks.positive_integer, "now"),
        "learning_starts": Hyperparameter(checks.natural, "now"),
        "train_every": Hyperparameter(checks.positive_integer, "fit"),
        "gradient_steps": Hyperparameter(checks.positive_integer, "fit"),
        "updates_per_call": Hyperparameter(checks.positive_integer, "fit"),
        # A target network that never moves would be a mistake.
        "tau": Hyperparameter(partial(checks.fraction, zero=False)),
        "target_update_interval": Hyperparameter(checks.positive_integer, "now"),
        "prioritized": Hyperparameter(checks.flag, "replay"),
        "importance_exponent": Hyperparameter(schedules.share, "now"),
        "hindsight": Hyperparameter(
            partial(checks.choice, choices=(None, *GOAL_STRATEGIES)), "replay"
        ),
        "replay": Hyperparameter(partial(checks.mapping, optional=True), "replay"),
        "overlap": Hyperparameter(checks.flag, "now"),
    }

    needs_all_finals = True
    off_policy = True

    reader_arguments = offline.transition_arguments
    learn_batches = offline.learn_transitions

    #: Whether the algorithm learns from sequences, and so can have recurrent policies.
    learns_sequences = False
    samples_per_batch = property(lambda self: self.batch_size)

    def __init__(
        self,
        policy=None,
        gamma=0.99,
        n_step=1,
        buffer_size=100_000,
        batch_size=64,
        learning_starts=1_000,
        train_every=1,
        gradient_steps=1,
        updates_per_call=8,
        tau=0.005,
        target_update_interval=1,
        prioritized=False,
        importance_exponent=0.4,
        hindsight=None,
        replay=None,
        overlap=False,
        max_grad_norm=None,
        normalize_rewards=False,
        seed=None,
    ):
        super().__init__(policy, gamma, max_grad_norm, normalize_rewards, seed)
        self.buffer = None
        self.previous_inputs = []  # Those that the policy reads and replay keeps.
        self.n_step = n_step
        self.buffer_size = buffer_size
        self.batch_size = batch_size
        self.learning_starts = learning_starts
        self.train_every = train_every
        self.gradient_steps = gradient_steps
        self.updates_per_call = updates_per_call
        self.tau = tau
        self.target_update_interval = target_update_interval
        self.prioritized = prioritized
        self.importance_exponent = importance_exponent
        self.hindsight = hindsight
        self.replay = replay
        self.overlap = overlap
        self.warned_of_rewards = False
        self._learns = False
        self._buffer_began = self._steps_due = 0
        self._counts = ReplayCounts()
        self.updates = 0
        self.target = None
        self._normalize = None

    # Set-up ---------------------------------------------------------------------

    def check_hyperparameters(self):
        super().check_hyperparameters()
        if self.batch_size > self.buffer_size:
            raise ValueError(
                f"Received batch_size={self.batch_size} with buffer_size="
                f"{self.buffer_size}. A batch cannot be larger than what is kept."
            )
        hindsight.check(self)

    def refuse_change(self, name, value):
        super().refuse_change(name, value)
        if hyperparameters.effect_of(self, name) == "replay" and self.buffer:
            hyperparameters.refuse(self, name, value, "replay")

    def apply_change(self, name, before):
        if hyperparameters.effect_of(self, name) == "replay":
            self.buffer = None  # It is empty, else this was refused.
            self._actors.clear()  # What acts may record another thing for it.
        if name in ("gamma", "n_step"):
            buffers.set_returns(self)
        super().apply_change(name, before)

    def compile(self, *args, metrics=None, **kwargs):
        if metrics:
            raise ValueError(
                f"Received metrics={metrics!r}. {type(self).__name__} has no one value "
                "to compare with a target: return what you want to see from the "
                "policy's custom_metrics, or look at the logged td_error."
            )
        super().compile(*args, **kwargs)

    def build(self, observation_space, action_space):
        super().build(observation_space, action_space)
        if self.policy.is_recurrent and not self.learns_sequences:
            raise ValueError(
                f"{type(self).__name__} learns from single steps, and the policy has "
                "recurrent state. Leave its cell out, or use kerasrl.R2D2 or "
                "kerasrl.DDPG, which learn from sequences."
            )
        if self.target is None:
            self.previous_inputs = reading.previous_inputs_read(self.policy)
            self.follow(self.target_sources())

    def target_sources(self):
        """Returns the variables that the target network follows."""
        return self.policy.trainable_variables

    def follow(self, variables):
        """Makes the target network of variables; those it has keep their copies."""
        self.target = TargetNetwork(variables, self.target if self.updates else None)
        self._first_weights = self.target.fingerprint()
        self._compiled_update = None

    def prepare_optimizer(self):
        super().prepare_optimizer()
        if self.target is not None and not self.target.covers(self.target_sources()):
            self.follow(self.target_sources())

    def weights_were_set(self):
        super().weights_were_set()
        if self.target is not None:
            self.target.copy()

    @property
    def own_variables(self):
        return [] if self.target is None else self.target.variables

    make_buffer = buffers.make

    def start_learning(self, num_envs):
        made = buffers.make_if_needed(self, num_envs)
        if made is not None:
            self.buffer, self._buffer_began = made, self.env_steps
        hindsight.ask_environments(self)
        self.start_offline()
        # Episodes that ran before do not go on.
        self.buffer.cut()
        self._learns = False
        super().start_learning(num_envs)

    def start_offline(self):
        if self.updates == 0 and self._first_weights != self.target.fingerprint():
            # Whatever set them, such as the layers of a network trained elsewhere.
            self.target.copy()

    def stop_learning(self):
        super().stop_learning()
        hindsight.forget_environments(self)

    def expect_steps(self, steps, num_envs):
        super().expect_steps(steps, num_envs)
        reading.warn_of_no_learning(self, steps)

    # The iteration --------------------------------------------------------------

    def iteration_length(self, num_envs):
        # The fewest steps that make whole updates due, times what fills a call.
        fewest = self.train_every // math.gcd(
            self.train_every, num_envs * self.gradient_steps
        )
        wanted = self.updates_per_call * self.train_every / self.gradient_steps
        return fewest * max(1, math.ceil(wanted / (fewest * num_envs)))

    def num_updates(self, num_envs):
        """Returns how many gradient steps one compiled call takes."""
        steps = self.iteration_length(num_envs) * num_envs
        return steps * self.gradient_steps // self.train_every

    def updates_due(self, num_steps=None):
        """Counts steps, and returns how many gradient steps, whole calls, are due.

        Args:
            num_steps: Integer, its `T * B` steps, fillers too; those of an iteration if
                `None`. What makes no whole call waits for the next.
        """
        if not self._may_learn():
            return 0
        num_envs = self.buffer.num_envs
        if num_steps is None:
            num_steps = self.iteration_length(num_envs) * num_envs
        num_updates = self.num_updates(num_envs)
        self._steps_due += num_steps * self.gradient_steps
        self._counts.steps += num_steps
        calls, self._steps_due = divmod(self._steps_due, num_updates * self.train_every)
        return calls * num_updates

    def learn_from(self, rollout):
        self.remember(rollout)
        # Updates are due for steps: there are none if all workers were lost.
        if rollout.num_steps == 0 and self.replicas.num_ranks == 1:
            return {}
        return self.learn(self.updates_due(rollout.valid.size))

    def remember(self, rollout):
        """Puts a rollout into the replay buffer.

        Args:
            rollout: A `kerasrl.rollouts.Rollout`, `[T, B, ...]`, that goes on where the
                last one stopped, by whatever policy it was acted.
        """
        reading.check_kept(self, rollout)
        if self.reward_scaler is not None:
            self.reward_scaler(rollout)
        reading.warn_of_rewards(self, rollout.rewards)
        buffers.add(self, rollout)
        if self._normalize is None:
            self._normalize = passes.normalizer(self)
        self._normalize(rollout)

    def first_errors(self, rollout):
        """Returns absolute errors, first priorities of the steps of a rollout.

        Float `[T, B]`, NaN where acting did not know one; `None`, as here, if nowhere.
        """
        return None

    def learn(self, count):
        """Takes gradient steps on samples of the replay buffer.

        Args:
            count: Integer, gradient steps, whole calls: a multiple of
                `num_updates(agent.buffer.num_envs)`.

        Returns:
            Dict of floats: the loss and its terms, empty if there was no update.
        """
        return self.prepare_learning(count)()

    def prepare_learning(self, count):
        """Draws what `learn` learns from; returns a function that does the rest."""
        before = update = self._compiled_update
        num_updates = self.num_updates(self.buffer.num_envs)
        if len(self.buffer) > 0:
            update = self.compiled_update(self._updates)
            if update is not before:
                # Without this, the first epochs would not log all that later ones do.
                beside = self.mixing.example(num_updates)
                update.trace(*buffers.example_batches(self), **beside)
        if count == 0:
            return dict
        indices, batches = buffers.draw(self, count)
        offline = self.mixing.draw(count)
        first, self.updates = self.updates, self.updates + len(indices)
        self._counts.samples += count_samples(self, indices)
        values, due = self.scheduled_values(), self.due(np.arange(first, self.updates))

        def learn():
            logs = []
            for start in range(0, len(indices), num_updates):
                rows = slice(start, start + num_updates)
                now, now_due, beside = minibatches.rows((batches, due, offline), rows)
                logs.append(update(now, values, now_due, **beside))
                # Where the loss is no number, that is what is reported.
                if self.prioritized and math.isfinite(logs[-1]["loss"]):
                    errors = update.outputs.numpy()
                    stale = self.buffer.update_priorities(indices[rows], errors)
                    self._counts.stale += stale or 0
            means = {name: sum(x[name] for x in logs) / len(logs) for name in logs[0]}
            return {**means, "gradient_steps": float(len(indices))}

        return learn

    def drain_logs(self):
        counts, self._counts = self._counts, ReplayCounts()
        return {**super().drain_logs(), **counts.logs(self.prioritized)}

    def example_update(self):
        if self.hindsight is not None:
            return None  # There is nobody to ask for rewards yet.
        with buffers.example(self):
            return self._updates, buffers.example_batches(self)

    def _may_learn(self):
        if not self._learns:
            # Counted anew where a buffer was left out of a checkpoint.
            steps = self.env_steps - self._buffer_began
            ready = steps >= self.learning_starts and len(self.buffer) > 0
            # All ranks update, or none.
            self._learns = all(self.replicas.gather_data(ready))
        return self._learns

    def sample(self, num_batches):
        """Draws the batches of several gradient steps.

        Args:
            num_batches: Integer `K`.

        Returns:
            Dict of arrays `[K, N, ...]`; see `kerasrl.replay.ReplayBuffer.sample`.
        """
        arguments = {}
        if self.prioritized:
            exponent = schedules.current(self, "importance_exponent")
            arguments["importance_exponent"] = exponent
        if self.reward_scaler is not None:
            arguments["scale_rewards"] = self.reward_scaler.scale
        return self.buffer.sample(
            self.samples_per_batch, num_batches, rng=self.rng, **arguments
        )

    def update(self, batch, settings):
        """Takes one gradient step. Compiled.

        Args:
            batch: Dict of tensors `[N, ...]`, one batch of `sample`.
            settings: Dict of the current values of the `scheduled` hyperparameters, and
                of what `due` says of this step.

        Returns:
            Dict of scalars to log, and `"td_errors"`, float32 `[N]`, which become
            priorities.
        """
        return gradient_step(self, batch, settings)

    def loss(self, batch, outputs, settings):
        """Computes the loss of the algorithm on a batch. Compiled.

        Args:
            batch: As for `update`. Its dicts `"extras"` (what else `act` returned) and
                `"infos"` (of `fit(info_keys=...)`) are of the first of n steps.
            outputs: What the policy returned for the batch; for the observations that
                followed, call `kerasrl.agents.next_outputs(self.policy, batch)`.
            settings: As for `update`.

        Returns:
            Tuple of a scalar loss and a dict of scalars to log, with `"td_errors"`,
            float32 `[N]`, if the algorithm can learn from prioritized replay.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define loss(batch, outputs, settings)."
        )

    def _updates(self, batches, scheduled_values, due):
        settings = dict(zip(self.scheduled, tf.unstack(scheduled_values), strict=True))
        # Sequences have rows without a step; single steps all count.
        valid = batches.get("valid", tf.ones_like(batches["weights"]))
        batches = {**batches, "mask": tf.cast(valid, "float32")}

        def step(number):
            batch, now = tf.nest.map_structure(lambda x: x[number], (batches, due))
            metrics = self.update(batch, {**settings, **now})
            # By nothing rather than not at all: a branch copies what it may change.
            self.target.follow(tf.where(now["update_target"], self.tau, 0.0))
            errors = metrics.pop("td_errors", None)
            return metrics, buffers.checked_errors(self, errors)

        count, *shape = batches["weights"].shape
        keep_shape = tuple(shape) if self.prioritized else None
        return minibatches.repeat(count, step, keep_shape=keep_shape)

    def due(self, numbers):
        """Says what else happens in gradient steps.

        Args:
            numbers: Integer array `[K]`, how many gradient steps came before each.

        Returns:
            Dict of bool arrays `[K]`, entries of the `settings` of each step. Here
            `"update_target"`, whether the target network follows after it.
        """
        return {"update_target": self.target_due(numbers, numbers + 1)}

    def target_due(self, before, after):
        """Whether an interval of the target network ended between gradient steps.

        Args:
            before, after: Integer arrays `[K]`, numbers of gradient steps.

        Returns:
            Bool array `[K]`.
        """
        env_steps = np.array([before, after]) * self.train_every
        before, after = env_steps // self.gradient_steps // self.target_update_interval
        return after > before

    # State ----------------------------------------------------------------------

    def get_state(self):
        state = super().get_state()
        state.update(updates=self.updates, steps_due=self._steps_due)
        if self.buffer is not None:
            state["num_envs"] = self.buffer.num_envs
            state["buffer"] = self.buffer.get_state()
            state["buffer_began"] = self._buffer_began
        return state

    def get_arrays(self):
        arrays = super().get_arrays()
        return arrays if self.buffer is None else arrays | self.buffer.get_arrays()

    def set_state(self, state, arrays):
        super().set_state(state, arrays)
        self.updates = state["updates"]
        # Files that were written before have neither this nor `buffer_began`.
        self._steps_due = state.get("steps_due", 0)
        if "buffer" in state and without_past(arrays):
            self.buffer = buffers.restore(self, state, arrays)
            self._buffer_began = state.get("buffer_began", 0)
