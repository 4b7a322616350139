"""What an environment of several agents is, and how whatever a user has becomes one."""

import importlib
from functools import partial
from typing import Any

from gymnasium import spaces

from kerasrl import action_masks, checks
from kerasrl.envs import EnvProtocolError
from kerasrl.spaces import check_space

#: The key under which the flags of an episode, for all agents at once, may stand.
ALL = "__all__"
_DEFAULT_NUM_ENVS = 8


class MultiAgentEnv:
    """Base class of environments in which several agents act.

    The one contract: dicts that are keyed by agent, as of RLlib's `MultiAgentEnv`.
    Deriving from this class is not needed; having its members is.

    - `reset` and `step` return the observations of the agents that act next, and
      `step` is given an action for each of these and no other. All at once, one at a
      time, or some: who is not observed waits.
    - Rewards may come for any agent at any time. What an agent gets while it waits is
      added up until it is observed again, or ends.
    - `terminated[agent]` or `truncated[agent]` ends the part of one agent, also while
      it waits, and does not come twice in an episode; its last observation is among
      the observations of that step (needed where it was truncated, for its value).
      `"__all__"` in either ends the episode for everybody left. It also ends when
      nobody is left.
    - An agent that was not there before is born by being observed.

    Attributes:
        possible_agents: List of the ids (strings) of all that may ever act.
        observation_spaces, action_spaces: Dicts of `gymnasium.Space` by agent.
            Observations that are a `Dict` of `"observation"` and `"action_mask"` say
            which actions are legal.
        state_space: `gymnasium.spaces.Box` of `state()`, or `None` if there is none.

    Example:

    ```python
    class Echo(kerasrl.multi_agent.MultiAgentEnv):
        possible_agents = ["speaker", "listener"]
        observation_spaces = dict.fromkeys(possible_agents, Discrete(3))
        action_spaces = dict.fromkeys(possible_agents, Discrete(3))

        def reset(self, *, seed=None, options=None):
            return {"speaker": 0}, {}

        def step(self, actions):
            if "speaker" in actions:
                self.said = int(actions["speaker"])
                return {"listener": self.said}, {}, {}, {}, {}
            reward = float(actions["listener"] == self.said)
            rewards = dict.fromkeys(self.possible_agents, reward)
            return {}, rewards, {"__all__": True}, {}, {}
    ```
    """

    possible_agents: list = []
    observation_spaces: dict = {}
    action_spaces: dict = {}
    state_space: Any = None

    def reset(self, *, seed=None, options=None):
        """Starts an episode.

        Args:
            seed: Integer or `None`, which leaves random generators as they are.
            options: Dict or `None`.

        Returns:
            Tuple of the observations of the agents that act first, and their infos,
            dicts by agent.
        """
        raise NotImplementedError(f"{type(self).__name__} must define reset.")

    def step(self, actions):
        """Has agents act.

        Args:
            actions: Dict by agent, of exactly those that were observed last and live.

        Returns:
            Tuple of dicts by agent: observations, rewards, terminated, truncated,
            infos. What is left out is 0 or `False`.
        """
        raise NotImplementedError(f"{type(self).__name__} must define step.")

    def state(self):
        """Returns the state of the whole, of `state_space`, for what trains centrally.

        Raises:
            NotImplementedError: There is none.
        """
        raise NotImplementedError(f"{type(self).__name__} has no state().")

    def close(self):
        """Lets go of what it holds. Here, of nothing."""


