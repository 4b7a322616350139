"""Several policies in one environment, as one agent."""

import keras
import numpy as np

from kerasrl import checks, distribute, workers
from kerasrl.agents import Agent
from kerasrl.multi_agent import learning, playing, policies, saving, settings
from kerasrl.multi_agent.arena import Player
from kerasrl.multi_agent.env import MultiEnvironments
from kerasrl.multi_agent.hosts import HostedEnvironments
from kerasrl.multi_agent.rules import Mapped, check_id
from kerasrl.multi_agent.self_play import Opponents
from kerasrl.multi_agent.snapshots import OpponentPlayer
from kerasrl.multi_agent.source import MultiAgentSource
from kerasrl.training import hyperparameters, statistics
from kerasrl.training.hyperparameters import Configurable, Hyperparameter
from kerasrl.training.mixing import Unmixed
from kerasrl.training.trainer import Trainer


@keras.saving.register_keras_serializable("kerasrl")
class MultiAgent(Trainer, Configurable):
    """Several policies that act and learn in one environment.

    Agents of the environment are mapped to policies; those with the same policy share
    a batch. Policies are ordinary agents, each with its own algorithm and settings, or
    rules. Acting needs no TensorFlow, as ever.

    A policy learns as soon as it has a whole rollout: an algorithm that learns from
    what is fresh, when the fullest trajectory has `rollout_length` steps; one that
    learns from replay, from whole episodes of agents. Steps are complete when an agent
    is observed again or ends, wherever rollouts begin.

    Args:
        agents: Dict from ids of policies to `kerasrl.Agent`s or
            `kerasrl.ScriptedPolicy`s.
        mapping: Function of an agent's id and a `MultiAgentEpisode` that returns the
            id of a policy, asked once for each agent and episode; a dict from agents
            to ids; or `None`: the only policy, or the one called like the agent.
        train: `None` for all that can learn, a list of ids, or a function of an id
            that says whether that policy learns now, asked in every iteration. What
            does not learn is not recorded either.
        reward: What of the rewards of a step each agent learns from: its `"own"`, or
            the `"sum"` or `"mean"` of all.
        count_steps_by: What `steps` and `steps_per_epoch` of `fit` count:
            `"env_steps"`, those of environments, or `"agent_steps"`, those of single
            agents. Both are logged.
        seed: Integer or `None`. With a seed, and seeds of the agents, two runs give the
            same weights.

    Raises:
        TypeError: A policy is no agent, or one that cannot be one of several.
        ValueError: An id is not known.

    Example:

    ```python
    agent = kerasrl.MultiAgent(
        {"one": kerasrl.PPO(), "two": kerasrl.DQN()},
        mapping=lambda agent, episode: "one" if agent == "agent_0" else "two",
    )
    env = kerasrl.multi_agent.make_multi_agent("CartPole-v1", 2)
    agent.fit(env, steps=50_000)
    ```
    """

    source_class = MultiAgentSource
    learns_from_rollouts = True
    records_log_probs = False
    asynchronous = off_policy = overlap = keeps_published = False
    synchronous = True
    lag = 0
    fragments_per_update = 1
    scheduled: tuple = ()

    kinds = {
        "agents": Hyperparameter(policies.check_members, "never"),
        "mapping": Hyperparameter(policies.check_mapping, "fit"),
        "train": Hyperparameter(policies.check_train, "now"),
        "reward": Hyperparameter(
            lambda name, value: checks.choice(name, value, policies.REWARDS), "fit"
        ),
        "count_steps_by": Hyperparameter(
            lambda name, value: checks.choice(name, value, policies.COUNTS), "fit"
        ),
        "seed": Hyperparameter(lambda _, value: checks.seed(value), "never"),
    }

    def __init__(
        self,
        agents,
        mapping=None,
        train=None,
        reward="own",
        seed=None,
        count_steps_by="env_steps",
    ):
        self.source = None
        self.agents = agents
        self.mapping = mapping
        self.train = train
        self.reward = reward
        self.count_steps_by = count_steps_by
        self.seed = seed
        self.replicas = distribute.current()
        if self.replicas.num_ranks > 1:
            raise ValueError(
                f"Received {self.replicas.num_ranks} ranks. MultiAgent learns in one "
                "process: leave out the replicas."
            )
        self.knows_its_rank = True
        self.rng = np.random.default_rng(seed)
        self.policy = policies.Policies(self.agents)
        self.env_name = self.frames = self.envs = self.fitted_env = self.reading = None
        self.env_steps = self.agent_steps = self.iterations = 0
        self.progress = 0.0
        self.statistics = statistics.EpisodeStatistics()
        self.tally = statistics.Tally(self)
        self.published: dict = {}
        self.mixing, self.offline_reading = Unmixed(), None
        self._actors: dict = {}

    # Settings -------------------------------------------------------------------

    def check_hyperparameters(self):
        super().check_hyperparameters()
        named = [member.of for member in self.opponents.values()]
        if isinstance(self.mapping, dict):
            named += self.mapping.values()
        if isinstance(self.train, list):
            named += self.train
        for name in named:
            check_id(name, list(self.agents))
        for name in self.train if isinstance(self.train, list) else ():
            if not isinstance(self.agents[name], Agent):
                raise ValueError(
                    f"Received {name!r} in train, a "
                    f"{type(self.agents[name]).__name__}, which is a rule and does not "
                    "learn. Leave it out."
                )

    def refuse_change(self, name, value):
        effect = hyperparameters.effect_of(self, name)
        if effect == "never" or (effect == "fit" and self.source is not None):
            hyperparameters.refuse(self, name, value, effect)

    def compile(self, **options):
        """Compiles each of the agents likewise, see `kerasrl.Agent.compile`.

        Agents that were compiled before keep their optimizers; to give an agent one of
        its own, compile it.
        """
        if options.pop("optimizer", None) is not None:
            raise ValueError(
                "Received an optimizer for several policies. Each has one of its own: "
                "compile the agents."
            )
        for member in self.learners.values():
            kept = member.policy.optimizer if member.policy.compiled else None
            member.compile(kept, **options)

    @property
    def learners(self):
        """Dict of the agents that can learn, of all policies."""
        return {n: each for n, each in self.agents.items() if isinstance(each, Agent)}

    @property
    def opponents(self):
        """Dict of the policies that are snapshots of others."""
        return {
            n: each for n, each in self.agents.items() if isinstance(each, Opponents)
        }

    def trains(self, name):
        """Whether a policy learns now."""
        if name not in self.learners:
            return False
        if callable(self.train):
            return checks.flag("train(...)", self.train(name))
        return self.train is None or name in self.train

    def find_policy(self, agent, episode):
        """Returns the id of the policy of an agent in an episode, by `mapping`."""
        return self.find_by(self.mapping, agent, episode)

    def find_by(self, mapping, agent, episode):
        """Does so by another mapping."""
        return Mapped(mapping, list(self.agents))(agent, episode)

    # Training -------------------------------------------------------------------

    def make_environments(self, env, making):
        settings = {k: v for k, v in making.items() if k != "env_config"}
        if not workers.check_settings(**settings) or not making["num_workers"]:
            return MultiEnvironments(env, making["num_envs"], making["env_config"])
        for name in ("make_player", "find_policy", "find_by"):
            is_own = getattr(type(self), name) is not getattr(MultiAgent, name)
            if is_own or name in vars(self):
                raise ValueError(
                    f"Received num_workers={making['num_workers']}, and "
                    f"{type(self).__name__}.{name}, which workers cannot call: use "
                    "num_workers=0."
                )
        return HostedEnvironments(env, making)

    def build(self, observation_space, action_space):
        """Creates the weights of the policies whose agents are known beforehand.

        Those are all if agents have the same spaces, or if `mapping` is no function;
        others are built when an agent is mapped to them. `fit` does this.

        Args:
            observation_space, action_space: `gymnasium.spaces.Dict`s, by agent.

        Raises:
            ValueError: A policy was built for other spaces, or nobody learns.
        """
        if not self.learners:
            raise ValueError(
                f"Received no agent that learns: {self.agents!r:.200}. Expected a "
                "kerasrl.Agent among them."
            )
        pairs = {a: (observation_space[a], action_space[a]) for a in observation_space}
        first = next(iter(pairs.values()))
        if callable(self.mapping):
            same = all(pair == first for pair in pairs.values())
            found = dict.fromkeys(self.agents, first) if same else {}
        else:
            found = {}
            for agent, pair in pairs.items():
                name = self.find_policy(agent, None)
                policies.prepare(name, self.agents[name], *pair)
        for name, pair in found.items():
            policies.prepare(name, self.agents[name], *pair)
        self._choose_optimizer()

    def _choose_optimizer(self):
        """Has Keras's callbacks see the optimizer of the first who learns."""
        learning = [n for n in self.learners if self.trains(n)]
        member = self.agents[next(iter(learning or self.learners))]
        if not member.policy.compiled:
            member.compile()
        self.policy.optimizer = member.policy.optimizer

    def iteration_length(self, num_envs):
        return None  # Until a policy has a whole rollout, however agents take turns.

    def make_player(self, name, seats):
        """Returns what acts for a policy in an arena. Extend it to act otherwise."""
        member = self.agents[name]
        if isinstance(member, Opponents):
            return OpponentPlayer(seats, member, name)
        return Player(seats)

    def episode_ended(self, episode):
        """Told of every `MultiAgentEpisode` that ended in training. Extend it."""
        returns = episode.policy_returns()
        for name, member in self.opponents.items():
            if name in returns and member.of in returns:
                number = episode.user_data["snapshots"][name]
                ahead = returns[member.of] - returns[name]
                member.note(number, 0.5 + 0.5 * float(np.sign(ahead)))

    def start_learning(self, num_envs):
        if self.records_log_probs or not isinstance(self.mixing, Unmixed):
            raise ValueError(
                "Received output or offline, a directory of episodes or a dataset of "
                "one agent. Here are several: leave it out."
            )
        for name, member in self.learners.items():
            if member.source is not None:
                raise RuntimeError(
                    f"The agent of the policy {name!r} is being trained already. Wait "
                    "for that fit to end."
                )

    def stop_learning(self):
        for member in self.learners.values():
            member.source = None
            member.stop_learning()

    def learn_from(self, rollout):
        """Has each policy learn from its rollouts.

        Args:
            rollout: A `MultiAgentRollout`.

        Returns:
            Dict of floats: what each logged, with `_<id>` added to its name, and the
            mean of their losses.
        """
        return learning.learn_from(self, rollout)

    def metric_names(self):
        """Returns what updates log, as far as it is known already."""
        return [
            f"{key}_{name}"
            for name, member in self.learners.items()
            if self.trains(name)
            for key in ("loss", *member.metric_names())
        ]

    def drain_logs(self):
        """Returns what else there is to log at the end of an epoch."""
        return learning.drain_logs(self)

    @property
    def optimizers(self):
        """Dict of the optimizers of all parts of all agents."""
        return self._joined("optimizers")

    @property
    def trained(self):
        """Dict of the variables of `optimizers`."""
        return self._joined("trained")

    def _joined(self, attribute):
        return {
            (name, part): value
            for name, member in self.learners.items()
            for part, value in getattr(member, attribute).items()
        }

    # Use ------------------------------------------------------------------------

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
        mapping=None,
    ):
        """Plays whole episodes without learning.

        Args:
            env, num_envs, env_config: As for `fit`.
            episodes: Integer, shared out evenly over the environments.
            deterministic: Whether policies take the mode of their distributions.
            seed: Integer or `None`, seed of environments, mappings and samples.
            verbose: As for `kerasrl.Agent.evaluate`.
            output: `None`; there are no data sets of several agents.
            mapping: What agents are mapped by instead, as for the constructor: a fixed
                opponent, say.

        Returns:
            Dict with `return_mean` and `return_std` (of the sum over agents),
            `length_mean` (environment steps), `episodes`; for each policy that played
            `return_mean_<id>`, the mean return of its agents, and, if there are
            several, `win_rate_<id>`, the share of its episodes in which that was
            greater than those of all others, and `draw_rate_<id>`, in which it was
            as great as the greatest of others.

        Example:

        ```python
        sides = {"x": "main", "o": "random"}
        agent.evaluate("tic_tac_toe", 100, mapping=sides)["win_rate_main"]
        ```
        """
        if output is not None:
            raise ValueError(
                f"Received output={str(output)!r}. Data sets are of one agent, and "
                "here are several: leave it out."
            )
        making = env, num_envs, env_config
        mapping = (
            self.mapping if mapping is None else policies.check_mapping("", mapping)
        )
        return playing.evaluate(
            self, making, episodes, deterministic, seed, verbose, mapping
        )

    def predict(
        self,
        observations,
        state=None,
        deterministic=True,
        seed=None,
        episode=None,
        previous_actions=None,
        previous_rewards=None,
    ):
        """Returns actions for observations of some agents.

        Args:
            observations: Dict from agents to trees `[N, ...]`.
            state: Dict of recurrent states from the last call, `None` at the start of
                episodes.
            deterministic, seed: As for `kerasrl.Agent.predict`.
            episode: What `mapping` is asked with.
            previous_actions, previous_rewards: As `kerasrl.Agent.predict`, by agent.

        Returns:
            Dict of actions `[N, ...]` by agent; where some policy is recurrent, a tuple
            of these and a dict of the new states.

        Raises:
            ValueError: A policy is not built yet, or observations do not fit.
        """
        previous = (previous_actions, previous_rewards)
        return playing.predict(
            self, observations, state, deterministic, seed, episode, previous
        )

    def summary(self, **kwargs):
        """Prints the layers of every policy that is a network."""
        for member in self.learners.values():
            member.summary(**kwargs)

    def get_weights(self):
        """Returns the weights of all networks, a list of NumPy arrays."""
        return self.policy.get_weights()

    def set_weights(self, weights):
        """Sets what `get_weights` returned; what follows the networks is told.

        Args:
            weights: List of arrays.
        """
        self.policy.set_weights(weights)

    @property
    def counted(self):
        """Name of the attribute that counts the steps of `fit`."""
        return self.count_steps_by

    @property
    def episodes(self):
        """Number of episodes that ended in training so far."""
        return self.statistics.episodes

    # State ----------------------------------------------------------------------

    def save(self, path, include_replay=True):
        """Writes everything needed to go on exactly here to one file.

        Args:
            path, include_replay: As for `kerasrl.Agent.save`.

        Returns:
            The path of the file written. `kerasrl.load` restores it.

        Raises:
            ValueError: A policy has no weights yet, or it or `mapping` is code that no
                file can hold: register functions and classes by
                `keras.saving.register_keras_serializable`.
        """
        return saving.save(self, path, include_replay)

    def check_savable(self, path):
        """Raises a ValueError if `save` could not write all that it should."""
        saving.check(self, path)

    restore = classmethod(saving.restore)
    from_settings = classmethod(settings.from_settings)
    check_env = staticmethod(settings.check_env)

    def get_state(self):
        """Returns what changes while training, besides the agents, as JSON data."""
        return {
            "rng": self.rng.bit_generator.state,
            "env_name": self.env_name,
            "env_steps": self.env_steps,
            "agent_steps": self.agent_steps,
            "iterations": self.iterations,
            "statistics": self.statistics.get_state(),
            "opponents": {n: each.get_state() for n, each in self.opponents.items()},
        }

    def get_arrays(self):
        """Returns the weights of snapshots, a dict from ids to lists of arrays."""
        return {n: each.get_arrays() for n, each in self.opponents.items()}

    def set_state(self, state, arrays):
        """Restores what `get_state` and `get_arrays` returned."""
        for name, member in self.opponents.items():
            member.set_state(state["opponents"][name], arrays[name])
        self.rng.bit_generator.state = state["rng"]
        for name in ("env_name", "env_steps", "agent_steps", "iterations"):
            setattr(self, name, state[name])
        self.statistics.set_state(state["statistics"])
