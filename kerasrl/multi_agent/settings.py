"""Several policies described by plain data, as files and the command line have them."""

from kerasrl import agents, checks
from kerasrl.multi_agent.env import MultiEnvironments
from kerasrl.multi_agent.rules import RandomPolicy, either_side
from kerasrl.multi_agent.self_play import Opponents


def check_env(env, env_config=None):
    """Makes an environment of several agents once; a bad choice is an error."""
    MultiEnvironments(env, 1, env_config).close()


def seed_of(seed, number):
    """Returns the seed of a policy, another than that of the whole, and known.

    Args:
        seed: Integer, that of the whole.
        number: Integer, of the policy.
    """
    return (seed + 1 + number) % 2**31


def from_settings(cls, settings):
    """Makes a `MultiAgent` of plain data.

    Args:
        cls: `MultiAgent` or a subclass.
        settings: Dict of its arguments. In `agents`, a policy is the name of an
            algorithm (`"PPO"`), `"random"`, `"past:main"` for `Opponents("main")`, or a
            dict of `"run"`, one of these, and `"config"`, arguments of it.
            `mapping` may be `"either_side"`.

    Raises:
        ValueError: A name is not known.

    Example:

    ```python
    policies = {"main": "PPO", "past": "past:main"}
    settings = {"agents": policies, "mapping": "either_side"}
    agent = kerasrl.MultiAgent.from_settings(settings)
    ```
    """
    settings = dict(settings)
    described = settings.pop("agents", None)
    if not isinstance(described, dict) or not described:
        raise ValueError(
            f"Received agents={described!r:.200}. Expected a dict from ids of policies "
            'to names of algorithms, such as {"main": "PPO"}.'
        )
    mapping = settings.pop("mapping", None)
    if isinstance(mapping, str):
        if mapping != "either_side":
            raise ValueError(
                f'Received mapping={mapping!r}. Expected "either_side", or a dict from '
                "agents to ids of policies."
            )
        mapping = either_side
    seed = settings.get("seed")
    made = {}
    for number, (name, each) in enumerate(described.items()):
        run, config = each, {}
        if isinstance(each, dict):
            unknown = set(each) - {"run", "config"}
            if unknown or "run" not in each:
                raise ValueError(
                    f"Received {name!r}: {each!r:.200}. Expected the keys run and "
                    "config."
                )
            run, config = each["run"], checks.mapping("config", each.get("config", {}))
        if seed is not None and run != "random" and not str(run).startswith("past:"):
            config = {"seed": seed_of(seed, number), **config}
        made[name] = _make(name, run, config)
    return cls(made, mapping, **settings)


def _make(name, run, config):
    if run == "random":
        return RandomPolicy(**config)
    if isinstance(run, str) and run.startswith("past:"):
        return Opponents(run.removeprefix("past:"), **config)
    known = {n: cls for n, cls in vars(agents).items() if _is_algorithm(cls)}
    found = known.get(run) if isinstance(run, str) else None
    if found is None:
        raise ValueError(
            f"Received {run!r:.80} as the policy {name!r}. "
            f"{checks.nearest(str(run), [*known, 'random'])}"
        )
    return found(**config)


def _is_algorithm(value):
    bases = (agents.Agent, agents.OnPolicyAgent, agents.OffPolicyAgent)
    return isinstance(value, type) and issubclass(value, bases) and value not in bases