class _OldSpaces:
    """A dict environment whose spaces are those of methods or of all agents alike."""

    def __init__(self, env):
        self.env = self.made_of = env
        agents = getattr(env, "possible_agents", None)
        if not agents:
            agents = getattr(env, "agents", None) or getattr(env, "_agent_ids", None)
        if not agents:
            raise TypeError(
                f"Received {env!r:.200}, which does not say who may act in it. "
                "Expected possible_agents, a list of ids."
            )
        self.possible_agents = sorted(agents) if isinstance(agents, set) else agents
        self.possible_agents = list(self.possible_agents)
        self.observation_spaces = self._spaces("observation")
        self.action_spaces = self._spaces("action")
        self.state_space = getattr(env, "state_space", None)

    def _spaces(self, role):
        found = getattr(self.env, f"{role}_spaces", None)
        if found:
            return dict(found)
        found = getattr(self.env, f"{role}_space", None)
        if isinstance(found, spaces.Dict) and set(found) == set(self.possible_agents):
            return dict(found.spaces)
        if isinstance(found, spaces.Space):
            return dict.fromkeys(self.possible_agents, found)
        raise TypeError(
            f"Received {self.env!r:.200}, which has no {role}_spaces. Expected a dict "
            "of gymnasium spaces by agent."
        )

    def reset(self, *, seed=None, options=None):
        return self.env.reset(seed=seed, options=options)

    def step(self, actions):
        return self.env.step(actions)

    def state(self):
        return self.env.state()

    def close(self):
        close = getattr(self.env, "close", None)
        if close is not None:
            close()


def as_multi_agent(env):
    """Returns an environment of several agents by the one contract.

    Args:
        env: A `MultiAgentEnv`, or what has its members (RLlib's, of any age with
            `terminated` and `truncated` apart); a PettingZoo environment, parallel or
            AEC. None of these packages is imported for that.

    Raises:
        TypeError: It is none of these, or does not say who may act.
        ValueError: A space is not supported, or an agent has none.
    """
    if not isinstance(env, MultiAgentEnv):
        from kerasrl.multi_agent import pettingzoo

        if pettingzoo.is_aec(env):
            env = pettingzoo.AECAdapter(env)
        elif pettingzoo.is_parallel(env):
            env = pettingzoo.ParallelAdapter(env)
        elif hasattr(env, "reset") and hasattr(env, "step"):
            env = _OldSpaces(env)
        else:
            raise TypeError(
                f"Received {env!r:.200}. Expected a kerasrl.multi_agent.MultiAgentEnv, "
                "RLlib's, or a PettingZoo environment."
            )
    check_env_spaces(env)
    return env


def check_env_spaces(env):
    """Raises a ValueError if an agent has no space, or one that is not supported."""
    agents = list(env.possible_agents)
    if not agents or not all(isinstance(agent, str) for agent in agents):
        raise ValueError(
            f"Received possible_agents = {agents!r:.200} of {type(env).__name__}. "
            "Expected a list of strings; ids of other kinds, such as 0, become them by "
            'str: "0".'
        )
    if ALL in agents or len(set(agents)) < len(agents):
        raise ValueError(
            f"Received possible_agents = {agents!r:.200}. Expected different ids, none "
            f"of them {ALL!r}."
        )
    for role in ("observation", "action"):
        given = getattr(env, f"{role}_spaces")
        missing = sorted(set(agents) - set(given))
        if missing:
            raise ValueError(
                f"{type(env).__name__}.{role}_spaces has no entry for {missing}. "
                "Expected a space for each of possible_agents."
            )
        for agent in agents:
            check_space(given[agent], role)


def make_env(env, env_config=None):
    """Makes one environment of several agents.

    Args:
        env: As for `MultiEnvironments`, but a list.
        env_config: Dict of arguments of a factory or of PettingZoo's `make`.
    """
    config = dict(checks.mapping("env_config", env_config or {}))
    if isinstance(env, str):
        return as_multi_agent(_make_by_name(env, config))
    if hasattr(env, "reset") and hasattr(env, "step") and not isinstance(env, type):
        if config:
            raise ValueError(
                f"Received env_config={config!r:.200} with an environment that is made "
                "already. Give fit a function that makes it."
            )
        return as_multi_agent(env)
    if callable(env):
        return as_multi_agent(env(**config))
    raise TypeError(
        f"Received env={env!r:.200}. Expected an environment of several agents, a "
        'function that makes one, or a name such as "pettingzoo:aec:'
        'classic/tictactoe-v3" or "package.module:Class".'
    )


