"""An environment of one agent in Tuple spaces as several, as RLlib 0.3 described it."""

import itertools

import gymnasium
import numpy as np
from gymnasium import spaces

from kerasrl import checks
from kerasrl.multi_agent.env import MultiAgentEnv
from kerasrl.multi_agent.team_env import flat_size, flatten_one
from kerasrl.multi_agent.wrappers import Factory
from kerasrl.spaces import leaves


class _Split(MultiAgentEnv):
    """An environment of one agent as several; see `split_tuple`."""

    def __init__(self, env, obs_shapes, act_shapes):
        self.env = self.made_of = env
        self._sizes = obs_shapes
        acts = env.action_space
        self._is_tuple = isinstance(acts, spaces.Tuple)
        parts = list(acts.spaces) if self._is_tuple else [acts]
        widths = [sum(map(_width, leaves(part))) for part in parts]
        for name, given, total in (
            ("obs_shapes", obs_shapes, flat_size(env.observation_space)),
            ("act_shapes", act_shapes, sum(widths)),
        ):
            if sum(given) != total:
                raise ValueError(
                    f"Received {name}={given}, {sum(given)} numbers in all. Those of "
                    f"the environment are {total}: {env.observation_space}, {acts}."
                )
        ends = list(itertools.accumulate(widths))
        borders = [0, *itertools.accumulate(act_shapes)]
        if not set(borders[1:]) <= set(ends):
            raise ValueError(
                f"Received act_shapes={act_shapes}. Expected sums of the sizes of "
                f"parts next to each other, which are {widths}: {acts}."
            )
        cuts = [0, *(ends.index(border) + 1 for border in borders[1:])]
        self.possible_agents = [f"agent_{k}" for k in range(len(act_shapes))]
        self.observation_spaces, self.action_spaces = {}, {}
        infinite = float("inf")
        for k, agent in enumerate(self.possible_agents):
            shape = (obs_shapes[k],)
            self.observation_spaces[agent] = spaces.Box(-infinite, infinite, shape)
            own = parts[cuts[k] : cuts[k + 1]]
            self.action_spaces[agent] = own[0] if len(own) == 1 else spaces.Tuple(own)
        self._counts = [b - a for a, b in itertools.pairwise(cuts)]

    def reset(self, *, seed=None, options=None):
        seen, info = self.env.reset(seed=seed, options=options)
        return self._parts(seen), dict.fromkeys(self.possible_agents, info)

    def step(self, actions):
        joint = []
        for agent, count in zip(self.possible_agents, self._counts, strict=True):
            joint += [actions[agent]] if count == 1 else list(actions[agent])
        seen, reward, terminated, truncated, info = self.env.step(
            tuple(joint) if self._is_tuple else joint[0]
        )
        rewards = dict.fromkeys(self.possible_agents, float(reward))
        flags = ({"__all__": bool(flag)} for flag in (terminated, truncated))
        infos = dict.fromkeys(self.possible_agents, info)
        return self._parts(seen), rewards, *flags, infos

    def close(self):
        self.env.close()

    def _parts(self, seen):
        flat = flatten_one(self.env.observation_space, seen).astype(np.float32)
        parts = np.split(flat, np.cumsum(self._sizes)[:-1])
        return dict(zip(self.possible_agents, parts, strict=True))


def _width(leaf):
    """How many numbers an action has; a choice is one."""
    return int(np.prod(leaf.shape, dtype=int))


def split_tuple(env, obs_shapes, act_shapes):
    """Makes several agents of one that observes and acts in Tuple spaces.

    Each sees a part of the flattened observation, takes some parts of the action, and
    gets the reward and the infos of the whole.

    Args:
        env: Id of gymnasium, a `gymnasium.Env`, or a function that makes one.
        obs_shapes: List of integers, how many numbers each agent observes.
        act_shapes: List of integers, how many numbers the actions of each have.

    Returns:
        A `MultiAgentEnv` for an instance, else a function that makes such.

    Raises:
        ValueError: Sizes are not those of the environment.
    """
    sizes = _sizes("obs_shapes", obs_shapes), _sizes("act_shapes", act_shapes)
    if len(sizes[0]) != len(sizes[1]):
        raise ValueError(
            f"Received obs_shapes={sizes[0]} and act_shapes={sizes[1]}. Expected one "
            "of each for every agent."
        )
    if isinstance(env, gymnasium.Env):
        return _Split(env, *sizes)
    if isinstance(env, str):
        return Factory(
            lambda config: _Split(gymnasium.make(env, **config), *sizes), env
        )
    if not callable(env):
        raise TypeError(f"Received env={env!r:.200}. Expected an environment of gym.")
    name = getattr(env, "__name__", "env")
    return Factory(lambda config: _Split(env(**config), *sizes), name)


