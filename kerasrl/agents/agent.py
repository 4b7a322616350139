"""The base class of all agents."""

import keras
import numpy as np

from kerasrl import checks, distribute
from kerasrl.models import ActorCritic, Policy
from kerasrl.models.making import make_policy
from kerasrl.optimizers import Adam
from kerasrl.rollouts import RewardScaler
from kerasrl.spellings import explained
from kerasrl.training import (
    acting,
    asynchrony,
    datasets,
    hyperparameters,
    mixing,
    saving,
    statistics,
)
from kerasrl.training.hyperparameters import Configurable, Hyperparameter
from kerasrl.training.parts import Replaceable
from kerasrl.training.trainer import Trainer


class Agent(Trainer, Replaceable, Configurable):
    """What all agents have in common: the public interface and the training loop.

    Algorithms derive from `kerasrl.OnPolicyAgent`, which learns from each rollout
    once, or from `kerasrl.OffPolicyAgent`, which learns from a replay buffer. Those
    define an iteration: `iteration_length` and `learn_from`.

    Constructor arguments of a subclass are its hyperparameters: each is kept in an
    attribute of the same name, which is what `get_config` and checkpoints rely on. One
    that is set later takes effect in the next iteration, or is refused; `kinds` says
    which, and how each is checked (see `kerasrl.agents.Hyperparameter`).

    Args:
        policy: `None` for the algorithm's default, a policy, another `keras.Model` or
            layer to be the trunk of the default policy, the name of either (see
            `kerasrl.register_model`), or a dict of arguments of the default.
        gamma: Float, discount factor.
        max_grad_norm: Float or `None`, bound of the global norm of the gradient; where
            critics are networks of their own, of their gradient and that of the
            policy, each for itself.
        normalize_rewards: Whether rewards are divided by the running standard
            deviation of the discounted return, for training only.
        seed: Integer or `None`. With a seed, two runs give the same weights (weights
            of a policy made elsewhere depend on its own seed).
    """

    #: Class that policies must derive from, and that of the policy made by default.
    policy_base: type = Policy
    default_policy: type = ActorCritic

    #: Whether the algorithm needs the values that the policy's `call` returns.
    uses_values = False

    #: Whether rollouts keep the parameters of the distributions that actions were drawn
    #: from, for algorithms that compare the policy that acted with what it has become.
    keeps_distribution = False

    #: Methods that the policy's distribution must have.
    distribution_needs: tuple[str, ...] = ()

    #: Whether rollouts must have the last observation of every episode, and not only
    #: of those that were cut off.
    needs_all_finals = False

    #: Whether updates run while the next rollout is collected.
    overlap = False

    #: Whether what other policies acted may be learnt from as well.
    off_policy = False

    #: Whether the algorithm corrects for weights that have moved on since they acted.
    #: Its workers then act while it learns, unless it is `synchronous`; acting that is
    #: in step with learning may be by the weights of `lag` iterations ago.
    asynchronous = False
    synchronous = True
    lag = 0
    #: Of how many workers' fragments an update learns; `None` for half of the workers.
    fragments_per_update = 1

    #: Whether `published` keeps, by version, the values of the policy's trainable
    #: variables by which somebody still acts, or acted what is not learnt yet.
    keeps_published = False

    #: Whether acting says how probable actions were, for those who write that down.
    records_log_probs = False

    #: Whether it is rollouts that `learn_from` takes, which callbacks see before.
    learns_from_rollouts = True

    #: Names of hyperparameters that may be a number, a
    #: `keras.optimizers.schedules.LearningRateSchedule` of environment steps, or a
    #: function of the progress of `fit`, from 0 to 1. `loss` gets their current values.
    scheduled: tuple[str, ...] = ()

    kinds = {
        "gamma": Hyperparameter(checks.fraction),
        "max_grad_norm": Hyperparameter(checks.positive),
        "normalize_rewards": Hyperparameter(checks.flag, "now"),
        "seed": Hyperparameter(lambda _, value: checks.seed(value), "never"),
    }

    def __init__(
        self,
        policy=None,
        gamma=0.99,
        max_grad_norm=None,
        normalize_rewards=False,
        seed=None,
    ):
        self.replicas = distribute.current()
        #: Whether random generators are those of this rank already.
        self.knows_its_rank = False
        self.policy = policy
        self.gamma = gamma
        self.max_grad_norm = max_grad_norm
        self.normalize_rewards = normalize_rewards
        self.seed = seed
        self.rng = np.random.default_rng(self.seed)
        self.reward_scaler = self._make_reward_scaler()
        self.env_name = None
        #: How observations stack frames, where environments say so; see `Environments`.
        self.frames = None
        self.env_steps = 0
        self.iterations = 0
        self.progress = 0.0
        self.num_traces = 0
        self.statistics = statistics.EpisodeStatistics()
        self.tally = statistics.Tally(self)
        #: What `fit` learns from while it runs, and the environments it acts in.
        self.source = None
        self.envs = None
        self.fitted_env = None
        #: How far a dataset was read, see `training.datasets`; `None` if none was.
        self.reading = None
        #: A dataset beside what `fit` collects, while it runs, and how far it was read.
        self.mixing, self.offline_reading = mixing.Unmixed(), None
        self.jit_compile = "auto"
        self._compile_arguments = {}
        self._compiled_update = None
        self._actors = {}
        self.schedules = {}
        #: Weights of acting and trainable variables, dicts from versions to lists of
        #: arrays; see `training.asynchrony`.
        self.past_weights, self.published = {}, {}
        #: The optimizer of each of the `parts`, and the variables it was made for.
        self.optimizers, self.trained = {}, {}

    def make_policy(self, policy):
        """Turns the constructor argument `policy` into a `kerasrl.models.Policy`."""
        return make_policy(
            policy, self.policy_base, self.default_policy, self.policy_options()
        )

    def policy_options(self):
        """Returns what the default policy is made with, a dict of arguments."""
        return {}

    def _make_reward_scaler(self):
        if not self.normalize_rewards:
            return None
        return RewardScaler(self.gamma, gather=self.replicas.gather)

    # Hyperparameters ------------------------------------------------------------

    def check_hyperparameter(self, name, value):
        if name == "policy":
            return self.make_policy(value)
        return super().check_hyperparameter(name, value)

    def check_hyperparameters(self):
        super().check_hyperparameters()
        is_built = self.policy.observation_space is not None
        if is_built and self.uses_values and not self.policy.has_values:
            raise ValueError(
                f"{type(self).__name__} learns from state values, but "
                f'{type(self.policy).__name__}.call does not return "values". Add a '
                "value head, or use PG(baseline=False)."
            )

    def refuse_change(self, name, value):
        if name == "policy":
            if self.policy.observation_space is not None:
                reason = (
                    "It has weights, an optimizer and perhaps a target network "
                    "already: make another agent, or use set_weights."
                )
                hyperparameters.refuse(self, name, value, reason)
            return
        effect = hyperparameters.effect_of(self, name)
        if effect in ("act", "fit", "replay") and self.source is not None:
            hyperparameters.refuse(self, name, value, "fit")
        if effect == "never":
            hyperparameters.refuse(self, name, value, effect)

    def apply_change(self, name, before):
        effect = hyperparameters.effect_of(self, name)
        self.schedules.pop(name, None)
        if effect != "now":
            self._compiled_update = None
        if effect == "act":
            self._actors.clear()
        if name == "gamma" and self.reward_scaler is not None:
            self.reward_scaler.gamma = self.gamma
        if name == "normalize_rewards":
            self.reward_scaler = self._make_reward_scaler()
        if name == "policy" and self._compile_arguments and not self.policy.compiled:
            self.policy.compile(**self._compile_arguments)

    # Set-up ---------------------------------------------------------------------

    @explained
    def compile(
        self, optimizer=None, jit_compile="auto", run_eagerly=False, metrics=None
    ):
        """Configures training. Called with defaults by `fit` if left out.

        Args:
            optimizer: A Keras optimizer, its name, or `None` for the algorithm's
                default. The learning rate and its schedule live here. Critics, policy
                and temperature of DDPG, TD3 and SAC have one like it each.
            jit_compile: Whether updates are compiled with XLA. `"auto"` does so,
                which doubles the speed, or makes four times as much of it for recurrent
                policies; but not for several replicas, nor for convolutions on a CPU,
                nor if XLA cannot compile the policy.
            run_eagerly: Whether updates run line by line, for debugging.
            metrics: List of Keras metrics of the predicted values against the value
                targets, such as `["mae"]`. For on-policy algorithms only.

        Example:

        ```python
        agent.compile(keras.optimizers.Adam(1e-3), run_eagerly=True)
        ```
        """
        if jit_compile not in (True, False, "auto"):
            raise ValueError(
                f"Received jit_compile={jit_compile!r}. Expected True, False or 'auto'."
            )
        run_eagerly = checks.flag("run_eagerly", run_eagerly)
        if jit_compile is True and run_eagerly:
            raise ValueError(
                "Received jit_compile=True and run_eagerly=True. What runs line by "
                "line is not compiled: use one of them."
            )
        if optimizer is None:
            optimizer = self.default_optimizer()
        self._compile_arguments = {
            "optimizer": checks.named("optimizer", optimizer, keras.optimizers),
            # Weighted, because filler steps of vector environments do not count.
            "weighted_metrics": metrics,
            # Keras's own choice is never to use XLA on a CPU: `CompiledUpdate` decides.
            "jit_compile": False,
            "run_eagerly": run_eagerly,
        }
        self.policy.compile(**self._compile_arguments)
        self.jit_compile = jit_compile
        self._compiled_update = None

    def default_optimizer(self):
        """Returns the optimizer used when `compile` is given none."""
        return Adam(3e-4, epsilon=1e-5)

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
        distribute.check(self.replicas)
        with self.replicas.scope():
            self._build(observation_space, action_space)

    def _build(self, observation_space, action_space):
        if getattr(self.policy, "seed", 0) is None:
            self.policy.seed = self.seed
        self.policy.build_for(observation_space, action_space)
        self.policy.observers.add(self)
        self.check_hyperparameters()
        self.policy.check_distribution(self.distribution_needs, type(self).__name__)
        self.prepare_optimizer()
        update = self._compiled_update
        if update is not None and not update.trains(self.trainable_variables):
            self._compiled_update = None

    # Acting ---------------------------------------------------------------------

    def act(self, inputs, deterministic):
        """Chooses actions. Compiled for acting, without TensorFlow where possible.

        Args:
            inputs: Dict as for the policy's `call`, with `"state"`; for stochastic
                acting also what `exploration_inputs` returned.
            deterministic: Whether to choose the best action known.

        Returns:
            Dict of `"actions"`, tree `[N, ...]`, and `"state"`, tree `[N, ...]`, what
            is carried to the next step (see `acting_state`). Trees of anything else
            are recorded: losses find them in `batch["extras"]`. Here
            `"distribution"` `[N, P]`, its parameters, if `keeps_distribution`,
            or `"log_probs"` `[N]` where those do not tell all (see
            `Policy.is_told_by_parameters`). Whoever draws actions otherwise returns
            their log-probabilities, or drops both.
        """
        outputs = acting.call_policy(self.policy, inputs)
        distribution = self.policy.distribution(outputs)
        acted = acting.choose(self.policy, inputs, outputs, distribution, deterministic)
        if deterministic:
            return acted
        if self.keeps_distribution and self.policy.is_told_by_parameters:
            # Log-probabilities follow from it at once for a whole rollout, which is
            # faster than step by step.
            acted["distribution"] = outputs["distribution"]
        elif self.keeps_distribution:
            # It takes more than the parameters, and that may change.
            acted["log_probs"] = distribution.log_prob(acted["actions"])
        return acted

    def drain_logs(self):
        """Returns what else there is to log at the end of an epoch, a dict of floats.

        Extend it, with `super()`. What was counted for it starts again.
        """
        return {}

    def acting_state(self):
        """Returns the state of acting at the start of an episode, tree `[1, ...]`."""
        return acting.first_state(self.policy)

    def exploration_inputs(self, num_envs):
        """Returns the present inputs of `act` that steer exploration.

        Args:
            num_envs: Integer `B`.

        Returns:
            Dict of arrays `[B, ...]`. Here, empty.
        """
        return {}

    def actor(self, deterministic=False):
        """Returns the compiled acting function, for advanced use.

        Args:
            deterministic: Whether it takes the mode of the distribution.

        Returns:
            A `kerasrl.actors.Actor`. Call its `refresh` after the weights changed.
        """
        name = "deterministic" if deterministic else "stochastic"
        if name not in self._actors:
            self._actors[name] = acting.build(self, name)
        return self._actors[name]

    # State ----------------------------------------------------------------------

    def summary(self, **kwargs):
        """Prints the layers of the policy, as `keras.Model.summary` does."""
        self.policy.summary(**kwargs)

    @property
    def trainable_variables(self):
        """Variables that the optimizer updates: those of the policy, and any more."""
        return self.policy.trainable_variables

    def parts(self):
        """Returns the parts of the agent that have an optimizer each.

        Returns:
            Dict from names to lists of variables, `trainable_variables` in all.
        """
        return {"policy": self.trainable_variables}

    @property
    def own_variables(self):
        """Variables of the agent besides those of the policy and the optimizer."""
        return []

    def get_weights(self):
        """Returns the weights of the policy, a list of NumPy arrays."""
        return self.policy.get_weights()

    def set_weights(self, weights):
        """Sets the weights of the policy from a list of NumPy arrays.

        A target network becomes equal to them. It does so too when callbacks call
        `set_weights` or `load_weights` of the policy.
        """
        self.policy.set_weights(weights)

    def weights_were_set(self):
        """Called when all weights of the policy were set. Extend it, with `super()`."""
        # Those before are not to act any more.
        self.past_weights.clear()

    def save(self, path, include_replay=True):
        """Writes everything needed to go on exactly here to one file.

        The file is written beside its final place and then renamed: a reader never
        sees half of it, and the previous one survives a crash.

        Args:
            path: Path, by custom with the ending `.kerasrl`.
            include_replay: Whether the content of a replay buffer is written too.
                Without, a loaded agent starts with an empty one.

        With several ranks, all of them must call it at the same time: each writes a
        file of its own, all but the first with `.rank<number>` added to the name.

        Returns:
            The path of the file written.

        Example:

        ```python
        agent.save("cartpole.kerasrl")
        agent = kerasrl.load("cartpole.kerasrl")
        ```
        """
        if self.policy.observation_space is not None:
            with self.replicas.scope():
                self.prepare_optimizer()  # It may have been compiled since.
        return saving.save(self, path, include_replay)

    def check_savable(self, path):
        """Raises if the agent could not be loaded again as what it is.

        Args:
            path: Where it is to be saved, for messages.

        Raises:
            ValueError: A part has no config, or is code, such as a lambda, or comes
                back as something else.
        """
        saving.check(self, path)

    def get_state(self):
        """Returns what changes while training, besides weights, as JSON data.

        Algorithms with more state of their own extend it, and `set_state`.
        """
        state = {
            "rng": self.rng.bit_generator.state,
            "env_name": self.env_name,
            "frames": self.frames,
            "env_steps": self.env_steps,
            "iterations": self.iterations,
            "statistics": self.statistics.get_state(),
            "reading": datasets.state_of(self.reading),
            "offline_reading": datasets.state_of(self.offline_reading),
        }
        if self.reward_scaler is not None:
            state["reward_scaler"] = self.reward_scaler.get_state()
        return state

    def get_arrays(self):
        """Returns large parts of the state, a dict from names to NumPy arrays."""
        return asynchrony.get_arrays(self)

    def set_state(self, state, arrays):
        """Restores what `get_state` and `get_arrays` returned.

        `arrays` may be empty: they can be left out of a checkpoint.
        """
        self.rng.bit_generator.state = state["rng"]
        self.env_name = state["env_name"]
        # Files that were written before do not say.
        self.frames = state.get("frames")
        self.reading = state.get("reading")
        self.offline_reading = state.get("offline_reading")
        self.env_steps = state["env_steps"]
        self.iterations = state["iterations"]
        self.statistics.set_state(state["statistics"])
        if self.reward_scaler is not None:
            self.reward_scaler.set_state(state["reward_scaler"])
        asynchrony.set_arrays(self, arrays)

    @property
    def episodes(self):
        """Number of episodes that ended in training so far."""
        return self.statistics.episodes