def _make_by_name(name, config):
    if name.startswith("pettingzoo:"):
        from kerasrl.multi_agent import pettingzoo

        return pettingzoo.make(name, config)
    module, _, attribute = name.partition(":")
    from kerasrl import multi_agent

    if not attribute:
        made = multi_agent.ENVIRONMENTS.get(name)
        if made is None:
            raise ValueError(
                f"Received env={name!r}. "
                f"{checks.nearest(name, multi_agent.ENVIRONMENTS)} "
                'Or give "pettingzoo:parallel:ID", "pettingzoo:aec:ID", or '
                '"package.module:Class".'
            )
        return getattr(multi_agent, made)(**config)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"Received env={name!r}, which cannot be imported: {error}."
        ) from error
    return found(**config)


def name_of(env):
    """Returns what to call an environment in logs and directories."""
    if isinstance(env, str):
        return env
    metadata = getattr(env, "metadata", None)
    if isinstance(metadata, dict) and metadata.get("name"):
        return str(metadata["name"])
    name = getattr(env, "name", None) or getattr(env, "__name__", None)
    return str(name or type(env).__name__)


class MultiEnvironments:
    """Environments of several agents, stepped one after the other in this process.

    Args:
        env: A `MultiAgentEnv` or what `as_multi_agent` takes; a function that makes
            one; a name of `ENVIRONMENTS`, `"pettingzoo:parallel:ID"`,
            `"pettingzoo:aec:ID"`, or `"package.module:Class"`.
        num_envs: Integer; `None` for 8 of a name or function, and 1 of an instance.
        env_config: Dict of arguments for making them, or `None`.

    Raises:
        ValueError: One instance cannot be several, or they differ in agents or spaces.
    """

    frames = None

    def __init__(self, env, num_envs=None, env_config=None):
        is_instance = not isinstance(env, (str, type)) and hasattr(env, "step")
        if num_envs is None:
            num_envs = 1 if is_instance else _DEFAULT_NUM_ENVS
        self.num_envs = checks.positive_integer("num_envs", num_envs)
        if is_instance and num_envs > 1:
            raise ValueError(
                f"Received num_envs={num_envs} with one environment. Give a function "
                "that makes them, or a name."
            )
        self._owned = not is_instance
        self.name = name_of(env)
        self.envs = []
        try:
            for _ in range(num_envs):
                self.envs.append(make_env(env, env_config))
        except BaseException:
            self.close()
            raise
        first = self.envs[0]
        self.agents = list(first.possible_agents)
        self.observation_spaces = {a: first.observation_spaces[a] for a in self.agents}
        self.action_spaces = {a: first.action_spaces[a] for a in self.agents}
        for other in self.envs[1:]:
            if list(other.possible_agents) != self.agents or any(
                other.observation_spaces[a] != self.observation_spaces[a]
                or other.action_spaces[a] != self.action_spaces[a]
                for a in self.agents
            ):
                raise ValueError(
                    f"Environments of {self.name} differ in their agents or spaces: "
                    f"{self.agents} and {list(other.possible_agents)}. Expected the "
                    "same in all."
                )
        self.observation_space = spaces.Dict(self.observation_spaces)
        self.action_space = spaces.Dict(self.action_spaces)

    def foreach(self, function):
        """Calls a function with every environment, as it was made by its maker."""
        return [function(getattr(env, "made_of", env)) for env in self.envs]

    def call(self, name, *args, **kwargs):
        """Calls a method of every environment by its name, through wrappers."""

        def call_one(env):
            # Wrappers of gymnasium, around what was split, forward no names.
            find = getattr(env, "get_wrapper_attr", partial(getattr, env))
            return find(name)(*args, **kwargs)

        return self.foreach(call_one)

    def close(self):
        """Closes the environments that were made here."""
        if self._owned:
            for env in self.envs:
                env.close()


class Turn:
    """What one reset or step said, by the contract, checked.

    Attributes:
        seen: Dict of the observations of those that act next.
        ended: Dict from the agents that ended to tuples of terminated, truncated (one
            of which is true) and the last observation or `None`.
        rewards: Dict of floats, of any agents.
        is_over: Bool, whether the episode is.
        infos: Dict by agent.
    """

    def __init__(self, seen, ended, rewards, is_over, infos):
        self.seen = seen
        self.ended = ended
        self.rewards = rewards
        self.is_over = is_over
        self.infos = infos


