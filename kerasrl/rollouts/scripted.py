"""Policies that are no networks: rules, tables, planners."""

import dataclasses
import inspect

import numpy as np
import optree

from kerasrl import checks
from kerasrl.envs import make_envs
from kerasrl.envs.actions import ActionConverter
from kerasrl.rollouts.collector import Collector
from kerasrl.rollouts.evaluation import play

_EVALUATED_STEPS = 64
_EXPECTED = (
    "Expected a tuple of actions [N, ...] as the environment takes them, the new state "
    "[N, ...], () if there is none, and a dict of what else to record, {} for nothing"
)


class ScriptedPolicy:
    """Base class of policies that are no networks: a rule, a table, a planner.

    A subclass defines `compute_actions`, in NumPy. It can be evaluated, make rollouts
    for agents to learn from, and be the opponent inside an environment; with
    `learn_on_batch` it learns itself. No TensorFlow is involved.

    Attributes:
        observation_space, action_space: `gymnasium.spaces.Space` of one environment,
            `None` before the first use.
        rng: `numpy.random.Generator`, seeded by the argument `seed` of what is called.

    Example:

    ```python
    class Patient(kerasrl.ScriptedPolicy):
        \"\"\"Changes its mind only every third step.\"\"\"

        def get_initial_state(self, batch_size):
            return {"age": np.zeros(batch_size, int), "last": np.zeros(batch_size, int)}

        def compute_actions(self, observations, state):
            lean = (observations[:, 2] > 0).astype(int)
            actions = np.where(state["age"] % 3 == 0, lean, state["last"])
            state = {"age": state["age"] + 1, "last": actions}
            return actions, state, {"lean": lean}

    kerasrl.evaluate(Patient(), "CartPole-v1", episodes=20)
    ```
    """

    observation_space = None
    action_space = None
    rng = None

    def setup(self, observation_space, action_space):
        """Makes ready for spaces, before the first use. Here, keeps them.

        Args:
            observation_space, action_space: `gymnasium.spaces.Space` of one
                environment.
        """
        self.observation_space = observation_space
        self.action_space = action_space

    def get_initial_state(self, batch_size):
        """Returns the state at the start of an episode.

        Args:
            batch_size: Integer `N`.

        Returns:
            Tree of arrays `[N, ...]`, all rows alike; `()` for a policy without state.
        """
        return ()

    def compute_actions(self, observations, state):
        """Chooses actions for a batch of observations.

        Args:
            observations: Tree of arrays `[N, ...]` as in the observation space, to be
                left unchanged.
            state: Tree `[N, ...]`, what the call for the step before returned; where an
                episode starts, rows of `get_initial_state`.

        Returns:
            Tuple of the actions, tree `[N, ...]` as the environment takes them, the new
            state, and a dict of trees `[N, ...]` to be recorded in `rollout.extras`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define compute_actions(observations, state)."
        )

    def learn_on_batch(self, rollout):
        """Learns from a rollout that this policy acted. Optional; called by `fit`.

        Args:
            rollout: A `kerasrl.rollouts.Rollout`, `[T, B, ...]`. Its actions count from
                zero whatever the `start` of the space.

        Returns:
            Dict of floats to log.
        """
        raise NotImplementedError(
            f"{type(self).__name__} cannot be trained: it does not define "
            "learn_on_batch(rollout)."
        )

    def get_weights(self):
        """Returns what was learnt, whatever `set_weights` takes. Here, nothing."""
        return []

    def set_weights(self, weights):
        """Takes over what `get_weights` returned.

        Raises:
            ValueError: There is something, and nothing to do with it.
        """
        if len(weights):
            raise ValueError(
                f"Received weights for a {type(self).__name__}, which has none. Define "
                "get_weights and set_weights."
            )

    def evaluate(self, env, episodes=10, seed=None, num_envs=None, env_config=None):
        """Runs whole episodes without learning.

        Args:
            env, num_envs, env_config: As for `kerasrl.Agent.fit`.
            episodes: Integer, shared out evenly over the environments.
            seed: Integer or `None`, seed of the environments and of `rng`.

        Returns:
            Dict with `return_mean`, `return_std`, `length_mean` (environment steps)
            and `episodes`.
        """
        episodes = checks.positive_integer("episodes", episodes)
        if num_envs is None and (isinstance(env, str) or inspect.isroutine(env)):
            num_envs = min(episodes, 8)
        envs = make_envs(env, num_envs, env_config)
        try:
            return play(self.make_collector(envs, _EVALUATED_STEPS, seed), episodes)
        finally:
            envs.close()

    def rollouts(
        self,
        env,
        steps,
        rollout_length=128,
        seed=None,
        num_envs=None,
        env_config=None,
        info_keys=(),
    ):
        """Acts in environments, and yields what happened.

        Args:
            env, num_envs, env_config, info_keys: As for `kerasrl.Agent.fit`.
            steps: Integer, environment steps in all, rounded up to whole rollouts.
            rollout_length: Integer, steps of a rollout in each environment.
            seed: Integer or `None`, seed of the environments and of `rng`.

        Yields:
            `kerasrl.rollouts.Rollout`s `[T, B, ...]`, each of which goes on where the
            one before stopped. An agent without recurrence learns from them in place of
            an environment. The state is not in them: record what of it is needed.

        Example:

        ```python
        agent = kerasrl.DQN()
        agent.build(env.observation_space, env.action_space)
        agent.fit(list(expert.rollouts("CartPole-v1", steps=20_000)))
        ```
        """
        steps = checks.positive_integer("steps", steps)
        length = checks.positive_integer("rollout_length", rollout_length)
        info_keys = checks.names("info_keys", info_keys)
        return self._rollouts(
            (env, num_envs, env_config), steps, length, seed, info_keys
        )

    def fit(self, env, steps, **arguments):
        """Acts in environments, and learns from each rollout by `learn_on_batch`.

        Args:
            env, steps: As for `rollouts`.
            **arguments: As for `rollouts`.

        Returns:
            List of what `learn_on_batch` returned.
        """
        rollouts = self.rollouts(env, steps, **arguments)
        return [self.learn_on_batch(rollout) for rollout in rollouts]

    def _rollouts(self, made_of, steps, length, seed, info_keys):
        envs = make_envs(*made_of)
        try:
            collector = self.make_collector(
                envs, length, seed, info_keys, all_finals=True
            )
            for _ in range(-(-steps // (length * envs.num_envs))):
                yield _without_state(collector.collect())
                collector.drain_episodes()
        finally:
            envs.close()

    def make_collector(self, envs, length, seed, info_keys=(), all_finals=False):
        """Returns a collector of what this policy does, at the start of episodes.

        Args:
            envs: `kerasrl.envs.Environments`.
            length: Integer, steps of a rollout in each environment.
            seed, info_keys: As for `rollouts`.
            all_finals: As for `kerasrl.rollouts.Collector`.
        """
        spaces = envs.observation_space, envs.action_space
        if self.observation_space is None:
            self.setup(*spaces)
            self.observation_space, self.action_space = spaces
        elif (self.observation_space, self.action_space) != spaces:
            raise ValueError(
                f"Received an environment with the spaces {spaces[0]} and {spaces[1]}, "
                f"but the {type(self).__name__} was set up for "
                f"{self.observation_space} and {self.action_space}. Use another one."
            )
        generator = np.random.default_rng(checks.seed(seed))
        seeds = generator.integers(2**31, size=envs.num_envs).tolist()
        self.rng = generator
        # Nothing is drawn of these: policies have a generator of their own.
        generators = [generator] * envs.num_envs
        collector = Collector(
            envs,
            ScriptedActor(self, generator),
            length,
            generators,
            info_keys,
            all_finals=all_finals,
        )
        collector.reset(seeds)
        return collector


def _without_state(rollout):
    """A rollout for whoever learns from it: what others carry along is not theirs."""
    final = rollout.final
    if final is not None:
        final = {**final, "state": ()}
    return dataclasses.replace(rollout, state=(), final=final)


class FunctionPolicy(ScriptedPolicy):
    """A function from observations to actions as a policy without state.

    Args:
        function: Takes a tree `[N, ...]` of observations, returns one of actions.
    """

    def __init__(self, function):
        self.function = function

    def compute_actions(self, observations, state):
        return self.function(observations), state, {}


class ScriptedActor:
    """A scripted policy as collectors call it."""

    def __init__(self, policy, generator):
        self.policy = policy
        self._generator = generator
        state = optree.tree_map(np.asarray, policy.get_initial_state(1))
        for leaf in optree.tree_leaves(state):
            if leaf.shape[:1] != (1,):
                raise ValueError(
                    f"{type(policy).__name__}.get_initial_state(1) returned "
                    f"{state!r:.200}, with {leaf!r:.50} as a leaf. Expected a tree of "
                    "arrays [1, ...]: a list is a part of the tree and no array."
                )
        self.initial_state = optree.tree_map(lambda leaf: leaf[0], state)
        self._converter = ActionConverter(policy.action_space)
        self._extras = None

    def draw(self, generators, steps):
        """There is no noise that could be drawn beforehand."""
        return []

    def __call__(self, inputs, noise):
        policy, observations = self.policy, inputs["observations"]
        # One policy may act in several places by turns.
        policy.rng = self._generator
        result = policy.compute_actions(observations, inputs["state"])
        name = f"{type(policy).__name__}.compute_actions"
        if not (isinstance(result, tuple) and len(result) == 3):
            raise ValueError(f"{name} returned {result!r:.200}. {_EXPECTED}.")
        actions, state, extras = result
        num_rows = len(inputs["previous_rewards"])
        if not isinstance(extras, dict):
            raise ValueError(f"{name} returned {extras!r:.200} as extras. {_EXPECTED}.")
        taken = sorted({"actions", "state"} & extras.keys())
        if taken:
            raise ValueError(f"{name} returned extras named {taken}. Rename them.")
        try:
            actions = self._converter.inverse(actions)
        except ValueError as error:
            raise ValueError(
                f"{name} returned actions that do not fit. {error}"
            ) from None
        # Collectors write into none of these, but policies may into theirs.
        state, extras = (
            optree.tree_map(lambda leaf: np.array(leaf), tree)
            for tree in (state, extras)
        )
        for what, tree in (("actions", actions), ("state", state), ("extras", extras)):
            for leaf in optree.tree_leaves(tree):
                if np.shape(leaf)[:1] != (num_rows,):
                    raise ValueError(
                        f"{name} returned {what} with an array of shape "
                        f"{np.shape(leaf)} for {num_rows} observations. {_EXPECTED}."
                    )
        self._check_state(name, state)
        self._check_extras(name, extras)
        return {"actions": actions, "state": state, **extras}

    def _check_extras(self, name, extras):
        structure = optree.tree_structure(extras)
        if self._extras is None:
            self._extras = structure
        if structure != self._extras:
            raise ValueError(
                f"{name} returned extras {structure}, but before {self._extras}. "
                "Expected the same of each step: rollouts are arrays over time."
            )

    def _check_state(self, name, state):
        expected = optree.tree_structure(self.initial_state)
        if optree.tree_structure(state) != expected:
            raise ValueError(
                f"{name} returned a state of another structure than "
                f"get_initial_state: {optree.tree_structure(state)}. Expected "
                f"{expected}."
            )
