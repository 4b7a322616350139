"""The base class of all agents: the public interface and the training loop."""

import inspect
import time

import gymnasium
import keras
import numpy as np
import tensorflow as tf

from kerasrl import checkpoint
from kerasrl.agents import acting, hooks, plans, statistics, updates
from kerasrl.envs import make_envs
from kerasrl.losses import discounted_returns
from kerasrl.models import ActorCritic
from kerasrl.rollouts import Collector, RewardScaler

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Agent:
    """Base class of on-policy algorithms.

    A subclass defines `loss`, and whichever of the other stages of an iteration it
    needs, which run in this order:

    1. `collect()`: act for `rollout_length` steps in every environment.
    2. `targets(rollout)`: what to learn from them. Compiled.
    3. `update(batch, settings, minibatches)`: gradient steps on
       `loss(batch, outputs, settings)`. Compiled, in one call with the targets.

    Constructor arguments of a subclass are its hyperparameters: each is kept in an
    attribute of the same name, which is what `get_config` and checkpoints rely on.

    Args:
        policy: `None` for the default by space, a `kerasrl.models.Policy`, another
            `keras.Model` or layer to be the trunk of the default policy, or a dict of
            arguments of `kerasrl.models.ActorCritic`.
        rollout_length: Integer, steps collected in each environment per iteration.
        gamma: Float, discount factor.
        max_grad_norm: Float or `None`, bound of the global norm of the gradient.
        normalize_rewards: Whether rewards are divided by the running standard
            deviation of the discounted return, for training only.
        seed: Integer or `None`. With a seed, two runs give the same weights (weights
            of a policy made elsewhere depend on its own seed).

    Example:

    ```python
    @keras.saving.register_keras_serializable()
    class Reinforce(kerasrl.Agent):
        def loss(self, batch, outputs, settings):
            log_probs = self.policy.distribution(outputs).log_prob(batch["actions"])
            return kerasrl.losses.policy_gradient(
                log_probs, batch["returns"], batch["mask"]
            )

    Reinforce(rollout_length=64).fit("CartPole-v1", steps=10_000)
    ```
    """

    #: Whether `targets` needs values of the observations that end a truncated episode.
    uses_values = False

    #: Names of hyperparameters that may be a number, a
    #: `keras.optimizers.schedules.LearningRateSchedule` of environment steps, or a
    #: function of the progress of `fit`, from 0 to 1. `loss` gets their current values.
    scheduled: tuple[str, ...] = ()

    def __init__(
        self,
        policy=None,
        rollout_length=128,
        gamma=0.99,
        max_grad_norm=None,
        normalize_rewards=False,
        seed=None,
    ):
        self.policy = acting.make_policy(policy)
        self.rollout_length = plans.positive_integer("rollout_length", rollout_length)
        self.gamma = plans.fraction("gamma", gamma)
        self.max_grad_norm = plans.positive("max_grad_norm", max_grad_norm)
        self.normalize_rewards = normalize_rewards
        self.seed = seed
        self.rng = np.random.default_rng(seed)
        self.reward_scaler = RewardScaler(gamma) if normalize_rewards else None
        self.env_name = None
        self.env_steps = 0
        self.iterations = 0
        self.progress = 0.0
        self.num_traces = 0
        self.statistics = statistics.EpisodeStatistics()
        self.envs = None
        self.collector = None
        self._fitted_env = None
        self.jit_compile = "auto"
        self._train_function = None
        self._new_weights = None
        self._actors = {}

    # Set-up ---------------------------------------------------------------------

    def compile(
        self, optimizer=None, jit_compile="auto", run_eagerly=False, metrics=None
    ):
        """Configures training. Called with defaults by `fit` if left out.

        Args:
            optimizer: A Keras optimizer, its name, or `None` for the algorithm's
                default. The learning rate and its schedule live here.
            jit_compile: Whether updates are compiled with XLA. `"auto"` does so for
                policies without recurrence, where it doubles the speed, and does
                without if XLA cannot compile the policy.
            run_eagerly: Whether updates run line by line, for debugging.
            metrics: List of Keras metrics of the predicted values against the value
                targets, such as `["mae"]`.

        Example:

        ```python
        agent.compile(keras.optimizers.Adam(1e-3), run_eagerly=True)
        ```
        """
        if jit_compile not in (True, False, "auto"):
            raise ValueError(
                f"Received jit_compile={jit_compile!r}. Expected True, False or 'auto'."
            )
        self.policy.compile(
            optimizer=self.default_optimizer() if optimizer is None else optimizer,
            # Weighted, because filler steps of vector environments do not count.
            weighted_metrics=metrics,
            # Keras's own choice is never to use XLA on a CPU: `TrainFunction` decides.
            jit_compile=False,
            run_eagerly=run_eagerly,
        )
        self.jit_compile = jit_compile
        self._train_function = None

    def default_optimizer(self):
        """Returns the optimizer used when `compile` is given none."""
        return keras.optimizers.Adam(3e-4, epsilon=1e-5)

    def build(self, observation_space, action_space):
        """Creates the weights of the policy and its optimizer.

        `fit`, `evaluate` and loading do this. Call it to see `summary` before.

        Args:
            observation_space: `gymnasium.spaces.Space` of one environment.
            action_space: `gymnasium.spaces.Space` of one environment.

        Raises:
            ValueError: The policy was built for other spaces.
            TypeError: A space is not supported.

        Example:

        ```python
        env = gymnasium.make("CartPole-v1")
        agent.build(env.observation_space, env.action_space)
        agent.summary()
        ```
        """
        if isinstance(self.policy, ActorCritic) and self.policy.seed is None:
            self.policy.seed = self.seed
        self.policy.build_for(observation_space, action_space)
        if self.uses_values and not self.policy.has_values:
            raise ValueError(
                f"{type(self).__name__} learns from state values, but "
                f'{type(self.policy).__name__}.call does not return "values". Add a '
                "value head, or use PG(baseline=False)."
            )
        if not self.policy.compiled:
            self.compile()
        if not self.policy.optimizer.built:
            self.policy.optimizer.build(self.policy.trainable_variables)
        updates.build_metrics(self.policy)

    # Training -------------------------------------------------------------------

    def fit(
        self,
        env,
        steps=None,
        *,
        epochs=None,
        steps_per_epoch=None,
        num_envs=None,
        env_config=None,
        callbacks=None,
        verbose="auto",
        initial_epoch=0,
    ):
        """Trains the agent. Called again, it goes on where it stopped.

        One iteration (a "batch" to Keras callbacks) collects
        `rollout_length * num_envs` environment steps and updates the policy on them.
        Environments are reset at the start of each call.

        Args:
            env: Id or registered name, `gymnasium.Env`, function that makes one, or
                gymnasium `VectorEnv`.
            steps: Integer, environment steps in total over all environments, rounded
                up to whole iterations. Give this or `epochs`. Calls on which a
                `NEXT_STEP` vector environment only resets count here, but not in
                `env_steps`.
            epochs: Integer, index of the last epoch, as in Keras.
            steps_per_epoch: Integer, environment steps per epoch, rounded up to whole
                iterations. Default: 1000, at least one iteration.
            num_envs: Integer, environments stepped together. Default: 8 for an id or
                a function, 1 for an instance, its own number for a `VectorEnv`.
            env_config: Dict of arguments for making the environments.
            callbacks: List of Keras callbacks; those of `kerasrl.callbacks` have more
                hooks.
            verbose: `"auto"`, 0 (silent), 1 (progress bar) or 2 (a line per epoch).
            initial_epoch: Integer, epoch at which to start, as in Keras.

        Returns:
            A `keras.callbacks.History`. Its keys are listed in `docs/metrics.md`.

        Raises:
            ValueError: Arguments contradict each other, or the environment's spaces
                differ from those the policy was built for.
            FloatingPointError: The loss became NaN or infinite.

        Example:

        ```python
        history = kerasrl.PPO().fit("CartPole-v1", steps=100_000)
        history.history["episode_return_mean"][-1]
        ```
        """
        envs = make_envs(env, num_envs, env_config)
        try:
            self.build(envs.observation_space, envs.action_space)
            plan = plans.plan_epochs(
                self.rollout_length * envs.num_envs, steps, epochs, steps_per_epoch
            )
            callbacks = hooks.CallbackHooks(self, callbacks, plan, verbose)
            self.envs, self.env_name, self._fitted_env = envs, envs.name, env
            env_seeds = self._start_collecting(envs, callbacks.episode_listener)
            self._loop(plan, callbacks, initial_epoch, env_seeds)
        finally:
            self.envs = self.collector = self._fitted_env = None
            envs.close()
        return self.policy.history

    def _loop(self, plan, callbacks, initial_epoch, env_seeds):
        self.policy.stop_training = False
        self.policy._initial_epoch = None
        callbacks.on_train_begin()
        # After the callbacks, which may have set up the environments.
        self.collector.reset(env_seeds)
        # `keras.callbacks.BackupAndRestore` says here where to go on.
        initial_epoch = getattr(self.policy, "_initial_epoch", None) or initial_epoch
        logs = {}
        for epoch in range(initial_epoch, plan.epochs):
            self.policy.reset_metrics()
            self.statistics.start_epoch()
            self._new_weights = None
            callbacks.on_epoch_begin(epoch)
            start_time, start_steps = time.perf_counter(), self.env_steps
            mean = statistics.Mean()
            for iteration in range(plan.iterations(epoch)):
                self.progress = plan.progress(epoch, iteration)
                callbacks.on_train_batch_begin(iteration)
                batch_logs = self.train_iteration(callbacks.on_rollout_end)
                mean.add(batch_logs)
                callbacks.on_train_batch_end(iteration, batch_logs)
                if callbacks.see_batches:
                    # Somebody may have changed the weights since the update.
                    self._new_weights = None
                if self.policy.stop_training:
                    break
                self._check_finite(batch_logs["loss"])
            seconds = time.perf_counter() - start_time
            logs = {
                **updates.policy_metrics(self.policy),
                **mean.result(),
                **self.statistics.logs(),
                "env_steps": self.env_steps,
                "steps_per_second": (self.env_steps - start_steps) / seconds,
                "learning_rate": float(self.policy.optimizer.learning_rate),
            }
            callbacks.on_epoch_end(epoch, logs)
            if self.policy.stop_training:
                break
        optimizer = self.policy.optimizer
        if getattr(optimizer, "use_ema", False):
            # As Keras's own fit ends: the averages become the weights.
            optimizer.finalize_variable_values(self.policy.trainable_weights)
        callbacks.on_train_end(logs)

    def train_iteration(self, on_rollout_end=None):
        """Collects one rollout and updates the policy on it.

        Args:
            on_rollout_end: `None`, or a function that is given the rollout and
                returns the one to learn from.

        Returns:
            Dict of floats: the loss and its terms.
        """
        rollout = self.collect()
        if on_rollout_end is not None:
            rollout = on_rollout_end(rollout)
        if self.reward_scaler is not None:
            rollout.rewards = self.reward_scaler(rollout)
        logs = self._train(acting.rollout_arrays(self, rollout))
        self.iterations += 1
        # A subclass that goes on to change weights must have them read again.
        ours = type(self).train_iteration.__module__.startswith("kerasrl.agents.")
        self._new_weights = self._train_function.new_weights() if ours else None
        return logs

    def collect(self):
        """Acts for `rollout_length` steps in every environment of `fit`.

        Returns:
            A `kerasrl.rollouts.Rollout`, `[T, B, ...]`.
        """
        self.actor().refresh(self._new_weights)
        rollout = self.collector.collect()
        self.env_steps += rollout.num_steps
        self.statistics.add(self.collector.drain_episodes())
        return rollout

    def targets(self, rollout):
        """Computes what to learn from a rollout. Compiled.

        Args:
            rollout: Dict of tensors `[T, B, ...]` with the fields of a
                `kerasrl.rollouts.Rollout`.

        Returns:
            Dict to add to the batch, `[T, B, ...]`. Here `"returns"`, discounted
            returns without bootstrap at the end of the rollout or a truncation.
        """
        next_values = tf.zeros_like(rollout["rewards"])
        returns = discounted_returns(
            rollout["rewards"],
            next_values,
            rollout["terminated"],
            rollout["truncated"],
            self.gamma,
        )
        return {"returns": returns}

    def loss(self, batch, outputs, settings):
        """Computes the loss of the algorithm on a batch. Compiled.

        Args:
            batch: Dict of tensors, leading axis `[N]` (or `[B, T]` for recurrent
                policies): `observations`, `actions`, `rewards`, `mask` and what
                `targets` returned.
            outputs: What the policy returned for it.
            settings: Dict of the current values of the `scheduled` hyperparameters.

        Returns:
            Tuple of a scalar loss and a dict of scalars to log.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define loss(batch, outputs, settings)."
        )

    def update(self, batch, settings, minibatches):
        """Updates the policy on a batch. Compiled. Here, one step on all of it.

        Args:
            batch: As for `loss`.
            settings: As for `loss`.
            minibatches: What `minibatches` returned, as tensors.

        Returns:
            Dict of scalars: `"loss"` and what `loss` logs.
        """
        return updates.gradient_step(self, batch, settings)

    def _train(self, rollout):
        settings = np.array(
            [plans.current(self, name) for name in self.scheduled], np.float32
        )
        if self._train_function is None:
            self._train_function = updates.TrainFunction(self)
        return self._train_function(rollout, settings, self.minibatches(rollout))

    def minibatches(self, rollout):
        """Returns what `update` needs that is drawn outside the compiled call."""
        return ()

    def _check_finite(self, loss):
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"The loss became {loss} in iteration {self.iterations}, after "
                f"{self.env_steps} environment steps. Lower the learning rate, check "
                "the scale of rewards and observations, or train from the last "
                "checkpoint. (Add keras.callbacks.TerminateOnNaN to stop instead.)"
            )

    # Acting ---------------------------------------------------------------------

    def actor(self, deterministic=False):
        """Returns the compiled acting function, for advanced use.

        Args:
            deterministic: Whether it takes the mode of the distribution.

        Returns:
            A `kerasrl.rollouts.Actor`. Call its `refresh` after the weights changed.
        """
        name = "deterministic" if deterministic else "stochastic"
        if name not in self._actors:
            self._actors[name] = acting.build(self.policy, name)
        return self._actors[name]

    def value_function(self):
        """Returns the compiled value function; see `actor`."""
        if "value" not in self._actors:
            self._actors["value"] = acting.build(self.policy, "value")
        return self._actors["value"]

    def _start_collecting(self, envs, listener):
        seeds = self.rng.integers(2**31, size=(2, envs.num_envs)).tolist()
        generators = [np.random.default_rng(seed) for seed in seeds[0]]
        actor = self.actor()
        self.collector = Collector(
            envs, actor, self.rollout_length, generators, listener=listener
        )
        if self.reward_scaler is not None:
            self.reward_scaler.start(envs.num_envs)
        return seeds[1]

    def predict(
        self,
        observations,
        state=None,
        previous_actions=None,
        previous_rewards=None,
        deterministic=True,
        seed=None,
    ):
        """Returns actions for observations.

        Args:
            observations: Tree `[N, ...]` as in the observation space.
            state: Recurrent state `[N, ...]` from the last call, or `None` at the
                start of episodes.
            previous_actions: Tree `[N, ...]`, the actions before these observations,
                for policies that take them (`previous_inputs=True`). `None` at the
                start of episodes.
            previous_rewards: float `[N]`, the rewards that came with them.
            deterministic: Whether to take the mode of the distribution rather than
                a sample.
            seed: Integer or `None`, seed of the sample.

        Returns:
            NumPy tree of actions `[N, ...]` within the bounds of the action space;
            for a recurrent policy, a tuple of these and the new state.

        Raises:
            ValueError: The agent is not built yet, or the observations do not fit.

        Example:

        ```python
        action = agent.predict(observation[None])[0]
        ```
        """
        previous = (previous_actions, previous_rewards)
        return acting.predict(self, observations, state, previous, deterministic, seed)

    def evaluate(
        self,
        env,
        episodes=10,
        deterministic=True,
        seed=None,
        num_envs=None,
        env_config=None,
    ):
        """Runs whole episodes without learning.

        Leaves training untouched: random generators and statistics of the agent do
        not move.

        Args:
            env, num_envs, env_config: As for `fit`.
            episodes: Integer, number of episodes, shared out evenly over the
                environments so that short ones are not favoured.
            deterministic: Whether to take the mode of the distribution rather than
                a sample.
            seed: Integer or `None`, seed of environments and samples.

        Returns:
            Dict with `return_mean`, `return_std`, `length_mean` (environment steps)
            and `episodes`.

        Example:

        ```python
        agent.evaluate("CartPole-v1", episodes=100)["return_mean"]
        ```
        """
        episodes = plans.positive_integer("episodes", episodes)
        is_instance = isinstance(env, (gymnasium.Env, gymnasium.vector.VectorEnv))
        if is_instance and env is self._fitted_env:
            raise ValueError(
                "Received the very environment that fit is stepping. Evaluate on "
                "another: an id, a function that makes one, or a second instance."
            )
        if num_envs is None and (isinstance(env, str) or inspect.isroutine(env)):
            num_envs = min(episodes, 8)
        envs = make_envs(env, num_envs, env_config)
        try:
            self.build(envs.observation_space, envs.action_space)
            return acting.evaluate(self, envs, episodes, deterministic, seed)
        finally:
            envs.close()

    def foreach_env(self, function):
        """Calls a function on every environment of the running `fit`.

        Args:
            function: Called with a `gymnasium.Env`.

        Returns:
            List of what it returned, one per environment.

        Raises:
            RuntimeError: No `fit` is running.
        """
        return self._running_envs().foreach(function)

    def call_envs(self, name, *args, **kwargs):
        """Calls a method of every environment of the running `fit` by its name."""
        return self._running_envs().call(name, *args, **kwargs)

    def _running_envs(self):
        if self.envs is None:
            raise RuntimeError(
                "There are no environments outside fit. Call this from a callback."
            )
        return self.envs

    # State ----------------------------------------------------------------------

    def summary(self, **kwargs):
        """Prints the layers of the policy, as `keras.Model.summary` does."""
        self.policy.summary(**kwargs)

    def get_weights(self):
        """Returns the weights of the policy, a list of NumPy arrays."""
        return self.policy.get_weights()

    def set_weights(self, weights):
        """Sets the weights of the policy from a list of NumPy arrays."""
        self._new_weights = None
        self.policy.set_weights(weights)

    def save(self, path):
        """Writes everything needed to go on exactly here to one file.

        The file is written beside its final place and then renamed: a reader never
        sees half of it, and the previous one survives a crash.

        Args:
            path: Path, by custom with the ending `.kerasrl`.

        Returns:
            The path.

        Example:

        ```python
        agent.save("cartpole.kerasrl")
        agent = kerasrl.load("cartpole.kerasrl")
        ```
        """
        return checkpoint.save(self, path)

    def get_config(self):
        """Returns the constructor arguments as JSON-compatible data."""
        names = {}
        for parent in type(self).__mro__:
            parameters = inspect.signature(parent.__init__).parameters.values()
            kinds = {parameter.kind for parameter in parameters}
            names.update((p.name, None) for p in parameters if p.kind not in _VARIADIC)
            if inspect.Parameter.VAR_KEYWORD not in kinds:
                break  # Else the rest goes to the next class, by `**kwargs`.
        names.pop("self")
        return checkpoint.serialize_config({n: getattr(self, n) for n in names})

    @classmethod
    def from_config(cls, config):
        """Makes an agent from what `get_config` returned."""
        return cls(**checkpoint.deserialize_config(config))

    def get_state(self):
        """Returns what changes while training, besides weights, as JSON data.

        Algorithms with more state of their own extend it, and `set_state`.
        """
        state = {
            "rng": self.rng.bit_generator.state,
            "env_name": self.env_name,
            "env_steps": self.env_steps,
            "iterations": self.iterations,
            "statistics": self.statistics.get_state(),
        }
        if self.reward_scaler is not None:
            state["reward_scaler"] = self.reward_scaler.get_state()
        return state

    def set_state(self, state):
        """Restores what `get_state` returned."""
        self.rng.bit_generator.state = state["rng"]
        self.env_name = state["env_name"]
        self.env_steps = state["env_steps"]
        self.iterations = state["iterations"]
        self.statistics.set_state(state["statistics"])
        if self.reward_scaler is not None:
            self.reward_scaler.set_state(state["reward_scaler"])

    @property
    def episodes(self):
        """Number of episodes that ended in training so far."""
        return self.statistics.episodes