def _sizes(name, given):
    if not isinstance(given, (list, tuple)) or not given:
        raise TypeError(f"Received {name}={given!r:.100}. Expected a list of integers.")
    return [checks.positive_integer(name, each) for each in given]


#: Options of RLlib 0.3 for several agents with one reward.
OPTIONS = ("obs_shapes", "act_shapes", "shared_model", "fcnet_hiddens")


def from_custom_options(run, env, custom_options, config=None):
    """Makes what RLlib 0.3 described by `model["custom_options"]`, and its environment.

    | option | here |
    |---|---|
    | `multiagent_obs_shapes`, `multiagent_act_shapes` | `split_tuple` |
    | `multiagent_shared_model` | one policy, `"shared"`, or one for each agent |
    | `multiagent_fcnet_hiddens` | `hidden_units` of each policy, `[[256, 256]]` |

    Args:
        run: Class of an algorithm, such as `kerasrl.PPO`.
        env: As for `split_tuple`.
        custom_options: Dict of these; other keys are refused.
        config: Dict of arguments of the algorithm, without `policy`.

    Returns:
        Tuple of a `kerasrl.MultiAgent` and what to `fit` it to.

    Example:

    ```python
    options = {
        "multiagent_obs_shapes": [3, 3],
        "multiagent_act_shapes": [1, 1],
        "multiagent_shared_model": True,
        "multiagent_fcnet_hiddens": [[32, 32]],
    }
    agent, env = from_custom_options(kerasrl.PPO, MyTupleEnv, options)
    agent.fit(env, steps=100_000)
    ```
    """
    from kerasrl.multi_agent import settings
    from kerasrl.multi_agent.agent import MultiAgent

    options = dict(checks.mapping("custom_options", custom_options))
    config = dict(checks.mapping("config", config or {}))
    unknown = set(options) - {f"multiagent_{name}" for name in OPTIONS}
    if unknown or "policy" in config:
        raise ValueError(
            f"Received {sorted(unknown) or 'policy'}. Expected of custom_options "
            f"{['multiagent_' + name for name in OPTIONS]}, and no policy in config."
        )
    shapes = [options.get(f"multiagent_{name}") for name in OPTIONS[:2]]
    made = split_tuple(env, *shapes)
    count = len(shapes[1])
    is_shared = checks.flag(
        "multiagent_shared_model", options.get("multiagent_shared_model", False)
    )
    hiddens = options.get("multiagent_fcnet_hiddens", [[256, 256]])
    if not isinstance(hiddens, (list, tuple)) or not all(
        isinstance(each, (list, tuple)) for each in hiddens
    ):
        raise TypeError(
            f"Received multiagent_fcnet_hiddens={hiddens!r:.100}. Expected a list of "
            "lists of widths: [[256, 256]] for all, or one for each agent."
        )
    differ = len(set(map(tuple, hiddens))) > 1
    if len(hiddens) not in (1, count) or (is_shared and differ):
        raise ValueError(
            f"Received multiagent_fcnet_hiddens={hiddens} with multiagent_shared_model="
            f"{is_shared}. Expected a list of widths for all, or one for each of "
            f"{count} agents; all alike if the model is shared."
        )
    hiddens = list(hiddens) * (count if len(hiddens) == 1 else 1)
    names = ["shared"] if is_shared else [f"agent_{k}" for k in range(count)]
    seed = config.pop("seed", None)
    agents = {
        name: run(
            policy={"hidden_units": tuple(hiddens[k])},
            seed=None if seed is None else settings.seed_of(seed, k),
            **config,
        )
        for k, name in enumerate(names)
    }
    return MultiAgent(agents, seed=seed), made