class Game:
    """One environment and its episode: who lives, who waits, and what is legal.

    Args:
        env: What `make_env` returned.
        name: For messages.
    """

    def __init__(self, env, name):
        self.env = env
        self.name = name
        self.alive: set = set()
        self.gone: set = set()

    def reset(self, seed=None):
        """Starts an episode; returns the first `Turn`."""
        self.alive, self.gone = set(), set()
        result = self.env.reset(seed=seed, options=None)
        if not isinstance(result, tuple) or len(result) != 2:
            self._refuse(
                f"reset returned {result!r:.200}. Expected a tuple of the dicts of "
                "observations and infos"
            )
        seen, infos = result
        return self._turn("reset", seen, {}, {}, {}, infos)

    def step(self, actions):
        """Takes the actions of those that were seen; returns the next `Turn`."""
        result = self.env.step(actions)
        if not isinstance(result, tuple) or len(result) != 5:
            self._refuse(
                f"step returned {result!r:.200}. Expected a tuple of five dicts: "
                "observations, rewards, terminated, truncated, infos"
            )
        return self._turn("step", *result)

    def _turn(self, call, seen, rewards, terminated, truncated, infos):
        for what, given in (
            ("observations", seen),
            ("rewards", rewards),
            ("terminated", terminated),
            ("truncated", truncated),
        ):
            unknown = set(given) - set(self.env.possible_agents) - {ALL}
            if unknown:
                self._refuse(
                    f"{call} returned {what} of {sorted(map(str, unknown))}. Expected "
                    f"some of possible_agents: {self.env.possible_agents}"
                )
        back = self.gone & set(seen)
        if back:
            self._refuse(
                f"{call} returned an observation of {sorted(back)}, who ended earlier "
                "in this episode. Expected another id for another life"
            )
        self.alive |= set(seen)
        all_terminated = bool(terminated.get(ALL, False))
        all_truncated = bool(truncated.get(ALL, False))
        ended = {}
        # In the order of the environment, so that nothing depends on hashes.
        for agent in self.env.possible_agents:
            if agent not in self.alive:
                continue
            own = bool(terminated.get(agent, False))
            cut = bool(truncated.get(agent, False))
            if not (own or cut or all_terminated or all_truncated):
                continue
            own = own or (all_terminated and not cut)
            if not own and agent not in seen:
                self._refuse(
                    f"{call} truncated {agent!r} without its last observation, whose "
                    "value stands for what would have followed. Expected it among the "
                    "observations"
                )
            ended[agent] = (own, not own, seen.get(agent))
        self.alive -= set(ended)
        self.gone |= set(ended)
        seen = {
            agent: seen[agent]
            for agent in self.env.possible_agents
            if agent in seen and agent not in ended
        }
        for agent in seen:
            if action_masks.KEY in (infos.get(agent) or ()):
                self._check_mask(call, agent)
        is_over = all_terminated or all_truncated or not self.alive
        if not is_over and not seen:
            self._refuse(
                f"{call} returned no observation of anybody who lives "
                f"({sorted(self.alive)}), so nobody can act. Expected one at least, or "
                f"{ALL!r} in terminated or truncated"
            )
        rewards = {a: float(r) for a, r in rewards.items() if a != ALL}
        return Turn(seen, ended, rewards, is_over, infos)

    def _check_mask(self, call, agent):
        """Refuses a mask in infos that nobody would read."""
        given = self.env.observation_spaces[agent], self.env.action_spaces[agent]
        if not action_masks.has_mask(*given):
            self._refuse(
                f"{call} returned an {action_masks.KEY!r} in the infos of {agent!r}, "
                "where no policy sees it. Expected it among the observations: "
                "kerasrl.multi_agent.with_action_masks puts it there"
            )

    def _refuse(self, what):
        raise EnvProtocolError(f"{self.name}: {what}. Fix the environment.")
