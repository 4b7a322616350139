"""Environments of PettingZoo by the one contract; the package is not imported here."""

from kerasrl.multi_agent.env import MultiAgentEnv

_KINDS = ("parallel", "aec")


def is_aec(env):
    """Whether an object is an environment in which agents take turns."""
    return all(hasattr(env, name) for name in ("agent_iter", "last", "possible_agents"))


def is_parallel(env):
    """Whether an object is an environment in which agents act at once."""
    # `agents` may be there only after the first reset.
    space = getattr(type(env), "observation_space", None)
    return callable(space) and hasattr(env, "possible_agents")


def make(name, config):
    """Makes an environment by its name.

    Args:
        name: `"pettingzoo:parallel:ID"` or `"pettingzoo:aec:ID"`, the id as of
            `pettingzoo.make`, such as `"classic/tictactoe-v3"`; or, of another package,
            `"pettingzoo:parallel:mpe2.simple_spread_v3"`, a module that has
            `parallel_env` and `env`.
        config: Dict of arguments for making it.

    Raises:
        ValueError: The name is none of these, or nobody knows it.
        ImportError: A package is missing; the message names the extra.
    """
    kind, _, which = name.removeprefix("pettingzoo:").partition(":")
    if kind not in _KINDS or not which:
        raise ValueError(
            f'Received env={name!r}. Expected "pettingzoo:parallel:ID" or '
            '"pettingzoo:aec:ID", such as "pettingzoo:aec:classic/tictactoe-v3".'
        )
    import importlib

    extra = "mpe" if which.startswith("mpe2") else "pettingzoo"
    try:
        if "/" not in which:
            module = importlib.import_module(which)
            return getattr(module, "parallel_env" if kind == "parallel" else "env")(
                **config
            )
        package = importlib.import_module("pettingzoo")
    except ImportError as error:
        raise ImportError(
            f"{name!r} needs a package that is not installed ({error}): pip install "
            f"kerasrl[{extra}], and what the environment itself needs."
        ) from error
    if not hasattr(package, "make"):
        raise ImportError(
            f"{name!r} needs PettingZoo 1.27 or newer, which has pettingzoo.make. "
            "Upgrade it, or give the environment itself."
        )
    return package.make(kind, which, **config)


class _Adapter(MultiAgentEnv):
    """What both kinds have in common."""

    def __init__(self, env):
        self.env = self.made_of = env
        self.possible_agents = list(env.possible_agents)
        agents = self.possible_agents
        self.observation_spaces = {a: env.observation_space(a) for a in agents}
        self.action_spaces = {a: env.action_space(a) for a in agents}

    @property
    def state_space(self):
        """Space of `state()`, `None` if the environment does not say."""
        try:
            return self.env.state_space
        except (AttributeError, NotImplementedError):
            return None

    def state(self):
        return self.env.state()

    def close(self):
        self.env.close()


class ParallelAdapter(_Adapter):
    """An environment of PettingZoo's parallel API.

    One that PettingZoo itself made of agents that take turns is stepped as what it was
    made of: the wrappers that only check observe everybody twice, and take half of the
    time of small environments. The outcome is the same.

    Args:
        env: A `pettingzoo.ParallelEnv` or what has its members.
    """

    def __init__(self, env):
        super().__init__(env)
        self._turns = _made_of_turns(env)

    def reset(self, *, seed=None, options=None):
        return self.env.reset(seed=seed, options=options)

    def step(self, actions):
        step = self.env.step if self._turns is None else self._step_turns
        seen, rewards, terminated, truncated, infos = step(actions)
        # Whoever is left out of `agents` will not act again.
        left = set(self.env.agents)
        gone = {*seen, *terminated, *truncated} - left
        cut = {a for a in gone if truncated.get(a) and not terminated.get(a)}
        terminated = dict.fromkeys(gone - cut, True)
        truncated = dict.fromkeys(cut, True)
        terminated["__all__"] = not left
        return seen, rewards, terminated, truncated, infos

    def _step_turns(self, actions):
        """As `aec_to_parallel_wrapper.step`."""
        env = self._turns
        rewards = dict.fromkeys(env.agents, 0)
        for agent in list(env.agents):
            if agent != env.agent_selection:
                raise AssertionError(
                    f"{self.env} should ask {agent!r} next, but asks "
                    f"{env.agent_selection!r}. Agents of a parallel environment act in "
                    "a cycle, and die at its end."
                )
            env.step(actions[agent])
            for each in env.agents:
                rewards[each] = rewards.get(each, 0) + env.rewards[each]
        flags = [dict(given) for given in (env.terminations, env.truncations)]
        infos = dict(env.infos)
        seen = {agent: env.observe(agent) for agent in env.agents}
        while env.agents and (
            env.terminations[env.agent_selection]
            or env.truncations[env.agent_selection]
        ):
            env.step(None)
        self.env.agents = env.agents
        return seen, rewards, *flags, infos


#: Wrappers of PettingZoo that change nothing.
_CHECKS = ("OrderEnforcingWrapper", "AssertOutOfBoundsWrapper")


def _made_of_turns(env):
    """What `pettingzoo.utils.aec_to_parallel` was given, less checks; else `None`."""
    module = type(env).__module__
    if (module, type(env).__name__) != (
        "pettingzoo.utils.conversions",
        "aec_to_parallel_wrapper",
    ):
        return None
    env = env.aec_env
    while type(env).__name__ in _CHECKS and type(env).__module__.startswith(
        "pettingzoo.utils.wrappers."
    ):
        env = env.env
    return env


class AECAdapter(_Adapter):
    """An environment of PettingZoo's AEC API, in which agents take turns.

    An agent gets all its rewards since it last acted when it is selected again, or is
    dead: the loser of a game, too, whose reward comes by the move of the other.

    Args:
        env: A `pettingzoo.AECEnv` or what has its members.
    """

    def reset(self, *, seed=None, options=None):
        self.env.reset(seed=seed, options=options)
        agent = self.env.agent_selection
        seen, _, _, _, info = self.env.last()
        return {agent: seen}, {agent: info}

    def step(self, actions):
        env = self.env
        env.step(actions[env.agent_selection])
        observations, rewards, terminated, truncated, infos = {}, {}, {}, {}, {}
        while env.agents:
            agent = env.agent_selection
            seen, reward, is_terminated, is_truncated, info = env.last()
            observations[agent], infos[agent] = seen, info
            rewards[agent] = rewards.get(agent, 0.0) + reward
            if not (is_terminated or is_truncated):
                break
            terminated[agent] = bool(is_terminated)
            truncated[agent] = bool(is_truncated and not is_terminated)
            env.step(None)
        terminated["__all__"] = not env.agents
        return observations, rewards, terminated, truncated, infos
