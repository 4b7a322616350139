"""How agents are trained: the loop, and the environments it runs in."""

import contextlib
import inspect
import logging

import gymnasium
import numpy as np

from kerasrl import checks, workers
from kerasrl.envs import make_envs
from kerasrl.spellings import explained
from kerasrl.training import (
    asynchrony,
    behavior,
    environments,
    hooks,
    loop,
    optimizing,
    ranks,
    schedules,
    sources,
    statistics,
)
from kerasrl.training.compiled import CompiledUpdate
from kerasrl.training.epochs import plan_epochs
from kerasrl.training.evaluation import evaluate
from kerasrl.training.mixing import Mixing
from kerasrl.training.predicting import predict
from kerasrl.training.reaching import Reaching

_logger = logging.getLogger(__name__)
#: Arguments of `fit` that say how environments are made.
_MAKING = (
    *("num_envs", "env_config", "num_workers", "worker_mode", "env_timeout"),
    "cluster",
)


class Trainer(Reaching):
    """The side of `kerasrl.Agent` that trains, as `keras.Model` has one.

    Algorithms define an iteration: `iteration_length` and `learn_from`.
    """

    #: What acts in the environments of `fit`, see `training.sources`.
    source_class: type = sources.ActingSource
    #: Which of its attributes counts the steps that `fit` is told to take.
    counted = "env_steps"

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "train_iteration" in vars(cls):
            raise TypeError(
                f"{cls.__name__} defines train_iteration, which nothing calls. "
                "Rollouts are made elsewhere: define learn_from(rollout), or extend "
                "learn(rollout) of OnPolicyAgent, or remember(rollout) and "
                "learn(count) of OffPolicyAgent."
            )

    @explained
    def fit(
        self,
        env,
        steps=None,
        *,
        epochs=None,
        steps_per_epoch=None,
        num_envs=None,
        env_config=None,
        num_workers=0,
        worker_mode=None,
        env_timeout=None,
        cluster=None,
        info_keys=(),
        output=None,
        offline=None,
        offline_batch_size=None,
        offline_ratio=None,
        callbacks=None,
        verbose="auto",
        initial_epoch=0,
    ):
        """Trains the agent. Called again, it goes on where it stopped.

        One iteration (a "batch" to Keras callbacks) collects some environment steps
        and updates the policy; see the arguments of the algorithm for how many.
        Environments are reset at the start of each call.

        Args:
            env: Id or registered name, `gymnasium.Env`, function that makes one, or
                gymnasium `VectorEnv`, in which the agent acts; or an iterable of
                `kerasrl.rollouts.Rollout` that were made otherwise, each an iteration;
                or a `kerasrl.offline.Dataset`, see `docs/offline.md`.
            steps: Integer, environment steps in total over all environments, rounded
                up to whole iterations; rollouts are taken to be as long as the first.
                On a dataset, gradient steps. Give this or `epochs`. Calls on which a
                `NEXT_STEP` vector environment only resets count here, but not in
                `env_steps`.
            epochs: Integer, index of the last epoch, as in Keras. With `steps`, as many
                epochs share the iterations out evenly.
            steps_per_epoch: Integer, environment steps per epoch, rounded up to whole
                iterations. Default: 1000, at least one iteration.
            num_envs: Integer, environments stepped together. Default: 8 for an id or
                a function, 1 for an instance, its own number for a `VectorEnv`.
            env_config: Dict of arguments for making the environments.
            num_workers: Integer, processes that the environments are spread over; 0
                has them in this process. The outcome is the same. See
                `docs/workers.md`.
            worker_mode: What workers do: `"act"` and step, `"step"` only,
                `"alternate"`, two halves taking turns with the policy, or
                `"asynchronous"`, act while the agent learns. `None` is the last where
                the algorithm corrects for it, else `"act"` for policies that run in
                NumPy, else `"step"`.
            env_timeout: Float, seconds after which an environment of a worker that
                does not answer is replaced; `None` waits for ever.
            cluster: `None` has workers in processes of this machine; `"ray"`, or a
                `kerasrl.RayCluster`, on nodes of a Ray cluster. See `docs/cluster.md`.
            info_keys: Names of entries of the environments' infos to record. They are
                in `rollout.infos`, and for losses the numbers among them in
                `batch["infos"]`, float32, NaN where one is missing. Replay buffers
                keep them, 4 bytes for each number of each step.
            output: Path of a directory that whole episodes are written into as they
                happen, or `None`; see `docs/offline.md`.
            offline: A `kerasrl.offline.Dataset` to learn from as well: `custom_loss`
                finds a batch of it under `batch["offline"]` in each gradient step, or
                `offline_ratio` mixes it into replay. See `docs/offline_algorithms.md`.
            offline_batch_size: Integer, samples of that batch, or pieces of episodes
                for policies with memory. Default: as many as have 256 steps.
            offline_ratio: Float in (0, 1), the share of each batch of replay that is of
                the dataset instead.
            callbacks: List of Keras callbacks; those of `kerasrl.callbacks` have more
                hooks.
            verbose: 0 (silent), 1 (one line with a bar over all steps; where output is
                no terminal or notebook, a line from time to time), 2 (a line per epoch)
                or `"auto"`, which is 1.
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
        lengths = (steps, epochs, steps_per_epoch)
        making = (num_envs, env_config, num_workers, worker_mode, env_timeout, cluster)
        mixing = (offline, offline_batch_size, offline_ratio)
        others = (info_keys, output), mixing, callbacks, verbose, initial_epoch
        run = self._run(env, lengths, making, *others)
        for _ in run:
            pass
        return self.policy.history

    @explained
    def iterate(
        self,
        env,
        steps=None,
        *,
        epochs=None,
        steps_per_epoch=None,
        num_envs=None,
        env_config=None,
        num_workers=0,
        worker_mode=None,
        env_timeout=None,
        cluster=None,
        info_keys=(),
        output=None,
        offline=None,
        offline_batch_size=None,
        offline_ratio=None,
        callbacks=None,
        verbose="auto",
        initial_epoch=0,
    ):
        """Trains as `fit` does, and hands back control after each iteration.

        Environments, their episodes, worker processes and callbacks live on from one
        iteration to the next. In between, `foreach_env`, `workers`, `save`, `evaluate`
        and hyperparameters may be used. All ends when the loop does; where it may be
        left early, `contextlib.closing` makes sure that it ends there.

        Args:
            env, steps, epochs, steps_per_epoch, num_envs, env_config, num_workers,
                worker_mode, env_timeout, cluster, info_keys, output, offline,
                offline_batch_size, offline_ratio, callbacks, verbose, initial_epoch:
                As for `fit`.

        Yields:
            After each iteration, a dict of what it logged, `env_steps`, `iterations`,
            and the statistics of the latest episodes (see `docs/metrics.md`). After
            the last of an epoch, callbacks have seen the end of that epoch.

        Raises:
            RuntimeError: The agent is being trained already.

        Example:

        ```python
        for result in agent.iterate("CartPole-v1", steps=100_000, verbose=0):
            if result["episode_return_mean"] > 475:
                break
        ```
        """
        lengths = (steps, epochs, steps_per_epoch)
        making = (num_envs, env_config, num_workers, worker_mode, env_timeout, cluster)
        mixing = (offline, offline_batch_size, offline_ratio)
        others = (info_keys, output), mixing, callbacks, verbose, initial_epoch
        return self._results(self._run(env, lengths, making, *others))

    def _results(self, run):
        with contextlib.closing(run):
            for logs in run:
                counts = {"env_steps": self.env_steps, "iterations": self.iterations}
                yield {**logs, **self.statistics.logs(), **counts}

    def _run(
        self,
        env,
        lengths,
        making,
        recording,
        mixing,
        callbacks,
        verbose,
        initial_epoch,
    ):
        """Yields what each iteration logged; see `fit` and `iterate`."""
        making = dict(zip(_MAKING, making, strict=True))
        info_keys, output = recording
        environments.check_free(self, output)
        checks.choice("verbose", verbose, ("auto", 0, 1, 2))
        initial_epoch = checks.natural("initial_epoch", initial_epoch)
        info_keys = checks.names("info_keys", info_keys)
        envs, source = None, None
        if sources.are_recorded(env):
            sources.refuse_arguments(**making, info_keys=info_keys, output=output)
            sources.refuse_two_datasets(env, mixing)
            source = sources.of_recorded(self, env, lengths)
        else:
            mode = asynchrony.choose_mode(
                self, making["num_workers"], making["worker_mode"]
            )
            envs = self.make_environments(env, {**making, "worker_mode": mode})
        run, shown = None, contextlib.nullcontext()
        try:
            if envs is not None:
                environments.enter(self, envs, env, output)
                num_envs = envs.num_envs
                iteration = asynchrony.steps_per_iteration(self, envs)
            else:
                num_envs = source.num_envs
                iteration = source.iteration_length * num_envs
                if lengths[:2] == (None, None):
                    lengths = (source.steps, None, lengths[2])
            if mixing != (None, None, None):
                self.mixing = Mixing(self, *mixing, info_keys)
            offline = source is not None and source.is_dataset
            if not offline:
                iteration = iteration and iteration * self.replicas.num_ranks
            plan = plan_epochs(iteration, *lengths)
            shown = callbacks = hooks.CallbackHooks(self, callbacks, plan, verbose)
            if not offline:
                self.expect_steps(plan.expected_steps, num_envs)
            with self.replicas.scope(), self.replicas.errors():
                ranks.check_plan(self, plan)
                ranks.separate(self)
                self.start_offline() if offline else self.start_learning(num_envs)
                self.mixing.start()
                if envs is not None:
                    source = self.source_class(
                        self, envs, info_keys, callbacks.episode_listener
                    )
                if output is not None:
                    source.record(behavior.recorder(self, envs, output))
            self.source = source
            run = loop.run(self, source, plan, callbacks, initial_epoch)
            while True:
                # Not around the `yield`: what runs there is not ours.
                with self.replicas.scope(), self.replicas.errors():
                    logs = next(run, None)
                if logs is None:
                    return
                yield logs
        finally:
            try:
                with shown, self.replicas.scope(), self.replicas.errors():
                    if run is not None:
                        run.close()
            finally:
                environments.leave(self, envs)

    @explained
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
            previous_actions: Tree `[N, ...]`, the actions before these observations as
                `predict` returned them, for policies that take them
                (`previous_inputs=True`). `None` at the start of episodes.
            previous_rewards: float `[N]`, the rewards that came with them.
            deterministic: Whether to take the mode of the distribution rather than
                a sample. Noise that is held (`noise_steps`) goes on with `state`;
                without one, each call draws it anew.
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
        return predict(self, observations, state, previous, deterministic, seed)

    @explained
    def evaluate(
        self,
        env,
        episodes=10,
        deterministic=True,
        seed=None,
        num_envs=None,
        env_config=None,
        verbose="auto",
        output=None,
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
            verbose: 0 (silent), 1 (a bar while it runs), 2 (a line when it is done) or
                `"auto"`, which is 1 unless it runs inside `fit`.
            output: Path of a directory for these episodes, as for `fit`.

        Returns:
            Dict with `return_mean`, `return_std`, `length_mean` (environment steps)
            and `episodes`.

        Example:

        ```python
        agent.evaluate("CartPole-v1", episodes=100)["return_mean"]
        ```
        """
        checks.choice("verbose", verbose, ("auto", 0, 1, 2))
        deterministic = checks.flag("deterministic", deterministic)
        seed = checks.seed(seed)
        episodes = checks.positive_integer("episodes", episodes)
        is_instance = isinstance(env, (gymnasium.Env, gymnasium.vector.VectorEnv))
        if is_instance and env is self.fitted_env:
            raise ValueError(
                "Received the very environment that fit is stepping. Evaluate on "
                "another: an id, a function that makes one, or a second instance."
            )
        if num_envs is None and (isinstance(env, str) or inspect.isroutine(env)):
            num_envs = min(episodes, 8)
        envs = make_envs(env, num_envs, env_config)
        try:
            self.build(envs.observation_space, envs.action_space)
            return evaluate(self, envs, episodes, deterministic, seed, verbose, output)
        finally:
            envs.close()

    def expect_steps(self, steps, num_envs):
        """Told by `fit` how many environment steps are to come, before the first."""
        _logger.info(
            "Training %s on %s: %d environment steps in %d environments.",
            type(self).__name__,
            "rollouts" if self.envs is None else self.env_name,
            steps,
            num_envs,
        )

    def make_environments(self, env, making):
        """Makes the environments of `fit`.

        Args:
            env: What `fit` was given.
            making: Dict of `num_envs`, `env_config`, `num_workers`, `worker_mode`,
                `env_timeout` and `cluster`, as for `fit`.

        Returns:
            A `kerasrl.envs.Environments`.
        """
        return workers.make_environments(env, **making)

    def iteration_length(self, num_envs):
        """Returns how many steps an iteration takes in each of `num_envs`.

        `None` if that is not known before, as where it is episodes that are counted.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define iteration_length."
        )

    def start_learning(self, num_envs):
        """Makes ready to learn from rollouts that do not continue what came before.

        `fit` calls it once, before the first rollout. Extend it, with `super()`.

        Args:
            num_envs: Integer `B`, the environments that rollouts will be of.
        """
        if self.reward_scaler is not None:
            self.reward_scaler.start(num_envs)

    def start_offline(self):
        """Makes ready to learn from a dataset, as `start_learning` from rollouts."""

    def stop_learning(self):
        """Lets go of the environments, when `fit` ends however. Extend it likewise."""
        # What was published for an iteration that did not end is acted by no one.
        self.published.pop(self.iterations, None)

    def learn_from(self, rollout):
        """Learns from a rollout as one iteration of `fit` does, however it was made.

        `env_steps` and `iterations` are counted by `fit`, not here.

        Args:
            rollout: A `kerasrl.rollouts.Rollout`, `[T, B, ...]`.

        Returns:
            Dict of floats: the loss and its terms, empty if there was no update.
        """
        raise NotImplementedError(f"{type(self).__name__} must define learn_from.")

    def compiled_update(self, function):
        """Returns an update phase as one compiled call, the same one if it still holds.

        It is made anew when a hyperparameter was changed, the policy was compiled
        again, or other variables of it are trainable.

        Args:
            function: What to compile, as for `CompiledUpdate`.
        """
        update = self._compiled_update
        if update is None or update.is_outdated() or not update.runs(function):
            self.prepare_optimizer()
            update = self._compiled_update = CompiledUpdate(self, function)
        return update

    def prepare_optimizer(self):
        """Makes what training needs of the policy's optimizer, once after `compile`."""
        if not self.policy.compiled:
            self.compile()
        optimizing.build(self)
        statistics.build_metrics(self.policy)

    def metric_names(self):
        """Returns what an update logs, as far as it is known already."""
        update = self._compiled_update
        return () if update is None else update.metric_names or ()

    def scheduled_values(self):
        """Returns the current values of `scheduled`, float32 `[len(scheduled)]`.

        The compiled call makes the dict `settings` of them that `loss` takes.
        """
        return np.array(
            [schedules.current(self, name) for name in self.scheduled], np.float32
        )
